"""Labels that contradict one another, or the columns beside them, are said; withheld ones too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.importing import import_dataset
from tecafn.data.integrity import check, refuse_errors
from tecafn.data.label_survey import LabelSurvey
from tecafn.data.store import Store

Write = Callable[..., Path]
Scores = Sequence[float] | NDArray[np.float64]
SCORES = np.round(np.random.default_rng(0).uniform(-3, 3, 60), 1)
HEADER = ("video_id", "clip_id", "text", "label", "annotation", "mode")


def _rows(
    labels: Scores, words: Sequence[str] | None = None, *, num_train: int = 40
) -> list[tuple[str, ...]]:
    return [
        (f"{'train' if n < num_train else 'test'}{n // 4}", str(n % 4 + 1), f"it was fine {n}",
         f"{label:g}", words[n] if words else "", "train" if n < num_train else "test")
        for n, label in enumerate(labels)
    ]  # fmt: skip


def _import(write_table: Write, rows: Sequence[tuple[str, ...]], tmp_path: Path) -> Store:
    return import_dataset(write_table(HEADER, *rows), format=None, out=tmp_path / "store")


@pytest.mark.parametrize("withheld", [0.0, -1.0])
def test_labels_of_a_split_that_are_one_number_are_no_labels(
    write_table: Write, tmp_path: Path, withheld: float
) -> None:
    store = _import(write_table, _rows([*SCORES[:40], *[withheld] * 20]), tmp_path)
    said = f"all 20 labels of test are {withheld:g}"
    assert f"{said}, which `tecafn data check` calls an error" in store.manifest["warnings"]
    report = check(store)  # its first error is the empty split
    assert [row.message for row in report.rows if row.level == "error"][1:] == [said]
    with pytest.raises(UserError, match=f"{said}; import it without the labels of that split"):
        refuse_errors(store, allowed=False)


def test_labels_that_differ_or_are_few_say_nothing(write_table: Write, tmp_path: Path) -> None:
    store = _import(write_table, _rows([*SCORES[:40], *[0.0] * 9], num_train=40), tmp_path)
    assert store.manifest["warnings"] == []
    assert refuse_errors(store, allowed=False) == ()


@pytest.mark.parametrize(
    "change",
    [lambda x: x / 3, lambda x: (x > 0) * 1.0, lambda x: np.abs(x), lambda x: x * 2],
    ids=["other scale", "classes", "no sign", "wider"],
)
def test_a_split_on_another_scale_is_said(change: Callable[..., NDArray[np.float64]]) -> None:
    survey = LabelSurvey("regression")
    for n, label in enumerate(np.concatenate([SCORES, change(SCORES)])):
        split = "train" if n < 60 else "test"
        survey.add(split, f"{split}{n // 2}", float(label), {})
    (doubt,) = survey.doubts()
    assert "are they on one scale?" in doubt


def test_splits_of_one_scale_and_videos_of_one_mood_are_not_doubted() -> None:
    survey = LabelSurvey("regression")
    for n, label in enumerate(np.tile(SCORES, 2)):
        survey.add("train" if n % 2 else "valid", f"v{n // 4}", float(label), {})
    for n in range(30):  # one speaker who liked it says as little as three clips of it
        survey.add("test", "happy", 0.2 + n / 20, {})
    assert survey.doubts() == ()
    assert survey.faults() == ()


def test_standardised_labels_are_said(write_table: Write, tmp_path: Path) -> None:
    labels = (SCORES - SCORES[:40].mean()) / SCORES[:40].std()
    rows = [
        (*row[:3], repr(float(y)), *row[4:]) for row, y in zip(_rows(labels), labels, strict=True)
    ]
    store = _import(write_table, rows, tmp_path)
    assert any("of train have mean 0 and deviation 1" in w for w in store.manifest["warnings"])


def test_labels_of_a_modality_that_are_copies_are_said() -> None:
    survey = LabelSurvey("regression")
    for n, label in enumerate(SCORES):
        survey.add("train", f"v{n}", label, {Modality.TEXT: label, Modality.AUDIO: label / 2})
    assert [doubt[:35] for doubt in survey.doubts()] == [
        "the labels of text equal the sample's o"[:35]
    ]


def _words(labels: Scores) -> list[str]:
    return [("Negative", "Neutral", "Positive")[int(np.sign(label)) + 1] for label in labels]


@pytest.mark.parametrize("shift", [0, 1])
def test_labels_against_the_annotation_beside_them_are_said(
    write_table: Write, tmp_path: Path, shift: int
) -> None:
    store = _import(write_table, _rows(np.roll(SCORES, shift), _words(SCORES)), tmp_path)
    said = [w for w in store.manifest["warnings"] if "contradict each other" in w]
    assert bool(said) == bool(shift)
    if said:
        assert said[0].startswith("label.csv: annotation and label contradict each other in ")
        assert "(row " in said[0]


@pytest.mark.parametrize("key", ["annotations", "classification_labels"])
def test_labels_of_mmsa_against_its_classes_are_said(dump: Write, tmp_path: Path, key: str) -> None:
    words = _words(SCORES)
    classes = np.array([("Negative", "Neutral", "Positive").index(word) for word in words])
    part = {
        "id": [f"train{n // 4}$_${n % 4 + 1}" for n in range(60)],
        "raw_text": [f"it was fine {n}" for n in range(60)],
        "regression_labels": np.roll(SCORES, 1),
        key: np.array(words) if key == "annotations" else classes,
    }
    store = import_dataset(dump({"train": part}), format=None, out=tmp_path / "store")
    (said,) = [w for w in store.manifest["warnings"] if "contradict" in w]
    assert said.startswith(f"{key} and regression_labels contradict each other in ")
    part["regression_labels"] = SCORES
    store = import_dataset(dump({"train": part}), format=None, out=tmp_path / "right")
    assert not [w for w in store.manifest["warnings"] if "contradict" in w]


def test_labels_in_a_column_of_objects_are_read(dump: Write, tmp_path: Path) -> None:
    part = {
        "id": [f"train{n // 4}$_${n % 4 + 1}" for n in range(60)],
        "raw_text": [f"it was fine {n}" for n in range(60)],
        "regression_labels": SCORES.astype(object),
    }
    store = import_dataset(dump({"train": part}), format=None, out=tmp_path / "store")
    assert store.split("train").column("label") == pytest.approx(SCORES.tolist())
