"""What an analysis found in a clip, as typed values: one clock, one source for page and exports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import pydantic
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from tecafn.analyze.files import write_whole
from tecafn.core.errors import UserError

FORMAT_VERSION: Final = 1

AI_ACT: Final = (
    "Regulation (EU) 2024/1689 (AI Act), Art. 5(1)(f), prohibits inferring the emotions of a "
    "person from the face or the voice at work and in education, except for medical or safety "
    "reasons. What is inferred from text alone is outside it."
)
"""Stands wherever measures of a voice or of a face are shown."""

MEASURES_ALONE: Final = (
    "Measures of the face and of the voice are geometry and acoustics. No score is learned from "
    "them here: the score comes from the words."
)
MEASURES_FUSED: Final = (
    "Measures of the face and of the voice are geometry and acoustics. They are shown as they are; "
    "the score comes from what the model reads: {reads}."
)
"""What the measures have to do with the score."""

VOICE_TERMS: Final = (
    "Emotions of the voice are probabilities of eight that actors played, from a head that was "
    "trained on RAVDESS (CC BY-NC-SA 4.0: not for commercial use). They are no part of the score, "
    "were not measured on speech that is not acted, and must not be inferred at work or in "
    "education (AI Act, Art. 5(1)(f)). More: tecafn model-card voice."
)
"""Stands wherever emotions of a voice are shown."""

_STRICT: Final = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TimedWord:
    """A word with its times.

    Args:
        text: as it is written, with its punctuation.
        start, end: seconds on the clip's clock, to the millisecond.
        interpolated: were the times made up from the neighbours', for want of better ones?
        confidence: 0 to 1, of the recogniser; None where nobody says.
        effect: the utterance's score minus the score without this word; None where there is none.
    """

    text: str
    start: float
    end: float
    interpolated: bool = False
    confidence: float | None = None
    effect: float | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScoredUtterance:
    """Words that belong together, and their score.

    Args:
        start, end: seconds on the clip's clock, to the millisecond.
        words: at least one.
        score: on the model's scale; None where its language is out of the model's range.
        low, high: ends of the score's interval; None where the model has none.
        out_of_range: the language (ISO 639-1) that the model was not trained on; empty where it is
            in range.
        doubts: why the score deserves little confidence; empty where nothing speaks against it.
        voice: probabilities of acted emotions by their names, from the sound of the voice alone;
            empty where nobody asked for them, or the utterance is too short.
        contributions: exact Shapley values of the modalities by their names, and as ``base`` the
            score without any of them; together they are the score. Empty where the model reads the
            words alone.
    """

    start: float
    end: float
    words: tuple[TimedWord, ...]
    score: float | None = None
    low: float | None = None
    high: float | None = None
    out_of_range: str = ""
    doubts: tuple[str, ...] = ()
    contributions: dict[str, float] = field(default_factory=dict)
    voice: dict[str, float] = field(default_factory=dict)

    @property
    def voice_in_words(self) -> str:
        """The two most probable emotions of the voice; empty without any.

        Example:
            >>> said = dict(calm=0.62, sad=0.3, happy=0.08)
            >>> ScoredUtterance(start=0, end=1, words=(), voice=said).voice_in_words
            'calm 62 %, sad 30 %'
        """
        likely = sorted(self.voice.items(), key=lambda one: -one[1])[:2]
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in likely)

    @property
    def text(self) -> str:
        """The words with spaces between them."""
        return " ".join(word.text for word in self.words)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Track:
    """A measure of the voice or of the face over time.

    Args:
        name: of the measure, as exports call it.
        label: as a reader calls it.
        kind: what is measured.
        unit: of the values; empty for a share or a ratio.
        meaning: a sentence on what the values say.
        frames_per_second: value n is of ``n / frames_per_second`` seconds and on.
        values: None where nothing is seen, heard or voiced.
    """

    name: str
    label: str
    kind: Literal["voice", "face"]
    unit: str
    meaning: str
    frames_per_second: float
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Gap:
    """Seconds in which something is absent."""

    start: float
    end: float
    what: Literal["no speech", "no face"]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Trend:
    """The smoothed score.

    Args:
        bandwidth: standard deviation of the Gaussian that weighs utterances, in seconds.
        times: seconds, evenly spaced.
        values: a weighted mean of the utterances' scores; None far from every utterance.
    """

    bandwidth: float
    times: tuple[float, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TurningPoint:
    """Where the trend turns.

    Args:
        time: seconds.
        value: of the trend.
        kind: a peak (it rose and now falls) or a low (it fell and now rises).
        change: how far the trend moves on either side of it, the smaller of both.
        quote: the words around it.
    """

    time: float
    value: float
    kind: Literal["peak", "low"]
    change: float
    quote: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Stretch:
    """Seconds in which scores deserve little confidence, and why."""

    start: float
    end: float
    reason: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Scorer:
    """What gave the scores.

    Args:
        name: as the user called it.
        identity: a hash of its files.
        trained_on: the dataset.
        reads: the modalities whose contents decide the score here.
        low, high: ends of the scale.
        coverage: share of true scores that intervals are made to hold; None without intervals.
        languages: ISO 639-1 of those it was trained on; empty where unknown, and then no utterance
            is called out of range.
    """

    name: str
    identity: str
    trained_on: str
    reads: tuple[str, ...]
    low: float
    high: float
    coverage: float | None = None
    languages: tuple[str, ...] = ()

    @property
    def middle(self) -> float:
        """Of the scale: neither negative nor positive."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Summary:
    """A clip in few numbers, over its scored utterances.

    Args:
        num_utterances: scored ones.
        num_left_out: those without a score.
        seconds: of speech that is scored.
        mean: of the scores, weighted by the utterances' seconds; None where nothing is scored.
        positive, negative: shares of the scored seconds above and below the scale's middle.
        highest, lowest: numbers of the utterances with these scores, from 0.
    """

    num_utterances: int
    num_left_out: int
    seconds: float
    mean: float | None = None
    positive: float | None = None
    negative: float | None = None
    highest: int | None = None
    lowest: int | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Timeline:
    """All that is known of a clip; page and exports are made from it alone.

    Args:
        format_version: of this layout.
        made_by: the package's version.
        made_from: hashes of all that decides the numbers, by what they are of.
        clip: the file's name.
        duration: seconds.
        has_video: are there pictures?
        scorer: what gave the scores.
        summary: in few numbers.
        utterances: in the order of their times.
        words_from: where the words come from; empty where there are none.
        trend: the smoothed score.
        turning_points: in the order of their times.
        low_confidence: stretches whose scores deserve little confidence.
        gaps: where there is no speech, or no face.
        tracks: measures of the voice and of the face.
        speaker: whose face is measured and why, a sentence.
        remarks: what the user should know.
    """

    format_version: int = FORMAT_VERSION
    made_by: str
    made_from: dict[str, str]
    clip: str
    duration: float
    has_video: bool
    scorer: Scorer
    summary: Summary
    utterances: tuple[ScoredUtterance, ...]
    words_from: str
    trend: Trend
    turning_points: tuple[TurningPoint, ...]
    low_confidence: tuple[Stretch, ...]
    gaps: tuple[Gap, ...]
    tracks: tuple[Track, ...]
    speaker: str
    remarks: tuple[str, ...] = ()

    def in_words(self) -> list[str]:
        """A few lines for a terminal."""
        told = self.summary
        lines = [f"{self.clip}: {self.duration:.1f} s, {self.speaker}"]
        if told.mean is None or told.positive is None or told.highest is None:
            why = "no words were found" if not self.utterances else "no utterance has a score"
            lines.append(f"no score: {why}")
        else:
            lines.append(
                f"mean score {told.mean:+.2f} on a scale from {self.scorer.low:g} to "
                f"{self.scorer.high:g}: {_counted(told.num_utterances)}, "
                f"{100 * told.positive:.0f} % of the scored seconds positive"
            )
            best = self.utterances[told.highest]
            lines.append(f"highest {best.score:+.2f} at {best.start:.1f} s: {best.text}")
        foreign = sorted({one.out_of_range for one in self.utterances} - {""})
        if foreign:
            number = sum(bool(one.out_of_range) for one in self.utterances)
            lines.append(
                f"{_counted(number)} without a score: the language ({', '.join(foreign)}) is out "
                f"of the range of {self.scorer.name}"
            )
        lines += [f"note: {remark}" for remark in self.remarks]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Timeline:
        """What ``as_dict`` gave.

        Raises:
            UserError: something is missing, unknown or of another type.
        """
        try:
            timeline = _adapter().validate_python(values)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "it"
            raise UserError(f"this is no timeline: {place}: {first['msg']}") from None
        if timeline.format_version != FORMAT_VERSION:
            raise UserError(
                f"format_version must be {FORMAT_VERSION}, got {timeline.format_version}"
            )
        return timeline

    def save(self, path: Path) -> None:
        """As JSON, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        text = json.dumps(self.as_dict(), ensure_ascii=False, separators=(",", ":"))
        write_whole(path, (text + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Timeline:
        """What ``save`` wrote.

        Raises:
            UserError: it cannot be read, or is no timeline.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read as a timeline: {error}") from None
        try:
            return cls.from_dict(values)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


def schema() -> dict[str, Any]:
    """The JSON schema of a timeline."""
    described = _adapter().json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_prose(described),
    }


def _without_prose(value: Any) -> Any:
    """Descriptions are in the documentation of the types."""
    if isinstance(value, dict):
        return {k: _without_prose(v) for k, v in value.items() if k != "description"}
    return [_without_prose(item) for item in value] if isinstance(value, list) else value


@cache
def _adapter() -> pydantic.TypeAdapter[Timeline]:
    return pydantic.TypeAdapter(Timeline)


def _counted(number: int) -> str:
    return f"{number} utterance{'' if number == 1 else 's'}"
