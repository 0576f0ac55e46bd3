"""19: ComfyUI's one-step upscaler, quantised; its single step is corrected towards the full model's pictures."""

from __future__ import annotations

from .families import plain_pages
from .graph import File, Group, Node, Template
from .parts import PICTURE, W4A8

OFFICIAL = "utility_seedvr2_3b_int8_upscale_image"
_PAGES = plain_pages("Comfy-Org/SeedVR2")
MODEL = File("seedvr2_3b_int8_convrot.safetensors", "diffusion_models", _PAGES["diffusion_models"])
VAE = File("seedvr2_ema_vae_fp16.safetensors", "vae", _PAGES["vae"])
TILES = {"tile_size": 512, "overlap": 128, "temporal_size": 4096, "temporal_overlap": 8}
W8A16 = {"format": "w8a16", "exclude": ""}
ONE_STEP = {"steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}


def restoration() -> Template:
    larger = {"input": [3, 0], "resize_type": "scale by multiplier", "resize_type.multiplier": 4.0}
    use = {"strength": 1.0, "if_preset_differs": "resample"}
    both = {"positive": [8, 0], "negative": [8, 1], "latent_image": [6, 0], "preset": [10, 0]}
    plan = {"model": [7, 0], "scheduler": "simple", "steps": 1, "denoise": 1.0}
    after = {"images": [12, 0], "original_resized_images": [4, 0], "color_correction_method": "none"}
    name = "SeedVR2 W4A8"
    loader = {"unet_name": MODEL.name, "weight_dtype": "default"}
    return Template(
        "19 SeedVR2 restoration",
        (460, 560),
        (
            (
                Group(
                    "1",
                    (
                        (
                            Node(1, "UNETLoader", "SeedVR2 3B", loader, (MODEL,)),
                            Node(2, "VAELoader", "VAE", {"vae_name": VAE.name}, (VAE,)),
                            Node(3, "LoadImage", "Your picture", {"image": "example.png"}, size=(320, 320)),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "2 × 4",
                    (
                        (
                            Node(4, "ResizeImageMaskNode", "Four times", {**larger, "scale_method": "lanczos"}),
                            Node(5, "SeedVR2Preprocess", "To multiples of 16", {"resized_images": [4, 0]}),
                            Node(6, "VAEEncodeTiled", "Encode", {"pixels": [5, 0], "vae": [15, 0], **TILES}),
                        ),
                    ),
                ),
                Group(
                    "3 W4A8",
                    (
                        (
                            Node(7, "QSchedQuantizeModel", "Quantize", {"model": [1, 0], **W4A8}, size=(320, 230)),
                            Node(15, "QSchedQuantizeVAE", "Quantize its VAE", {"vae": [2, 0], **W8A16}),
                            Node(8, "SeedVR2Conditioning", "Its texts", {"model": [7, 0], "vae_conditioning": [6, 0]}),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "4 Q-Sched",
                    (
                        (
                            Node(9, "BasicScheduler", "One step", plan),
                            Node(
                                10,
                                "QSchedCoefficients",
                                "The identity, until you have calibrated",
                                {"sigmas": [9, 0], "form": "identity", "strength": 1.0},
                            ),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "5 W4A8 + Q-Sched",
                    (
                        (
                            Node(
                                11, "QSchedSampler", "One step", {"model": [7, 0], **both, "seed": 0, **ONE_STEP, **use}
                            ),
                            Node(12, "VAEDecodeTiled", "Decode", {"samples": [11, 0], "vae": [15, 0], **TILES}),
                        ),
                        (
                            Node(13, "SeedVR2PostProcessing", "To its size", after),
                            Node(
                                14,
                                "SaveImage",
                                name,
                                {"images": [13, 0], "filename_prefix": name},
                                size=PICTURE,
                                label=name,
                            ),
                        ),
                    ),
                ),
            ),
        ),
    )
