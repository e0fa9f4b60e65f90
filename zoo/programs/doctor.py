"""The program ``doctor``: test what training needs on this machine and print the command that fixes what is broken.

The exit code is 1 if something every run needs is missing or broken.
Anything that can crash a process (drivers, compilers) is tested in a process of its own.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from sb3_dreamer.wrappers.benchmarks.rendering import BACKENDS, probe_backend, run_python
from sb3_dreamer.zoo.config.arguments import OneLineParser
from sb3_dreamer.zoo.config.errors import plural

COMPILE_SECONDS = 180.0
EGL_FIX = "apt-get install libegl1 libgl1 libgles2 (and the GPU driver's EGL library on a machine with a GPU)"
OSMESA_FIX = "apt-get install libosmesa6"
GLFW_FIX = "only for windows on a screen; on a machine without a display use: export MUJOCO_GL=egl"
FIXES = {"egl": EGL_FIX, "osmesa": OSMESA_FIX, "glfw": GLFW_FIX}


class Diagnosis(NamedTuple):
    """Result of one test.

    :param name: what was tested
    :param status: ``"ok"``, ``"missing"`` (not installed), ``"broken"`` or ``"note"`` (works, could be better)
    :param detail: version, device or error
    :param fix: command or advice; empty if all is well
    :param required: True if every training run needs it
    """

    name: str
    status: str
    detail: str
    fix: str = ""
    required: bool = False


def check_package(name: str, fix: str, required: bool = False, module: str | None = None) -> Diagnosis:
    """Import a package and return its version.

    :param name: distribution name
    :param fix: what to do if it cannot be imported
    :param required: True if every run needs it
    :param module: module name where it differs
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module or name)
    except Exception as error:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return Diagnosis(name, "missing", "not installed", fix, required)
        return Diagnosis(name, "broken", f"{type(error).__name__}: {error}", fix, required)
    return Diagnosis(name, "ok", importlib.metadata.version(name), "", required)


def check_torch() -> Diagnosis:
    """Multiply two matrices on the best device and compare with the CPU."""
    try:
        import torch as th
    except ImportError as error:
        return Diagnosis("torch", "missing", str(error), "pip install torch (see pytorch.org for CUDA builds)", True)
    device = "cuda" if th.cuda.is_available() else "cpu"
    try:
        a = th.arange(12.0).reshape(3, 4)
        if not th.allclose((a.to(device) @ a.T.to(device)).cpu(), a @ a.T, rtol=1e-3):
            return Diagnosis("torch", "broken", f"wrong result on {device}", "reinstall torch and the driver", True)
    except RuntimeError as error:
        return Diagnosis("torch", "broken", f"{device}: {error}", "install the CUDA build that fits the driver", True)
    if device == "cuda":
        return Diagnosis("torch", "ok", f"{th.__version__}, {th.cuda.get_device_name()}", "", True)
    if _has_nvidia_gpu():
        fix = "pip install torch --index-url of a CUDA build (pytorch.org), and check the driver with nvidia-smi"
        return Diagnosis("torch", "note", f"{th.__version__}: there is a GPU, but torch runs on the CPU", fix, True)
    return Diagnosis("torch", "ok", f"{th.__version__}, CPU with {plural(th.get_num_threads(), 'thread')}", "", True)


def _has_nvidia_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


_COMPILE = """
import torch as th
function = th.compile(lambda x: (x.sin() * 2 + x).sum())
x = th.linspace(0, 1, 64)
assert th.allclose(function(x), (x.sin() * 2 + x).sum(), atol=1e-4)
"""


def check_compile() -> Diagnosis:
    """Compile a small function with ``torch.compile``."""
    error = run_python(_COMPILE, COMPILE_SECONDS)
    fix = "apt-get install g++ (Linux), xcode-select --install (macOS), or train without compiling"
    return (
        Diagnosis("torch.compile", "ok", "compiles")
        if error is None
        else Diagnosis("torch.compile", "broken", error, fix)
    )


def check_rendering(chosen: str = "") -> list[Diagnosis]:
    """Render one image with every MuJoCo backend; one that works is enough.

    :param chosen: what ``MUJOCO_GL`` is set to
    """
    mujoco = check_package("mujoco", 'pip install "sb3-dreamer[dmc]"')
    if mujoco.status != "ok":
        return [mujoco]
    errors = {backend: probe_backend(backend) for backend in BACKENDS}
    works = [backend for backend, error in errors.items() if error is None]
    found = [mujoco]
    for backend, error in errors.items():
        name = f"rendering with {backend}"
        if error is None:
            found.append(Diagnosis(name, "ok", f"export MUJOCO_GL={backend}"))
        elif works:
            found.append(Diagnosis(name, "note", f"does not work here; {works[0]} does"))
        else:
            found.append(Diagnosis(name, "broken", f"does not work here ({error})", FIXES[backend]))
    if chosen and probe_backend(chosen) is not None:
        fix = f"export MUJOCO_GL={works[0]}" if works else "unset MUJOCO_GL"
        found.append(Diagnosis(f"MUJOCO_GL={chosen}", "broken", "does not work here", fix))
    return found


