"""Files are whole or not there, whatever ends the process that writes them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qsched_core import atomic

ROOT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("write", [atomic.replacing, atomic.creating])
def test_a_block_that_fails_leaves_nothing(tmp_path, write):
    with pytest.raises(ZeroDivisionError), write(tmp_path / "new" / "a") as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert names(tmp_path / "new") == []


def test_replacing_takes_the_place_of_what_is_there(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with atomic.replacing(tmp_path / "a") as temporary:
        atomic.write_new(temporary, b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.fixture(params=["hard links", "no hard links"])
def disk(request, monkeypatch):
    """FAT, exFAT and some network shares have no hard links."""
    if request.param == "no hard links":

        def refuse(*_, **__):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(atomic.os, "link", refuse)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("kind", ["file", "folder", "dangling link", "link to itself"])
def test_creating_overwrites_nothing(tmp_path, kind):
    target = tmp_path / "a"
    make = {
        "file": lambda: target.write_bytes(b"theirs"),
        "folder": target.mkdir,
        "dangling link": lambda: target.symlink_to(tmp_path / "nowhere"),
        "link to itself": lambda: target.symlink_to(target),
    }
    make[kind]()
    before = os.lstat(target)
    with pytest.raises(FileExistsError), atomic.creating(target) as temporary:
        atomic.write_new(temporary, b"ours")
    assert names(tmp_path) == ["a"]
    assert os.lstat(target).st_ino == before.st_ino
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.usefixtures("disk")
def test_a_file_gets_another_name(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    atomic.move_new(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b").read_bytes() == b"x"
    with pytest.raises(FileNotFoundError):
        atomic.move_new(tmp_path / "a", tmp_path / "c")
    assert names(tmp_path) == ["b"]


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("write", [atomic.replacing, atomic.creating])
@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, write, fails):
    """Regression: an import on a full disk left an empty file of the preset's name."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, fails, full)
    try:
        with write(tmp_path / "a") as temporary:
            atomic.write_new(temporary, b"x" * 1000)
    except OSError as error:
        assert error.errno == errno.ENOSPC
        assert names(tmp_path) == []
    else:  # this way of writing has no such step
        assert (tmp_path / "a").read_bytes() == b"x" * 1000


KILLED = """
import sys
from pathlib import Path
from qsched_core.atomic import creating, replacing, write_new
write = {"creating": creating, "replacing": replacing}[sys.argv[2]]
with write(Path(sys.argv[1], "a")) as temporary:
    temporary.open("xb").write(b"half") if sys.argv[3] == "half" else write_new(temporary, b"whole")
    print("now", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("write", ["creating", "replacing"])
@pytest.mark.parametrize("state", ["half", "whole"])
def test_a_killed_process_leaves_a_file_that_the_next_start_sweeps(tmp_path, write, state):
    command = [sys.executable, "-c", KILLED, str(tmp_path), write, state]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as process:
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    assert [path.name for path in left.iterdir()] == ["file"]
    assert atomic.sweep(tmp_path) == []  # a process of another ComfyUI may be at work
    old = time.time() - 2 * atomic.ABANDONED_SECONDS
    os.utime(left, (old, old))
    assert atomic.sweep(tmp_path) == []  # a model that is still being written to
    os.utime(left / "file", (old, old))
    assert atomic.sweep(tmp_path) == [left]
    assert names(tmp_path) == []


def test_only_our_own_folders_are_swept(tmp_path):
    ours = f".qsched-{'0a' * 16}.tmp"
    theirs = [
        f".{'0a' * 16}.tmp",
        f".qsched-{'0a' * 15}.tmp",
        f"{ours}.safetensors",
        f"x{ours}",
        ".qsched.tmp",
        "a.tmp",
    ]
    old = time.time() - 2 * atomic.ABANDONED_SECONDS
    for name in (ours, *theirs):
        (tmp_path / name).mkdir()
        for path in (tmp_path / name / "file", tmp_path / name / ".tmp9ShbzO"):
            path.write_bytes(b"x")
            os.utime(path, (old, old))
        os.utime(tmp_path / name, (old, old))
    not_ours = {"file": f".qsched-{'0b' * 16}.tmp", "link": f".qsched-{'0c' * 16}.tmp"}
    (tmp_path / not_ours["file"]).write_bytes(b"x")
    os.utime(tmp_path / not_ours["file"], (old, old))
    (tmp_path / not_ours["link"]).symlink_to(tmp_path / "a.tmp")
    os.utime(tmp_path / not_ours["link"], (old, old), follow_symlinks=False)
    assert [path.name for path in atomic.sweep(tmp_path)] == [ours]
    assert set(names(tmp_path)) == {*theirs, *not_ours.values()}
    assert len(names(tmp_path / "a.tmp")) == 2


def test_what_another_writer_leaves_beside_its_file_goes_with_it(tmp_path):
    """Regression: safetensors writes to .tmpXXXXXX first; killed in mid-save, a whole model stayed under that name."""
    with pytest.raises(ZeroDivisionError), atomic.replacing(tmp_path / "a") as temporary:
        temporary.with_name(".tmp9ShbzO").write_bytes(b"half")
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_a_folder_that_is_not_there_is_swept_of_nothing(tmp_path):
    assert atomic.sweep(tmp_path / "gone") == []


def test_what_nobody_has_touched_for_more_than_an_hour_is_swept(tmp_path, monkeypatch):
    place = tmp_path / f".qsched-{'0a' * 16}.tmp"
    place.mkdir()
    os.utime(place, (5000, 5000))
    for now, expected in ((5000 + 3600, []), (5000 + 3600.5, [place])):
        monkeypatch.setattr(atomic.time, "time", lambda now=now: now)
        assert atomic.sweep(tmp_path) == expected


def test_what_is_not_ours_ends_no_sweep(tmp_path, monkeypatch):
    link, file, ours = (tmp_path / f".qsched-{letter * 32}.tmp" for letter in "abc")
    link.symlink_to(tmp_path)
    file.write_bytes(b"x")
    ours.mkdir()
    os.utime(ours, (5000, 5000))
    listing, order = os.listdir, [path.name for path in (link, file, ours)]
    monkeypatch.setattr(atomic.os, "listdir", lambda folder: order if folder == tmp_path else listing(folder))
    assert atomic.sweep(tmp_path) == [ours]
