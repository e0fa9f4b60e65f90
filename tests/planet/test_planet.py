"""PlaNet: its losses, latent paths, images, replay and schedule, and what SB3 asks of it."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dreamer import PlaNet
from sb3_dreamer.core.cells import GRUCell
from sb3_dreamer.core.images.image_bits import QuantizedEncoder, quantize
from sb3_dreamer.core.layers import NormStyle
from sb3_dreamer.core.objectives import FreeNatsKL
from sb3_dreamer.core.overshooting import LatentOvershooting
from sb3_dreamer.core.planner import CEMPlanner, dream_returns
from sb3_dreamer.core.types import ActionLayout, LatentState, ObsKey, SequenceBatch
from sb3_dreamer.planet import SIZES, PlaNetSpec, RecentReplayBuffer
from sb3_dreamer.planet.networks import build_rssm, build_world_model
from sb3_dreamer.planet.spec import resolve_spec
from tests.algorithms import PLANS

RELU = NormStyle(norm="none", act="relu")
BOX2 = ActionLayout("continuous", (2,))
PATHS = ("rssm", "stochastic", "deterministic")


class CountEnv(gym.Env):
    """Episodes of a fixed length; the observation is the step's number, the reward counts from 1."""

    def __init__(self, length=6, action_space=None, observation_space=None):
        self.length = length
        self.action_space = action_space or spaces.Box(-2.0, 2.0, (1,))
        self.observation_space = observation_space or spaces.Box(-np.inf, np.inf, (2,))

    def _obs(self):
        if isinstance(self.observation_space, spaces.Box) and self.observation_space.dtype == np.float32:
            return np.full(self.observation_space.shape, self.t, np.float32)
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        self.t += 1
        return self._obs(), float(self.t), False, self.t == self.length, {}


def tiny(env, policy="MlpPolicy", **changes):
    """The smallest PlaNet."""
    numbers = {"batch_size": 4, "batch_length": 5, "seed_episodes": 2, "seed": 0, "device": "cpu"}
    return PlaNet(policy, env, **(PLANS | numbers | changes))


# ---- model ----------------------------------------------------------------------------------------------------------


def test_gru_is_the_one_of_the_released_code():
    """Reset before the candidate's product, gates with bias 1, new state = u h + (1 - u) c."""
    cell = GRUCell(3, 2, style=RELU)
    x, h = th.randn(5, 3), th.randn(5, 2)
    gates = (np.concatenate([x, h], 1) @ cell.gates.weight.detach().numpy().T) + 1.0
    reset, keep = np.split(1 / (1 + np.exp(-gates)), 2, 1)
    cand = np.tanh(np.concatenate([x, reset * h.numpy()], 1) @ cell.cand.weight.detach().numpy().T)
    np.testing.assert_allclose(cell(x, h).detach(), keep * h.numpy() + (1 - keep) * cand, rtol=1e-5, atol=1e-6)


def test_paper_size_has_the_paper_s_shapes():
    keys = (ObsKey("obs", "image", (3, 64, 64)),)
    model = build_world_model(SIZES["paper"], keys, BOX2)
    assert model.encoder.out_size == 1024 and model.rssm.feat_size == 230
    convs = [(conv.out_channels, conv.kernel_size[0], conv.padding[0]) for conv in model.encoder.cnns["64x64"].convs]
    assert convs == [(32, 4, 0), (64, 4, 0), (128, 4, 0), (256, 4, 0)]
    deconvs = model.decoder.cnns["64x64"].deconvs
    assert [(conv.out_channels, conv.kernel_size[0]) for conv in deconvs] == [(128, 5), (64, 5), (32, 6), (3, 6)]
    assert [layer.out_features for layer in model.reward_head.mlp.linears] == [300, 300, 300]
    assert model.scales == {"recon_obs": 0.5, "reward": 10.0, "kl": 1.0}
    assert model.objective == FreeNatsKL(scale=1.0, free=3.0) and model.cont_head is None


