"""The same numbers on any number of processes: ranks, gathering with gradients, per-sample draws.

Without an initialised process group everything here is the identity for one process. Processes
are started and joined by Lightning Fabric; nothing here launches anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    """Number W of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, 0 to W - 1."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _gather_integers(values: list[int], device: torch.device) -> Tensor:
    """(W, K) of every rank's K integers."""
    mine = torch.tensor(values, dtype=torch.int64, device=device)
    theirs = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(theirs, mine)
    return torch.stack(theirs)


class _Gather(torch.autograd.Function):
    """(W, ...) of every rank's tensor; a tensor's gradient is the sum of all ranks' for it."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        gathered = values.new_empty((world_size(), *values.shape))
        dist.all_gather(list(gathered), values.contiguous())
        return gathered

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(gradients[0])  # type: ignore[no-untyped-call]
        return total[rank()]


class _Sum(torch.autograd.Function):
    """Sum over ranks; of a gradient, whose own gradient is a sum again, as some losses need it."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        answer: Tensor = _Sum.apply(gradients[0])  # type: ignore[no-untyped-call]
        return answer


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's tensor, with gradients. With one process, ``values`` itself."""
    if world_size() == 1:
        return values
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total


def gather_rows(values: Tensor) -> Tensor:
    """Every rank's rows, in rank order, with gradients flowing back to their owners.

    Ranks may hold different numbers of rows (an uneven last batch) and, for (B, L, ...), different
    lengths L: the second dimension is padded with zeros to the longest.

    Args:
        values: (B, ...) of this rank.

    Returns:
        (sum of B over ranks, ...). With one process, ``values`` itself.
    """
    if world_size() == 1:
        return values
    length = values.shape[1] if values.ndim > 1 else 0
    sizes = _gather_integers([values.shape[0], length], values.device)
    rows, longest = int(sizes[:, 0].max()), int(sizes[:, 1].max())
    shape = (rows, *((longest,) if values.ndim > 1 else ()), *values.shape[2:])
    is_bool = values.dtype == torch.bool
    source = values.to(torch.uint8) if is_bool else values
    padded = source.new_zeros(shape)
    if values.ndim > 1:
        padded[: values.shape[0], :length] = source
    else:
        padded[: values.shape[0]] = source
    parts: Tensor = _Gather.apply(padded)  # type: ignore[no-untyped-call]
    gathered = torch.cat([part[: int(size)] for part, size in zip(parts, sizes[:, 0], strict=True)])
    return gathered.to(torch.bool) if is_bool else gathered


def row_offset(num_rows: int, device: torch.device) -> int:
    """Position of this rank's first row among the gathered rows."""
    if world_size() == 1:
        return 0
    return int(_gather_integers([num_rows], device)[: rank(), 0].sum())


def mean_over_rows(values: Tensor, defined: Tensor) -> Tensor:
    """Mean of ``values`` (B,) over the rows of the **global** batch where ``defined`` (B,) is True.

    Gradients are averaged over ranks after the backward pass, so this rank returns W times its
    share of the global mean; the mean of the returned values over ranks is the global mean.
    A batch without a defined row has loss zero.
    """
    total = torch.where(defined, values, values.new_zeros(())).sum()
    count = defined.sum().to(values.dtype)
    if world_size() > 1:
        dist.all_reduce(count)
    return total * world_size() / count.clamp(min=1)


BUCKET_ELEMENTS = 1 << 22
"""Of gradients, at most, in one exchange between ranks: what lies in memory a second time."""


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over ranks; a rank without one contributes zero.

    A parameter that no rank has a gradient for keeps none, so that an optimizer skips it as it
    would with one process.
    """
    if world_size() == 1:
        return
    trained = list(parameters)
    if not trained:
        return
    flags = [int(parameter.grad is not None) for parameter in trained]
    has_gradient = torch.tensor(flags, device=trained[0].device)
    dist.all_reduce(has_gradient)
    gradients = []
    for parameter, count in zip(trained, has_gradient.tolist(), strict=True):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        together = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(together)
        together.div_(world_size())
        parts = together.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Iterable[Tensor]) -> list[list[Tensor]]:
    """Gradients of one type that are sent together: an exchange costs more than a small tensor."""
    buckets: list[list[Tensor]] = []
    filling: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for gradient in gradients:
        kind = (gradient.dtype, gradient.device)
        bucket = filling.get(kind)
        if bucket is None or sum(g.numel() for g in bucket) + gradient.numel() > BUCKET_ELEMENTS:
            bucket = filling[kind] = []
            buckets.append(bucket)
        bucket.append(gradient)
    return buckets


_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical shift of int64, which torch shifts arithmetically."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    """SplitMix64's finaliser; int64 arithmetic wraps as uint64's does."""
    value = (value ^ _shift_right(value, 30)) * _MIX_1
    value = (value ^ _shift_right(value, 27)) * _MIX_2
    return value ^ _shift_right(value, 31)


def sample_uniform(index: Tensor, *, seed: int, epoch: int, stream: int) -> Tensor:
    """One number in [0, 1) per sample that depends on (seed, epoch, index, stream) alone.

    A hash instead of a generator: 1, 2 and 4 processes draw alike, and a resumed run needs no
    sampler state.

    Args:
        index: (B,) int64, row in the split.
        seed: the run's seed.
        epoch: from 0.
        stream: which of the sample's draws this is.

    Returns:
        (B,) float64.

    Example:
        >>> a = sample_uniform(torch.arange(3), seed=0, epoch=0, stream=0)
        >>> b = sample_uniform(torch.tensor([2]), seed=0, epoch=0, stream=0)
        >>> bool(a[2] == b[0])
        True

    Source: SplitMix64, Steele et al. 2014, "Fast splittable pseudorandom number generators".
    """
    state = torch.zeros_like(index, dtype=torch.int64)
    for word in (seed, epoch, stream):
        state = _mix(state + _GOLDEN + word)
    state = _mix(state + _GOLDEN + index.to(torch.int64))
    return _shift_right(state, 11).to(torch.float64) * 2.0**-53
