"""A study's journal: a file of JSON lines that optuna replays. Each line carries a checksum of itself and of all lines
before it, so that a line that was changed, lost, doubled or moved is noticed before anything is made of it.

Half a line at the end (a crash, a full disk, zero bytes after a power cut) was never finished and is cut off. Damage
farther up is no such trace: the file is copied, and the study goes on from the last line that is right. A study that
goes on from any of its lines comes to the same end.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import CalibrationError

_CHECK = re.compile(rb',"check":"([0-9a-f]{16})"\}\r?\n\Z')


@dataclass(frozen=True)
class _Place:
    """After a line: how many lines and bytes are before it, the checksum of them all, and the line itself.

    ``checked``: lines with a checksum have begun. Journals of before there were checksums begin with lines without.
    """

    lines: int = 0
    offset: int = 0
    check: bytes = b""
    last: bytes = b""
    checked: bool = False


class _Damaged(Exception):
    """A line that is not what was written. ``line`` counts from 1; ``good`` lines before it are right."""

    def __init__(self, line: int, good: int):
        super().__init__(line)
        self.line, self.good = line, good


class CheckedJournal:
    """A log for ``optuna.storages.JournalStorage``. ``lock`` has acquire() and release() (optuna's); without one the
    file is only read, and ``damage`` says at which line reading stopped, if it did. ``repair`` is a sentence where the
    file was cut as it was opened, else "".

    Raises:
        CalibrationError: the file's first lines are damaged, or it is no journal; or it cannot be read or made.
    """

    def __init__(self, path: Path, lock: Any = None):
        self._path, self._lock = path, lock
        self.damage: int | None = None
        self.repair = ""
        self._rewind()
        try:
            if lock is not None and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.open("ab").close()
            self._read_or_repair()
        except OSError as error:
            raise self._refused("cannot be read", error) from error

    # --- what optuna calls

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from a number on, and those that other workers have written since."""
        if log_number_from < self._first:
            self._rewind()
        with suppress(_Damaged if self.damage else ()):
            self._read_again() if self.damage is None else self._read()
        # optuna never asks for a record twice: what lies before is not kept.
        del self._logs[: log_number_from - self._first]
        self._first = max(self._first, log_number_from)
        yield from tuple(self._logs)

    def append_logs(self, logs: Sequence[Mapping[str, Any]]) -> None:
        """Write records through to the disk, all or none of them.

        Raises:
            CalibrationError: the disk is full or read-only, or the file is no longer the one that was read.
        """
        if self._lock is None:
            raise CalibrationError(f"the journal {self._path.name[:24]} was opened to be read.", "run the study")
        with self._locked():
            self._read_again(locked=True)
            end, check, data = self._place.offset, self._place.check, b""
            for log in logs:
                text = json.dumps(log, separators=(",", ":")).encode()
                check = _checksum(check, text)
                data += text[:-1] + b',"check":"' + check + b'"}\n'
            try:
                self._write(end, data)
            except OSError as error:
                self._cut(end)
                raise self._refused("cannot be written", error) from error

    # --- reading

    def _rewind(self) -> None:
        self._place, self._logs, self._first = _Place(), [], 0

    def _read(self) -> None:
        """Takes in the whole lines after those that are known. Raises _Damaged."""
        with self._path.open("rb") as file:
            file.seek(self._place.offset - len(self._place.last))
            if file.read(len(self._place.last)) != self._place.last:
                raise _Damaged(self._place.lines, 0)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # being written at this moment, or left by a crash
                log = self._checked(line)
                self._logs.append(log)

    def _checked(self, line: bytes) -> dict[str, Any]:
        """The record of the next line. Raises _Damaged."""
        place, match = self._place, _CHECK.search(line)
        text = line[: match.start()] + b"}" if match else line.rstrip(b"\r\n")
        check, number = _checksum(place.check, text), place.lines + 1
        if match and match[1] != check:
            # The first checksum speaks of all the lines without one: any of them may be the damaged one.
            raise _Damaged(number, place.lines) if place.checked or not place.lines else _Damaged(1, 0)
        try:
            log = json.loads(text)
        except (ValueError, RecursionError):
            log = None
        if (place.checked and not match) or not isinstance(log, dict) or not {"op_code", "worker_id"} <= set(log):
            raise _Damaged(number, place.lines)
        self._place = _Place(number, place.offset + len(line), check, line, place.checked or match is not None)
        return log

    def _read_or_repair(self) -> None:
        try:
            self._read()
        except _Damaged as damage:
            if self._lock is None and damage.good:
                self.damage = damage.line
                return
            if not damage.good:
                raise self._hopeless(damage) from None
            with self._locked():
                self._rewind()
                try:
                    self._read()  # with nobody writing
                except _Damaged as again:
                    self._repair(again)

    def _read_again(self, locked: bool = False) -> None:
        """As ``_read``, in the midst of a study. A worker on another machine may see a line before its bytes are
        there: under the lock nobody writes."""
        try:
            try:
                self._read()
            except _Damaged:
                if locked or self._lock is None:
                    raise
                with self._locked():
                    self._read()
        except _Damaged as damage:
            raise CalibrationError(
                f"the study's journal was damaged at line {max(1, damage.line)} while in use.",
                f"run the same inputs again: they go on from there ({self._path})",
            ) from None
        except OSError as error:
            raise self._refused("cannot be read", error) from error

    # --- writing

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock.acquire()
        except OSError as error:
            raise self._refused("cannot be written", error) from error
        try:
            yield
        finally:
            try:
                self._lock.release()
            except RuntimeError:
                # Taken away after half a minute: this process was stopped. The next checksum tells if it did harm.
                logging.warning("Q-Sched: the lock of %s was taken away; was the machine asleep?", self._path.name)

    def _write(self, end: int, data: bytes) -> None:
        """At ``end``: half a line of a worker that was killed may stand there. Unbuffered: closing writes no rest."""
        with self._path.open("r+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END) != end:
                file.truncate(end)
                file.seek(end)
            position = 0
            while position < len(data):
                position += file.write(data[position:])
            os.fsync(file.fileno())

    def _cut(self, end: int) -> None:
        try:
            os.truncate(self._path, end)
        except OSError:
            return  # the half line stays: the next to open the file knows it for one

    def _repair(self, damage: _Damaged) -> None:
        """Under the lock: a copy of all, then the file ends after its last right line."""
        if not damage.good:
            raise self._hopeless(damage) from None
        copy = next(
            place
            for number in range(1, 10_000)
            if not (place := self._path.with_name(f"{self._path.name}.damaged{number}")).exists()
        )
        shutil.copyfile(self._path, copy)
        os.truncate(self._path, self._place.offset)
        self.repair = (
            f"The study's journal was damaged at line {damage.line}: the study went on from the line before, and a "
            f"copy of the damaged file is {copy.name}."
        )
        logging.warning("Q-Sched: %s %s", self._path, self.repair)

    # --- words

    def _hopeless(self, damage: _Damaged) -> CalibrationError:
        return CalibrationError(
            f"the study's journal is damaged at line {max(1, damage.line)}.",
            f"delete or rename it, and the study begins anew: {self._path}",
            path=str(self._path),
            line=max(1, damage.line),
        )

    def _refused(self, what: str, error: OSError) -> CalibrationError:
        return CalibrationError(
            f"the study's journal {what}: {error.strerror or error}.",
            f"make room or free the folder, then run the same inputs again: they go on ({self._path})",
            path=str(self._path),
        )


def _checksum(before: bytes, text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8, key=before).hexdigest().encode()
