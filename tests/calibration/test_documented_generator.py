"""The contract of ``generate(coefficients, indices)`` where people read it: docs/PYTHON.md, run as it stands there."""

from __future__ import annotations

import re

import torch

import qsched_core as qs
from calibration.validate import ANSWERS
from scripts.layout import ROOT

SIGMAS = (8.0, 3.0, 1.0, 0.4, 0.0)


def denoiser(error: float):
    """Of pictures that have one grey level per prompt; ``error`` is the model's own noise."""

    def model(x: torch.Tensor, sigma: torch.Tensor, prompt: str) -> torch.Tensor:
        share = 1 / (1 + sigma.view(-1, 1, 1, 1) ** 2)
        return share * x + (1 - share) * len(prompt) / 10 + error * torch.sin(7 * x)

    return model


def test_the_documented_generator_makes_a_study():
    """Regression: a generator written from README's one line crashed at the first noise of the verdict, whose indices
    run beyond the number of prompts."""
    page = (ROOT / "docs" / "PYTHON.md").read_text("utf-8").split("## On any generator")[1]
    code = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL)[1]
    prompts = ["x" * count for count in range(1, 9)]
    scored = []

    def alignment(pictures: torch.Tensor, texts: list[str]) -> torch.Tensor:
        scored.extend(texts)
        lengths = torch.tensor([len(text) / 10 for text in texts])
        return 1 - (pictures.mean((1, 2, 3)) - lengths).abs()

    names = {
        "prompts": prompts, "sigmas": SIGMAS, "latent_shape": (1, 1, 4, 4), "alignment": alignment,
        "quality": lambda pictures: -pictures.std((1, 2, 3)), "quantized": denoiser(0.05), "full": denoiser(0.0),
        "decode": lambda latent: latent.movedim(1, -1).expand(-1, -1, -1, 3).clamp(0, 1),
    }  # fmt: skip
    assert "Settings()" in code
    code = code.replace("Settings()", "Settings(trials=3, seeds=2)")
    exec(compile(code, "docs/PYTHON.md", "exec"), names)  # noqa: S102 - our own page
    assert names["result"].answer in ANSWERS
    assert max(names["result"].identity.indices) >= len(prompts)
    assert set(scored) == set(prompts)
    generate, identity = names["generator"](denoiser(0.0)), qs.Coefficients.identity(4)
    same, other = generate(identity, [3, 3]), generate(identity, [11])
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], other[0])  # prompt 3 again, with another noise
