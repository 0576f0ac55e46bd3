"""Workers of one study as processes of their own, in a world made of formulas, and the moments at which they die."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from calibration import Settings, calibrate
from calibration.search.journal import CheckedJournal
from calibration.search.storage import STUDY, import_optuna, open_storage
from qsched_core import Coefficients

N_PROMPTS, N_STEPS = 12, 4
MAX_SILENCE = 120
"""Seconds that a worker may take; a slow machine needs ten."""

# Imports take longer than a whole study here: they are made once, in a server whose children are the workers.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["calibration.study", "optuna.storages._rdb.storage", "optuna.storages._rdb.models", "optuna._gp.gp", "psutil"]
    + ["optuna._gp.optim_mixed", "optuna._gp.prior", "optuna._gp.search_space", "alembic.command", "alembic.config"]
    + ["psycopg", "scipy.stats", "sqlalchemy.orm", "sqlalchemy.dialects.postgresql.psycopg"]
)


@dataclass(frozen=True)
class Job:
    """What a worker is told. ``folder`` takes what it leaves; ``pause`` is what a picture takes, in seconds.

    ``dies`` is ("picture", n) or ("write", n): killed before its n-th picture, or after its n-th line of the journal,
    from 1. ``at`` is the time to begin.
    """

    study: str
    folder: Path
    name: str = "worker"
    settings: dict = field(default_factory=dict)
    pause: float = 0.0
    dies: tuple[str, int] | None = None
    at: float = 0.0

    def start(self) -> BaseProcess:
        process = _PROCESSES.Process(target=_work, args=(self,), name=self.name, daemon=True)
        process.start()
        return process

    def outcome(self, process: BaseProcess) -> dict:
        """The result of a worker that came to its end."""
        process.join(MAX_SILENCE)
        assert process.exitcode == 0, f"{self.name} ended with {process.exitcode}"
        return json.loads((self.folder / f"{self.name}.json").read_text())

    def run(self) -> dict:
        return self.outcome(self.start())

    def made(self) -> list[tuple[tuple[float, ...], tuple[int, ...]]]:
        """(coefficients, indices) of every group of pictures that it began."""
        path = self.folder / f"{self.name}.made"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(tuple(point), tuple(indices)) for point, indices in map(json.loads, lines)]


def quick(**changed) -> dict:
    """Settings of few trials, all of them scattered points, so that a point depends on its place alone."""
    return {"space": "last step", "radius": 0.2, "trials": 6, "seeds": 2, "strategy": "random", **changed}


def soon() -> float:
    """A time at which workers that are started now can begin together."""
    return time.time() + 1.0


def trials(study: str) -> list:
    """Every trial in the storage, lost ones too."""
    storage = open_storage(study)
    try:
        return import_optuna().load_study(study_name=STUDY, storage=storage).get_trials()
    finally:
        storage.remove_session()
        if hasattr(storage, "engine"):
            storage.engine.dispose()


def trials_per_minute(study: str) -> float:
    """From the first trial's beginning to the last one's end."""
    done = [trial for trial in trials(study) if trial.state.name == "COMPLETE"]
    seconds = max(t.datetime_complete for t in done) - min(t.datetime_start for t in done)
    return 60 * len(done) / seconds.total_seconds()


def assert_every_trial_once(study: str, count: int) -> None:
    """All places are taken, each by one finished trial, and no point was tried twice."""
    done = [trial for trial in trials(study) if trial.state.name == "COMPLETE"]
    assert sorted(trial.user_attrs["order"] for trial in done) == list(range(count))
    assert max(Counter(tuple(trial.params.values()) for trial in done).values()) == 1


def _work(job: Job) -> None:
    time.sleep(max(0.0, job.at - time.time()))
    kind, fatal = job.dies or ("", 0)
    count = 0
    if kind == "write":
        _die_at_write(fatal)

    def generate(coefficients: Coefficients, indices: Sequence[int]) -> list:
        nonlocal count
        with (job.folder / f"{job.name}.made").open("a") as file:
            file.write(json.dumps([coefficients.c_x + coefficients.c_eps, list(indices)]) + "\n")
        for _ in indices:
            count += 1
            if kind == "picture" and count == fatal:
                _die()
            time.sleep(job.pause)
        return [(coefficients, index) for index in indices]

    result = calibrate(generate, score, N_PROMPTS, N_STEPS, Settings(**job.settings), journal=job.study)
    outcome = {
        "trace": result.trace,
        "coefficients": asdict(result.coefficients),
        "gain": asdict(result.gain),
        "jaq": result.jaq,
        "nfe": result.nfe,
        "accepted": result.accepted,
    }
    (job.folder / f"{job.name}.json").write_text(json.dumps(outcome))


def score(pictures: list, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """As in study_world: best at c_x = 0.95, c_eps = 1.1 in the last step, where 0.5 is gained."""

    def value(coefficients: Coefficients, index: int) -> float:
        c_x, c_eps = coefficients.at(N_STEPS - 1)
        hill = -40 * ((c_x - 0.95) ** 2 + (c_eps - 1.1) ** 2)
        return math.sin(12.9898 * index + 1.0) + hill * (1 + 0.3 * math.cos(index % N_PROMPTS))

    values = np.array([value(*picture) for picture in pictures])
    return {"tc": values / 2, "iq": values / 4}


def _die_at_write(fatal: int) -> None:
    write, writes = CheckedJournal.append_logs, 0

    def append_logs(self, logs) -> None:
        nonlocal writes
        write(self, logs)
        writes += 1
        if writes == fatal:
            _die()

    CheckedJournal.append_logs = append_logs


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
