"""Step Sensitivity through the host: a plan from pictures, resumed after a cancel, with and without prompts."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import pytest
import torch

PROMPTS = "\n".join(
    f"a large {thing} on a {ground} background" for ground in ("white", "sky") for thing in ("apple", "star", "frog")
)


@pytest.fixture(scope="module")
def packed(demo, pack):
    @cache  # a study leaves a model as it is
    def packed(form: str):
        job = pack("nodes.quantization.backends").job_for(demo[0], form, backend="torch", last_steps=0)
        return pack("nodes.quantization.twin_model").quantized_twin(demo[0], job)[0]

    return packed


@pytest.fixture
def study(pack, demo, monkeypatch, tmp_path):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_system_user_directory", lambda name: str(tmp_path / name))
    node = pack("nodes.step_sensitivity").QSchedStepSensitivity
    monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id=None), raising=False)

    def study(model, prompts: str = "", budget: float = 0.6, steps: int = 2, side: int = 4, **more):
        latent = {"samples": torch.zeros(1, demo[0].get_model_object("latent_format").latent_channels, side, side)}
        return node.execute(
            model, demo[1], demo[2], latent, prompts, budget, "bits", steps, 1.0, "euler", "simple", "demo", **more
        ).args

    return study


@pytest.fixture
def pictures(pack, monkeypatch):
    """The indices of every picture that is sampled."""
    sampled, generator = [], pack("nodes.calibrating.generator").HostGenerator
    sample = generator.sample

    def counted(self, model, indices, *args):
        sampled.extend(indices)
        return sample(self, model, indices, *args)

    monkeypatch.setattr(generator, "sample", counted)
    return sampled


def test_a_study_gives_a_plan_a_model_and_a_report(pack, packed, study, pictures):
    pytest.importorskip("open_clip")
    precision, model, report, plot = study(packed("w4a4"), PROMPTS, model_2=packed("w8a8"))
    assert len(precision.activation_bits) == 2
    assert pack("nodes.sampling.step_precision").precision_of(model) == precision
    assert plot.shape == (1, 460, 1200, 3)
    assert "Distance when one step alone is coarser, and JAQ lost:" in report
    assert len(pictures) <= 3 * 2 * 3 * 6
    cost = pack("qsched_core.quant").bit_cost
    networks = [m.model.diffusion_model for m in pack("nodes.sampling.model_library").library_of(model)]
    numbers = precision.models or (0, 0)
    mean = sum(cost(networks[n], bits) for n, bits in zip(numbers, precision.activation_bits, strict=True)) / 2
    assert mean <= 0.6 * cost(networks[1])


def test_no_prompts_are_words_at_random(packed, study, pictures):
    pytest.importorskip("open_clip")
    narrow = packed("w4a4")
    precision, _, report, _ = study(narrow, budget=0.9, side=8)
    assert report.startswith("No prompts: words at random")
    assert precision.models == ()
    assert len(set(precision.activation_bits)) == 2
    assert "JAQ -" not in report.partition("Distance when")[0]
    count = len(pictures)
    assert 0 < count <= 3 * 2 * 2 * 12
    assert study(narrow, budget=0.9, side=8)[2].splitlines()[-1] == "0 pictures were made."  # all of it was kept
    assert len(pictures) == count
    twice_as_many = "\n".join([PROMPTS, PROMPTS.replace("large", "small")])
    prompted, *_ = study(narrow, twice_as_many, budget=0.9, side=8)
    assert prompted == precision  # the same plan, where prompts choose it


def test_a_cancel_keeps_what_was_measured(pack, packed, study, pictures, monkeypatch):
    import comfy.model_management

    class Interrupted(BaseException):
        pass

    def interrupted():
        if len(pictures) >= 24:
            raise Interrupted

    narrow = packed("w4a4")
    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
        with pytest.raises(Interrupted):
            study(narrow, budget=0.8)
    assert len(pictures) < 24 + 16  # no further batch was begun
    first = len(pictures)
    whole = study(narrow, budget=0.8)
    resumed = len(pictures) - first
    pictures.clear()
    assert study(narrow, budget=0.8, study_seed=1)[0] is not None
    assert resumed < len(pictures)
    assert whole[0] is not None


def test_a_cancel_within_a_picture_lets_no_evaluation_begin(packed, study):
    """However long a picture takes: the host's own layers ask."""
    import comfy.model_management as management

    narrow, begun = packed("w4a4"), []

    def begins(*_):
        begun.append(None)
        if len(begun) == 3:
            management.interrupt_current_processing()

    hook = narrow.model.diffusion_model.register_forward_pre_hook(begins)
    try:
        with pytest.raises(management.InterruptProcessingException):
            study(narrow, budget=0.8, steps=4)
    finally:
        hook.remove()
    assert len(begun) == 3


def test_what_leaves_nothing_to_choose_is_refused(pack, demo, packed, study, refused):
    core = pack("qsched_core")
    with refused(core.CalibrationError, "one precision to choose from"):
        study(packed("w4a16"))
    with refused(core.QuantizationError, "the plan names model 2, and one model is plugged in"):
        study(packed("w4a4"), formats="1, 2")
    with refused(core.CalibrationError, "no plan of the steps costs so little"):
        study(packed("w4a4"), budget=0.01)
