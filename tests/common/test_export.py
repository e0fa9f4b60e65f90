"""``model.export``: the file acts as ``predict`` does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_dreamer import DreamerV2, DreamerV3, PlaNet
from sb3_dreamer.common.algorithm import WorldModelAlgorithm
from sb3_dreamer.common.policy import PolicyState
from tests.algorithms import DreamerV3In2024, tiny
from tests.spaces_env import SpacesEnv, image

VECTOR = spaces.Box(-1, 1, (4,), np.float32)
EVERYTHING = spaces.Dict(
    {
        "camera": image(3, 16, 16),
        "speed": spaces.Box(-9, 9, (2, 2), np.float64),
        "mode": spaces.Discrete(3, start=1),
        "unseen": spaces.Box(-1, 1, (2,)),
    }
)
BOX = spaces.Box(np.float32([-2, 0]), np.float32([1, 5]))
LETTERS = spaces.Discrete(3, start=2)


def make(algorithm: type[WorldModelAlgorithm], observation_space: spaces.Space, action_space: spaces.Space) -> Any:
    """A model whose weights have left their first values, so that no output is constant."""
    kinds = {spaces.Dict: ("MultiInputPolicy", {"ignore_keys": ("unseen",)})}
    policy, kwargs = kinds.get(type(observation_space), ("MlpPolicy", {}))
    model = tiny(algorithm, policy, SpacesEnv(observation_space, action_space), policy_kwargs=kwargs)
    generator = th.Generator().manual_seed(3)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.3 * th.randn(parameter.shape, generator=generator))
    return model


def observations(model: WorldModelAlgorithm, n: int) -> Any:
    samples = [model.observation_space.sample() for _ in range(n)]
    if isinstance(samples[0], dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
    return np.stack(samples)


def first_state(model: WorldModelAlgorithm, n: int) -> list[np.ndarray]:
    """What a reader of docs/export.md passes first: zeros."""
    return [np.zeros(part.shape, np.float32) for part in model.policy.initial_state(n)]


class Onnx:
    """The step of an ONNX file, called as ``predict`` is."""

    def __init__(self, path: Path):
        self.session = pytest.importorskip("onnxruntime").InferenceSession(path)

    def __call__(self, obs: Any, state: list[np.ndarray], first: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        wanted = [item.name for item in self.session.get_inputs()]
        named = {f"obs.{key}": value for key, value in obs.items()} if isinstance(obs, dict) else {"obs": obs}
        named |= dict(zip(PolicyState._fields, state, strict=True)) | {"episode_start": first}
        action, *after = self.session.run(None, {name: named[name] for name in wanted})
        given = [item.name for item in self.session.get_outputs()]
        assert given == ["action", *(f"next_{name}" for name in PolicyState._fields)]
        return action, after


class Program:
    """The step of a ``torch.export`` file."""

    def __init__(self, path: Path):
        self.module: Any = th.export.load(path).module()

    def __call__(self, obs: Any, state: list[np.ndarray], first: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        seen = {key: th.as_tensor(value) for key, value in obs.items()} if isinstance(obs, dict) else th.as_tensor(obs)
        if isinstance(seen, dict):
            seen.pop("unseen")
        action, after = self.module(seen, tuple(map(th.as_tensor, state)), th.as_tensor(first))
        return action.numpy(), [part.numpy() for part in after]


def compare(model: WorldModelAlgorithm, step: Any, n: int, steps: int, deterministic: bool = True) -> None:
    """Both act on the same observations, with episodes that begin at different times."""
    model.observation_space.seed(0)
    rng, first = np.random.default_rng(0), np.ones(n, bool)
    state, own, actions = first_state(model, n), None, []
    for _ in range(steps):
        obs = observations(model, n)
        th.manual_seed(5)
        model.policy.random_state = th.get_rng_state()
        wanted, own = model.predict(obs, own, first, deterministic)
        action, state = step(obs, state, first)
        assert action.dtype == wanted.dtype and action.shape == wanted.shape
        np.testing.assert_allclose(action, wanted, atol=1e-4)
        for ours, theirs in zip(state, own, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
        actions.append(action)
        first = rng.random(n) < 0.1
    assert np.ptp(np.stack(actions), axis=0).min() > 0, "an action that never changes compares nothing"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("algorithm", "observation_space", "action_space"),
    [
        (DreamerV3, VECTOR, LETTERS),
        (DreamerV2, EVERYTHING, BOX),
        pytest.param(DreamerV3In2024, image(3, 32, 32), spaces.MultiDiscrete([2, 3]), marks=pytest.mark.slow),
        pytest.param(DreamerV3In2024, EVERYTHING, spaces.Box(-3, 4, (2,), np.int32), marks=pytest.mark.slow),
        pytest.param(DreamerV2, image(1, 64, 64), LETTERS, marks=pytest.mark.slow),
        pytest.param(DreamerV3, image(3, 64, 64), BOX, marks=pytest.mark.slow),
    ],
)
def test_onnx_acts_as_predict(
    algorithm: type[WorldModelAlgorithm], observation_space: spaces.Space, action_space: spaces.Space, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    model = make(algorithm, observation_space, action_space)
    path = model.export(tmp_path / "agent.onnx")
    compare(model, Onnx(path), n=3, steps=100)
    compare(model, Onnx(path), n=1, steps=30)
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


@pytest.mark.parametrize("deterministic", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_torch_program_acts_as_predict_samples_included(deterministic: bool, tmp_path: Path) -> None:
    model = make(DreamerV3In2024, VECTOR, BOX)
    path = model.export(str(tmp_path / "agent.pt2"), deterministic)
    for n in (1, 4):
        compare(model, Reseeded(Program(path)), n=n, steps=30, deterministic=deterministic)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_planner_as_a_torch_program(mixed: bool, tmp_path: Path) -> None:
    model = make(PlaNet, VECTOR, LETTERS)
    model.policy.set_planner(model.policy.planner_settings | {"mixed_precision": mixed})
    step = Program(model.export(tmp_path / "agent.pt2", deterministic=False))
    action, _ = step(observations(model, 3), first_state(model, 3), np.ones(3, bool))
    assert all(LETTERS.contains(one) for one in action)


class Reseeded:
    """Draws what ``predict`` has drawn."""

    def __init__(self, step: Any):
        self.step = step

    def __call__(self, *args: Any) -> Any:
        th.manual_seed(5)
        return self.step(*args)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algorithm", [DreamerV3, PlaNet])
def test_onnx_samples_actions_as_often_as_predict(algorithm: type[WorldModelAlgorithm], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model, n = make(algorithm, VECTOR, LETTERS), 4000
    step = Onnx(model.export(tmp_path / "agent.onnx", deterministic=False))
    obs, first = np.repeat(observations(model, 1), n, 0), np.ones(n, bool)
    wanted, _ = model.predict(obs)
    found, state = step(obs, first_state(model, n), first)
    shares = [np.bincount(actions - 2, minlength=3) / n for actions in (wanted, found)]
    assert np.abs(shares[0] - shares[1]).max() < 0.05 and shares[0].max() < 0.99
    assert (step(obs, first_state(model, n), first)[1][1] != state[1]).any(), "two calls draw different samples"


def test_what_cannot_be_exported_says_why(tmp_path: Path) -> None:
    path = tmp_path / "agent.onnx"
    with pytest.raises(ValueError, match=r"'agent.tflite' must end in .onnx or .pt2"):
        make(DreamerV3, VECTOR, BOX).export(tmp_path / "agent.tflite")
    pytest.importorskip("onnxscript")
    planet = make(PlaNet, VECTOR, BOX)
    with pytest.raises(ValueError, match=r"random generator.*deterministic=False"):
        planet.export(path)
    planet.policy.set_planner({"warm_start": True})
    with pytest.raises(ValueError, match="warm_start=True"):
        planet.export(path, deterministic=False)
    with pytest.raises(ValueError, match=r"inverse error function.*\.pt2"):
        make(DreamerV2, VECTOR, BOX).export(path, deterministic=False)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'sb3-dreamer\[export\]'"):
        make(DreamerV3, VECTOR, LETTERS).export(tmp_path / "agent.onnx")
