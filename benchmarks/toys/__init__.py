"""Two really trained small text-to-picture models that run without a host, many pictures per second.

``flow`` is the demo's own FLUX-shaped model; ``noise`` a noise-predicting U-Net for four LCM steps (``train.py``).
Both paint the demo's latents from the demo's frozen text encoder, and the demo's decoder shows them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

import qsched_core as qs
from calibration.metrics.pixels import pixel_statistics
from demo import files
from demo.networks import FLUX_CONFIG, TEXT_CONFIG
from demo.scenes import PICTURE_SIZE, caption_of, sample_scenes
from demo.vocabulary import BEGIN, CONTEXT_LENGTH, END, VOCABULARY_SIZE, compact_ids

from .unet import STUDENT_TIMESTEPS, make_unet, predict_noise, sigma_table

KINDS = ("flow", "noise")
VISIBLE_DAMAGE = {"flow": {"group_size": 0, "include": ["*"]}, "noise": {"group_size": 0}}
"""Options of ``Toy.quantized`` that show what few bits do: one scale per channel, on the flow toy in all layers (the
other one does not survive that)."""

NOISE_WEIGHTS = Path(__file__).parent / "noise.safetensors"
LOG = Path(__file__).parent / "training_log.jsonl"
LATENT = (16, 16, 16)

DECODED_AT_ONCE = 8
"""Pictures; more do not stay in a core's cache."""

