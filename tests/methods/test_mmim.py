"""MMIM's two phases and its bounds, each written out from the paper once more."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tecafn.core.batch import Batch
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.methods.mmim import MMIMConfig, MMIMScheme
from tecafn.testing import MethodCase, _double, method_case

TEXT, AUDIO, VISION = Modality
SEEDS = (0, 1, 2)
PROGRESS = Progress(seed=0, epoch=0)
CONFIG = MMIMConfig(memory_size=6, fusion_dim=10, recurrent_dim=3)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("mmim", config=CONFIG) as made:
        yield made


def scheme_of(case: MethodCase, seed: int) -> MMIMScheme:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, MMIMScheme)
    return scheme


def batch_of(case: MethodCase, seed: int) -> Batch:
    return _double(case.mixed_batch(seed=seed))


def density(x: Tensor, y: Tensor, gaussian: Any) -> float:
    """-log q(y | x) of one sample."""
    mean, log_variance = gaussian.mean(x).tolist(), gaussian.log_variance(x).tolist()
    return sum(
        (m - value) ** 2 / (2 * math.exp(v)) + (v + math.log(2 * math.pi)) / 2
        for m, v, value in zip(mean, log_variance, y.tolist(), strict=True)
    )


def contrast(predicted: Tensor, own: Tensor) -> float:
    """-log of the softmax, over samples, of the cosine to one's own vector."""
    total = 0.0
    for i in range(len(own)):
        cosines = [
            (predicted[i] @ own[j] / (predicted[i].norm() * own[j].norm())).item()
            for j in range(len(own))
        ]
        total += math.log(sum(math.exp(c) for c in cosines)) - cosines[i]
    return total / len(own)


@pytest.mark.parametrize("seed", SEEDS)
def test_terms_are_the_papers(case: MethodCase, seed: int) -> None:
    scheme, batch = scheme_of(case, seed), batch_of(case, seed)
    assert batch.labels is not None
    earlier = batch_of(case, seed + 10)
    remembered = scheme.loss(earlier, PROGRESS)
    scheme.after_step(earlier, remembered, PROGRESS)
    losses = scheme.loss(batch, PROGRESS)
    features: Any = losses.output.features
    has = batch.present

    expected = {"task": (losses.output.prediction - batch.labels).abs().mean().item()}
    expected["cpc"] = sum(
        contrast(scheme.predictors[m](features["fused"][has[m]]), features[m][has[m]])
        for m in Modality
    )
    expected["log_density"] = 0.0
    for m in (AUDIO, VISION):
        rows = (has[TEXT] & has[m]).nonzero().flatten().tolist()
        expected["log_density"] += sum(
            density(features[TEXT][row], features[m][row], scheme.gaussians[m]) for row in rows
        ) / len(rows)

    entropy = 0.0
    assert earlier.labels is not None
    for m in (AUDIO, VISION):
        before: Tensor = remembered.output.features[m][earlier.present[m]].detach()[-6:]
        signs = (earlier.labels[earlier.present[m]] > 0)[-6:]
        # Older ones were overwritten: the memory holds six.
        assert set(map(tuple, before.tolist())) == set(
            map(tuple, scheme._memory(m).vectors.tolist())
        )
        for positive in (False, True):
            now = has[m] & ((batch.labels > 0) == positive)
            vectors = torch.cat([before[signs == positive], features[m][now]])
            covariance = vectors.T.cov() + 1e-4 * torch.eye(3).double()
            log_det = torch.logdet(covariance).item()
            entropy += (log_det + 3 * math.log(2 * math.pi * math.e)) / 4
    expected["entropy"] = -entropy
    got = {name: term.item() for name, term in losses.terms.items()}
    assert got == pytest.approx(expected, abs=1e-9)
    total = expected["task"] + 0.1 * (
        expected["cpc"] + expected["log_density"] + expected["entropy"]
    )
    assert losses.total.item() == pytest.approx(total, abs=1e-9)


