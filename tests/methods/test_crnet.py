"""CRNet's step against the shift, and training through it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.registry import METHODS
from tecafn.methods.crnet import OTHERS, CRNetConfig, CRNetScheme, Subspace
from tecafn.testing import MethodCase, _double, method_case

SEEDS = (0, 1, 2)
PROGRESS = Progress(seed=0, epoch=0)
CONFIG = CRNetConfig(dim=6, lstm_dim=4, step_size=0.5)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("crnet", config=CONFIG) as made:
        yield made


def drawn(seed: int) -> tuple[Subspace, Tensor, Tensor]:
    torch.manual_seed(seed)
    text, other = torch.randn(2, 3, 4).double().requires_grad_().unbind()
    return Subspace(4).double(), text, other


@pytest.mark.parametrize("seed", SEEDS)
def test_the_step_goes_against_the_gradient_of_each_samples_own_shift(seed: int) -> None:
    subspace, text, other = drawn(seed)
    moved = subspace.enhance(text, other, step_size=0.3)
    for row in range(3):
        for column in range(4):
            shifts = []
            for sign in (1, -1):
                nudged = other.detach().clone()
                nudged[row, column] += sign * 1e-6
                apart = torch.tanh(subspace.other[0](nudged[row])) - torch.tanh(
                    subspace.text[0](text[row])
                )
                shifts.append(0.5 * sum(value**2 for value in apart.tolist()))
            slope = (shifts[0] - shifts[1]) / 2e-6
            expected = other[row, column].item() - 0.3 * slope
            assert moved[row, column].item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_training_differentiates_through_the_gradient(seed: int) -> None:
    subspace, text, other = drawn(seed)
    weight = subspace.other[0].weight
    assert isinstance(weight, Tensor)

    def moved(text: Tensor, other: Tensor, weight: Tensor) -> Tensor:
        parameters = {"other.0.weight": weight}
        stepped: Tensor = torch.func.functional_call(
            _Enhance(subspace), {f"subspace.{k}": v for k, v in parameters.items()}, (text, other)
        )
        return stepped

    inputs = (text.detach().requires_grad_(), other.detach().requires_grad_(), weight)
    assert torch.autograd.gradcheck(moved, inputs)
    # Without the gradient's own gradient the projections would get none.
    (of_weight,) = torch.autograd.grad(moved(*inputs).sum(), weight)
    assert bool((of_weight != 0).any())


class _Enhance(torch.nn.Module):
    def __init__(self, subspace: Subspace) -> None:
        super().__init__()
        self.subspace = subspace

    def forward(self, text: Tensor, other: Tensor) -> Tensor:
        return self.subspace.enhance(text, other, step_size=0.3)


@pytest.mark.parametrize("seed", SEEDS)
def test_terms_are_over_the_rows_that_have_what_is_compared(case: MethodCase, seed: int) -> None:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, CRNetScheme)
    batch = _double(case.mixed_batch(seed=seed))
    assert batch.labels is not None
    network, losses = scheme.network, scheme.loss(batch, PROGRESS)
    vectors = network.vectors(batch)
    moved, shifts = {m: list(rows) for m, rows in vectors.items()}, []
    for other in OTHERS:
        own = []
        for row in range(batch.size):
            if not (batch.present[Modality.TEXT][row] and batch.present[other][row]):
                continue
            pair = vectors[Modality.TEXT][row : row + 1], vectors[other][row : row + 1]
            own.append(network.subspace(other).shift(*pair).item())
            moved[other][row] = network.subspace(other).enhance(*pair, step_size=0.5)[0]
        shifts.append(sum(own) / len(own))
    enhanced = {m: torch.stack(rows) for m, rows in moved.items()}
    expected = {
        "task": network(batch).prediction,
        "enhanced": network.answer_vectors(enhanced).prediction,
    }
    for name, scores in expected.items():
        error = (scores - batch.labels).abs().mean().item()
        assert losses.terms[name].item() == pytest.approx(error, abs=1e-12)
    assert losses.terms["task"].item() != losses.terms["enhanced"].item()
    assert losses.terms["coordination"].item() == pytest.approx(sum(shifts) / 2, abs=1e-12)
    for m in Modality:
        there = batch.present[m]
        error = (scheme.heads[m](enhanced[m]) - batch.labels)[there].abs().mean().item()
        assert losses.terms[m].item() == pytest.approx(error, abs=1e-12)


def test_the_step_is_training_only(case: MethodCase) -> None:
    batch = case.batch(3)
    still, moving = (
        dataclasses.replace(case, config=dataclasses.replace(CONFIG, step_size=size)).build()
        for size in (0.0, 0.5)
    )
    assert torch.equal(still.eval().predict(batch), moving.eval().predict(batch))
    assert METHODS["crnet"].basis == "abstract"
