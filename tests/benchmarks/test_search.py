"""A search tries what it says, as often for every method, and chooses by the validation split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def search(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("search")


def _bench(search: ModuleType, errors: dict[str, float]) -> tuple[Any, list[tuple[str, ...]]]:
    """A bench that looks errors up by the last setting of a trial, and what it was asked for."""
    asked: list[tuple[str, ...]] = []

    class Bench(search.Bench):  # type: ignore[name-defined, misc]
        def tried(self, method: str, settings: tuple[str, ...]) -> Any:
            asked.append(settings)
            known = [errors[setting] for setting in settings if setting in errors]
            return search.Trial(settings, min(known)) if known else None

    return Bench(data=Path(), out=Path(), train=False), asked


def test_methods_have_the_same_number_of_trainings(search: ModuleType) -> None:
    assert len({plan.num_trainings for plan in search.SEARCHES.values()}) == 1


def test_second_stage_starts_from_the_best_of_the_first(
    search: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = search.Search(start=("a=0",), first=("b=1", "b=2"), second=("a=9", "c=3"))
    monkeypatch.setitem(search.SEARCHES, "some", plan)
    bench, asked = _bench(search, {"b=1": 0.7, "b=2": 0.5, "a=9": 0.6, "c=3": 0.4})
    trials = list(bench.trials("some"))
    assert asked == [("a=0", "b=1"), ("a=0", "b=2"), ("a=9", "b=2"), ("a=0", "b=2", "c=3")]
    assert min(trials, key=lambda trial: trial.mae).settings == ("a=0", "b=2", "c=3")


def test_second_stage_waits_for_the_whole_first(
    search: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = search.Search(start=(), first=("b=1", "b=2"), second=("c=3",))
    monkeypatch.setitem(search.SEARCHES, "some", plan)
    bench, asked = _bench(search, {"b=1": 0.7})
    trials = list(bench.trials("some"))
    assert [trial.settings for trial in trials] == [("b=1",)]
    assert asked == [("b=1",), ("b=2",)]
    assert bench.chosen("some", trials) is None


def test_settings_are_shown_without_their_tables(search: ModuleType) -> None:
    settings = search.changed(("training.learning_rate=1e-3",), "model.rank=6")
    assert search.shown(settings) == "learning_rate=1e-3, rank=6"
