"""What was found in a clip, and how it is kept."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.text import is_blank
from tecafn.extract.words import Word

Frames = NDArray[np.float32]

_MEASURES, _VOICES = "measures", "voices"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A clip, or an utterance of it.

    Args:
        start, end: seconds on the clip's clock.
        text: its words; empty where a given text was enough.
        words: with their times; empty where nobody asked for them.
        sequences: (L, D) float32 by modality. Frame n is of ``start + n / frames_per_second``
            seconds and on, or of word n; NaN where nothing is seen or heard. A modality that is
            absent throughout is left out.
    """

    start: float
    end: float
    text: str = ""
    words: tuple[Word, ...] = ()
    sequences: dict[Modality, Frames] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClipFeatures:
    """What was found in a clip.

    Args:
        duration: seconds that were decoded.
        segments: the clip as a whole, or its utterances.
        num_pictures: decoded ones.
        faces: of every track its id, pictures and place from left (0) to right (1).
        face: the track that vision is of; None = none, or unknown.
        face_confidence: of this choice, 0 to 1.
        face_reason: a sentence on it.
        words_from: where the words come from; empty where there are none.
        no_speech: (start, end) of stretches in which nobody speaks, where a recogniser listened.
        remarks: what the user should know.
        measures: (L, D) measures of the whole clip's voice and face, ten frames per second, where
            they were asked for.
        voices: (U, 2 D) of each utterance of the words the mean and the deviation of the speech
            model's states over time, where they were asked for; NaN where no sound is.
    """

    duration: float
    segments: tuple[Segment, ...]
    num_pictures: int = 0
    faces: list[dict[str, float]] = field(default_factory=list)
    face: int | None = None
    face_confidence: float = 1.0
    face_reason: str = ""
    words_from: str = ""
    no_speech: list[list[float]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    measures: dict[Modality, Frames] = field(default_factory=dict)
    voices: Frames | None = None

    @property
    def sequences(self) -> dict[Modality, Frames]:
        """Of a clip that was not cut: those of its only segment."""
        assert len(self.segments) == 1, "a clip that was not cut"
        return self.segments[0].sequences

    @property
    def text(self) -> str:
        """The words that were found; empty where a given text was enough."""
        return " ".join(segment.text for segment in self.segments)

    @property
    def is_empty(self) -> bool:
        """Is there nothing to see, hear or read?"""
        return not any(segment.sequences or not is_blank(segment.text) for segment in self.segments)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of sequences their shapes."""
        about = {k: v for k, v in vars(self).items() if k not in ("segments", "measures", "voices")}
        about["segments"] = [
            {
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                "words": [asdict(word) for word in segment.words],
                "shapes": {str(m): list(f.shape) for m, f in segment.sequences.items()},
            }
            for segment in self.segments
        ]
        if self.measures:
            about["measures"] = {str(m): list(f.shape) for m, f in self.measures.items()}
        if self.voices is not None:
            about[_VOICES] = {Modality.AUDIO.value: list(self.voices.shape)}
        return about

    def save(self, path: Path) -> None:
        """As a file, whole or not at all; equal features give equal bytes.

        Raises:
            UserError: it cannot be written.
        """
        parts = {"about.json": json.dumps(self.as_dict(), sort_keys=True).encode()}
        tables = {str(number): one.sequences for number, one in enumerate(self.segments)}
        voices = {} if self.voices is None else {Modality.AUDIO: self.voices}
        for name, sequences in {**tables, _MEASURES: self.measures, _VOICES: voices}.items():
            for modality, frames in sequences.items():
                written = io.BytesIO()
                np.lib.format.write_array(written, np.ascontiguousarray(frames), allow_pickle=False)
                parts[f"{name}.{modality}.npy"] = written.getvalue()
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
                for name, content in parts.items():
                    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None

    @classmethod
    def load(cls, path: Path) -> ClipFeatures:
        """What ``save`` wrote.

        Raises:
            UserError: it is no such file.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                about: dict[str, Any] = json.loads(archive.read("about.json"))
                segments = []
                for number, told in enumerate(about.pop("segments")):
                    sequences = _read(archive, str(number), told.pop("shapes"))
                    words = tuple(Word(**word) for word in told.pop("words"))
                    segments.append(Segment(**told, words=words, sequences=sequences))
                measures = _read(archive, _MEASURES, about.pop(_MEASURES, ()))
                voices = _read(archive, _VOICES, about.pop(_VOICES, ())).get(Modality.AUDIO)
            return cls(segments=tuple(segments), measures=measures, voices=voices, **about)
        except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError):
            raise UserError(f"{path} holds no features of a clip; remove it") from None


def _read(archive: zipfile.ZipFile, name: str, modalities: Iterable[str]) -> dict[Modality, Frames]:
    return {
        modality: np.lib.format.read_array(
            io.BytesIO(archive.read(f"{name}.{modality}.npy")), allow_pickle=False
        )
        for modality in map(Modality, modalities)
    }