def test_phases_divide_the_parameters(case: MethodCase) -> None:
    scheme = scheme_of(case, 0)
    first, second = scheme.phases()
    ids = [
        {id(p) for group in phase.parameters.values() for p in group} for phase in (first, second)
    ]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == {id(p) for p in scheme.parameters()}
    assert ids[0] == {id(p) for p in scheme.gaussians.parameters()}
    assert set(second.parameters) == {"main", "text_encoder"}


def test_each_phase_gives_gradients_to_its_own_parameters_alone(case: MethodCase) -> None:
    scheme, batch = scheme_of(case, 0), batch_of(case, 0)
    for phase in scheme.phases():
        scheme.zero_grad(set_to_none=True)
        phase.loss(batch, PROGRESS).total.backward()
        own = {id(p) for group in phase.parameters.values() for p in group}
        with_gradient = {id(p) for p in scheme.parameters() if p.grad is not None}
        assert with_gradient
        assert with_gradient <= own


def test_the_first_phase_is_the_likelihood_alone(case: MethodCase) -> None:
    scheme, batch = scheme_of(case, 1), batch_of(case, 1)
    first, second = (phase.loss(batch, PROGRESS) for phase in scheme.phases())
    assert set(first.terms) == {"log_density"}
    assert first.total.item() == pytest.approx(second.terms["log_density"].item(), abs=1e-12)


def test_entropy_counts_once_the_memory_is_full_and_only_the_main_phase_fills_it(
    case: MethodCase,
) -> None:
    scheme = scheme_of(case, 0)
    few = _double(case.batch(4, seed=3))
    likelihood, main = scheme.phases()
    scheme.after_step(few, likelihood.loss(few, PROGRESS), PROGRESS)
    assert int(scheme._memory(AUDIO).num_pushed) == 0
    for step in range(3):
        losses = main.loss(few, PROGRESS)
        assert (losses.terms["entropy"].item() == 0.0) is (step < 2)
        scheme.after_step(few, losses, PROGRESS)


def test_a_score_of_zero_is_in_neither_half(case: MethodCase) -> None:
    scheme, batch = scheme_of(case, 0), batch_of(case, 0).select(torch.arange(3))
    scored = dataclasses.replace(batch, labels=torch.tensor([-0.5, 0.0, 2.0]).double())
    assert scheme._half(scored).tolist() == [0, -1, 1]


def test_each_of_two_classes_is_a_half() -> None:
    with method_case("mmim", config=CONFIG, task="classification") as case:
        scheme = case.build()
        assert isinstance(scheme, MMIMScheme)
        batch = case.batch(4)
        assert batch.labels is not None
        assert scheme._half(batch).tolist() == batch.labels.tolist() == [0, 1, 0, 1]


def test_equal_samples_have_a_singular_covariance_and_no_nan(case: MethodCase) -> None:
    scheme = scheme_of(case, 0)
    one = _double(case.batch(2, seed=1)).select(torch.tensor([0, 0, 0, 0, 1, 1, 1]))
    for step in range(3):
        scheme.zero_grad()
        losses = scheme.loss(one, Progress(seed=0, epoch=0, step=step))
        losses.total.backward()
        scheme.after_step(one, losses, PROGRESS)
        assert bool(losses.total.isfinite())
    assert losses.terms["entropy"].item() != 0.0
    assert all(bool(p.grad.isfinite().all()) for p in scheme.parameters() if p.grad is not None)


@pytest.mark.parametrize("seed", SEEDS)
def test_prediction_is_an_mlp_of_the_three_vectors(case: MethodCase, seed: int) -> None:
    network, batch = scheme_of(case, seed).network, batch_of(case, seed)
    output = network(batch)
    features, layers = output.features, network.fusion
    vector = torch.cat([features[m] for m in Modality], dim=1)
    expected = torch.tanh(layers[3](torch.tanh(layers[1](vector))))
    torch.testing.assert_close(features["fused"], expected)
    score = expected @ network.answer.linear.weight[0] + network.answer.linear.bias
    torch.testing.assert_close(output.prediction, score)
    text = network.frames.text_encoder(batch.sequences[TEXT])
    there = batch.present[TEXT]
    torch.testing.assert_close(features[TEXT][there], text.values[there, 0])
