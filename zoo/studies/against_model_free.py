"""Compare the world models with model-free agents on small tasks, over environment steps and over minutes.

::

    python -m sb3_dreamer.zoo.studies.against_model_free run --seeds 0 1 2 3 4 --jobs 2
    python -m sb3_dreamer.zoo.studies.against_model_free plot
    python -m sb3_dreamer.zoo.studies.against_model_free run --tasks memory --agents dreamerv3 ppo ppo_lstm
    python -m sb3_dreamer.zoo.studies.against_model_free plot --tasks memory --over steps --picture memory.png \\
        --results memory.json

``--tasks memory`` stands for three tasks whose observations do not show the whole state; without ``--tasks`` the six
tasks without that difficulty are compared.

``run`` trains DreamerV3, DreamerV2 and PlaNet with this zoo's settings, SAC, PPO, DQN and sb3-contrib's RecurrentPPO
with those of rl_zoo3 (``pip install rl_zoo3``), each run in a process of its own with one thread and no evaluation, for
as many steps as its settings say (model-free agents for at most ten times the steps at which scores are compared), or
for ``--minutes`` of processor time, whichever ends first. Minutes are those of the processor, so that other programs on
the machine do not count: both times are read off the running process every second. Finished runs are not run again; one
that was interrupted begins anew. Where rl_zoo3 has no entry for a task, CartPole's is used; RecurrentPPO's entries are
those of the tasks without velocities.
``--dry-run`` prints the commands.

``plot`` also takes the runs that the file of results holds from an earlier call, so that seeds can be added on another
machine. It draws the returns of training episodes and prints, for each task, the mean of the last 20
episodes before a number of environment steps, and when that mean was 0.8 of the way from chance to a good agent for
the first time; over all tasks the interquartile mean of scores, 0 for chance and 1 for a good agent, with a bootstrap
interval over runs. Agents that learn some of the tasks only are averaged over those.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import yaml
from stable_baselines3.common.monitor import load_results

from sb3_dreamer.common.files.atomic import atomic_write
from sb3_dreamer.zoo.config.hyperparams import load_file, suite_files
from sb3_dreamer.zoo.programs.cli import run_study
from sb3_dreamer.zoo.runs.curves import Curve, moving_average, on_grid
from sb3_dreamer.zoo.runs.provenance import describe_system
from sb3_dreamer.zoo.runs.scores import bootstrap_interval, iqm
from sb3_dreamer.zoo.speed.case import thread_limits


class Task(NamedTuple):
    """A task.

    :param steps: environment steps at which scores are compared
    :param chance: return of random actions
    :param good: return of a good agent
    :param rl_zoo3: its id in gymnasium's registry, the module that registers it, and its arguments, for rl_zoo3
    """

    steps: int
    chance: float
    good: float
    rl_zoo3: tuple[str, ...] = ()


BENCHMARKS = "sb3_dreamer.wrappers.benchmarks"
SMALL = {
    "CartPole-v1": Task(20_000, 22.0, 500.0),
    "Pendulum-v1": Task(10_000, -1200.0, -150.0),
    "Acrobot-v1": Task(20_000, -500.0, -80.0),
    "MountainCar-v0": Task(100_000, -200.0, -100.0),
    "LunarLander-v3": Task(100_000, -180.0, 250.0),
    "PixelCatch": Task(20_000, -0.75, 1.0, ("PixelCatch-v0", f"{BENCHMARKS}.pixel_catch")),
}
MEMORY = {
    "CartPoleNoVel-v1": Task(15_000, 22.0, 500.0),
    "RepeatPrevious": Task(25_000, 5.0, 20.0, ("RepeatPrevious-v0", f"{BENCHMARKS}.repeat_previous")),
    "MemoryLen": Task(10_000, 0.0, 1.0, ("bsuite/memory_len-v0", "shimmy", "memory_length:10")),
}
TASKS = SMALL | MEMORY
OURS = ("dreamerv3", "dreamerv2", "planet")
LIKE_CARTPOLE = dict.fromkeys(["PixelCatch", *MEMORY], "CartPole-v1")
THEIRS: dict[str, dict[str, str]] = {  # for each task the entry of rl_zoo3 whose settings it takes
    "sac": {"Pendulum-v1": "Pendulum-v1"},
    "ppo": {name: name for name in SMALL} | LIKE_CARTPOLE,
    "dqn": {name: name for name in SMALL if name != "Pendulum-v1"} | {"PixelCatch": "CartPole-v1"},
    "ppo_lstm": {name: name.replace("-v", "NoVel-v") for name in ("CartPole-v1", "Pendulum-v1", "MountainCar-v0")}
    | {"Acrobot-v1": "Acrobot-v1", "LunarLander-v3": "LunarLanderNoVel-v2"}
    | dict.fromkeys(LIKE_CARTPOLE, "CartPoleNoVel-v1"),
}
NAMES = {"dreamerv3": "DreamerV3", "dreamerv2": "DreamerV2", "planet": "PlaNet"}
NAMES |= {"sac": "SAC", "ppo": "PPO", "dqn": "DQN", "ppo_lstm": "RecurrentPPO"}  # in pictures
WINDOW = 20  # training episodes averaged
POINTS = 150  # of a curve that are kept, at most
SHARE = 0.8  # of the way from chance to a good agent, whose steps and minutes are reported
INTERVAL = 1.0  # seconds between two looks at the processor time of a run
LONGER = 10  # times the steps at which scores are compared, that a model-free agent trains at most


class Result(NamedTuple):
    """What is kept of a run, as JSON.

    :param steps: of the environment, after some of the training episodes, closer at the beginning
    :param minutes: of the processor, after the same episodes
    :param returns: means of ``WINDOW`` episodes up to these
    :param score: the last mean before the task's number of environment steps; chance before the first episode
    :param reached: steps and minutes after which the mean was good enough for the first time; None: never
    """

    steps: list[float]
    minutes: list[float]
    returns: list[float]
    score: float
    reached: list[float] | None

    def curve(self, over: str) -> Curve:
        """Returns over ``steps`` or ``minutes``."""
        return Curve(np.array(self.steps if over == "steps" else self.minutes), np.array(self.returns), None)


@dataclass(frozen=True)
class Run:
    """One training.

    :param root: folder of the study
    :param task: name in ``TASKS``
    :param agent: name in ``OURS`` or ``THEIRS``
    :param seed: of the run
    """

    root: Path
    task: str
    agent: str
    seed: int

    @property
    def folder(self) -> Path:
        """Return the folder of the run."""
        return self.root / f"{self.task}-{self.agent}-seed{self.seed}"

    @property
    def key(self) -> str:
        """Return its name in the JSON file."""
        return f"{self.task} {self.agent} {self.seed}"

    @property
    def done(self) -> bool:
        """Whether it is finished."""
        return (self.folder / "done").exists()

    def command(self, steps: int | None) -> list[str]:
        """Return the words of the command that trains it.

        :param steps: agent steps; None: what its settings say
        """
        program = ["sb3_dreamer.zoo", "train"] if self.agent in OURS else ["rl_zoo3.train"]
        words = [sys.executable, "-m", *program, "--algo", self.agent, "--seed", str(self.seed), "-f", str(self.folder)]
        words += ["--eval-freq", "-1", "--num-threads", "1", "--device", "cpu", "--vec-env", "dummy"]
        if self.agent in OURS:
            words += ["-n", str(steps)] if steps else []
            return [*words, "--env", self.task, "--final-eval-episodes", "1"]
        name, *registration = TASKS[self.task].rl_zoo3 or (self.task,)
        settings = settings_file(self.root, self.agent)
        own = int(yaml.safe_load(settings.read_text(encoding="utf-8"))[name]["n_timesteps"])
        words += ["-n", str(steps or min(own, LONGER * TASKS[self.task].steps))]
        words += ["--conf-file", str(settings), "--env", name]
        for flag, word in zip(("--gym-packages", "--env-kwargs"), registration, strict=False):
            words += [flag, word]
        return words

    def train(self, steps: int | None, minutes: float) -> int:
        """Train it from the start; its output goes to a log file.

        :param steps: agent steps; None: what its settings say
        :param minutes: of the processor, after which training ends in any case; the log of episodes is complete up to
            there
        :return: exit status; 0 if time was up
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        with (self.folder / "log.txt").open("wb") as log:
            environment = os.environ | thread_limits(1) | {"SDL_VIDEODRIVER": "dummy"}
            words = self.command(steps)
            process = psutil.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment)
            clock, processor = [time.time()], [0.0]
            while process.poll() is None:
                with contextlib.suppress(psutil.Error):  # it may end right now
                    processor.append(sum(process.cpu_times()[:2]))
                    clock.append(time.time())
                if processor[-1] >= 60 * minutes:
                    process.kill()
                time.sleep(INTERVAL)
        status = 0 if processor[-1] >= 60 * minutes else process.returncode
        if status == 0:
            times = {"clock": clock, "processor": processor}
            (self.folder / "done").write_text(json.dumps(times), encoding="utf-8")
        print("finished" if status == 0 else "failed  ", self.folder.name, flush=True)
        return status

    def result(self) -> Result:
        """Read its training episodes.

        Good enough is ``SHARE`` of the way from chance to a good agent.
        """
        task, logs = TASKS[self.task], sorted(self.folder.glob("*/*/*.monitor.csv"))
        rows: Any = load_results(str(logs[0].parent)) if logs else ()  # of all its environments, in the order of time
        if not len(rows):
            return Result([], [], [], task.chance, None)
        steps = (rows["frames"] if "frames" in rows else rows["l"].cumsum()).to_numpy(float)
        kept = steps <= LONGER * task.steps
        times = json.loads((self.folder / "done").read_text(encoding="utf-8"))
        headers = [log.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#") for log in logs]
        clock = min(float(json.loads(header)["t_start"]) for header in headers)
        steps, clock = steps[kept], clock + rows["t"].to_numpy(float)[kept]
        minutes = np.interp(clock, times["clock"], times["processor"]) / 60.0
        returns = moving_average(rows["r"].to_numpy(float), WINDOW)[kept]
        count = int((steps <= task.steps).sum())
        good = returns >= task.chance + SHARE * (task.good - task.chance)
        good[: WINDOW - 1] = False  # means of fewer episodes
        first = int(good.argmax())
        some = np.unique(np.geomspace(1, len(steps), POINTS).round().astype(int)) - 1
        return Result(
            steps[some].tolist(),
            minutes[some].round(3).tolist(),
            returns[some].round(3).tolist(),
            float(returns[count - 1]) if count else task.chance,
            [float(steps[first]), float(minutes[first])] if good[first] else None,
        )


def settings_file(root: Path, agent: str) -> Path:
    """Write rl_zoo3's settings of an agent under the names of the tasks.

    :return: the file
    """
    import rl_zoo3

    path = root / f"{agent}.yml"
    if not path.exists():
        source = Path(rl_zoo3.__file__).parent / "hyperparams" / f"{agent}.yml"
        entries = yaml.safe_load(source.read_text(encoding="utf-8"))
        chosen = {(TASKS[task].rl_zoo3 or (task,))[0]: entries[entry] for task, entry in THEIRS[agent].items()}
        for name in {"RepeatPrevious-v0"} & chosen.keys():  # its symbols are not numbers to be normalized
            chosen[name] = {**chosen[name], "normalize": False}
        root.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(chosen), encoding="utf-8")
    return path


def entries(agent: str, suite: str) -> list[str]:
    """Return the tasks of one of this zoo's files; none if the agent has no such file."""
    path = suite_files(agent).get(suite)
    return list(load_file(path, agent)[0]) if path else []


def make_runs(args: argparse.Namespace) -> list[Run]:
    """List the runs that were asked for, of agents that have settings for the task."""
    own = {agent: [name for suite in ("classic", "memory") for name in entries(agent, suite)] for agent in OURS}
    known: dict[str, Any] = own | THEIRS
    pairs = [(task, agent) for task in args.tasks for agent in args.agents if task in known[agent]]
    return [Run(Path(args.out), task, agent, seed) for seed in args.seeds for task, agent in pairs]


def run(args: argparse.Namespace) -> int:
    """Do the runs that are not done."""
    left = [item for item in make_runs(args) if not item.done]
    if args.dry_run:
        print("\n".join(shlex.join(item.command(args.steps)) for item in left))
        return 0
    with ThreadPoolExecutor(args.jobs) as pool:
        return int(any(list(pool.map(lambda item: item.train(args.steps, args.minutes), left))))


def plot(args: argparse.Namespace) -> int:
    """Draw the finished runs and print the scores."""
    former = json.loads(args.results.read_text()).get("runs", {}) if args.results.is_file() else {}
    results = {key: Result(**value) for key, value in former.items()}
    wanted = make_runs(args)
    results |= {item.key: item.result() for item in wanted if item.done}
    groups: dict[tuple[str, str], list[Result]] = {}
    for item in wanted:
        if item.key in results:
            groups.setdefault((item.task, item.agent), []).append(results[item.key])
    if not groups:
        raise SystemExit(f"{args.out} holds no finished run: begin with the command 'run'")
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    for over in args.over:
        draw(groups, over, picture_over(args.picture, over))
    record = report(groups) | {"runs": {key: result._asdict() for key, result in results.items()}}
    content = {"command": args.words, "system": describe_system(), **record}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.results) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
    pictures = " and ".join(str(picture_over(args.picture, over)) for over in args.over)
    print(f"Written: {pictures}, and {args.results}")
    return 0


