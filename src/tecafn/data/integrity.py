"""The integrity report: what is wrong, doubtful or worth knowing about a dataset.

What the report calls an error is not trained on or measured without a word: ``refuse_errors``
stands before every command that would. Errors are found in a store's table alone, without its
frames, by the same class as the report's, and kept beside the store.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tecafn.core.conventions import convention_named
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.text import is_blank
from tecafn.data.defects import (
    PUBLISHED_SIZES,
    KnownDefects,
    Level,
    is_split_by_clips,
    published_files,
)
from tecafn.data.mapped import releasing
from tecafn.data.readers import ReadOptions, open_source
from tecafn.data.readers.base import one_line_list
from tecafn.data.recurrence import RecurrenceSurvey
from tecafn.data.samples import DatasetDescription, Sample, missing_frames_of
from tecafn.data.store import UNIMODAL_COLUMNS, Store
from tecafn.data.summary import Census
from tecafn.data.which import is_likely_alone


@dataclass(frozen=True)
class IntegrityRow:
    """One finding: how bad, about what, and one sentence."""

    level: Level
    name: str
    message: str


@dataclass(frozen=True)
class IntegrityReport:
    """All findings about one source or store, errors first.

    Example:
        >>> report = IntegrityReport("toy", (IntegrityRow("error", "labels", "one is NaN"),))
        >>> report.exit_code
        1
        >>> print(report.render())
        toy
        error    labels: one is NaN
        1 error, 0 warnings
    """

    source: str
    rows: tuple[IntegrityRow, ...]

    @property
    def exit_code(self) -> int:
        """1 if there is any error, else 0."""
        return int(any(row.level == "error" for row in self.rows))

    def render(self) -> str:
        """Text, one line a finding."""
        lines = [f"{row.level:<8} {row.name}: {row.message}" for row in self.rows]
        counts = Counter(row.level for row in self.rows)
        errors, warnings = counts["error"], counts["warning"]
        lines.append(
            f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
        )
        return "\n".join([self.source, *lines])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source,
            "exit_code": self.exit_code,
            "rows": [
                {"level": row.level, "name": row.name, "message": row.message} for row in self.rows
            ],
        }


def check(
    source: Path | Store, *, format: str | None = None, options: ReadOptions | None = None
) -> IntegrityReport:
    """Look at every sample of a store, a store's folder, or a source of any known format.

    Errors: a video or an id in two splits, a NaN or infinite label, a label out of range, an
    empty split, a modality without frames in more than a few samples unless that was allowed when
    they were imported. (The published splits of CH-SIMS have videos in two of them: a warning.)
    Warnings: sizes other than the paper's, repeated text, an id twice in a split, frames that will
    be masked, an MMSA file with a sum that is not published. The rest is information. Defects that
    the field's files are known for are named as such besides.

    Raises:
        UserError: the source cannot be read at all.
    """
    if isinstance(source, Path) and (source / "manifest.json").is_file():
        source = Store.open(source)
    if isinstance(source, Store):
        source.verify()
        description, samples, name = source.description, source.samples(), str(source.path)
    else:
        description, samples = open_source(source, format=format, options=options)
        name = str(source)
    tally = _Tally(description, may_miss=(options or ReadOptions()).allow_missing_frames)
    for sample in releasing(samples):
        tally.add(sample)
    rows = sorted(tally.rows(), key=lambda row: ("error", "warning", "info").index(row.level))
    return IntegrityReport(name, tuple(rows))


# Stands for the rules below: what was found by others is not believed.
_RULES_VERSION = 3
_CACHE = Path("cache") / "integrity.json"
# What is right to do about an error, by the finding's name.
_MENDED_BY = {
    "labels": "import it with the scale that its labels have (--label-range, --dataset)",
    "constant labels": "import it without the labels of that split if they are not known",
    "ids": "give every clip an id of its own, and one split",
    "videos": "keep the clips of a video in one split",
    "frames": "import it with --allow-missing-frames if they are absent in truth",
    "text": "import it from a source that has its sentences",
}


def data_errors(store: Store) -> tuple[IntegrityRow, ...]:
    """What ``check`` calls an error in a store, from its table alone.

    Cheap: frames are not read, and the outcome is kept in the store's ``cache`` folder, where that
    can be written. It is believed for the very table that it was made from.

    Raises:
        UserError: the table was changed since the import, or cannot be read.
    """
    stamp = _stamp(store)
    known = _read_cache(store, stamp)
    if known is not None:
        return known
    store.verify_table()
    sound = _Soundness(store.description)
    for sample in _outlines(store):
        sound.add(sample)
    errors = tuple(row for row in sound.rows() if row.level == "error")
    _write_cache(store, stamp, errors)
    return errors


def refuse_errors(
    store: Store, *, allowed: bool, harmless: Collection[str] = ()
) -> tuple[IntegrityRow, ...]:
    """Stop before data that ``data check`` calls wrong, unless the user allows them by name.

    An empty split is no matter here: whoever needs the split says so.

    Args:
        store: what would be trained on or measured.
        allowed: go on all the same; the caller then writes into its record what was allowed.
        harmless: names of findings that cannot harm what is about to be done, such as ``videos``
            for folds that keep a video together.

    Returns:
        The errors that were allowed; none as a rule.

    Raises:
        UserError: there are errors and they are not allowed; it has the report's words.
    """
    errors = tuple(row for row in data_errors(store) if row.name not in ("split", *harmless))
    if not errors or allowed:
        return errors
    said = "; ".join(f"{row.name}: {row.message}" for row in errors)
    ways = dict.fromkeys(_MENDED_BY[row.name] for row in errors if row.name in _MENDED_BY)
    raise UserError(
        f"{store.path} has what `tecafn data check` calls an error: {said}; "
        f"{'; '.join(ways)}; or use the data all the same with --allow-data-errors"
    )


def errors_as_dicts(errors: Iterable[IntegrityRow]) -> list[dict[str, str]]:
    """For JSON: the name and the words of each."""
    return [{"name": row.name, "message": row.message} for row in errors]


def _outlines(store: Store) -> Iterator[Sample]:
    """The samples as the table has them; of frames no more than how many there are."""
    widths = store.description.widths
    lengths = [f"{modality}_length" for modality in widths]
    names = ("id", "video", "split", "label", "text", *UNIMODAL_COLUMNS, *lengths)
    for columns in store.table_columns(names):
        for values in zip(*(columns[name] for name in names), strict=True):
            row = dict(zip(names, values, strict=True))
            yield Sample(
                id=row["id"],
                source_id="",
                video=row["video"],
                clip="",
                split=row["split"],
                text=row["text"],
                label=row["label"],
                unimodal_labels={
                    m: row[f"label_{m}"] for m in Modality if row[f"label_{m}"] is not None
                },
                sequences={
                    m: np.broadcast_to(np.float32(0), (row[f"{m}_length"], width))
                    for m, width in widths.items()
                },
            )


def _stamp(store: Store) -> dict[str, Any]:
    """What a kept outcome is true of."""
    table = store.table_path.stat()
    return {
        "rules": _RULES_VERSION,
        "content_hash": store.content_hash,
        "label_range": list(store.description.label_range),
        "dataset": store.description.dataset,
        "allowed": list(store.description.allowed),
        "table": [table.st_size, table.st_mtime_ns],
    }


def _read_cache(store: Store, stamp: Mapping[str, Any]) -> tuple[IntegrityRow, ...] | None:
    try:
        kept = json.loads((store.path / _CACHE).read_text(encoding="utf-8"))
        if kept["of"] != stamp:
            return None
        return tuple(IntegrityRow("error", row["name"], row["message"]) for row in kept["errors"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_cache(store: Store, stamp: Mapping[str, Any], errors: Iterable[IntegrityRow]) -> None:
    path = store.path / _CACHE
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # a store that cannot be written is looked at again
        path.parent.mkdir(exist_ok=True)
        text = json.dumps({"of": stamp, "errors": errors_as_dicts(errors)}, indent=1)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, path)


class _Soundness:
    """What makes a dataset wrong to train on or to measure with, over samples without frames."""

    def __init__(
        self, description: DatasetDescription, *, may_miss: Collection[Modality] = ()
    ) -> None:
        self._description = description
        self._may_miss = may_miss
        self.census = Census(description)
        self.sizes = Counter(dict.fromkeys(description.splits, 0))
        self.splits_of_video: defaultdict[str, set[str]] = defaultdict(set)
        self.splits_of_id: defaultdict[str, list[str]] = defaultdict(list)
        self._videos_of_id: defaultdict[str, set[str]] = defaultdict(set)
        self._bad_labels: list[str] = []
        self._outside: list[str] = []

    def add(self, sample: Sample) -> None:
        """Look at one sample: whose it is, where, its labels, how many frames it has."""
        name, split = sample.id, sample.split
        self.census.add(sample)
        self.sizes[split] += 1
        self.splits_of_video[sample.video].add(split)
        self.splits_of_id[name].append(split)
        self._videos_of_id[name].add(sample.video)
        low, high = self._description.label_range
        for value in (sample.label, *sample.unimodal_labels.values()):
            if value is None:
                continue
            if not np.isfinite(value):
                self._bad_labels.append(f"{name} ({split}): {value}")
            elif not low - 1e-6 <= value <= high + 1e-6:
                self._outside.append(f"{name} ({split}): {value:g}")

    def rows(self) -> Iterable[IntegrityRow]:
        """The findings, none of which is information alone."""
        for split, size in self.sizes.items():
            if not size:
                yield IntegrityRow("error", "split", f"{split} is empty")
        yield from self._video_rows()
        across = [i for i, splits in self.splits_of_id.items() if len(set(splits)) > 1]
        if across:
            yield IntegrityRow(
                "error", "ids", f"{len(across)} in two splits: {one_line_list(across)}"
            )
        mixed = [i for i, videos in self._videos_of_id.items() if len(videos) > 1]
        if mixed:
            yield IntegrityRow(
                "error",
                "ids",
                f"{len(mixed)} stand for clips of two videos: {one_line_list(mixed)}",
            )
        if self._bad_labels:
            yield IntegrityRow(
                "error",
                "labels",
                f"{len(self._bad_labels)} NaN or infinite: {one_line_list(self._bad_labels)}",
            )
        if self._outside:
            low, high = self._description.label_range
            yield IntegrityRow(
                "error",
                "labels",
                f"{len(self._outside)} outside {low:g} to {high:g}: {one_line_list(self._outside)}",
            )
        for constant in self.census.scored.faults():
            yield IntegrityRow("error", "constant labels", constant)
        for doubt in self.census.scored.doubts():
            yield IntegrityRow("warning", "labels", doubt)
        yield from self._missing_rows()
        if (fault := self.census.spoken.fault()) is not None:
            yield IntegrityRow("error", "text", fault)
        for doubt in self.census.spoken.doubts():
            yield IntegrityRow("warning", "text", doubt)

    def _missing_rows(self) -> Iterable[IntegrityRow]:
        """Samples without frames: an error beyond a few, unless it was allowed."""
        refused = self.census.too_many_missing()
        for modality, sentence in self.census.missing_sentences().items():
            allowed = modality in self._may_miss or (
                missing_frames_of(modality) in self._description.allowed
            )
            is_error = modality in refused and not allowed
            yield IntegrityRow("error" if is_error else "warning", "frames", sentence)

    def _video_rows(self) -> Iterable[IntegrityRow]:
        shared = [video for video, splits in self.splits_of_video.items() if len(splits) > 1]
        if not shared:
            return
        what = f"{len(shared)} in two splits: {one_line_list(shared)}"
        dataset = self._description.dataset
        if not is_split_by_clips(dataset):
            yield IntegrityRow("error", "videos", what)
        elif is_likely_alone(self._description.decisions):
            yield IntegrityRow(
                "error",
                "videos",
                f"{what}; the splits of {dataset} were drawn by clips, but that these are its "
                f"data is a guess, which --dataset {dataset} at the import settles",
            )
        else:
            yield IntegrityRow(
                "warning", "videos", f"{what}; its published splits were drawn by clips"
            )


class _Lengths:
    """What is counted of one modality's sequences."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.num_nan = 0
        self.num_inf = 0
        self.num_absent = 0
        self.wrong_width: list[str] = []


