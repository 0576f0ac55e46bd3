"""04: a calibration on the user's own prompts, its pictures and its preset."""

from __future__ import annotations

from .graph import Group, Node, Template
from .parts import (
    SEARCH,
    damaged_model,
    demo_captions,
    demo_model,
    latent,
)


def calibrate() -> Template:
    captions = demo_captions()
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
            (Group("1", ((demo_model(), latent(3, "Picture size", 128)),)), Group("2 W4A4", ((damaged_model(),),))),
            (
                Group(
                    "3",
                    (
                        (
                            Node(5, "QSchedPrompts", "Your prompts", lists, size=(440, 460)),
                            Node(6, "QSchedMetric", "What is scored", scores, size=(440, 200)),
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
                                Node(8 + i, "PreviewImage", title, {"images": [4, slot]}, size=(420, 340), label=title)
                                for i, (title, slot) in enumerate(pictures)
                            ),
                        ),
                    ),
                ),
            ),
        ),
    )
