"""03: SDXL-Turbo, and Lightning, LCM and PCM beside it."""

from __future__ import annotations

from .graph import BYPASSED, Group, Node, Template
from .parts import (
    PROMPT,
    TURBO,
    W4A8,
    decoded,
    latent,
)


def _custom(id: int, title: str, sampler: list) -> Node:
    sockets = {"model": [4, 0], "positive": [11, 0], "negative": [12, 0], "sampler": sampler, "sigmas": [5, 0]}
    values = {"add_noise": True, "noise_seed": 0, "cfg": 1.0}
    return Node(id, "SamplerCustom", title, {**sockets, "latent_image": [13, 0], **values})


def _few_step_files() -> tuple[Group, Group]:
    lora = {"model": [1, 0], "lora_name": "lcm-lora-sdv1-5.safetensors", "strength_model": 1.0}
    words = {"clip": [1, 1], "text": PROMPT}
    unwanted = {"clip": [1, 1], "text": "text, watermark"}
    return (
        Group(
            "1",
            (
                (
                    Node(1, "CheckpointLoaderSimple", "SDXL-Turbo", {"ckpt_name": TURBO.name}, (TURBO,)),
                    Node(2, "LoraLoaderModelOnly", "LoRA of LCM or PCM (off)", lora, mode=BYPASSED),
                ),
            ),
        ),
        Group(
            "512 px",
            (
                (
                    Node(11, "CLIPTextEncode", "Prompt", words, size=(320, 120)),
                    Node(12, "CLIPTextEncode", "Negative prompt (unused at cfg 1)", unwanted, size=(320, 100)),
                    latent(13, "Picture size", 512, kind="EmptyLatentImage"),
                ),
            ),
        ),
    )


def _few_step_schedules() -> tuple[Group, Group]:
    quantize = Node(3, "QSchedQuantizeModel", "Quantize to W4A8", {"model": [2, 0], **W4A8}, size=(320, 230))
    lcm = {"model": [3, 0], "sampling": "lcm", "zsnr": False}
    plain = {"model": [4, 0], "scheduler": "sgm_uniform", "steps": 4, "denoise": 1.0}
    turbo = {"model": [4, 0], "steps": 4, "denoise": 1.0}
    return (
        Group(
            "2 W4A8",
            ((quantize, Node(4, "ModelSamplingDiscrete", "Sample as LCM (off)", lcm, mode=BYPASSED)),),
        ),
        Group(
            "3 sigmas",
            (
                (
                    Node(5, "SDTurboScheduler", "SD Turbo", turbo, label="SDTurboScheduler: Turbo"),
                    Node(6, "BasicScheduler", "The others", plain, label="BasicScheduler: Lightning, LCM, PCM"),
                ),
            ),
        ),
    )


def few_steps() -> Template:
    published = {
        "form": "ramp",
        "form.c_x_first": 1.012,
        "form.c_x_last": 0.967,
        "form.c_eps_first": 0.955,
        "form.c_eps_last": 1.099,
        "strength": 1.0,
    }
    inputs = {"sampler": [8, 0], "preset": [7, 0], "strength": 1.0, "if_preset_differs": "resample"}
    preset = Node(7, "QSchedCoefficients", "Published, 4 steps", {"sigmas": [5, 0], **published})
    return Template(
        "03 SDXL-Turbo, Lightning, LCM, PCM",
        (700, 480),
        (
            _few_step_files(),
            _few_step_schedules(),
            (
                Group(
                    "4 Q-Sched",
                    (
                        (
                            Node(8, "KSamplerSelect", "The sampler", {"sampler_name": "euler_ancestral"}),
                            Node(9, "QSchedSamplerTCD", "Sampler TCD: PCM", {"eta": 0.3}, label="Sampler TCD: PCM"),
                            preset,
                            Node(10, "QSchedSamplerSelect", "Q-Sched on the sampler", inputs),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "5 W4A8",
                    (
                        (_custom(14, "Without a preset", [8, 0]),),
                        decoded(15, "W4A8", [14, 0], [1, 2], "SDXL-Turbo W4A8"),
                    ),
                ),
                Group(
                    "5 W4A8 + Q-Sched",
                    (
                        (_custom(17, "With the preset", [10, 0]),),
                        decoded(18, "W4A8 + Q-Sched", [17, 0], [1, 2], "SDXL-Turbo W4A8 Q-Sched"),
                    ),
                ),
            ),
        ),
    )
