"""Data-parallel learning: two ranks are one process with twice the batch, stay in step, and resume exactly.

As a program (``python -m tests.common.test_distributed FOLDER``) it is one rank of two; the tests start both, once.
"""

import json
import os
import socket
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from torch.overrides import TorchFunctionMode

from sb3_dreamer import DreamerV2, DreamerV3, PlaNet
from sb3_dreamer.common import distributed
from sb3_dreamer.common.files.json_text import ModelFileError
from sb3_dreamer.common.offline import OfflineEnv
from sb3_dreamer.common.resume.callback import ResumableCheckpoint
from sb3_dreamer.common.resume.folder import checkpoints
from sb3_dreamer.core.types import SequenceBatch
from tests.algorithms import ALGORITHMS, equal, tiny, weights
from tests.common.resume.resuming import Dies, Killed, difference, everything

ROOT = Path(__file__).parent.parent.parent
RANKS, ROWS, LENGTH = 2, 16, 7  # of the whole batch; LENGTH and the horizon share no factor with the rows
UPDATES = 3
IMAGES = spaces.Dict({"image": spaces.Box(0, 255, (3, 64, 64), np.uint8), "x": spaces.Box(-1, 1, (2,))})
CASES: dict[str, tuple[Any, dict[str, Any], spaces.Space, spaces.Space]] = {
    "v3_discrete": (DreamerV3, {"return_norm_min": 1e-3}, IMAGES, spaces.Discrete(3)),
    "v3_box": (DreamerV3, {}, spaces.Box(-1, 1, (4,)), spaces.Box(-1, 1, (2,))),
    "v3_2024": (
        DreamerV3,
        {"model_size": "debug2024", "warmup_updates": 0},
        spaces.Box(-1, 1, (4,)),
        spaces.Discrete(3),
    ),
    "v3_advantage_std": (
        DreamerV3,
        {"return_norm": "advantage_std", "return_norm_min": 1e-3},
        spaces.Box(-1, 1, (4,)),
        spaces.Discrete(3),
    ),
    "v2_discrete": (DreamerV2, {}, spaces.Box(-1, 1, (4,)), spaces.Discrete(3)),
    "v2_box": (DreamerV2, {"free_nats": 0.4}, spaces.Box(-1, 1, (4,)), spaces.Box(-1, 1, (2,))),
    "planet": (PlaNet, {"overshooting_distance": 3}, spaces.Box(-1, 1, (4,)), spaces.Box(-1, 1, (2,))),
}


