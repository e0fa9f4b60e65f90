"""The doctor reports what is missing, broken and fine."""

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


def test_doctor_video_and_torch_checks_run():
    pytest.importorskip("torch")
    from sb3_dreamer.zoo.programs import doctor

    assert doctor.check_torch().status in ("ok", "note")
    assert doctor.check_video().status in ("ok", "note", "missing")
    assert "GiB" in doctor.check_memory().detail or doctor.check_memory().fix


def test_doctor_names_a_rendering_backend_that_fails(monkeypatch):
    pytest.importorskip("mujoco")
    from sb3_dreamer.zoo.programs import doctor

    monkeypatch.setattr(doctor, "probe_backend", lambda backend: None if backend == "egl" else "no library")
    status = {item.name: item.status for item in doctor.check_rendering()[1:]}
    assert status == {"rendering with egl": "ok", "rendering with osmesa": "note", "rendering with glfw": "note"}
    monkeypatch.setattr(doctor, "probe_backend", lambda backend: "no library")
    broken = doctor.check_rendering()[1:]
    assert all(item.status == "broken" and item.fix for item in broken) and "apt-get" in broken[0].fix
