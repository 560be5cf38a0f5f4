"""A memory of earlier samples, so that hard negatives come from more than one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Padded
from tecafn.core.parallel import gather_rows
from tecafn.losses.ring import next_places


class NegativeBank(nn.Module):
    """Keys and frames of the last ``size`` samples that had a modality, oldest overwritten first.

    All of it is buffers of a fixed size, so it travels in the checkpoint and every process holds
    the same: ``push`` stores the rows of the global batch in their order.

    Args:
        size: K, samples held.
        num_frames: F, frames held of each; a longer sequence is truncated at the end.
        dim: D, width of keys and of frames.

    Raises:
        ValueError: ``size`` or ``num_frames`` < 1.

    Example:
        >>> bank = NegativeBank(4, num_frames=3, dim=2)
        >>> frames = Padded(torch.ones(2, 5, 2), torch.ones(2, 5, dtype=torch.bool))
        >>> bank.push(torch.eye(2), frames, torch.tensor([7, 9]), torch.tensor([True, False]))
        >>> bank.index.tolist()
        [7, -1, -1, -1]
        >>> bank.candidates(torch.tensor([7, 8]))
        tensor([[False, False, False, False],
                [ True, False, False, False]])

    Source: TeCaFN, Huang et al. 2024, Sect. 5 names "efficient mining of negative samples" as
    future work; the queue is that of MoCo, He et al. 2020, without its momentum encoder.
    """

    keys: Tensor
    frames: Tensor
    mask: Tensor
    index: Tensor
    num_pushed: Tensor

    def __init__(self, size: int, *, num_frames: int, dim: int) -> None:
        super().__init__()
        if size < 1 or num_frames < 1:
            raise ValueError(f"a bank holds >= 1 samples of >= 1 frames, got {size}, {num_frames}")
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("frames", torch.zeros(size, num_frames, dim))
        # Bytes, because not every backend broadcasts bool when training starts.
        self.register_buffer("mask", torch.zeros(size, num_frames, dtype=torch.uint8))
        self.register_buffer("index", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("num_pushed", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, keys: Tensor, frames: Padded, index: Tensor, present: Tensor) -> None:
        """Store the rows of all processes that are present.

        Args:
            keys: (B, D) of this process; normalised here.
            frames: (B, L, D).
            index: (B,) row in the split.
            present: (B,) bool; the other rows are left out.
        """
        kept = gather_rows(present)
        keys, index = (
            gather_rows(functional.normalize(keys, dim=-1))[kept],
            gather_rows(index)[kept],
        )
        size, num_frames = self.mask.shape
        last, slots = next_places(self.num_pushed, len(index), size=size)
        values, mask = gather_rows(frames.values)[kept][last], gather_rows(frames.mask)[kept][last]
        stored = Padded(values[:, :num_frames], mask[:, :num_frames]).padded_to(num_frames)
        self.keys[slots] = keys[last].to(self.keys.dtype)
        unseen = ~stored.mask.unsqueeze(-1)
        self.frames[slots] = stored.values.masked_fill(unseen, 0.0).to(self.frames.dtype)
        self.mask[slots] = stored.mask.to(self.mask.dtype)
        self.index[slots] = index[last]
        self.num_pushed += len(index)

    @torch.no_grad()
    def similarity(self, query: Tensor) -> Tensor:
        """(B, K) cosine of each query (B, D) to every stored key."""
        return functional.normalize(query, dim=-1).to(self.keys.dtype) @ self.keys.T

    def candidates(self, index: Tensor) -> Tensor:
        """(B, K) bool: what row ``index`` (B,) may draw; never an empty slot or its own copy.

        A sample without a frame among the first F is no partner either.
        """
        usable = (self.index >= 0) & self.mask.bool().any(1)
        return usable & (self.index != index.unsqueeze(1))

    def take(self, slots: Tensor) -> Padded:
        """Stored frames of ``slots`` (R,), (R, L, D) with L the longest's; no gradient.

        They are the encoder's states when the sample was last seen, a few steps old.
        """
        mask = self.mask[slots].bool()
        length = int(mask.any(0).nonzero().max()) + 1 if bool(mask.any()) else 1
        return Padded(self.frames[slots, :length], mask[:, :length])
