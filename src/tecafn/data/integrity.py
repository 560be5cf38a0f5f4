"""The integrity report: what is wrong, doubtful or worth knowing about a data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tecafn.core.modality import Modality
from tecafn.data.defects import PUBLISHED_SIZES, KnownDefects, Level, published_files
from tecafn.data.mapped import releasing
from tecafn.data.readers import ReadOptions, open_source
from tecafn.data.readers.base import one_line_list
from tecafn.data.samples import DatasetDescription, Sample, missing_frames_of
from tecafn.data.store import Store
from tecafn.data.summary import Census


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
    they were imported. Warnings: sizes other than the paper's, repeated text, an id twice in a
    split, frames that will be masked, an MMSA file with a sum that is not published. The rest is
    information. Defects that the field's files are known for are named as such besides.

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
        self._census = Census(description)
        self._may_miss = may_miss
        self._sizes = Counter(dict.fromkeys(description.splits, 0))
        self._labelled: Counter[str] = Counter()
        self._ranges: dict[str, tuple[float, float]] = {}
        self._splits_of_video: defaultdict[str, set[str]] = defaultdict(set)
        self._splits_of_id: defaultdict[str, list[str]] = defaultdict(list)
        self._splits_of_text: defaultdict[str, list[str]] = defaultdict(list)
        self._videos_of_id: defaultdict[str, set[str]] = defaultdict(set)
        self._bad_labels: list[str] = []
        self._outside: list[str] = []
        self._num_blank = 0
        self._modalities = {m: _Lengths() for m in description.widths}
        self._known = KnownDefects(description)

    def add(self, sample: Sample) -> None:
        split = sample.split
        self._census.add(sample)
        self._known.add(sample)
        self._sizes[split] += 1
        self._splits_of_video[sample.video].add(split)
        self._splits_of_id[sample.id].append(split)
        self._videos_of_id[sample.id].add(sample.video)
        text = " ".join(sample.text.split()).casefold()
        if text:
            self._splits_of_text[text].append(split)
        else:
            self._num_blank += 1
        self._add_labels(sample)
        for modality, counted in self._modalities.items():
            self._add_frames(sample, modality, counted)

    def _add_labels(self, sample: Sample) -> None:
        low, high = self._description.label_range
        if sample.label is not None and np.isfinite(sample.label):
            self._labelled[sample.split] += 1
            least, most = self._ranges.get(sample.split, (sample.label, sample.label))
            self._ranges[sample.split] = (min(least, sample.label), max(most, sample.label))
        for value in (sample.label, *sample.unimodal_labels.values()):
            if value is None:
                continue
            if not np.isfinite(value):
                self._bad_labels.append(f"{sample.id} ({sample.split}): {value}")
            elif not low - 1e-6 <= value <= high + 1e-6:
                self._outside.append(f"{sample.id} ({sample.split}): {value:g}")

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
        yield from self._size_rows()
        yield from self._identity_rows()
        yield from self._label_rows()
        yield from self._text_rows()
        for modality, counted in self._modalities.items():
            yield from self._frame_rows(modality, counted)
        yield from self._missing_rows()
        for level, message in self._known.findings():
            yield IntegrityRow(level, "known defect", message)
        missing = tuple(self._census.missing_sentences().values())
        for warning in self._description.warnings:
            if not warning.startswith(missing):  # counted anew above
                yield IntegrityRow("warning", "import", warning)
        for decision in self._description.decisions:
            yield IntegrityRow("info", "decision", decision)
        for note in self._description.notes:
            yield IntegrityRow("info", "note", note)

    def _missing_rows(self) -> Iterable[IntegrityRow]:
        """Samples without frames: an error beyond a few, unless it was allowed."""
        refused = self._census.too_many_missing()
        for modality, sentence in self._census.missing_sentences().items():
            allowed = modality in self._may_miss or (
                missing_frames_of(modality) in self._description.allowed
            )
            is_error = modality in refused and not allowed
            yield IntegrityRow("error" if is_error else "warning", "frames", sentence)

    def _size_rows(self) -> Iterable[IntegrityRow]:
        described = self._description
        yield IntegrityRow(
            "info",
            "data set",
            f"{described.dataset}, {described.task}, "
            f"{'aligned' if described.aligned else 'not aligned'}",
        )
        where, paper = PUBLISHED_SIZES.get(described.dataset, ("", {}))
        for split, size in self._sizes.items():
            expected = paper.get(split)
            if not size:
                yield IntegrityRow("error", "split", f"{split} is empty")
            elif expected is not None and size != expected:
                yield IntegrityRow(
                    "warning", "split", f"{split} has {size} samples, {where} has {expected}"
                )
            else:
                as_printed = f", as in {where}" if expected is not None else ""
                yield IntegrityRow("info", "split", f"{split} has {size} samples{as_printed}")

    def _identity_rows(self) -> Iterable[IntegrityRow]:
        shared = [video for video, splits in self._splits_of_video.items() if len(splits) > 1]
        if shared:
            yield IntegrityRow(
                "error", "videos", f"{len(shared)} in two splits: {one_line_list(shared)}"
            )
        yield IntegrityRow("info", "videos", f"{len(self._splits_of_video)} videos")
        across = [i for i, splits in self._splits_of_id.items() if len(set(splits)) > 1]
        if across:
            yield IntegrityRow(
                "error", "ids", f"{len(across)} in two splits: {one_line_list(across)}"
            )
        within = [i for i, splits in self._splits_of_id.items() if len(splits) > len(set(splits))]
        if within:
            yield IntegrityRow(
                "warning", "ids", f"{len(within)} twice in a split: {one_line_list(within)}"
            )
        mixed = [i for i, videos in self._videos_of_id.items() if len(videos) > 1]
        if mixed:
            yield IntegrityRow(
                "error",
                "ids",
                f"{len(mixed)} stand for clips of two videos: {one_line_list(mixed)}",
            )

    def _label_rows(self) -> Iterable[IntegrityRow]:
        low, high = self._description.label_range
        if self._bad_labels:
            yield IntegrityRow(
                "error",
                "labels",
                f"{len(self._bad_labels)} NaN or infinite: {one_line_list(self._bad_labels)}",
            )
        if self._outside:
            yield IntegrityRow(
                "error",
                "labels",
                f"{len(self._outside)} outside {low:g} to {high:g}: {one_line_list(self._outside)}",
            )
        for split, size in self._sizes.items():
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
