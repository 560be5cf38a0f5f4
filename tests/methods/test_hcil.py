"""HCIL's contrasts and predictions in loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.registry import METHODS
from tecafn.methods.hcil import PAIRS, HCILConfig, HCILScheme, supervised_contrast
from tecafn.testing import MethodCase, _double, method_case

SEEDS = (0, 1, 2)
CONFIG = HCILConfig(dim=6, lstm_dim=4, temperature=0.5)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("hcil", config=CONFIG) as made:
        yield made


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b).item() / (a.norm() * b.norm()).item()


def grouped(vectors: Tensor, groups: list[int], rows: list[int], temperature: float) -> float:
    """Khosla et al. 2020, eq. 2, over these rows."""
    losses = []
    for i in rows:
        others = [j for j in rows if j != i]
        powers = {j: math.exp(cosine(vectors[i], vectors[j]) / temperature) for j in others}
        alike = [j for j in others if groups[j] == groups[i]]
        if alike:
            shares = [math.log(powers[j] / sum(powers.values())) for j in alike]
            losses.append(-sum(shares) / len(alike))
    return sum(losses) / len(losses) if losses else 0.0


def paired(query: Tensor, key: Tensor, rows: list[int], temperature: float) -> float:
    losses = []
    for i in rows:
        powers = {j: math.exp(cosine(query[i], key[j]) / temperature) for j in rows}
        losses.append(-math.log(powers[i] / sum(powers.values())))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("seed", SEEDS)
def test_supervised_contrast_is_the_printed_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(8, 3, generator=generator).double()
    groups, present = [0, 1, 0, 2, 1, 1, 0, 0], torch.ones(8, dtype=torch.bool)
    present[6] = False
    got = supervised_contrast(vectors, torch.tensor(groups), present=present, temperature=0.4)
    rows = [0, 1, 2, 3, 4, 5, 7]
    assert got.item() == pytest.approx(grouped(vectors, groups, rows, 0.4), abs=1e-10)


def test_a_row_alone_has_a_contrast_of_zero_and_a_finite_gradient() -> None:
    vectors = torch.randn(1, 3, requires_grad=True)
    loss = supervised_contrast(
        vectors, torch.tensor([0]), present=torch.tensor([True]), temperature=0.1
    )
    torch.autograd.backward(loss)
    assert loss.item() == 0.0
    assert vectors.grad is not None
    assert bool(vectors.grad.isfinite().all())


@pytest.mark.parametrize("seed", SEEDS)
def test_terms_are_over_the_rows_that_have_what_is_compared(case: MethodCase, seed: int) -> None:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, HCILScheme)
    batch = _double(case.mixed_batch(seed=seed))
    assert batch.labels is not None
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    features = losses.output.features
    groups = [int(y > 0) - int(y < 0) for y in batch.labels.tolist()]

    def rows(*modalities: Modality) -> list[int]:
        return [i for i in range(12) if all(batch.present[m][i] for m in modalities)]

    intra = [grouped(features[f"vector_{m}"], groups, rows(m), 0.5) for m in Modality]
    inter = [
        paired(features[f"vector_{a}"], features[f"vector_{b}"], rows(a, b), 0.5) for a, b in PAIRS
    ]
    named = [f"pair_{a}_{b}" for a, b in PAIRS]
    interactive = [
        paired(features[one], features[other], rows(*Modality), 0.5)
        for one, other in itertools.combinations(named, 2)
    ]
    guesses = []
    for a, b in itertools.permutations(Modality, 2):
        guess = scheme.predictors[f"{a}_to_{b}"](features[f"vector_{a}"])
        apart = [1 - cosine(guess[i], features[f"vector_{b}"][i]) for i in rows(a, b)]
        guesses.append(sum(apart) / len(apart))
    expected = {
        "task": (losses.output.prediction - batch.labels).abs().mean().item(),
        "intra": sum(intra) / 3,
        "inter": sum(inter) / 3,
        "interactive": sum(interactive) / 3,
        "prediction": sum(guesses) / 6,
    }
    got = {name: term.item() for name, term in losses.terms.items()}
    assert got == pytest.approx(expected, abs=1e-10)


def test_what_is_predicted_gets_no_gradient_from_the_prediction(case: MethodCase) -> None:
    scheme = case.build(seed=1, dropout=False)  # seed 0 draws six ReLUs that are all off
    assert isinstance(scheme, HCILScheme)
    # A cosine with a target that gets no gradient trains the source's encoder alone.
    batch = case.batch(4, lacking=dict.fromkeys(range(4), "v"))
    for name in list(scheme.predictors):
        if name != "text_to_audio":
            del scheme.predictors[name]
    torch.autograd.backward(scheme.loss(batch, Progress(seed=0, epoch=0)).terms["prediction"])
    encoders = scheme.network.encoders.encoders
    of_audio = [p.grad for p in encoders[Modality.AUDIO].parameters()]
    of_text = [p.grad for p in encoders[Modality.TEXT].parameters()]
    assert not any(g is not None and bool(g.any()) for g in of_audio)
    assert all(g is not None and bool(g.any()) for g in of_text)


def test_the_summary_says_what_could_be_read() -> None:
    assert METHODS["hcil"].basis == "abstract"
