"""One training loop for every net of the demo: deterministic, logged, and resumed from its own checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

CHECKPOINT_SECONDS = 120
"""A stopped run loses at most this much."""


def half_precision():
    """Products in bfloat16 where the processor has units for it, in float32 elsewhere."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(torch.cpu.get_capabilities().get("avx512_bf16")))


@dataclass(frozen=True)
class Schedule:
    """Steps, learning rate and its shape: linear warm-up, level, then straight down to a fiftieth.

    Until the descent begins, ``steps`` may be raised between two runs and nothing is lost.
    """

    steps: int
    learning_rate: float
    warm_up: int = 100
    descent: float = 0.4
    """Share of the steps on the way down."""

    def factor(self, step: int) -> float:
        rest = (self.steps - step) / (self.descent * self.steps)
        return max(0.02, min(1.0, (step + 1) / self.warm_up, rest))


@dataclass
class Workshop:
    """Where a run keeps its checkpoints and its log."""

    folder: Path
    started: float

    def log(self, stage: str, **values: float | int | str) -> None:
        entry = {"stage": stage, "minutes": round((time.monotonic() - self.started) / 60, 2), **values}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in entry.items()), flush=True)

    def save(self, name: str, state: dict) -> None:
        path = self.folder / f"{name}.pt"
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, name: str) -> dict | None:
        path = self.folder / f"{name}.pt"
        return torch.load(path, weights_only=True) if path.exists() else None


class Average:
    """Exponential moving average of a module's parameters: what is shipped in place of the last iterate."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.shadow[name].lerp_(value, 1 - decay)
            else:
                self.shadow[name].copy_(value)


def optimisers(module: nn.Module, orthogonal: bool) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters; or, with ``orthogonal``, Muon for the blocks' matrices and AdamW for the rest.

    Muon (Jordan et al. 2024) needs half the steps on transformers that learn by heart, at a third more time a step.
    """
    matrices, others = [], []
    for name, parameter in module.named_parameters():
        is_matrix = parameter.ndim == 2 and (".layers." in name or "blocks." in name and ".norm" not in name)
        (matrices if orthogonal and is_matrix else others).append(parameter)
    out: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)]
    if matrices:
        out.append(torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    return out


def train(
    shop: Workshop,
    stage: str,
    module: nn.Module,
    schedule: Schedule,
    loss: Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]],
    *,
    average: float = 0.995,
    orthogonal: bool = False,
    log_every: int = 100,
) -> None:
    """Train ``module`` in place and leave its averaged weights in it; a finished stage is only loaded.

    ``loss(step, generator)`` draws its own data; the generator is seeded by the step, so a resumed run
    draws the same data as an uninterrupted one.
    """
    workers = optimisers(module, orthogonal)
    mean = Average(module, average)
    first = 0
    if (state := shop.load(stage)) is not None:
        module.load_state_dict(state["module"])
        for worker, content in zip(workers, state["optimisers"], strict=True):
            worker.load_state_dict(content)
        mean.shadow, first = state["average"], state["step"]
    module.train()
    last_save = time.monotonic()
    for step in range(first, schedule.steps):
        value, details = loss(step, torch.Generator().manual_seed(step * 7919 + len(stage)))
        _step(module, workers, value, schedule.learning_rate * schedule.factor(step))
        mean.update(module, step)
        is_last = step == schedule.steps - 1
        if step % log_every == 0 or is_last:
            shop.log(stage, step=step, loss=value.item(), **details)
        if time.monotonic() - last_save > CHECKPOINT_SECONDS or is_last:
            state = {"module": module.state_dict(), "optimisers": [worker.state_dict() for worker in workers]}
            shop.save(stage, {**state, "average": mean.shadow, "step": step + 1})
            last_save = time.monotonic()
    module.load_state_dict(mean.shadow)
    module.eval()


def _step(module: nn.Module, workers: list[torch.optim.Optimizer], loss: Tensor, learning_rate: float) -> None:
    module.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    for worker in workers:
        for group in worker.param_groups:
            group["lr"] = learning_rate
        worker.step()
