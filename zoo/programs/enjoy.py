"""The program ``enjoy``: watch a trained agent; return and length of every episode, and their mean."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config import environments
from sb3_dreamer.zoo.config.arguments import OneLineParser, check_output, positive
from sb3_dreamer.zoo.config.errors import UsageError
from sb3_dreamer.zoo.runs.agents import Agent, add_agent_arguments, find_run, load_agent
from sb3_dreamer.zoo.runs.episodes import Episode, mean_in_words, play

DEFAULT_STEPS = 1000  # rl_zoo3's default


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer enjoy", description="Watch a trained agent and print return and length of every episode."
    )
    add_agent_arguments(parser)
    group = parser.add_argument_group("what to show")
    length = group.add_mutually_exclusive_group()
    length.add_argument("-n", "--n-timesteps", type=positive, metavar="N", help=f"steps (default: {DEFAULT_STEPS})")
    length.add_argument("--n-episodes", type=positive, metavar="N", help="whole episodes, instead of steps")
    group.add_argument("--no-render", action="store_true", help="open no window")
    group.add_argument("--reward-log", default="", metavar="DIR", help="write the episodes to DIR/0.monitor.csv")
    group.add_argument("--verbose", type=int, choices=[0, 1, 2], default=1, help="0 prints only the mean")
    ignored = parser.add_argument_group("accepted for rl_zoo3 compatibility, without effect")
    ignored.add_argument("--norm-reward", action="store_true", help="rewards are never normalized here")
    ignored.add_argument("-P", "--progress", action="store_true", help="episodes are always printed")
    ignored.add_argument("--custom-objects", action="store_true", help="model files hold no objects to replace")
    return parser


def main(words: Sequence[str]) -> int:
    """Run the agent.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    if args.reward_log:
        check_output("--reward-log", args.reward_log, is_folder=True)
    window = not args.no_render and environments.has_display()
    agent = load_for_window(args) if window else load_agent(args)
    try:
        if args.verbose >= 1:
            how = "most likely actions" if agent.deterministic else "sampled actions"
            print(f"{agent.path}: trained for {agent.model.num_timesteps:,} steps; {how}, seed {args.seed}")
            if not window and not args.no_render:
                print("No display: no window is opened (record_video writes a video).")
        episodes = watch(agent, args, window)
    finally:
        agent.env.close()
    print(mean_in_words(episodes))
    return 0


def load_for_window(args: Any) -> Agent:
    """Load the agent with an environment that renders to a window; without a window where that is impossible."""
    find_run(args)  # Its error is not one of the window.
    try:
        return load_agent(args, render_mode="human")
    except UsageError as error:
        print(f"No window can be opened ({error}).")
        return load_agent(args)


def watch(agent: Agent, args: Any, window: bool) -> list[Episode]:
    """Let the agent act; print every episode, and write it to ``--reward-log`` in SB3's monitor format."""
    from stable_baselines3.common.monitor import ResultsWriter

    episodes: list[Episode] = []
    start, writer = time.time(), None
    if args.reward_log:
        folder, env_id = Path(args.reward_log), str(agent.config.get("env", args.env))
        folder.mkdir(parents=True, exist_ok=True)
        writer = ResultsWriter(str(folder / "0.monitor.csv"), header={"t_start": start, "env_id": env_id})
    draw = functools.partial(agent.env.render, "human") if window else None
    steps = args.n_timesteps or (None if args.n_episodes else DEFAULT_STEPS)
    for episode in play(
        agent.model, agent.env, agent.deterministic, n_steps=steps, n_episodes=args.n_episodes, on_state=draw
    ):
        episodes.append(episode)
        if writer is not None:
            writer.write_row({"r": episode.reward, "l": episode.length, "t": round(time.time() - start, 6)})
        if args.verbose >= 1:
            print(f"Episode {len(episodes)}: return {episode.reward:.2f}, length {episode.length}", flush=True)
    if writer is not None:
        writer.close()
    return episodes
