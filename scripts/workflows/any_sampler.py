"""05: a preset in Q-Sched Sampler, in KSampler and in SamplerCustomAdvanced."""

from __future__ import annotations

from .graph import Group, Node, Template
from .parts import (
    EULER,
    damaged_model,
    decoded,
    demo_model,
    latent,
    load_preset,
    sampler,
    scene,
)


def any_sampler() -> Template:
    schedule = {"model": [2, 0], "scheduler": "simple", "steps": 4, "denoise": 1.0}
    words = ([6, 0], [6, 0])
    stock = {"positive": [6, 0], "negative": [6, 0], "latent_image": [3, 0], "seed": 7, **EULER, "denoise": 1.0}
    use = {"preset": [5, 0], "strength": 1.0, "if_preset_differs": "resample"}
    parts = {"noise": [15, 0], "guider": [16, 0], "sampler": [18, 0], "sigmas": [4, 0], "latent_image": [3, 0]}
    guided = {"model": [2, 0], "positive": [6, 0], "negative": [6, 0], "cfg": 1.0}
    inputs = {"sampler": [17, 0], **use}
    return Template(
        "05 Use a preset with any sampler node",
        (420, 460),
        (
            (Group("1 W4A4", ((demo_model(), damaged_model()),)), scene(latent(3, "Four pictures", 128, 4))),
            (Group("2 Q-Sched", ((load_preset(5),),)),),
            (
                Group(
                    "A · Q-Sched Sampler",
                    ((sampler(7, "Q-Sched Sampler", [2, 0], words, [3, 0], [5, 0]),), decoded(8, "A", [7, 0], [1, 2])),
                ),
                Group(
                    "B · Apply Q-Sched + KSampler",
                    (
                        (
                            Node(10, "QSchedApply", "Apply Q-Sched", {"model": [2, 0], **use}),
                            Node(11, "KSampler", "KSampler", {"model": [10, 0], **stock}),
                        ),
                        decoded(12, "B", [11, 0], [1, 2]),
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
                            Node(18, "QSchedSamplerSelect", "Q-Sched Sampler Select", inputs),
                        ),
                        (
                            Node(19, "SamplerCustomAdvanced", "SamplerCustomAdvanced", parts),
                            *decoded(20, "C", [19, 0], [1, 2]),
                        ),
                    ),
                ),
                Group(
                    "W4A4",
                    ((sampler(22, "Without a preset", [2, 0], words, [3, 0]),), decoded(23, "W4A4", [22, 0], [1, 2])),
                ),
            ),
        ),
    )
