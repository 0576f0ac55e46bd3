"""Q-Sched Prompts on the real host: lists from other nodes, files, conditionings of the user's own; and attacks."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import warnings
from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.usefixtures("one_thread")

ANIMALS = ("a cat", "a dog", "a hen", "a cow", "a pig", "a fox")
LINES = "\n".join(ANIMALS)


@pytest.fixture(scope="module")
def module(pack):
    return pack("nodes.prompts")


@pytest.fixture(scope="module")
def refuses(pack):
    """``with refuses("part of the text"): ...`` expects the pack's own CalibrationError."""
    return lambda text: pytest.raises(pack("qsched_core").CalibrationError, match=text)


@pytest.fixture
def folder(module, tmp_path, monkeypatch):
    """ComfyUI's input folder."""
    import folder_paths

    (tmp_path / "input").mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    return tmp_path / "input"


@pytest.fixture
def run(module, monkeypatch):
    """Runs a graph in the host's executor, the same one every time: (what reached the node "end", nodes executed)."""
    import nodes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the host's own imports warn
        execution = importlib.import_module("execution")
        toolkit = importlib.import_module("comfy_extras.nodes_toolkit")
    caught = []

    class Texts:
        INPUT_TYPES = classmethod(lambda cls: {"required": {"lines": ("STRING", {"multiline": True})}})
        RETURN_TYPES, FUNCTION, OUTPUT_IS_LIST = ("STRING",), "split", (True,)

        def split(self, lines):
            return (lines.split("\n"),)

    class Encode:
        INPUT_TYPES = classmethod(lambda cls: {"required": {"text": ("STRING", {"forceInput": True})}})
        RETURN_TYPES, FUNCTION = ("CONDITIONING",), "encode"

        def encode(self, text):
            return ([[torch.full((1, 2, 3), float(len(text))), {"area": (1, 1, 0, 0)}]],)

    class End:
        INPUT_TYPES = classmethod(lambda cls: {"required": {"value": ("QSCHED_PROMPTS",), "report": ("STRING", {})}})
        RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "end", True

        def end(self, value, report):
            caught.append((value, report))
            return ()

    ours = {"QSchedPrompts": module.QSchedPrompts, "CreateList": toolkit.CreateList}
    for name, node in {**ours, "Texts": Texts, "Encode": Encode, "End": End}.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node)
    server = SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *args: None)
    executor = execution.PromptExecutor(server, cache_args={"lru": 0, "ram": 0, "ram_inactive": 0})

    def execute(inputs, **others):
        graph = {
            "made": {"class_type": "QSchedPrompts", "inputs": inputs},
            "end": {"class_type": "End", "inputs": {"value": ["made", 0], "report": ["made", 1]}},
            **{name: {"class_type": kind, "inputs": values} for name, (kind, values) in others.items()},
        }
        caught.clear()
        valid = asyncio.run(execution.validate_prompt("id", graph, None))
        assert valid[0], valid
        executor.execute(graph, "id", {}, valid[2])
        errors = [args for kind, args in executor.status_messages if kind == "execution_error"]
        if errors:
            raise RuntimeError(errors[0]["exception_message"])
        return caught[0] if caught else None

    return execute


def made(module, **inputs):
    """(PromptList, report) of the node, called as the host calls one that takes lists."""
    return module.QSchedPrompts.execute(**inputs).args


def conditioning(value: float, **extra):
    return [[torch.full((1, 2, 3), value), extra]]


def test_texts_written_into_the_node(run):
    prompts, report = run({"prompts": f"# animals\n{LINES}", "verdict_prompts": "a fox\na bee", "draw_seed": 0})
    assert prompts.texts == (*ANIMALS[:5], "a fox", "a bee")
    assert prompts.verdict == (5, 6)
    assert prompts.conditionings is None
    assert prompts.has_texts
    assert len(prompts) == 7
    assert "5 prompts to search on, 2 for the verdict." in report
    assert "1 prompt of both sets kept for the verdict alone." in report
    assert "a bee" in report


