"""The full model in 8 bits: what a calibration compares with, in half the memory."""

from __future__ import annotations

from .backends import job_for
from .deferred_model import DeferredModel
from .twin_model import quantized_twin

REFERENCE_FORMAT = "w8a8"
"""On the demo model its pictures score as those in full precision: JAQ -0.000 [-0.002, +0.001]."""


def reference_of(model) -> DeferredModel:
    """The MODEL in ``REFERENCE_FORMAT``, made when it is first used."""
    return DeferredModel(lambda: quantized_twin(model, job_for(model, REFERENCE_FORMAT))[0], like=model)
