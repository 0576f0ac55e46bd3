"""What JAQ Calibrate ends with on the real host: its report beside other models, its pictures, and the page's."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from demo_model import PROMPTS, encoded
from PIL import Image

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the report


@pytest.fixture(scope="module")
def full_studies() -> list:
    """Holds what `full_study` has run."""
    return []


@pytest.fixture
def full_study(calibrate, demo, full_studies) -> tuple:
    """What ``calibrate(full_model=...)`` comes to, run once."""
    if not full_studies:
        full_studies.append(calibrate(full_model=demo[0]))
    return full_studies[0]


def test_the_full_model_brings_a_distance_and_a_control(full_study):
    _, report, outputs = full_study
    assert len(report["trace"]) == 1 + 2
    assert "distance to full" in report["gains"]
    rows = {row["name"]: row for row in report["table"]["rows"]}
    # Root mean square, pictures in [0, 1]. Not 0.0: the two are made in batches of other sizes, for which a CPU with
    # AVX-512 takes other kernels (9.4e-8 was seen). Quantising moves the pictures a thousand times farther.
    assert rows["full precision"]["distance to full"] == pytest.approx(0.0, abs=1e-6)
    assert rows["quantised"]["distance to full"] > 0.001
    for picture in outputs[2:]:
        assert picture.ndim == 4 and picture.shape[0] == 1 and picture.shape[3] == 3
        assert 0 <= float(picture.min()) < float(picture.max()) <= 1


def test_near_the_full_model_the_winner_is_no_farther_from_it(calibrate, full_study, demo):
    """The two random candidates of the test move the pictures a lot: then the identity wins, and that is said."""
    preset, report, _ = full_study
    assert report["trace"][0]["whole"] and not any(trial["whole"] for trial in report["trace"][1:])
    assert preset.coefficients.is_identity and not report["accepted"]
    assert preset.record["settings"]["stay near"]
    metrics = "contrast, saturation, sharpness, noise, distance to full"
    assert f"No candidate could win that worsens: {metrics}." in report["verdict"]
    free, _, _ = calibrate(full_model=demo[0], stay_near=False)
    assert not free.record["settings"]["stay near"]


def test_the_eight_bit_twin_is_as_good_a_reference(calibrate, demo, pack):
    """Made by Quantize Model when it is used. Its pictures are nearly the full model's."""
    _, report, _ = calibrate(full_model=pack("nodes.quantization.reference").reference_of(demo[0]))
    rows = {row["name"]: row for row in report["table"]["rows"]}
    assert rows["reference w8a8/channel"]["distance to full"] == pytest.approx(0.0, abs=1e-6)
    assert rows["quantised"]["distance to full"] > 0.001
    assert "Net of that: JAQ" in "".join(report["verdict"]) or report["coefficients"]["c_x"] == [1.0, 1.0]


def test_without_a_full_model_there_is_nothing_to_stay_near_to(plain_study):
    assert not plain_study[0].record["settings"]["stay near"]


@pytest.mark.parametrize("strategy", ["grid", "greedy", "random", "tpe"])
def test_every_strategy_ends_with_a_map(calibrate, strategy):
    space = "table" if strategy == "greedy" else "first step"
    _, report, outputs = calibrate(strategy=strategy, space=space, grid=2, steps=3, trials=3)
    assert len(report["trace"]) == {"grid": 5, "greedy": 6}.get(strategy, 4)
    assert outputs[3].shape[0] == 1


# --- the page


def test_the_page_gets_the_stock_sampler_s_pictures_beside_the_candidate_s(calibrate, pack, monkeypatch):
    events = []
    monkeypatch.setattr(pack("nodes.calibrating.run_progress"), "tell", lambda node, name, event: events.append(event))
    calibrate()
    pairs = [event["pictures"] for event in events if event["pictures"]]
    assert pairs[0]["before"] == pairs[0]["after"], "the first is the stock sampler itself"
    assert pairs[1]["before"] == pairs[0]["before"] != pairs[1]["after"]
    start, _, data = pairs[1]["after"].partition(",")
    assert start == "data:image/jpeg;base64"
    size = Image.open(io.BytesIO(base64.b64decode(data))).size
    assert size == (32, 32), "one picture: of two the divider in the middle would lie on the seam"


def test_a_candidate_that_was_finished_is_on_the_map_when_a_cancel_comes_with_it(pack, monkeypatch):
    """Regression: the node said "Stopped at 8", and 7 candidates were on its map."""
    from comfy import model_management

    module, events = pack("nodes.calibrating.run_progress"), []
    monkeypatch.setattr(module, "tell", lambda node, name, event: events.append(event))
    trial = pack("calibration.search.trials").Trial({"c_x_first": 1.0}, 0.5, 4, True)
    identity = pack("qsched_core").Coefficients.identity(2)
    state = pack("calibration").Progress("search", 4, 10, identity, 0.5, 0.4, None, (), trial, (trial,), 4)
    progress = module.RunProgress(None, 10, 0.2)
    model_management.interrupt_current_processing()
    with pytest.raises(model_management.InterruptProcessingException):
        progress.show(state, "study")
    assert [event["trial"]["jaq"] for event in events] == [0.5]
    assert progress.stopped(4) == {"kind": "stopped", "count": 0, "total": 3}


