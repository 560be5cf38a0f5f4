"""What seeds say of a difference, beside what videos say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def variants(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("variants")


def _runs(variants: ModuleType, maes: Sequence[float]) -> Any:
    nothing = np.zeros(0)
    return variants.SeedRuns(
        records=[{"evaluations": {"test": {"metrics": {"mae": mae}}}} for mae in maes],
        predictions=nothing,
        labels=nothing,
        videos=nothing,
        pair_ids=[],
        split="test",
    )


def test_the_interval_over_seeds_is_welchs(variants: ModuleType) -> None:
    ours, theirs = _runs(variants, [0.50, 0.52, 0.54]), _runs(variants, [0.48, 0.50, 0.52])
    # Equal deviations of 0.02 and three seeds each: 4 degrees of freedom, t = 2.776.
    half = 2.776 * 0.02 * math.sqrt(2 / 3)
    expected = f"+0.020 [{0.02 - half:+.3f}, {0.02 + half:+.3f}]"
    assert variants.seeds_cell(ours, theirs) == expected == "+0.020 [-0.025, +0.065]"


def test_what_is_repeated_are_rows_that_there_are(variants: ModuleType) -> None:
    assert set(variants.REPEATED) <= set(variants.CHANGES)
    assert variants.REPEATED[0] == variants.PAPER