class _Tally:
    """Counts over a stream of samples."""

    def __init__(self, description: DatasetDescription, *, may_miss: frozenset[Modality]) -> None:
        self._description = description
        self._sound = _Soundness(description, may_miss=may_miss)
        self._labelled: Counter[str] = Counter()
        self._ranges: dict[str, tuple[float, float]] = {}
        self._splits_of_text: defaultdict[str, list[str]] = defaultdict(list)
        self._num_blank = 0
        self._modalities = {m: _Lengths() for m in description.widths}
        self._known = KnownDefects(description)
        self._recurring = RecurrenceSurvey(description)

    def add(self, sample: Sample) -> None:
        split = sample.split
        self._recurring.add(sample)
        self._known.add(sample)
        self._sound.add(sample)
        if is_blank(sample.text):
            self._num_blank += 1
        else:
            text = " ".join(sample.text.split()).casefold()
            self._splits_of_text[text].append(split)
        if sample.label is not None and np.isfinite(sample.label):
            self._labelled[split] += 1
            least, most = self._ranges.get(split, (sample.label, sample.label))
            self._ranges[split] = (min(least, sample.label), max(most, sample.label))
        for modality, counted in self._modalities.items():
            self._add_frames(sample, modality, counted)

    def _add_frames(self, sample: Sample, modality: Modality, counted: _Lengths) -> None:
        frames = sample.sequences.get(modality)
        if frames is None or len(frames) == 0:
            counted.num_absent += 1
            return
        counted.lengths.append(len(frames))
        if frames.shape[1] != self._description.widths[modality]:
            counted.wrong_width.append(f"{sample.id}: {frames.shape[1]}")
        if not np.isfinite(frames).all():
            nan = np.isnan(frames).any(axis=1)
            counted.num_nan += int(nan.sum())
            counted.num_inf += int((np.isinf(frames).any(axis=1) & ~nan).sum())

    def rows(self) -> Iterable[IntegrityRow]:
        for level, message in published_files(self._description):
            yield IntegrityRow(level, "file", message)
        yield from self._sound.rows()
        yield from self._size_rows()
        yield from self._identity_rows()
        yield from self._label_rows()
        yield from self._text_rows()
        for doubt in self._recurring.doubts():
            yield IntegrityRow("warning", "recurrence", doubt)
        for modality, counted in self._modalities.items():
            yield from self._frame_rows(modality, counted)
        for level, message in self._known.findings():
            yield IntegrityRow(level, "known defect", message)
        census = self._sound.census
        # The store's samples go by other names than the source's rows.
        doubts = (doubt.partition(": ")[0] for doubt in census.spoken.doubts())
        scored = (*census.scored.faults(), *census.scored.doubts())
        anew = (*census.missing_sentences().values(), *doubts, *scored, *self._recurring.doubts())
        for warning in self._description.warnings:
            if not warning.startswith(anew):  # as above
                yield IntegrityRow("warning", "import", warning)
        for decision in self._description.decisions:
            yield IntegrityRow("info", "decision", decision)
        for note in self._description.notes:
            yield IntegrityRow("info", "note", note)

    def _size_rows(self) -> Iterable[IntegrityRow]:
        described = self._description
        yield IntegrityRow(
            "info",
            "dataset",
            f"{described.dataset}, {described.task}, "
            f"{'aligned' if described.aligned else 'not aligned'}, measures: "
            f"{convention_named(described.convention).listed()}",
        )
        where, paper = PUBLISHED_SIZES.get(described.dataset, ("", {}))
        for split, size in self._sound.sizes.items():
            expected = paper.get(split)
            if not size:
                continue
            if expected is not None and size != expected:
                yield IntegrityRow(
                    "warning", "split", f"{split} has {size} samples, {where} has {expected}"
                )
            else:
                as_printed = f", as in {where}" if expected is not None else ""
                yield IntegrityRow("info", "split", f"{split} has {size} samples{as_printed}")

    def _identity_rows(self) -> Iterable[IntegrityRow]:
        yield IntegrityRow("info", "videos", f"{len(self._sound.splits_of_video)} videos")
        splits_of_id = self._sound.splits_of_id
        within = [i for i, splits in splits_of_id.items() if len(splits) > len(set(splits))]
        if within:
            yield IntegrityRow(
                "warning", "ids", f"{len(within)} twice in a split: {one_line_list(within)}"
            )

    def _label_rows(self) -> Iterable[IntegrityRow]:
        for split, size in self._sound.sizes.items():
            if not size:
                continue
            span = self._ranges.get(split)
            shown = f", {span[0]:g} to {span[1]:g}" if span else ""
            yield IntegrityRow(
                "info", "labels", f"{split}: {self._labelled[split]} of {size} labelled{shown}"
            )

    def _text_rows(self) -> Iterable[IntegrityRow]:
        repeated = [splits for splits in self._splits_of_text.values() if len(splits) > 1]
        if repeated:
            across = sum(len(set(splits)) > 1 for splits in repeated)
            yield IntegrityRow(
                "warning",
                "text",
                f"{len(repeated)} texts occur more than once, {across} of them in two splits",
            )
        if self._num_blank:
            yield IntegrityRow("info", "text", f"{self._num_blank} blank, treated as absent")

    def _frame_rows(self, modality: Modality, counted: _Lengths) -> Iterable[IntegrityRow]:
        name = modality.value
        if counted.wrong_width:
            yield IntegrityRow(
                "error", name, f"widths differ: {one_line_list(counted.wrong_width)}"
            )
        if counted.num_nan or counted.num_inf:
            yield IntegrityRow(
                "warning",
                name,
                f"{counted.num_nan} frames with NaN and {counted.num_inf} with infinity: kept in "
                "place, masked when loaded",
            )
        if counted.num_absent:
            yield IntegrityRow(
                "info", name, f"{counted.num_absent} empty sequences, treated as absent"
            )
        width = self._description.widths[modality]
        if counted.lengths:
            least, middle, most = np.quantile(counted.lengths, [0, 0.5, 1])
            yield IntegrityRow(
                "info",
                name,
                f"{width} columns, lengths {least:g} to {most:g}, median {middle:g}",
            )
