"""One modality to one vector, and what stands in its place where a sample lacks it.

What the earlier fusion papers share: the networks of TFN, LMF, MISA, Self-MM and their kin differ
in how vectors are fused, and take the vectors from an LSTM's last state, a mean over time, or the
text encoder's [CLS].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.parallel import sum_over_ranks
from tecafn.layers.sequence import SequenceLSTM, Standardise, masked_mean, zero_padding
from tecafn.layers.text_encoder import build_text_encoder

Pooling = Literal["first", "mean"]


class ModalityFrames(nn.Module):
    """A batch's sequences as every fusion takes them: clean, standardised, text encoded.

    Text: the encoder's last hidden states. Audio and vision: standardised by the training split's
    statistics, zero where masked. The text encoder is ``text_encoder``, so that its parameters
    have their own learning rate.

    Args:
        info: widths, statistics and the text encoder.

    ``dims`` has the width of each usable modality.
    """

    def __init__(self, info: DataInfo) -> None:
        super().__init__()
        self.dims: dict[Modality, int] = {}
        self.standardise = nn.ModuleDict()
        for modality in info.usable:
            if modality == Modality.TEXT:
                self.text_encoder = build_text_encoder(info)
                self.dims[modality] = self.text_encoder.hidden_dim
            else:
                width = info.widths[modality]
                self.standardise[modality] = Standardise.by(info.statistics.get(modality), width)
                self.dims[modality] = width

    def forward(self, batch: Batch) -> dict[Modality, Padded]:
        """(B, L, width) of each usable modality the batch has tensors for."""
        frames: dict[Modality, Padded] = {}
        for modality in self.dims:
            if modality not in batch.sequences:
                continue
            sequence = batch.sequences[modality]
            if modality == Modality.TEXT:
                frames[modality] = self.text_encoder(sequence)
            else:
                standardised = self.standardise[modality](sequence.values)
                values = zero_padding(standardised, sequence.mask)
                frames[modality] = Padded(values, sequence.mask)
        return frames

    def presence(self, batch: Batch) -> dict[Modality, Tensor]:
        """(B,) bool for all three: has the sample this modality, and is it read here?"""
        nowhere = torch.zeros_like(batch.index, dtype=torch.bool)
        return {m: batch.has(m) if m in self.dims else nowhere for m in Modality}


def pool(sequence: Padded, pooling: Pooling) -> Tensor:
    """(B, L, D) to (B, D): the ``first`` real frame, [CLS] of a text, or the ``mean``.

    Zero where a row has no real frame.

    Example:
        >>> frames = Padded(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[True, True]]))
        >>> pool(frames, "first").item(), pool(frames, "mean").item()
        (1.0, 2.0)
    """
    if pooling == "mean":
        return masked_mean(sequence.values, sequence.mask)
    first = sequence.mask.byte().argmax(1)  # index of the first True
    rows = torch.arange(first.shape[0], device=first.device)
    return zero_padding(sequence.values, sequence.mask)[rows, first]


class UtteranceLSTM(nn.Module):
    """Audio or vision to one vector: two bidirectional LSTMs, a LayerNorm between them.

    Args:
        width: of a frame, and of the LSTMs' states.

    Source: MISA, Hazarika et al. 2020; in its public code the LSTMs are as wide as the frames.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = SequenceLSTM(width, width, bidirectional=True)
        self.norm = nn.LayerNorm(2 * width)
        self.second = SequenceLSTM(2 * width, width, bidirectional=True)
        self.out_dim = 4 * width

    def forward(self, frames: Padded) -> Tensor:
        """(B, L, width) to (B, 4 width): the last states of both."""
        states, last = self.first(frames)
        _, final = self.second(Padded(self.norm(states.values), states.mask))
        return torch.cat([last, final], dim=1)


