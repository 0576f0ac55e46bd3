"""Environment Check on the real host."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")


def check(server) -> list[str]:
    shown = server.client.run({"1": {"class_type": "QSchedCheck", "inputs": {}}}, timeout=300)["1"]["text"]
    return shown[0].splitlines()


def test_the_report_names_this_host_and_its_folders(server, host):
    first, *lines = check(server)
    assert first.startswith("Q-Sched 0.")
    assert all(line.split("  ")[0] in ("OK", "TO DO", "OPTIONAL") for line in lines)
    assert not [line for line in lines if "could not be checked" in line]
    text = "\n".join(lines)
    assert f"ComfyUI {host.version}, front end 1." in text
    assert "OK        device cpu, " in text
    assert f"presets: {server.base / 'models' / 'qsched_presets'}, " in text
    assert "OK        studies are kept on this machine" in text


def test_it_looks_again_each_time(server):
    place = server.base / "models" / "qsched_metrics" / "looked for"
    before = next(line for line in check(server) if " metrics: " in line)
    place.mkdir(parents=True)
    (place / "file").touch()
    assert next(line for line in check(server) if " metrics: " in line) != before


def test_a_broken_engine_is_something_to_do(pack, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setenv("QSCHED_STUDIES", "postgresql://me:s3cret@host/name")
    (text,) = pack("nodes.environment_check").QSchedCheck.execute().args
    assert "TO DO     optuna cannot be imported" in text
    assert "OK        studies are shared at postgresql://host/name" in text
    assert "s3cret" not in text


def test_an_engine_that_knows_no_constraints_is_something_to_do(pack, monkeypatch):
    """optuna 4: template 01 stopped in the middle, because its search is held to a reference."""
    for kind in pack("calibration.search.storage").import_optuna().Trial.__mro__:
        if "set_constraint" in vars(kind):
            monkeypatch.delattr(kind, "set_constraint")
    (text,) = pack("nodes.environment_check").QSchedCheck.execute().args
    (line,) = [line for line in text.splitlines() if "optuna is too old" in line]
    assert line.startswith("TO DO     ") and line.endswith("-m pip install --upgrade optuna")


def test_without_open_clip_no_metric_can_run_and_that_is_something_to_do(pack, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    (text,) = pack("nodes.environment_check").QSchedCheck.execute().args
    (line,) = [line for line in text.splitlines() if "no metric can run" in line]
    assert line.startswith("TO DO     ") and line.endswith("-m pip install --force-reinstall --no-deps open_clip_torch")
