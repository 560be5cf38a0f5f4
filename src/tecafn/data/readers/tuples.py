"""What the pickled tuples of MISA, MMIM and MAG share: ``((...frames, words...), label, id)``.

A pickle holds one split's list of such rows or a dictionary of splits; a folder holds one pickle a
split. The three differ in the row's inner tuple, which is what each one's module describes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.axes import refuse_transposed
from tecafn.data.ids import RawId, ReadIds, SourceId, is_integer, read_ids
from tecafn.data.layouts import split_in_name
from tecafn.data.padding import (
    FoundFrames,
    Padded,
    extent_of_each,
    find_frames,
    padded_to_one_length,
)
from tecafn.data.readers.base import (
    PICKLE_SUFFIXES,
    Frames,
    ReadOptions,
    as_frames,
    as_numbers,
    as_string,
    as_strings,
    bounded,
    describe_file,
    is_pickle_file,
    joined,
    left_alone,
    one_line_list,
    peek_pickle,
    present_only,
    which_dataset,
)
from tecafn.data.samples import (
    SPLITS,
    DatasetDescription,
    Sample,
    canonical_split,
)
from tecafn.data.shares import more_than_a_few
from tecafn.data.unpickle import load_pickle
from tecafn.data.which import FUNNY, MOSI, Evidence, Which, first_number

PAUSE = "sp"


@dataclass(frozen=True, kw_only=True)
class TupleLayout:
    """One format's rows.

    Args:
        format: the reader's name.
        fields: names of the inner tuple's items, ``visual`` and ``acoustic`` among them, and
            ``vlen`` and ``alen`` where sequences are padded at the end.
        spoken: the field with the words.
    """

    format: str
    fields: tuple[str, ...]
    spoken: str

    def is_row(self, row: object) -> bool:
        """Has it the outline ``((...), label, id)`` with as many inner items?"""
        return (
            isinstance(row, (tuple, list))
            and len(row) == 3
            and isinstance(row[0], (tuple, list))
            and len(row[0]) == len(self.fields)
        )

    def recognises(self, source: Path) -> bool:
        """Is ``source`` a pickle of such rows, or a folder with one per split?"""
        if source.is_dir():
            return any(
                self.fits(peek_pickle(path)) for path in _files(source) if split_in_name(path)
            )
        return is_pickle_file(source) and self.fits(peek_pickle(source))

    def fits(self, value: object) -> bool:
        """Is it a list of such rows, or a dictionary of such lists?"""
        lists = list(value.values()) if isinstance(value, dict) else [value]
        return any(isinstance(rows, list) and rows and self.is_row(rows[0]) for rows in lists)


@dataclass(frozen=True)
class _Part:
    """The list of one split and the words that name it in errors."""

    split: str
    rows: list[Any]
    what: str


@dataclass(frozen=True)
class _Row:
    """A row's items by what they are; ``num_frames`` where the row tells it."""

    spoken: object
    frames: dict[Modality, object]
    num_frames: dict[Modality, object]
    label: object


def _row(row: Any, layout: TupleLayout) -> _Row:
    inner = dict(zip(layout.fields, row[0], strict=True))
    return _Row(
        spoken=inner[layout.spoken],
        frames={Modality.AUDIO: inner["acoustic"], Modality.VISION: inner["visual"]},
        num_frames=(
            {Modality.AUDIO: inner["alen"], Modality.VISION: inner["vlen"]}
            if "vlen" in inner
            else {}
        ),
        label=row[1],
    )


_NAMES = {Modality.AUDIO: "acoustic", Modality.VISION: "visual"}


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.suffix.lower() in PICKLE_SUFFIXES)
    return [source]


def _chosen_files(source: Path, layout: TupleLayout) -> list[Path]:
    """The file, or the folder's pickles that are named after splits.

    Where several are of one split, those of another layout do not count.

    Raises:
        UserError: there is none, or two of one split.
    """
    files = _files(source)
    if not source.is_dir():
        return files
    by_split: dict[str, list[Path]] = {}
    for path in files:
        if (split := split_in_name(path)) is not None:
            by_split.setdefault(split, []).append(path)
    if not by_split:
        if len(files) == 1:
            return files
        held = (
            f"it holds {one_line_list([path.name for path in files])}" if files else "it has none"
        )
        raise UserError(f"{source} must have .pkl files named train, dev, test; {held}")
    chosen = []
    for split, named in by_split.items():
        fitting = [path for path in named if len(named) == 1 or layout.fits(load_pickle(path))]
        if len(fitting) != 1:
            raise UserError(
                f"{source} has {len(named)} files for the split {split!r}: "
                f"{one_line_list([path.name for path in named])}; leave one in the folder"
            )
        chosen += fitting
    return chosen


