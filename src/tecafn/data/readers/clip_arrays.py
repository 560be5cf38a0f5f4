"""A folder with label.csv and one array file per clip.

    FOLDER/label.csv
    FOLDER/<modality>/<video_id>/<clip_id>.npy      or .npz with one array, or one named frames

``<modality>`` is text, audio or vision; the array has (L, D) frames, or (D,) for a single one.
Extractors that write one file per clip leave this, beside ``Raw/<video_id>/<clip_id>.mp4``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.arrays import open_npy, open_npz
from tecafn.data.axes import refuse_transposed
from tecafn.data.joins import Join, join_ids
from tecafn.data.padding import (
    FoundFrames,
    Padded,
    extent_of_each,
    find_frames,
    padded_to_one_length,
)
from tecafn.data.readers.base import (
    READERS,
    Frames,
    Reader,
    ReadOptions,
    as_frames,
    as_numbers,
    describe_file,
    left_alone,
    one_line_list,
    present_only,
    refuse_other_modality,
    which_dataset,
)
from tecafn.data.readers.evidence import table_evidence
from tecafn.data.readers.table import TableRow, find_table, table_report, table_rows
from tecafn.data.samples import DatasetDescription, Sample, SourceFile, missing_frames_of
from tecafn.data.shares import FEW
from tecafn.data.word_alignment import show_words

_SUFFIXES = (".npy", ".npz")
_EVERY_CLIP = "every clip"  # padding is found over all clips together
_MOST_BYTES = 255  # of a file's name
_LOOKED_AT = 64  # clips that tell whether all are transposed


@dataclass(frozen=True)
class _ClipFolder:
    """One modality's files."""

    folder: Path
    modality: Modality

    def files(self) -> dict[str, Path]:
        """Every clip's file by ``video$_$clip``.

        Raises:
            UserError: the folder cannot be read, or a clip has a .npy and a .npz that differ.
        """
        found: dict[str, Path] = {}
        try:
            for suffix in _SUFFIXES:
                for path in sorted(self.folder.glob(f"*/*{suffix}")):
                    first = found.setdefault(f"{path.parent.name}$_${path.stem}", path)
                    if first != path and not self._are_equal(first, path):
                        raise UserError(
                            f"{first} and {path.name} are of one clip and differ: leave one of them"
                        )
        except OSError as error:
            raise UserError(f"cannot read {self.folder}: {error.strerror or error}") from None
        return found

    def _are_equal(self, path: Path, other: Path) -> bool:
        return np.array_equal(self.array(path), self.array(other), equal_nan=True)

    def array(self, path: Path) -> NDArray[Any]:
        """(L, D) as the file has it."""
        if path.suffix == ".npy":
            array = open_npy(path)
        else:
            members = open_npz(path)
            name = "frames" if "frames" in members else next(iter(members), "")
            if not name or (len(members) > 1 and name != "frames"):
                raise UserError(
                    f"{path} must have one array, or one named 'frames', "
                    f"got {one_line_list(sorted(members)) or 'none'}"
                )
            refuse_other_modality(name, self.modality, path)
            array = members[name]
        if array.ndim == 1:
            array = array[None]
        array = as_numbers(array, what=f"{path}: {self.modality}", ndim=2)
        if array.shape[1] == 0:
            raise UserError(f"{path} has frames without columns, shape {array.shape}")
        return array

    def frames(self, path: Path | None, *, width: int, place: slice | None) -> Frames | None:
        """(L, D) of one clip, the rows of ``place`` or all, or None where it has no file."""
        if path is None:
            return None
        array = self.array(path)
        if array.shape[1] != width:
            raise UserError(f"{path} must have {width} columns, got {array.shape[1]}")
        return as_frames(array if place is None else array[place])


@dataclass(frozen=True)
class _Survey:
    """What a first pass over the table finds of one modality."""

    width: int
    lengths: tuple[int, ...]  # of each row, 0 without a file
    described: SourceFile
    paths: Mapping[tuple[str, str], Path]  # by video and clip
    join: Join
    places: Mapping[tuple[str, str], slice]  # of the frames, where the arrays are padded
    found: FoundFrames


def _check_names(row: TableRow) -> None:
    """The table must not lead out of the folder."""
    for part in (row.video, row.clip):
        if part in (".", "..") or any(c in part for c in "/\\\0"):
            raise UserError(
                f"{row.what}: video_id and clip_id must be file names, got {part[:40]!r}"
            )
        if len(part.encode()) > _MOST_BYTES:
            raise UserError(f"{row.what}: cannot read File name too long")


