"""Which combinations of ComfyUI and its kernels are tried, and what counts as working."""

import json

from scripts import hosts
from scripts.host import SDIST_HOST_VERSION, SDISTS, Host
from scripts.hosts import NEWEST, Row, combinations, table


def make(folder, version: str, pins: str) -> Host:
    folder.mkdir()
    (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n', "utf-8")
    (folder / "requirements.txt").write_text(f"torch\n{pins}\naiohttp>=3\n", "utf-8")
    return Host(folder, "test")


def test_each_host_is_run_with_its_own_pins_and_the_newest_two_with_the_newest_kernels(tmp_path):
    old = make(tmp_path / "a", "0.18.2", "comfy-kitchen>=0.2.8\ncomfy-aimdo>=0.2.12")
    new = make(tmp_path / "b", "0.30.0", "comfy-kitchen==0.2.26\ncomfy-aimdo==0.4.11")
    runs = [(one.host.version, one.packages) for one in combinations([old, new])]
    own = ("comfy-kitchen==0.2.26", "comfy-aimdo==0.4.11")
    between = [("0.30.0", (kitchen, "comfy-aimdo==0.4.11")) for kitchen in hosts.BETWEEN]
    assert runs == [("0.18.2", NEWEST), ("0.30.0", own), ("0.18.2", NEWEST), ("0.30.0", NEWEST), *between]
    more = [one for one in combinations([old, new]) if hosts.files_for(one, [old, new]) != hosts.FILES]
    assert [(one.host, one.packages) for one in more] == [(new, own)]


def test_a_run_of_some_combinations_keeps_what_the_others_gave(tmp_path):
    result = tmp_path / "hosts.json"
    hosts.keep([Row("0.30.0", ["a==1"], tests="1 failed"), Row("0.30.0", ["a==2"], tests="old")], ["x"], result)
    hosts.keep([Row("0.30.0", ["a==1"], tests="2 passed")], ["x"], result)
    rows = json.loads(result.read_text("utf-8"))["rows"]
    assert [(row["packages"], row["tests"]) for row in rows] == [(["a==1"], "2 passed"), (["a==2"], "old")]


def test_the_default_host_is_one_that_can_be_had():
    assert SDIST_HOST_VERSION in SDISTS


def test_a_failed_or_missing_part_is_not_fine():
    fine = Row("0.30.0", [], "yes", "yes", "9 passed, 0 failed, 3 skipped")
    assert fine.fine
    for changed in ({"loads": "node X is missing"}, {"first_template": "no verdict"}, {"tests": "10 failed"}):
        assert not Row(**{**vars(fine), **changed}).fine
    assert not Row("0.30.0", [], "yes", "yes").fine
    assert not Row(**{**vars(fine), "tests": "9 passed, 10 failed"}).fine
    assert table([fine]).splitlines()[-1] == "| 0.30.0 |  | yes | yes | 9 passed, 0 failed, 3 skipped |"


def test_files_that_are_named_exist():
    files = hosts.FILES + hosts.MORE_FILES
    assert [name for name in files if not (hosts.ROOT / "tests" / "host" / f"test_{name}.py").is_file()] == []
