"""09 to 18: a few-step model of today, its text encoder quantised with it, sampled as its own template samples."""

from __future__ import annotations

from .families import Family
from .graph import Group, Node, Template
from .parts import PICTURE, PROMPT, W4A8, latent

MODEL, LORA, ENCODER, VAE, QUANTIZED, QUANTIZED_TEXT, POSITIVE, NEGATIVE, LATENT, BEHIND, SIGMAS, PRESET = range(1, 13)
SAMPLES, PICTURES, PICTURE_NODE, WRAPPED, GUIDER, NOISE, SAMPLER = range(13, 20)
LOW, LOW_LORA, LOW_QUANTIZED, LOW_BEHIND, JOINED, VIDEO = range(20, 26)
"""Node ids: the same part has the same one in every template."""

TEXT_W4A8 = {"format": "w4a8", "group_size": "format's own", "exclude": "", "prompts": PROMPT}
AS_CALIBRATED = {"strength": 1.0, "if_preset_differs": "resample"}


def family_template(family: Family) -> Template:
    """The workflow of a model; of two models where one goes on from the other."""
    words = Group(f"3 {family.side} px", (_words(family),))
    quantized = Group("2 W4A8", (_quantized(family),))
    return Template(
        family.name,
        (460, 640),
        (
            (Group("1", (_files(family),)),),
            (quantized,),
            (words, Group("4 Q-Sched", _preset(family))),
            (Group("5 W4A8 + Q-Sched", (_sampler(family), _picture(family))),),
        ),
    )


def _source(family: Family) -> list:
    """What is quantised."""
    return [LORA if family.lora else MODEL, 0]


def _files(family: Family) -> tuple[Node, ...]:
    if family.encoder is None:
        nodes = [Node(MODEL, "CheckpointLoaderSimple", family.title, {"ckpt_name": family.model.name}, (family.model,))]
    else:
        nodes = [_loader(MODEL, family.title, family.model)]
    nodes += _lora(LORA, [MODEL, 0], family.lora)
    if family.low:
        nodes += [_loader(LOW, f"{family.title}, low noise", family.low[0]), *_lora(LOW_LORA, [LOW, 0], family.low[1])]
    if family.encoder is not None:
        texts = {"clip_name": family.encoder.name, "type": family.encoder_type, "device": "default"}
        nodes.append(Node(ENCODER, "CLIPLoader", "Text encoder", texts, (family.encoder,)))
    if family.vae is not None:
        nodes.append(Node(VAE, "VAELoader", "VAE", {"vae_name": family.vae.name}, (family.vae,)))
    return tuple(nodes)


def _loader(id: int, title: str, file) -> Node:
    return Node(id, "UNETLoader", title, {"unet_name": file.name, "weight_dtype": "default"}, (file,))


def _lora(id: int, model: list, file) -> list[Node]:
    if file is None:
        return []
    inputs = {"model": model, "lora_name": file.name, "strength_model": 1.0}
    return [Node(id, "LoraLoaderModelOnly", "Few-step LoRA", inputs, (file,))]


def _quantized(family: Family) -> tuple[Node, ...]:
    size = (320, 230)
    nodes = [Node(QUANTIZED, "QSchedQuantizeModel", "Quantize to W4A8", {"model": _source(family), **W4A8}, size=size)]
    if family.low:
        low = {"model": [LOW_LORA, 0], **W4A8}
        nodes.append(Node(LOW_QUANTIZED, "QSchedQuantizeModel", "Quantize to W4A8, low noise", low, size=size))
    clip = [MODEL, 1] if family.encoder is None else [ENCODER, 0]
    text = {"clip": clip, **TEXT_W4A8}
    nodes.append(Node(QUANTIZED_TEXT, "QSchedQuantizeTextEncoder", "Quantize the text encoder", text, size=(320, 260)))
    return tuple(nodes)


def _words(family: Family) -> tuple[Node, ...]:
    clip = [QUANTIZED_TEXT, 0]
    picture = latent(LATENT, "Picture size", family.side, kind=family.latent)
    if family.low:
        size = {"width": family.side, "height": family.side, "length": 81, "batch_size": 1}
        picture = Node(LATENT, family.latent, "Video size", size)
    if family.scheduler == "ManualSigmas":
        # The conditioning of this family needs a node of its own, which gives the negative one as well.
        texts = {"clip": clip, "prompt": PROMPT, "negative_prompt": "", "resolution": family.side}
        return Node(POSITIVE, "TextEncodeQwenImage21", "Prompt", texts, size=(320, 240)), picture
    positive = Node(POSITIVE, "CLIPTextEncode", "Prompt", {"clip": clip, "text": PROMPT}, size=(320, 130))
    if family.negative is None:
        negative = Node(NEGATIVE, "ConditioningZeroOut", "No negative prompt", {"conditioning": [POSITIVE, 0]})
    else:
        texts = {"clip": clip, "text": family.negative}
        negative = Node(NEGATIVE, "CLIPTextEncode", "Negative prompt, unused at cfg 1", texts, size=(320, 90))
    return positive, negative, picture


def _conditionings(family: Family) -> dict[str, list]:
    together = family.scheduler == "ManualSigmas"
    return {"positive": [POSITIVE, 0], "negative": [POSITIVE, 1] if together else [NEGATIVE, 0]}


