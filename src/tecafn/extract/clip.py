"""One clip to features: sound, faces, who speaks and what is said, on one clock."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.modality import Modality
from tecafn.core.text import is_blank
from tecafn.extract import media
from tecafn.extract.beside import Beside
from tecafn.extract.clip_features import ClipFeatures, Frames, Segment
from tecafn.extract.face import COLUMNS, Faces, FaceTrack, choose, extract
from tecafn.extract.face.models import KNOWN_SHA256, find
from tecafn.extract.sequences import face_frames, sound_frames
from tecafn.extract.speech_model import find_speech_model
from tecafn.extract.voice import (
    AudioTrack,
    audio_track,
    pooled,
    states_after,
)
from tecafn.extract.words import Transcript, Word, read_words, utterances
from tecafn.extract.words.speech import speech_library

FACE_VERSION: Final = 2
"""Of the definitions of the face's measures; raised whenever a change moves a number."""

FRAMES_PER_SECOND: Final = 10
_LAYOUT: Final = 2

Tell = Callable[[float], None]
WordsOf = Literal["none", "missing", "all"]


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What decides the features of a clip.

    Args:
        audio: measures, whisper or both.
        frames_per_second: of both sequences; frames in between are averaged.
        face: whose face: left, right or a track's number; None = whose mouth moves with the voice.
        words: ``none``; ``missing``: heard, or read from a transcript, where no text is given;
            ``all``: those of a given text get their times, too.
        per_word: one frame per word in place of so many per second: the mean over the word.
        cut: cut the clip into utterances, where there are words?
        measures: measures of the whole clip's voice and face, too, whatever the sequences are?
        voice_blocks: blocks of the speech model's encoder whose states are pooled over every
            utterance, too; none by default.
        speech_model: see ``find_speech_model``.
        width: pixels that pictures are scaled down to.
        max_hours: a longer clip is refused.

    Raises:
        UserError: ``words`` is something else, or there are to be none and others need them.
    """

    audio: str = "whisper"
    frames_per_second: int = FRAMES_PER_SECOND
    face: str | None = None
    words: str = "missing"
    per_word: bool = False
    cut: bool = False
    measures: bool = False
    voice_blocks: tuple[int, ...] = ()
    speech_model: str | None = None
    width: int = 640
    max_hours: float = media.MAX_HOURS

    def __post_init__(self) -> None:
        if self.words not in get_args(WordsOf):
            raise UserError(f"words must be none, missing or all, got {self.words!r}")
        if self.words == "none" and (self.per_word or self.cut):
            raise UserError("frames per word and utterances need words, got words none")

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
        vision = FeatureSpec(
            extractor="face-measures",
            version=FACE_VERSION,
            width=len(COLUMNS),
            frames_per_second=float(self.frames_per_second),
            columns=COLUMNS,
            models={name.removesuffix(".tflite"): find(name).sha256 for name in KNOWN_SHA256},
            settings={"width": self.width},
        )
        specs = {Modality.AUDIO: sound, Modality.VISION: vision}
        return {m: _per_word(spec) for m, spec in specs.items()} if self.per_word else specs

    def needs_words(self, text: str) -> bool:
        """Are words to be heard, read or placed in a clip of which this text is known, if any?"""
        if self.words == "none":
            return False
        return is_blank(text) or self.words == "all" or self.per_word or self.cut

    def identity(self, text: str = "", transcript: Path | None = None) -> str:
        """A hash of all that decides the numbers: settings, models, versions, given words.

        Raises:
            UserError: a model is not installed, or the transcript cannot be read.
        """
        described = {
            "layout": _LAYOUT,
            "settings": {
                name: value
                for name, value in asdict(self).items()
                # Clips that were read before there were these stay as they are.
                if name != "words" and not (name in ("measures", "voice_blocks") and not value)
            },
            "features": {m.value: spec.as_dict() for m, spec in self.specifications().items()},
            "words": self._words_identity(text, transcript),
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def _words_identity(self, text: str, transcript: Path | None) -> dict[str, str] | None:
        if not self.needs_words(text):
            return None
        if not is_blank(text):
            try:
                return {"text": text, "model": self.recogniser()}
            except UserError:
                return {"text": text}  # placed by the voice's energy
        if transcript is None:
            return {"model": self.recogniser()}
        try:
            content = transcript.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {transcript}: {error.strerror}") from None
        # A transcript without times is placed by a recogniser, where there is one.
        told = {"transcript": hashlib.sha256(content).hexdigest(), "kind": transcript.suffix}
        try:
            return told | {"model": self.recogniser()}
        except UserError:
            return told

    def recogniser(self) -> str:
        """The SHA-256 of the model that words are heard with.

        Raises:
            UserError: it is not installed, or what runs it is not.
        """
        try:
            model = find_speech_model(self.speech_model)
            speech_library("faster_whisper")
        except UserError as error:
            raise UserError(f"{error}; or leave words out with --words none") from None
        return model.sha256


def _per_word(spec: FeatureSpec) -> FeatureSpec:
    return replace(spec, frames_per_second=0.0, settings={**spec.settings, "frame": "word"})


def extract_clip(
    path: Path | str,
    settings: ClipSettings | None = None,
    *,
    text: str = "",
    transcript: Path | None = None,
    said: Transcript | None = None,
    tell: Tell | None = None,
) -> ClipFeatures:
    """Features of a clip, in this process; see ``guard`` for files of strangers.

    Args:
        path: a video or sound file.
        settings: None = the default ones.
        text: what is said in it, where that is known.
        transcript: a file with what is said: subtitles, words with times, or text; a given ``text``
            comes before it.
        said: its words, where ``words_of_clip`` has found them already.
        tell: told the seconds that are done.

    Raises:
        UserError: it cannot be read, or a model is not installed.

    Example:
        >>> features = extract_clip("clip.mp4")              # doctest: +SKIP
        >>> features.text, features.sequences.keys()         # doctest: +SKIP
    """
    settings = settings or ClipSettings()
    tell = tell or (lambda _: None)
    path = Path(path)
    held = media.probe(path)
    remarks: list[str] = []
    audio = _audio(path, held, settings, remarks, tell)
    tell(0.0)
    heard = None if audio is None or _is_silent(audio) else audio
    if audio is not None and heard is None:
        remarks.append("the sound is silence throughout")
    hear = functools.partial(_hear, heard, text, transcript, said, settings)
    with Beside(hear, tell) as hearing:
        faces = _faces(path, held, settings, remarks, hearing.tell, is_all=audio is None)
        face, about = _speaker(faces, audio, settings, remarks)
        sound = hearing.result()
    duration = max(0.0 if audio is None else audio.end, _last_picture(faces))
    said = sound.said
    remarks += said.remarks
    segments = [
        replace(segment, sequences=_finite(frames, _seen(segment, face, settings)))
        for segment, frames in zip(
            _segments(said.words, duration, settings), sound.frames, strict=True
        )
    ]
    measures: dict[Modality, Frames] = {}
    if settings.measures:
        whole = Segment(start=0.0, end=duration)
        measures = _finite(sound.measures, _seen(whole, face, _measuring(settings)))
    return ClipFeatures(
        duration=duration,
        segments=tuple(segments),
        measures=measures,
        voices=sound.voices,
        words_from=said.source if said.words else "",
        no_speech=[[span.start, span.end] for span in said.no_speech],
        remarks=remarks,
        **about,
    )


def words_of_clip(
    path: Path | str,
    settings: ClipSettings,
    *,
    text: str = "",
    transcript: Path | None = None,
    tell: Tell | None = None,
) -> Transcript:
    """The words of a clip alone, as ``extract_clip`` finds them with the same arguments.

    Raises:
        UserError: see ``extract_clip``.
    """
    path = Path(path)
    tell = tell or (lambda _: None)
    audio = _audio(path, media.probe(path), settings, [], tell)
    heard = None if audio is None or _is_silent(audio) else audio
    return _words(heard, text, transcript, settings, tell)


@dataclass(frozen=True)
class _Sound:
    """What a clip's sound has come to.

    Args:
        said: words.
        frames: of the voice in every segment, by modality, if there is a voice.
        measures: of the whole clip's voice, if they are asked for.
        voices: see ``ClipFeatures``.
    """

    said: Transcript
    frames: tuple[Mapping[Modality, Frames], ...]
    measures: Mapping[Modality, Frames]
    voices: Frames | None


def _hear(
    audio: media.Audio | None,
    text: str,
    transcript: Path | None,
    said: Transcript | None,
    settings: ClipSettings,
    tell: Tell,
) -> _Sound:
    if said is None:
        said = _words(audio, text, transcript, settings, tell)
    end = 0.0 if audio is None else audio.end
    frames = []
    for segment in _segments(said.words, end, settings):
        frames.append(_heard(segment, audio, settings, tell))
        tell(segment.end)
    whole = Segment(start=0.0, end=end)
    measures = _heard(whole, audio, _measuring(settings), tell) if settings.measures else {}
    voices = None
    if settings.voice_blocks and said.words:
        voices = _voices(audio, said.words, settings, tell)
    return _Sound(said, tuple(frames), measures, voices)


def _audio(
    path: Path, held: media.Media, settings: ClipSettings, remarks: list[str], tell: Tell
) -> media.Audio | None:
    """The sound, if there is one. Nothing is done of it yet: ``tell`` is a sign of life."""
    if not held.has_audio:
        remarks.append("there is no sound")
        return None
    try:
        audio = media.read_audio(path, max_hours=settings.max_hours, progress=lambda _: tell(0.0))
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


def _speaker(
    faces: Faces | None, audio: media.Audio | None, settings: ClipSettings, remarks: list[str]
) -> tuple[FaceTrack | None, dict[str, Any]]:
    """The track that vision is of, and what is told of all of them."""
    if faces is None:
        return None, {}
    choice = choose(faces.tracks, audio, face=settings.face)
    chosen = next((track for track in faces.tracks if track.id == choice.track), None)
    if faces.tracks and chosen is None:
        remarks.append(
            f"vision is left out: {choice.reason}; name one with --face left, right or ID"
        )
    tracks = [
        {"id": t.id, "pictures": t.num_seen, "place": round(t.middle, 3)} for t in faces.tracks
    ]
    return chosen, {
        "num_pictures": faces.num_frames,
        "faces": tracks,
        "face": choice.track,
        "face_confidence": choice.confidence,
        "face_reason": choice.reason,
    }


def _last_picture(faces: Faces | None) -> float:
    return float(faces.times[-1]) if faces is not None and faces.num_frames else 0.0


def _words(
    audio: media.Audio | None,
    text: str,
    transcript: Path | None,
    settings: ClipSettings,
    tell: Tell,
) -> Transcript:
    """Words with times: of the given text, else of the transcript, else those that are heard."""
    if not settings.needs_words(text):
        return Transcript((), "")
    if audio is None and transcript is None and is_blank(text):
        return Transcript((), "")  # that there is no sound is said already
    if not is_blank(text):
        if audio is None:
            return Transcript(
                (), "", remarks=("the text's words have no times: no voice is heard",)
            )
        return read_words(audio, text=text, speech_model=settings.speech_model, tell=tell)
    return read_words(audio, transcript=transcript, speech_model=settings.speech_model, tell=tell)


def _segments(words: tuple[Word, ...], duration: float, settings: ClipSettings) -> list[Segment]:
    if settings.cut and words:
        return [
            Segment(start=one.start, end=one.end, text=one.text, words=one.words)
            for one in utterances(words)
        ]
    whole = " ".join(word.text for word in words)
    return [Segment(start=0.0, end=duration, text=whole, words=words)]


def _heard(
    segment: Segment, audio: media.Audio | None, settings: ClipSettings, tell: Tell
) -> dict[Modality, Frames]:
    if audio is None:
        return {}
    frames = sound_frames(
        audio,
        settings.audio_track(),
        start=segment.start,
        end=segment.end,
        words=_intervals(segment, settings),
        tell=tell,
    )
    return {Modality.AUDIO: frames}


def _seen(
    segment: Segment, face: FaceTrack | None, settings: ClipSettings
) -> dict[Modality, Frames]:
    if face is None:
        return {}
    frames = face_frames(
        face,
        start=segment.start,
        end=segment.end,
        rate=settings.frames_per_second,
        words=_intervals(segment, settings),
    )
    return {Modality.VISION: frames}


def _intervals(segment: Segment, settings: ClipSettings) -> list[tuple[float, float]] | None:
    """Of the words that frames are of; where nothing is said, all of it is one word."""
    if not settings.per_word:
        return None
    return [(word.start, word.end) for word in segment.words] or [(segment.start, segment.end)]


def _finite(*found: Mapping[Modality, Frames]) -> dict[Modality, Frames]:
    """All of them but those without a number."""
    joined = {modality: frames for one in found for modality, frames in one.items()}
    return {modality: frames for modality, frames in joined.items() if np.isfinite(frames).any()}


def _measuring(settings: ClipSettings) -> ClipSettings:
    """What measures of the whole clip are made by: at the usual rate."""
    return replace(settings, audio="measures", per_word=False, frames_per_second=FRAMES_PER_SECOND)


def _voices(
    audio: media.Audio | None, words: tuple[Word, ...], settings: ClipSettings, tell: Tell
) -> Frames:
    """(U, 2 D) the pooled states of each utterance; NaN where it has no sound to speak of."""
    model = find_speech_model(settings.speech_model)
    found = []
    for one in utterances(words):
        samples = np.zeros(0, np.float32) if audio is None else audio.read(one.start, one.end)
        states = states_after(samples, blocks=settings.voice_blocks, model=model)
        found.append(pooled(states))
        tell(one.end)
    return np.array(found, np.float32)


def _is_silent(audio: media.Audio) -> bool:
    return not any(np.abs(piece).max(initial=0.0) > 1e-4 for _, piece in audio.pieces(60.0))
