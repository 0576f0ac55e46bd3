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

STUDY_CAPTIONS, OTHERS, STEPS = 3, 24, 4
FORMS = ("w4a8", "w4a8/channel", "w6a8", "w8a8")
BITS = (5.0, 5.5)
PLOT_BITS = 5.0


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
    result = {"studied_captions": STUDY_CAPTIONS, "other_captions": OTHERS, "depths": {}}
    with torch.inference_mode():
        full, clip, _ = node.QSchedDemoModel.execute().args
        recipe = sampling.Recipe(STEPS, 1.0, "euler", "simple")
        empty = {"samples": torch.zeros(1, 4, 16, 16)}
        others = [conditioning.encode(clip, text) for text in texts[STUDY_CAPTIONS : STUDY_CAPTIONS + OTHERS]]
        exact = [_latent(full, prompt, i, recipe, empty, sampling) for i, prompt in enumerate(others)]
        positive = [entry for text in texts[:STUDY_CAPTIONS] for entry in conditioning.encode(clip, text)]
        prompts = sensitivity.StudyPrompts(full, positive, None, empty, recipe)
        for depth in ("layers", "network"):
            forms = [sensitivity.read_format(name) for name in FORMS]
            study = sensitivity.study(full, prompts.sampled(0), forms, depth, lambda *args: None)
            plans = {f"{form} everywhere": study.uniform(form) for form in forms}
            plans |= {f"planned, as large as {form}": _alike(study, form) for form in forms}
            plans |= {f"planned, {bits} bits": study.plan(average_bits=bits) for bits in BITS}
            rows = []
            for name, plan in plans.items():
                model, _ = twin.quantized_twin(full, job_for(full, FORMS[0], backend="torch", plan=plan))
                errors = [
                    ((_latent(model, prompt, i, recipe, empty, sampling) - right).norm() / right.norm()).item()
                    for i, (prompt, right) in enumerate(zip(others, exact, strict=True))
                ]
                rows.append(
                    {
                        "plan": name,
                        "bits": round(study.bits(plan), 3),
                        "bytes": study.bytes(plan),
                        "error": round(sqrt(sum(error**2 for error in errors) / len(errors)), 4),
                        "predicted": round(study.predicted(plan), 4),
                    }
                )
                print(depth, rows[-1], flush=True)
            result["depths"][depth] = rows
        picture = plot.sensitivity_plot(study, study.plan(average_bits=PLOT_BITS))
    load("pack.nodes.host.progress").to_pil(picture[0]).save(Path(ROOT, "docs", "sensitivity.png"), optimize=True)
    record("sensitivity", result, on_demo=True)


def _alike(study, form):
    return study.plan(total_bytes=study.bytes(study.uniform(form)))


def _latent(model, prompt, seed: int, recipe, empty: dict, sampling) -> torch.Tensor:
    return sampling.sample_latent(model, recipe, seed, prompt, prompt, empty)["samples"]


if __name__ == "__main__":
    main()
