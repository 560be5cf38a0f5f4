"""A0 and A7 on the page: measures by the data's convention, errors that were allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import make_record, make_samples, write_predictions

from tecafn.evaluation.assessment import assess
from tecafn.report.html import write_report


def page_of(
    run: Path, *, convention: str, label_range: tuple[float, float], **data: Any
) -> tuple[str, dict[str, Any]]:
    """The page of a run on made-up data of that convention, and its record."""
    samples = make_samples(60, 0)
    low, high = label_range
    share = (samples["labels"] + 3) / 6
    samples["labels"] = np.round(low + share * (high - low), 2)
    samples["pair_ids"] = [""] * 60
    predictions = np.clip(samples["labels"] + 0.1, low, high)
    write_predictions(run, "test", samples, predictions, labelled=True)
    record = make_record()
    record["data"] |= {"label_range": list(label_range), "convention": convention, **data}
    evaluation = assess(
        predictions,
        samples["labels"],
        samples["videos"],
        convention=convention,
        label_range=label_range,
    )
    record["evaluations"] = {"test": {"split": "test", "chosen_on": "valid", **evaluation}}
    (run / "record.json").write_text(json.dumps(record))
    return write_report(run).read_text(encoding="utf-8"), record


def test_a0_the_page_of_sims_has_its_measures_and_its_five_classes(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, convention="sims", label_range=(-1.0, 1.0), dataset="ch-sims")
    for label in ("ACC-5 (+-0.1, +-0.7)", "ACC-3 (+-0.1)", "ACC-2 (&lt;= 0, &gt; 0)"):
        assert label in page
    assert "Confusion of the five classes" in page
    for other in ("ACC-7", "NN/N", "P/N", "seven classes"):
        assert other not in page
    assert "the sims convention" in page


def test_a0_the_page_of_ratings_has_mae_and_correlation_alone(tmp_path: Path) -> None:
    page, record = page_of(tmp_path, convention="scale", label_range=(1.0, 5.0), dataset="mine")
    assert set(record["evaluations"]["test"]["metrics"]) == {"mae", "corr"}
    for other in ("ACC-", "F1", "Confusion", "Sign accuracy"):
        assert other not in page


def test_a0_the_page_says_how_near_hard_pairs_are(tmp_path: Path) -> None:
    page, record = page_of(tmp_path, convention="scale", label_range=(1.0, 5.0), dataset="mine")
    assert record["evaluations"]["test"]["hard_pairs"]["max_gap"] == 0.2667
    assert "more than 0 and less than 0.2667" in page


def test_a0_the_page_of_mosi_is_as_it_was(tmp_path: Path) -> None:
    page, _ = page_of(tmp_path, convention="mosi", label_range=(-3.0, 3.0), dataset="cmu-mosi")
    for label in ("ACC-7", "ACC-2 NN/N", "ACC-2 P/N", "Confusion of the seven classes"):
        assert label in page
    assert "more than 0 and less than 0.4." in page


def test_a0_printed_numbers_stand_beside_mosi_measured_as_papers_do(tmp_path: Path) -> None:
    sizes = {"train": 1284, "valid": 229, "test": 686}
    for name, label_range in (("mosi", (-3.0, 3.0)), ("scale", (1.0, 5.0))):
        page, _ = page_of(
            tmp_path, convention=name, label_range=label_range, dataset="cmu-mosi", splits=sizes
        )
        assert ("Beside published numbers" in page) == (name == "mosi")


@pytest.mark.parametrize("name", ["mmsa", "mosi"])
def test_a0_a_record_of_version_0_1_is_drawn_by_the_rules_it_was_measured_by(
    name: str, tmp_path: Path
) -> None:
    page_of(tmp_path, convention="mosi", label_range=(-3.0, 3.0))
    record = json.loads((tmp_path / "record.json").read_text())
    del record["data"]["convention"]
    record["evaluations"]["test"]["convention"] = name
    record["evaluations"]["test"]["hard_pairs"].pop("max_gap")
    (tmp_path / "record.json").write_text(json.dumps(record))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "the mosi convention" in page
    assert "more than 0 and less than 0.4." in page


def test_a7_the_page_says_first_which_errors_were_allowed(tmp_path: Path) -> None:
    allowed = [{"name": "labels", "message": "3 outside -3 to 3: a (train): 5"}]
    page, _ = page_of(tmp_path, convention="mosi", label_range=(-3.0, 3.0), allowed_errors=allowed)
    said = "calls an error, allowed by name: labels: 3 outside -3 to 3: a (train): 5."
    assert said in page
    assert page.index(said) < page.index("<main>")
