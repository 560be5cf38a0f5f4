"""Where somebody speaks, by the sound's energy; and whether words stand where the voice is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.voice.signal import HOP, RATE_HZ, Samples, num_frames
from tecafn.extract.words.word import Word

FRAMES_PER_SECOND = RATE_HZ // HOP

_ABOVE_FLOOR_DB, _BELOW_LOUDEST_DB = 12.0, 35.0
_LOWEST_DB = -60.0
_FLOOR_SHARE, _LOUD_SHARE = 10, 95  # percentiles
_SHORTEST_PAUSE_FRAMES, _SHORTEST_SOUND_FRAMES = 6, 3

LARGEST_DRIFT_SECONDS = 0.5
_SEARCHED_SECONDS = 3.0
_WINDOW_SECONDS = 30.0
_FEWEST_WORDS = 4
_LEAST_GAIN, _LEAST_AGREEMENT = 0.1, 0.4


def active_frames(samples: Samples) -> NDArray[np.bool_]:
    """(n,) frames of 10 ms with a voice's energy, stops and breaths between them filled.

    Active is what is 12 dB above the noise floor (the tenth percentile) and within 35 dB of the
    loud parts; -60 dB of full scale and below never is. Meant for sound in which there is speech:
    it does not tell speech from music.

    Args:
        samples: (N,) float32 at 16 kHz.
    """
    count = num_frames(len(samples))
    if not count:
        return np.zeros(0, np.bool_)
    padded = np.pad(samples, (0, count * HOP - len(samples))).reshape(count, HOP)
    power = np.einsum("nh,nh->n", padded, padded, dtype=np.float64) / HOP
    smooth = np.convolve(np.pad(power, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    level = 10 * np.log10(np.maximum(smooth, 1e-10))
    floor, loud = (float(np.percentile(level, share)) for share in (_FLOOR_SHARE, _LOUD_SHARE))
    # Where speech fills everything the floor is speech itself.
    threshold = max(min(floor + _ABOVE_FLOOR_DB, loud - 15), loud - _BELOW_LOUDEST_DB, _LOWEST_DB)
    active = level > threshold
    active = _without_short_runs(active, value=False, shortest=_SHORTEST_PAUSE_FRAMES)
    return _without_short_runs(active, value=True, shortest=_SHORTEST_SOUND_FRAMES)


def _without_short_runs(
    active: NDArray[np.bool_], *, value: bool, shortest: int
) -> NDArray[np.bool_]:
    """Runs of ``value`` between runs of the other that are shorter become the other."""
    result = active.copy()
    edges = np.flatnonzero(np.diff(active.astype(np.int8))) + 1
    bounds = [0, *edges.tolist(), len(active)]
    for first, last in itertools.pairwise(bounds):
        at_edge = first == 0 or last == len(active)
        if active[first] == value and last - first < shortest and (value or not at_edge):
            result[first:last] = not value
    return result


def snapped(
    words: Sequence[Word], active: NDArray[np.bool_], *, start: float = 0.0
) -> tuple[Word, ...]:
    """The words cut to where the voice is: a recogniser stretches them over pauses.

    Silence at a word's beginning or end is cut off; of a word that spans a pause of at least .2 s
    the longest part with voice is kept. A word without any voice stays as it is.

    Args:
        words: their times.
        active: (n,) see ``active_frames``.
        start: seconds of the first frame.
    """
    return tuple(_snapped(word, active, start) for word in words)


def _snapped(word: Word, active: NDArray[np.bool_], start: float) -> Word:
    first = max(round((word.start - start) * FRAMES_PER_SECOND), 0)
    last = min(round((word.end - start) * FRAMES_PER_SECOND), len(active))
    inside = active[first:last]
    if last <= first or not inside.any():
        return word
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(np.int8), [0]])))
    runs = [list(run) for run in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]
    joined = [runs[0]]
    for run in runs[1:]:
        if run[0] - joined[-1][1] < 0.2 * FRAMES_PER_SECOND:
            joined[-1][1] = run[1]
        else:
            joined.append(run)
    begin, end = max(joined, key=lambda run: run[1] - run[0])
    first_time = start + (first + begin) / FRAMES_PER_SECOND
    last_time = start + (first + end) / FRAMES_PER_SECOND
    least = 0.06
    return Word(
        word.text,
        first_time if first_time - word.start > least else word.start,
        last_time if word.end - last_time > least else word.end,
        word.confidence,
        word.interpolated,
    )


@dataclass(frozen=True)
class Drift:
    """A stretch of a clip in which words stand beside the voice.

    Args:
        start, end: seconds of the stretch.
        seconds: how much later than the voice the words are; negative = earlier.
    """

    start: float
    end: float
    seconds: float

    def __str__(self) -> str:
        late = "late" if self.seconds > 0 else "early"
        return (
            f"words between {self.start:.1f} and {self.end:.1f} s are {abs(self.seconds):.1f} s "
            f"{late} against the voice"
        )


def drifts(words: Sequence[Word], active: NDArray[np.bool_], *, start: float = 0.0) -> list[Drift]:
    """Stretches whose words fit the voice's energy better when they are moved by over .5 s.

    Windows of 30 s are compared with the voice at shifts of up to 3 s. Speech without pauses fits
    any shift and is never flagged.

    Args:
        words: in the order of their times.
        active: (n,) see ``active_frames``.
        start: seconds of the first frame.
    """
    found = []
    length = len(active)
    for begin in np.arange(0, max(length, 1), int(_WINDOW_SECONDS * FRAMES_PER_SECOND)):
        end = min(int(begin + _WINDOW_SECONDS * FRAMES_PER_SECOND), length)
        low, high = start + begin / FRAMES_PER_SECOND, start + end / FRAMES_PER_SECOND
        inside = [word for word in words if low <= (word.start + word.end) / 2 < high]
        if len(inside) < _FEWEST_WORDS:
            continue
        shift = _best_shift(inside, active, start)
        if shift is not None and abs(shift) > LARGEST_DRIFT_SECONDS:
            found.append(Drift(inside[0].start, inside[-1].end, -shift))
    return found


def _best_shift(words: Sequence[Word], active: NDArray[np.bool_], start: float) -> float | None:
    """Seconds by which the words should be moved; None where no shift is clearly better."""
    reach = int(_SEARCHED_SECONDS * FRAMES_PER_SECOND)
    first = int((words[0].start - start) * FRAMES_PER_SECOND) - reach
    last = int((words[-1].end - start) * FRAMES_PER_SECOND) + reach + 1
    spoken = np.zeros(last - first)
    for word in words:
        at = int((word.start - start) * FRAMES_PER_SECOND) - first
        to = int((word.end - start) * FRAMES_PER_SECOND) - first
        spoken[at : max(to, at + 1)] = 1
    voice = np.zeros(len(spoken))
    have = slice(max(first, 0), min(last, len(active)))
    if have.stop <= have.start:
        return None
    voice[have.start - first : have.stop - first] = active[have]
    if not 0 < voice.mean() < 1:
        return None
    # Wrapped round at the ends, where both are mostly silent.
    centred, other = spoken - spoken.mean(), voice - voice.mean()
    lags = np.arange(-reach, reach + 1)
    spectrum = np.fft.rfft(other) * np.conj(np.fft.rfft(centred))
    norm = float(np.linalg.norm(centred)) * float(np.linalg.norm(other))
    agreement = np.fft.irfft(spectrum, len(spoken))[lags] / max(norm, 1e-12)
    best = int(agreement.argmax())
    gain = agreement[best] - agreement[reach]
    if agreement[best] < _LEAST_AGREEMENT or gain < _LEAST_GAIN:
        return None
    return float(lags[best]) / FRAMES_PER_SECOND
