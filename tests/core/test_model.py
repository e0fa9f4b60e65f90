"""Layers, latents, codecs, RSSM, world model and imagination: shapes, resets, gradients and alignment."""

import math

import pytest
import torch as th

from sb3_dreamer.common.files.optimizer_state import load_optimizer, optimizer_to_tensors
from sb3_dreamer.core import functional as fn
from sb3_dreamer.core.action_heads import BoundedNormalHead, OneHotHead
from sb3_dreamer.core.behavior import RandomBehavior
from sb3_dreamer.core.codecs import Decoder, Encoder
from sb3_dreamer.core.heads import BernoulliHead, MSEHead, TwoHotHead
from sb3_dreamer.core.images.convs import ImageDecoder, ImageEncoder, image_stages
from sb3_dreamer.core.latents import CategoricalLatent, GaussianLatent
from sb3_dreamer.core.layers import NormStyle, init_weight
from sb3_dreamer.core.objectives import BalancedKL, DynRepKL, FreeNatsKL
from sb3_dreamer.core.optim import Adam, LaProp, OptimizerGroup, make_adam
from sb3_dreamer.core.state_space import limit_action
from sb3_dreamer.core.types import ActionLayout, LatentState, ObsKey, SequenceBatch
from sb3_dreamer.core.world_model import WorldModel
from sb3_dreamer.dreamer_v3.behavior import DreamerV3Behavior
from sb3_dreamer.dreamer_v3.networks import build_networks
from sb3_dreamer.dreamer_v3.spec import SIZES

STYLE = NormStyle(norm="layer", act="silu")
KEYS = (
    ObsKey("camera", "image", (3, 32, 32)),
    ObsKey("position", "vector", (3,)),
    ObsKey("mode", "discrete", (), (4,), (2,)),
)


def make(kind: str = "discrete") -> tuple:
    layout = ActionLayout("continuous", (2,)) if kind == "continuous" else ActionLayout("discrete", (3, 2))
    return *build_networks(SIZES["debug"], KEYS, layout), layout


def random_batch(layout: ActionLayout, b: int = 3, t: int = 6) -> SequenceBatch:
    if layout.kind == "continuous":
        action = th.rand(b, t, layout.size) * 2 - 1
    else:
        action = RandomBehavior(layout).act(None, LatentState(th.zeros(b * t, 1), th.zeros(b * t, 1))).view(b, t, -1)  # type: ignore[arg-type]
    first, last = th.zeros(b, t, dtype=th.bool), th.zeros(b, t, dtype=th.bool)
    first[:, 3], last[:, 2] = True, True
    obs = {
        "camera": th.randint(0, 256, (b, t, 3, 32, 32), dtype=th.uint8),
        "position": th.randn(b, t, 3),
        "mode": th.randint(2, 6, (b, t)),
    }
    return SequenceBatch(obs, action.masked_fill(first[..., None], 0.0), th.randn(b, t), first, last, last.clone())


# ---- functional ----------------------------------------------------------------------------------------------------


def test_lambda_return_by_hand() -> None:
    reward, value = th.tensor([[1.0, 2.0, 3.0]]), th.tensor([[10.0, 20.0, 30.0]])
    discount, lam = th.tensor([[0.9, 0.0, 0.5]]), 0.5
    last = 3.0 + 0.5 * (0.5 * 30.0 + 0.5 * 30.0)
    middle = 2.0
    first = 1.0 + 0.9 * (0.5 * 10.0 + 0.5 * middle)
    th.testing.assert_close(fn.lambda_return(reward, value, discount, lam), th.tensor([[first, middle, last]]))


def test_returns_of_replay_do_not_cross_episodes() -> None:
    reward = th.arange(6.0)[None]
    value = th.full((1, 6), 7.0)
    is_last = th.tensor([[0, 0, 1, 0, 0, 0]]).bool()
    cut = fn.replay_lambda_return(reward, value, is_last, th.zeros_like(is_last), 0.9, 0.95)
    ended = fn.replay_lambda_return(reward, value, is_last, is_last, 0.9, 0.95)
    assert cut[0, 1] == pytest.approx(2.0 + 0.9 * 7.0), "a truncated step bootstraps from its own value"
    assert ended[0, 1] == pytest.approx(2.0), "a terminal step has no future"


