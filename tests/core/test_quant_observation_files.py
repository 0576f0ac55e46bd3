"""An observation in a file: what comes back, and what strangers put into one."""

from __future__ import annotations

import copy
import json
from uuid import UUID

import pytest
import torch
from exactness import same_bits
from flat_network import WIDTH, Flat, run_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import qsched_core as qs
from qsched_core import QuantizationError
from qsched_core.quant import measure_sensitivity


@pytest.fixture
def net() -> Flat:
    return Flat().requires_grad_(False)


@pytest.fixture
def observation(net):
    return qs.observe(net, run_of(net))


def test_its_calls_survive_a_file(net, observation, tmp_path):
    """Regression: a saved observation had none, so that means were not corrected and no network was studied."""
    observation.calls.kept[0].kwargs["options"] = {"sigmas": [1.0, None, ("a", True)], ("keys", 1): {"id": UUID(int=7)}}
    observation.save(tmp_path / "seen.safetensors")
    loaded = qs.load_observation(tmp_path / "seen.safetensors")
    assert loaded.calls.kept[0].kwargs == observation.calls.kept[0].kwargs
    del loaded.calls.kept[0].kwargs["options"], observation.calls.kept[0].kwargs["options"]
    for one, other in zip(observation.calls.kept, loaded.calls.kept, strict=True):
        assert (one.number, one.lot) == (other.number, other.lot)
        assert same_bits(one.again(net), other.again(net))
        assert same_bits(one.output, other.output)
        assert all(same_bits(torch.stack(one.means[name]), torch.stack(other.means[name])) for name in one.means)
    studies = [
        measure_sensitivity(net, lambda: None, include=["conv"], depth="network", observation=observation)
        for observation in (observation, loaded)
    ]
    assert studies[0].layers == studies[1].layers


def test_calls_that_no_file_holds_are_left_out(net, observation, tmp_path, refused):
    observation.calls.kept[0].kwargs["options"] = {"patch": lambda x: x}
    observation.save(tmp_path / "seen.safetensors")
    loaded = qs.load_observation(tmp_path / "seen.safetensors")
    assert loaded.calls is None
    with refused(QuantizationError, "holds no calls"):
        measure_sensitivity(net, lambda: None, include=["*"], depth="network", observation=loaded)


def test_a_strangers_rows_of_another_width_are_refused(net, observation, tmp_path, refused):
    observation.save(tmp_path / "seen.safetensors")
    tensors = load_file(tmp_path / "seen.safetensors")
    with safe_open(tmp_path / "seen.safetensors", "pt") as file:
        metadata = file.metadata()
    narrow = {
        name: value[..., :8].contiguous() if name.endswith("/layer_1") else value for name, value in tensors.items()
    }
    mean = next(iter(json.loads(metadata["calls"])["calls"][0]["means"].values()))
    for values in (narrow, {**tensors, mean: tensors[mean][:, :8].contiguous()}):
        save_file(values, tmp_path / "other.safetensors", metadata)
        with refused(QuantizationError, "observation is of another model"):
            qs.quantize(copy.deepcopy(net), observation=qs.load_observation(tmp_path / "other.safetensors"))


def _calls(change):
    """An attack on what a file says of its calls."""

    def attack(tensors: dict, metadata: dict) -> None:
        record = json.loads(metadata["calls"])
        change(record["calls"][0])
        metadata["calls"] = json.dumps(record)

    return attack


def _nested(depth: int) -> list:
    node = ["list", []]
    for _ in range(depth):
        node = ["list", [node]]
    return node


ATTACKS = {
    "no rows": lambda t, m: t.pop("judged/layer_1"),
    "other columns": lambda t, m: t.update({"fitted/layer_1": torch.ones(20, WIDTH + 1)}),
    "integers": lambda t, m: t.update({"judged/layer_1": torch.ones(20, WIDTH, dtype=torch.int64)}),
    "a long token": lambda t, m: t.update({"first_token/layer_1": torch.ones(WIDTH + 1)}),
    "no list": lambda t, m: m.update(observation="[]"),
    "no JSON": lambda t, m: m.update(observation="{"),
    "odd weights": lambda t, m: m.update(observation=m["observation"].replace('"weights": ', '"weights": -')),
    "calls that are no JSON": lambda t, m: m.update(calls="{"),
    "a call without tensors": lambda t, m: [t.pop(name) for name in list(t) if name.startswith("calls/")],
    "an object": _calls(lambda call: call["given"][1][1][1].append(["dict", [["f", ["function", "os.system"]]]])),
    "a deep nest": _calls(lambda call: call["given"][1][0][1].append(_nested(100))),
    "a call before the first": _calls(lambda call: call.update(number=-1)),
    "half a call": _calls(lambda call: call.update(number=0.5)),
    "a call out of its place": _calls(lambda call: call.update(number=10**6)),
    "names that are no texts": _calls(lambda call: call["given"][1].__setitem__(1, ["dict", [[1, 1]]])),
    "odd order": lambda t, m: m.update(observation=m["observation"].replace('"order": 0', '"order": "a"')),
}


@pytest.fixture(scope="module")
def good_parts(tmp_path_factory) -> tuple[dict, dict]:
    """(tensors, metadata) of a good file."""
    net, path = Flat().requires_grad_(False), tmp_path_factory.mktemp("good") / "seen.safetensors"
    qs.observe(net, run_of(net)).save(path)
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_strangers_file_is_refused(good_parts, tmp_path, refused, attack):
    path = tmp_path / "seen.safetensors"
    tensors, metadata = map(dict, good_parts)
    ATTACKS[attack](tensors, metadata)
    save_file(tensors, path, metadata)
    with refused(QuantizationError, "damaged"):
        qs.load_observation(path)


def test_other_files_are_refused(tmp_path, refused):
    path = tmp_path / "a.safetensors"
    with refused(QuantizationError, "cannot read"):
        qs.load_observation(path)
    path.write_bytes(b"nothing")
    with refused(QuantizationError, "is not a safetensors"):
        qs.load_observation(path)
    save_file({"a": torch.ones(1)}, path)
    with refused(QuantizationError, "no observation of ours"):
        qs.load_observation(path)
