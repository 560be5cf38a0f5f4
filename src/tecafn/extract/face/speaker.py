"""Whose mouth moves with the voice.

The opening of the lips and the loudness of the voice rise and fall together. Over a second this
says little (in trials the right one of two talking faces 55 % of the time), over seven seconds much
(9 of 9); so a track is decided as a whole, over five seconds at least, and a small margin is
"unknown".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.extract.face.measures import MOUTH_OPENING
from tecafn.extract.face.tracks import FaceTrack
from tecafn.extract.media import Audio

UNKNOWN: Final = "unknown"
LOWEST_CONFIDENCE: Final = 0.85

_LEAST_SECONDS: Final = 5.0
_BAND_HZ: Final = (250.0, 4000.0)
# Both signals at this rate: the mouth opens and closes at most seven times per second.
_STEPS_PER_SECOND: Final = 25
_LAGS: Final = range(-2, 7)  # steps by which lips follow the voice: -80 to +240 ms
_SLOW_SECONDS: Final = 1.0  # what changes more slowly is a smile or a pause, not speech
_QUIET: Final = 1e-3
# Independent values per second of an envelope of speech, for the error of a correlation.
_FREE_PER_SECOND: Final = 8.0
# A correlation counts from so many of its errors on: the best of many lags is never nothing. With
# less, a mouth that cannot be seen, under a beard, lost to one that moved by chance.
_LEAST_ERRORS: Final = 2.5
_SHORT_SHARE: Final = 0.1


@dataclass(frozen=True)
class Choice:
    """Which face is taken for the speaker's.

    Args:
        track: the id; None = unknown.
        confidence: 0 to 1; 1 where there is nothing to choose.
        reason: a sentence for the user.
        scores: by track, the correlation of mouth and voice; NaN where it cannot be told.
    """

    track: int | None
    confidence: float
    reason: str
    scores: dict[int, float]


def choose(tracks: Sequence[FaceTrack], audio: Audio | None, *, face: str | None = None) -> Choice:
    """Decide on a face.

    Args:
        tracks: of one clip.
        audio: its sound, at 16 kHz; None = it has none.
        face: what the user says: ``left``, ``right``, or an id. None = whose mouth moves with the
            voice.

    Raises:
        UserError: ``face`` is none of these, or no track has that id.
    """
    if face is not None:
        return _named(tracks, face)
    if not tracks:
        return Choice(None, 1.0, "no face is seen", {})
    longest = max(track.num_seen for track in tracks)
    lasting = [track for track in tracks if track.num_seen >= _SHORT_SHARE * longest]
    energy = None if audio is None else _Voice(audio)
    scores = {t.id: _agreement(t, energy) if energy else math.nan for t in lasting}
    if len(lasting) == 1:
        others = len(tracks) - 1
        reason = "the only face" if not others else "the only face that is seen for long"
        return Choice(lasting[0].id, 1.0, reason, scores)
    number = len(lasting)
    if energy is None:
        return Choice(None, 0.0, f"which of {number} faces speaks cannot be told: no sound", scores)
    told = sorted((r, -track) for track, r in scores.items() if not math.isnan(r))
    if len(told) < number:
        reason = (
            f"which of {number} faces speaks cannot be told: "
            f"not each is seen for {_LEAST_SECONDS:g} s while there is sound"
        )
        return Choice(None, 0.0, reason, scores)
    (second, _), (best, which) = told[-2:]
    seconds = min(_seen_seconds(track) for track in lasting)
    error = math.sqrt(2.0 / (_FREE_PER_SECOND * seconds))
    sure = 0.5 * (1.0 + math.erf((best - second) / error / math.sqrt(2.0)))
    lowest = _LEAST_ERRORS * math.sqrt(1.0 / (_FREE_PER_SECOND * seconds))
    if sure < LOWEST_CONFIDENCE or best < lowest:
        reason = (
            f"which of {number} faces speaks is unknown: "
            f"mouth and voice agree at {best:.2f} and {second:.2f}"
        )
        return Choice(None, sure, reason, scores)
    return Choice(
        -which, sure, f"its mouth moves with the voice ({best:.2f}, {second:.2f})", scores
    )


def _named(tracks: Sequence[FaceTrack], face: str) -> Choice:
    wanted = face.strip().lower()
    if not (wanted in ("left", "right") or wanted.isdecimal()):
        raise UserError(f"--face must be left, right or the number of a track, got {face!r}")
    if not tracks:
        return Choice(None, 1.0, "no face is seen", {})
    if wanted.isdecimal():
        if int(wanted) not in [track.id for track in tracks]:
            known = ", ".join(str(track.id) for track in tracks)
            raise UserError(f"--face {face}: there is no such track; there is: {known}")
        return Choice(int(wanted), 1.0, "named by --face", {})
    # Of faces that pass through, the one seen for long is meant.
    longest = max(track.num_seen for track in tracks)
    lasting = [track for track in tracks if track.num_seen >= _SHORT_SHARE * longest]
    by_place = sorted(lasting, key=lambda track: (track.middle, track.id))
    return Choice(by_place[0 if wanted == "left" else -1].id, 1.0, "named by --face", {})


def _seen_seconds(track: FaceTrack) -> float:
    if len(track.times) < 2:
        return 0.0
    return float(track.mask.mean() * (track.times[-1] - track.times[0]))


class _Voice:
    """Loudness of the voice's band by the clip's clock, in steps; NaN where there is no sound."""

    def __init__(self, audio: Audio) -> None:
        step = round(audio.rate / _STEPS_PER_SECOND)
        levels = []
        self.start = audio.start
        for _, piece in audio.pieces(60.0):
            spectrum = np.fft.rfft(piece)
            at = np.fft.rfftfreq(len(piece), 1 / audio.rate)
            spectrum[(at < _BAND_HZ[0]) | (at > _BAND_HZ[1])] = 0
            voice = np.fft.irfft(spectrum, len(piece))
            whole = len(voice) // step * step
            levels.append(np.square(voice[:whole]).reshape(-1, step).mean(axis=1))
        power = np.concatenate(levels) if levels else np.zeros(0)
        loud = float(np.percentile(power, 95)) if len(power) else 0.0
        self.is_silent = loud <= 1e-9
        self.level = np.log10(np.maximum(power, _QUIET * loud) + 1e-12)

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) level at the seconds of the clip's clock."""
        number = np.floor((times - self.start) * _STEPS_PER_SECOND).astype(int)
        inside = (number >= 0) & (number < len(self.level))
        level = np.full(len(times), np.nan)
        level[inside] = self.level[number[inside]]
        return level


