"""TFN: tensor fusion network.

Zadeh et al., "Tensor Fusion Network for Multimodal Sentiment Analysis", EMNLP 2017. One vector a
modality, the outer product of all three with a 1 appended to each, and a small network on that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.output import Output
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network
from tecafn.core.settings import select
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.subnetworks import Subnetworks, SubnetworkWidths, append_one
from tecafn.losses.task import TaskScheme


@dataclass(frozen=True, kw_only=True)
class TFNConfig:
    """Settings; the defaults are those that MMSA (Mao et al. 2022) publishes for TFN on MOSI.

    Args:
        text_hidden_dim: width of the text's LSTM.
        text_dim, audio_dim, vision_dim: widths of the vectors whose outer product is taken.
        post_fusion_dim: width of the two layers after the product.
        text_dropout, audio_dropout, vision_dropout: in the sub-networks.
        fusion_dropout: of the flattened product.
        output: ``sigmoid`` bounds a score to the label range, ``linear`` does not.
    """

    text_hidden_dim: int = 128
    text_dim: int = 32
    audio_dim: int = 32
    vision_dim: int = 128
    post_fusion_dim: int = 64
    text_dropout: float = 0.3
    audio_dropout: float = 0.3
    vision_dropout: float = 0.3
    fusion_dropout: float = 0.5
    output: Literal["sigmoid", "linear"] = "sigmoid"


def tensor_fusion(vectors: Sequence[Tensor]) -> Tensor:
    """The outer product of [1; h_m] over the modalities, flattened, the last modality fastest.

    Args:
        vectors: (B, D_m) each.

    Returns:
        (B, product of D_m + 1): 1, each vector, the products of two and of three.

    Example:
        >>> import torch
        >>> tensor_fusion([torch.tensor([[2.0]]), torch.tensor([[3.0]])])
        tensor([[1., 3., 2., 6.]])

    Source: TFN, Zadeh et al. 2017, its tensor fusion layer.
    """
    product = append_one(vectors[0])
    for vector in vectors[1:]:
        product = (product.unsqueeze(2) * append_one(vector).unsqueeze(1)).flatten(1)
    return product


class TFN(Network):
    """Sub-networks, tensor fusion, two ReLU layers, an answer.

    Ours: the text's dropout acts at its published value; MMSA's code sets it to 0 where the text's
    LSTM has one layer.
    """

    def __init__(self, config: TFNConfig, info: DataInfo) -> None:
        super().__init__()
        self.subnetworks = Subnetworks(info, select(config, SubnetworkWidths))
        product_dim = prod(dim + 1 for dim in self.subnetworks.dims.values())
        self.inference = nn.Sequential(
            Dropout(config.fusion_dropout),
            nn.Linear(product_dim, config.post_fusion_dim),
            nn.ReLU(),
            nn.Linear(config.post_fusion_dim, config.post_fusion_dim),
            nn.ReLU(),
        )
        self.answer = OutputLayer(config.post_fusion_dim, info, output=config.output)

    def forward(self, batch: Batch) -> Output:
        """(B,) scores or (B, C) logits."""
        vectors = self.subnetworks(batch)
        fused = self.inference(tensor_fusion(list(vectors.values())))
        return Output(self.answer(fused), {"fused": fused})


METHODS.register(
    "tfn",
    Method(
        config=TFNConfig,
        build=lambda config, info: TaskScheme(TFN(config, info)),
        paper="Zadeh et al., Tensor Fusion Network for Multimodal Sentiment Analysis, EMNLP 2017",
        basis="code",
        certified="MMSA's code",
        summary="the outer product of one vector per modality, a 1 appended to each",
    ),
)
