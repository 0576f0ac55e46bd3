"""A preset's effect on contrast, in its own four steps and at other step numbers: `python -m benchmarks.second_pass`.

A constant c_x of 1.01 on the demo model: what it does to the pictures' contrast over the whole schedule, and over its
second half (denoise 0.5), in 1 to 16 steps; always against the stock sampler at the same steps. An effect that belongs
to a range of sigma is the same in each column, but for the sampler's own error at few steps (see
``Coefficients.for_sigmas``: what is exact, and what is of first order).
"""

from __future__ import annotations

import importlib

import torch

from .in_host import import_host, import_pack
from .record import record

STEPS = (1, 2, 4, 8, 16)
C_X = 1.01
TEXTS = [
    f"a {size} {thing} on a {ground} background"
    for size in ("small", "large")
    for ground in ("white", "sky", "mint")
    for thing in ("apple", "star")
]


@torch.inference_mode()
def main() -> None:
    import_host()
    import_pack()
    core, patch = (importlib.import_module(f"pack.{name}") for name in ("qsched_core", "nodes.sampling.patch"))
    sampling = importlib.import_module("pack.nodes.sampling.ksampler")
    model, clip, vae = importlib.import_module("pack.nodes.demo_model").QSchedDemoModel.execute().args
    encode = importlib.import_module("pack.nodes.host.conditioning").encode
    conditionings = [encode(clip, text) for text in TEXTS]

    def sampled(recipe, subject, start) -> torch.Tensor:
        samples = [
            sampling.sample_latent(subject, recipe, 7 + i, text, text, {"samples": start[i : i + 1]})["samples"]
            for i, text in enumerate(conditionings)
        ]
        return torch.cat(samples)

    def contrast(latents: torch.Tensor) -> float:
        luminance = vae.decode(latents) @ torch.tensor([0.2126, 0.7152, 0.0722])
        return luminance.flatten(1).std(1).mean().item()

    own = sampling.Recipe(4, 1.0, "euler", "simple")
    preset = core.Preset(core.Coefficients.constant(4, c_x=C_X), own.sigmas(model))
    changed = patch.model_with(model, patch.PresetUse(preset))
    empty = torch.zeros(len(TEXTS), 16, 16, 16)
    pictures = sampled(own, model, empty)

    def effect(steps: int, denoise: float) -> float:
        recipe = sampling.Recipe(steps, 1.0, "euler", "simple", denoise)
        start = empty if denoise == 1.0 else pictures
        stock, ours = (contrast(sampled(recipe, subject, start)) for subject in (model, changed))
        return round(100 * (ours / stock - 1), 2)

    rows = {
        name: {f"{steps} steps": effect(steps, denoise) for steps in STEPS}
        for name, denoise in (("whole schedule", 1.0), ("second half", 0.5))
    }
    record("second_pass", {"c_x": C_X, "contrast, per cent": rows}, on_demo=True)


if __name__ == "__main__":
    main()
