"""Version 0.1 called the synthetic corpus `embedded`: what it wrote is read under today's name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tecafn
from tecafn.core.dataset_names import with_current_name
from tecafn.data.store import Store
from tecafn.data.synthetic import CorpusSpec, describe
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.shipped import choose_configs
from tecafn.records.comparison import COMPARISON_FILE, COMPARISON_FORMAT, read_comparison
from tecafn.records.record import read_record
from tecafn.report.html import write_report

FIRST_VERSION = Path(__file__).parent / "fixtures" / "first-version"
OLD, NEW = "embedded-mosi", "synthetic-mosi"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What version 0.1 wrote, as if its data had been the generated corpus."""
    folder = tmp_path_factory.mktemp("old") / "first-version"
    shutil.copytree(FIRST_VERSION, folder)
    renamed = 0
    for path in folder.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        renamed += '"dataset": "tiny"' in text
        path.write_text(text.replace('"dataset": "tiny"', f'"dataset": "{OLD}"'), encoding="utf-8")
    assert renamed >= 5  # the store, and each run's record and model
    return folder


def test_a_generated_corpus_is_named_synthetic() -> None:
    assert describe(CorpusSpec()).dataset == NEW
    assert describe(CorpusSpec(shape="mosei")).dataset == "synthetic-mosei"


def test_an_old_store_has_the_new_name_the_same_hash_and_its_configs(old: Path) -> None:
    store = Store.open(old / "store")
    assert store.description.dataset == store.manifest["dataset"] == NEW
    assert store.content_hash == Store.open(FIRST_VERSION / "store").content_hash
    chosen = choose_configs(None, store.description.dataset, task="regression", num_train=8)
    assert (chosen.folder.name, chosen.reason) == ("synthetic", "")


def test_an_old_run_is_evaluated_reported_and_loaded_under_the_new_name(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(old)  # its config names the text encoder relative to it
    run = old / "runs" / "tecafn"
    assert json.loads((run / "record.json").read_text())["data"]["dataset"] == OLD
    assert read_record(run)["data"]["dataset"] == NEW
    recorded = read_record(run)["evaluations"]["test"]
    assert evaluate_run(run, data=old / "store", device="cpu") == recorded
    page = write_report(run).read_text(encoding="utf-8")
    assert NEW in page
    assert OLD not in page
    assert tecafn.load(run).definition.dataset == NEW


def test_an_old_comparison_is_read_under_the_new_name(tmp_path: Path) -> None:
    summary = {"comparison_format": COMPARISON_FORMAT, "data": {"dataset": OLD, "hash": "12"}}
    (tmp_path / COMPARISON_FILE).write_text(json.dumps(summary))
    data: Any = read_comparison(tmp_path)["data"]
    assert data == {"dataset": NEW, "hash": "12"}


@pytest.mark.parametrize("document", [{}, {"data": None}, {"data": {"dataset": 3}}])
def test_a_document_that_names_no_dataset_is_left_as_it_is(document: dict[str, object]) -> None:
    assert with_current_name(document) == document


def test_no_kept_cell_has_the_old_name() -> None:
    cells = Path(__file__).parents[1] / "benchmarks" / "cells"
    names = {json.loads(p.read_text())["record"]["data"]["dataset"] for p in cells.rglob("*.json")}
    assert NEW in names
    assert OLD not in names