def test_discount_weights() -> None:
    cont = th.tensor([[1.0, 0.5, 1.0], [0.0, 1.0, 1.0]])
    th.testing.assert_close(fn.discount_weights(cont, 0.9), th.tensor([[1.0, 0.45, 0.405], [0.0, 0.0, 0.0]]))


def test_two_hot_loss_equals_the_dense_form_and_its_gradient() -> None:
    bins = fn.symlog_bins(11, 5.0)
    target = th.tensor([-9.0, -5.0, -0.3, 0.0, 2.2, 5.0, 100.0])
    logits = th.randn(7, 11, requires_grad=True)
    dense = th.zeros(7, 11)
    for i, x in enumerate(target.clamp(-5, 5).tolist()):
        below = min(int((x + 5.0) / 1.0), 9)
        dense[i, below], dense[i, below + 1] = 1 - (x + 5.0 - below), x + 5.0 - below
    expected = -(dense * logits.log_softmax(-1)).sum(-1)
    got = fn.two_hot_loss(logits.log_softmax(-1), target, bins)
    th.testing.assert_close(got, expected)
    ours, theirs = (th.autograd.grad(x.sum(), logits, retain_graph=True)[0] for x in (got, expected))
    th.testing.assert_close(ours, theirs)


def test_unimix_floors_the_probability() -> None:
    probs = fn.unimix_logits(th.tensor([[100.0, 0.0, 0.0, 0.0]]), 0.01).exp()
    th.testing.assert_close(probs, th.tensor([[0.9925, 0.0025, 0.0025, 0.0025]]))


def test_gaussian_kl_against_torch() -> None:
    mean_p, mean_q, std_p, std_q = th.randn(5, 4), th.randn(5, 4), th.rand(5, 4) + 0.1, th.rand(5, 4) + 0.1
    normal = th.distributions.Normal
    expected = th.distributions.kl_divergence(normal(mean_p, std_p), normal(mean_q, std_q)).sum(-1)
    th.testing.assert_close(fn.gaussian_kl(mean_p, std_p, mean_q, std_q), expected)


def test_unroll_forwards_and_backwards() -> None:
    x = th.arange(4.0)[None]
    forward = fn.unroll(lambda c, v: (c + v, c + v), th.zeros(1), (x,))
    backward = fn.unroll(lambda c, v: (c + v, (c + v, v)), th.zeros(1), (x,), reverse=True)
    assert forward.tolist() == [[0.0, 1.0, 3.0, 6.0]]
    assert backward[0].tolist() == [[6.0, 6.0, 5.0, 3.0]] and backward[1].tolist() == x.tolist()


# ---- layers and heads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fan", "variance"), [("avg", 1 / 300), ("in", 1 / 400)])
def test_initialization(fan: str, variance: float) -> None:
    weight = th.empty(200, 400)
    init_weight(weight, 400, 200, fan=fan)
    assert weight.var().item() == pytest.approx(variance, rel=0.05)
    assert weight.abs().max() <= 2 * 1.1368 * math.sqrt(variance) + 1e-6
    init_weight(weight, 400, 200, scale=0.0)
    assert not weight.any()


def test_reward_and_critic_start_at_zero() -> None:
    world_model, behavior, _ = make()
    feat = th.randn(5, world_model.rssm.feat_size)
    assert not world_model.reward(feat).any()
    assert not behavior.value(feat).any()
    assert behavior.actor(feat).any()


