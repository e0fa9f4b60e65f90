"""Time one update of another DreamerV3 at the size of a case; ``bench rivals`` runs this file with the other's Python.

    sb3-dreamer bench rivals --sizes 1m --rival "jax=PYTHON zoo/speed/drivers.py dreamerv3-jax CLONE"

Every driver times what ``bench`` times: one full update (world model, imagination, actor, critic, optimizers) on a
batch of noise that is there already. The case comes from ``bench rivals`` through the environment; alone, flags tell
it. This file imports nothing of sb3_dreamer: it runs where only the other program is installed. All four ran on a
CPU. On an H200 dreamerv3-jax ran with jax 0.11.2, after its positional arguments of ``jax.jit`` were made keyword
arguments; r2dreamer's compilation did not finish within 8 minutes, and TorchRL 0.14.1's failed.

==============  =====================================================================================================
dreamerv3-jax   CLONE of github.com/danijar/dreamerv3 (e3f0224), ``pip install jax==0.4.33 optax==0.2.3 chex==0.1.87
                "numpy<2.2" elements portal granular ninjax scope einops ruamel.yaml``; sizes 100k to 400m
r2dreamer       CLONE of github.com/NM512/r2dreamer (546e4fa), ``pip install torch torchrl tensordict hydra-core
                gymnasium``; 100k to 400m. On a CPU without compiling and without fp16, which costs five times there
sheeprl         ``pip install sheeprl==0.8.4``; the version of 2023: XS to XL. The copy into its target critic is not
                part of its update and is not timed
torchrl         ``pip install torchrl==0.14.1``; built of its modules: vectors and Box actions only, 100k to 400m
==============  =====================================================================================================
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CASE = "SB3_DREAMER_CASE"  # environment variable: the case as JSON
Driver = tuple[Callable[[], Any], Callable[[Any], Any]]  # makes a batch; updates with it and waits for the end


class Size(NamedTuple):
    """A size of the version of 2024.

    :param deter: width of the recurrent state
    :param units: width of all other layers
    :param classes: of each latent variable
    :param depth: of the first convolution
    :param stoch: latent variables
    :param bins: of reward and value
    :param layers: of encoder, decoder, actor and critic; reward and continue heads have one
    """

    deter: int
    units: int
    classes: int
    depth: int
    stoch: int = 32
    bins: int = 255
    layers: int = 3


SIZES = {
    "100k": Size(64, 64, 8, 4, stoch=8, bins=63, layers=1),  # sb3-dreamer's own; the others are the authors'
    "1m": Size(512, 64, 4, 4),
    "12m": Size(2048, 256, 16, 16),
    "25m": Size(3072, 384, 24, 24),
    "50m": Size(4096, 512, 32, 32),
    "100m": Size(6144, 768, 48, 48),
    "200m": Size(8192, 1024, 64, 64),
    "400m": Size(12288, 1536, 96, 96),
}


def noise(job: Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw observations ``(B, T, ...)``, actions (one-hot if discrete) ``(B, T, A)`` and rewards ``(B, T)``."""
    rng, rows = np.random.default_rng(), (job.batch_size, job.batch_length)
    if job.obs == "images":
        obs = rng.integers(0, 256, (*rows, 64, 64, 3), np.uint8)
    else:
        obs = rng.standard_normal((*rows, 24)).astype(np.float32)
    hot = np.eye(job.actions, dtype=np.float32)[rng.integers(0, job.actions, rows)]
    action = hot if job.action == "discrete" else rng.uniform(-1, 1, (*rows, job.actions)).astype(np.float32)
    return obs, action, rng.standard_normal(rows).astype(np.float32)


