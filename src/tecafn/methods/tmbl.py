"""TMBL: transformer-based multimodal binding learning.

Huang et al., "TMBL: transformer-based multimodal binding learning model for multimodal sentiment
analysis", Knowledge-Based Systems 2024. The paper itself could not be read: this follows the
authors' public code, and declares where it departs from it.

Each modality is one projected vector, as in MISA. Modalities are bound to each other: text to
vision, vision to audio, audio to text. A transformer that all share takes the three bound sets as
query, key and value (shared); one of each pair attends to the pair itself (private). Small MLPs let
the places of a vector communicate, two learned tokens close the private and the shared part, and
three convolutions along the places and their mean give the answer.

As in that code: post-norm layers without biases in the attention, whose scores are divided by the
square root of the whole key width, not of a head's; a gated feed-forward; all three answers of the
shared transformer keep the residual of the first set, and read the second as keys and the third as
values; a private vector is the mean over the two pairs that hold its modality, and stands twice.

Ours, where that code cannot be followed or would let a score depend on its neighbours:

- There the transformers' sequence is the batch, so that samples attend to each other, and the first
  half of a batch is bound with the first half of another modality's. Here the sequence is what a
  sample's set holds, two vectors, and so a set is bound for every sample. The unbound set, which
  that code lays beside it, is the first place of the bound one.
- A private transformer reads the pair of projected vectors as one sequence. There each half of the
  pair has a stack of its own, over the batch, at the width of the modality's features.
- An absent modality is a learned vector, which nothing attends to while another place is there.
- The difference loss compares samples; there it compares the two places, over all samples at once.
  The KL divergence of ``similarity = "kl"``, which the paper names, is between softmaxes; there it
  would be taken of the vectors as they are. The code's default is the cosine, and so is ours.
- The learned tokens and positions are the same for every row of a batch, and the two tokens differ;
  the code has one per row of the batch. The sinusoidal positions are ``layers.sequence``'s.
- A convolution that the code puts on queries and keys, and that runs for batches of 32 rows only,
  is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import LabelScale, unrounded
from tecafn.layers.sequence import sinusoidal_positions
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames
from tecafn.layers.utterance import ProjectionEncoders
from tecafn.losses.discrepancy import (
    cosine_distance,
    softmax_divergence,
    subspace_differences,
)
from tecafn.losses.task import task_loss

PAIRS = tuple(itertools.combinations(Modality, 2))
TEXT, AUDIO, VISION = Modality
# Each modality with the one that is bound to it.
BOUND = {TEXT: VISION, VISION: AUDIO, AUDIO: TEXT}
# What the private transformers read.
PRIVATE = ((AUDIO, VISION), (VISION, TEXT), (TEXT, AUDIO))
# Places of a modality in what is fused.
NUM_PLACES = 2

Similarity = Literal["cosine", "kl"]


@dataclass(frozen=True, kw_only=True)
class TMBLConfig:
    """Settings; the defaults are those of the authors' public code.

    Args:
        dim: width of every vector.
        num_heads: divides ``key_dim`` and ``value_dim``.
        key_dim: width of queries and keys, of all heads together; also of a private value.
        value_dim: width of the shared transformer's values.
        feed_forward_dim: of the gated feed-forward.
        num_layers: of each transformer.
        communicator_dim: hidden width of the MLPs over places and columns.
        difference_weight: of private against shared, and of private against private.
        similarity_weight: of how far shared vectors are apart.
        similarity: ``cosine``, one minus it, is the code's; ``kl`` is what the paper names.
        transformer_dropout: of what enters a transformer, of attention weights, and of each
            sublayer's answer.
        communicator_dropout: inside the MLPs.
        fusion_dropout: between the convolutions.
    """

    dim: int = 256
    num_heads: int = 8
    key_dim: int = 32
    value_dim: int = 64
    feed_forward_dim: int = 512
    num_layers: int = 5
    communicator_dim: int = 64
    difference_weight: float = 0.5
    similarity_weight: float = 0.5
    similarity: Similarity = "cosine"
    transformer_dropout: float = 0.5
    communicator_dropout: float = 0.5
    fusion_dropout: float = 0.5

    def __post_init__(self) -> None:
        for name in ("key_dim", "value_dim"):
            if getattr(self, name) % self.num_heads:
                raise ValueError(
                    f"num_heads must divide {name} {getattr(self, name)}, got {self.num_heads}"
                )


class BoundAttention(nn.Module):
    """Post-norm attention whose query, key and value may be three different sequences.

    Args:
        dim: width of the sequences.
        num_heads, key_dim, value_dim: widths.
        dropout: of the weights, and of the answer before it is added.
    """

    def __init__(
        self, dim: int, *, num_heads: int, key_dim: int, value_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads, self.temperature = num_heads, sqrt(key_dim)
        self.query = nn.Linear(dim, key_dim, bias=False)
        self.key = nn.Linear(dim, key_dim, bias=False)
        self.value = nn.Linear(dim, value_dim, bias=False)
        self.output = nn.Linear(value_dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.weight_dropout, self.dropout = Dropout(dropout), Dropout(dropout)

    def _heads(self, values: Tensor) -> Tensor:
        rows, length, dim = values.shape
        heads = values.view(rows, length, self.num_heads, dim // self.num_heads)
        return heads.transpose(1, 2)  # (B, L, D) -> (B, H, L, D/H)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
        """Three (B, L, dim) to (B, L, dim); the residual is the query's.

        Args:
            query: (B, L, dim).
            key: (B, L, dim), or the same as ``query``.
            value: (B, L, dim), or the same as ``query``.
            visible: (B, L) bool, places of key and value that are read; of a row without one, all.
        """
        queries, keys = self._heads(self.query(query)), self._heads(self.key(key))
        scores = queries / self.temperature @ keys.transpose(2, 3)  # (B, H, L, L)
        readable = visible | ~visible.any(1, keepdim=True)
        weights = scores.masked_fill(~readable[:, None, None], float("-inf")).softmax(-1)
        read = self.weight_dropout(weights) @ self._heads(self.value(value))
        change = self.dropout(self.output(read.transpose(1, 2).flatten(2)))
        answer: Tensor = self.norm(query + change)
        return answer


class GatedFeedForward(nn.Module):
    """Up, two position-wise convolutions, one half gates the other, down; post-norm.

    Args:
        dim, hidden_dim: widths.
        dropout: of the answer before it is added.
    """

    def __init__(self, dim: int, hidden_dim: int, *, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden_dim)
        # Convolutions of one frame are linear layers.
        self.widen = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.mix = nn.Linear(2 * hidden_dim, 2 * hidden_dim)
        self.down = nn.Linear(hidden_dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """(B, L, dim) to the same shape."""
        gate, gated = self.mix(self.widen(self.up(values))).chunk(2, dim=-1)
        change = self.dropout(self.down(torch.relu(gate) * gated))
        answer: Tensor = self.norm(values + change)
        return answer


class BoundLayer(nn.Module):
    """Attention, then the feed-forward; arguments as ``BoundAttention`` has them."""

    def __init__(self, config: TMBLConfig, *, value_dim: int) -> None:
        super().__init__()
        self.attention = BoundAttention(
            config.dim,
            num_heads=config.num_heads,
            key_dim=config.key_dim,
            value_dim=value_dim,
            dropout=config.transformer_dropout,
        )
        self.feed_forward = GatedFeedForward(
            config.dim, config.feed_forward_dim, dropout=config.transformer_dropout
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
        """Three (B, L, dim) to (B, L, dim)."""
        answer: Tensor = self.feed_forward(self.attention(query, key, value, visible))
        return answer


class Placed(nn.Module):
    """What enters a transformer: a sequence and its positions, dropout, LayerNorm."""

    def __init__(self, dim: int, *, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """(B, L, dim) to the same shape."""
        length, dim = values.shape[1:]
        positions = sinusoidal_positions(length, dim, device=values.device).to(values.dtype)
        placed: Tensor = self.norm(self.dropout(values + positions))
        return placed


class PrivateTransformer(nn.Module):
    """Self-attention over a pair of modalities."""

    def __init__(self, config: TMBLConfig) -> None:
        super().__init__()
        self.placed = Placed(config.dim, dropout=config.transformer_dropout)
        self.layers = nn.ModuleList(
            BoundLayer(config, value_dim=config.key_dim) for _ in range(config.num_layers)
        )

    def forward(self, pair: Tensor, visible: Tensor) -> Tensor:
        """(B, 2, dim) to the same shape; ``visible`` (B, 2) bool says who is there."""
        stream: Tensor = self.placed(pair)
        for layer in self.layers:
            stream = layer(stream, stream, stream, visible)
        return stream


class SharedTransformer(nn.Module):
    """Three bound sets as query, key and value, through layers that each have three answers."""

    def __init__(self, config: TMBLConfig) -> None:
        super().__init__()
        self.placed = nn.ModuleList(
            Placed(config.dim, dropout=config.transformer_dropout) for _ in Modality
        )
        self.layers = nn.ModuleList(
            nn.ModuleList(BoundLayer(config, value_dim=config.value_dim) for _ in Modality)
            for _ in range(config.num_layers)
        )

    def forward(self, sets: tuple[Tensor, Tensor, Tensor], visible: Tensor) -> tuple[Tensor, ...]:
        """Three answers (B, 2, dim).

        Args:
            sets: (B, 2, dim) each: query, key, value.
            visible: (B, 2) bool, whose value is there. Behind the first layer every place has read
                what is there, and all are seen.
        """
        streams = tuple(place(one) for place, one in zip(self.placed, sets, strict=True))
        for layers in self.layers:
            assert isinstance(layers, nn.ModuleList)
            streams = tuple(layer(*streams, visible) for layer in layers)
            visible = torch.ones_like(visible)
        return streams


class Communicator(nn.Module):
    """An MLP over the places of a modality, then one over the columns, each with a residual.

    Args:
        dim: width of a place.
        hidden_dim: of the MLPs.
        dropout: after both layers of each.
    """

    def __init__(self, dim: int, hidden_dim: int, *, dropout: float) -> None:
        super().__init__()
        self.places, self.columns = (
            nn.Sequential(
                nn.Linear(width, hidden_dim),
                nn.GELU(),
                Dropout(dropout),
                nn.Linear(hidden_dim, width),
                Dropout(dropout),
            )
            for width in (NUM_PLACES, dim)
        )

    def forward(self, places: Tensor) -> Tensor:
        """(B, 2, dim) to the same shape."""
        places = places + self.places(places.transpose(1, 2)).transpose(1, 2)
        answer: Tensor = places + self.columns(places)
        return answer


class Fusion(nn.Module):
    """Three convolutions along the places, and their answer's mean over them.

    Args:
        dim: width of a place.
        info: task and number of classes.
        dropout: between the second convolution and its ReLU.
    """

    def __init__(self, dim: int, info: DataInfo, *, dropout: float) -> None:
        super().__init__()
        half = dim // 2
        self.first = nn.Conv1d(dim, half, 3, padding=1)
        self.second = nn.Conv1d(half, half, 3, padding=1)
        self.last = nn.Conv1d(half, info.output_dim, 3, padding=1)
        self.dropout = Dropout(dropout)
        self.scale = LabelScale(info, "centred")  # ours, for labels that are not around zero

    def forward(self, places: Tensor) -> Tensor:
        """(B, L, dim) to (B,) scores or (B, C) logits."""
        columns = torch.relu(self.first(places.transpose(1, 2)))
        columns = torch.relu(self.dropout(self.second(columns)))
        with unrounded(places):
            return self.scale(self.last(columns.to(self.last.weight.dtype)).mean(2))


class TMBL(Network):
    """Vectors, private and shared transformers, communicators, convolutions."""

    def __init__(self, config: TMBLConfig, info: DataInfo) -> None:
        super().__init__()
        dim = config.dim
        self.frames = ModalityFrames(info)
        self.encoders = ProjectionEncoders(self.frames.dims, dim)
        self.slots = AbsentVectors(dict.fromkeys(Modality, dim))
        self.private = nn.ModuleDict(
            {f"{one}_{other}": PrivateTransformer(config) for one, other in PRIVATE}
        )
        self.align = nn.ModuleDict({m: nn.Linear(dim, dim) for m in Modality})
        self.shared = SharedTransformer(config)
        self.private_communicator, self.shared_communicator = (
            Communicator(dim, config.communicator_dim, dropout=config.communicator_dropout)
            for _ in range(2)
        )
        self.tokens = nn.Parameter(torch.zeros(2, dim))
        self.positions = nn.Parameter(torch.zeros(2 * (len(Modality) * NUM_PLACES + 1), dim))
        self.fusion = Fusion(dim, info, dropout=config.fusion_dropout)

    def forward(self, batch: Batch) -> Output:
        """Scores or logits; features ``private_*`` and ``shared_*`` (B, 2, dim)."""
        vectors = self.slots(self.encoders(self.frames(batch)), batch)
        present = self.frames.presence(batch)
        private = {
            m: self.private_communicator(places)
            for m, places in self._private(vectors, present).items()
        }
        shared = {
            m: self.shared_communicator(places)
            for m, places in self._shared(vectors, present).items()
        }
        first, second = self.tokens.expand(batch.size, -1, -1).split(1, dim=1)
        places = [
            *(private[m] for m in (AUDIO, VISION, TEXT)),
            first,
            *(shared[m] for m in (TEXT, VISION, AUDIO)),
            second,
        ]
        features = {f"private_{m}": private[m] for m in Modality}
        features |= {f"shared_{m}": shared[m] for m in Modality}
        return Output(self.fusion(torch.cat(places, dim=1) + self.positions), features)

    def _private(
        self, vectors: Mapping[Modality, Tensor], present: Mapping[Modality, Tensor]
    ) -> dict[Modality, Tensor]:
        """(B, 2, dim) of each modality: twice the mean over the pairs that hold it."""
        made: dict[Modality, list[Tensor]] = {m: [] for m in Modality}
        for one, other in PRIVATE:
            pair = torch.stack([vectors[one], vectors[other]], dim=1)
            visible = torch.stack([present[one], present[other]], dim=1)
            answers = self.private[f"{one}_{other}"](pair, visible).unbind(1)
            for modality, answer in zip((one, other), answers, strict=True):
                made[modality].append(answer)
        return {
            m: self.align[m](torch.stack(both).mean(0)).unsqueeze(1).expand(-1, NUM_PLACES, -1)
            for m, both in made.items()
        }

    def _shared(
        self, vectors: Mapping[Modality, Tensor], present: Mapping[Modality, Tensor]
    ) -> dict[Modality, Tensor]:
        """(B, 2, dim) of each modality: the places of its bound set."""
        sets = {m: torch.stack([vectors[m], vectors[bound]], dim=1) for m, bound in BOUND.items()}
        visible = torch.stack([present[AUDIO], present[BOUND[AUDIO]]], dim=1)
        order = (TEXT, VISION, AUDIO)  # query, key, value
        answers = self.shared((sets[TEXT], sets[VISION], sets[AUDIO]), visible)
        return dict(zip(order, answers, strict=True))


class TMBLScheme(Scheme):
    """Task, difference and similarity."""

    def __init__(self, config: TMBLConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network: TMBL = TMBL(config, info)

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """Terms ``task``, ``difference``, ``similarity``."""
        del progress
        output: Output = self.network(batch)
        present = self.network.frames.presence(batch)
        private, shared = (
            {m: output.features[f"{kind}_{m}"].flatten(1) for m in Modality}  # (B, 2 dim)
            for kind in ("private", "shared")
        )
        unlike = subspace_differences(private, shared, present=present)
        alike = [
            self._apart(output, one, other, present[one] & present[other]) for one, other in PAIRS
        ]
        terms = {
            "task": task_loss(output.prediction, batch.labels, scores="mse"),
            "difference": unlike,
            "similarity": torch.stack(alike).mean(),
        }
        weights = {
            "task": 1.0,
            "difference": self.config.difference_weight,
            "similarity": self.config.similarity_weight,
        }
        return Losses(terms, weights, output)

    def _apart(self, output: Output, one: Modality, other: Modality, present: Tensor) -> Tensor:
        """How far two modalities' shared vectors are apart, place by place."""
        apart = cosine_distance if self.config.similarity == "cosine" else softmax_divergence
        first, second = (output.features[f"shared_{m}"] for m in (one, other))
        places = zip(first.unbind(1), second.unbind(1), strict=True)
        return torch.stack([apart(a, b, present=present) for a, b in places]).mean()


METHODS.register(
    "tmbl",
    Method(
        config=TMBLConfig,
        build=TMBLScheme,
        paper="Huang et al., TMBL: Transformer-based multimodal binding learning model for "
        "multimodal sentiment analysis, Knowledge-Based Systems 2024",
        basis="code",
        certified="the authors' code, but attention stays within a sample",
        summary="modalities bound in pairs, private and shared transformers",
    ),
)
