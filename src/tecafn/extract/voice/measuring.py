"""All voice measures of a sound, in one table with named columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.extract.voice import formants, glottal, perturbation, pitch, rate, spectrum
from tecafn.extract.voice.signal import frame_times, num_frames, prepared

COLUMNS: tuple[str, ...] = (
    "f0_hz",
    "voiced",
    "hnr_db",
    "jitter",
    "shimmer",
    *(f"formant{k}_hz" for k in range(1, formants.COUNT + 1)),
    *glottal.COLUMNS,
    "syllables_per_second",
    *spectrum.COLUMNS,
)
"""Every measure, in the order of ``Measures.values``; ``docs/features.md`` defines them."""

FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class Measures:
    """Voice measures of one sound.

    Args:
        times: (n,) seconds of the frames' middles.
        values: (n, d) float32, finite; a measure that a frame does not have (F0 where nothing is
            voiced) is 0, and ``voiced`` says where.
        columns: d names.
    """

    times: NDArray[np.float64]
    values: NDArray[np.float32]
    columns: tuple[str, ...]

    def column(self, name: str) -> NDArray[np.float32]:
        """(n,) values of one measure.

        Raises:
            ValueError: there is no such column.
        """
        return self.values[:, self.columns.index(name)]


def measures(
    samples: NDArray[Any], rate_hz: int, *, start: float = 0.0, native_rate_hz: int | None = None
) -> Measures:
    """Pitch, resonances, voice source, spectrum and speech rate at 100 frames per second.

    Args:
        samples: (N,) or (N, channels), floats in [-1, 1] or signed integers; channels are averaged.
        rate_hz: samples per second, 8,000 to 192,000; the measures are those of 16 kHz.
        start: seconds of the first sample, which times count from.
        native_rate_hz: what the sound was recorded at, if it was resampled since.

    Returns:
        ``Measures`` with one frame per 10 ms or part of it, ``COLUMNS`` wide.

    Raises:
        UserError: see ``prepared``.

    Example:
        >>> tone = np.sin(2 * np.pi * 150 * np.arange(8_000) / 16_000)
        >>> found = measures(tone, 16_000)
        >>> found.values.shape, round(float(np.median(found.column("f0_hz"))))
        ((50, 35), 150)
    """
    sound = prepared(samples, rate_hz)
    count = num_frames(len(sound))
    found = pitch.track(sound)
    frames = np.flatnonzero(found.voiced)
    jitter, shimmer = perturbation.track(sound, found.f0_hz)
    resonances = np.zeros((count, formants.COUNT))
    resonances[frames] = formants.track(sound, frames, source_rate_hz=native_rate_hz or rate_hz)
    source = np.zeros((count, len(glottal.COLUMNS)))
    of_source = glottal.track(sound, frames, found.f0_hz[frames])
    source[frames] = np.column_stack([of_source[name] for name in glottal.COLUMNS])
    shape = spectrum.track(sound)
    values = np.column_stack(
        [
            found.f0_hz,
            found.voiced,
            found.hnr_db,
            jitter,
            shimmer,
            resonances,
            source,
            rate.track(shape["energy_db"], found.voiced),
            *(shape[name] for name in spectrum.COLUMNS),
        ]
    )
    return Measures(start + frame_times(count), values.astype(np.float32), COLUMNS)
