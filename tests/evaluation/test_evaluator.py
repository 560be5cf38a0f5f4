"""Every sample once, in order, in evaluation mode, on one process and on two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.evaluation.evaluator import (
    Predictions,
    evaluating,
    predict_source,
    validation_metrics,
)

# Two processes run this file's Source by its path, so that spawned ones need no test package.
WORKER = """
import importlib.util, json, sys
import torch, torch.distributed as dist
from tecafn.evaluation.evaluator import predict_source
spec = importlib.util.spec_from_file_location("helper", sys.argv[1])
helper = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helper)
rank, store, out = int(sys.argv[2]), sys.argv[3], sys.argv[4]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
result = predict_source(
    helper.Model(), helper.Source(rank=rank, world=2), device="cpu", task="regression"
)
with open(f"{out}/{rank}.json", "w") as file:
    json.dump([list(result.ids), result.predictions.tolist(), result.labels.tolist()], file)
dist.destroy_process_group()
"""


class Source:
    """Seven samples with index ``order``, in batches of three, split over ranks."""

    def __init__(self, *, rank: int = 0, world: int = 1, unlabelled: int | None = None) -> None:
        self.order = [3, 0, 6, 5, 1, 4, 2]
        self.rank, self.world, self.unlabelled = rank, world, unlabelled

    @property
    def num_samples(self) -> int:
        return len(self.order)

    def num_batches(self, epoch: int) -> int:
        return 3

    def batches(self, epoch: int) -> Iterator[Batch]:
        for start in range(0, 7, 3):
            # The last batch has one row: rank 1 of 2 gets none of it.
            yield self.batch(self.order[start : start + 3][self.rank :: self.world])

    def batch(self, rows: list[int]) -> Batch:
        index = torch.tensor(rows, dtype=torch.int64)
        frames = Padded(
            index.float()[:, None, None].expand(-1, 2, 1), torch.ones(len(rows), 2).bool()
        )
        return Batch(
            sequences={Modality.AUDIO: frames},
            present={Modality.AUDIO: torch.ones(len(rows), dtype=torch.bool)},
            labels=None if self.unlabelled in rows else index.float() / 10,
            index=index,
            ids=tuple(f"video_{row}" for row in rows),
        )


class Model(nn.Module):
    """Answers twice the audio, unless dropout is left on."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm1d(1).eval()
        self.dropout = nn.Dropout(0.99)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, batch: Batch) -> Tensor:
        assert not torch.is_grad_enabled()
        frames = batch.sequences[Modality.AUDIO].values
        return self.dropout(self.scale * frames).mean(dim=(1, 2))

    def predict(self, batch: Batch) -> Tensor:
        return self.forward(batch)


