"""Train one DreamerV3 on CartPole-v1 and print a JSON line per episode; ``time_to_solve`` runs this file.

    PYTHON zoo/studies/time_to_solve_drivers.py AGENT [CLONE] --seed 0 --steps 10000 --threads 1

A line holds environment steps, return, seconds since the process began, those of the first environment step, updates,
the seconds that they took, and the number of trained parameters. Only ``ours`` needs sb3_dreamer: each rival is
trained through its own entry point, with its own Python.

=========  ==========================================================================================================
ours       this package, the version of 2024
sheeprl    ``pip install sheeprl==0.8.4``: the version of 2023. It has a GRU without blocks, three learning rates (of
           which those of actor and critic stay at their share of 0.3) and no warm-up of them
r2dreamer  CLONE of github.com/NM512/r2dreamer (546e4fa), ``pip install torch torchrl tensordict hydra-core gymnasium
           tensorboard``: the version of 2024, with the loss of Dreamer, without compiling and without fp16, which costs
           five times on a CPU. It has no random steps: its untrained actor, nearly uniform, takes them. Its environment
           runs in the same process, as the others' do
=========  ==========================================================================================================
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

STARTED = "SB3_DREAMER_STARTED"  # environment variable: when the process was started
TASK, TIMED = "CartPole-v1", "TimedCartPole-v1"
WIDTH, LATENTS, CLASSES, LAYERS, BINS = 64, 8, 8, 1, 63  # of deter, hidden and units
BATCH, LENGTH, HORIZON = 16, 16, 15
EVERY, RANDOM, BUFFER = 4, 300, 100_000  # environment steps per update, before the first one, and kept
RATE, SHARE, WARMUP = 1e-3, 0.3, 50  # learning rate, share of actor and critic (2023), updates of its rise (2024)
ENTROPY = 3e-4  # the paper's, and the default of the others


class Tally:
    """Times of this process.

    :param start: when it began
    """

    def __init__(self, start: float):
        self.start = start
        self.first: float | None = None
        self.updates = 0
        self.update_seconds = 0.0
        self.parameters: int | None = None

    def seconds(self) -> float:
        """Return seconds since the process began."""
        return time.time() - self.start

    def count(self, *modules: Any) -> None:
        """Count the trained parameters of torch modules, each once."""
        found = {id(p): p.numel() for module in modules for p in module.parameters() if p.requires_grad}
        self.parameters = sum(found.values())

    def timed(self, update: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function that does one update."""

        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = update(*args, **kwargs)
            self.update_seconds += time.perf_counter() - start
            self.updates += 1
            return result

        return run


TALLY = Tally(float(os.environ.get(STARTED, time.time())))


class Timed(gym.Wrapper):
    """Prints a line after every episode.

    :param env: environment
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.steps, self.total = 0, 0.0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self.total = 0.0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step; at the end of an episode print the line."""
        if TALLY.first is None:
            TALLY.first = TALLY.seconds()
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        self.total += float(reward)
        if terminated or truncated:
            line: dict[str, Any] = {
                "step": self.steps,
                "return": self.total,
                "seconds": TALLY.seconds(),
                "first": TALLY.first,
            }
            line |= {"updates": TALLY.updates, "update_seconds": TALLY.update_seconds, "parameters": TALLY.parameters}
            print(json.dumps(line), file=sys.__stdout__, flush=True)  # sys.stdout may be redirected
        return obs, reward, terminated, truncated, info


def make_task(**_: Any) -> gym.Env:
    """Make the environment."""
    return Timed(gym.make(TASK))


def ours(job: Namespace) -> None:
    """Train this package's DreamerV3."""
    from sb3_dreamer import DreamerV3

    sizes = {"deter": WIDTH, "hidden": WIDTH, "units": WIDTH, "stoch": LATENTS, "classes": CLASSES}
    model = DreamerV3(
        "MlpPolicy",
        make_task(),
        learning_rate=RATE,
        buffer_size=BUFFER,
        learning_starts=RANDOM,
        batch_size=BATCH,
        batch_length=LENGTH,
        train_ratio=BATCH * LENGTH / EVERY,
        horizon=HORIZON,
        ent_coef=ENTROPY,
        warmup_updates=WARMUP,
        model_size="100k",
        policy_kwargs=sizes | {"layers": LAYERS, "bins": BINS},
        verbose=0,
        seed=job.seed,
        device="cpu",
    )
    TALLY.count(model.policy.world_model, model.behavior.actor, model.behavior.critic)
    model.update = TALLY.timed(model.update)  # type: ignore[method-assign]
    model.learn(job.steps, log_interval=10**9)