def test_scalar_heads() -> None:
    feat, target = th.randn(4, 6), th.tensor([0.0, 1.0, -3.0, 1000.0])
    mse = MSEHead(6, (8,), style=STYLE)
    th.testing.assert_close(mse.loss(mse(feat), target), 0.5 * (mse.mean(mse(feat)) - target) ** 2)
    hard, soft = BernoulliHead(6, (8,), style=STYLE, hard=True), BernoulliHead(6, (8,), style=STYLE)
    logits = th.tensor([[-2.0], [3.0]])
    assert hard.mean(logits).tolist() == [0.0, 1.0]
    th.testing.assert_close(soft.mean(logits), th.sigmoid(th.tensor([-2.0, 3.0])))
    yes, no = th.sigmoid(logits[:, 0]).log(), th.sigmoid(-logits[:, 0]).log()
    th.testing.assert_close(soft.loss(logits, th.tensor([0.3, 0.3])), -(0.3 * yes + 0.7 * no))
    with pytest.raises(ValueError, match="n_bins=254"):
        TwoHotHead(6, (8,), style=STYLE, n_bins=254)


def test_bounded_normal_against_torch() -> None:
    head = BoundedNormalHead(6, (8,), 2, style=STYLE)
    out, action = th.randn(5, 4), th.randn(5, 2)
    mean, std = head.mean_std(out)
    assert (mean.abs() <= 1).all() and (std >= 0.1).all() and (std <= 1.0).all()
    reference = th.distributions.Normal(mean, std)
    stats = head.stats(out, action)
    th.testing.assert_close(stats.log_prob, reference.log_prob(action).sum(-1))
    th.testing.assert_close(stats.entropy, reference.entropy().sum(-1))


def test_one_hot_parts_of_unequal_size() -> None:
    head = OneHotHead(6, (8,), (3, 2, 5), style=STYLE, unimix=0.01)
    out = th.randn(20000, 10) * 0 + th.randn(10)
    sample = head.sample(out)
    assert all((part.sum(-1) == 1).all() for part in sample.split((3, 2, 5), -1))
    probs = th.cat([0.99 * part.softmax(-1) + 0.01 / part.shape[-1] for part in out[:1].split((3, 2, 5), -1)], -1)
    th.testing.assert_close(sample.mean(0), probs[0], atol=0.015, rtol=0)
    stats = head.stats(out, sample)
    th.testing.assert_close(stats.log_prob, (probs.log() * sample).sum(-1))
    assert (head.mode(out) == head.mode(out)[0]).all()


# ---- latents and objectives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [CategoricalLatent(4, 5), GaussianLatent(6)], ids=["categorical", "gaussian"])
def test_latents(latent) -> None:
    out = th.randn(2, 3, latent.param_size, requires_grad=True)
    params = latent.params(out)
    assert latent.sample(params).shape == latent.mode(params).shape == (2, 3, *latent.shape)
    assert latent.kl(params, params).abs().max() < 1e-5
    other = latent.params(th.randn(2, 3, latent.param_size))
    assert (latent.kl(params, other) > 0).all() and latent.entropy(params).shape == (2, 3)
    weights = th.randn(latent.shape)
    grad = th.autograd.grad((latent.sample(params) * weights).sum(), out)[0]
    assert grad.abs().sum() > 0, "samples pass gradients"


@pytest.mark.parametrize("objective", [DynRepKL(), BalancedKL(free=1.0), FreeNatsKL()], ids=lambda o: type(o).__name__)
def test_objectives_name_their_scales(objective) -> None:
    latent = CategoricalLatent(4, 5)
    post, prior = (latent.params(5 * th.randn(2, 3, 20)) for _ in range(2))
    losses = objective(latent, post, prior)
    assert losses.keys() == objective.scales.keys()
    assert all(loss.shape == (2, 3) for loss in losses.values())


def test_free_bits_cut_the_gradient() -> None:
    latent = CategoricalLatent(4, 5)
    outs = [th.zeros(1, 1, 20, requires_grad=True), (0.1 * th.randn(1, 1, 20)).requires_grad_()]
    post, prior = map(latent.params, outs)
    losses = DynRepKL(free=1.0)(latent, post, prior)
    assert losses["dyn"].item() == losses["rep"].item() == 1.0
    grads = th.autograd.grad(sum(losses.values()).sum(), outs)
    assert not any(grad.any() for grad in grads)


