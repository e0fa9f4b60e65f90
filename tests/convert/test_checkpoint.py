"""Agents of the authors' 2024 code as models of ours; that they act alike is in test_2024.py."""

import pickle
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.convert import load_official
from sb3_dreamer.convert.checkpoint import size_of
from sb3_dreamer.dreamer_v3.spec import SIZES_2024
from tests.convert.traces import SMALL, Trace, close, make_env


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


def agent(kind: str = "discrete") -> dict[str, np.ndarray]:
    """What ``agent.save()`` holds under ``params``: weights, and names that are not weights."""
    own = {
        "retnorm/lo/value": np.float32(-1.5),
        "retnorm/hi/value": np.float32(2.5),
        "slowval_count/value": np.int32(3),
    }
    own |= {"opt/step/value": np.int32(3), "opt/state/2/1/enc/cnn0/bias": np.zeros(4, np.float32)}
    return Trace("trace_2024", kind).under("init/") | {name: np.asarray(value) for name, value in own.items()}


def load(path: Path, kind: str = "discrete", **kwargs):
    return load_official(path, "MultiInputPolicy", make_env(kind), **{"policy_kwargs": {"stoch": 4}} | SMALL | kwargs)


@pytest.mark.parametrize("form", ["npz", "pickle"])
@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_an_agent(kind: str, form: str, tmp_path: Path) -> None:
    path, arrays = tmp_path / f"agent.{form}", agent(kind)
    if form == "npz":
        np.savez(path.with_suffix(".npz"), **arrays)
        model = load(path.with_suffix(".npz"), kind)
    else:
        data = {"params": arrays, "counters": {"updates": 3, "batches": 3, "actions": 7}}
        path.write_bytes(pickle.dumps(data, protocol=4 if kind == "discrete" else 5))
        model = load(path, kind, trust=True)
    assert model.policy.spec.deter == 32 and model.policy.spec.blocks == 4 and model.policy.spec.layers == 3
    assert float(model.behavior.return_norm.low) == -1.5 and float(model.behavior.return_norm.high) == 2.5
    trace, state = Trace("acting_2024", kind), None
    for t, first in enumerate(trace["obs_is_first"][: 1 if kind == "continuous" else None]):
        obs = {"image": trace["obs_image"][t], "vector": trace["obs_vector"][t]}
        action, state = model.predict(obs, state, first, deterministic=True)
        close("deter", state[0], trace["deter"][t], 1e-4)
        if kind == "discrete":
            close("action", action, trace["act"][t], 0)


def test_a_pickle_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("agent.pkl").write_bytes(pickle.dumps({"params": {"a": Evil()}}))
    with pytest.raises(ModelFileError, match=r"pickle\.load.*np\.savez.*trust=True"):
        load(Path("agent.pkl"))
    with pytest.raises(ModelFileError, match="asks for pathlib"):
        load(Path("agent.pkl"), trust=True)
    np.savez("agent.npz", a=np.array([Evil()], object))
    with pytest.raises(ModelFileError, match=r"is not an \.npz of arrays"):
        load(Path("agent.npz"), trust=True)
    assert not Path("touched").exists()


def test_what_is_not_an_agent(tmp_path: Path) -> None:
    path = tmp_path / "agent.npz"
    np.savez(path, **{"enc/cnn0/kernel": np.zeros(3)})
    with pytest.raises(ModelFileError, match=r"not those of an agent.*dyngru"):
        load(path)
    path.write_bytes(pickle.dumps({"step": 3}))
    with pytest.raises(ModelFileError, match="no arrays in 'params'"):
        load(path, trust=True)
    path.write_bytes(b"not a pickle")
    with pytest.raises(ModelFileError, match="not a pickled dict of arrays"):
        load(path, trust=True)


def test_an_agent_of_another_environment_or_with_other_layers(tmp_path: Path) -> None:
    path = tmp_path / "agent.npz"
    np.savez(path, **agent())
    with pytest.raises(ValueError, match="no 'pol/head/action/mean/kernel'"):
        load(path, "continuous")
    with pytest.raises(ValueError, match="enc/mlp0 has 5 inputs there, 4 here"):
        load_official(path, "MlpPolicy", gym.make("CartPole-v1"), policy_kwargs={"stoch": 4}, **SMALL)
    np.savez(path, **agent() | {"enc/mlp0norm/shift": np.zeros(16)})
    with pytest.raises(ValueError, match="mlp0norm/shift, for which this model has no place"):
        load(path)


def test_an_agent_of_other_latents_or_without_finite_weights(tmp_path: Path) -> None:
    path = tmp_path / "agent.npz"
    np.savez(path, **agent())
    with pytest.raises(ValueError, match=r"16 logits are not those of stoch=32 .*policy_kwargs=\{'stoch'"):
        load_official(path, "MultiInputPolicy", make_env("discrete"), **SMALL)
    with pytest.raises(ValueError, match="stoch=0 must be an integer from 1"):
        load(path, policy_kwargs={"stoch": 0})
    np.savez(path, **agent() | {"dyn/obs0/kernel": agent()["dyn/obs0/kernel"][:-1]})
    with pytest.raises(ValueError, match=r"of another size: dyn/obs0 has \d+ inputs there"):
        load(path)
    np.savez(path, **agent() | {"rew/head/logits/bias": np.full(255, np.nan, np.float32)})
    with pytest.raises(ValueError, match=r"NaN or infinity \(world_model\.reward_head"):
        load(path)


@pytest.mark.parametrize("name", ["1m", "12m", "400m"])
def test_a_released_size_has_its_name(name: str) -> None:
    spec, one = SIZES_2024[name], np.broadcast_to(np.float32(0), (1,))
    shapes = {
        "dyn/dyngru/kernel": (spec.blocks, spec.deter // spec.blocks, 3 * spec.deter // spec.blocks),
        "dyn/dynin0/kernel": (spec.deter, spec.hidden),
        "dyn/obslogit/kernel": (spec.hidden, spec.stoch * spec.classes),
        "val/head/logits/bias": (spec.bins,),
        **{f"val/mlp/linear{i}/kernel": (spec.units, spec.units) for i in range(spec.layers)},
    }
    arrays = {key: np.broadcast_to(one, shape) for key, shape in shapes.items()}
    assert size_of(arrays, 32) == (name, {})
    image = {"enc/cnn0/kernel": np.broadcast_to(one, (5, 5, 3, 2 * spec.cnn_depth))}
    assert size_of(arrays | image, 32) == (name, {})
    assert size_of(arrays, 16) == ("debug2024", {**size_of(arrays, 16)[1], "stoch": 16, "classes": 2 * spec.classes})
