"""Pictures <-> latents: a TAESD-shaped autoencoder with 16 channels, which the stock VAELoader recognises.

The encoder is computed, not trained: the first sixteen principal components of 8×8 patches, written into
TAESD's convolutions. They keep 97.5 % of the variance of our pictures, the same patch has the same latent wherever it
is, and the flow can be trained beside the decoder. That one is a trained TAESD decoder: it knows the things. Trained
together with it, an encoder was far behind after a thousand steps (18 dB; 25 dB this way after half as many).
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import EncoderTiny
from torch import Tensor, nn
from torch.nn import functional as F

from ..scenes import PICTURE_SIZE, draw, places, sample_scenes
from .loop import Schedule, Workshop, half_precision, train

LATENT_CHANNELS = 16
PATCH_SIZE = 8
CROP_SIZE = 64
"""The decoder learns from pieces of pictures around the things: plain ground teaches it little."""

LATENT_NOISE = 0.15
"""The most noise added before decoding: the decoder must forgive what a few-step sampler leaves behind."""


class Codec(nn.Module):
    """``encode``: (B, 3, H, W) in [0, 1] -> (B, 16, H/8, W/8), about unit variance; ``decode`` is its inverse."""

    def __init__(self) -> None:
        super().__init__()
        components, offset = _principal_components()
        self.register_buffer("components", components)
        self.register_buffer("offset", offset)
        self.tiny = AutoencoderTiny(latent_channels=LATENT_CHANNELS)
        _write_encoder(self.tiny.encoder, components, offset)
        self.tiny.encoder.requires_grad_(False)
        for module in self.tiny.decoder.modules():
            if hasattr(module, "fuse"):
                # A block starts near the identity: without norms, a deep ReLU stack learns little otherwise.
                nn.init.zeros_(module.conv[-1].bias)
                module.conv[-1].weight.data.mul_(0.1)

    def encode(self, pictures: Tensor) -> Tensor:
        """The same numbers as TAESD's encoder, for the price of one small matrix product."""
        patches = F.pixel_unshuffle(pictures * 2 - 1, PATCH_SIZE)
        return torch.einsum("bchw,kc->bkhw", patches, self.components) + self.offset.view(1, -1, 1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        return (self.tiny.decoder(latents) + 1) / 2


def train_decoder(shop: Workshop, schedule: Schedule) -> Codec:
    """Three steps of four see four pieces with things in them, the fourth one whole picture, as it will be used."""
    torch.manual_seed(11)
    codec = Codec().to(memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        pictures = draw(sample_scenes(1, generator), generator) if step % 4 == 3 else _crops(4, generator)
        latents = codec.encode(pictures)
        amount = LATENT_NOISE * torch.rand(len(pictures), 1, 1, 1, generator=generator)
        latents = latents + amount * torch.randn(latents.shape, generator=generator)
        with half_precision():
            output = codec.decode(latents.contiguous(memory_format=torch.channels_last))
        error = output.float() - pictures
        psnr = -10 * error.detach().square().mean().log10().item()
        return error.abs().mean() + 4 * error.square().mean(), {"psnr": psnr}

    train(shop, "decoder", codec, schedule, loss, average=0.998)
    return codec.float()


def _crops(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, 64, 64): pieces of drawn scenes that begin at a patch's corner, each with a part of a thing."""
    rows = sample_scenes(count, generator)
    pictures = draw(rows, generator)
    crops = []
    for picture, row in zip(pictures, rows.tolist(), strict=True):
        things = places(row)
        _, x, y, width = things[int(torch.randint(len(things), (1,), generator=generator))]
        shift = torch.rand(2, generator=generator).tolist()
        left, top = (_crop_start(start, width, s) for start, s in zip((x, y), shift, strict=True))
        crops.append(picture[:, top : top + CROP_SIZE, left : left + CROP_SIZE])
    return torch.stack(crops)


def _crop_start(start: int, width: int, shift: float) -> int:
    """A multiple of the patch size, in the picture, so that the crop holds the thing or is filled by it."""
    low, high = sorted((start, start + width - CROP_SIZE))
    low, high = max(0, low - PATCH_SIZE), min(PICTURE_SIZE - CROP_SIZE, high + PATCH_SIZE)
    return round((low + shift * (high - low)) / PATCH_SIZE) * PATCH_SIZE


@torch.no_grad()
def _principal_components() -> tuple[Tensor, Tensor]:
    """Rows (16, 192) that map a patch in [-1, 1] to a latent, and the offset (16,) that centres it."""
    generator = torch.Generator().manual_seed(5)
    pictures = draw(sample_scenes(2000, generator), generator) * 2 - 1
    patches = F.pixel_unshuffle(pictures, PATCH_SIZE).permute(0, 2, 3, 1).reshape(-1, 3 * PATCH_SIZE**2).double()
    mean = patches.mean(0)
    variance, vectors = torch.linalg.eigh(torch.cov(patches.T))
    variance = variance.flip(0)[:LATENT_CHANNELS]
    # Small components are rare and large where they are: this brings them to about 1 there, within TAESD's soft ±3,
    # and leaves more weight to what is seen more.
    scales = (variance / variance[0]) ** 0.25 / variance.sqrt()
    rows = vectors.flip(1)[:, :LATENT_CHANNELS].T * scales.unsqueeze(1)
    return rows.float(), -(rows @ mean).float()


@torch.no_grad()
def _write_encoder(encoder: EncoderTiny, components: Tensor, offset: Tensor) -> None:
    """Write a linear map of 8×8 patches into TAESD's encoder.

    Blocks become identities of non-negative values (TAESD's first layer sees pixels in [0, 1]). Each strided
    convolution moves 2×2 neighbours into channels; the last one applies the components, as a positive and a
    negative half, which the final convolution puts together again.
    """
    for parameter in encoder.parameters():
        parameter.zero_()
    first, *middle, last = [m for m in encoder.layers if isinstance(m, nn.Conv2d)]
    for channel in range(3):
        first.weight[channel, channel, 1, 1] = 1.0
    for level, channels in ((0, 3), (1, 12)):
        for channel in range(channels):
            for dy in (0, 1):
                for dx in (0, 1):
                    middle[level].weight[4 * channel + 2 * dy + dx, channel, 1 + dy, 1 + dx] = 1.0
    patch = components.view(LATENT_CHANNELS, 3, PATCH_SIZE, PATCH_SIZE)
    for colour in range(3):
        for y in range(PATCH_SIZE):
            for x in range(PATCH_SIZE):
                outer = 4 * colour + 2 * (y & 1) + (x & 1)
                inner = 4 * outer + 2 * (y >> 1 & 1) + (x >> 1 & 1)
                value = 2 * patch[:, colour, y, x]
                middle[2].weight[:LATENT_CHANNELS, inner, 1 + (y >> 2), 1 + (x >> 2)] = value
                middle[2].weight[LATENT_CHANNELS : 2 * LATENT_CHANNELS, inner, 1 + (y >> 2), 1 + (x >> 2)] = -value
    for k in range(LATENT_CHANNELS):
        last.weight[k, k, 1, 1] = 1.0
        last.weight[k, LATENT_CHANNELS + k, 1, 1] = -1.0
    last.bias.copy_(offset - components.sum(1))