def test_quantization():
    image = th.tensor([0, 7, 8, 255], dtype=th.uint8)
    np.testing.assert_allclose(quantize(image, 5, noise=False) + 0.5, np.array([0, 0, 1, 31]) / 32 + 1 / 64)
    noisy = quantize(image.repeat(10_000, 1), 5, noise=True) + 0.5 - th.tensor([0, 0, 1, 31]) / 32
    assert 0.0 <= noisy.min() < 0.001 and 0.0302 < noisy.max() <= 1 / 32 + 1e-6
    assert noisy.mean().item() == pytest.approx(1 / 64, rel=0.02)


def test_input_and_target_share_their_noise():
    keys = (ObsKey("image", "image", (1, 16, 16)),)
    model = build_world_model(SIZES["debug"], keys, BOX2)
    seen = {}
    model.encoder.cnns["16x16"].register_forward_pre_hook(lambda _, args: seen.update(input=args[0]))
    target = model.decoder.image_target
    model.decoder.image_target = lambda image, white: seen.setdefault("target", target(image, white))
    raw = th.randint(0, 256, (2, 3, 1, 16, 16), dtype=th.uint8)
    flags = th.zeros(2, 3, dtype=th.bool)
    model.loss(SequenceBatch({"image": raw}, th.zeros(2, 3, 2), th.zeros(2, 3), flags, flags, flags))
    np.testing.assert_allclose(seen["target"].flatten(0, 1) - 0.5, seen["input"])
    assert not th.equal(seen["input"], quantize(raw.flatten(0, 1), 5, noise=False))
    model.eval()
    assert th.equal(model.encode({"image": raw[:, 0]}), model.encode({"image": raw[:, 0]}))
    assert isinstance(model.encoder, QuantizedEncoder)


@pytest.mark.parametrize("path", PATHS)
def test_observing_is_stepping(path):
    """A sequence is filtered as step by step, and an episode's start inside it forgets the past."""
    rssm = build_rssm(PlaNetSpec(deter=6, stoch=3, units=5, path=path), 4, BOX2)
    embed, action = th.randn(2, 5, 4), th.rand(2, 5, 2)
    first = th.tensor([[True, False, False, True, False], [True, False, False, False, False]])
    th.manual_seed(1)
    states = rssm.observe(embed, action, first).state
    th.manual_seed(1)
    state = rssm.initial(2)
    for t in range(5):
        state = rssm.obs_step(state, action[:, t], embed[:, t], first[:, t])
        np.testing.assert_allclose(states.stoch[:, t].detach(), state.stoch.detach(), atol=1e-5)
        np.testing.assert_allclose(states.deter[:, t].detach(), state.deter.detach(), atol=1e-5)
    after = rssm.obs_step(rssm.initial(2), action[:, 3], embed[:, 3], first[:, 0], mode=True)
    other = rssm.obs_step(state, action[:, 3], embed[:, 3], first[:, 0], mode=True)
    assert th.equal(after.stoch, other.stoch)


def test_paths_are_what_they_say():
    action, first = th.rand(2, 4, 2), th.zeros(2, 4, dtype=th.bool)
    embed = th.randn(2, 4, 4)
    spec = {"deter": 6, "stoch": 3, "units": 5}
    stochastic = build_rssm(PlaNetSpec(**spec, path="stochastic"), 4, BOX2)
    assert stochastic.feat_size == 3 and stochastic.initial(2).feat.shape == (2, 3)
    deterministic = build_rssm(PlaNetSpec(**spec, path="deterministic"), 4, BOX2)
    twice = [deterministic.observe(embed, action, first).state.feat for _ in range(2)]
    assert th.equal(*twice)
    rssm = build_rssm(PlaNetSpec(**spec), 4, BOX2)
    assert not th.equal(rssm.observe(embed, action, first).state.stoch, rssm.observe(embed, action, first).state.stoch)


