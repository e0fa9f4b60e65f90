"""Diagnosis in words, and the end of a run whose updates are not finite."""

import math
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_dreamer import DreamerV2, DreamerV3, PlaNet
from sb3_dreamer.common.diagnosis import Diagnosis, Facts, entropy_range, open_loop_no_better
from sb3_dreamer.core.types import ActionLayout
from sb3_dreamer.dreamer_v3 import NonFiniteError
from tests.algorithms import equal, tiny, weights

FACTS = Facts(updates=5000, steps=100_000, episodes=50, terminations=True, entropy_range=(0.0, 2.0))
HEALTHY = {"batch_reward_std": 1.0, "dream_reward_std": 0.7, "entropy": 1.2, "model_skipped": 0.0}


def make(size: str = "debug", **kwargs) -> DreamerV3:
    tiny = {"batch_size": 2, "batch_length": 6, "horizon": 3, "buffer_size": 300, "learning_starts": 20}
    tiny |= {"train_ratio": 4, "seed": 0, "device": "cpu"}
    return DreamerV3("MlpPolicy", kwargs.pop("env", "CartPole-v1"), model_size=size, **(tiny | kwargs))


def said(metrics: dict, facts: Facts = FACTS, times: int = 3) -> list[str]:
    diagnosis = Diagnosis()
    return [text for _ in range(times) for text in diagnosis.check(metrics, facts)]


def test_a_healthy_run_says_nothing() -> None:
    assert said(HEALTHY, times=10) == []


@pytest.mark.parametrize(
    ("change", "facts", "words"),
    [
        ({"dream_reward_std": 0.001}, {}, "reward head predicts a constant"),
        ({"entropy": 1.99}, {}, "entropy is still at its maximum"),
        ({}, {"terminations": False}, "continue head never saw an end"),
        ({"actor_skipped": 0.02}, {}, "2.0% of the updates were skipped"),
    ],
)
def test_each_sentence(change, facts, words) -> None:
    found = said(HEALTHY | change, replaced(**facts), 9)
    assert len(found) == 1 and words in found[0], "said once, and nothing else"


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"entropy": 0.7}, {"entropy_range": (-math.inf, math.inf)}),  # a truncated normal: the range is not known
        ({}, {"terminations": None}),  # no head learns ends
    ],
)
def test_what_is_not_known_is_not_said(change, facts) -> None:
    assert said(HEALTHY | change, replaced(**facts), 9) == []


def test_an_end_that_replay_has_forgotten_was_seen() -> None:
    diagnosis = Diagnosis()
    assert diagnosis.check(HEALTHY, FACTS) == []
    assert diagnosis.check(HEALTHY, replaced(terminations=False)) == []


@pytest.mark.parametrize("algorithm", [DreamerV2, PlaNet])
def test_the_other_algorithms_say_nothing_that_is_false(algorithm) -> None:
    model = tiny(algorithm, "MlpPolicy", "Pendulum-v1").learn(40, log_interval=None)
    model._n_updates, model._episode_num = 5000, 50
    means = model._metrics.take()
    texts = [text for _ in range(5) for text in model._diagnosis.check(means, model._facts())]
    assert not [text for text in texts if "entropy" in text or (algorithm is PlaNet and "continue head" in text)]


def test_squashed_rewards_are_compared_as_they_are_learned() -> None:
    model = tiny(DreamerV2, "MlpPolicy", "Pendulum-v1", tanh_rewards=True).learn(25, log_interval=None)
    batch = model.replay_buffer.sample_sequences(4, 8)
    metrics = model.update(batch)
    assert float(metrics["batch_reward_std"]) == pytest.approx(float(th.tanh(batch.reward).std()), rel=1e-5)


def replaced(**facts) -> Facts:
    return Facts(**{**FACTS.__dict__, **facts})


def test_patience() -> None:
    flat = HEALTHY | {"dream_reward_std": 0.0}
    assert said(flat, times=2) == []
    diagnosis = Diagnosis()
    for metrics in (flat, flat, HEALTHY, flat, flat):
        assert diagnosis.check(metrics, FACTS) == []
    assert len(diagnosis.check(flat, FACTS)) == 1
    assert said(flat, replaced(updates=999), times=9) == [], "too early to judge"
    assert said(flat | {"batch_reward_std": 0.0}, times=9) == [], "rewards that never differ are no one's fault"


