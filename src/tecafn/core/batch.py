"""What a network takes: padded sequences, which modalities are present, labels, row numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from tecafn.core.modality import Modality


@dataclass(frozen=True)
class Padded:
    """Sequences of different lengths in one tensor.

    Args:
        values: (B, L, D) floats, or (B, L) int64 token ids.
        mask: (B, L) bool, True = real frame. True frames need not be contiguous: a frame that
            held NaN stays where it was, masked, so that word alignment survives.
        context: (B, L) bool, None = nowhere. True = a frame of what was said before: the text
            encoder reads it with the others and gives none for it.

    Raises:
        ValueError: ``mask`` or ``context`` is not bool or does not match the first two dimensions
            of ``values``.

    Example:
        >>> padded = Padded(torch.zeros(2, 3, 5), torch.tensor([[True, True, False], [True] * 3]))
        >>> padded.select(torch.tensor([1])).mask
        tensor([[True, True, True]])
    """

    values: Tensor
    mask: Tensor
    context: Tensor | None = None

    def __post_init__(self) -> None:
        expected = tuple(self.values.shape[:2])
        for name, given in (("mask", self.mask), ("context", self.context)):
            if given is None:
                continue
            if given.dtype != torch.bool or tuple(given.shape) != expected:
                raise ValueError(
                    f"{name} must be bool {expected}, got "
                    f"{str(given.dtype).removeprefix('torch.')} {tuple(given.shape)}"
                )

    def to(self, device: torch.device | str) -> Padded:
        """The same sequences on another device."""
        context = self.context
        return Padded(
            self.values.to(device, non_blocking=True),
            self.mask.to(device, non_blocking=True),
            None if context is None else context.to(device, non_blocking=True),
        )

    def select(self, rows: Tensor) -> Padded:
        """Rows (K,) int64, in that order, repeats allowed."""
        context = None if self.context is None else self.context[rows]
        return Padded(self.values[rows], self.mask[rows], context)

    @property
    def own_mask(self) -> Tensor:
        """(B, L) bool: the real frames that are no context."""
        return self.mask if self.context is None else self.mask & ~self.context

    def padded_to(self, length: int) -> Padded:
        """Masked frames of zeros after the last until there are ``length``; never fewer than now.

        Example:
            >>> Padded(torch.ones(1, 1, 2), torch.tensor([[True]])).padded_to(3).mask
            tensor([[ True, False, False]])
        """
        missing = length - self.mask.shape[1]
        if missing <= 0:
            return self
        after = (0, missing) if self.values.ndim == 2 else (0, 0, 0, missing)
        return Padded(functional.pad(self.values, after), functional.pad(self.mask, (0, missing)))


@dataclass(frozen=True)
class Batch:
    """A batch of samples.

    Args:
        sequences: each used modality's frames. A modality missing here is absent for every sample.
        present: (B,) bool for each key of ``sequences``: does this sample have this modality?
        labels: (B,) float scores on the dataset's scale or int64 classes; None when any row is
            unlabelled.
        index: (B,) int64, the row in its split; per-sample draws and banks key on it.
        ids: B public ids, ``<video>_<clip>``.
        unimodal_labels: (B,) per modality where the dataset annotates them (CH-SIMS).
        frame_of_token: (B, Lt) int64, for each text token the audio and vision frame it was spoken
            in; -1 for [CLS], [SEP], padding and a token without a frame. None where the dataset is
            not word-aligned.

    Raises:
        ValueError: ``present`` and ``sequences`` name different modalities, or ``frame_of_token``
            is not int64 of the text's first two dimensions.

    Example:
        >>> frames = Padded(torch.zeros(1, 2, 5), torch.ones(1, 2, dtype=torch.bool))
        >>> batch = Batch(
        ...     sequences={Modality.AUDIO: frames}, present={Modality.AUDIO: torch.tensor([True])},
        ...     labels=None, index=torch.tensor([0]), ids=("video_1",))
        >>> batch.size
        1
    """

    sequences: Mapping[Modality, Padded]
    present: Mapping[Modality, Tensor]
    labels: Tensor | None
    index: Tensor
    ids: Sequence[str]
    unimodal_labels: Mapping[Modality, Tensor] = field(default_factory=dict)
    frame_of_token: Tensor | None = None

    def __post_init__(self) -> None:
        if set(self.sequences) != set(self.present):
            raise ValueError(
                f"present must name the modalities of sequences {sorted(self.sequences)}, "
                f"got {sorted(self.present)}"
            )
        frame, text = self.frame_of_token, self.sequences.get(Modality.TEXT)
        if frame is not None and text is not None:
            expected = tuple(text.mask.shape)
            if frame.dtype != torch.int64 or tuple(frame.shape) != expected:
                raise ValueError(
                    f"frame_of_token must be int64 {expected}, one a text token, got "
                    f"{str(frame.dtype).removeprefix('torch.')} {tuple(frame.shape)}"
                )

    @property
    def size(self) -> int:
        """Number of samples B."""
        return self.index.shape[0]  # no int(): an export counts the rows that come

    @property
    def device(self) -> torch.device:
        """Where the rows lie."""
        return self.index.device

    def has(self, modality: Modality) -> Tensor:
        """(B,) bool: which samples have this modality; none where the batch has no tensor of it."""
        if modality in self.present:
            return self.present[modality]
        return torch.zeros_like(self.index, dtype=torch.bool)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            sequences={m: padded.to(device) for m, padded in self.sequences.items()},
            present={m: mask.to(device) for m, mask in self.present.items()},
            labels=None if self.labels is None else self.labels.to(device),
            index=self.index.to(device),
            ids=self.ids,
            unimodal_labels={m: label.to(device) for m, label in self.unimodal_labels.items()},
            frame_of_token=None if self.frame_of_token is None else self.frame_of_token.to(device),
        )

    def select(self, rows: Tensor) -> Batch:
        """Rows (K,) int64 of this batch, in that order."""
        return Batch(
            sequences={m: padded.select(rows) for m, padded in self.sequences.items()},
            present={m: mask[rows] for m, mask in self.present.items()},
            labels=None if self.labels is None else self.labels[rows],
            index=self.index[rows],
            ids=tuple(self.ids[int(row)] for row in rows),
            unimodal_labels={m: label[rows] for m, label in self.unimodal_labels.items()},
            frame_of_token=None if self.frame_of_token is None else self.frame_of_token[rows],
        )

    def keeping(self, modalities: Collection[Modality]) -> Batch:
        """The samples as if they had these modalities alone; those that lack one still do.

        Args:
            modalities: which stay. Without any, every frame is masked: some networks need a tensor
                to see how many samples there are.

        Example:
            >>> frames = Padded(torch.zeros(1, 2, 5), torch.ones(1, 2, dtype=torch.bool))
            >>> batch = Batch(
            ...     sequences={Modality.AUDIO: frames, Modality.VISION: frames},
            ...     present=dict.fromkeys((Modality.AUDIO, Modality.VISION), torch.tensor([True])),
            ...     labels=None, index=torch.tensor([0]), ids=("video_1",))
            >>> list(batch.keeping([Modality.AUDIO]).sequences), batch.keeping([]).has("audio")
            ([<Modality.AUDIO: 'audio'>], tensor([False]))
        """
        kept = {m: padded for m, padded in self.sequences.items() if m in modalities}
        present = {m: self.present[m] for m in kept}
        if not kept:
            kept = {
                m: Padded(padded.values, torch.zeros_like(padded.mask))
                for m, padded in self.sequences.items()
            }
            present = {m: torch.zeros_like(self.index, dtype=torch.bool) for m in kept}
        return dataclasses.replace(
            self,
            sequences=kept,
            present=present,
            frame_of_token=self.frame_of_token if Modality.TEXT in kept else None,
        )


class BatchSource(Protocol):
    """Where trainer and evaluator get their batches; they never see readers or files.

    ``batches(epoch)`` gives this rank's share of every global batch, in an order that depends on
    the source's seed and ``epoch`` alone.
    """

    @property
    def num_samples(self) -> int:
        """Number of samples over all ranks."""
        ...

    def num_batches(self, epoch: int) -> int:
        """Number of global batches in this epoch, the same on every rank."""
        ...

    def batches(self, epoch: int) -> Iterable[Batch]:
        """The epoch's batches."""
        ...


def pad_rows(rows: Sequence[Tensor | None]) -> Padded:
    """Sequences of different lengths to one padded tensor.

    Frames with NaN or infinity stay where they are, zeroed and masked, so that what is aligned by
    position stays aligned.

    Args:
        rows: B tensors, (L, D) floats or (L,) token ids, at least one of them; None or L = 0 where
            a sample lacks the modality: a single masked frame, or what the longest row needs.

    Returns:
        (B, longest L, ...) and its mask.

    Example:
        >>> pad_rows([torch.tensor([[1.0], [float("nan")]]), None]).mask
        tensor([[ True, False],
                [False, False]])
    """
    known = next(row for row in rows if row is not None)
    longest = max(1, *(0 if row is None else len(row) for row in rows))
    values = known.new_zeros((len(rows), longest, *known.shape[1:]))
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        if row is not None and len(row):
            values[place, : len(row)] = row
            mask[place, : len(row)] = True
    if values.is_floating_point():
        finite = values.isfinite().all(-1)
        mask &= finite
        values = values.masked_fill(~finite.unsqueeze(-1), 0.0)
    return Padded(values, mask)
