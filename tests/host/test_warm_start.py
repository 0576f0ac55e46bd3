"""The warm start in the host: a known fault of a "quantised" model is found, at the places where its run went."""

from __future__ import annotations

import pytest
import torch
from exactness import same_bits

pytestmark = pytest.mark.usefixtures("one_thread")

GAIN = 1.08


@pytest.fixture(scope="module", params=["EPS", "V_PREDICTION", "FLOW"])
def full(request, tiny):
    return tiny.model(request.param)


@pytest.fixture(scope="module")
def flow(tiny):
    return tiny.model("FLOW")


def faulty(model, fault):
    """A MODEL whose network gives ``fault(output, number of the evaluation)``, counted from 0 in every run."""
    from comfy.patcher_extension import WrappersMP

    clone, count = model.clone(), [0]

    def start(executor, *args, **kwargs):
        count[0] = 0
        return executor(*args, **kwargs)

    def network(executor, *args, **kwargs):
        output = fault(executor(*args, **kwargs), count[0])
        count[0] += 1
        return output

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "test", start)
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", network)
    return clone


class Studio:
    """Stands in for the calibration's generator: picture i has noise i; the two of a batch share their prompt."""

    def __init__(self, pack, tiny, sampler: str, cfg: float = 1.0):
        self.tiny, self.cfg, self.runs, self.told = tiny, cfg, [], []
        self.sampler = pack("nodes.sampling.sampler_menu").sampler_object(sampler)
        self.warm = pack("nodes.calibrating.warm_start")

    def sample(self, model, indices, sampler) -> None:
        noise = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in indices])
        self.runs.append((model, tuple(indices)))
        self.tiny.run(
            model, sampler, self.tiny.schedule(model), self.cfg, noise=noise, latent_image=torch.zeros_like(noise)
        )

    def inputs(self, quantized, full) -> tuple:
        sigmas = self.tiny.schedule(full).tolist()
        return self.sample, quantized, full, (0, 1, 2), self.sampler, sigmas, 2, lambda *args: self.told.append(args)

    def starts(self, quantized, full):
        return self.warm.warm_starts(*self.inputs(quantized, full))

    def pairs(self, quantized, full):
        return self.warm.paired_outputs(*self.inputs(quantized, full))


# What samplers do differently: one look, noise, D alone, a run that is re-noised, two looks, history, other sigmas.
@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "lcm", "tcd", "heun", "res_multistep", "er_sde"])
def test_a_gain_of_the_network_is_found(pack, tiny, full, name):
    starts = Studio(pack, tiny, name).starts(faulty(full, lambda output, _: GAIN * output), full)
    # float32: the output is a small difference of x and D where sigma is small.
    for form in ("PTQD slope", "variance match", "least squares"):
        assert starts[form].c_eps == pytest.approx([1 / GAIN] * tiny.STEPS, rel=2e-5)
    assert starts["Q-Drift"].c_eps == pytest.approx([1] * tiny.STEPS, abs=1e-5)


def test_every_step_has_a_gain_of_its_own_with_guidance_too(pack, tiny, full):
    """At cfg 1 one evaluation of the network is one of the sampler; with guidance both predictions are one batch."""
    gains = (1.02, 1.06, 0.97, 1.11)
    for cfg in (1.0, 3.0):
        quantized = faulty(full, lambda output, number: gains[number] * output)
        starts = Studio(pack, tiny, "euler", cfg).starts(quantized, full)
        assert starts["PTQD slope"].c_eps == pytest.approx([1 / gain for gain in gains], rel=2e-5)


def test_outputs_are_in_units_of_the_derivative(pack, tiny, full):
    """Noise and velocity as the network gave them; v so that sigma times it is a distance in x. Q-Drift needs that."""
    import comfy.model_sampling

    outputs = []
    watched = faulty(full, lambda output, _: (outputs.append(output.double()), output)[1])
    squares_of_pairs = Studio(pack, tiny, "euler").pairs(full, watched).moments().ff
    sigmas = tiny.schedule(full)[:-1].double()
    # Four steps with two pictures, then with the third.
    squares = torch.stack([torch.cat([outputs[i], outputs[i + 4]]).square().mean() for i in range(4)])
    v = isinstance(full.get_model_object("model_sampling"), comfy.model_sampling.V_PREDICTION)
    expected = squares / (sigmas**2 + 1) if v else squares
    assert squares_of_pairs.tolist() == pytest.approx(expected.tolist(), rel=2e-5)


