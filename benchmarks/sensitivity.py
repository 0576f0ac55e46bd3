"""What a plan per layer wins: ``python -m benchmarks.sensitivity`` in the environment of ``make env``.

The demo model (trained by us, a toy) is studied on three of its held-out captions, and quantised by plans at the sizes
of the uniform formats and between. *error* is that of a whole run's latent against full precision, root mean
square over other captions, same noise; *predicted* is the study's own. The picture goes to ``docs/sensitivity.png``.
"""

from __future__ import annotations

import importlib
from math import sqrt
from pathlib import Path

import torch

from calibration.prompt_files import read_lines

from .in_host import ROOT, import_host, import_pack
from .record import record

STUDIED, TOLD, STEPS = 3, 24, 4
TRIED = ("w4a8", "w4a8/channel", "w6a8", "w8a8")
BITS = (5.0, 5.5)
SHOWN = 5.0


def main() -> None:
    import_host()
    import_pack()
    torch.set_num_threads(2)
    load = importlib.import_module
    load("comfy.utils").set_progress_bar_enabled(False)
    node, conditioning, sampling = (
        load("pack.nodes.demo_model"),
        load("pack.nodes.host.conditioning"),
        load("pack.nodes.sampling.ksampler"),
    )
    sensitivity, plot, twin = (
        load("pack.nodes.quantization.study"),
        load("pack.calibration.plots.sensitivity"),
        load("pack.nodes.quantization.twin_model"),
    )
    job_for = load("pack.nodes.quantization.backends").job_for
    texts = read_lines(Path(ROOT, "demo", "prompts.txt").read_text("utf-8")).texts
    result = {"studied_captions": STUDIED, "other_captions": TOLD, "depths": {}}
    with torch.inference_mode():
        full, clip, _ = node.QSchedDemoModel.execute().args
        recipe = sampling.Recipe(STEPS, 1.0, "euler", "simple")
        empty = {"samples": torch.zeros(1, 4, 16, 16)}
        others = [conditioning.encode(clip, text) for text in texts[STUDIED : STUDIED + TOLD]]
        exact = [_latent(full, prompt, i, recipe, empty, sampling) for i, prompt in enumerate(others)]
        positive = [entry for text in texts[:STUDIED] for entry in conditioning.encode(clip, text)]
        prompts = sensitivity.StudyPrompts(full, positive, None, empty, recipe)
        for depth in ("layers", "network"):
            forms = [sensitivity.read_format(name) for name in TRIED]
            found = sensitivity.study(full, prompts.sampled(0), forms, depth, lambda *told: None)
            plans = {f"{form} everywhere": found.uniform(form) for form in forms}
            plans |= {f"planned, as large as {form}": _alike(found, form) for form in forms}
            plans |= {f"planned, {bits} bits": found.plan(average_bits=bits) for bits in BITS}
            rows = []
            for name, plan in plans.items():
                model, _ = twin.quantized_twin(full, job_for(full, TRIED[0], backend="torch", plan=plan))
                errors = [
                    ((_latent(model, prompt, i, recipe, empty, sampling) - right).norm() / right.norm()).item()
                    for i, (prompt, right) in enumerate(zip(others, exact, strict=True))
                ]
                rows.append(
                    {
                        "plan": name,
                        "bits": round(found.bits(plan), 3),
                        "bytes": found.bytes(plan),
                        "error": round(sqrt(sum(error**2 for error in errors) / len(errors)), 4),
                        "predicted": round(found.predicted(plan), 4),
                    }
                )
                print(depth, rows[-1], flush=True)
            result["depths"][depth] = rows
        picture = plot.sensitivity_plot(found, found.plan(average_bits=SHOWN))
    load("pack.nodes.host.progress").to_pil(picture[0]).save(Path(ROOT, "docs", "sensitivity.png"), optimize=True)
    record("sensitivity", result, on_demo=True)


def _alike(found, form):
    return found.plan(total_bytes=found.bytes(found.uniform(form)))


def _latent(model, prompt, seed: int, recipe, empty: dict, sampling) -> torch.Tensor:
    return sampling.sample_latent(model, recipe, seed, prompt, prompt, empty)["samples"]


if __name__ == "__main__":
    main()
