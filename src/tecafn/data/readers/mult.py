"""MulT's pickles (``mosi_data.pkl``, ``mosei_senti_data_noalign.pkl``), mostly padded in front.

A dict of splits, each with ``text`` (N, T, 300) GloVe vectors, ``audio``, ``vision``, ``labels``
(N, 1, 1) and mostly ``id``. There is no text to read: the GloVe vectors are stored in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.axes import refuse_transposed
from tecafn.data.ids import RawId, ReadIds, SourceId, id_rows, read_ids
from tecafn.data.layouts import MULT, layout_of, split_parts
from tecafn.data.padding import FoundFrames, Padded, extent_of, find_frames
from tecafn.data.readers.base import (
    READERS,
    Reader,
    ReadOptions,
    as_frames,
    as_numbers,
    as_strings,
    bounded,
    common_widths,
    describe_file,
    is_pickle_file,
    one_line_list,
    peek_pickle,
    present_only,
    which_dataset,
)
from tecafn.data.samples import DatasetDescription, Sample
from tecafn.data.sentences import TextSurvey
from tecafn.data.unpickle import load_pickle
from tecafn.data.which import Evidence, first_number
from tecafn.data.word_alignment import WordAlignment, word_alignment


@dataclass(frozen=True)
class _Split:
    """One split's checked columns, N rows each."""

    name: str
    ids: list[Any] | None
    texts: list[str] | None
    labels: NDArray[Any]
    frames: Mapping[Modality, NDArray[Any]]  # (N, T, D), padded

    @property
    def has_one_size(self) -> bool:
        """Have all modalities as many rows?"""
        return len({values.shape[1] for values in self.frames.values()}) == 1


def _recognises(source: Path) -> bool:
    return is_pickle_file(source) and layout_of(peek_pickle(source)) == MULT


def _ids(part: Mapping[Any, Any], *, what: str, count: int) -> list[Any] | None:
    if part.get("id") is None:
        return None
    entries = id_rows(part["id"], what=f"{what}: id")
    if len(entries) != count:
        raise UserError(
            f"{what}: id must be {count} strings or (video, start, end), got {len(entries)}"
        )
    return entries


def _named(splits: Sequence[_Split], source: Path, *, layout: str | None, first: int) -> ReadIds:
    """The ids of all splits; where a split has none its rows are numbered."""
    without = [split for split in splits if split.ids is None]
    if without and len(without) < len(splits):
        names = ", ".join(split.name for split in without)
        raise UserError(
            f"{source} has ids, but none in {names}: all splits must have them, or none"
        )
    if without:
        numbered = [
            SourceId(str(row), f"{split.name}-{row}", "")
            for split in splits
            for row in range(len(split.labels))
        ]
        note = "the source has no ids: rows are numbered, every sample is its own video"
        return ReadIds(tuple(numbered), notes=(note,))
    return read_ids(
        [
            RawId(f"{source} split {split.name!r} row {row}: id", value, split.name)
            for split in splits
            for row, value in enumerate(split.ids or ())
        ],
        layout=layout,
        first_number=first,
    )


