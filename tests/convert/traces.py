"""The authors' updates (tests/golden/README.md) and models of ours with their weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dreamer import DreamerV2, DreamerV3
from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.convert import copy_weights
from sb3_dreamer.core import action_heads, estimators
from sb3_dreamer.core.types import SequenceBatch
from tests.golden.reduce_traces import BASES, ENTRIES

GOLDEN = Path(__file__).parents[1] / "golden"
NOISE = th.tensor([0.5, -0.25, 0.75])  #: standard normal that actors draw
SHARES = th.tensor([0.7, 0.4, 0.55])  #: quantiles that truncated normals draw
SMALL: dict[str, Any] = {"batch_size": 3, "batch_length": 6, "buffer_size": 200, "learning_starts": 20, "seed": 0}
LATENTS: dict[str, Any] = {"deter": 32, "stoch": 4, "classes": 4, "units": 16}

Arrays = dict[str, np.ndarray]


class Trace:
    """Arrays of one kind of actions; those without its name are shared by all kinds."""

    def __init__(self, file: str, kind: str):
        with np.load(GOLDEN / f"{file}.npz") as arrays:
            self.arrays = dict(arrays)
        self.kind = kind
        self.owners = (f"{kind}/", f"{BASES.get(kind, kind)}/", "")

    def __getitem__(self, name: str) -> np.ndarray:
        for owner in self.owners:
            if owner + name in self.arrays:
                return self.arrays[owner + name]
        raise KeyError(name)

    def under(self, prefix: str) -> Arrays:
        """All arrays below a name."""
        names = {
            name.removeprefix(owner + prefix)
            for owner in self.owners
            for name in self.arrays
            if name.startswith(owner + prefix)
        }
        return {name: self[prefix + name] for name in names}

    def sampled(self, name: str) -> Arrays:
        """Gradients or changes by name, NaN where the trace does not have them."""
        flat, start, result = self[name], 0, {}
        for key, weight in sorted(self.under("init/").items()):
            full = np.full(weight.size, np.nan, np.float32)
            places = full[:: -(-weight.size // ENTRIES)]
            places[:] = flat[start : start + len(places)]
            start += len(places)
            result[key] = full.reshape(weight.shape)
        assert start == len(flat)
        return result


class Env(gym.Env):
    """The spaces of the traces."""

    def __init__(self, discrete: bool):
        self.observation_space = spaces.Dict(
            image=spaces.Box(0, 255, (64, 64, 3), np.uint8), vector=spaces.Box(-np.inf, np.inf, (5,), np.float32)
        )
        self.action_space = spaces.Discrete(4) if discrete else spaces.Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        return self.observation_space.sample(), {}


def make_env(kind: str) -> DummyVecEnv:
    return DummyVecEnv([lambda: Env(kind in ("discrete", "both"))])


def make_2024(kind: str) -> DreamerV3:
    sizes = LATENTS | {"hidden": 8, "blocks": 4, "cnn_depth": 2, "layers": 3}
    settings = SMALL | {"model_size": "debug2024", "learning_rate": 1e-3, "warmup_updates": 4, "policy_kwargs": sizes}
    return DreamerV3("MultiInputPolicy", make_env(kind), **settings)


def make_2023(kind: str) -> DreamerV3:
    sizes = LATENTS | {"cnn_depth": 4, "layers": 2}
    return DreamerV3("MultiInputPolicy", make_env(kind), model_size="debug", policy_kwargs=sizes, **SMALL)


def make_v2(kind: str, **sizes: Any) -> DreamerV2:
    discrete = kind in ("discrete", "both")
    settings = DreamerV2.presets["atari" if discrete else "dmc"] | SMALL | {"model_size": "debug", "pretrain": 0}
    sizes = LATENTS | {"hidden": 16, "cnn_depth": 4, "layers": 2, "discount_head": discrete} | sizes
    if kind == "both":
        settings["rho"], sizes["norm"] = 0.9, "layer"
    if kind == "untruncated":
        sizes["box_gradient"] = kind
    return DreamerV2("MultiInputPolicy", make_env(kind), policy_kwargs=sizes, **settings)


def start(model: WorldModelAlgorithm, weights: Arrays) -> None:
    """Take over weights and learning rates."""
    copy_weights(model.policy, weights)
    for name, schedule in model.lr_schedules.items():
        model.optimizers[name].set_learning_rate(schedule(1.0))


def take_modes(monkeypatch: Any) -> None:
    """Deterministic samplers: modes of latents and discrete actions, fixed noise of continuous ones."""
    monkeypatch.setattr(estimators, "sample_one_hot", one_hot_mode)
    monkeypatch.setattr(action_heads, "sample_one_hot", one_hot_mode)

    def sample(self: action_heads.BoundedNormalHead, out: th.Tensor) -> th.Tensor:
        mean, std = self.mean_std(out)
        return mean + std * NOISE

    monkeypatch.setattr(action_heads.BoundedNormalHead, "sample", sample)
    monkeypatch.setattr(action_heads.th, "rand_like", SHARES.expand_as)


def one_hot_mode(probs: th.Tensor) -> th.Tensor:
    index = probs.detach().argmax(-1)
    return th.nn.functional.one_hot(index, probs.shape[-1]).to(probs.dtype)


def record(monkeypatch: Any, owner: Any, name: str) -> list[Any]:
    """What a method returns from now on, call by call."""
    method: Callable[..., Any] = getattr(owner, name)
    results: list[Any] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        results.append(method(*args, **kwargs))
        return results[-1]

    monkeypatch.setattr(owner, name, call)
    return results


def make_batch(data: Arrays, prev_action: np.ndarray) -> SequenceBatch:
    """Rows of one batch; images have blocks of 8 x 8 equal pixels."""
    image = data["image8"].repeat(8, 2).repeat(8, 3)
    obs = {"image": th.from_numpy(image).permute(0, 1, 4, 2, 3).contiguous(), "vector": th.from_numpy(data["vector"])}
    flags = (th.from_numpy(data[name]) for name in ("is_first", "is_last", "is_terminal"))
    return SequenceBatch(obs, th.from_numpy(prev_action).float(), th.from_numpy(data["reward"]), *flags)


def params(model: WorldModelAlgorithm) -> Arrays:
    return {name: value.detach().numpy().copy() for name, value in model.policy.named_parameters()}


def close(what: str, got: Any, expected: Any, rtol: float) -> None:
    """Compare arrays relative to the largest expected entry."""
    got, expected = (np.asarray(x.detach() if isinstance(x, th.Tensor) else x, np.float64) for x in (got, expected))
    assert got.shape == expected.shape, what
    largest = np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-8)
    assert largest <= rtol, f"{what}: differs by {largest:.2g} of its largest entry"


def same_changes(got: Arrays, expected: Arrays, rtol: float) -> None:
    """Compare changes or gradients of weights tensor by tensor, relative to their norm, where both are known."""
    assert got.keys() <= expected.keys()
    compared = 0
    for name, change in got.items():
        known = np.isfinite(expected[name])
        compared += int(known.sum())
        error, size = (np.linalg.norm(x) for x in (change[known] - expected[name][known], expected[name][known]))
        assert error <= rtol * size + 1e-9, f"{name}: differs by {error / max(size, 1e-12):.2g} of its norm"
    assert compared > 1000
