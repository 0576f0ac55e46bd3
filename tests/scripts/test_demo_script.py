"""What the demo takes from the server, and what it prints."""

import json

import pytest

from scripts.demo import DemoError, collect, find_reports, load_workflow, rows_of, summary

REPORT = {
    "table": {"columns": ["TC"], "rows": [{"name": "full precision", "TC": 0.9}]},
    "verdict": ["Paired gain +0.10 (95 % interval +0.05 … +0.15): accepted"],
}


TITLES = {"1": "Save", "2": "Calibrate", "10": "Calibrate the default"}


def test_reports_are_found_in_whichever_nodes_show_them_in_the_order_of_ids():
    other = {**REPORT, "verdict": ["no gain"]}
    outputs = {
        "10": {"qsched_report": [json.dumps(other)]},
        "1": {"images": []},
        "2": {"qsched_report": [json.dumps(REPORT)], "text": ["…"]},
    }
    assert find_reports(outputs, TITLES) == [
        {"title": "Calibrate", **REPORT},
        {"title": "Calibrate the default", **other},
    ]


def test_there_must_be_a_report():
    with pytest.raises(DemoError, match="but none did"):
        find_reports({"1": {"images": []}}, TITLES)


def test_pictures_and_presets_are_collected(tmp_path):
    base, into = tmp_path / "base", tmp_path / "into"
    into.mkdir()
    for name in ("output/grid_00001_.png", "output/sub/a.png", "models/qsched_presets/demo.safetensors"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(b"x")
    collect(base, into)
    files = sorted(path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file())
    assert files == ["demo.safetensors", "pictures/grid_00001_.png", "pictures/sub/a.png"]


def test_a_demo_without_a_preset_has_failed(tmp_path):
    (tmp_path / "base" / "output").mkdir(parents=True)
    with pytest.raises(DemoError, match="saved no preset"):
        collect(tmp_path / "base", tmp_path / "into")


def test_calibrations_of_the_same_prompts_share_one_table():
    """The full model once, then what each rounding gives without and with Q-Sched, the controls last."""
    names = ("full precision", "quantised", "quantised + Q-Sched", "full precision + Q-Sched")
    parts = [
        {"title": title, "table": {"rows": [{"name": name, "TC": value} for name in names]}}
        for title, value in (("nearest", 0.5), ("fitted", 0.8))
    ]
    assert [(row["name"], row["TC"]) for row in rows_of(parts)] == [
        ("full precision", 0.5),
        ("nearest", 0.5),
        ("nearest + Q-Sched", 0.5),
        ("fitted", 0.8),
        ("fitted + Q-Sched", 0.8),
        ("full precision + Q-Sched of nearest", 0.5),
        ("full precision + Q-Sched of fitted", 0.8),
    ]


def test_the_summary_ends_with_where_everything_lies(tmp_path):
    (tmp_path / "demo.safetensors").touch()
    also = {"title": "Calibrate the default", **REPORT}
    lines = "\n".join(summary({"title": "Calibrate", **REPORT, "also": [also]}, tmp_path)).splitlines()
    assert lines[2] == "full precision  0.900"
    assert {"Calibrate", "Calibrate the default"} <= set(lines)
    assert lines.count(REPORT["verdict"][0]) == 2
    assert lines[-3:] == [
        f"pictures  {tmp_path / 'pictures'}",
        f"preset    {tmp_path / 'demo.safetensors'}",
        f"report    {tmp_path / 'report.json'}",
    ]


def test_a_missing_file_of_the_repository_is_named(tmp_path):
    with pytest.raises(DemoError, match=r"demo\.json is missing"):
        load_workflow(tmp_path / "demo.json")
