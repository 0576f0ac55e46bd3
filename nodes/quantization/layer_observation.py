"""What each layer of a MODEL sees while it is sampled, and that in words."""

from __future__ import annotations

from collections.abc import Callable

from ...qsched_core.quant import Observation, observe
from ...qsched_core.quant.observation import BUDGET
from .patcher import ROOT
from .sources import is_source, require_readable
from .twin_model import Originals


def observed(
    model,
    drive: Callable[[], None],
    budget: int = BUDGET,
    on_call: Callable[[int], None] = lambda number: None,
    fit: bool = True,
) -> Observation:
    """What the layers of a MODEL see, its LoRAs applied, while ``drive()`` samples it. ``fit`` False: as much as a
    study needs that rounds to nearest.

    Raises:
        QuantizationError: a model that was quantised here or by a pack of its own, or a run that reached no layer.
    """
    network, original = model.model.diffusion_model, Originals(model)
    require_readable(network)
    return observe(
        network,
        drive,
        budget=budget,
        weight_of=lambda name, _: original.floats(f"{ROOT}.{name}"),
        on_call=on_call,
        fit=fit,
        is_source=is_source,
    )


def summary(observation: Observation) -> str:
    """What was observed, for a person."""
    one_row = sum(observation.one_row(name) for name in observation.layers)
    lines = [f"Layers observed: {len(observation.layers)}, evaluations: {observation.calls.seen}."]
    if observation.edges():
        names = ", ".join(observation.edges())
        lines.append(f"At the network's input and output, not packed into 4 bits: {names}.")
    if one_row:
        lines.append(f"{one_row} see one row per picture: their activations are not rounded.")
    missing = observation.missing_rows()
    if missing:
        lines.append(f"{missing} layers do not fit the memory: Quantize Model samples the prompts again for them.")
    if observation.idle:
        lines.append(f"Not reached by these prompts: {len(observation.idle)}, for example {observation.idle[0]}.")
    return "\n".join(lines)
