"""What the example workflows hold: nodes, values, groups. ``scripts/workflows/build.py`` makes the files of it.

The page's languages are five: group titles are numbers and names of the field, nodes keep their own titles, which the
host translates, and the notes are in ``web/notes``, where web/templates/translate_notes.js finds them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from ..layout import DEMO_PROMPTS, ROOT

NOTES = ROOT / "web" / "notes"
LANGUAGES = ("en", "zh", "ja", "ko", "fr")

LIVE, MUTED, BYPASSED = 0, 2, 4
"""The front end's own numbers of a node's mode."""

SCENE = "a large red circle left of a small blue star on a sand background"
PROMPT = "a red fox asleep on a stone wall, autumn leaves, soft morning light"
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class File:
    """A model file that the front end offers to download: `folder` is a folder of ``models``."""

    name: str
    folder: str
    page: str
    """The repository on huggingface.co, and the path in it."""

    @property
    def url(self) -> str:
        repository, path = self.page.split(":")
        return f"{HUB}/{repository}/resolve/main/{path}{self.name}"


@dataclass(frozen=True)
class Node:
    """A node by its id; an input that is a list [id, slot] is a link, all others are widgets."""

    id: int
    kind: str
    title: str
    """For the API's form and for readers of this file."""
    inputs: dict[str, Any] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    mode: int = LIVE
    size: tuple[int, int] = (0, 0)
    """At least, in pixels."""
    shown: str = ""
    """Its title on the page, a name that needs no translation; without one the host's own for its kind."""


