"""01: pictures of the demo model in full precision, in 4 bits, with what a calibration finds, and with fitted rounding.

Small enough for a minute on two cores: sixteen prompts, eight candidates, one observed prompt.
"""

from __future__ import annotations

from dataclasses import replace

from .graph import Group, Node, Template
from .parts import (
    DAMAGE,
    EULER,
    SCENE,
    SEARCH,
    damaged_model,
    demo_captions,
    demo_model,
    latent,
)

PROMPTS, TRIALS = 16, 8

WIDTH = 280
"""Pixels of a node: with two columns of them and the rest the template is read on a laptop."""


def try_it_now() -> Template:
    prompt = Node(6, "CLIPTextEncode", "Prompt", {"clip": [1, 1], "text": SCENE}, size=(WIDTH, 100))
    study = {"model": [1, 0], "positive": [6, 0], "latent_image": [3, 0], **EULER, "study_seed": 0, "memory_gb": 2.0}
    observe = Node(9, "QSchedObserve", "Observe", study, size=(WIDTH, 0))
    nearest = replace(damaged_model(), size=(WIDTH, 230))
    toy, size = (replace(node, size=(WIDTH, 0)) for node in (demo_model(), latent(3, "Picture size", 128)))
    fitted = Node(
        10,
        "QSchedQuantizeModel",
        "Quantize: the same, fitted",
        {"model": [1, 0], "observation": [9, 0], **DAMAGE},
        size=(WIDTH, 230),
        label="W4A4 GPTQ",
    )
    models = {"model": [2, 0], "full_model": [1, 0], "other_model": [10, 0]}
    sockets = {**models, "clip": [1, 1], "vae": [1, 2], "latent_image": [3, 0]}
    prompts = {"prompts": "\n".join(demo_captions()[:PROMPTS])}
    calibrate = Node(
        4,
        "QSchedCalibrate",
        "Calibrate",
        {**sockets, **prompts, **SEARCH, "trials": TRIALS},
        size=(400, 640),
    )
    pictures = Node(
        5,
        "PreviewImage",
        "Full, quantised, repaired, fitted",
        {"images": [4, 2]},
        size=(400, 350),
        label="FP16 | W4A4 | W4A4 + Q-Sched | W4A4 GPTQ",
    )
    return Template(
        "01 Try it now",
        (400, 330),
        (
            (Group("1", ((toy, size, prompt, nearest), (observe, fitted))),),
            (Group("2", ((calibrate,),)),),
            (Group("3", ((pictures,),)),),
        ),
        note_band=2,
    )
