"""Compare DreamerV3 2024 with the published curves on DMC proprio tasks: one command per task and seed, resumable.

::

    python -m sb3_dreamer.zoo.studies.dmc_proprio run --task cartpole_balance --seed 0 --frames 50000
    python -m sb3_dreamer.zoo.studies.dmc_proprio plot --scores dmc_proprio-dreamerv3.json.gz

``run`` trains with the settings of the published curves (size ``12m``, action repeat 2, train ratio 512: an update at
every fourth environment frame) and resumes from its last checkpoint if there is one. Called again with more
``--frames`` it trains further. The published runs have 500,000 frames: about two weeks of a CPU core, so use a GPU
(``--device cuda``). With another ``--size``, ``--action-repeat`` or ``--train-ratio`` a run is not comparable with
them.

``plot`` draws all runs inside the range of the published seeds, prints scores at 20,000 and 50,000 frames and writes
them with every episode to a JSON file. The published file is ``scores/dmc_proprio-dreamerv3.json.gz`` of
github.com/danijar/dreamerv3. Our score is the mean return of the training episodes that ended in the last 10,000
frames, which is the distance of the published points.
"""

import argparse
import gzip
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.runs.provenance import describe_system

PROTOCOL = ("size", "action_repeat", "train_ratio", "n_envs")
BEFORE = {"size": "1m"}  # of runs from before the flag --size
SETTINGS: dict[str, Any] = {"batch_size": 16, "batch_length": 64, "learning_starts": 1024}
BIN = 10_000  # frames over which the published scores are averaged
MARKS = (20_000, 50_000)  # frames at which scores are compared
NOTE = (
    "DreamerV3 2024; published: size 12m, action repeat 2, train ratio 512, "
    "scores/dmc_proprio-dreamerv3.json.gz of github.com/danijar/dreamerv3"
)

Runs = dict[str, dict[int, list[dict[str, float]]]]  # episodes by task and seed


