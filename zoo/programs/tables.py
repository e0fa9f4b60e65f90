"""Print tables of names and values, and make the one that ``train`` shows before it starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from sb3_dreamer.common.report import size_text
from sb3_dreamer.zoo.config import building, environments
from sb3_dreamer.zoo.config.errors import plural
from sb3_dreamer.zoo.config.plan import Plan

Rows = list[tuple[str, str]]
DAY = 86_400.0
HOPELESS = 3 * DAY  #: updates that take longer are worth a word before the first step
SMALL_WORK = 1e11  #: updates times parameters that no CPU needs so long for
FEW_PARAMETERS = 500_000  #: an update of fewer is not faster
SMALL_SIZES = {"dreamerv3": "100k", "dreamerv2": "XXS", "planet": "small"}  #: for vectors
UNCHANGED = {  # settings that are not worth a word
    "resize": "area",
    "action_repeat": 1,
    "frame_stack": 1,
    "max_pool": 1,
    "reward_scale": 1.0,
    "lives": "unused",
}


def make_console(terminal: bool = False) -> Console:
    """Make a console on stdout; 100 columns where stdout is not a terminal.

    :param terminal: draw as on a terminal, whatever stdout is
    """
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=100, force_terminal=terminal or None)


def print_table(console: Console, title: str, rows: Rows) -> None:
    """Print rows of names and values.

    :param title: heading
    :param rows: name and value
    """
    table = Table(title=title, box=box.ROUNDED, show_header=False, title_justify="left", title_style="bold")
    table.add_column(style="cyan", overflow="fold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    console.print(table, markup=False)


def plan_rows(plan: Plan, model: Any, notes: Sequence[str], replay_note: str, folder: Path) -> Rows:
    """Say what is about to happen.

    :param plan: the plan
    :param model: the model, before training
    :param notes: how names were understood, what was changed
    :param replay_note: where the replay of a resumed run is from
    :param folder: the run folder that will be made
    """
    frames = environments.frames_per_step(plan.suite_preset, plan.env_wrapper)
    steps = f"{plan.n_timesteps:,} agent steps"
    if model.num_timesteps:
        steps += f", {model.num_timesteps:,} of them done"
    if frames > 1:
        steps += f" = {plan.n_timesteps * frames:,} environment frames (action repeat {frames})"
    rows = [("environment", f"{plan.env}, {plan.n_envs} in parallel" if plan.n_envs > 1 else plan.env)]
    rows += preset_rows(plan.suite_preset)
    described = model.describe()
    if plan.trained_agent:
        described = [(name, f"{text}; so far {replay_note}" if name == "replay" else text) for name, text in described]
    rows += [*described, ("hyperparameters", plan.trained_agent or plan.source)]
    rows += [("changed" if "->" in note else "note", note) for note in notes]
    rows.append(("training", steps))
    limited = building.has_time_limit(model.get_env())
    rows += [("evaluation", evaluation_in_words(plan, limited)), ("checkpoints", checkpoints_in_words(plan, model))]
    return [*rows, ("seed", str(plan.seed)), ("folder", str(folder))]


def hopeless_rows(plan: Plan, model: Any) -> Rows:
    """Say so if this CPU needs days for the updates, and what it could do instead; none for other runs.

    An update is measured for it, which takes some seconds, unless the run is small. Updates that follow episodes cannot
    be counted before.
    """
    from sb3_dreamer.common.report import duration, parameter_count

    warmup = max(0, model.learning_starts - model.num_timesteps)
    per_step = model.planned_updates(1)
    updates = per_step * max(0, plan.n_timesteps - model.num_timesteps - warmup)
    if model.device.type != "cpu" or updates * max(FEW_PARAMETERS, parameter_count(model.policy)) < SMALL_WORK:
        return []
    seconds = model.update_seconds()
    if updates * seconds < HOPELESS:
        return []
    fits = int(float(f"{warmup + DAY / (seconds * per_step):.1e}"))
    size = small_size(plan.algo, model)
    smaller = f", a smaller model (--hyperparams model_size:{size})" if size and not plan.trained_agent else ""
    fewer = f"train_ratio:{model.train_ratio / 4:g}" if model.gradient_steps is None else "train_freq:N, a larger N"
    lower = f", fewer updates (--hyperparams {fewer})"
    total = duration(updates * seconds)
    text = f"hopeless on this CPU: {updates:,.0f} updates of {seconds:,.1f} s take roughly {total}. "
    return [("time", f"{text}Use a GPU{smaller}{lower} or fewer steps: -n {fits} takes about a day")]


def too_short_rows(plan: Plan, model: Any) -> Rows:
    """Say so if no update is to be expected, as replay holds no sequence before the run ends; none for other runs."""
    steps = plan.n_timesteps - model.num_timesteps
    replay = model.replay_buffer
    stored = int(replay.filled.max()) + steps // plan.n_envs
    rows = min(model.learning_starts, replay.buffer_size * replay.n_envs) - replay.size()
    waits = max(0, model.learning_starts - model.num_timesteps, rows)
    by_episode = model.planned_updates(1) == 0
    is_long = waits < steps and (by_episode or model.planned_updates(steps - waits) >= 1)
    if steps <= 0 or (is_long and stored >= replay.rows_for(model.batch_length)):
        return []
    values = f"learning_starts={model.learning_starts}, batch_length={model.batch_length}"
    return [("too short", f"{plural(steps, 'step')} without any update ({values}): pass more steps with -n")]


def small_size(algo: str, model: Any) -> str | None:
    """Name the size to recommend on a CPU; None if the model is already that small."""
    current, has_image = model.policy.size_name, any(key.kind == "image" for key in model.policy.keys)
    size = "XXS" if algo == "dreamerv3" and has_image else SMALL_SIZES[algo]
    return None if current in (size, "debug", "debug2024") else size


def preset_rows(preset: dict[str, Any] | None) -> Rows:
    """Make rows on the suite's settings; none for a plain gymnasium id without settings."""
    if not preset or (preset["suite"] == "gymnasium" and not preset["overrides"]):
        return []
    values = {
        name: v
        for name, v in preset["settings"].items()
        if v not in (None, False, 0.0, [0, 0]) and v != UNCHANGED.get(name)
    }
    words = ", ".join(f"{name} {_in_words(name, v)}" for name, v in values.items())
    if preset["suite"] == "gymnasium":
        return [("settings", words)]
    changed = f", changed: {', '.join(preset['overrides'])}" if preset["overrides"] else ""
    return [("preset", f"{preset['suite']}, {preset['preset']}{changed}"), ("settings", words)]


