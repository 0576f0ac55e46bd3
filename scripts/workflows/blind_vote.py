"""07: a blind vote on a preset."""

from __future__ import annotations

from .graph import Group, Node, Template
from .parts import (
    damaged_model,
    demo_model,
    latent,
    load_preset,
    sampler,
    scene,
)


def blind_vote() -> Template:
    words = ([6, 0], [6, 0])
    vote = {"without": [8, 0], "with_preset": [10, 0], "preset": [5, 0], "keep_in_preset": False, "ballot": 1}
    return Template(
        "07 Blind vote",
        (400, 400),
        (
            (Group("1 W4A4", ((demo_model(), damaged_model()),)), scene(latent(3, "Twelve pictures", 128, 12))),
            (
                Group("2 Q-Sched", ((load_preset(5),),)),
                Group(
                    "3 W4A4 | W4A4 + Q-Sched",
                    (
                        (
                            sampler(7, "Without a preset", [2, 0], words, [3, 0]),
                            Node(8, "VAEDecode", "Decode", {"samples": [7, 0], "vae": [1, 2]}),
                        ),
                        (
                            sampler(9, "With the preset", [2, 0], words, [3, 0], [5, 0]),
                            Node(10, "VAEDecode", "Decode", {"samples": [9, 0], "vae": [1, 2]}),
                        ),
                    ),
                ),
            ),
            (Group("4 A/B", ((Node(11, "QSchedArena", "Vote", vote, size=(620, 620)),),)),),
        ),
    )
