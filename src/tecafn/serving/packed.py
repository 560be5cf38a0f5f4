"""Linear layers whose weights lie in memory as the CPU wants them, for predicting a clip at a time.

A clip's text has a dozen tokens. A matrix product of so few rows is spent on fetching the weights;
oneDNN fetches them up to three times as fast when they were rearranged for it once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_FEWEST_WEIGHTS = 1 << 16  # below, calling costs more than fetching
_MOST_ROWS = 256  # above, arithmetic costs more than fetching
_USUAL_ROWS = 16  # what the arrangement is made for; any number of rows may come


class PackedLinear(nn.Linear):
    """``nn.Linear`` with the same parameters, faster without gradients for few rows on a CPU.

    The rearranged copy is made when it is first of use and made again when the weights have
    changed; it takes as much memory as the weights. Results agree to rounding.

    Args:
        linear: the layer whose parameters it shares.

    Example:
        >>> linear = nn.Linear(384, 384)
        >>> rows = torch.randn(12, 384)
        >>> with torch.no_grad():
        ...     torch.allclose(PackedLinear(linear)(rows), linear(rows), atol=1e-5)
        True
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.train(linear.training)
        self._packed: Any = None  # no tensor that checkpoints should know of
        self._packed_of: tuple[int, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the rearranged copy, which can be neither copied nor saved."""
        return {**self.__dict__, "_packed": None, "_packed_of": None}

    def forward(self, rows: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        weight = self.weight
        is_worth_it = (
            not torch.is_grad_enabled()
            and weight.device.type == "cpu"
            and weight.dtype == rows.dtype == torch.float32
            and 0 < rows.numel() <= _MOST_ROWS * self.in_features
            and not torch.is_autocast_enabled("cpu")
        )
        if not is_worth_it:
            return functional.linear(rows, weight, self.bias)
        # What was made in inference mode has no counter; it cannot change outside of it either.
        state = (id(weight), 0 if weight.is_inference() else weight._version)
        if self._packed_of != state:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _USUAL_ROWS)
            self._packed_of = state
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._packed, self.bias, "none", [], ""
        )
        return product


def can_pack() -> bool:
    """Does this torch have oneDNN and the two operators? They are what torch.compile emits."""
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.inference_mode():
        try:
            packed = torch.ops.mkldnn._reorder_linear_weight(torch.ones(1, 1), 1)
            torch.ops.mkldnn._linear_pointwise(torch.ones(1, 1), packed, None, "none", [], "")
        except (AttributeError, RuntimeError, TypeError):
            return False
    return True


def pack_weights(network: nn.Module) -> None:
    """Let every large linear layer of a network predict from rearranged weights, where possible.

    Layers are replaced; names and parameters stay what they are.
    """
    if not can_pack():
        return
    large = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.numel() >= _FEWEST_WEIGHTS
    ]
    for parent, name, child in large:
        setattr(parent, name, PackedLinear(child))