def _in_words(name: str, value: Any) -> str:
    """``64x64`` for a size, ``1 to 30`` for a range."""
    if not isinstance(value, list):
        return str(value)
    return ("x" if name == "size" else " to ").join(map(str, value))


def evaluation_in_words(plan: Plan, limited: bool = True) -> str:
    """Say when and over how many episodes the model is evaluated.

    :param limited: the task has a time limit
    """
    if plan.eval_freq <= 0 and not plan.final_episodes:
        return "none"
    words = ["not during training"]
    if plan.eval_freq > 0:
        words = [f"{plural(plan.eval_episodes, 'episode')} every {plural(plan.eval_freq, 'step')}"]
    words[0] += f", {plan.final_episodes or 'none'} at the end"
    if plan.eval_share is not None:
        words.append(f"at most {plan.eval_share:.0%} as many steps as training")
    if plan.eval_freq > 0 and plan.stop_at_return is not None:
        words.append(f"a return of {plan.stop_at_return:g}, twice in a row, ends the training")
    if not limited:
        words.append(f"episodes end after {building.EVAL_LIMIT:,} steps, as the task has no time limit")
    return "; ".join(words)


def checkpoints_in_words(plan: Plan, model: Any) -> str:
    """Say how often checkpoints are written and what they take."""
    if plan.save_freq <= 0:
        return "none: a run that is killed cannot be resumed"
    replay = model.replay_buffer
    share = min(1.0, plan.n_timesteps / (replay.buffer_size * replay.n_envs))
    size = "" if replay.on_disk else f", with replay up to {size_text(share * replay.nbytes)} each"
    during = "" if plan.save_freq >= plan.n_timesteps - model.num_timesteps else f"every {plan.save_freq:,} steps and "
    return f"{during}at the end; the newest 2 stay{size}"
