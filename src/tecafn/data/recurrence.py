"""Frames that a sample should have for itself alone, and shares; frames that say nothing.

An extraction that ran once per video, wrote one file many times, or read the wrong one leaves
arrays of the right shape. So does a copy of a sample under another id. What such data give is
learned and measured without complaint, so the frames are compared while they pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tecafn.core.modality import Modality
from tecafn.core.text import is_blank
from tecafn.data.samples import DatasetDescription, Sample
from tecafn.data.shares import MOST_SHARE, more_than_a_few

# Fewer numbers than these may be equal by chance, as a class or a count is.
_TELLING_NUMBERS: Final = 24
_TELLING_WORDS: Final = 4
# Frames that are the same in so many places are the same.
_COMPARED_FRAMES: Final = 32


class _Frames:
    """What is counted of one modality."""

    def __init__(self) -> None:
        self.first_with: dict[bytes, str] = {}  # digest of frames: the first sample's id
        self.num_samples = 0
        self.num_shared = 0
        self.example = ""
        self.num_frames = self.num_masked = 0
        self.first_frame: NDArray[Any] | None = None
        self.is_constant = True  # as far as it was looked

    def add(self, name: str, frames: NDArray[Any]) -> bytes | None:
        """Count one sample's frames; their digest where they are like no others by chance."""
        self.num_samples += 1
        self.num_frames += len(frames)
        finite = np.isfinite(frames)
        if not finite.all():
            kept = finite.all(axis=1)
            self.num_masked += int((~kept).sum())
            frames = frames[kept]
        if not frames.size:
            return None
        if self.first_frame is None:
            self.first_frame = frames[0].copy()
        self.is_constant = self.is_constant and bool((frames == self.first_frame).all())
        compared = frames[:: 1 + len(frames) // _COMPARED_FRAMES]
        if frames.size < _TELLING_NUMBERS or compared.min() == compared.max():
            return None
        digest = hashlib.blake2b(repr(frames.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(compared).data)
        first = self.first_with.setdefault(digest.digest(), name)
        if first != name:
            self.num_shared += 1
            self.example = self.example or f"{name!r} and {first!r}, for two"
        return digest.digest()


class RecurrenceSurvey:
    """Counts over a stream of samples what should be there once.

    Args:
        description: of the dataset the samples belong to.

    Example:
        >>> survey = RecurrenceSurvey(DatasetDescription(dataset="x", widths={Modality.AUDIO: 9}))
        >>> frames = np.arange(27, dtype=np.float32).reshape(3, 9)
        >>> for number in range(8):
        ...     survey.add(Sample(id=f"v_{number}", source_id="", video="v", clip=str(number),
        ...                       split="train", text="", sequences={Modality.AUDIO: frames}))
        >>> survey.doubts()[0][:62]
        'audio: 7 of 8 samples have the very frames of a sample before '
    """

    def __init__(self, description: DatasetDescription) -> None:
        self._frames = {m: _Frames() for m in description.widths}
        self._num_samples: dict[str, int] = {}
        self._num_exchanged: dict[tuple[Modality, Modality], int] = {}
        self._first_like: dict[int, tuple[str, str]] = {}  # id and split
        self._copies: dict[str, list[str]] = {}  # by split
        self._texts: set[int] = set()
        self._num_texts = 0

    def add(self, sample: Sample) -> None:
        """Count one sample. Those of a designed pair share what they share on purpose."""
        self._num_samples[sample.split] = self._num_samples.get(sample.split, 0) + 1
        digests = {
            m: self._frames[m].add(sample.id, frames)
            for m, frames in sample.sequences.items()
            if m in self._frames and len(frames) and sample.pair_id is None
        }
        told = [(m, digest) for m, digest in digests.items() if digest is not None]
        for number, (modality, digest) in enumerate(told):
            for other, its in told[number + 1 :]:
                if digest == its:
                    pair = (modality, other)
                    self._num_exchanged[pair] = self._num_exchanged.get(pair, 0) + 1
        if sample.pair_id is None:
            self._compare(sample, told)

    def _compare(self, sample: Sample, told: list[tuple[Modality, bytes]]) -> None:
        """Is it a sample of another split, in all that it has?"""
        text = " ".join(sample.text.split()).casefold()
        if not is_blank(text):
            self._num_texts += 1
            self._texts.add(hash(text))
        if told:
            like = hash((text, sample.context, *(digest for _, digest in told)))
        elif sample.label is not None and len(text.split()) >= _TELLING_WORDS:
            like = hash((text, sample.context, sample.label))
        else:
            return
        name, split = self._first_like.setdefault(like, (sample.id, sample.split))
        if split != sample.split:
            self._copies.setdefault(sample.split, []).append(
                f"{sample.id!r} is {name!r} of {split}"
            )

    def doubts(self) -> tuple[str, ...]:
        """What was found in more than a few samples."""
        return (*self._frame_doubts(), *self._copy_doubts())

    def _frame_doubts(self) -> Iterable[str]:
        for modality, counted in self._frames.items():
            if more_than_a_few(counted.num_shared, counted.num_samples):
                yield (
                    f"{modality}: {counted.num_shared} of {counted.num_samples} samples have the "
                    f"very frames of a sample before them ({counted.example})"
                )
            if more_than_a_few(counted.num_samples, 0) and counted.is_constant:
                yield f"{modality}: every frame of every sample is the same: they say nothing"
            if counted.num_masked > MOST_SHARE * counted.num_frames:
                yield (
                    f"{modality}: {counted.num_masked} of {counted.num_frames} frames have NaN or "
                    "infinity and are masked when they are loaded"
                )
        for (modality, other), count in self._num_exchanged.items():
            if more_than_a_few(count, self._frames[modality].num_samples):
                yield f"{modality} and {other} are the very same frames in {count} samples"

    def _copy_doubts(self) -> Iterable[str]:
        # Acted speech has few sentences: text and label then do not tell one sample from another.
        if self._num_texts > 2 * len(self._texts):
            return
        for split, copies in self._copies.items():
            total = self._num_samples[split]
            if more_than_a_few(len(copies), total):
                yield (
                    f"{len(copies)} of {total} samples of {split} have text and frames, or text "
                    f"and label, of a sample of another split ({copies[0]}): measures on {split} "
                    "are of samples that were seen"
                )
