"""From a clip to its timeline, in the steps of a job: each reads files of the job and writes one.

They are those of ``tecafn analyze``, cut where a job may go on after a crash. Whatever decodes a
clip runs in a guarded process: it may crash and takes nobody along.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tecafn.analyze.reading import ClipJob
from tecafn.core.errors import UserError
from tecafn.extract.clip import ClipSettings
from tecafn.extract.clip_features import ClipFeatures
from tecafn.extract.guard import Limits, call_guarded
from tecafn.extract.media import Media
from tecafn.extract.words import Transcript, Word
from tecafn.extract.words.speech import Span
from tecafn.server.reading import Reading, features_of, probe, words_of
from tecafn.server.spool import JobFolder
from tecafn.server.step import CLIP_LINK, PAGE, TIMELINE, Step, Tell

if TYPE_CHECKING:
    from tecafn.analyze.scoring import SentimentModel

_MEDIA: Final = "media.json"
_WORDS: Final = "words.json"
_FEATURES: Final = "features.zip"

_SECONDS_PER_SECOND: Final = 20.0
_START_SECONDS: Final = 300.0


def steps_of(name: str, *, max_minutes: float) -> tuple[Step, ...]:
    """The steps of a job.

    Args:
        name: of the model that scores; its weights are loaded when they are first needed.
        max_minutes: of a clip.
    """
    opened: list[SentimentModel] = []

    def model() -> SentimentModel:
        from tecafn.analyze.scoring import open_model

        if not opened:
            opened.append(open_model(name))
        return opened[0]

    seconds = _START_SECONDS + _SECONDS_PER_SECOND * 60 * max_minutes
    with_model = _Steps(model, max_minutes, Limits(seconds=seconds))
    return (
        Step("decode", 0.02, with_model.decode),
        Step("words", 0.3, with_model.words),
        Step("voice and face", 0.6, with_model.voice_and_face),
        Step("score", 0.06, with_model.score),
        Step("page", 0.02, with_model.page),
    )


@dataclass(frozen=True)
class _Steps:
    """What the steps share."""

    model: Callable[[], SentimentModel]
    max_minutes: float
    limits: Limits

    def decode(self, job: JobFolder, _: Tell) -> None:
        """Is it a clip, and not too long?"""
        held: Media = call_guarded(probe, job.clip, limits=self.limits)
        seconds = held.duration or 0.0
        if seconds > 60 * self.max_minutes:
            raise UserError(
                f"the clip lasts {seconds / 60:.1f} minutes; the most allowed is "
                f"{self.max_minutes:g}"
            )
        job.write(_MEDIA, json.dumps({"seconds": seconds}).encode())

    def words(self, job: JobFolder, tell: Tell) -> None:
        """What is said."""
        said: Transcript = call_guarded(
            words_of,
            self._reading(job),
            limits=self.limits,
            progress=_share(tell, _seconds(job)),
        )
        job.write(_WORDS, json.dumps(asdict(said)).encode())

    def voice_and_face(self, job: JobFolder, tell: Tell) -> None:
        """What is heard and seen."""
        told = _read(job, _WORDS)
        said = Transcript(
            words=tuple(Word(**word) for word in told["words"]),
            source=told["source"],
            no_speech=tuple(Span(**span) for span in told["no_speech"]),
            remarks=tuple(told["remarks"]),
        )
        features: ClipFeatures = call_guarded(
            features_of,
            replace(self._reading(job), said=said),
            limits=self.limits,
            progress=_share(tell, _seconds(job)),
        )
        if features.is_empty and not features.measures:
            raise UserError(f"nothing is heard or seen in it: {'; '.join(features.remarks)}")
        features.save(job.path / _FEATURES)

    def score(self, job: JobFolder, _: Tell) -> None:
        """What its sentiment is over time."""
        from tecafn.analyze.clip import made_from_of, timeline_of

        features = ClipFeatures.load(job.path / _FEATURES)
        reading = self._reading(job)
        clip = ClipJob(
            path=job.clip,
            out=job.path,
            settings=reading.settings,
            transcript=reading.transcript,
        )
        timeline = timeline_of(
            features,
            self.model(),
            clip=job.upload().label,
            made_from=made_from_of(clip, self.model()),
        )
        timeline.save(job.path / TIMELINE)

    def page(self, job: JobFolder, _: Tell) -> None:
        """The page and the tables."""
        from tecafn.analyze.exports import write_exports
        from tecafn.analyze.html import render_page
        from tecafn.analyze.timeline import Timeline

        timeline = Timeline.load(job.path / TIMELINE)
        written = write_exports(timeline, job.path)
        job.write(PAGE, render_page(timeline, CLIP_LINK, exports=written).encode())

    def _reading(self, job: JobFolder) -> Reading:
        upload = job.upload()
        wanted = ClipSettings(face=upload.face, max_hours=self.max_minutes / 60)
        return Reading(
            path=job.clip,
            settings=self.model().settings(wanted),
            transcript=job.transcript(upload),
        )


def _seconds(job: JobFolder) -> float:
    return float(_read(job, _MEDIA)["seconds"])


def _read(job: JobFolder, name: str) -> Any:
    content = job.read(name)
    if content is None:
        raise UserError(f"{name} is missing")
    return json.loads(content)


def _share(tell: Tell, seconds: float) -> Tell:
    """Seconds that are done, as a share."""
    return lambda done: tell(done / seconds if seconds else 0.0)
