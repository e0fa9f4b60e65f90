"""Code blocks of Markdown pages and notebooks, and the smallest versions of the algorithms to run them with."""

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")), *NOTEBOOKS]
CHAIN = "The Python blocks on this page form one script."  #: on a page: its blocks share names, in order
COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
PROGRAM = re.compile(r"(python3?|pytest|sb3-dreamer|pip install) ")  # how a command of ours begins


class Block(NamedTuple):
    """A code block, or a command inside a sentence.

    :param where: ``page:line``
    :param language: of the fence; ``indented`` without one, ``inline`` inside a sentence
    :param text: the code
    :param reason: why it is not run, from ``<!-- not executed: reason -->`` in front of it; None if it is run
    """

    where: str
    language: str
    text: str
    reason: str | None = None


def page_name(path: Path) -> str:
    """Path of a page inside the repository, without ``docs/``."""
    return path.relative_to(ROOT).as_posix().removeprefix("docs/")


def page_text(path: Path) -> str:
    """Text of a page; that of a notebook as a Markdown page whose blocks form one script."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    parts = [CHAIN]
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if "skip-execution" in cell["metadata"].get("tags", ()):
            parts.append("<!-- not executed: tagged skip-execution -->")
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
    return "\n\n".join(parts)


def read_blocks(path: Path) -> list[Block]:
    """All code of a page in order, with the comment directly in front of it."""
    blocks: list[Block] = []
    reason, line = None, 0
    for token in MarkdownIt().enable("table").parse(page_text(path)):
        line = token.map[0] + 1 if token.map else line
        where = f"{page_name(path)}:{line}"
        if token.type == "html_block":
            for comment in COMMENT.findall(token.content):
                if comment.strip().startswith("not executed"):
                    reason = comment.partition(":")[2].strip()
        elif token.type in ("fence", "code_block"):
            language = token.info.strip() if token.type == "fence" else "indented"
            blocks.append(Block(where, language, token.content, reason))
            reason = None
        elif token.type == "inline":
            codes = [child.content for child in token.children or [] if child.type == "code_inline"]
            blocks += [Block(where, "inline", code) for code in codes if PROGRAM.match(code)]
            reason = None
    return blocks


# ---- small versions ------------------------------------------------------------------------------------------------

STEPS = 40  #: agent steps of a call of ``learn``
LIMITS: dict[str, float] = {  # largest values; a page's larger ones are lowered
    "batch_size": 2,
    "batch_length": 8,
    "horizon": 3,
    "learning_starts": 16,
    "train_ratio": 1,
    "buffer_size": 2000,
    "pretrain": 1,
    "seed_episodes": 1,
    "collect_interval": 1,
    "planning_horizon": 3,
    "planning_iterations": 2,
    "planning_candidates": 8,
    "planning_elites": 2,
    "candidates": 8,
    "elites": 2,
    "every": 20,
    "sequences": 2,
    "updates": 2,
    "total_timesteps": STEPS,
    "n_envs": 2,
}


def lowered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lower the arguments named in ``LIMITS``, defaults included; the signature stays that of the function."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name in LIMITS and isinstance(value, int | float):
                bound.arguments[name] = min(value, LIMITS[name])
            elif value is None and name in ("batch_size", "batch_length", "train_ratio"):  # by size
                bound.arguments[name] = LIMITS[name]
            elif name == "model_size":
                bound.arguments[name] = smallest(value, args[0])
        return function(*bound.args, **bound.kwargs)

    return call


def smallest(model_size: str, model: Any) -> str:
    """Return the smallest size of the same family; the size asked for must exist."""
    from sb3_dreamer import dreamer_v2, dreamer_v3, planet

    sizes: dict[str, Any] = {"DreamerV2": dreamer_v2.SIZES, "DreamerV3": dreamer_v3.SIZES, "PlaNet": planet.SIZES}
    known = sizes[type(model).__name__]
    if model_size == "auto":
        return "debug"
    return "debug2024" if getattr(known[model_size], "family", "") == "2024" else "debug"


@contextmanager
def small_algorithms() -> Iterator[None]:
    """Make every algorithm, callback and planner as small as possible; ``learn`` stops after ``STEPS``."""
    from stable_baselines3 import PPO

    from sb3_dreamer import DreamerV2, DreamerV3, DreamVecEnv, PlaNet, wrappers
    from sb3_dreamer.common.algorithm import WorldModelAlgorithm
    from sb3_dreamer.common.resume.callback import ResumableCheckpoint
    from sb3_dreamer.core.planner import CEMPlanner
    from sb3_dreamer.dreamer_v3 import OpenLoopCallback

    targets: list[tuple[Any, str]] = [(WorldModelAlgorithm, "learn"), (WorldModelAlgorithm, "learn_offline")]
    targets += [(wrappers, "make_vec_env"), (PPO, "learn")]
    classes = (DreamerV2, DreamerV3, PlaNet, DreamVecEnv, ResumableCheckpoint, OpenLoopCallback, CEMPlanner)
    targets += [(cls, "__init__") for cls in classes]
    patches = [patch.object(cls, name, lowered(getattr(cls, name))) for cls, name in targets]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()
