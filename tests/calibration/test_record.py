"""What a preset says of its study: the node and the command line say the same of the same result."""

from __future__ import annotations

import ast
import json
import math
import sys
from pathlib import Path

import pytest

from calibration import Settings
from calibration.cli.main import _record
from calibration.record import read_gain, read_votes, study_record, unfinished_record, with_votes
from calibration.votes import Votes

sys.path.insert(0, str(Path(__file__).parent))
from test_report import result  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
INPUTS = {"model": "lcm", "metric": "clip", "prompts": 12, "prompts sha256": "0" * 64, "settings": {}}


def written(**changed) -> dict:
    about = {"metric": "clip", "n_prompts": 12, "digest": "0" * 64, "lines": ["Accepted."]}
    return study_record(result(**changed), Settings(), **about)


def test_the_command_line_writes_all_that_the_node_writes():
    """Its presets lacked the objective, the optimism, the failed candidates, the answer and the control."""
    ours = _record(INPUTS, result(), Settings(), ["Accepted."])
    assert {key: ours[key] for key in written()} == written()
    assert set(ours) - set(written()) == {"model"}
    assert {"objective", "optimism", "failed candidates", "answer", "control"} <= set(ours)
    assert ours["settings"]["stay near"] is False


@pytest.mark.parametrize("path", ["nodes/calibrating/outcome.py", "calibration/cli/main.py"])
def test_nobody_else_puts_a_record_together(path):
    """Both call ``study_record``, and neither knows a key of it."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    assert "study_record" in {
        node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "id")
    }
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not texts & {"failed candidates", "optimism", "on border", "control"}


def test_a_record_is_plain_json_and_says_control_only_with_a_reference():
    record = written(optimism=math.nan, on_reference=None)
    assert json.loads(json.dumps(record, allow_nan=False)) == json.loads(json.dumps(record))
    assert record["optimism"] is None
    assert "control" not in record
    assert set(written()["control"]) == {"same", "net"}
    assert unfinished_record(1.5, math.nan) == {"search JAQ": 1.5}


def test_what_was_written_is_read():
    record = with_votes(written(), Votes(9, 1, 2))
    assert read_gain(record) == pytest.approx((0.193, 0.183, 0.203))
    assert read_votes(record) == Votes(9, 1, 2)
    assert read_votes(written()) is None


@pytest.mark.parametrize(
    "strange", [{}, {"gain": 3}, {"gain": {"gain": "1", "low": 0, "high": 0}}, {"gain": {"gain": 1e9}}]
)
def test_a_strangers_gain_is_none(strange):
    assert read_gain(strange) is None


@pytest.mark.parametrize("value", [1e6, -1e6, math.inf, math.nan])
@pytest.mark.parametrize("key", ["gain", "low", "high"])
def test_a_gain_is_read_up_to_a_million(value, key):
    near = {"gain": 999_999, "low": -999_999.5, "high": 0}
    assert read_gain({"gain": near}) == (999_999.0, -999_999.5, 0.0)
    assert read_gain({"gain": {**near, key: value}}) is None


@pytest.mark.parametrize("key", ["wins", "losses", "skips"])
def test_votes_are_read_up_to_a_million(key):
    counts = {"wins": 0, "losses": 999_999, "skips": 0}
    assert read_votes({"votes": counts}) == Votes(0, 999_999, 0)
    for value in (1_000_000, -1, 1.0, None):
        assert read_votes({"votes": {**counts, key: value}}) is None


@pytest.mark.parametrize(
    "counts", [[1], {"wins": -1, "losses": 0, "skips": 0}, {"wins": True, "losses": 0, "skips": 0}]
)
def test_a_strangers_votes_are_none(counts):
    assert read_votes({"votes": counts}) is None