def test_without_a_second_set_the_digest_is_the_one_of_the_texts(pack, module):
    prompts, report = made(module, prompts=[LINES])
    assert prompts.digest == pack("calibration.prompts").read_prompts(LINES).digest
    assert report.startswith("6 prompts; a share of them is held out")


def test_a_list_of_another_node_arrives_as_one_list(run):
    prompts, _ = run({"texts": ["texts", 0]}, texts=("Texts", {"lines": LINES}))
    assert prompts.texts == ANIMALS


def test_sources_are_added_up(module, folder):
    (folder / "b.txt").write_text("a cow\na pig")
    prompts, _ = made(module, prompts=["a cat\na dog"], prompt_file=["b.txt"], texts=["# no comment", ["a\nhen"]])
    assert prompts.texts == ("a cat", "a dog", "a cow", "a pig", "# no comment", "a hen")


def test_conditionings_of_the_users_own_keep_their_texts(run):
    texts = ("Texts", {"lines": LINES})
    prompts, report = run(
        {"texts": ["texts", 0], "conditionings": ["coded", 0], "verdict_prompts": "a pig\na cat"},
        texts=texts,
        coded=("Encode", {"text": ["texts", 0]}),
    )
    assert prompts.texts == ANIMALS
    assert prompts.verdict == (0, 4)
    assert [float(one[0][0].max()) for one in prompts.conditionings] == [len(text) for text in ANIMALS]
    assert prompts.conditionings[0][0][1] == {"area": (1, 1, 0, 0)}
    assert "conditionings plugged in" in report


def test_create_list_joins_conditionings_without_texts(run):
    joined = {f"inputs.input{i}": ["coded", 0] for i in range(2)}
    prompts, report = run(
        {"conditionings": ["joined", 0], "verdict_prompts": "conditioning 2\nconditioning 12"},
        texts=("Texts", {"lines": LINES}),
        coded=("Encode", {"text": ["texts", 0]}),
        joined=("CreateList", joined),
    )
    assert prompts.texts == tuple(f"conditioning {i}" for i in range(1, 13))
    assert prompts.verdict == (1, 11)
    assert len(prompts.conditionings) == 12
    assert not prompts.has_texts
    assert "a metric that reads prompts will refuse them" in report


def test_files_are_read_and_an_edited_one_anew(run, folder):
    file = folder / "sets" / "animals.yaml"
    file.parent.mkdir()
    file.write_text("prompts: [a cat, a dog, a hen, a cow]\nverdict: [a pig, a fox]")
    (folder / "more.csv").write_text("id,caption\n1,a bee")
    inputs = {"prompt_file": " sets/animals.yaml", "verdict_file": "more.csv"}
    prompts, _ = run(dict(inputs))
    assert prompts.texts == (*ANIMALS, "a bee")
    assert prompts.verdict == (4, 5, 6)
    assert run(dict(inputs)) is None, "nothing changed, nothing is executed"
    file.write_text("prompts: [a cat, a dog, a hen, a yak]\nverdict: [a pig, a fox]")
    os.utime(file, ns=(1, 1))
    prompts, _ = run(dict(inputs))
    assert "a yak" in prompts.texts


def test_what_the_user_reads_when_it_fails(run):
    with pytest.raises(RuntimeError, match=r"Q-Sched: 1 prompt, at least 4 are needed\."):
        run({"prompts": "a cat"})


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "/etc/passwd",
        "nowhere.txt",
        ".",
        "sets",
        "link.txt",
        "a\0.txt",
        "x" * 300 + ".txt",
        "a/" * 3000,
    ],
)
def test_only_files_of_the_input_folder_are_read(module, refuses, folder, name):
    (folder.parent / "secret.txt").write_text(LINES)
    (folder / "sets").mkdir()
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    with refuses("in ComfyUI's input folder"):
        made(module, prompt_file=[name])
    module.QSchedPrompts.fingerprint_inputs(prompt_file=[name], verdict_file=[None])


