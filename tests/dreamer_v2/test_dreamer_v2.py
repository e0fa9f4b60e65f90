"""DreamerV2 as a whole: settings, presets, schedules, slow critic, files, and independence of the other algorithms."""

import inspect
import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule

from sb3_dreamer import DreamerV2
from sb3_dreamer.common.report import parameter_count
from sb3_dreamer.core.estimators import GumbelSoftmax, StraightThrough, StraightThroughGumbel
from sb3_dreamer.core.objectives import BalancedKL
from sb3_dreamer.core.optim import OptimizerGroup, make_adam
from sb3_dreamer.core.types import ActionLayout, ObsKey
from sb3_dreamer.dreamer_v2.networks import build_behavior, build_world_model
from sb3_dreamer.dreamer_v2.spec import SIZES
from tests.spaces_env import SpacesEnv, image

TINY = {"model_size": "debug", "batch_size": 2, "batch_length": 6, "horizon": 3, "learning_starts": 20}
VECTOR = spaces.Box(-1, 1, (3,), np.float32)


def tiny(env: Any = "CartPole-v1", policy: str = "MlpPolicy", **kwargs: Any) -> DreamerV2:
    return DreamerV2(policy, env, **{**TINY, "train_ratio": 4, "buffer_size": 1000, "seed": 0, **kwargs})


def test_defaults_are_the_papers() -> None:
    arguments = inspect.signature(DreamerV2).parameters
    paper = {
        "batch_size": 50,
        "batch_length": 50,
        "gamma": 0.995,
        "gae_lambda": 0.95,
        "horizon": 15,
        "learning_rate": 2e-4,
        "actor_learning_rate": 4e-5,
        "critic_learning_rate": 1e-4,
        "max_grad_norm": 100.0,
        "weight_decay": 1e-6,
        "buffer_size": 2_000_000,
        "target_update_interval": 100,
        "kl_balance": 0.8,
    }
    assert {name: arguments[name].default for name in paper} == paper
    assert arguments["train_ratio"].default / (50 * 50) == 1 / 4  # one update per 4 agent steps
    discrete, box = tiny(), tiny("Pendulum-v1")
    for model, rho, eta, beta, free in ((discrete, 1.0, 1e-3, 0.1, 0.0), (box, 0.0, 1e-4, 1.0, 1.0)):
        model._follow_schedules(1.0)
        now, objective = model.now, model.policy.world_model.objective
        assert (float(now["rho"]), float(now["ent_coef"])) == (rho, pytest.approx(eta))
        assert float(model.policy.world_model.scales["kl"]) == pytest.approx(beta)
        assert objective == BalancedKL(balance=0.8, free=free)
        assert all(group.optimizer.defaults["eps"] == 1e-5 for group in model.optimizers.values())
    assert (discrete.behavior.actor_gradient, box.behavior.actor_gradient) == ("reinforce", "dynamics")


def test_paper_size_has_the_papers_number_of_parameters() -> None:
    layout = ActionLayout("discrete", (18,))
    with th.device("meta"):
        world_model = build_world_model(SIZES["paper"], (ObsKey("obs", "image", (1, 64, 64)),), layout)
        behavior = build_behavior(SIZES["paper"], world_model.rssm.feat_size, layout)
    trained = parameter_count(world_model) + parameter_count(behavior.actor) + parameter_count(behavior.critic)
    assert round(trained / 1e6) == 22  # "Trainable Parameters 22M", arXiv 2010.02193, Table 3


@pytest.mark.parametrize(("name", "per_step"), [("atari", 1 / 16), ("dmc", 1 / 5), ("crafter", 1 / 5)])
def test_presets(name: str, per_step: float) -> None:
    preset = DreamerV2.presets[name]
    actions = VECTOR if name == "dmc" else spaces.Discrete(4)
    model = DreamerV2("CnnPolicy", SpacesEnv(image(16, 16, 1), actions), **preset | {"model_size": "debug"})
    assert float(model.updates_per_step) == per_step
    assert model.behavior.actor_gradient == ("dynamics" if name == "dmc" else "reinforce")
    spec = SIZES[preset["model_size"]]
    assert (spec.deter, spec.discount_head, spec.norm) == {
        "atari": (600, True, "none"),
        "dmc": (200, False, "none"),
        "crafter": (1024, True, "layer"),
    }[name]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model_size": "papre"}, "did you mean 'paper'"),
        ({"policy_kwargs": {"latent": "gausian"}}, "did you mean 'gaussian'"),
        ({"policy_kwargs": {"latent_estimator": "score_function"}}, "no gradient reach the encoder"),
        ({"policy_kwargs": {"latent_estimator": "gumbel"}}, "did you mean 'gumbel_softmax'"),
        ({"policy_kwargs": {"actor_estimator": "score_function"}, "rho": 0.5}, "use rho=1.0"),
        ({"policy_kwargs": {"actor_estimator": "gumbel_softmax"}}, "no log-probability"),
        ({"rho": 1.5}, "rho=1.5"),
        ({"rho": "atuo"}, "did you mean 'auto'"),
        ({"kl_balance": 2.0}, "kl_balance=2.0"),
        ({"policy_kwargs": {"unts": 3}}, "did you mean 'units'"),
        ({"policy_kwargs": {"deter": 0}}, "deter=0 must be a positive integer"),
        ({"latent_temperature": 0.0}, "latent_temperature=0.0 must be a number above 0"),
    ],
)
def test_wrong_values_are_refused_with_what_to_write(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**wrong)


