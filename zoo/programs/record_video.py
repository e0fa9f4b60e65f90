"""The program ``record_video``: record a video of a trained agent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config.arguments import OneLineParser, positive
from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.runs.agents import Agent, add_agent_arguments, load_agent
from sb3_dreamer.zoo.runs.episodes import Episode, mean_in_words, play

SMALLEST_SIDE = 256  # smaller images are enlarged


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer record_video",
        description="Record a video of a trained agent (MP4, or GIF where ffmpeg is missing).",
    )
    add_agent_arguments(parser)
    group = parser.add_argument_group("the video")
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "-n", "--n-timesteps", type=positive, metavar="N", help="record so many steps instead of whole episodes"
    )
    length.add_argument("--n-episodes", type=positive, default=1, metavar="N", help="record so many episodes")
    group.add_argument(
        "-o",
        "--output-folder",
        default="",
        metavar="DIR",
        help="where to write the video (default: videos/ in the run folder)",
    )
    group.add_argument("--fps", type=positive, metavar="N", help="frames per second (default: the environment's)")
    group.add_argument("--gif", action="store_true", help="write a GIF instead of an MP4")
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
    print(f"Video: {path}")
    print(mean_in_words(episodes))
    return 0


def record(agent: Agent, args: Any) -> tuple[Path, list[Episode]]:
    """Write the video.

    :return: its file, and the episodes that ended in it
    :raises UsageError: if the environment renders no images, or no video can be written
    """
    from sb3_dreamer.video import VideoWriter

    agent.env.reset()
    first = render_image(agent.env)
    folder = Path(args.output_folder) if args.output_folder else agent.run.path / "videos"
    suffix = ".gif" if args.gif else ".mp4"
    path = folder / f"{agent.path.stem}-{agent.model.num_timesteps}-steps-seed{args.seed}{suffix}"
    scale = -(-SMALLEST_SIDE // min(first.shape[:2])) if min(first.shape[:2]) < SMALLEST_SIDE else 1
    try:
        writer = VideoWriter(path, args.fps or frames_per_second(agent.env), scale)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(f"no video can be written: {one_line(error)}") from error
    try:
        episodes = list(
            play(
                agent.model,
                agent.env,
                agent.deterministic,
                n_steps=args.n_timesteps,
                n_episodes=args.n_episodes,
                on_state=lambda: writer.add(render_image(agent.env)),
            )
        )
    finally:
        done = writer.close()
    return Path(done or path), episodes


def render_image(env: Any) -> Any:
    """Render the first environment."""
    try:
        image = env.get_images()[0]
    except Exception as error:
        raise UsageError(f"the environment renders no images: {one_line(error)}") from error
    if image is None:
        raise UsageError("the environment renders no images (render() returned None)")
    return image


def frames_per_second(env: Any) -> float:
    """Return the environment's own speed in agent steps per second, 30 where it has none."""
    try:
        metadata = env.get_attr("metadata")[0]
    except AttributeError:
        metadata = {}
    return float((metadata or {}).get("render_fps") or 30)
