"""Where a study keeps its trials: in memory, in a journal file, or in a database that several machines share."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core import CalibrationError, DependencyError
from .journal import CheckedJournal

STUDIES = "QSCHED_STUDIES"
"""Environment variable: a database's URL, where several machines share their studies. Never part of a workflow: that
would hand passwords to strangers, and the strangers' addresses to this machine."""

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


def open_storage(where: object, *, read_only: bool = False):
    """An optuna storage for None (memory), a journal's path, a database's URL, or an optuna storage as it is.

    A URL is SQLAlchemy's: ``postgresql+psycopg://user:password@host/name``. ``read_only``: a journal is neither made
    nor repaired.

    Raises:
        DependencyError: optuna, or the database's driver, is not installed.
        CalibrationError: the database does not answer, or the journal is damaged or cannot be read.
    """
    optuna = import_optuna()
    if where is None:
        return optuna.storages.InMemoryStorage()
    if isinstance(where, str) and "://" in where:
        return _database(optuna, where)
    if isinstance(where, (str, Path)):
        return _journal(optuna, Path(where), read_only)
    return where


def repair_of(storage: object) -> str:
    """A sentence where ``open_storage`` found a damaged journal and cut it, else ""."""
    return getattr(storage, "qsched_repair", "")


def close_storage(storage: object, where: object) -> None:
    """Give back what ``open_storage(where)`` opened: a database's connections. Somebody else's storage stays open."""
    if storage is not where:
        storage.remove_session()
        if hasattr(storage, "engine"):
            storage.engine.dispose()


def open_study(storage: object, name: str, **options: object):
    """The study of this name. It is made where there is none; one that is there is only read."""
    optuna = import_optuna()
    with suppress(KeyError):
        return optuna.load_study(study_name=name, storage=storage, **options)
    # Two workers that start together both come here; the slower one gets the other's.
    return optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True, **options
    )  # fmt: skip


@contextmanager
def storage_errors(where: object) -> Iterator[None]:
    """A database that stops answering in the midst of a study raises our error.

    Raises:
        CalibrationError: as said; names the database, without its password.
    """
    try:
        yield
    except _database_errors() as error:
        raise CalibrationError(
            "the study's database stopped answering.",
            f"start it, then run the same inputs again: they go on ({_address(where)})",
        ) from error


def _database_errors() -> tuple[type[Exception], ...]:
    kinds = [import_optuna().exceptions.StorageInternalError]
    # Only what was imported can have been raised; optuna wraps most of it, not all.
    for module, name in (("sqlalchemy.exc", "SQLAlchemyError"), ("grpc", "RpcError")):
        kinds.append(getattr(sys.modules.get(module), name, None))
    return tuple(filter(None, kinds))


def _address(where: object) -> str:
    return re.sub(r"//[^@/]*@", "//", where)[:60] if isinstance(where, str) else type(where).__name__


def _journal(optuna, path: Path, read_only: bool):
    from optuna.storages.journal import JournalFileOpenLock

    # Not optuna's default lock, a symbolic link: on Windows that takes an administrator.
    journal = CheckedJournal(path, None if read_only else JournalFileOpenLock(str(path)))
    try:
        storage = optuna.storages.JournalStorage(journal)
    except CalibrationError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        # Lines of before there were checksums: JSON, but no record that can be replayed.
        raise CalibrationError(
            "the study's journal is damaged.", f"delete or rename it, and the study begins anew: {path}", path=str(path)
        ) from error
    storage.qsched_repair = journal.repair
    return storage


def _database(optuna, url: str):
    import sqlalchemy

    address = _address(url)
    for last in (False, False, True):
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        except ImportError as error:
            raise DependencyError(
                f"the database {address} needs a driver.", 'for PostgreSQL: pip install "psycopg[binary]"'
            ) from error
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            # Two workers that start together make the same tables; the slower one only has to look again.
            if last:
                fix = "check the address and that it runs"
                raise CalibrationError(f"no study can be kept at {address}.", fix) from error
    raise AssertionError("unreachable")
