"""Tracking: what W&B (offline) and MLflow hold after a run, resumed runs, and tools that are missing or fail."""

import csv
import json
import os
import struct
import subprocess
import sys
import types
import warnings
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.logger import Video

from sb3_dreamer.common import open_loop
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.config.yaml_files import read_yaml
from sb3_dreamer.zoo.programs.cli import main
from sb3_dreamer.zoo.runs import mlflow_output, run_folder, tracking, videos
from tests.docs_blocks import ROOT, read_blocks

RUN = ["train", "--env", "PixelCatch", "-n", "80", "--seed", "3", "--eval-freq", "-1", "--verbose", "0"]
RUN += ["--log-interval", "1", "--video-freq", "50", "-tags", "small"]


def flags(**values: Any) -> Namespace:
    unset = {"track": "wandb", "wandb_project_name": None, "wandb_entity": None, "wandb_group": None, "wandb_tags": []}
    return Namespace(**unset | values)


def of(logs: Path) -> run_folder.RunFolder:
    return run_folder.find(logs, "dreamerv3", "PixelCatch")


def model_loss(run: run_folder.RunFolder) -> dict[int, Any]:
    """By step, from the CSV log; TensorBoard's numbers have 32 bits."""
    rows = csv.DictReader((run.path / "progress.csv").read_text().splitlines())
    found = {int(r["time/total_timesteps"]): r.get("train/model_loss") for r in rows}
    found = {step: pytest.approx(float(loss), rel=1e-5) for step, loss in found.items() if loss}
    assert len(found) > 1
    return found


@pytest.fixture
def small_videos(monkeypatch) -> None:
    """Frames as they are, since encoding enlarged ones takes seconds."""
    for module in (open_loop, videos):
        monkeypatch.setattr(module, "SIDE", 16)


# ---- Weights & Biases ----------------------------------------------------------------------------------------------


def records(path: Path) -> Iterator[Any]:
    """Records of an offline run: LevelDB's log format, 32 KiB blocks of fragments, behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def name_of(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def test_an_offline_run_of_wandb_holds_everything(tmp_path: Path, small: list[str], small_videos, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)  # W&B waits 10 seconds if TensorBoard's folder is elsewhere
    assert main([*RUN, "--track", "-f", "logs", *small]) == 0
    wandb.teardown()  # as at the end of a process; until then its service may still be writing
    run = of(Path("logs"))
    (folder,) = (run.path / "wandb").glob("offline-run-*")
    assert folder.name.endswith(read_yaml(run.settings / "tracking.yml")["wandb"]["id"])
    found = list(records(next(folder.glob("*.wandb"))))
    assert [list(record.run.tags) for record in found if record.HasField("run")][-1] == ["small"]
    config = {name_of(i): json.loads(i.value_json) for r in found for i in (*r.config.update, *r.run.config.update)}
    assert config["seed"] == 3 and config["hyperparams"]["train_ratio"] == 1
    rows = [{name_of(item): json.loads(item.value_json) for item in record.history.item} for record in found]
    assert {row["global_step"]: row["train/model_loss"] for row in rows if "train/model_loss" in row} == model_loss(run)
    for name in ("eval/video", "open_loop/obs"):
        assert [row["global_step"] for row in rows if f"{name}/_type" in row] == [50]
    files = [path.read_bytes()[:6] for path in (folder / "files/media").rglob("*.gif")]
    assert len(files) >= 2 and set(files) == {b"GIF89a"}
    for path in (run.model, run.config):
        assert (folder / "files" / path.relative_to(run.path)).read_bytes() == path.read_bytes()


class FakeWandb(types.ModuleType):
    """Records what it is called with; refuses to go online."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__file__ = "wandb.py"
        self.calls: list[dict[str, Any]] = []

    def init(self, **kwargs: Any) -> Any:
        self.calls.append(kwargs)
        if kwargs.get("mode") != "offline":
            raise ConnectionError("no route to host")
        config = types.SimpleNamespace(update=lambda *args, **kwargs: None)
        return types.SimpleNamespace(id=kwargs["id"] or "new", dir="logs/wandb/offline-run-1/files", config=config)


