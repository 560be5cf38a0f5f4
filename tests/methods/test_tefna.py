"""TeFNA (Huang et al. 2023): text asks, audio and vision answer; the bounds take complete rows."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.methods.tefna import TeFNA, TeFNAConfig, TeFNAScheme
from tecafn.testing import MethodCase, method_case

SEEDS = (0, 1, 2)
TEXT, AUDIO, VISION = Modality
START = Progress(seed=0, epoch=0)


def double(batch: Batch) -> Batch:
    assert batch.labels is not None
    sequences = {
        m: Padded(p.values.double(), p.mask) if p.values.is_floating_point() else p
        for m, p in batch.sequences.items()
    }
    return dataclasses.replace(batch, sequences=sequences, labels=batch.labels.double())


def scheme_in_double(case: MethodCase, seed: int) -> TeFNAScheme:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, TeFNAScheme)
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return scheme


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_fused_is_the_texts_mean_and_what_text_took_from_each(seed: int) -> None:
    config = TeFNAConfig(dim=8, num_heads=2)
    with method_case("tefna", config=config) as case, torch.no_grad():
        network, batch = scheme_in_double(case, seed).network, double(case.batch(3, seed=seed))
        fused = network(batch).features["fused"]
        low = network.project(batch)
        for row in range(batch.size):
            text = low[TEXT].values[row][low[TEXT].mask[row]]
            joined = [text.mean(0)]
            for modality in (AUDIO, VISION):
                own = Padded(low[modality].values[row : row + 1], low[modality].mask[row : row + 1])
                alone = network._place(own)[0][own.mask[0]]
                asking = network._place(
                    Padded(low[TEXT].values[row : row + 1], low[TEXT].mask[row : row + 1])
                )[0]
                stream = asking[low[TEXT].mask[row]].unsqueeze(0)
                everything = torch.ones(1, len(alone), dtype=torch.bool)
                took = network.crossings[modality](stream, alone.unsqueeze(0), everything)
                joined.append(took[0].mean(0))
            torch.testing.assert_close(fused[row], torch.cat(joined))


def bound(query: Tensor, key: Tensor, rows: list[int], temperature: float) -> float:
    """InfoNCE among the rows that have both, one query at a time."""
    total = 0.0
    for i in rows:
        scores = [
            nn.functional.cosine_similarity(query[i], key[j], dim=0).item() / temperature
            for j in rows
        ]
        total += math.log(sum(math.exp(score) for score in scores)) - scores[rows.index(i)]
    return total / len(rows)


@pytest.mark.parametrize("seed", SEEDS)
def test_information_is_bounded_between_text_and_each_other_over_complete_rows(seed: int) -> None:
    with method_case("tefna") as case:
        scheme, batch = scheme_in_double(case, seed), double(case.mixed_batch(seed=seed))
        losses = scheme.loss(batch, START)
        low = scheme.network.project(batch)
        mean = {
            m: torch.stack(
                [
                    p.values[i][p.mask[i]].sum(0) / max(1, int(p.mask[i].sum()))
                    for i in range(batch.size)
                ]
            )
            for m, p in low.items()
        }
    for modality in (AUDIO, VISION):
        both = (batch.present[TEXT] & batch.present[modality]).nonzero().flatten().tolist()
        assert 0 < len(both) < batch.size
        expected = bound(mean[TEXT], mean[modality], both, scheme.config.temperature)
        assert losses.terms[f"information_{modality}"].item() == pytest.approx(expected, rel=1e-9)
    weights = {"task": 1.0, "information_audio": 0.1, "information_vision": 0.1}
    assert dict(losses.weights) == weights


def test_no_weight_means_no_bound() -> None:
    with method_case("tefna", config=TeFNAConfig(information_weight=0.0)) as case:
        assert set(case.build().loss(case.mixed_batch(), START).terms) == {"task"}


def test_without_text_the_others_tell_by_the_means_of_their_own_frames() -> None:
    with method_case("tefna") as case, torch.no_grad():
        network, batch = scheme_in_double(case, 0).network, double(case.batch(3, lacking={0: "t"}))
        fused = network(batch).features["fused"]
        low = network.project(batch)
    joined = [network.slots.vectors[TEXT]]
    joined += [low[m].values[0][low[m].mask[0]].mean(0) for m in (AUDIO, VISION)]
    torch.testing.assert_close(fused[0], torch.cat(joined))


def test_text_must_be_in_use() -> None:
    with method_case("tefna") as case:
        info = dataclasses.replace(case.info, modalities=(AUDIO, VISION))
        with pytest.raises(ValueError, match="tefna starts from text"):
            TeFNA(case.config, info)
