"""01: full, quantised and repaired pictures of the demo model."""

from __future__ import annotations

from .graph import Group, Node, Template
from .parts import (
    SEARCH,
    damaged_model,
    demo_captions,
    demo_model,
    latent,
)


def try_it_now() -> Template:
    sockets = {"model": [2, 0], "clip": [1, 1], "vae": [1, 2], "latent_image": [3, 0], "full_model": [1, 0]}
    texts = {"prompts": "\n".join(demo_captions()[:20])}
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
        label="FP16 | W4A4 | W4A4 + Q-Sched",
    )
    return Template(
        "01 Try it now",
        (580, 230),
        (
            (Group("1", ((demo_model(), latent(3, "Picture size", 128), damaged_model()),)),),
            (Group("2", ((calibrate,),)),),
            (Group("3", ((pictures,),)),),
        ),
        note_band=2,
    )
