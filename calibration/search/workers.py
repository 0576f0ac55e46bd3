"""Who works on a study: a trial whose worker has died is free again, one that is still being made is not."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, fields
from types import ModuleType

from ..core import DependencyError

_PREFIX = "worker:"


@dataclass(frozen=True)
class Worker:
    """A process. A number alone would be mistaken for the next process that gets it.

    ``started`` and ``boot`` are seconds since 1970 by the clock of then. Where a clock is set, Linux moves both, and
    Windows the boot alone: a process is the same whose start, or start after the boot, is the same.
    """

    machine: str
    process: int
    started: float
    boot: float = 0.0

    @classmethod
    def own(cls) -> Worker:
        psutil = _psutil()
        boot = psutil.boot_time()  # first: older versions of psutil count a process's start from the last one asked for
        return cls(platform.node(), os.getpid(), psutil.Process().create_time(), boot)

    def is_dead(self) -> bool:
        """For certain. Of other machines nothing is known; this process has no other search of the same study."""
        psutil = _psutil()
        if self.machine != platform.node():
            return False
        if self.process == os.getpid():
            return True
        try:
            boot, process = psutil.boot_time(), psutil.Process(self.process)
            # A killed process keeps its number until its parent asks for it; in a container nobody may.
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            drift = process.create_time() - self.started
            return abs(drift) > 1 and not (self.boot and abs(drift - (boot - self.boot)) <= 1)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False

    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Worker:
        """Of a later version, too: what is not known here is left out."""
        values = json.loads(text)
        return cls(**{item.name: values[item.name] for item in fields(cls) if item.name in values})


def enlist(study) -> str:
    """Enter this process into the study's list; gives its name there."""
    worker = Worker.own()
    name = f"{worker.machine}/{worker.process}/{worker.started:.0f}"
    study.set_user_attr(_PREFIX + name, worker.text())
    return name


def enlisted(study) -> dict[str, Worker]:
    """Every process that ever worked on the study, by its name there."""
    entries = study.user_attrs.items()
    return {key.removeprefix(_PREFIX): Worker.read(text) for key, text in entries if key.startswith(_PREFIX)}


def nobody_else_works(study) -> bool:
    """For certain: of other machines nothing is known."""
    return all(worker.is_dead() for worker in enlisted(study).values())


def dead_trials(study, running, own: str) -> list:
    """Of the ``running`` trials those that nobody makes any more: their worker is dead, or all workers are.

    Between being made and being signed a trial has no worker; it is left alone while any other worker may live.
    """
    workers = enlisted(study)
    dead = {name for name, worker in workers.items() if name == own or worker.is_dead()}
    if len(dead) == len(workers):
        return list(running)
    return [trial for trial in running if trial.user_attrs.get("worker") in dead]


def _psutil() -> ModuleType:
    """ComfyUI brings it; on a command line without ComfyUI it may be missing."""
    try:
        import psutil
    except ImportError as error:
        raise DependencyError("a study needs the package psutil.", "pip install psutil") from error
    return psutil
