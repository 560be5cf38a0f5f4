"""One clip to features: sound, faces and who speaks, on one clock."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.modality import Modality
from tecafn.extract import media
from tecafn.extract.face import COLUMNS, Faces, FaceTrack, choose, extract
from tecafn.extract.face.models import KNOWN_SHA256, find
from tecafn.extract.speech_model import find_speech_model
from tecafn.extract.voice import AudioTrack, audio_track
from tecafn.extract.words import Word, read_words, utterances

FACE_VERSION: Final = 1
"""Of the definitions of the face's measures; raised whenever a change moves a number."""

FRAMES_PER_SECOND: Final = 10
_LAYOUT: Final = 2
# A speech model hears a piece in relation to its loudest part, so a long clip is cut.
_PIECE_SECONDS: Final = 30.0

Tell = Callable[[float], None]
WordsOf = Literal["none", "missing", "all"]
Frames = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What decides the features of a clip.

    Args:
        audio: measures, whisper or both.
        frames_per_second: of both sequences; frames in between are averaged.
        face: whose face: left, right or a track's number; None = whose mouth moves with the voice.
        words: ``none``; ``missing``: recognised where no text is given; ``all``: those of a given
            text get their times, too.
        per_word: one frame per word in place of so many per second: the mean over the word.
        cut: cut the clip into utterances, where there are words?
        speech_model: see ``find_speech_model``.
        width: pixels that pictures are scaled down to.
        max_hours: a longer clip is refused.
    """

    audio: str = "whisper"
    frames_per_second: int = FRAMES_PER_SECOND
    face: str | None = None
    words: WordsOf = "missing"
    per_word: bool = False
    cut: bool = False
    speech_model: str | None = None
    width: int = 640
    max_hours: float = media.MAX_HOURS

    def audio_track(self) -> AudioTrack:
        """What makes the audio sequence.

        Raises:
            UserError: see ``voice.audio_track``.
        """
        # Words are as short as a tenth of a second: their means are over all frames there are.
        rate = None if self.per_word else self.frames_per_second
        return audio_track(self.audio, frames_per_second=rate, speech_model=self.speech_model)

    def specifications(self) -> dict[Modality, FeatureSpec]:
        """What the columns of both modalities are.

        Raises:
            UserError: a model is not installed.
        """
        sound = self.audio_track().spec
        frames: dict[str, str | int | float | bool] = {"frames": "words"} if self.per_word else {}
        return {
            Modality.AUDIO: replace(sound, settings={**sound.settings, **frames}),
            Modality.VISION: FeatureSpec(
                extractor="face-measures",
                version=FACE_VERSION,
                width=len(COLUMNS),
                frames_per_second=0.0 if self.per_word else float(self.frames_per_second),
                columns=COLUMNS,
                models={name.removesuffix(".tflite"): find(name).sha256 for name in KNOWN_SHA256},
                settings={"width": self.width, **frames},
            ),
        }

    def identity(self) -> str:
        """A hash of all that decides the numbers: settings, models, versions."""
        described = {
            "layout": _LAYOUT,
            "speech": None if self.words == "none" else find_speech_model(self.speech_model).sha256,
            "settings": asdict(self),
            "features": {m.value: spec.as_dict() for m, spec in self.specifications().items()},
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A clip, or an utterance of it.

    Args:
        start, end: seconds on the clip's clock.
        text: what is said.
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
        remarks: what the user should know.
    """

    duration: float
    segments: tuple[Segment, ...]
    num_pictures: int = 0
    faces: list[dict[str, float]] = field(default_factory=list)
    face: int | None = None
    face_confidence: float = 1.0
    face_reason: str = ""
    words_from: str = ""
    remarks: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Is there nothing to see, hear or read?"""
        return not any(segment.sequences or segment.text.strip() for segment in self.segments)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of sequences their shapes."""
        about = {k: v for k, v in vars(self).items() if k != "segments"}
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
        return about

    def save(self, path: Path) -> None:
        """As a file, whole or not at all; equal features give equal bytes.

        Raises:
            UserError: it cannot be written.
        """
        parts = {"about.json": json.dumps(self.as_dict(), sort_keys=True).encode()}
        for number, segment in enumerate(self.segments):
            for modality, frames in segment.sequences.items():
                written = io.BytesIO()
                np.lib.format.write_array(written, np.ascontiguousarray(frames), allow_pickle=False)
                parts[f"{number}.{modality}.npy"] = written.getvalue()
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
                    sequences = {
                        modality: np.lib.format.read_array(
                            io.BytesIO(archive.read(f"{number}.{modality}.npy")), allow_pickle=False
                        )
                        for modality in map(Modality, told.pop("shapes"))
                    }
                    words = tuple(Word(**word) for word in told.pop("words"))
                    segments.append(Segment(**told, words=words, sequences=sequences))
            return cls(segments=tuple(segments), **about)
        except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError):
            raise UserError(f"{path} holds no features of a clip; remove it") from None


