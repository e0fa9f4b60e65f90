"""Every ablation of the paper's Table 2 cuts or changes the gradient that it names, and no other.

Two models with equal weights see one batch and draw equal random numbers. The gradients of every loss, by the part of
the model that they reach, are compared bit for bit.
"""

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_dreamer import DreamerV2
from sb3_dreamer.core.latents import CategoricalLatent, GaussianLatent
from tests.spaces_env import SpacesEnv, image

LOSSES = ("recon_camera", "recon_speed", "reward", "cont", "kl")
Grads = dict[str, dict[str, th.Tensor]]


def make(**kwargs: Any) -> DreamerV2:
    space = spaces.Dict({"camera": image(16, 16, 1), "speed": spaces.Box(-1, 1, (2,))})
    env = SpacesEnv(space, kwargs.pop("actions", spaces.Discrete(3)))
    settings = {"model_size": "debug", "batch_size": 3, "batch_length": 6, "learning_starts": 50, "train_ratio": 0}
    return DreamerV2("MultiInputPolicy", env, **settings | {"horizon": 4, "seed": 0} | kwargs)


@pytest.fixture(scope="module")
def batch() -> Any:
    """Rows of a random policy, with ends of episodes among them."""
    return make().learn(60).replay_buffer.sample_sequences(3, 6)


def flat(grads: tuple[th.Tensor, ...]) -> th.Tensor:
    return th.cat([grad.flatten() for grad in grads])


def gradient(loss: th.Tensor, module: nn.Module) -> th.Tensor:
    return flat(th.autograd.grad(loss.sum(), list(module.parameters()), retain_graph=True, materialize_grads=True))


def model_gradients(model: DreamerV2, batch: Any) -> Grads:
    """Gradient of each loss of the world model on each of its parts."""
    world_model = model.policy.world_model
    parts = {"encoder": world_model.encoder, "rssm": world_model.rssm, "decoder": world_model.decoder}
    parts |= {"reward": world_model.reward_head, "cont": world_model.cont_head}
    th.manual_seed(1)
    losses = world_model.loss(batch).losses
    assert set(losses) == set(LOSSES)
    return {name: {part: gradient(losses[name], module) for part, module in parts.items()} for name in LOSSES}


def changed(left: Grads, right: Grads) -> set[tuple[str, str]]:
    return {(a, b) for a in left for b in left[a] if not th.equal(left[a][b], right[a][b])}


def test_reward_and_image_gradients_stop_at_the_features(batch) -> None:
    full = model_gradients(make(), batch)
    for name in ("recon_camera", "recon_speed", "reward", "cont", "kl"):
        assert full[name]["rssm"].any() and full[name]["encoder"].any()
    no_reward = model_gradients(make(reward_gradients=False), batch)
    assert changed(full, no_reward) == {("reward", "encoder"), ("reward", "rssm")}
    assert not no_reward["reward"]["encoder"].any() and not no_reward["reward"]["rssm"].any()
    assert no_reward["reward"]["reward"].any()  # the head itself still learns
    no_image = model_gradients(make(image_gradients=False), batch)
    cut = {(f"recon_{key}", part) for key in ("camera", "speed") for part in ("encoder", "rssm")}
    assert changed(full, no_image) == cut
    assert not any(no_image[name][part].any() for name, part in cut)
    assert no_image["recon_camera"]["decoder"].any()


def test_without_balancing_the_kl_pulls_both_sides_alike(batch) -> None:
    full, plain = model_gradients(make(kl_balance=0.8), batch), model_gradients(make(kl_balance=None), batch)
    assert changed(full, plain) == {("kl", "encoder"), ("kl", "rssm")}
    latent = CategoricalLatent(3, 4, unimix=0.0)
    post, prior = (th.randn(2, 5, 12).requires_grad_() for _ in range(2))

    def sides(objective: Any) -> tuple[th.Tensor, ...]:
        loss = objective(latent, latent.params(post), latent.params(prior))["kl"]
        return th.autograd.grad(loss.sum(), (post, prior))

    post_grad, prior_grad = sides(make(kl_balance=None).policy.world_model.objective)
    balanced_post, balanced_prior = sides(make(kl_balance=0.8).policy.world_model.objective)
    assert th.allclose(balanced_prior, 0.8 * prior_grad, atol=1e-6)
    assert th.allclose(balanced_post, 0.2 * post_grad, atol=1e-6)
    reference = th.distributions.kl_divergence(
        *(th.distributions.Categorical(logits=x.unflatten(-1, (3, 4))) for x in (post, prior))
    ).sum()
    for grad, expected in zip((post_grad, prior_grad), th.autograd.grad(reference, (post, prior)), strict=True):
        assert th.allclose(grad, expected, atol=1e-6)


