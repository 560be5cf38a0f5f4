"""label.csv, the table of MMSA and of raw downloads, with frames in npz files beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.arrays import open_npz
from tecafn.data.axes import refuse_transposed
from tecafn.data.joins import Join, join_ids
from tecafn.data.padding import FoundFrames, Padded, extent_of, find_frames
from tecafn.data.readers.base import (
    READERS,
    Frames,
    Reader,
    ReadOptions,
    as_frames,
    as_numbers,
    as_strings,
    describe_file,
    left_alone,
    one_line_list,
    refuse_other_modality,
    which_dataset,
)
from tecafn.data.readers.evidence import table_evidence
from tecafn.data.readers.table import find_table, table_pairs, table_report, table_rows
from tecafn.data.samples import DatasetDescription, Sample, missing_frames_of
from tecafn.data.word_alignment import show_words

_NOT_FRAMES = ("ids", "lengths", "offsets", "columns")
_FILE = "the file"  # an npz has no splits: its padding is found in all of its rows together


@dataclass(frozen=True)
class _FrameFile:
    """Frames by public id, in one of the three layouts, and how to cut one sample out."""

    path: Path
    modality: Modality
    frames: NDArray[Any]
    ids: tuple[str, ...]
    lengths: NDArray[Any] | None
    offsets: NDArray[Any] | None
    found: FoundFrames

    @property
    def width(self) -> int:
        return int(self.frames.shape[-1])

    def cut(self, row: int | None) -> Frames | None:
        """(L, D) of the entry in this row, None where there is none."""
        if row is None:
            return None
        if self.offsets is not None:
            return as_frames(self.frames[self.offsets[row] : self.offsets[row + 1]])
        if self.frames.ndim == 2:
            return as_frames(self.frames[row : row + 1])
        return as_frames(self.frames[row][self.found.slice(_FILE, self.modality, row)])


def _open_frames(path: Path, modality: Modality, options: ReadOptions) -> _FrameFile:
    """Check an npz: ``ids`` (N,) and one array, named like the modality or the only other one.

    (N, D) is one vector per sample; (N, L, D) a sequence whose padding is found, with ``lengths``
    (N,) or without; (F, D) with ``offsets`` (N + 1,) all frames in a row.
    """
    arrays = open_npz(path)
    if "ids" not in arrays:
        raise UserError(f"{path} must have an array 'ids', got {one_line_list(sorted(arrays))}")
    names = [name for name in arrays if name not in _NOT_FRAMES]
    name = modality.value if modality.value in names else names[0] if len(names) == 1 else None
    if name is None:
        raise UserError(
            f"{path} must have one array beside 'ids', best named {modality.value!r}, "
            f"got {one_line_list(sorted(names))}"
        )
    refuse_other_modality(name, modality, path)
    ids_array = arrays["ids"]
    ids = (
        [str(value) for value in ids_array.tolist()]
        if ids_array.ndim == 1 and ids_array.dtype.kind in "iu"
        else as_strings(ids_array, what=f"{path}: ids")
    )
    num_different = len({sample_id.replace("$_$", "_") for sample_id in ids})
    if num_different != len(ids):
        raise UserError(f"{path}: ids must differ, {len(ids) - num_different} of {len(ids)} recur")
    offsets = lengths = None
    found = FoundFrames()
    if "offsets" in arrays:
        frames = as_numbers(arrays[name], what=f"{path}: {name} (with offsets)", ndim=2)
        offsets = _counts(arrays["offsets"], f"{path}: offsets", num=len(ids) + 1, most=len(frames))
        if (np.diff(offsets) < 0).any() or offsets[0] != 0 or offsets[-1] != len(frames):
            raise UserError(f"{path}: offsets must rise from 0 to the {len(frames)} frames")
        _check_lengths(
            arrays,
            np.diff(offsets),
            f"{path}: offsets, {len(frames)} frames in all",
            found,
            options,
        )
    else:
        ndim = 3 if arrays[name].ndim == 3 else 2
        frames = as_numbers(arrays[name], what=f"{path}: {name}", ndim=ndim)
        if len(frames) != len(ids):
            raise UserError(f"{path}: {name} has {len(frames)} rows, ids has {len(ids)}")
        if ndim == 3:
            refuse_transposed(frames, modality, what=str(path), padding=options.padding)
            if "lengths" in arrays:
                lengths = as_numbers(arrays["lengths"], what=f"{path}: lengths", ndim=1)
                if len(lengths) != len(ids):
                    raise UserError(f"{path}: lengths has {len(lengths)} rows, ids has {len(ids)}")
                if (lengths > frames.shape[1]).any():
                    raise UserError(
                        f"{path}: lengths must lie in 0 to {frames.shape[1]}, "
                        f"got {lengths.min():g} to {lengths.max():g}"
                    )
            part = Padded(_FILE, modality, str(path), extent_of(frames), lengths)
            found = find_frames(
                [part],
                convention="end",
                padding=options.padding,
                ignore_lengths=options.ignore_lengths,
            )
        else:
            seen = f"{path}: {name}, one vector per id, shape {frames.shape}"
            _check_lengths(arrays, np.ones(len(ids), np.int64), seen, found, options)
    if frames.shape[-1] == 0:
        raise UserError(f"{path}: {name} has frames without columns, shape {frames.shape}")
    return _FrameFile(path, modality, frames, tuple(ids), lengths, offsets, found)


def _check_lengths(
    arrays: Mapping[str, NDArray[Any]],
    counted: NDArray[Any],
    seen: str,
    found: FoundFrames,
    options: ReadOptions,
) -> None:
    """Where the arrays themselves say how many frames an id has, ``lengths`` must agree."""
    if "lengths" not in arrays or np.array_equal(arrays["lengths"], counted):
        return
    if not options.ignore_lengths:
        raise UserError(f"{seen}, contradicts lengths; --ignore-lengths reads it without them")
    found.notes.append(f"{seen}, contradicts lengths, which are ignored, as was allowed")


def _counts(value: NDArray[Any], what: str, *, num: int, most: int) -> NDArray[Any]:
    counts = as_numbers(value, what=what, ndim=1)
    if counts.dtype.kind not in "iu" or len(counts) != num:
        raise UserError(f"{what} must be {num} integers, got {len(counts)} of {counts.dtype}")
    if num and (counts.min() < 0 or counts.max() > most):
        raise UserError(f"{what} must lie in 0 to {most}, got {counts.min()} to {counts.max()}")
    return np.asarray(counts).astype(np.int64)


def _recognises(source: Path) -> bool:
    table = find_table(source)
    if table.suffix.lower() != ".csv" or not table.is_file():
        return False
    # What has more than the table is another format's.
    return not source.is_dir() or not any(
        READERS[name].recognises(source) for name in ("clip-arrays", "csd", "csd-frames")
    )


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Rows of ``source`` (the file or its folder) with the frames of the options' npz files.

    Columns: video_id, clip_id, text, mode; label and label_T, label_A, label_V where there are
    any. A sample whose id an npz lacks does not have that modality. An empty or null label is none.

    Raises:
        UserError: a file or column is missing or wrong; the row is named.
    """
    table = find_table(source)
    chosen = {Modality.AUDIO: options.audio, Modality.VISION: options.vision}
    files = {m: _open_frames(path, m, options) for m, path in chosen.items() if path is not None}

    pairs = list(table_pairs(table))
    joins = {
        modality: join_ids(
            file.ids,
            pairs,
            what=modality.value,
            file=file.path.name,
            table=table.name,
            min_share=options.min_join_share,
            rule=options.match_ids,
        )
        for modality, file in files.items()
    }
    aligned = len(files) == 2
    notes = [
        f"{modality} has {join.num_ids} ids, {join.num_found} of them among the {join.num_rows} "
        f"of {table.name}"
        for modality, join in joins.items()
        if not join.num_found == join.num_rows == join.num_ids
    ]
    if aligned:
        # Single vectors are equally long without being words.
        counts = [
            file.lengths if file.offsets is None else np.diff(file.offsets)
            for file in files.values()
        ]
        aligned = show_words([[] if count is None else count.tolist() for count in counts])
        aligned &= all(count is not None for count in counts)
    widths = {modality: file.width for modality, file in files.items()}
    described = tuple(describe_file(p) for p in (table, *(f.path for f in files.values())))
    which = which_dataset(options, table, table_evidence(table, widths=widths, files=described))
    description = DatasetDescription(
        dataset=which.dataset,
        widths=widths,
        **vars(which.scale),
        aligned=aligned,
        decisions=(
            *which.decisions,
            *(join.decision for join in joins.values()),
            *(text for file in files.values() for text in file.found.decisions),
        ),
        notes=(
            *notes,
            *(text for file in files.values() for text in file.found.notes),
            *left_alone(source, (table, *(file.path for file in files.values()))),
        ),
        warnings=(
            *which.warnings,
            *(text for file in files.values() for text in file.found.warnings),
        ),
        allowed=tuple(missing_frames_of(m) for m, join in joins.items() if join.is_partial),
        source_format="label-csv",
        source_files=described,
    )
    return table_report(table).added_to(description), _samples(table, files, joins)


def _samples(
    table: Path, files: Mapping[Modality, _FrameFile], joins: Mapping[Modality, Join]
) -> Iterator[Sample]:
    for row in table_rows(table):
        cut = {
            modality: file.cut(joins[modality].positions.get((row.video, row.clip)))
            for modality, file in files.items()
        }
        yield Sample(
            id=row.id,
            source_id=row.id,
            video=row.video,
            clip=row.clip,
            split=row.split,
            text=row.text,
            label=row.label,
            unimodal_labels=row.unimodal,
            sequences={m: frames for m, frames in cut.items() if frames is not None},
            where=row.what,
        )


READERS.register(
    "label-csv",
    Reader(
        summary="label.csv (video_id, clip_id, text, label, mode) with npz files of frames",
        read=read,
        recognises=_recognises,
    ),
)
