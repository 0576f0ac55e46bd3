"""Blind ballots: where the preset's pictures are hidden, what was voted, and files that outlive the server."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path

import folder_paths

from ...calibration.votes import Votes
from ...qsched_core import VoteError
from ...qsched_core.atomic import replacing, write_new

SIDES = ("left", "right")
CHOICES = (*SIDES, "skip")
MAX_PAIRS, MAX_PICTURE_SETS, MAX_NODES = 200, 16, 64
"""Pairs of a ballot, and ballots and nodes that are kept in memory; the oldest go first."""

_KEY_PATTERN = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Ballot:
    """``sides``: where the preset's picture is, per pair; ``votes``: (pair, choice) in the order they were cast.

    Nobody sees the result of an open ballot: a voter who saw it could stop at the moment that pleases.
    """

    sides: tuple[str, ...]
    votes: tuple[tuple[int, str], ...] = ()
    closed: bool = False

    @classmethod
    def draw(cls, pairs: int) -> Ballot:
        """The preset's side of each pair is drawn from the system's secure generator."""
        return cls(tuple(secrets.choice(SIDES) for _ in range(pairs)))

    @property
    def complete(self) -> bool:
        return len(self.votes) == len(self.sides)

    def act(self, pair: int, choice: str) -> Ballot:
        """The ballot after a vote ("left", "right", "skip") on a pair, or "undo" of the last one, or "close".

        Raises:
            VoteError: what the page could not have meant had it been up to date.
        """
        if self.closed:
            raise VoteError("this vote is closed.", "choose another ballot number for a new one", status=409)
        if choice == "close":
            return replace(self, closed=True)
        if choice == "undo":
            if not self.votes or self.votes[-1][0] != pair:
                raise VoteError("there is no such vote to take back.", "reload the page", status=409)
            return replace(self, votes=self.votes[:-1])
        if choice not in CHOICES:
            raise VoteError("a vote is left, right or skip.", "choose one of them", status=400)
        if not 0 <= pair < len(self.sides):
            raise VoteError(f"there is no pair {pair}.", f"{len(self.sides)} pairs count from 0", status=400)
        if pair in dict(self.votes):
            raise VoteError(f"pair {pair + 1} has a vote.", "another tab was faster; undo it there", status=409)
        return replace(self, votes=(*self.votes, (pair, choice)))

    def count(self) -> Votes:
        preset_wins = [self.sides[pair] == choice for pair, choice in self.votes if choice != "skip"]
        return Votes(sum(preset_wins), len(preset_wins) - sum(preset_wins), len(self.votes) - len(preset_wins))

    def view(self) -> dict:
        """What a page may know, as plain JSON values: nothing of the sides before the ballot is closed."""
        votes = dict(self.votes)
        view = {
            "pairs": len(self.sides),
            "votes": [votes.get(pair) for pair in range(len(self.sides))],
            "last": self.votes[-1][0] if self.votes else None,
            "closed": self.closed,
        }
        return {**view, "sides": list(self.sides), "result": self.count().record()} if self.closed else view


@dataclass
class Shown:
    """A ballot's pictures: files in the host's temporary folder, (left, right) per pair, and texts, one per pair."""

    files: list[tuple[Path, Path]]
    texts: list[str] = field(default_factory=list)


class Ballots:
    """All ballots by key. Votes are written to ``folder()`` at once; before the first there is nothing to lose."""

    def __init__(self, folder):
        self._folder = folder
        self._ballots: dict[str, Ballot] = {}
        self._displays: OrderedDict[str, Shown] = OrderedDict()
        self._nodes: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = threading.RLock()  # nodes run in one thread, the server answers in another

    def open(self, key: str, pairs: int) -> Ballot:
        """The ballot of that key, as it was left; a new one where there is none yet, or another number of pairs."""
        with self._lock:
            ballot = self._find(key)
            if ballot is None or len(ballot.sides) != pairs:
                ballot = Ballot.draw(pairs)
            self._ballots[key] = ballot
            return ballot

    def act(self, key: str, pair: int, choice: str) -> None:
        """See ``Ballot.act``.

        Raises:
            VoteError: also for an unknown key, pictures that are gone, and a file that cannot be written.
        """
        with self._lock:
            if key not in self._ballots or not self.has_pictures(key):
                raise VoteError("the pictures of this vote are gone.", "run the node again", status=404)
            after = self._ballots[key].act(pair, choice)
            self._write(key, after)
            self._ballots[key] = after

    def view(self, key: str) -> dict:
        """What a page may know of a ballot; "pictures" and "texts" are empty where the files are gone.

        Raises:
            VoteError: an unknown key.
        """
        with self._lock:
            ballot = self._find(key)
            if ballot is None:
                raise VoteError("there is no such vote.", "run the node again", status=404)
            pictures, texts = [], []
            if self.has_pictures(key):
                display = self._displays[key]
                pictures, texts = [[left.name, right.name] for left, right in display.files], display.texts
            return {"key": key, **ballot.view(), "pictures": pictures, "texts": texts}

    def has_pictures(self, key: str) -> bool:
        display = self._displays.get(key)
        return display is not None and all(path.is_file() for pair in display.files for path in pair)

    def show(self, key: str, display: Shown) -> None:
        """Takes the pictures of an open ballot; those of the oldest one are deleted."""
        with self._lock:
            self._displays[key] = display
            while len(self._displays) > MAX_PICTURE_SETS:
                old, oldest = self._displays.popitem(last=False)
                self._ballots.pop(old, None)
                for path in (path for pair in oldest.files for path in pair):
                    path.unlink(missing_ok=True)

    def retell(self, key: str, texts: list[str]) -> None:
        """Other texts beside the same pictures; the ballot is the youngest again."""
        with self._lock:
            self._displays[key].texts = texts
            self._displays.move_to_end(key)

    def note(self, workflow: str, node: str, key: str) -> None:
        """Keeps for reloaded pages what a node of a workflow shows."""
        with self._lock:
            self._nodes[workflow, node] = key
            self._nodes.move_to_end((workflow, node))
            while len(self._nodes) > MAX_NODES:
                self._nodes.popitem(last=False)

    def noted(self, workflow: str) -> list[dict]:
        with self._lock:
            return [{"node": node, "key": key} for (owner, node), key in self._nodes.items() if owner == workflow]

    def stamp(self) -> int:
        """Changes whenever anybody votes, also in a server before this one."""
        try:
            return self._folder().stat().st_mtime_ns
        except OSError:
            return 0

    def _find(self, key: str) -> Ballot | None:
        if not isinstance(key, str) or not _KEY_PATTERN.fullmatch(key):
            return None
        return self._ballots.get(key) or self._read(key)

    def _read(self, key: str) -> Ballot | None:
        path = self._folder() / f"{key}.json"
        try:
            content = json.loads(path.read_text("utf-8"))
            ballot = Ballot(tuple(content["sides"]))
            if not 1 <= len(ballot.sides) <= MAX_PAIRS or not set(ballot.sides) <= set(SIDES):
                return None
            for pair, choice in content["votes"]:
                ballot = ballot.act(pair, choice)
            return replace(ballot, closed=content["closed"] is True)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None  # none yet, or none of ours: VoteError is a ValueError

    def _write(self, key: str, ballot: Ballot) -> None:
        content = {"sides": ballot.sides, "votes": ballot.votes, "closed": ballot.closed}
        try:
            with replacing(self._folder() / f"{key}.json") as temporary:
                write_new(temporary, json.dumps(content).encode())
        except OSError as error:
            raise VoteError(
                f"the vote cannot be saved: {error.strerror or error}.", "free some space", status=507
            ) from error


ballots = Ballots(lambda: Path(folder_paths.get_system_user_directory("qsched")) / "votes")
"""All votes of this installation: nodes and pages share them."""