def _agreement(track: FaceTrack, voice: _Voice) -> float:
    """Highest correlation of mouth and voice over the lags; NaN where too little is there."""
    if voice.is_silent or track.num_seen < 2:
        return math.nan
    grid = np.arange(track.times[0], track.times[-1], 1 / _STEPS_PER_SECOND)
    seen = track.times[track.mask]
    opening = np.interp(grid, seen, track.values[track.mask, MOUTH_OPENING].astype(float))
    nearest = np.abs(seen[np.clip(np.searchsorted(seen, grid), 0, len(seen) - 1)] - grid)
    before = np.abs(seen[np.clip(np.searchsorted(seen, grid) - 1, 0, len(seen) - 1)] - grid)
    is_seen = np.minimum(nearest, before) < 0.25
    best = -1.0
    for lag in _LAGS:
        level = voice.at(grid - lag / _STEPS_PER_SECOND)
        both = is_seen & np.isfinite(level)
        if both.sum() < _LEAST_SECONDS * _STEPS_PER_SECOND:
            return math.nan
        best = max(best, _correlation(_fast(opening[both]), _fast(level[both])))
    return best


def _fast(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Less its running mean over a second."""
    window = np.ones(round(_SLOW_SECONDS * _STEPS_PER_SECOND))
    mean = np.convolve(signal, window, "same") / np.convolve(np.ones(len(signal)), window, "same")
    return np.asarray(signal - mean)


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / size if size > 1e-12 else 0.0
