"""Operations on padded sequences. Padding never leaks: each one sees real frames only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tecafn.core.batch import Padded


def zero_padding(values: Tensor, mask: Tensor) -> Tensor:
    """Frames (B, L, D) with every masked frame set to zero, NaN included."""
    return values.masked_fill(~mask.unsqueeze(-1), 0.0)


def hides_frames(mask: Tensor) -> bool:
    """Can this mask hide a frame? A clip alone has no padding, and masks cost attention time.

    Not looked at on a GPU, where the answer would be waited for: True there.

    Example:
        >>> hides_frames(torch.tensor([[True, True]])), hides_frames(torch.tensor([[True, False]]))
        (False, True)
    """
    return mask.device.type != "cpu" or not bool(mask.all())


class Places:
    """Where a batch's real frames stand: to take them out of the padding, and put them back.

    Args:
        mask: (B, L) bool; N frames are real.

    Example:
        >>> places = Places(torch.tensor([[True, True], [True, False]]))
        >>> packed = places.pack(torch.tensor([[[1.0], [2.0]], [[3.0], [9.0]]]))
        >>> packed.tolist()
        [[1.0], [2.0], [3.0]]
        >>> places.spread(packed).squeeze(2).tolist()
        [[1.0, 2.0], [3.0, 0.0]]
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self._index = mask.flatten().nonzero().squeeze(1)

    def pack(self, values: Tensor) -> Tensor:
        """(B, L, D) to the real frames, (N, D), row after row."""
        packed: Tensor = _Pack.apply(values.flatten(0, 1), self._index)  # type: ignore[no-untyped-call]
        return packed

    def spread(self, packed: Tensor) -> Tensor:
        """(N, D) to (B, L, D), with zeros for padding."""
        total = self.mask.numel()
        flat: Tensor = _Spread.apply(packed, self._index, total)  # type: ignore[no-untyped-call]
        return flat.view(*self.mask.shape, packed.shape[1])


class _Pack(Function):
    """Rows of (M, D). An index's own gradient adds row by row, which takes ten times as long."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.total = len(flat)
        return flat.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _Spread.apply(gradient, index, ctx.total), None  # type: ignore[no-untyped-call]


class _Spread(Function):
    """(N, D) to those rows of (M, D), zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, index: Tensor, total: int) -> Tensor:
        ctx.save_for_backward(index)
        return packed.new_zeros(total, packed.shape[1]).index_copy_(0, index, packed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return _Pack.apply(gradient, index), None, None  # type: ignore[no-untyped-call]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real frames: ``Pool`` of eq. 13.

    Args:
        values: (B, L, D).
        mask: (B, L) bool.

    Returns:
        (B, D); zero where a row has no real frame.

    Example:
        >>> masked_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
        tensor([[2.]])
    """
    count = mask.sum(1, keepdim=True).clamp(min=1).to(values.dtype)
    return zero_padding(values, mask).sum(1) / count


def last_real(sequence: Padded) -> Tensor:
    """(B, L, D) to (B, D): the last real frame, wherever it stands; zero where there is none.

    Example:
        >>> frames = Padded(torch.tensor([[[1.0], [3.0], [9.0]]]),
        ...                 torch.tensor([[True, True, False]]))
        >>> last_real(frames).item()
        3.0
    """
    length = sequence.mask.shape[1]
    last = length - 1 - sequence.mask.flip(1).byte().argmax(1)  # index of the last True
    rows = torch.arange(len(last), device=last.device)
    return zero_padding(sequence.values, sequence.mask)[rows, last]


def sinusoidal_positions(length: int, dim: int, *, device: torch.device | None = None) -> Tensor:
    """(length, dim) position codes; any width, odd ones included.

    Source: Vaswani et al. 2017, Sect. 3.5, with two harmless differences: sines and cosines stand
    side by side instead of interleaved, and the slowest angle is t / 10000 exactly (the paper's
    rates stop one step short of it).
    """
    half = (dim + 1) // 2
    rate = torch.exp(torch.arange(half, device=device) * (-math.log(10000.0) / max(half - 1, 1)))
    angle = torch.arange(length, device=device).unsqueeze(1) * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :dim]


class Standardise(nn.Module):
    """Columns to mean 0 and deviation 1 by the training split's statistics, clipped.

    The statistics are buffers: they travel in the checkpoint, so a prediction never depends on the
    data it is made for. (ours: MOSI's audio reaches 376 and one column deviates by 53.)

    Args:
        mean: D column means.
        std: D column deviations; a constant column is only shifted.
        limit: clip to [-limit, limit].
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], *, limit: float = 10.0) -> None:
        super().__init__()
        deviation = torch.tensor(list(std), dtype=torch.float32)
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))
        self.register_buffer("scale", torch.where(deviation > 1e-6, deviation, 1.0))
        self.limit = limit

    def forward(self, values: Tensor) -> Tensor:
        """(B, L, D) to the same shape."""
        return ((values - self.mean) / self.scale).clamp(-self.limit, self.limit)


