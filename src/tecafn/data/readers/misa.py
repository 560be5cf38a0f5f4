"""MISA's word-aligned pickles: ``((word_ids, visual, acoustic, words), label, "video[k]")``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tecafn.core.batch import Modality
from tecafn.core.errors import UserError
from tecafn.data.readers.base import (
    READERS,
    Frames,
    Reader,
    ReadOptions,
    as_frames,
    as_numbers,
    as_string,
    as_strings,
    bounded,
    dataset_name,
    describe_file,
    label_range_of,
    one_line_list,
    present_only,
    split_in_name,
)
from tecafn.data.samples import (
    SPLITS,
    DatasetDescription,
    Sample,
    canonical_split,
    public_id,
    split_segment_id,
)
from tecafn.data.unpickle import load_pickle

_PAUSE = "sp"
_SUFFIXES = (".pkl", ".pickle")


@dataclass(frozen=True)
class _Part:
    """The list of one split and the words that name it in errors."""

    split: str
    rows: list[Any]
    what: str


def _is_row(row: object) -> bool:
    return (
        isinstance(row, (tuple, list))
        and len(row) == 3
        and isinstance(row[0], (tuple, list))
        and len(row[0]) == 4
    )


def _is_layout(value: object) -> bool:
    if isinstance(value, dict):
        return any(isinstance(part, list) and part and _is_row(part[0]) for part in value.values())
    return isinstance(value, list) and bool(value) and _is_row(value[0])


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.suffix.lower() in _SUFFIXES)
    return [source]


def _recognises(source: Path) -> bool:
    return any(
        path.suffix.lower() in _SUFFIXES and _is_layout(load_pickle(path))
        for path in _files(source)
    )


def _parts(source: Path, options: ReadOptions) -> list[_Part]:
    """The lists of a file or folder, each with its split."""
    files = _files(source)
    if not files:
        raise UserError(f"{source} has no .pkl file")
    parts: list[_Part] = []
    for path in files:
        loaded = load_pickle(path)
        if isinstance(loaded, dict):
            for key, rows in loaded.items():
                split = canonical_split(key) if isinstance(key, str) else None
                if split is None or not isinstance(rows, list):
                    raise UserError(
                        f"{path} must map train, dev, test to lists, got {one_line_list([key])}"
                    )
                parts.append(_Part(split, rows, f"{path} split {split!r}"))
        elif isinstance(loaded, list):
            spoken = options.split if len(files) == 1 else None
            split = split_in_name(path) if spoken is None else canonical_split(spoken)
            if split is None:
                raise UserError(
                    f"{path} holds one split and its name does not say which: name it with "
                    f"split, one of {', '.join(SPLITS)}"
                )
            parts.append(_Part(split, loaded, str(path)))
        else:
            raise UserError(
                f"{path} must be a list of samples or a dictionary of them, "
                f"got a {type(loaded).__name__}"
            )
    names = [part.split for part in parts]
    if len(set(names)) != len(names):
        raise UserError(f"{source} has a split twice: {one_line_list(sorted(names))}")
    return sorted(parts, key=lambda part: SPLITS.index(part.split))


def _label(value: object, what: str) -> float | None:
    """A number, (1, 1), or MOSEI's (1, 7): column 0 is the sentiment, six emotions follow."""
    if value is None:
        return None
    if type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        if value.size in (1, 7) and value.shape[-1:] in ((), (1,), (7,)):
            return float(value.reshape(-1)[0])
        raise UserError(f"{what}: label must have shape (1, 1) or (1, 7), got {value.shape}")
    raise UserError(f"{what}: label must be an array of numbers, got a {type(value).__name__}")


