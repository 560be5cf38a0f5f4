"""Low-rank adapters: a small change of each linear layer is trained, the layer itself is not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

SCALE = 2.0


class AdaptedLinear(nn.Module):
    """``x W' + b`` with W' = W + 2 up down; W and b stay as they are.

    ``up`` begins as zeros, so that the layer begins as the one it stands for.

    Args:
        linear: whose ``weight`` and ``bias`` it takes under their names.
        rank: rows of ``down`` (r, in) and columns of ``up`` (out, r).

    Raises:
        ValueError: ``rank`` < 1.

    Example:
        >>> import torch
        >>> linear = nn.Linear(6, 4)
        >>> rows = torch.randn(3, 6)
        >>> torch.equal(AdaptedLinear(linear, rank=2)(rows), linear(rows))
        True

    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
    """

    def __init__(self, linear: nn.Linear, *, rank: int) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank must be >= 1, got {rank}")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.down = nn.Parameter(linear.weight.new_empty(rank, self.in_features))
        self.up = nn.Parameter(linear.weight.new_zeros(self.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as nn.Linear begins
        self.train(linear.training)

    def forward(self, rows: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        change = functional.linear(functional.linear(rows, self.down), self.up)
        return functional.linear(rows, self.weight, self.bias) + SCALE * change

    def whole_weight(self) -> Tensor:
        """(out, in): W'."""
        return self.weight + SCALE * (self.up @ self.down)

    def merged(self) -> nn.Linear:
        """One linear layer that computes the same."""
        linear = nn.Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        linear.weight = nn.Parameter(self.whole_weight().detach(), requires_grad=False)
        linear.bias = self.bias
        return linear.train(self.training)


def adapt(layers: Iterable[nn.Module], *, rank: int) -> None:
    """Put an ``AdaptedLinear`` in the place of every linear layer, and freeze everything else."""
    for layer in layers:
        layer.requires_grad_(False)
        for parent, name, linear in list(_linears(layer)):
            setattr(parent, name, AdaptedLinear(linear, rank=rank))


def merge(network: nn.Module) -> None:
    """Put plain linear layers in the place of adapted ones; what is computed stays the same."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, AdaptedLinear):
                setattr(parent, name, child.merged())


def _linears(layer: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in layer.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                yield parent, name, child


def adapters_from(
    full: Mapping[str, Tensor], base: Mapping[str, Tensor], *, rank: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """The adapters that bring weights closest to others: of each weight's change the best one.

    ``base + 2 up down`` is as near to ``full`` as any change of this rank brings it, in the sum of
    squares; what it misses are the squares of the singular values after the first ``rank``.

    Args:
        full: (out, in) weights by name, as they were trained.
        base: those that they were trained from, of the same names and shapes.
        rank: of the adapters; where a weight has fewer rows or columns, the rest is zero.

    Returns:
        By name ``up`` (out, rank) and ``down`` (rank, in), whose rows and columns are as long.

    Raises:
        ValueError: the names or the shapes differ, or ``rank`` < 1.

    Example:
        >>> base = {"w": torch.zeros(3, 2)}
        >>> full = {"w": torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])}
        >>> up, down = adapters_from(full, base, rank=1)["w"]
        >>> (SCALE * up @ down).round(decimals=4).tolist()
        [[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]

    Source: Eckart and Young, The approximation of one matrix by another of lower rank,
    Psychometrika 1936.
    """
    if rank < 1:
        raise ValueError(f"rank must be >= 1, got {rank}")
    if full.keys() != base.keys():
        odd = sorted(full.keys() ^ base.keys())[0]
        raise ValueError(f"full and base must have the same names, {odd!r} is in one alone")
    return {name: _best_adapter(full[name], base[name], name, rank) for name in full}


def _best_adapter(full: Tensor, base: Tensor, name: str, rank: int) -> tuple[Tensor, Tensor]:
    if full.shape != base.shape or full.ndim != 2:
        raise ValueError(
            f"{name!r} must be (out, in) in full and base, got {tuple(full.shape)} and "
            f"{tuple(base.shape)}"
        )
    change = full.detach().double() - base.detach().double()
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    root = (values[:rank] / SCALE).sqrt()
    up = change.new_zeros(len(change), rank)
    down = change.new_zeros(rank, change.shape[1])
    up[:, : len(root)] = left[:, :rank] * root
    down[: len(root)] = right[:rank] * root[:, None]
    return up.to(full.dtype), down.to(full.dtype)
