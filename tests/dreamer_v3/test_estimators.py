"""Gradient estimators of latents and discrete actors, chosen by name."""

import pytest
import torch as th

from sb3_dreamer import DreamerV3
from sb3_dreamer.core.estimators import GumbelSoftmax, StraightThrough, StraightThroughGumbel
from tests.dreamer_v3.test_ablations import make, make_batch

CLASSES = {
    "straight_through": StraightThrough,
    "gumbel_softmax": GumbelSoftmax,
    "st_gumbel_softmax": StraightThroughGumbel,
}


@pytest.mark.parametrize("size", ["debug", "debug2024"])
@pytest.mark.parametrize("name", CLASSES)
def test_latent_estimator(size: str, name: str) -> None:
    model = make(size, policy_kwargs={"latent_estimator": name, "latent_temperature": 0.5})
    rssm = model.policy.world_model.rssm
    assert isinstance(rssm.latent.estimator, CLASSES[name]) and rssm.latent.estimator.temperature == 0.5
    output = model.policy.world_model.loss(make_batch())
    hard = set(output.post.stoch.detach().unique().tolist()) == {0.0, 1.0}
    assert hard == (name != "gumbel_softmax")
    # The reward's gradient reaches the posterior's network through the sample.
    th.nn.init.normal_(model.policy.world_model.reward_head.out.weight)
    loss = model.policy.world_model.loss(make_batch()).losses["reward"].sum()
    assert th.autograd.grad(loss, rssm.post_out.weight)[0].abs().sum() > 0
    metrics = model._update(make_batch()).metrics
    assert all(th.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("size", ["debug", "debug2024"])
@pytest.mark.parametrize("name", CLASSES)
def test_actor_estimator_gives_dynamics_gradients(size: str, name: str) -> None:
    base = make(size, env="CartPole-v1")
    model = make(size, env="CartPole-v1", policy_kwargs={"actor_estimator": name, "actor_temperature": 2.0})
    assert base.behavior.actor_gradient == "reinforce" and base.behavior.actor.estimator is None
    assert model.behavior.actor_gradient == "dynamics" and isinstance(model.behavior.actor.estimator, CLASSES[name])
    th.nn.init.normal_(model.policy.world_model.reward_head.out.weight)
    rssm = model.policy.world_model.rssm
    dream = model.behavior.rollout(model.policy.world_model, rssm.initial(5), th.ones(5), 3)
    # The last reward depends on the first action through the model alone.
    assert th.autograd.grad(dream.reward[:, -1].sum(), model.behavior.actor.out.weight)[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"latent_estimator": "score_function"}, "score_function"),
        ({"latent_estimator": "straight_trough"}, "straight_through"),
        ({"actor_estimator": "reinforce"}, "reinforce"),
        ({"latent_temperature": 0.0}, "latent_temperature=0.0 must be positive"),
    ],
)
def test_wrong_names_and_numbers(kwargs, message) -> None:
    with pytest.raises(ValueError, match=message):
        DreamerV3("MlpPolicy", "CartPole-v1", model_size="debug", policy_kwargs=kwargs)
