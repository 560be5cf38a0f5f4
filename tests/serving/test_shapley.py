"""Shapley values: the formula, every method's efficiency, and what absent modalities are given."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tecafn.methods  # noqa: F401 - registers them
from tecafn.core.batch import Batch, Padded
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.data.store import Store
from tecafn.serving.predictor import Predictor, load
from tecafn.serving.shapley import contributions, contributions_of_batches, shapley_values
from tecafn.testing import method_case

TEXT, AUDIO, VISION = Modality


def game(seed: int, players: int = 3) -> dict[tuple[Modality, ...], np.ndarray]:
    random = np.random.default_rng(seed)
    everyone = list(Modality)[:players]
    return {
        kept: random.normal(size=4)
        for size in range(players + 1)
        for kept in itertools.combinations(everyone, size)
    }


@pytest.mark.parametrize("players", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_value_is_the_mean_over_all_orders_of_arrival(seed: int, players: int) -> None:
    worth = game(seed, players)
    everyone = list(Modality)[:players]
    found = shapley_values(lambda worth, kept: worth[kept], worth, everyone)
    orders = list(itertools.permutations(everyone))
    for modality in everyone:
        gains = []
        for order in orders:
            before = order[: order.index(modality)]
            kept = tuple(m for m in everyone if m in before)
            more = tuple(m for m in everyone if m in (*before, modality))
            gains.append(worth[more] - worth[kept])
        assert found.values[modality] == pytest.approx(np.mean(gains, 0), abs=1e-12)
    assert sum(found.values.values()) == pytest.approx(found.full - found.base, abs=1e-12)


def test_an_interaction_is_the_mean_over_orders_in_which_the_pair_arrives_as_one() -> None:
    worth = game(5)
    found = shapley_values(lambda worth, kept: worth[kept], worth, list(Modality))
    for a, b in itertools.combinations(Modality, 2):
        (third,) = set(Modality) - {a, b}
        alone = worth[a, b] - worth[a,] - worth[b,] + worth[()]
        whole = tuple(Modality)
        at_last = worth[whole] - worth[tuple(sorted((a, third), key=whole.index))]
        at_last = at_last - worth[tuple(sorted((b, third), key=whole.index))] + worth[third,]
        assert found.interactions[a, b] == pytest.approx((alone + at_last) / 2, abs=1e-12)


def test_what_adds_up_has_no_interactions_and_a_product_is_shared() -> None:
    def sums(weights: dict[Modality, float], kept: tuple[Modality, ...]) -> np.ndarray:
        return np.array([1.0 + sum(weights[m] for m in kept)])

    found = shapley_values(sums, {TEXT: 2.0, AUDIO: -1.0, VISION: 0.0}, list(Modality))
    assert [v.item() for v in found.values.values()] == pytest.approx([2.0, -1.0, 0.0])
    assert [v.item() for v in found.interactions.values()] == pytest.approx([0.0] * 3, abs=1e-12)


def test_modalities_must_be_different_ones() -> None:
    for wrong in ([], [TEXT, TEXT]):
        with pytest.raises(ValueError, match="different ones"):
            shapley_values(lambda _, kept: np.zeros(1), None, wrong)


def double(batch: Batch) -> Batch:
    frames = {
        m: Padded(p.values.double(), p.mask) if p.values.is_floating_point() else p
        for m, p in batch.sequences.items()
    }
    return dataclasses.replace(batch, sequences=frames)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_of_every_method_the_values_add_up_to_the_prediction(name: str) -> None:
    with method_case(name) as case:
        network = case.build().network.double().eval()
        lacking = {2: "t", 3: "av", 4: "tav"}
        batch = double(case.batch(5, lacking=lacking))

        def predict(of: Batch, kept: tuple[Modality, ...]) -> np.ndarray:
            with torch.inference_mode():
                return network(of.keeping(kept)).prediction.numpy()

        found = shapley_values(predict, batch, list(Modality))
        with torch.inference_mode():
            full = network(batch).prediction.numpy()
    assert found.full == pytest.approx(full, abs=1e-12)
    total = np.sum([*found.values.values()], axis=0)
    assert np.abs(total - (found.full - found.base)).max() < 1e-6
    assert np.ptp(found.base) < 1e-9  # of nothing each sample is told the same
    for row, letters in lacking.items():
        for modality in Modality:
            if modality[0] in letters:
                assert found.values[modality][row] == pytest.approx(0.0, abs=1e-9)
    moved = [np.abs(value[:2]).max() for value in found.values.values()]
    assert min(moved) > 1e-7


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> Predictor:
    return load(tiny_run)


def samples(store: Path) -> dict[str, Any]:
    view = Store.open(store).split("test")
    rows = range(len(view))
    found: dict[str, Any] = {"text": list(view.texts)}
    for m in (AUDIO, VISION):
        found[str(m)] = [view.sequence(row, m) for row in rows]
    return found


def test_contributions_explain_what_predict_says(predictor: Predictor, tiny_store: Path) -> None:
    given = samples(tiny_store)
    given["text"][1], given["audio"][2] = "", None
    found = contributions(predictor, **given)
    assert found.full.tolist() == predictor.predict(**given).tolist()
    total = found.base + sum(found.values.values())
    assert total == pytest.approx(found.full, abs=1e-6)
    alone = predictor.predict(**{**given, "audio": None})
    assert found.of_subset[TEXT, VISION] == pytest.approx(alone, abs=1e-5)
    assert found.values[TEXT][1] == pytest.approx(0.0, abs=1e-6)
    assert found.values[AUDIO][2] == pytest.approx(0.0, abs=1e-6)
    assert abs(found.values[TEXT][0]) > 1e-4


def test_samples_in_one_batch_or_in_several_have_the_same_contributions(
    predictor: Predictor, tiny_store: Path
) -> None:
    given = samples(tiny_store)
    (batch,) = predictor.batches(**given)
    whole = contributions_of_batches(predictor, [batch])
    parts = [batch.select(torch.arange(0, 5)), batch.select(torch.arange(5, batch.size))]
    apart = contributions_of_batches(predictor, parts)
    for m in Modality:
        assert apart.values[m] == pytest.approx(whole.values[m], abs=1e-5)
    assert len(contributions_of_batches(predictor, []).full) == 0


def test_mistakes_are_those_of_predict(predictor: Predictor) -> None:
    with pytest.raises(UserError, match="nothing to predict from"):
        contributions(predictor, text=[""])
    broken = load_broken(predictor)
    with pytest.raises(UserError, match=r"the prediction of sample 0 is nan"):
        contributions(broken, text=["good film"])


def load_broken(predictor: Predictor) -> Predictor:
    class Nan(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, batch: Batch) -> Any:
            from tecafn.core.output import Output

            return Output(torch.full((batch.size,), float("nan")), {})

    return Predictor(predictor.definition, Nan(), predictor.tokenizer)  # type: ignore[arg-type]
