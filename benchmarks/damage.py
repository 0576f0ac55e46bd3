"""What each format costs in pictures: ``python -m benchmarks.damage`` in the environment of ``make env``.

The demo model (trained by us, a toy) with all its layers quantised, no Q-Sched, on its 48 held-out captions × 2 noises;
every row sees the same noises. Scores are the demo's; *attributes right* and *all right* come from a net that no search
has asked. Each difference to full precision is paired, with a 95 % interval over captions.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from calibration.prompt_files import read_lines

from .in_host import ROOT, import_host, import_pack
from .record import record

FORMATS = (
    ("w8a8", 0), ("w6a8", 32), ("w4a16", 32), ("w4a8", 16), ("w4a8", 32), ("w4a8", 64), ("w4a8", 128), ("w4a8", 0),
    ("w4a4", 32), ("w4a4", 0), ("w3a8", 32), ("w3a8", 0),
)  # fmt: skip
NOISES, STEPS, CONFIDENCE = 1, 4, 0.95


def main() -> None:
    import_host()
    import_pack()
    torch.set_num_threads(2)
    load = importlib.import_module
    node, generate, sampling = (
        load("pack.nodes.demo_model"),
        load("pack.nodes.calibrating.generator"),
        load("pack.nodes.sampling.ksampler"),
    )
    metrics, twin, quant = (
        load("pack.nodes.calibrating.scorer"),
        load("pack.nodes.quantization.twin_model"),
        load("pack.qsched_core.quant"),
    )
    job_for = load("pack.nodes.quantization.backends").job_for
    validate, study = load("pack.calibration.validate"), load("pack.calibration.verdict")
    identity = load("pack.qsched_core").Coefficients.identity(STEPS)
    objective = load("pack.calibration.objective").Objective(2.0)
    texts = read_lines(Path(ROOT, "demo", "prompts.txt").read_text("utf-8")).texts
    indices = range(NOISES * len(texts))
    rows = []
    with torch.inference_mode():
        full, clip, vae = node.QSchedDemoModel.execute().args
        encode = load("pack.nodes.host.conditioning").encode
        encoded = [encode(clip, text) for text in texts]
        setup = load("pack.nodes.calibrating.sampling_setup").setup_of(
            full, sampling.Recipe(STEPS, 1.0, "euler", "simple")
        )
        latent = sampling.check_latent(full, {"samples": torch.zeros(1, 4, 16, 16)})
        generator = generate.HostGenerator(full, vae, encoded, encode(clip, ""), latent, setup, 0, 16)
        score, judge = metrics.load_scorer(metrics.DEMO).bind(texts)
        base, _ = study.judged(generator, score, judge, identity, indices, objective)
        fp16 = quant.module_bytes(full.model.diffusion_model)
        rows.append({"format": "full precision", "bytes_to_fp16": 1.0, **_rounded(base.means())})
        for name, group in FORMATS:
            model, report = twin.quantized_twin(full, job_for(full, name, group, include=["*"]))
            scores, _ = study.judged(generator.with_model(model), score, judge, identity, indices, objective)
            losses = {
                metric: [round(value, 4) for value in (gain.gain, gain.low, gain.high)]
                for metric in ("tc", "iq", "jaq", "all right")
                if metric in base.scores
                for gain in [validate.paired_gain(base, scores, metric, len(texts), CONFIDENCE)]
            }
            error = sum(layer.error for layer in report.quantized) / len(report.quantized)
            rows.append(
                {
                    "format": report.format,
                    "bytes_to_fp16": round(report.bytes_after / fp16, 3),
                    "mean_weight_error": round(error, 4),
                    **_rounded(scores.means()),
                    "against_full_precision": losses,
                }
            )
            print(rows[-1], flush=True)
    record("damage", {"captions": len(texts), "noises": NOISES, "confidence": CONFIDENCE, "rows": rows}, on_demo=True)


def _rounded(means: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in means.items()}


if __name__ == "__main__":
    main()
