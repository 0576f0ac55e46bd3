"""Packed bytes to a weight in one pass, where the machine has Triton and its kernel passes a trial.

Four passes of plain torch read and write three times as much. The kernel is tried on the device before it is trusted,
and where it throws in a run the plain way takes over.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .formats import FORMATS, Format
from .packing import STEPS, grouping, in_steps, pack, unpack
from .trial import failed_in_run, numbers, relative_error, trial

DTYPES = (torch.float16, torch.bfloat16)

_COLUMNS = (96, 1280, 4160)
"""Widths tried: an odd number of groups, one block, more than one."""

_trusted: set[torch.device] = set()


def prepare(device: torch.device) -> None:
    """Try the kernel where it would be used: outside of a call, since trying it compiles it."""
    if device.type == "cuda" and not trial(("triton", "unpack", str(device)), lambda: _try(device)):
        _trusted.add(device)


def decode(packed: Tensor, columns: int, form: Format, dtype: torch.dtype, gain: float) -> Tensor | None:
    """uint8 (N, ``row_bytes``) -> float weight (N, padded K) times ``gain``; None where there is no kernel for it."""
    if packed.device not in _trusted or not in_steps(form):
        return None
    try:
        return _decoded(packed, columns, form, dtype, gain)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a compiler's errors are of many kinds
        _trusted.discard(packed.device)
        failed_in_run(f"the Triton kernel that unpacks weights on {packed.device.type}", error)
        return None


def _decoded(packed: Tensor, columns: int, form: Format, dtype: torch.dtype, gain: float) -> Tensor:
    from . import triton_kernels  # Triton is there on some machines only

    groups, padded = grouping(columns, form)
    out = torch.empty(packed.shape[0], padded, dtype=dtype, device=packed.device)
    with torch.cuda.device_of(packed):  # it launches on the current one
        triton_kernels.unpack(packed, out, groups, padded // groups, STEPS, gain)
    return out


def _try(device: torch.device) -> str:
    """ "" or how the kernel's weights differ from the slow ones."""
    form = FORMATS["w4a8"]
    for columns in _COLUMNS:
        packed = pack(numbers(3, columns, seed=1) * torch.tensor([[1.0], [1e-3], [100.0]]), form)
        for dtype in DTYPES:
            for gain in (1.0, 0.25):
                made = _decoded(packed.to(device), columns, form, dtype, gain)[:, :columns]
                if relative_error(made, unpack(packed, columns, form) * gain) > torch.finfo(dtype).eps:
                    return f"its weights of {columns} columns are not the slow ones"
    return ""
