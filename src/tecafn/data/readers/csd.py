"""CMU's .csd files: a folder with label.csv, segment_times.csv and the sequences of whole videos.

    FOLDER/label.csv             the utterances, their text, labels and splits
    FOLDER/segment_times.csv     video_id, segment (label.csv's clip_id), start, end in seconds
    FOLDER/*Words*.csd           the timed words, pauses ("sp") included
    FOLDER/*COVAREP*.csd ...     audio frames; FACET or OpenFace: vision frames

Two formats read it. ``csd`` gives a frame per word: the mean of the frames that overlap the word.
``csd-frames`` gives the frames of the segment as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.text import is_blank
from tecafn.data.csd_file import CsdFile, TimedFrames
from tecafn.data.joins import join_ids
from tecafn.data.readers.base import (
    READERS,
    Frames,
    Reader,
    ReadOptions,
    as_frames,
    as_string,
    bounded,
    describe_file,
    joined,
    left_alone,
    one_line_list,
    present_only,
    which_dataset,
)
from tecafn.data.readers.evidence import table_evidence
from tecafn.data.readers.table import (
    TableRow,
    csv_number,
    csv_rows,
    table_pairs,
    table_report,
    table_rows,
)
from tecafn.data.readers.tuples import PAUSE
from tecafn.data.samples import DatasetDescription, Sample, missing_frames_of
from tecafn.data.which import name_in_path

_TIMES = "segment_times.csv"
_KINDS = {
    Modality.AUDIO: ("covarep", "opensmile", "librosa", "acoustic", "audio"),
    Modality.VISION: ("facet", "openface", "visual", "vision"),
}
Times = NDArray[np.float64]


@dataclass(frozen=True)
class _Sources:
    """Which file is what."""

    table: Path
    times: Path
    words: Path | None
    frames: Mapping[Modality, Path]
    unread: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        words = () if self.words is None else (self.words,)
        return (self.table, self.times, *words, *self.frames.values())


def _csd_files(source: Path) -> list[Path]:
    return sorted(p for p in source.iterdir() if p.suffix.lower() == ".csd" and p.is_file())


def _names_words(path: Path) -> bool:
    name = path.name.lower()
    return "words" in name and "vector" not in name


def _is_folder(source: Path) -> bool:
    return (
        source.is_dir()
        and (source / "label.csv").is_file()
        and (source / _TIMES).is_file()
        and bool(_csd_files(source))
    )


def _recognises(source: Path) -> bool:
    return _is_folder(source) and any(map(_names_words, _csd_files(source)))


def _recognises_frames(source: Path) -> bool:
    return _is_folder(source) and not any(map(_names_words, _csd_files(source)))


def _sources(source: Path, options: ReadOptions) -> _Sources:
    if not source.is_dir():
        raise UserError(f"{source} must be a folder with label.csv, {_TIMES} and .csd files")
    files = _csd_files(source)
    # CMU-MOSI has its words twice, timed by two aligners; the modified ones are the later.
    words = sorted(filter(_names_words, files), key=lambda p: "modified" not in p.name.lower())
    frames: dict[Modality, Path] = {}
    for modality, names in _KINDS.items():
        chosen = options.audio if modality is Modality.AUDIO else options.vision
        found = [p for p in files if any(name in p.name.lower() for name in names)]
        if chosen is not None:
            _refuse_other_modality(chosen, modality)
            found = [chosen]
        if len(found) > 1:
            raise UserError(
                f"{source} has {len(found)} files of {modality}, name one of them with "
                f"{modality}: {one_line_list([p.name for p in found])}"
            )
        if found:
            frames[modality] = found[0]
    read = {*words[:1], *frames.values()}
    unread = tuple(path.name for path in files if path not in read)
    table, times = source / "label.csv", source / _TIMES
    return _Sources(table, times, words[0] if words else None, frames, unread)


def _refuse_other_modality(chosen: Path, modality: Modality) -> None:
    """A file that is called after another modality alone is not taken for this one's.

    Raises:
        UserError: it is.
    """
    named = [m for m, names in _KINDS.items() if any(n in chosen.name.lower() for n in names)]
    if named and modality not in named:
        raise UserError(
            f"{chosen} is read as {modality}, but its name says {named[0]}: name the file of "
            f"{modality}, or rename it"
        )


def _segment_times(path: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """Seconds of each (video, clip)."""
    spans = []
    for what, row in csv_rows(path, required=("video_id", "segment", "start", "end")):
        start, end = (csv_number(row[key], what=f"{what}: {key}") for key in ("start", "end"))
        if not math.isfinite(start) or not math.isfinite(end):
            raise UserError(f"{what}: start and end must be seconds, got {start} and {end}")
        spans.append((start, end))
    pairs = table_pairs(path, clip_column="segment")
    return dict(zip(pairs, spans, strict=True))


def overlapping(intervals: Times, start: float, end: float) -> NDArray[np.int64]:
    """Rows of ``intervals`` (n, 2) that overlap [start, end); touching does not count.

    A row without length counts where it lies within.

    Example:
        >>> times = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 2.0], [2.0, 3.0]])
        >>> overlapping(times, 1.0, 2.5).tolist()
        [1, 2, 3]
    """
    first, last = intervals[:, 0], intervals[:, 1]
    within = (first == last) & (first >= start) & (first < end)
    return np.flatnonzero(((first < end) & (last > start)) | within)


def mean_of_words(frames: Frames, intervals: Times, words: Times) -> Frames:
    """(W, D): for each word the mean of the frames that overlap it.

    Args:
        frames: (n, D).
        intervals: (n, 2) seconds of the frames.
        words: (W, 2) seconds of the words.

    Frames with NaN or infinity do not count: one of them would spoil the word. A word without
    a frame that counts is NaN, so that frames still correspond to words; the loader masks it.

    Example:
        >>> frames = np.array([[1.0], [3.0], [np.nan], [8.0]], np.float32)
        >>> times = np.array([[0, 1], [1, 2], [2, 3], [3, 4]], np.float64)
        >>> mean_of_words(frames, times, np.array([[0.5, 1.5], [2.0, 3.5], [9, 10]])).tolist()
        [[2.0], [8.0], [nan]]
    """
    good = np.asarray(np.isfinite(frames).all(axis=1))
    means = np.full((len(words), frames.shape[1]), np.nan, np.float32)
    for position, (start, end) in enumerate(words):
        rows = overlapping(intervals, start, end)
        rows = rows[good[rows]]
        if len(rows):
            means[position] = frames[rows].astype(np.float64).mean(axis=0)
    return means


class _Video:
    """The sequences of the video that was read last: label.csv has a video's rows together."""

    def __init__(self, sources: _Sources) -> None:
        self._words = None if sources.words is None else CsdFile(sources.words)
        self._frames = {m: CsdFile(path) for m, path in sources.frames.items()}
        self._video: str | None = None
        self._read: dict[Modality, TimedFrames] = {}
        self._spoken: TimedFrames | None = None

    def close(self) -> None:
        for file in (self._words, *self._frames.values()):
            if file is not None:
                file.close()

    def open(self, video: str) -> None:
        if video == self._video:
            return
        found = {m: file.read(video) for m, file in self._frames.items()}
        self._read = {m: timed for m, timed in found.items() if timed is not None}
        self._spoken = None if self._words is None else self._words.read(video)
        self._video = video

    def words(self, start: float, end: float, what: str) -> tuple[list[str], Times] | None:
        """Words and their (W, 2) seconds; a word belongs where its middle lies."""
        if self._spoken is None:
            return None
        times = self._spoken.intervals
        middle = (times[:, 0] + times[:, 1]) / 2
        rows = np.flatnonzero((middle >= start) & (middle < end))
        spoken = self._spoken.take(rows)[:, 0].tolist()
        return [as_string(word, what=f"{what}: words") for word in spoken], times[rows]

    def frames(self, start: float, end: float) -> Iterator[tuple[Modality, Frames, Times]]:
        """Each modality's frames that overlap [start, end), in the order of time."""
        for modality, timed in self._read.items():
            rows = overlapping(timed.intervals, start, end)
            rows = rows[np.argsort(timed.intervals[rows, 0], kind="stable")]
            yield modality, as_frames(timed.take(rows)), timed.intervals[rows]