def dreamerv3_jax(job: Namespace) -> Driver:
    """Drive the authors' code of 2024."""
    sys.path.insert(0, job.clone)
    os.environ["JAX_PLATFORMS"] = "cpu" if job.device == "cpu" else "cuda"
    if hasattr(os, "sched_setaffinity"):  # XLA takes a thread for every core that it sees
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    import elements
    import jax
    from dreamerv3.agent import Agent
    from ruamel import yaml

    cpu, images, discrete = job.device == "cpu", job.obs == "images", job.action == "discrete"
    configs = yaml.YAML(typ="safe").load((Path(job.clone) / "dreamerv3/configs.yaml").read_text())
    size = SIZES[job.size]
    rssm = {"deter": size.deter, "hidden": size.units, "stoch": size.stoch, "classes": size.classes}
    widths = {r".*\.units": size.units, r".*\.depth": size.depth, r".*\.bins": size.bins}
    layers = {r"agent\.(enc|dec|policy|value)(\.simple)?\.layers": size.layers}
    config = elements.Config(configs["defaults"]).update({r".*\.rssm": rssm, **widths, **layers})
    config = config.update({"jax.platform": "cpu" if cpu else "cuda", "jax.prealloc": False})
    config = config.update({"jax.compute_dtype": "float32" if cpu else "bfloat16"})
    lengths = {"batch_length": job.batch_length, "report_length": job.batch_length, "replay_context": 1}
    ranks = {"seed": 0, "replica": 0, "replicas": 1, "logdir": "unused", "batch_size": job.batch_size}
    settings = elements.Config(**config.agent, jax=config.jax, **lengths, **ranks)
    spaces = {name: elements.Space(bool) for name in ("is_first", "is_last", "is_terminal")}
    spaces["reward"] = elements.Space(np.float32)
    key, shape = ("image", (64, 64, 3)) if images else ("state", (24,))
    spaces[key] = elements.Space(np.uint8 if images else np.float32, shape)
    act = (
        elements.Space(np.int32, (), 0, job.actions) if discrete else elements.Space(np.float32, (job.actions,), -1, 1)
    )
    agent = Agent(spaces, {"action": act}, settings)
    longer = Namespace(**vars(job) | {"batch_length": job.batch_length + 1})  # a row of context before

    def draw() -> dict[str, np.ndarray]:
        obs, action, reward = noise(longer)
        data = {key: obs, "action": action.argmax(-1).astype(np.int32) if discrete else action, "reward": reward}
        for name, space in dict(agent.spaces).items():
            data.setdefault(name, np.zeros((*reward.shape, *space.shape), space.dtype))
        data.pop("seed", None)
        return data

    stream, carry = iter(agent.stream(iter(draw, None))), [agent.init_train(job.batch_size)]

    def update(data: Any) -> None:
        carry[0] = agent.train(carry[0], data)[0]
        jax.block_until_ready((carry[0], agent.params))

    return partial(next, stream), update


def r2dreamer(job: Namespace) -> Driver:
    """Drive r2dreamer with the loss of Dreamer."""
    sys.path.insert(0, job.clone)
    import dreamer
    import gymnasium as gym
    import torch as th
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from tensordict import TensorDict

    cpu, images = job.device == "cpu", job.obs == "images"
    if cpu:
        dreamer.autocast = lambda **_: contextlib.nullcontext()
    words = [f"env=dmc_{'vision' if images else 'proprio'}", "model=size12M", f"device={job.device}"]
    with initialize_config_dir(str(Path(job.clone, "configs").resolve()), version_base=None):
        config = compose("configs", [*words, f"model.compile={not cpu}", "model.rep_loss=dreamer"])
    OmegaConf.set_struct(config, False)
    size, net = SIZES[job.size], config.model
    net.update(deter=size.deter, hidden=size.units, units=size.units, discrete=size.classes, depth=size.depth)
    net.rssm.stoch = size.stoch
    for part in (net.encoder.mlp, net.decoder.mlp, net.actor, net.critic):
        part.layers = size.layers
    for part in (net.reward, net.critic):
        part.shape, part.dist.bin_num = [size.bins], size.bins
    key, pixels = "image" if images else "state", gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    space = pixels if images else gym.spaces.Box(-np.inf, np.inf, (24,))
    acts: Any = gym.spaces.Box(-1, 1, (job.actions,))
    if job.action == "discrete":
        acts = gym.spaces.Discrete(job.actions)
        acts.discrete, acts.n = True, job.actions  # omegaconf takes no numbers of numpy
    agent = dreamer.Dreamer(config.model, gym.spaces.Dict({key: space}), acts).to(job.device)

    def draw() -> TensorDict:
        obs, action, reward = (th.as_tensor(part, device=job.device) for part in noise(job))
        off = th.zeros_like(reward, dtype=th.bool)
        data = {key: obs, "action": action, "reward": reward[..., None], "is_first": off}
        return TensorDict(data | {"is_last": off[..., None], "is_terminal": off[..., None]}, batch_size=off.shape)

    class Replay:
        """Returns the batch that was drawn."""

        def __init__(self, batch: TensorDict):
            self.batch = batch

        def sample(self) -> tuple[Any, ...]:
            state = agent.get_initial_state(job.batch_size)
            return self.batch, None, (state["stoch"], state["deter"])

        def update(self, *_: Any) -> None:
            pass

    def update(batch: TensorDict) -> None:
        agent.update(Replay(batch))
        if not cpu:
            th.cuda.synchronize()

    return draw, update