class Logits(nn.Module):
    """C logits that depend on the index."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, batch: Batch) -> Tensor:
        return torch.sin(batch.index[:, None] * torch.arange(1, self.num_classes + 1) + 1.0)


def test_predictions_come_in_index_order_with_ids_and_labels() -> None:
    result = predict_source(Model().predict, Source(), device="cpu", task="regression")
    assert result.ids == tuple(f"video_{row}" for row in range(7))
    np.testing.assert_array_equal(result.index, np.arange(7))
    np.testing.assert_array_equal(result.predictions, 2.0 * np.arange(7))
    assert result.labels is not None
    np.testing.assert_allclose(result.labels, np.arange(7) / 10, atol=1e-7)
    assert result.predictions.dtype == np.float64
    assert result.classes is None
    assert result.num_samples == 7


@pytest.mark.parametrize("as_method", [True, False])
def test_train_mode_is_left_and_restored_part_by_part(as_method: bool) -> None:
    model = Model().train()
    model.frozen.eval()
    predict = model.predict if as_method else model
    result = predict_source(predict, Source(), device="cpu", task="regression")
    # Dropout at 0.99 in training mode would have zeroed or scaled almost all of them.
    np.testing.assert_array_equal(result.predictions, 2.0 * np.arange(7))
    assert model.training
    assert model.dropout.training
    assert not model.frozen.training


def test_train_mode_is_restored_after_an_error() -> None:
    model = Model().train()

    class Broken(Source):
        def batches(self, epoch: int) -> Iterator[Batch]:
            raise RuntimeError("no batch")

    with pytest.raises(RuntimeError, match="no batch"):
        predict_source(model, Broken(), device="cpu", task="regression")
    assert model.training
    with evaluating(None):
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_one_unlabelled_sample_leaves_the_split_without_labels() -> None:
    result = predict_source(Model(), Source(unlabelled=5), device="cpu", task="regression")
    assert result.labels is None
    np.testing.assert_array_equal(result.predictions, 2.0 * np.arange(7))
    with pytest.raises(UserError, match="unlabelled"):
        validation_metrics(result, convention="mosi")


def test_two_classes_give_the_probability_of_class_one_and_the_argmax() -> None:
    model = Logits(2)
    result = predict_source(model, Source(), device="cpu", task="classification")
    logits = torch.sin(torch.arange(7)[:, None] * torch.arange(1, 3) + 1.0)
    expected = torch.softmax(logits.double(), dim=1)[:, 1]
    np.testing.assert_allclose(result.predictions, expected.numpy(), rtol=1e-12)
    np.testing.assert_array_equal(result.classes, logits.argmax(1).numpy())


def test_extreme_logits_give_probabilities_of_zero_and_one_without_a_warning() -> None:
    def predict(batch: Batch) -> Tensor:
        sign = torch.where(batch.index % 2 == 0, 1.0, -1.0)
        return torch.stack([sign * -2000.0, sign * 2000.0], dim=1)

    result = predict_source(predict, Source(), device="cpu", task="classification")
    np.testing.assert_array_equal(result.predictions, [1, 0, 1, 0, 1, 0, 1])


def test_more_classes_give_the_predicted_class() -> None:
    result = predict_source(Logits(4), Source(), device="cpu", task="classification")
    assert result.classes is not None
    np.testing.assert_array_equal(result.predictions, result.classes)
    assert set(result.classes.tolist()) > {0}


@pytest.mark.parametrize(
    ("task", "shape", "message"),
    [
        ("regression", (1,), r"a regression must predict \(3,\), got \(3, 1\)"),
        ("classification", (), r"a classification must predict \(3, C\) with C >= 2, got \(3,\)"),
        ("classification", (1,), r"with C >= 2, got \(3, 1\)"),
    ],
)
def test_answers_of_another_shape_are_an_error(
    task: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predict_source(
            lambda batch: torch.zeros(batch.size, *shape),
            Source(),
            device="cpu",
            task=task,  # type: ignore[arg-type]
        )


def test_a_source_that_repeats_a_sample_is_refused() -> None:
    class Repeating(Source):
        def batches(self, epoch: int) -> Iterator[Batch]:
            yield from super().batches(epoch)
            yield self.batch([0])

    with pytest.raises(AssertionError, match="8 rows, 7 different"):
        predict_source(Model(), Repeating(), device="cpu", task="regression")


def test_validation_metrics_are_the_defined_ones() -> None:
    result = predict_source(Model(), Source(), device="cpu", task="regression")
    metrics = validation_metrics(result, convention="mosi")
    assert metrics["mae"] == pytest.approx(1.9 * 3)
    assert metrics["corr"] == pytest.approx(1.0)
    constant = Predictions(("a", "b"), np.arange(2), np.zeros(2), np.array([1.0, 2.0]))
    assert "corr" not in validation_metrics(constant, convention="mosi")


def test_validation_metrics_of_a_classification() -> None:
    predictions = Predictions(
        ("a", "b"), np.arange(2), np.array([0.9, 0.2]), np.array([1.0, 1.0]), np.array([1, 0])
    )
    assert validation_metrics(predictions, convention="classification")["accuracy"] == 0.5


def test_validation_without_samples_or_with_nan_is_one_line() -> None:
    empty = Predictions((), np.empty(0, np.int64), np.empty(0), np.empty(0))
    with pytest.raises(UserError, match="at least one sample"):
        validation_metrics(empty, convention="mosi")
    broken = Predictions(("a", "b"), np.arange(2), np.array([0.0, np.nan]), np.zeros(2))
    with pytest.raises(UserError, match="sample b must be finite, got nan"):
        validation_metrics(broken, convention="mosi")


def test_two_processes_give_every_sample_once_on_every_rank(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, str(script), __file__]
    workers = [
        subprocess.Popen(
            [*arguments, str(rank), str(tmp_path / "rendezvous"), str(tmp_path)], env=environment
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=800) for worker in workers] == [0, 0]
    alone = predict_source(Model(), Source(), device="cpu", task="regression")
    assert alone.labels is not None
    expected = [list(alone.ids), alone.predictions.tolist(), alone.labels.tolist()]
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected
