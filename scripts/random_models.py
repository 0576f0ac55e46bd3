"""Small checkpoints of the real architectures with random weights, which ComfyUI's own loaders take for the real ones.

Shapes are as narrow and as shallow as the host's detection allows; names are those of the published files. What comes
out of such a model is noise, but every step to it is the real one. `python -m scripts.random_models --out DIR [model…]`
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, ...]]
FINGERPRINT = "shapes"


@dataclass(frozen=True)
class Model:
    """One file: the tensors in it, their type, and the folder below `models` in which the host looks for it."""

    folder: str
    dtype: torch.dtype
    shapes: Callable[[], Shapes]
    seed: int = 0
    """Other weights in the same shapes."""

    def fingerprint(self) -> str:
        """Tells files of other shapes apart, so that an old one is made anew."""
        return hashlib.sha256(
            repr((sorted(self.shapes().items()), self.dtype, *([self.seed] if self.seed else []))).encode()
        ).hexdigest()[:16]


def write(name: str, folder: Path) -> Path:
    """The file of the model `name` in `folder`, made unless it is there; renamed into place, so never half a file."""
    model = MODELS[name]
    path = folder / f"{name}.safetensors"
    if _made_of(path) == model.fingerprint():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        save_file(tensors(model), unfinished, {FINGERPRINT: model.fingerprint()})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def tensors(model: Model) -> dict[str, torch.Tensor]:
    """Its weights: N(0, 1/fan_in), norms, gammas and scales 1, biases and shifts 0. A tensor depends on its name and
    on the model's seed alone."""
    return {name: _tensor(name, shape, model.seed).to(model.dtype) for name, shape in model.shapes().items()}


def _tensor(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    if name.endswith(("bias", "shift")):
        return torch.zeros(shape)
    if len(shape) < 2 or name.endswith("gamma"):
        return torch.ones(shape)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed)
    return torch.empty(shape).normal_(0, prod(shape[1:]) ** -0.5, generator=generator)


def _made_of(path: Path) -> str | None:
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get(FINGERPRINT)
    except (OSError, SafetensorError):
        return None