class AbsentVectors(nn.Module):
    """A learned vector for each modality, in the place of a sample's that it lacks.

    Args:
        dims: width of each modality's vector; also of those the dataset does not have.
    """

    def __init__(self, dims: dict[Modality, int]) -> None:
        super().__init__()
        # Pairs keep their order; of a dict it would sort the names.
        self.vectors = nn.ParameterDict([(m, torch.zeros(dim)) for m, dim in dims.items()])

    def forward(self, vectors: dict[Modality, Tensor], batch: Batch) -> dict[Modality, Tensor]:
        """(B, D) for every modality with a slot.

        Args:
            vectors: (B, D) of the modalities the batch has.
            batch: says which samples have which.
        """
        return fill_absent(vectors, self.vectors, batch)


def fill_absent(
    vectors: Mapping[Modality, Tensor], slots: nn.ParameterDict, batch: Batch
) -> dict[Modality, Tensor]:
    """(B, D) for every modality with a slot: a sample's own vector, or the slot where it lacks it.

    Args:
        vectors: (B, D) of the modalities the batch has.
        slots: (D,) by modality.
        batch: says which samples have which.
    """
    filled = {}
    for name, slot in slots.items():
        modality = Modality(name)
        if modality in vectors:
            present = batch.present[modality].unsqueeze(1)
            filled[modality] = torch.where(present, vectors[modality], slot)
        else:
            filled[modality] = slot.expand(batch.size, -1)
    return filled


def fill_absent_frames(sequence: Padded | None, slot: Tensor, present: Tensor) -> Padded:
    """A sample that lacks the modality gets one real frame, a learned one.

    Args:
        sequence: (B, L, D); None where no sample of the batch has one.
        slot: (D,), the frame.
        present: (B,) bool, which samples have the modality.

    Returns:
        (B, L, D), or (B, 1, D) without a sequence.

    Example:
        >>> frames = Padded(torch.zeros(2, 2, 1), torch.tensor([[True, True], [False, False]]))
        >>> filled = fill_absent_frames(frames, torch.ones(1), torch.tensor([True, False]))
        >>> filled.values.squeeze(2).tolist(), filled.mask.tolist()
        ([[0.0, 0.0], [1.0, 0.0]], [[True, True], [True, False]])
    """
    learned = Padded(slot.expand(present.shape[0], 1, -1), torch.ones_like(present).unsqueeze(1))
    if sequence is None:
        return learned
    learned = learned.padded_to(sequence.mask.shape[1])
    values = learned.values.to(sequence.values.dtype)
    is_own = present.unsqueeze(1)
    return Padded(
        torch.where(is_own.unsqueeze(2), sequence.values, values),
        (is_own & sequence.mask) | (~is_own & learned.mask),
    )


class GlobalBatchNorm(nn.Module):
    """Batch normalisation of vectors by the mean and variance of the global batch.

    Only rows that have the modality count. With fewer than two of them there is no variance, and
    the running statistics are used.

    Args:
        dim: width.
        momentum: of the running statistics, which evaluation uses.
        eps: added to the variance.
        affine: learned scale and shift.

    Source: Ioffe and Szegedy 2015.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, dim: int, *, momentum: float = 0.1, eps: float = 1e-5, affine: bool = True
    ) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine else None
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, vectors: Tensor, present: Tensor) -> Tensor:
        """(B, D) to the same shape; ``present`` (B,) bool."""
        mean, variance = self.running_mean, self.running_var
        if self.training:
            count = sum_over_ranks(present.sum().to(vectors.dtype))
            if count >= 2:
                kept = torch.where(present.unsqueeze(1), vectors, vectors.new_zeros(()))
                mean = sum_over_ranks(kept.sum(0)) / count
                centred = torch.where(present.unsqueeze(1), vectors - mean, vectors.new_zeros(()))
                variance = sum_over_ranks(centred.square().sum(0)) / count
                with torch.no_grad():
                    unbiased = variance * count / (count - 1)
                    self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                    self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        normed: Tensor = (vectors - mean) * (variance + self.eps).rsqrt()
        if self.weight is None or self.bias is None:
            return normed
        return normed * self.weight + self.bias