def test_only_the_first_look_of_a_step_counts(pack, tiny, flow):
    """heun looks twice at every step but the last."""
    quantized = faulty(flow, lambda output, number: output * (GAIN if number % 2 == 0 else 1.5))
    starts = Studio(pack, tiny, "heun").starts(quantized, flow)
    assert starts["PTQD slope"].c_eps == pytest.approx([1 / GAIN] * tiny.STEPS, rel=2e-5)


@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "lcm"])
def test_equal_models_give_the_identity_exactly(pack, tiny, full, name):
    studio = Studio(pack, tiny, name)
    assert studio.pairs(full, full).relative_error == (0,) * tiny.STEPS
    assert all(coefficients.is_identity for coefficients in studio.starts(full, full).values())


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde"])
def test_the_full_model_looks_where_the_quantized_one_looked(pack, tiny, flow, name):
    """Not along a run of its own; also at a sigma that a sampler shaved."""
    places = []

    def watched(model):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(
            lambda a: (places.append((a["input"].clone(), a["sigma"].clone())), a["denoised"])[1]
        )
        return model

    studio = Studio(pack, tiny, name)
    studio.pairs(watched(faulty(flow, lambda output, _: output.roll(1, -1))), watched(flow))
    # A run of two pictures with one model, then with the other; then the third picture.
    first, second, third, fourth = (places[i : i + tiny.STEPS] for i in range(0, len(places), tiny.STEPS))
    for ours, theirs in (*zip(first, second, strict=True), *zip(third, fourth, strict=True)):
        assert same_bits(ours[0], theirs[0])
        assert same_bits(ours[1], theirs[1])
    assert len(first[0][0]) == 2
    assert len(third[0][0]) == 1


def test_models_are_left_as_they_were(pack, tiny, flow):
    """A preset on either is not used, and is still there afterwards."""
    core, patch = pack("qsched_core"), pack("nodes.sampling.patch")
    sigmas, studio = tiny.schedule(flow), Studio(pack, tiny, "euler")
    preset = core.Preset(core.Coefficients.constant(4, c_x=0.95, c_eps=1.1), tuple(sigmas.tolist()))
    full = patch.model_with(flow, patch.PresetUse(preset))
    weights = {key: value.clone() for key, value in full.model.state_dict().items()}
    before = {name: str(getattr(full, name)) for name in ("wrappers", "object_patches", "model_options", "callbacks")}
    picture = tiny.run(full, studio.sampler, sigmas)
    quantized = patch.model_with(faulty(flow, lambda output, _: GAIN * output), patch.PresetUse(preset))
    studio.sampler = patch.sampler_with(studio.sampler, patch.PresetUse(preset))
    starts = studio.starts(quantized, full)
    assert starts["PTQD slope"].c_eps == pytest.approx([1 / GAIN] * tiny.STEPS, rel=2e-5)
    plain = Studio(pack, tiny, "euler").pairs(faulty(flow, lambda output, _: GAIN * output), flow)
    assert plain.moments().ff.tolist() == studio.pairs(quantized, full).moments().ff.tolist()
    assert {name: str(getattr(full, name)) for name in before} == before
    assert all(same_bits(weights[key], value) for key, value in full.model.state_dict().items())
    assert same_bits(tiny.run(full, patch.sampler_with(studio.sampler, patch.PresetUse(preset, 0)), sigmas), picture)


def test_progress_counts_pictures_with_either_model_and_can_stop(pack, tiny, flow):
    studio = Studio(pack, tiny, "euler")
    studio.pairs(flow, flow)
    assert [done for done, _, _ in studio.told] == [0, 2, 4, 5, 6]
    assert {total for _, total, _ in studio.told} == {6}
    assert [indices for _, indices in studio.runs] == [(0, 1), (0, 1), (2,), (2,)]

    def stop(done, total, text):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        studio.warm.paired_outputs(*studio.inputs(flow, flow)[:-1], stop)
    assert len(studio.runs) == 5


def test_what_gives_no_answer_is_refused(pack, tiny, flow):
    core = pack("qsched_core")
    with pytest.raises(core.SamplingError, match="keeps a copy|steps"):
        Studio(pack, tiny, "uni_pc").pairs(flow, flow)
    generator = torch.Generator().manual_seed(1)
    stranger = faulty(flow, lambda output, _: torch.randn(output.shape, generator=generator))
    with pytest.raises(core.CalibrationError, match="nothing in common"):
        Studio(pack, tiny, "euler").starts(stranger, flow)
