"""A comparison's page names the methods that train longer than they were to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def comparison(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("comparison")


def _bench(comparison: ModuleType, minutes: float | None) -> Any:
    return comparison.Bench(
        title="",
        intro="",
        data=Path(),
        split="test",
        configs="synthetic",
        methods=None,
        overrides=(),
        minutes=minutes,
    )


def _summary(**seconds: float | None) -> dict[str, Any]:
    rows = [{"name": n, "seconds": s and {"mean": s}} for n, s in seconds.items()]
    return {"methods": rows}


def test_only_methods_beyond_the_limit_are_named(comparison: ModuleType) -> None:
    bench = _bench(comparison, 2.0)
    said = comparison.slow_methods(bench, _summary(quick=119.0, slow=240.0, refused=None))
    assert said == ["The budget is 2 minutes of training per run. These take longer: slow (4.0)."]
    assert comparison.slow_methods(bench, _summary(quick=119.0)) == [
        "The budget is 2 minutes of training per run. Every method keeps to it."
    ]


def test_without_a_limit_nothing_is_said(comparison: ModuleType) -> None:
    assert comparison.slow_methods(_bench(comparison, None), _summary(slow=240.0)) == []


def test_who_had_fewer_epochs_is_said_and_set(comparison: ModuleType) -> None:
    bench = dataclasses.replace(_bench(comparison, 2.0), shorter={"slow": 5})
    (said,) = comparison.slow_methods(bench, _summary(quick=100.0, slow=110.0))
    assert "Every method keeps to it. To come nearer to it, slow (5) train for fewer epochs" in said
    assert bench.all_overrides() == ("slow:training.max_epochs=5",)
    assert dataclasses.replace(bench, methods=("quick",)).all_overrides() == ()


def test_the_published_wiring_is_the_published_configs_model(comparison: ModuleType) -> None:
    bench = dataclasses.replace(_bench(comparison, None), published=("tetfn",))
    wired = bench.as_published()
    assert "tetfn:model.num_lower_layers=1" in wired
    assert 'tetfn:model.positions="each"' in wired
    assert "tetfn:model.scaled_inputs=true" in wired
    assert dataclasses.replace(bench, methods=("mult",)).as_published() == ()