@pytest.mark.parametrize("path", ["deterministic", "stochastic"])
def test_overshooting_is_the_hand_rolled_sum(path):
    """Every distance and start rolled one by one. Without samples, so that both can be compared."""
    rssm = build_rssm(PlaNetSpec(deter=6, stoch=3, units=5, path=path), 4, BOX2)
    if path == "stochastic":
        object.__setattr__(rssm.latent, "sampled", False)
    batch, length, distance, free = 2, 6, 3, 0.01
    action = th.rand(batch, length, 2)
    first = th.zeros(batch, length, dtype=th.bool)
    first[:, 0] = True
    first[1, 3] = True
    observed = rssm.observe(th.randn(batch, length, 4), action, first)
    loss = LatentOvershooting(distance, scale=1.0, free=free)(rssm, observed.state, observed.post, action, first)
    expected = th.zeros(batch, length)
    for b in range(batch):
        for t in range(length):
            state = LatentState(observed.state.deter[b : b + 1, t], observed.state.stoch[b : b + 1, t])
            for d in range(1, distance + 1):
                if t + d >= length or first[b, t + 1 : t + d + 1].any():
                    break
                state, prior = rssm.img_dist(state, action[b : b + 1, t + d], mode=True)
                post = type(prior)(*(part[b : b + 1, t + d] for part in observed.post))
                if d >= 2:
                    kl = rssm.latent.kl(post, prior)[0]
                    expected[b, t + d] += max(kl - free, 0.0) / distance
    np.testing.assert_allclose(loss["overshoot"].detach(), expected.detach(), rtol=1e-4, atol=1e-6)
    assert (expected[0, 2:] > 0).all() and (expected[:, :2] == 0).all() and (expected[1, 3:5] == 0).all()


def test_overshooting_pulls_the_prior_only():
    rssm = build_rssm(PlaNetSpec(deter=6, stoch=3, units=5), 4, BOX2)
    first = th.zeros(2, 5, dtype=th.bool)
    observed = rssm.observe(th.randn(2, 5, 4), th.rand(2, 5, 2), first)
    cut = observed.state.detach()
    loss = LatentOvershooting(3, free=0.0)(rssm, cut, observed.post, th.rand(2, 5, 2), first)["overshoot"].sum()
    grads = dict(
        zip(
            [name for name, _ in rssm.named_parameters()],
            th.autograd.grad(loss, list(rssm.parameters()), materialize_grads=True),
            strict=True,
        )
    )
    assert grads["post_out.weight"].abs().max() == 0.0 and grads["prior_out.weight"].abs().max() > 0.0


# ---- replay ---------------------------------------------------------------------------------------------------------


def filled_buffer(lengths, n_envs=1, size=200, **kwargs):
    """Episodes of the given lengths in every environment; the observation is the episode's number."""
    buffer = RecentReplayBuffer(
        size * n_envs, spaces.Box(-9, 99, (1,)), spaces.Box(-1, 1, (1,)), "cpu", n_envs, seed=0, **kwargs
    )
    for episode, length in enumerate(lengths):
        obs = np.full((n_envs, 1), episode, np.float32)
        for step in range(length):
            done = np.full(n_envs, step == length - 1)
            buffer.add(obs, obs, np.zeros((n_envs, 1)), np.zeros(n_envs), done, [{}] * n_envs)
    return buffer


@pytest.mark.parametrize("size", [200, 40])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_half_of_a_batch_is_recent(n_envs, size):
    buffer = filled_buffer([9] * 8, n_envs=n_envs, size=size, recent_episodes=2 * n_envs)
    assert buffer.recent_rows().tolist() == [20] * n_envs
    batch = buffer.sample_sequences(400, 5)
    recent = (batch.obs["obs"] >= 6).all(1)[:, 0]
    assert recent[:200].all()
    # Starts 0 .. 75 of 80 rows (or 0 .. 35 of the 40 that are left); those from the last 20 rows on are recent.
    share = {200: 16 / 76, 40: 16 / 36}[size]
    assert recent[200:].float().mean().item() == pytest.approx(share, abs=0.1)
    assert batch.prev_action.shape == (400, 5, 1) and batch.is_first.dtype == th.bool


