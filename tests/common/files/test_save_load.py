"""Model files from strangers: settings that do not fit the weights, entries that are no settings, places to write."""

import json
import time
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_dreamer import DreamerV2, DreamerV3, PlaNet
from sb3_dreamer.common.files.json_codec import encode
from sb3_dreamer.common.files.json_text import ModelFileError
from tests.algorithms import tiny


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.zip"
    tiny(DreamerV3, "MlpPolicy", "CartPole-v1", seed=0).learn(30).save(path)
    return path


def changed(source: Path, target: Path, **entries: Any) -> Path:
    """The file with other entries in ``data.json``, its checksums put right as a stranger would."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        data = json.loads(members["data.json"])
        data |= {name: encode(value, name) for name, value in entries.items()}
        members["data.json"] = json.dumps(data).encode()
        manifest = json.loads(members["format.json"])
        size_and_crc = [len(members["data.json"]), zlib.crc32(members["data.json"])]
        listed = manifest["members"]["data.json"]
        manifest["members"]["data.json"] = (
            size_and_crc if isinstance(listed, list) else dict(zip(listed, size_and_crc, strict=True))
        )
        members["format.json"] = json.dumps(manifest).encode()
        for name, content in members.items():
            new.writestr(name, content)
    return target


def test_a_file_that_was_only_packed_again_loads(honest: Path, tmp_path: Path) -> None:
    DreamerV3.load(changed(honest, tmp_path / "same.zip"))


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"learn": "x"}, "entry 'learn', which is a method or property"),
    ({"_update": 3}, "entry '_update', which is a method or property"),
    ({"updates_per_step": 3}, "entry 'updates_per_step', which is a method or property"),
    ({"surprise": 1}, "entry 'surprise', which is no setting of DreamerV3"),
    ({"policy_kwargs": [1]}, "policy_kwargs=.* expected dict"),
    ({"seed": "x"}, "seed=x: expected int"),
    ({"_optimizer_settings": [3]}, "_optimizer_settings=.* expected a table of optimizers"),
    ({"_optimizer_settings": {"other": {}}}, "holds no tensors for model_optim.*: the file is not complete"),
    ({"n_envs": "4"}, "n_envs=4: expected int"),
    ({"n_envs": -1}, "n_envs=-1: expected a number from 1 up"),
    ({"num_timesteps": 10**30}, "num_timesteps=.* expected a number from 0 up"),
    ({"action_space": None}, "action_space=None: expected Space"),
    ({"gamma": 7}, "gamma=7 must be"),
    ({"gamma": "x"}, "gamma='x' must be"),
    ({"tau": None}, "tau=None must be"),
    ({"learning_rate": -1.0}, "learning_rate=-1.0 must be"),
    ({"horizon": 0}, "horizon=0 must be"),
    ({"train_ratio": 1e300}, "train_ratio=1e\\+300 must be"),
    ({"model_size": "XL"}, "do not fit the settings"),
    ({"model_size": "400m"}, "do not fit the settings|settings that build no model"),
    ({"policy_kwargs": {"layers": 20_000}}, "do not fit the settings"),
    ({"policy_kwargs": {"net_arch": [10**9]}}, "do not fit the settings"),
]


@pytest.mark.parametrize(("entries", "message"), HOSTILE, ids=lambda value: str(value)[:40])
def test_hostile_settings_are_refused_at_once(honest: Path, tmp_path: Path, entries: dict, message: str) -> None:
    path = changed(honest, tmp_path / "hostile.zip", **entries)
    start = time.process_time()
    with pytest.raises(ModelFileError, match=message) as refused:
        DreamerV3.load(path)
    assert time.process_time() - start < 2.0
    assert "\n" not in str(refused.value)


def test_a_file_does_not_choose_where_its_reader_writes(honest: Path, tmp_path: Path) -> None:
    there = str(tmp_path / "there")
    path = changed(honest, tmp_path / "m.zip", tensorboard_log=there, replay_buffer_kwargs={"replay_dir": there})
    model = DreamerV3.load(path, env="CartPole-v1")
    model.learn(10)
    assert model.tensorboard_log is None and not model.replay_buffer.on_disk and not Path(there).exists()
    own = str(tmp_path / "own")
    model = DreamerV3.load(path, env="CartPole-v1", tensorboard_log=own, replay_buffer_kwargs={"replay_dir": own})
    assert model.tensorboard_log == own and model.replay_buffer.on_disk


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = tiny(DreamerV3, "MlpPolicy", "CartPole-v1")
    next(iter(model.policy.world_model.parameters())).data[:] = np.nan
    model.save(tmp_path / "nan.zip")
    with pytest.raises(ModelFileError, match="holds NaN or infinity"):
        DreamerV3.load(tmp_path / "nan.zip")


@pytest.mark.parametrize("algorithm", [DreamerV3, DreamerV2, PlaNet])
def test_a_file_without_optimizers_acts_the_same_and_learns_with_new_ones(algorithm: type, tmp_path: Path) -> None:
    env = "CartPole-v1"
    model = tiny(algorithm, "MlpPolicy", env).learn(60)
    model.save(tmp_path / "whole.zip")
    model.save(tmp_path / "small.zip", exclude=["optimizers"])
    names = zipfile.ZipFile(tmp_path / "small.zip").namelist()
    assert "policy.safetensors" in names and not [name for name in names if "optim" in name]
    assert (tmp_path / "small.zip").stat().st_size < 0.6 * (tmp_path / "whole.zip").stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = algorithm.load(tmp_path / "small.zip")
    obs = model.observation_space.sample()
    for one in (model, small):
        one.policy.seed_random_state(3)
    assert np.array_equal(*(one.predict(obs, deterministic=True)[0] for one in (model, small)))
    with pytest.warns(UserWarning, match="small.zip holds no optimizers: learning continues with new ones"):
        small = algorithm.load(tmp_path / "small.zip", env=env)
    assert not any(one.optimizer.state for one in small.optimizers.values())
    before = small._n_updates
    small.learn(60, reset_num_timesteps=False)
    assert small._n_updates > before
    small.save(tmp_path / "again.zip")
    algorithm.load(tmp_path / "again.zip", env=env)
