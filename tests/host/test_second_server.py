"""What needs a server of its own, on one: another start, every setting that moves folders, and a pack with renames."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from module_files import beside

import qsched_core as qs
from scripts import server as comfyui
from scripts.client import HttpFailure, PromptRefused
from scripts.layout import ROOT

arena = beside(__file__, "test_arena")

RENAMES = """
RENAMED_NODES = (
    {
        "new_node_id": "QSchedPrompts",
        "old_node_id": "QSchedTexts",
        "old_widget_ids": ["texts"],
        "input_mapping": [{"old_id": "texts", "new_id": "prompts"}],
        "output_mapping": [{"old_idx": 2, "new_idx": 1}],
    },
    {
        "new_node_id": "QSchedSamplerTCD",
        "old_node_id": "QSchedTCD",
        "old_widget_ids": ["gamma"],
        "input_mapping": [{"old_id": "gamma", "new_id": "eta"}],
        "output_mapping": [{"old_idx": 0, "new_idx": 0}],
    },
)
"""
OLD = {
    "1": {"class_type": "QSchedTexts", "inputs": {"texts": "one\ntwo\nthree\nfour"}, "_meta": {"title": "old"}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 2]}, "_meta": {"title": "shown"}},
}
OLD_WIDGET = {
    "1": {"class_type": "QSchedTCD", "inputs": {"gamma": 7.0}, "_meta": {"title": "old"}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}, "_meta": {"title": "shown"}},
}


@pytest.fixture(scope="module")
def vote(server) -> SimpleNamespace:
    """A vote on the session's server: two of its four pairs are done."""
    client, graph = server.client, arena.arena(4, ballot=99)
    key, _ = arena.run(client, graph)
    state = arena.state(client, key)
    truth = [arena.side_of(client, state, pair) for pair in range(4)]
    arena.vote(client, key, 0, truth[0])
    arena.vote(client, key, 1, "skip")
    return SimpleNamespace(graph=graph, key=key, truth=truth)


@pytest.fixture(scope="module")
def second(host, server, vote, tmp_path_factory):
    """(server, folder of its folders): base, user and output directory, a default of the user's, many users, and no
    metadata; what a killed process left; what the session's server has kept for its user; renames in a copy of the
    pack."""
    place = tmp_path_factory.mktemp("second")
    config = place / "extra.yaml"
    config.write_text(f"mine:\n  base_path: {place}\n  is_default: true\n  qsched_presets: my presets\n", "utf-8")
    flags = [
        *("--cpu", "--multi-user", "--disable-metadata", "--extra-model-paths-config", str(config)),
        *("--user-directory", str(place / "people"), "--output-directory", str(place / "out")),
        *("--temp-directory", str(place / "scratch")),
    ]
    left = place / "my presets" / f".qsched-{'0' * 32}.tmp"
    left.mkdir(parents=True)
    (left / "file").write_bytes(b"half")
    for path in (left / "file", left):
        os.utime(path, (time.time() - 7200,) * 2)
    shutil.copytree(server.base / "user" / "__qsched" / "votes", place / "people" / "__qsched" / "votes")
    pack = place / "pack"
    shutil.copytree(ROOT, pack, ignore=shutil.ignore_patterns(*comfyui.NOT_COPIED, "tests", "benchmarks", "dist"))
    with (pack / "nodes" / "renamed.py").open("a", encoding="utf-8") as file:
        file.write(RENAMES)
    with comfyui.running(host, Path(sys.executable), pack=pack, base=place / "base", flags=flags) as running:
        yield running, place


def test_a_restarted_server_goes_on_with_the_same_vote(second, vote):
    client, key, truth = second[0].client, vote.key, vote.truth
    state = arena.state(client, key)
    assert (state["votes"], state["pictures"]) == ([truth[0], "skip", None, None], [])
    assert "run the node again" in arena.refused(404, arena.vote, client, key, 2, "left")
    assert arena.run(client, vote.graph) == (key, "2 of 4 pairs are voted on. Vote on the node, then run it again.")
    state = arena.state(client, key)
    assert [arena.side_of(client, state, pair) for pair in range(4)] == truth
    arena.vote(client, key, 2, truth[2])


def test_a_server_with_every_setting_writes_where_it_was_told(second):
    server, place = second
    texts = {"name": "mine", "author": "", "license": "", "notes": ""}
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
        "2": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "3": {"class_type": "QSchedLoadPreset", "inputs": {"preset_name": "SDXL-Turbo W4A4 (published).safetensors"}},
        "4": {"class_type": "QSchedArena", "inputs": {"without": ["1", 0], "with_preset": ["2", 0]}},
        "5": {"class_type": "QSchedSavePreset", "inputs": {"preset": ["3", 0], **texts}},
    }
    outputs = server.client.wait(server.client.submit(graph, {"id": "w", "nodes": []}), timeout=120)["outputs"]
    (key,) = outputs["4"]["qsched_arena"]
    assert server.client.post("/qsched/arena/vote", {"key": key, "pair": 0, "choice": "skip"})["votes"] == ["skip"]
    with pytest.raises(HttpFailure):  # no user reads it
        server.client.read(f"/userdata/..%2F__qsched%2Fvotes%2F{key}.json")
    assert f"Saved {place / 'my presets'}/mine.safetensors" in json.dumps(outputs["5"])
    saved = qs.load_preset(place / "my presets" / "mine.safetensors")
    assert not {"workflow", "prompt"} & set(saved.card)
    assert not list((place / "my presets").glob("*.tmp"))
    assert (place / "people" / "__qsched" / "votes" / f"{key}.json").exists()
    files = [path for path in server.base.rglob("*") if path.suffix in (".safetensors", ".tmp", ".json")]
    assert [path for path in files if "custom_nodes" not in path.parts and path.is_file()] == []


def test_an_old_workflow_runs_with_the_new_node(second):
    """On a copy of the pack in which two nodes were renamed."""
    client = second[0].client
    replacements = client.get("/node_replacements")  # what the page opens old workflows with
    assert replacements["QSchedTexts"][0]["new_node_id"] == "QSchedPrompts"
    text = client.run(OLD, timeout=300)["2"]["text"][0]
    assert text.startswith("4 prompts")
    with pytest.raises(PromptRefused, match="eta"):  # 7 is out of its range: the old value has arrived
        client.submit(OLD_WIDGET)
