"""F7: runs that answer with more than two classes are compared class by class, in every place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tecafn.core.conventions import convention_named
from tecafn.evaluation.errors import row_errors
from tecafn.experiments.paired import paired_differences
from tecafn.records.predictions import SplitPredictions

SOURCES = Path(__file__).resolve().parents[2] / "src" / "tecafn"
LABELS = np.array([0.0, 1, 2, 2, 1, 0])


def rows_of(predictions: list[float]) -> SplitPredictions:
    names = tuple(f"v_{n}" for n in range(6))
    return SplitPredictions(
        ids=names,
        videos=names,
        clips=names,
        texts=names,
        pair_ids=("",) * 6,
        predictions=np.array(predictions),
        labels=LABELS,
    )


def test_a_wrong_class_above_the_first_is_wrong() -> None:
    # Above one half and above one half alike, which once was a hit: 1 is not 2.
    right, half = rows_of(LABELS.tolist()), rows_of([0, 2, 1, 1, 1, 0])
    found = paired_differences(right, half, convention_named("classification"))
    assert found["accuracy"]["value"] == 0.5
    errors, _ = row_errors("accuracy", half.predictions, LABELS, convention="classification")
    assert errors.tolist() == [1, 0, 0, 0, 1, 1]


def test_two_classes_are_still_told_by_the_probability_of_the_second() -> None:
    errors, _ = row_errors(
        "accuracy", [0.2, 0.5, 0.51, 0.99], [0, 0, 1, 0], convention="classification"
    )
    assert errors.tolist() == [1, 1, 1, 0]


def test_nobody_cuts_classes_at_one_half_by_himself() -> None:
    cutting = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if re.search(r">=? ?0\.5\b", path.read_text(encoding="utf-8"))
    }
    assert {name for name in cutting if name.split("/")[0] in ("experiments", "report")} == set()