def test_each_kl_moves_its_own_side() -> None:
    latent = CategoricalLatent(4, 5)
    outs = [th.randn(1, 1, 20, requires_grad=True) for _ in range(2)]
    losses = DynRepKL(free=0.0)(latent, *map(latent.params, outs))
    post_grad, prior_grad = th.autograd.grad(losses["dyn"].sum(), outs, allow_unused=True, retain_graph=True)
    assert post_grad is None and prior_grad.abs().sum() > 0
    post_grad, prior_grad = th.autograd.grad(losses["rep"].sum(), outs, allow_unused=True)
    assert prior_grad is None and post_grad.abs().sum() > 0


# ---- codecs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (36, 36), (40, 57), (64, 64), (96, 96), (100, 100), (128, 128), (33, 127)])
def test_image_codec_of_any_size(size) -> None:
    encoder, decoder = ImageEncoder(2, size, 2, style=STYLE), ImageDecoder(7, 2, size, 2, style=STYLE)
    assert encoder(th.rand(3, 2, *size)).shape == (3, encoder.out_size)
    assert decoder(th.randn(3, 7)).shape == (3, 2, *size)
    smallest = min(image_stages(size)[-1])
    assert 3 <= smallest <= 6


def test_every_pixel_is_seen() -> None:
    """An odd side loses no border: each pixel changes the embedding."""
    encoder = ImageEncoder(1, (33, 37), 2, style=STYLE)
    image = th.rand(1, 1, 33, 37, requires_grad=True)
    th.autograd.backward(encoder(image).square().sum())
    assert image.grad is not None and (image.grad != 0).all()


def test_dict_codec() -> None:
    encoder = Encoder(KEYS, depth=2, units=(8,), style=STYLE)
    decoder = Decoder(10, KEYS, depth=2, units=(8,), style=STYLE)
    batch = random_batch(ActionLayout("discrete", (3,)))
    assert encoder(batch.obs).shape == (3, 6, encoder.out_size)
    outs = decoder(th.randn(3, 6, 10))
    losses = decoder.losses(outs, batch.obs)
    assert losses.keys() == decoder.scales.keys() == {"recon_camera", "recon_position", "recon_mode"}
    assert all(loss.shape == (3, 6) for loss in losses.values())
    image_error = ((outs["camera"] - batch.obs["camera"] / 255.0) ** 2).sum((-3, -2, -1))
    th.testing.assert_close(losses["recon_camera"], image_error)
    vector_error = ((outs["position"] - fn.symlog(batch.obs["position"])) ** 2).sum(-1)
    th.testing.assert_close(losses["recon_position"], vector_error)
    picked = outs["mode"].log_softmax(-1).gather(-1, batch.obs["mode"].unsqueeze(-1) - 2)
    th.testing.assert_close(losses["recon_mode"], -picked.squeeze(-1))
    decoded = decoder.observation(outs)
    assert all(decoded[key].shape == value.shape for key, value in batch.obs.items())
    assert decoded["mode"].min() >= 2 and decoded["camera"].max() <= 255


# ---- RSSM and world model ------------------------------------------------------------------------------------------


def test_first_row_forgets_what_was_before() -> None:
    world_model, _, layout = make()
    batch = random_batch(layout)
    other = batch._replace(
        obs={key: th.cat([value[:, :3].flip(0), value[:, 3:]], 1) for key, value in batch.obs.items()},
        prev_action=th.cat(
            [batch.prev_action[:, :3].flip(0), th.ones_like(batch.prev_action[:, 3:4]), batch.prev_action[:, 4:]], 1
        ),
    )
    states = []
    for data in (batch, other):
        th.manual_seed(0)
        states.append(world_model.observe(data).state.feat)
    assert not th.allclose(states[0][:, 2], states[1][:, 2])
    th.testing.assert_close(states[0][:, 3:], states[1][:, 3:], msg="state or action leaks over is_first")