def test_open_loop_sentence() -> None:
    assert open_loop_no_better(0.1, 0.2) is None
    assert "no better than copying the last frame" in open_loop_no_better(0.3, 0.2)


def test_entropy_range() -> None:
    assert entropy_range(ActionLayout("discrete", (3, 2)), None) == (0.0, pytest.approx(np.log(6)))
    low, high = entropy_range(ActionLayout("continuous", (2,)), make(env="Pendulum-v1").behavior.actor)
    normal = th.distributions.Normal(0.0, 0.1)
    assert low == pytest.approx(2 * normal.entropy().item(), rel=1e-5) and high > low


def test_warnings_of_a_run() -> None:
    model = make(env=gym.make("Pendulum-v1", max_episode_steps=10), train_ratio=2).learn(150, log_interval=1000)
    model._n_updates, model._diagnosis = 5000, Diagnosis()
    with pytest.warns(UserWarning, match=r"step 150: the continue head never saw an end: all 15 episodes"):
        model.dump_logs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.dump_logs()


# ---- updates that are not finite -----------------------------------------------------------------------------------


def poison(model: DreamerV3, from_update: int, count: int = 10**9, name: str = "reward") -> None:
    """Put one NaN into the batches of some updates."""
    original, drawn = model.replay_buffer.sample_sequences, [0]

    def sample(*args):
        batch = original(*args)
        drawn[0] += 1
        if from_update <= drawn[0] < from_update + count:
            value = batch.reward if name == "reward" else batch.obs["obs"]
            value[0, 2] = float("nan")
        return batch

    model.replay_buffer.sample_sequences = sample


@pytest.mark.parametrize("size", ["debug", "debug2024"])
@pytest.mark.parametrize("name", ["reward", "obs"])
def test_several_in_a_row_stop_the_run(size, name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    clean = make(size, warmup_updates=0)
    seen = {}
    original = clean._update

    def keep(batch):
        metrics = original(batch)
        seen[clean._n_updates + 1] = weights(clean)
        return metrics

    clean._update = keep
    clean.learn(50)
    model = make(size, warmup_updates=0)
    poison(model, from_update=6, name=name)
    with pytest.raises(NonFiniteError, match="first tensor that is not finite: batch") as stop:
        model.learn(200)
    assert model._n_updates == 8, "three skipped updates"
    report = (stop.value.folder / "report.txt").read_text()
    assert ("batch reward" if name == "reward" else "batch obs.obs") in report
    assert "1 of 12 not finite" in report if name == "reward" else "4 of 48 not finite" in report
    batch = np.load(stop.value.folder / "batch.npz")
    assert np.isnan(batch["reward" if name == "reward" else "obs.obs"]).any()
    loaded = DreamerV3.load(stop.value.folder / "model.zip")
    good, left = seen[5], weights(loaded)
    trained = [key for key in good if "slow_critic" not in key and "return_norm" not in key]
    if name == "obs" or size == "debug2024":
        assert all(np.array_equal(good[key], left[key]) for key in trained), "the weights of the last good update"
    else:  # the actor and critic of 2023 learn from dreams, which a bad reward label does not reach
        assert all(np.array_equal(good[key], left[key]) for key in trained if key.startswith("world_model"))
    assert all(np.isfinite(value).all() for value in left.values()), "also the slow critic and the return statistics"


def test_single_ones_are_skipped_and_counted(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = make("debug2024")
    poison(model, from_update=3, count=2)
    with pytest.warns(UserWarning, match="of the updates were skipped"):
        model.learn(200, log_interval=1)
    assert model._n_updates > 20 and not (tmp_path / "nan_report").exists()
    never = make("debug2024", max_skipped_updates=0)
    poison(never, from_update=1)
    before = weights(never)
    never.learn(60, log_interval=1000)
    assert equal({k: v for k, v in before.items() if "world_model" in k},
                 {k: v for k, v in weights(never).items() if "world_model" in k})  # fmt: skip


def test_the_first_bad_module_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = make("debug").learn(40)
    with th.no_grad():
        model.policy.world_model.rssm.prior_mlp.linears[0].weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"weight world_model\.rssm\.prior_mlp\.linears\.0\.weight"):
        model.learn(60, reset_num_timesteps=False)