def picture_over(picture: Path, over: str) -> Path:
    """Return the name of the picture over minutes: that of the picture over steps with a word more."""
    return picture if over == "steps" else picture.with_stem(f"{picture.stem}_{over}")


def short(number: float) -> str:
    """Write a number with k or M for thousands and millions."""
    size, letter = next((pair for pair in ((1e6, "M"), (1e3, "k")) if number >= pair[0]), (1.0, ""))
    return f"{number / size:.10g}{letter}"


def draw(groups: dict[tuple[str, str], list[Result]], over: str, picture: Path) -> None:
    """Draw a panel for each task: mean returns with the range of the seeds, and the return of a good agent.

    :param groups: runs by task and agent
    :param over: ``steps`` of the environment or ``minutes``
    :param picture: file to write
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    tasks = list(dict.fromkeys(task for task, _ in groups))
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    size = (3.5 * columns, 2.6 * rows + 0.5)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    panels = dict(zip(tasks, axes.flat, strict=False))
    lines: dict[str, Any] = {}
    for task, axis in panels.items():
        axis.axhline(TASKS[task].good, color="0.6", linewidth=0.8, linestyle="--")
        axis.set(xscale="log", title=task)
        axis.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: short(x)))
    for (task, agent), runs in groups.items():
        curves = [item.curve(over) for item in runs if item.steps]
        if curves:
            grid, values = on_grid(curves)
            color = f"C{[*OURS, *THEIRS].index(agent)}"
            width = 2.2 if agent in OURS else 1.2
            (lines[NAMES[agent]],) = panels[task].plot(grid, values.mean(0), color=color, linewidth=width)
            panels[task].fill_between(grid, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
    for axis in panels.values():
        axis.set_xlim(left=max(axis.get_xlim()[0], axis.get_xlim()[1] / 2000))  # what comes before is chance
    for axis in axes.flat[len(tasks) :]:
        axis.set_axis_off()
    figure.supxlabel("environment steps" if over == "steps" else "processor minutes", fontsize=10)
    figure.supylabel(f"return, mean of {WINDOW} training episodes", fontsize=10)
    order = [name for name in NAMES.values() if name in lines]
    handles = [lines[name] for name in order]
    figure.legend(handles, order, loc="outside upper center", ncols=len(order), frameon=False)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def report(groups: dict[tuple[str, str], list[Result]]) -> dict[str, Any]:
    """Print the scores and return them for the file."""
    agents = [agent for agent in (*OURS, *THEIRS) if any(agent == key[1] for key in groups)]
    scores = {key: [item.score for item in runs] for key, runs in groups.items()}
    means = {agent: aggregate(scores, agent) for agent in agents}
    for (task, agent), values in scores.items():
        found = [item.reached for item in groups[task, agent] if item.reached is not None]
        when = ", ".join(f"{short(round(steps, -2))} steps, {minutes:.1f} min" for steps, minutes in found) or "never"
        print(f"{task:16s} {agent:10s} {np.mean(values):9.2f} +- {np.std(values):.2f} over {len(values)} runs; {when}")
    for agent, row in means.items():
        print(f"{agent:10s} IQM {row['iqm']:.2f}, 95 % interval {row['interval']}, {len(row['tasks'])} tasks")
    return {
        "marks": {task: TASKS[task].steps for task, _ in groups},
        "reached": {f"{task} {agent}": [item.reached for item in runs] for (task, agent), runs in groups.items()},
        "scores": {f"{task} {agent}": values for (task, agent), values in scores.items()},
        "iqm": means,
    }


def aggregate(scores: dict[tuple[str, str], list[float]], agent: str) -> dict[str, Any]:
    """Compute an agent's interquartile mean over its tasks and runs, and the interval where there are two runs."""
    own = {task: values for (task, name), values in scores.items() if name == agent}
    count = min(map(len, own.values()))
    columns = [(np.array(v[:count]) - TASKS[t].chance) / (TASKS[t].good - TASKS[t].chance) for t, v in own.items()]
    matrix = np.stack(columns, axis=1)
    interval = [round(bound, 4) for bound in bootstrap_interval(matrix, iqm)] if count > 1 else None
    return {"iqm": round(iqm(matrix), 4), "interval": interval, "tasks": list(own), "runs": count}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("run", help="do the runs that are not done")
    train.add_argument("--jobs", type=int, default=1, help="runs side by side, one thread each")
    train.add_argument("--steps", type=int, help="agent steps of every run (default: what its settings say)")
    train.add_argument(
        "--minutes", type=float, default=15.0, help="of the processor, a run at most (default: %(default)g)"
    )
    train.add_argument("--dry-run", action="store_true", help="only print the commands")
    show = commands.add_parser("plot", help="draw the finished runs and print the scores")
    picture, results = "docs/media/against_model_free.png", "docs/results/against_model_free.json"
    show.add_argument("--picture", type=Path, default=picture, help="file; _minutes is added for the one over minutes")
    show.add_argument("--results", type=Path, default=results, help="file of scores and runs")
    over = ["steps", "minutes"]
    show.add_argument("--over", nargs="+", choices=over, default=over, help="a picture each")
    for command, function in ((train, run), (show, plot)):
        command.add_argument("--tasks", nargs="+", choices=[*TASKS, "memory"], default=list(SMALL), metavar="TASK")
        command.add_argument("--agents", nargs="+", choices=[*OURS, *THEIRS], default=[*OURS, *THEIRS], metavar="AGENT")
        command.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
        command.add_argument("--out", default="runs/against_model_free", help="folder of the runs")
        command.set_defaults(function=function)
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words)
    args.tasks = list(dict.fromkeys(name for task in args.tasks for name in (MEMORY if task == "memory" else [task])))
    args.words = shlex.join(["python", "-m", "sb3_dreamer.zoo.studies.against_model_free", *words])
    return int(args.function(args))


if __name__ == "__main__":
    sys.exit(run_study(main))