def test_a_sequence_without_state_starts_afresh() -> None:
    world_model, _, layout = make()
    batch = random_batch(layout)
    th.manual_seed(0)
    implicit = world_model.observe(batch).state.deter
    th.manual_seed(0)
    marked = batch._replace(is_first=batch.is_first.index_fill(1, th.tensor([0]), True))
    explicit = world_model.observe(marked, world_model.rssm.initial(3)).state.deter
    th.testing.assert_close(implicit, explicit)


def test_img_step_is_the_prior_part_of_obs_step() -> None:
    world_model, _, layout = make()
    rssm = world_model.rssm
    state = rssm.initial(4)
    action = RandomBehavior(layout).act(world_model, state)
    embed = th.randn(4, world_model.encoder.out_size)
    observed = rssm.obs_step(state, action, embed, th.zeros(4, dtype=th.bool))
    th.testing.assert_close(rssm.img_step(state, action).deter, observed.deter)


def test_limit_action() -> None:
    got = limit_action(th.tensor([[0.5, -4.0]]))
    th.testing.assert_close(got, th.tensor([[0.5, -1.0]]))


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_loss_names_and_gradients(kind) -> None:
    world_model, _behavior, layout = make(kind)
    output = world_model.loss(random_batch(layout))
    assert output.losses.keys() == world_model.scales.keys()
    assert all(loss.shape == (3, 6) and th.isfinite(loss).all() for loss in output.losses.values())
    grads = th.autograd.grad(world_model.total(output.losses), list(world_model.parameters()), allow_unused=True)
    unused = [name for (name, _), grad in zip(world_model.named_parameters(), grads, strict=True) if grad is None]
    assert unused == [], "every weight of the world model learns"
    with pytest.raises(ValueError, match="different names"):
        world_model.total({"reward": th.zeros(1)})


def test_a_world_model_without_a_decoder_needs_another_objective() -> None:
    parts = dict.fromkeys(("encoder", "rssm", "decoder", "reward", "cont", "objective"))
    with pytest.raises(ValueError, match="decoder=None: pass a decoder, or another representation objective"):
        WorldModel(**parts)


def test_detached_heads_do_not_train_the_representation() -> None:
    world_model, _, layout = make()
    batch = random_batch(layout)

    def encoder_gradient(loss: str) -> bool:
        grads = th.autograd.grad(
            world_model.loss(batch).losses[loss].sum(), list(world_model.encoder.parameters()), allow_unused=True
        )
        return any(grad is not None and grad.abs().sum() > 0 for grad in grads)

    th.nn.init.normal_(world_model.reward_head.out.weight)  # zero at the start, which would hide its gradient
    assert encoder_gradient("reward") and encoder_gradient("recon_camera") and encoder_gradient("cont")
    world_model.detached = frozenset({"reward", "recon"})
    assert not encoder_gradient("reward") and not encoder_gradient("recon_camera")
    assert encoder_gradient("cont")


# ---- imagination ---------------------------------------------------------------------------------------------------


class CountingRSSM(th.nn.Module):
    """Deter counts steps and carries the last action's choice: the reward of a state is read off it exactly."""

    feat_size = 3

    def img_step(self, state: LatentState, action: th.Tensor) -> LatentState:
        choice = action[:, 1:2]
        return LatentState(th.cat([state.deter[:, :1] + 1.0, choice], -1), state.stoch)


class CountingModel(th.nn.Module):
    """Reward = step + 100 · choice of the action that led there; continue ends after step 2."""

    def __init__(self) -> None:
        super().__init__()
        self.rssm = CountingRSSM()

    def reward(self, feat: th.Tensor) -> th.Tensor:
        return feat[..., 0] + 100 * feat[..., 1]

    def cont(self, feat: th.Tensor) -> th.Tensor:
        return (feat[..., 0] < 2).float()


