"""The few-step models that people load today: files, sampler settings and text encoder of each, in one table.

Files and settings are those of the host's own template of the model (`official`), where there is one;
tests/scripts/test_families_table.py holds them against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .graph import File


@dataclass(frozen=True)
class Family:
    """A model with its text encoder and VAE; a checkpoint has all three, and no `encoder` or `vae` of its own."""

    name: str
    """Of its template, with the number."""
    model: File
    steps: int
    sampler: str
    scheduler: str
    """A name of the host, or the kind of the node that makes the sigmas."""
    official: str = ""
    cfg: float = 1.0
    encoder: File | None = None
    encoder_type: str = ""
    vae: File | None = None
    lora: File | None = None
    side: int = 1024
    """Of the picture, in pixels."""
    latent: str = "EmptySD3LatentImage"
    behind: tuple[str, dict[str, Any]] | None = None
    """The node that the model needs behind it, and its widgets."""
    sigmas: str = ""
    """Where they are fixed."""
    negative: str | None = None
    """A negative prompt; None: the positive one made zero."""
    counted: tuple[str, str, str] | None = None
    """Names of model, text encoder and VAE in benchmarks/results/model_bytes.json; None where nobody can count it."""
    low: tuple[File, File] | None = field(default=None)
    """The model that goes on at low noise, and its LoRA."""
    source_bits: int = 16
    encoder_bits: int = 16

    @property
    def number(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def title(self) -> str:
        return self.name.partition(" ")[2]

    @property
    def files(self) -> tuple[File, ...]:
        return tuple(file for file in (self.model, self.lora, *(self.low or ()), self.encoder, self.vae) if file)


def split_pages(repository: str) -> dict[str, str]:
    return {folder: f"{repository}:split_files/{folder}/" for folder in _FOLDERS}


def plain_pages(repository: str) -> dict[str, str]:
    return {folder: f"{repository}:{folder}/" for folder in _FOLDERS}


def _file(pages: dict[str, str], folder: str, name: str) -> File:
    return File(f"{name}.safetensors", folder, pages[folder])


_FOLDERS = ("diffusion_models", "text_encoders", "vae", "loras")
_Z_IMAGE = split_pages("Comfy-Org/z_image_turbo")
_KREA = plain_pages("Comfy-Org/Krea-2")
_QWEN = split_pages("Comfy-Org/Qwen-Image_ComfyUI")
_QWEN_21 = plain_pages("Comfy-Org/Qwen-Image-2.1")
_KLEIN = split_pages("Comfy-Org/flux2-klein")
_FLUX_3 = plain_pages("black-forest-labs/flux-3-image-klein-comfy")
_WAN = split_pages("Comfy-Org/Wan_2.2_ComfyUI_Repackaged")
_SD15 = File("v1-5-pruned-emaonly-fp16.safetensors", "checkpoints", "Comfy-Org/stable-diffusion-v1-5-archive:")
_SD15_COUNTED = ("SD1.5", "SD1.5: CLIP-L", "SD1.5, SDXL")
_WATERMARK = "text, watermark"

FAMILIES = (
    Family(
        "09 Z-Image Turbo",
        _file(_Z_IMAGE, "diffusion_models", "z_image_turbo_bf16"),
        8,
        "res_multistep",
        "simple",
        "image_z_image_turbo",
        encoder=_file(_Z_IMAGE, "text_encoders", "qwen_3_4b"),
        encoder_type="lumina2",
        vae=_file(_Z_IMAGE, "vae", "ae"),
        behind=("ModelSamplingAuraFlow", {"shift": 3.0}),
        counted=("Z-Image", "Z-Image, FLUX.2-klein: Qwen3 4B", "FLUX.1, Z-Image"),
    ),
    Family(
        "10 Krea-2 Turbo",
        _file(_KREA, "diffusion_models", "krea2_turbo_fp8_scaled"),
        8,
        "euler",
        "simple",
        "image_krea2_turbo_t2i",
        encoder=_file(_KREA, "text_encoders", "qwen3vl_4b_fp8_scaled"),
        encoder_type="krea2",
        vae=_file(_KREA, "vae", "qwen_image_vae"),
        latent="EmptyLatentImage",
        counted=("Krea-2", "Krea-2: Qwen3-VL 4B", "Qwen-Image, Krea-2, Wan"),
        source_bits=8,
        encoder_bits=8,
    ),
    Family(
        "11 Qwen-Image Lightning",
        _file(_QWEN, "diffusion_models", "qwen_image_fp8_e4m3fn"),
        8,
        "euler",
        "simple",
        "image_qwen_image",
        encoder=_file(_QWEN, "text_encoders", "qwen_2.5_vl_7b_fp8_scaled"),
        encoder_type="qwen_image",
        vae=_file(_QWEN, "vae", "qwen_image_vae"),
        lora=File("Qwen-Image-Lightning-8steps-V1.0.safetensors", "loras", "lightx2v/Qwen-Image-Lightning:"),
        side=1328,
        behind=("ModelSamplingAuraFlow", {"shift": 3.1}),
        negative="",
        counted=("Qwen-Image", "Qwen-Image: Qwen2.5-VL 7B", "Qwen-Image, Krea-2, Wan"),
        source_bits=8,
        encoder_bits=8,
    ),
    Family(
        "12 Qwen-Image-2.1 Turbo",
        _file(_QWEN_21, "diffusion_models", "qwen_image_2.1_turbo_int8_convrot"),
        8,
        "euler",
        "ManualSigmas",
        "image_qwen_image_2_1_turbo_t2i",
        encoder=_file(_QWEN_21, "text_encoders", "qwen3vl_8b_int8_convrot"),
        encoder_type="qwen_image",
        vae=_file(_QWEN_21, "vae", "qwen_image_2.1_vae_bf16"),
        latent="EmptyLatentImage",
        behind=("QwenImage21Cache", {"device": "auto", "dtype": "default"}),
        sigmas="1.0, 0.978453, 0.95418, 0.926626, 0.89508, 0.845148, 0.704534, 0.414568, 0",
        source_bits=8,
        encoder_bits=8,
    ),
    Family(
        "13 FLUX.2-klein",
        _file(_KLEIN, "diffusion_models", "flux-2-klein-4b"),
        4,
        "euler",
        "Flux2Scheduler",
        "image_flux2_klein_text_to_image",
        encoder=_file(_KLEIN, "text_encoders", "qwen_3_4b"),
        encoder_type="flux2",
        vae=_file(split_pages("Comfy-Org/flux2-dev"), "vae", "flux2-vae"),
        latent="EmptyFlux2LatentImage",
        counted=("FLUX.2-klein 4B", "Z-Image, FLUX.2-klein: Qwen3 4B", "FLUX.2-klein"),
    ),
    Family(
        "14 FLUX.3-klein",
        _file(_FLUX_3, "diffusion_models", "flux3-image-klein-int8-convrot"),
        15,
        "er_sde",
        "simple",
        "image_flux3_klein_distilled_t2i",
        encoder=_file(_FLUX_3, "text_encoders", "qwen3vl_4b_int8_convrot"),
        encoder_type="flux3",
        vae=_file(_FLUX_3, "vae", "flux2-vae"),
        latent="EmptyFlux2LatentImage",
        negative="",
        source_bits=8,
        encoder_bits=8,
    ),
    Family(
        "15 Wan 2.2 lightx2v",
        _file(_WAN, "diffusion_models", "wan2.2_t2v_high_noise_14B_fp8_scaled"),
        4,
        "euler",
        "simple",
        "video_wan2_2_14B_t2v",
        encoder=_file(
            split_pages("Comfy-Org/Wan_2.1_ComfyUI_repackaged"), "text_encoders", "umt5_xxl_fp8_e4m3fn_scaled"
        ),
        encoder_type="wan",
        vae=_file(_WAN, "vae", "wan_2.1_vae"),
        lora=_file(_WAN, "loras", "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise"),
        low=(
            _file(_WAN, "diffusion_models", "wan2.2_t2v_low_noise_14B_fp8_scaled"),
            _file(_WAN, "loras", "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise"),
        ),
        side=640,
        latent="EmptyHunyuanLatentVideo",
        behind=("ModelSamplingSD3", {"shift": 5.0}),
        negative="",
        counted=("Wan 2.2 14B", "Wan: UMT5-XXL", "Qwen-Image, Krea-2, Wan"),
        source_bits=8,
        encoder_bits=8,
    ),
    Family(
        "16 SDXL-Lightning",
        File("sdxl_lightning_4step.safetensors", "checkpoints", "ByteDance/SDXL-Lightning:"),
        4,
        "euler",
        "sgm_uniform",
        latent="EmptyLatentImage",
        negative=_WATERMARK,
        counted=("SDXL", "SDXL: CLIP-L, CLIP-G", "SD1.5, SDXL"),
    ),
    Family(
        "17 SD1.5 LCM",
        _SD15,
        4,
        "lcm",
        "sgm_uniform",
        cfg=1.5,
        lora=File(
            "lcm-lora-sdv1-5.safetensors",
            "loras",
            "latent-consistency/lcm-lora-sdv1-5:",
            remote="pytorch_lora_weights.safetensors",
        ),
        side=512,
        latent="EmptyLatentImage",
        behind=("ModelSamplingDiscrete", {"sampling": "lcm", "zsnr": False}),
        negative=_WATERMARK,
        counted=_SD15_COUNTED,
    ),
    Family(
        "18 SD1.5 PCM",
        _SD15,
        4,
        "QSchedSamplerTCD",
        "sgm_uniform",
        lora=File("pcm_sd15_smallcfg_4step_converted.safetensors", "loras", "wangfuyun/PCM_Weights:sd15/"),
        side=512,
        latent="EmptyLatentImage",
        negative=_WATERMARK,
        counted=_SD15_COUNTED,
    ),
)
