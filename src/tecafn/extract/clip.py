"""One clip to features: sound, faces and who speaks, on one clock."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.modality import Modality
from tecafn.extract import media
from tecafn.extract.face import COLUMNS, FaceTrack, choose, extract
from tecafn.extract.face.models import KNOWN_SHA256, find
from tecafn.extract.voice import AudioTrack, audio_track

FACE_VERSION: Final = 1
"""Of the definitions of the face's measures; raised whenever a change moves a number."""

FRAMES_PER_SECOND: Final = 10
_LAYOUT: Final = 1
# A speech model hears a piece in relation to its loudest part, so a long clip is cut.
_PIECE_SECONDS: Final = 30.0

Tell = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What decides the features of a clip.

    Args:
        audio: measures, whisper or both.
        frames_per_second: of both sequences; frames in between are averaged.
        face: whose face: left, right or a track's number; None = whose mouth moves with the voice.
        speech_model: see ``find_speech_model``.
        width: pixels that pictures are scaled down to.
        max_hours: a longer clip is refused.
    """

    audio: str = "whisper"
    frames_per_second: int = FRAMES_PER_SECOND
    face: str | None = None
    speech_model: str | None = None
    width: int = 640
    max_hours: float = media.MAX_HOURS

    def audio_track(self) -> AudioTrack:
        """What makes the audio sequence.

        Raises:
            UserError: see ``voice.audio_track``.
        """
        return audio_track(
            self.audio, frames_per_second=self.frames_per_second, speech_model=self.speech_model
        )

    def specifications(self) -> dict[Modality, FeatureSpec]:
        """What the columns of both modalities are.

        Raises:
            UserError: a model is not installed.
        """
        return {
            Modality.AUDIO: self.audio_track().spec,
            Modality.VISION: FeatureSpec(
                extractor="face-measures",
                version=FACE_VERSION,
                width=len(COLUMNS),
                frames_per_second=float(self.frames_per_second),
                columns=COLUMNS,
                models={name.removesuffix(".tflite"): find(name).sha256 for name in KNOWN_SHA256},
                settings={"width": self.width},
            ),
        }

    def identity(self) -> str:
        """A hash of all that decides the numbers: settings, models, versions."""
        described = {
            "layout": _LAYOUT,
            "settings": asdict(self),
            "features": {m.value: spec.as_dict() for m, spec in self.specifications().items()},
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ClipFeatures:
    """What was found in a clip.

    Args:
        duration: seconds that were decoded.
        sequences: (L, D) float32 by modality; frame n is of ``n / frames_per_second`` seconds and
            on; NaN where nothing is seen or heard. A modality that the clip lacks is left out.
        num_pictures: decoded ones.
        faces: of every track its id, pictures and place from left (0) to right (1).
        face: the track that vision is of; None = none, or unknown.
        face_confidence: of this choice, 0 to 1.
        face_reason: a sentence on it.
        remarks: what the user should know.
    """

    duration: float
    sequences: dict[Modality, NDArray[np.float32]]
    num_pictures: int = 0
    faces: list[dict[str, float]] = field(default_factory=list)
    face: int | None = None
    face_confidence: float = 1.0
    face_reason: str = ""
    remarks: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """As a file, whole or not at all; equal features give equal bytes.

        Raises:
            UserError: it cannot be written.
        """
        about = {k: v for k, v in vars(self).items() if k != "sequences"}
        parts = {"about.json": json.dumps(about, sort_keys=True).encode()}
        for modality, frames in self.sequences.items():
            written = io.BytesIO()
            np.lib.format.write_array(written, np.ascontiguousarray(frames), allow_pickle=False)
            parts[f"{modality}.npy"] = written.getvalue()
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
                sequences = {}
                for modality in Modality:
                    if f"{modality}.npy" in archive.namelist():
                        content = io.BytesIO(archive.read(f"{modality}.npy"))
                        frames = np.lib.format.read_array(content, allow_pickle=False)
                        sequences[modality] = frames
            return cls(sequences=sequences, **about)
        except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError):
            raise UserError(f"{path} holds no features of a clip; remove it") from None


def extract_clip(
    path: Path | str, settings: ClipSettings | None = None, *, tell: Tell | None = None
) -> ClipFeatures:
    """Features of a clip, in this process; see ``guard`` for files of strangers.

    Args:
        path: a video or sound file.
        settings: None = the default ones.
        tell: told the seconds that are done.

    Raises:
        UserError: it cannot be read, or a model is not installed.

    Example:
        >>> features = extract_clip("clip.mp4")              # doctest: +SKIP
        >>> {m.value: f.shape for m, f in features.sequences.items()}  # doctest: +SKIP
        {'audio': (75, 384), 'vision': (75, 27)}
    """
    settings = settings or ClipSettings()
    tell = tell or (lambda _: None)
    path = Path(path)
    held = media.probe(path)
    remarks: list[str] = []
    sequences: dict[Modality, NDArray[np.float32]] = {}
    audio = None
    duration = 0.0
    if held.has_audio:
        try:
            audio = media.read_audio(path, max_hours=settings.max_hours)
        except UserError as error:
            if not held.has_video or "--max-hours" in str(error):
                raise
            remarks.append(_without_path(error, path))
    if audio is not None:
        remarks += audio.remarks
        duration = audio.end
        tell(0.0)
        if _is_silent(audio):
            remarks.append("the sound is silence throughout")
        else:
            sequences[Modality.AUDIO] = _sound(audio, settings, tell)
    else:
        remarks += [] if remarks else ["there is no sound"]
    if not held.has_video:
        remarks.append("there is no video")
        return ClipFeatures(duration=duration, sequences=sequences, remarks=remarks)
    try:
        faces = extract(path, width=settings.width, max_hours=settings.max_hours, progress=tell)
    except UserError as error:
        if audio is None or "--max-hours" in str(error):
            raise
        remarks.append(_without_path(error, path))
        return ClipFeatures(duration=duration, sequences=sequences, remarks=remarks)
    remarks += faces.remarks
    duration = max(duration, float(faces.times[-1]) if faces.num_frames else 0.0)
    choice = choose(faces.tracks, audio, face=settings.face)
    chosen = next((track for track in faces.tracks if track.id == choice.track), None)
    if chosen is not None:
        sequences[Modality.VISION] = _binned(chosen, settings.frames_per_second)
    elif faces.tracks:
        remarks.append(
            f"vision is left out: {choice.reason}; name one with --face left, right or ID"
        )
    return ClipFeatures(
        duration=duration,
        sequences=sequences,
        num_pictures=faces.num_frames,
        faces=[
            {"id": t.id, "pictures": t.num_seen, "place": round(t.middle, 3)} for t in faces.tracks
        ],
        face=choice.track,
        face_confidence=choice.confidence,
        face_reason=choice.reason,
        remarks=remarks,
    )


def _without_path(error: UserError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _is_silent(audio: media.Audio) -> bool:
    return not any(np.abs(piece).max(initial=0.0) > 1e-4 for _, piece in audio.pieces(60.0))


def _sound(audio: media.Audio, settings: ClipSettings, tell: Tell) -> NDArray[np.float32]:
    """(L, D) on the clip's clock, NaN before the sound begins."""
    track = settings.audio_track()
    late = max(0, round(audio.start * settings.frames_per_second))
    parts = [np.full((late, track.width), np.nan, np.float32)]
    for start, piece in audio.pieces(_PIECE_SECONDS):
        parts.append(track(piece, native_rate_hz=audio.native_rate)[1])
        tell(start)
    return np.concatenate(parts)


def _binned(track: FaceTrack, rate: int) -> NDArray[np.float32]:
    """(L, D) means over the pictures of each step, NaN where none shows the face."""
    number = np.floor(track.times * rate + 1e-6).astype(int)
    length = int(number[-1]) + 1
    seen = number[track.mask]
    sums = np.zeros((length, track.values.shape[1]))
    np.add.at(sums, seen, track.values[track.mask].astype(np.float64))
    counts = np.bincount(seen, minlength=length)
    means = np.full(sums.shape, np.nan, np.float32)
    means[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
    return means
