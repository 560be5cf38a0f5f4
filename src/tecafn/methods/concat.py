"""A plain concatenation: the same unimodal encoders, pooled, joined, one head.

Not from a paper: the baseline that says what the encoders alone give, without attention between
modalities, contrast or replacement.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Output
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network
from tecafn.core.settings import select
from tecafn.layers.attention import Residual, TransformerSettings
from tecafn.layers.encoders import FrameEncoder, TextSequenceEncoder
from tecafn.layers.heads import PredictionHead
from tecafn.layers.sequence import masked_mean
from tecafn.layers.unimodal import fill_absent
from tecafn.losses.task import TaskScheme


@dataclass(frozen=True, kw_only=True)
class ConcatConfig:
    """Settings; the equations are TeCaFN's.

    Args:
        dim: common width of the sequences.
        num_heads: attention heads; divides ``dim``.
        num_unimodal_layers: layers of each unimodal transformer (eq. 2-3).
        unimodal_hidden_dim: width of the LSTM (eq. 4).
        text_kernel_size, frame_kernel_size: k_m of eq. 5 for text, and for audio and vision.
        residual: ``printed`` is ``f(LN(x)) + LN(x)`` as in eq. 2-3; ``pre_norm`` the usual
            ``x + f(LN(x))``.
        embedding_dropout, ..., head_dropout: probabilities.
    """

    dim: int = 30
    num_heads: int = 5
    num_unimodal_layers: int = 6
    unimodal_hidden_dim: int = 32
    text_kernel_size: int = 1
    frame_kernel_size: int = 3
    residual: Residual = "printed"
    embedding_dropout: float = 0.25
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    head_dropout: float = 0.1


class Concat(Network):
    """Pool each modality's sequence, join the vectors, predict.

    An absent modality's slot holds a learned vector.
    """

    def __init__(self, config: ConcatConfig, info: DataInfo) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict()
        # The head reads them in the order in which they were named.
        for modality in sorted(info.usable, key=info.modalities.index):
            if modality == Modality.TEXT:
                self.encoders[modality] = TextSequenceEncoder(
                    info, dim=config.dim, kernel_size=config.text_kernel_size
                )
            else:
                self.encoders[modality] = FrameEncoder(
                    info.widths[modality],
                    info.statistics.get(modality),
                    dim=config.dim,
                    transformer=select(config, TransformerSettings, closing_norm=False),
                    num_layers=config.num_unimodal_layers,
                    hidden_dim=config.unimodal_hidden_dim,
                    kernel_size=config.frame_kernel_size,
                    embedding_dropout=config.embedding_dropout,
                )
        self.absent = nn.ParameterDict({m: torch.zeros(config.dim) for m in self.encoders})
        self.head = PredictionHead(
            len(self.encoders) * config.dim,
            info,
            dropout=config.head_dropout,
            output="tanh",
        )

    def forward(self, batch: Batch) -> Output:
        """(B,) scores or (B, C) logits."""
        vectors = {}
        for modality in map(Modality, self.encoders):
            if modality in batch.sequences:
                sequence = self.encoders[modality](batch.sequences[modality])
                vectors[modality] = masked_mean(sequence.values, sequence.mask)
        filled = fill_absent(vectors, self.absent, batch)
        fused = torch.cat([filled[m] for m in map(Modality, self.encoders)], dim=1)
        return Output(self.head(fused), {"fused": fused})


METHODS.register(
    "concat",
    Method(
        config=ConcatConfig,
        build=lambda config, info: TaskScheme(Concat(config, info)),
        paper="none: the baseline",
        basis="ours",
        summary="the same unimodal encoders, pooled and concatenated: the baseline",
    ),
)
