"""Code blocks of Markdown pages, and the smallest versions of the algorithms to execute them with."""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
PROGRAM = re.compile(r"(python3?|pytest|sb3-dreamer|pip install) ")  # how a command of ours begins


class Block(NamedTuple):
    """A code block, or a command inside a sentence.

    :param where: ``page:line``
    :param language: of the fence; ``indented`` without one, ``inline`` inside a sentence
    :param text: the code
    :param setup: Python that makes what the block takes for granted, from ``<!-- setup ... -->`` in front of it
    :param reason: why it is not executed, from ``<!-- not executed: reason -->`` in front of it; None: it is
    """

    where: str
    language: str
    text: str
    setup: str = ""
    reason: str | None = None


def read_blocks(path: Path) -> list[Block]:
    """All code of a page in order, with the comments that stand directly in front of it."""
    blocks: list[Block] = []
    setup, reason, line = "", None, 0
    for token in MarkdownIt().enable("table").parse(path.read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else line
        where = f"{path.name}:{line}"
        if token.type == "html_block":
            for comment in COMMENT.findall(token.content):
                word, _, rest = comment.strip().partition("\n")
                setup = rest if word == "setup" else setup
                if word.startswith("not executed"):
                    reason = word.partition(":")[2].strip()
        elif token.type in ("fence", "code_block"):
            language = token.info.strip() if token.type == "fence" else "indented"
            blocks.append(Block(where, language, token.content, setup, reason))
            setup, reason = "", None
        elif token.type == "inline":
            codes = [child.content for child in token.children or [] if child.type == "code_inline"]
            blocks += [Block(where, "inline", code) for code in codes if PROGRAM.match(code)]
            setup, reason = "", None
    return blocks


# ---- small versions ------------------------------------------------------------------------------------------------

STEPS = 40  #: agent steps of a ``learn``
LIMITS: dict[str, float] = {  # the largest values; what a page writes beyond them is lowered
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
    """The function with the numbers of ``LIMITS`` lowered, defaults too; its own names and no others are accepted."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name in LIMITS and isinstance(value, int | float):
                bound.arguments[name] = min(value, LIMITS[name])
            elif name == "model_size":
                bound.arguments[name] = smallest(value, args[0])
        return function(*bound.args, **bound.kwargs)

    return call


def smallest(model_size: str, model: Any) -> str:
    """The smallest size of the same family, for a size that exists."""
    from sb3_dreamer import dreamer_v2, dreamer_v3, planet

    sizes: dict[str, Any] = {"DreamerV2": dreamer_v2.SIZES, "DreamerV3": dreamer_v3.SIZES, "PlaNet": planet.SIZES}
    known = sizes[type(model).__name__]
    if model_size == "auto":
        return "debug"
    return "debug2024" if getattr(known[model_size], "family", "") == "2024" else "debug"


@contextmanager
def small_algorithms() -> Iterator[None]:
    """Inside, every algorithm, callback and planner is of the smallest size, and ``learn`` stops after ``STEPS``."""
    from sb3_dreamer import DreamerV2, DreamerV3, PlaNet, wrappers
    from sb3_dreamer.common.algorithm import WorldModelAlgorithm
    from sb3_dreamer.common.offline import OfflineMethods
    from sb3_dreamer.common.resume.callback import ResumableCheckpoint
    from sb3_dreamer.core.planner import CEMPlanner
    from sb3_dreamer.dreamer_v3 import OpenLoopCallback

    targets: list[tuple[Any, str]] = [(WorldModelAlgorithm, "learn"), (OfflineMethods, "learn_offline")]
    targets.append((wrappers, "make_vec_env"))
    classes = (DreamerV2, DreamerV3, PlaNet, ResumableCheckpoint, OpenLoopCallback, CEMPlanner)
    targets += [(cls, "__init__") for cls in classes]
    patches = [patch.object(cls, name, lowered(getattr(cls, name))) for cls, name in targets]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


# ---- environments that pages take for granted ----------------------------------------------------------------------


class SmallEnv(gym.Env):
    """Ten steps of random observations of any space; an action mask for discrete actions that forbids the last one."""

    metadata = {"render_modes": []}

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space):
        self.observation_space, self.action_space = observation_space, action_space
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Go on for ten steps."""
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), float(self.t % 3), self.t >= 10, False, {}

    def action_masks(self) -> np.ndarray:
        """All choices but the last."""
        assert isinstance(self.action_space, spaces.Discrete)
        return np.arange(self.action_space.n) < self.action_space.n - 1


def vector_env() -> SmallEnv:
    """Vectors and three choices."""
    return SmallEnv(spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3))


def image_env() -> SmallEnv:
    """Pictures of 32 x 32 and three choices."""
    return SmallEnv(spaces.Box(0, 255, (32, 32, 3), np.uint8), spaces.Discrete(3))


def dict_env() -> SmallEnv:
    """A picture and a vector, and a Box action."""
    parts = {"image": spaces.Box(0, 255, (32, 32, 3), np.uint8), "state": spaces.Box(-1, 1, (3,), np.float32)}
    return SmallEnv(spaces.Dict(parts), spaces.Box(-1, 1, (2,), np.float32))
