"""What can be no reference: each is refused by name, before anything is sampled."""

from __future__ import annotations

import copy

import pytest


@pytest.fixture(scope="module")
def packed(pack, tiny):
    """The tiny model in a format, as Quantize Model makes it."""

    def packed(form: str, source):
        job = pack("nodes.quantization.backends").job_for(source, form, group_size=0, backend="torch", include=["*"])
        return pack("nodes.quantization.twin_model").quantized_twin(source, job)[0]

    return packed


@pytest.fixture
def check(pack):
    return pack("nodes.calibrating.reference_model").check_reference


def test_the_full_model_and_its_eight_bit_twin_are_references(check, packed, tiny):
    full = tiny.model("EPS")
    model = packed("w4a4", full)
    check(model, full)
    check(model, packed("w8a8", full))


def test_the_model_itself_is_none(check, packed, tiny, errors, refused):
    model = packed("w4a4", tiny.model("EPS"))
    with refused(errors.CalibrationError, "the reference is the model itself."):
        check(model, model.clone())


def test_four_bits_are_none(check, packed, tiny, errors, refused):
    full = tiny.model("EPS")
    with refused(errors.CalibrationError, "the reference is quantised to "):
        check(packed("w4a4", full), packed("w4a16", full))


def test_another_family_is_none(check, tiny, demo, errors, refused):
    with refused(errors.CalibrationError, "the reference is a "):
        check(tiny.model("EPS"), demo[0])


def test_another_latent_is_none(check, tiny, demo, errors, refused):
    other = tiny.model("EPS").clone()
    other.add_object_patch("latent_format", demo[0].model.latent_format)
    with refused(errors.CalibrationError, "the reference makes latents of 16 channels"):
        check(tiny.model("EPS"), other)


def test_another_prediction_is_none(check, tiny, errors, refused):
    with refused(errors.CalibrationError, "the reference samples as V_PREDICTION, the model as EPS."):
        check(tiny.model("EPS"), tiny.model("V_PREDICTION"))


def test_four_bits_can_be_shown_beside_others(pack, packed, tiny):
    full = tiny.model("EPS")
    check = pack("nodes.calibrating.reference_model").check_other
    check(packed("w4a4", full), packed("w4a16", full))
    check(packed("w4a4", full), full)


def test_what_makes_other_pictures_is_shown_beside_none(pack, packed, tiny, demo, errors, refused):
    model = packed("w4a4", tiny.model("EPS"))
    check = pack("nodes.calibrating.reference_model").check_other
    with refused(errors.CalibrationError, "the other model is the model itself."):
        check(model, model.clone())
    with refused(errors.CalibrationError, "the other model is a "):
        check(model, demo[0])
    with refused(errors.CalibrationError, "the other model samples as V_PREDICTION, the model as EPS."):
        check(model, tiny.model("V_PREDICTION"))


def test_another_schedule_is_none(check, tiny, errors, refused):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    full = tiny.model("FLOW")
    shifted = ModelSamplingSD3().patch(tiny.model("FLOW"), shift=5.0)[0]
    with refused(errors.CalibrationError, "the reference has another schedule: sigma "):
        check(ModelSamplingSD3().patch(full, shift=3.0)[0], shifted)


@pytest.mark.parametrize("place", [0.25, 0.5, 0.75])
def test_a_schedule_that_differs_at_one_place_is_another(check, tiny, errors, refused, place):
    model, other = tiny.model("FLOW"), tiny.model("FLOW")
    schedule = other.get_model_object("model_sampling")
    bent = copy.copy(schedule)
    bent.percent_to_sigma = lambda percent: schedule.percent_to_sigma(percent) * (1.01 if percent == place else 1.0)
    other.add_object_patch("model_sampling", bent)
    with refused(errors.CalibrationError, "the reference has another schedule: sigma "):
        check(model, other)


@pytest.mark.parametrize(
    ("name", "few"),
    [
        ("none", False), ("w8a8 per channel", False), ("conv+w8a16", False), ("float8_e4m3fn", False),
        ("TensorWiseINT8Layout", False), ("conv+w4a8", True), ("w3a8", True), ("w6a8", True),
        ("TensorCoreNVFP4Layout", True), ("convrot_w4a4", True), ("Q4_K", True), ("GGMLTensor", False),
    ],
)  # fmt: skip
def test_names_of_formats_tell_few_bits(pack, name, few):
    assert pack("qsched_core.quant").has_few_bits(name) == few
