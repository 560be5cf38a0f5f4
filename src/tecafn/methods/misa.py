"""MISA: modality-invariant and -specific subspaces.

Hazarika et al., "MISA: modality-invariant and -specific representations for multimodal sentiment
analysis", ACM Multimedia 2020.

Each modality is one vector, projected twice: by an encoder of its own into its private subspace,
and by the one encoder that all share. The six vectors attend to each other and are joined. Training
draws the shared ones together (CMD), pushes private and shared apart (difference), and rebuilds
each modality from its two vectors (reconstruction).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import mean_over_rows
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames
from tecafn.layers.utterance import ProjectionEncoders
from tecafn.losses.discrepancy import central_moment_discrepancy, subspace_differences
from tecafn.losses.task import task_loss

PAIRS = tuple(itertools.combinations(Modality, 2))


@dataclass(frozen=True, kw_only=True)
class MISAConfig:
    """Settings; the defaults are those of the authors' public code.

    Args:
        dim: width of every projection and subspace.
        num_heads: of the fusion transformer's one layer.
        feed_forward_dim: of the same.
        difference_weight: of the difference loss.
        similarity_weight: of the CMD.
        reconstruction_weight: of the reconstruction loss.
        num_moments: K of the CMD.
        head_dropout: between the two layers of the prediction.
        fusion_dropout: inside the transformer.
    """

    dim: int = 128
    num_heads: int = 2
    feed_forward_dim: int = 2048
    difference_weight: float = 0.3
    similarity_weight: float = 1.0
    reconstruction_weight: float = 1.0
    num_moments: int = 5
    head_dropout: float = 0.5
    fusion_dropout: float = 0.1


class MISA(Network):
    """Projections, subspaces, fusion of the six vectors, prediction.

    Ours: an absent modality's projection is a learned vector.
    """

    def __init__(self, config: MISAConfig, info: DataInfo) -> None:
        super().__init__()
        dim = config.dim
        self.frames = ModalityFrames(info)
        self.encoders = ProjectionEncoders(self.frames.dims, dim)
        self.slots = AbsentVectors(dict.fromkeys(Modality, dim))
        # The sigmoid bounds the subspaces to [0, 1], where the CMD is defined.
        self.private = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid()) for m in Modality}
        )
        self.shared = nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid())
        self.fusion = nn.TransformerEncoderLayer(
            dim,
            config.num_heads,
            config.feed_forward_dim,
            dropout=config.fusion_dropout,
            batch_first=True,
        )
        self.hidden = nn.Sequential(
            nn.Linear(6 * dim, 3 * dim), Dropout(config.head_dropout), nn.ReLU()
        )
        self.answer = OutputLayer(3 * dim, info, output="linear")

    def forward(self, batch: Batch) -> Output:
        """Scores or logits; features ``projected_*``, ``private_*``, ``shared_*`` (B, dim)."""
        vectors = self.encoders(self.frames(batch))
        features: dict[str, Tensor] = {}
        for modality, vector in self.slots(vectors, batch).items():
            features[f"projected_{modality}"] = vector
            features[f"private_{modality}"] = self.private[modality](vector)
            features[f"shared_{modality}"] = self.shared(vector)
        six = [features[f"{kind}_{m}"] for kind in ("private", "shared") for m in Modality]
        fused = self.fusion(torch.stack(six, dim=1)).flatten(1)  # (B, 6, dim) -> (B, 6 dim)
        return Output(self.answer(self.hidden(fused)), features | {"fused": fused})


class MISAScheme(Scheme):
    """Task, difference, similarity and reconstruction."""

    def __init__(self, config: MISAConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network: MISA = MISA(config, info)
        self.decoders = nn.ModuleDict({m: nn.Linear(config.dim, config.dim) for m in Modality})

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """Terms ``task``, ``difference``, ``similarity``, ``reconstruction``."""
        output: Output = self.network(batch)
        features = output.features
        present = self.network.frames.presence(batch)
        private, shared = (
            {m: features[f"{kind}_{m}"] for m in Modality} for kind in ("private", "shared")
        )
        unlike = subspace_differences(private, shared, present=present)
        alike = [
            central_moment_discrepancy(
                shared[one],
                shared[other],
                first_present=present[one],
                second_present=present[other],
                num_moments=self.config.num_moments,
            )
            for one, other in PAIRS
        ]
        rebuilt = [self._reconstruction(features, m, present[m]) for m in Modality]
        terms = {
            "task": task_loss(output.prediction, batch.labels, scores="mse"),
            "difference": unlike,
            "similarity": torch.stack(alike).mean(),
            "reconstruction": torch.stack(rebuilt).mean(),
        }
        weights = {
            "task": 1.0,
            "difference": self.config.difference_weight,
            "similarity": self.config.similarity_weight,
            "reconstruction": self.config.reconstruction_weight,
        }
        return Losses(terms, weights, output)

    def _reconstruction(
        self, features: Mapping[str, Tensor], modality: Modality, present: Tensor
    ) -> Tensor:
        """Mean squared error of the projection, decoded from private plus shared."""
        both = features[f"private_{modality}"] + features[f"shared_{modality}"]
        rebuilt: Tensor = self.decoders[modality](both)
        error = (rebuilt - features[f"projected_{modality}"]).square().mean(1)
        return mean_over_rows(error, present)


METHODS.register(
    "misa",
    Method(
        config=MISAConfig,
        build=MISAScheme,
        paper="Hazarika et al., MISA: Modality-Invariant and -Specific Representations for "
        "Multimodal Sentiment Analysis, ACM Multimedia 2020",
        basis="code",
        certified="the authors' code",
        summary="shared and private subspaces of each modality, fused by attention",
    ),
)
