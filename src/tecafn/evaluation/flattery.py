"""By how much a figure flatters that was chosen on the split it is reported on.

The field's habit is to report the epoch, and often the setting, with the best test error. Such a
figure is the best of several looks at one noisy split: on data that nobody has looked at the same
weights do worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Errors:
    """Errors of every epoch of every training, lower is better.

    Args:
        valid: (S, R, E) of S settings, R seeds and E epochs on the validation split.
        test: (S, R, E) on the test split.
        fresh: (S, R, E) on further data of the same kind, which chose nothing.

    Raises:
        ValueError: their shapes differ, or are not (S, R, E).
    """

    valid: Floats
    test: Floats
    fresh: Floats

    def __post_init__(self) -> None:
        shapes = {self.valid.shape, self.test.shape, self.fresh.shape}
        if len(shapes) != 1 or self.valid.ndim != 3:
            raise ValueError(f"errors must be three arrays (S, R, E), got {sorted(shapes)}")


@dataclass(frozen=True)
class Report:
    """What a way of choosing reports, and what is true of it, over draws of seeds.

    Args:
        reported: mean of the test error that is reported.
        fresh: mean error of the same weights on data that chose nothing.
        flattery: mean of ``fresh - reported``, less what the test split differs from the fresh data
            for every network alike.
        deviation: of the flattery over draws.
    """

    reported: float
    fresh: float
    flattery: float
    deviation: float


def choose(errors: Errors, *, by: str, num_seeds: int, num_draws: int, seed: int = 0) -> Report:
    """Choose epochs, and the best of the settings, by one split; report the mean over seeds.

    Of each setting so many of its seeds are drawn without replacement. Each training gives the
    epoch with the lowest error on the split that chooses, and the setting with the lowest mean of
    these is reported.

    Args:
        errors: of all trainings.
        by: ``valid`` or ``test``.
        num_seeds: trainings of each setting, at most R.
        num_draws: of seeds.
        seed: of the draws.

    Raises:
        ValueError: more seeds are asked for than there are.

    Example:
        >>> fresh = np.ones((1, 1, 2))
        >>> errors = Errors(valid=np.array([[[1.0, 2.0]]]), test=np.array([[[1.1, 0.9]]]),
        ...                 fresh=fresh)
        >>> report = choose(errors, by="test", num_seeds=1, num_draws=1)
        >>> round(report.reported, 2), round(report.flattery, 2)
        (0.9, 0.1)
    """
    if not 1 <= num_seeds <= errors.valid.shape[1]:
        raise ValueError(f"num_seeds must be 1 to {errors.valid.shape[1]}, got {num_seeds}")
    looked_at = {"valid": errors.valid, "test": errors.test}[by]
    epoch = looked_at.argmin(2, keepdims=True)
    chosen = {
        name: np.take_along_axis(array, epoch, 2)[:, :, 0]  # (S, R)
        for name, array in (("looked", looked_at), ("test", errors.test), ("fresh", errors.fresh))
    }
    # The test split may be easier than the fresh data for every network: that flatters nobody.
    easier = float((errors.fresh - errors.test).mean())
    random = np.random.default_rng(seed)
    reported, fresh = np.empty(num_draws), np.empty(num_draws)
    count_settings, count_seeds, _ = errors.valid.shape
    for draw in range(num_draws):
        # Each setting has its own seeds: nobody pairs them.
        order = random.permuted(np.tile(np.arange(count_seeds), (count_settings, 1)), axis=1)
        rows = order[:, :num_seeds]
        means = {n: np.take_along_axis(v, rows, 1).mean(1) for n, v in chosen.items()}
        best = int(means["looked"].argmin())
        reported[draw], fresh[draw] = means["test"][best], means["fresh"][best]
    flattery = fresh - reported - easier
    return Report(
        float(reported.mean()), float(fresh.mean()), float(flattery.mean()), float(flattery.std())
    )