Generate = Callable[[qs.Coefficients, Sequence[int]], Tensor]
Score = Callable[[Tensor, Sequence[int]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Toy:
    """A model and how it samples: ``sigmas`` (5,) as ``qs.sample`` takes them, flow times or VE sigmas, and the bits of
    each step."""

    kind: str
    network: nn.Module
    text: CLIPTextModel
    decoder: nn.Module
    sigmas: tuple[float, ...]
    sampler: str
    prediction: str
    precision: qs.Precision | None = None

    def quantized(self, format: str, **options) -> Toy:
        """This toy with a quantised copy of its network; options are those of ``qs.quantize``, without last steps of
        finer activations where they do not say so.

        Raises:
            QuantizationError: as ``qs.quantize``.
        """
        network = copy.deepcopy(self.network)
        report = qs.quantize(network, format, **{"last_steps": 0, **options})
        return replace(self, network=network, precision=report.precision(self.sigmas))

    def generator(self, captions: Sequence[str], seed: int = 0, batch: int = 64) -> Generate:
        """generate(coefficients, indices) -> pictures (B, 128, 128, 3) in [0, 1].

        Index i is caption i mod n; its noise, fresh noise too, is a function of (seed, i) alone.
        """
        with torch.inference_mode():
            out = self.text(input_ids=compact_ids(list(captions)))
        states, pooled = out.last_hidden_state, out.pooler_output

        @torch.inference_mode()
        def generate(coefficients: qs.Coefficients, indices: Sequence[int]) -> Tensor:
            pictures = torch.empty(len(indices), PICTURE_SIZE, PICTURE_SIZE, 3)
            for start in range(0, len(indices), batch):
                chunk = indices[start : start + batch]
                rows = torch.tensor([i % len(captions) for i in chunk])
                noises = iter(self.noises(seed, chunk))
                latents = self.sample(next(noises), (states[rows], pooled[rows]), coefficients, noises)
                pictures[start : start + len(chunk)] = decode(self.decoder, latents)
            return pictures

        return generate

    def observed(self, captions: Sequence[str], seed: int = 99) -> qs.Observation:
        """What the layers see while each caption is sampled once by itself."""
        with torch.inference_mode():
            out = self.text(input_ids=compact_ids(list(captions)))
        states, pooled = out.last_hidden_state.clone(), out.pooler_output.clone()
        identity = qs.Coefficients.identity(len(self.sigmas) - 1)

        def run() -> None:
            for i in range(len(captions)):
                noises = iter(self.noises(seed, [i]))
                self.sample(next(noises), (states[i : i + 1], pooled[i : i + 1]), identity, noises)

        return qs.observe(self.network, run)

    def noises(self, seed: int, indices: Sequence[int]) -> Tensor:
        """(steps, B, 16, 16, 16): what a run starts from, and its fresh noises."""
        steps = 1 if self.sampler == "euler" else len(self.sigmas) - 1
        draws = [np.random.default_rng((seed, i)).standard_normal((steps, *LATENT), np.float32) for i in indices]
        return torch.from_numpy(np.stack(draws, axis=1))

    def sample(
        self, noise: Tensor, text: tuple[Tensor, Tensor], coefficients: qs.Coefficients, fresh: Iterator[Tensor]
    ) -> Tensor:
        """Latents (B, 16, 16, 16) from unit noise; ``fresh`` iterates over the noises of the steps."""
        flow = self.kind == "flow"
        model = flow_model(self.network, text) if flow else noise_model(self.network, text)
        sigmas = torch.tensor(self.sigmas)
        x = noise * (sigmas[0] if flow else (1 + sigmas[0].square()).sqrt())
        return qs.sample(
            self.sampler, model, x, sigmas, coefficients, flow=flow, noise_sampler=lambda sigma, after: next(fresh),
            precision=self.precision,
        )  # fmt: skip


def load(kind: str) -> Toy:
    """One of ``KINDS``, in full precision.

    Raises:
        ValueError: unknown kind.
        FileNotFoundError: a weight file is missing.
    """
    if kind not in KINDS:
        raise ValueError(f"no toy is called {kind!r}; there are {', '.join(KINDS)}")
    if kind == "flow":
        network: nn.Module = FluxTransformer2DModel(**FLUX_CONFIG)
        network.load_state_dict(files.read(files.MODEL))
        sigmas, sampler = (1.0, 0.75, 0.5, 0.25, 0.0), "euler"
    else:
        network = make_unet()
        network.load_state_dict(files.read(NOISE_WEIGHTS))
        sigmas, sampler = (*sigma_table()[list(STUDENT_TIMESTEPS)].tolist(), 0.0), "lcm"
    network.eval().requires_grad_(False)
    return Toy(kind, network, load_text_encoder(), load_decoder(), sigmas, sampler, kind)


def load_text_encoder() -> CLIPTextModel:
    """The demo's text encoder, frozen."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY_SIZE, bos_token_id=BEGIN, eos_token_id=END, pad_token_id=END, **TEXT_CONFIG
    )
    encoder = CLIPTextModel(config)
    weights = files.read(files.TEXT)
    del weights["clip_ids"]
    prefix = "text_model." if any(name.startswith("text_model.") for name in encoder.state_dict()) else ""
    encoder.load_state_dict({prefix + name: value for name, value in weights.items()})
    return encoder.eval().requires_grad_(False)


def load_decoder() -> nn.Module:
    """The demo's TAESD decoder without its first clamp; the host's names count that clamp as layer 0."""
    layers = AutoencoderTiny(latent_channels=LATENT[0]).decoder.layers
    prefix, weights = "taesd_decoder.", {}
    for name, value in files.read(files.VAE).items():
        if name.startswith(prefix):
            index, rest = name.removeprefix(prefix).split(".", 1)
            weights[f"{int(index) - 1}.{rest}"] = value
    layers.load_state_dict(weights)
    # Channels last: 1.4 times as fast, and decoding is most of a picture's time.
    return layers.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def decode(decoder: nn.Module, latents: Tensor) -> Tensor:
    """Pictures (B, 128, 128, 3) in [0, 1] of latents (B, 16, 16, 16)."""
    parts = (torch.tanh(latents / 3) * 3).split(DECODED_AT_ONCE)
    return torch.cat([decoder(part).movedim(1, -1) for part in parts]).clamp_(0, 1)


def flow_model(network: nn.Module, text: tuple[Tensor, Tensor]) -> qs.samplers.Model:
    """The velocity's denoised prediction x - sigma·v, latents packed in patches of 2×2 as FLUX has them."""
    states, pooled = text
    grid = torch.meshgrid(torch.zeros(1), torch.arange(8.0), torch.arange(8.0), indexing="ij")
    image_ids, text_ids = torch.stack(grid, dim=-1).view(64, 3), torch.zeros(CONTEXT_LENGTH, 3)

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        tokens = F.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)
        out = network(
            hidden_states=tokens,
            timestep=sigma,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            img_ids=image_ids,
            txt_ids=text_ids,
            return_dict=False,
        )[0]
        return x - sigma.view(-1, 1, 1, 1) * F.pixel_shuffle(out.transpose(1, 2).unflatten(2, (8, 8)), 2)

    return model


def noise_model(network: nn.Module, text: tuple[Tensor, Tensor]) -> qs.samplers.Model:
    """The noise's denoised prediction x - sigma·noise; a sigma stands at the timestep nearest to it."""
    table = sigma_table().log()

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        timesteps = (sigma.log()[:, None] - table).abs().argmin(dim=1)
        sigma = sigma.view(-1, 1, 1, 1)
        return x - sigma * predict_noise(network, x, timesteps, sigma, text[0])

    return model


def captions(count: int, seed: int) -> list[str]:
    """``count`` distinct captions that no net has seen in training.

    Raises:
        ValueError: the demo's world has fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    texts: dict[str, None] = {}
    for _ in range(20):
        if len(texts) >= count:
            return list(texts)[:count]
        texts.update(dict.fromkeys(caption_of(row) for row in sample_scenes(count, generator, held_out=True)))
    raise ValueError(f"there are not {count} held-out captions")


def scored(captions: Sequence[str], batch: int = 64) -> tuple[Score, Score]:
    """(score, judge) as ``calibration`` calls them: (pictures, indices) -> {metric: (B,) float64}."""
    from demo.judges import DemoJudge, DemoScorer

    scorer, referee = DemoScorer(), DemoJudge()

    def run(net: nn.Module, pictures: Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        texts = [captions[i % len(captions)] for i in indices]
        parts = [
            net.score(pictures[start : start + batch], texts[start : start + batch])
            for start in range(0, len(texts), batch)
        ]
        return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}

    def score(pictures: Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        return run(scorer, pictures, indices)

    def judge(pictures: Tensor, indices: Sequence[int]) -> dict[str, np.ndarray]:
        pixels = {name: values.double().numpy() for name, values in pixel_statistics(pictures).items()}
        return {**run(referee, pictures, indices), **pixels}

    return score, judge
