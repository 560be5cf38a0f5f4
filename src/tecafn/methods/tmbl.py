"""TMBL: transformer-based multimodal binding learning.

Huang et al., "TMBL: transformer-based multimodal binding learning model for multimodal sentiment
analysis", Knowledge-Based Systems 2024.

Each modality is one projected vector, as in MISA. Training binds two samples: the batch's halves
are joined, so that each vector stands beside another sample's. A transformer of each modality's own
reads the bound pair (private), one that all share reads it with text, vision and audio as query,
key and value in turn (shared). An MLP lets the six vectors communicate, a convolution fuses them.

What is known of the method leaves open, and so is ours: that a bound pair is a sequence of two
vectors and a sample goes on with its own place; that the halves are drawn anew in every epoch; the
communicator, an MLP over the six places and one over the columns, each with a residual; the widths;
a learned vector for an absent modality. At inference a sample is bound with itself, so that its
neighbours are invisible.
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
from tecafn.core.parallel import gather_rows, row_offset, sample_uniform
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.layers.attention import Transformer
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import Answer
from tecafn.layers.unimodal import ModalityFrames, Slots
from tecafn.layers.utterance import ProjectedUtterances
from tecafn.losses.discrepancy import difference, softmax_divergence
from tecafn.losses.task import task_loss

PAIRS = tuple(itertools.combinations(Modality, 2))
TEXT, AUDIO, VISION = Modality
# Query, key, value of the shared transformer; the answer belongs to the query.
TURNS = ((TEXT, VISION, AUDIO), (VISION, AUDIO, TEXT), (AUDIO, TEXT, VISION))


@dataclass(frozen=True, kw_only=True)
class TMBLConfig:
    """Settings.

    Args:
        dim: width of every vector.
        num_heads: divides ``dim``.
        num_layers: of each private transformer.
        kernel_size: of the fusing convolution along the columns, odd.
        num_channels: vectors that the convolution makes of the six.
        difference_weight: of private against shared, and of private against private.
        similarity_weight: of the divergence between shared vectors.
        attention_dropout, relu_dropout, residual_dropout: inside the transformers.
        head_dropout: between the two layers of the prediction.
    """

    dim: int = 128
    num_heads: int = 2
    num_layers: int = 1
    kernel_size: int = 3
    num_channels: int = 3
    difference_weight: float = 0.5
    similarity_weight: float = 0.5
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    head_dropout: float = 0.5

    def __post_init__(self) -> None:
        if self.kernel_size % 2 != 1:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")


class SharedTransformer(nn.Module):
    """One layer whose query, key and value are three different modalities.

    Args:
        dim, num_heads: widths.
        attention_dropout, relu_dropout, residual_dropout: probabilities.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        attention_dropout: float,
        relu_dropout: float,
        residual_dropout: float,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(
            dim, num_heads, dropout=attention_dropout, batch_first=True
        )
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 4 * dim),
            nn.ReLU(),
            Dropout(relu_dropout),
            nn.Linear(4 * dim, dim),
        )
        self.residual_dropout = Dropout(residual_dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Three (B, L, dim) to (B, L, dim); the residual is the query's."""
        normed = (self.norm(query), self.norm(key), self.norm(value))
        attended, _ = self.attention(*normed, need_weights=False)
        stream = query + self.residual_dropout(attended)
        answer: Tensor = stream + self.residual_dropout(self.feed_forward(stream))
        return answer


class Communicator(nn.Module):
    """An MLP over the six places, then one over the columns, each with a residual."""

    def __init__(self, num_places: int, dim: int) -> None:
        super().__init__()
        self.place_norm, self.column_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.places = nn.Sequential(
            nn.Linear(num_places, 4 * num_places), nn.GELU(), nn.Linear(4 * num_places, num_places)
        )
        self.columns = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, 6, dim) to the same shape."""
        over_places = self.places(self.place_norm(vectors).transpose(1, 2)).transpose(1, 2)
        vectors = vectors + over_places
        answer: Tensor = vectors + self.columns(self.column_norm(vectors))
        return answer


class TMBL(Network):
    """Vectors, bound pairs, private and shared transformers, communicator, convolution, answer."""

    def __init__(self, config: TMBLConfig, info: DataInfo) -> None:
        super().__init__()
        dim = config.dim
        self.frames = ModalityFrames(info)
        self.encoders = ProjectedUtterances(self.frames.dims, dim)
        self.slots = Slots(dict.fromkeys(Modality, dim))
        self.private = nn.ModuleDict(
            {
                m: Transformer(
                    dim,
                    num_layers=config.num_layers,
                    num_heads=config.num_heads,
                    attention_dropout=config.attention_dropout,
                    relu_dropout=config.relu_dropout,
                    residual_dropout=config.residual_dropout,
                    residual="pre_norm",
                    closing_norm=True,
                )
                for m in Modality
            }
        )
        self.shared = SharedTransformer(
            dim,
            num_heads=config.num_heads,
            attention_dropout=config.attention_dropout,
            relu_dropout=config.relu_dropout,
            residual_dropout=config.residual_dropout,
        )
        self.communicator = Communicator(6, dim)
        self.convolution = nn.Conv1d(
            6, config.num_channels, config.kernel_size, padding=config.kernel_size // 2
        )
        self.hidden = nn.Sequential(
            nn.ReLU(),
            nn.Linear(config.num_channels * dim, dim),
            nn.ReLU(),
            Dropout(config.head_dropout),
        )
        self.answer = Answer(dim, info, output="linear")

    def forward(self, batch: Batch) -> Output:
        """Each sample bound with itself."""
        vectors = self.encode(batch)
        return self.fuse(vectors, vectors)

    def encode(self, batch: Batch) -> dict[Modality, Tensor]:
        """(B, dim) of each modality."""
        vectors = self.encoders(self.frames(batch))
        filled: dict[Modality, Tensor] = self.slots(vectors, batch)
        return filled

    def fuse(self, own: Mapping[Modality, Tensor], bound: Mapping[Modality, Tensor]) -> Output:
        """Answers of samples beside those they are bound with.

        Args:
            own: (B, dim) of each modality.
            bound: the same of the sample that each is bound with.

        Returns:
            Scores or logits; features ``private_*`` and ``shared_*`` (B, dim).
        """
        pairs = {m: torch.stack([own[m], bound[m]], dim=1) for m in Modality}  # (B, 2, dim)
        features: dict[str, Tensor] = {}
        for modality in Modality:
            everyone = torch.ones(
                pairs[modality].shape[:2], dtype=torch.bool, device=pairs[modality].device
            )
            private = self.private[modality](pairs[modality], None, everyone)
            features[f"private_{modality}"] = private[:, 0]
        for query, key, value in TURNS:
            shared = self.shared(pairs[query], pairs[key], pairs[value])
            features[f"shared_{query}"] = shared[:, 0]
        six = [features[f"{kind}_{m}"] for kind in ("private", "shared") for m in Modality]
        mixed = self.communicator(torch.stack(six, dim=1))  # (B, 6, dim)
        fused = self.convolution(mixed).flatten(1)  # (B, channels, dim) -> (B, channels dim)
        return Output(self.answer(self.hidden(fused)), features | {"fused": fused})


def partners(index: Tensor, *, seed: int, epoch: int) -> Tensor:
    """The halves of the global batch, joined: which row each row of this process is bound with.

    The halves are drawn by a hash of (seed, epoch, row in the split), alike on every process. Of an
    odd number of rows one is bound with itself.

    Args:
        index: (B,) int64, row in the split.
        seed, epoch: of the draw.

    Returns:
        (B,) int64 rows of the gathered batch.

    Example:
        >>> partners(torch.arange(4), seed=0, epoch=0)
        tensor([1, 0, 3, 2])
    """
    everyone = gather_rows(index)
    order = sample_uniform(everyone, seed=seed, epoch=epoch, stream=0).argsort(stable=True)
    half = len(order) // 2
    first, second = order[:half], order[half : 2 * half]
    partner = torch.arange(len(order), device=index.device)
    partner[first], partner[second] = second, first
    start = row_offset(len(index), index.device)
    return partner[start : start + len(index)]


class TMBLScheme(Scheme):
    """Task, difference and similarity, of bound samples."""

    def __init__(self, config: TMBLConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network: TMBL = TMBL(config, info)

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """Terms ``task``, ``difference``, ``similarity``."""
        own = self.network.encode(batch)
        bound_with = partners(batch.index, seed=progress.seed, epoch=progress.epoch)
        bound = {m: gather_rows(vector)[bound_with] for m, vector in own.items()}
        output = self.network.fuse(own, bound)
        features, present = output.features, self.network.frames.presence(batch)
        unlike = [
            difference(features[f"private_{m}"], features[f"shared_{m}"], present=present[m])
            for m in Modality
        ] + [
            difference(
                features[f"private_{one}"],
                features[f"private_{other}"],
                present=present[one] & present[other],
            )
            for one, other in PAIRS
        ]
        alike = [
            softmax_divergence(
                features[f"shared_{one}"],
                features[f"shared_{other}"],
                present=present[one] & present[other],
            )
            for one, other in PAIRS
        ]
        terms = {
            "task": task_loss(output.prediction, batch.labels, scores="mse"),
            "difference": torch.stack(unlike).sum(),
            "similarity": torch.stack(alike).mean(),
        }
        weights = {
            "task": 1.0,
            "difference": self.config.difference_weight,
            "similarity": self.config.similarity_weight,
        }
        return Losses(terms, weights, output)


METHODS.register(
    "tmbl",
    Method(
        config=TMBLConfig,
        build=TMBLScheme,
        paper="Huang et al., TMBL: Transformer-based multimodal binding learning model for "
        "multimodal sentiment analysis, Knowledge-Based Systems 2024",
        summary="private and shared transformers over samples that are bound in pairs",
    ),
)
