"""What an import has found, counted while the samples pass, and the table that shows it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.text import is_blank
from tecafn.data.label_survey import LabelSurvey
from tecafn.data.samples import DatasetDescription, Sample, missing_frames_of
from tecafn.data.sentences import TextSurvey
from tecafn.data.shares import more_than_a_few

_COLUMNS = 80


@dataclass
class _Split:
    """What is counted of one split."""

    num_samples: int = 0
    labels: list[float] = field(default_factory=list)
    videos: set[str] = field(default_factory=set)
    words: list[int] = field(default_factory=list)
    lengths: dict[Modality, list[int]] = field(default_factory=dict)


class Census:
    """Counts over a stream of samples: what has text, frames and labels, split by split.

    Args:
        description: of the dataset the samples belong to.

    Example:
        >>> census = Census(DatasetDescription(dataset="toy", widths={Modality.AUDIO: 2}))
        >>> sample = Sample(id="v_1", source_id="v_1", video="v", clip="1", split="train",
        ...                 text="quite fine", label=1.0)
        >>> for _ in range(4):
        ...     census.add(sample)
        >>> census.missing()
        {<Modality.AUDIO: 'audio'>: {'train': (4, 4)}}
        >>> census.too_many_missing()
        (<Modality.AUDIO: 'audio'>,)
        >>> census.missing_sentences()
        {<Modality.AUDIO: 'audio'>: 'audio has no frame in 4 of 4 samples of train'}
    """

    def __init__(self, description: DatasetDescription) -> None:
        self._description = description
        self._splits: dict[str, _Split] = {name: _Split() for name in description.splits}
        self.spoken = TextSurvey()
        self.scored = LabelSurvey(description.task)

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        split = self._splits.setdefault(sample.split, _Split())
        split.num_samples += 1
        self.spoken.add(sample.text, where=sample.where or sample.id)
        self.scored.add(sample.split, sample.video, sample.label, sample.unimodal_labels)
        split.videos.add(sample.video)
        if sample.label is not None and np.isfinite(sample.label):
            split.labels.append(float(sample.label))
        if not is_blank(sample.text):
            split.words.append(len(sample.text.split()))
        for modality in self._description.widths:
            frames = sample.sequences.get(modality)
            # What is not finite is masked when it is loaded: alone it is no frame.
            if frames is not None and np.isfinite(frames).all(axis=1).any():
                split.lengths.setdefault(modality, []).append(len(frames))

    @property
    def num_samples(self) -> int:
        """How many have come so far."""
        return sum(split.num_samples for split in self._splits.values())

    def missing(self) -> dict[Modality, dict[str, tuple[int, int]]]:
        """For each modality and split that lacks any: how many of its samples have no frame.

        Text that is not stored as vectors is counted, too, unless no sample has any.
        """
        found: dict[Modality, dict[str, tuple[int, int]]] = {}
        counted = list(self._description.widths)
        if self._reads_sentences:
            counted.insert(0, Modality.TEXT)
        for modality in counted:
            for name, split in self._splits.items():
                lengths = split.lengths.get(modality, [])
                is_spoken = modality is Modality.TEXT and self._reads_sentences
                count = split.num_samples - len(split.words if is_spoken else lengths)
                if count:
                    found.setdefault(modality, {})[name] = (count, split.num_samples)
        return found

    @property
    def _reads_sentences(self) -> bool:
        """Is the text what the samples say, and not vectors?"""
        return Modality.TEXT not in self._description.widths and any(
            split.words for split in self._splits.values()
        )

    def too_many_missing(self) -> tuple[Modality, ...]:
        """Modalities that more than a few samples of a split, or all of all splits, lack."""
        return tuple(
            modality
            for modality, splits in self.missing().items()
            if sum(count for count, _ in splits.values()) == self.num_samples
            or any(more_than_a_few(count, total) for count, total in splits.values())
        )

    def missing_sentences(self) -> dict[Modality, str]:
        """For each modality that a sample lacks, a sentence with the splits and the counts."""
        sentences = {}
        for modality, splits in self.missing().items():
            counts = ", ".join(
                f"{count} of {total} samples of {name}" for name, (count, total) in splits.items()
            )
            has_none = (
                "text has no sentence"
                if modality is Modality.TEXT and self._reads_sentences
                else f"{modality} has no frame"
            )
            sentences[modality] = f"{has_none} in {counts}"
        return sentences

    def as_dict(self) -> dict[str, Any]:
        """For the manifest: by split the samples, labels, videos, words and frames."""
        return {name: self._split_dict(split) for name, split in self._splits.items()}

    def _split_dict(self, split: _Split) -> dict[str, Any]:
        labels = split.labels
        return {
            "num_samples": split.num_samples,
            "num_labelled": len(labels),
            "num_videos": len(split.videos),
            "labels": (
                {"min": min(labels), "max": max(labels), "mean": float(np.mean(labels))}
                if labels
                else None
            ),
            "words": _lengths_dict(split.words),
            "frames": {
                modality.value: _lengths_dict(split.lengths.get(modality, ()))
                for modality in self._description.widths
            },
        }


def _lengths_dict(lengths: Sequence[int]) -> dict[str, float]:
    return {
        "num_samples": len(lengths),
        "median": float(np.median(lengths)) if lengths else 0.0,
        "longest": max(lengths, default=0),
        "total": sum(lengths),
    }


def check_frames(
    census: Census, *, allowed: frozenset[Modality]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Refuse samples without frames, unless they are few or allowed.

    Args:
        census: of all samples.
        allowed: modalities that may be absent.

    Returns:
        Warnings, and what was allowed that would else have been refused.

    Raises:
        UserError: a modality has no frame in more than a few samples of a split.
    """
    sentences = census.missing_sentences()
    refused = census.too_many_missing()
    errors = [modality for modality in refused if modality not in allowed]
    if errors:
        raise UserError(
            f"{'; '.join(sentences[modality] for modality in errors)}; if they really are "
            f"absent, use --allow-missing-frames {','.join(errors)}"
        )
    warnings = [
        sentence + (", as was allowed" if modality in refused else "")
        for modality, sentence in sentences.items()
    ]
    return tuple(warnings), tuple(missing_frames_of(modality) for modality in refused)


