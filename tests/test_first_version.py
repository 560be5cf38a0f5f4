"""What version 0.1 left on disk still loads: a store, two finished runs, and one that was killed.

``fixtures/first-version`` was written by that version's own code. It is never written anew: what
today's code makes of these files is what a user of that version meets after an upgrade.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tecafn
from tecafn.data.store import Store
from tecafn.experiments.config import load_config
from tecafn.experiments.evaluate import evaluate_run, predict_run
from tecafn.experiments.run import train_run
from tecafn.report.html import write_report

RUNS = ("tecafn", "self_mm")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_fsync: None) -> Path:
    """A copy to write to; its configs name their text encoder relative to it."""
    folder = tmp_path / "kept"
    shutil.copytree(Path(__file__).parent / "fixtures" / "first-version", folder)
    monkeypatch.chdir(folder)
    return folder


def _numbers(path: Path) -> dict[str, float]:
    lines = path.read_text(encoding="utf-8").split()[1:]
    return {name: float(value) for name, value in (line.split(",") for line in lines)}


def test_its_store_opens_with_the_hash_that_its_runs_recorded(kept: Path) -> None:
    store = Store.open(kept / "store")
    store.verify()
    assert [len(store.split(name)) for name in ("train", "valid", "test")] == [8, 4, 4]
    for run in RUNS:
        record = json.loads((kept / "runs" / run / "record.json").read_text(encoding="utf-8"))
        assert record["data"]["hash"] == store.content_hash


@pytest.mark.parametrize("run", RUNS)
def test_its_runs_predict_what_they_predicted(kept: Path, run: str) -> None:
    folder = kept / "runs" / run
    count = predict_run(folder, data=kept / "store", split="test", out=kept / "p.csv", device="cpu")
    assert count == 4
    then, now = _numbers(folder / "predicted.csv"), _numbers(kept / "p.csv")
    assert then.keys() == now.keys()
    np.testing.assert_allclose([now[i] for i in then], list(then.values()), atol=2e-5)


@pytest.mark.parametrize("run", RUNS)
def test_the_test_evaluation_that_they_recorded_is_returned(kept: Path, run: str) -> None:
    folder = kept / "runs" / run
    recorded = json.loads((folder / "record.json").read_text(encoding="utf-8"))["evaluations"]
    assert evaluate_run(folder, data=kept / "store", device="cpu") == recorded["test"]


@pytest.mark.parametrize("run", RUNS)
def test_their_reports_are_drawn_and_their_networks_load_in_python(kept: Path, run: str) -> None:
    assert write_report(kept / "runs" / run).stat().st_size > 10_000
    predictor = tecafn.load(kept / "runs" / run)
    assert np.isfinite(predictor.predict(text="the film was good"))


def test_a_run_that_was_killed_goes_on_to_where_it_would_have_come(kept: Path) -> None:
    record = train_run(
        load_config(kept / "killed" / "config.toml"),
        data=kept / "store",
        out=kept / "killed",
        resume=True,
        device="cpu",
        progress=False,
    )
    assert record["training"]["epochs"] == 2
    # Version 0.1 went on to this figure from the same checkpoint. Its dropout masks had no elements
    # for padding, so that the draws of the last epoch are others.
    assert record["evaluations"]["valid"]["metrics"]["mae"] == pytest.approx(1.98936, abs=2e-2)