class SlicedNoise(TorchFunctionMode):
    """Random numbers of the whole batch, of which each rank gets those of its own sequences.

    This is what makes two runs comparable: in real training the ranks draw noise of their own.
    """

    def __init__(self, rows: int):
        super().__init__()
        self.rows = rows
        self.generator = th.Generator().manual_seed(5)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("rand_like", "randn_like", "rand", "randn"):
            like = args[0] if name.endswith("_like") else th.empty(args[0] if len(args) == 1 else args)
            axis = 0 if like.shape[0] % self.rows == 0 else 1
            assert like.shape[axis] % self.rows == 0, f"which axis of {tuple(like.shape)} is the batch?"
            shape, n = list(like.shape), like.shape[axis]
            shape[axis] = n * (ROWS // self.rows)
            full = getattr(th, name.removesuffix("_like"))(shape, generator=self.generator, dtype=like.dtype)
            return full.narrow(axis, distributed.rank() * n, n).clone()
        other = ("multinomial", "randint", "randint_like", "bernoulli", "normal", "exponential_", "uniform_", "normal_")
        assert name not in other, f"{name} is not sliced: teach it to this test"
        return func(*args, **(kwargs or {}))


def whole_batch(observations: spaces.Space, actions: spaces.Space) -> SequenceBatch:
    """Sixteen sequences; the second half is unlike the first, so that statistics of a half are not those of all."""
    rng = np.random.default_rng(1)

    def draw(space: spaces.Space) -> th.Tensor:
        if space.dtype == np.uint8:
            return th.as_tensor(rng.integers(256, size=(ROWS, LENGTH, *space.shape), dtype=np.uint8))
        values = rng.normal(size=(ROWS, LENGTH, *space.shape)).astype(np.float32)
        values[ROWS // 2 :] *= 4.0
        return th.as_tensor(values)

    parts = observations.spaces if isinstance(observations, spaces.Dict) else {"obs": observations}
    size = int(actions.n) if isinstance(actions, spaces.Discrete) else actions.shape[0]
    action = th.as_tensor(rng.uniform(-1, 1, (ROWS, LENGTH, size)).astype(np.float32))
    if isinstance(actions, spaces.Discrete):
        action = th.nn.functional.one_hot(action.argmax(-1), size).float()
    first = th.as_tensor(rng.random((ROWS, LENGTH)) < 0.15)
    last = th.cat([first[:, 1:], th.zeros(ROWS, 1, dtype=th.bool)], 1)
    reward = th.as_tensor(rng.normal(size=(ROWS, LENGTH)).astype(np.float32))
    reward[ROWS // 2 :] += 3.0
    obs = {key: draw(space) for key, space in parts.items()}
    return SequenceBatch(obs, action.masked_fill(first[..., None], 0.0), reward, first, last, last & (reward > 0))


def rows_of_rank(batch: SequenceBatch) -> SequenceBatch:
    share = ROWS // distributed.world_size()
    own = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    obs = {key: value[own] for key, value in batch.obs.items()}
    return SequenceBatch(obs, *(part[own] for part in batch[1:]))


def updated(case: str, control: str = "") -> dict[str, np.ndarray]:
    """Weights after one and after several updates, and the metrics of the first, on as many ranks as there are.

    :param control: something that is left out on purpose, so that the result must be another
    """
    cls, options, observations, actions = CASES[case]
    settings = {"batch_size": ROWS // distributed.world_size(), "batch_length": LENGTH, **options}
    if cls is not PlaNet:
        settings["horizon"] = 5
    alias = "MultiInputPolicy" if observations is IMAGES else "MlpPolicy"
    model = tiny(cls, alias, OfflineEnv(observations, actions), **settings)
    model._join_ranks()
    with th.no_grad():  # the released initialization has values and rewards of 0, whose statistics say nothing
        generator = th.Generator().manual_seed(2)
        for name, param in model.policy.named_parameters():
            if "slow" not in name:
                param.add_(0.05 * th.randn(param.shape, generator=generator))
    if control == "percentiles":
        model.behavior.all_gather = lambda own: own
    elif control == "free nats":
        model.policy.world_model.objective = replace(model.policy.world_model.objective, mean=th.mean)
    elif control == "gradients":
        for group in model.optimizers.values():
            group.average = None
    batch = rows_of_rank(whole_batch(observations, actions))
    if cls is DreamerV2:
        model._follow_schedules(1.0)
    for name, schedule in model.lr_schedules.items():
        model.optimizers[name].set_learning_rate(schedule(1.0))
    found = {}
    with SlicedNoise(settings["batch_size"]):
        for update in range(UPDATES):
            metrics = distributed.all_reduce_metrics(model._update(batch).metrics)
            if update == 0:
                found |= {f"metric.{name}": np.asarray(value) for name, value in metrics.items()}
                found |= {f"1.{name}": value for name, value in weights(model).items()}
    return found | {f"{UPDATES}.{name}": value for name, value in weights(model).items()}


CONTROLS = [("v3_discrete", "percentiles"), ("v2_box", "free nats"), ("planet", "gradients")]


def job_equality(folder: Path) -> None:
    for case in CASES:
        np.savez(folder / f"{case}_{distributed.rank()}.npz", **updated(case))
    for case, control in CONTROLS:
        np.savez(folder / f"{case}_without_{distributed.rank()}.npz", **updated(case, control))


# ---- runs of two ranks -----------------------------------------------------------------------------------------------


class StopsAt(BaseCallback):
    """Ends training from one rank alone."""

    def __init__(self, rank: int, step: int):
        super().__init__()
        self.stops, self.step = rank == distributed.rank(), step

    def _on_step(self) -> bool:
        return not (self.stops and self.num_timesteps >= self.step)


def run(folder: Path, name: str, total: int, n_envs: int = 1, **options: Any) -> Any:
    """As ``resuming.run_part``; checkpoints are shared, each rank has a folder for the rest."""
    cls = {cls.__name__: cls for cls in ALGORITHMS}[name]
    env = make_vec_env("CartPole-v1", n_envs, env_kwargs={"max_episode_steps": 13})  # so that some end between resets
    if options.pop("resume", False):
        model = cls.load_checkpoint(folder / "checkpoints", env=env)
    else:
        model = tiny(cls, "MlpPolicy", env, seed=3)
    th.rand(7 + distributed.rank()), np.random.rand(5)
    own = folder / f"rank{distributed.rank()}"
    model.set_logger(configure(str(own / "log"), ["csv", "json"]))
    evaluation = EvalCallback(
        make_vec_env("CartPole-v1", 1, seed=9), n_eval_episodes=1, eval_freq=13, verbose=0, log_path=str(own)
    )
    callbacks = [ResumableCheckpoint(folder / "checkpoints", 30, keep=2, wait=options.get("wait", 0)), evaluation]
    callbacks += options.get("callbacks", [])
    return model.learn(total - model.num_timesteps, callbacks, log_interval=1, reset_num_timesteps=False)


def job_learn(folder: Path) -> None:
    """Each algorithm in one piece, and again with a death and a resume."""
    own = f"rank{distributed.rank()}"
    for name in [cls.__name__ for cls in ALGORITHMS]:
        wait = 12 if name == "DreamerV3" else 0  # the episodes of the ranks end at different steps
        straight = run(folder / name / "a", name, 60, wait=wait)
        np.savez(folder / name / f"a_{own}.npz", **everything(straight, folder / name / "a" / own))
        with pytest.raises(Killed):
            run(folder / name / "b", name, 60, wait=wait, callbacks=[Dies(55)])
        resumed = run(folder / name / "b", name, 60, wait=wait, resume=True)
        np.savez(folder / name / f"b_{own}.npz", **everything(resumed, folder / name / "b" / own))
        assert resumed.num_timesteps == 60
    one_rank_decides(folder)


def one_rank_decides(folder: Path) -> None:
    """What one rank alone runs into is what both of them do."""
    second = distributed.rank() == 1
    model = run(folder / "stop", "DreamerV3", 200, n_envs=2, callbacks=[StopsAt(1, 50)])
    assert 50 <= model.num_timesteps < 60
    by_episode = tiny(PlaNet, "MlpPolicy", make_vec_env("CartPole-v1"), train_freq=(1, "episode")).learn(80)
    found = distributed.all_gather_object((by_episode.num_timesteps, by_episode._n_updates, by_episode._episode_num))
    assert found[0] == found[1] and found[0][1] > 0
    np.savez(folder / f"by_episode_{distributed.rank()}.npz", **weights(by_episode))

    before = {name: value for name, value in weights(model).items() if name.startswith("world_model.")}
    batch = model.replay_buffer.sample_sequences(2, 8)
    metrics = model._update(batch._replace(reward=batch.reward * float("nan")) if second else batch).metrics
    assert float(metrics["model_skipped"]) == 1.0, "a gradient that is not finite on one rank is skipped on both"
    after = weights(model)
    assert equal(before, {name: after[name] for name in before})

    model.save_checkpoint(folder / "full")
    if second:
        model._training_state = lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.learn(40, ResumableCheckpoint(folder / "full", 30, wait=0), reset_num_timesteps=False)
    assert any("rank 1: [Errno 28] No space left" in str(warning.message) for warning in caught)


JOBS = {"equality": job_equality, "learned": job_learn}


def launch(folder: Path) -> None:
    """Run the jobs on two ranks; a rank that fails or hangs fails the tests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS)}
    environment |= {"LOCAL_WORLD_SIZE": str(RANKS)}
    command = [sys.executable, "-m", "tests.common.test_distributed", str(folder)]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(RANKS)
    ]  # fmt: skip
    try:
        results = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (out, err) in zip(processes, results, strict=True):
        assert process.returncode == 0, f"{out}\n{err[-4000:]}"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    for job in JOBS:
        (folder / job).mkdir()
    launch(folder)
    return folder


@pytest.fixture
def equality(ranks: Path) -> Path:
    return ranks / "equality"


@pytest.fixture
def learned(ranks: Path) -> Path:
    return ranks / "learned"


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def largest(left: dict[str, np.ndarray], right: dict[str, np.ndarray], prefix: str) -> float:
    """Largest difference over all tensors of a kind, relative to 1 or to the value."""
    return max(
        float((np.abs(left[name] - right[name]) / np.maximum(1.0, np.abs(right[name]))).max(initial=0.0))
        for name in right
        if name.startswith(prefix)
    )


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_are_one_with_twice_the_batch(case, equality) -> None:
    """Weights after one and after three updates, given the same noise; the ranks themselves agree bit for bit."""
    ranks = [load(equality / f"{case}_{rank}.npz") for rank in range(RANKS)]
    reference = updated(case)
    assert [
        name for name in reference if name[0].isdigit() and not np.array_equal(ranks[0][name], ranks[1][name])
    ] == []
    assert largest(ranks[0], reference, "1.") < 1e-6 and largest(ranks[0], reference, f"{UPDATES}.") < 1e-6
    for name in [name for name in reference if name.endswith(("grad_norm", "return_scale"))]:
        assert ranks[0][name] == pytest.approx(reference[name], rel=1e-4), name


@pytest.mark.parametrize(("case", "control"), CONTROLS)
def test_it_would_show_what_is_not_shared(case, control, equality) -> None:
    """Without one of the things that ranks share, the result is another by far more than the tolerance."""
    without = load(equality / f"{case}_without_0.npz")
    assert largest(without, updated(case), f"{UPDATES}.") > 1e-4


@pytest.mark.parametrize("name", [cls.__name__ for cls in ALGORITHMS])
def test_ranks_learn_one_model_from_experience_of_their_own(name, learned) -> None:
    one, two = (load(learned / name / f"a_rank{rank}.npz") for rank in range(RANKS))
    learning = [key for key in one if key.startswith("policy.") or "_optim." in key]
    assert learning and [key for key in learning if one[key].tobytes() != two[key].tobytes()] == []
    assert one["counters"].tolist() == two["counters"].tolist() and one["counters"][1] >= 5
    assert one["counters"][0] == 60, "steps of both ranks count"
    assert one["torch"].tobytes() != two["torch"].tobytes()
    rows = [part["replay.0.obs.obs"] for part in (one, two)]
    assert all(len(part) > 30 for part in rows) and not np.array_equal(rows[0][:8], rows[1][:8])


@pytest.mark.parametrize("name", [cls.__name__ for cls in ALGORITHMS])
@pytest.mark.parametrize("rank", range(RANKS))
def test_resume_on_two_ranks_is_exact(name, rank, learned) -> None:
    straight, resumed = (load(learned / name / f"{part}_rank{rank}.npz") for part in "ab")
    assert straight["counters"][1] > 0
    assert difference(straight, resumed) == []


def test_the_first_rank_alone_writes(learned) -> None:
    folder = learned / "DreamerV3" / "a"
    assert (folder / "rank0" / "evaluations.npz").exists() and not (folder / "rank1" / "evaluations.npz").exists()
    assert "rollout/ep_rew_mean" in (folder / "rank0" / "log" / "progress.csv").read_text()
    assert (folder / "rank1" / "log" / "progress.csv").read_text() == ""
    newest = checkpoints(folder / "checkpoints")[-1]
    assert {path.name for path in newest.iterdir()} == {"model.zip", "training.zip", "replay.safetensors", "rank_1"}
    assert {path.name for path in (newest / "rank_1").iterdir()} == {"training.zip", "replay.safetensors"}
    logged = [json.loads(line) for line in (folder / "rank0" / "log" / "progress.json").read_text().splitlines()]
    assert logged[-1]["time/total_timesteps"] <= 60 and any("train/model_loss" in row for row in logged)


def test_ranks_that_do_not_end_episodes_together_do_not_wait_forever(learned) -> None:
    one, two = (load(learned / f"by_episode_{rank}.npz") for rank in range(RANKS))
    assert equal(one, two)


def test_a_checkpoint_that_one_rank_cannot_write_is_not_there(learned) -> None:
    left = {path.name for path in (learned / "full").iterdir()} - {".lock"}
    assert len(left) == 1, "the older one, and nothing hidden but the lock"


def test_another_number_of_ranks(learned) -> None:
    """Refused, unless asked for; then the model goes on and collects anew."""
    folder = learned / "DreamerV3" / "a" / "checkpoints"
    with pytest.raises(ModelFileError, match=r"written by 2 rank\(s\), and there are 1: .*--nproc-per-node=2"):
        DreamerV3.load_checkpoint(folder, env=make_vec_env("CartPole-v1"))
    model = DreamerV3.load_checkpoint(folder, env=make_vec_env("CartPole-v1"), allow_empty_replay=True)
    trained = load(learned / "DreamerV3" / "a_rank0.npz")
    assert all(np.array_equal(value, trained[f"policy.{name}"]) for name, value in weights(model).items())
    assert model.num_timesteps == 60 and model.replay_buffer.size() == 0
    updates = model._n_updates
    assert model.learn(60, reset_num_timesteps=False)._n_updates > updates


def test_alone_nothing_is_shared() -> None:
    """Without a group every function gives back what it was given."""
    x = th.arange(3.0)
    assert distributed.start() == 0 and distributed.world_size() == 1 and distributed.is_rank_zero()
    assert (
        distributed.all_reduce_mean([x])[0] is x
        and distributed.all_gather(x) is x
        and float(distributed.differentiable_mean(x)) == 1.0
    )
    assert (
        distributed.all_reduce_sum([1, 2]) == [1, 2]
        and distributed.broadcast_object("a") == "a"
        and distributed.all_gather_object(1) == [1]
    )


def test_torchrun_without_a_group_is_said(monkeypatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.warns(UserWarning, match="2 processes, which all learn alone: call .*start"):
        tiny(PlaNet, "MlpPolicy", "CartPole-v1").learn(1)


if __name__ == "__main__":
    th.set_num_threads(1)
    distributed.start()
    for _name, _job in JOBS.items():
        _job(Path(sys.argv[1]) / _name)
    distributed.stop()
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").glob("*")]
    assert [name for name in names if "gloo" in name] == [], "the group is still alive, and may abort at exit"
