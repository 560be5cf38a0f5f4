"""Speech rate: how many syllables per second."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FRAMES_PER_SECOND = 100
_WINDOW_SECONDS = 2.0
_SMOOTHING = 5  # frames: 50 ms
_DIP_DB = 2.0
_BELOW_LOUDEST_DB = 25.0


def syllables(energy_db: NDArray[np.float64], voiced: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The frames of syllable nuclei: voiced peaks of energy between dips of at least 2 dB.

    Args:
        energy_db: (n,) level at 100 frames per second.
        voiced: (n,) where there is a period.

    Returns:
        (S,) frame numbers.

    Source: N. de Jong and T. Wempe, "Praat script to detect syllable nuclei and measure speech rate
    automatically", Behavior Research Methods 41 (2009). A peak within 25 dB of the loudest counts,
    where the script takes the median.
    """
    from scipy.signal import find_peaks

    if not voiced.any():
        return np.zeros(0, np.int64)
    kernel = np.hanning(_SMOOTHING + 2)[1:-1]
    padded = np.pad(energy_db, _SMOOTHING // 2, mode="edge")
    smooth = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    least = float(smooth.max()) - _BELOW_LOUDEST_DB
    # A peak at the sound's very edge is one, too.
    framed = np.concatenate([[smooth.min() - 99], smooth, [smooth.min() - 99]])
    peaks, _ = find_peaks(framed, height=least, prominence=_DIP_DB)
    peaks = peaks - 1
    return np.asarray(peaks[voiced[peaks]], np.int64)


def track(energy_db: NDArray[np.float64], voiced: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) syllables per second in the two seconds around each frame, or what there is of them."""
    count = len(energy_db)
    nuclei = np.zeros(count + 1)
    nuclei[syllables(energy_db, voiced) + 1] = 1
    running = np.cumsum(nuclei)
    half = int(_WINDOW_SECONDS * _FRAMES_PER_SECOND / 2)
    start = np.maximum(np.arange(count) - half, 0)
    stop = np.minimum(np.arange(count) + half, count)
    seconds = np.maximum(stop - start, 1) / _FRAMES_PER_SECOND
    return np.asarray((running[stop] - running[start]) / seconds, np.float64)
