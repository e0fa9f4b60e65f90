"""Plan2Explore: the ensemble and its disagreement in numbers, who collects, what learns, files."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_dreamer import DreamerV3
from sb3_dreamer.core.ensemble import Ensemble
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.types import LatentState, SequenceBatch
from tests.algorithms import equal, tiny, weights
from tests.common.resume.resuming import Killed, difference, everything, run_part

FAMILIES = ["debug", "debug2024"]
TINY = {"batch_size": 2, "batch_length": 6, "horizon": 3, "buffer_size": 500, "learning_starts": 20, "train_ratio": 4}


def make(size: str = "debug", env: str = "CartPole-v1", **kwargs) -> DreamerV3:
    spec = {"exploration": "plan2explore", "ensemble": 3}
    return DreamerV3("MlpPolicy", gym.make(env), model_size=size, policy_kwargs=spec, seed=0, **(TINY | kwargs))


def test_the_ensemble_is_that_of_the_formulas() -> None:
    """K linear predictions of z_{t+1} from (h_t, z_t, a_t): their squared errors and their deviation, in NumPy."""
    ensemble = Ensemble(5, 2, 4, (), 3, style=NormStyle(norm="none", act="elu"))
    rng = np.random.default_rng(0)
    deter, stoch = rng.normal(size=(2, 3, 1)), rng.normal(size=(2, 3, 2, 2))
    action = rng.normal(size=(2, 3, 2))
    first = np.array([[True, False, False], [False, False, True]])
    tensors = [th.as_tensor(part, dtype=th.float32) for part in (deter, stoch, action)]
    flags, empty = th.as_tensor(first), th.zeros(2, 3)
    batch = SequenceBatch({}, tensors[2], empty, flags, flags, flags)
    loss = ensemble.loss(LatentState(*tensors[:2]), batch)
    assert loss.shape == (2, 2)

    maps = [(head.out.weight.detach().numpy(), head.out.bias.detach().numpy()) for head in ensemble.heads]
    feat = np.concatenate([deter, stoch.reshape(2, 3, 4)], -1)
    predictions = np.stack([np.concatenate([feat[:, :-1], action[:, 1:]], -1) @ w.T + b for w, b in maps])
    errors = ((predictions - stoch.reshape(2, 3, 4)[:, 1:]) ** 2).sum(-1).sum(0)
    errors[1, 1] = 0.0  # the row after it begins another episode
    np.testing.assert_allclose(loss.detach().numpy(), errors, rtol=1e-4)

    disagreement = ensemble.disagreement(th.as_tensor(feat[:, :-1]).float(), tensors[2][:, 1:])
    np.testing.assert_allclose(disagreement.detach().numpy(), predictions.std(0).mean(-1), rtol=1e-4)


def test_heads_that_agree_have_a_gradient() -> None:
    ensemble = Ensemble(3, 1, 2, (), 2, style=NormStyle(norm="none", act="elu"))
    for head in ensemble.heads:
        head.load_state_dict(ensemble.heads[0].state_dict())
    feat = th.randn(4, 3, requires_grad=True)
    value = ensemble.disagreement(feat, th.zeros(4, 1))
    assert value.max() < 1e-5
    assert th.isfinite(th.autograd.grad(value.sum(), feat)[0]).all()


@pytest.mark.parametrize("size", FAMILIES)
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_an_update_trains_ensemble_and_explorer_and_leaves_the_task_alone(size, env) -> None:
    model = make(size, env, train_ratio=0, warmup_updates=0).learn(30)
    plain = DreamerV3("MlpPolicy", gym.make(env), model_size=size, seed=0, **(TINY | {"train_ratio": 0}))
    own = weights(model)
    batch = model.replay_buffer.sample_sequences(2, 6)
    th.manual_seed(0)
    model.update(batch)
    after = weights(model)
    changed = {name.rpartition(".")[0] for name in own if not np.array_equal(own[name], after[name])}
    for part in ("explorer.ensemble", "explorer.behavior.actor", "explorer.behavior.critic", "world_model"):
        assert any(name.startswith(part) for name in changed), part
    # Model, actor and critic learn the same as without an explorer.
    plain.policy.load_state_dict({name: th.as_tensor(own[name]) for name in plain.policy.state_dict()})
    for name, group in plain.optimizers.items():
        group.set_learning_rate(model.optimizers[name].optimizer.param_groups[0]["lr"])
    if size == "debug2024":
        plain.optimizers["model_optim"].optimizer.param_groups[0]["warmup"] = 0
    th.manual_seed(0)
    plain.update(batch)
    ours = {name: value for name, value in after.items() if not name.startswith("explorer")}
    assert equal(ours, weights(plain))


@pytest.mark.parametrize("size", FAMILIES)
def test_dreamed_rewards_are_the_disagreement(size) -> None:
    model = make(size)
    explorer, world_model = model.policy.explorer, model.policy.world_model
    dream = explorer.rollout(world_model, world_model.rssm.initial(4), th.ones(4), 3)
    expected = explorer.ensemble.disagreement(dream.feat[:, :-1], dream.action)
    th.testing.assert_close(dream.reward, expected)
    assert dream.reward.min() > 0.0


def test_small_disagreement_counts_as_much_as_returns_of_one() -> None:
    model = make()
    returns = th.linspace(0.0, 0.1, 101)
    for behavior, expected in ((model.policy.explorer.behavior, 0.09), (model.behavior, 1.0)):
        for _ in range(1000):
            _, scale = behavior.return_norm.update(returns)
        assert scale == pytest.approx(expected, rel=1e-3)


def test_with_box_actions_the_actor_sees_through_the_ensemble() -> None:
    model = make(env="Pendulum-v1")
    explorer, world_model = model.policy.explorer, model.policy.world_model
    dream = explorer.rollout(world_model, world_model.rssm.initial(4), th.ones(4), 1)
    params = list(explorer.behavior.actor.parameters())
    assert any(grad.any() for grad in th.autograd.grad(dream.reward.sum(), params))


def test_the_explorer_collects_until_its_last_step() -> None:
    model = make(explore_until=40)
    collectors = []
    step = model.policy.step

    def note(*args, behavior=None, **kwargs):
        collectors.append(behavior)
        return step(*args, behavior=behavior, **kwargs)

    model.policy.step = note  # type: ignore[method-assign]
    model.learn(60)
    explores = [behavior is model.policy.explorer.behavior for behavior in collectors]
    assert explores == [True] * 20 + [False] * 20  # after 20 random steps
    model.explore_until = None
    model.learn(10, reset_num_timesteps=False)
    assert collectors[-1] is model.policy.explorer.behavior


def test_predict_is_the_tasks() -> None:
    model = make().learn(40)
    model.policy.explorer.behavior.actor.out.weight.data.fill_(th.nan)
    model.predict(np.zeros((1, 4), np.float32), deterministic=False)


@pytest.mark.parametrize("size", FAMILIES)
def test_saved_between_the_stages(size, tmp_path) -> None:
    model = make(size, explore_until=30).learn(50)
    model.save(tmp_path / "model")
    loaded = DreamerV3.load(tmp_path / "model", env=gym.make("CartPole-v1"))
    assert loaded.explore_until == 30 and equal(weights(model), weights(loaded))
    for name in model.optimizers:
        assert len(getattr(loaded, name).state_dict()["state"]) > 0, name
    loaded.explore_until = 0
    before = weights(loaded)
    loaded.learn(40, reset_num_timesteps=False)
    assert loaded.num_timesteps == 90
    assert not equal(before, weights(loaded))


@pytest.mark.parametrize("size", FAMILIES)
def test_a_run_in_parts_is_the_run_in_one_piece(size, tmp_path) -> None:
    """The explorer collects in both parts; the task's actor at the end of the second."""
    settings = {"model_size": size, "policy_kwargs": {"exploration": "plan2explore"}, "explore_until": 45}
    straight = everything(run_part(tmp_path / "a", "DreamerV3", 1, 60, settings=settings), tmp_path / "a")
    with pytest.raises(Killed):
        run_part(tmp_path / "b", "DreamerV3", 1, 60, settings=settings, die_at=47)
    resumed = run_part(tmp_path / "b", "DreamerV3", 1, 60, settings=settings)
    assert difference(straight, everything(resumed, tmp_path / "b")) == []


def test_what_is_refused_and_what_is_said() -> None:
    with pytest.raises(ValueError, match="did you mean 'plan2explore'"):
        DreamerV3("MlpPolicy", "CartPole-v1", policy_kwargs={"exploration": "plan2explor"})
    with pytest.raises(ValueError, match="explore_until=-1"):
        make(explore_until=-1)
    with pytest.raises(ValueError, match="explore_until=30 has no effect without an explorer"):
        tiny(DreamerV3, "MlpPolicy", "CartPole-v1", explore_until=30)
    assert "collects the first 30 steps" in dict(make(explore_until=30).describe())["exploration"]
    assert "exploration" not in dict(DreamerV3("MlpPolicy", "CartPole-v1", model_size="debug").describe())
