"""Where a study keeps its trials: in memory, in a journal file, or in a database that several machines share."""

from __future__ import annotations

import re
from pathlib import Path

from .core import CalibrationError, DependencyError

STUDY = "qsched"


def import_optuna():
    """optuna, silent.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise DependencyError("the search needs the package optuna.", "pip install optuna") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_storage(where: object):
    """An optuna storage for None (memory), a journal's path, a database's URL, or an optuna storage as it is.

    A URL is SQLAlchemy's: ``postgresql+psycopg://user:password@host/name``.

    Raises:
        DependencyError: optuna, or the database's driver, is not installed.
        CalibrationError: the database does not answer, or the journal cannot be written.
    """
    optuna = import_optuna()
    if where is None:
        return optuna.storages.InMemoryStorage()
    if isinstance(where, str) and "://" in where:
        return _database(optuna, where)
    if isinstance(where, (str, Path)):
        return _journal(optuna, Path(where))
    return where


def _journal(optuna, path: Path):
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not optuna's default lock, a symbolic link: on Windows that takes an administrator.
        lock = JournalFileOpenLock(str(path))
        _drop_torn_line(path, lock)
        return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock))
    except OSError as error:
        raise CalibrationError(
            f"the journal {path.name} cannot be written: {error.strerror}.", "free the folder"
        ) from (error)


def _drop_torn_line(path: Path, lock) -> None:
    """A write that a crash cut short leaves half a line; the next one would be appended to it.

    Under the lock, else another worker's line could be taken for torn while it is being written.
    """
    if not path.exists():
        return
    lock.acquire()
    try:
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
    finally:
        lock.release()


def _database(optuna, url: str):
    import sqlalchemy

    shown = re.sub(r"//[^@/]*@", "//", url)[:60]
    for last in (False, False, True):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except ImportError as error:
            raise DependencyError(
                f"the database {shown} needs a driver.", 'for PostgreSQL: pip install "psycopg[binary]"'
            ) from error
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            # Two workers that start together make the same tables; the slower one only has to look again.
            if last:
                raise CalibrationError(f"no study can be kept at {shown}.", "check the address and that it runs") from (
                    error
                )
    raise AssertionError("unreachable")
