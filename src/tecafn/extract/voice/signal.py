"""What all voice measures share: one channel at one rate, and frames on one clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tecafn.core.errors import UserError

Samples = NDArray[np.float32]

RATE_HZ = 16_000
"""Samples per second that measures and speech models work at."""

HOP = 160
"""Samples from one frame to the next: 100 frames per second."""

_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 8_000, 192_000
_BLOCK_FRAMES = 3_000


def prepared(samples: NDArray[Any], rate_hz: int) -> Samples:
    """One channel of float32 samples at 16 kHz.

    Args:
        samples: (N,) or (N, channels), floats in [-1, 1] or signed integers of their full range;
            channels are averaged.
        rate_hz: samples per second, 8,000 to 192,000.

    Returns:
        (N * 16000 / rate,) float32; resampled by a polyphase filter where the rate differs.

    Raises:
        UserError: the rate or the shape is another, or a sample is no finite number.

    Example:
        >>> prepared(np.zeros((48_000, 2)), 48_000).shape
        (16000,)
    """
    if not _LOWEST_RATE_HZ <= rate_hz <= _HIGHEST_RATE_HZ:
        raise UserError(
            f"sound must have {_LOWEST_RATE_HZ} to {_HIGHEST_RATE_HZ} samples per second, "
            f"got {rate_hz}"
        )
    if samples.ndim not in (1, 2):
        raise UserError(f"sound must be (N,) or (N, channels), got shape {samples.shape}")
    values = _floats(samples)
    if values.ndim == 2:
        values = values.mean(axis=1, dtype=np.float32)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise UserError(f"sound must hold finite numbers, got {bad} that are NaN or infinite")
    return resampled(values, rate_hz, RATE_HZ)


def _floats(samples: NDArray[Any]) -> Samples:
    """Integers scaled by their type's range; floats as they are."""
    if samples.dtype.kind == "i":
        return np.asarray(samples / -float(np.iinfo(samples.dtype).min), np.float32)
    if samples.dtype.kind != "f":
        raise UserError(f"sound must hold floats or signed integers, got {samples.dtype}")
    return np.asarray(samples, np.float32)


def resampled(samples: Samples, rate_hz: int, to_hz: int) -> Samples:
    """The same sound at another rate, by SciPy's polyphase filter.

    Example:
        >>> resampled(np.zeros(800, np.float32), 8_000, 16_000).shape
        (1600,)
    """
    if rate_hz == to_hz or not len(samples):
        return samples
    from scipy.signal import resample_poly

    common = math.gcd(rate_hz, to_hz)
    return np.asarray(resample_poly(samples, to_hz // common, rate_hz // common), dtype=np.float32)


def num_frames(num_samples: int) -> int:
    """How many frames of 10 ms cover so many samples at 16 kHz; the last may be cut short.

    Example:
        >>> num_frames(16_000), num_frames(16_001), num_frames(0)
        (100, 101, 0)
    """
    return -(-num_samples // HOP)


def frame_times(count: int) -> NDArray[np.float64]:
    """(count,) seconds of the frames' middles: .005, .015, ...

    Example:
        >>> frame_times(2).tolist()
        [0.005, 0.015]
    """
    return np.asarray((np.arange(count) + 0.5) * (HOP / RATE_HZ), np.float64)


def blocks(
    samples: Samples, *, width: int, hop: int = HOP, count: int | None = None
) -> Iterator[tuple[slice, Samples]]:
    """Windows around the frames' middles, some thousand at a time so that memory stays level.

    Args:
        samples: (N,) sound; zeros stand before and after it.
        width: samples per window.
        hop: samples per frame at this sound's rate.
        count: frames; None = as many as cover the sound.

    Yields:
        Which frames, and their (B, width) samples, read-only.

    Example:
        >>> [(part, windows.shape) for part, windows in blocks(np.zeros(800), width=400)]
        [(slice(0, 5, None), (5, 400))]
    """
    total = -(-len(samples) // hop) if count is None else count
    for start in range(0, total, _BLOCK_FRAMES):
        stop = min(start + _BLOCK_FRAMES, total)
        yield slice(start, stop), windows_at(samples, start, stop, width=width, hop=hop)


def windows_at(samples: Samples, start: int, stop: int, *, width: int, hop: int) -> Samples:
    """(stop - start, width) windows around the middles of frames ``start`` to ``stop`` - 1."""
    first = start * hop + hop // 2 - width // 2
    last = (stop - 1) * hop + hop // 2 - width // 2 + width
    inside = samples[max(first, 0) : max(min(last, len(samples)), 0)]
    before = max(-first, 0)
    padded = np.pad(inside, (before, (last - first) - before - len(inside)))
    return sliding_window_view(padded, width)[::hop]


def parabola_top(
    left: NDArray[np.float64], middle: NDArray[np.float64], right: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The top of the parabola through three neighbouring samples, of which the middle is highest.

    Returns:
        Its place in samples from the middle one, in [-1, 1], and its height.

    Example:
        >>> place, height = parabola_top(np.array([0.0]), np.array([1.0]), np.array([1.0]))
        >>> float(place[0]), float(height[0])
        (0.5, 1.125)
    """
    curvature = np.minimum(left - 2 * middle + right, -1e-12)
    place = np.clip((left - right) / (2 * curvature), -1, 1)
    return place, middle - (left - right) * place / 4
