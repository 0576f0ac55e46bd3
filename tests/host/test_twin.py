"""The quantised twin of a MODEL: the source untouched, LoRAs right, the size true, on the real host."""

from __future__ import annotations

import pytest
import torch
from demo_model import picture
from exactness import differ, same_bits
from twin_layers import LINEAR, relative, with_lora


@pytest.fixture(scope="module")
def source(demo):
    return demo[0]


@pytest.fixture(scope="module")
def conditioning(demo, pack):
    return pack("nodes.host.conditioning").encode(demo[1], "a large apple on a white background")


def twin_of(pack, model, name: str = "w4a8", group_size: int | None = None):
    return pack("nodes.quantization.twin_model").quantized_twin(
        model, pack("nodes.quantization.backends").job_for(model, name, group_size)
    )


def snapshot(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def test_the_source_is_bit_identical_afterwards(pack, source, conditioning):
    before, full_picture = snapshot(source), picture(source, conditioning)
    twin, _ = twin_of(pack, source)
    picture(twin, conditioning)
    after = snapshot(source)
    assert before.keys() == after.keys()
    assert all(same_bits(before[name], after[name]) for name in before)
    assert same_bits(picture(source, conditioning), full_picture)


@pytest.mark.parametrize(("name", "most"), [("w8a8", 0.05), ("w4a8", 0.6), ("w4a16", 0.6)])
def test_the_twin_draws_nearly_the_same_and_is_deterministic(pack, source, conditioning, name, most):
    twin, report = twin_of(pack, source, name)
    twin_picture = picture(twin, conditioning)
    # Latent after four steps, against the float model: a loose bound that broken scales or packing cannot meet.
    assert 0 < relative(twin_picture, picture(source, conditioning)) < most
    again, _ = twin_of(pack, source, name)
    assert same_bits(picture(again, conditioning), twin_picture)
    assert len(report.quantized) == 19


def test_the_size_the_host_sees_is_the_packed_one(pack, source):
    import comfy.model_management

    twin, report = twin_of(pack, source)
    assert twin.model_size() == comfy.model_management.module_size(twin.model)
    assert twin.model_size() < 0.45 * source.model_size()
    assert report.bytes_after < 0.45 * report.bytes_before
    packed = twin.model.get_submodule(LINEAR).weight
    assert packed.dtype == torch.uint8
    assert packed.shape == (768, 256 // 2 + 256 // 32 + 2)  # two codes a byte, a byte for each 32, two for the row


def test_a_lora_after_quantizing_moves_the_picture_as_it_does_before(pack, source, conditioning):
    twin, _ = twin_of(pack, source, "w8a8")
    plain, full = picture(twin, conditioning), picture(with_lora(source, LINEAR), conditioning)
    after = picture(with_lora(twin, LINEAR), conditioning)
    before = picture(twin_of(pack, with_lora(source, LINEAR), "w8a8")[0], conditioning)
    shift = relative(after, plain)
    assert shift > 0.05, "the LoRA did nothing"
    # 8 bits are nearly lossless here: both ways must land near the float model with the LoRA.
    assert relative(after, full) < 0.25 * shift
    assert relative(before, full) < 0.25 * shift
    assert same_bits(picture(twin, conditioning), plain), "the LoRA stayed behind in the twin"


def test_a_twin_made_while_a_lora_clone_is_loaded_does_not_inherit_it(pack, source, conditioning):
    expected = picture(twin_of(pack, source, "w8a8")[0], conditioning)
    picture(with_lora(source, LINEAR), conditioning)  # leaves the LoRA merged into the shared modules
    assert same_bits(picture(twin_of(pack, source, "w8a8")[0], conditioning), expected)


def test_quantizing_twice_is_refused(pack, source):
    twin, _ = twin_of(pack, source)
    with pytest.raises(pack("qsched_core").QuantizationError, match="quantised already"):
        twin_of(pack, twin)


def test_the_hosts_loader_streams_as_it_would_unless_it_is_told_otherwise(pack, monkeypatch):
    """Some loads of the host's say nothing of it."""
    twins, calls = pack("nodes.quantization.twin_model"), []
    monkeypatch.setattr(twins, "quantized_twin", lambda model, job: (f"{model}, {job}", None))

    def load(path, disable_dynamic):
        calls.append(disable_dynamic)
        return [f"{path}/0", f"{path}/1"]

    init = (load, ("model",), 1)
    assert twins.make_again(init, "w4a8") == twins.make_again(init, "w4a8", disable_dynamic=True) == "model/1, w4a8"
    assert calls == [False, True]


def test_a_patch_of_a_weight_that_stays_float_spares_the_tensor(pack, source):
    """The source and what is made of it may hold the same one: the host's own patcher sets another in its place."""
    from comfy.utils import get_attr

    lora_model = twin_of(pack, source)[0].clone()
    key = "diffusion_model.img_in.weight"
    weight = get_attr(lora_model.model, key)
    assert lora_model.packed_layer(key) is None
    before = weight.clone()
    lora_model.add_patches({key: (torch.ones_like(weight),)})
    lora_model.patch_weight_to_device(key)
    assert differ(get_attr(lora_model.model, key), before)
    assert same_bits(weight, before)


def test_clones_and_two_twins_live_side_by_side(pack, source, conditioning):
    eight, four = twin_of(pack, source, "w8a8")[0], twin_of(pack, source, "w4a4", 0)[0]
    first, second = picture(eight, conditioning), picture(four, conditioning)
    assert differ(first, second)
    assert same_bits(picture(eight.clone(), conditioning), first)
    assert same_bits(picture(four.clone(), conditioning), second)


def test_model_and_twin_share_a_fingerprint_but_not_a_quantization(pack, source):
    describe = pack("nodes.host.model_info")
    twin, _ = twin_of(pack, source)
    ours, theirs = (describe.describe(m, "euler", "simple", 1.0) for m in (source, twin))
    assert ours.fingerprint == theirs.fingerprint
    assert (ours.quantization, theirs.quantization) == ("none", "w4a8/g32")
    assert (ours.model, ours.prediction) == ("FluxSchnell", "CONST")
    assert describe.fingerprint(with_lora(source, LINEAR)) == ours.fingerprint


def test_two_loras_of_one_strength_are_told_apart(pack, source):
    """A calibration's journal is found by what decides its figures; the strength alone once stood for the LoRA."""
    sums = pack("nodes.host.model_info").sums
    key = f"{LINEAR}.weight"
    one, same, other = (with_lora(source, LINEAR, scale).patches[key] for scale in (0.1, 0.1, 0.2))
    assert len(sums(one)) > 2
    assert sums(one) == sums(same) != sums(other)
