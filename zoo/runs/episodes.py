"""Let an agent act, episode by episode."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from sb3_dreamer.zoo.config.errors import plural


class Episode(NamedTuple):
    """A finished episode.

    :param env_index: of its environment
    :param reward: return
    :param length: agent steps
    """

    env_index: int
    reward: float
    length: int


def play(
    model: Any,
    env: Any,
    deterministic: bool,
    *,
    n_steps: int | None = None,
    n_episodes: int | None = None,
    on_state: Callable[[], None] | None = None,
) -> Iterator[Episode]:
    """Act until enough steps or episodes are done, yielding every episode that ends.

    With ``n_episodes`` each environment contributes its share, so that short episodes are not favored.

    :param model: has ``predict``
    :param env: monitored vector environment
    :param deterministic: take the most likely action
    :param n_steps: agent steps over all environments
    :param n_episodes: whole episodes, instead
    :param on_state: called before the agent acts, hence never after the reset that ends a video
    """
    obs, state, starts, steps = env.reset(), None, np.ones(env.num_envs, bool), 0
    left = np.array([((n_episodes or 0) + i) // env.num_envs for i in range(env.num_envs)])
    while (steps < n_steps) if n_steps else (left > 0).any():
        if on_state is not None:
            on_state()
        action, state = model.predict(obs, state=state, episode_start=starts, deterministic=deterministic)
        obs, _, starts, infos = env.step(action)
        steps += env.num_envs
        for index in np.flatnonzero(starts):
            if n_steps or left[index] > 0:
                left[index] -= 1
                episode = infos[index]["episode"]
                yield Episode(int(index), float(episode["r"]), int(episode["l"]))


def mean_in_words(episodes: Sequence[Episode]) -> str:
    """Say the mean return and length."""
    if not episodes:
        return "No episode ended: pass more steps with -n, or whole episodes with --n-episodes."
    _, returns, lengths = np.array(episodes).T
    return (
        f"Mean return {returns.mean():.2f} +- {returns.std():.2f}, "
        f"mean length {lengths.mean():.2f} +- {lengths.std():.2f} over {plural(len(episodes), 'episode')}"
    )
