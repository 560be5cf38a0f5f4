"""One run: what it writes, what it never reads, and that a kill changes nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from saved import read_rows

import tecafn
import tecafn.experiments.evaluate as evaluate_module
import tecafn.experiments.fit as fit_module
from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.data.store import SplitView, Store
from tecafn.evaluation.metrics import sentiment_metrics
from tecafn.experiments.config import load_config, parse_config
from tecafn.experiments.evaluate import evaluate_run, predict_run
from tecafn.experiments.paired import compare_runs
from tecafn.experiments.run import train_run
from tecafn.experiments.run_folder import check_begun
from tecafn.records.begun import Begun
from tecafn.records.record import file_hash, read_record, write_record
from tecafn.serving.predictor import load

TrainTiny = Callable[..., dict[str, Any]]
MakeStore = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run that may be written to."""
    return shutil.copytree(tiny_run, tmp_path / "run-copy")


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a tiny run's time."""
    monkeypatch.setattr("tecafn.report.html.write_report", lambda run: run / "report.html")


def num_steps(run: Path) -> int:
    """Whole lines that a run under way has written of its steps."""
    path = run / "events.jsonl"
    return path.read_text(encoding="ascii").count('"phase": ') if path.exists() else 0


def events(run: Path) -> list[dict[str, Any]]:
    lines = (run / "events.jsonl").read_text(encoding="ascii").splitlines()
    return [json.loads(line) for line in lines]


# What a run writes


def test_record_says_what_was_run_on_what_and_what_came_of_it(
    tiny_run: Path, tiny_store: Path, tiny_toml: Path
) -> None:
    record = read_record(tiny_run)
    assert load_config(tiny_run / "config.toml") == load_config(tiny_toml)
    assert record["config"] == load_config(tiny_toml).as_dict()
    assert record["data"]["hash"] == Store.open(tiny_store).content_hash
    assert record["data"]["splits"] == {"train": 20, "valid": 8, "test": 12}
    assert (record["method"], record["seed"]) == ("tecafn", 0)
    assert record["paper"].startswith("Huang et al.")
    assert record["versions"]["torch"] == torch.__version__
    training = record["training"]
    assert training["epochs"] == 2
    assert training["chosen_on"] == "valid"
    assert training["num_trained_parameters"] <= training["num_parameters"]
    assert list(record["evaluations"]) == ["valid"]
    valid = record["evaluations"]["valid"]
    assert valid["weights_hash"] == file_hash(tiny_run / "model" / "model.safetensors")
    # The checkpoint is that of the best epoch: its validation error is the monitored one.
    assert valid["metrics"]["mae"] == pytest.approx(training["monitor_value"], abs=1e-6)


def test_every_named_term_is_logged_every_step(tiny_run: Path) -> None:
    steps = [event for event in events(tiny_run) if event["event"] == "step"]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    named = {"task", "ta", "tv", "bicon", "tap", "tvp", "con", "ap"}
    for step in steps:
        assert named <= step["losses"].keys()
        assert set(step["learning_rates"]) == {"main", "text_encoder"}
    epochs = [event for event in events(tiny_run) if event["event"] == "epoch"]
    record = read_record(tiny_run)
    best = [epoch["epoch"] for epoch in epochs if epoch["best"]][-1]
    assert best == record["training"]["best_epoch"]
    assert list((tiny_run / "tensorboard").iterdir())


def test_predictions_are_those_of_the_exported_network(tiny_run: Path, tiny_store: Path) -> None:
    rows = read_rows(tiny_run / "predictions" / "valid.csv")
    view = Store.open(tiny_store).split("valid")
    assert [row["id"] for row in rows] == view.ids
    assert [row["text"] for row in rows] == view.texts
    assert [float(row["label"]) for row in rows] == pytest.approx(view.labels.tolist(), abs=1e-6)
    predictor = load(tiny_run)
    answers = predictor.predict(
        view.texts,
        audio=[view.sequence(row, "audio") for row in range(len(view))],  # type: ignore[arg-type]
        vision=[view.sequence(row, "vision") for row in range(len(view))],  # type: ignore[arg-type]
    )
    assert [float(row["prediction"]) for row in rows] == pytest.approx(answers.tolist(), abs=1e-5)
    metrics = sentiment_metrics(
        [float(row["prediction"]) for row in rows], [float(row["label"]) for row in rows], "mosi"
    )
    assert read_record(tiny_run)["evaluations"]["valid"]["metrics"] == pytest.approx(dict(metrics))


