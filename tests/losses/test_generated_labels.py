"""Self-MM's generated labels against loops over samples, written from the paper."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Output
from tecafn.layers.heads import task_heads
from tecafn.losses.generated_labels import GeneratedLabels, UnimodalTasks

SEEDS = (0, 1, 2)
TEXT, AUDIO = Modality.TEXT, Modality.AUDIO
NUM_TRAIN, DIMS, FUSED_DIM = 10, {TEXT: 3, AUDIO: 2}, 4
RANGES = ((-3.0, 3.0), (0.0, 5.0))
Vector = list[float]


def info(label_range: tuple[float, float] = (-3.0, 3.0)) -> DataInfo:
    return DataInfo(widths={}, num_train=NUM_TRAIN, label_range=label_range)


def bank_of(label_range: tuple[float, float] = (-3.0, 3.0)) -> GeneratedLabels:
    return GeneratedLabels(DIMS, fused_dim=FUSED_DIM, info=info(label_range)).double()


class Slow:
    """The algorithm as the paper prints it, a sample at a time, in Python floats."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.features: dict[str, dict[int, Vector]] = {"fused": {}, "text": {}, "audio": {}}
        self.labels: dict[str, dict[int, float]] = {"fused": {}, "text": {}, "audio": {}}
        self.generated: set[tuple[str, int]] = set()

    def delta(self, task: str, feature: Vector) -> float | None:
        middle = (self.low + self.high) / 2
        centres = []
        for sign in (1, -1):
            own = [
                self.features[task][i]
                for i, label in self.labels[task].items()
                if sign * (label - middle) > 0
            ]
            if not own:
                return None
            centres.append([sum(column) / len(own) for column in zip(*own, strict=True)])
        positive, negative = (math.dist(feature, centre) for centre in centres)
        return (negative - positive) / (positive + 1e-8)

    def step(
        self, features: dict[str, Tensor], labels: Tensor, index: Tensor, present: Any, n: int
    ) -> None:
        middle = (self.low + self.high) / 2
        rows = list(zip(index.tolist(), labels.tolist(), strict=True))
        made: dict[tuple[str, int], float] = {}
        for place, (sample, y) in enumerate(rows):
            for task in ("text", "audio"):
                if not present[Modality(task)][place]:
                    continue
                old = self.labels[task].get(sample, y)
                made[task, sample] = old
                of_task = self.delta(task, features[task][place].tolist())
                of_fused = self.delta("fused", features["fused"][place].tolist())
                if n == 1 or of_task is None or of_fused is None:
                    continue
                by_ratio = middle + (y - middle) * of_task / of_fused
                by_difference = y + of_task - of_fused
                new = min(max((by_ratio + by_difference) / 2, self.low), self.high)
                made[task, sample] = (n - 1) / (n + 1) * old + 2 / (n + 1) * new
                self.generated.add((task, sample))
        for (task, sample), label in made.items():
            self.labels[task][sample] = label
        for place, (sample, y) in enumerate(rows):
            self.labels["fused"][sample] = y
            for task, vectors in features.items():
                if task == "fused" or present[Modality(task)][place]:
                    self.features[task][sample] = vectors[place].tolist()


@pytest.mark.parametrize("label_range", RANGES)
@pytest.mark.parametrize("seed", SEEDS)
def test_three_epochs_are_those_of_the_algorithm_by_hand(
    seed: int, label_range: tuple[float, float]
) -> None:
    low, high = label_range
    bank, slow = bank_of(label_range), Slow(low, high)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    labels = low + (high - low) * torch.rand(NUM_TRAIN, generator=generator, dtype=torch.float64)
    lacking = {TEXT: {1, 5}, AUDIO: {2, 5}}
    for epoch in range(3):
        order = torch.randperm(NUM_TRAIN, generator=generator)
        for rows in order.split(4):
            features = {"fused": draw(len(rows), 4), "text": draw(len(rows), 3)}
            features["audio"] = draw(len(rows), 2)
            present = {m: torch.tensor([int(row) not in lacking[m] for row in rows]) for m in DIMS}
            bank.update(features, labels[rows], rows, present=present, epoch=epoch)
            slow.step(features, labels[rows], rows, present, epoch + 1)
        everyone = torch.arange(NUM_TRAIN)
        for modality in DIMS:
            got, made = bank.labels_of(modality, labels, everyone)
            expected = [slow.labels[modality].get(i, labels[i].item()) for i in range(NUM_TRAIN)]
            assert got.tolist() == pytest.approx(expected, abs=1e-10)
            assert made.tolist() == [(modality, i) in slow.generated for i in range(NUM_TRAIN)]
            assert bool(made.any()) == (epoch > 0)
    # It was the algorithm that was compared, not the samples' own labels.
    assert not torch.allclose(bank.labels_of(TEXT, labels, everyone)[0], labels, atol=0.1)