def _read(
    source: Path, options: ReadOptions, *, by_word: bool
) -> tuple[DatasetDescription, Iterator[Sample]]:
    sources = _sources(source, options)
    name = "csd" if by_word else "csd-frames"
    if by_word and sources.words is None:
        raise UserError(f"{source} has no .csd of words; the format csd-frames needs none")
    written = _segment_times(sources.times)
    rows = list(table_pairs(sources.table))
    segments = [f"{video}$_${segment}" for video, segment in written]
    join = join_ids(
        segments,
        rows,
        what="segment times",
        file=sources.times.name,
        table=sources.table.name,
        min_share=options.min_join_share,
        rule=options.match_ids,
        nothing=f"{sources.times} has a segment of no row of {sources.table.name}",
    )
    found = list(written.values())
    times = {pair: found[position] for pair, position in join.positions.items()}
    num_lost = join.num_rows - join.num_found
    widths = {}
    for modality, path in sources.frames.items():
        file = CsdFile(path)
        try:
            if file.holds_words:
                raise UserError(f"{path} must hold numbers for {modality}, it holds strings")
            widths[modality] = file.width
        finally:
            file.close()
    notes = []
    if num_lost:
        notes.append(f"{num_lost} rows of {sources.table.name} have no segment times")
    if sources.unread:
        notes.append(f"not read: {one_line_list(sources.unread)}")
    files = tuple(describe_file(path) for path in sources.files)
    which = which_dataset(
        options,
        source if name_in_path(source)[1] else sources.files[-1],
        table_evidence(sources.table, widths=widths, files=files),
    )
    csds = {path for path in source.iterdir() if path.suffix.lower() == ".csd"}
    description = DatasetDescription(
        dataset=which.dataset,
        widths=widths,
        **vars(which.scale),
        aligned=by_word and len(widths) > 1,
        decisions=(*which.decisions, join.decision),
        notes=(*notes, *left_alone(source, (*sources.files, *csds))),
        warnings=which.warnings,
        allowed=tuple(map(missing_frames_of, widths)) if join.is_partial else (),
        source_format=name,
        source_files=files,
    )
    num_bytes = sum(path.stat().st_size for path in sources.files)
    samples = _samples(sources, times, by_word=by_word)
    description = table_report(sources.table).added_to(description)
    return description, bounded(samples, source=source, num_bytes=num_bytes)