def sheeprl(job: Namespace) -> Driver:
    """Drive sheeprl."""
    import gymnasium as gym
    import hydra
    import torch as th
    from omegaconf import OmegaConf
    from sheeprl.algos.dreamer_v3.agent import build_agent
    from sheeprl.algos.dreamer_v3.dreamer_v3 import train
    from sheeprl.algos.dreamer_v3.utils import Moments
    from sheeprl.utils.metric import MetricAggregator
    from sheeprl.utils.timer import timer
    from sheeprl.utils.utils import dotdict

    cpu, images, continuous = job.device == "cpu", job.obs == "images", job.action == "box"
    used, unused, key = ("cnn", "mlp", "rgb") if images else ("mlp", "cnn", "state")
    words = [
        "exp=dreamer_v3",
        f"algo=dreamer_v3_{job.size}",
        "env=dummy",
        "run_name=unused",
        "fabric.precision=32-true",
    ]
    words += [f"algo.per_rank_batch_size={job.batch_size}", f"algo.per_rank_sequence_length={job.batch_length}"]
    words += [f"algo.{used}_keys.{part}=[{key}]" for part in ("encoder", "decoder")]
    words += [f"algo.{unused}_keys.{part}=[]" for part in ("encoder", "decoder")]
    with hydra.initialize_config_module("sheeprl.configs", version_base=None):
        composed = hydra.compose("config", [*words, f"fabric.accelerator={'cpu' if cpu else 'cuda'}"])
    config = dotdict(OmegaConf.to_container(composed, resolve=True))
    MetricAggregator.disabled = timer.disabled = True
    th.distributions.Distribution.set_default_validate_args(config.distribution.validate_args)
    fabric = hydra.utils.instantiate(config.fabric, _convert_="all")
    pixels, acts = gym.spaces.Box(0, 255, (3, 64, 64), np.uint8), (job.actions,)
    space = gym.spaces.Dict({key: pixels if images else gym.spaces.Box(-np.inf, np.inf, (24,))})
    world, actor, critic, target, _ = build_agent(fabric, acts, continuous, config, space)
    parts = ((world, config.algo.world_model), (actor, config.algo.actor), (critic, config.algo.critic))
    make = partial(hydra.utils.instantiate, _convert_="all")
    optimizers = fabric.setup_optimizers(*(make(part.optimizer, params=net.parameters()) for net, part in parts))
    scale = config.algo.actor.moments
    moments = Moments(scale.decay, scale.max, scale.percentile.low, scale.percentile.high).to(fabric.device)

    def draw() -> dict[str, th.Tensor]:  # time first
        obs, action, reward = (th.as_tensor(part, device=fabric.device).transpose(0, 1) for part in noise(job))
        off = th.zeros_like(reward)[..., None]
        data = {key: obs.permute(0, 1, 4, 2, 3).float() if images else obs, "actions": action}
        return data | {"rewards": reward[..., None], "terminated": off, "truncated": off, "is_first": off}

    def update(data: dict[str, th.Tensor]) -> None:
        train(fabric, world, actor, critic, target, *optimizers, data, None, config, continuous, acts, moments)
        if not cpu:
            th.cuda.synchronize()

    return draw, update


