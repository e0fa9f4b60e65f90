"""Recorded episodes for replay: from npz files, SB3's replay buffers and Minari datasets."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_dreamer.common.checks import Place, check_observation, check_reward
from sb3_dreamer.common.spaces import ActionCodec, as_dict, space_dict
from sb3_dreamer.core.types import ObsKey
from sb3_dreamer.hints import near

ROUNDING = 1e-3  #: of Box actions scaled to [-1, 1], beyond their bounds


class Episode(NamedTuple):
    """One recorded episode of L steps.

    :param obs: by key, ``(L + 1, ...)``: the reset observation first, the final one last
    :param action: in replay form, ``(L, parts)``
    :param reward: ``(L,)``
    :param terminated: the task ended it; False: it was cut
    """

    obs: dict[str, np.ndarray]
    action: np.ndarray
    reward: np.ndarray
    terminated: bool


@runtime_checkable
class Rings(Protocol):
    """What episodes are written to: the rows of a replay buffer."""

    observation_space: spaces.Space
    codec: ActionCodec
    keys: tuple[ObsKey, ...]
    arrays: dict[str, np.ndarray]
    ring: int
    n_envs: int
    cursor: np.ndarray
    filled: np.ndarray
    written: np.ndarray
    starts_episode: np.ndarray

    def allocate(self) -> None:
        """Take the memory."""

    def write_row(
        self,
        env: int,
        obs: dict[str, np.ndarray],
        action: np.ndarray,
        reward: float,
        *,
        is_first: bool = False,
        is_last: bool = False,
        is_terminal: bool = False,
    ) -> None:
        """Write the next row of one environment."""


def add_episodes(buffer: Rings, source: Any) -> int:
    """Write episodes to the rings, each to the one that was given least.

    :raises ValueError: if an episode does not fit the spaces (nothing of it is stored), or while one is running
    """
    if not buffer.starts_episode.all():
        raise ValueError(
            "an episode is running: add recorded episodes before learn(), or end it with model.replay_buffer.cut()"
        )
    buffer.allocate()
    count = 0
    for count, recorded in enumerate(read_episodes(source, buffer.codec), start=1):
        episode = _checked(buffer, recorded, count - 1)
        env, last = int(buffer.written.argmin()), len(episode.reward)
        for row in range(last + 1):
            obs = {key.name: episode.obs[key.name][row] for key in buffer.keys}
            action = episode.action[row - 1] if row else np.zeros(buffer.codec.parts, buffer.codec.replay_dtype)
            buffer.write_row(
                env,
                obs,
                action,
                float(episode.reward[row - 1]) if row else 0.0,
                is_first=row == 0,
                is_last=row == last,
                is_terminal=row == last and episode.terminated,
            )
    return count


def read_episodes(source: Any, codec: ActionCodec) -> Iterator[Episode]:
    """Read episodes from whatever holds them.

    :param source: one of

        - a dict, or the name of an npz file (one episode), or a list or generator of these: ``observations``
          ``(L + 1, ...)``, for a Dict space a dict of these, or ``observations.<key>`` for each key; ``actions``
          ``(L, ...)`` as the environment takes them; ``rewards`` ``(L,)``; ``terminated``, a bool or the flags of all
          steps (default: False, the episode was cut). ``truncated`` may be there and is not looked at
        - the same with the names of :class:`sb3_dreamer.wrappers.EpisodeRecorder`, whose rows ``(L + 1, ...)`` are
          ``obs`` or ``obs/<key>``, ``prev_action``, ``reward`` and ``is_terminal``
        - a :class:`stable_baselines3.common.buffers.ReplayBuffer`, or another model's replay buffer
        - a Minari dataset, or anything else with ``iterate_episodes()``
    :param codec: of the actions
    :raises TypeError: for anything else
    """
    if isinstance(source, ReplayBuffer):
        yield from _from_rings(source) if isinstance(source, Rings) else _from_sb3(source)
    elif hasattr(source, "iterate_episodes"):
        for found in source.iterate_episodes():
            obs = {key: np.asarray(value) for key, value in as_dict(found.observations).items()}
            yield _episode(codec, obs, found.actions, found.rewards, found.terminations)
    elif isinstance(source, dict):
        yield _from_dict(codec, source)
    elif isinstance(source, str | os.PathLike):
        with np.load(Path(source), allow_pickle=False) as file:
            yield _from_dict(codec, dict(file))
    elif isinstance(source, Sequence | Iterator):
        for part in source:
            yield from read_episodes(part, codec)
    else:
        raise TypeError(
            f"add_episodes() got a {type(source).__name__}: pass a dict, the name of an npz file, an SB3 ReplayBuffer, "
            "a Minari dataset, or a list or generator of these"
        )


def _from_dict(codec: ActionCodec, data: dict[str, Any]) -> Episode:
    data = _as_ours(data) if "prev_action" in data else data
    prefix = "observations."
    obs = {name.removeprefix(prefix): np.asarray(value) for name, value in data.items() if name.startswith(prefix)}
    if "observations" in data:
        obs = {name: np.asarray(value) for name, value in as_dict(data["observations"]).items()}
    known = ("observations", "actions", "rewards", "terminated", "truncated")
    for name in data.keys() - known:
        if not name.startswith(prefix):
            raise ValueError(
                f"the episode has {name!r}, which is unknown{near(name, known)}: it may have {', '.join(known)} and "
                f"{prefix}<key>"
            )
    missing = [name for name in ("actions", "rewards") if name not in data] + ([] if obs else ["observations"])
    if missing:
        raise ValueError(f"the episode has no {', '.join(missing)}: it has {', '.join(sorted(data)) or 'nothing'}")
    return _episode(codec, obs, data["actions"], data["rewards"], data.get("terminated", False))


def _as_ours(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return what EpisodeRecorder wrote under our names.

    Its row t holds the action and the reward that led to observation t; nothing led to row 0.
    """
    names = {"obs": "observations", "is_terminal": "terminated"}
    shifted = {"prev_action": "actions", "reward": "rewards"}
    kept = {name: value for name, value in recorded.items() if name not in (*shifted, "is_first", "is_last")}
    renamed = {names.get(name, name.replace("obs/", "observations.", 1)): value for name, value in kept.items()}
    return renamed | {new: np.asarray(recorded[name])[1:] for name, new in shifted.items() if name in recorded}