def test_recent_sequences_reach_back_if_episodes_are_short():
    buffer = filled_buffer([2] * 10, recent_episodes=1, recent_share=1.0)
    batch = buffer.sample_sequences(3, 7)
    assert batch.obs["obs"][:, -1, 0].tolist() == [9.0] * 3  # the only stretch of 7 rows that ends with the newest


def test_share_zero_is_uniform_and_one_half_of_an_odd_batch_is_drawn():
    buffer = filled_buffer([9] * 8, recent_episodes=1, recent_share=0.0)
    assert len({int(x) for x in buffer.sample_sequences(200, 2).obs["obs"][:, 0, 0]}) == 8
    buffer.set_recent(0.5, 1)
    assert {int((buffer.sample_sequences(1, 2).obs["obs"] == 7).all()) for _ in range(30)} == {0, 1}
    with pytest.raises(ValueError, match="recent_share=2"):
        buffer.set_recent(2.0, 1)
    with pytest.raises(ValueError, match="holds no stretch"):
        buffer.sample_sequences(1, 500)


# ---- Algorithm 1 ----------------------------------------------------------------------------------------------------


def test_schedule_of_algorithm_1():
    """Two random episodes of 6 steps, 3 updates; from then on planned episodes, 3 updates each."""
    model = tiny(CountEnv(6))
    planned, updates = [], []
    act = model._collector.act

    def spy(*args, **kwargs):
        planned.append(model.num_timesteps)
        return act(*args, **kwargs)

    model._collector.act = spy
    model.learn(27, callback=lambda local, _: updates.append(model._n_updates) is None)
    assert planned == list(range(12, 27))
    assert updates == [0] * 12 + [3] * 6 + [6] * 6 + [9] * 3


def test_schedule_counts_the_episodes_of_all_environments():
    """3 environments of 6 steps: 3 episodes at once. 2 seed episodes: rounds after the 2nd and the 3rd, then 3."""
    model = tiny(DummyVecEnv([lambda: CountEnv(6)] * 3))
    updates = []
    model.learn(3 * 13, callback=lambda local, _: updates.append(model._n_updates) is None)
    assert updates == [0] * 6 + [6] * 6 + [15]


def test_other_schedules():
    by_steps = tiny(CountEnv(6), train_ratio=20.0).learn(24)  # one update a step, after the seed episodes
    assert by_steps._n_updates == 24 - 12 + 1
    as_sb3 = tiny(CountEnv(6), train_freq=(1, "episode"), gradient_steps=4).learn(24)
    assert as_sb3._n_updates == 4 * 3
    random = tiny(CountEnv(6), collection="random")
    random._collector.act = None  # would fail if it was called
    assert random.learn(24)._n_updates == 3 * 3


def test_update_learns_and_logs():
    model = tiny(CountEnv(6)).learn(12)
    first = float(model._update(model.replay_buffer.sample_sequences(4, 5)).metrics["model_loss"])
    for _ in range(60):
        metrics = model._update(model.replay_buffer.sample_sequences(4, 5)).metrics
    assert float(metrics["model_loss"]) < 0.5 * first
    assert {"loss_recon_obs", "loss_reward", "loss_kl", "model_grad_norm", "prior_ent"} <= metrics.keys()
    model.learn(8, reset_num_timesteps=False)
    assert model._metrics.take()["plan_ms"] > 0.0