def test_schedules_reach_losses_learning_rates_and_temperatures() -> None:
    model = tiny(
        rho=LinearSchedule(0.9, 1.0, 1.0),
        ent_coef=LinearSchedule(3e-3, 3e-4, 1.0),
        kl_scale=LinearSchedule(1.0, 0.2, 0.5),
        learning_rate=LinearSchedule(1e-3, 1e-4, 1.0),
        actor_learning_rate=LinearSchedule(1e-4, 0.0, 1.0),
        latent_temperature=LinearSchedule(1.0, 0.0625, 1.0),
        policy_kwargs={"latent_estimator": "st_gumbel_softmax", "actor_estimator": "st_gumbel_softmax"},
        actor_temperature=LinearSchedule(2.0, 1.0, 1.0),
    ).learn(21)
    assert model.behavior.actor_gradient == "both"
    model._current_progress_remaining = 0.25
    model.train(1, 2)
    assert float(model.now["rho"]) == pytest.approx(0.975)
    assert float(model.now["ent_coef"]) == pytest.approx(3e-3 - 0.75 * 2.7e-3)
    assert float(model.policy.world_model.scales["kl"]) == pytest.approx(0.2)  # done at half of the training
    rates = {name: group.optimizer.param_groups[0]["lr"] for name, group in model.optimizers.items()}
    assert rates["model_optim"] == pytest.approx(1e-3 - 0.75 * 9e-4)
    assert rates["actor_optim"] == pytest.approx(2.5e-5)
    assert rates["critic_optim"] == 1e-4
    latent, actor = model.policy.world_model.rssm.latent.estimator, model.behavior.actor.estimator
    assert isinstance(latent, StraightThroughGumbel) and isinstance(actor, StraightThroughGumbel)
    assert float(latent.temperature) == pytest.approx(1.0 - 0.75 * 0.9375)
    assert float(actor.temperature) == pytest.approx(1.25)


@pytest.mark.parametrize("name", ["straight_through", "gumbel_softmax", "st_gumbel_softmax"])
def test_estimators_by_name(name: str) -> None:
    kinds = {
        "straight_through": StraightThrough,
        "gumbel_softmax": GumbelSoftmax,
        "st_gumbel_softmax": StraightThroughGumbel,
    }
    model = tiny(
        policy_kwargs={"latent_estimator": name, "actor_estimator": name}, rho=0.0, latent_temperature=0.5
    ).learn(40)
    estimator = model.policy.world_model.rssm.latent.estimator
    assert type(estimator) is kinds[name] is type(model.behavior.actor.estimator)
    assert estimator.temperature == 0.5
    assert model._n_updates > 0 and np.isfinite(model._metrics.take()["actor_grad_norm"])


def test_slow_critic_is_copied_at_intervals() -> None:
    model = tiny(target_update_interval=3, train_ratio=0, critic_learning_rate=1e-2).learn(30)
    behavior, copies = model.behavior, []
    for _ in range(8):
        model.train(1, 2)
        pairs = zip(behavior.critic.parameters(), behavior.slow_critic.parameters(), strict=True)
        copies.append(all(th.equal(a, b) for a, b in pairs))
    assert copies == [True, False, False, True, False, False, True, False]


def test_tanh_rewards_are_for_learning_only() -> None:
    model = tiny(tanh_rewards=True, train_ratio=0).learn(30)
    assert model.replay_buffer.rewards[model.replay_buffer.rewards != 0].max() == 1.0
    batch = model.replay_buffer.sample_sequences(2, 6)
    seen, loss = [], model.policy.world_model.loss
    model.policy.world_model.loss = lambda batch: (seen.append(batch.reward), loss(batch))[1]  # type: ignore[method-assign]
    model._update(batch._replace(reward=th.full_like(batch.reward, 3.0)))
    assert th.equal(seen[0], th.full_like(batch.reward, 3.0).tanh())