def _episode(codec: ActionCodec, obs: dict[str, np.ndarray], actions: Any, rewards: Any, terminated: Any) -> Episode:
    """One episode, its actions in replay form.

    :param terminated: a bool or the flags of all steps
    :raises ValueError: if there is no step, or the actions are not as the environment takes them
    """
    actions, rewards, space = np.asarray(actions), np.asarray(rewards), codec.space
    if rewards.ndim != 1 or not rewards.size:
        raise ValueError(f"the episode has rewards of shape {rewards.shape}: record one for each step, at least one")
    if not actions.ndim or actions[:1].size != np.prod(space.shape or ()):
        advice = "record them as the environment takes them"
        if isinstance(space, spaces.Discrete) and actions.ndim == 2:
            advice += f" (one-hot vectors: np.argmax(actions, 1) + {space.start})"
        wanted = (len(rewards), *(space.shape or ()))
        raise ValueError(f"the episode has actions of shape {actions.shape}, expected {wanted} for {space}: {advice}")
    return Episode(obs, codec.from_env(actions), rewards, bool(np.asarray(terminated).reshape(-1)[-1]))


def _from_rings(source: Rings) -> Iterator[Episode]:
    """Episodes of a buffer of ours; one whose beginning was overwritten begins with its oldest row."""
    for env in range(source.n_envs if source.arrays else 0):
        order = (source.cursor[env] - source.filled[env] + np.arange(source.filled[env])) % source.ring
        rows = {name: array[env, order] for name, array in source.arrays.items()}
        for part in np.split(np.arange(len(order)), np.flatnonzero(rows["is_first"])):
            if len(part) > 1:
                obs = {key.name: rows[f"obs.{key.name}"][part] for key in source.keys}
                action, reward = (rows[name][part[1:]] for name in ("action", "reward"))
                yield Episode(obs, action, reward, bool(rows["is_terminal"][part[-1]]))


