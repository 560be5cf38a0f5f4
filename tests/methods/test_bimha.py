"""BIMHA's pairs and the attention among them, in slow loops."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.methods.bimha import BIMHA, PAIRS, BIMHAConfig
from tecafn.testing import MethodCase, _double, method_case

SEEDS = (0, 1, 2)
CONFIG = BIMHAConfig(unimodal_dim=3, recurrent_dim=4, pair_dim=6, num_heads=2, hidden_dim=5)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("bimha", config=CONFIG) as made:
        yield made


def network_of(case: MethodCase, seed: int) -> BIMHA:
    network = case.build(seed=seed, dropout=False).double().network
    assert isinstance(network, BIMHA)
    return network


def attended(rows: Tensor, attention: Any) -> Tensor:
    """One sample's three features, two heads."""
    query = attention.query(rows)
    key, value = attention.key_value(rows).chunk(2, dim=1)
    answer = []
    for i in range(3):
        heads = []
        for head in range(2):
            columns = slice(3 * head, 3 * head + 3)
            scores = [
                math.exp((query[i, columns] @ key[j, columns]).item() / math.sqrt(3))
                for j in range(3)
            ]
            mixed = [s / sum(scores) * value[j, columns] for j, s in enumerate(scores)]
            heads.append(torch.stack(mixed).sum(0))
        answer.append(torch.cat(heads))
    projected: Tensor = attention.output(torch.stack(answer))
    return projected


@pytest.mark.parametrize("seed", SEEDS)
def test_pairs_attend_to_each_other_keep_a_residual_and_are_joined(
    case: MethodCase, seed: int
) -> None:
    network, batch = network_of(case, seed), _double(case.mixed_batch(seed=seed))
    output = network(batch)
    bimodal, fused = output.features["bimodal"], output.features["fused"]
    for row in range(batch.size):
        expected = network.norm(bimodal[row] + attended(bimodal[row], network.attention))
        torch.testing.assert_close(fused[row], expected)
        hidden: Any = network.hidden
        vector = torch.relu(hidden[1](expected.flatten()))
        score = network.answer.linear(vector).item()
        assert output.prediction[row].item() == pytest.approx(score, abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pair_is_the_outer_product_of_its_vectors(case: MethodCase, seed: int) -> None:
    network, batch = network_of(case, seed), _double(case.batch(3, seed=seed))
    seen: dict[Modality, Tensor] = {}

    def keep(module: Any, arguments: Any, filled: dict[Modality, Tensor]) -> None:
        seen.update(filled)

    network.slots.register_forward_hook(keep)
    bimodal = network(batch).features["bimodal"]
    for place, (one, other) in enumerate(PAIRS):
        layer: Any = network.pairs[place]
        for row in range(3):
            product = [x * y for x in seen[one][row].tolist() for y in seen[other][row].tolist()]
            expected = torch.relu(layer[0](torch.tensor(product).double()))
            torch.testing.assert_close(bimodal[row, place], expected)
    assert len({frozenset(pair) for pair in PAIRS}) == 3


def test_it_says_that_it_rests_on_the_abstract() -> None:
    import tecafn.methods.bimha as module

    assert METHODS["bimha"].basis == "abstract"
    assert module.__doc__ is not None
    assert "Only the abstract was available to us" in module.__doc__
