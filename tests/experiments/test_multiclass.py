"""Three classes from training to report, and features that a model was not trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.modality import Modality
from tecafn.data.samples import DatasetDescription, Sample
from tecafn.data.store import StoreWriter
from tecafn.experiments.config import parse_config
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.paired import compare_runs
from tecafn.experiments.run import train_run
from tecafn.records.record import read_record

SPEC = FeatureSpec(extractor="voice-measures", version=1, width=3, frames_per_second=10.0)
NAMES = ("calm", "happy", "angry")


def write_store(path: Path, features: Mapping[Modality, FeatureSpec]) -> Path:
    """36 samples whose class shows in the mean of one column."""
    random = np.random.default_rng(0)
    description = DatasetDescription(
        dataset="toy",
        widths={Modality.AUDIO: 3},
        task="classification",
        label_range=(0.0, 2.0),
        num_classes=3,
        class_names=NAMES,
        features=features,
    )
    with StoreWriter(path, description) as writer:
        for k in range(36):
            frames = random.standard_normal((4, 3)).astype(np.float32)
            frames[:, k % 3] += 3
            video = f"v{k // 3}"
            writer.add(
                Sample(
                    id=f"{video}_{k}",
                    source_id=f"{k}",
                    video=video,
                    clip=f"{k}",
                    split=("train", "train", "valid", "test")[k // 9],
                    text="fine",
                    label=float(k % 3),
                    sequences={Modality.AUDIO: frames},
                )
            )
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store and a run on it."""
    folder = tmp_path_factory.mktemp("multiclass")
    store = write_store(folder / "store", {Modality.AUDIO: SPEC})
    training = {"max_epochs": 2, "batch_size": 6, "monitor": "uar"}
    config = parse_config({"method": "concat", "modalities": ["audio"], "training": training})
    train_run(config, data=store, out=folder / "run", device="cpu", progress=False)
    evaluate_run(folder / "run", data=store, split="test", device="cpu")
    return store, folder / "run"


def test_the_record_has_the_measures_of_classes_and_what_the_features_are(
    trained: tuple[Path, Path],
) -> None:
    record = read_record(trained[1])
    assert set(record["evaluations"]["test"]["metrics"]) == {"accuracy", "uar", "f1_macro", "f1"}
    assert record["data"]["class_names"] == list(NAMES)
    assert FeatureSpec.from_dict(record["data"]["features"]["audio"]) == SPEC


def test_the_report_shows_the_confusion_with_names_and_recalls(trained: tuple[Path, Path]) -> None:
    page = (trained[1] / "report.html").read_text()
    for name in (*NAMES, "recall", "UAR", "Macro-F1"):
        assert name in page
    assert "probability of class 1" not in page


def test_two_runs_are_compared_by_accuracy(trained: tuple[Path, Path]) -> None:
    _, run = trained
    difference = compare_runs(run, run, split="test")["difference"]
    assert list(difference) == ["accuracy"]
    assert difference["accuracy"]["value"] == 0


def test_a_model_refuses_features_that_it_was_not_trained_on(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    other = dataclasses.replace(SPEC, version=2)
    store = write_store(tmp_path / "other", {Modality.AUDIO: other})
    with pytest.raises(UserError) as caught:
        evaluate_run(trained[1], data=store, split="test", device="cpu")
    line = str(caught.value)
    assert "voice-measures version 1" in line
    assert "voice-measures version 2" in line
    assert str(store) in line


def test_a_model_takes_features_that_say_nothing_of_themselves(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    store = write_store(tmp_path / "silent", {})
    assert evaluate_run(trained[1], data=store, split="test", device="cpu")["metrics"]
