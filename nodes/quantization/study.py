"""A study of a MODEL's layers: its prompts sampled as the user samples, and what each layer loses on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import comfy.model_management
import comfy.sample
import torch

from ...qsched_core import QuantizationError
from ...qsched_core.quant import Format, Observation, Sensitivity, least_bits, measure_sensitivity, read_format
from ...qsched_core.quant.sensitivity.budget import check_bits
from ...qsched_core.quant.sensitivity.measure import studied_layers
from ..sampling.ksampler import Recipe, single_latent
from ..sampling.sampler_menu import sampler_object
from .patcher import ROOT
from .sources import is_source, require_readable
from .twin_model import Originals


class StudyPrompts:
    """What the network is shown: each entry of the conditioning by itself, all at one picture size.

    Raises:
        QuantizationError: guidance without a negative prompt.
        SamplingError: a latent with content that is not this model's.
    """

    def __init__(self, model, positive: list, negative: list | None, latent: dict, recipe: Recipe):
        if negative is None and recipe.cfg != 1.0:
            raise QuantizationError(f"cfg {recipe.cfg:g} needs a negative prompt.", "plug one in, or set cfg to 1")
        self.model, self.recipe = model, recipe
        self.positive, self.negative = positive, positive[:1] if negative is None else negative
        self.latent = single_latent(model, latent)[:1]

    def __len__(self) -> int:
        return len(self.positive)

    def sampled(self, seed: int) -> Callable[[], None]:
        """Samples every prompt with a noise of its own, and leaves the model loaded."""

        def drive() -> None:
            sigmas, sampler = torch.tensor(self.recipe.falling_sigmas(self.model)), sampler_object(self.recipe.sampler)
            for number, entry in enumerate(self.positive):
                noise = comfy.sample.prepare_noise(self.latent, seed + number)
                comfy.sample.sample_custom(
                    self.model, noise, self.recipe.cfg, sampler, sigmas, [entry], self.negative, self.latent,
                    disable_pbar=True, seed=seed + number,
                )  # fmt: skip
            comfy.model_management.load_models_gpu([self.model])

        return drive


def study(
    model,
    drive: Callable[[], None],
    formats: Sequence[Format],
    depth: str,
    on_progress: Callable[[int, int, str], None],
    observation: Observation | None = None,
    recording: Observation | None = None,
) -> Sensitivity:
    """The study of a MODEL. What a format loses is told from the weights as they were loaded; inputs are those of the
    MODEL with its LoRAs. With an ``observation`` it is not driven, and rounding is fitted to it; nor with a
    ``recording``, an observation without rows to fit to: then rounding is to nearest.

    Raises:
        QuantizationError: a model that was quantised here or by a pack of its own, or without a layer to study, or
            another one than that of the observation.
    """
    network, original = model.model.diffusion_model, Originals(model)
    require_readable(network)
    return measure_sensitivity(
        network,
        drive,
        formats,
        depth=depth,
        device=model.load_device,
        weight_of=lambda name, _: original.floats(f"{ROOT}.{name}"),
        is_source=is_source,
        observation=observation,
        recording=recording,
        on_progress=on_progress,
        check=comfy.model_management.throw_exception_if_processing_interrupted,
    )


def check_budget(model, formats: Sequence[Format], average_bits: float) -> None:
    """Raises QuantizationError for a budget that no plan can meet, before anything is sampled."""
    network = model.model.diffusion_model
    require_readable(network)
    check_bits(average_bits, least_bits(studied_layers(network), formats))


def read_formats(text: str) -> list[Format]:
    """Formats of a comma separated list. Raises QuantizationError for none, or one that is unknown."""
    forms = [read_format(part) for part in text.replace("\n", ",").split(",") if part.strip()]
    if not forms:
        raise QuantizationError("there is no format to study.", "write some, for example w4a8, w8a8")
    return forms
