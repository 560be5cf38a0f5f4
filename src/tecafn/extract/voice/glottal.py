"""The voice source behind the vocal tract: glottal flow by inverse filtering, and its measures.

The flow comes from iterative adaptive inverse filtering (P. Alku, "Glottal wave analysis with pitch
synchronous iterative adaptive inverse filtering", Speech Communication 11 (1992)) of 50 ms around
each voiced frame at 8 kHz, so that telephone speech and studio recordings are measured alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.voice.linear import Floats, Sound, filtered, integrated, predictor
from tecafn.extract.voice.signal import HOP, RATE_HZ, Samples, resampled, windows_at

COLUMNS = ("naq", "qoq", "h1_h2_db", "psp")

_RATE_HZ = 8_000
_HOP = HOP * _RATE_HZ // RATE_HZ
_WIDTH = 400
_TRACT_ORDER, _SOURCE_ORDER = 10, 4
_FFT = 1_024
_HIGHEST_HARMONIC_HZ = 1_300  # the second of 500 Hz, and a quarter
_BLOCK = 500
_HIGHPASS_HZ = 40.0


def track(
    samples: Samples, frames: NDArray[np.int64], f0_hz: NDArray[np.float64]
) -> Mapping[str, NDArray[np.float64]]:
    """Glottal measures of some voiced frames.

    Args:
        samples: (N,) float32 at 16 kHz.
        frames: (V,) which frames of 10 ms.
        f0_hz: (V,) their fundamental frequency, 60 to 500 Hz.

    Returns:
        ``naq``: normalised amplitude quotient, the flow's peak-to-peak amplitude over its steepest
        fall times the period (P. Alku, T. Backstrom, E. Vilkman, JASA 112 (2002)).
        ``qoq``: quasi-open quotient, the share of the period for which the flow is above half of
        its amplitude (T. Hacki, Folia Phoniatrica 41 (1989)).
        ``h1_h2_db``: level of the first harmonic of the flow's derivative minus the second's.
        ``psp``: parabolic spectral parameter, the decay of one period's spectrum relative to that
        of a constant flow (P. Alku, H. Strik, E. Vilkman, Speech Communication 22 (1997)).
    """
    from scipy.signal import butter, sosfiltfilt

    if not len(frames):
        return {name: np.zeros(0) for name in COLUMNS}
    sound = resampled(samples, RATE_HZ, _RATE_HZ).astype(np.float64)
    rumble = butter(2, _HIGHPASS_HZ, "highpass", fs=_RATE_HZ, output="sos")
    if len(sound) > 3 * 2 * len(rumble) + 3:
        sound = sosfiltfilt(rumble, sound)
    found = []
    for part in np.array_split(np.arange(len(frames)), -(-len(frames) // _BLOCK)):
        chosen = frames[part]
        every = windows_at(
            np.asarray(sound, np.float32),
            int(chosen[0]),
            int(chosen[-1]) + 1,
            width=_WIDTH,
            hop=_HOP,
        )
        windows = every[chosen - chosen[0]]
        flow, derivative = inverse_filtered(windows)
        found.append(cycle_measures(flow, derivative, _RATE_HZ / f0_hz[part]))
    return dict(zip(COLUMNS, np.concatenate(found).T, strict=True))


def inverse_filtered(windows: Sound) -> tuple[Sound, Sound]:
    """Glottal flow and its derivative: the tract is estimated twice, the source taken out between.

    Args:
        windows: (B, N) sound at 8 kHz.

    Returns:
        Two (B, N) arrays.
    """
    taper = np.hanning(windows.shape[1])

    def prediction(sound: Sound, order: int) -> Floats:
        return predictor(sound * taper, order)

    tilt = prediction(windows, 1)
    first_tract = prediction(filtered(windows, tilt), _TRACT_ORDER)
    first_flow = integrated(filtered(windows, first_tract))
    source = prediction(first_flow, _SOURCE_ORDER)
    tract = prediction(integrated(filtered(windows, source)), _TRACT_ORDER)
    derivative = filtered(windows, tract)
    return integrated(derivative), derivative


def cycle_measures(flow: Sound, derivative: Sound, period: NDArray[np.float64]) -> Floats:
    """NAQ, QOQ, H1-H2 and PSP of the cycle in the middle of each window.

    Args:
        flow: (B, N) glottal flow.
        derivative: (B, N) its derivative per sample.
        period: (B,) samples, at most N / 3.

    Returns:
        (B, 4) in the order of ``COLUMNS``.
    """
    rows, place, inside, closing = _cycle(derivative, period)
    cycle = np.take_along_axis(flow, place, 1).astype(np.float64)
    cycle = _without_drift(cycle, period)
    lowest = np.where(inside, cycle, np.inf).min(axis=1)
    highest = np.where(inside, cycle, -np.inf).max(axis=1)
    amplitude = np.maximum(highest - lowest, 1e-12)
    steepest = np.maximum(-derivative[rows, closing], 1e-12)
    naq = np.clip(amplitude / (steepest * period), 0, 1)
    level = (lowest + amplitude / 2)[:, None]
    qoq = ((cycle > level) & inside).sum(axis=1) / period
    pulse = np.where(inside, cycle - lowest[:, None], 0.0)
    return np.column_stack(
        [naq, np.clip(qoq, 0, 1), _h1_h2(derivative, period), _parabolic(pulse, inside)]
    )


def _cycle(
    derivative: Sound, period: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """The cycle that ends with the closure nearest to the middle of each window.

    Returns:
        Row numbers (B,), sample numbers (B, M), which of them are in the cycle (B, M), and the
        sample (B,) of steepest fall: the instant of closure.
    """
    count, width = derivative.shape
    rows = np.arange(count)
    middle = width // 2
    longest = int(np.ceil(period.max()))
    first = middle - longest // 2 - 1
    around = np.arange(first, middle + longest // 2 + 2)
    near = np.abs(around - middle) <= period[:, None] / 2
    closing = first + np.where(near, derivative[:, around], np.inf).argmin(axis=1)
    # From a quarter of the period after one closure to a quarter after the next.
    start = closing - np.round(0.75 * period).astype(np.int64)
    place = np.clip(start[:, None] + np.arange(longest), 0, width - 1)
    inside = np.arange(longest) < np.round(period)[:, None]
    return rows, place, inside, closing


def _without_drift(cycle: Floats, period: NDArray[np.float64]) -> Floats:
    """The cycle minus the line through its first and last sample, which the integrator leaves."""
    last = np.round(period).astype(np.int64) - 1
    rows = np.arange(len(cycle))
    slope = (cycle[rows, last] - cycle[:, 0]) / np.maximum(last, 1)
    return cycle - cycle[:, :1] - slope[:, None] * np.arange(cycle.shape[1])


def _h1_h2(derivative: Sound, period: NDArray[np.float64]) -> NDArray[np.float64]:
    """Level of the first harmonic over the second's, in dB."""
    from scipy.fft import rfft

    window = np.hanning(derivative.shape[1]).astype(np.float32)
    num_bins = _HIGHEST_HARMONIC_HZ * _FFT // _RATE_HZ
    spectrum = np.abs(rfft(derivative.astype(np.float32) * window, _FFT, axis=1)[:, :num_bins])
    bin_number = np.arange(num_bins)
    first = _FFT / period

    def strongest(harmonic: int) -> NDArray[np.float64]:
        near = np.abs(bin_number - harmonic * first[:, None]) <= 0.25 * first[:, None]
        return np.asarray(np.where(near, spectrum, 0.0).max(axis=1), np.float64)

    return 20 * np.log10(np.maximum(strongest(1), 1e-12) / np.maximum(strongest(2), 1e-12))


