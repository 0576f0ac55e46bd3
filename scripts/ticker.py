"""One line on the terminal that says how far a running prompt is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from .feed import Progress

# A log file does not need every step: there a line is written when the node changes, and this often.
LOG_SECONDS = 10.0
TERMINAL_SECONDS = 0.2


class Ticker:
    """Call it with each `Progress`; use it as a context, so that the last line ends when the work does."""

    def __init__(
        self,
        titles: Mapping[str, str],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._titles = titles
        self._stream = stream or sys.stdout
        self._clock = clock
        self._live = self._stream.isatty()
        self._started = clock()
        self._written_at = float("-inf")
        self._current = Progress()
        self._node_is_new = False

    def __enter__(self) -> Ticker:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live and self._written_at > float("-inf"):
            self._stream.write("\n")

    def __call__(self, news: Progress) -> None:
        self._take_in(news)
        interval = TERMINAL_SECONDS if self._live else LOG_SECONDS
        if self._node_is_new or self._clock() - self._written_at >= interval:
            self._write()

    def _take_in(self, news: Progress) -> None:
        if news.node is None:
            return
        if news.node != self._current.node:
            self._current, self._node_is_new = news, True
            return
        fraction = self._current.fraction if news.fraction is None else news.fraction
        self._current = Progress(news.node, fraction, news.text or self._current.text)

    def _write(self) -> None:
        self._stream.write(f"\r\x1b[2K{self._line()}" if self._live else f"{self._line()}\n")
        self._stream.flush()
        self._written_at = self._clock()
        self._node_is_new = False

    def _line(self) -> str:
        now = self._current
        percent = "    " if now.fraction is None else f"{now.fraction:4.0%}"
        title = self._titles.get(now.node, now.node) if now.node else "waiting"
        text = " ".join((now.text or "").split())
        return f"  {_minutes(self._clock() - self._started)}  {percent}  {title}{': ' if text else ''}{text}"[:118]


def titles_of(prompt: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What to call the nodes of a prompt in API format: their titles, else their types."""
    return {node_id: node.get("_meta", {}).get("title") or node["class_type"] for node_id, node in prompt.items()}


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
