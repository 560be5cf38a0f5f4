"""The protocol that chooses on test: what it finds, what it says, and what it never touches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tecafn.cli import app
from tecafn.core.errors import UserError
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.peeking import peek_at_test
from tecafn.records.record import read_record

KEEP = (
    "training.keep_improving_epochs=true",
    "training.max_epochs=4",
    "training.learning_rate=1e-4",
)


def improving(run: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [e for e in events if e["event"] == "epoch" and e["best"]]


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_the_lowest_test_error_among_improving_epochs(
    train_tiny: Callable[..., Any], tiny_store: Path, tmp_path: Path, precision: str
) -> None:
    train_tiny("run", *KEEP, f"training.precision={precision}")
    run = tmp_path / "run"
    kept = sorted((run / "checkpoints" / "best").iterdir())
    assert [int(path.name) for path in kept] == [e["step"] for e in improving(run)]
    assert len(kept) > 1
    before = read_record(run)
    outcome = peek_at_test(run, data=tiny_store, device="cpu")
    looks = outcome["looks"]
    assert [look["epoch"] for look in looks] == [e["epoch"] for e in improving(run)]
    assert outcome["metrics"]["mae"] == min(look["test_mae"] for look in looks)
    honest = evaluate_run(run, data=tiny_store, split="test", device="cpu")
    # The last improving epoch is the one that validation chose, so its look is the honest figure.
    assert looks[-1]["test_mae"] == pytest.approx(honest["metrics"]["mae"], abs=1e-6)
    assert outcome["metrics"]["mae"] <= looks[-1]["test_mae"]
    after = read_record(run)
    assert after["protocols"] == {"authors_test_peeking": outcome}
    assert outcome["chosen_on"] == "test"
    assert "chosen on the test split itself" in outcome["warning"]
    assert "test" not in before["evaluations"]
    assert after["evaluations"]["test"]["chosen_on"] == "valid"


def test_it_writes_no_evaluation(
    train_tiny: Callable[..., Any], tiny_store: Path, tmp_path: Path
) -> None:
    train_tiny("run", *KEEP)
    before = read_record(tmp_path / "run")
    peek_at_test(tmp_path / "run", data=tiny_store, device="cpu")
    after = read_record(tmp_path / "run")
    assert {k: v for k, v in after.items() if k != "protocols"} == before


def test_training_is_the_same_with_and_without_what_it_needs(
    train_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    train_tiny("kept", *KEEP)
    train_tiny("usual", *KEEP[1:])
    weights = [
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("kept", "usual")
    ]
    assert weights[0] == weights[1]
    assert len(list((tmp_path / "usual" / "checkpoints" / "best").iterdir())) == 1


def test_a_run_that_kept_the_best_epoch_alone_is_refused(tiny_run: Path, tiny_store: Path) -> None:
    with pytest.raises(UserError, match=r"needs a run trained with --set training\.keep_improving"):
        peek_at_test(tiny_run, data=tiny_store, device="cpu")


def test_an_unlabelled_test_split_is_refused(
    train_tiny: Callable[..., Any], make_store: Callable[..., Path], tmp_path: Path
) -> None:
    train_tiny("run", *KEEP)
    store = make_store(tmp_path / "unlabelled", unlabelled=("test",))
    with pytest.raises(UserError, match="needs labels in the test split"):
        peek_at_test(tmp_path / "run", data=store, device="cpu")


def test_the_command_warns_loudly(
    train_tiny: Callable[..., Any], tiny_store: Path, tmp_path: Path
) -> None:
    train_tiny("run", *KEEP)
    arguments = ["evaluate", str(tmp_path / "run"), "--data", str(tiny_store), "--device", "cpu"]
    peek = ["--protocol", "authors-test-peeking"]
    shown = CliRunner().invoke(app, [*arguments, *peek])
    assert shown.exit_code == 0, shown.output
    assert shown.stderr.startswith("WARNING: chosen on the test split itself")
    as_json = CliRunner().invoke(app, [*arguments, *peek, "--json"])
    assert "chosen on the test split itself" in json.loads(as_json.stdout)["warning"]
    for wrong, message in (
        (["--protocol", "peeking"], "unknown protocol 'peeking': known: authors-test-peeking"),
        ([*peek, "--split", "valid"], "is about the test split, and compares nothing"),
    ):
        refused = CliRunner().invoke(app, [*arguments, *wrong])
        assert refused.exit_code != 0
        assert message in str(refused.exception)
