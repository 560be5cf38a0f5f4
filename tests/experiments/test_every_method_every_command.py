"""Every method goes through every command, on every kind of store: no seam is left untested.

One comparison per store trains all methods, in this process; the other commands use its runs. What
a method cannot use it refuses in one line, and which ones do is written down here.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells_here import in_this_process
from narrow import NARROW

import tecafn
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.data import DatasetDescription, Sample, StoreWriter
from tecafn.data.store import Store
from tecafn.experiments.compare import Protocol, compare_methods
from tecafn.experiments.config import load_config
from tecafn.experiments.cross_validation import cross_validate_run
from tecafn.experiments.evaluate import evaluate_run, predict_run
from tecafn.experiments.paired import compare_runs
from tecafn.experiments.peeking import peek_at_test

NAMES = sorted(METHODS)
NEEDS_ALIGNMENT = {name for name in NAMES if "aligned" in METHODS[name].needs}
SIZES = {"train": 12, "valid": 6, "test": 6}
WORDS = ("the", "film", "was", "good", "bad", "very", "not", "great", "i")


def write_store(path: Path, kind: str) -> Path:
    """24 samples in videos of two clips: ``aligned``, ``text`` alone, or text ``vectors``."""
    random = np.random.default_rng(0)
    widths: dict[Modality, int] = {}
    if kind != "text":
        widths = {Modality.AUDIO: 5, Modality.VISION: 20}
    if kind == "vectors":
        widths = {Modality.TEXT: 6, **widths}
    description = DatasetDescription(dataset="tiny", widths=widths, aligned=kind == "aligned")
    with StoreWriter(path, description) as writer:
        for split, size in SIZES.items():
            for number in range(size):
                words = random.choice(WORDS, random.integers(2, 6)).tolist()
                name = f"{split}{number // 2}_{number % 2}"
                score = float(np.float32(random.uniform(-3, 3)))
                writer.add(
                    Sample(
                        id=name,
                        source_id=name,
                        video=f"{split}{number // 2}",
                        clip=str(number % 2),
                        split=split,
                        text="" if kind == "vectors" else " ".join(words),
                        words=tuple(words) if kind == "aligned" else None,
                        label=score,
                        sequences={
                            m: (random.normal(size=(len(words), width)) + score).astype(np.float32)
                            for m, width in widths.items()
                        },
                    )
                )
    return path


@dataclass
class Walked:
    """A store on which every method was trained that can be."""

    kind: str
    store: Path
    out: Path
    configs: Path
    reasons: dict[str, str]

    def run_of(self, name: str) -> Path:
        return self.out / name / "seed-0"


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Neither waits for the disk nor draws a page for each run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("tecafn.report.html.write_report", lambda run: run / "report.html")
        yield


def small(name: str) -> Iterator[str]:
    """Settings that make a method quick, as lines of TOML."""
    settings = METHODS[name].config()
    for item in dataclasses.fields(settings):
        if item.name.endswith("_layers") and getattr(settings, item.name) is not None:
            yield f"{item.name} = 1\n"
        elif item.name == "feed_forward_dim":
            yield f"{item.name} = 16\n"
        elif item.name in NARROW.get(name, {}):
            yield f"{item.name} = {NARROW[name][item.name]}\n"


def walk(kind: str, folder: Path, encoder: str) -> Walked:
    """Compare all methods on one kind of store."""
    store, configs = write_store(folder / "store", kind), folder / "configs"
    configs.mkdir()
    for name in NAMES:
        (configs / f"{name}.toml").write_text(
            f"method = '{name}'\ntext_encoder = '{encoder}'\nnum_trained_text_layers = 0\n"
            f"[model]\n{''.join(small(name))}"
            "[training]\nmax_epochs = 1\nbatch_size = 8\nkeep_improving_epochs = true\n",
            encoding="utf-8",
        )
    reasons: dict[str, str] = {}
    protocol = Protocol(
        data=store, out=folder / "out", seeds=(0,), configs=str(configs), device="cpu", threads=1
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tecafn.experiments.compare.CellRunner.run", in_this_process)
        summary = compare_methods(
            protocol, ended=lambda outcome: reasons.update({outcome.cell.row: outcome.reason})
        )
    rows = {row["name"]: row for row in summary["methods"]}
    assert set(rows) == set(NAMES)
    for name, row in rows.items():
        reasons.setdefault(name, row.get("refused") or "")
        assert bool(row["metrics"]) == (not reasons[name]), (name, row)
    return Walked(kind, store, protocol.out, configs, reasons)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Walked:
    return walk("aligned", tmp_path_factory.mktemp("aligned"), str(tiny_bert))


@pytest.fixture(scope="module")
def text_alone(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Walked:
    return walk("text", tmp_path_factory.mktemp("text"), str(tiny_bert))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    return walk("vectors", tmp_path_factory.mktemp("vectors"), "features")


def predicted(path: Path) -> list[float]:
    with path.open(newline="", encoding="utf-8") as file:
        return [float(row["prediction"]) for row in csv.DictReader(file)]


def given(walked: Walked, name: str) -> dict[str, Any]:
    """What Python's door takes of the store's test split, for a method."""
    view = Store.open(walked.store).split("test")
    frames = {m: [view.sequence(row, m) for row in range(len(view))] for m in view.widths}
    text = frames.pop(Modality.TEXT, list(view.texts))
    return {"text": text, **{str(m): rows for m, rows in frames.items()}}


def finish(walked: Walked, name: str, tmp_path: Path) -> list[float]:
    """Evaluate twice, peek, predict, load in Python: all agree; the predictions."""
    run = walked.run_of(name)
    evaluation = evaluate_run(run, data=walked.store, split="test", device="cpu")
    assert evaluation["num_samples"] == SIZES["test"]
    assert "absent" not in evaluation
    looks = peek_at_test(run, data=walked.store, device="cpu")["looks"]
    assert looks[-1]["test_mae"] == pytest.approx(evaluation["metrics"]["mae"], abs=1e-5)
    out = tmp_path / "p.csv"
    assert predict_run(run, data=walked.store, split="test", out=out, device="cpu") == SIZES["test"]
    answers = predicted(out)
    assert answers == pytest.approx(predicted(run / "predictions" / "test.csv"))
    difference = compare_runs(run, run, split="test")["difference"]
    assert difference["mae"]["value"] == 0
    return answers


@pytest.mark.parametrize("name", NAMES)
def test_on_word_aligned_text_and_frames(aligned: Walked, name: str, tmp_path: Path) -> None:
    assert aligned.reasons[name] == ""
    answers = finish(aligned, name, tmp_path)
    predictor, inputs = tecafn.load(aligned.run_of(name)), given(aligned, name)
    if name in NEEDS_ALIGNMENT:
        with pytest.raises(UserError, match="needs to know in which frame each word was spoken"):
            predictor.predict(**inputs)
        assert predictor.predict(inputs["text"]).shape == (SIZES["test"],)
    else:
        assert predictor.predict(**inputs).tolist() == pytest.approx(answers, abs=1e-5)
    settings = load_config(aligned.configs / f"{name}.toml")
    folds = cross_validate_run(
        settings,
        data=aligned.store,
        out=tmp_path / "folds",
        by="video",
        num_folds=3,
        device="cpu",
        progress=False,
    )
    assert len(folds["folds"]) == 3
    assert folds["evaluations"]["out-of-fold"]["num_samples"] == SIZES["train"] + SIZES["valid"]


@pytest.mark.parametrize("name", NAMES)
def test_on_text_alone(text_alone: Walked, name: str, tmp_path: Path) -> None:
    assert text_alone.reasons[name] == ""
    answers = finish(text_alone, name, tmp_path)
    predictor = tecafn.load(text_alone.run_of(name))
    assert predictor.takes == (Modality.TEXT,)
    inputs = given(text_alone, name)
    assert predictor.predict(**inputs).tolist() == pytest.approx(answers, abs=1e-5)
    with pytest.raises(UserError, match="was not trained with audio, it takes text"):
        predictor.predict(**inputs, audio=np.zeros((3, 5)))


@pytest.mark.parametrize("name", NAMES)
def test_on_text_vectors(vectors: Walked, name: str, tmp_path: Path) -> None:
    if name in NEEDS_ALIGNMENT:
        assert "needs word-aligned frames" in vectors.reasons[name]
        assert "\n" not in vectors.reasons[name]
        return
    assert vectors.reasons[name] == ""
    answers = finish(vectors, name, tmp_path)
    predictor = tecafn.load(vectors.run_of(name))
    assert predictor.predict(**given(vectors, name)).tolist() == pytest.approx(answers, abs=1e-5)