class MaskedConv1d(nn.Module):
    """Temporal convolution with "same" padding over frames that were zeroed where masked (eq. 5).

    Args:
        in_dim, out_dim: widths.
        kernel_size: odd.
        depthwise: one filter a column (the mappers of eq. 6 and 15); needs in_dim == out_dim.
    """

    def __init__(
        self, in_dim: int, out_dim: int, *, kernel_size: int, depthwise: bool = False
    ) -> None:
        super().__init__()
        if kernel_size % 2 != 1:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.conv = nn.Conv1d(
            in_dim,
            out_dim,
            kernel_size,
            padding=kernel_size // 2,
            groups=in_dim if depthwise else 1,
        )

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """(B, L, in_dim) and (B, L) to (B, L, out_dim)."""
        frames = zero_padding(values, mask).transpose(1, 2)  # (B, L, D) -> (B, D, L)
        convolved: Tensor = self.conv(frames)  # (B, D, L) -> (B, out, L)
        return convolved.transpose(1, 2)


class SequenceLSTM(nn.Module):
    """LSTM layers over the real frames alone, wherever they stand (TeCaFN, eq. 4).

    A masked frame leaves the state untouched: the real frames are moved to the front, run, and
    moved back.

    Args:
        in_dim: width of a frame.
        hidden_dim: width of a direction's state.
        num_layers: stacked.
        bidirectional: also from the last frame to the first.
    """

    def __init__(
        self, in_dim: int, hidden_dim: int, *, num_layers: int = 1, bidirectional: bool = False
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            in_dim, hidden_dim, num_layers, batch_first=True, bidirectional=bidirectional
        )
        self.out_dim = hidden_dim * (2 if bidirectional else 1)

    def forward(self, sequence: Padded) -> tuple[Padded, Tensor]:
        """All states (B, L, out_dim), and the last layer's final state (B, out_dim).

        Of a bidirectional LSTM the final state is that of each direction at its own end, forward
        first. A row without real frames is zero in both.
        """
        values, mask = zero_padding(sequence.values, sequence.mask), sequence.mask
        if len(values) == 0:
            return (
                Padded(values.new_zeros(*mask.shape, self.out_dim), mask),
                values.new_zeros(0, self.out_dim),
            )
        if not self.training and not hides_frames(mask):
            states, (final, _) = self.lstm(values)
            return Padded(states, mask), self._last(final)
        order = torch.argsort(mask.to(torch.int8), dim=1, descending=True, stable=True)
        front = values.gather(1, order.unsqueeze(-1).expand_as(values))
        lengths = mask.sum(1).clamp(min=1)
        states, last = (self._both_ways if self.lstm.bidirectional else self._forward)(
            front, lengths
        )
        restored = torch.zeros_like(states).scatter(
            1, order.unsqueeze(-1).expand_as(states), states
        )
        last = last * mask.any(1, keepdim=True)
        return Padded(zero_padding(restored, mask), mask), last

    def _forward(self, front: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States and final state of (B, L, in_dim) whose real frames come first.

        What follows them comes too late to matter, and on a CPU an unpacked LSTM takes a sixth of
        the time of a packed one.
        """
        states, _ = self.lstm(front)
        ends = (lengths - 1).view(-1, 1, 1).expand(-1, 1, self.out_dim)
        return states, states.gather(1, ends).squeeze(1)

    def _both_ways(self, front: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same, where one direction begins at the last real frame."""
        packed = pack_padded_sequence(front, lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed_states, (final, _) = self.lstm(packed)
        states, _ = pad_packed_sequence(
            packed_states, batch_first=True, total_length=front.shape[1]
        )
        return states, self._last(final)

    def _last(self, final: Tensor) -> Tensor:
        """(B, out_dim) of the final states of all layers and directions."""
        return torch.cat([final[-2], final[-1]], dim=1) if self.lstm.bidirectional else final[-1]


def concatenate_rows(first: Padded, second: Padded) -> Padded:
    """Rows of both, padded to the longer."""
    length = max(first.mask.shape[1], second.mask.shape[1])

    def stretch(padded: Padded) -> tuple[Tensor, Tensor]:
        missing = length - padded.mask.shape[1]
        values = nn.functional.pad(padded.values, (0, 0, 0, missing))
        return values, nn.functional.pad(padded.mask, (0, missing))

    pairs = (stretch(first), stretch(second))
    return Padded(torch.cat([v for v, _ in pairs]), torch.cat([m for _, m in pairs]))
