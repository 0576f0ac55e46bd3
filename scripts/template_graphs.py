"""What the example workflows hold: nodes, values, groups, notes. ``scripts/templates.py`` makes the files of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .layout import DEMO_PROMPTS

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
    inputs: dict[str, Any] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    mode: int = LIVE
    size: tuple[int, int] = (0, 0)
    """At least, in pixels."""
    room: int = 0
    """The height that the node has after a run, where it grows by itself."""


@dataclass(frozen=True)
class Group:
    """A titled frame around columns of nodes."""

    title: str
    columns: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Template:
    """A workflow. `bands` stand side by side, the groups of a band below each other."""

    name: str
    note: str
    note_size: tuple[int, int]
    bands: tuple[tuple[Group, ...], ...]

    @property
    def nodes(self) -> list[Node]:
        return [n for band in self.bands for group in band for column in group.columns for n in column]


SCHNELL = File("flux1-schnell.safetensors", "diffusion_models", "Comfy-Org/flux1-schnell:")
CLIP_L = File("clip_l.safetensors", "text_encoders", "comfyanonymous/flux_text_encoders:")
T5 = File("t5xxl_fp16.safetensors", "text_encoders", "comfyanonymous/flux_text_encoders:")
AE = File("ae.safetensors", "vae", "Comfy-Org/Lumina_Image_2.0_Repackaged:split_files/vae/")
TURBO = File("sd_xl_turbo_1.0_fp16.safetensors", "checkpoints", "stabilityai/sdxl-turbo:")

PICTURE = (300, 330)
PLAIN = {"denoise": 1.0, "strength": 1.0, "if_preset_differs": "resample"}
EULER = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
DAMAGE = {"format": "w4a4", "group_size": "per channel", "include": "*", "exclude": ""}
W4A8 = {"format": "w4a8", "group_size": "format's own", "include": "", "exclude": ""}
SEARCH = {
    "search_seed": 0,
    **EULER,
    "trials": 24,
    "metric": "demo",
    "space": "both ends",
    "radius": 0.2,
    "k": 2.0,
    "verdict_seeds": 4,
    "batch_size": 16,
    "negative": "",
}
FOUND = {  # by `make demo`, on the demo model in W4A4
    "form": "ramp",
    "form.c_x_first": 0.855,
    "form.c_x_last": 1.2,
    "form.c_eps_first": 1.2,
    "form.c_eps_last": 1.184,
    "strength": 1.0,
}


def _captions() -> list[str]:
    lines = DEMO_PROMPTS.read_text("utf-8").splitlines()
    return list(dict.fromkeys(line for line in lines if not line.startswith("#")))


def _demo() -> Node:
    return Node(1, "QSchedDemoModel", "Demo model")


def _damage(title: str = "Quantize: W4A4, all layers") -> Node:
    return Node(2, "QSchedQuantizeModel", title, {"model": [1, 0], **DAMAGE}, size=(320, 330))


def _latent(id: int, title: str, side: int, count: int = 1, kind: str = "EmptySD3LatentImage") -> Node:
    return Node(id, kind, title, {"width": side, "height": side, "batch_size": count})


def _shown(id: int, title: str, samples: list, vae: list, prefix: str = "") -> tuple[Node, Node]:
    """A decoder and, below it, the picture; saved under `prefix`."""
    kind, saved = ("SaveImage", {"filename_prefix": prefix}) if prefix else ("PreviewImage", {})
    picture = Node(id + 1, kind, title, {"images": [id, 0], **saved}, size=PICTURE)
    return Node(id, "VAEDecode", "Decode", {"samples": samples, "vae": vae}), picture


def _sampler(id: int, title: str, model: list, conditioning: tuple, latent: list, preset: list | None = None) -> Node:
    positive, negative = conditioning
    sockets = {"model": model, "positive": positive, "negative": negative, "latent_image": latent}
    inputs = {**sockets, **({"preset": preset} if preset else {}), "seed": 7, **EULER, **PLAIN}
    return Node(id, "QSchedSampler", title, inputs, room=470 if preset else 0)


def try_it_now() -> Template:
    words = ([7, 0], [7, 0])
    prompt = Node(7, "CLIPTextEncode", "Prompt", {"clip": [1, 1], "text": SCENE}, size=(320, 140))
    calibrate = Node(
        4,
        "QSchedCalibrate",
        "2 · Calibrate",
        {"model": [2, 0], "clip": [1, 1], "vae": [1, 2], "latent_image": [3, 0]}
        | {"prompts": "\n".join(_captions()[:20]), "prompt_file": "", **SEARCH},
        size=(440, 960),
    )
    without = _sampler(10, "3 · Sample without a preset", [2, 0], words, [8, 0])
    repaired = _sampler(13, "3 · Sample with the preset", [2, 0], words, [8, 0], [4, 0])
    return Template(
        "01 Try it now",
        """# Q-Sched: try it now

