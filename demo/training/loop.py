"""One training loop for every net of the demo: deterministic, logged, and resumed from its own checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """Steps, AdamW learning rate and its shape: linear warm-up, then cosine to a fiftieth."""

    steps: int
    learning_rate: float
    warm_up: int = 100
    weight_decay: float = 0.0

    def factor(self, step: int) -> float:
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        progress = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


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

    def wait_for(self, name: str) -> dict:
        """What another lane saves; gives up after an hour, when that lane must have failed."""
        for _ in range(3600):
            if (state := self.load(name)) is not None:
                return state
            time.sleep(1)
        raise TimeoutError(f"{name} did not appear in {self.folder}")


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


def train(
    shop: Workshop,
    stage: str,
    module: nn.Module,
    schedule: Schedule,
    loss: Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]],
    *,
    average: float = 0.995,
    checkpoint_every: int = 300,
    log_every: int = 100,
) -> None:
    """Train ``module`` in place and leave its averaged weights in it; a finished stage is only loaded.

    ``loss(step, generator)`` draws its own data; the generator is seeded by the step, so a resumed run
    draws the same data as an uninterrupted one.
    """
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=schedule.weight_decay
    )
    mean = Average(module, average)
    first = 0
    if (state := shop.load(stage)) is not None:
        module.load_state_dict(state["module"])
        optimiser.load_state_dict(state["optimiser"])
        mean.shadow, first = state["average"], state["step"]
    module.train()
    for step in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.learning_rate * schedule.factor(step)
        value, details = loss(step, torch.Generator().manual_seed(step * 7919 + len(stage)))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        mean.update(module, step)
        if step % log_every == 0 or step == schedule.steps - 1:
            shop.log(stage, step=step, loss=value.item(), **details)
        if (step + 1) % checkpoint_every == 0 or step == schedule.steps - 1:
            state = {"module": module.state_dict(), "optimiser": optimiser.state_dict()}
            shop.save(stage, {**state, "average": mean.shadow, "step": step + 1})
    module.load_state_dict(mean.shadow)
    module.eval()
