"""How the score runs: smoothed, where it turns, where it is doubtful, and a clip in few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tecafn.analyze.timeline import (
    Gap,
    ScoredUtterance,
    Scorer,
    Stretch,
    Summary,
    TimedWord,
    Trend,
    TurningPoint,
)

Floats = NDArray[np.float64]

SCORE_DIGITS: Final = 4
_LEAST_BANDWIDTH, _MOST_BANDWIDTH = 1.5, 45.0
_BANDWIDTH_SHARE = 1 / 15
_POINTS_PER_SECOND, _MOST_POINTS = 4.0, 600
# Beyond so many bandwidths from every utterance there is nothing to say.
FAR = 3.0
# A turn is told from this share of the scale's half on.
LEAST_CHANGE = 0.1
QUOTED_WORDS = 16
_NEIGHBOUR_SECONDS = 2.0
_KINDS: Final[tuple[tuple[int, Literal["peak", "low"]], ...]] = ((1, "peak"), (-1, "low"))


def smoothed(utterances: Sequence[ScoredUtterance], duration: float) -> Trend:
    """The scores' mean, weighted by the utterances' seconds and a Gaussian of their distance.

    The Gaussian's deviation is a fifteenth of the clip, at least 1.5 and at most 45 seconds.

    Args:
        utterances: those without a score are passed over.
        duration: of the clip in seconds.

    Example:
        >>> one = ScoredUtterance(start=0.0, end=2.0, score=1.0, words=())
        >>> set(smoothed([one], 2.0).values)
        {1.0}
    """
    bandwidth = float(np.clip(duration * _BANDWIDTH_SHARE, _LEAST_BANDWIDTH, _MOST_BANDWIDTH))
    count = int(np.clip(round(duration * _POINTS_PER_SECOND), 2, _MOST_POINTS))
    times = np.linspace(0.0, duration, count)
    scored = [one for one in utterances if one.score is not None]
    if not scored:
        return Trend(bandwidth=bandwidth, times=(), values=())
    middles = np.array([(one.start + one.end) / 2 for one in scored])
    reach = np.array([one.seconds / 2 for one in scored])
    scores = np.array([one.score for one in scored], dtype=np.float64)
    seconds = np.maximum([one.seconds for one in scored], 0.1)
    distance = np.abs(times[:, None] - middles[None])
    # Distances count from the nearest: far from all of them a Gaussian would be 0 / 0.
    exponent = -0.5 * (distance / bandwidth) ** 2
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True)) * seconds
    values = (weight * scores).sum(axis=1) / weight.sum(axis=1)
    known = (np.maximum(distance - reach, 0.0)).min(axis=1) <= FAR * bandwidth
    return Trend(
        bandwidth=round(bandwidth, 3),
        times=tuple(round(float(t), 3) for t in times),
        values=tuple(
            round(float(v), SCORE_DIGITS) if k else None for v, k in zip(values, known, strict=True)
        ),
    )


def turning_points(
    trend: Trend, utterances: Sequence[ScoredUtterance], scorer: Scorer
) -> tuple[TurningPoint, ...]:
    """Peaks and lows of the trend that stand out by a tenth of the scale's half, with their words.

    Args:
        trend: of the same utterances.
        utterances: in the order of their times.
        scorer: for the scale.
    """
    from scipy.signal import find_peaks

    least = LEAST_CHANGE * (scorer.high - scorer.low) / 2
    words = [word for one in utterances for word in one.words]
    found = []
    for first, last in _runs(trend.values):
        values = np.array(trend.values[first:last], dtype=np.float64)
        for sign, kind in _KINDS:
            places, about = find_peaks(sign * values, prominence=least)
            for place, change in zip(places, about["prominences"], strict=True):
                time = trend.times[first + place]
                found.append(
                    TurningPoint(
                        time=time,
                        value=round(float(values[place]), SCORE_DIGITS),
                        kind=kind,
                        change=round(float(change), SCORE_DIGITS),
                        quote=quote(words, time),
                    )
                )
    return tuple(sorted(found, key=lambda point: point.time))


def _runs(values: Sequence[float | None]) -> list[tuple[int, int]]:
    """(first, after the last) of stretches without None."""
    runs, first = [], None
    for place, value in enumerate([*values, None]):
        if value is not None and first is None:
            first = place
        elif value is None and first is not None:
            runs.append((first, place))
            first = None
    return runs


def quote(words: Sequence[TimedWord], time: float, *, num_words: int = QUOTED_WORDS) -> str:
    """The words around a moment, with an ellipsis where they go on.

    Args:
        words: in the order of their times.
        time: seconds.
        num_words: at most.

    Example:
        >>> said = [TimedWord(text=t, start=n, end=n + 1) for n, t in enumerate("abcdefg")]
        >>> quote(said, 3.5, num_words=3)
        '... c d e ...'
    """
    if not words:
        return ""
    nearest = min(range(len(words)), key=lambda k: abs((words[k].start + words[k].end) / 2 - time))
    first = max(min(nearest - num_words // 2, len(words) - num_words), 0)
    last = min(first + num_words, len(words))
    text = " ".join(word.text for word in words[first:last])
    return f"{'... ' if first else ''}{text}{' ...' if last < len(words) else ''}"


def doubtful(utterances: Sequence[ScoredUtterance]) -> tuple[Stretch, ...]:
    """Utterances with doubts; neighbours with the same ones are one stretch."""
    found: list[Stretch] = []
    for one in utterances:
        if not one.doubts:
            continue
        reason = "; ".join(one.doubts)
        before = found[-1] if found else None
        if before and before.reason == reason and one.start - before.end <= _NEIGHBOUR_SECONDS:
            found[-1] = Stretch(start=before.start, end=max(one.end, before.end), reason=reason)
        else:
            found.append(Stretch(start=one.start, end=one.end, reason=reason))
    return tuple(found)


def summarised(utterances: Sequence[ScoredUtterance], scorer: Scorer) -> Summary:
    """Over the utterances that have a score; what is out of the model's range has none.

    Example:
        >>> scorer = Scorer(name="a", identity="", trained_on="b", reads=("text",), low=-3, high=3)
        >>> said = [ScoredUtterance(start=0, end=3, score=1.0, words=()),
        ...         ScoredUtterance(start=3, end=4, score=-1.0, words=())]
        >>> summarised(said, scorer).mean
        0.5
    """
    scored = [(k, one, one.score) for k, one in enumerate(utterances) if one.score is not None]
    if not scored:
        return Summary(num_utterances=0, num_left_out=len(utterances), seconds=0.0)
    seconds = np.array([one.seconds for _, one, _ in scored])
    weights = np.maximum(seconds, 0.001)
    scores = np.array([score for _, _, score in scored])
    weights = weights / weights.sum()
    return Summary(
        num_utterances=len(scored),
        num_left_out=len(utterances) - len(scored),
        seconds=round(float(seconds.sum()), 3),
        mean=round(float(weights @ scores), SCORE_DIGITS),
        positive=round(float(weights[scores > scorer.middle].sum()), SCORE_DIGITS),
        negative=round(float(weights[scores < scorer.middle].sum()), SCORE_DIGITS),
        highest=scored[int(scores.argmax())][0],
        lowest=scored[int(scores.argmin())][0],
    )


def gaps_between(
    spans: Sequence[tuple[float, float]],
    duration: float,
    *,
    what: Literal["no speech", "no face"],
    least: float,
) -> tuple[Gap, ...]:
    """Stretches of at least ``least`` seconds that no span covers.

    Example:
        >>> [(gap.start, gap.end) for gap in
        ...  gaps_between([(1.0, 2.0), (2.5, 3.0)], 9.0, what="no speech", least=1.0)]
        [(0.0, 1.0), (3.0, 9.0)]
    """
    gaps, last = [], 0.0
    for start, end in (*sorted(spans), (duration, duration)):
        if start - last >= least:
            gaps.append(Gap(start=round(last, 3), end=round(start, 3), what=what))
        last = max(last, end)
    return tuple(gaps)