def _from_sb3(source: ReplayBuffer) -> Iterator[Episode]:
    """Episodes of an SB3 buffer, whose Box actions are scaled to [-1, 1] already.

    Each environment's transitions are followed in time; an episode ends at ``dones``, or where the next transition
    begins with another observation. ``optimize_memory_usage`` buffers do not keep final observations.
    """
    if source.optimize_memory_usage:
        raise ValueError("an SB3 buffer with optimize_memory_usage=True has no final observations: record without it")
    order = np.roll(np.arange(source.buffer_size), -source.pos) if source.full else np.arange(source.pos)
    for env in range(source.n_envs):
        before, after = (
            {key: np.asarray(value)[order, env] for key, value in as_dict(part).items()}
            for part in (source.observations, source.next_observations)
        )
        done, cut = source.dones[order, env].astype(bool), source.timeouts[order, env].astype(bool)
        begin = 0
        for step in range(len(order)):
            last = step + 1 == len(order)
            goes_on = not last and all(np.array_equal(after[key][step], before[key][step + 1]) for key in before)
            if done[step] or not goes_on:
                part = slice(begin, step + 1)
                obs = {key: np.concatenate([before[key][part], after[key][step : step + 1]]) for key in before}
                action = source.actions[order[part], env].reshape(step + 1 - begin, -1)
                reward = source.rewards[order[part], env]
                yield Episode(obs, action, reward, bool(done[step] and not cut[step]))
                begin = step + 1


def _checked(buffer: Rings, episode: Episode, index: int) -> Episode:
    """The episode, Box actions that exceed their bounds by rounding clipped.

    :raises ValueError: if it does not fit the spaces of the buffer, or holds values that replay must not
    """
    steps, place = len(episode.reward), Place.episode(index)
    episode = episode._replace(obs=_channels_moved(episode.obs, buffer.observation_space))
    if steps < 1 or episode.action.shape != (steps, buffer.codec.parts):
        raise ValueError(
            f"episode {index} has {steps} rewards and actions {episode.action.shape}, expected "
            f"({max(steps, 1)}, {buffer.codec.parts})"
        )
    for key in (key.name for key in buffer.keys):
        if key in episode.obs and len(episode.obs[key]) != steps + 1:
            raise ValueError(
                f"episode {index}: observation {key!r} has the shape {episode.obs[key].shape}, expected {steps + 1} "
                "rows: one before each reward, and the final one"
            )
    ignored = tuple(space_dict(buffer.observation_space).keys() - {key.name for key in buffer.keys})
    check_observation(episode.obs, buffer.observation_space, place, ignored)
    check_reward(episode.reward, place)
    if buffer.codec.layout.kind == "discrete":
        return episode
    beyond = np.abs(episode.action).max(1) > 1.0 + ROUNDING
    if beyond.any():
        row = int(beyond.argmax())
        raise ValueError(
            f"{place.refusal('the action', row, f'{episode.action[row]}, scaled to [-1, 1],')}. Record actions as "
            "the environment executed them: np.clip(actions, space.low, space.high)"
        )
    return episode._replace(action=episode.action.clip(-1.0, 1.0))


def _channels_moved(obs: dict[str, np.ndarray], space: spaces.Space) -> dict[str, np.ndarray]:
    """The observations, images whose channels are last moved to where Stable-Baselines3 has moved them."""
    moved = dict(obs)
    for key, sub_space in space_dict(space).items():
        shape = sub_space.shape or ()
        if key in obs and len(shape) == 3 and obs[key].shape[1:] == (*shape[1:], shape[0]) != shape:
            moved[key] = np.moveaxis(obs[key], -1, 1)
    return moved
