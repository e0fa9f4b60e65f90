"""Choose MuJoCo's rendering backend on machines without a display."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys

BACKENDS = ("egl", "osmesa", "glfw")

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 3'/><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
assert renderer.render().max() > 0, "black image"
"""


@functools.lru_cache(maxsize=len(BACKENDS))
def probe_backend(backend: str) -> str | None:
    """Draw one image with a backend in a process of its own (a bad driver can crash the process).

    :param backend: ``"egl"``, ``"osmesa"`` or ``"glfw"``
    :return: None if it works, else the last line of the error
    """
    variables = {**os.environ, "MUJOCO_GL": backend}
    variables.pop("PYOPENGL_PLATFORM", None)
    return run_python(_PROBE, 60.0, variables)


def run_python(code: str, seconds: float, variables: dict[str, str] | None = None) -> str | None:
    """Run code in a new Python process.

    :param code: program text
    :param seconds: time limit
    :param variables: of its environment; None: those of this process
    :return: None if it succeeded, else the last line of its errors
    """
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"not finished after {seconds:.0f} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"process ended with exit code {done.returncode}"


def choose_backend() -> str | None:
    """Set ``MUJOCO_GL`` to the first backend that draws, if it is unset and this is a Linux machine without a display.

    Must run before mujoco's renderer is first used; the variable is inherited by worker processes, so that only the
    first environment pays the second that the probe takes.

    :return: value of ``MUJOCO_GL``, None if it is left to mujoco
    """
    if os.environ.get("MUJOCO_GL"):
        return os.environ["MUJOCO_GL"]
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY"):
        return None
    for backend in ("egl", "osmesa"):
        if probe_backend(backend) is None:
            os.environ["MUJOCO_GL"] = backend
            return backend
    return None


def check_renderer() -> None:
    """Refuse to draw with a dm_control that was imported before a backend was chosen.

    On a machine without a display it is bound to a window system that is not there, and the first image would end the
    process (``abort``) instead of raising.

    :raises RuntimeError: if that is the case, with what to do
    """
    render = importlib.import_module("dm_control._render")
    headless = sys.platform.startswith("linux") and not os.environ.get("DISPLAY")
    if headless and getattr(render, "BACKEND", None) in (None, "glfw"):
        raise RuntimeError(
            "dm_control was imported before a rendering backend was chosen, and there is no display: set MUJOCO_GL=egl "
            "(or osmesa) before Python starts, or make the environment with make_env before importing dm_control. "
            "'python -m sb3_dreamer.zoo.programs.doctor' reports which backend works here."
        )
