"""Layers whose weights lie in memory as the CPU wants them, for predicting a clip at a time.

A clip's text has a dozen tokens. A matrix product of so few rows is spent on fetching the weights;
oneDNN fetches them up to three times as fast when they were rearranged for it once. What is left
of a text layer's time is many small calls, of which ``PackedTextLayer`` makes fewer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.fast import is_on
from tecafn.layers.adapter import AdaptedLinear

_FEWEST_WEIGHTS = 1 << 16  # below, calling costs more than fetching
_MOST_ROWS = 256  # above, arithmetic costs more than fetching
_USUAL_ROWS = 16  # what the arrangement is made for; any number of rows may come


class _Rearranged:
    """The weights of linear layers that read the same rows, one below another as oneDNN wants them.

    Made when first of use and made again when a weight has changed; as large as the weights.

    Args:
        linears: one, or several that all have a bias.
    """

    def __init__(self, *linears: _Linear) -> None:
        self._linears = linears
        self._made_of: list[tuple[int, int]] | None = None
        self._weight: Any = None  # no tensor that checkpoints should know of
        self._bias: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the rearranged copy, which can be neither copied nor saved."""
        return {**self.__dict__, "_made_of": None, "_weight": None, "_bias": None}

    def is_worth_it(self, rows: Tensor) -> bool:
        """Few rows of float32 on a CPU, and no gradient."""
        linear = self._linears[0]
        return (
            is_on("packed_weights")
            and not torch.is_grad_enabled()
            and linear.weight.device.type == "cpu"
            and linear.weight.dtype == rows.dtype == torch.float32
            and 0 < rows.numel() <= _MOST_ROWS * linear.in_features
            and not torch.is_autocast_enabled("cpu")
        )

    def __call__(self, rows: Tensor) -> Tensor:
        """(..., in) to (..., all of out)."""
        made_of = [_version(p) for linear in self._linears for p in linear.parameters()]
        if self._made_of != made_of:
            biases = [linear.bias for linear in self._linears if linear.bias is not None]
            self._weight = torch.ops.mkldnn._reorder_linear_weight(
                torch.cat([_whole_weight(linear).detach() for linear in self._linears]), _USUAL_ROWS
            )
            self._bias = torch.cat([bias.detach() for bias in biases]) if biases else None
            self._made_of = made_of
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, "none", [], ""
        )
        return product


def _whole_weight(linear: _Linear) -> Tensor:
    """What a layer multiplies by, the change of a low-rank adapter included."""
    return linear.weight if isinstance(linear, nn.Linear) else linear.whole_weight()


def _version(tensor: Tensor) -> tuple[int, int]:
    """Another one when the values were changed in place."""
    # What was made in inference mode has no counter; it cannot change outside of it either.
    return id(tensor), 0 if tensor.is_inference() else tensor._version