def _unnamed(source: Path, files: list[Path], layout: TupleLayout) -> list[str]:
    """A warning on pickles of a folder that hold samples of the layout and name no split."""
    names = []
    for path in _files(source) if source.is_dir() else ():
        if path in files or split_in_name(path) is not None:
            continue
        with contextlib.suppress(UserError):  # what is refused holds no samples
            if layout.fits(load_pickle(path)):
                names.append(path.name)
    if not names:
        return []
    return [
        f"left alone: {one_line_list(names)} holds samples, and no split in its name (train, dev, "
        "test): rename it if it should be read"
    ]


def _parts(files: list[Path], source: Path, options: ReadOptions) -> tuple[list[_Part], list[str]]:
    """The lists of the files, each with its split, and what is left alone."""
    parts: list[_Part] = []
    notes: list[str] = []
    for path in files:
        loaded = load_pickle(path)
        if options.split is not None and (isinstance(loaded, dict) or len(files) > 1):
            raise UserError(f"--split is for a file of one split; {source} has several")
        if isinstance(loaded, dict):
            some, more = _parts_of_dictionary(loaded, path)
            parts += some
            notes += more
        elif isinstance(loaded, list):
            spoken = options.split if len(files) == 1 else None
            split = split_in_name(path) if spoken is None else canonical_split(spoken)
            if split is None:
                raise UserError(
                    f"{path} holds one split and its name does not say which: name it with "
                    f"--split, one of {', '.join(SPLITS)}"
                )
            parts.append(_Part(split, loaded, str(path)))
        else:
            raise UserError(
                f"{path} must be a list of samples or a dictionary of them, "
                f"got a {type(loaded).__name__}"
            )
    if not any(part.rows for part in parts):
        raise UserError(f"{source} has no sample")
    splits = [part.split for part in parts]
    if len(set(splits)) != len(splits):
        raise UserError(f"{source} has a split twice: {one_line_list(splits)}")
    return sorted(parts, key=lambda part: SPLITS.index(part.split)), notes


def _parts_of_dictionary(loaded: dict[Any, Any], path: Path) -> tuple[list[_Part], list[str]]:
    """The lists of a file that maps splits to them, and what is left alone in it."""
    parts, notes, others = [], [], []
    for key, rows in loaded.items():
        split = canonical_split(key) if isinstance(key, str) else None
        holds_rows = isinstance(rows, list) and bool(rows)
        if split is None and not holds_rows:
            others.append(key)
            continue
        if split is None or not isinstance(rows, list):
            raise UserError(
                f"{path} must map train, dev, test to lists, got {one_line_list([key])}"
            )
        if not rows:
            notes.append(f"skipped, being empty: {split}")
            continue
        parts.append(_Part(split, rows, f"{path} split {split!r}"))
    if others:
        notes.append(f"left alone, being no split: {one_line_list(others)}")
    return parts, notes


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


def _count(value: object, *, most: int, what: str) -> int:
    """A number of frames: an integer, or an array of one."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size == 1:
        value = int(value.reshape(-1)[0])
    if type(value) is not int or not 0 <= value <= most:
        shown = value if type(value) is int else f"a {type(value).__name__}"
        raise UserError(f"{what} must be an integer in 0 to {most}, got {shown}")
    return value


def _frames(value: object, *, what: str, width: int | None) -> Frames:
    """(T, D); an empty array of any shape is no frame."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size == 0:
        return np.empty((0, width or 0), np.float32)
    frames = as_numbers(value, what=what, ndim=2)
    if width is not None and frames.shape[1] != width:
        raise UserError(f"{what} must have {width} columns, got {frames.shape[1]}")
    return as_frames(frames)


def _first_shapes(
    parts: list[_Part], layout: TupleLayout
) -> tuple[dict[Modality, int], tuple[int, ...]]:
    """Widths and label shape, from the first row that has them."""
    widths: dict[Modality, int] = {}
    label_shape: tuple[int, ...] = ()
    for part in parts:
        for row in part.rows:
            items = _row(row, layout)
            label_shape = label_shape or getattr(items.label, "shape", ())
            for modality, value in items.frames.items():
                if isinstance(value, np.ndarray) and value.ndim == 2 and value.size:
                    widths.setdefault(modality, int(value.shape[1]))
            if label_shape and len(widths) == 2:
                return widths, label_shape
    return widths, label_shape