@pytest.mark.parametrize("horizon", [1, 4])
def test_dreamed_rewards_belong_to_the_action_before(horizon) -> None:
    """reward[:, t] is that of the state after action[:, t]; cont[:, 0] is the real flag of the start."""
    style = NormStyle(norm="layer", act="silu", eps=1e-3)
    actor = OneHotHead(3, (16,), (2,), style=style, unimix=0.01, outscale=1.0, estimator=None)
    critic = MSEHead(3, (16,), style=style, outscale=0.0, symlog_targets=True)
    behavior = DreamerV3Behavior(actor, critic, actor_gradient="reinforce")
    start = LatentState(th.tensor([[0.0, 7.0]] * 64), th.zeros(64, 1))
    real = (th.arange(64) % 2).float()
    dream = behavior.rollout(CountingModel(), start, real, horizon)  # type: ignore[arg-type]
    assert dream.feat.shape == (64, horizon + 1, 3) and dream.action.shape == (64, horizon, 2)
    steps = th.arange(1.0, horizon + 1)
    th.testing.assert_close(dream.reward, steps + 100 * dream.action[..., 1])
    th.testing.assert_close(dream.feat[:, 0], start.feat)
    th.testing.assert_close(dream.cont[:, 0], real)
    th.testing.assert_close(dream.cont[:, 1:], (steps < 2).float().expand(64, -1))
    targets = behavior.targets(dream, gamma=0.9, gae_lambda=0.95)
    # The critic is zero at the start, so a return is the discounted sum of the rewards until the end.
    expected = dream.reward[:, 0] + (0.9 * 0.95 * dream.reward[:, 1] if horizon > 1 else 0.0)
    th.testing.assert_close(targets.returns[:, 0], expected)
    assert (targets.weight[real == 0] == 0).all(), "nothing is learned from the dream after a real end"
    chosen = behavior.actor.stats(behavior.actor(dream.feat[:, :-1]), dream.action)
    th.testing.assert_close(dream.log_prob, chosen.log_prob)


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_actor_and_critic_gradients_stay_apart(kind) -> None:
    world_model, behavior, layout = make(kind)
    th.nn.init.normal_(world_model.reward_head.out.weight)
    th.nn.init.normal_(behavior.critic.out.weight)
    start = world_model.loss(random_batch(layout)).post.flatten_time()
    dream = behavior.rollout(world_model, start, th.ones(18), 3)
    targets = behavior.targets(dream, 0.99, 0.95)
    actor_loss, critic_loss = behavior.actor_loss(dream, targets, 0.0), behavior.critic_loss(dream, targets)
    parts = {"actor": behavior.actor, "critic": behavior.critic, "model": world_model.encoder}

    def reaches(loss: th.Tensor, part: str) -> bool:
        params = list(parts[part].parameters())
        grads = th.autograd.grad(loss, params, allow_unused=True, retain_graph=True)
        return any(grad is not None and grad.abs().sum() > 0 for grad in grads)

    assert reaches(actor_loss, "actor") and reaches(critic_loss, "critic")
    assert not reaches(actor_loss, "model") and not reaches(critic_loss, "model")
    if kind == "discrete":
        assert not reaches(actor_loss, "critic") and not reaches(critic_loss, "actor")


def test_dynamics_gradient_improves_the_dreamed_return() -> None:
    """One step along the actor's gradient raises the return that the same model predicts."""
    th.manual_seed(0)
    world_model, behavior, layout = make("continuous")
    th.nn.init.normal_(world_model.reward_head.out.weight, std=0.3)
    start = world_model.loss(random_batch(layout, 8, 6)).post.flatten_time()

    def score() -> tuple[th.Tensor, th.Tensor]:
        th.manual_seed(1)
        dream = behavior.rollout(world_model, start, th.ones(48), 5)
        targets = behavior.targets(dream, 0.99, 0.95)
        return targets.returns.mean(), behavior.actor_loss(dream, targets, 0.0)

    before, loss = score()
    group = OptimizerGroup("actor", behavior.actor.parameters(), make_adam(behavior.actor.parameters(), 3e-3), 100.0)
    group.step(loss)
    for _ in range(20):
        group.step(score()[1])
    assert score()[0] > before


def test_slow_critic_moves_by_tau() -> None:
    _, behavior, _ = make()
    with th.no_grad():
        for param in behavior.critic.parameters():
            param.add_(1.0)
    before = [p.clone() for p in behavior.slow_critic.parameters()]
    behavior.update_slow_critic(0.02)
    for old, slow, fast in zip(before, behavior.slow_critic.parameters(), behavior.critic.parameters(), strict=True):
        th.testing.assert_close(slow, old + 0.02 * (fast - old))