def sheeprl_words(job: Namespace, folder: str) -> list[str]:
    """Write sheeprl's settings.

    :param job: flags
    :param folder: for what it writes
    """
    model, rates = "algo.world_model", {"world_model": RATE, "actor": SHARE * RATE, "critic": SHARE * RATE}
    parts = ("recurrent_model.recurrent_state", "transition_model.hidden", "representation_model.hidden")
    words = ["exp=dreamer_v3", "algo=dreamer_v3_XS", "env=gym", f"env.id={TIMED}", "env.wrapper.render_mode=null"]
    words += ["env.num_envs=1", "env.sync_env=True", "env.capture_video=False", f"seed={job.seed}"]
    words += [f"algo.cnn_keys.{part}=[]" for part in ("encoder", "decoder")]
    words += [f"algo.mlp_keys.{part}=[state]" for part in ("encoder", "decoder")]
    words += [f"algo.dense_units={WIDTH}", f"algo.mlp_layers={LAYERS}", *(f"{model}.{p}_size={WIDTH}" for p in parts)]
    words += [f"{model}.stochastic_size={LATENTS}", f"{model}.discrete_size={CLASSES}"]
    words += [f"{model}.reward_model.bins={BINS}", f"algo.critic.bins={BINS}"]
    words += [f"algo.{part}.optimizer.lr={rate:g}" for part, rate in rates.items()]
    words += [f"algo.per_rank_batch_size={BATCH}", f"algo.per_rank_sequence_length={LENGTH}", f"algo.horizon={HORIZON}"]
    words += [f"algo.replay_ratio={1 / EVERY}", f"algo.learning_starts={RANDOM}", f"algo.total_steps={job.steps}"]
    words += [f"buffer.size={BUFFER}", "buffer.memmap=False", "buffer.checkpoint=False", "metric.log_level=0"]
    words += ["algo.run_test=False"]
    words += ["checkpoint.every=1000000000", "checkpoint.save_last=False", "model_manager.disabled=True"]
    words += ["fabric.accelerator=cpu", "fabric.precision=32-true", f"num_threads={job.threads}"]
    return [*words, f"log_root={folder}", f"hydra.run.dir={folder}", "hydra.output_subdir=null"]


def sheeprl(job: Namespace) -> None:
    """Train sheeprl's DreamerV3."""
    from sheeprl import cli
    from sheeprl.algos.dreamer_v3 import dreamer_v3

    build = dreamer_v3.build_agent

    def build_agent(*args: Any, **kwargs: Any) -> Any:
        parts = build(*args, **kwargs)
        TALLY.count(*parts[:3])  # world model, actor, critic
        return parts

    dreamer_v3.build_agent, dreamer_v3.train = build_agent, TALLY.timed(dreamer_v3.train)
    gym.register(TIMED, make_task, disable_env_checker=True)
    sys.argv = ["sheeprl", *sheeprl_words(job, tempfile.mkdtemp())]
    cli.run()