def _survey(clips: _ClipFolder, table: Path, options: ReadOptions) -> _Survey | None:
    """Widths, lengths and hash of the clips that the table names; only headers stay in memory."""
    rows = []
    for row in table_rows(table):
        _check_names(row)
        rows.append((row.video, row.clip))
    files = clips.files()
    if not files or not rows:
        return None
    join = join_ids(
        list(files),
        rows,
        what=clips.modality.value,
        file=f"{clips.folder.name}/",
        table=table.name,
        min_share=options.min_join_share,
        rule=options.match_ids,
    )
    every = list(files.values())
    paths = {pair: every[position] for pair, position in join.positions.items()}
    width: int | None = None
    lengths: list[int] = []
    num_bytes = 0
    digest = hashlib.sha256()
    for pair in rows:
        path = paths.get(pair)
        if path is None:
            lengths.append(0)
            continue
        array = clips.array(path)
        width = width or int(array.shape[1])
        lengths.append(len(array))
        file = describe_file(path)
        name = path.relative_to(clips.folder).as_posix()
        digest.update(f"{name} {file.sha256}\n".encode())
        num_bytes += file.num_bytes
    if width is None:
        return None
    described = SourceFile(f"{clips.folder.name}/", digest.hexdigest(), num_bytes)
    stored = [pair for pair in rows if pair in paths]
    found = _find_frames(clips, lengths, [paths[pair] for pair in stored], options)
    places = {
        pair: found.slice(_EVERY_CLIP, clips.modality, number)
        for number, pair in enumerate(stored)
        if found.places
    }
    if places:
        cut = (places.get(pair, slice(0, 0)) for pair in rows)
        lengths = [place.stop - place.start for place in cut]
    return _Survey(width, tuple(lengths), described, paths, join, places, found)


def _find_frames(
    clips: _ClipFolder,
    lengths: Sequence[int],
    paths: Sequence[Path],
    options: ReadOptions,
) -> FoundFrames:
    """Where the frames of the clips are, if all arrays have one length: they may be padded.

    So they may if many have one length that they do not fill, and longer ones were kept.
    """
    if max(lengths) <= 1 or len(paths) <= FEW:
        return FoundFrames()
    refuse_transposed(
        [clips.array(path) for path in paths[:: 1 + len(paths) // _LOOKED_AT]],
        clips.modality,
        what=str(clips.folder),
        padding=options.padding,
    )
    extent = extent_of_each(clips.array(path) for path in paths)
    if len(set(lengths) - {0}) != 1 and not padded_to_one_length(extent):
        return FoundFrames()
    return find_frames(
        [Padded(_EVERY_CLIP, clips.modality, str(clips.folder), extent)],
        convention="end",
        padding=options.padding,
    )


def _clip_folders(source: Path) -> list[_ClipFolder]:
    return [_ClipFolder(source / m.value, m) for m in Modality if (source / m.value).is_dir()]


def _recognises(source: Path) -> bool:
    return source.is_dir() and (source / "label.csv").is_file() and bool(_clip_folders(source))


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Rows of the folder's label.csv with the frames of their files.

    A clip without a file lacks the modality, and so does one whose frames are all zero.

    Raises:
        UserError: label.csv or a file is wrong, widths differ, or no clip has a file.
    """
    if not source.is_dir():
        raise UserError(f"{source} must be a folder with label.csv and text, audio or vision")
    table = find_table(source)
    num_rows = sum(1 for _ in table_rows(table))
    surveys, notes = {}, []
    for clips in _clip_folders(source):
        survey = _survey(clips, table, options)
        if survey is None:
            raise UserError(
                f"{clips.folder} must have <video_id>/<clip_id>.npy or .npz for the rows of "
                f"{table.name}, found none for {num_rows} rows"
            )
        surveys[clips] = survey
        if len(survey.paths) < num_rows:
            notes.append(f"{clips.modality}: {len(survey.paths)} of {num_rows} rows have a file")
    modality_widths = {clips.modality: survey.width for clips, survey in surveys.items()}
    files = (describe_file(table), *(survey.described for survey in surveys.values()))
    evidence = table_evidence(table, widths=modality_widths, files=files)
    which = which_dataset(options, table, evidence)
    read_here = (table, *(clips.folder for clips in surveys))
    description = DatasetDescription(
        dataset=which.dataset,
        widths=modality_widths,
        **vars(which.scale),
        aligned=show_words([survey.lengths for survey in surveys.values()]),
        decisions=(
            *which.decisions,
            *(
                sentence
                for survey in surveys.values()
                for sentence in (survey.join.decision, *survey.found.decisions)
            ),
        ),
        notes=(*notes, *left_alone(source, read_here)),
        warnings=(
            *which.warnings,
            *(sentence for survey in surveys.values() for sentence in survey.found.warnings),
        ),
        allowed=tuple(
            missing_frames_of(clips.modality)
            for clips, survey in surveys.items()
            if survey.join.is_partial
        ),
        source_format="clip-arrays",
        source_files=files,
    )
    return table_report(table).added_to(description), _samples(table, surveys)


def _samples(table: Path, surveys: Mapping[_ClipFolder, _Survey]) -> Iterator[Sample]:
    for row in table_rows(table):
        cut = {
            clips.modality: clips.frames(
                survey.paths.get((row.video, row.clip)),
                width=survey.width,
                place=survey.places.get((row.video, row.clip)),
            )
            for clips, survey in surveys.items()
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
            sequences=present_only({m: f for m, f in cut.items() if f is not None}),
            where=row.what,
        )


READERS.register(
    "clip-arrays",
    Reader(
        summary="a folder: label.csv and <modality>/<video_id>/<clip_id>.npy or .npz",
        read=read,
        recognises=_recognises,
    ),
)
