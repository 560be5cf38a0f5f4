"""One clip to its timeline, and to the page and the tables that are made from it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Final

from tecafn import __version__
from tecafn.analyze.exports import write_exports
from tecafn.analyze.html import write_page
from tecafn.analyze.reading import ClipJob, read_features
from tecafn.analyze.scoring import SentimentModel
from tecafn.analyze.timeline import FORMAT_VERSION, VOICE_TERMS, Gap, Timeline
from tecafn.analyze.tracks import Frames, face_tracks, spans_of, voice_tracks
from tecafn.analyze.trend import doubtful, gaps_between, smoothed, summarised, turning_points
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.extract.clip import FRAMES_PER_SECOND
from tecafn.extract.clip_features import ClipFeatures, Segment
from tecafn.extract.guard import Limits, Tell
from tecafn.extract.words import utterances

TIMELINE_FILE: Final = "timeline.json"
PAGE_FILE: Final = "report.html"
_LEAST_SILENCE_SECONDS, _LEAST_FACELESS_SECONDS = 2.0, 1.0


def default_out(source: Path) -> Path:
    """Where the result goes: a folder of the clip's name beside it.

    Example:
        >>> default_out(Path("talks/monday.mp4")).as_posix()
        'talks/monday.analysis'
    """
    return source.with_name(f"{source.name if source.is_dir() else source.stem}.analysis")


def analyze_clip(
    job: ClipJob,
    model: SentimentModel,
    *,
    limits: Limits | None = None,
    tell: Tell | None = None,
) -> Timeline:
    """Analyse a clip and write its page and tables; what is there already is not made again.

    Args:
        job: the clip, and where the result goes.
        model: what scores it.
        limits: of the process that reads the clip.
        tell: told the seconds that are done.

    Raises:
        UserError: the clip cannot be read, a model is not installed, or ``out`` cannot be written.
    """
    made_from = made_from_of(job, model)
    known = finished(job.out, made_from)
    if known is not None:
        return known
    features = read_features(job, limits=limits, tell=tell)
    timeline = timeline_of(features, model, clip=job.path.name, made_from=made_from)
    write_result(timeline, job.path, job.out)
    return timeline


def made_from_of(job: ClipJob, model: SentimentModel) -> dict[str, str]:
    """Hashes of all that decides the numbers of a timeline, by what they are of.

    Raises:
        UserError: a file cannot be read, or a model is not installed.
    """
    intervals = "" if model.intervals is None else repr(model.intervals)
    return (
        job.made_from()
        | {
            "model": model.scorer.identity,
            "intervals": intervals and hashlib.sha256(intervals.encode()).hexdigest(),
            "layout": str(FORMAT_VERSION),
        }
        | ({} if model.voice is None else {"voice": model.voice.identity})
    )


def finished(out: Path, made_from: dict[str, str]) -> Timeline | None:
    """The timeline that an earlier call wrote from the same things, with all its files."""
    path = out / TIMELINE_FILE
    if not path.is_file():
        return None
    try:
        timeline = Timeline.load(path)
    except UserError:
        return None  # of another version: it is made anew
    is_same = timeline.made_from == made_from and timeline.made_by == __version__
    return timeline if is_same else None


def timeline_of(
    features: ClipFeatures, model: SentimentModel, *, clip: str, made_from: dict[str, str]
) -> Timeline:
    """The timeline of what was found in a clip.

    Args:
        features: of the clip.
        model: what scores its utterances.
        clip: the file's name.
        made_from: hashes of all that decides the numbers.
    """
    measures = features.measures or features.segments[0].sequences
    voice, face = (measures.get(m) for m in (Modality.AUDIO, Modality.VISION))
    said = model.scored(_utterances(features), voices=features.voices)
    trend = smoothed(said, features.duration)
    rate = float(FRAMES_PER_SECOND)
    return Timeline(
        made_by=__version__,
        made_from=made_from,
        clip=clip,
        duration=round(features.duration, 3),
        has_video=features.num_pictures > 0,
        scorer=model.scorer,
        summary=summarised(said, model.scorer),
        utterances=said,
        words_from=features.words_from,
        trend=trend,
        turning_points=turning_points(trend, said, model.scorer),
        low_confidence=doubtful(said),
        gaps=_gaps(features, face),
        tracks=(
            *voice_tracks(voice, frames_per_second=rate),
            *face_tracks(face, frames_per_second=rate),
        ),
        speaker=_speaker(features),
        remarks=(*features.remarks, *([VOICE_TERMS] if any(one.voice for one in said) else [])),
    )


def _utterances(features: ClipFeatures) -> list[Segment]:
    """With words; of a clip that was not cut, those that its words make."""
    if len(features.segments) > 1:
        return [one for one in features.segments if one.words]
    (whole,) = features.segments
    found = utterances(whole.words)
    if len(found) == 1:  # a cut clip of one utterance keeps the frames of it
        return [replace(whole, start=found[0].start, end=found[0].end)]
    return [Segment(start=one.start, end=one.end, text=one.text, words=one.words) for one in found]


def _gaps(features: ClipFeatures, face: Frames | None) -> tuple[Gap, ...]:
    spoken = [(word.start, word.end) for one in features.segments for word in one.words]
    gaps = gaps_between(spoken, features.duration, what="no speech", least=_LEAST_SILENCE_SECONDS)
    # Where one of several faces speaks and nobody knows which, faces are there.
    if not features.num_pictures or (face is None and features.faces):
        return gaps
    seen = spans_of(face, frames_per_second=float(FRAMES_PER_SECOND))
    return gaps + gaps_between(
        seen, features.duration, what="no face", least=_LEAST_FACELESS_SECONDS
    )


def _speaker(features: ClipFeatures) -> str:
    if not features.num_pictures:
        return "there is no video"
    if not features.faces:
        return "no face is seen"
    number = len(features.faces)
    if number == 1:
        return "one face"
    if features.face is None:
        return f"{number} faces; whose voice it is is unknown: {features.face_reason}"
    return f"{number} faces; track {features.face} is the speaker's: {features.face_reason}"


def write_result(timeline: Timeline, clip: Path, out: Path) -> None:
    """The page and the tables, and last the timeline, which says that all of them are there.

    Raises:
        UserError: something cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    written = write_exports(timeline, out)
    write_page(timeline, clip, out / PAGE_FILE, exports=written)
    timeline.save(out / TIMELINE_FILE)
