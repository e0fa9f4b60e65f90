"""Batches drawn one ahead: the same as without, errors arrive, and nothing hangs."""

import contextlib
import threading
import time
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_dreamer import DreamerV2, DreamerV3, PlaNet
from sb3_dreamer.common.updates import prefetch
from sb3_dreamer.dreamer_v3 import AnnotatedReplayBuffer
from tests.algorithms import equal, tiny, weights

CPU = th.device("cpu")
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "dreamerv3": (DreamerV3, {}),
    "dreamerv3 context": (DreamerV3, {"model_size": "debug2024"}),
    "dreamerv2": (DreamerV2, {}),
    "planet": (PlaNet, {}),
}


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("replay")]


def learned(name: str, ahead: bool, **kwargs: Any) -> Any:
    cls, settings = CASES[name]
    model = tiny(cls, "MlpPolicy", gym.make("Pendulum-v1", max_episode_steps=20), prefetch=ahead, **settings, **kwargs)
    model.learn(30)
    model.train(5, 3)
    model.train(1, 2)
    return model


def watch(monkeypatch: Any) -> list[str]:
    """Names of the threads in which replay is read."""
    names: list[str] = []
    from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer

    plain = SequenceReplayBuffer.gather

    def gather(self: Any, env: np.ndarray, rows: np.ndarray) -> Any:
        names.append(threading.current_thread().name)
        return plain(self, env, rows)

    monkeypatch.setattr(SequenceReplayBuffer, "gather", gather)
    return names


@pytest.mark.parametrize("name", CASES)
def test_the_same_run_with_and_without(name: str, monkeypatch) -> None:
    threads = watch(monkeypatch)
    plain = learned(name, False)
    assert set(threads) == {"MainThread"}
    threads.clear()
    random = th.get_rng_state()
    ahead = learned(name, True)
    used = any(thread.startswith("replay") for thread in threads)
    assert used == (name != "dreamerv3 context"), "latent states that an update writes are read by the next batch"
    assert equal(weights(plain), weights(ahead))
    assert plain._n_updates == ahead._n_updates > 6
    assert plain.replay_buffer.rng.bit_generator.state == ahead.replay_buffer.rng.bit_generator.state
    assert th.equal(random, th.get_rng_state())


def test_off_by_default_on_a_cpu(monkeypatch) -> None:
    threads = watch(monkeypatch)
    assert learned("dreamerv3", None).prefetch is None
    assert set(threads) == {"MainThread"}


def test_a_checkpoint_goes_on_the_same(tmp_path) -> None:
    model = learned("dreamerv3", True)
    model.save_checkpoint(tmp_path)
    model.learn(20, reset_num_timesteps=False)
    runs = []
    for ahead in (False, True):
        env = gym.make("Pendulum-v1", max_episode_steps=20)
        again = DreamerV3.load_checkpoint(tmp_path, env=env, prefetch=ahead)
        runs.append(weights(again.learn(20, reset_num_timesteps=False)))
    assert equal(*runs)


def test_buffers_say_whether_they_can() -> None:
    context = learned("dreamerv3 context", True).replay_buffer
    assert isinstance(context, AnnotatedReplayBuffer) and not context.draws_ahead
    assert learned("dreamerv3", True).replay_buffer.draws_ahead


# ---- the thread ----------------------------------------------------------------------------------------------------


def numbered(limit: int = 100, seconds: float = 0.0) -> tuple[Any, list[int]]:
    drawn: list[int] = []

    def draw() -> Any:
        time.sleep(seconds)
        drawn.append(len(drawn))
        if len(drawn) > limit:
            raise ValueError("replay is empty")
        return drawn[-1]

    return draw, drawn


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_as_many_as_asked_for_in_order(ahead: bool, count: int) -> None:
    draw, drawn = numbered()
    assert list(prefetch.batches(draw, count, CPU, ahead=ahead)) == list(range(count)) == drawn


def test_one_ahead() -> None:
    draw, drawn = numbered()
    with contextlib.closing(prefetch.batches(draw, 5, CPU, ahead=True)) as batches:
        assert next(batches) == 0
        deadline = time.monotonic() + 60
        while len(drawn) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert drawn == [0, 1]


def test_an_error_arrives_in_its_turn() -> None:
    draw, _ = numbered(limit=2)
    batches = prefetch.batches(draw, 5, CPU, ahead=True)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="replay is empty"):
        next(batches)


def test_an_error_of_replay_ends_train() -> None:
    model = learned("dreamerv3", True)
    draw, _ = numbered(limit=0)
    model.replay_buffer.sample_sequences = lambda batch, length: draw()
    with pytest.raises(ValueError, match="replay is empty"):
        model.train(3, 2)


def test_an_error_of_an_update_ends_train() -> None:
    model = learned("dreamerv3", True)

    def fail(batch: Any) -> Any:
        raise KeyError("in the update")

    model._update = fail
    with pytest.raises(KeyError, match="in the update"):
        model.train(5, 2)


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", CASES)
def test_on_cuda(name: str) -> None:  # pragma: no cover
    runs = [learned(name, ahead, device="cuda", cuda_graph=False).policy.state_dict() for ahead in (False, True)]
    near = th.cat([th.isclose(value, runs[1][key], rtol=1e-3, atol=1e-5).flatten() for key, value in runs[0].items()])
    assert near.float().mean() > 0.99, "sums on a GPU may come in any order"
