"""MulT's pickles (``mosi_data.pkl``, ``mosei_senti_data_noalign.pkl``), mostly padded in front.

A dict of splits, each with ``text`` (N, T, 300) GloVe vectors, ``audio``, ``vision``, ``labels``
(N, 1, 1) and mostly ``id``. There is no text to read: the GloVe vectors are stored in its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.padding import FoundFrames, Padded, extent_of, find_frames
from tecafn.data.readers.base import (
    READERS,
    Reader,
    ReadOptions,
    as_frames,
    as_numbers,
    as_string,
    as_strings,
    bounded,
    common_widths,
    dataset_name,
    describe_file,
    is_pickle_file,
    one_line_list,
    parse_id,
    parts_by_split,
    peek_pickle,
    present_only,
    scale_of,
)
from tecafn.data.samples import DatasetDescription, Sample, public_id
from tecafn.data.unpickle import load_pickle

_WIDTHS = {(5, 20): "cmu-mosi", (74, 35): "cmu-mosei"}


@dataclass(frozen=True)
class _Id:
    """One sample's id, and its seconds where the source has them."""

    source_id: str
    video: str
    clip: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class _Split:
    """One split's checked columns, N rows each."""

    name: str
    ids: list[_Id]
    texts: list[str] | None
    labels: NDArray[Any]
    frames: Mapping[Modality, NDArray[Any]]  # (N, T, D), padded

    @property
    def is_aligned(self) -> bool:
        return len({values.shape[1] for values in self.frames.values()}) == 1


def _is_layout(value: object) -> bool:
    return isinstance(value, dict) and any(
        isinstance(part, dict) and "labels" in part and any(m.value in part for m in Modality)
        for part in value.values()
    )


def _recognises(source: Path) -> bool:
    return is_pickle_file(source) and _is_layout(peek_pickle(source))


def _id_rows(value: object) -> list[Any]:
    """One entry a sample: a string, or [video, start, end]."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "USO" and value.ndim in (1, 2):
        try:
            value = value.tolist()
        except ValueError:
            return []
    return list(value) if isinstance(value, (list, tuple)) else []


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _id(entry: object, what: str) -> _Id:
    """``[video, start, end]`` becomes clip ``start`` in label.csv's writing (82.7645: 82_7645)."""
    if isinstance(entry, (list, tuple)) and len(entry) == 1:
        entry = entry[0]
    if isinstance(entry, (list, tuple)) and len(entry) == 3:
        plain = [str(part) if type(part) in (int, float) else part for part in entry]
        video, start, end = as_strings(plain, what=what)
        if not video or not start:
            raise UserError(f"{what} must be video, start, end, got {one_line_list(plain)}")
        return _Id(
            f"{video}[{start}-{end}]",
            video,
            start.replace(".", "_"),
            _seconds(start),
            _seconds(end),
        )
    source_id = as_string(entry, what=what)
    try:
        parsed = parse_id(source_id)
    except ValueError as error:
        raise UserError(f"{what}: {error}") from None
    return _Id(source_id, parsed.video, parsed.clip)


def _ids(part: Mapping[Any, Any], *, name: str, what: str, count: int) -> list[_Id]:
    if part.get("id") is None:
        return [_Id(str(row), f"{name}-{row}", "") for row in range(count)]
    entries = _id_rows(part["id"])
    if len(entries) != count:
        raise UserError(
            f"{what}: id must be {count} strings or (video, start, end), got {len(entries)}"
        )
    return [_id(entry, f"{what} row {row}: id") for row, entry in enumerate(entries)]


def _split(name: str, part: object, source: Path) -> _Split:
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
        frames[modality] = values
    texts = None
    if part.get("raw_text") is not None:
        texts = as_strings(part["raw_text"], what=f"{what}: raw_text")
        if len(texts) != count:
            raise UserError(f"{what}: raw_text has {len(texts)} rows, labels has {count}")
    ids = _ids(part, name=name, what=what, count=count)
    return _Split(name=name, ids=ids, texts=texts, labels=labels, frames=frames)


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Samples of a MulT pickle, without the zero rows of the padding.

    Padding is found (``find_frames``); the layout has it in front. Where all modalities have one
    length, rows correspond: then only rows in which every modality is zero are cut off in front,
    so that they still do. ``raw_text`` is read where a file has it.

    Raises:
        UserError: the pickle is refused, its layout is another, or its padding is on both sides.
    """
    loaded = load_pickle(source)
    if not isinstance(loaded, dict) or not _is_layout(loaded):
        raise UserError(
            f"{source} must be a dictionary of train, valid, test with 'labels' and frames each "
            f"(MulT), got a {type(loaded).__name__}"
        )
    splits = [_split(name, part, source) for name, part in parts_by_split(loaded, source).items()]
    widths = common_widths({split.name: split.frames for split in splits}, source)
    guess = _WIDTHS.get((widths.get(Modality.AUDIO, 0), widths.get(Modality.VISION, 0)), "unnamed")
    dataset = dataset_name(options, source, otherwise=guess)
    notes = []
    if any(split.texts is None for split in splits):
        notes.append("the source has no text; its text vectors are stored in its place")
    if any(part.get("id") is None for part in loaded.values()):
        notes.append("the source has no ids: rows are numbered, every sample is its own video")
    aligned = all(split.is_aligned for split in splits)
    found = find_frames(
        [
            Padded(split.name, m, f"{source} split {split.name!r}", extent_of(values))
            for split in splits
            for m, values in split.frames.items()
        ],
        convention="front",
        padding=options.padding,
        together=aligned,
    )
    description = DatasetDescription(
        dataset=dataset,
        widths=widths,
        **vars(scale_of(dataset)),
        aligned=aligned,
        splits=tuple(split.name for split in splits),
        decisions=tuple(found.decisions),
        notes=tuple(notes),
        warnings=tuple(found.warnings),
        source_format="mult",
        source_files=(describe_file(source),),
    )
    samples = (sample for split in splits for sample in _samples(split, found))
    return description, bounded(samples, source=source, num_bytes=source.stat().st_size)


def _samples(split: _Split, found: FoundFrames) -> Iterator[Sample]:
    for row, named in enumerate(split.ids):
        frames = {
            m: as_frames(values[row][found.slice(split.name, m, row)])
            for m, values in split.frames.items()
        }
        yield Sample(
            id=public_id(named.video, named.clip),
            source_id=named.source_id,
            video=named.video,
            clip=named.clip,
            split=split.name,
            text="" if split.texts is None else split.texts[row],
            label=float(split.labels[row]),
            sequences=present_only(frames),
            start=named.start,
            end=named.end,
        )


READERS.register(
    "mult",
    Reader(
        summary="MulT's pickles, padded in front: GloVe text vectors, audio, vision",
        read=read,
        recognises=_recognises,
    ),
)
