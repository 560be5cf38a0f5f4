"""Batches of one split: length buckets, padding, masks, and each process's share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tecafn.core.batch import Batch, Padded
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.parallel import rank, world_size
from tecafn.data.store import SplitView
from tecafn.data.text import (
    CachedStates,
    FrameSource,
    HiddenStates,
    StoredVectors,
    TokenIds,
    Tokenize,
)

Rows = NDArray[np.int64]


def plan_batches(
    lengths: NDArray[np.int64],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    shuffle: bool,
    chunk_batches: int = 20,
) -> list[Rows]:
    """Which rows make up each global batch of an epoch; depends on the arguments alone.

    All rows are shuffled and cut into chunks of ``chunk_batches`` batches; each chunk is sorted by
    length and cut into batches; then the batches are shuffled. Rows of a batch have similar
    lengths, little padding, yet come from a random chunk, so that length is no shortcut for
    telling the samples of a batch apart.

    Args:
        lengths: (N,) frames of each row.
        batch_size: rows of a batch; the last one cut may have fewer, none is dropped.
        seed: of the run, >= 0.
        epoch: from 0; each has an order of its own.
        shuffle: False keeps the rows' order before sorting and the batches' order after it.
        chunk_batches: batches of a chunk.

    Example:
        >>> plan_batches(np.array([3, 1, 2]), batch_size=2, seed=0, epoch=0, shuffle=False)
        [array([1, 2]), array([0])]
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("chunk_batches", chunk_batches, 1),
        ("seed", seed, 0),
        ("epoch", epoch, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    rows = np.arange(len(lengths))
    if shuffle:
        rows = random.permutation(rows)
    batches = []
    chunk_size = chunk_batches * batch_size
    for start in range(0, len(rows), chunk_size):
        chunk = rows[start : start + chunk_size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[at : at + batch_size] for at in range(0, len(chunk), batch_size)]
    if shuffle:
        batches = [batches[number] for number in random.permutation(len(batches))]
    return batches


def share_of(rows: Rows, *, rank: int, world_size: int) -> Rows:
    """This process's contiguous part of a global batch; sizes differ by one at most, may be 0.

    Example:
        >>> [share_of(np.arange(3), rank=r, world_size=2).tolist() for r in range(2)]
        [[0], [1, 2]]
    """
    return rows[len(rows) * rank // world_size : len(rows) * (rank + 1) // world_size]


class BatchLoader:
    """The batches of a split view, as ``core.BatchSource``.

    Args:
        view: the rows; a batch's ``index`` is the row's number in this view.
        modalities: the ones in use; the others are absent for every sample.
        batch_size: rows of a global batch.
        seed: of the epochs' order.
        shuffle: True for training.
        text: ``tokenize(texts, contexts)``, or an object with ``hidden(row)``, or None for the
            store's own text vectors.
        num_workers: processes that build batches ahead; the batches are the same for any number.
        require_labels: refuse a view with unlabelled rows.
        chunk_batches: see ``plan_batches``.
        frame_of_token: N arrays as long as the texts, from ``data.text.frames_of_texts``; None
            where the dataset is not word-aligned.
        context_of_token: N bool arrays as long as the texts, True for what was said before; None
            where a context is pooled with its text.
        alter: gives, for a modality and what the view has of it, what is to be loaded in its place;
            None = the view's own.

    A frame with NaN or infinity is masked where it stands, its values zero. A sample without a
    good frame of a modality is absent there: ``present`` False and every frame masked.
    ``labels`` are float32, or int64 classes; None if any row of the global batch is unlabelled.

    Raises:
        UserError: a modality is not in the store, or labels are required and missing.
    """

    def __init__(
        self,
        view: SplitView,
        *,
        modalities: Sequence[Modality],
        batch_size: int,
        seed: int,
        shuffle: bool,
        text: Tokenize | HiddenStates | None = None,
        num_workers: int = 0,
        require_labels: bool = False,
        chunk_batches: int = 20,
        frame_of_token: Sequence[NDArray[np.int64]] | None = None,
        context_of_token: Sequence[NDArray[np.bool_]] | None = None,
        alter: Callable[[Modality, FrameSource], FrameSource] | None = None,
    ) -> None:
        num_unlabelled = int((~view.labelled).sum())
        if require_labels and num_unlabelled:
            raise UserError(
                f"split {view.name!r} must have labels, {num_unlabelled} of {len(view)} samples "
                "have none"
            )
        sources = {m: _frame_source(view, m, text) for m in modalities}
        if alter is not None:
            sources = {m: alter(m, source) for m, source in sources.items()}
        self._builder = _BatchBuilder(view, sources, frame_of_token, context_of_token)
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._num_workers = num_workers
        self._chunk_batches = chunk_batches
        self._lengths = np.zeros(len(view), np.int64)
        for source in self._builder.sources.values():
            self._lengths = self._lengths + source.lengths

    @property
    def num_samples(self) -> int:
        """Rows of the view, over all processes."""
        return len(self._lengths)

    def num_batches(self, epoch: int) -> int:
        """Global batches of an epoch."""
        del epoch  # every epoch has as many
        return -(-len(self._lengths) // self._batch_size)

    def batches(self, epoch: int) -> Iterable[Batch]:
        """This process's share of the epoch's batches; rank and world size are read now."""
        plan = plan_batches(
            self._lengths,
            batch_size=self._batch_size,
            seed=self._seed,
            epoch=epoch,
            shuffle=self._shuffle,
            chunk_batches=self._chunk_batches,
        )
        dataset = _PlannedBatches(self._builder, plan, rank=rank(), world_size=world_size())
        if self._num_workers == 0:
            return (dataset[number] for number in range(len(dataset)))
        return cast(
            Iterable[Batch],
            DataLoader(
                dataset,
                batch_size=None,
                num_workers=self._num_workers,
                collate_fn=_as_it_is,
                # Its own generator: the default would draw from the one that dropout uses.
                generator=torch.Generator().manual_seed(self._seed),
            ),
        )


def _frame_source(
    view: SplitView, modality: Modality, text: Tokenize | HiddenStates | None
) -> FrameSource:
    if modality is Modality.TEXT and text is not None:
        if isinstance(text, HiddenStates):
            return CachedStates(view, text)
        return TokenIds(view, text)
    if modality not in view.widths:
        stored = ", ".join(view.widths) or "none"
        raise UserError(f"the store must have {modality} frames, it has {stored}")
    return StoredVectors(view, modality)


def _as_it_is(batch: Any) -> Any:
    """In place of the default, which would take a batch apart."""
    return batch


class _PlannedBatches(Dataset[Batch]):
    """Batch number -> this process's share of it; what worker processes carry."""

    def __init__(
        self, builder: _BatchBuilder, plan: list[Rows], *, rank: int, world_size: int
    ) -> None:
        self._builder = builder
        self._plan = plan
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, number: int) -> Batch:
        whole = self._plan[number]
        share = share_of(whole, rank=self._rank, world_size=self._world_size)
        return self._builder.build(share, whole)


class _BatchBuilder:
    """Rows -> Batch."""

    def __init__(
        self,
        view: SplitView,
        sources: Mapping[Modality, FrameSource],
        frame_of_token: Sequence[NDArray[np.int64]] | None,
        context_of_token: Sequence[NDArray[np.bool_]] | None,
    ) -> None:
        self._view = view
        self.sources = sources
        self._unimodal = {m: view.unimodal_labels(m) for m in Modality}
        if frame_of_token is not None:
            counts = [len(frames) for frames in frame_of_token]
            if counts != sources[Modality.TEXT].lengths.tolist():
                raise ValueError("frame_of_token must have one frame for each token of each text")
        self._frame_of_token = frame_of_token
        self._context_of_token = context_of_token

    def build(self, rows: Rows, whole: Rows) -> Batch:
        """The batch of ``rows``, a share of the global batch ``whole``.

        Whether there are labels is decided by ``whole``, so that all processes agree.
        """
        padded = {m: _pad(source, rows) for m, source in self.sources.items()}
        if self._context_of_token is not None and Modality.TEXT in padded:
            padded[Modality.TEXT] = self._with_context(rows, padded[Modality.TEXT])
        view = self._view
        labels = None
        if view.labelled[whole].all():
            kind = np.int64 if view.task == "classification" else np.float32
            labels = torch.from_numpy(view.labels[rows].astype(kind))
        return Batch(
            sequences=padded,
            present={m: frames.mask.any(dim=1) for m, frames in padded.items()},
            labels=labels,
            index=torch.from_numpy(rows.astype(np.int64)),
            ids=tuple(view.ids[row] for row in rows),
            unimodal_labels={
                m: torch.from_numpy(values[rows])
                for m, values in self._unimodal.items()
                if not np.isnan(values[whole]).any()
            },
            frame_of_token=self._token_frames(rows, padded),
        )

    def _with_context(self, rows: Rows, text: Padded) -> Padded:
        """The text with its context marked; an absent one has none."""
        assert self._context_of_token is not None
        context = torch.zeros_like(text.mask)
        for position, row in enumerate(rows):
            if text.mask[position].any():
                own = self._context_of_token[row]
                context[position, : len(own)] = torch.from_numpy(own)
        return Padded(text.values, text.mask, context)

    def _token_frames(self, rows: Rows, padded: Mapping[Modality, Padded]) -> Tensor | None:
        """(B, Lt) int64, -1 after a text."""
        if self._frame_of_token is None:
            return None
        frames = torch.full(padded[Modality.TEXT].mask.shape, -1, dtype=torch.int64)
        for position, row in enumerate(rows):
            own = self._frame_of_token[row]
            frames[position, : len(own)] = torch.from_numpy(own)
        return frames


def _pad(source: FrameSource, rows: Rows) -> Padded:
    """(B, L, D) float32 or (B, L) int64, L the longest row's, at least 1."""
    longest = int(source.lengths[rows].max(initial=1))
    shape = (len(rows), longest)
    mask = np.zeros(shape, np.bool_)
    values: NDArray[Any]
    if source.width is None:
        values = np.zeros(shape, np.int64)
    else:
        values = np.zeros((*shape, source.width), np.float32)
    for position, row in enumerate(rows):
        frames = source.frames(int(row))
        values[position, : len(frames)] = frames
        mask[position, : len(frames)] = True
    if source.width is not None:
        finite = np.isfinite(values).all(axis=2)
        if not finite.all():
            values[~finite] = 0
            mask &= finite
    return Padded(torch.from_numpy(values), torch.from_numpy(mask))
