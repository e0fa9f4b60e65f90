"""Mixed precision: what stays float32, how near its updates are to those of float32, and who is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch as th
import torch.nn.functional as F

from sb3_dreamer import PlaNet
from sb3_dreamer.common.updates import precision
from sb3_dreamer.core.action_heads import BoundedNormalHead, OneHotHead, TruncatedNormalHead
from sb3_dreamer.core.functional import (
    categorical_kl,
    gaussian_kl,
    lambda_return,
    symexp_bins,
    symlog_bins,
    symmetric_mean,
    two_hot_loss,
    unimix_logits,
)
from sb3_dreamer.core.heads import BernoulliHead, MSEHead, TwoHotHead
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.optim import OptimizerGroup, make_adam
from sb3_dreamer.core.types import LatentState
from sb3_dreamer.zoo.speed.case import Case, build

SMALL_PLANS = {"planning_iterations": 2, "planning_candidates": 10, "planning_elites": 3}
CASES = {
    "dreamerv3": Case("dreamerv3", "debug", batch_size=8, batch_length=8),
    "dreamerv3 images": Case("dreamerv3", "debug", obs="images", action="discrete", batch_size=4, batch_length=4),
    "dreamerv3-2024": Case("dreamerv3", "debug2024", batch_size=8, batch_length=8),
    "dreamerv2": Case("dreamerv2", "debug", batch_size=8, batch_length=8),
    "planet": Case("planet", "debug", batch_size=8, batch_length=8, hyperparams=SMALL_PLANS),
}
each_case = pytest.mark.parametrize("name", CASES)


def make(name: str, mixed: bool = True, **hyperparams: Any) -> Any:
    case = CASES[name]
    values = {**case.hyperparams, "mixed_precision": mixed, **hyperparams}
    return build(replace(case, hyperparams=values, replay_rows=1000))


def half() -> Any:
    return th.autocast("cpu", dtype=th.bfloat16)


# ---- what stays float32 --------------------------------------------------------------------------------------------


def formulas() -> dict[str, Any]:
    """Calls whose results must not depend on autocast, bit for bit."""
    draw = th.Generator().manual_seed(0)

    def noise(*shape: int) -> th.Tensor:
        return th.randn(shape, generator=draw)

    logits, other, probs = noise(6, 4, 8), noise(6, 4, 8), F.softmax(noise(6, 255), -1)
    style = NormStyle(norm="rms", act="silu")
    target = 100.0 * noise(6)
    heads = {"two-hot": TwoHotHead(3, (), style=style), "mse": MSEHead(3, (), style=style)}
    out = {"two-hot": 3.0 * noise(6, 255), "mse": noise(6, 1), "bernoulli": noise(6, 1), "actor": 2.0 * noise(6, 4)}
    bernoulli = BernoulliHead(3, (), style=style)
    box, cut = BoundedNormalHead(3, (), 2, style=style), TruncatedNormalHead(3, (), 2, style=style)
    one_hot = OneHotHead(3, (), (4,), style=style)
    action, chosen = noise(6, 2).clamp(-0.9, 0.9), F.one_hot(th.arange(6) % 4, 4).float()
    return {
        "KL of categoricals": lambda: categorical_kl(unimix_logits(logits, 0.01), unimix_logits(other, 0.01)),
        "KL of Gaussians": lambda: gaussian_kl(logits, other.exp(), other, logits.exp()),
        "two-hot loss": lambda: two_hot_loss(probs.log(), target, symexp_bins()),
        "two-hot mean 2023": lambda: symmetric_mean(probs, symlog_bins()),
        "two-hot mean 2024": lambda: symmetric_mean(probs, symexp_bins()),
        "returns": lambda: lambda_return(logits[0], logits[1], other[0].sigmoid(), 0.95),
        **{f"{name} loss": lambda name=name: heads[name].loss(out[name], target) for name in heads},
        **{f"{name} prediction": lambda name=name: heads[name].mean(out[name]) for name in heads},
        "flag loss": lambda: bernoulli.loss(out["bernoulli"], th.ones(6)),
        "log-probabilities, normal": lambda: box.stats(out["actor"], action),
        "log-probabilities, truncated": lambda: cut.stats(out["actor"], action),
        "log-probabilities, discrete": lambda: one_hot.stats(out["actor"], chosen),
    }


@pytest.mark.parametrize("name", formulas())
def test_formulas_are_float32_under_autocast(name: str) -> None:
    call = formulas()[name]
    wanted = call()
    with half():
        found = call()
    pairs = zip(found, wanted, strict=True) if isinstance(wanted, tuple) else [(found, wanted)]
    for new, old in pairs:
        assert new.dtype == th.float32 and th.equal(new, old)


def test_autocast_would_be_seen() -> None:
    """The same comparison of a product, which autocast does round."""
    x = th.randn(6, 255, generator=th.Generator().manual_seed(0))
    with half():
        found = x @ symlog_bins()
    assert found.dtype == th.bfloat16 and not th.equal(found.float(), x @ symlog_bins())


@each_case
def test_dtypes_of_an_update(name: str) -> None:
    model = make(name)
    world_model = model.policy.world_model
    batch = model.replay_buffer.sample_sequences(model.batch_size, model.batch_length)
    products: list[th.dtype] = []
    layers = [module for module in model.policy.modules() if isinstance(module, th.nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: products.append(output.dtype))
    with half():
        output = world_model.loss(batch)
        post = world_model.observe(batch)
    assert {loss.dtype for loss in output.losses.values()} == {th.float32}
    assert {part.dtype for part in output.post} == {th.float32}
    params = [post.post, post.prior]
    leaves = [leaf for part in params for leaf in (part if isinstance(part, tuple) else [part])]
    assert {leaf.dtype for leaf in leaves} == {th.float32}
    assert th.bfloat16 in products, "nothing was computed in bfloat16"
    for _ in range(2):
        metrics = model.update(batch)
    assert {value.dtype for value in metrics.values()} == {th.float32}
    assert {value.dtype for value in model.policy.state_dict().values() if value.is_floating_point()} == {th.float32}
    for group in model.optimizers.values():
        states = [value for state in group.optimizer.state.values() for value in state.values()]
        assert {state.dtype for state in states} == {th.float32} and states
    assert model.replay_buffer.arrays["reward"].dtype == "float32"


def test_acting_is_float32() -> None:
    plain, mixed = make("dreamerv3", False), make("dreamerv3")
    obs = plain.observation_space.sample()
    for model in (plain, mixed):
        model.policy.seed_random_state(0)
    left, right = (model.predict(obs, deterministic=True) for model in (plain, mixed))
    assert all((a == b).all() for a, b in zip((left[0], *left[1]), (right[0], *right[1]), strict=True))


def test_a_step_forgets_the_copies_of_its_weights() -> None:
    """Autocast keeps the bfloat16 copy of a weight: after a step it is the copy of another weight."""
    layer = th.nn.Linear(4, 4)
    group = OptimizerGroup("x", layer.parameters(), make_adam(layer.parameters(), 0.1), None)
    x = th.ones(2, 4)
    with half():
        before = layer(x)
        group.step(before.float().square().sum())
        after = layer(x)
    with half():
        fresh = layer(x)
    assert th.equal(after, fresh) and not th.equal(after, before)


# ---- near to float32 -----------------------------------------------------------------------------------------------


def gradients(model: Any, batch: Any) -> tuple[dict[str, float], dict[str, list[th.Tensor]]]:
    """Metrics of an update, and the gradients that its optimizers were given."""
    found: dict[str, list[th.Tensor]] = {}
    for name, group in model.optimizers.items():
        step = group.optimizer.step

        def keep(name: str = name, group: Any = group, step: Any = step) -> None:
            found[name] = [param.grad.clone() for param in group.params]
            step()

        group.optimizer.step = keep
    th.manual_seed(0)
    metrics = {key: float(value) for key, value in model.update(batch).items()}
    return metrics, found


@each_case
def test_losses_and_gradients_are_near_those_of_float32(name: str) -> None:
    results = []
    for mixed in (False, True):
        model = make(name, mixed)
        batch = model.replay_buffer.sample_sequences(model.batch_size, model.batch_length)
        results.append(gradients(model, batch))
    (wanted, exact), (found, rounded) = results
    for key, value in wanted.items():
        if key.startswith("loss_"):
            assert found[key] == pytest.approx(value, rel=0.05, abs=0.02), key
    for key, parts in exact.items():
        flat = th.cat([part.flatten() for part in parts]), th.cat([part.flatten() for part in rounded[key]])
        if flat[0].norm() > 1e-4:  # An actor's first gradients may be rounding alone.
            assert F.cosine_similarity(*flat, 0) > 0.9, key
        for index, (old, new) in enumerate(zip(parts, rounded[key], strict=True)):
            assert new.dtype == th.float32
            # A weight that was copied where no gradient was wanted would have none later on.
            assert (new != 0).any() or old.norm() < 1e-3 * flat[0].norm() + 1e-6, f"{key} {index}"


@each_case
def test_losses_fall_as_in_float32(name: str) -> None:
    """20 updates on one batch; most of it is noise, so the loss itself says little."""
    falls = []
    for mixed in (False, True):
        model = make(name, mixed, learning_rate=1e-3, **({"warmup_updates": 0} if name == "dreamerv3-2024" else {}))
        batch = model.replay_buffer.sample_sequences(model.batch_size, model.batch_length)
        for group in model.optimizers.values():
            group.set_learning_rate(1e-3)
        th.manual_seed(0)
        losses = [float(model.update(batch)["model_loss"]) for _ in range(20)]
        falls.append(losses[0] - sum(losses[-3:]) / 3)
    assert falls[0] > 0
    assert falls[1] == pytest.approx(falls[0], rel=0.2)


# ---- the option ----------------------------------------------------------------------------------------------------


def test_it_is_off_by_default_and_stored_with_the_model(tmp_path) -> None:
    model = make("planet")
    model.save(tmp_path / "model")
    assert type(model).load(tmp_path / "model").mixed_precision is True
    assert type(model).load(tmp_path / "model", mixed_precision=False).mixed_precision is False
    assert build(replace(CASES["planet"], replay_rows=1000)).mixed_precision is False


def test_planet_also_plans_with_it(tmp_path, monkeypatch) -> None:
    make("planet").save(tmp_path / "model")
    for mixed in (True, False):
        model = PlaNet.load(tmp_path / "model", mixed_precision=mixed)
        seen, step = set(), model.policy.world_model.rssm.img_step

        def watched(*args, step=step, seen=seen, **kwargs):
            seen.add(th.is_autocast_enabled("cpu"))
            return step(*args, **kwargs)

        monkeypatch.setattr(model.policy.world_model.rssm, "img_step", watched)
        state = model.policy.initial_state(2)
        action = model.policy.behavior.act(model.policy.world_model, LatentState(state.deter, state.stoch))
        assert seen == {mixed}
        assert action.dtype == th.float32


def test_a_device_without_bfloat16_is_refused(monkeypatch) -> None:
    precision.check_mixed_precision(th.device("cpu"))
    with pytest.raises(ValueError, match=r"device='mps'.*write mixed_precision=False"):
        precision.check_mixed_precision(th.device("mps"))
    monkeypatch.setattr(th.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(th.cuda, "get_device_capability", lambda device: (7, 0))
    with pytest.raises(ValueError, match=r"Tesla V100 has compute capability 7\.0.*write mixed_precision=False"):
        precision.check_mixed_precision(th.device("cuda"))
    monkeypatch.setattr(th.cuda, "get_device_capability", lambda device: (9, 0))
    precision.check_mixed_precision(th.device("cuda"))