def _model(family: Family) -> list:
    """What is sampled: of two models the one that is both."""
    if family.low:
        return [JOINED, 0]
    return [BEHIND if family.behind else QUANTIZED, 0]


def _preset(family: Family) -> tuple[tuple[Node, ...], ...]:
    """The model's own sampling, its sigmas, and the preset for them; what it is put on in a second column."""
    nodes, uses = [], []
    if family.behind:
        kind, widgets = family.behind
        nodes.append(Node(BEHIND, kind, "What the model needs", {"model": [QUANTIZED, 0], **widgets}))
        if family.low:
            low = {"model": [LOW_QUANTIZED, 0], **widgets}
            nodes.append(Node(LOW_BEHIND, kind, "What the model needs, low noise", low))
            half = family.steps // 2
            plan = ", ".join(["1"] * half + ["2"] * (family.steps - half))
            both = {"model": [BEHIND, 0], "model_2": [LOW_BEHIND, 0], "plan": plan, "scheduler": family.scheduler}
            uses.append(Node(JOINED, "QSchedPrecisionSchedule", "Both as one MODEL", both, size=(320, 200)))
    form = {"sigmas": [SIGMAS, 0], "form": "identity", "strength": 1.0}
    nodes += [_sigmas(family), Node(PRESET, "QSchedCoefficients", "The identity, until you have calibrated", form)]
    use = {"preset": [PRESET, 0], **AS_CALIBRATED}
    if _own_sampler(family):
        if family.sampler == "QSchedSamplerTCD":
            uses.append(Node(SAMPLER, "QSchedSamplerTCD", "TCD", {"eta": 0.3}))
        else:
            uses.append(Node(SAMPLER, "KSamplerSelect", "The sampler", {"sampler_name": family.sampler}))
        uses.append(Node(WRAPPED, "QSchedSamplerSelect", "Q-Sched on the sampler", {"sampler": [SAMPLER, 0], **use}))
    return tuple(nodes), *([tuple(uses)] if uses else [])


def _own_sampler(family: Family) -> bool:
    """Whether its template samples with a SAMPLER and sigmas, and not with KSampler."""
    return family.scheduler[0].isupper() or family.sampler == "QSchedSamplerTCD"


def _sigmas(family: Family) -> Node:
    title = "The sampler's own schedule"
    if family.scheduler == "ManualSigmas":
        return Node(SIGMAS, "ManualSigmas", title, {"sigmas": family.sigmas}, size=(320, 80))
    if family.scheduler == "Flux2Scheduler":
        size = {"steps": family.steps, "width": family.side, "height": family.side}
        return Node(SIGMAS, "Flux2Scheduler", title, size)
    plan = {"model": _model(family), "scheduler": family.scheduler, "steps": family.steps, "denoise": 1.0}
    return Node(SIGMAS, "BasicScheduler", title, plan)


def _sampler(family: Family) -> tuple[Node, ...]:
    both = _conditionings(family)
    if not _own_sampler(family):
        sockets = {"model": _model(family), **both, "latent_image": [LATENT, 0], "preset": [PRESET, 0]}
        settings = {"steps": family.steps, "cfg": family.cfg, "sampler_name": family.sampler}
        values = {"seed": 0, **settings, "scheduler": family.scheduler, "denoise": 1.0, **AS_CALIBRATED}
        return (Node(SAMPLES, "QSchedSampler", "Sample", {**sockets, **values}),)
    if not family.scheduler[0].isupper():
        sockets = {"model": _model(family), **both, "sampler": [WRAPPED, 0], "sigmas": [SIGMAS, 0]}
        values = {"add_noise": True, "noise_seed": 0, "cfg": family.cfg, "latent_image": [LATENT, 0]}
        return (Node(SAMPLES, "SamplerCustom", "Sample", {**sockets, **values}),)
    parts = {"noise": [NOISE, 0], "guider": [GUIDER, 0], "sampler": [WRAPPED, 0], "sigmas": [SIGMAS, 0]}
    return (
        Node(NOISE, "RandomNoise", "Noise", {"noise_seed": 0}),
        Node(GUIDER, "CFGGuider", "Guidance 1", {"model": _model(family), **both, "cfg": family.cfg}),
        Node(SAMPLES, "SamplerCustomAdvanced", "Sample", {**parts, "latent_image": [LATENT, 0]}),
    )


def _picture(family: Family) -> tuple[Node, ...]:
    vae = [MODEL, 2] if family.vae is None else [VAE, 0]
    samples, title = [SAMPLES, 0], f"{family.title} W4A8"
    decode = Node(PICTURES, "VAEDecode", "Decode", {"samples": samples, "vae": vae})
    if family.low:
        saved = {"video": [VIDEO, 0], "filename_prefix": f"video/{title}", "format": "auto", "codec": "auto"}
        video = Node(VIDEO, "CreateVideo", "16 frames a second", {"images": [PICTURES, 0], "fps": 16.0})
        return decode, video, Node(PICTURE_NODE, "SaveVideo", title, saved, size=PICTURE, label=title)
    saved = {"images": [PICTURES, 0], "filename_prefix": title}
    return decode, Node(PICTURE_NODE, "SaveImage", title, saved, size=PICTURE, label=title)
