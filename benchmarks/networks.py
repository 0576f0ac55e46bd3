"""The networks that sizes and times are stated for: the host's own classes at the published hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "use_spatial_transformer": True,
    "legacy": False,
}  # fmt: skip
_SD15 = {
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "num_heads": 8, "context_dim": 768,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 9 + [0] * 3, "use_linear_in_transformer": False,
}  # fmt: skip
_SDXL = {
    "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "num_head_channels": 64, "context_dim": 2048,
    "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "use_linear_in_transformer": True,
    "num_classes": "sequential", "adm_in_channels": 2816,
}  # fmt: skip
_FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072,
    "mlp_ratio": 4.0, "num_heads": 24, "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2, "qkv_bias": True,
    "guidance_embed": False, "txt_ids_dims": [],
}  # fmt: skip
_Z_IMAGE = {
    "patch_size": 2, "in_channels": 16, "dim": 3840, "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30,
    "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "cap_feat_dim": 2560, "qk_norm": True,
    "ffn_dim_multiplier": 8.0 / 3.0, "z_image_modulation": True, "time_scale": 1000.0,
}  # fmt: skip
_KLEIN = {
    "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "context_in_dim": 7680, "hidden_size": 3072,
    "mlp_ratio": 3.0, "num_heads": 24, "axes_dim": [32, 32, 32, 32], "theta": 2000, "patch_size": 1, "qkv_bias": False,
    "guidance_embed": False, "txt_ids_dims": [3], "global_modulation": True, "mlp_silu_act": True, "ops_bias": False,
}  # fmt: skip
_WAN_14B = {
    "model_type": "t2v", "in_dim": 16, "out_dim": 16, "dim": 5120, "ffn_dim": 13824, "freq_dim": 256, "text_dim": 4096,
    "num_heads": 40,
}  # fmt: skip
_SEEDVR2_3B = {"vid_dim": 2560, "heads": 20, "norm_eps": 1e-5, "mlp_type": "swiglu", "vid_out_norm": True}


def families(device: str, dtype: torch.dtype) -> dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]]:
    """How to make each network, given how often each kind of its blocks repeats; and how often they really do."""
    import comfy.ops
    from comfy.ldm.flux.model import Flux
    from comfy.ldm.krea2.model import SingleStreamDiT
    from comfy.ldm.lumina.model import NextDiT
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
    from comfy.ldm.seedvr.model import NaDiT
    from comfy.ldm.wan.model import WanModel

    common = {"device": torch.device(device), "dtype": dtype, "operations": comfy.ops.disable_weight_init}
    return {
        "SD1.5": (lambda: UNetModel(**common, **_UNET, **_SD15), ()),
        "SDXL": (lambda: UNetModel(**common, **_UNET, **_SDXL), ()),
        "FLUX.1-schnell": (
            lambda double, single: Flux(**common, **_FLUX, depth=double, depth_single_blocks=single), (19, 38)
        ),
        "Z-Image": (lambda layers: NextDiT(**common, **_Z_IMAGE, n_layers=layers), (30,)),
        "FLUX.2-klein 4B": (
            lambda double, single: Flux(**common, **_KLEIN, depth=double, depth_single_blocks=single), (5, 20)
        ),
        "Krea-2": (lambda layers: SingleStreamDiT(**common, layers=layers), (28,)),
        "Qwen-Image": (lambda layers: QwenImageTransformer2DModel(**common, num_layers=layers), (60,)),
        "Wan 2.2 14B": (lambda layers: WanModel(**common, **_WAN_14B, num_layers=layers), (40,)),
        # In pairs: its windows alternate. The first ten layers have weights of their own for text and for pictures.
        "SeedVR2 3B": (
            lambda own, shared: NaDiT(**common, **_SEEDVR2_3B, num_layers=2 * (own + shared), mm_layers=2 * own),
            (5, 11),
        ),
    }  # fmt: skip


def randomised(network: nn.Module) -> nn.Module:
    """Its weights drawn anew, small: a million numbers, repeated, as drawing thousands of millions takes too long."""
    noise = 0.02 * torch.randn(2**20 + 7, generator=torch.Generator().manual_seed(0))
    for parameter in network.parameters():
        values, count = noise.to(parameter), parameter.numel()
        parameter.data = values.repeat(-(-count // len(values)))[:count].view(parameter.shape).clone()
    return network
