"""Let an agent act, and show what its world model expects of a stretch of each episode."""

from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_dreamer.common.checks import terminal_observation
from sb3_dreamer.common.open_loop import labeled_frames
from sb3_dreamer.common.policy import WorldModelPolicy
from sb3_dreamer.common.spaces import SINGLE_KEY, as_dict
from sb3_dreamer.core.open_loop import open_loop_errors, predict_open_loop
from sb3_dreamer.core.types import SequenceBatch
from sb3_dreamer.zoo.config.errors import UsageError

LONGEST = 1000  # steps after which an episode is cut


class Dreams(NamedTuple):
    """Open-loop predictions beside what happened.

    :param videos: by image key, ``(T, rows, columns, 3)`` uint8, one episode below the other
    :param errors: by name and steps ahead, as in :func:`sb3_dreamer.core.open_loop.open_loop_errors`
    """

    videos: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]


class Rows(NamedTuple):
    """An episode as arrays ``(T, ...)``, aligned as in a :class:`sb3_dreamer.core.types.SequenceBatch`."""

    obs: dict[str, np.ndarray]
    prev_action: np.ndarray
    reward: np.ndarray
    is_first: np.ndarray
    is_last: np.ndarray
    is_terminal: np.ndarray


def dream(
    model: Any, env: Any, deterministic: bool, *, n_episodes: int, context: int, horizon: int, seed: int = 0
) -> Dreams:
    """Act for some episodes; predict a stretch of each, from a few frames and the actions that were taken.

    A stretch begins anywhere in its episode, and the model knows nothing of what was before.

    :param model: of any algorithm here
    :param env: vector environment; its first one is shown
    :param deterministic: take the most likely action
    :param n_episodes: how many
    :param context: frames that the model sees
    :param horizon: frames that it predicts; fewer if an episode is shorter
    :param seed: of the choice of stretches
    :raises UsageError: if no observation is an image, the model has no decoder, or an episode is too short
    """
    policy = model.policy
    images = [key for key in policy.keys if key.kind == "image"]
    if not images:
        raise UsageError(f"--dream shows images, and {policy.observation_space} has none: leave it out")
    if policy.world_model.decoder is None:
        raise UsageError("--dream shows what the model predicts, and this one has no decoder: leave it out")
    episodes = [act(model, env, deterministic) for _ in range(n_episodes)]
    shortest = min(len(episode.reward) for episode in episodes)
    length = min(context + horizon, shortest)
    if length <= context:
        raise UsageError(f"--dream needs episodes of {context} steps or more, and one has {shortest - 1}")
    rng = np.random.default_rng(seed)
    batch = _to_batch(policy, [_cut(episode, length, rng) for episode in episodes])
    with policy.own_random_state():
        prediction = predict_open_loop(policy.world_model, batch, context)
    errors = open_loop_errors(prediction, batch, policy.keys, context)
    return Dreams(
        {key.name: labeled_frames(prediction, batch, key, context) for key in images},
        {name: value.cpu().numpy() for name, value in errors.items()},
    )


def act(model: Any, env: Any, deterministic: bool) -> Rows:
    """Return an episode of the first environment, cut after ``LONGEST`` steps."""
    codec = model.policy.codec
    obs, state, starts, ended, terminal = env.reset(), None, np.ones(env.num_envs, bool), False, False
    seen, rewards = [{name: value[0] for name, value in as_dict(obs).items()}], [0.0]
    actions: list[np.ndarray] = []
    while not ended and len(actions) < LONGEST:
        action, state = model.predict(obs, state=state, episode_start=starts, deterministic=deterministic)
        obs, reward, starts, infos = env.step(action)
        ended = bool(starts[0])
        terminal = ended and not infos[0].get("TimeLimit.truncated", False)
        last = as_dict(terminal_observation(infos[0], 0) if ended else obs)
        seen.append({name: value if ended else value[0] for name, value in last.items()})
        rewards.append(float(reward[0]))
        actions.append(action[0])
    taken = codec.to_model(th.as_tensor(codec.from_env(np.stack(actions)))).numpy()
    is_first, is_last, is_terminal = np.zeros((3, len(seen)), bool)
    is_first[0], is_last[-1], is_terminal[-1] = True, ended, terminal
    return Rows(
        {name: np.stack([row[name] for row in seen]) for name in seen[0]},
        np.concatenate([np.zeros_like(taken[:1]), taken]),
        np.asarray(rewards, np.float32),
        is_first,
        is_last,
        is_terminal,
    )


def _cut(episode: Rows, length: int, rng: np.random.Generator) -> Rows:
    """Return so many rows in a row, from a random one on."""
    start = int(rng.integers(len(episode.reward) - length + 1))
    part = slice(start, start + length)
    return Rows({name: value[part] for name, value in episode.obs.items()}, *(value[part] for value in episode[1:]))


def _to_batch(policy: WorldModelPolicy, stretches: list[Rows]) -> SequenceBatch:
    """Put stretches of one length together; images become channel-first, as ``predict`` makes them."""
    flat = {name: np.concatenate([stretch.obs[name] for stretch in stretches]) for name in stretches[0].obs}
    tensors = as_dict(policy.obs_to_tensor(flat if len(flat) > 1 or SINGLE_KEY not in flat else flat[SINGLE_KEY])[0])
    lead = (len(stretches), len(stretches[0].reward))
    parts = [th.as_tensor(np.stack(values), device=policy.device) for values in list(zip(*stretches, strict=True))[1:]]
    return SequenceBatch({name: value.unflatten(0, lead) for name, value in tensors.items()}, *parts)