def run(args: argparse.Namespace) -> None:
    """Train one seed of one task, from its checkpoint on."""
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    os.environ.setdefault("MUJOCO_GL", "disable")
    import torch as th
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    from sb3_dreamer import DreamerV3
    from sb3_dreamer.wrappers import make_env

    th.set_num_threads(args.threads)
    folder = Path(args.out) / f"{args.task}_{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"dmc_proprio:{args.task}"
    protocol = {name: getattr(args, name) for name in PROTOCOL}
    check_protocol(folder / "protocol.json", protocol)
    settings = {"preset": "dreamerv3-2024", "action_repeat": args.action_repeat}
    kind = SubprocVecEnv if args.processes else DummyVecEnv
    env = make_vec_env(lambda: make_env(name, **settings), n_envs=args.n_envs, seed=args.seed, vec_env_cls=kind)
    if (folder / "model.zip").exists():
        # A run that is resumed gets new episodes, hence another seed for its environments.
        model = DreamerV3.load(folder / "model.zip", env=env, device=args.device)
        model.load_replay_buffer(folder / "replay", truncate_last_traj=True)
        print(f"{name}, seed {args.seed}: resumes at {model.num_timesteps:,} agent steps", flush=True)
    else:
        choices = {"model_size": args.size, "train_ratio": args.train_ratio, "buffer_size": args.buffer_size}
        choices |= {"mixed_precision": args.mixed_precision, "overlap": args.processes, "compile": args.compile}
        model = DreamerV3("MultiInputPolicy", env, seed=args.seed, device=args.device, **SETTINGS | choices)
    left = -(-args.frames // args.action_repeat) - model.num_timesteps
    if left > 0:
        log = log_and_save(folder, args.action_repeat, args.save_every, 60.0 * args.minutes)
        model.learn(left, callback=log, reset_num_timesteps=model.num_timesteps == 0)
        save(model, folder)
    env.close()


def check_protocol(path: Path, protocol: dict[str, Any]) -> None:
    """Keep what the run began with; a run cannot be resumed with other settings.

    :raises ValueError: if the folder's run has others, which it names
    """
    if not path.exists():
        path.write_text(json.dumps(protocol) + "\n")
    elif (begun := BEFORE | json.loads(path.read_text())) != protocol:
        raise ValueError(f"{path.parent} holds a run with {begun}, not {protocol}: take its settings or another --out.")


def log_and_save(folder: Path, repeat: int, save_every: int, seconds: float) -> Callable[..., bool]:
    """Make the callback that writes each training episode as a line, and model and replay every so often.

    :param folder: of the run
    :param repeat: environment frames per agent step
    :param save_every: agent steps between two checkpoints
    :param seconds: after which training ends
    """
    start, saved = time.time(), [0]

    def step(values: dict[str, Any], _: dict[str, Any]) -> bool:
        model = values["self"]
        for info in values["infos"]:
            if "episode" in info:
                line = {"frames": model.num_timesteps * repeat, "return": float(info["episode"]["r"])}
                line |= {"updates": model._n_updates, "seconds": round(time.time() - start, 1)}
                with (folder / "episodes.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
        saved[0] = saved[0] or model.num_timesteps
        if model.num_timesteps >= saved[0] + save_every:
            saved[0] += save_every
            save(model, folder)
        return time.time() < start + seconds

    return step


def save(model: Any, folder: Path) -> None:
    """Save the model last, so that it never speaks of a replay that is not there."""
    model.save_replay_buffer(folder / "replay")
    model.save(folder / "model.zip")


def read_episodes(path: Path) -> list[dict[str, float]]:
    """Read the episodes of a run; what was trained twice, after the last checkpoint, counts in its last form."""
    kept: list[dict[str, float]] = []
    for text in path.read_text().splitlines():
        episode = json.loads(text)
        while kept and kept[-1]["frames"] >= episode["frames"] and kept[-1]["updates"] > episode["updates"]:
            kept.pop()
        kept.append(episode)
    return kept


def score_at(episodes: Sequence[dict[str, float]], frames: int) -> float | None:
    """Compute the mean return of the episodes of the last ``BIN`` frames; None if there is none."""
    returns = [e["return"] for e in episodes if frames - BIN < e["frames"] <= frames]
    return sum(returns) / len(returns) if returns else None


def reached(episodes: Sequence[dict[str, float]], frames: int) -> bool:
    """Whether a run covers at least half of the bin that ends there."""
    return episodes[-1]["frames"] >= frames - BIN / 2


def read_published(path: Path, task: str) -> dict[int, list[float]]:
    """Read the scores of all published seeds by frame number."""
    with gzip.open(path, "rt") as file:
        curves = [curve for curve in json.load(file) if curve["task"] == f"dmc_{task}"]
    if not curves:
        raise ValueError(f"{path} has no curve for dmc_{task}")
    points: dict[int, list[float]] = {}
    for curve in curves:
        for frames, score in zip(curve["xs"], curve["ys"], strict=True):
            points.setdefault(int(frames), []).append(float(score))
    return points


def plot(args: argparse.Namespace) -> None:
    """Draw every task that was run, print the table and write the figures."""
    runs = read_runs(Path(args.out))
    published = {task: read_published(Path(args.scores), task) for task in runs}
    rows = [
        row
        for task, seeds in runs.items()
        for seed, episodes in seeds.items()
        for row in compare(task, seed, episodes, published[task])
    ]
    print("| task | seed | frames | ours | published mean | published range |\n|---|---|---|---|---|---|")
    for row in rows:
        low_score, high_score = row["published_range"]
        print(f"| {row['task']} | {row['seed']} | {row['frames']:,} | {row['score']} | {row['published_mean']}", end="")
        print(f" | {low_score} to {high_score} |")
    for target in (Path(args.picture), Path(args.json)):
        target.parent.mkdir(parents=True, exist_ok=True)
    draw(runs, published, Path(args.picture))
    system = {name: part for name, part in describe_system().items() if name != "git"}  # of the plot, not of the runs
    record = {"note": NOTE, "commands": commands(Path(args.out)), "system": system}
    Path(args.json).write_text(json.dumps(record | {"scores": rows, "episodes": runs}, indent=1) + "\n")


def draw(runs: Runs, published: dict[str, dict[int, list[float]]], picture: Path) -> None:
    """Draw a panel for each task: our runs inside the range of the published seeds, one legend for all.

    :param runs: episodes by task and seed
    :param published: scores by task and frames
    :param picture: file
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import EngFormatter, MultipleLocator

    figure, axes = plt.subplots(1, len(runs), figsize=(max(3 * len(runs), 6), 3.6), squeeze=False, layout="constrained")
    for axis, (task, seeds) in zip(axes[0], runs.items(), strict=True):
        scores = published[task]
        most = max(episode["frames"] for episodes in seeds.values() for episode in episodes)
        xs = [x for x in sorted(scores) if x <= most + BIN / 2]
        low, high = ([pick(scores[x]) for x in xs] for pick in (min, max))
        axis.fill_between(xs, low, high, color="0.85", label=f"published, {len(scores[xs[0]])} seeds")
        axis.plot(xs, [sum(scores[x]) / len(scores[x]) for x in xs], color="0.5", label="published, mean")
        for seed, episodes in seeds.items():
            points = [(x, score_at(episodes, x)) for x in range(BIN, int(most) + BIN, BIN) if reached(episodes, x)]
            drawn = [(x, y) for x, y in points if y is not None]
            axis.plot(*zip(*drawn, strict=True), marker="o", markersize=4, label=f"ours, seed {seed}")
        axis.set(title=task.replace("_", " "), xlabel="environment frames", ylim=(0, None))
        axis.xaxis.set_major_locator(MultipleLocator(max(1, round(most / (6 * BIN))) * BIN))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[0, 0].set_ylabel("episode return")
    labels = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=3)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def commands(out: Path) -> list[str]:
    """Return the command that began each run, from the protocol it keeps."""
    lines = []
    for path in sorted(out.glob("*/protocol.json")):
        task, seed = path.parent.name.rsplit("_", 1)
        protocol = BEFORE | json.loads(path.read_text())
        words = [f"--{name.replace('_', '-')} {value}" for name, value in protocol.items()]
        lines.append(
            " ".join([f"python -m sb3_dreamer.zoo.studies.dmc_proprio run --task {task} --seed {seed}", *words])
        )
    return lines


def read_runs(out: Path) -> Runs:
    """Read the episodes of all runs by task and seed."""
    runs: Runs = {}
    for path in sorted(out.glob("*/episodes.jsonl")):
        task, text = path.parent.name.rsplit("_", 1)
        runs.setdefault(task, {})[int(text)] = read_episodes(path)
    if not runs:
        raise ValueError(f"{out} holds no runs: begin with the command 'run'")
    return runs


def compare(
    task: str, seed: int, episodes: Sequence[dict[str, float]], published: dict[int, list[float]]
) -> list[dict[str, Any]]:
    """Put our score beside the published ones at every mark that the run has reached."""
    rows: list[dict[str, Any]] = []
    for mark in MARKS:
        score = score_at(episodes, mark)
        if score is None or mark not in published or not reached(episodes, mark):
            continue
        theirs = published[mark]
        mean, spread = round(sum(theirs) / len(theirs)), [round(min(theirs)), round(max(theirs))]
        row = {"task": task, "seed": seed, "frames": mark, "score": round(score)}
        rows.append(row | {"published_mean": mean, "published_range": spread})
    return rows


def make_parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("run", help="train one task, from its checkpoint on")
    train.add_argument("--task", required=True, help="cartpole_balance, reacher_easy, walker_walk, ...")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--frames", type=int, default=50_000, help="environment frames in all")
    train.add_argument("--size", default="12m", help="1m, 12m, 25m, ..., default: %(default)s")
    train.add_argument(
        "--action-repeat", type=int, default=2, help="environment frames per agent step, default: %(default)s"
    )
    train.add_argument(
        "--train-ratio", type=int, default=512, help="replayed steps per agent step, default: %(default)s"
    )
    train.add_argument("--n-envs", type=int, default=16)
    train.add_argument("--buffer-size", type=int, default=500_000)
    train.add_argument("--save-every", type=int, default=1_000, help="agent steps between checkpoints")
    train.add_argument("--device", default="auto")
    train.add_argument("--mixed-precision", action="store_true", help="products in bfloat16, as the published runs")
    train.add_argument("--compile", action="store_true", help="compile the steps of an update (a minute or two)")
    train.add_argument("--processes", action="store_true", help="environments in processes, stepping during updates")
    train.add_argument("--minutes", type=float, default=math.inf, help="stop after this many; the same command resumes")
    train.add_argument("--threads", type=int, default=1)
    train.set_defaults(command=run)
    draw = commands.add_parser("plot", help="draw all runs inside the published range")
    draw.add_argument("--scores", required=True, help="dmc_proprio-dreamerv3.json.gz")
    draw.add_argument("--picture", default="docs/media/dmc_proprio.png")
    draw.add_argument("--json", default="docs/results/dmc_proprio.json")
    draw.set_defaults(command=plot)
    for command in (train, draw):
        command.add_argument("--out", default="runs/dmc_proprio", help="folder of the runs")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    args = make_parser().parse_args(argv)
    args.command(args)
    return 0


if __name__ == "__main__":
    sys.exit(run_study(main))