Press **Run**. It needs no download and takes about a minute on a CPU.

1. **Quantize** packs a toy model into 4 bits.
2. **Calibrate** searches coefficients on half of the prompts, and judges them on the other half. Watch the line and \
the picture in the node; *cancel* keeps the best so far.
3. **Sample** without and with the preset, same seed.

The verdict says what was gained, what fell, and what drifts. Select a node and press *i* for its help.

**Change first**: the *Prompt*, the *format* of Quantize, *trials* of Calibrate.

**To do the same with your own model**: replace *Demo model* by your loaders, choose your steps, cfg, sampler and \
size, and put an open_clip model into `models/qsched_metrics` to score with (see the help of *JAQ Calibrate*). \
Template *02* does it with FLUX.1-schnell, *04* shows all that Calibrate can be given.""",
        (400, 460),
        (
            (
                Group("1 Load and quantize", ((_demo(), _damage("1 · Quantize")),)),
                Group("Prompt and size", ((prompt, _latent(8, "Four pictures", 64, 4)),)),
            ),
            (Group("2 Calibrate", ((_latent(3, "Picture size", 64), calibrate),)),),
            (
                Group("3 Sample without a preset", ((without,), _shown(11, "Quantised", [10, 0], [1, 2]))),
                Group("3 Sample with the preset", ((repaired,), _shown(14, "Quantised + Q-Sched", [13, 0], [1, 2]))),
            ),
        ),
    )


def _flux_files(weights: Node) -> Group:
    texts = {"clip_name1": CLIP_L.name, "clip_name2": T5.name, "type": "flux", "device": "default"}
    return Group(
        "1 Load",
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
        "Prompt and size",
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
    return Node(6, "QSchedCoefficients", title, {"sigmas": [5, 0], **values}, room=420)


FLUX_FILES = f"""| folder in `models` | file |
|---|---|
| diffusion_models | [{SCHNELL.name}]({SCHNELL.url}) |
| text_encoders | [{CLIP_L.name}]({CLIP_L.url}) |
| text_encoders | [{T5.name}]({T5.url}) |
| vae | [{AE.name}]({AE.url}) |"""


def flux_schnell() -> Template:
    words = ([7, 0], [8, 0])
    weights = Node(
        1, "UNETLoader", "FLUX.1-schnell", {"unet_name": SCHNELL.name, "weight_dtype": "default"}, (SCHNELL,)
    )
    quantize = Node(4, "QSchedQuantizeModel", "Quantize to W4A8", {"model": [1, 0], **W4A8}, size=(320, 330))
    keep = {"model": [4, 0], "name": "flux1-schnell w4a8"}
    schedule = {"model": [4, 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}
    return Template(
        "02 Quantize and repair FLUX-schnell",
        f"""# FLUX.1-schnell in 4 bits, and the repair

{FLUX_FILES}

