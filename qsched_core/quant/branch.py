"""What is added to a packed layer's output beside its packed product."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class LowRank(nn.Module):
    """The part ``up · down`` of a Linear's weight, in floats: ``up`` (N, r), ``down`` (r, K). It is never rounded."""

    def __init__(self, up: Tensor, down: Tensor):
        super().__init__()
        self.up, self.down = (nn.Parameter(value, requires_grad=False) for value in (up, down))

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        return out + F.linear(F.linear(x, self.down.to(x)), self.up.to(x))

    def weight(self) -> Tensor:
        """The product (N, K), float32."""
        return self.up.float() @ self.down.float()

    def extra_repr(self) -> str:
        return f"rank {self.up.shape[1]}"
