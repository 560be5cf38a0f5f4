"""Timelines made by tests and benchmarks: words at known times, scores that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tecafn.analyze.timeline import ScoredUtterance, Scorer, TimedWord, Timeline, Track
from tecafn.analyze.trend import doubtful, gaps_between, smoothed, summarised, turning_points

SCORER = Scorer(
    name="runs/mine",
    identity="0" * 64,
    trained_on="cmu-mosi",
    reads=("text",),
    low=-3.0,
    high=3.0,
    coverage=0.9,
    languages=("en",),
)
SAID = "I thought the first half was slow and honestly a little dull but then it found its feet"


def utterance(
    start: float,
    end: float,
    score: float | None,
    *,
    text: str = SAID,
    doubts: Sequence[str] = (),
    out_of_range: str = "",
    voice: Mapping[str, float] | None = None,
) -> ScoredUtterance:
    """Words that share the time evenly; each one's effect falls from the first to the last."""
    words = text.split()
    edges = np.linspace(start, end, len(words) + 1)
    effects = np.linspace(0.6, -0.6, len(words))
    return ScoredUtterance(
        start=start,
        end=end,
        words=tuple(
            TimedWord(
                text=word,
                start=round(float(edges[k]), 3),
                end=round(float(edges[k + 1]), 3),
                confidence=0.9,
                effect=None if score is None else round(float(effects[k]), 4),
            )
            for k, word in enumerate(words)
        ),
        score=score,
        low=None if score is None else round(max(score - 1.2, -3.0), 4),
        high=None if score is None else round(min(score + 1.2, 3.0), 4),
        doubts=tuple(doubts),
        out_of_range=out_of_range,
        voice=dict(voice or {}),
    )


def track(name: str, kind: str, values: Sequence[float | None]) -> Track:
    """A measure at ten frames per second."""
    return Track(
        name=name,
        label=name.replace("_", " ").capitalize(),
        kind="face" if kind == "face" else "voice",
        unit="Hz" if kind == "voice" else "",
        meaning="made for a test",
        frames_per_second=10.0,
        values=tuple(values),
    )


def timeline(
    said: Sequence[ScoredUtterance],
    *,
    duration: float,
    tracks: Sequence[Track] = (),
    scorer: Scorer = SCORER,
    has_video: bool = False,
    remarks: Sequence[str] = (),
) -> Timeline:
    """A timeline of these utterances; what follows from them follows."""
    trend = smoothed(said, duration)
    spoken = [(word.start, word.end) for one in said for word in one.words]
    return Timeline(
        made_by="test",
        made_from={"clip": "0"},
        clip="talk.wav",
        duration=duration,
        has_video=has_video,
        scorer=scorer,
        summary=summarised(said, scorer),
        utterances=tuple(said),
        words_from="subtitles" if said else "",
        trend=trend,
        turning_points=turning_points(trend, said, scorer),
        low_confidence=doubtful(said),
        gaps=gaps_between(spoken, duration, what="no speech", least=2.0),
        tracks=tuple(tracks),
        speaker="there is no video",
        remarks=tuple(remarks),
    )


def talk(seconds: float = 60.0, *, seed: int = 0, has_video: bool = False) -> Timeline:
    """A talk of any length: an utterance every six seconds, eleven tracks, pauses, doubts."""
    random = np.random.default_rng(seed)
    starts = np.arange(1.0, seconds - 6.0, 6.0)
    said = [
        utterance(
            round(float(start), 3),
            round(float(start) + 4.5, 3),
            round(float(np.clip(2 * np.sin(start / 9.0) + random.normal(0, 0.4), -3, 3)), 4),
            doubts=("the recogniser is unsure of the words",) if number % 5 == 4 else (),
        )
        for number, start in enumerate(starts)
        if number % 7 != 6
    ]
    frames = round(seconds * 10)
    measured = np.cumsum(random.normal(0, 1, (11, frames)), axis=1).round(2)
    tracks = [
        track(
            f"measure_{row}",
            "voice" if row < 4 else "face",
            [None if (k // 90) % 5 == 4 else float(v) for k, v in enumerate(measured[row])],
        )
        for row in range(11)
    ]
    return timeline(said, duration=seconds, tracks=tracks, has_video=has_video)