1. **Load** the model as it was published, in 16 bit.
2. **Quantize** packs its layers into W4A8 while it is loaded: about a quarter of the bytes. *Keep the file* is muted \
(Ctrl+M unmutes it): it writes a file, and the next time there is nothing to quantise.
3. **Preset**: the values published for this model with SVDQuant INT4 ([arXiv 2509.01624]\
(https://arxiv.org/abs/2509.01624)). Yours is quantised differently: they are a start.
4. **Sample** the same seed without and with it.

**Change first**: the *Prompt*, then *strength* of the preset: 0 is the plain sampler, 1 the values as they are.

**For values of your own** calibrate as in template *04*, and put *Load Q-Sched Preset* in place of the coefficients.

**What goes wrong**
- *Quantised already*: the file is fp8, int8 or GGUF. Use template *06*.
- Other steps or another scheduler than the preset's: it is resampled, and the log says so.
- Slower than 16 bit: 4 bits save memory first. The report of *Quantize* names the backend.""",
        (440, 600),
        (
            (
                _flux_files(weights),
                _flux_words(),
            ),
            (
                Group(
                    "2 Quantize",
                    ((quantize, Node(16, "QSchedSaveQuantized", "Keep the file", keep, mode=MUTED)),),
                ),
            ),
            (
                Group(
                    "3 Preset",
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
                    "4 Sample without a preset",
                    (
                        (_sampler(10, "Without a preset", [4, 0], words, [9, 0]),),
                        _shown(11, "W4A8", [10, 0], [3, 0], "FLUX.1-schnell W4A8"),
                    ),
                ),
                Group(
                    "4 Sample with the preset",
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


def few_steps() -> Template:
    published = {
        "form": "ramp",
        "form.c_x_first": 1.012,
        "form.c_x_last": 0.967,
        "form.c_eps_first": 0.955,
        "form.c_eps_last": 1.099,
        "strength": 1.0,
    }
    lora = {"model": [1, 0], "lora_name": "lcm-lora-sdv1-5.safetensors", "strength_model": 1.0}
    lcm = {"model": [4, 0], "sampling": "lcm", "zsnr": False}
    plain = {"model": [4, 0], "scheduler": "sgm_uniform", "steps": 4, "denoise": 1.0}
    driven = {"sampler": [8, 0], "preset": [7, 0], "strength": 1.0, "if_preset_differs": "resample"}
    return Template(
        "03 SDXL-Turbo, Lightning, LCM, PCM",
        f"""# Few-step models: SDXL-Turbo, Lightning, LCM, PCM

As it stands this is **SDXL-Turbo**: put [{TURBO.name}]({TURBO.url}) into `models/checkpoints`.

For another model change these, from left to right:

| | checkpoint | LoRA | sampler | scheduler | cfg | size |
|---|---|---|---|---|---|---|
| Turbo | sd_xl_turbo_1.0_fp16 | – | euler_ancestral | SD Turbo | 1 | 512 |
| [Lightning]({HUB}/ByteDance/SDXL-Lightning) | sdxl_lightning_4step | – | euler | sgm_uniform | 1 | 1024 |
| [LCM]({HUB}/latent-consistency/lcm-lora-sdv1-5) | [v1-5-pruned-emaonly-fp16]\
({HUB}/Comfy-Org/stable-diffusion-v1-5-archive) | lcm-lora-sdv1-5 | lcm | sgm_uniform | 1.5 | 512 |
| [PCM]({HUB}/wangfuyun/PCM_Weights) | v1-5-pruned-emaonly-fp16 | pcm_sd15_smallcfg_4step_converted \
| Sampler TCD | sgm_uniform | 1 | 512 |

- **LoRA**: bypassed; Ctrl+B switches it on. The LCM file is called `pytorch_lora_weights` on its page: rename it.
- **sgm_uniform** and **Sampler TCD** stand ready: connect them in place of *SD Turbo* and of *the sampler*.
- **LCM** also wants *Sample as LCM* switched on, between *Quantize* and all that follows.
- **Preset**: the values are published for SDXL-Turbo at W4A4. For the others set *form* to `identity`, and \
calibrate (template *04*).

**Change first**: the *Prompt*, then *steps* (1 to 4 for Turbo; the number in its file name for Lightning).

**What goes wrong**
- Grey or burnt pictures: cfg too high for a distilled model.
- Noise after a change of model: *Sample as LCM* is on where it should be off, or a LoRA of SD1.5 on SDXL.
- Other steps or sigmas than the preset's: it is resampled, and the log says so.""",
        (700, 500),
        (
            (
                Group(
                    "1 Load",
                    (
                        (
                            Node(1, "CheckpointLoaderSimple", "SDXL-Turbo", {"ckpt_name": TURBO.name}, (TURBO,)),
                            Node(2, "LoraLoaderModelOnly", "LoRA of LCM or PCM (off)", lora, mode=BYPASSED),
                        ),
                    ),
                ),
                Group(
                    "Prompt and size",
                    (
                        (
                            Node(11, "CLIPTextEncode", "Prompt", {"clip": [1, 1], "text": PROMPT}, size=(320, 120)),
                            Node(
                                12,
                                "CLIPTextEncode",
                                "Negative prompt (unused at cfg 1)",
                                {"clip": [1, 1], "text": "text, watermark"},
                                size=(320, 100),
                            ),
                            _latent(13, "Picture size", 512, kind="EmptyLatentImage"),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "2 Quantize",
                    (
                        (
                            Node(
                                3, "QSchedQuantizeModel", "Quantize to W4A8", {"model": [2, 0], **W4A8}, size=(320, 330)
                            ),
                            Node(
                                4,
                                "ModelSamplingDiscrete",
                                "Sample as LCM (off)",
                                lcm | {"model": [3, 0]},
                                mode=BYPASSED,
                            ),
                        ),
                    ),
                ),
                Group(
                    "3 Schedule",
                    (
                        (
                            Node(5, "SDTurboScheduler", "SD Turbo", {"model": [4, 0], "steps": 4, "denoise": 1.0}),
                            Node(6, "BasicScheduler", "sgm_uniform: Lightning, LCM, PCM", plain),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "4 Sampler and preset",
                    (
                        (
                            Node(8, "KSamplerSelect", "The sampler", {"sampler_name": "euler_ancestral"}),
                            Node(9, "QSchedSamplerTCD", "Sampler TCD: PCM", {"eta": 0.3}),
                            Node(
                                7,
                                "QSchedCoefficients",
                                "Published for SDXL-Turbo, 4 steps",
                                {"sigmas": [5, 0], **published},
                                room=480,
                            ),
                            Node(10, "QSchedSamplerSelect", "Q-Sched on the sampler", driven, room=240),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "5 Sample without a preset",
                    (
                        (_custom(14, "Without a preset", [8, 0]),),
                        _shown(15, "Quantised", [14, 0], [1, 2], "SDXL-Turbo W4A8"),
                    ),
                ),
                Group(
                    "5 Sample with the preset",
                    (
                        (_custom(17, "With the preset", [10, 0]),),
                        _shown(18, "Quantised + Q-Sched", [17, 0], [1, 2], "SDXL-Turbo W4A8 Q-Sched"),
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
        {**sockets, "prompt_set": [5, 0], "jaq_metric": [6, 0], "prompts": "", "prompt_file": "", **SEARCH}
        | {"trials": 12, "verdict_seeds": 2},
        size=(440, 960),
    )
    card = {"author": "", "license": "CC0-1.0", "notes": "Made with template 04."}
    pictures = (("before / after", 2), ("map", 3), ("per prompt", 4))
    return Template(
        "04 Calibrate on your prompts",
        """# Calibrate on your prompts

Press **Run** to see it on the demo model: about two minutes on a CPU, no download. Then make it yours:

1. **Load**: put your loaders in place of *Demo model*, and set *Picture size*.
2. **Quantize**: any quantised MODEL will do, ours or not. The unquantised one goes into *full_model*: it is the \
control that tells repair from mere re-tuning. Leave it out if it does not fit.
3. **Prompts**: one per line, as you really write them. The search sees *prompts* only, the verdict *verdict_prompts* \
only. A dozen each will do, two dozen are better. **Metric**: `demo` knows the demo's pictures only; for yours put an \
open_clip model into `models/qsched_metrics` and choose it.
4. **Calibrate** with the steps, cfg, sampler and scheduler that you will sample with. *Cancel* keeps the best so \
far; *Run* with the same inputs goes on where it stopped.
5. **Keep**: the preset is written to `models/qsched_presets`, for *Load Q-Sched Preset*, with its pictures and this \
workflow in it (switch *with_workflow* off to keep your texts to yourself).

**Read the verdict**: *accepted* means that the gain on unseen prompts is beyond chance. *Drifts* is what changed \
without being asked. *On the border* means the optimum may lie outside: look at the pictures before you raise \
*radius*. *per prompt* shows who lost.

**Change first**: the prompts; then *trials*.

**What goes wrong**
- *3 prompts*: the verdict needs prompts of its own.
- Out of memory: lower *batch_size*, or take *full_model* off.
- Higher scores, worse pictures: the metric is being gamed. Lower *radius*, add *watch* in *JAQ Metric*.""",
        (460, 600),
        (
            (
                Group("1 Load", ((_demo(), _latent(3, "Picture size", 64)),)),
                Group("2 Quantize", ((_damage(),),)),
            ),
            (
                Group(
                    "3 Prompts and metric",
                    (
                        (
                            Node(5, "QSchedPrompts", "Your prompts", lists, size=(440, 560)),
                            Node(
                                6,
                                "QSchedMetric",
                                "What is scored",
                                {"tc": "demo", "iq": "demo", "watch": "none"},
                                size=(440, 220),
                            ),
                        ),
                    ),
                ),
            ),
            (Group("4 Calibrate", ((search,),)),),
            (
                Group(
                    "5 Keep and look",
                    (
                        (
                            Node(
                                7,
                                "QSchedSavePreset",
                                "Save the preset",
                                {"preset": [4, 0], "thumbnail": [4, 2], "name": "my demo preset", **card},
                                size=(320, 200),
                            ),
                            *(
                                Node(8 + i, "PreviewImage", title, {"images": [4, slot]}, size=(380, 300))
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


def any_sampler() -> Template:
    schedule = {"model": [2, 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}
    words = ([6, 0], [6, 0])
    stock = {"positive": [6, 0], "negative": [6, 0], "latent_image": [3, 0], "seed": 7, **EULER, "denoise": 1.0}
    use = {"preset": [5, 0], "strength": 1.0, "if_preset_differs": "resample"}
    parts = {"noise": [15, 0], "guider": [16, 0], "sampler": [18, 0], "sigmas": [4, 0], "latent_image": [3, 0]}
    guided = {"model": [2, 0], "positive": [6, 0], "negative": [6, 0], "cfg": 1.0}
    found = Node(5, "QSchedCoefficients", "The preset", {"sigmas": [4, 0], **FOUND}, room=480)
    return Template(
        "05 Use a preset with any sampler node",
        """# One preset, three ways to sample

Press **Run**: no download, some seconds on a CPU. All three give the same pictures.

- **A · Q-Sched Sampler** is KSampler with a preset socket. The shortest way.
- **B · Apply Q-Sched** patches the MODEL. Whatever samples it afterwards is driven: KSampler, KSampler Advanced, \
upscalers, samplers of other packs that use the host's own functions.
- **C · Q-Sched Sampler Select** wraps a SAMPLER, for *SamplerCustom* and *SamplerCustomAdvanced*: custom sigmas, \
guiders, noises.

Use **one** of them at a time.

**The preset** is written into *Q-Sched Coefficients* here, so that nothing need be on your disk: what *JAQ Calibrate* \
found for this model. For a file from `models/qsched_presets`, yours or somebody's, put **Load Q-Sched Preset** in \
its place. Such a file dropped on the canvas opens the workflow it was made with.

**Change first**: *strength*: 0 is the plain sampler to the bit, 1 the preset, between and beyond as you like.

**What goes wrong**
- Other steps, sampler or schedule than the preset's: *if_preset_differs* resamples it (default), uses it as is, or \
refuses. The log names what differs.
- A sampler that cannot be driven (dpm_fast, dpm_adaptive, sa_solver, uni_pc) is refused by its name.""",
        (420, 480),
        (
            (
                Group("1 Load and quantize", ((_demo(), _damage()),)),
                Group(
                    "Prompt and size",
                    (
                        (
                            Node(6, "CLIPTextEncode", "Prompt", {"clip": [1, 1], "text": SCENE}, size=(320, 140)),
                            _latent(3, "Four pictures", 64, 4),
                        ),
                    ),
                ),
            ),
            (Group("2 Preset", ((Node(4, "BasicScheduler", "The schedule", schedule), found),)),),
            (
                Group(
                    "A Q-Sched Sampler",
                    (
                        (_sampler(7, "Q-Sched Sampler", [2, 0], words, [3, 0], [5, 0]),),
                        _shown(8, "A", [7, 0], [1, 2]),
                    ),
                ),
                Group(
                    "B Apply Q-Sched + KSampler",
                    (
                        (
                            Node(10, "QSchedApply", "Apply Q-Sched", {"model": [2, 0], **use}, room=240),
                            Node(11, "KSampler", "KSampler", {"model": [10, 0], **stock}),
                        ),
                        _shown(12, "B", [11, 0], [1, 2]),
                    ),
                ),
            ),
            (
                Group(
                    "C Q-Sched Sampler Select + SamplerCustomAdvanced",
                    (
                        (
                            Node(15, "RandomNoise", "Noise", {"noise_seed": 7}),
                            Node(16, "CFGGuider", "Guider", guided),
                            Node(17, "KSamplerSelect", "Sampler", {"sampler_name": "euler"}),
                            Node(
                                18,
                                "QSchedSamplerSelect",
                                "Q-Sched Sampler Select",
                                {"sampler": [17, 0], **use},
                                room=240,
                            ),
                        ),
                        (
                            Node(19, "SamplerCustomAdvanced", "SamplerCustomAdvanced", parts),
                            *_shown(20, "C", [19, 0], [1, 2]),
                        ),
                    ),
                ),
                Group(
                    "Without a preset, to compare",
                    (
                        (_sampler(22, "Without a preset", [2, 0], words, [3, 0]),),
                        _shown(23, "Without", [22, 0], [1, 2]),
                    ),
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
        f"""# Over a model that is quantised already

Q-Sched corrects the sampling, not the weights: it works over **any** quantised MODEL. Leave *Quantize* out, and \
choose the loader:

| your file | loader in place of *1 Load* |
|---|---|
| 16 bit, cast while loading | *Load Diffusion Model*, `weight_dtype` fp8 (as here) |
| fp8 scaled, int8_convrot, nvfp4 | *Load Diffusion Model*, `weight_dtype` default |
| W4A8 of ours or of ComfyUI (0.31 or newer) | *Load Diffusion Model*, default |
| W4A8 saved in *compact* recipe | *Load Quantized Model* |
| GGUF | *Unet Loader (GGUF)* of the pack [ComfyUI-GGUF](https://github.com/city96/ComfyUI-GGUF); e.g. \
[FLUX.1-schnell]({HUB}/city96/FLUX.1-schnell-gguf) |
| fp8 checkpoint | *Load Checkpoint* |

{FLUX_FILES}

**The preset**: values published for this model with SVDQuant INT4, at half strength. Nobody has published any for \
fp8, and 8 bit lose little: expect little. For a 4-bit GGUF start at strength 1. For values that are yours calibrate \
(template *04*): plug the loader's MODEL straight into *JAQ Calibrate*.

**Change first**: the loader, then *strength*.

**What goes wrong**
- *Quantised already*: *Quantize Model* does not take these models, and need not.
- A preset of another quantisation: the log says so; the gain was measured for the other one.
- A preset does not make a model smaller or faster.""",
        (480, 640),
        (
            (_flux_files(weights), _flux_words()),
            (
                Group(
                    "2 Preset",
                    (
                        (
                            Node(5, "BasicScheduler", "The sampler's own schedule", schedule),
                            _published("Published for SVDQuant INT4, 4 steps", 0.5),
                            Node(10, "QSchedApply", "Apply Q-Sched", use, room=240),
                        ),
                    ),
                ),
            ),
            (
                Group(
                    "3 Sample without a preset",
                    (
                        (_stock(11, "Without a preset", [1, 0]),),
                        _shown(12, "fp8", [11, 0], [3, 0], "FLUX.1-schnell fp8"),
                    ),
                ),
                Group(
                    "3 Sample with the preset",
                    (
                        (_stock(14, "With the preset", [10, 0]),),
                        _shown(15, "fp8 + Q-Sched", [14, 0], [3, 0], "FLUX.1-schnell fp8 Q-Sched"),
                    ),
                ),
            ),
        ),
    )


TEMPLATES = (try_it_now, flux_schnell, few_steps, calibrate, any_sampler, over_quantized)