def actor_gradient(model: DreamerV2, batch: Any) -> tuple[th.Tensor, th.Tensor]:
    """Gradients of the actor's and of the critic's loss on a dream from fixed states."""
    behavior, world_model = model.behavior, model.policy.world_model
    th.manual_seed(2)
    post = world_model.loss(batch).post.flatten_time()
    dream = behavior.rollout(world_model, post, 1.0 - batch.is_terminal.flatten().float(), 4)
    targets = behavior.targets(dream, 0.9, 0.8)
    actor_loss = behavior.actor_loss(dream, targets, model.now["rho"], model.now["ent_coef"])
    return gradient(actor_loss, behavior.actor), gradient(behavior.critic_loss(targets), behavior.critic)


def test_rho_mixes_reinforce_and_straight_through_gradients(batch) -> None:
    reinforce, critic = actor_gradient(make(rho=1.0, ent_coef=0.0), batch)
    dynamics, same_critic = actor_gradient(make(rho=0.0, ent_coef=0.0), batch)
    mixed, _ = actor_gradient(make(rho=0.25, ent_coef=0.0), batch)
    assert reinforce.any() and dynamics.any() and not th.allclose(reinforce, dynamics)
    assert th.allclose(mixed, 0.25 * reinforce + 0.75 * dynamics, atol=1e-7)
    assert th.equal(critic, same_critic)  # the dream and its values are the same, only the actor's gradient is not
    with_entropy, _ = actor_gradient(make(rho=0.0, ent_coef=0.1), batch)
    assert not th.allclose(with_entropy, dynamics)
    full, no_reinforce = model_gradients(make(rho=1.0), batch), model_gradients(make(rho=0.0), batch)
    assert changed(full, no_reinforce) == set()


def test_dynamics_gradient_needs_an_estimator_that_passes_it_on(batch) -> None:
    model = make(rho=0.0, ent_coef=0.0)
    model.behavior.actor.estimator = None  # samples without a gradient: nothing is left of the actor's
    assert not actor_gradient(model, batch)[0].any()


def test_gaussian_latents_are_reparameterised(batch) -> None:
    full, ablated = make(), make(policy_kwargs={"latent": "gaussian"})
    assert isinstance(full.policy.world_model.rssm.latent, CategoricalLatent)
    latent = ablated.policy.world_model.rssm.latent
    assert isinstance(latent, GaussianLatent)
    out = th.randn(7, latent.param_size).requires_grad_()
    params = latent.params(out)
    noise = (latent.sample(params) - params.mean) / params.std
    grad = th.autograd.grad(latent.sample(params).sum(), params.mean, retain_graph=True)[0]
    assert th.equal(grad, th.ones_like(grad))
    assert noise.std() > 0.5
    assert float(params.std.detach().min()) > 0.1 and float(params.std.detach().max()) < 2.1
    grads = model_gradients(ablated, batch)
    assert all(grads[name]["encoder"].any() for name in LOSSES)
    assert ablated.learn(60)._n_updates == 0


def test_layer_norm_is_in_the_gru_alone_and_can_be_taken_away(batch) -> None:
    def norms(model: DreamerV2) -> list[str]:
        return [name for name, module in model.policy.named_modules() if isinstance(module, nn.LayerNorm)]

    full, ablated = make(), make(policy_kwargs={"layer_norm": False})
    assert norms(full) == ["world_model.rssm.cell.cell.norm"]
    assert norms(ablated) == []
    for model, same in ((full, True), (ablated, False)):
        cell = model.policy.world_model.rssm.cell.cell
        x, deter = th.randn(5, 16), th.randn(5, 16)
        before = cell(x, deter)
        with th.no_grad():
            for param in cell.linear.parameters():
                param.mul_(3.0)
        assert th.allclose(before, cell(x, deter), atol=1e-3) is same  # only a norm undoes the scale
    assert norms(make(model_size="crafter", policy_kwargs={"deter": 8, "hidden": 8, "net_arch": [8], "cnn_depth": 1}))[
        :2
    ] != norms(full)
