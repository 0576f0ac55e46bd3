"""20: the precision of each sampling step, planned from what it loses."""

from __future__ import annotations

from .graph import Group, Node, Template
from .parts import DAMAGE, EULER, SCENE, damaged_model, decoded, demo_captions, demo_model, latent, stock_sampler

PROMPTS = 12
"""As many as the study needs: half measure, half judge. It takes a minute on two cores."""

BUDGET = 0.5
"""Of what 8 bits in every step cost."""


def plan_steps() -> Template:
    fine = {"model": [1, 0], **DAMAGE, "format": "w8a8"}
    models = {"model": [2, 0], "model_2": [3, 0]}
    study = {
        **models, "clip": [1, 1], "vae": [1, 2], "latent_image": [9, 0],
        "prompts": "\n".join(demo_captions()[:PROMPTS]), "budget": BUDGET, "cost": "bits", **EULER, "metric": "demo",
        "formats": "", "study_seed": 0, "batch_size": 16, "negative": "",
    }  # fmt: skip
    plan = {**models, "precision": [4, 0], "plan": "1, 1, 1, 2", "scheduler": EULER["scheduler"]}
    plot = Node(5, "PreviewImage", "Losses and costs", {"images": [4, 3]}, size=(420, 300), label="W4A4 | W4A8 | W8A8")
    prompt = Node(7, "CLIPTextEncode", "Prompt", {"clip": [1, 1], "text": SCENE}, size=(320, 110))
    words = Node(8, "ConditioningZeroOut", "No negative prompt", {"conditioning": [7, 0]})
    return Template(
        "20 Plan the precision of each step",
        (400, 400),
        (
            (Group("1", ((demo_model(), damaged_model(), Node(3, "QSchedQuantizeModel", "W8A8", fine)),)),),
            (
                Group("2", ((latent(9, "Picture size", 128), Node(4, "QSchedStepSensitivity", "Study", study)),)),
                Group("JAQ", ((plot,),)),
            ),
            (Group("3", ((Node(6, "QSchedPrecisionSchedule", "Schedule", plan), prompt, words),)),),
            (
                Group("4", ((stock_sampler(10, "W4A4", [2, 0]),), decoded(11, "W4A4", [10, 0], [1, 2]))),
                Group("5", ((stock_sampler(13, "Planned", [6, 0]),), decoded(14, "W4A4 + W8A8", [13, 0], [1, 2]))),
            ),
        ),
    )  # fmt: skip
