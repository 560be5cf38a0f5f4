"""Sequences of a stretch of a clip: the sound's and the face's frames on one clock, or per word."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.clip_features import Frames
from tecafn.extract.face import FaceTrack
from tecafn.extract.media import Audio
from tecafn.extract.voice import AudioTrack

Interval = tuple[float, float]

# A speech model hears a piece in relation to its loudest part, so a long stretch is cut.
_PIECE_SECONDS = 30.0
_NEAR_SECONDS = 0.1


def sound_frames(
    audio: Audio,
    track: AudioTrack,
    *,
    start: float,
    end: float,
    words: Sequence[Interval] | None = None,
    tell: Callable[[float], None] | None = None,
) -> Frames:
    """(L, D) frames of a stretch; frame n is of ``start + n / rate`` seconds and on, or of word n.

    Frames before the sound begins are NaN, and the sequence ends with the sound.

    Args:
        audio: the clip's sound.
        track: what makes frames.
        start: seconds on the clip's clock at which the stretch begins.
        end: seconds at which it ends.
        words: seconds of each word, for a mean per word in place of so many per second.
        tell: told the seconds that are done.
    """
    rate = track.frames_per_second
    begin, end = max(start, audio.start), min(end, audio.end)
    late = max(0, round((begin - start) * rate))
    at = start + late / rate  # the frames' grid; the sound may begin half a frame beside it
    missing = max(0, round((begin - at) * audio.rate))
    parts = [np.full((late, track.width), np.nan, np.float32)]
    while at < end - 1e-6:
        samples = audio.read(at, min(at + _PIECE_SECONDS, end))
        samples = np.pad(samples, (missing, 0)) if missing else samples
        if len(samples):
            parts.append(track(samples, native_rate_hz=audio.native_rate)[1])
        missing = 0
        at += _PIECE_SECONDS
        if tell is not None:
            tell(min(at, end))
    frames = np.concatenate(parts)
    if words is None:
        return frames
    times = start + (np.arange(len(frames)) + 0.5) / rate
    return _means(frames, times, words)


def face_frames(
    face: FaceTrack,
    *,
    start: float,
    end: float,
    rate: int,
    words: Sequence[Interval] | None = None,
) -> Frames:
    """(L, D) means over the pictures of each step or word, NaN where none shows the face.

    The sequence ends with the pictures.

    Args:
        face: through the clip.
        start: seconds on the clip's clock at which the stretch begins.
        end: seconds at which it ends.
        rate: steps per second.
        words: see ``sound_frames``.
    """
    if words is not None:
        return _means(face.values[face.mask], face.times[face.mask], words)
    last = face.times[-1]
    if end >= last:  # the last picture is a step's, whatever is left of that
        length = math.floor((last - start) * rate + 1e-6) + 1
    else:
        length = math.ceil((end - start) * rate - 1e-6)
    length = max(length, 0)
    number = np.floor((face.times - start) * rate + 1e-6).astype(np.int64)
    used = face.mask & (number >= 0) & (number < length)
    number = number[used]
    sums = np.zeros((length, face.values.shape[1]))
    np.add.at(sums, number, face.values[used].astype(np.float64))
    counts = np.bincount(number, minlength=length)
    means = np.full(sums.shape, np.nan, np.float32)
    means[counts > 0] = sums[counts > 0] / counts[counts > 0, None]
    return means


def _means(values: Frames, times: NDArray[np.float64], intervals: Sequence[Interval]) -> Frames:
    """A mean per interval; of one that has no frame, the nearest within a tenth of a second."""
    means = np.full((len(intervals), values.shape[1]), np.nan, np.float32)
    good = np.isfinite(values).all(axis=1)
    values, times = values[good], times[good]
    if not len(times):
        return means
    for row, (start, end) in enumerate(intervals):
        first, last = np.searchsorted(times, start), np.searchsorted(times, end, side="right")
        if first == last:
            middle = (start + end) / 2
            nearest = min((first - 1, first), key=lambda k: _away(times, int(k), middle))
            if _away(times, int(nearest), middle) > _NEAR_SECONDS:
                continue
            first, last = nearest, nearest + 1
        means[row] = values[first:last].mean(axis=0, dtype=np.float64)
    return means


def _away(times: NDArray[np.float64], place: int, moment: float) -> float:
    return abs(float(times[place]) - moment) if 0 <= place < len(times) else math.inf
