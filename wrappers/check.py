"""Check whether an environment is fit for world-model training and report it in words."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dreamer.supported_spaces import action_faults, observation_faults

LEVELS = ("error", "warning", "note")


class Finding(NamedTuple):
    """One thing the check found.

    :param level: ``"error"`` (training would fail or learn nothing), ``"warning"`` or ``"note"``
    :param what: the finding
    :param advice: what to do about it
    """

    level: str
    what: str
    advice: str


class EnvReport(NamedTuple):
    """The result of ``check_dreamer_env``; ``str(report)`` is the text.

    :param facts: name to description, in order
    :param findings: worst first
    """

    facts: dict[str, str]
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Return whether there is no error."""
        return all(finding.level != "error" for finding in self.findings)

    def __str__(self) -> str:
        width = max(len(name) for name in self.facts)
        lines = [f"{name:<{width}}  {text}" for name, text in self.facts.items()]
        lines += [f"{found.level}: {found.what} -> {found.advice}" for found in self.findings]
        return "\n".join([*lines, "no problem found" if not self.findings else ""]).rstrip()


def _leaves(space: spaces.Space[Any], prefix: str = "") -> dict[str, spaces.Space[Any]]:
    """Return the members of a space by name; a plain one is called ``observation``."""
    if isinstance(space, spaces.Dict):
        return {name: leaf for key, sub in space.items() for name, leaf in _leaves(sub, f"{prefix}{key}/").items()}
    return {prefix.rstrip("/") or "observation": space}


def _check_spaces(env: gym.Env) -> list[Finding]:
    """Report what the algorithms refuse in the spaces, and what they take but an author may not mean."""
    faults = observation_faults(env.observation_space) + action_faults(env.action_space)
    found = [Finding("error", fault.what, fault.advice) for fault in faults]
    for name, space in _leaves(env.observation_space).items():
        if not isinstance(space, spaces.Box):
            continue
        if len(space.shape) == 3 and space.dtype != np.uint8:
            advice = "return uint8 from 0 to 255 if it is an image; a float grid is treated as numbers"
            found.append(Finding("warning", f"{name} has an image's shape but dtype {space.dtype}", advice))
        elif len(space.shape) == 3 and space.high.max() < 255:
            advice = "a grid of categories is no image: flatten it or encode it as one-hot"
            found.append(Finding("warning", f"{name} is uint8 only up to {space.high.max()}", advice))
        elif space.dtype == np.float64:
            found.append(Finding("note", f"{name} is float64", "wrap in TidyObservation: float32 halves the replay"))
    action = env.action_space
    unit = isinstance(action, spaces.Box) and np.allclose(action.low, -1) and np.allclose(action.high, 1)
    if isinstance(action, spaces.Box) and not unit and not action_faults(action):
        advice = "the algorithm scales them; NormalizeAction does the same in the environment"
        found.append(Finding("note", f"actions are in {action}", advice))
    return found


class _Rollout:
    """Observations, rewards and ends over random steps."""

    def __init__(self) -> None:
        self.samples: dict[str, list[np.ndarray]] = {}
        self.rewards: list[float] = []
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.terminated = self.truncated = self.both = 0
        self.bad: dict[str, str] = {}
        self.seconds = 0.0


