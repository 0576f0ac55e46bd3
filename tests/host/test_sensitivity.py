"""Quantization Sensitivity on the real host: studied on prompts, planned exactly, followed by the quantiser."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from demo_model import UNSEEN, picture
from exactness import same_bits

pytestmark = pytest.mark.usefixtures("one_thread", "empty_store")

TEXTS = (
    "a large apple on a white background",
    "a small star on a sand background",
    "a large frog left of a small apple on a white background",
)


@pytest.fixture(scope="module")
def source(demo):
    return demo[0]


@pytest.fixture(scope="module")
def encoded(demo, pack):
    encode = pack("nodes.host.conditioning").encode
    return {text: encode(demo[1], text) for text in TEXTS + UNSEEN}


@pytest.fixture(scope="module")
def positive(encoded):
    """As the host's Conditioning (Combine) joins them."""
    return [entry for text in TEXTS for entry in encoded[text]]


@pytest.fixture(scope="module")
def node(pack):
    return pack("nodes.sensitivity").QSchedSensitivity


def latent(channels: int = 16, value: float = 0.0) -> dict:
    return {"samples": torch.full((1, channels, 8, 8), value)}


def inputs(model, positive, **changed) -> dict:
    return {
        "model": model,
        "positive": positive,
        "latent_image": latent(),
        "average_bits": 5.0,
        "depth": "layers",
        "steps": 2,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "study_seed": 0,
        "formats": "w4a8, w8a8",
        **changed,
    }


@pytest.fixture(scope="module")
def layers_report(node, source, positive):
    """(plan, report, plot)"""
    return node.execute(**inputs(source, positive)).args


@pytest.fixture(scope="module")
def network_study(pack, node, source, positive) -> tuple:
    """((plan, report, plot) of the node, the study that it made of them)."""
    module, studies = pack("nodes.quantization.study"), []
    real = module.study

    def study(*args):
        studies.append(real(*args))
        return studies[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "study", study)
        outputs = node.execute(**inputs(source, positive, depth="network")).args
    return outputs, studies[0]


@pytest.fixture(params=["layers", "network"])
def study_report(request):
    if request.param == "layers":
        return request.getfixturevalue("layers_report")
    return request.getfixturevalue("network_study")[0]


@pytest.fixture
def study(network_study):
    return network_study[1]


def drawn(model, conditioning, seed: int) -> torch.Tensor:
    return picture(model, conditioning, steps=1, seed=seed)


def hooks(model) -> int:
    modules = model.model.modules()
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


def planned(pack, source, plan):
    return pack("nodes.quantization.twin_model").quantized_twin(
        source, pack("nodes.quantization.backends").job_for(source, "w4a8", backend="torch", plan=plan)
    )


@pytest.fixture(scope="module")
def error_of(pack, source, encoded):
    """Of a plan: of one evaluation at the noisiest step, on prompts and noises that the study has not seen."""
    unseen = list(enumerate(UNSEEN * 4, 100))
    exact = [drawn(source, encoded[text], seed) for seed, text in unseen]

    def error_of(plan) -> float:
        model, _ = planned(pack, source, plan)
        ours = (drawn(model, encoded[text], seed) for seed, text in unseen)
        return sum(((a - b).norm() / b.norm()).item() ** 2 for a, b in zip(ours, exact, strict=True)) ** 0.5

    return error_of


def test_the_quantizer_follows_the_plan(pack, source, study_report):
    plan, report, plot = study_report
    twin, quantized = planned(pack, source, plan)
    followed = {layer.name: layer.format for layer in quantized.layers if layer.name in plan.forms}
    assert followed == {name: "" if form is None else str(form) for name, form in plan.forms.items()}
    assert len(followed) == 19
    assert len(set(followed.values())) > 1
    assert plot.shape == (1, 600, 1200, 3)
    assert 0 <= plot.min() < 0.3 < 0.9 < plot.max() <= 1
    assert report.startswith("19 layers studied on 6 evaluations")
    assert hooks(source) == 0


def test_the_model_is_left_as_it_is(node, source, positive, encoded):
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    picture = drawn(source, encoded[UNSEEN[0]], 1)
    node.execute(**inputs(source, positive, depth="network", formats="w4a8"))
    after = source.model.state_dict()
    assert all(same_bits(before[name], after[name]) for name in before)
    assert same_bits(drawn(source, encoded[UNSEEN[0]], 1), picture)


def test_the_same_inputs_give_the_same_plan(node, source, positive, layers_report):
    plan, report, _ = node.execute(**inputs(source, positive)).args
    assert (plan.forms, report) == (layers_report[0].forms, layers_report[1])