def extract_clip(
    path: Path | str,
    settings: ClipSettings | None = None,
    *,
    text: str | None = None,
    transcript: Path | None = None,
    tell: Tell | None = None,
) -> ClipFeatures:
    """Features of a clip, in this process; see ``guard`` for files of strangers.

    Args:
        path: a video or sound file.
        settings: None = the default ones.
        text: what is said in it.
        transcript: a file with what is said: subtitles, words with times, or text.
        tell: told the seconds that are done.

    Raises:
        UserError: it cannot be read, or a model is not installed.

    Example:
        >>> features = extract_clip("clip.mp4")              # doctest: +SKIP
        >>> [(s.text, s.sequences.keys()) for s in features.segments]  # doctest: +SKIP
    """
    settings = settings or ClipSettings()
    tell = tell or (lambda _: None)
    path = Path(path)
    held = media.probe(path)
    remarks: list[str] = []
    audio = _audio(path, held, settings, remarks)
    tell(0.0)
    words, source = _words(audio, settings, text, transcript, remarks)
    faces = _faces(path, held, settings, remarks, tell, is_all=audio is None)
    duration = 0.0 if audio is None else audio.end
    chosen: FaceTrack | None = None
    about: dict[str, Any] = {}
    if faces is not None:
        duration = max(duration, float(faces.times[-1]) if faces.num_frames else 0.0)
        choice = choose(faces.tracks, audio, face=settings.face)
        chosen = next((track for track in faces.tracks if track.id == choice.track), None)
        if faces.tracks and chosen is None:
            remarks.append(
                f"vision is left out: {choice.reason}; name one with --face left, right or ID"
            )
        about = {
            "num_pictures": faces.num_frames,
            "faces": [
                {"id": t.id, "pictures": t.num_seen, "place": round(t.middle, 3)}
                for t in faces.tracks
            ],
            "face": choice.track,
            "face_confidence": choice.confidence,
            "face_reason": choice.reason,
        }
    heard = None if audio is None or _is_silent(audio) else audio
    if audio is not None and heard is None:
        remarks.append("the sound is silence throughout")
    segments = []
    for segment in _segments(words, text, duration, settings):
        segments.append(_with_sequences(segment, heard, chosen, settings))
        tell(segment.end)
    return ClipFeatures(
        duration=duration, segments=tuple(segments), words_from=source, remarks=remarks, **about
    )


def _audio(
    path: Path, held: media.Media, settings: ClipSettings, remarks: list[str]
) -> media.Audio | None:
    if not held.has_audio:
        remarks.append("there is no sound")
        return None
    try:
        audio = media.read_audio(path, max_hours=settings.max_hours)
    except UserError as error:
        if not held.has_video or "--max-hours" in str(error):
            raise
        remarks.append(str(error).removeprefix(f"{path}: "))
        return None
    remarks += audio.remarks
    return audio


def _faces(
    path: Path,
    held: media.Media,
    settings: ClipSettings,
    remarks: list[str],
    tell: Tell,
    *,
    is_all: bool,
) -> Faces | None:
    """The faces; None where there is no video. ``is_all``: a clip without pictures is nothing."""
    if not held.has_video:
        remarks.append("there is no video")
        return None
    try:
        faces = extract(path, width=settings.width, max_hours=settings.max_hours, progress=tell)
    except UserError as error:
        if is_all or "--max-hours" in str(error):
            raise
        remarks.append(str(error).removeprefix(f"{path}: "))
        return None
    remarks += faces.remarks
    return faces


def _words(
    audio: media.Audio | None,
    settings: ClipSettings,
    text: str | None,
    transcript: Path | None,
    remarks: list[str],
) -> tuple[tuple[Word, ...], str]:
    """Words with times, and where they come from."""
    given = bool(text and text.strip()) or transcript is not None
    if settings.words == "none" or (given and settings.words == "missing" and transcript is None):
        return (), ""
    if audio is None and transcript is None:
        return (), ""
    found = read_words(
        audio,
        transcript=transcript,
        text=text if given and transcript is None else None,
        speech_model=settings.speech_model,
    )
    remarks += found.remarks
    return found.words, found.source