def test_without_network_wandb_is_used_offline_and_a_resumed_run_is_the_same(tmp_path: Path, monkeypatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    run = run_folder.create(tmp_path, "dreamerv3", "CartPole-v1")
    run.settings.mkdir()
    for _ in range(2):
        with pytest.warns(
            UserWarning, match="offline: no route to host To upload: wandb sync logs/wandb/offline-run-1"
        ):
            tracking.start(flags(), run, {})
    assert [call["id"] for call in fake.calls] == [None, None, "new", "new"]
    assert {call["project"] for call in fake.calls} == {"sb3-dreamer"} and fake.calls[0]["resume"] == "allow"
    monkeypatch.setattr(fake, "init", lambda **kwargs: 1 / 0)
    with pytest.raises(UsageError, match="--track wandb: Weights & Biases cannot start: division by zero"):
        tracking.start(flags(), run, {})


@pytest.mark.slow
def test_wandbs_own_callback_as_the_docs_show_it(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (block,) = (b for b in read_blocks(ROOT / "docs/tracking.md") if "WandbCallback" in b.text and b.reason)
    assert "learn(10_000" in block.text
    words = [sys.executable, "-c", block.text.replace("learn(10_000", "learn(60")]
    subprocess.run(words, cwd=tmp_path, env=os.environ | {"WANDB_MODE": "offline"}, check=True, timeout=300)
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/model.zip"))) == 1


# ---- MLflow --------------------------------------------------------------------------------------------------------


def test_mlflow_holds_everything_and_a_resumed_run_is_the_same(
    tmp_path: Path, small: list[str], small_videos, monkeypatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database takes seconds to make
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    store, former = (tmp_path / "store").as_uri(), mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    try:
        assert main([*RUN, "--track", "mlflow", "-f", str(tmp_path), "--save-freq", "80", *small]) == 0
        run = of(tmp_path)
        (found,) = mlflow.search_runs(experiment_names=["tests"], output_format="list")
        assert read_yaml(run.settings / "tracking.yml") == {"mlflow": {"id": found.info.run_id, "uri": store}}
        assert found.info.status == "FINISHED" and found.info.run_name == "PixelCatch_1"
        assert found.data.tags["small"] == "true"
        assert found.data.params["hyperparams.train_ratio"] == "1.0" and found.data.params["seed"] == "3"
        assert "open_loop/psnr" in found.data.metrics
        folder = Path(found.info.artifact_uri.removeprefix("file://"))
        assert (folder / "PixelCatch.zip").read_bytes() == run.model.read_bytes()
        assert (folder / "PixelCatch/config.yml").exists()
        for name in ("eval/video", "open_loop/obs"):
            (video,) = folder.glob(f"videos/{name}_50.*")
            assert video.suffix in (".mp4", ".gif") and video.stat().st_size > 500

        assert main(["train", "-i", str(run.path), "-n", "40", "--verbose", "0"]) == 0
        (again,) = mlflow.search_runs(experiment_names=["tests"], output_format="list")
        history = mlflow.MlflowClient().get_metric_history(found.info.run_id, "train/model_loss")
        assert {point.step: point.value for point in history} == model_loss(run) and max(model_loss(run)) > 80
        assert again.info.run_id == found.info.run_id and again.info.status == "FINISHED"
        assert (folder / "PixelCatch.zip").read_bytes() == run.model.read_bytes()
    finally:
        mlflow.set_tracking_uri(former)


class FakeMLflow(types.ModuleType):
    """Records what it is called with; its server does not answer."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.__file__ = "mlflow.py"
        self.uri = "http://server"
        self.calls: list[tuple[Any, ...]] = []

    def get_tracking_uri(self) -> str:
        return self.uri

    def set_tracking_uri(self, uri: str) -> None:
        self.uri = uri

    def get_experiment_by_name(self, name: str) -> None:
        if self.uri.startswith("http"):
            raise ConnectionError("no route to host")

    def active_run(self) -> Any:
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="run1"))

    def log_artifact(self, path: str, folder: str | None = None) -> None:
        self.calls.append(("log_artifact", Path(path).name, folder, Path(path).stat().st_size))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, *args, kwargs))


@pytest.fixture
def fake_mlflow(monkeypatch) -> FakeMLflow:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def test_without_network_mlflow_writes_into_the_run_folder(tmp_path: Path, fake_mlflow: FakeMLflow) -> None:
    run = run_folder.create(tmp_path, "dreamerv3", "CartPole-v1")
    run.settings.mkdir()
    with pytest.warns(UserWarning, match=r"MLflow writes to sqlite:///.*CartPole-v1_1/mlflow.db: no route to host"):
        tracking.start(flags(track="mlflow"), run, {"a": {"b": 1}, "c": {}})
    stored = read_yaml(run.settings / "tracking.yml")
    assert stored == {"mlflow": {"id": "run1", "uri": f"sqlite:///{run.path / 'mlflow.db'}"}}
    assert ("log_params", {"a.b": "1", "c": "{}"}, {}) in fake_mlflow.calls


def test_what_mlflows_output_writes(fake_mlflow: FakeMLflow) -> None:
    output = mlflow_output.MLflowOutputFormat()
    frames = th.zeros(1, 3, 3, 8, 16, dtype=th.uint8)
    frames[0, :, 0, 1, 2] = 255
    values = {"train/x": np.float32(0.5), "n,1": 2, "text": "no", "hidden": 1.0, "v": Video(frames, 10)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ffmpeg, a GIF
        output.write(values, {"hidden": ("mlflow",), "v": ("csv",)}, step=7)
    assert fake_mlflow.calls[0] == ("log_metrics", {"train/x": 0.5, "n_1": 2.0}, {"step": 7})
    ((_, name, folder, size),) = fake_mlflow.calls[1:]
    assert name.startswith("v_7.") and folder == "videos" and size > 100
    shown = mlflow_output.to_frames(frames)
    assert shown.shape == (3, 8, 16, 3) and shown[0, 1, 2].tolist() == [255, 0, 0]
    assert np.array_equal(mlflow_output.to_frames(frames / 255), shown)


# ---- what may go wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", tracking.TOOLS)
def test_a_missing_package_is_named_before_anything_is_written(tool: str, tmp_path: Path, monkeypatch, capsys) -> None:
    for package in (None, types.ModuleType(tool)):  # the second is what a folder of its logs imports as
        monkeypatch.setitem(sys.modules, tool, package)
        assert main(["train", "--track", tool, "-f", str(tmp_path / "logs")]) == 2
        assert f'pip install "sb3-dreamer[{tool}]"' in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_a_tool_that_fails_three_times_is_no_longer_called() -> None:
    calls: list[int] = []

    def refuse(number: int) -> None:
        calls.append(number)
        if number != 1:
            raise OSError("server error")

    careful = tracking.Patience("MLflow")
    with pytest.warns(UserWarning) as caught:
        for number in range(9):
            careful(refuse, number)
    said = [str(warning.message) for warning in caught]
    assert calls == [0, 1, 2, 3, 4] and len(said) == 4
    assert said[0] == "MLflow failed: server error; training continues"
    assert said[-1] == "MLflow failed: server error; it gets nothing more of this run"


def test_an_environment_that_cannot_be_drawn_does_not_end_training() -> None:
    env = types.SimpleNamespace(num_envs=1, reset=lambda: np.zeros((1, 2)), get_images=lambda: [None])
    video = videos.AgentVideo(env, 10, True)
    video.model, video.num_timesteps, video.next_step = None, 10, 10
    with pytest.warns(UserWarning, match=r"no video at step 10: the environment renders no images"):
        assert video._on_step()
    assert video.next_step == 20