def _flat(obs: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of an observation by name; a plain one is called ``observation``."""
    if isinstance(obs, dict):
        return {name: leaf for key, sub in obs.items() for name, leaf in _flat(sub, f"{prefix}{key}/").items()}
    try:
        np.asarray(obs)
    except ValueError:  # parts of several shapes: a kind of space that is refused anyway
        return {}
    return {prefix.rstrip("/") or "observation": obs}


def _note_observation(run: _Rollout, obs: Any, spaces_of: dict[str, spaces.Space[Any]], keep: bool) -> None:
    for name, value in _flat(obs).items():
        space = spaces_of.get(name)
        if space is None:
            run.bad.setdefault(name, "is not in the observation space")
            continue
        array = np.asarray(value)
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            run.bad.setdefault(name, "contains NaN or infinity")
        elif not space.contains(value):
            seen = (
                f"shape {array.shape}, {array.dtype}, {array.min():.4g} to {array.max():.4g}" if array.size else "empty"
            )
            run.bad.setdefault(name, f"is outside its space {space} ({seen})")
        if keep:
            run.samples.setdefault(name, []).append(array.copy())


def _roll(env: gym.Env, steps: int, seed: int) -> _Rollout:
    """Take random steps."""
    run, spaces_of = _Rollout(), _leaves(env.observation_space)
    env.action_space.seed(seed)
    obs, _ = env.reset(seed=seed)
    _note_observation(run, obs, spaces_of, keep=True)
    total, length = 0.0, 0
    every = max(1, steps // 200)  # 200 observations are enough to find constants and copies, and fit in memory
    for step in range(steps):
        begin = time.perf_counter()
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        run.seconds += time.perf_counter() - begin
        _note_observation(run, obs, spaces_of, keep=step % every == 0)
        run.rewards.append(float(reward))
        total, length = total + float(reward), length + 1
        run.terminated += bool(terminated)
        run.truncated += bool(truncated)
        run.both += bool(terminated and truncated)
        if terminated or truncated:
            run.returns.append(total)
            run.lengths.append(length)
            total, length = 0.0, 0
            obs, _ = env.reset()
            _note_observation(run, obs, spaces_of, keep=True)
    return run


def check_dreamer_env(env: gym.Env, steps: int = 1000, seed: int = 0) -> EnvReport:
    """Take random steps and report on spaces, values, rewards, episode ends, seeding and speed.

    :param env: any gymnasium environment; it is stepped and reset, not closed
    :param steps: random steps (default 1,000)
    :param seed: seed of the steps
    :return: report; ``print`` it
    :raises ValueError: if ``env`` is no gymnasium environment or ``steps`` not positive
    """
    if not isinstance(env, gym.Env):
        raise ValueError(f"{type(env).__name__} is no gymnasium.Env; check one environment, not a vector of them.")
    if steps < 1:
        raise ValueError(f"steps={steps!r}: must be at least 1.")
    findings = _check_spaces(env)
    run = _roll(env, steps, seed)
    findings += [Finding("error", f"{key} {what}", _ADVICE_BAD) for key, what in run.bad.items()]
    findings += _check_keys(run) + _check_rewards(run) + _check_ends(run, steps) + _check_seeding(env, seed)
    speed = steps / max(run.seconds, 1e-9)
    if speed < 100:
        advice = "use several environments in processes (make_vec_env), a smaller image or a larger action_repeat"
        findings.append(Finding("note", f"a step takes {1000 / speed:.0f} ms", advice))
    findings.sort(key=lambda found: LEVELS.index(found.level))
    return EnvReport(_facts(env, run, speed), findings)


_ADVICE_BAD = "correct the environment, or its observation_space, so that space.contains(observation) is True"


def _facts(env: gym.Env, run: _Rollout, speed: float) -> dict[str, str]:
    facts = {f"observation {name}": str(space) for name, space in _leaves(env.observation_space).items()}
    rewards = np.array(run.rewards)
    span = " to ".join(map(str, sorted({min(run.lengths), max(run.lengths)}))) if run.lengths else ""
    lengths = span and f", {span} steps long"
    return {
        **facts,
        "action": str(env.action_space),
        "reward": f"{rewards.min():.4g} to {rewards.max():.4g}, mean {rewards.mean():.4g}",
        "episodes": f"{len(run.lengths)} finished ({run.terminated} terminated, {run.truncated} truncated{lengths})",
        "speed": f"{speed:.0f} steps/s",
    }


def _check_keys(run: _Rollout) -> list[Finding]:
    found: list[Finding] = []
    stacks = {name: np.stack(values) for name, values in run.samples.items() if len({v.shape for v in values}) == 1}
    for name, stack in stacks.items():
        if len(stack) > 1 and (stack == stack[:1]).all():
            found.append(Finding("warning", f"{name} never changed", "drop it (FilterKeys): it teaches nothing"))
    names = list(stacks)
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            if stacks[name].shape == stacks[other].shape and np.array_equal(stacks[name], stacks[other]):
                found.append(Finding("warning", f"{name} and {other} are always equal", "drop one (FilterKeys)"))
    return found


def _check_rewards(run: _Rollout) -> list[Finding]:
    rewards = np.array(run.rewards)
    if not np.isfinite(rewards).all():
        return [Finding("error", "a reward is NaN or infinite", "correct the environment: no return can be computed")]
    found: list[Finding] = []
    if (rewards == rewards[0]).all() and (rewards[0] == 0 or not run.lengths):
        advice = "check with a scripted player that rewards exist; random steps may be too few for a sparse one"
        found.append(Finding("warning", f"every reward was {rewards[0]:.4g}", advice))
    if np.abs(rewards).max() > 1e4:
        advice = "fine for DreamerV3 (symlog); scale it for PlaNet and DreamerV2 (reward_scale, reward='tanh')"
        found.append(Finding("warning", f"rewards reach {np.abs(rewards).max():.4g}", advice))
    return found


def _check_ends(run: _Rollout, steps: int) -> list[Finding]:
    found: list[Finding] = []
    if not run.lengths:
        advice = "set a time limit (time_limit=...) unless the task never ends; returns are logged at episode ends"
        found.append(Finding("warning", f"no episode ended in {steps} steps", advice))
    if run.both:
        advice = "terminated wins; set truncated only when the limit alone ended the episode"
        found.append(Finding("note", f"{run.both} episodes ended terminated and truncated at once", advice))
    if run.lengths and min(run.lengths) == 1:
        found.append(Finding("note", "there are episodes of a single step", "allowed; check that it is meant"))
    same = len(run.lengths) > 2 and len(set(run.lengths)) == 1
    if same and run.truncated == 0:
        advice = (
            "if that is a time limit, return truncated=True: terminated means to the agent that the future is worth 0"
        )
        found.append(Finding("warning", f"every episode terminated after exactly {run.lengths[0]} steps", advice))
    return found


def _check_seeding(env: gym.Env, seed: int) -> list[Finding]:
    """Play the same ten actions twice from the same seed."""

    def play() -> list[np.ndarray]:
        env.action_space.seed(seed)
        obs, _ = env.reset(seed=seed)
        trace = [np.asarray(value) for value in _flat(obs).values()]
        for _ in range(10):
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            trace += [*map(np.asarray, _flat(obs).values()), np.asarray(float(reward))]
            if terminated or truncated:
                break
        return trace

    first, second = play(), play()
    equal = len(first) == len(second) and all(map(_same, first, second))
    advice = "draw every random number from self.np_random and call super().reset(seed=seed)"
    return [] if equal else [Finding("warning", "the same seed gave two different episodes", advice)]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