# ---- optimizers ----------------------------------------------------------------------------------------------------


OPTIMIZERS = {
    "torch's Adam": lambda params: make_adam(params, 0.1),
    "Adam": lambda params: Adam(params, 0.1, eps=1e-5),
    "LaProp": lambda params: LaProp(params, 0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_update_is_skipped_whole(optimizer, bad) -> None:
    param = th.nn.Parameter(th.ones(3))
    group = OptimizerGroup("x", [param], optimizer([param]), 1.0)
    assert group.step((param * 2).sum())["x_skipped"] == 0
    before, state = param.detach().clone(), {k: v.clone() for k, v in group.optimizer.state[param].items()}
    assert group.step((param * bad).sum())["x_skipped"] == 1
    assert th.equal(param, before)
    assert all(th.equal(state[key], value) for key, value in group.optimizer.state[param].items())
    group.step((param * 2).sum())
    assert not th.equal(param, before)


def test_adam_adds_epsilon_beside_the_uncorrected_moment() -> None:
    """As torch's with an epsilon of its own in each update, over steps of very different sizes; two parameters."""
    ours, theirs = ([th.nn.Parameter(th.ones(3)), th.nn.Parameter(th.ones(2, 2))] for _ in range(2))
    one, other = Adam(ours, 0.1, eps=1e-3), th.optim.Adam(theirs, 0.1)
    start = [param.detach().clone() for param in ours]
    for step in range(1, 6):
        other.param_groups[0]["eps"] = 1e-3 / math.sqrt(1.0 - 0.999**step)
        for param, same in zip(ours, theirs, strict=True):
            same.grad = th.randn(param.shape, generator=th.Generator().manual_seed(step)) * 10.0 ** -(step + param.ndim)
            param.grad = same.grad.clone()
        one.step()
        other.step()
        for param, same in zip(ours, theirs, strict=True):
            th.testing.assert_close(param, same)
    assert all((param - old).abs().max() > 1e-3 for param, old in zip(ours, start, strict=True))


def test_adam_continues_from_the_state_of_torch_s() -> None:
    """DreamerV2's files of earlier versions hold it."""
    params = [th.nn.Parameter(th.ones(3)), th.nn.Parameter(th.ones(2))]
    former = make_adam(params, 0.1, eps=1e-5)
    for _ in range(3):
        for param in params:
            param.grad = th.full_like(param, 0.5)
        former.step()
    ours = Adam(params, 0.1, eps=1e-5)
    tensors, settings = optimizer_to_tensors(former)
    load_optimizer(ours, tensors, settings)
    for param in params:
        param.grad = th.zeros_like(param)
    ours.step()
    state = ours.state[params[1]]
    assert float(state["step"]) == 4
    th.testing.assert_close(state["exp_avg"], 0.9 * former.state[params[1]]["exp_avg"])
    th.testing.assert_close(state["exp_avg_sq"], 0.999 * former.state[params[1]]["exp_avg_sq"])


def test_clipping_is_by_the_global_norm() -> None:
    """Adam is blind to the scale of its first gradient; plain descent shows the clipping."""
    params = [th.nn.Parameter(th.zeros(2)), th.nn.Parameter(th.zeros(1))]

    class Descent(th.optim.SGD):
        def step(self, closure=None):
            with th.no_grad():
                for param in params:
                    param.sub_(param.grad / self.grad_scale)

    group = OptimizerGroup("x", params, Descent(params, 1.0), clip=1.0)
    metrics = group.step(3 * params[0].sum() + 4 * params[1].sum())
    norm = math.sqrt(9 + 9 + 16)
    assert metrics["x_grad_norm"].item() == pytest.approx(norm)
    th.testing.assert_close(params[0].detach(), th.full((2,), -3 / norm))
    th.testing.assert_close(params[1].detach(), th.full((1,), -4 / norm))
