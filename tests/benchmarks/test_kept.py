"""A cell that is kept and restored says what the run said, without the data's own words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from saved import read_rows

from tecafn.core.errors import UserError
from tecafn.data.store import Store
from tecafn.records.record import read_record


@pytest.fixture
def kept(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("kept")


def test_restored_cell_has_the_record_and_the_predictions(
    kept: ModuleType, tiny_run: Path, tiny_store: Path, tmp_path: Path
) -> None:
    cell, again = tmp_path / "cells" / "seed-0.json", tmp_path / "again"
    kept.keep(tiny_run, cell)
    kept.restore(cell, again, Store.open(tiny_store))
    assert read_record(again) == read_record(tiny_run)
    assert (again / "begun.json").read_text() == (tiny_run / "begun.json").read_text()
    before, after = (read_rows(r / "predictions" / "valid.csv") for r in (tiny_run, again))
    assert len(before) == len(after) > 0
    for row, restored in zip(before, after, strict=True):
        assert abs(float(row["prediction"]) - float(restored["prediction"])) <= 0.5e-4
        assert {**row, "prediction": ""} == {**restored, "prediction": ""}
    text = cell.read_text()
    assert not any(json.dumps(row["text"]) in text or row["id"] in text for row in before)


def test_cell_of_other_data_is_refused(
    kept: ModuleType,
    tiny_run: Path,
    make_store: Callable[..., Path],
    tmp_path: Path,
) -> None:
    kept.keep(tiny_run, tmp_path / "seed-0.json")
    other = Store.open(make_store(tmp_path / "other", seed=5))
    with pytest.raises(UserError, match="was trained on other data than"):
        kept.restore(tmp_path / "seed-0.json", tmp_path / "again", other)