def _samples(
    sources: _Sources, times: Mapping[tuple[str, str], tuple[float, float]], *, by_word: bool
) -> Iterator[Sample]:
    video = _Video(sources)
    try:
        for row in table_rows(sources.table):
            yield _sample(row, times.get((row.video, row.clip)), video, by_word=by_word)
    finally:
        video.close()


def _sample(
    row: TableRow, segment: tuple[float, float] | None, video: _Video, *, by_word: bool
) -> Sample:
    words, word_times = None, None
    sequences: dict[Modality, Frames] = {}
    if segment is not None:
        video.open(row.video)
        spoken = video.words(*segment, row.what)
        span = segment
        if spoken is not None:
            words, word_times = tuple(spoken[0]), spoken[1]
        if by_word and word_times is not None and len(word_times):
            # A word may reach beyond its segment; its frames are those of the whole word.
            span = (float(word_times[:, 0].min()), float(word_times[:, 1].max()))
        for modality, frames, intervals in video.frames(*span):
            if by_word:
                frames = (
                    frames[:0]
                    if word_times is None
                    else mean_of_words(frames, intervals, word_times)
                )
                # Nothing but words without a frame: the modality is absent.
                frames = frames if np.isfinite(frames).any() else frames[:0]
            sequences[modality] = frames
    text = row.text
    if is_blank(text) and words:
        text = joined([word for word in words if word != PAUSE], what=f"{row.what}: words")
    return Sample(
        id=row.id,
        source_id=row.id,
        video=row.video,
        clip=row.clip,
        split=row.split,
        text=text,
        label=row.label,
        unimodal_labels=row.unimodal,
        sequences=present_only(sequences),
        start=None if segment is None else segment[0],
        end=None if segment is None else segment[1],
        words=words,
        word_intervals=None if word_times is None else word_times.astype(np.float32),
        where=row.what,
    )


def read_words(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Rows of the folder's label.csv, a frame per word; the text is label.csv's, else the words'.

    A word belongs to the segment that its middle lies in. A modality that a video lacks is absent.

    Raises:
        UserError: a file is missing, damaged or hostile, or two files are of one modality.
    """
    return _read(source, options, by_word=True)


def read_frames(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Rows of the folder's label.csv with all frames that overlap their segments.

    Raises:
        UserError: a file is missing, damaged or hostile, or two files are of one modality.
    """
    return _read(source, options, by_word=False)


READERS.register(
    "csd",
    Reader(
        summary="CMU's .csd folder with label.csv and segment_times.csv, a frame per word",
        read=read_words,
        recognises=_recognises,
    ),
)
READERS.register(
    "csd-frames",
    Reader(
        summary="CMU's .csd folder with label.csv and segment_times.csv, frames as they are",
        read=read_frames,
        recognises=_recognises_frames,
    ),
)
