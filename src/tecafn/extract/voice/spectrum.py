"""Energy, cepstrum and shape of the short-time spectrum."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.voice.signal import RATE_HZ, Samples, blocks, num_frames

_WINDOW, _FFT = 400, 512
_NUM_MELS, NUM_MFCC = 40, 13
_FLOOR = 1e-10  # of full scale squared: -100 dB
_ROLLOFF_SHARE = 0.85

COLUMNS = (
    "energy_db",
    *(f"mfcc_{k}" for k in range(NUM_MFCC)),
    "centroid_hz",
    "spread_hz",
    "rolloff_hz",
    "flatness",
    "flux",
    "alpha_ratio_db",
    "hammarberg_db",
    "zero_crossings_hz",
)


def track(samples: Samples) -> Mapping[str, NDArray[np.float64]]:
    """Every column of the spectrum at 100 frames per second, windows of 25 ms.

    Args:
        samples: (N,) float32 at 16 kHz.

    Returns:
        For each name in ``COLUMNS`` (n,) values; see ``docs/features.md`` for the definitions.
    """
    count = num_frames(len(samples))
    values = np.zeros((count, len(COLUMNS)))
    previous: NDArray[np.float64] | None = None
    for part, windows in blocks(samples, width=_WINDOW):
        power = _power(windows)
        shape = power / np.maximum(power.sum(axis=1, keepdims=True), 1e-30)
        values[part] = np.column_stack(
            [
                _decibels((windows.astype(np.float64) ** 2).mean(axis=1)),
                _cepstrum(power),
                *_moments(shape),
                _flatness(power),
                _flux(shape, previous),
                _band_ratio(power),
                _hammarberg(power),
                _zero_crossings(windows),
            ]
        )
        previous = shape[-1:]
    return dict(zip(COLUMNS, values.T, strict=True))


def _power(windows: Samples) -> NDArray[np.float64]:
    """(B, 257) power spectrum, scaled so that a full-scale sine has about 1 / 2 in all."""
    from scipy.fft import rfft

    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    spectrum = rfft(windows * window, _FFT, axis=1)
    power = spectrum.real.astype(np.float64) ** 2 + spectrum.imag.astype(np.float64) ** 2
    return np.asarray(power * (2 / (_FFT * float((window**2).sum()))), np.float64)


def _decibels(power: NDArray[np.float64]) -> NDArray[np.float64]:
    return 10 * np.log10(np.maximum(power, _FLOOR))


@functools.cache
def _frequencies() -> NDArray[np.float64]:
    return np.asarray(np.arange(_FFT // 2 + 1) * (RATE_HZ / _FFT), np.float64)


@functools.cache
def _mel_filters() -> NDArray[np.float64]:
    """(257, 40) triangles between 20 and 8,000 Hz, equally spaced on the mel scale.

    Source: S. Davis and P. Mermelstein, IEEE Trans. ASSP 28 (1980); mel = 2595 log10(1 + f / 700).
    """

    def mel(hertz: float) -> float:
        return float(2595 * np.log10(1 + hertz / 700))

    edges = 700 * (10 ** (np.linspace(mel(20), mel(RATE_HZ / 2), _NUM_MELS + 2) / 2595) - 1)
    frequency = _frequencies()[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0)


@functools.cache
def _cosines() -> NDArray[np.float64]:
    """(40, 13) orthonormal cosine transform, type 2."""
    place = (np.arange(_NUM_MELS) + 0.5) * np.pi / _NUM_MELS
    table = np.cos(place[:, None] * np.arange(NUM_MFCC)) * np.sqrt(2 / _NUM_MELS)
    table[:, 0] /= np.sqrt(2)
    return np.asarray(table, np.float64)


def _cepstrum(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """(B, 13) mel-frequency cepstral coefficients, natural logarithm."""
    return np.asarray(np.log(np.maximum(power @ _mel_filters(), _FLOOR)) @ _cosines(), np.float64)


def _moments(shape: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Centroid, spread and roll-off in Hz; 0 in silence."""
    frequency = _frequencies()
    there = shape.sum(axis=1) > 0.5
    centroid = shape @ frequency
    spread = np.sqrt(np.maximum(shape @ frequency**2 - centroid**2, 0))
    rolloff = frequency[(np.cumsum(shape, axis=1) >= _ROLLOFF_SHARE).argmax(axis=1)]
    return tuple(np.where(there, value, 0.0) for value in (centroid, spread, rolloff))


def _flatness(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Geometric over arithmetic mean of the power, 0 for a tone to 1 for white noise."""
    raised = power[:, 1:] + 1e-14
    return np.asarray(np.exp(np.log(raised).mean(axis=1)) / raised.mean(axis=1), np.float64)


def _flux(shape: NDArray[np.float64], previous: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Distance of the normalised spectrum's square root to the frame before: 0 to sqrt(2)."""
    before = np.concatenate([shape[:1] if previous is None else previous, shape[:-1]])
    return np.asarray(np.linalg.norm(np.sqrt(shape) - np.sqrt(before), axis=1), np.float64)


def _between(low_hz: float, high_hz: float) -> slice:
    step = RATE_HZ / _FFT
    return slice(int(np.ceil(low_hz / step)), int(np.ceil(high_hz / step)))


def _band_ratio(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Alpha ratio in dB: energy of 50 to 1,000 Hz over that of 1,000 to 5,000 Hz."""
    low = power[:, _between(50, 1_000)].sum(axis=1)
    high = power[:, _between(1_000, 5_000)].sum(axis=1)
    return _decibels(low) - _decibels(high)


def _hammarberg(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hammarberg index in dB: strongest of 0 to 2,000 Hz over strongest of 2,000 to 5,000 Hz."""
    low = power[:, _between(0, 2_000)].max(axis=1)
    high = power[:, _between(2_000, 5_000)].max(axis=1)
    return _decibels(low) - _decibels(high)


def _zero_crossings(windows: Samples) -> NDArray[np.float64]:
    """Changes of sign per second."""
    negative = np.signbit(windows)
    changes = (negative[:, 1:] != negative[:, :-1]).sum(axis=1)
    return np.asarray(changes * (RATE_HZ / (_WINDOW - 1)), np.float64)
