"""A weight of its packed bytes, and tokens rounded, in one pass each where plain torch takes four: on machines that
have Triton.

A kernel is tried on the device before it is trusted, and where it throws in a run the plain way takes over.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .formats import FORMATS, Format
from .packing import STEPS, grouping, in_steps, pack, unpack
from .trial import failed_in_run, numbers, relative_error, trial

DTYPES = (torch.float16, torch.bfloat16)

UNPACKS, ROUNDS = "unpacks weights", "rounds tokens"
"""What the two kernels do."""

MOST_COLUMNS = 2**14
"""Of a token that is rounded in one go: it lies in a program's registers."""

_COLUMNS = (96, 1280, 4160)
"""Widths tried: an odd number of groups, one block, more than one."""

_trusted: set[tuple[str, torch.device]] = set()


def prepare(device: torch.device) -> None:
    """Try the kernels where they would be used: outside of a call, since trying one compiles it."""
    if device.type == "cuda":
        for what, run in ((UNPACKS, _try_unpacking), (ROUNDS, _try_rounding)):
            if not trial(("triton", what, str(device)), lambda run=run: run(device)):
                _trusted.add((what, device))


def decode(packed: Tensor, columns: int, form: Format, dtype: torch.dtype, gain: float) -> Tensor | None:
    """uint8 (N, ``row_bytes``) -> float weight (N, padded K) times ``gain``; None where there is no kernel for it."""
    if not in_steps(form):
        return None
    return _else_plain(UNPACKS, packed.device, lambda: _decoded(packed, columns, form, dtype, gain))


def rounded(x: Tensor, bits: int, least: float, in_place: bool = False) -> Tensor | None:
    """Tokens (..., K) as ``tokens.rounded_tokens`` gives them, scales not below ``least``; None where there is no
    kernel for them."""
    if x.dtype not in DTYPES or x.shape[-1] > MOST_COLUMNS or not x.numel():
        return None
    return _else_plain(ROUNDS, x.device, lambda: _rounded(x, bits, least, in_place))


def _else_plain(what: str, device: torch.device, call: Callable[[], Tensor]) -> Tensor | None:
    if (what, device) not in _trusted:
        return None
    try:
        return call()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a compiler's errors are of many kinds
        _trusted.discard((what, device))
        failed_in_run(f"the Triton kernel that {what} on {device.type}", error)
        return None


def _decoded(packed: Tensor, columns: int, form: Format, dtype: torch.dtype, gain: float) -> Tensor:
    from . import triton_kernels  # Triton is there on some machines only

    groups, padded = grouping(columns, form)
    out = torch.empty(packed.shape[0], padded, dtype=dtype, device=packed.device)
    with torch.cuda.device_of(packed):  # it launches on the current one
        triton_kernels.unpack(packed, out, groups, padded // groups, STEPS, gain)
    return out


def _rounded(x: Tensor, bits: int, least: float, in_place: bool = False) -> Tensor:
    from . import triton_kernels

    x = x.contiguous()
    out = x if in_place else torch.empty_like(x)  # a program has read its token before it writes it
    with torch.cuda.device_of(x):
        triton_kernels.round_tokens(x, out, 2 ** (bits - 1) - 1, least)
    return out


def _try_unpacking(device: torch.device) -> str:
    """ "" or how the kernel's weights differ from the slow ones."""
    form = FORMATS["w4a8"]
    for columns in _COLUMNS:
        packed = pack(numbers(3, columns, seed=1) * torch.tensor([[1.0], [1e-3], [100.0]]), form)
        for dtype in DTYPES:
            for gain in (1.0, 0.25):
                result = _decoded(packed.to(device), columns, form, dtype, gain)[:, :columns]
                if relative_error(result, unpack(packed, columns, form) * gain) > torch.finfo(dtype).eps:
                    return f"its weights of {columns} columns are not the slow ones"
    return ""


def _try_rounding(device: torch.device) -> str:
    """ "" or how the kernel's tokens differ from the slow ones: by a rounding to the type, or a code between two."""
    for columns in _COLUMNS:
        for dtype in DTYPES:
            x = (numbers(4, columns, seed=1) * torch.tensor([[1.0], [1e-2], [100.0], [0.0]])).to(dtype)
            for top in (7, 127):
                wide = x.double()
                scale = wide.abs().amax(-1, keepdim=True) / top + 1e-30
                slow = (wide / scale).round() * scale
                result = _rounded(x.to(device), top.bit_length() + 1, 1e-30)
                off = (result.cpu().double() - slow).abs() - torch.finfo(dtype).eps * slow.abs()
                if relative_error(result, slow) > 2.0 / top or not (off <= 1.01 * scale + 1e-7).all():
                    return f"its tokens of {columns} columns are not the slow ones"
    return ""