def test_arguments_reach_the_model():
    model = tiny(
        CountEnv(), reward_scale=3.0, kl_scale=0.5, free_nats=1.5, overshooting_distance=4, overshooting_scale=0.1
    )
    world_model = model.policy.world_model
    assert world_model.objective == FreeNatsKL(0.5, 1.5)
    assert world_model.overshooting == LatentOvershooting(4, 0.1, 1.5)
    assert world_model.scales == {"recon_obs": 0.5, "reward": 3.0, "kl": 0.5, "overshoot": 0.1}
    group = model.model_optim.param_groups[0]
    assert (group["lr"], group["eps"], model.optimizers["model_optim"].clip) == (1e-3, 1e-4, 1000.0)
    planner = model.policy.behavior
    assert (planner.horizon, planner.iterations, planner.candidates, planner.elites) == (3, 2, 10, 3)
    assert ("planning", "CEM, 2 iterations of 10 sequences of 3 steps, 3 elites") in model.describe()
    defaults = PlaNet("MlpPolicy", CountEnv(), device="cpu")
    assert (defaults.batch_size, defaults.batch_length, defaults.seed_episodes, defaults.collect_interval) == (
        50,
        50,
        5,
        100,
    )
    assert defaults.policy.planner_settings["candidates"] == 1000 and defaults.exploration_noise == 0.3
    assert defaults.replay_buffer.recent_share == 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"collection": "greedy"}, "collection='greedy'"),
        ({"model_size": "papre"}, "did you mean 'paper'"),
        ({"policy_kwargs": {"detr": 3}}, "did you mean 'deter'"),
        ({"policy_kwargs": {"path": "rsm"}}, "did you mean 'rssm'"),
        ({"policy_kwargs": {"planner": {}}}, "planning_horizon="),
        ({"planning_elites": 11}, "elites=11"),
        ({"overshooting_distance": 3, "policy_kwargs": {"deter": 0}}, "deter=0"),
    ],
)
def test_refusals(changes, words):
    with pytest.raises(ValueError, match=words):
        tiny(CountEnv(), **changes)


def test_net_arch_sets_the_heads():
    spec = resolve_spec("small", (), {"net_arch": [7, 8]})
    assert spec.mlp == (7, 8) and spec.deter == SIZES["small"].deter


# ---- SB3 ------------------------------------------------------------------------------------------------------------