def _segments(
    words: tuple[Word, ...], text: str | None, duration: float, settings: ClipSettings
) -> list[Segment]:
    said = (text or "").strip()
    if settings.cut and words:
        return [
            Segment(start=one.start, end=one.end, text=one.text, words=tuple(one.words))
            for one in utterances(words)
        ]
    whole = said or " ".join(word.text for word in words)
    return [Segment(start=0.0, end=duration, text=whole, words=words)]


def _with_sequences(
    segment: Segment, audio: media.Audio | None, face: FaceTrack | None, settings: ClipSettings
) -> Segment:
    found = {}
    if audio is not None:
        found[Modality.AUDIO] = _sound(audio, segment, settings)
    if face is not None:
        found[Modality.VISION] = _vision(face, segment, settings)
    kept = {m: frames for m, frames in found.items() if np.isfinite(frames).any()}
    return replace(segment, sequences=kept)


def _is_silent(audio: media.Audio) -> bool:
    return not any(np.abs(piece).max(initial=0.0) > 1e-4 for _, piece in audio.pieces(60.0))


def _intervals(segment: Segment) -> list[tuple[float, float]]:
    """Seconds of each word, or of the whole where there is none."""
    if not segment.words:
        return [(segment.start, segment.end)]
    return [(word.start, word.end) for word in segment.words]


def _sound(audio: media.Audio, segment: Segment, settings: ClipSettings) -> Frames:
    """(L, D) from the segment's start, NaN before the sound begins."""
    track = settings.audio_track()
    begin, end = max(segment.start, audio.start), min(segment.end, audio.end)
    rate = track.frames_per_second
    late = max(0, round((begin - segment.start) * rate))
    parts = [np.full((late, track.width), np.nan, np.float32)]
    at = begin
    while at < end - 1e-6:
        # What is longer than a piece is cut; the rest, if short, stays with the last.
        until = end if end - at < 1.5 * _PIECE_SECONDS else at + _PIECE_SECONDS
        samples = audio.read(at, until)
        if len(samples):
            parts.append(track(samples, native_rate_hz=audio.native_rate)[1])
        at = until
    frames = np.concatenate(parts)
    if not settings.per_word:
        return frames
    times = segment.start + (np.arange(len(frames)) + 0.5) / rate
    return _means(frames, times, _intervals(segment))


def _vision(face: FaceTrack, segment: Segment, settings: ClipSettings) -> Frames:
    """(L, D) means over the pictures of each step or word, NaN where none shows the face."""
    seen = face.mask & (face.times >= segment.start - 1e-6) & (face.times <= segment.end + 1e-6)
    values, times = face.values[seen], face.times[seen]
    if settings.per_word:
        return _means(values, times, _intervals(segment))
    rate = settings.frames_per_second
    number = np.floor((times - segment.start) * rate + 1e-6).astype(int).clip(0)
    length = max(1, math.floor((segment.end - segment.start) * rate + 1e-6) + 1)
    if segment.end > face.times[-1]:  # no pictures any more: the sequence ends with them
        length = max(1, math.floor((face.times[-1] - segment.start) * rate + 1e-6) + 1)
    sums = np.zeros((length, values.shape[1]))
    np.add.at(sums, number.clip(max=length - 1), values.astype(np.float64))
    counts = np.bincount(number.clip(max=length - 1), minlength=length)
    means = np.full(sums.shape, np.nan, np.float32)
    means[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
    return means


def _means(
    values: Frames, times: NDArray[np.float64], intervals: list[tuple[float, float]]
) -> Frames:
    """A mean per interval; of one that has no frame, the nearest within a tenth of a second."""
    means = np.full((len(intervals), values.shape[1]), np.nan, np.float32)
    good = np.isfinite(values).all(axis=1)
    values, times = values[good], times[good]
    for row, (start, end) in enumerate(intervals):
        inside = (times >= start) & (times <= end)
        if not inside.any() and len(times):
            away = np.abs(times - (start + end) / 2)
            inside = away <= min(float(away.min()), 0.1)
        if inside.any():
            means[row] = values[inside].mean(axis=0, dtype=np.float64)
    return means
