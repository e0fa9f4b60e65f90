"""The program ``record_video``: a film of a trained agent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.programs.arguments import OneLineParser, positive
from sb3_dreamer.zoo.programs.enjoy import tell_mean
from sb3_dreamer.zoo.programs.errors import UsageError, one_line
from sb3_dreamer.zoo.runs.agents import Agent, add_agent_arguments, load_agent
from sb3_dreamer.zoo.runs.episodes import Episode, play

SMALLEST_SIDE = 256  # smaller pictures are enlarged


def make_parser() -> OneLineParser:
    """The parser of ``record_video``."""
    parser = OneLineParser(
        prog="sb3-dreamer record_video",
        description="Film a trained agent (MP4, or GIF where ffmpeg is missing).",
    )
    add_agent_arguments(parser)
    group = parser.add_argument_group("the film")
    length = group.add_mutually_exclusive_group()
    length.add_argument("-n", "--n-timesteps", type=positive, metavar="N", help="steps, instead of episodes")
    length.add_argument("--n-episodes", type=positive, default=1, metavar="N", help="whole episodes")
    group.add_argument("-o", "--output-folder", default="", metavar="DIR", help="default: videos/ in the run folder")
    group.add_argument("--fps", type=positive, metavar="N", help="pictures per second (default: the environment's)")
    group.add_argument("--gif", action="store_true", help="write a GIF")
    return parser


def main(words: Sequence[str]) -> int:
    """Record.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    agent = load_agent(args, render_mode="rgb_array")
    try:
        path, episodes = record(agent, args)
    finally:
        agent.env.close()
    print(f"Film: {path}")
    tell_mean(episodes)
    return 0


def record(agent: Agent, args: Any) -> tuple[Path, list[Episode]]:
    """Write the film.

    :return: its file, and the episodes that ended in it
    :raises UsageError: if the environment draws no pictures, or none can be written
    """
    from sb3_dreamer.video import VideoWriter

    agent.env.reset()
    first = picture(agent.env)
    folder = Path(args.output_folder) if args.output_folder else agent.run.path / "videos"
    suffix = ".gif" if args.gif else ".mp4"
    path = folder / f"{agent.path.stem}-{agent.model.num_timesteps}-steps-seed{args.seed}{suffix}"
    scale = -(-SMALLEST_SIDE // min(first.shape[:2])) if min(first.shape[:2]) < SMALLEST_SIDE else 1
    try:
        writer = VideoWriter(path, args.fps or frames_per_second(agent.env), scale)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(f"no film can be written: {one_line(error)}") from error
    try:
        episodes = list(
            play(
                agent.model,
                agent.env,
                agent.deterministic,
                n_steps=args.n_timesteps,
                n_episodes=args.n_episodes,
                on_state=lambda: writer.add(picture(agent.env)),
            )
        )
    finally:
        done = writer.close()
    return Path(done or path), episodes


def picture(env: Any) -> Any:
    """What the first environment shows."""
    try:
        image = env.get_images()[0]
    except Exception as error:
        raise UsageError(f"the environment draws no pictures: {one_line(error)}") from error
    if image is None:
        raise UsageError("the environment draws no pictures (render() gave None)")
    return image


def frames_per_second(env: Any) -> float:
    """The environment's own speed in agent steps, 30 where it names none."""
    try:
        metadata = env.get_attr("metadata")[0]
    except AttributeError:
        metadata = {}
    return float((metadata or {}).get("render_fps") or 30)