def test_the_result_goes_to_the_page_as_rows_of_the_same_prompts(calibrate, pack, monkeypatch):
    outputs = []
    monkeypatch.setattr(pack("nodes.calibrate"), "keep_output", lambda cls, output: outputs.append(output) or output)
    calibrate()
    (pictures,) = outputs[0]["qsched_pictures"]
    assert [row["name"] for row in pictures["rows"]] == ["quantised", "quantised + Q-Sched"]
    assert [len(row["files"]) for row in pictures["rows"]] == [4, 4]
    assert set(pictures["texts"]) < set(PROMPTS)
    assert "images" not in outputs[0], "the host would draw them once more"


def test_one_more_model_is_shown_beside_the_others_and_changes_nothing(calibrate, demo, pack, monkeypatch):
    outputs, calls = [], []
    generator = pack("nodes.calibrating.generator").HostGenerator
    call = generator.__call__

    def count(self, coefficients, indices):
        calls.append((self.model, tuple(indices)))
        return call(self, coefficients, indices)

    monkeypatch.setattr(generator, "__call__", count)
    monkeypatch.setattr(pack("nodes.calibrate"), "keep_output", lambda cls, output: outputs.append(output) or output)
    job = pack("nodes.quantization.backends").job_for(demo[0], "w4a8", group_size=0, backend="torch")
    other = pack("nodes.quantization.twin_model").quantized_twin(demo[0], job)[0]
    _, report, out = calibrate(full_model=demo[0])
    alone = len(calls)
    _, with_other, beside = calibrate(full_model=demo[0], other_model=other)
    assert with_other["gains"] == report["gains"], "it is not judged, and the study is read from the journal"
    rows = [[row["name"] for row in output["qsched_pictures"][0]["rows"]] for output in outputs]
    assert rows[0] == ["full precision", "quantised", "quantised + Q-Sched"]
    assert rows[1] == [*rows[0], "other model: w4a8/channel"]
    sizes = [output["qsched_pictures"][0]["rows"][-1]["files"] for output in outputs]
    assert len(sizes[0]) == len(sizes[1]) == 4
    height = out[2].shape[1] // 3
    assert torch.equal(beside[2][:, : 3 * height], out[2][:, : 3 * height]), "read from a journal they are made again"
    of_other = [indices for model, indices in calls[alone:] if model is other]
    assert len(of_other) == 1, "its pictures are made once"
    held_out = [indices for _, indices in calls[:alone] if min(indices) >= len(PROMPTS)]
    assert len(held_out) <= 4, "two rows of either model: what the verdict was made on is shown, and not made again"


@pytest.mark.usefixtures("one_damping")
def test_a_model_that_differs_by_its_rounding_alone_is_called_fitted(pack, demo, demo_twin):
    """Layers at its edges keep more bits where an observation has found them: no other format was asked for."""
    title = pack("nodes.calibrating.outcome")._other_title
    prompts = pack("nodes.quantization.study").StudyPrompts(
        demo[0], encoded(demo, PROMPTS[0]), None, {"samples": torch.zeros(1, 16, 4, 4)},
        pack("nodes.sampling.ksampler").Recipe(2, 1.0, "euler", "simple"),
    )  # fmt: skip
    observation = pack("nodes.quantization.layer_observation").observed(demo[0], prompts.sampled(0))
    job = pack("nodes.quantization.backends").job_for(
        demo[0], "w4a4", group_size=0, backend="torch", observation=observation
    )
    gptq = pack("nodes.quantization.twin_model").quantized_twin(demo[0], job)[0].clone()
    assert pack("nodes.host.model_info").quantization(gptq) != "w4a4/channel"
    assert title(demo_twin, gptq) == "quantised, fitted"
    assert title(gptq, demo_twin) == "other model: w4a4/channel"
    assert title(gptq, demo[0]) == "other model: full precision"


def test_a_gallery_is_one_picture_with_a_row_for_each_name(pack):
    gallery = pack("nodes.calibrating.gallery").gallery
    red, blue = torch.zeros(2, 64, 64, 3), torch.zeros(1, 64, 64, 3)
    red[..., 0], blue[..., 2] = 1.0, 1.0
    sheet = gallery([("first", red), ("second", blue)])
    assert (sheet.dtype, sheet.shape[0], sheet.shape[3]) == (torch.float32, 1, 3)
    assert sheet.shape[2] < 2 * 256, "as wide as the shortest row"
    middle = sheet.shape[1] // 2
    for part, colour in ((sheet[0, :middle], [1.0, 0.0, 0.0]), (sheet[0, middle:], [0.0, 0.0, 1.0])):
        assert (part == torch.tensor(colour)).all(-1).sum() == 256 * 256
    assert sheet.max() == 1.0 and sheet.min() == 0.0


def test_thumbnails_keep_shape_and_mean(pack):
    pictures = torch.rand(2, 512, 1024, 3, generator=torch.Generator().manual_seed(0))
    small = pack("calibration.reference_pictures").thumbnails(pictures)
    assert small.shape == (2, 128, 256, 3)
    # 1e-4: the mean of means of equal areas.
    assert small.mean() == pytest.approx(float(pictures.mean()), abs=1e-4)
