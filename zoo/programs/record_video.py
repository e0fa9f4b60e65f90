"""The program ``record_video``: record a video of a trained agent, or of what its world model expects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.config.arguments import OneLineParser, check_output, positive
from sb3_dreamer.zoo.config.errors import UsageError, one_line
from sb3_dreamer.zoo.runs.agents import Agent, add_agent_arguments, load_agent
from sb3_dreamer.zoo.runs.episodes import Episode, mean_in_words, play
from sb3_dreamer.zoo.runs.videos import frames_per_second, render_image

SMALLEST_SIDE = 256  # smaller images are enlarged
CONTEXT, HORIZON = 5, 45  # frames that a dream sees and predicts (DreamerV3, Figure 5)
DREAM_EPISODES, DREAM_FPS = 3, 10


def make_parser() -> OneLineParser:
    """Make the parser."""
    parser = OneLineParser(
        prog="sb3-dreamer record_video",
        description="Record a video of a trained agent, or of its dreams (MP4, or GIF where ffmpeg is missing).",
    )
    add_agent_arguments(parser)
    group = parser.add_argument_group("the video")
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "-n", "--n-timesteps", type=positive, metavar="N", help="record so many steps instead of whole episodes"
    )
    length.add_argument(
        "--n-episodes",
        type=positive,
        metavar="N",
        help=f"record so many episodes (default: 1, dreams: {DREAM_EPISODES})",
    )
    group.add_argument(
        "--dream",
        type=positive,
        nargs="?",
        const=HORIZON,
        metavar="STEPS",
        help=f"record what the world model expects instead: it sees {CONTEXT} frames of each episode and predicts "
        f"STEPS more (default: {HORIZON}) from the actions alone; columns real, model, error",
    )
    group.add_argument(
        "-o",
        "--output-folder",
        default="",
        metavar="DIR",
        help="where to write the video (default: videos/ in the run folder; here for an agent of sb3-dreamer)",
    )
    group.add_argument(
        "--fps", type=positive, metavar="N", help=f"frames per second (default: the environment's, dreams: {DREAM_FPS})"
    )
    group.add_argument("--gif", action="store_true", help="write a GIF instead of an MP4")
    return parser


def main(words: Sequence[str]) -> int:
    """Record.

    :param words: command-line arguments
    :return: exit status
    """
    args = make_parser().parse_args(words)
    if args.dream and args.n_timesteps:
        raise UsageError("--dream STEPS takes the place of -n: pass --dream 45, and --n-episodes for more dreams")
    if args.output_folder:
        check_output("--output-folder", args.output_folder, is_folder=True)
    if args.n_envs > 1:
        print(f"--n-envs {args.n_envs} is not used: a video shows one environment.")
        args.n_envs = 1
    agent = load_agent(args, render_mode=None if args.dream else "rgb_array")
    try:
        if args.dream:
            record_dreams(agent, args)
        else:
            path, episodes = record(agent, args)
            print(f"Video: {path}")
            if episodes:
                print(mean_in_words(episodes))
    finally:
        agent.env.close()
    return 0


def record(agent: Agent, args: Any) -> tuple[Path, list[Episode]]:
    """Write the video, of the very episodes that ``enjoy`` shows with this seed.

    :return: its file, and the episodes that ended in it
    :raises UsageError: if the environment renders no images, or no video can be written
    """
    from sb3_dreamer.video import VideoWriter, whole_scale

    path = video_path(agent, args)
    writer: VideoWriter | None = None

    def add_image() -> None:
        nonlocal writer
        image = render_image(agent.env)
        if writer is None:
            scale = whole_scale(image.shape[:2], SMALLEST_SIDE)
            try:
                writer = VideoWriter(path, args.fps or frames_per_second(agent.env), scale)
            except (ImportError, OSError, ValueError) as error:
                raise UsageError(f"no video can be written: {one_line(error)}") from error
        writer.add(image)

    try:
        episodes = list(
            play(
                agent.model,
                agent.env,
                agent.deterministic,
                n_steps=args.n_timesteps,
                n_episodes=args.n_episodes or 1,
                on_state=add_image,
            )
        )
    finally:
        done = writer.close() if writer is not None else None
    return Path(done or path), episodes


def record_dreams(agent: Agent, args: Any) -> None:
    """Write a video of dreams for each image of the observation, and print the errors by steps ahead.

    :raises UsageError: if there is no image, or no video can be written
    """
    from sb3_dreamer.common.open_loop import horizon_table
    from sb3_dreamer.video import write_video
    from sb3_dreamer.zoo.runs.dreams import dream

    episodes = args.n_episodes or DREAM_EPISODES
    settings = {"n_episodes": episodes, "context": CONTEXT, "horizon": args.dream, "seed": args.seed}
    dreams = dream(agent.model, agent.env, agent.deterministic, **settings)
    for name, frames in dreams.videos.items():
        part = f"-dream-{''.join(c if c.isalnum() else '_' for c in name)}"
        try:
            path = write_video(video_path(agent, args, part), frames, args.fps or DREAM_FPS)
        except (ImportError, OSError, ValueError) as error:
            raise UsageError(f"no video can be written: {one_line(error)}") from error
        print(f"Video: {path}")
    print(horizon_table(dreams.errors))


def video_path(agent: Agent, args: Any, part: str = "") -> Path:
    """Return the file to write, in the run folder unless another was named or the agent comes with the package."""
    folder = Path(args.output_folder or ("videos" if agent.is_shipped else agent.run.path / "videos"))
    name = f"{agent.path.stem}-{agent.model.num_timesteps}-steps-seed{args.seed}{part}"
    return folder / f"{name}{'.gif' if args.gif else '.mp4'}"