def torchrl(job: Namespace) -> Driver:
    """Drive an update that is built of TorchRL's modules and losses."""
    import torch as th
    from tensordict import TensorDict
    from torchrl import objectives
    from torchrl.objectives.dreamer_v3 import DreamerV3Loss
    from torchrl.objectives.utils import ValueEstimators
    from torchrl.trainers.algorithms.dreamer_v3 import DreamerV3OptimizationStepper, DreamerV3Optimizer

    if job.obs != "vectors" or job.action != "box":
        raise SystemExit("torchrl: vectors and Box actions only")
    world, env, continuation, actor, critic = torchrl_networks(job)
    options = {"kl_mode": "separate", "unimix": 0.01, "lambda_continue": 1.0, "continue_target_scale": 1 - 1 / 333}
    size = SIZES[job.size]
    model_loss = objectives.DreamerV3ModelLoss(world, num_reward_bins=size.bins, detach_output=False, **options)
    model_loss.set_keys(pixels="observation")
    dream = {"continuation_model": continuation, "imagination_horizon": 15, "use_reinforce": True}
    actor_loss = objectives.DreamerV3ActorLoss(actor, critic, env, **dream)
    actor_loss.make_value_estimator(ValueEstimators.TDLambda, gamma=1.0, lmbda=0.95)
    slow = {"value_loss": "two_hot", "num_value_bins": size.bins, "slow_critic_regularization": 1.0}
    value_loss = objectives.DreamerV3ValueLoss(critic, actor_loss=actor_loss, **slow)
    loss = DreamerV3Loss(model_loss, actor_loss, value_loss).to(job.device)
    target = objectives.SoftUpdate(value_loss, tau=0.02)
    cuda = job.device != "cpu"  # there compiled and captured, as by default; products in bfloat16
    options = {"cudagraph": None if cuda else False, "mixed_precision": cuda}
    stepper = DreamerV3OptimizationStepper(loss, DreamerV3Optimizer(loss.parameters()), target, **options)

    def draw() -> TensorDict:
        obs, action, rewards = map(th.as_tensor, noise(job))
        off, rows = th.zeros(*rewards.shape, 1, dtype=th.bool), rewards.shape
        step = TensorDict({"observation": obs, "reward": rewards[..., None], "done": off, "terminated": off}, rows)
        start = {"state": th.zeros(*rows, size.stoch * size.classes), "belief": th.zeros(*rows, size.deter)}
        return TensorDict({**start, "is_init": off, "action": action, "next": step}, rows).to(job.device)

    if cuda:
        stepper.warmup(draw())

    def update(batch: TensorDict) -> None:
        stepper.step(None, batch)
        if cuda:
            th.cuda.synchronize()

    return draw, update