_ALE = """
import gymnasium, ale_py
gymnasium.register_envs(ale_py)
env = gymnasium.make("ALE/Pong-v5")
env.reset(seed=0)
assert env.step(0)[0].shape == (210, 160, 3)
"""


def check_ale() -> Diagnosis:
    """Play a frame of Pong."""
    package = check_package("ale-py", 'pip install "sb3-dreamer[atari]"', module="ale_py")
    error = run_python(_ALE, 60.0) if package.status == "ok" else None
    return package if error is None else Diagnosis("ale-py", "broken", error, "pip install -U ale-py gymnasium")


def check_video() -> Diagnosis:
    """Write a video of four frames."""
    import numpy as np

    from sb3_dreamer.video import find_writer, write_video

    fix = "pip install moviepy (it brings its own ffmpeg through imageio-ffmpeg)"
    suffix, reason = find_writer()
    if suffix == "":
        return Diagnosis("video", "missing", reason or "", fix)
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = write_video(
                Path(folder) / f"test{suffix}", [np.full((64, 64, 3), 60 * i, np.uint8) for i in range(4)]
            )
        except Exception as error:
            return Diagnosis("video", "broken", f"{type(error).__name__}: {error}", "apt-get install ffmpeg")
        size = path.stat().st_size if path is not None else 0
    if suffix != ".mp4":
        return Diagnosis("video", "note", f"GIF only: {reason}", fix)
    return Diagnosis("video", "ok", f"MP4 through ffmpeg, {size} bytes")


def check_memory() -> Diagnosis:
    """Compare the memory with what a million 64×64 images need."""
    need = 1_000_000 * (64 * 64 * 3 + 31) / 2**30  # 31 bytes: 6 actions, reward and flags
    try:
        import psutil
    except ImportError:
        return Diagnosis("memory", "note", "unknown", "pip install psutil")
    free = psutil.virtual_memory().available / 2**30
    text = f"{free:.1f} GiB free; a replay buffer of 1,000,000 steps with 64x64 images takes {need:.1f} GiB"
    fix = "" if free > need else "use a smaller buffer_size, or keep the replay on disk"
    return Diagnosis("memory", "ok" if free > need else "note", text, fix)


def diagnose() -> list[Diagnosis]:
    """Run all tests and return their results in order.

    Without ``MUJOCO_GL``: with a backend that is missing, mujoco and what uses it could not even be imported.
    """
    chosen = os.environ.pop("MUJOCO_GL", "")
    checks: list[Callable[[], Diagnosis | list[Diagnosis]]] = [
        check_torch,
        check_compile,
        lambda: check_package("gymnasium", "pip install gymnasium", required=True),
        lambda: check_package("stable_baselines3", "pip install stable-baselines3", required=True),
        lambda: check_rendering(chosen),
        lambda: check_package("dm_control", 'pip install "sb3-dreamer[dmc]"'),
        lambda: check_package("shimmy", 'pip install "sb3-dreamer[dmc]"'),
        check_ale,
        lambda: check_package("crafter", 'pip install "sb3-dreamer[crafter]"'),
        lambda: check_package("bsuite", 'pip install "sb3-dreamer[bsuite]"'),
        check_video,
        check_memory,
    ]
    results: list[Diagnosis] = []
    try:
        for check in checks:
            outcome = check()
            results += outcome if isinstance(outcome, list) else [outcome]
    finally:
        if chosen:
            os.environ["MUJOCO_GL"] = chosen
    return results


def report(results: list[Diagnosis]) -> str:
    """Return the results as text, one line each, with what to do below those that need it."""
    width = max(len(result.name) for result in results)
    lines = [f"Python {platform.python_version()} on {platform.platform()}"]
    for result in results:
        lines.append(f"{result.status:<7}  {result.name:<{width}}  {result.detail}")
        if result.fix:
            lines.append(f"{'':<7}  {'':<{width}}  -> {result.fix}")
    bad = [result.name for result in results if result.required and result.status in ("missing", "broken")]
    lines.append(f"training cannot run: {', '.join(bad)}" if bad else "training can run on this machine")
    return "\n".join(lines)


def main(words: Sequence[str] = ()) -> int:
    """Print the report.

    :param words: command-line arguments
    :return: exit status; 1 if something every run needs is missing or broken
    """
    OneLineParser(
        prog="sb3-dreamer doctor", description="Check what training needs on this machine; say how to fix it."
    ).parse_args(words)
    results = diagnose()
    print(report(results))
    return int(any(result.required and result.status in ("missing", "broken") for result in results))


if __name__ == "__main__":
    sys.exit(main())
