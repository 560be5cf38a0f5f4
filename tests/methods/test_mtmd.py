"""MTMD: who teaches whom, and how copies follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.registry import METHODS
from tecafn.losses.distillation import MomentumCopy
from tecafn.methods.mtmd import MTMDConfig, MTMDScheme
from tecafn.testing import MethodCase, _double, method_case

PROGRESS = Progress(seed=0, epoch=0)
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("mtmd", config=MTMDConfig(momentum=0.75)) as made:
        yield made


def scheme_of(case: MethodCase, seed: int) -> MTMDScheme:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, MTMDScheme)
    return scheme


@pytest.mark.parametrize("seed", SEEDS)
def test_the_better_teach_the_weaker_scores_and_classes(case: MethodCase, seed: int) -> None:
    scheme, batch = scheme_of(case, seed), _double(case.mixed_batch(seed=seed))
    losses = scheme.loss(batch, PROGRESS)
    features = losses.output.features
    shares = {m: (scheme.classify[m](features[f"task_{m}"]) / 2).log_softmax(1) for m in Modality}
    shares_of_fused = (scheme.classify["fused"](features["fused"]) / 2).log_softmax(1)
    taught = []
    for student in (Modality.AUDIO, Modality.VISION):
        for teacher in ("fused", "text"):
            apart, divergence = [], []
            for row in range(batch.size):
                if not batch.present[student][row]:
                    continue
                if teacher == "text" and not batch.present[Modality.TEXT][row]:
                    continue
                scores = losses.output.prediction if teacher == "fused" else features["score_text"]
                apart.append(abs((features[f"score_{student}"][row] - scores[row]).item()))
                of = shares_of_fused if teacher == "fused" else shares[Modality.TEXT]
                divergence.append(
                    sum(
                        p.exp().item() * (p - q).item()
                        for p, q in zip(of[row], shares[student][row], strict=True)
                    )
                )
            taught += [sum(apart) / len(apart), 4 * sum(divergence) / len(divergence)]
    expected = sum(taught) / len(taught)
    assert losses.terms["distillation"].item() == pytest.approx(expected, abs=1e-10)


def test_classes_are_labels_rounded_from_the_lowest_to_the_highest(case: MethodCase) -> None:
    scheme, batch = scheme_of(case, 0), _double(case.mixed_batch(seed=0))
    low, high = case.info.label_range
    labels = torch.linspace(low - 0.4, high + 0.4, batch.size, dtype=torch.float64)
    batch = dataclasses.replace(batch, labels=labels)
    losses = scheme.loss(batch, PROGRESS)
    features = losses.output.features
    entropies = []
    for name in ("fused", *Modality):
        key = "fused" if name == "fused" else f"task_{name}"
        logs = scheme.classify[name](features[key]).log_softmax(1)
        of = []
        for row, label in enumerate(labels.tolist()):
            if name == "fused" or batch.present[Modality(name)][row]:
                of.append(-logs[row][min(max(round(label), int(low)), int(high)) - int(low)].item())
        entropies.append(sum(of) / len(of))
    expected = sum(entropies) / len(entropies)
    assert losses.terms["class"].item() == pytest.approx(expected, abs=1e-10)


def test_a_fresh_copy_agrees_with_its_student_and_then_follows_it(case: MethodCase) -> None:
    scheme, batch = scheme_of(case, 0), _double(case.batch(6))
    assert batch.labels is not None
    assert scheme.loss(batch, PROGRESS).terms["momentum"].item() == pytest.approx(0.0, abs=1e-12)
    follower = scheme.copies[Modality.AUDIO]
    assert isinstance(follower, MomentumCopy)
    before = [p.clone() for p in follower.parameters()]
    with torch.no_grad():
        for parameter in scheme.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    losses = scheme.loss(batch, PROGRESS)
    assert losses.terms["momentum"].item() > 0
    scheme.after_step(batch, losses, PROGRESS)
    score, (copied_score, _) = losses.output.features["score_audio"], losses.carry[Modality.AUDIO]
    student, copied = ((x - batch.labels).abs().mean().item() for x in (score, copied_score))
    rate = 2 * 0.25 * copied / (copied + student)
    goals = [p for part in scheme._followed(Modality.AUDIO) for p in part.parameters()]
    for old, new, goal in zip(before, follower.parameters(), goals, strict=True):
        torch.testing.assert_close(new, (1 - rate) * old + rate * goal)


def test_copies_and_heads_stay_out_of_the_export_and_copies_out_of_training(
    case: MethodCase,
) -> None:
    scheme = scheme_of(case, 0)
    trained = {
        id(p) for phase in scheme.phases() for group in phase.parameters.values() for p in group
    }
    assert not any(id(p) in trained for p in scheme.copies.parameters())
    assert not any("copies" in name or "tasks" in name for name in scheme.network.state_dict())
    assert METHODS["mtmd"].tasks == ("regression",)
    assert METHODS["mtmd"].basis == "abstract"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 0.4}, r"momentum must be in \[0.5, 1\), got 0.4"),
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MTMDConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"momentum": 0.5}, {"temperature": 0.5}])
def test_settings_just_within_their_limits_are_taken(options: dict[str, float]) -> None:
    config = MTMDConfig(**options)  # type: ignore[arg-type]
    assert options.items() <= vars(config).items()
