"""The 8-bit reference of Quantize Model: a MODEL like any other, made when it is first used and not before."""

from __future__ import annotations

import gc

import pytest
import torch


@pytest.fixture
def deferred(pack, tiny):
    """(its MODEL, the source, how often it was made)"""
    source, makes = tiny.model("EPS"), []

    def make():
        makes.append(1)
        job = pack("nodes.quantization.backends").job_for(source, "w8a8", backend="torch")
        return pack("nodes.quantization.twin_model").quantized_twin(source, job)[0]

    return pack("nodes.quantization.deferred_model").DeferredModel(make, like=source), source, makes


def test_it_is_not_made_where_nobody_uses_it(deferred):
    """What the host's cache, its memory manager and a garbage collector do with an output is no use of it."""
    import comfy_execution.caching as caching
    from comfy.model_patcher import ModelPatcher

    model, _, makes = deferred
    assert isinstance(model, ModelPatcher)
    if hasattr(caching, "all_outputs_dynamic"):
        assert not caching.all_outputs_dynamic([[model]])
    assert not hasattr(model, "shape") and not hasattr(model, "get_tensor")
    if hasattr(model, "get_ram_usage"):
        assert model.get_ram_usage() == 0
    del model
    gc.collect()
    assert not makes


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.clone(),
        lambda model: model.model.diffusion_model,
        lambda model: model.get_model_object("model_sampling"),
        lambda model: model.model_size(),
        lambda model: model.is_clone(model),
    ],
    ids=["clone", "network", "object", "size", "is clone"],
)
def test_it_is_made_once_by_whatever_uses_it(deferred, pack, use):
    model, _, makes = deferred
    use(model)
    use(model)
    assert makes == [1]
    assert type(model) is pack("nodes.quantization.patcher").PackedPatcher


def test_it_samples_as_the_twin_does(deferred, pack, tiny):
    model, source, makes = deferred
    import comfy.samplers

    sigmas = torch.tensor([2.0, 1.0, 0.0])
    euler = comfy.samplers.sampler_object("euler")
    job = pack("nodes.quantization.backends").job_for(source, "w8a8", backend="torch")
    twin = pack("nodes.quantization.twin_model").quantized_twin(source, job)[0]
    assert torch.equal(tiny.run(model, euler, sigmas), tiny.run(twin, euler, sigmas))
    assert type(model) is type(twin)
    assert makes == [1]


def test_a_failure_is_told_and_it_can_be_tried_again(pack, tiny, deferred):
    _, source, _ = deferred
    tries = []

    def make():
        tries.append(1)
        if len(tries) == 1:
            raise MemoryError("no room")
        return source.clone()

    model = pack("nodes.quantization.deferred_model").DeferredModel(make, like=source)
    with pytest.raises(MemoryError):
        model.clone()
    assert model.clone().model is source.model
    assert tries == [1, 1]


def test_the_node_gives_it_as_its_last_output(pack, tiny, monkeypatch):
    from types import SimpleNamespace

    node = pack("nodes.quantize_model").QSchedQuantizeModel
    monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id=None, prompt=None, extra_pnginfo=None), raising=False)
    out = node.execute(tiny.model("EPS"), "w4a4", "per channel", "*", "").args
    assert len(out) == 3
    pack("nodes.calibrating.reference_model").check_reference(out[0], out[2])
    label = pack("nodes.host.model_info").quantization(out[2])
    assert "w8a8" in label and not pack("qsched_core.quant").has_few_bits(label)
