"""Any no-reference metric of the pyiqa package, by its name, from files that are already on the disk."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from torch import Tensor

from ..core import CalibrationError, DependencyError
from .base import IQ, Metric

WITHOUT_WEIGHTS = ("piqe", "entropy")

SET_METRICS = ("fid", "fid_dinov2", "sfid", "inception_score")
"""pyiqa lists these as no-reference; they score a set of pictures, not one."""

_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_LOCK = threading.RLock()


class PyIQA(Metric):
    """IQ by a pyiqa metric's name ("musiq", "topiq_nr", "piqe", ...). Where less is better the sign is turned and
    ``name`` says so.

    pyiqa keeps its files in torch's hub cache; a file that is not there is an error, never a download, and pickles
    are read with ``weights_only``. The package is for non-commercial use since 2026-04; weights have own licences.

    Raises:
        DependencyError: pyiqa is not installed.
        CalibrationError: no such metric, one that needs a reference or a text, or its files are missing.
    """

    role = IQ
    license = "PolyForm-Noncommercial"

    def __init__(self, metric: str):
        super().__init__()
        try:
            import pyiqa
        except ImportError as error:
            raise DependencyError("this metric needs pyiqa.", "pip install pyiqa (non-commercial use)") from error
        _check(metric, pyiqa.list_models("NR"), pyiqa.list_models("FR"))
        try:
            with _local_files():
                self.net = pyiqa.create_metric(metric, as_loss=False, device="cpu").requires_grad_(False)
        except Exception as error:  # one of 70 nets, each with loaders of its own
            raise CalibrationError(
                f"pyiqa cannot load {metric!r}: {type(error).__name__}.",
                "run pyiqa.create_metric once yourself to fetch its files, or choose piqe",
                metric=metric,
            ) from error
        self.lower_better = bool(self.net.lower_better)
        self.name = f"{metric} (negated)" if self.lower_better else metric

    def measure(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        with _local_files():
            scores = self.net(pictures.movedim(-1, 1).clamp(0, 1))
        if scores.numel() != len(pictures):
            raise CalibrationError(f"{self.name} gives no score for each picture.", "choose another, such as musiq")
        scores = scores.reshape(len(pictures))
        return -scores if self.lower_better else scores


def _check(metric: str, no_reference: list[str], full_reference: list[str]) -> None:
    if metric in full_reference or metric == "clipscore" or metric in SET_METRICS:
        needs = {True: "a reference", metric == "clipscore": "a text", metric in SET_METRICS: "a set of pictures"}[True]
        raise CalibrationError(f"{metric} needs {needs}, not a picture alone.", "choose musiq or piqe", metric=metric)
    if metric not in no_reference:
        near = ", ".join(get_close_matches(metric, no_reference)) or "musiq, piqe"
        raise CalibrationError(f"pyiqa has no metric {metric[:24]!r}.", f"choose {near}", metric=metric)


@contextmanager
def _local_files() -> Iterator[None]:
    """This thread finds no host, so nothing can be fetched, and torch unpickles weights alone.

    pyiqa and the packages below it have a dozen ways to download and no switch against them.
    """
    with _LOCK:
        look_up, mine = socket.getaddrinfo, threading.get_ident()
        setting = os.environ.get(_WEIGHTS_ONLY)

        def refuse(*args, **kwargs):
            if threading.get_ident() == mine:
                raise OSError("no downloads")
            return look_up(*args, **kwargs)

        socket.getaddrinfo = refuse
        os.environ[_WEIGHTS_ONLY] = "1"
        try:
            yield
        finally:
            socket.getaddrinfo = look_up
            os.environ.pop(_WEIGHTS_ONLY)
            if setting is not None:
                os.environ[_WEIGHTS_ONLY] = setting
