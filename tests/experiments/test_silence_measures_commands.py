"""A0: every command measures by the convention that the store carries."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_stores import make_labelled_store, sims_labels
from saved import log_predictions

from tecafn.cli import main
from tecafn.core.conventions import convention_named
from tecafn.core.errors import UserError
from tecafn.data import Store
from tecafn.evaluation.metrics import sentiment_metrics
from tecafn.experiments.compare import Protocol, compare_methods
from tecafn.experiments.config import load_config
from tecafn.experiments.cross_validation import cross_validate_run
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.paired import compare_runs
from tecafn.experiments.peeking import peek_at_test
from tecafn.experiments.run import train_run
from tecafn.records.predictions import read_predictions
from tecafn.records.record import read_record, write_record

pytestmark = pytest.mark.usefixtures("no_fsync")
SIMS = set(convention_named("sims").names)
SIZES = {"train": 24, "valid": 12, "test": 12}


@pytest.fixture(scope="module")
def sims_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sims") / "store"
    make_labelled_store(path, sims_labels(SIZES), dataset="ch-sims", label_range=(-1.0, 1.0))
    return path


@pytest.fixture(scope="module")
def sims_run(sims_store: Path, tiny_toml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chosen by CH-SIMS's ACC-2; copy it before writing to it."""
    run = tmp_path_factory.mktemp("sims") / "run"
    settings = load_config(
        tiny_toml, ["training.monitor=acc2", "training.keep_improving_epochs=true"]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        train_run(settings, data=sims_store, out=run, device="cpu", progress=False)
    return run


@pytest.fixture
def copied_run(sims_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sims_run, tmp_path / "copied")


def by_hand(run: Path, split: str, convention: str = "sims") -> dict[str, float]:
    """The measures of what a run has written."""
    rows = read_predictions(run / "predictions" / f"{split}.csv")
    return sentiment_metrics(rows.predictions, rows.labels, convention).defined()


def test_a0_the_store_carries_its_convention(sims_store: Path, tmp_path: Path) -> None:
    manifest = json.loads((sims_store / "manifest.json").read_text())
    assert manifest["convention"] == "sims"
    copied = shutil.copytree(sims_store, tmp_path / "store")
    for stated, expected in ((None, "sims"), ("signed-scale", "signed-scale")):
        changed = {k: v for k, v in manifest.items() if k != "convention"}
        changed |= {"convention": stated} if stated else {}
        (copied / "manifest.json").write_text(json.dumps(changed))
        assert Store.open(copied).description.convention == expected
        assert Store.open(copied).split("test").convention == expected
    (copied / "manifest.json").write_text(json.dumps(manifest | {"convention": "simms"}))
    with pytest.raises(UserError, match="unknown convention 'simms'; known: mosi, sims"):
        Store.open(copied)


def test_a0_training_watches_chooses_and_records_the_measures_of_the_store(sims_run: Path) -> None:
    record = read_record(sims_run)
    assert record["data"]["convention"] == "sims"
    assert record["training"]["monitor"] == "acc2"
    valid = record["evaluations"]["valid"]
    assert valid["convention"] == "sims"
    assert set(valid["metrics"]) == SIMS
    found = {k: v for k, v in valid["metrics"].items() if v is not None}
    assert found == pytest.approx(by_hand(sims_run, "valid"), abs=1e-6)
    assert record["training"]["monitor_value"] == pytest.approx(found["acc2"])
    assert valid["hard_pairs"] is None
    events = [json.loads(line) for line in (sims_run / "events.jsonl").read_text().splitlines()]
    watched = {name for e in events if e["event"] == "epoch" for name in e["valid"]}
    assert "acc2" in watched
    assert watched <= SIMS
    page = (sims_run / "report.html").read_text(encoding="utf-8")
    assert "ACC-5 (+-0.1, +-0.7)" in page
    assert "ACC-7" not in page
    assert "NN/N" not in page


def test_a0_evaluate_prints_the_measures_of_the_store(
    copied_run: Path, sims_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(copied_run), "--data", str(sims_store), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    for label in ("ACC-2 (<= 0, > 0)", "ACC-3 (+-0.1)", "ACC-5 (+-0.1, +-0.7)", "of sims"):
        assert label in shown
    assert "ACC-7" not in shown
    assert "P/N" not in shown


def test_a0_two_runs_are_paired_by_the_measures_of_the_store(
    copied_run: Path, sims_store: Path, tmp_path: Path
) -> None:
    evaluate_run(copied_run, data=sims_store, device="cpu")
    other = shutil.copytree(copied_run, tmp_path / "other")
    path = other / "predictions" / "test.csv"
    header, *lines = path.read_text().splitlines()
    place = header.split(",").index("prediction")
    # The other one predicts 3 more of every clip, 1 once clipped.
    rows = [line.split(",") for line in lines]
    for row in rows:
        row[place] = str(float(row[place]) + 3)
    path.write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    log_predictions(other, "test")
    found = compare_runs(copied_run, other, split="test")["difference"]
    assert set(found) == {"mae", "acc2"}
    for metric, mine in by_hand(copied_run, "test").items():
        if metric in found:
            theirs = by_hand(other, "test")[metric]
            assert found[metric]["value"] == pytest.approx(mine - theirs)


def test_a0_runs_measured_by_two_conventions_are_not_paired(
    copied_run: Path, sims_store: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(copied_run, tmp_path / "other")
    record = read_record(other)
    record["evaluations"]["valid"]["convention"] = "mmsa"
    write_record(other, record)
    with pytest.raises(UserError, match=r"by convention 'sims', .* by 'mosi': evaluate both again"):
        compare_runs(copied_run, other, split="valid")


def test_a0_an_evaluation_by_other_measures_is_made_anew(
    copied_run: Path, sims_store: Path
) -> None:
    right = evaluate_run(copied_run, data=sims_store, device="cpu")
    record = read_record(copied_run)
    # As version 0.1 measured CH-SIMS.
    record["evaluations"]["test"] |= {"convention": "mmsa", "metrics": {"acc7": 0.5}}
    write_record(copied_run, record)
    again = evaluate_run(copied_run, data=sims_store, device="cpu")
    assert again["metrics"] == right["metrics"]
    assert read_record(copied_run)["evaluations"]["test"]["convention"] == "sims"


def test_a0_the_authors_protocol_follows_the_store(copied_run: Path, sims_store: Path) -> None:
    outcome = peek_at_test(copied_run, data=sims_store, device="cpu")
    assert outcome["convention"] == "sims"
    assert set(outcome["metrics"]) == SIMS


def test_a0_folds_are_measured_and_chosen_by_the_store(
    sims_store: Path, tiny_toml: Path, tmp_path: Path
) -> None:
    settings = load_config(tiny_toml, ["training.max_epochs=1", "training.monitor=acc5"])
    record = cross_validate_run(
        settings,
        data=sims_store,
        out=tmp_path / "folds",
        by="video",
        num_folds=3,
        device="cpu",
        progress=False,
    )
    out_of_fold = record["evaluations"]["out-of-fold"]
    assert (record["data"]["convention"], out_of_fold["convention"]) == ("sims", "sims")
    assert set(out_of_fold["metrics"]) == SIMS


@pytest.mark.parametrize("monitor", ["acc7", "acc2_pos", "sign_accuracy", "accuracy"])
def test_a0_a_monitor_of_another_convention_is_refused_before_anything_is_written(
    monitor: str,
    sims_store: Path,
    tiny_toml: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    command = ["train", str(tiny_toml), "--data", str(sims_store), "--out", str(out)]
    assert main([*command, "--set", f"training.monitor={monitor}"]) == 2
    said = capsys.readouterr().err
    assert f"training.monitor '{monitor}' is not measured on ch-sims" in said
    assert "known: acc2, acc3, acc5, corr, f1, mae" in said
    assert not out.exists()


def test_a0_a_run_is_not_measured_on_labels_of_another_range(
    sims_run: Path, tiny_store: Path, sims_store: Path, tiny_run: Path
) -> None:
    with pytest.raises(UserError, match=r"labels from -1 to 1 .ch-sims., .* from -3 to 3 .tiny."):
        evaluate_run(sims_run, data=tiny_store, device="cpu")
    with pytest.raises(UserError, match="predictions and labels are on two scales"):
        evaluate_run(tiny_run, data=sims_store, device="cpu")


def test_a0_the_same_range_with_other_measures_is_measured_by_the_data_and_said(
    copied_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = sims_labels(SIZES, seed=1)
    own = make_labelled_store(tmp_path / "own", labels, label_range=(-1.0, 1.0))
    evaluation = evaluate_run(copied_run, data=own.path, device="cpu")
    assert evaluation["convention"] == "signed-scale"
    assert set(evaluation["metrics"]) == {"mae", "corr", "sign_accuracy"}
    said = capsys.readouterr().err
    assert "trained by the measures of 'sims'" in said
    assert "measured by those of 'signed-scale'" in said


@pytest.fixture
def fake_comparison(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The tables of two methods whose cells predict the labels and so much more."""

    def make(store: Store, shifts: dict[str, float], **options: Any) -> Any:
        from tecafn.evaluation.evaluator import Predictions
        from tecafn.experiments.evaluate import assess_view, prediction_rows
        from tecafn.records.predictions import write_predictions

        out, configs = tmp_path / "comparison", tmp_path / "configs"
        configs.mkdir()
        view = store.split("valid")
        for method, shift in shifts.items():
            (configs / f"{method}.toml").write_text(f'method = "{method}"\n')
            labels = np.asarray(view.labels, np.float64)
            answers = Predictions(
                tuple(view.ids), np.arange(len(view)), labels + shift, labels, None
            )
            run = out / method / "seed-0"
            write_predictions(run / "predictions" / "valid.csv", prediction_rows(view, answers))
            training = {
                "seconds": 1.0, "epochs": 1, "num_parameters": 1, "num_trained_parameters": 1
            }  # fmt: skip
            evaluations = {"valid": assess_view(view, answers)}
            settings = load_config(configs / f"{method}.toml").as_dict()
            record = {
                "format_version": 1,
                "method": method,
                "config": settings,
                "seed": 0,
                "data": {"hash": store.content_hash},
                "training": training,
            }
            write_record(run, record | {"evaluations": evaluations})
        protocol = Protocol(
            data=store.path,
            out=out,
            methods=tuple(shifts),
            seeds=(0,),
            configs=str(configs),
            device="cpu",
            threads=1,
            **options,
        )
        return compare_methods(protocol, train=False)

    return make


def test_a0_a_comparison_ranks_pairs_and_prints_by_the_store(
    sims_store: Path, tmp_path: Path, fake_comparison: Callable[..., dict[str, Any]]
) -> None:
    summary = fake_comparison(Store.open(sims_store), {"concat": 0.0, "tfn": 0.35})
    assert summary["data"]["convention"] == "sims"
    assert summary["best"] == "concat"
    assert set(summary["metrics"]) == SIMS
    rows = {row["name"]: row for row in summary["methods"]}
    assert set(rows["tfn"]["difference"]) == {"mae", "acc2"}
    labels = np.asarray(Store.open(sims_store).split("valid").labels, np.float64)
    error = np.abs(np.clip(labels + 0.35, -1, 1) - labels)
    assert rows["tfn"]["difference"]["mae"]["value"] == pytest.approx(error.mean(), abs=1e-6)
    for ending in ("md", "html", "tex", "csv"):
        text = (tmp_path / "comparison" / f"comparison.{ending}").read_text(encoding="utf-8")
        assert "ACC-7" not in text
        assert "acc7" not in text
        assert ("acc5_mean" if ending == "csv" else "ACC-5 (+-0.1, +-0.7)") in text


def test_a0_a_comparison_of_ratings_has_mae_and_correlation(
    tmp_path: Path, fake_comparison: Callable[..., dict[str, Any]]
) -> None:
    labels = {"train": [1.0, 5.0, 3.0, 2.0], "valid": [1.0, 2.5, 4.0, 5.0], "test": [3.0]}
    store = make_labelled_store(tmp_path / "store", labels, label_range=(1.0, 5.0))
    summary = fake_comparison(store, {"concat": 0.0, "tfn": 0.5})
    assert summary["metrics"] == ["mae", "corr"]
    rows = {row["name"]: row for row in summary["methods"]}
    assert rows["tfn"]["difference"]["mae"]["value"] == pytest.approx(0.5)
    assert set(rows["tfn"]["difference"]) == {"mae"}


def test_a0_a_comparison_refuses_a_monitor_that_the_store_does_not_have(
    sims_store: Path, tmp_path: Path
) -> None:
    protocol = Protocol(
        data=sims_store,
        out=tmp_path / "out",
        methods=("concat",),
        seeds=(0,),
        configs="mosi",
        overrides=("training.monitor=acc7",),
        device="cpu",
    )
    with pytest.raises(UserError, match=r"concat: training.monitor 'acc7' is not measured on ch-s"):
        compare_methods(protocol)