def torchrl_networks(job: Namespace) -> tuple[Any, ...]:
    """Build world model, imagined environment, continue head, actor and critic of TorchRL's modules."""
    import torch as th
    from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential
    from tensordict.nn import TensorDictModule as Module
    from tensordict.nn import TensorDictSequential as Chain
    from torchrl import data
    from torchrl.envs.model_based import DreamerEnv
    from torchrl.modules import DreamerV3MLP, SymExpTwoHot, TanhNormal, WorldModelWrapper
    from torchrl.modules.models.model_based import RSSMPosteriorV3, RSSMPriorV3, RSSMRolloutV3
    from torchrl.objectives import symexp, symlog

    size = SIZES[job.size]
    deter, units, classes, bins = size.deter, size.units, size.classes, size.bins
    flat, state, after = size.stoch * classes, ["state", "belief"], [("next", "state"), ("next", "belief")]

    def head(outputs: int, depth: int, scale: float = 1.0) -> Any:
        return DreamerV3MLP(flat + deter, outputs, depth=depth, num_cells=units, outscale=scale)

    class Policy(th.nn.Module):
        """Computes mean and standard deviation of an action."""

        def __init__(self) -> None:
            super().__init__()
            self.net = head(2 * job.actions, size.layers, 0.01)

        def forward(self, *latent: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
            mean, raw = self.net(*latent).chunk(2, -1)
            return mean, 0.1 + 0.9 * th.sigmoid(raw + 2.0)

    sizes = {"hidden_dim": units, "rnn_hidden_dim": deter, "num_categoricals": size.stoch, "num_classes": classes}
    core = {"recurrent_model": "block_gru", "num_blocks": 8, "num_layers": 1, "prior_num_layers": 2, "unimix": 0.01}
    prior = RSSMPriorV3(action_shape=(job.actions,), action_dim=job.actions, **core, **sizes)
    posterior = RSSMPosteriorV3(obs_embed_dim=units, use_rms_norm=True, num_layers=1, unimix=0.01, **sizes)
    encoder = DreamerV3MLP(24, None, depth=size.layers, num_cells=units)
    reward, cont, mean = head(bins, 1, 0.0), head(1, 1), SymExpTwoHot(bins)
    world = Chain(
        Module(symlog, [("next", "observation")], [("next", "squashed")]),
        Module(encoder, [("next", "squashed")], [("next", "encoded_latents")]),
        RSSMRolloutV3(
            Module(prior, [*state, "action"], [("next", "prior_logits"), *after]),
            Module(posterior, [after[1], ("next", "encoded_latents")], [("next", "posterior_logits"), after[0]]),
        ),
        Module(head(24, size.layers), after, [("next", "reco_squashed")]),
        Module(symexp, [("next", "reco_squashed")], [("next", "reco_pixels")]),
        Module(reward, after, [("next", "reward_logits")]),
        Module(mean, [("next", "reward_logits")], [("next", "reward")]),
        Module(cont, after, [("next", "continue_pred")]),
    )
    rewards = Chain(Module(reward, state, ["reward_logits"]), Module(mean, ["reward_logits"], ["reward"]))
    wrapped = WorldModelWrapper(Module(prior, [*state, "action"], ["_", *state]), rewards)
    env = DreamerEnv(wrapped, prior_shape=(flat,), belief_shape=(deter,))
    env.observation_spec = data.Composite(state=data.Unbounded(flat), belief=data.Unbounded(deter))
    env.state_spec = env.observation_spec.clone()
    env.action_spec, env.reward_spec = data.Bounded(-1, 1, (job.actions,)), data.Unbounded((1,))
    logits, sigmoid = (
        Module(cont, state, ["continue_logits"]),
        Module(th.sigmoid, ["continue_logits"], ["continuation"]),
    )
    options = {"distribution_class": TanhNormal, "return_log_prob": True}
    sample = ProbabilisticTensorDictModule(["loc", "scale"], ["action"], **options)
    actor = ProbabilisticTensorDictSequential(Module(Policy(), state, ["loc", "scale"]), sample)
    value = Module(SymExpTwoHot(bins), ["state_value_logits"], ["state_value"])
    critic = Chain(Module(head(bins, size.layers, 0.0), state, ["state_value_logits"]), value)
    return world, env, Chain(logits, sigmoid), actor, critic


DRIVERS = {"dreamerv3-jax": dreamerv3_jax, "r2dreamer": r2dreamer, "sheeprl": sheeprl, "torchrl": torchrl}


def main() -> None:
    """Time updates and print the line that ``bench rivals`` reads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver", choices=DRIVERS)
    parser.add_argument("clone", nargs="?", help="folder of the clone (dreamerv3-jax, r2dreamer)")
    parser.add_argument("--size", help="named size of the other program")
    parser.add_argument("--obs", choices=["vectors", "images"], default="vectors")
    parser.add_argument("--action", choices=["box", "discrete"], default="box")
    for name, value in {"batch-size": 16, "batch-length": 64, "updates": 8, "warmup": 2, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.set_defaults(**json.loads(os.environ.get(CASE, "{}")))
    job = parser.parse_args()
    known = ("XS", "S", "M", "L", "XL") if job.driver == "sheeprl" else tuple(SIZES)
    job.size = job.size or ("XS" if job.driver == "sheeprl" else "1m")
    if job.size not in known:
        parser.error(f"{job.driver} has no size {job.size!r}: use {', '.join(known)}")
    if job.driver in ("dreamerv3-jax", "r2dreamer") and not (job.clone and Path(job.clone).is_dir()):
        parser.error(f"{job.driver} needs the folder of its clone, not {job.clone!r}")
    job.actions = (18 if job.obs == "images" else 6) if job.action == "discrete" else 6
    if job.driver != "dreamerv3-jax":
        import torch as th

        th.set_num_threads(job.threads)
    draw, update = DRIVERS[job.driver](job)
    seconds = []
    for _ in range(job.warmup + job.updates):
        batch, start = draw(), time.perf_counter()
        update(batch)
        seconds.append(time.perf_counter() - start)
    timed = seconds[job.warmup :]
    mode = f"{job.size} {job.obs} {job.action} {job.device}"
    print(f"{job.driver} {mode} median {statistics.median(timed):.4f} s min {min(timed):.4f} s")


if __name__ == "__main__":
    main()
