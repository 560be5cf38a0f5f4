"""LMF: low-rank multimodal fusion.

Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", ACL 2018. TFN's
sub-networks and TFN's outer product under a linear layer, whose weight tensor is a sum of r tensors
of rank one: then the product is never made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Output
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network
from tecafn.core.settings import select
from tecafn.layers.heads import LabelScale, unrounded
from tecafn.layers.subnetworks import Subnetworks, SubnetworkWidths, append_one
from tecafn.losses.task import TaskScheme


@dataclass(frozen=True, kw_only=True)
class LMFConfig:
    """Settings; the defaults are those that MMSA (Mao et al. 2022) publishes for LMF on MOSI.

    Args:
        rank: r, how many rank-one tensors the weight tensor is the sum of.
        text_hidden_dim: width of the text's LSTM.
        text_dim, audio_dim, vision_dim: widths of the vectors that are fused. MMSA's code makes the
            text's half as wide as its LSTM.
        text_dropout, audio_dropout, vision_dropout: in the sub-networks.

    Raises:
        ValueError: ``rank`` < 1.
    """

    rank: int = 3
    text_hidden_dim: int = 128
    text_dim: int = 64
    audio_dim: int = 16
    vision_dim: int = 128
    text_dropout: float = 0.3
    audio_dropout: float = 0.3
    vision_dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be >= 1, got {self.rank}")


class LowRankFusion(nn.Module):
    """A linear map of the outer product of [1; h_m], made from a factor per modality.

    Output o is ``b_o + sum_r w_r prod_m ([1; h_m] . F_m[r, :, o])``.

    Args:
        dims: width of each modality's vector.
        rank: r.
        out_dim: width of the output.

    Source: LMF, Liu et al. 2018; the weights w_r over the rank are the public code's. Ours:
    each factor starts normal with a variance of 1 / (D_m + 1), so that a product of three stays of
    order one; the weights start at r ** -0.5.
    """

    def __init__(self, dims: Mapping[Modality, int], *, rank: int, out_dim: int) -> None:
        super().__init__()
        self.factors = nn.ParameterDict(
            {m: torch.randn(rank, dim + 1, out_dim) * (dim + 1) ** -0.5 for m, dim in dims.items()}
        )
        self.rank_weights = nn.Parameter(torch.full((rank,), rank**-0.5))
        self.bias = nn.Parameter(torch.zeros(out_dim))

    def forward(self, vectors: Mapping[Modality, Tensor]) -> Tensor:
        """(B, D_m) of every modality to (B, out_dim)."""
        product: Tensor | None = None
        for name, factor in self.factors.items():
            # (B, D + 1) x (r, D + 1, out) -> (r, B, out)
            mapped = append_one(vectors[Modality(name)]) @ factor
            product = mapped if product is None else product * mapped
        assert product is not None, "there is no modality"
        return torch.einsum("r,rbo->bo", self.rank_weights, product) + self.bias


class LMF(Network):
    """Sub-networks and the low-rank fusion, which gives the answer itself.

    Ours: the text's dropout acts at its published value; MMSA's code sets it to 0 where the text's
    LSTM has one layer.
    """

    def __init__(self, config: LMFConfig, info: DataInfo) -> None:
        super().__init__()
        self.subnetworks = Subnetworks(info, select(config, SubnetworkWidths))
        self.fusion = LowRankFusion(
            self.subnetworks.dims, rank=config.rank, out_dim=info.output_dim
        )
        self.scale = LabelScale(info, "centred")  # ours, for labels that are not around zero

    def forward(self, batch: Batch) -> Output:
        """(B,) scores or (B, C) logits."""
        vectors = self.subnetworks(batch)
        bias = self.fusion.bias
        with unrounded(bias):
            raw = self.fusion({m: vector.to(bias.dtype) for m, vector in vectors.items()})
        return Output(self.scale(raw), {str(m): vector for m, vector in vectors.items()})


METHODS.register(
    "lmf",
    Method(
        config=LMFConfig,
        build=lambda config, info: TaskScheme(LMF(config, info)),
        paper="Liu et al., Efficient Low-rank Multimodal Fusion with Modality-Specific "
        "Factors, ACL 2018",
        basis="code",
        certified="MMSA's code",
        summary="TFN's outer product under a linear layer of low rank, never made",
    ),
)