def test_a_link_to_itself_is_no_file(module, refuses, folder):
    """Regression: Python 3.12 and older raise RuntimeError, which no other file name does."""
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    # Regression: the input folder may be anywhere, and "there" named none.
    with refuses(f"(?s)in ComfyUI's input folder.*put the prompt file into {re.escape(str(folder))}"):
        made(module, prompt_file=["loop.txt"])
    module.QSchedPrompts.fingerprint_inputs(prompt_file=["loop.txt"], verdict_file=[None])


def test_a_large_file_is_refused_before_it_is_read_whole(module, refuses, folder):
    with (folder / "large.txt").open("wb") as file:
        file.truncate(2**40)
    with refuses("larger than 4 MiB"):
        made(module, prompt_file=["large.txt"])


SIX = [conditioning(float(i)) for i in range(6)]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "0 prompts, at least 4"),
        ({"prompts": [""], "prompt_file": [" "], "texts": []}, "0 prompts, at least 4"),
        ({"texts": [*ANIMALS, 3]}, "value 7 of texts is int, not a text"),
        ({"texts": [LINES]}, "1 prompt, at least 4"),
        ({"prompts": [LINES], "verdict_prompts": ["a bee"]}, "1 prompt for the verdict"),
        ({"conditionings": SIX, "texts": ANIMALS[:5]}, "texts and conditionings differ in number: 5 and 6"),
        ({"conditionings": SIX[:3]}, "3 prompts, at least 4"),
        ({"conditionings": SIX, "verdict_prompts": ["a bee"]}, "the verdict's 'a bee' is not among"),
        ({"conditionings": [*SIX, None]}, "conditioning 7 is empty"),
        ({"conditionings": [*SIX, []]}, "conditioning 7 is empty"),
        ({"conditionings": [*SIX, "a cat"]}, "conditioning 7 is empty"),
        ({"conditionings": [*SIX, [[None, {}]]]}, "conditioning 7 is empty"),
    ],
)
def test_wrong_inputs_are_refused(module, errors, refused, inputs, text):
    with refused(errors.CalibrationError, text):
        made(module, **inputs)


class Control:
    """What a ControlNet is to a conditioning."""

    def __init__(self, picture: torch.Tensor, strength: float = 1.0, before: object = None):
        self.cond_hint_original, self.strength, self.previous_controlnet = picture, strength, before
        self.timestep_percent_range = (0.0, 1.0)


def test_the_digest_follows_what_decides_the_pictures(module):
    picture = torch.arange(12.0).reshape(1, 2, 2, 3)
    different = [
        {},
        {"guidance": 3.5},
        {"guidance": 4.0},
        {"pooled_output": torch.ones(1, 4)},
        {"pooled_output": torch.ones(1, 4, dtype=torch.bfloat16)},
        {"area": (1, 1, 0, 0)},
        {"control": Control(picture)},
        {"control": Control(picture.flip(2))},
        {"control": Control(picture, 0.5)},
        {"control": Control(picture, before=Control(picture))},
    ]
    digests = [made(module, conditionings=[*SIX, conditioning(9.0, **extra)])[0].digest for extra in different]
    assert len(set(digests)) == len(different)
    again = made(module, conditionings=[*SIX, conditioning(9.0, control=Control(picture.clone()))])[0]
    assert again.digest == digests[6]


def test_the_digest_tells_controlnets_of_other_weights_apart(module):
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        network = torch.nn.Linear(2, 2)
        control = Control(torch.zeros(1))
        control.get_models_only_self = lambda network=network: [SimpleNamespace(model=network)]
        digests.append(made(module, conditionings=[*SIX, conditioning(1.0, control=control)])[0].digest)
    assert digests[0] == digests[1] != digests[2]
