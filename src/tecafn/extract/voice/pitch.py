"""Fundamental frequency, voicing and the harmonics-to-noise ratio, by autocorrelation.

Source: P. Boersma, "Accurate short-term analysis of the fundamental frequency and the
harmonics-to-noise ratio of a sampled sound", IFA Proceedings 17 (1993), 97-110: the windowed
sound's autocorrelation divided by the window's, several candidates per frame, and the cheapest path
through them. Costs as in the paper but for the octave cost (.02) and voiced/unvoiced cost (.14).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.voice.signal import RATE_HZ, Samples, blocks, num_frames, parabola_top

LOWEST_HZ, HIGHEST_HZ = 60.0, 500.0
_WINDOW = 640
_FFT = 1_024
_CANDIDATES = 6
_OCTAVE_COST, _JUMP_COST, _VOICING_COST = 0.02, 0.35, 0.14
_VOICING_THRESHOLD, _SILENCE_THRESHOLD = 0.45, 0.02
_FAINTEST = 1e-4  # of full scale, -80 dB: nothing below it is called voiced
_MOST_HARMONIC = 1 - 1e-4


@dataclass(frozen=True)
class Pitch:
    """F0 of each frame.

    Args:
        f0_hz: (n,) fundamental frequency, 0 where unvoiced.
        strength: (n,) autocorrelation at the period, in [0, 1]; 0 where unvoiced.
    """

    f0_hz: NDArray[np.float64]
    strength: NDArray[np.float64]

    @property
    def voiced(self) -> NDArray[np.bool_]:
        """(n,) where there is a period."""
        return self.f0_hz > 0

    @property
    def hnr_db(self) -> NDArray[np.float64]:
        """(n,) harmonics-to-noise ratio, 10 log10(r / (1 - r)), at most 40 dB; 0 where unvoiced."""
        share = np.clip(self.strength, 1e-4, _MOST_HARMONIC)
        return np.where(self.voiced, 10 * np.log10(share / (1 - share)), 0.0)


def track(samples: Samples) -> Pitch:
    """F0 and its strength at 100 frames per second, 60 to 500 Hz.

    Args:
        samples: (N,) float32 at 16 kHz.

    Example:
        >>> time = np.arange(16_000) / 16_000
        >>> pitch = track(np.sin(2 * np.pi * 200 * time).astype(np.float32))
        >>> bool(abs(np.median(pitch.f0_hz) - 200) < 0.5)
        True
    """
    count = num_frames(len(samples))
    if not count:
        return Pitch(np.zeros(0), np.zeros(0))
    loudest = float(np.abs(samples - samples.mean()).max())
    found = [_candidates(windows, loudest=loudest) for _, windows in blocks(samples, width=_WINDOW)]
    frequency = np.concatenate([part[0] for part in found])
    score = np.concatenate([part[1] for part in found])
    strength = np.concatenate([part[2] for part in found])
    chosen = _cheapest_path(frequency, score)
    rows = np.arange(count)
    return Pitch(frequency[rows, chosen], strength[rows, chosen])


def _window_autocorrelation() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The Hann window and its normalised autocorrelation."""
    window = np.hanning(_WINDOW + 2)[1:-1]
    spectrum = np.abs(np.fft.rfft(window, 2 * _WINDOW)) ** 2
    correlation = np.fft.irfft(spectrum)[:_WINDOW]
    return window.astype(np.float32), (correlation / correlation[0]).astype(np.float32)


_HANN, _HANN_CORRELATION = _window_autocorrelation()


def _autocorrelation(windows: Samples, num_lags: int) -> NDArray[np.float32]:
    """(B, num_lags) autocorrelation of the sound: the windowed one divided by the window's."""
    from scipy.fft import irfft, rfft

    centred = (windows - windows.mean(axis=1, keepdims=True)) * _HANN
    spectrum = rfft(centred, _FFT, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    correlation = np.asarray(irfft(power, _FFT, axis=1)[:, :num_lags], np.float32)
    silent = correlation[:, :1] <= 0
    normalised = correlation / np.where(silent, 1, correlation[:, :1])
    return cast(NDArray[np.float32], normalised / _HANN_CORRELATION[:num_lags])


def _candidates(
    windows: Samples, *, loudest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Frequency, score and strength (B, 1 + candidates) of each frame; the first is "unvoiced"."""
    first, last = int(RATE_HZ / HIGHEST_HZ), int(RATE_HZ / LOWEST_HZ) + 1
    correlation = _autocorrelation(windows, last + 2)
    left, middle, right = (correlation[:, first + k : last + 1 + k] for k in (-1, 0, 1))
    is_peak = (middle > left) & (middle >= right) & (middle > _VOICING_THRESHOLD / 2)
    ranked = np.where(is_peak, middle, -np.inf)
    columns = np.argpartition(-ranked, _CANDIDATES, axis=1)[:, :_CANDIDATES]
    a, b, c = (np.take_along_axis(part, columns, 1).astype(float) for part in (left, middle, right))
    there = np.take_along_axis(is_peak, columns, 1)
    lag, height = parabola_top(a, b, c)
    period = (columns + first + lag) / RATE_HZ
    strength = np.where(height > 1, 1 / np.maximum(height, 1), height)
    there &= (period >= 1 / HIGHEST_HZ) & (period <= 1 / LOWEST_HZ)
    score = np.where(there, strength - _OCTAVE_COST * np.log2(LOWEST_HZ * period), -np.inf)
    quarter = _WINDOW // 4
    core = windows[:, quarter:-quarter]
    loudness = np.abs(core - core.mean(axis=1, keepdims=True)).max(axis=1) / max(loudest, 1e-30)
    silence = 2 - loudness * (1 + _VOICING_THRESHOLD) / _SILENCE_THRESHOLD
    unvoiced = _VOICING_THRESHOLD + np.maximum(silence, 0)
    if loudest < _FAINTEST:
        unvoiced[:] = np.inf
    zeros = np.zeros((len(windows), 1))
    return (
        np.hstack([zeros, np.where(there, 1 / period, 0.0)]),
        np.hstack([unvoiced[:, None], score]),
        np.hstack([zeros, np.where(there, strength, 0.0)]),
    )


def _cheapest_path(frequency: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) the candidate of each frame on the path of the highest score (Viterbi).

    Args:
        frequency: (n, K) Hz, 0 = unvoiced.
        score: (n, K), -inf where there is no candidate.
    """
    count, width = frequency.shape
    octaves = np.log2(np.maximum(frequency, 1.0))
    is_voiced = frequency > 0
    back = np.zeros((count, width), np.int64)
    best = np.minimum(score[0], 1e9)
    every = np.arange(width)
    for start in range(1, count, 4_096):
        part = slice(start, min(start + 4_096, count))
        before = slice(part.start - 1, part.stop - 1)
        jump = _JUMP_COST * np.abs(octaves[before, :, None] - octaves[part, None, :])
        both = is_voiced[before, :, None] & is_voiced[part, None, :]
        differ = is_voiced[before, :, None] != is_voiced[part, None, :]
        cost = np.where(both, jump, 0.0) + _VOICING_COST * differ
        local = np.minimum(score[part], 1e9)
        for row in range(len(cost)):
            total = best[:, None] - cost[row]
            came = total.argmax(axis=0)
            back[start + row] = came
            best = total[came, every] + local[row]
    path = np.empty(count, np.int64)
    path[-1] = best.argmax()
    for row in range(count - 1, 0, -1):
        path[row - 1] = back[row, path[row]]
    return path
