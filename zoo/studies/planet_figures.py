"""Curves, tables and videos of PlaNet's learning runs, from what ``planning_baselines`` wrote.

::

    python -m sb3_dreamer.zoo.studies.planet_figures curves docs/results/planet_pendulum.json --out planet_pendulum.png
    python -m sb3_dreamer.zoo.studies.planet_figures table runs/*
    python -m sb3_dreamer.zoo.studies.planet_figures collect runs/planet_pendulum_s0 ... --out planet_pendulum.json
    python -m sb3_dreamer.zoo.studies.planet_figures open-loop runs/planet_cartpole_balance_pixels_s0 --out video.gif
    python -m sb3_dreamer.zoo.studies.planet_figures episode runs/planet_cartpole_swingup_s0 --out planet_swingup.gif
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from PIL import Image

from sb3_dreamer import PlaNet
from sb3_dreamer.core.open_loop import PANELS
from sb3_dreamer.core.types import LatentState
from sb3_dreamer.video import label_columns, write_video
from sb3_dreamer.wrappers import make_env
from sb3_dreamer.zoo.config.arguments import output_file
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.runs.curves import moving_average
from sb3_dreamer.zoo.studies.planning_baselines import ENVS, read_rows

WIDTH = 200  #: pixels of an episode's video
COLORS = {"planet": "#1f77b4", "random-shooting": "#d62728", "random-collection": "#7f7f7f"}
TASKS = {
    "pendulum": "Pendulum-v1, action repeat 2",
    "pendulum_slow": "Pendulum-v1, action repeat 4",
    "cartpole_balance": "cartpole balance",
    "cartpole_swingup": "cartpole swing-up",
    "cartpole_balance_pixels": "cartpole balance, pixels",
}
RUNS = {"planet": "PlaNet", "random-shooting": "random shooting", "random-collection": "random actions"}
ACTORS = {"cem": "CEM", "random_shooting": "random shooting", "random": "random actions"}


def curves(paths: list[Path], out: Path) -> None:
    """Draw training returns over episodes, one line for each run, and the returns after training as points.

    Of several runs with one seed the longest is drawn.

    :param paths: folders of runs, or files that ``collect`` wrote
    :param out: picture file
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    by_length = sorted(read_records(paths), key=lambda record: record["episodes"])
    records = list({(record["command"], record["seed"]): record for record in by_length}.values())
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=[3, 2], layout="constrained")
    labeled: set[str] = set()
    ends: dict[tuple[str, str], list[float]] = {}
    for record in records:
        name, returns = record["command"], np.array(record["training_returns"])
        label = None if name in labeled else f"{RUNS[name]}, one line per run"
        labeled.add(name)
        left.plot(np.arange(1, len(returns) + 1), moving_average(returns, 5), color=COLORS[name], label=label)
        for actor, values in record["returns"].items():
            ends.setdefault((name, actor), []).append(float(np.mean(values)))
    left.set(xlabel="training episodes (the first act at random)", ylabel="return, mean of 5 episodes")
    left.set_title(f"{TASKS.get(records[0]['env'], records[0]['env'])}: training")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    places = [key for key in ends if key[1] in ACTORS and (key[1] != "random" or key[0] == "planet")]
    for i, (name, actor) in enumerate(places):
        right.plot(ends[name, actor], [i] * len(ends[name, actor]), "o", color=COLORS[name], alpha=0.6)
    right.set_yticks(range(len(places)), [_in_words(name, actor) for name, actor in places])
    right.margins(y=0.2)
    right.invert_yaxis()
    right.grid(axis="x", alpha=0.3)
    right.locator_params(axis="x", nbins=5)
    right.set(title="after training, one point per run", xlabel="return, mean over episodes")
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _in_words(name: str, actor: str) -> str:
    """Say how a model was trained and how it acts."""
    if actor == "random" or RUNS[name] == ACTORS[actor]:
        return ACTORS[actor]
    return f"{RUNS[name]}:\n{ACTORS[actor]}"