def test_without_both_centres_no_label_is_generated() -> None:
    bank = bank_of()
    labels, index = torch.tensor([1.0, 2.0]).double(), torch.tensor([0, 1])
    features = {"fused": torch.ones(2, 4), "text": torch.ones(2, 3), "audio": torch.ones(2, 2)}
    present = {m: torch.ones(2, dtype=torch.bool) for m in DIMS}
    for epoch in range(3):
        bank.update(features, labels, index, present=present, epoch=epoch)
    assert bank.centres("text") is None
    assert not bank.labels_of(TEXT, labels, index)[1].any()


def test_a_fused_feature_between_the_centres_leaves_labels_finite() -> None:
    bank = bank_of()
    labels, index = torch.tensor([1.0, -1.0, 0.0]).double(), torch.tensor([0, 1, 2])
    line = torch.tensor([[1.0], [-1.0], [0.0]]).double()
    features = {"fused": line.expand(3, 4), "text": line.expand(3, 3), "audio": line.expand(3, 2)}
    present = {m: torch.ones(3, dtype=torch.bool) for m in DIMS}
    for epoch in range(3):
        bank.update(features, labels, index, present=present, epoch=epoch)
    got, made = bank.labels_of(TEXT, labels, index)
    assert bool(made.all() & got.isfinite().all() & (got.abs() <= 3).all())


def tasks_and_batch() -> tuple[UnimodalTasks, Output, Batch]:
    torch.manual_seed(0)
    dims = {TEXT: 3, AUDIO: 2}
    tasks = UnimodalTasks(
        task_heads({TEXT: 5, AUDIO: 6}, dims, info(), dropout=0.0),
        dims=dims,
        fused_dim=4,
        info=info(),
        first_weight=0.25,
    ).double()
    vectors = {
        "vector_text": torch.randn(4, 5).double(),
        "vector_audio": torch.randn(4, 6).double(),
        "fused": torch.randn(4, 4).double(),
    }
    mask = torch.ones(4, 1, dtype=torch.bool)
    batch = Batch(
        sequences={m: Padded(torch.zeros(4, 1, 2), mask) for m in dims},
        present={TEXT: torch.tensor([True, True, True, False]), AUDIO: mask[:, 0]},
        labels=torch.tensor([2.0, -1.0, 0.5, -2.0]).double(),
        index=torch.tensor([4, 0, 2, 7]),
        ids=("a", "b", "c", "d"),
    )
    return tasks, Output(torch.zeros(4).double(), vectors), batch


def test_an_error_counts_by_how_far_the_generated_label_is_from_the_samples() -> None:
    tasks, output, batch = tasks_and_batch()
    answered = tasks.answer(output)
    assert batch.labels is not None
    for epoch in range(2):
        terms = tasks.terms(answered, batch)
        for m, term in terms.items():
            scores, rows = answered.features[f"score_{m}"].tolist(), []
            target, made = tasks.bank.labels_of(Modality(m), batch.labels, batch.index)
            assert made.any() == (epoch > 0)
            for row, there in enumerate(batch.present[Modality(m)].tolist()):
                if there:
                    y_s, y_m = target[row].item(), batch.labels[row].item()
                    weight = math.tanh(abs(y_s - y_m)) if epoch else 0.25
                    rows.append(weight * abs(scores[row] - y_s))
            assert term.item() == pytest.approx(sum(rows) / len(rows), abs=1e-12)
            assert term.item() > 0
        for number in (0, 1):  # the first fills the centres
            tasks.update(answered, batch, epoch=number)


def test_annotated_labels_are_used_in_place_of_generated_ones() -> None:
    tasks, output, batch = tasks_and_batch()
    answered = tasks.answer(output)
    annotated = torch.tensor([1.0, 0.0, -1.0, 3.0])
    batch = dataclasses.replace(batch, unimodal_labels={AUDIO: annotated})
    expected = (answered.features["score_audio"] - annotated).abs().mean()
    assert tasks.terms(answered, batch)["audio"].item() == pytest.approx(expected.item())
