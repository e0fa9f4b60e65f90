"""A rendering backend is chosen by trying, and never over the user's choice."""

from sb3_dreamer.wrappers.benchmarks import rendering


def test_backend_is_chosen_by_probing(monkeypatch):
    monkeypatch.setattr(rendering.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(rendering, "probe_backend", lambda backend: None if backend == "osmesa" else "no")
    assert rendering.choose_backend() == "osmesa" == rendering.os.environ["MUJOCO_GL"]
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert rendering.choose_backend() == "glfw"  # a choice of the user's stands
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(rendering, "probe_backend", lambda backend: "no")
    assert rendering.choose_backend() is None
