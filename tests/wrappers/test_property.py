"""Random stacks of wrappers keep spaces, dtypes, determinism, frame counts and the rules of episode ends."""

import numpy as np
import pytest

from sb3_dreamer.wrappers import (
    ActionRepeat,
    DiscountInfo,
    FilterKeys,
    FrameCounter,
    FrameLimit,
    LifeLoss,
    NoopReset,
    NormalizeAction,
    OneHotAction,
    PixelObservation,
    ResizeFrame,
    SquashReward,
    StackChannels,
    TidyObservation,
)

hypothesis = pytest.importorskip("hypothesis")
strategies = hypothesis.strategies

WRAPPERS = {
    "repeat": (ActionRepeat, strategies.integers(1, 4)),
    "pool": (lambda env, n: ActionRepeat(env, n, max_pool=2), strategies.integers(2, 4)),
    "limit": (FrameLimit, strategies.integers(1, 15)),
    "lives": (LifeLoss, strategies.sampled_from(["discount", "reset"])),
    "discount": (DiscountInfo, strategies.booleans()),
    "noops": (lambda env, n: NoopReset(env, 0, n), strategies.integers(0, 4)),
    "counter": (lambda env, _: FrameCounter(env), strategies.none()),
    "squash": (SquashReward, strategies.sampled_from(["clip", "tanh", "symlog", "sign", None])),
    "resize": (ResizeFrame, strategies.integers(2, 9)),
    "grayscale": (lambda env, n: ResizeFrame(env, n, grayscale=True), strategies.integers(2, 9)),
    "pixels": (lambda env, keep: PixelObservation(env, 6, keep_state=keep), strategies.booleans()),
    "tidy": (lambda env, _: TidyObservation(env), strategies.none()),
    "filter": (
        lambda env, names: FilterKeys(env, include=names),
        strategies.sampled_from([".*", "vector|image", "image"]),
    ),
    "stack": (StackChannels, strategies.integers(2, 3)),
    "one_hot": (lambda env, _: OneHotAction(env), strategies.none()),
    "normalize": (lambda env, _: NormalizeAction(env), strategies.none()),
}
LAYER = strategies.sampled_from(sorted(WRAPPERS)).flatmap(
    lambda name: strategies.tuples(strategies.just(name), WRAPPERS[name][1])
)


def build(counting, base, layers):
    """Wrap; layers that refuse an environment (with a ValueError that explains itself) are left out."""
    env, used = counting(**base), []
    for name, argument in layers:
        if name == "lives" and not base["lives"]:  # refused in reset
            continue
        try:
            env = WRAPPERS[name][0](env, argument)
            used.append(name)
        except ValueError as error:
            assert len(str(error)) > 20
    return env, used


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return np.array_equal(a, b)


def play(env, seed, steps=25):
    """Play random steps with all checks; return everything seen."""
    env.action_space.seed(seed)
    obs, _ = env.reset(seed=seed)
    trace, over = [obs], False
    for _ in range(steps):
        if over:
            obs, _ = env.reset()
            trace.append(obs)
        before = env.unwrapped.t
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs), (env.observation_space, obs)
        assert isinstance(float(reward), float) and np.isfinite(reward)
        assert info.get("frames", 1) == env.unwrapped.t - before >= 1
        over = bool(terminated or truncated)
        trace += [obs, float(reward), bool(terminated), bool(truncated), info.get("discount")]
    return trace


@hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(
    base=strategies.fixed_dictionaries(
        {
            "length": strategies.integers(1, 12),
            "end": strategies.sampled_from(["terminated", "truncated"]),
            "kind": strategies.sampled_from(["vector", "image", "dict"]),
            "action": strategies.sampled_from(["discrete", "box"]),
            "lives": strategies.sampled_from([0, 3]),
        }
    ),
    layers=strategies.lists(LAYER, max_size=6),
    seed=strategies.integers(0, 2**31 - 1),
)
def test_random_stacks(counting, base, layers, seed):
    env, used = build(counting, base, layers)
    first = play(env, seed)
    assert all(same(a, b) for a, b in zip(first, play(env, seed), strict=True)), "the same seed gave another episode"
    fresh, _ = build(counting, base, layers)
    assert all(same(a, b) for a, b in zip(first, play(fresh, seed), strict=True)), "state leaks between episodes"
    ends = [(item, first[i + 1]) for i, item in enumerate(first[:-1]) if item is True or item is False][::2]
    if base["end"] == "truncated" and not ({"discount", "lives"} & set(used)):
        assert not any(terminated for terminated, _ in ends), "a time limit became terminal"
    if base["end"] == "terminated" and "limit" not in used:
        assert not any(truncated for _, truncated in ends), "an end of the task became a time limit"