def _frames(value: object, *, what: str, width: int | None) -> Frames:
    """(T, D); an empty array of any shape is no frame."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size == 0:
        return np.empty((0, width or 0), np.float32)
    frames = as_frames(as_numbers(value, what=what, ndim=2))
    if width is not None and frames.shape[1] != width:
        raise UserError(f"{what} must have {width} columns, got {frames.shape[1]}")
    return frames


def _first_shapes(parts: list[_Part]) -> tuple[dict[Modality, int], tuple[int, ...]]:
    """Widths and label shape, from the first row that has them."""
    widths: dict[Modality, int] = {}
    label_shape: tuple[int, ...] = ()
    for part in parts:
        for row in part.rows:
            if not _is_row(row):
                continue
            label_shape = label_shape or getattr(row[1], "shape", ())
            for modality, value in ((Modality.VISION, row[0][1]), (Modality.AUDIO, row[0][2])):
                if isinstance(value, np.ndarray) and value.ndim == 2 and value.size:
                    widths.setdefault(modality, int(value.shape[1]))
            if label_shape and len(widths) == 2:
                return widths, label_shape
    return widths, label_shape


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Samples of a MISA pickle: one split's list, a dictionary of splits, or a folder of files.

    The words without the pauses ("sp") are the text; ``words`` keeps them, one a frame. MOSI's
    ``video[k]`` counts from 0 and becomes clip k + 1; elsewhere k stays, and a note says so.

    Raises:
        UserError: a pickle is refused, its layout is another, or a file's split is unknown.
    """
    parts = _parts(source, options)
    for part in parts:
        for number, row in enumerate(part.rows):
            if not _is_row(row):
                raise UserError(
                    f"{part.what} row {number} must be ((word_ids, visual, acoustic, words), "
                    f"label, id), got {_outline(row)}"
                )
    widths, label_shape = _first_shapes(parts)
    guess = "cmu-mosei" if label_shape[-1:] == (7,) else "cmu-mosi"
    dataset = dataset_name(options, source, otherwise=guess)
    first_clip = 1 if dataset == "cmu-mosi" else 0
    notes = (
        ()
        if first_clip
        else (f"clips of {dataset} keep the source's numbering from 0; label.csv's is another",)
    )
    aligned = all(
        len({len(row[0][3]), len(row[0][1]), len(row[0][2])}) == 1
        for part in parts
        for row in part.rows
        if all(hasattr(value, "__len__") and np.ndim(value) for value in row[0][1:3])
        and isinstance(row[0][3], (list, tuple))
    )
    files = _files(source)
    description = DatasetDescription(
        dataset=dataset,
        widths=widths,
        label_range=label_range_of(dataset),
        aligned=aligned,
        splits=tuple(part.split for part in parts),
        notes=notes,
        source_format="misa",
        source_files=tuple(describe_file(path) for path in files),
    )
    samples = (
        sample
        for part in parts
        for sample in _samples(part, widths=dict(widths), first_clip=first_clip)
    )
    num_bytes = sum(path.stat().st_size for path in files)
    return description, bounded(samples, source=source, num_bytes=num_bytes)


def _outline(row: object) -> str:
    if isinstance(row, (tuple, list)):
        first = row[0] if row else None
        inner = f", its first of {len(first)}" if isinstance(first, (tuple, list)) else ""
        return f"a {type(row).__name__} of {len(row)}{inner}"
    return f"a {type(row).__name__}"


def _samples(part: _Part, *, widths: dict[Modality, int], first_clip: int) -> Iterator[Sample]:
    for number, ((_, visual, acoustic, spoken), label, segment) in enumerate(part.rows):
        what = f"{part.what} row {number}"
        source_id = as_string(segment, what=f"{what}: id")
        try:
            video, counted = split_segment_id(source_id)
        except ValueError as error:
            raise UserError(f"{what}: {error}") from None
        clip = str(counted + first_clip)
        words = as_strings(spoken, what=f"{what}: words")
        sequences = {
            modality: _frames(value, what=f"{what}: {name}", width=widths.get(modality))
            for modality, name, value in (
                (Modality.AUDIO, "acoustic", acoustic),
                (Modality.VISION, "visual", visual),
            )
        }
        yield Sample(
            id=public_id(video, clip),
            source_id=source_id,
            video=video,
            clip=clip,
            split=part.split,
            text=" ".join(word for word in words if word != _PAUSE),
            label=_label(label, what),
            sequences=present_only(sequences),
            words=tuple(words),
        )


READERS.register(
    "misa",
    Reader(
        summary="MISA's word-aligned pickles: one split's list, a dictionary or folder of splits",
        read=read,
        recognises=_recognises,
    ),
)