class OneEnvironment:
    """The environment as r2dreamer's trainer wants it: a batch of one, with one-hot actions and dictionaries.

    :param seed: of the environment
    """

    env_num = 1

    def __init__(self, seed: int):
        self.env = make_task()
        self.seed: int | None = seed
        self.observation_space = gym.spaces.Dict({"state": self.env.observation_space})
        self.action_space = gym.spaces.Box(0, 1, (int(self.env.action_space.n),))  # type: ignore[attr-defined]
        self.action_space.discrete = True  # type: ignore[attr-defined]

    def step(self, action: Any, done: Any) -> tuple[Any, Any]:
        """Reset the environment if the last step ended an episode, else take a step.

        :param action: one-hot ``(1, A)``
        :param done: whether an episode has ended ``(1,)``
        :return: dictionary of observation, reward and flags, ``(1, ...)``; whether the episode has ended, ``(1,)``
        """
        import torch as th
        from tensordict import TensorDict

        first, terminated, truncated = bool(done[0]), False, False
        reward: Any = 0.0
        if first:
            obs, _ = self.env.reset(seed=self.seed)
            self.seed = None
        else:
            obs, reward, terminated, truncated, _ = self.env.step(int(action[0].argmax()))
        flags = {"is_first": first, "is_last": terminated or truncated, "is_terminal": terminated}
        row = {"state": th.as_tensor(np.asarray(obs, np.float32))[None], "reward": th.tensor([[float(reward)]])}
        row |= {name: th.tensor([[flag]]) for name, flag in flags.items()}
        return TensorDict(row, batch_size=(1,)), th.tensor([terminated or truncated])


def r2dreamer_words(job: Namespace, folder: str) -> list[str]:
    """Write r2dreamer's settings.

    :param job: flags
    :param folder: for what it writes
    """
    words = ["env=dmc_proprio", "model=size12M", "device=cpu", f"seed={job.seed}", f"logdir={folder}"]
    words += [f"env.steps={job.steps}", "env.env_num=1", "env.eval_episode_num=0", "env.action_repeat=1"]
    words += [f"batch_size={BATCH}", f"batch_length={LENGTH}", f"env.train_ratio={BATCH * LENGTH / EVERY:g}"]
    words += [f"buffer.max_size={BUFFER}", "trainer.update_log_every=1e9", "model.compile=False"]
    words += ["model.rep_loss=dreamer", f"model.lr={RATE}", f"model.warmup={WARMUP}", f"model.imag_horizon={HORIZON}"]
    words += [f"model.{name}={WIDTH}" for name in ("deter", "hidden", "units")]
    words += [f"model.discrete={CLASSES}", f"model.rssm.stoch={LATENTS}"]
    words += [f"model.{part}.layers={LAYERS}" for part in ("encoder.mlp", "decoder.mlp", "actor", "critic")]
    for head in ("reward", "critic"):
        words += [f"model.{head}.shape=[{BINS}]", f"model.{head}.dist.bin_num={BINS}"]
    return words


def r2dreamer(job: Namespace) -> None:
    """Train r2dreamer with the loss of Dreamer."""
    sys.path.insert(0, job.clone)
    import dreamer
    import train

    dreamer.autocast = lambda **_: contextlib.nullcontext()
    base: Any = train.OnlineTrainer

    class Trainer(base):
        """Begins to learn later.

        :param args: as of the base class
        """

        def __init__(self, *args: Any):
            super().__init__(*args)
            due: Callable[[int], int] = self._updates_needed
            self._updates_needed: Callable[[int], int] = lambda step: due(step) if step >= RANDOM else 0

        def begin(self, agent: Any) -> None:
            """Count parameters, then train."""
            names = ("encoder", "rssm", "decoder", "reward", "cont", "actor", "value")
            TALLY.count(*(getattr(agent, name) for name in names))
            agent.update = TALLY.timed(agent.update)
            super().begin(agent)

    def make_envs(_: Any) -> tuple[Any, ...]:
        env = OneEnvironment(job.seed)
        return env, None, env.observation_space, env.action_space

    train.OnlineTrainer, train.make_envs = Trainer, make_envs
    sys.argv = [
        "train.py",
        "--config-path",
        str(Path(job.clone, "configs").resolve()),
        *r2dreamer_words(job, tempfile.mkdtemp()),
    ]
    train.main()


AGENTS = {"ours": ours, "sheeprl": sheeprl, "r2dreamer": r2dreamer}


def main() -> None:
    """Train one agent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", choices=AGENTS)
    parser.add_argument("clone", nargs="?", help="folder of the clone (r2dreamer)")
    for name, value in {"seed": 0, "steps": 10_000, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="(default: %(default)s)")
    job = parser.parse_args()
    if (job.agent == "r2dreamer") != bool(job.clone):
        parser.error("r2dreamer needs the folder of its clone, the others have none")
    import torch as th

    th.set_num_threads(job.threads)
    AGENTS[job.agent](job)


if __name__ == "__main__":
    main()
