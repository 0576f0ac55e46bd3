"""A small client of ComfyUI's HTTP interface, and what can go wrong with a prompt."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPException
from typing import Any
from urllib import error, parse, request

from .errors import DevError
from .feed import Clock, Feed, OnProgress, Progress, open_feed

Prompt = dict[str, dict[str, Any]]

POLL_SECONDS = 0.25
# A node that holds the interpreter lock keeps the server from answering for a while; that is no failure.
HTTP_TIMEOUT_SECONDS = 120.0
# The second is what Q-Sched's own routes want of whoever changes something.
HEADERS = {"Content-Type": "application/json", "X-QSched-Page": "1"}


class ServerUnreachable(DevError):
    """The server does not answer (any more)."""


class HttpFailure(DevError):
    """The server answered with an error status. Fields: `status`, `body`."""

    def __init__(self, what: str, status: int, body: str) -> None:
        super().__init__(f"{what} failed with HTTP status {status}: {body.strip()[:2000]}")
        self.status = status
        self.body = body


class PromptRefused(DevError):
    """The host did not accept a prompt. Fields: `error` and `node_errors`, both as the host sent them."""

    def __init__(self, problem: dict[str, Any] | str, node_errors: dict[str, Any]) -> None:
        super().__init__("\n  ".join(["The prompt was refused.", *_refusals(problem, node_errors)]))
        self.error = problem
        self.node_errors = node_errors


class PromptFailed(DevError):
    """A node raised. Fields: `node_id`, `node_type`, `exception_type`, `exception_message`, `traceback`."""

    def __init__(self, details: dict[str, Any]) -> None:
        self.node_id: str = str(details.get("node_id", "?"))
        self.node_type: str = details.get("node_type", "?")
        self.exception_type: str = details.get("exception_type", "?")
        self.exception_message: str = details.get("exception_message", "").strip()
        self.traceback: str = "".join(details.get("traceback", []))
        where = f"Node {self.node_id} ({self.node_type})"
        super().__init__(f"{where} failed: {self.exception_type}: {self.exception_message}\n{self.traceback}".rstrip())


class PromptInterrupted(DevError):
    """The prompt was interrupted. Fields: `node_id`, `node_type`."""

    def __init__(self, details: dict[str, Any]) -> None:
        self.node_id: str = str(details.get("node_id", "?"))
        self.node_type: str = details.get("node_type", "?")
        super().__init__(f"Interrupted in node {self.node_id} ({self.node_type}).")


class PromptTimeout(DevError):
    """The prompt had not finished in the time given."""


class Client:
    """One client of the server at `base_url`, e.g. "http://127.0.0.1:8188"."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self.client_id = uuid.uuid4().hex
        # No proxies: the server is on this machine, whatever the environment says about the rest of the world.
        self._opener = request.build_opener(request.ProxyHandler({}))

    def system_stats(self, timeout: float = HTTP_TIMEOUT_SECONDS) -> dict[str, Any]:
        """Versions and devices of the host."""
        return self.get("/system_stats", timeout=timeout)

    def object_info(self, node_type: str | None = None) -> dict[str, Any]:
        """The definitions of all nodes, or of one."""
        return self.get(f"/object_info/{parse.quote(node_type)}" if node_type else "/object_info")

    def submit(self, prompt: Prompt, workflow: dict[str, Any] | None = None) -> str:
        """Queue `prompt` (API format) and return its id.

        `workflow` (UI format) is saved into the pictures. Raises PromptRefused, also when the host would have accepted
        a part of the prompt.
        """
        payload: dict[str, Any] = {"prompt": prompt, "client_id": self.client_id}
        if workflow is not None:
            payload["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        try:
            answer = self.post("/prompt", payload)
        except HttpFailure as failure:
            raise _refusal(failure) from None
        if answer.get("node_errors"):
            self.cancel(answer["prompt_id"])
            raise PromptRefused("A part of it is not valid.", answer["node_errors"])
        return answer["prompt_id"]

    def wait(
        self, prompt_id: str, on_progress: OnProgress | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait until a prompt has finished and return its history entry (`outputs`, `status`, `prompt`).

        `on_progress` is called with a `Progress` a few times a second. Raises PromptFailed, PromptInterrupted, and
        PromptTimeout after `timeout` seconds (the prompt goes on; see `cancel`).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with closing(self._feed(on_progress)) as feed:
            while (entry := self.history(prompt_id)) is None:
                if deadline is not None and time.monotonic() > deadline:
                    raise PromptTimeout(f"Prompt {prompt_id} had not finished after {timeout:g} s.")
                _listen(feed, on_progress or _ignore)
        return _outcome(entry)

    def run(self, prompt: Prompt, on_progress: OnProgress | None = None, timeout: float | None = None) -> dict:
        """`submit` and `wait`; returns the outputs by node id."""
        return self.wait(self.submit(prompt), on_progress, timeout)["outputs"]

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Interrupt what is running; with `prompt_id`, only if that is what is running."""
        self.post("/interrupt", {"prompt_id": prompt_id} if prompt_id else {})

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it if it is running already."""
        self.post("/queue", {"delete": [prompt_id]})
        self.interrupt(prompt_id)

    def queue(self) -> dict[str, list]:
        """`queue_running` and `queue_pending`."""
        return self.get("/queue")

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """The history entry of a prompt; None while it has not finished."""
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def view(self, filename: str, subfolder: str = "", type: str = "output") -> bytes:
        """The content of a file that a node saved; the arguments are those that the node reports."""
        return self.read(f"/view?{parse.urlencode({'filename': filename, 'subfolder': subfolder, 'type': type})}")

    def get(self, path: str, *, timeout: float = HTTP_TIMEOUT_SECONDS) -> Any:
        """The JSON at `path`."""
        return json.loads(self.read(path, timeout=timeout))

    def post(self, path: str, payload: Any) -> Any:
        """Post JSON to `path`; the JSON answered, or None where the answer is empty."""
        answer = self.read(path, data=json.dumps(payload).encode())
        return json.loads(answer) if answer else None

    def read(self, path: str, *, data: bytes | None = None, timeout: float = HTTP_TIMEOUT_SECONDS) -> bytes:
        """The body at `path`; a POST when there is `data`. Raises HttpFailure and ServerUnreachable."""
        call = request.Request(self.base_url + path, data=data, headers=HEADERS)
        try:
            with self._opener.open(call, timeout=timeout) as answer:
                return answer.read()
        except error.HTTPError as failure:
            with failure:
                body = failure.read().decode("utf-8", "replace")
            raise HttpFailure(f"{call.get_method()} {path}", failure.code, body) from None
        except (OSError, HTTPException) as failure:  # URLError, a time-out, a connection cut off
            raise self._unreachable(failure) from failure

    def _feed(self, on_progress: OnProgress | None) -> Feed | Clock:
        if on_progress is None:
            return Clock()
        try:
            return open_feed(self.base_url.replace("http", "ws", 1) + "/ws", self.client_id)
        except OSError as failure:
            raise self._unreachable(failure) from failure

    def _unreachable(self, failure: Exception) -> ServerUnreachable:
        return ServerUnreachable(f"The server at {self.base_url} does not answer: {failure}")


def _listen(feed: Feed | Clock, on_progress: Callable[[Progress], None]) -> None:
    try:
        feed.listen(POLL_SECONDS, on_progress)
    except ConnectionError:
        time.sleep(POLL_SECONDS)  # only the news are lost; whether the server is, the next poll tells


def _ignore(progress: Progress) -> None:
    """Nobody wants to know."""


def _outcome(entry: dict[str, Any]) -> dict[str, Any]:
    for event, details in entry["status"]["messages"]:
        if event == "execution_error":
            raise PromptFailed(details)
        if event == "execution_interrupted":
            raise PromptInterrupted(details)
    return entry


def _refusal(failure: HttpFailure) -> DevError:
    try:
        answer = json.loads(failure.body)
    except json.JSONDecodeError:
        return failure
    if not isinstance(answer, dict) or "error" not in answer:
        return failure
    return PromptRefused(answer["error"], answer.get("node_errors") or {})


def _refusals(problem: dict[str, Any] | str, node_errors: dict[str, Any]) -> list[str]:
    lines = [problem if isinstance(problem, str) else problem.get("message", "")]
    if not node_errors and not isinstance(problem, str):  # else the details repeat what is said node by node
        lines[0] += f": {problem.get('details', '')}"
    for node_id, refusal in node_errors.items():
        where = f"node {node_id} ({refusal.get('class_type', '?')})"
        lines += [f"{where}: {item['message']}: {item.get('details', '')}" for item in refusal.get("errors", [])]
    return [line.strip().rstrip(":") for line in lines]