def _parabolic(pulse: Floats, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Curvature of the pulse's low spectrum over that of a constant flow of the same length."""
    ours = _curvature(pulse)
    constant = _curvature(inside.astype(np.float64))
    return np.clip(ours / np.minimum(constant, -1e-12), 0, 1)


def _curvature(pulse: Floats) -> NDArray[np.float64]:
    """The parabola a k^2 + b through as much of the low spectrum (dB) as it fits to 1 percent."""
    from scipy.fft import rfft

    norm = np.maximum(np.linalg.norm(pulse, axis=1, keepdims=True), 1e-12)
    transformed = rfft((pulse / norm).astype(np.float32), _FFT, axis=1)[:, : _FFT // 8]
    spectrum = np.abs(transformed).astype(np.float64)
    level = 20 * np.log10(np.maximum(spectrum, 1e-9))
    # Shifted to 0 at its top, so that the criterion does not depend on the sound's level.
    level = level - level[:, :1] + 20.0
    square = np.arange(level.shape[1], dtype=np.float64) ** 2
    size = np.arange(1, level.shape[1] + 1)
    sum_x, sum_xx = np.cumsum(level, axis=1), np.cumsum(level**2, axis=1)
    sum_k, sum_kk = np.cumsum(square), np.cumsum(square**2)
    sum_xk = np.cumsum(level * square, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (size * sum_xk - sum_x * sum_k) / (size * sum_kk - sum_k**2)
        offset = sum_x / size - slope * sum_k / size
    error = (
        sum_xx
        + slope**2 * sum_kk
        + size * offset**2
        - 2 * slope * sum_xk
        - 2 * offset * sum_x
        + 2 * slope * offset * sum_k
    )
    fits = error[:, 2:] < 0.01 * sum_xx[:, 2:]
    first_misfit = np.where(fits.all(axis=1), fits.shape[1], (~fits).argmax(axis=1))
    last = np.maximum(first_misfit - 1, 0) + 2
    return np.asarray(slope[np.arange(len(pulse)), last], np.float64)