def _layer(name: str, outs: int, *ins: int, bias: bool = True) -> Shapes:
    """A Linear layer or, with a kernel after the input width, a convolution."""
    return {f"{name}.weight": (outs, *ins), **({f"{name}.bias": (outs,)} if bias else {})}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _below(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


# --- Stable Diffusion 1.5 and SDXL -----------------------------------------------------------------------------------

CHANNELS, EMBEDDING = 320, 4 * 320


def _unet(depths: tuple[int, ...], context: int, label: int | None) -> Shapes:
    """One residual block per resolution with `depths` transformer layers, none on the way up or in the middle."""
    linear = label is not None
    shapes = {**_layer("time_embed.0", EMBEDDING, CHANNELS), **_layer("time_embed.2", EMBEDDING, EMBEDDING)}
    if label is not None:
        shapes |= {**_layer("label_emb.0.0", EMBEDDING, label), **_layer("label_emb.0.2", EMBEDDING, EMBEDDING)}
    shapes |= _layer("input_blocks.0.0", CHANNELS, 4, 3, 3)
    for level, depth in enumerate(depths):
        if level:
            shapes |= _layer(f"input_blocks.{2 * level}.0.op", CHANNELS, CHANNELS, 3, 3)
        shapes |= _residual(f"input_blocks.{2 * level + 1}.0", CHANNELS)
        if depth:
            shapes |= _transformer(f"input_blocks.{2 * level + 1}.1", depth, context, linear)
    for block in range(2 * len(depths)):
        shapes |= _residual(f"output_blocks.{block}.0", 2 * CHANNELS)
        if block % 2 and block + 1 < 2 * len(depths):
            shapes |= _layer(f"output_blocks.{block}.1.conv", CHANNELS, CHANNELS, 3, 3)
    return shapes | _norm("out.0", CHANNELS) | _layer("out.2", 4, CHANNELS, 3, 3)


def _residual(at: str, ins: int) -> Shapes:
    skip = _layer(f"{at}.skip_connection", CHANNELS, ins, 1, 1) if ins != CHANNELS else {}
    return {
        **_norm(f"{at}.in_layers.0", ins),
        **_layer(f"{at}.in_layers.2", CHANNELS, ins, 3, 3),
        **_layer(f"{at}.emb_layers.1", CHANNELS, EMBEDDING),
        **_norm(f"{at}.out_layers.0", CHANNELS),
        **_layer(f"{at}.out_layers.3", CHANNELS, CHANNELS, 3, 3),
        **skip,
    }


def _transformer(at: str, depth: int, context: int, linear: bool) -> Shapes:
    kernel = () if linear else (1, 1)
    shapes = {**_norm(f"{at}.norm", CHANNELS), **_layer(f"{at}.proj_in", CHANNELS, CHANNELS, *kernel)}
    for layer in range(depth):
        block = f"{at}.transformer_blocks.{layer}"
        for attention, width in (("attn1", CHANNELS), ("attn2", context)):
            shapes |= _layer(f"{block}.{attention}.to_q", CHANNELS, CHANNELS, bias=False)
            shapes |= _layer(f"{block}.{attention}.to_k", CHANNELS, width, bias=False)
            shapes |= _layer(f"{block}.{attention}.to_v", CHANNELS, width, bias=False)
            shapes |= _layer(f"{block}.{attention}.to_out.0", CHANNELS, CHANNELS)
        shapes |= _layer(f"{block}.ff.net.0.proj", 8 * CHANNELS, CHANNELS)
        shapes |= _layer(f"{block}.ff.net.2", CHANNELS, 4 * CHANNELS)
        for number in (1, 2, 3):
            shapes |= _norm(f"{block}.norm{number}", CHANNELS)
    return shapes | _layer(f"{at}.proj_out", CHANNELS, CHANNELS, *kernel)


def _checkpoint(unet: Shapes) -> Shapes:
    return {**_below("model.diffusion_model.", unet), **_below("first_stage_model.", _taesd(4))}


def sd15() -> Shapes:
    """Stable Diffusion 1.5 with one resolution, 13.6 M; with a TAESD, without a text encoder."""
    return _checkpoint(_unet((1,), 768, None))


def sdxl() -> Shapes:
    """The cheapest of the SDXL family, KOALA-700M, in equal widths, 60.6 M; with a TAESD, without text encoders."""
    return _checkpoint(_unet((0, 2, 5), 2048, 2816))


def sd15_lora() -> Shapes:
    """Rank 4 on the attention of the only transformer block, named as LCM's and PCM's files name it."""
    block = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0"
    widths = {"attn1_to_q": CHANNELS, "attn1_to_v": CHANNELS, "attn2_to_k": 768, "attn2_to_v": 768}
    return {name: s for layer, ins in widths.items() for name, s in _lora(f"{block}_{layer}", CHANNELS, ins).items()}


def _lora(name: str, outs: int, ins: int, rank: int = 4) -> Shapes:
    return {f"{name}.lora_down.weight": (rank, ins), f"{name}.lora_up.weight": (outs, rank), f"{name}.alpha": ()}


# --- FLUX ------------------------------------------------------------------------------------------------------------

FLUX = 128  # the width of one head


def flux1_schnell() -> Shapes:
    """FLUX.1-schnell with one head and one block of each kind, 1.6 M."""
    shapes = {**_layer("img_in", FLUX, 64), **_layer("txt_in", FLUX, 4096)}
    for name, ins in {"time_in": 256, "vector_in": 768}.items():
        shapes |= {**_layer(f"{name}.in_layer", FLUX, ins), **_layer(f"{name}.out_layer", FLUX, FLUX)}
    for stream in ("img", "txt"):
        shapes |= _layer(f"double_blocks.0.{stream}_mod.lin", 6 * FLUX, FLUX)
    shapes |= _layer("single_blocks.0.modulation.lin", 3 * FLUX, FLUX)
    shapes |= _flux_blocks(hidden=4 * FLUX, gate=1, bias=True)
    return shapes | _flux_final(64, bias=True)


def flux2_klein() -> Shapes:
    """FLUX.2-klein-4B with one head and one block of each kind, 2.0 M."""
    shapes = {**_layer("img_in", FLUX, 128, bias=False), **_layer("txt_in", FLUX, 7680, bias=False)}
    shapes |= _layer("time_in.in_layer", FLUX, 256, bias=False) | _layer("time_in.out_layer", FLUX, FLUX, bias=False)
    for name, parts in {"double_stream_modulation_img": 6, "double_stream_modulation_txt": 6}.items():
        shapes |= _layer(f"{name}.lin", parts * FLUX, FLUX, bias=False)
    shapes |= _layer("single_stream_modulation.lin", 3 * FLUX, FLUX, bias=False)
    shapes |= _flux_blocks(hidden=3 * FLUX, gate=2, bias=False)
    return shapes | _flux_final(128, bias=False)


def _flux_blocks(hidden: int, gate: int, bias: bool) -> Shapes:
    shapes = {}
    for stream in ("double_blocks.0.img", "double_blocks.0.txt"):
        shapes |= _layer(f"{stream}_attn.qkv", 3 * FLUX, FLUX, bias=bias)
        shapes |= _layer(f"{stream}_attn.proj", FLUX, FLUX, bias=bias)
        shapes |= _layer(f"{stream}_mlp.0", gate * hidden, FLUX, bias=bias)
        shapes |= _layer(f"{stream}_mlp.2", FLUX, hidden, bias=bias)
    shapes |= _layer("single_blocks.0.linear1", 3 * FLUX + gate * hidden, FLUX, bias=bias)
    shapes |= _layer("single_blocks.0.linear2", FLUX, FLUX + hidden, bias=bias)
    norms = ("double_blocks.0.img_attn.norm", "double_blocks.0.txt_attn.norm", "single_blocks.0.norm")
    return shapes | {f"{norm}.{part}_norm.scale": (FLUX,) for norm in norms for part in ("query", "key")}


def _flux_final(outs: int, bias: bool) -> Shapes:
    modulation = _layer("final_layer.adaLN_modulation.1", 2 * FLUX, FLUX, bias=bias)
    return {**_layer("final_layer.linear", outs, FLUX, bias=bias), **modulation}


# --- Z-Image and Qwen-Image: their width is what they are known by, so they stay wide ---------------------------------


def z_image() -> Shapes:
    """Z-Image with one layer beside its four refiners, 909 M."""
    dim, step = 3840, 256
    shapes = {"x_pad_token": (1, dim), "cap_pad_token": (1, dim), "cap_embedder.0.weight": (2560,)}
    shapes |= _layer("x_embedder", dim, 64) | _layer("cap_embedder.1", dim, 2560)
    shapes |= _layer("t_embedder.mlp.0", 1024, step) | _layer("t_embedder.mlp.2", step, 1024)
    for block in ("noise_refiner.0", "noise_refiner.1", "layers.0", "context_refiner.0", "context_refiner.1"):
        shapes |= _layer(f"{block}.attention.qkv", 3 * dim, dim, bias=False)
        shapes |= _layer(f"{block}.attention.out", dim, dim, bias=False)
        shapes |= {f"{block}.attention.{part}_norm.weight": (128,) for part in "qk"}
        shapes |= {f"{block}.{part}.weight": (dim,) for part in ZIMAGE_NORMS}
        shapes |= _layer(f"{block}.feed_forward.w2", dim, dim * 8 // 3, bias=False)
        for part in ("w1", "w3"):
            shapes |= _layer(f"{block}.feed_forward.{part}", dim * 8 // 3, dim, bias=False)
        if not block.startswith("context"):
            shapes |= _layer(f"{block}.adaLN_modulation.0", 4 * dim, step)
    return shapes | _layer("final_layer.linear", 64, dim) | _layer("final_layer.adaLN_modulation.1", dim, step)


ZIMAGE_NORMS = ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2")


def qwen_image() -> Shapes:
    """Qwen-Image with one layer, 380 M."""
    dim, block = 3072, "transformer_blocks.0"
    shapes = {"txt_norm.weight": (3584,), **_layer("img_in", dim, 64), **_layer("txt_in", dim, 3584)}
    shapes |= _layer("time_text_embed.timestep_embedder.linear_1", dim, 256)
    shapes |= _layer("time_text_embed.timestep_embedder.linear_2", dim, dim)
    for stream in ("img", "txt"):
        shapes |= _layer(f"{block}.{stream}_mod.1", 6 * dim, dim)
        shapes |= _layer(f"{block}.{stream}_mlp.net.0.proj", 4 * dim, dim)
        shapes |= _layer(f"{block}.{stream}_mlp.net.2", dim, 4 * dim)
    for name in ("q", "k", "v"):
        shapes |= _layer(f"{block}.attn.to_{name}", dim, dim) | _layer(f"{block}.attn.add_{name}_proj", dim, dim)
    shapes |= _layer(f"{block}.attn.to_out.0", dim, dim) | _layer(f"{block}.attn.to_add_out", dim, dim)
    shapes |= {f"{block}.attn.norm_{part}.weight": (128,) for part in ("q", "k", "added_q", "added_k")}
    return shapes | _layer("norm_out.linear", 2 * dim, dim) | _layer("proj_out", 64, dim)


def qwen_image_lora() -> Shapes:
    """Rank 4 on a part of the only layer, named as the Lightning files name it."""
    attention = "transformer_blocks.0.attn"
    return _lora(f"{attention}.to_q", 3072, 3072) | _lora(f"{attention}.add_v_proj", 3072, 3072)


# --- Krea-2 and Wan ---------------------------------------------------------------------------------------------------

TEXT, TEXT_LAYERS = 40, 2  # of Krea-2: the width that twenty heads of two have, and the layers of the encoder it reads


def krea2() -> Shapes:
    """Krea-2 with one head and one block, 0.5 M."""
    shapes = {**_layer("first", FLUX, 64), **_layer("tmlp.0", FLUX, 256), **_layer("tmlp.2", FLUX, FLUX)}
    shapes |= _krea2_block("blocks.0", FLUX, FLUX, hidden=3 * FLUX) | {"blocks.0.mod.lin": (6 * FLUX,)}
    for block in ("layerwise_blocks.0", "layerwise_blocks.1", "refiner_blocks.0", "refiner_blocks.1"):
        shapes |= _krea2_block(f"txtfusion.{block}", TEXT, TEXT // 20, hidden=FLUX)
    shapes |= _layer("txtfusion.projector", 1, TEXT_LAYERS, bias=False) | {"txtmlp.0.scale": (TEXT,)}
    shapes |= _layer("txtmlp.1", FLUX, TEXT) | _layer("txtmlp.3", FLUX, FLUX) | _layer("tproj.1", 6 * FLUX, FLUX)
    return shapes | {"last.norm.scale": (FLUX,), "last.modulation.lin": (2, FLUX), **_layer("last.linear", 64, FLUX)}


def _krea2_block(at: str, width: int, head: int, hidden: int) -> Shapes:
    shapes = {f"{at}.{norm}.scale": (width,) for norm in ("prenorm", "postnorm")}
    shapes |= {f"{at}.attn.qknorm.{norm}.scale": (head,) for norm in ("qnorm", "knorm")}
    for name in ("wq", "wk", "wv", "gate", "wo"):
        shapes |= _layer(f"{at}.attn.{name}", width, width, bias=False)
    for name, outs, ins in (("gate", hidden, width), ("up", hidden, width), ("down", width, hidden)):
        shapes |= _layer(f"{at}.mlp.{name}", outs, ins, bias=False)
    return shapes


def wan() -> Shapes:
    """Wan 2.1 or 2.2 for text to video with one head and one block, 0.9 M; two files of it are the two experts."""
    shapes = {**_layer("patch_embedding", FLUX, 16, 1, 2, 2), **_layer("text_embedding.0", FLUX, 4096)}
    shapes |= _layer("text_embedding.2", FLUX, FLUX) | _layer("time_embedding.0", FLUX, 256)
    shapes |= _layer("time_embedding.2", FLUX, FLUX) | _layer("time_projection.1", 6 * FLUX, FLUX)
    for attention in ("self_attn", "cross_attn"):
        for name in "qkvo":
            shapes |= _layer(f"blocks.0.{attention}.{name}", FLUX, FLUX)
        shapes |= {f"blocks.0.{attention}.norm_{name}.weight": (FLUX,) for name in "qk"}
    shapes |= _layer("blocks.0.ffn.0", FLUX, FLUX) | _layer("blocks.0.ffn.2", FLUX, FLUX)
    shapes |= _norm("blocks.0.norm3", FLUX)
    shapes |= {"blocks.0.modulation": (1, 6, FLUX), "head.modulation": (1, 2, FLUX)}
    return shapes | _layer("head.head", 64, FLUX)


def wan_lora() -> Shapes:
    """Rank 4 on a part of the only block, named as the lightx2v files name it."""
    shapes = {}
    for layer in ("self_attn.q", "ffn.2"):
        shapes |= _lora(f"diffusion_model.blocks.0.{layer}", FLUX, FLUX)
    return shapes


# --- VAEs ------------------------------------------------------------------------------------------------------------

VIDEO = 8  # the width of the video VAE's outermost layers; the published ones have 96


def wan_vae() -> Shapes:
    """The VAE of Wan, Qwen-Image and Krea-2, an eighth as wide, 0.9 M."""
    encoder, width = _causal("conv1", VIDEO, 3), VIDEO
    steps = (1, 1, "2d", 2, 2, "3d", 4, 4, "3d", 4, 4)  # times VIDEO, or how it is halved
    for place, kind in enumerate(steps):
        at = f"downsamples.{place}"
        if isinstance(kind, str):
            encoder |= _layer(f"{at}.resample.1", width, width, 3, 3)
            encoder |= _layer(f"{at}.time_conv", width, width, 3, 1, 1) if kind == "3d" else {}
            continue
        encoder |= _video_block(at, kind * VIDEO, width)
        width = kind * VIDEO
    encoder |= _video_middle(width) | {"head.0.gamma": (width, 1, 1, 1)} | _causal("head.2", 32, width)
    decoder = _causal("conv1", width, 16) | _video_middle(width)
    for level, outs in enumerate((4, 4, 2, 1)):
        for place in range(4 * level, 4 * level + 3):
            decoder |= _video_block(f"upsamples.{place}", outs * VIDEO, width)
            width = outs * VIDEO
        if level < 3:
            at = f"upsamples.{4 * level + 3}"
            decoder |= _layer(f"{at}.resample.1", width // 2, width, 3, 3)
            decoder |= _layer(f"{at}.time_conv", 2 * width, width, 3, 1, 1) if level < 2 else {}
            width //= 2
    decoder |= {"head.0.gamma": (width, 1, 1, 1)} | _causal("head.2", 3, width)
    ends = _layer("conv1", 32, 32, 1, 1, 1) | _layer("conv2", 16, 16, 1, 1, 1)
    return ends | _below("encoder.", encoder) | _below("decoder.", decoder)


def _causal(name: str, outs: int, ins: int) -> Shapes:
    return _layer(name, outs, ins, 3, 3, 3)


def _video_block(at: str, outs: int, ins: int) -> Shapes:
    shapes = {f"{at}.residual.0.gamma": (ins, 1, 1, 1), f"{at}.residual.3.gamma": (outs, 1, 1, 1)}
    shapes |= _causal(f"{at}.residual.2", outs, ins) | _causal(f"{at}.residual.6", outs, outs)
    return shapes | (_layer(f"{at}.shortcut", outs, ins, 1, 1, 1) if ins != outs else {})


def _video_middle(width: int) -> Shapes:
    shapes = _video_block("middle.0", width, width) | _video_block("middle.2", width, width)
    shapes |= {"middle.1.norm.gamma": (width, 1, 1)} | _layer("middle.1.to_qkv", 3 * width, width, 1, 1)
    return shapes | _layer("middle.1.proj", width, width, 1, 1)


# --- Tiny VAEs -------------------------------------------------------------------------------------------------------


def _taesd(channels: int) -> Shapes:
    """Ollin's tiny autoencoder, 2.4 M; the host knows the latent by the width of its first convolution."""
    halves = _below("taesd_encoder.", taesd_encoder(channels)) | _below("taesd_decoder.", taesd_decoder(channels))
    return {"vae_scale": (), "vae_shift": (), **halves}


def taesd_encoder(channels: int, pools: bool = False) -> Shapes:
    shapes = {**_layer("0", 64, 3, 3, 3), **_taesd_block(1)}
    for down in (2, 6, 10):
        shapes |= _layer(str(down), 64, 64, 3, 3, bias=False)
        for block in range(down + 1, down + 4):
            shapes |= _taesd_block(block, pools and down == 10)
    return shapes | _layer("14", channels, 64, 3, 3)


def taesd_decoder(channels: int, pools: bool = False) -> Shapes:
    shapes = _layer("1", 64, channels, 3, 3)
    for up in (7, 12, 17):
        for block in range(up - 4, up - 1):
            shapes |= _taesd_block(block, pools and up == 7)
        shapes |= _layer(str(up), 64, 64, 3, 3, bias=False)
    return {**shapes, **_taesd_block(18), **_layer("19", 3, 64, 3, 3)}


def _taesd_block(at: int, pool: bool = False) -> Shapes:
    shapes = {name: s for part in (0, 2, 4) for name, s in _layer(f"{at}.conv.{part}", 64, 64, 3, 3).items()}
    if pool:
        shapes |= _layer(f"{at}.pool.0", 256, 64, 1, 1, bias=False) | _norm(f"{at}.pool.1", 256)
        shapes |= _layer(f"{at}.pool.3", 64, 256, 1, 1, bias=False)
    return shapes


MODELS = {
    "sd15": Model("checkpoints", torch.float16, sd15),
    "sdxl": Model("checkpoints", torch.float16, sdxl),
    "flux1-schnell": Model("diffusion_models", torch.bfloat16, flux1_schnell),
    "flux2-klein": Model("diffusion_models", torch.bfloat16, flux2_klein),
    "z-image": Model("diffusion_models", torch.bfloat16, z_image),
    "qwen-image": Model("diffusion_models", torch.bfloat16, qwen_image),
    "sd15-lora": Model("loras", torch.float16, sd15_lora),
    "qwen-image-lora": Model("loras", torch.bfloat16, qwen_image_lora),
    "krea2": Model("diffusion_models", torch.bfloat16, krea2),
    "wan": Model("diffusion_models", torch.bfloat16, wan),
    "wan-low": Model("diffusion_models", torch.bfloat16, wan, seed=1),
    "wan-lora": Model("loras", torch.bfloat16, wan_lora),
    "wan-vae": Model("vae", torch.float32, wan_vae),
    "taesd16": Model("vae", torch.float16, lambda: _taesd(16)),
    # FLUX.2's tiny VAE is known by its file names only, and to the host by "taef2".
    "taef2_encoder": Model("vae_approx", torch.float16, lambda: taesd_encoder(32, pools=True)),
    "taef2_decoder": Model("vae_approx", torch.float16, lambda: taesd_decoder(32, pools=True)),
}


def _lines(names: list[str], out: Path) -> Iterator[str]:
    for name in names:
        path = write(name, out)
        count = sum(prod(shape) for shape in MODELS[name].shapes().values())
        yield f"{path}  {count / 1e6:.1f} M  {path.stat().st_size / 1e6:.1f} MB"


def _main() -> int:
    parser = argparse.ArgumentParser(prog="scripts.random_models", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder for the files")
    parser.add_argument("models", nargs="*", help=f"which; all without: {', '.join(MODELS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(MODELS):
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    for line in _lines(arguments.models or list(MODELS), arguments.out):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
