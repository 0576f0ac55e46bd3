"""What is in a study's storage, in lines for a person."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterator
from pathlib import Path

from ..core import CalibrationError
from ..search.journal import CheckedJournal
from ..search.storage import close_storage, import_optuna, open_storage, storage_errors
from ..search.trials import ORDER, SECONDS, WORKER
from ..search.workers import enlisted

INPUTS_KEY = "inputs of the command"
"""What a study of the command line is about, in the storage."""


def show_study(where: str) -> str:
    """Every study of a journal or a database: what it is about, its trials, the best of them, and its workers.

    Nothing is written: of a journal that is damaged, what stands before the damage is shown, and the line is named.

    Raises:
        CalibrationError: there is no such journal, no database, or no study in it.
    """
    if "://" not in where and not Path(where).is_file():
        raise CalibrationError(f"there is no journal {Path(where).name!r}.", "check the path")
    with storage_errors(where):
        storage = open_storage(where, read_only=True)
        try:
            return "\n\n".join([*_damage(where), *_studies(storage)])
        finally:
            close_storage(storage, where)


def _damage(where: str) -> Iterator[str]:
    line = None if "://" in where else CheckedJournal(Path(where)).damage
    if line:
        yield f"{where} is damaged at line {line}; what stands before it:"


def _studies(storage) -> Iterator[str]:
    optuna = import_optuna()
    names = optuna.study.get_all_study_names(storage)
    if not names:
        raise CalibrationError("the storage holds no study.", "check the path or address")
    for name in names:
        yield "\n".join(_lines(optuna.load_study(study_name=name, storage=storage)))


def _lines(study) -> Iterator[str]:
    trials = [trial for trial in study.get_trials(deepcopy=False) if _is_whole(trial)]
    by_state = {state: [t for t in trials if t.state.name == state] for state in ("COMPLETE", "RUNNING", "FAIL")}
    finished_trials = sorted(by_state["COMPLETE"], key=lambda trial: trial.user_attrs[ORDER])
    unscored = sum(not math.isfinite(trial.user_attrs["value"]) for trial in finished_trials)
    yield (
        f"{study.study_name}: {len(finished_trials)} trials finished ({unscored} that could not be scored), "
        f"{len(by_state['RUNNING'])} running, {len(by_state['FAIL'])} lost"
    )
    for name, value in json.loads(study.user_attrs.get(INPUTS_KEY, "{}")).items():
        yield f"  {name}: {json.dumps(value)}"
    workers = enlisted(study)
    numbers = {name: number for number, name in enumerate(workers, start=1)}
    for name, worker in workers.items():
        mine = sum(trial.user_attrs.get(WORKER) == name for trial in finished_trials)
        here = worker.machine == platform.node()
        state = "" if not here else ", ended" if worker.is_dead() else ", works"
        yield f"  worker {numbers[name]}: process {worker.process} on {worker.machine}{state}, {mine} trials"
    whole = [t for t in finished_trials if t.user_attrs["whole"] and math.isfinite(t.user_attrs["value"])]
    best = max(whole, key=lambda trial: trial.value, default=None)
    if trials:
        yield "  trial         JAQ  pictures   seconds  worker  point"
    for trial in (*finished_trials, *by_state["RUNNING"]):
        yield _line(trial, numbers, best)


def _is_whole(trial) -> bool:
    """A trial of ours that is finished says what it is; another program's, in the same database, does not."""
    return trial.state.name != "COMPLETE" or {ORDER, "value", "pictures", "whole"} <= set(trial.user_attrs)


def _line(trial, numbers: dict[str, int], best) -> str:
    attributes = trial.user_attrs
    value = f"{attributes['value']:.4f}" if "value" in attributes else "running"
    pictures = str(attributes.get("pictures", "")) + ("" if attributes.get("whole", True) else " raced out")
    seconds = f"{attributes[SECONDS]:.1f}" if SECONDS in attributes else ""
    point = "  ".join(f"{name} {value:.3f}" for name, value in trial.params.items())
    mark = "  <- best" if best is not None and trial.number == best.number else ""
    worker = numbers.get(attributes.get(WORKER, ""), "")
    return f"  {attributes.get(ORDER, '')!s:>5}  {value:>10}  {pictures:>8}  {seconds:>8}  {worker!s:>6}  {point}{mark}"
