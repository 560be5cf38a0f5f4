"""What every reader gives: one utterance, and the description of the dataset it belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tecafn.core.conventions import convention_named, convention_of
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.info import Task
from tecafn.core.modality import Modality

SPLITS = ("train", "valid", "test")

_SPLIT_NAMES = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "validation": "valid",
    "validate": "valid",
    "development": "valid",
    "test": "test",
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One utterance as its source has it, with names and numbering made uniform.

    Args:
        id: public id, ``<video>_<clip>`` in label.csv's numbering; see ``public_id``.
        source_id: the id as the source writes it.
        video: the recording the utterance was cut from; cross-validation keeps it together.
        clip: the utterance's name within its video; empty where the source names no videos.
        split: train, valid or test.
        text: what is said.
        label: score on the dataset's scale or class number; None = unlabelled.
        unimodal_labels: labels of single modalities (CH-SIMS).
        sequences: (L, D) float32 frames; a modality without frames is left out or has L = 0.
            NaN and infinity stay as they came.
        pair_id: common to the two samples of a designed pair.
        oracle: noise-free score of a generated sample.
        context: what was said before (UR-FUNNY).
        start, end: seconds within the video.
        words: the words, pauses ("sp") included, one per frame where the source is word-aligned.
        word_intervals: (W, 2) seconds of each word within the video.
        where: file, split and row that a reader took it from, for messages; not stored.
        media: the file with its sound or video, which sequences are extracted from; not stored.

    Example:
        >>> Sample(
        ...     id="a_1", source_id="a_1", video="a", clip="1", split="train", text="fine"
        ... ).label is None
        True
    """

    id: str
    source_id: str
    video: str
    clip: str
    split: str
    text: str
    label: float | None = None
    unimodal_labels: Mapping[Modality, float] = field(default_factory=dict)
    sequences: Mapping[Modality, NDArray[np.float32]] = field(default_factory=dict)
    pair_id: str | None = None
    oracle: float | None = None
    context: str | None = None
    start: float | None = None
    end: float | None = None
    words: tuple[str, ...] | None = None
    word_intervals: NDArray[np.float32] | None = None
    where: str = field(default="", compare=False)
    media: Path | None = field(default=None, compare=False)


@dataclass(frozen=True)
class SourceFile:
    """One file that a dataset was read from: name, SHA-256 in hexadecimal, size in bytes."""

    name: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """What is known of a dataset before its first sample is read.

    Args:
        dataset: cmu-mosi, cmu-mosei, ch-sims, ur-funny, or any other name.
        widths: frame width D of each modality the samples carry sequences of.
        task: regression of a score, or classification.
        label_range: lowest and highest legal label.
        num_classes: classes of a classification, else 1.
        class_names: of a classification whose classes have names, ``num_classes`` of them.
        stated_convention: the measures that somebody has said go with the data; None = those that
            go with dataset, task and label range. ``convention`` is what counts.
        features: how the frames of a modality were made, where that is known.
        aligned: do the modalities' frames correspond one to one?
        splits: the splits the source declares, even if it has no sample of them.
        decisions: sentences for the user on what was decided about the source, each with its
            grounds: which dataset it is, how its ids are read.
        notes: sentences for the user on what was done while reading.
        warnings: sentences on what may make a number wrong; shown last, where they are seen.
        allowed: what would have been refused, had the caller not allowed it by name.
        source_format: the reader's name.
        source_files: what was read.

    Example:
        >>> DatasetDescription(dataset="cmu-mosi", widths={Modality.AUDIO: 5}).label_range
        (-3.0, 3.0)
        >>> DatasetDescription(
        ...     dataset="ch-sims", widths={}, label_range=(-1.0, 1.0)).convention
        'sims'
    """

    dataset: str
    widths: Mapping[Modality, int]
    task: Task = "regression"
    label_range: tuple[float, float] = (-3.0, 3.0)
    num_classes: int = 1
    class_names: tuple[str, ...] = ()
    stated_convention: str | None = None
    features: Mapping[Modality, FeatureSpec] = field(default_factory=dict)
    aligned: bool = False
    splits: tuple[str, ...] = SPLITS
    decisions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    source_format: str = ""
    source_files: tuple[SourceFile, ...] = ()

    @property
    def convention(self) -> str:
        """The name of the convention by which the data are measured; see ``core/conventions.py``.

        Raises:
            ValueError: the stated one is unknown.
        """
        if self.stated_convention is not None:
            return convention_named(self.stated_convention).name
        return convention_of(self.dataset, task=self.task, label_range=self.label_range)


def missing_frames_of(modality: Modality) -> str:
    """How the record of an import calls it that a modality may be absent.

    Example:
        >>> missing_frames_of(Modality.AUDIO)
        'missing-frames audio'
    """
    return f"missing-frames {modality}"


def canonical_split(name: str) -> str | None:
    """train, valid or test for the names the field uses; None for any other.

    Example:
        >>> canonical_split("dev")
        'valid'
    """
    return _SPLIT_NAMES.get(name.strip().lower())


def public_id(video: str, clip: str) -> str:
    """``<video>_<clip>``.

    CMU-MOSEI's clips are start seconds with an underscore for the point (``82_7645``), so a public
    id cannot always be cut apart again; video and clip are kept beside it, and the store refuses
    two different (video, clip) that would share one id.

    A source that names no videos (UR-FUNNY) has each sample as a video of its own, without clip,
    and the source's id is the public one.

    Example:
        >>> public_id("-3g5yACwYnA", "82_7645")
        '-3g5yACwYnA_82_7645'
        >>> public_id("1024", "")
        '1024'
    """
    return f"{video}_{clip}" if clip else video


def split_joined_id(joined: str, *, separator: str = "_") -> tuple[str, str]:
    """Video and clip of a joined id; videos may contain the separator, so the last one counts.

    Raises:
        ValueError: there is no separator, or nothing on one side of it.

    Example:
        >>> split_joined_id("Af8D0E4ZXaw_x_12")
        ('Af8D0E4ZXaw_x', '12')
        >>> split_joined_id("_dI--eQ6qVU$_$3", separator="$_$")
        ('_dI--eQ6qVU', '3')
    """
    video, found, clip = joined.rpartition(separator)
    if not found or not video or not clip:
        raise ValueError(f"id must look like video{separator}clip, got {joined!r}")
    return video, clip


_SEGMENT_ID = re.compile(r"(.+)\[(\d+)\]", re.DOTALL)


def split_segment_id(segment: str) -> tuple[str, int]:
    """Video and number of ``"video[k]"``, where k counts from 0.

    Raises:
        ValueError: it looks otherwise.

    Example:
        >>> split_segment_id("WKA5OygbEKI[0]")
        ('WKA5OygbEKI', 0)
    """
    match = _SEGMENT_ID.fullmatch(segment)
    if match is None:
        raise ValueError(f"id must look like video[k], got {segment!r}")
    return match[1], int(match[2])
