"""Every ablation of Figures D.1 to D.3 changes what it names, and nothing else."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_dreamer import DreamerV3
from sb3_dreamer.core.functional import symlog
from sb3_dreamer.core.heads import MSEHead
from sb3_dreamer.core.types import ImaginedTrajectory, SequenceBatch

FAMILIES = ["debug", "debug2024"]


def make(size: str = "debug", env: str = "Pendulum-v1", **kwargs) -> DreamerV3:
    tiny = {"batch_size": 2, "batch_length": 6, "horizon": 3, "buffer_size": 100, "seed": 0, "device": "cpu"}
    return DreamerV3("MlpPolicy", gym.make(env), model_size=size, **(tiny | kwargs))


def make_batch() -> SequenceBatch:
    generator = th.Generator().manual_seed(3)
    flags = th.zeros(2, 6, dtype=th.bool)
    obs = {"obs": 50 * th.randn(2, 6, 3, generator=generator)}
    action = th.rand(2, 6, 1, generator=generator) * 2 - 1
    return SequenceBatch(obs, action, 100 * th.randn(2, 6, generator=generator), flags, flags, flags.clone())


def make_dream(model: DreamerV3) -> ImaginedTrajectory:
    generator = th.Generator().manual_seed(4)
    feat = th.randn(5, 4, model.policy.world_model.rssm.feat_size, generator=generator)
    rest = [th.randn(5, 3, generator=generator) for _ in range(4)]
    action, log_prob, entropy, reward = rest
    return ImaginedTrajectory(feat, action.unsqueeze(-1), log_prob, entropy, 20 * reward, th.ones(5, 4))


def model_losses(model: DreamerV3) -> dict[str, th.Tensor]:
    th.manual_seed(0)
    return model.policy.world_model.loss(make_batch()).losses


def same_weights(left: DreamerV3, right: DreamerV3) -> bool:
    ours, theirs = left.policy.state_dict(), right.policy.state_dict()
    return ours.keys() == theirs.keys() and all(th.equal(ours[name], theirs[name]) for name in ours)


def changed_losses(left: DreamerV3, right: DreamerV3) -> set[str]:
    ours, theirs = model_losses(left), model_losses(right)
    assert ours.keys() == theirs.keys()
    return {name for name in ours if not th.equal(ours[name], theirs[name])}


@pytest.mark.parametrize("size", FAMILIES)
def test_no_kl_balancing(size) -> None:
    base, model = make(size), make(size, kl_balancing=False)
    before, after = (dict(m.policy.world_model.scales) for m in (base, model))
    assert after["dyn"] == after["rep"] == pytest.approx((before["dyn"] + before["rep"]) / 2)
    assert {name for name in before if before[name] != after[name]} == {"dyn", "rep"}
    assert same_weights(base, model) and changed_losses(base, model) == set()


@pytest.mark.parametrize("size", FAMILIES)
def test_no_free_bits(size) -> None:
    base, model = make(size), make(size, free_bits=0.0)
    assert same_weights(base, model) and changed_losses(base, model) <= {"dyn", "rep"}
    with_bits, without = model_losses(base), model_losses(model)
    th.testing.assert_close(with_bits["dyn"], without["dyn"].clamp(min=1.0))
    assert (without["dyn"] < 1.0).any(), "the untrained KL is below one nat somewhere"
    assert base.policy.world_model.scales == model.policy.world_model.scales


def test_no_symlog_inputs() -> None:
    base, model = make(), make(policy_kwargs={"symlog_inputs": False})
    assert same_weights(base, model)
    x = th.tensor([[30.0, -2.0, 0.5]])
    seen = model.policy.world_model.encode({"obs": symlog(x)})
    th.testing.assert_close(seen, base.policy.world_model.encode({"obs": x}))
    error = model_losses(model)["recon_obs"]
    assert error.mean() > 100 * model_losses(base)["recon_obs"].mean(), "targets are raw, too"
    out = th.randn(1, 1, 3)
    raw = model.policy.world_model.decoder.observation({"obs": out})["obs"]
    assert th.equal(raw, out), "decoded values are not expanded"


@pytest.mark.parametrize("form", ["symlog", "mse"])
@pytest.mark.parametrize("size", FAMILIES)
def test_regression_without_bins(size, form) -> None:
    base, model = make(size), make(size, policy_kwargs={"regression": form})
    world_model, behavior = model.policy.world_model, model.behavior
    heads = (world_model.reward_head, behavior.critic, behavior.slow_critic)
    assert all(isinstance(head, MSEHead) and head.out.out_features == 1 for head in heads)
    shapes = [{n: p.shape for n, p in m.policy.named_parameters()} for m in (base, model)]
    differing = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    assert {name.rsplit(".", 2)[0] for name in differing} == {
        "world_model.reward_head",
        "behavior.critic",
        "behavior.slow_critic",
    }
    out, target = th.tensor([[2.0]]), th.tensor([7.0])
    goal = symlog(target) if form == "symlog" else target
    th.testing.assert_close(behavior.critic.loss(out, target), 0.5 * (2.0 - goal) ** 2)
    expected = float(np.expm1(2.0)) if form == "symlog" else 2.0
    assert behavior.critic.mean(out).item() == pytest.approx(expected, rel=1e-5)
    metrics = model._update(make_batch()).metrics
    assert all(th.isfinite(value) for value in metrics.values())


def test_slow_critic_as_target() -> None:
    base, model = make(), make(critic_target="slow")
    assert same_weights(base, model)
    dream = make_dream(base)
    for m in (base, model):
        th.manual_seed(1)
        th.nn.init.normal_(m.behavior.critic.out.weight)
        th.nn.init.normal_(m.behavior.slow_critic.out.weight)
    fast, slow = (m.behavior.targets(dream, 0.9, 0.95) for m in (base, model))
    assert th.equal(fast.value, slow.value), "the baseline stays the critic's"
    assert not th.equal(fast.returns, slow.returns)
    swapped = make()
    swapped.behavior.critic.load_state_dict(model.behavior.slow_critic.state_dict())
    th.testing.assert_close(swapped.behavior.targets(dream, 0.9, 0.95).returns, slow.returns)
    critic = model.behavior.critic
    alone = (slow.weight * critic.loss(slow.value_out[:, :-1], slow.returns)).mean()
    th.testing.assert_close(model.behavior.critic_loss(dream, slow), alone, msg="the pull to the slow critic is gone")
    assert changed_losses(base, model) == set()


@pytest.mark.parametrize("kind", ["return_std", "advantage_std"])
def test_normalization_by_deviation(kind) -> None:
    model = make(env="CartPole-v1", return_norm=kind, return_norm_min=0.0)
    dream = make_dream(model)
    targets = model.behavior.targets(dream, 0.99, 0.95)._replace(value=th.full((5, 3), 7.0) * th.arange(5)[:, None])
    loss = model.behavior.actor_loss(dream, targets, 0.0)
    advantage = targets.returns - targets.value
    source = targets.returns if kind == "return_std" else advantage
    scale = 0.01 * source.std(unbiased=False)  # the average starts at 0
    expected = -(targets.weight * dream.log_prob * advantage / scale).mean()
    th.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-4)


def test_no_minimum_of_the_return_scale() -> None:
    base, model = make(), make(return_norm_min=0.0)
    returns = th.linspace(0.0, 10.0, 101)
    assert base.behavior.return_norm.update(returns)[1].item() == 1.0
    assert model.behavior.return_norm.update(returns)[1].item() == pytest.approx(0.01 * 9.0, rel=1e-4)
    assert same_weights(base, model), "the averages themselves are the same"


def test_no_entropy() -> None:
    base, model = make(env="CartPole-v1"), make(env="CartPole-v1", ent_coef=0.0)
    dream = make_dream(base)
    losses = []
    for m in (base, model):
        targets = m.behavior.targets(dream, 0.99, 0.95)
        losses.append(m.behavior.actor_loss(dream, targets, m.ent_coef))
    difference = -(targets.weight * 3e-4 * dream.entropy).mean()
    th.testing.assert_close(losses[0] - losses[1], difference, rtol=1e-2, atol=1e-6)


def test_ablations_survive_a_file(tmp_path) -> None:
    options = {
        "kl_balancing": False,
        "free_bits": 0.0,
        "policy_kwargs": {"regression": "symlog", "symlog_inputs": False},
    }
    options |= {"critic_target": "slow", "return_norm": "advantage_std", "return_norm_min": 0.0}
    model = make("debug2024", **options)
    model._update(make_batch())
    model.save(tmp_path / "model")
    loaded = DreamerV3.load(tmp_path / "model")
    assert same_weights(model, loaded)
    assert loaded.policy.world_model.objective == model.policy.world_model.objective
    assert loaded.behavior.critic_target == "slow" and loaded.behavior.normalize_advantage
    model.policy.save(tmp_path / "policy.zip")
    type(model.policy).load(tmp_path / "policy.zip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic_target": "slwo"}, "did you mean 'slow'"),
        ({"return_norm": "percentiles"}, "did you mean 'percentile'"),
        ({"policy_kwargs": {"regression": "twohott"}}, "did you mean 'twohot'"),
        ({"free_bits": -1.0}, "free_bits=-1.0"),
        ({"context_dtype": "int8", "replay_context": True}, "context_dtype='int8'"),
        ({"policy_kwargs": {"action_masks": True}}, "action_masks=True needs Discrete"),
    ],
)
def test_bad_options(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
