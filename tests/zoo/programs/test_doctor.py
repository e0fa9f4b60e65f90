"""The doctor reports what is missing, broken and fine."""

import os
from types import SimpleNamespace

import pytest


def test_doctor_reports_what_is_missing_and_broken(monkeypatch, tmp_path):
    pytest.importorskip("sb3_dreamer.zoo.programs.doctor")
    from sb3_dreamer.zoo.programs import doctor

    assert doctor.check_package("numpy", "x").status == "ok"
    missing = doctor.check_package("no-such-package", "pip install it", module="no_such_package")
    assert (missing.status, missing.fix) == ("missing", "pip install it")
    monkeypatch.setitem(__import__("sys").modules, "numpy.nothing", None)
    assert doctor.check_package("numpy", "reinstall", module="numpy.nothing").status == "broken"
    assert doctor.run_python("raise ValueError('why')", 60.0) == "ValueError: why"
    assert doctor.run_python("import time; time.sleep(30)", 1.0) == "not finished after 1 s"
    assert doctor.run_python("pass", 60.0) is None
    results = [doctor.Diagnosis("one", "ok", "1.0"), doctor.Diagnosis("two", "broken", "bad", "mend it", required=True)]
    text = doctor.report(results)
    assert "-> mend it" in text and text.endswith("training cannot run: two")
    monkeypatch.setattr(doctor, "diagnose", lambda: results)
    assert doctor.main() == 1
    monkeypatch.setattr(doctor, "diagnose", lambda: results[:1])
    assert doctor.main() == 0


def test_doctor_checks_torch(monkeypatch):
    th = pytest.importorskip("torch")
    from sb3_dreamer.zoo.programs import doctor

    monkeypatch.setattr(th.cuda, "is_available", lambda: False)
    for gpu, status in ((False, "ok"), (True, "note")):
        monkeypatch.setattr(doctor, "_has_nvidia_gpu", lambda gpu=gpu: gpu)
        found = doctor.check_torch()
        assert (found.status, bool(found.fix)) == (status, gpu) and th.__version__ in found.detail and found.required
    monkeypatch.setattr(th, "allclose", lambda *args, **kwargs: False)
    assert doctor.check_torch()[:3] == ("torch", "broken", "wrong result on cpu")


def test_doctor_writes_a_video(monkeypatch):
    from sb3_dreamer import video
    from sb3_dreamer.zoo.programs import doctor

    suffix, _ = video.find_writer()
    assert doctor.check_video().status == {".mp4": "ok", ".gif": "note", "": "missing"}[suffix]
    monkeypatch.setattr(video, "find_writer", lambda: ("", "no moviepy"))
    assert doctor.check_video()[:3] == ("video", "missing", "no moviepy")
    monkeypatch.setattr(video, "find_writer", lambda: (".mp4", None))
    monkeypatch.setattr(video, "write_video", lambda *args: 1 / 0)
    assert doctor.check_video()[:2] == ("video", "broken")


@pytest.mark.parametrize(("free", "status"), [(8, "note"), (64, "ok")])
def test_doctor_compares_the_memory_with_a_replay(free, status, monkeypatch):
    psutil = pytest.importorskip("psutil")
    from sb3_dreamer.zoo.programs import doctor

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free * 2**30))
    found = doctor.check_memory()
    assert found.status == status and f"{free}.0 GiB free" in found.detail and bool(found.fix) == (status == "note")


def test_doctor_names_a_rendering_backend_that_fails(monkeypatch):
    pytest.importorskip("mujoco")
    from sb3_dreamer.zoo.programs import doctor

    monkeypatch.setattr(doctor, "probe_backend", lambda backend: None if backend == "egl" else "no library")
    found = doctor.check_rendering("osmesa")[1:]
    status = {item.name: item.status for item in found}
    notes = {"rendering with egl": "ok", "rendering with osmesa": "note", "rendering with glfw": "note"}
    assert status == notes | {"MUJOCO_GL=osmesa": "broken"} and found[-1].fix == "export MUJOCO_GL=egl"
    assert "no library" not in doctor.report(found) and len(doctor.check_rendering("egl")) == 4
    monkeypatch.setattr(doctor, "probe_backend", lambda backend: "no library")
    broken = doctor.check_rendering("osmesa")[1:]
    assert broken.pop() == doctor.Diagnosis("MUJOCO_GL=osmesa", "broken", "does not work here", "unset MUJOCO_GL")
    assert all(item.status == "broken" and item.fix for item in broken) and "apt-get" in broken[0].fix


def test_doctor_imports_packages_whatever_mujoco_gl_is_and_hides_their_warnings(monkeypatch, tmp_path, recwarn):
    from sb3_dreamer.zoo.programs import doctor

    (tmp_path / "fussy.py").write_text(
        "import os, warnings\nassert 'MUJOCO_GL' not in os.environ\nwarnings.warn('no display')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "1.0")
    check = doctor.check_package
    monkeypatch.setattr(doctor, "check_package", lambda name, fix, **_: check(name, fix, module="fussy"))
    monkeypatch.setattr(doctor, "check_rendering", lambda chosen: doctor.Diagnosis(chosen, "ok", "chosen"))
    for name in ("check_torch", "check_compile", "check_ale", "check_video", "check_memory"):
        monkeypatch.setattr(doctor, name, list)
    found = doctor.diagnose()
    assert os.environ["MUJOCO_GL"] == "osmesa"
    assert {item.status for item in found} == {"ok"} and "osmesa" in [item.name for item in found]
    assert not [str(warning.message) for warning in recwarn if "no display" in str(warning.message)]
