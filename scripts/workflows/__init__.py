"""The example workflows, made through the real page: a file each."""

from __future__ import annotations

from functools import partial

from .any_sampler import any_sampler
from .blind_vote import blind_vote
from .calibrate import calibrate
from .families import FAMILIES
from .family import family_template
from .few_steps import few_steps
from .flux_schnell import flux_schnell
from .over_quantized import over_quantized
from .plan_layers import plan_layers
from .plan_steps import plan_steps
from .restoration import restoration
from .try_it_now import try_it_now

TEMPLATES = (
    try_it_now,
    flux_schnell,
    few_steps,
    calibrate,
    any_sampler,
    over_quantized,
    blind_vote,
    plan_layers,
    *(partial(family_template, family) for family in FAMILIES),
    restoration,
    plan_steps,
)
"""In the order of their numbers."""