# The table


def render_summary(manifest: Mapping[str, Any], *, width: int = _COLUMNS) -> str:
    """A store's manifest as tables, then the decisions taken, the warnings last.

    Stores written before imports were counted have no tables.
    """
    paragraphs = []
    summary: Mapping[str, Any] = manifest.get("summary") or {}
    if summary:
        paragraphs.append(_frames_table(summary, manifest["widths"]))
        paragraphs.append(_labels_table(summary))
    for title, sentences in (
        ("decisions", manifest.get("decisions", ())),
        ("notes", manifest.get("notes", ())),
        ("allowed", manifest.get("allowed", ())),
        ("warnings", manifest.get("warnings", ())),
    ):
        if sentences:
            paragraphs.append("\n".join([title, *(_wrapped(text, width) for text in sentences)]))
    if not manifest.get("warnings"):
        paragraphs.append("no warnings")
    return "\n\n".join(paragraphs)


def _frames_table(summary: Mapping[str, Any], widths: Mapping[str, int]) -> str:
    rows = []
    has_text = any(split["words"]["num_samples"] for split in summary.values()) or not widths
    for name, split in summary.items():
        counted = {}
        if has_text:
            counted["sentences"] = (split["words"], "words")
        for modality, lengths in split["frames"].items():
            counted[modality] = (lengths, str(widths[modality]))
        for position, (modality, (lengths, unit)) in enumerate(counted.items()):
            rows.append([
                name if not position else "", modality, str(split["num_samples"]),
                str(lengths["num_samples"]), f"{lengths['median']:g}", str(lengths["longest"]),
                unit,
            ])  # fmt: skip
    header = ["split", "modality", "samples", "with frames", "median", "longest", "width"]
    return _table(header, rows, num_left=2)


def _labels_table(summary: Mapping[str, Any]) -> str:
    rows = []
    for name, split in summary.items():
        labels = split["labels"]
        shown = [f"{labels[key]:.3g}" for key in ("min", "max", "mean")] if labels else ["-"] * 3
        rows.append([
            name, str(split["num_samples"]), str(split["num_labelled"]), *shown,
            str(split["num_videos"]),
        ])  # fmt: skip
    header = ["split", "samples", "labelled", "lowest label", "highest", "mean", "videos"]
    return _table(header, rows, num_left=1)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, num_left: int) -> str:
    """Columns two spaces apart, the first ``num_left`` flush left, numbers flush right."""
    lines = [header, *rows]
    sizes = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(size) if column < num_left else cell.rjust(size)
            for column, (cell, size) in enumerate(zip(line, sizes, strict=True))
        ).rstrip()
        for line in lines
    )


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
