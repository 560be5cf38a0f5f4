"""Sounds whose answers are known, made from their definitions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Floats = NDArray[np.float64]

FORMANTS_HZ = (700.0, 1220.0, 2600.0, 3500.0, 4500.0)
BANDWIDTHS_HZ = (80.0, 90.0, 120.0, 150.0, 200.0)


def sine(frequency_hz: float, seconds: float = 1.0, *, rate_hz: int = 16_000) -> Floats:
    """A tone of half the full scale."""
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate_hz)) / rate_hz)


def noise(seconds: float = 1.0, *, rate_hz: int = 16_000, seed: int = 0) -> Floats:
    """White noise of a tenth of the full scale."""
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate_hz))


def pulses(periods: Floats, heights: Floats | None = None) -> Floats:
    """Band-limited impulses at the ends of periods that are given in samples."""
    ends = np.cumsum(periods)
    heights = np.ones(len(ends)) if heights is None else heights
    time = np.arange(int(ends[-1]) + 40)
    train = np.zeros(len(time))
    for end, height in zip(ends, heights, strict=True):
        near = slice(max(int(end) - 30, 0), int(end) + 31)
        offset = time[near] - end
        train[near] += height * np.sinc(offset) * np.cos(np.pi * np.clip(offset / 62, -0.5, 0.5))
    return train


def train(frequency_hz: float, seconds: float = 1.0, *, rate_hz: int = 16_000) -> Floats:
    """Impulses at one frequency, whose spectrum falls by 6 dB per octave as a radiated voice's."""
    impulses = pulses(np.full(int(seconds * frequency_hz), rate_hz / frequency_hz))
    tilt = np.exp(-2 * np.pi * 50 / rate_hz)
    return np.asarray(lfilter([1 - tilt], [1, -tilt], impulses[: int(seconds * rate_hz)]))


def through_formants(
    source: Floats,
    *,
    formants_hz: tuple[float, ...] = FORMANTS_HZ,
    bandwidths_hz: tuple[float, ...] = BANDWIDTHS_HZ,
    rate_hz: int = 16_000,
) -> Floats:
    """A source through resonators in a row, at half the full scale."""
    for frequency, bandwidth in zip(formants_hz, bandwidths_hz, strict=True):
        if frequency >= rate_hz / 2:
            continue
        radius = np.exp(-np.pi * bandwidth / rate_hz)
        angle = 2 * np.pi * frequency / rate_hz
        source = lfilter([1.0], [1, -2 * radius * np.cos(angle), radius**2], source)
    return 0.5 * source / np.abs(source).max()


def glottal_pulses(
    frequency_hz: float,
    open_quotient: float,
    seconds: float = 1.0,
    *,
    rate_hz: int = 16_000,
) -> tuple[Floats, Floats]:
    """Glottal flow in Rosenberg's trigonometric pulses, and its derivative.

    Source: A. Rosenberg, JASA 49 (1971), pulse C: the flow rises over two thirds of the open phase
    as (1 - cos) / 2 and falls as a quarter of a cosine.
    """
    phase = (np.arange(int(seconds * rate_hz)) * frequency_hz / rate_hz) % 1.0
    rise, fall = open_quotient * 2 / 3, open_quotient / 3
    rising, falling = phase < rise, (phase >= rise) & (phase < rise + fall)
    flow = np.zeros(len(phase))
    flow[rising] = 0.5 * (1 - np.cos(np.pi * phase[rising] / rise))
    flow[falling] = np.cos(np.pi / 2 * (phase[falling] - rise) / fall)
    return flow, np.append(np.diff(flow), 0)


def syllables(per_second: float, seconds: float = 4.0, *, rate_hz: int = 16_000) -> Floats:
    """A vowel that swells and fades so many times per second."""
    vowel = through_formants(train(120, seconds, rate_hz=rate_hz), rate_hz=rate_hz)
    time = np.arange(len(vowel)) / rate_hz
    return vowel * np.sin(np.pi * per_second * time) ** 2