def test_weight_decay_does_not_depend_on_the_learning_rate() -> None:
    for rate in (1e-2, 1e-5):
        param = th.nn.Parameter(th.tensor([2.0, -3.0]))
        group = OptimizerGroup("x", [param], make_adam([param], rate, eps=1e-5), 100.0, weight_decay=0.1)
        group.step(0.0 * param.sum())
        assert param.tolist() == pytest.approx([1.8, -2.7])
        before = param.tolist()
        assert float(group.step(float("nan") * param.sum())["x_skipped"]) == 1.0
        assert param.tolist() == before  # a skipped update decays nothing


def test_without_a_discount_head_dreams_do_not_end() -> None:
    model = tiny("Pendulum-v1", policy_kwargs={"discount_head": False}).learn(40)
    assert model.policy.world_model.cont_head is None
    assert model._metrics.take()["dream_cont"] == 1.0


def test_pretraining_comes_once() -> None:
    model = tiny(pretrain=3, train_ratio=0).learn(30)
    assert model._n_updates == 3


def test_files_keep_ablations_schedules_and_actions(tmp_path) -> None:
    env = gym.make("CartPole-v1")
    model = tiny(
        env,
        rho=LinearSchedule(0.9, 1.0, 1.0),
        kl_balance=None,
        policy_kwargs={"layer_norm": False, "latent_estimator": "st_gumbel_softmax"},
    )
    model.learn(40).save(tmp_path / "model")
    loaded = DreamerV2.load(tmp_path / "model", env=env)
    assert loaded.policy_kwargs == model.policy_kwargs
    assert loaded.kl_balance is None and loaded.schedules["rho"](1.0) == pytest.approx(0.9)
    assert type(loaded.policy.world_model.rssm.latent.estimator) is StraightThroughGumbel
    obs = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    assert np.array_equal(model.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 60
    model.policy.save(tmp_path / "policy")
    policy = type(model.policy).load(tmp_path / "policy", device="cpu")
    assert np.array_equal(policy.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_a_loaded_model_is_where_its_schedules_were(tmp_path) -> None:
    falls = LinearSchedule(2.0, 0.5, 1.0)
    tiny(latent_temperature=falls).learn(40).save(tmp_path / "model")
    assert float(DreamerV2.load(tmp_path / "model").now["latent_temperature"]) == 0.5


def test_a_loaded_model_says_which_schedules_it_has_lost(tmp_path) -> None:
    model = DreamerV2("MlpPolicy", "CartPole-v1", model_size="debug", rho=lambda r: 0.5 + 0.5 * r, device="cpu")
    with pytest.warns(UserWarning, match="first value instead: rho=1"):
        model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="first value instead: rho=1; pass it again with load"):
        assert DreamerV2.load(tmp_path / "model").rho == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = DreamerV2.load(tmp_path / "model", custom_objects={"rho": lambda r: r})
    assert loaded.behavior.actor_gradient == "both"


def test_wrong_arguments_of_load_save_and_predict_are_refused(tmp_path) -> None:
    model = DreamerV2("MlpPolicy", "CartPole-v1", model_size="debug", device="cpu")
    with pytest.raises(ValueError, match=r"exclude has 'optimzers', .* \(did you mean 'optimizers'\?\)"):
        model.save(tmp_path / "model", exclude=["optimzers"])
    model.save(tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"'trainratio', which is not a setting of DreamerV2 \(did you mean 'train_ratio'"
    ):
        DreamerV2.load(tmp_path / "model", trainratio=5)
    with pytest.raises(ValueError, match=r"^train_ratio=-5"):
        DreamerV2.load(tmp_path / "model", train_ratio=-5)
    with pytest.raises(ValueError, match="NaN or infinity in observation 'obs'"):
        model.predict(np.full(4, np.nan, np.float32))
    with pytest.raises(TypeError, match="planner='x' is not a Behavior"):
        model.predict(np.zeros(4, np.float32), planner="x")


def test_a_constant_schedule_is_a_number() -> None:
    assert tiny(rho=ConstantSchedule(1.0)).behavior.actor_gradient == "reinforce"


def test_needs_no_other_algorithm() -> None:
    code = "import sys, sb3_dreamer.dreamer_v2; print([n for n in sys.modules if 'dreamer_v3' in n or 'planet' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_update_is_one_readable_box() -> None:
    assert len(inspect.getsource(DreamerV2._update).splitlines()) <= 40
