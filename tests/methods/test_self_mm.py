"""Self-MM's network and objective, written out once more."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.registry import METHODS
from tecafn.methods.self_mm import SelfMMConfig, SelfMMScheme
from tecafn.testing import MethodCase, _double, method_case

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("self_mm", config=SelfMMConfig(first_weight=0.0)) as made:
        yield made


def scheme_of(case: MethodCase, seed: int) -> SelfMMScheme:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, SelfMMScheme)
    return scheme


@pytest.mark.parametrize("seed", SEEDS)
def test_in_the_first_epoch_the_papers_weights_leave_the_multimodal_task_alone(
    case: MethodCase, seed: int
) -> None:
    scheme, batch = scheme_of(case, seed), _double(case.mixed_batch(seed=seed))
    assert batch.labels is not None
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    errors = (losses.output.prediction - batch.labels).abs().tolist()
    assert losses.total.item() == pytest.approx(sum(errors) / len(errors))
    assert {losses.terms[m].item() for m in Modality} == {0.0}


@pytest.mark.parametrize("seed", SEEDS)
def test_from_the_second_epoch_each_modality_has_its_weighted_error(
    case: MethodCase, seed: int
) -> None:
    scheme, batch = scheme_of(case, seed), _double(case.mixed_batch(seed=seed))
    assert batch.labels is not None
    for epoch in range(2):
        progress = Progress(seed=0, epoch=epoch)
        scheme.after_step(batch, scheme.loss(batch, progress), progress)
    losses = scheme.loss(batch, Progress(seed=0, epoch=2))
    total = (losses.output.prediction - batch.labels).abs().mean().item()
    for m in Modality:
        target, _ = scheme.tasks.bank.labels_of(m, batch.labels, batch.index)
        _, scores = scheme.tasks.heads[m](losses.output.features[f"vector_{m}"])
        rows = [
            math.tanh(abs(y_s - y_m)) * abs(score - y_s)
            for y_s, y_m, score, there in zip(
                target.tolist(),
                batch.labels.tolist(),
                scores.tolist(),
                batch.present[m].tolist(),
                strict=True,
            )
            if there
        ]
        assert sum(rows) > 0
        assert losses.terms[m].item() == pytest.approx(sum(rows) / len(rows), abs=1e-12)
        total += sum(rows) / len(rows)
    assert losses.total.item() == pytest.approx(total, abs=1e-12)


def test_the_text_is_its_cls_and_the_heads_are_not_exported(case: MethodCase) -> None:
    scheme, batch = scheme_of(case, 0), _double(case.batch(4))
    states = scheme.network.frames(batch)[Modality.TEXT].values
    features = scheme.network(batch).features
    assert torch.equal(features["vector_text"], states[:, 0])
    joined = torch.cat([features[f"vector_{m}"] for m in Modality], dim=1)
    torch.testing.assert_close(features["fused"], scheme.network.joined.fuse(joined))
    exported = set(scheme.network.state_dict())
    assert not any("tasks" in name or "bank" in name for name in exported)
    assert METHODS["self_mm"].tasks == ("regression",)
