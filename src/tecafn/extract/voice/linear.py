"""Linear prediction of many windows at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Sound = NDArray[np.floating[Any]]


def predictor(windows: Sound, order: int) -> Floats:
    """Linear prediction by the autocorrelation method, all windows in one Levinson recursion.

    Args:
        windows: (B, N) windowed sound.
        order: coefficients after the leading 1.

    Returns:
        (B, order + 1): the inverse filter 1 + a1 z^-1 + ...; (1, 0, ...) for a silent window.

    Example:
        >>> decay = 0.5 ** np.arange(64.0)
        >>> predictor(decay[None], 1).round(3).tolist()
        [[1.0, -0.5]]

    Source: J. Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 63 (1975).
    """
    windows = windows.astype(np.float64)
    size = windows.shape[1]
    correlation = np.stack(
        [np.einsum("bn,bn->b", windows[:, : size - k], windows[:, k:]) for k in range(order + 1)],
        axis=1,
    )
    correlation[:, 0] = correlation[:, 0] * (1 + 1e-9) + 1e-12
    filters = np.zeros((len(windows), order + 1))
    filters[:, 0] = 1
    error = correlation[:, 0].copy()
    for step in range(1, order + 1):
        ahead = np.einsum("bk,bk->b", filters[:, :step], correlation[:, step:0:-1])
        reflection = -ahead / error
        mirrored = filters[:, step - 1 :: -1] if step > 1 else filters[:, :1]
        filters[:, 1 : step + 1] = (
            filters[:, 1 : step + 1] + reflection[:, None] * mirrored[:, :step]
        )
        error = np.maximum(error * (1 - reflection**2), 1e-15)
    return filters


def filtered(windows: Sound, filters: Floats) -> Sound:
    """Each window through its own FIR filter, zeros before its first sample; in the windows' type.

    Args:
        windows: (B, N).
        filters: (B, K).

    Example:
        >>> filtered(np.array([[1.0, 1.0, 1.0]]), np.array([[1.0, -1.0]])).tolist()
        [[1.0, 0.0, 0.0]]
    """
    taps = filters.astype(windows.dtype)
    result = taps[:, :1] * windows
    for lag in range(1, taps.shape[1]):
        result[:, lag:] += taps[:, lag : lag + 1] * windows[:, :-lag]
    return result


def integrated(windows: Sound, leak: float = 0.99) -> Sound:
    """Each window through the leaky integrator 1 / (1 - leak z^-1)."""
    from scipy.signal import lfilter

    over, under = np.ones(1, windows.dtype), np.array([1.0, -leak], windows.dtype)
    return np.asarray(lfilter(over, under, windows, axis=1), windows.dtype)
