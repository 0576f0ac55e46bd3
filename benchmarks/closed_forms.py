"""Closed-form coefficients from outputs of the full and the quantised network at the same (x, sigma).

They need a full-precision model and look at one step at a time: the smallest error per step is not the best picture
(least squares shrinks, and can hurt). All leave c_x at 1. With guidance, an output is what guidance made of two. The
search tried them first until ``benchmarks.warm_starts`` showed that none of them wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qsched_core import CalibrationError, Coefficients

MIN_CORRELATION = 0.1
"""Correlation below which two outputs are not one model's, quantised or not: they share less than a hundredth of their
variance."""


C_EPS_LIMITS = (0.5, 1.5)
"""Of the widest trust region there is: what lies beyond is set to them, so that one step does not bend a whole line."""


class Pairs:
    """Sums over pairs of network outputs, step by step; the outputs themselves are not kept."""

    def __init__(self, n_steps: int):
        self._pairs, self._values = np.zeros(n_steps, int), np.zeros(n_steps)
        self._sums = np.zeros((5, n_steps))

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, step: int, full: Tensor, quantized: Tensor) -> None:
        """Outputs (N, …) of both networks at the same N inputs of one step, counted from 0.

        Raises:
            CalibrationError: the shapes differ, or a value is not finite.
        """
        if full.shape != quantized.shape:
            raise CalibrationError(
                f"the full model's output is {tuple(full.shape)}, the other's {tuple(quantized.shape)}.",
                "plug in the model that was quantised",
            )
        # On the CPU, because not every accelerator has float64.
        f, q = (output.detach().to("cpu", torch.float64) for output in (full, quantized))
        sums = [float(part.sum()) for part in (f, q, f * f, q * q, q * f)]
        if not np.isfinite(sums).all():
            raise CalibrationError(f"an output of step {step + 1} is not finite.", "sample both models by themselves")
        self._sums[:, step] += sums
        self._pairs[step] += len(f)
        self._values[step] += f.numel()

    @property
    def relative_error(self) -> tuple[float, ...]:
        """|quantised - full| / |full| of each step, over all its pairs; below about 1e-8 it is rounding."""
        self.moments()
        _, _, ff, qq, qf = self._sums
        return tuple(np.sqrt(np.maximum(ff - 2 * qf + qq, 0) / ff).tolist())

    def moments(self) -> Moments:
        """Raises CalibrationError for a step with fewer than two pairs, or outputs that have nothing in common."""
        step = int(self._pairs.argmin())
        if (count := int(self._pairs[step])) < 2:
            raise CalibrationError(f"step {step + 1} has {count} pairs of outputs.", "give two pictures or more")
        f, q, ff, qq, qf = self._sums / self._values
        moments = Moments(ff, qq, qf, ff - f * f, qq - q * q, qf - q * f)
        flat = (moments.var_full <= 0) | (moments.var_quantized <= 0)
        strange = flat | (
            moments.covariance <= MIN_CORRELATION * np.sqrt(np.abs(moments.var_full * moments.var_quantized))
        )
        if strange.any():
            raise CalibrationError(
                f"at step {strange.argmax() + 1} the two models have nothing in common.",
                "plug in the full-precision model that was quantised",
            )
        return moments


@dataclass(frozen=True)
class Moments:
    """Means over all values of a step, arrays (n_steps,): <f,f>, <q,q>, <q,f>, and the same about the means."""

    ff: np.ndarray
    qq: np.ndarray
    qf: np.ndarray
    var_full: np.ndarray
    var_quantized: np.ndarray
    covariance: np.ndarray


def ptqd(pairs: Pairs) -> Coefficients:
    """1/(1 + k) of the regression q ~ (1 + k)·f + bias + residual (PTQD, He et al. 2023).

    Our reading: one bias for all channels, fitted and then dropped, for coefficients have no such term (PTQD
    subtracts one per channel); a negative k is kept (their code sets it to 0); the residual is left alone.
    """
    moments = pairs.moments()
    return _with_c_eps(moments.var_full / moments.covariance)


def variance_match(pairs: Pairs) -> Coefficients:
    """sqrt(var f/var q): the corrected output varies as much as the full model's.

    For an error independent of f and of variance s² that is 1/sqrt(1 + s²/var f); for a pure gain it is PTQD's.
    """
    moments = pairs.moments()
    return _with_c_eps(np.sqrt(moments.var_full / moments.var_quantized))


def least_squares(pairs: Pairs) -> Coefficients:
    """<q,f>/<q,q>: the smallest mean squared error. Shrinks: the noisier, the further below 1."""
    moments = pairs.moments()
    return _with_c_eps(moments.qf / moments.qq)


def qdrift(pairs: Pairs, sigmas: Sequence[float]) -> Coefficients:
    """1 + V·|sigma' - sigma|/(2·sigma), V = Var(q - f | q): the drift of the error's noise (Q-Drift, arXiv 2603.18095).

    Never below 1, so it is the opposite of shrinking; a gain that is the same everywhere does not count. Our reading:
    V is one number per step, of the part of the error that is not linear in q, and nothing is subtracted (both as
    their published runs); sigma' is the next of ``sigmas`` (n + 1,) for every sampler, where theirs takes the ancestral
    one's sigma_down. V has units: the outputs must be the derivative dx/dsigma, as noise and velocity are.

    Raises:
        CalibrationError: sigmas of another number of steps, besides what ``Pairs.moments`` raises.
    """
    if len(sigmas) != len(pairs) + 1:
        raise CalibrationError(
            f"sigmas do not fit the steps: {len(sigmas)} and {len(pairs)}.", "give one more than steps"
        )
    moments, levels = pairs.moments(), np.asarray(sigmas, float)
    correlation = (moments.covariance / moments.var_full) * (moments.covariance / moments.var_quantized)
    residual = moments.var_full * np.maximum(0, 1 - correlation)
    return _with_c_eps(1 + residual * np.abs(np.diff(levels)) / (2 * levels[:-1]))


def closed_forms(pairs: Pairs, sigmas: Sequence[float]) -> dict[str, Coefficients]:
    """Every candidate by the name that a report calls it."""
    return {
        "PTQD slope": ptqd(pairs),
        "variance match": variance_match(pairs),
        "Q-Drift": qdrift(pairs, sigmas),
        "least squares": least_squares(pairs),
    }


def _with_c_eps(values: np.ndarray) -> Coefficients:
    return Coefficients((1.0,) * len(values), tuple(np.clip(values, *C_EPS_LIMITS).tolist()))
