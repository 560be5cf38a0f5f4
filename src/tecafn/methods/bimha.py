"""BIMHA: bimodal information-augmented multi-head attention, implemented from the abstract.

Wu et al., "Video sentiment analysis with bimodal information-augmented multi-head attention",
Knowledge-Based Systems 2022.

Each pair of modalities is one feature, the outer product of their vectors; the three features
attend to each other, so that each pair's share in the answer is learned, keep a residual, and are
joined for the answer.

Only the abstract was available to us. Ours, therefore: the vectors (the text's [CLS], last LSTM
states of audio and vision, all projected to one width with tanh), a linear layer and ReLU after
each outer product, one attention layer, a LayerNorm after the residual, the two-layer head, the
absolute error as the loss, every width, and a learned vector for an absent modality. None of its
published numbers is claimed.
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
from tecafn.layers.attention import MultiHeadAttention
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.sequence import SequenceLSTM
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames, pool
from tecafn.losses.task import TaskScheme

PAIRS = (
    (Modality.AUDIO, Modality.VISION),
    (Modality.AUDIO, Modality.TEXT),
    (Modality.VISION, Modality.TEXT),
)


@dataclass(frozen=True, kw_only=True)
class BIMHAConfig:
    """Settings, all ours.

    Args:
        unimodal_dim: width of each modality's vector; an outer product has its square.
        recurrent_dim: width of the LSTMs.
        pair_dim: width of each bimodal feature.
        num_heads: divides ``pair_dim``.
        hidden_dim: of the head.
        unimodal_dropout: on the vectors.
        attention_dropout: on the attention weights.
        head_dropout: on the joined features.
    """

    unimodal_dim: int = 16
    recurrent_dim: int = 32
    pair_dim: int = 64
    num_heads: int = 4
    hidden_dim: int = 64
    unimodal_dropout: float = 0.1
    attention_dropout: float = 0.1
    head_dropout: float = 0.1


class BIMHA(Network):
    """Three vectors, three outer products, attention among them, prediction."""

    def __init__(self, config: BIMHAConfig, info: DataInfo) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        self.recurrent, self.project = nn.ModuleDict(), nn.ModuleDict()
        for modality, width in self.frames.dims.items():
            if modality != Modality.TEXT:
                self.recurrent[modality] = SequenceLSTM(width, config.recurrent_dim)
                width = config.recurrent_dim
            self.project[modality] = nn.Sequential(
                nn.Linear(width, config.unimodal_dim), nn.Tanh(), Dropout(config.unimodal_dropout)
            )
        self.slots = AbsentVectors(dict.fromkeys(Modality, config.unimodal_dim))
        self.pairs = nn.ModuleList(
            nn.Sequential(nn.Linear(config.unimodal_dim**2, config.pair_dim), nn.ReLU())
            for _ in PAIRS
        )
        self.attention = MultiHeadAttention(
            config.pair_dim, num_heads=config.num_heads, dropout=config.attention_dropout
        )
        self.norm = nn.LayerNorm(config.pair_dim)
        self.hidden = nn.Sequential(
            Dropout(config.head_dropout),
            nn.Linear(len(PAIRS) * config.pair_dim, config.hidden_dim),
            nn.ReLU(),
        )
        self.answer = OutputLayer(config.hidden_dim, info, output="linear")

    def forward(self, batch: Batch) -> Output:
        """Scores or logits; features ``bimodal`` (B, 3, pair_dim) and ``fused``, the same shape."""
        vectors = {}
        for modality, frames in self.frames(batch).items():
            if modality == Modality.TEXT:
                vector = pool(frames, "first")
            else:
                _, vector = self.recurrent[modality](frames)
            vectors[modality] = self.project[modality](vector)
        filled = self.slots(vectors, batch)
        bimodal = torch.stack(
            [
                layer((filled[one].unsqueeze(2) * filled[other].unsqueeze(1)).flatten(1))
                for (one, other), layer in zip(PAIRS, self.pairs, strict=True)
            ],
            dim=1,
        )  # (B, 3, pair_dim)
        all_places = torch.ones(bimodal.shape[:2], dtype=torch.bool, device=bimodal.device)
        fused = self.norm(bimodal + self.attention(bimodal, bimodal, all_places))
        answer = self.answer(self.hidden(fused.flatten(1)))
        return Output(answer, {"bimodal": bimodal, "fused": fused})


METHODS.register(
    "bimha",
    Method(
        config=BIMHAConfig,
        build=lambda config, info: TaskScheme(BIMHA(config, info)),
        paper="Wu et al., Video sentiment analysis with bimodal information-augmented "
        "multi-head attention, Knowledge-Based Systems 2022",
        basis="abstract",
        summary="outer products of each pair of modalities, weighted by attention",
    ),
)