@dataclass(frozen=True)
class Group:
    """A titled frame around columns of nodes."""

    title: str
    columns: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Template:
    """A workflow. `bands` stand side by side, the groups of a band below each other."""

    name: str
    note_size: tuple[int, int]
    bands: tuple[tuple[Group, ...], ...]
    note_band: int | None = None
    """Which band the note stands below; left of all without one. Below it saves width."""

    @property
    def number(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def note(self) -> str:
        return note_text(self.number)

    @property
    def nodes(self) -> list[Node]:
        return [n for band in self.bands for group in band for column in group.columns for n in column]


def note_text(key: str, language: str = "en") -> str:
    """A note of ``web/notes``; "" where there is none."""
    texts, parts = (json.loads((NOTES / f"{name}.json").read_text("utf-8")) for name in (language, "parts"))
    lines = "\n".join(texts.get(key, []))
    return re.sub(r"\{(\w+)\}", lambda found: "\n".join(parts[found[1]]), lines)


SCHNELL = File("flux1-schnell.safetensors", "diffusion_models", "Comfy-Org/flux1-schnell:")
CLIP_L = File("clip_l.safetensors", "text_encoders", "comfyanonymous/flux_text_encoders:")
T5 = File("t5xxl_fp16.safetensors", "text_encoders", "comfyanonymous/flux_text_encoders:")
AE = File("ae.safetensors", "vae", "Comfy-Org/Lumina_Image_2.0_Repackaged:split_files/vae/")
TURBO = File("sd_xl_turbo_1.0_fp16.safetensors", "checkpoints", "stabilityai/sdxl-turbo:")

PICTURE = (300, 330)
PLAIN = {"denoise": 1.0, "strength": 1.0, "if_preset_differs": "resample"}
EULER = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
DAMAGE = {"format": "w4a4", "group_size": "per channel", "include": "*", "exclude": "", "last_steps": 0}
W4A8 = {"format": "w4a8", "group_size": "format's own", "include": "", "exclude": ""}
SEARCH = {**EULER, "trials": 12, "metric": "demo", "batch_size": 16, "negative": ""}
DEMO_PRESET = "Demo model W4A4.safetensors"
"""Comes with the pack: what JAQ Calibrate found for the demo model (``scripts/demo_preset.py``)."""


def _captions() -> list[str]:
    lines = DEMO_PROMPTS.read_text("utf-8").splitlines()
    return list(dict.fromkeys(line for line in lines if not line.startswith("#")))


def _demo() -> Node:
    return Node(1, "QSchedDemoModel", "Demo model")


def _damage() -> Node:
    return Node(2, "QSchedQuantizeModel", "Quantize: W4A4, all layers", {"model": [1, 0], **DAMAGE}, size=(320, 230))


def _latent(id: int, title: str, side: int, count: int = 1, kind: str = "EmptySD3LatentImage") -> Node:
    return Node(id, kind, title, {"width": side, "height": side, "batch_size": count})


def _shown(id: int, title: str, samples: list, vae: list, prefix: str = "") -> tuple[Node, Node]:
    """A decoder and, below it, the picture; saved under `prefix`."""
    kind, saved = ("SaveImage", {"filename_prefix": prefix}) if prefix else ("PreviewImage", {})
    picture = Node(id + 1, kind, title, {"images": [id, 0], **saved}, size=PICTURE, shown=title)
    return Node(id, "VAEDecode", "Decode", {"samples": samples, "vae": vae}), picture


def _sampler(id: int, title: str, model: list, conditioning: tuple, latent: list, preset: list | None = None) -> Node:
    positive, negative = conditioning
    sockets = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    inputs = {**sockets, **({"preset": preset} if preset else {}), "seed": 7, **EULER, **PLAIN}
    return Node(id, "QSchedSampler", title, inputs)


def _load_preset(id: int) -> Node:
    return Node(id, "QSchedLoadPreset", "Load the preset", {"preset_name": DEMO_PRESET}, size=(340, 60))


def try_it_now() -> Template:
    sockets = {"model": [2, 0], "clip": [1, 1], "vae": [1, 2], "latent_image": [3, 0], "full_model": [1, 0]}
    texts = {"prompts": "\n".join(_captions()[:20])}
    calibrate = Node(
        4,
        "QSchedCalibrate",
        "Calibrate",
        {**sockets, **texts, **SEARCH},
        size=(440, 640),
    )
    pictures = Node(
        5,
        "PreviewImage",
        "Full, quantised, repaired",
        {"images": [4, 2]},
        size=(580, 380),
        shown="FP16 | W4A4 | W4A4 + Q-Sched",
    )
    return Template(
        "01 Try it now",
        (580, 230),
        (
            (Group("1", ((_demo(), _latent(3, "Picture size", 64), _damage()),)),),
            (Group("2", ((calibrate,),)),),
            (Group("3", ((pictures,),)),),
        ),
        note_band=2,
    )


def _flux_files(weights: Node) -> Group:
    texts = {"clip_name1": CLIP_L.name, "clip_name2": T5.name, "type": "flux", "device": "default"}
    return Group(
        "1",
        (
            (
                weights,
                Node(2, "DualCLIPLoader", "Text encoders", texts, (CLIP_L, T5)),
                Node(3, "VAELoader", "VAE", {"vae_name": AE.name}, (AE,)),
            ),
        ),
    )


def _flux_words() -> Group:
    return Group(
        "1024 px",
        (
            (
                Node(7, "CLIPTextEncode", "Prompt", {"clip": [2, 0], "text": PROMPT}, size=(320, 140)),
                Node(8, "ConditioningZeroOut", "No negative prompt", {"conditioning": [7, 0]}),
                _latent(9, "Picture size", 1024),
            ),
        ),
    )


def _published(title: str, strength: float) -> Node:
    values = {"form": "ramp to 1", "form.c_x": 1.0, "form.c_eps": 0.867, "strength": strength}
    return Node(6, "QSchedCoefficients", title, {"sigmas": [5, 0], **values})


def flux_schnell() -> Template:
    words = ([7, 0], [8, 0])
    weights = Node(
        1, "UNETLoader", "FLUX.1-schnell", {"unet_name": SCHNELL.name, "weight_dtype": "default"}, (SCHNELL,)
    )
    quantize = Node(4, "QSchedQuantizeModel", "Quantize to W4A8", {"model": [1, 0], **W4A8}, size=(320, 230))
    keep = {"model": [4, 0], "name": "flux1-schnell w4a8"}
    schedule = {"model": [4, 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}
    return Template(
        "02 Quantize and repair FLUX-schnell",
        (440, 560),
        (
            (_flux_files(weights), _flux_words()),
            (Group("2 W4A8", ((quantize, Node(16, "QSchedSaveQuantized", "Keep the file", keep, mode=MUTED)),)),),
            (
                Group(
                    "3 Q-Sched",
                    (
                        (
                            Node(5, "BasicScheduler", "The sampler's own schedule", schedule),
                            _published("Published for SVDQuant INT4, 4 steps", 1.0),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "4 W4A8",
                    (
                        (_sampler(10, "Without a preset", [4, 0], words, [9, 0]),),
                        _shown(11, "W4A8", [10, 0], [3, 0], "FLUX.1-schnell W4A8"),
                    ),
                ),
                Group(
                    "4 W4A8 + Q-Sched",
                    (
                        (_sampler(13, "Q-Sched Sampler", [4, 0], words, [9, 0], [6, 0]),),
                        _shown(14, "W4A8 + Q-Sched", [13, 0], [3, 0], "FLUX.1-schnell W4A8 Q-Sched"),
                    ),
                ),
            ),
        ),
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
                    _latent(13, "Picture size", 512, kind="EmptyLatentImage"),
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
                    Node(5, "SDTurboScheduler", "SD Turbo", turbo, shown="SDTurboScheduler: Turbo"),
                    Node(6, "BasicScheduler", "The others", plain, shown="BasicScheduler: Lightning, LCM, PCM"),
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
    driven = {"sampler": [8, 0], "preset": [7, 0], "strength": 1.0, "if_preset_differs": "resample"}
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
                            Node(9, "QSchedSamplerTCD", "Sampler TCD: PCM", {"eta": 0.3}, shown="Sampler TCD: PCM"),
                            preset,
                            Node(10, "QSchedSamplerSelect", "Q-Sched on the sampler", driven),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "5 W4A8",
                    (
                        (_custom(14, "Without a preset", [8, 0]),),
                        _shown(15, "W4A8", [14, 0], [1, 2], "SDXL-Turbo W4A8"),
                    ),
                ),
                Group(
                    "5 W4A8 + Q-Sched",
                    (
                        (_custom(17, "With the preset", [10, 0]),),
                        _shown(18, "W4A8 + Q-Sched", [17, 0], [1, 2], "SDXL-Turbo W4A8 Q-Sched"),
                    ),
                ),
            ),
        ),
    )


def calibrate() -> Template:
    captions = _captions()
    lists = {
        "prompts": "\n".join(captions[:12]),
        "prompt_file": "",
        "verdict_prompts": "\n".join(captions[12:24]),
        "verdict_file": "",
        "draw_seed": 0,
    }
    sockets = {"model": [2, 0], "clip": [1, 1], "vae": [1, 2], "latent_image": [3, 0], "full_model": [1, 0]}
    search = Node(
        4,
        "QSchedCalibrate",
        "JAQ Calibrate",
        {**sockets, "prompts": "", "settings": [11, 0], **SEARCH},
        size=(520, 640),
    )
    settings = Node(11, "QSchedCalibrationSettings", "Settings", {"prompt_set": [5, 0], "jaq_metric": [6, 0]})
    card = {"author": "", "license": "CC0-1.0", "notes": "Made with template 04."}
    scores = {"tc": "demo", "iq": "demo", "watch": "none"}
    save = {"preset": [4, 0], "thumbnail": [4, 2], "name": "my demo preset", **card}
    pictures = (("FP16 | W4A4 | W4A4 + Q-Sched", 2), ("c_x | c_eps", 3), ("JAQ", 4))
    return Template(
        "04 Calibrate on your prompts",
        (460, 560),
        (
            (Group("1", ((_demo(), _latent(3, "Picture size", 64)),)), Group("2 W4A4", ((_damage(),),))),
            (
                Group(
                    "3",
                    (
                        (
                            Node(5, "QSchedPrompts", "Your prompts", lists, size=(440, 460)),
                            Node(6, "QSchedMetric", "What is scored", scores, size=(440, 160)),
                        ),
                        (settings,),
                    ),
                ),
            ),
            (Group("4", ((search,),)),),
            (
                Group(
                    "5",
                    (
                        (
                            Node(7, "QSchedSavePreset", "Save the preset", save, size=(320, 160)),
                            *(
                                Node(8 + i, "PreviewImage", title, {"images": [4, slot]}, size=(420, 340), shown=title)
                                for i, (title, slot) in enumerate(pictures)
                            ),
                        ),
                    ),
                ),
            ),
        ),
    )


def _stock(id: int, title: str, model: list) -> Node:
    sockets = {"model": model, "positive": [7, 0], "negative": [8, 0], "latent_image": [9, 0]}
    return Node(id, "KSampler", title, {**sockets, "seed": 0, **EULER, "denoise": 1.0})


def _scene(latent: Node) -> Group:
    prompt = Node(6, "CLIPTextEncode", "Prompt", {"clip": [1, 1], "text": SCENE}, size=(320, 140))
    return Group("64 px", ((prompt, latent),))


def any_sampler() -> Template:
    schedule = {"model": [2, 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}
    words = ([6, 0], [6, 0])
    stock = {"positive": [6, 0], "negative": [6, 0], "latent_image": [3, 0], "seed": 7, **EULER, "denoise": 1.0}
    use = {"preset": [5, 0], "strength": 1.0, "if_preset_differs": "resample"}
    parts = {"noise": [15, 0], "guider": [16, 0], "sampler": [18, 0], "sigmas": [4, 0], "latent_image": [3, 0]}
    guided = {"model": [2, 0], "positive": [6, 0], "negative": [6, 0], "cfg": 1.0}
    driven = {"sampler": [17, 0], **use}
    return Template(
        "05 Use a preset with any sampler node",
        (420, 460),
        (
            (Group("1 W4A4", ((_demo(), _damage()),)), _scene(_latent(3, "Four pictures", 64, 4))),
            (Group("2 Q-Sched", ((_load_preset(5),),)),),
            (
                Group(
                    "A · Q-Sched Sampler",
                    ((_sampler(7, "Q-Sched Sampler", [2, 0], words, [3, 0], [5, 0]),), _shown(8, "A", [7, 0], [1, 2])),
                ),
                Group(
                    "B · Apply Q-Sched + KSampler",
                    (
                        (
                            Node(10, "QSchedApply", "Apply Q-Sched", {"model": [2, 0], **use}),
                            Node(11, "KSampler", "KSampler", {"model": [10, 0], **stock}),
                        ),
                        _shown(12, "B", [11, 0], [1, 2]),
                    ),
                ),
            ),
            (
                Group(
                    "C · Q-Sched Sampler Select + SamplerCustomAdvanced",
                    (
                        (
                            Node(15, "RandomNoise", "Noise", {"noise_seed": 7}),
                            Node(16, "CFGGuider", "Guider", guided),
                            Node(17, "KSamplerSelect", "Sampler", {"sampler_name": "euler"}),
                            Node(4, "BasicScheduler", "The schedule", schedule),
                            Node(18, "QSchedSamplerSelect", "Q-Sched Sampler Select", driven),
                        ),
                        (
                            Node(19, "SamplerCustomAdvanced", "SamplerCustomAdvanced", parts),
                            *_shown(20, "C", [19, 0], [1, 2]),
                        ),
                    ),
                ),
                Group(
                    "W4A4",
                    ((_sampler(22, "Without a preset", [2, 0], words, [3, 0]),), _shown(23, "W4A4", [22, 0], [1, 2])),
                ),
            ),
        ),
    )


def over_quantized() -> Template:
    fp8 = {"unet_name": SCHNELL.name, "weight_dtype": "fp8_e4m3fn"}
    weights = Node(1, "UNETLoader", "FLUX.1-schnell, cast to fp8", fp8, (SCHNELL,))
    schedule = {"model": [1, 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}
    use = {"model": [1, 0], "preset": [6, 0], "strength": 1.0, "if_preset_differs": "resample"}
    return Template(
        "06 Over GGUF, fp8 and int8 models",
        (480, 600),
        (
            (_flux_files(weights), _flux_words()),
            (
                Group(
                    "2 Q-Sched",
                    (
                        (
                            Node(5, "BasicScheduler", "The sampler's own schedule", schedule),
                            _published("Published for SVDQuant INT4, 4 steps", 0.5),
                            Node(10, "QSchedApply", "Apply Q-Sched", use),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "3 fp8",
                    (
                        (_stock(11, "Without a preset", [1, 0]),),
                        _shown(12, "fp8", [11, 0], [3, 0], "FLUX.1-schnell fp8"),
                    ),
                ),
                Group(
                    "3 fp8 + Q-Sched",
                    (
                        (_stock(14, "With the preset", [10, 0]),),
                        _shown(15, "fp8 + Q-Sched", [14, 0], [3, 0], "FLUX.1-schnell fp8 Q-Sched"),
                    ),
                ),
            ),
        ),
    )


def blind_vote() -> Template:
    words = ([6, 0], [6, 0])
    vote = {"without": [8, 0], "with_preset": [10, 0], "preset": [5, 0], "keep_in_preset": False, "ballot": 1}
    return Template(
        "07 Blind vote",
        (400, 400),
        (
            (Group("1 W4A4", ((_demo(), _damage()),)), _scene(_latent(3, "Twelve pictures", 64, 12))),
            (
                Group("2 Q-Sched", ((_load_preset(5),),)),
                Group(
                    "3 W4A4 | W4A4 + Q-Sched",
                    (
                        (
                            _sampler(7, "Without a preset", [2, 0], words, [3, 0]),
                            Node(8, "VAEDecode", "Decode", {"samples": [7, 0], "vae": [1, 2]}),
                        ),
                        (
                            _sampler(9, "With the preset", [2, 0], words, [3, 0], [5, 0]),
                            Node(10, "VAEDecode", "Decode", {"samples": [9, 0], "vae": [1, 2]}),
                        ),
                    ),
                ),
            ),
            (Group("4 A/B", ((Node(11, "QSchedArena", "Vote", vote, size=(620, 620)),),)),),
        ),
    )


def plan_layers() -> Template:
    second = "a small green square above a large yellow triangle on a white background"
    texts = [
        Node(id, "CLIPTextEncode", "Prompt", {"clip": [1, 1], "text": text}, size=(320, 110))
        for id, text in ((6, SCENE), (7, second))
    ]
    both = Node(8, "ConditioningCombine", "Both prompts", {"conditioning_1": [6, 0], "conditioning_2": [7, 0]})
    study = {
        "model": [1, 0],
        "positive": [8, 0],
        "latent_image": [3, 0],
        "average_bits": 5.0,
        "depth": "layers",
        **EULER,
        "study_seed": 0,
        "formats": "w4a4, w4a8, w8a8",
    }
    quantize = Node(2, "QSchedQuantizeModel", "Quantize as planned", {"model": [1, 0], "plan": [4, 0], **W4A8})
    stock = {"model": [2, 0], "positive": [6, 0], "negative": [6, 0], "latent_image": [3, 0]}
    return Template(
        "08 Plan the bits of each layer",
        (400, 400),
        (
            (Group("1", ((_demo(),),)), Group("2 × 64 px", ((*texts, both, _latent(3, "Picture size", 64)),))),
            (Group("2", ((Node(4, "QSchedSensitivity", "Sensitivity", study, size=(420, 560)),),)),),
            (
                Group("3", ((quantize,),)),
                Group(
                    "4",
                    (
                        (Node(9, "KSampler", "Sample", {**stock, "seed": 7, **EULER, "denoise": 1.0}),),
                        _shown(10, "5 bit", [9, 0], [1, 2]),
                    ),
                ),
            ),
        ),
    )


TEMPLATES = (
    try_it_now,
    flux_schnell,
    few_steps,
    calibrate,
    any_sampler,
    over_quantized,
    blind_vote,
    plan_layers,
)
