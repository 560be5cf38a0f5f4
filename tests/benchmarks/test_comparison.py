"""What a benchmark's comparison trains besides the configs as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def comparison(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("comparison")


def test_the_published_wiring_is_the_published_configs_model(comparison: ModuleType) -> None:
    bench = comparison.Bench(
        title="",
        intro="",
        data=Path(),
        split="test",
        configs="synthetic",
        methods=None,
        overrides=(),
        published={"tecafn": (), "tetfn": ("training.max_epochs=5",)},
    )
    wired = bench.as_published()
    assert 'tecafn:model.variant="paper"' in wired
    assert "tetfn:model.num_lower_layers=1" in wired
    assert 'tetfn:model.positions="each"' in wired
    assert "tetfn:model.scaled_inputs=true" in wired
    assert "tetfn:training.max_epochs=5" in wired
    assert "tecafn:training.max_epochs=5" not in wired
    assert dataclasses.replace(bench, methods=("mult",)).as_published() == ()