def _split(name: str, part: object, source: Path, options: ReadOptions) -> _Split:
    what = f"{source} split {name!r}"
    if not isinstance(part, dict) or "labels" not in part:
        shown = one_line_list(list(part)) if isinstance(part, dict) else type(part).__name__
        raise UserError(f"{what} must be a dictionary with 'labels', got {shown}")
    labels = part["labels"]
    if isinstance(labels, np.ndarray) and labels.ndim and labels.size == len(labels):
        labels = labels.reshape(-1)  # (N, 1, 1) -> (N,)
    labels = as_numbers(labels, what=f"{what}: labels", ndim=1)
    count = len(labels)
    frames = {}
    for modality in Modality:
        if part.get(modality.value) is None:
            continue
        values = as_numbers(part[modality.value], what=f"{what}: {modality}", ndim=3)
        if len(values) != count:
            raise UserError(f"{what}: {modality} has {len(values)} rows, labels has {count}")
        if values.shape[2] == 0:
            raise UserError(f"{what}: {modality} has frames without columns, shape {values.shape}")
        refuse_transposed(values, modality, what=what, padding=options.padding)
        frames[modality] = values
    texts = None
    if part.get("raw_text") is not None:
        texts = as_strings(part["raw_text"], what=f"{what}: raw_text")
        if len(texts) != count:
            raise UserError(f"{what}: raw_text has {len(texts)} rows, labels has {count}")
    ids = _ids(part, what=what, count=count)
    return _Split(name=name, ids=ids, texts=texts, labels=labels, frames=frames)


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Samples of a MulT pickle, without the zero rows of the padding.

    Padding is found (``find_frames``); the layout has it in front. Where all modalities have one
    size and are equally long, rows correspond (``word_alignment``): then only rows in which every
    modality is zero are cut off in front, so that they still do. ``raw_text`` is read where a file
    has it.

    Raises:
        UserError: the pickle is refused, its layout is another, or its padding is on both sides.
    """
    loaded = load_pickle(source)
    if not isinstance(loaded, dict):
        raise UserError(
            f"{source} must be a dictionary of train, valid, test with 'labels' and frames each "
            f"(MulT), got a {type(loaded).__name__}"
        )
    parts = split_parts(loaded, source, layout=MULT, split=options.split)
    splits = [_split(name, part, source, options) for name, part in parts.parts.items()]
    widths = common_widths({split.name: split.frames for split in splits}, source)
    files = (describe_file(source),)
    which = which_dataset(
        options,
        source,
        Evidence(
            widths=widths,
            labels=np.concatenate([split.labels for split in splits]),
            sizes={split.name: len(split.labels) for split in splits},
            files=files,
        ),
    )
    named = _named(splits, source, layout=options.ids, first=first_number(which.dataset))
    notes = []
    if any(split.texts is None for split in splits):
        notes.append("the source has no text; its text vectors are stored in its place")
    spoken = TextSurvey(text for split in splits for text in split.texts or ())
    extents = {
        split.name: {m: extent_of(values) for m, values in split.frames.items()} for split in splits
    }
    words = WordAlignment(False)
    if all(split.has_one_size for split in splits):
        words = word_alignment(list(extents.values()))
    found = find_frames(
        [
            Padded(name, m, f"{source} split {name!r}", extent)
            for name, some in extents.items()
            for m, extent in some.items()
        ],
        convention="front",
        padding=options.padding,
        together=words.aligned,
    )
    description = DatasetDescription(
        dataset=which.dataset,
        widths=widths,
        **vars(which.scale),
        aligned=words.aligned,
        splits=tuple(split.name for split in splits),
        decisions=(
            *which.decisions,
            *named.decisions,
            *parts.decisions,
            *words.decisions,
            *found.decisions,
        ),
        notes=(*notes, *named.notes, *parts.notes, *spoken.notes()),
        warnings=(*which.warnings, *parts.warnings, *spoken.warnings(), *found.warnings),
        source_format="mult",
        source_files=files,
    )
    ids = iter(named.ids)
    rows = [(split, [next(ids) for _ in range(len(split.labels))]) for split in splits]
    samples = (s for split, ids in rows for s in _samples(split, ids, found, spoken, source))
    return description, bounded(samples, source=source, num_bytes=source.stat().st_size)


def _samples(
    split: _Split,
    ids: Sequence[SourceId],
    found: FoundFrames,
    spoken: TextSurvey,
    source: Path,
) -> Iterator[Sample]:
    for row, named in enumerate(ids):
        frames = {
            m: as_frames(values[row][found.slice(split.name, m, row)])
            for m, values in split.frames.items()
        }
        yield Sample(
            id=named.id,
            source_id=named.source_id,
            video=named.video,
            clip=named.clip,
            split=split.name,
            text="" if split.texts is None else spoken.mend(split.texts[row]),
            label=float(split.labels[row]),
            sequences=present_only(frames),
            start=named.start,
            end=named.end,
            where=f"{source} split {split.name!r} row {row}",
        )


READERS.register(
    "mult",
    Reader(
        summary="MulT's pickles, padded in front: GloVe text vectors, audio, vision",
        read=read,
        recognises=_recognises,
        cuts_ids=True,
    ),
)
