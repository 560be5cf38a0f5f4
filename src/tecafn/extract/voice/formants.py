"""Resonances of the vocal tract: roots of a linear predictor, frame by frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.voice.linear import Floats, predictor
from tecafn.extract.voice.signal import HOP, RATE_HZ, Samples, resampled, windows_at

COUNT = 3
_RATE_HZ, _ORDER = 10_000, 10
_NARROW_RATE_HZ, _NARROW_ORDER = 8_000, 8
_WINDOW_SECONDS = 0.05
_EMPHASIS_FROM_HZ = 50.0
_LOWEST_HZ, _EDGE_HZ = 90.0, 50.0
_BROADEST_HZ = 600.0


def track(samples: Samples, frames: NDArray[np.int64], *, source_rate_hz: int = RATE_HZ) -> Floats:
    """The first three formants of some frames.

    The sound is brought to 10 kHz (8 kHz where the source has no more), its highs are raised by
    6 dB per octave from 50 Hz, and each Gaussian-like window of 50 ms is predicted with two poles
    per formant (five below 5 kHz). Poles broader than 600 Hz count only where the narrower
    ones are too few.

    Args:
        samples: (N,) float32 at 16 kHz.
        frames: (V,) which frames of 10 ms.
        source_rate_hz: what the sound was recorded at.

    Returns:
        (V, 3) Hz, ascending; 0 where fewer poles were found.

    Source: as Praat's "To Formant (burg)", with the autocorrelation method in place of Burg's.
    """
    if not len(frames):
        return np.zeros((0, COUNT))
    narrow = source_rate_hz < _RATE_HZ
    rate, order = (_NARROW_RATE_HZ, _NARROW_ORDER) if narrow else (_RATE_HZ, _ORDER)
    sound = resampled(samples, RATE_HZ, rate)
    emphasis = np.exp(-2 * np.pi * _EMPHASIS_FROM_HZ / rate)
    raised = np.append(sound[:1], sound[1:] - np.float32(emphasis) * sound[:-1])
    width, hop = int(_WINDOW_SECONDS * rate), HOP * rate // RATE_HZ
    window = _gaussian(width)
    found = []
    for part in np.array_split(frames, -(-len(frames) // 2_000)):
        every = windows_at(raised, int(part[0]), int(part[-1]) + 1, width=width, hop=hop)
        chosen = every[part - part[0]] * window
        found.append(_resonances(predictor(chosen, order), rate))
    return np.concatenate(found)


def _gaussian(width: int) -> Floats:
    """Praat's window: a Gaussian that is brought to 0 at its ends."""
    place = (np.arange(width) + 0.5) / width - 0.5
    edge = np.exp(-12.0)
    return np.asarray((np.exp(-48 * place**2) - edge) / (1 - edge), np.float64)


def _resonances(filters: Floats, rate_hz: int) -> Floats:
    """(B, 3) frequencies of the predictor's lowest poles."""
    order = filters.shape[1] - 1
    companion = np.zeros((len(filters), order, order))
    companion[:, 0] = -filters[:, 1:]
    companion[:, np.arange(1, order), np.arange(order - 1)] = 1
    poles = np.linalg.eigvals(companion)
    frequency = np.angle(poles) * rate_hz / (2 * np.pi)
    bandwidth = -np.log(np.maximum(np.abs(poles), 1e-12)) * rate_hz / np.pi
    possible = (frequency > _LOWEST_HZ) & (frequency < rate_hz / 2 - _EDGE_HZ)
    narrow = possible & (bandwidth < _BROADEST_HZ)
    enough = narrow.sum(axis=1, keepdims=True) >= COUNT
    kept = np.where(enough, narrow, possible)
    lowest = np.sort(np.where(kept, frequency, np.inf), axis=1)[:, :COUNT]
    return np.where(np.isfinite(lowest), lowest, 0.0)