class PackedLinear(nn.Linear):
    """``nn.Linear`` with the same parameters, faster without gradients for few rows on a CPU.

    Results agree to rounding.

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
        self._rearranged = _Rearranged(self)

    def forward(self, rows: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if self._rearranged.is_worth_it(rows):
            return self._rearranged(rows)
        return functional.linear(rows, self.weight, self.bias)


class PackedAdaptedLinear(nn.Module):
    """``AdaptedLinear`` with the same parameters, and one product where ``PackedLinear`` has one.

    Args:
        linear: the layer whose parameters it shares.

    Example:
        >>> adapted = AdaptedLinear(nn.Linear(384, 384), rank=4)
        >>> rows = torch.randn(12, 384)
        >>> with torch.no_grad():
        ...     torch.allclose(PackedAdaptedLinear(adapted)(rows), adapted(rows), atol=1e-5)
        True
    """

    def __init__(self, linear: AdaptedLinear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.up, self.down = linear.up, linear.down
        self.train(linear.training)
        self._linear = (linear,)  # no child: its parameters are here already
        self._rearranged = _Rearranged(linear)

    def forward(self, rows: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        if self._rearranged.is_worth_it(rows):
            return self._rearranged(rows)
        result: Tensor = self._linear[0](rows)
        return result

    def whole_weight(self) -> Tensor:
        """(out, in): as ``AdaptedLinear.whole_weight``."""
        return self._linear[0].whole_weight()


_Linear = nn.Linear | AdaptedLinear | PackedAdaptedLinear


class PackedTextLayer(nn.Module):
    """A layer of BERT or its kin with the same modules, faster where ``PackedLinear`` is.

    Query, key and value are one product, and what serves decoders and caches is left out.
    Elsewhere, in training above all, the layer itself runs.

    Args:
        layer: see ``is_text_layer``; its modules are shared, under their names.
    """

    attention: Any
    intermediate: Any
    output: Any

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for name, child in layer.named_children():
            self.add_module(name, child)
        self.train(layer.training)
        self._layer = (layer,)  # no child: its parameters are here already
        attention = self.attention.self
        self._num_heads = attention.num_attention_heads
        self._projections = _Rearranged(attention.query, attention.key, attention.value)

    def forward(self, values: Tensor, attention_mask: Tensor | None = None) -> Any:
        """(B, L, D) to (B, L, D), or to what the layer itself gives."""
        if self.training or not self._projections.is_worth_it(values):
            return self._layer[0](values, attention_mask=attention_mask)
        joined = self._projections(values).unflatten(-1, (3, self._num_heads, -1))
        query, key, value = joined.permute(2, 0, 3, 1, 4)  # (3, B, H, L, D/H)
        attended = functional.scaled_dot_product_attention(query, key, value, attention_mask)
        merged = attended.transpose(1, 2).flatten(2)
        attention, inner, outer = self.attention.output, self.intermediate, self.output
        values = attention.LayerNorm(attention.dense(merged) + values)
        wide = inner.intermediate_act_fn(inner.dense(values))
        return outer.LayerNorm(outer.dense(wide) + values)


# Whose layers are alike; distilbert's are not.
_TEXT_LAYERS = (
    "BertLayer", "CamembertLayer", "ElectraLayer", "ErnieLayer", "RobertaLayer", "XLMRobertaLayer",
)  # fmt: skip


def is_text_layer(module: nn.Module) -> bool:
    """Is this an encoder's layer of attention, LayerNorm, feed-forward network, LayerNorm?"""
    return type(module).__name__ in _TEXT_LAYERS and not getattr(module, "is_decoder", False)


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
    if can_pack():
        _replace(network, _is_large, PackedLinear)
        _replace(network, _is_large_and_adapted, PackedAdaptedLinear)
        # Behind the linear layers: a text layer takes those that have replaced its own.
        _replace(network, is_text_layer, PackedTextLayer)


def unpacked(network: nn.Module) -> nn.Module:
    """A copy of a network with plain layers in the place of packed ones."""
    twin = copy.deepcopy(network)
    _replace(twin, lambda module: type(module) is PackedTextLayer, lambda packed: packed._layer[0])
    _replace(
        twin, lambda module: type(module) is PackedAdaptedLinear, lambda packed: packed._linear[0]
    )
    _replace(twin, lambda module: type(module) is PackedLinear, _linear_of)
    return twin


def _linear_of(packed: PackedLinear) -> nn.Linear:
    linear = nn.Linear(
        packed.in_features, packed.out_features, bias=packed.bias is not None, device="meta"
    )
    linear.weight, linear.bias = packed.weight, packed.bias
    return linear.train(packed.training)


def _is_large(module: nn.Module) -> bool:
    return type(module) is nn.Linear and module.weight.numel() >= _FEWEST_WEIGHTS


def _is_large_and_adapted(module: nn.Module) -> bool:
    return type(module) is AdaptedLinear and module.weight.numel() >= _FEWEST_WEIGHTS


def _replace(
    network: nn.Module, is_due: Callable[[nn.Module], bool], replacement: Callable[[Any], nn.Module]
) -> None:
    """Put something in the place of every module below the network that is due for it."""
    found = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if is_due(child)
    ]
    for parent, name, child in found:
        setattr(parent, name, replacement(child))