def test_the_plan_loses_less_than_uniform_and_random_ones_of_its_size(error_of, study):
    plan = study.plan(average_bits=5.0)
    ours = error_of(plan)
    four, eight = study.formats
    assert ours < 0.9 * error_of(study.uniform(four))
    draw, others = random.Random(0), []
    while len(others) < 4:
        forms = {layer.name: eight if draw.random() < 0.15 else four for layer in study.layers}
        other = type(plan)(forms)
        if 0 <= study.bits(plan) - study.bits(other) < 0.1:
            others.append(error_of(other))
    assert ours < min(others)


def test_what_is_predicted_is_what_comes(pack, source, positive, study):
    """Squares of layers' errors add up nearly: the whole network with all layers packed, against the prediction."""
    measuring, twin = (
        pack("qsched_core.quant.sensitivity.measure"),
        planned(pack, source, study.uniform(study.formats[0]))[0],
    )
    calls, errors = [], []
    network = source.model.diffusion_model

    def keep(module, args, kwargs, output):
        calls.append((args, {**kwargs, "transformer_options": dict(kwargs["transformer_options"])}, output))

    with network.register_forward_hook(keep, with_kwargs=True):
        for seed, entry in enumerate(positive):
            drawn(source, [entry], seed)
    for args, kwargs, output in calls:
        errors.append(measuring.content_and_quality(twin.model.diffusion_model(*args, **kwargs), output))
    true = (sum(c**2 + q**2 for c, q in errors) / len(errors)) ** 0.5
    # Within a factor of 2: first steps only, and errors that are not quite independent.
    assert 0.5 < true / study.predicted(study.uniform(study.formats[0])) < 2


# --- the first token