def test_report_is_one_file_and_checkpoints_keep_the_best_scheme_alone(tiny_run: Path) -> None:
    assert "<svg" in (tiny_run / "report.html").read_text(encoding="utf-8")
    kept = [path for path in (tiny_run / "checkpoints").rglob("*") if path.is_file()]
    assert {path.name for path in kept} == {"scheme.safetensors", "hashes.json"}
    assert len(kept) == 2


@pytest.mark.usefixtures("without_report")
def test_same_seed_gives_the_same_bits_and_another_seed_others(
    train_tiny: TrainTiny, tiny_run: Path, tmp_path: Path
) -> None:
    train_tiny("again")
    train_tiny("other", "seed=1")
    weights = [
        file_hash(run / "model" / "model.safetensors")
        for run in (tiny_run, tmp_path / "again", tmp_path / "other")
    ]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.usefixtures("without_report")
def test_classes_are_trained_evaluated_and_predicted(
    train_tiny: TrainTiny, make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "classes", task="classification")
    record = train_tiny("run", "training.monitor=accuracy", data=store)
    evaluation = evaluate_run(tmp_path / "run", data=store, device="cpu")
    for one in (record["evaluations"]["valid"], evaluation):
        assert {"accuracy", "f1"} <= one["metrics"].keys()
        assert one["hard_pairs"] is None
    rows = read_rows(tmp_path / "run" / "predictions" / "test.csv")
    chances = [float(row["prediction"]) for row in rows]
    assert all(0 < chance < 1 for chance in chances)
    hits = [(float(row["prediction"]) > 0.5) == (float(row["label"]) == 1) for row in rows]
    assert evaluation["metrics"]["accuracy"] == pytest.approx(np.mean(hits))


# What it never reads


