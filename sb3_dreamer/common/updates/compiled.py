"""Compile what an update repeats: the posterior step, that of a dream, RMSNorms with activations, and means of bins.

They are marked by :func:`sb3_dreamer.core.functional.repeated`. Most operations of an update are in the loops of the
two steps, and at small sizes the time of an update is proportional to their number. Compiling a whole loop takes
minutes, and longer the more steps it has; compiling one step takes the same time for any number of steps. Norms and
means count at large sizes, where each of their operations is a pass over memory: compiled, they are one.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch as th

PAYS_FROM = 5_000  #: updates of a run from which ``auto`` compiles
SHAPES = 64  #: of one function's arguments that are compiled; torch's own limit is 8, and a norm follows every layer
ABOUT = "takes a minute or two, once: later runs find it on disk"


def check_compile(wanted: Any) -> None:
    """Refuse an unknown value of the argument ``compile``.

    :raises ValueError: quoting the value, and saying what to write instead
    """
    if not isinstance(wanted, bool | str) or wanted not in (False, True, "auto"):
        raise ValueError(f"compile={wanted!r} is unknown: use False, True or 'auto'")


def rows(wanted: bool | str) -> list[tuple[str, str]]:
    """Say what is compiled, as a row of a table; none without compilation."""
    when = {True: "from the first update on", "auto": f"if the run has {PAYS_FROM:,} updates or more"}
    return [("compile", f"steps of an update, {when[wanted]}; {ABOUT}")] if wanted else []


class CompiledSteps:
    """Runs compiled steps; falls back to the uncompiled ones if compilation fails.

    Random numbers are the same as without compilation, so a seed gives the same run up to rounding.

    :param backend: of ``torch.compile``
    """

    def __init__(self, backend: str = "inductor"):
        self.backend = backend
        self.possible = True
        self.steps: dict[Callable[..., Any], Callable[..., Any]] = {}
        limits: Any = th._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, SHAPES)

    def __call__(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a step: see :func:`sb3_dreamer.core.functional.run_steps_by`."""
        if self.possible:
            if step not in self.steps:
                options = {"fallback_random": True} if self.backend == "inductor" else None
                self.steps[step] = th.compile(step, dynamic=False, backend=self.backend, options=options)  # type: ignore[arg-type]
            try:
                return self.steps[step](*args, **kwargs)
            except Exception as error:  # whatever a compiler raises; an error of the step itself is raised below
                self._give_up(error)
        return step(*args, **kwargs)

    def _give_up(self, error: Exception) -> None:
        self.possible = False
        lines = str(error).strip().splitlines() or [type(error).__name__]
        warnings.warn(
            f"the steps of an update cannot be compiled ({lines[0]}): updates continue uncompiled, which is slower; "
            "pass compile=False to skip the attempt.",
            stacklevel=6,
        )