IMAGE = spaces.Box(0, 255, (20, 16, 3), np.uint8)
CASES = {
    "box": ("MlpPolicy", CountEnv(6), {}),
    "discrete": ("MlpPolicy", CountEnv(6, spaces.Discrete(3)), {"policy_kwargs": {"end_head": True}}),
    "multidiscrete": ("MlpPolicy", CountEnv(6, spaces.MultiDiscrete([2, 3]), spaces.Discrete(4)), {}),
    "stochastic": ("MlpPolicy", CountEnv(6), {"policy_kwargs": {"path": "stochastic"}}),
    "deterministic": ("MlpPolicy", CountEnv(6), {"policy_kwargs": {"path": "deterministic"}, "warm_start": True}),
    "overshooting": ("MlpPolicy", CountEnv(6), {"overshooting_distance": 3}),
    "image": ("CnnPolicy", CountEnv(6, observation_space=IMAGE), {}),
    "dict": (
        "MultiInputPolicy",
        CountEnv(6, spaces.Discrete(2), spaces.Dict({"image": IMAGE, "vector": spaces.Box(-1, 1, (3,))})),
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_learn_predict_save_load(case, tmp_path):
    policy, env, changes = CASES[case]
    model = tiny(env, policy, **changes).learn(20)
    assert model._n_updates == 6
    vec = model.get_env()
    obs = vec.reset()
    first = np.ones(1, bool)
    model.policy.behavior.begin(th.ones(1, dtype=th.bool))
    action, state = model.predict(obs, episode_start=first, deterministic=True)
    again, same = model.predict(obs, episode_start=first, deterministic=True)
    np.testing.assert_array_equal(action, again)
    for left, right in zip(state, same, strict=True):
        np.testing.assert_array_equal(left, right)
    assert env.action_space.contains(action[0].astype(env.action_space.dtype) if action[0].shape else int(action[0]))
    model.save(tmp_path / "model")
    loaded = PlaNet.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict(obs, episode_start=first, deterministic=True)[0], action)
    assert loaded.policy.planner_settings == model.policy.planner_settings
    model.policy.save(tmp_path / "policy")
    alone = type(model.policy).load(tmp_path / "policy", device="cpu")
    np.testing.assert_array_equal(alone.predict(obs, episode_start=first, deterministic=True)[0], action)
    assert len(evaluate_policy(model, vec, 2, return_episode_rewards=True)[0]) == 2


def test_equal_seeds_give_equal_runs_and_resuming_goes_on(tmp_path):
    runs = [tiny(CountEnv(6)).learn(20) for _ in range(2)]
    one, two = (run.policy.state_dict() for run in runs)
    assert all(th.equal(one[key], two[key]) for key in one)
    runs[0].save(tmp_path / "model")
    runs[0].save_replay_buffer(tmp_path / "replay")
    loaded = PlaNet.load(tmp_path / "model", env=CountEnv(6), device="cpu")
    loaded.load_replay_buffer(tmp_path / "replay")
    assert isinstance(loaded.replay_buffer, RecentReplayBuffer)
    loaded.learn(12, reset_num_timesteps=False)
    # 20 steps are 3 episodes; 12 more steps, from a reset on, are 2 more, and no new random episodes.
    assert (loaded.num_timesteps, loaded._episode_num, loaded._n_updates) == (32, 5, 6 + 6)


def test_evaluation_does_not_disturb_training():
    other = DummyVecEnv([lambda: CountEnv(6)])
    quiet = tiny(CountEnv(6), warm_start=True).learn(24)
    watched = tiny(CountEnv(6), warm_start=True)
    watched.learn(24, callback=lambda *_: evaluate_policy(watched, other, 1, warn=False) is not None)
    one, two = quiet.policy.state_dict(), watched.policy.state_dict()
    assert all(th.equal(one[key], two[key]) for key in one)


def test_a_dreamer_plans_with_its_critic():
    from sb3_dreamer import DreamerV3

    model = DreamerV3("MlpPolicy", CountEnv(6), model_size="debug", device="cpu", seed=0)
    planner = CEMPlanner(
        model.policy.codec.layout, horizon=3, iterations=2, candidates=10, elites=2, value=model.behavior.value
    )
    obs = model.get_env().reset()
    action, state = model.predict(obs, deterministic=True, planner=planner)
    again, _ = model.predict(obs, deterministic=True, planner=planner)
    np.testing.assert_array_equal(action, again)
    assert not np.array_equal(action, model.predict(obs, deterministic=True)[0])
    assert state is not None and "critic" not in dict(planner.named_modules())
    other = DreamerV3("MlpPolicy", CountEnv(6), model_size="debug2024", device="cpu")
    planner = CEMPlanner(model.policy.codec.layout, candidates=10, elites=2, value=other.behavior.value)
    with pytest.raises(ValueError, match=r"value does not take the 32 features of this world model .*: pass model"):
        model.predict(obs, planner=planner)


# ---- true simulator -------------------------------------------------------------------------------------------------


def test_copies_of_an_environment_are_played_from_its_state():
    from sb3_dreamer.zoo.studies.true_simulator import CopySimulator

    env = CountEnv(6)
    env.reset()
    env.step([0.0])
    simulator = CopySimulator(env)
    assert simulator.returns(np.zeros((2, 3, 1))).tolist() == [2 + 3 + 4] * 2
    assert simulator.returns(np.zeros((1, 9, 1))).tolist() == [2 + 3 + 4 + 5 + 6]  # the episode ends
    assert env.t == 1
    assert simulator.scale(np.array([-1.0, 0.5])).tolist() == [-2.0, 1.0]


@pytest.mark.parametrize("task", ["cartpole_swingup", "cup_catch", "cheetah_run"])
def test_the_simulator_predicts_the_rewards_of_dm_control(task):
    pytest.importorskip("dm_control")
    from sb3_dreamer.wrappers import make_env
    from sb3_dreamer.zoo.studies.true_simulator import make_simulator

    env = make_env(f"planet:{task}", pixels=None, flatten=True)
    env.reset(seed=3)
    simulator = make_simulator(env)
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 4, env.action_space.shape[0]))
    env.step(simulator.scale(actions[0, 0]))
    if task == "cup_catch":  # into the cup, or nothing would be seen
        physics = simulator.physics
        gap = physics.named.data.site_xpos["target", ["x", "z"]] - physics.named.data.xpos["ball", ["x", "z"]]
        physics.named.data.qpos[["ball_x", "ball_z"]] += gap
        physics.data.qvel[:] = 0.0
        physics.forward()
        actions *= 0.2
    predicted = simulator.returns(actions)
    played = sum(env.step(simulator.scale(action))[1] for action in actions[1])
    assert predicted[1] == pytest.approx(played, abs=1e-6)
    assert task == "cheetah_run" or played > 0.0


