"""The 2024 family: sizes, initial state, clipping of split kernels, warm-up, contexts in replay, gradients, files."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from sb3_dreamer import DreamerV3
from sb3_dreamer.common.replay.buffer import SequenceReplayBuffer
from sb3_dreamer.core.functional import only
from sb3_dreamer.core.images.convs2024 import BlockDecoder, PoolingEncoder, pool_stages
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.optim import LaProp, clipping_units
from sb3_dreamer.core.types import LatentState
from sb3_dreamer.dreamer_v3 import AnnotatedReplayBuffer
from sb3_dreamer.dreamer_v3.dreamer_v3 import default_arguments
from sb3_dreamer.zoo.studies import sizes
from tests.counting_env import CountingEnv
from tests.spaces_env import SpacesEnv, image

STYLE = NormStyle(norm="rms", act="silu", eps=1e-4, bias=True, fan="in")
TINY = {"batch_size": 2, "batch_length": 6, "horizon": 3, "buffer_size": 200, "learning_starts": 20, "train_ratio": 2}
TINY |= {"seed": 0, "device": "cpu", "model_size": "debug2024"}


def make(env="CartPole-v1", **kwargs) -> DreamerV3:
    policy = kwargs.pop("policy", "MlpPolicy")
    return DreamerV3(policy, env, **(TINY | kwargs))


@pytest.mark.parametrize("size", ["1m", "12m", "25m", "50m", "100m", "200m", "400m"])
@pytest.mark.parametrize("case", [(0, 18, True), (24, 6, False)], ids=["image", "vector"])
def test_parameters_match_the_reference_layers(size, case) -> None:
    vector, actions, discrete = case
    ours = sizes.count(size, vector=vector, actions=actions, discrete=discrete)
    theirs = sizes.reference(size, vector=vector, actions=actions, discrete=discrete)
    assert theirs and abs(ours / theirs - 1) < 0.02


@pytest.mark.parametrize(("size", "millions"), [("XS", 8), ("S", 18), ("M", 37), ("L", 77), ("XL", 200)])
def test_parameters_of_2023_match_the_paper(size, millions) -> None:
    assert sizes.count(size, vector=0, actions=18, discrete=True) == pytest.approx(millions * 1e6, abs=8e5)


def test_defaults_of_the_families() -> None:
    new, old = make(), make(model_size="debug")
    assert (new.learning_rate, old.learning_rate) == (4e-5, 1e-4)
    assert list(new.optimizers) == ["model_optim"] and isinstance(new.model_optim, LaProp)
    group = new.model_optim.param_groups[0]
    assert {name: group[name] for name in ("lr", "agc", "pmin", "warmup", "eps")} == {
        "lr": 4e-5, "agc": 0.3, "pmin": 1e-3, "warmup": 1000, "eps": 1e-20,
    }  # fmt: skip
    world_model = new.policy.world_model
    assert world_model.scales["dyn"] == 1.0 and world_model.scales["rep"] == 0.1
    assert world_model.cont_target(th.tensor([True, False])).tolist() == pytest.approx([0.0, 1 - 1 / 333])
    start = world_model.rssm.initial(3)
    assert not start.deter.any() and not start.stoch.any()
    assert new.behavior.actor_gradient == "reinforce" and new.behavior.actor.unimix == 0.0
    assert make("Pendulum-v1").behavior.actor_gradient == "reinforce"
    assert make(policy_kwargs={"actor_unimix": 0.01}).behavior.actor.unimix == 0.01
    assert all(isinstance(m, th.nn.RMSNorm) for m in new.policy.modules() if "Norm" in type(m).__name__
               and type(m).__name__ not in ("ReturnNormalizer", "NormStyle", "ChannelNorm"))  # fmt: skip
    rates = {size: default_arguments(size)["learning_rate"] for size in ("XXS", "debug2024", "1m")}
    assert rates == {"XXS": 1e-4, "debug2024": 4e-5, "1m": 4e-5}


# ---- images --------------------------------------------------------------------------------------------------------


def test_stages_of_the_released_sizes() -> None:
    assert pool_stages((64, 64))[-1] == (4, 4) and len(pool_stages((64, 64))) == 5
    assert pool_stages((96, 96))[-1] == (6, 6) and pool_stages((48, 48))[-1] == (3, 3)


@pytest.mark.parametrize("size", [(16, 16), (33, 127), (40, 57), (64, 64), (300, 300), (512, 512), (16, 512)])
def test_image_codec_of_any_size(size) -> None:
    smallest, largest = min(pool_stages(size)[-1]), min(size)
    assert 2 <= smallest <= 16 and largest >= 16
    if max(size) > 150:
        return  # the maps are too large for a quick test
    encoder = PoolingEncoder(2, size, 2, style=STYLE)
    assert encoder(th.rand(3, 2, *size)).shape == (3, encoder.out_size)
    decoder = BlockDecoder(20, 2, size, 2, style=STYLE, deter=16, units=8)
    out = decoder(th.randn(3, 20))
    assert out.shape == (3, 2, *size) and (out > 0).all() and (out < 1).all()


def test_every_pixel_is_seen() -> None:
    picture = th.rand(1, 1, 17, 21, requires_grad=True)
    encoder = PoolingEncoder(1, (17, 21), 8, style=STYLE)
    grads = th.stack([th.autograd.grad(x, picture, retain_graph=True)[0].abs() for x in encoder(picture)[0]])
    assert (grads.sum(0) > 0).float().mean() > 0.95  # a maximum hides some pixels
    assert grads[..., -1, :].any() and grads[..., :, -1].any(), "the last row and column are seen"


# ---- optimizer -----------------------------------------------------------------------------------------------------


def test_split_kernels_are_clipped_as_one_tensor() -> None:
    th.manual_seed(0)
    whole = th.nn.Parameter(th.randn(6, 10))
    other = th.nn.Parameter(th.randn(4))
    left, right = (th.nn.Parameter(part.clone()) for part in whole.detach().split((3, 7), 1))
    twin = th.nn.Parameter(other.detach().clone())
    params = [left, twin, right]
    one = LaProp([whole, other], lr=0.1)
    two = LaProp(params, lr=0.1, units=clipping_units(params, [(left, right)]))
    apart = LaProp([p.detach().clone().requires_grad_() for p in (left, right)], lr=0.1)
    for _ in range(3):
        grad = th.randn(6, 10)
        grad[:, :3] *= 50  # the two parts alone would be clipped very differently
        whole.grad, other.grad = grad, th.randn(4)
        left.grad, right.grad, twin.grad = grad[:, :3].clone(), grad[:, 3:].clone(), other.grad.clone()
        for param, part in zip(apart.param_groups[0]["params"], (left.grad, right.grad), strict=True):
            param.grad = part.clone()
        for optimizer in (one, two, apart):
            optimizer.step()
    th.testing.assert_close(th.cat([left, right], 1), whole)
    th.testing.assert_close(twin, other)
    assert not th.allclose(th.cat(apart.param_groups[0]["params"], 1), whole, rtol=1e-3)
    with pytest.raises(ValueError, match="does not have"):
        clipping_units([left], [(left, right)])


def test_the_model_joins_its_split_kernels() -> None:
    model = make()
    names = [name for name, _ in model.policy.world_model.named_parameters()]
    units = model.model_optim.param_groups[0]["units"]
    joined = {frozenset(names[i] for i in range(len(names)) if units[i] == unit) for unit in units}
    assert {group for group in joined if len(group) > 1} == {
        frozenset({"rssm.post_deter.weight", "rssm.post_embed.weight"}),
        frozenset({"rssm.cell.block_hidden.weight", "rssm.cell.shared_hidden.weight"}),
    }
    assert len(units) == len(model.model_optim.param_groups[0]["params"])


def test_warm_up() -> None:
    param = th.nn.Parameter(th.ones(3))
    optimizer = LaProp([param], lr=0.1, warmup=4)
    moves = []
    for _ in range(6):
        before = param.detach().clone()
        param.grad = th.ones(3) * 1e-3
        optimizer.step()
        moves.append((before - param.detach())[0].item())
    assert moves == pytest.approx([0.0, 0.025, 0.05, 0.075, 0.1, 0.1], abs=1e-5)


# ---- gradients -----------------------------------------------------------------------------------------------------


def test_replay_values_train_the_rssm_and_dreams_do_not() -> None:
    model = make().learn(60)
    world_model, behavior = model.policy.world_model, model.behavior
    th.nn.init.normal_(behavior.critic.out.weight)
    batch = model.replay_buffer.sample_sequences(2, 6)
    _, post, _ = world_model.loss(batch, model.replay_state(batch))
    dream = behavior.rollout(world_model, post.flatten_time(), th.ones(12), 3)
    targets = behavior.targets(dream, 1.0, 0.95)
    rssm = list(world_model.rssm.parameters())
    replay = behavior.replay_value_loss(post, batch, targets.returns[:, 0].view(2, 6), 0.99, 0.95)
    assert replay.shape == (2, 5)
    grads = th.autograd.grad(replay.mean(), rssm, allow_unused=True)
    assert sum(g.abs().sum() for g in grads if g is not None) > 0
    for loss in (behavior.actor_loss(dream, targets, 3e-4), behavior.critic_loss(dream, targets)):
        assert all(g is None for g in th.autograd.grad(loss, rssm, allow_unused=True, retain_graph=True))


def test_everything_but_the_slow_critic_learns() -> None:
    model = make("Pendulum-v1", warmup_updates=0, learning_rate=1e-2).learn(30)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(120, reset_num_timesteps=False)
    after = model.policy.state_dict()
    still = {name for name in before if th.equal(before[name], after[name]) and "return_norm" not in name}
    assert still == set()
    slow, critic = model.behavior.slow_critic.state_dict(), model.behavior.critic.state_dict()
    assert not th.equal(slow["out.bias"], critic["out.bias"])


# ---- context -------------------------------------------------------------------------------------------------------


def test_context_is_the_state_of_the_row_before() -> None:
    """While collecting, every row gets the state of the agent that saw it; an update overwrites it."""
    env = make_vec_env(lambda: CountingEnv((5,)), 2)
    model = make(env, train_ratio=0, learning_starts=1000, batch_length=4)
    seen = []
    original = model._store_transition

    def watch(*args):
        seen.append((model._carry.deter.clone(), model._carry.stoch.argmax(-1)))
        original(*args)

    model._store_transition = watch
    model.learn(2 * 12)
    replay = model.replay_buffer
    assert isinstance(replay, AnnotatedReplayBuffer)
    rows = [row for row in range(int(replay.filled[0])) if not replay.arrays["is_last"][0, row]][: len(seen)]
    for env_index in (0, 1):
        stored = replay.arrays["context.deter"][env_index, rows].astype(np.float32)
        expected = th.stack([deter[env_index] for deter, _ in seen]).numpy()
        np.testing.assert_allclose(stored, expected, atol=1e-3)
        classes = th.stack([stoch[env_index] for _, stoch in seen]).numpy()
        np.testing.assert_array_equal(replay.arrays["context.stoch"][env_index, rows], classes + 1)
    assert replay.arrays["context.deter"].dtype == np.float16

    batch = replay.sample_sequences(3, 4)
    env_of, drawn = replay.drawn
    assert batch.reward.shape == (3, 4) and drawn.shape == (3, 5)
    assert th.equal(batch.reward, th.from_numpy(replay.arrays["reward"][env_of[:, None], drawn[:, 1:]]))
    state = replay.start_state()
    np.testing.assert_array_equal(state.deter, replay.arrays["context.deter"][env_of, drawn[:, 0]].astype(np.float32))
    known = ~replay.arrays["is_last"][env_of, drawn[:, 0]]
    np.testing.assert_array_equal(state.stoch.sum(-1), np.tile(known[:, None], 4))
    post = LatentState(th.rand(3, 4, 32), th.nn.functional.one_hot(th.randint(4, (3, 4, 4)), 4).float())
    replay.write_back(post)
    broken = post._replace(deter=post.deter.clone().index_fill_(1, th.tensor([1]), float("nan")))
    replay.write_back(broken)
    written = replay.arrays["context.deter"][env_of[-1], drawn[-1, 1:]].astype(np.float32)
    np.testing.assert_allclose(written, post.deter[-1].numpy(), atol=1e-3)


def test_an_update_goes_on_from_the_context() -> None:
    model = make().learn(40)
    batch = model.replay_buffer.sample_sequences(2, 6)._replace(is_first=th.zeros(2, 6, dtype=th.bool))
    world_model = model.policy.world_model
    states = []
    for start in (model.replay_state(batch), None):
        th.manual_seed(0)
        states.append(world_model.observe(batch, start).state.deter)
    assert not th.allclose(states[0], states[1])


def test_memory_of_the_context_is_announced() -> None:
    plain, half, full = (
        make(replay_context=False), make(), make(context_dtype="float32")
    )  # fmt: skip
    assert type(plain.replay_buffer) is SequenceReplayBuffer
    row = lambda model: model.replay_buffer.nbytes // 200  # noqa: E731
    assert row(half) - row(plain) == 2 * 32 + 4
    assert row(full) - row(plain) == 4 * 32 + 4
    announced = [dict(model.describe())["replay"] for model in (make(buffer_size=10**6, model_size="1m"), make(
        buffer_size=10**6, model_size="1m", replay_context=False))]  # fmt: skip
    assert announced[0] != announced[1]
    with pytest.raises(ValueError, match="AnnotatedReplayBuffer"):
        make(replay_context=True, replay_buffer_class=SequenceReplayBuffer)
    with pytest.warns(UserWarning, match="stores no latent states"):
        make(replay_buffer_class=SequenceReplayBuffer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(replay_context=False, replay_buffer_class=SequenceReplayBuffer)


def test_context_is_an_option_of_2023_too() -> None:
    model = make(model_size="debug", replay_context=True).learn(40)
    assert model._n_updates > 0 and model.replay_state(model.replay_buffer.sample_sequences(2, 6)) is not None


# ---- files and spaces ----------------------------------------------------------------------------------------------


def test_files(tmp_path) -> None:
    model = make("Pendulum-v1").learn(50)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    loaded = DreamerV3.load(tmp_path / "model", env=gym.make("Pendulum-v1"))
    loaded.load_replay_buffer(tmp_path / "replay", truncate_last_traj=False)
    for name, value in model.replay_buffer.arrays.items():
        np.testing.assert_array_equal(value, loaded.replay_buffer.arrays[name])
    ours, theirs = (m.model_optim.state_dict() for m in (model, loaded))
    assert ours["param_groups"] == theirs["param_groups"]
    for index, state in ours["state"].items():
        assert all(th.equal(value, theirs["state"][index][name]) for name, value in state.items())
    obs = np.zeros(3, np.float32)
    assert model.predict(obs, deterministic=True)[0] == loaded.predict(obs, deterministic=True)[0]
    loaded.learn(20, reset_num_timesteps=False)


def test_all_kinds_of_observations_and_actions() -> None:
    space = spaces.Dict(
        {
            "wide": image(24, 40, 3),
            "tall": image(33, 20, 1),
            "position": spaces.Box(-1, 1, (3,), np.float32),
            "gear": spaces.Discrete(3, start=1),
            "dials": spaces.MultiDiscrete([2, 5]),
            "switches": spaces.MultiBinary(2),
        }
    )
    env = SpacesEnv(space, spaces.MultiDiscrete([3, 2, 5]))
    model = make(env, policy="MultiInputPolicy", batch_length=4).learn(40)
    assert model._n_updates > 0
    metrics = model._update(model.replay_buffer.sample_sequences(2, 4)).metrics
    assert {f"loss_recon_{key}" for key in space.spaces} <= metrics.keys()
    chance = np.log(3)
    assert float(metrics["loss_recon_gear"]) == pytest.approx(chance, rel=0.5), "cross-entropy of three categories"
    dream = model.behavior.rollout(model.policy.world_model, model.policy.world_model.rssm.initial(7), th.ones(7), 4)
    for part, n in zip(dream.action.split((3, 2, 5), -1), (3, 2, 5), strict=True):
        assert part.shape == (7, 4, n) and (part.sum(-1) == 1).all()
    decoded = model.policy.world_model.decode(dream.feat)
    assert decoded["dials"].shape == (7, 5, 2) and decoded["gear"].min() >= 1


@pytest.mark.parametrize("estimator", ["straight_through", "st_gumbel_softmax"])
def test_dynamics_gradients_train_the_actor_alone(estimator: str, monkeypatch) -> None:
    """One optimizer takes the sum of all losses: those of actor and critic must not reach the world model in it."""
    model = make(policy_kwargs={"actor_estimator": estimator}).learn(60)
    assert model.behavior.actor_gradient == "dynamics"
    batch, weights = model.replay_buffer.sample_sequences(2, 6), list(model.policy.world_model.parameters())
    random, grads = th.get_rng_state(), []

    def keep(loss: th.Tensor) -> dict:
        grads.append(th.autograd.grad(loss, weights, allow_unused=True))
        return {}

    monkeypatch.setattr(model.optimizers["model_optim"], "step", keep)
    model._update(batch)
    th.set_rng_state(random)
    monkeypatch.setattr("sb3_dreamer.dreamer_v3.dreamer_v3.only", lambda loss, _: loss.detach())
    model._update(batch)
    for one, two in zip(*grads, strict=True):
        assert (one is None) == (two is None)
        assert one is None or th.allclose(one, two, atol=1e-6)


def test_only() -> None:
    left, right = th.tensor([1.0, 2.0], requires_grad=True), th.tensor(3.0, requires_grad=True)
    loss = only((left * right).sum(), [left])
    assert loss.item() == 9.0
    grads = th.autograd.grad(loss, [left, right], allow_unused=True)
    assert grads[0].tolist() == [3.0, 3.0] and grads[1] is None