@pytest.mark.usefixtures("without_report")
def test_training_never_reads_the_test_split(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch, make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store")
    original = Store.split
    asked: list[str] = []

    def split(self: Store, name: str) -> SplitView:
        asked.append(name)
        if name == "test":
            raise AssertionError("training asked for the test split")
        return original(self, name)

    monkeypatch.setattr(Store, "split", split)
    train_tiny("run", data=store)
    train_tiny("frozen", "num_trained_text_layers=0", data=store)
    assert set(asked) == {"train", "valid"}


@pytest.mark.usefixtures("without_report")
def test_test_labels_text_and_frames_do_not_change_a_bit_of_training(
    train_tiny: TrainTiny, make_store: MakeStore, tmp_path: Path
) -> None:
    # The test split is generated last, so these differ in it alone.
    sizes = {"train": 20, "valid": 8}
    for name, number in (("one", 3), ("other", 9)):
        store = make_store(tmp_path / f"store-{name}", sizes=sizes | {"test": number})
        train_tiny(name, data=store)
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_unlabelled_training_rows_are_refused(
    train_tiny: TrainTiny, make_store: MakeStore, tmp_path: Path
) -> None:
    for split in ("train", "valid"):
        store = make_store(tmp_path / split, unlabelled=(split,))
        with pytest.raises(UserError, match=f"split '{split}' must have labels"):
            train_tiny(f"run-{split}", data=store)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_store_without_a_needed_split_is_refused(
    train_tiny: TrainTiny, make_store: MakeStore, tmp_path: Path, split: str
) -> None:
    store = make_store(tmp_path / "store", sizes={"train": 8, "valid": 4, "test": 4} | {split: 0})
    with pytest.raises(UserError, match=f"split '{split}' of .* is empty"):
        train_tiny(data=store)


# One directory, one run


def test_second_run_into_the_same_directory_is_refused(
    train_tiny: TrainTiny, run: Path, tiny_store: Path, tiny_toml: Path
) -> None:
    before = file_hash(run / "record.json")
    with pytest.raises(UserError, match="holds a run already"):
        train_run(load_config(tiny_toml), data=tiny_store, out=run, device="cpu", progress=False)
    assert file_hash(run / "record.json") == before


def test_finished_run_is_left_as_it_is_by_a_resume(
    run: Path, tiny_store: Path, tiny_toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: file_hash(path) for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr(fit_module, "Trainer", None)
    record = train_run(
        load_config(tiny_toml), data=tiny_store, out=run, resume=True, device="cpu", progress=False
    )
    assert record == read_record(run)
    assert {path: file_hash(path) for path in run.rglob("*") if path.is_file()} == before


def test_run_killed_while_drawing_gets_its_report_from_a_resume(
    run: Path, tiny_store: Path, tiny_toml: Path
) -> None:
    (run / "report.html").unlink()
    train_run(
        load_config(tiny_toml), data=tiny_store, out=run, resume=True, device="cpu", progress=False
    )
    assert (run / "report.html").is_file()


def test_record_appears_only_with_its_validation(
    train_tiny: TrainTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A record says that the run is finished; one without an evaluation would stay without.
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module, "assess_view", fail)
        with pytest.raises(RuntimeError, match="killed here"):
            train_tiny("run")
    assert not (tmp_path / "run" / "record.json").exists()
    assert "valid" in train_tiny("run", resume=True)["evaluations"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.max_epochs=3", "config.training.max_epochs 2, got 3"),
        ("seed=1", "config.seed 0, got 1"),
        ('modalities=["text"]', r"config.modalities \['text', 'audio', 'vision'\], got \['text'\]"),
        ("model.weights={ta = 0.0}", "config.model.weights.ta None, got 0.0"),
    ],
)
def test_resume_with_other_settings_is_refused(
    run: Path, tiny_store: Path, tiny_toml: Path, override: str, told: str
) -> None:
    with pytest.raises(UserError, match=f"was begun with {told}"):
        train_run(
            load_config(tiny_toml, [override]),
            data=tiny_store,
            out=run,
            resume=True,
            device="cpu",
            progress=False,
        )


def test_a_finished_run_without_its_beginning_is_resumed_as_its_record_says(
    run: Path, tiny_store: Path, tiny_toml: Path, make_store: MakeStore, tmp_path: Path
) -> None:
    (run / "begun.json").unlink()

    def resume(*overrides: str, data: Path = tiny_store) -> None:
        settings = load_config(tiny_toml, overrides)
        train_run(settings, data=data, out=run, resume=True, device="cpu", progress=False)

    resume()
    with pytest.raises(
        UserError, match=r"by its record\.json, was begun with config\.seed 0, got 9"
    ):
        resume("seed=9")
    with pytest.raises(UserError, match=r"was begun with config\.method 'tecafn', got 'concat'"):
        resume("method=concat", "model={}")
    with pytest.raises(UserError, match="was begun with data_hash"):
        resume(data=make_store(tmp_path / "other", seed=1))


def test_a_record_of_another_run_is_not_returned(
    run: Path, train_tiny: TrainTiny, tiny_toml: Path, tiny_store: Path, tmp_path: Path
) -> None:
    train_tiny("other", "seed=1")
    shutil.copy(tmp_path / "other" / "record.json", run / "record.json")
    with pytest.raises(
        UserError, match=r"by its record\.json, was begun with config\.seed 1, got 0"
    ):
        train_run(
            load_config(tiny_toml),
            data=tiny_store,
            out=run,
            resume=True,
            device="cpu",
            progress=False,
        )


def test_a_run_begun_before_a_setting_came_has_its_default(run: Path, tmp_path: Path) -> None:
    begun: Begun = json.loads((run / "begun.json").read_text(encoding="utf-8"))
    older = json.loads(json.dumps(begun))
    del older["config"]["model"]["num_layers"], older["config"]["training"]["warmup_fraction"]
    (tmp_path / "begun.json").write_text(json.dumps(older), encoding="utf-8")
    newer = parse_config(older["config"]).as_dict()
    again: Begun = {**begun, "config": newer}
    check_begun(tmp_path, again)
    newer["model"]["num_layers"] += 1
    with pytest.raises(UserError, match=r"was begun with config\.model\.num_layers"):
        check_begun(tmp_path, again)


def test_resume_on_other_data_is_refused(
    run: Path, make_store: MakeStore, tiny_toml: Path, tmp_path: Path
) -> None:
    other = make_store(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="was begun with data_hash"):
        train_run(
            load_config(tiny_toml), data=other, out=run, resume=True, device="cpu", progress=False
        )


def test_run_that_failed_before_its_first_checkpoint_does_not_block_its_directory(
    train_tiny: TrainTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tecafn.report.html.write_report", lambda run: run / "report.html")
    with pytest.raises(UserError, match="mian"):
        train_tiny("run", "training.learning_rates={mian = 1e-3}")
    train_tiny("run", "training.learning_rates={main = 1e-3}")
    assert (tmp_path / "run" / "record.json").is_file()


@dataclass(frozen=True)
class Killed:
    """A run killed by SIGKILL in the middle of training.

    Args:
        out: its directory.
        arguments: of the command that trained it.
        refusal: what a second process was told while it trained.
    """

    out: Path
    arguments: list[str]
    refusal: str


LONG = ["--set", "training.max_epochs=8"]
SAVE_OFTEN = ["--set", "training.checkpoint_every_steps=2"]


@pytest.fixture(scope="module")
def killed(tiny_toml: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    out = tmp_path_factory.mktemp("killed") / "run"
    arguments = ["train", str(tiny_toml), "--data", str(tiny_store), "--out", str(out)]
    arguments += ["--device", "cpu", "--quiet", *LONG, *SAVE_OFTEN]
    process = subprocess.Popen(
        [sys.executable, "-m", "tecafn", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 120
        # Behind a checkpoint, so that what was done since must be forgotten.
        while not (steps := num_steps(out)) > 10 or steps % 2 == 0:
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline, "the run did not get to its tenth step"
            time.sleep(0.002)
        # Stopped, it still holds its lock, and cannot finish meanwhile.
        process.send_signal(signal.SIGSTOP)
        overrides = [text for text in (*LONG, *SAVE_OFTEN) if text != "--set"]
        with pytest.raises(UserError) as caught:
            train_run(
                load_config(tiny_toml, overrides),
                data=tiny_store,
                out=out,
                resume=True,
                device="cpu",
                progress=False,
            )
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stderr:
            process.stderr.close()
    assert process.returncode == -signal.SIGKILL
    return Killed(out, arguments, str(caught.value))


def test_second_process_told_to_write_the_same_directory_refuses(killed: Killed) -> None:
    assert killed.refusal.startswith(f"{killed.out} is being written by another run")


def test_killed_run_cannot_be_evaluated_and_says_how_to_go_on(
    killed: Killed, tiny_store: Path
) -> None:
    with pytest.raises(UserError, match=r"training did not finish.*--resume"):
        evaluate_run(killed.out, data=tiny_store)


@pytest.mark.usefixtures("without_report")
def test_killed_run_resumes_to_the_bits_of_an_undisturbed_one(
    killed: Killed, tiny_toml: Path, tiny_store: Path, tmp_path: Path
) -> None:

    assert not (killed.out / "record.json").exists()
    assert len([e for e in events(killed.out) if e["event"] == "step"]) < 24
    resumed = shutil.copytree(killed.out, tmp_path / "resumed")
    arguments = [str(resumed) if a == str(killed.out) else a for a in killed.arguments]
    assert main([*arguments, "--resume"]) == 0
    # The undisturbed run writes no checkpoint inside its epochs: that must not matter either.
    whole = tmp_path / "whole"
    settings = load_config(tiny_toml, [text for text in LONG if text != "--set"])
    train_run(settings, data=tiny_store, out=whole, device="cpu", progress=False)
    for name in ("model/model.safetensors", "predictions/valid.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name
    steps = [[e for e in events(run) if e["event"] == "step"] for run in (resumed, whole)]
    assert steps[0] == steps[1]
    assert len(steps[0]) == 24
    assert any(event["event"] == "resume" for event in events(resumed))


# Evaluation


def test_first_test_evaluation_is_kept_and_returned_without_running_the_network(
    run: Path, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_run(run, data=tiny_store, split="test", device="cpu")
    assert first["num_samples"] == 12
    assert first["chosen_on"] == "valid"
    assert read_record(run)["evaluations"]["test"] == first

    def fail(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the network was run again")

    monkeypatch.setattr(evaluate_module, "predict_source", fail)
    monkeypatch.setattr(evaluate_module, "load", fail)
    assert evaluate_run(run, data=tiny_store, split="test", device="cpu") == first


@pytest.mark.usefixtures("without_report")
def test_other_data_are_evaluated_beside_the_first_test_evaluation_not_over_it(
    run: Path, tiny_store: Path, make_store: MakeStore, tmp_path: Path
) -> None:
    other = make_store(tmp_path / "other", seed=1)
    foreign = evaluate_run(run, data=other, split="test", device="cpu")
    first = evaluate_run(run, data=tiny_store, split="test", device="cpu")
    again = evaluate_run(run, data=other, split="test", device="cpu")
    assert foreign["data_hash"] != first["data_hash"]
    assert again == foreign
    evaluations = read_record(run)["evaluations"]
    name = f"test@{foreign['data_hash'][:8]}"
    assert evaluations["test"] == first
    assert evaluations[name] == foreign
    assert {path.stem for path in (run / "predictions").iterdir()} == {"valid", "test", name}


@pytest.mark.usefixtures("without_report")
def test_test_split_from_another_file_is_the_test_split_where_training_had_none(
    train_tiny: TrainTiny, make_store: MakeStore, tmp_path: Path
) -> None:
    train_tiny("run", data=make_store(tmp_path / "two", sizes={"train": 12, "valid": 8}))
    evaluate_run(
        tmp_path / "run", data=make_store(tmp_path / "third", sizes={"test": 8}), device="cpu"
    )
    assert list(read_record(tmp_path / "run")["evaluations"]) == ["valid", "test"]


def test_evaluation_of_an_unlabelled_split_names_predict(
    run: Path, make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", unlabelled=("test",))
    with pytest.raises(UserError, match="12 of 12 samples without a label; use `tecafn predict "):
        evaluate_run(run, data=store, split="test", device="cpu")


def test_evaluation_of_an_empty_or_unknown_split_is_one_line(
    run: Path, make_store: MakeStore, tiny_store: Path, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", sizes={"train": 4, "valid": 4, "test": 0})
    with pytest.raises(UserError, match=r"split 'test' of .* is empty"):
        evaluate_run(run, data=store, split="test", device="cpu")
    with pytest.raises(UserError, match="has no split 'tset', it has train"):
        evaluate_run(run, data=tiny_store, split="tset", device="cpu")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"audio": 6}, "the model takes audio 5 wide, .* has it 6 wide"),
        ({"task": "classification"}, "the model does regression, .* is a classification"),
    ],
)
def test_data_that_do_not_fit_the_network_are_refused(
    run: Path, make_store: MakeStore, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    store = make_store(tmp_path / "store", **options)
    with pytest.raises(UserError, match=told):
        evaluate_run(run, data=store, device="cpu")
    with pytest.raises(UserError, match=told):
        predict_run(run, data=store, split="test", out=tmp_path / "p.csv", device="cpu")


def test_evaluation_without_weights_is_one_line(run: Path, tiny_store: Path) -> None:
    (run / "model" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot read weights .*model\.safetensors: No such"):
        evaluate_run(run, data=tiny_store, device="cpu")
    shutil.rmtree(run / "model")
    with pytest.raises(UserError, match="has no network in model/ to evaluate: it was removed"):
        evaluate_run(run, data=tiny_store, device="cpu")


# Prediction


def test_unlabelled_rows_are_predicted_as_labelled_ones_are(
    run: Path, tiny_store: Path, make_store: MakeStore, tmp_path: Path
) -> None:
    unlabelled = make_store(tmp_path / "unlabelled", unlabelled=("test",))
    out = tmp_path / "new" / "folder" / "predictions.csv"
    assert predict_run(run, data=unlabelled, split="test", out=out, device="cpu") == 12
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "prediction"]
    evaluate_run(run, data=tiny_store, split="test", device="cpu")
    evaluated = read_rows(run / "predictions" / "test.csv")
    assert rows[1:] == [[row["id"], row["prediction"]] for row in evaluated]


def test_export_predicts_without_its_run(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.move(run / "model", alone)
    outs = [tmp_path / "a.csv", tmp_path / "b.csv"]
    predict_run(alone, data=tiny_store, split="test", out=outs[0], device="cpu")
    shutil.copytree(alone, run / "model")
    predict_run(run, data=tiny_store, split="test", out=outs[1], device="cpu")
    assert outs[0].read_text() == outs[1].read_text()


# Comparison


@pytest.mark.usefixtures("without_report")
def test_differences_equal_a_hand_computation(
    run: Path, train_tiny: TrainTiny, tiny_store: Path, tmp_path: Path
) -> None:
    train_tiny("other", 'modalities=["text"]')
    other = tmp_path / "other"
    for one in (run, other):
        evaluate_run(one, data=tiny_store, split="test", device="cpu")
    comparison = compare_runs(run, other, split="test", name="text alone")

    def column(folder: Path, name: str) -> np.ndarray:
        rows = read_rows(folder / "predictions" / "test.csv")
        return np.array([float(row[name]) for row in rows])

    labels = column(run, "label")
    mine, theirs = column(run, "prediction"), column(other, "prediction")
    mae = np.abs(mine - labels).mean() - np.abs(theirs - labels).mean()
    assert mae != 0
    assert (labels != 0).all()
    hits = ((mine > 0) == (labels > 0)).mean() - ((theirs > 0) == (labels > 0)).mean()
    difference = comparison["difference"]
    assert difference["mae"]["value"] == pytest.approx(mae)
    assert difference["acc2_pos"]["value"] == pytest.approx(hits)
    interval = difference["mae"]["interval"]
    assert interval is not None
    low, high = interval
    assert low <= mae <= high
    assert 0 < difference["mae"]["p_value"] <= 1
    records = [read_record(one)["evaluations"]["test"]["metrics"]["mae"] for one in (run, other)]
    assert records[0] - records[1] == pytest.approx(mae)
    assert comparison["metrics"]["mae"] == records[1]
    # Kept in the record, once for each name.
    compare_runs(run, other, split="test", name="text alone")
    assert [c["name"] for c in read_record(run)["comparisons"]] == ["text alone"]


def test_run_compared_with_itself_differs_by_nothing(run: Path) -> None:
    difference = compare_runs(run, run, split="valid")["difference"]
    for one in difference.values():
        assert (one["value"], one["interval"]) == (0.0, [0.0, 0.0])
        assert one["p_value"] == 1.0


def test_runs_on_different_samples_are_not_compared(
    run: Path, tiny_run: Path, tiny_store: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_run, tmp_path / "other")
    predictions = other / "predictions" / "valid.csv"
    lines = predictions.read_text(encoding="utf-8").splitlines(keepends=True)
    predictions.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(UserError, match="evaluated on different samples of 'valid'"):
        compare_runs(run, other, split="valid")


def test_runs_on_different_labels_are_not_compared(
    run: Path, tiny_run: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_run, tmp_path / "other")
    predictions = other / "predictions" / "valid.csv"
    with predictions.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[0]["label"] = str(-float(rows[0]["label"]))
    with predictions.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(UserError, match="evaluated on different samples of 'valid'"):
        compare_runs(run, other, split="valid")


def test_run_that_was_not_evaluated_is_not_compared(run: Path, tiny_run: Path) -> None:
    with pytest.raises(UserError, match="has not been evaluated on 'test'"):
        compare_runs(run, tiny_run, split="test")


@pytest.mark.usefixtures("without_report")
def test_differences_on_other_data_are_of_the_evaluations_on_these_data(
    run: Path, train_tiny: TrainTiny, tiny_store: Path, make_store: MakeStore, tmp_path: Path
) -> None:
    train_tiny("other", "seed=1")
    other, elsewhere = tmp_path / "other", make_store(tmp_path / "elsewhere", seed=5)
    for one in (run, other):
        evaluate_run(one, data=tiny_store, split="test", device="cpu")
    command = ["evaluate", str(run), "--data", str(elsewhere), "--device", "cpu"]
    assert main([*command, "--against", str(other)]) == 2
    with pytest.raises(UserError, match=r"other has not been evaluated on 'test' of .*elsewhere: "):
        tecafn.evaluate(run, data=elsewhere, against=other, device="cpu")
    assert not read_record(run)["comparisons"]
    evaluate_run(other, data=elsewhere, device="cpu")
    comparison = tecafn.evaluate(run, data=elsewhere, against=other, device="cpu")["comparison"]
    name = f"test@{Store.open(elsewhere).content_hash[:8]}"
    mine, theirs = (read_record(one)["evaluations"][name]["metrics"] for one in (run, other))
    assert comparison["split"] == name
    assert comparison["metrics"] == theirs
    assert mine["mae"] is not None
    assert theirs["mae"] is not None
    assert comparison["difference"]["mae"]["value"] == pytest.approx(mine["mae"] - theirs["mae"])


@pytest.mark.usefixtures("without_report")
def test_runs_on_other_features_of_the_same_samples_are_compared(
    run: Path, tiny_run: Path, tiny_store: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_run, tmp_path / "other")
    record = read_record(other)
    record["data"]["hash"] = record["evaluations"]["valid"]["data_hash"] = "1" * 64
    write_record(other, record)
    comparison = compare_runs(run, other, split="valid", data=tiny_store)
    assert comparison["difference"]["mae"]["value"] == 0.0


# Records


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "expected JSON"),
        ("[]", "format_version must be 1"),
        ('{"format_version": 2}', "format_version must be 1, got 2"),
        ("\xff", "expected JSON"),
    ],
)
def test_damaged_record_is_one_line(run: Path, tiny_store: Path, text: str, told: str) -> None:
    (run / "record.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=told):
        evaluate_run(run, data=tiny_store, device="cpu")


def test_folder_that_is_no_run_is_one_line(tmp_path: Path, tiny_store: Path) -> None:
    for name in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="expected a run's directory, found no record"):
            evaluate_run(name, data=tiny_store, device="cpu")


def test_record_that_holds_no_number_is_not_written(run: Path) -> None:
    record = read_record(run)
    record["training"]["monitor_value"] = float("nan")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_record(run, record)
    assert read_record(run)["training"]["monitor_value"] > 0


@pytest.mark.usefixtures("no_fsync")
def test_a_run_without_a_report_gets_one_when_it_is_evaluated(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    data = ("--data", str(tiny_store), "--device", "cpu")
    train = ("train", str(tiny_toml), *data, "--out", str(run), "--quiet", "--no-report")
    assert main(list(train)) == 0
    assert "report" not in capsys.readouterr().out
    assert (run / "record.json").is_file()
    assert not (run / "report.html").exists()
    assert main([*train, "--resume"]) == 0  # a finished run is left as it is, without one, too
    assert not (run / "report.html").exists()
    assert main(["evaluate", str(run), *data, "--split", "test"]) == 0
    assert (run / "report.html").is_file()
