"""LMF (Liu et al. 2018): the factorised form is the full tensor's."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from tecafn.core.modality import Modality
from tecafn.methods.lmf import LMF, LMFConfig, LowRankFusion
from tecafn.methods.tfn import tensor_fusion
from tecafn.testing import method_case

SEEDS = (0, 1, 2)
TEXT, AUDIO, VISION = Modality
DIMS = {TEXT: 3, AUDIO: 2, VISION: 4}


def fusion_and_vectors(seed: int) -> tuple[LowRankFusion, dict[Modality, torch.Tensor]]:
    torch.manual_seed(seed)
    fusion = LowRankFusion(DIMS, rank=3, out_dim=2).double()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.copy_(torch.randn_like(parameter))
    vectors = {m: torch.randn(5, dim, dtype=torch.float64) for m, dim in DIMS.items()}
    return fusion, vectors


@pytest.mark.parametrize("seed", SEEDS)
def test_low_rank_fusion_is_a_linear_layer_on_tfns_outer_product(seed: int) -> None:
    fusion, vectors = fusion_and_vectors(seed)
    # The full weight tensor: sum over the rank of outer products of the factors' columns.
    weight = torch.einsum(
        "r,rto,rao,rvo->otav", fusion.rank_weights, *(fusion.factors[m] for m in DIMS)
    )
    expected = tensor_fusion(list(vectors.values())) @ weight.flatten(1).T + fusion.bias
    torch.testing.assert_close(fusion(vectors), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_low_rank_fusion_is_the_papers_sum_of_products(seed: int) -> None:
    fusion, vectors = fusion_and_vectors(seed)
    got = fusion(vectors)
    for row, column in itertools.product(range(5), range(2)):
        total = fusion.bias[column].item()
        for rank in range(3):
            product = fusion.rank_weights[rank].item()
            for m in DIMS:
                ones = [1.0, *vectors[m][row].tolist()]
                factor = fusion.factors[m][rank, :, column].tolist()
                product *= sum(f * h for f, h in zip(factor, ones, strict=True))
            total += product
        assert got[row, column].item() == pytest.approx(total, rel=1e-12)


def test_the_weight_tensor_of_rank_one_has_rank_one_and_of_three_more() -> None:
    for rank, expected in ((1, 1), (3, 3)):
        torch.manual_seed(rank)
        fusion = LowRankFusion(DIMS, rank=rank, out_dim=1).double()
        factors = [fusion.factors[m][..., 0] for m in DIMS]
        weight = torch.einsum("r,rt,ra,rv->tav", fusion.rank_weights, *factors)
        assert int(torch.linalg.matrix_rank(weight.flatten(1))) == expected


def test_scores_start_around_the_middle_of_the_label_range() -> None:
    with method_case("lmf") as case:
        shifted = dataclasses.replace(case, info=dataclasses.replace(case.info, label_range=(0, 6)))
        here, there = case.build().network.eval(), shifted.build().network.eval()
        assert isinstance(there, LMF)
        batch = case.mixed_batch()
        torch.testing.assert_close(there(batch).prediction, here(batch).prediction + 3.0)


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="rank must be >= 1, got 0"):
        LMFConfig(rank=0)
