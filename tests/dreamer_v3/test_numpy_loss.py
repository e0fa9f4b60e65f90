"""One update of the real algorithm against the whole loss in plain numpy, which shares no code with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch as th
import torch.nn.functional as F
from gymnasium import spaces

from sb3_dreamer import DreamerV3
from sb3_dreamer.core.types import SequenceBatch
from tests.dreamer_v3.numpy_reference import Reference
from tests.spaces_env import SpacesEnv, image

OBS = spaces.Dict(
    {"cam": image(1, 16, 16), "pos": spaces.Box(-9, 9, (3,), np.float32), "mode": spaces.Discrete(4, start=2)}
)
ACTIONS = {"multidiscrete": spaces.MultiDiscrete([3, 2]), "box": spaces.Box(-1, 1, (2,), np.float32)}
B, T, HORIZON = 3, 6, 4


def most_likely(log_probs: th.Tensor) -> th.Tensor:
    """In place of a sample, with the straight-through gradient."""
    probs = log_probs.exp()
    return F.one_hot(probs.argmax(-1), probs.shape[-1]) + probs - probs.detach()


def make_model(size: str, actions: str) -> DreamerV3:
    """All weights random, also those that start at zero, and a return scale above 1."""
    model = DreamerV3(
        "MultiInputPolicy",
        SpacesEnv(OBS, ACTIONS[actions]),
        model_size=size,
        horizon=HORIZON,
        buffer_size=100,
        seed=0,
        device="cpu",
        learning_rate=0.0,
        actor_learning_rate=0.0,
        critic_learning_rate=0.0,
    )
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for name, param in model.policy.named_parameters():
            spread = 0.1 if param.ndim == 1 else 0.3 if "out" in name else 0.1
            param.add_(spread * th.randn(param.shape, generator=generator))
        model.behavior.return_norm.high.fill_(30.0)
    rssm = model.policy.world_model.rssm
    rssm.latent = replace(rssm.latent, estimator=most_likely)
    model.behavior.actor.sample = model.behavior.actor.mode
    for group in model.optimizers.values():
        group.set_learning_rate(0.0)
    return model


def make_batch(actions: str) -> dict:
    rng = np.random.default_rng(2)
    first = np.zeros((B, T), bool)
    first[0, 3] = first[2, 4] = True
    last = np.roll(first, -1, 1)
    terminal = last.copy()
    terminal[0] = False  # this episode was cut by a time limit
    if actions == "box":
        action = rng.uniform(-1, 1, (B, T, 2))
    else:
        action = np.concatenate([np.eye(n)[rng.integers(n, size=(B, T))] for n in (3, 2)], -1)
    return {
        "obs": {
            "cam": rng.integers(0, 256, (B, T, 1, 16, 16)).astype(np.uint8),
            "pos": (4 * rng.normal(size=(B, T, 3))).astype(np.float32),
            "mode": rng.integers(2, 6, (B, T)),
        },
        "prev_action": np.where(first[..., None], 0.0, action).astype(np.float32),
        "reward": (10 * rng.normal(size=(B, T))).astype(np.float32),
        "is_first": first,
        "is_last": last,
        "is_terminal": terminal,
    }


def to_tensors(batch: dict) -> SequenceBatch:
    obs = {name: th.from_numpy(value) for name, value in batch["obs"].items()}
    return SequenceBatch(obs, *(th.from_numpy(batch[name]) for name in SequenceBatch._fields[1:]))


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("size", ["debug", "debug2024"])
def test_every_loss_of_an_update(size: str, actions: str) -> None:
    model, batch = make_model(size, actions), make_batch(actions)
    weights = {name: value.numpy().copy() for name, value in model.policy.state_dict().items()}
    spec = model.policy.spec
    reference = Reference(
        weights, spec.family, classes=spec.classes, stoch=spec.stoch, action_sizes=(3, 2) if actions != "box" else None
    )
    expected = reference.losses(batch, horizon=HORIZON, gamma=model.gamma, lam=0.95, eta=model.ent_coef)
    metrics = model._update(to_tensors(batch)).metrics
    after = model.policy.state_dict()
    moved = [
        n for n, value in weights.items() if "return_norm" not in n and not np.allclose(value, after[n], atol=1e-7)
    ]
    assert moved and all("slow_critic" in name for name in moved), "the learning rate is 0 in this test"
    assert {name for name in metrics if "loss" in name} == expected.keys(), "no loss is left out"
    got = {name: float(metrics[name]) for name in expected}
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, rel=1e-4, abs=1e-5), (name, got, expected)
    assert expected["loss_dyn"] > 1.0, "free bits do not hide the KL"
    scale = float(metrics["return_scale"])
    assert scale > 2.0, "the maximum of the return scale does not hide the percentiles"


def test_a_wrong_alignment_would_be_noticed() -> None:
    """The comparison is sharp: a reward that is off by one row changes the losses."""
    batch = make_batch("box")
    model = make_model("debug2024", "box")
    weights = {name: value.numpy().copy() for name, value in model.policy.state_dict().items()}
    reference = Reference(weights, "2024", classes=4, stoch=4, action_sizes=None)
    batch["reward"] = np.roll(batch["reward"], 1, 1)
    wrong = reference.losses(batch, horizon=HORIZON, gamma=model.gamma, lam=0.95, eta=model.ent_coef)
    batch["reward"] = np.roll(batch["reward"], -1, 1)
    metrics = model._update(to_tensors(batch)).metrics
    for name in ("loss_reward", "loss_replay_value", "model_loss"):
        assert float(metrics[name]) != pytest.approx(wrong[name], rel=1e-4, abs=1e-5)