_COUNTS = {Modality.AUDIO: "alen", Modality.VISION: "vlen"}


def _matrix(value: object) -> NDArray[Any]:
    """(T, D) as the row has it; without a row what is no such array, which is refused later."""
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "biuf":
        return value
    return np.empty((0, 0), np.float32)


def _find_frames(parts: Sequence[_Part], layout: TupleLayout, options: ReadOptions) -> FoundFrames:
    """Where each row's frames are: ``vlen`` and ``alen`` of them, or a frame per word.

    Layouts with a frame per word have no padding, and nothing is searched, unless more than a few
    of a split's arrays have one length that is not that of their words, or many of the file's have
    one that they do not fill.
    """
    padded = []
    kept_longer = _padded_to_one_length(parts, layout)
    for part in parts:
        rows = [_row(row, layout) for row in part.rows]
        for modality in _COUNTS:
            arrays = [_matrix(row.frames[modality]) for row in rows]
            name = _COUNTS[modality]
            what = part.what if "split" in part.what else f"{part.what} ({part.split})"
            refuse_transposed(arrays, modality, what=what, padding=options.padding)
            if "vlen" in layout.fields:
                lengths = [
                    _count(
                        row.num_frames[modality],
                        most=len(array),
                        what=f"{part.what} row {number}: {_NAMES[modality]} length",
                    )
                    for number, (row, array) in enumerate(zip(rows, arrays, strict=True))
                ]
            else:
                name = layout.spoken
                lengths = [_num_words(row.spoken) or 0 for row in rows]
                num_longer = sum(len(a) > n for a, n in zip(arrays, lengths, strict=True))
                is_one = len({len(a) for a in arrays}) == 1
                is_longer = is_one and more_than_a_few(num_longer, len(rows))
                if not is_longer and modality not in kept_longer:
                    continue
            padded.append(
                Padded(
                    split=part.split,
                    modality=modality,
                    what=what,
                    extent=extent_of_each(arrays),
                    lengths=np.array(lengths, np.int64),
                    lengths_name=name,
                )
            )
    return find_frames(
        padded,
        convention="end",
        padding=options.padding,
        ignore_lengths=options.ignore_lengths,
    )


def _padded_to_one_length(parts: Sequence[_Part], layout: TupleLayout) -> set[Modality]:
    """Modalities with more frames than words whose arrays were padded, longer ones kept."""
    if "vlen" in layout.fields:
        return set()
    rows = [_row(row, layout) for part in parts for row in part.rows]
    found = set()
    for modality in _COUNTS:
        arrays = [_matrix(row.frames[modality]) for row in rows]
        words = [len(row.spoken) if isinstance(row.spoken, (list, tuple)) else 0 for row in rows]
        num_longer = sum(len(a) > n for a, n in zip(arrays, words, strict=True))
        # Only then are the arrays themselves read.
        if more_than_a_few(num_longer, len(rows)) and padded_to_one_length(extent_of_each(arrays)):
            found.add(modality)
    return found


def _is_aligned(parts: list[_Part], layout: TupleLayout, found: FoundFrames) -> bool:
    """Has every row as many frames of both modalities as words?"""
    for part in parts:
        for number, row in enumerate(part.rows):
            items = _row(row, layout)
            num_words = _num_words(items.spoken)
            for modality, value in items.frames.items():
                # Arrays without a dimension are refused later, by name.
                if not isinstance(value, np.ndarray) or not value.ndim:
                    continue
                if (part.split, modality) in found.places:
                    place = found.slice(part.split, modality, number)
                    length = place.stop - place.start
                else:
                    length = len(value)
                if length != num_words:
                    return False
    return True


def _num_words(spoken: object) -> int | None:
    """Words of a list, an array or a sentence; None of what is none of these."""
    if isinstance(spoken, str):
        return len(spoken.split())
    if isinstance(spoken, np.ndarray):
        return len(spoken) if spoken.ndim == 1 else None
    return len(spoken) if isinstance(spoken, (list, tuple)) else None


def _labels(parts: list[_Part]) -> NDArray[Any]:
    """Every label that is a number, for the look at the scale; the others are refused by row."""
    found = []
    for part in parts:
        for row in part.rows:
            value = row[1]
            if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size:
                found.append(float(value.reshape(-1)[0]))
            elif type(value) in (int, float):
                found.append(float(value))
    return np.array(found)


