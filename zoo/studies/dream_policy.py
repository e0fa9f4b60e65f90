"""Train PPO in the dreams of a trained world model, and measure what it does in the real task, which it never saw.

The run needs its replay buffer, from which the dreams start::

    python zoo/train.py --algo dreamerv3 --env CartPole-v1 --seed 0 --save-replay-buffer
    python -m sb3_dreamer.zoo.studies.dream_policy --algo dreamerv3 --env CartPole-v1 --out dream_policy.json

prints mean returns of real episodes for random actions, the model's own actor and each PPO, and writes all of them.
Of each PPO the last policy counts; nothing is selected by real returns.
"""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecMonitor

from sb3_dreamer.dream_env import DreamPolicy, DreamVecEnv
from sb3_dreamer.zoo.config import building
from sb3_dreamer.zoo.config.arguments import OneLineParser, output_file, positive, whole
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.runs.agents import add_agent_arguments, load_agent
from sb3_dreamer.zoo.runs.provenance import describe_system


class Chance:
    """Random actions, through the same evaluation."""

    def __init__(self, space: Any):
        self.space = space

    def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[np.ndarray, Any]:
        """Draw one action for each environment."""
        n = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        return np.stack([self.space.sample() for _ in range(n)]), state


def learn_in_dreams(model: Any, args: Namespace, seed: int) -> DreamPolicy:
    """Train one PPO in dreams that start from the replayed states of the model."""
    dreams = VecMonitor(DreamVecEnv(model, args.dreams, horizon=args.horizon, seed=seed))
    agent = PPO(
        "MlpPolicy",
        dreams,
        learning_rate=LinearSchedule(args.learning_rate, 0.0, 1.0),
        n_steps=2048 // args.dreams,
        batch_size=256,
        seed=seed,
        device=args.device,
    )
    return DreamPolicy(model, agent.learn(args.steps))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = OneLineParser(prog="dream_policy", description="Train PPO in a world model, evaluate it in the real task.")
    add_agent_arguments(parser)
    add = parser.add_argument_group("the agent in the dream").add_argument
    add("--steps", type=positive, default=100_000, metavar="N", help="dreamed steps of each PPO")
    add("--seeds", type=whole, nargs="+", default=[0, 1, 2], metavar="N", help="one PPO for each")
    add("--dreams", type=positive, default=128, metavar="N", help="in parallel, at most 2048")
    add("--horizon", type=positive, default=15, metavar="N", help="steps of a dream")
    add("--learning-rate", type=float, default=1e-3, metavar="X", help="of PPO, falling to 0")
    add("--episodes", type=positive, default=100, metavar="N", help="real episodes of each evaluation")
    add("--out", type=output_file, metavar="FILE", help="JSON file for the returns")
    args = parser.parse_args(argv)
    building.set_threads(args.num_threads)
    agent = load_agent(args)
    if not agent.run.replay.exists():
        raise UsageError(f"{agent.run.path} has no replay buffer: train it with --save-replay-buffer")
    agent.model.load_replay_buffer(agent.run.replay)
    agent.env.action_space.seed(args.seed)
    returns: dict[str, list[float]] = {}

    def evaluate(name: str, player: Any, note: str = "") -> None:
        agent.env.seed(10_000 + args.seed)
        found, _ = evaluate_policy(player, agent.env, args.episodes, deterministic=True, return_episode_rewards=True)
        assert isinstance(found, list)
        returns[name] = [float(value) for value in found]
        print(f"{name}: {np.mean(found):.1f} +- {np.std(found):.1f} over {len(found)} real episodes{note}", flush=True)

    evaluate("random actions", Chance(agent.env.action_space))
    evaluate("the model's own actor", agent.model)
    for seed in args.seeds:
        start = time.monotonic()
        player = learn_in_dreams(agent.model, args, seed)
        seconds = time.monotonic() - start
        dreamed = f"{player.agent.num_timesteps:,} dreamed steps in {seconds:.0f} s"
        evaluate(f"PPO from dreams, seed {seed}", player, f", {dreamed}")
    if args.out is not None:
        facts = {"env": args.env, "algo": args.algo, "real_steps": agent.model.num_timesteps, "steps": args.steps}
        facts |= {"dreams": args.dreams, "horizon": args.horizon, "returns": returns, "system": describe_system()}
        args.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run_study(main))
