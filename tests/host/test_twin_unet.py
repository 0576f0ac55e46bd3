"""The quantised twin of a U-Net, convolutions included: LoRA, partial loading and size, on the real host."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits
from twin_layers import CONV, relative, with_lora

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def source(tiny):
    return tiny.model("EPS")


def twin_of(pack, model, name: str = "w8a8", recipe: str = "compact"):
    job = pack("nodes.quantization.backends").job_for(model, name, backend="torch", recipe=recipe)
    return pack("nodes.quantization.twin_model").quantized_twin(model, job)


def picture(tiny, model) -> torch.Tensor:
    import comfy.samplers

    return tiny.run(model, comfy.samplers.sampler_object("euler"), tiny.schedule(model))


def test_convolutions_are_packed_and_the_source_is_untouched(pack, tiny, source):
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    full_picture = picture(tiny, source)
    twin, report = twin_of(pack, source, "w4a8")
    assert 0 < relative(picture(tiny, twin), full_picture) < 0.6
    assert twin.model.get_submodule(CONV).weight.dtype == torch.uint8
    assert {len(layer.shape) for layer in report.quantized} == {2, 4}
    assert twin.model_size() < 0.5 * source.model_size()
    after = source.model.state_dict()
    assert all(same_bits(value, after[name]) for name, value in before.items())
    assert same_bits(picture(tiny, source), full_picture)
    stock, _ = twin_of(pack, source, "w4a8", "stock")
    assert stock.model_size() > 1.2 * twin.model_size()


def test_a_preset_can_tell_the_recipes_apart(pack, source):
    describe = pack("nodes.host.model_info")
    compact, stock = (twin_of(pack, source, "w4a8", recipe)[0] for recipe in ("compact", "stock"))
    assert (describe.quantization(compact), describe.quantization(stock)) == ("conv+w4a8/g32+w8a8/channel", "w4a8/g32")
    assert describe.fingerprint(compact) == describe.fingerprint(stock) == describe.fingerprint(source)


def test_a_lora_on_a_packed_convolution_moves_the_picture_as_it_does_before(pack, tiny, source):
    twin, _ = twin_of(pack, source)
    plain, full = picture(tiny, twin), picture(tiny, with_lora(source, CONV))
    after, before = picture(tiny, with_lora(twin, CONV)), picture(tiny, twin_of(pack, with_lora(source, CONV))[0])
    shift = relative(after, plain)
    assert shift > 0.005, "the LoRA did nothing"
    assert relative(after, full) < 0.25 * shift
    assert relative(before, full) < 0.25 * shift
    assert same_bits(picture(tiny, twin), plain), "the LoRA stayed behind in the twin"