# ---- the forecast ---------------------------------------------------------------------------------------------------


class Blinking(CountEnv):
    """Small images, whose noise draws random numbers."""

    def __init__(self, length):
        super().__init__(length)
        self.observation_space = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)

    def reset(self, **kwargs):
        super().reset(**kwargs)
        return np.zeros((16, 16, 3), np.uint8), {}

    def step(self, action):
        _, *others = super().step(action)
        return np.full((16, 16, 3), 7, np.uint8), *others


def test_the_forecast_does_not_change_the_run(capsys):
    runs = [
        tiny(Blinking(6), "CnnPolicy", collect_interval=60, verbose=verbose, warm_start=True).learn(30, log_interval=99)
        for verbose in (0, 1)
    ]
    assert "One update takes" in capsys.readouterr().out
    one, two = (run.policy.state_dict() for run in runs)
    assert all(th.equal(one[key], two[key]) for key in one)


def test_offline_learning_forecasts_updates(capsys):
    model = tiny(CountEnv(6), verbose=1).learn(12)
    capsys.readouterr()
    model.learn_offline(60)
    assert "the remaining 9 updates take about" in capsys.readouterr().out


# ---- planning with other models -------------------------------------------------------------------------------------


def test_the_discount_counts_once():
    """The 2024 version's continue head predicts the discount, too."""
    from sb3_dreamer import DreamerV3

    model = DreamerV3("MlpPolicy", CountEnv(6), model_size="100k", device="cpu", seed=0, gamma=0.9)
    world_model = model.policy.world_model
    th.nn.init.zeros_(world_model.cont_head.out.weight)
    th.nn.init.constant_(world_model.cont_head.out.bias, float(np.log(0.9 / 0.1)))  # γ times a sure continue
    world_model.reward = lambda feat: th.ones_like(feat[..., 0])
    start = world_model.rssm.initial(1)
    found = dream_returns(world_model, start, th.zeros(1, 1, 20, model.policy.codec.layout.size), gamma=0.9)
    assert found.item() == pytest.approx((1 - 0.9**20) / 0.1, rel=1e-5)


def test_a_dreamer_s_warm_planner_forgets_where_an_episode_begins():
    from sb3_dreamer import DreamerV3

    model = DreamerV3("MlpPolicy", CountEnv(6), model_size="debug", device="cpu", seed=0)
    planner = CEMPlanner(model.policy.codec.layout, horizon=3, candidates=10, elites=2, warm_start=True)
    obs, begins = model.get_env().reset(), []
    monkey = planner._initial
    planner._start = lambda like: begins.append(planner.plan) or monkey(like)
    _, state = model.predict(obs, planner=planner)
    model.predict(obs, state, episode_start=np.array([False]), planner=planner)
    model.predict(obs, state, episode_start=np.array([True]), planner=planner)
    assert begins[0] is None and begins[1].abs().sum() > 0 and begins[2].abs().sum() == 0
