"""The two lines of Q-Sched. They stand here and nowhere else; every sampler and every door calls them.

The published schedulers (Frumkin & Marculescu, arXiv 2509.01624) multiply the sample by ``c_x`` and the
network's raw output by ``c_eps`` before the usual update. Samplers that think in denoised predictions get the
same by two replacements at each step: x -> c_x·x, and D -> the D of the scaled pair.
"""

from __future__ import annotations

from torch import Tensor


def precondition_sample(x: Tensor, c_x: float) -> Tensor:
    """The sample as the update sees it, (B, …). The network has seen the unscaled one."""
    return c_x * x


def precondition_output(output: Tensor, c_eps: float) -> Tensor:
    """The network's raw output (noise, velocity; after guidance) as the update sees it, (B, …)."""
    return c_eps * output


def precondition_denoised(denoised: Tensor, zero_denoised: Tensor, c_x: float, c_eps: float) -> Tensor:
    """The denoised prediction D' of the scaled sample and the scaled output, (B, …).

    ``zero_denoised`` (D0) is what the model's parameterisation makes of a network output of zero at the same x
    and sigma: x itself for noise and flow prediction, x/(sigma²+1) for v, 0 for x0. D is affine in the output:
    D = D0 + A·output, so D' = c_x·D0 + c_eps·(D - D0). With c_x = c_eps = 1 it is D, bit for bit.
    """
    return (c_x - c_eps) * zero_denoised + c_eps * denoised
