"""08: the bits of each layer, planned from what it loses."""

from __future__ import annotations

from .graph import Group, Node, Template
from .parts import (
    EULER,
    SCENE,
    W4A8,
    decoded,
    demo_model,
    latent,
)


def plan_layers() -> Template:
    second = "a large rocket below a small star on a night background"
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
            (Group("1", ((demo_model(),),)), Group("2 × 128 px", ((*texts, both, latent(3, "Picture size", 128)),))),
            (Group("2", ((Node(4, "QSchedSensitivity", "Sensitivity", study, size=(420, 560)),),)),),
            (
                Group("3", ((quantize,),)),
                Group(
                    "4",
                    (
                        (Node(9, "KSampler", "Sample", {**stock, "seed": 7, **EULER, "denoise": 1.0}),),
                        decoded(10, "5 bit", [9, 0], [1, 2]),
                    ),
                ),
            ),
        ),
    )