@pytest.fixture(scope="module")
def unet(tiny):
    """An SD1.5-shaped U-Net, wide enough that its cross-attention is packed."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15({**tiny.UNET, "model_channels": 64, "context_dim": 128})
    config.set_inference_dtype(torch.float32, None)
    torch.manual_seed(0)
    base = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS)
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.02)
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


def texts(constant: bool, count: int = 3) -> list:
    generator = torch.Generator().manual_seed(5)
    entries = [[torch.randn(1, 7, 128, generator=generator), {}] for _ in range(count)]
    if constant:
        start = torch.randn(128, generator=generator)
        start[3] = 20.0
        for context, _ in entries:
            context[:, 0] = start
    return entries


def test_clips_first_token_is_found_and_kept(pack, node, unet):
    entries = texts(constant=True)
    negative = [[entries[0][0].clone(), {}]]
    negative[0][0][:, 1:] += 1
    small = inputs(unet, entries, latent_image=latent(4), steps=2, cfg=3.0, negative=negative)
    plan, report, _ = node.execute(**small).args
    expected = {name for name in plan.forms if ".attn2.to_k" in name or ".attn2.to_v" in name}
    assert set(plan.first_tokens) == expected
    assert len(expected) == 2 * 3, "of all its attention"
    assert f"kept exactly in {len(expected)} layers" in report
    twin, _ = planned(pack, unet, plan)
    name = next(name for name in sorted(expected) if plan.forms[name] is not None)
    packed, full = (model.model.diffusion_model.get_submodule(name) for model in (twin, unet))
    exact, ours = full(entries[1][0]), packed(entries[1][0])
    assert (ours[:, 0] - exact[:, 0]).norm() < 1e-5 * exact[:, 0].norm()
    assert (ours[:, 1:] - exact[:, 1:]).norm() > 1e-3 * exact[:, 1:].norm()
    assert twin.model_size() < unet.model_size()
    packed.weight_function.append(lambda weight: weight + 0.01)  # as the host runs a LoRA when memory is low
    shift = packed(entries[1][0])[:, 0] - 0.01 * entries[1][0][:, 0].sum(-1, keepdim=True)
    assert (shift - exact[:, 0]).norm() < 1e-2 * exact[:, 0].norm()  # the token is rounded for the product


@pytest.mark.parametrize(("constant", "count"), [(False, 3), (True, 1)])
def test_no_first_token_where_it_varies_or_one_prompt_cannot_tell(node, unet, constant, count):
    small = inputs(unet, texts(constant, count), latent_image=latent(4), steps=1)
    plan, report, _ = node.execute(**small).args
    assert plan.first_tokens == {}
    assert report.startswith("One prompt") == (count == 1)


def test_it_survives_a_file(pack, node, unet, tmp_path):
    quant = pack("qsched_core.quant")
    plan = node.execute(**inputs(unet, texts(True), latent_image=latent(4), steps=1)).args[0]
    twin, _ = planned(pack, unet, plan)
    network = twin.model.diffusion_model
    packed = pack("nodes.quantization.patcher").bytes_of(twin.model)  # whoever else asks for its weights gets floats
    quant.save_quantized(network, tmp_path / "a.safetensors", values=packed)
    fresh = copy.deepcopy(unet.model.diffusion_model)
    quant.restore(fresh, quant.load_quantized(tmp_path / "a.safetensors"), pack("nodes.quantization.layers").TWINS)
    for name, value in packed.items():
        assert same_bits(fresh.state_dict()[name], value)
    tokens = [name for name in fresh.state_dict() if name.endswith(".first_token")]
    assert tokens == [name for name in packed if name.endswith(".first_token")] != []


# --- LoRAs, cancelling, wrong inputs


def test_a_lora_is_sampled_with_and_the_weights_below_it_are_judged(pack, node, source, positive):
    import comfy.sd

    generator = torch.Generator().manual_seed(2)
    name = "single_blocks.0.linear2"
    outputs, columns = source.model.diffusion_model.get_submodule(name).weight.shape
    lora = {
        "lora_unet_single_blocks_0_linear2.lora_up.weight": torch.randn(outputs, 4, generator=generator),
        "lora_unet_single_blocks_0_linear2.lora_down.weight": torch.randn(4, columns, generator=generator),
    }
    lora_model = comfy.sd.load_lora_for_models(source, None, lora, 0.5, 0.0)[0]
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    sensitivity = pack("nodes.quantization.study")
    recipe = pack("nodes.sampling.ksampler").Recipe(2, 1, "euler", "simple")
    errors = {}
    for kind, model in (("without", source), ("with", lora_model)):
        prompts = sensitivity.StudyPrompts(model, positive[:1], None, latent(), recipe)
        forms = sensitivity.read_formats("w4a8")
        layers = sensitivity.study(model, prompts.sampled(0), forms, "layers", lambda *args: None).layers
        errors[kind] = {layer.name: layer for layer in layers}
    assert errors["with"][name].kurtosis == errors["without"][name].kurtosis
    later_layer = "single_blocks.2.linear1"
    assert errors["with"][later_layer].measures[0].error != errors["without"][later_layer].measures[0].error
    drawn(source, positive[:1], 0)
    assert all(same_bits(value, source.model.state_dict()[key]) for key, value in before.items())


@pytest.mark.parametrize("after", [0, 5, 14, 30, 60])
def test_a_cancel_ends_it_and_leaves_no_hooks(pack, node, source, positive, monkeypatch, after):
    import comfy.model_management as management

    progress = pack("nodes.host.progress").NodeProgress
    real, count, places = progress.update, [0], []

    def update(self, done, text="", picture=None):
        count[0] += 1
        places.append((done, self.total, text))
        if count[0] > after:
            management.interrupt_current_processing()
        real(self, done, text, picture)

    monkeypatch.setattr(progress, "update", update)
    with pytest.raises(management.InterruptProcessingException):
        node.execute(**inputs(source, positive, depth="network"))
    assert count[0] == after + 1
    assert places[0] == (0, 1, "recording, evaluation 1")
    assert hooks(source) == 0


def test_wrong_inputs_are_refused_before_anything_is_sampled(pack, node, source, positive, monkeypatch):
    import comfy.sample

    monkeypatch.setattr(comfy.sample, "sample_custom", lambda *args, **more: pytest.fail("it sampled"))
    refusal = pack("qsched_core").QuantizationError
    for changed, text in (
        ({"formats": "w5a8"}, "'w5a8' is unknown"),
        ({"formats": "w4a8/h3"}, "w4a8/h3"),
        ({"formats": " , "}, "no format"),
        ({"average_bits": 4.0}, "4 bits a weight are too few"),
        ({"cfg": 3.0}, "cfg 3 needs a negative prompt"),
    ):
        with pytest.raises(refusal, match=text):
            node.execute(**inputs(source, positive, **changed))
    with pytest.raises(pack("qsched_core").SamplingError, match="3 channels"):
        node.execute(**inputs(source, positive, latent_image=latent(3, 1.0)))
    twin, _ = planned(pack, source, None)
    with pytest.raises(refusal, match="quantised already"):
        node.execute(**inputs(twin, positive))


def test_a_latent_with_content_and_other_formats(node, source, positive):
    plan = node.execute(
        **inputs(source, positive, latent_image=latent(16, 0.5), formats="w4a8/g64, w6a8\nw8a8/channel", average_bits=6)
    ).args[0]
    assert {str(form) for form in plan.forms.values()} <= {"w4a8/g64", "w6a8/g32", "w8a8/channel", "None", "w8a8/g32"}
