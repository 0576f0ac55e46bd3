"""Our templates against ComfyUI's own of the same models: the same files, nodes, inputs and settings."""

from __future__ import annotations

import json

import pytest

from scripts.official_templates import CHECKED, GOLDEN, facts
from scripts.workflows import notes
from scripts.workflows.families import FAMILIES

OFFICIAL = json.loads(GOLDEN.read_text("utf-8"))["templates"]
FREE = {
    "text",
    "image",
    "prompt",
    "negative_prompt",
    "seed",
    "noise_seed",
    "filename_prefix",
    "strength",
    "if_preset_differs",
}
"""What a user changes first, and what is ours."""

SAME_AS = {"QSchedSampler": "KSampler"}
OF_OURS = {"BasicScheduler", "SaveImage"}
"""Our templates read a sampler's sigmas from a node; some of ComfyUI's save with another."""

per_template = pytest.mark.parametrize("official", CHECKED, ids=lambda official: CHECKED[official].name)


@per_template
def test_every_file_is_one_of_the_official_template(official):
    files = {file.name: file.url for node in CHECKED[official].nodes for file in node.files}
    assert files.items() <= OFFICIAL[official]["files"].items()


@per_template
def test_nodes_inputs_and_settings_are_those_of_the_official_template(official):
    nodes = OFFICIAL[official]["nodes"]
    count = 0
    for node in CHECKED[official].nodes:
        kind = SAME_AS.get(node.kind, node.kind)
        free = FREE
        if kind == "KSampler" and kind not in nodes:  # two models: theirs are two samplers, ours is one
            kind, free = "KSamplerAdvanced", FREE | {"denoise"}
        if kind.startswith("QSched") or kind in OF_OURS:
            continue
        assert kind in nodes
        links = {name for name, value in node.inputs.items() if isinstance(value, list)} - {"preset"}
        assert links <= set(nodes[kind]["inputs"]), kind
        values = [value for name, value in node.inputs.items() if name not in {*links, *free, "preset"}]
        assert any(all(_among(value, one) for value in values) for one in nodes[kind]["values"]), (kind, values)
        count += len(values)
    assert count > 10


def _among(value: object, values: list) -> bool:
    """Numbers as the page writes them: 3.1 is 3.1000000000000005 there."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return any(isinstance(one, (int, float)) and one == pytest.approx(value) for one in values)
    return value in values


def test_facts_are_read_out_of_subgraphs_and_texts_are_left_there():
    inner = {"type": "KSampler", "inputs": [{"name": "model"}], "widgets_values": [8, "x" * 200]}
    loader = {"type": "UNETLoader", "properties": {"models": [{"name": "a", "url": "b"}]}}
    workflow = {"nodes": [{"type": "s"}, {"type": "MarkdownNote"}], "definitions": {"subgraphs": [
        {"id": "s", "nodes": [inner, loader]}
    ]}}  # fmt: skip
    assert facts(workflow) == {
        "files": {"a": "b"},
        "nodes": {
            "KSampler": {"inputs": ["model"], "values": [[8]]},
            "UNETLoader": {"inputs": [], "values": [[]]},
        },
    }


def test_the_tables_of_the_notes_are_counted_ones():
    parts = json.loads(notes.PARTS.read_text("utf-8"))
    assert {name: lines for name, lines in parts.items() if "_" in name} == notes.parts(), (
        "run python -m scripts.workflows.notes"
    )


def test_what_nobody_has_counted_says_no_size():
    uncounted = {family.number for family in FAMILIES if family.counted is None}
    assert uncounted == {"12", "14"}
    assert not any(f"cards_{number}" in notes.parts() for number in uncounted)


ALL, ONE_BY_ONE, IN_PART = notes.ALL, notes.ONE_BY_ONE, notes.IN_PART


@pytest.mark.parametrize(
    ("models", "marks"),
    [
        ((3.0,), [ALL, ALL, ALL]),
        ((5.0,), [ONE_BY_ONE, ALL, ALL]),
        ((9.0,), [IN_PART, ONE_BY_ONE, ALL]),
        ((10.0, 10.0), [IN_PART, ONE_BY_ONE, ONE_BY_ONE]),
        ((30.0,), [IN_PART, IN_PART, IN_PART]),
    ],
    ids=["on 8 GB", "on 12 GB", "on 24 GB", "two models", "on none"],
)
def test_a_card_holds_all_or_one_after_the_other_or_a_part(models, marks):
    sizes = notes.Sizes(models, 2.0, 0.2)
    assert [sizes.on(card) for card in (8, 12, 24)] == marks
