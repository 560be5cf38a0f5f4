"""How much periods and their amplitudes differ from one to the next: jitter and shimmer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tecafn.extract.voice.signal import HOP, RATE_HZ, Samples, frame_times, parabola_top

_WINDOW_SECONDS = 0.25
_LARGEST_RATIO = 1.3
_LARGEST_AMPLITUDE_RATIO = 1.6
_FEWEST_PERIODS = 3
_MATCH_LAGS = 6


def track(
    samples: Samples, f0_hz: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Local jitter and shimmer in the quarter of a second around each voiced frame.

    Jitter is the mean absolute difference of consecutive periods over the mean period, shimmer the
    same of their peak amplitudes; consecutive periods that differ by more than a factor of 1.3
    (amplitudes: 1.6) do not count.

    Args:
        samples: (N,) float32 at 16 kHz.
        f0_hz: (n,) of each frame, 0 where unvoiced.

    Returns:
        Two (n,) arrays of shares (.01 = 1 %); 0 where unvoiced or with fewer than three periods.

    Source: Praat's "jitter (local)" and "shimmer (local)".
    """
    jitter, shimmer = np.zeros(len(f0_hz)), np.zeros(len(f0_hz))
    for first, last in voiced_runs(f0_hz):
        marks, heights = period_marks(samples, f0_hz, first, last)
        if len(marks) < _FEWEST_PERIODS:
            continue
        periods = matched_periods(samples, marks)
        frames = np.arange(first, last)
        middles = frame_times(last)[first:] * RATE_HZ
        jitter[frames] = _local(periods, marks[1:], middles, _LARGEST_RATIO)
        shimmer[frames] = _local(heights, marks, middles, _LARGEST_AMPLITUDE_RATIO)
    return jitter, shimmer


def voiced_runs(f0_hz: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """First and last + 1 frame of each voiced stretch.

    Example:
        >>> list(voiced_runs(np.array([0, 99.0, 99.0, 0, 98.0])))
        [(1, 3), (4, 5)]
    """
    voiced = np.concatenate([[0], (f0_hz > 0).astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(voiced))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def period_marks(
    samples: Samples, f0_hz: NDArray[np.float64], first: int, last: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One mark per period of a voiced stretch: its highest (or lowest) sample, interpolated.

    Args:
        samples: (N,) float32 at 16 kHz.
        f0_hz: (n,) of each frame.
        first: the stretch's first frame.
        last: the frame after its last.

    Returns:
        Places in samples (with fractions) and amplitudes of the marks.
    """
    begin, end = first * HOP, min(last * HOP, len(samples))
    sound = samples[begin:end].astype(np.float64)
    sound = sound - sound.mean() if len(sound) else sound
    if len(sound) and -sound.min() > sound.max():
        sound = -sound
    marks: list[int] = []
    periods = RATE_HZ / f0_hz[first:last]
    # From the loudest period outwards in both directions.
    if not len(sound):
        return np.zeros(0), np.zeros(0)
    anchor = int(sound.argmax())
    marks = [*reversed(list(_walk(sound, periods, anchor, -1))), anchor]
    marks += list(_walk(sound, periods, anchor, 1))
    place = np.array([m for m in marks if 0 < m < len(sound) - 1], np.int64)
    shift, height = parabola_top(sound[place - 1], sound[place], sound[place + 1])
    return begin + place + shift, height


def matched_periods(samples: Samples, marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The time from each mark to the next at which the sound around them is most alike.

    Peaks jump with noise and resonances; the cross-correlation of whole periods does not.

    Args:
        samples: (N,) float32 at 16 kHz.
        marks: (M,) places in samples, ascending.

    Returns:
        (M - 1,) periods in samples, with fractions; at most seven samples from the marks' distance.
    """
    here = np.round(marks).astype(np.int64)
    distance = np.diff(here)
    half = max(int(np.median(distance)) // 2, 2)
    first = int(here[0]) - half - _MATCH_LAGS - 1
    last = int(here[-1]) + half + _MATCH_LAGS + 2
    inside = samples[max(first, 0) : last]
    before = max(-first, 0)
    padded = np.pad(inside, (before, last - first - before - len(inside)))
    energy = np.cumsum(np.concatenate([[0.0], padded.astype(np.float64) ** 2]))
    views = sliding_window_view(padded, 2 * half + 1)
    offset = -first - half  # views[c + offset] is centred on sample c
    lags = np.arange(-_MATCH_LAGS, _MATCH_LAGS + 1)
    ours = views[here[:-1] + offset]
    there = here[1:, None] + lags + offset
    others = views[there]  # (M - 1, lags, W)
    norm = np.sqrt(np.maximum(energy[there + 2 * half + 1] - energy[there], 1e-12))
    alike = (others @ ours[:, :, None])[:, :, 0] / norm
    best = np.clip(alike.argmax(axis=1), 1, len(lags) - 2)
    rows = np.arange(len(best))
    shift, _ = parabola_top(*(alike[rows, best + k] for k in (-1, 0, 1)))
    return np.asarray(distance + lags[best] + shift, np.float64)


def _walk(
    sound: NDArray[np.float64], periods: NDArray[np.float64], anchor: int, direction: int
) -> Iterator[int]:
    """Peaks one period apart, from ``anchor`` (left out) to the stretch's end."""
    place = anchor
    while True:
        period = periods[min(place // HOP, len(periods) - 1)]
        nearest, farthest = 0.8 * period, 1.2 * period
        low = int(place + (nearest if direction > 0 else -farthest))
        high = int(place + (farthest if direction > 0 else -nearest)) + 1
        if low < 0 or high > len(sound):
            return
        place = low + int(sound[low:high].argmax())
        yield place


def _local(
    values: NDArray[np.float64],
    places: NDArray[np.float64],
    middles: NDArray[np.float64],
    largest_ratio: float,
) -> NDArray[np.float64]:
    """Mean absolute difference of neighbours over their mean, in a window around each middle."""
    before, after = values[:-1], values[1:]
    small, large = np.minimum(before, after), np.maximum(before, after)
    counts = (small > 0) & (large <= largest_ratio * small)
    sums = np.stack([np.abs(after - before) * counts, (before + after) / 2 * counts, counts])
    running = np.concatenate([np.zeros((3, 1)), np.cumsum(sums, axis=1)], axis=1)
    half = _WINDOW_SECONDS * RATE_HZ / 2
    where = places[1:]
    start = np.searchsorted(where, middles - half)
    stop = np.searchsorted(where, middles + half)
    difference, level, count = running[:, stop] - running[:, start]
    known = (count >= _FEWEST_PERIODS - 1) & (level > 0)
    return np.where(known, difference / np.where(known, level, 1), 0.0)
