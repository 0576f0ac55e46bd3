"""Latents that are no pictures: videos are calibrated, their scores averaged over frames; the rest is refused."""

from __future__ import annotations

import pytest
import torch
from exactness import near, same_bits

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = tuple(f"a {size} {colour} circle" for size in ("small", "large") for colour in ("red", "blue", "green"))
WIDTH = 32
"""Of the text that the small video model reads."""


@pytest.fixture(scope="module")
def video_model():
    """A Wan of two blocks with random weights: latents (B, 16, T, h, w)."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.WAN21_T2V(
        {"image_model": "wan2.1", "model_type": "t2v", "dim": 128, "ffn_dim": 128, "freq_dim": 32, "text_dim": WIDTH,
         "in_dim": 16, "out_dim": 16, "num_heads": 1, "num_layers": 2, "dtype": torch.float32}
    )  # fmt: skip
    config.set_inference_dtype(torch.float32, None)
    torch.manual_seed(0)
    base = config.get_model({}, "")
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter, std=0.08 if parameter.ndim > 1 else 0.02)
    return comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))


class VideoVAE:
    """Decodes as the host's video VAEs do: (B, 16, T, h, w) -> (B, 4·T - 3, 8·h, 8·w, 3)."""

    first_stage_model = torch.nn.Linear(1, 1)

    def decode(self, samples):
        frames = samples[:, :3].repeat_interleave(4, dim=2)[:, :, 3:]
        return frames.sigmoid().repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2).movedim(1, -1)


@pytest.fixture
def prompts(pack):
    generator = torch.Generator().manual_seed(1)
    conditionings = [[[torch.randn(1, 5, WIDTH, generator=generator), {}]] for _ in TEXTS]
    return pack("nodes.calibrating.prompt_list").PromptList(TEXTS, "", "digest", conditionings=conditionings)


@pytest.fixture
def run(pack, calibrate_node, video_model, prompts):

    settings = pack("nodes.calibrating.options").CalibrationSettings

    def run(latent, **changed):
        inputs = {
            "model": video_model, "vae": VideoVAE(), "latent_image": {"samples": latent}, "prompts": "",
            "steps": 2, "cfg": 1.0, "sampler_name": "euler",
            "scheduler": "simple", "trials": 2, "metric": "demo", "batch_size": 2, "negative": "",
            "settings": settings(
                prompt_set=prompts, space="constant", radius=0.2, verdict_seeds=1, strategy="random"
            ),
        }  # fmt: skip
        return calibrate_node.execute(**{**inputs, **changed}).args

    return run


def generator_of(pack, model, vae, latent, prompts):
    setup = pack("nodes.calibrating.sampling_setup").setup_of(
        model, pack("nodes.sampling.ksampler").Recipe(2, 1.0, "euler", "simple")
    )
    positives = prompts.conditionings
    return pack("nodes.calibrating.generator").HostGenerator(model, vae, positives, positives[0], latent, setup, 0, 2)


def test_a_video_latent_is_calibrated_and_the_report_says_how(run):
    """Regression: frames were taken for pictures of other prompts."""
    preset, report, before_after, *_ = run(torch.zeros(1, 16, 6, 4, 4))
    assert preset.steps == 2
    assert "Videos: 8 of 21 frames of each are scored, and their scores averaged." in report
    assert before_after.ndim == 4


def test_a_quantized_video_model_is_held_to_the_full_ones_videos(pack, run, video_model):
    """Control and distances, all of them of videos."""
    job = pack("nodes.quantization.backends").job_for(video_model, "w4a8", backend="torch")
    twin, _ = pack("nodes.quantization.twin_model").quantized_twin(video_model, job)
    preset, report, before_after, *_ = run(torch.zeros(1, 16, 3, 4, 4), model=twin, full_model=video_model, trials=1)
    assert "Videos: 8 of 9 frames of each are scored" in report
    assert "distance to full" in preset.record["gains"]


def test_frames_belong_to_their_prompt_and_are_averaged(pack, video_model, prompts):
    core, frames, metrics = pack("qsched_core"), pack("calibration.frames"), pack("nodes.calibrating.scorer")
    generator = generator_of(pack, video_model, VideoVAE(), torch.zeros(1, 16, 3, 4, 4), prompts)
    identity = core.Coefficients.identity(2)
    videos = generator(identity, [0, 4, 7])
    assert videos.shape == (3, 8, 32, 32, 3)
    # Other batches take other kernels.
    assert near(generator(identity, [4])[0], videos[1])
    assert same_bits(frames.stills(videos), videos[:, 4])

    score, judge = metrics.load_scorer("demo").bind(TEXTS)
    averaged = {**score(videos, [0, 4, 7]), **judge(videos, [0, 4, 7])}
    for place, index in enumerate([0, 4, 7]):
        single = {**score(videos[place], [index] * 8), **judge(videos[place], [index] * 8)}
        for name in ("tc", "iq", "contrast", "saturation"):
            # 1e-5: float32 sums in other batches.
            assert averaged[name][place] == pytest.approx(single[name].mean(), abs=1e-5), name


def test_the_generator_tells_how_many_frames_were_taken(pack):
    for frames, note in ((6, "Videos: 8 of 21 frames of each are scored, and their scores averaged."), (1, "")):
        generator = pack("nodes.calibrating.generator").HostGenerator(
            None, VideoVAE(), [None], None, torch.zeros(1, 16, frames, 4, 4), setup=None, seed=0, batch_size=2
        )
        generator._decode(torch.zeros(3, 16, frames, 4, 4))
        assert generator.note == note


def test_a_short_video_keeps_all_its_frames_and_one_frame_is_a_picture(pack):
    decoded_pictures = pack("calibration.frames").decoded_pictures
    assert decoded_pictures(torch.rand(2, 5, 8, 8, 3), 2).shape == (2, 5, 8, 8, 3)
    assert decoded_pictures(torch.rand(2, 33, 8, 8, 4), 2).shape == (2, 8, 8, 8, 3)
    assert decoded_pictures(torch.rand(2, 1, 8, 8, 3), 2).shape == (2, 8, 8, 3)
    assert decoded_pictures(torch.rand(10, 8, 8, 3), 2).shape == (2, 5, 8, 8, 3)


def test_distances_and_thumbnails_of_videos(pack):
    pictures = pack("calibration.reference_pictures")
    videos = torch.rand(2, 3, 512, 512, 3)
    small = pictures.thumbnails(videos)
    assert small.shape == (2, 3, 256, 256, 3)
    assert near(small[1], pictures.thumbnails(videos[1]))  # another batch
    reference = pictures.ReferencePictures(lambda coefficients, indices: torch.zeros_like(videos), [0, 1], 4)
    assert reference.distance(videos, [0, 1]).shape == (2,)
    assert (reference.distance(videos, [0, 1]) > 0).all()


@pytest.mark.parametrize("shape", [(2, 2, 4000), (2, 8, 8, 1), (3, 8, 8, 3)], ids=str)
def test_what_is_no_picture_is_refused(pack, refused, shape):
    """Sound, for example."""
    with refused(pack("qsched_core").CalibrationError, "these are no pictures"):
        pack("calibration.frames").decoded_pictures(torch.rand(shape), 2)


def test_several_latents_in_one_are_refused_where_they_are_read(pack, run, refused):
    import comfy.nested_tensor

    nested = comfy.nested_tensor.NestedTensor([torch.zeros(1, 16, 3, 4, 4), torch.zeros(1, 8, 20)])
    with refused(pack("qsched_core").SamplingError, "this latent holds several"):
        run(nested)