def table(folders: list[Path]) -> str:
    """Write mean returns after training as a Markdown table."""
    lines = ["| run | env | seed | episodes | updates | planner | planner, sampled | random shooting | random |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())
        returns = [result["returns"].get(name) for name in ("cem", "cem_sampled", "random_shooting", "random")]
        cells = [f"{np.mean(values):.0f} ± {np.std(values):.0f}" if values else "" for values in returns]
        head = [str(result[key]) for key in ("command", "env", "seed", "episodes", "updates")]
        lines.append("| " + " | ".join(head + cells) + " |")
    return "\n".join(lines)


def read_records(paths: list[Path]) -> list[dict[str, Any]]:
    """Read results and training episodes of runs, from their folders or from files that ``collect`` wrote."""
    records: list[dict[str, Any]] = []
    for path in paths:
        if path.is_file():
            records += json.loads(path.read_text())
            continue
        record, rows = json.loads((path / "result.json").read_text()), read_rows(path / "episodes.csv")
        record["returns"] = {name: [round(value, 1) for value in values] for name, values in record["returns"].items()}
        columns = {"return": "training_returns", "loss_model": "loss_model", "loss_recon": "loss_recon"}
        for name, column in columns.items():
            record[column] = [round(float(row[name]), 3) if row[name] else None for row in rows]
        record["seconds"] = float(rows[-1]["seconds"])
        records.append(record)
    return records


def collect(folders: list[Path]) -> str:
    """Write results and training episodes of runs as JSON, a line for each."""
    return "[\n" + ",\n".join(json.dumps(record) for record in read_records(folders)) + "\n]\n"


@th.no_grad()
def open_loop(model: PlaNet, context: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a replayed sequence and what the model predicts of it from ``context`` frames and the actions alone.

    :return: real and predicted images, ``(length, C, H, W)`` each, 0 to 255
    """
    model.policy.set_training_mode(False)
    th.manual_seed(seed)
    model.replay_buffer.rng = np.random.default_rng(seed)
    batch = model.replay_buffer.sample_sequences(1, length)
    while bool(batch.is_first[:, 1:].any()):
        batch = model.replay_buffer.sample_sequences(1, length)
    world_model, (key,) = model.policy.world_model, batch.obs
    early = batch._replace(obs={key: batch.obs[key][:, :context]}, prev_action=batch.prev_action[:, :context])
    early = early._replace(is_first=batch.is_first[:, :context])
    states = world_model.observe(early).state
    feats = [states.feat]
    state = LatentState(states.deter[:, -1], states.stoch[:, -1])
    for t in range(context, length):
        state = world_model.rssm.img_step(state, batch.prev_action[:, t], mode=True)
        feats.append(state.feat.unsqueeze(1))
    predicted = world_model.decode(th.cat(feats, 1))[key]
    return batch.obs[key][0].float().numpy(), predicted[0].numpy()


def open_loop_video(folder: Path, out: Path, context: int, length: int) -> dict[str, Any]:
    """Write a GIF of real | predicted | error, and the error per horizon beside that of repeating the last frame."""
    model = PlaNet.load(folder / "model.zip", device="cpu")
    model.load_replay_buffer(folder / "replay.safetensors")
    frames, errors, still = [], [], []
    for seed in range(3):
        real, predicted = open_loop(model, context, length, seed)
        error = np.clip(128.0 + (predicted - real) / 2, 0, 255)
        frames.append(np.concatenate([real, predicted, error], 3))
        errors.append(((predicted - real)[context:] / 255.0) ** 2)
        still.append(((real[context - 1] - real[context:]) / 255.0) ** 2)
    strip = np.concatenate(frames, 2).transpose(0, 2, 3, 1).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    write_video(out, label_columns(strip, PANELS), fps=1000 / 120)
    mse, copy = (np.mean(values, (0, 2, 3, 4), dtype=float) for values in (errors, still))
    return {"context": context, "mse": mse.round(5).tolist(), "mse_last_frame": copy.round(5).tolist()}


def episode_video(folder: Path, out: Path) -> float:
    """Write a GIF of one episode of a trained model, planned by CEM.

    :return: its return
    """
    name, kwargs = ENVS[json.loads((folder / "result.json").read_text())["env"]]
    env = make_env(name, **kwargs, render_mode="rgb_array")
    model = PlaNet.load(folder / "model.zip", device="cpu")
    obs, _ = env.reset(seed=1000)
    images, state, total, over = [], None, 0.0, False
    while not over:
        action, state = model.predict(obs, state, np.array([state is None]), deterministic=True)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(reward), terminated or truncated
        image = Image.fromarray(np.asarray(env.render()))
        size = (WIDTH, WIDTH * image.height // image.width)
        images.append(np.asarray(image.resize(size, Image.Resampling.LANCZOS)))
    write_video(out, images, fps=1000 / 80)
    return total


def main(argv: list[str] | None = None) -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="sb3_dreamer.zoo.studies.planet_figures", description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["curves", "table", "collect", "open-loop", "episode"])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=output_file, help="file to write (table: none)")
    parser.add_argument("--context", type=int, default=5)
    parser.add_argument("--length", type=int, default=50)
    args = parser.parse_args(argv)
    if args.out is None and args.command != "table":
        parser.error(f"{args.command} writes a file: pass --out FILE")
    th.set_num_threads(1)
    if args.command == "curves":
        curves(args.folders, args.out)
    elif args.command == "table":
        print(table(args.folders))
    elif args.command == "collect":
        args.out.write_text(collect(args.folders))
    elif args.command == "episode":
        print(json.dumps({"return": episode_video(args.folders[0], args.out)}))
    else:
        print(json.dumps(open_loop_video(args.folders[0], args.out, args.context, args.length)))


if __name__ == "__main__":
    sys.exit(run_study(main))