def _read_ids(parts: list[_Part], options: ReadOptions, which: Which) -> ReadIds:
    layout, because = options.ids, "as told by --ids"
    if layout is None and which.dataset == FUNNY:
        layout, because = "sample", "as UR-FUNNY's name no video"
    return read_ids(
        [
            RawId(f"{part.what} row {number}", row[2], part.split)
            for part in parts
            for number, row in enumerate(part.rows)
        ],
        layout=layout,
        because=because,
        first_number=first_number(which.dataset),
        is_guess=which.is_guess,
    )


def read_tuples(
    source: Path, options: ReadOptions, layout: TupleLayout
) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Samples of ``source`` in ``layout``.

    The words without the pauses ("sp") are the text; ``words`` keeps them. MOSI's ``video[k]``
    counts from 0 and becomes clip k + 1; elsewhere k stays, and a note says so.

    Raises:
        UserError: a pickle is refused, its layout is another, or a file's split is unknown.
    """
    files = _chosen_files(source, layout)
    parts, notes = _parts(files, source, options)
    for part in parts:
        for number, row in enumerate(part.rows):
            if not layout.is_row(row):
                raise UserError(
                    f"{part.what} row {number} must be (({', '.join(layout.fields)}), "
                    f"label, id), got {_outline(row)}"
                )
    widths, label_shape = _first_shapes(parts, layout)
    described = tuple(describe_file(path) for path in files)
    which = which_dataset(
        options,
        source,
        Evidence(
            widths=widths,
            labels=_labels(parts),
            label_columns=label_shape[-1] if label_shape else 1,
            sizes={part.split: len(part.rows) for part in parts},
            integer_ids=all(is_integer(row[2]) for part in parts for row in part.rows),
            files=described,
        ),
        otherwise=MOSI,
    )
    warnings = [*which.warnings, *_unnamed(source, files, layout)]
    named = _read_ids(parts, options, which)
    if any(one.number is not None for one in named.ids):
        if which.is_guess:
            warnings.append(
                f"nothing says which dataset it is: ids video[k] are read as those of {MOSI}, "
                "clip k + 1; --dataset names it"
            )
        elif not first_number(which.dataset):
            notes.append(
                f"clips of {which.dataset} keep the source's numbering from 0; label.csv's differs"
            )
    found = _find_frames(parts, layout, options)
    description = DatasetDescription(
        dataset=which.dataset,
        widths=widths,
        **vars(which.scale),
        aligned=_is_aligned(parts, layout, found),
        splits=tuple(part.split for part in parts),
        decisions=(*which.decisions, *named.decisions, *found.decisions),
        notes=(*notes, *named.notes, *left_alone(source, files)),
        warnings=(*warnings, *found.warnings),
        source_format=layout.format,
        source_files=described,
    )
    ids = iter(named.ids)
    rows = [(part, [next(ids) for _ in part.rows]) for part in parts]
    samples = (
        sample
        for part, named_rows in rows
        for sample in _samples(part, named_rows, layout, found, widths=dict(widths))
    )
    num_bytes = sum(path.stat().st_size for path in files)
    return description, bounded(samples, source=source, num_bytes=num_bytes)


def _outline(row: object) -> str:
    if isinstance(row, (tuple, list)):
        first = row[0] if row else None
        inner = f", its first of {len(first)}" if isinstance(first, (tuple, list)) else ""
        return f"a {type(row).__name__} of {len(row)}{inner}"
    return f"a {type(row).__name__}"


def _samples(
    part: _Part,
    ids: Sequence[SourceId],
    layout: TupleLayout,
    found: FoundFrames,
    *,
    widths: dict[Modality, int],
) -> Iterator[Sample]:
    for number, (raw, named) in enumerate(zip(part.rows, ids, strict=True)):
        what = f"{part.what} row {number}"
        row = _row(raw, layout)
        if isinstance(row.spoken, str):
            words = as_string(row.spoken, what=f"{what}: {layout.spoken}").split()
        else:
            words = as_strings(row.spoken, what=f"{what}: {layout.spoken}")
        sequences = {}
        for modality, value in row.frames.items():
            name = f"{what}: {_NAMES[modality]}"
            frames = _frames(value, what=name, width=widths.get(modality))
            if (part.split, modality) in found.places:
                frames = frames[found.slice(part.split, modality, number)]
            sequences[modality] = frames
        yield Sample(
            id=named.id,
            source_id=named.source_id,
            video=named.video,
            clip=named.clip,
            split=part.split,
            text=joined([word for word in words if word != PAUSE], what=f"{what}: {layout.spoken}"),
            label=_label(row.label, what),
            sequences=present_only(sequences),
            words=tuple(words),
            start=named.start,
            end=named.end,
            where=what,
        )
