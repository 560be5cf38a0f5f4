"""TeFNA: text-centered fusion network with crossmodal attention.

Huang et al., "TeFNA: Text-centered fusion network with crossmodal attention for multimodal
sentiment analysis", Knowledge-Based Systems 2023. The text's tokens attend to audio and to vision
through stacked cross-attention blocks, and both results are joined.

Implemented from the abstract, all that was available to us. Our choices: audio and vision are
brought to the common width by one masked convolution; text is the query and audio or vision the
source, as "text modality as the primary modality" says; blocks are pre-norm with a feed-forward
layer; each fused sequence is averaged over its tokens, as is the text's; the three are joined for
the head, which is TeCaFN's: tanh layers 128-256-128 and a score scaled by tanh to the label range.
"Maximizes the mutual information between modality pairs" is the InfoNCE bound between the averaged
text and each averaged other modality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.health import Reading
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.core.settings import select
from tecafn.layers.attention import Transformer, TransformerSettings
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import PredictionHead
from tecafn.layers.sequence import (
    MaskedConv1d,
    add_positions,
    masked_mean,
    zero_padding,
)
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames
from tecafn.losses.contrastive import info_nce
from tecafn.losses.task import task_loss


@dataclass(frozen=True, kw_only=True)
class TeFNAConfig:
    """Settings; none is published where we could read it, all are ours.

    Args:
        dim: common width d; ``num_heads`` divides it.
        num_heads: attention heads.
        num_layers: n, cross-attention blocks in a stack.
        text_kernel_size, frame_kernel_size: of the convolutions to d, odd.
        temperature: of the mutual information's bound.
        information_weight: of the two bounds in the loss.
        embedding_dropout: of what enters the blocks.
        attention_dropout, relu_dropout, residual_dropout: inside the blocks.
        head_dropout: in the prediction head.
    """

    dim: int = 30
    num_heads: int = 5
    num_layers: int = 4
    text_kernel_size: int = 1
    frame_kernel_size: int = 3
    temperature: float = 0.5
    information_weight: float = 0.1
    embedding_dropout: float = 0.25
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    head_dropout: float = 0.1


class TeFNA(Network):
    """Common width, text attending to audio and to vision, averages, head.

    A sample without audio (or vision) has a learned vector in the place of what its text took from
    it. A sample without text has a learned vector in the place of the text's mean, and the mean of
    audio's (or vision's) own frames in the place of what text would have taken.

    Raises:
        ValueError: text is not among the modalities in use.
    """

    def __init__(self, config: TeFNAConfig, info: DataInfo) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        if Modality.TEXT not in self.frames.dims:
            raise ValueError("tefna starts from text, which is not among the modalities in use")
        self.others = tuple(m for m in self.frames.dims if m != Modality.TEXT)
        self.convolutions = nn.ModuleDict(
            {
                m: MaskedConv1d(
                    width,
                    config.dim,
                    kernel_size=config.text_kernel_size
                    if m == Modality.TEXT
                    else config.frame_kernel_size,
                )
                for m, width in self.frames.dims.items()
            }
        )
        self.embedding_dropout = Dropout(config.embedding_dropout)
        settings = select(config, TransformerSettings, residual="pre_norm", closing_norm=True)
        self.crossings = nn.ModuleDict(
            {
                m: Transformer(config.dim, settings, num_layers=config.num_layers, cross=True)
                for m in self.others
            }
        )
        self.slots = AbsentVectors(dict.fromkeys(self.frames.dims, config.dim))
        self.head = PredictionHead(
            config.dim * len(self.frames.dims), info, dropout=config.head_dropout, output="tanh"
        )

    def project(self, batch: Batch) -> dict[Modality, Padded]:
        """(B, L, d) of every modality the batch has."""
        projected = {}
        for modality, frames in self.frames(batch).items():
            values = self.convolutions[modality](frames.values, frames.mask)
            projected[modality] = Padded(zero_padding(values, frames.mask), frames.mask)
        return projected

    def _place(self, sequence: Padded) -> Tensor:
        placed: Tensor = self.embedding_dropout(add_positions(sequence.values))
        return placed

    def fuse(self, projected: Mapping[Modality, Padded], batch: Batch) -> Tensor:
        """(B, d) of each modality, joined: the text's mean, then what text took from the others."""
        vectors: dict[Modality, Tensor] = {}
        text = projected.get(Modality.TEXT)
        if text is not None:
            vectors[Modality.TEXT] = masked_mean(text.values, text.mask)
        for modality in self.others:
            if modality not in projected:
                continue
            other = projected[modality]
            mean = masked_mean(other.values, other.mask)
            if text is not None:
                stream = self.crossings[modality](
                    self._place(text), self._place(other), other.mask, stream_mask=text.mask
                )
                has_text = batch.present[Modality.TEXT].unsqueeze(1)
                mean = torch.where(has_text, masked_mean(stream, text.mask), mean)
            vectors[modality] = mean
        filled = self.slots(vectors, batch)
        return torch.cat([filled[m] for m in self.frames.dims], dim=1)

    def forward(self, batch: Batch) -> Output:
        """(B,) scores or (B, C) logits."""
        fused = self.fuse(self.project(batch), batch)
        return Output(self.head(fused), {"fused": fused})


class TeFNAScheme(Scheme):
    """The task's loss and the mutual information of text and each other modality."""

    network: TeFNA

    def __init__(self, config: TeFNAConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network = TeFNA(config, info)

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """``task``, and for each other modality ``information_<modality>``.

        A bound is over the samples of the global batch that have both modalities; a batch that has
        no tensor of one of them has no such term.
        """
        config = self.config
        projected = self.network.project(batch)
        fused = self.network.fuse(projected, batch)
        output = Output(self.network.head(fused), {"fused": fused})
        terms = {"task": task_loss(output.prediction, batch.labels)}
        weights = {"task": 1.0}
        health: dict[str, Reading] = {}
        text = projected.get(Modality.TEXT)
        if text is not None and config.information_weight:
            query = masked_mean(text.values, text.mask)
            for modality in self.network.others:
                if modality not in projected:
                    continue
                other = projected[modality]
                contrast = info_nce(
                    query,
                    masked_mean(other.values, other.mask),
                    present=batch.present[Modality.TEXT] & batch.present[modality],
                    temperature=config.temperature,
                )
                terms[f"information_{modality}"] = contrast.loss
                health[f"information_{modality}"] = contrast.reading
                weights[f"information_{modality}"] = config.information_weight
        return Losses(terms, weights, output, health=health)


METHODS.register(
    "tefna",
    Method(
        config=TeFNAConfig,
        build=TeFNAScheme,
        paper="Huang et al., TeFNA: Text-centered fusion network with crossmodal attention "
        "for multimodal sentiment analysis, Knowledge-Based Systems 2023",
        basis="abstract",
        summary="text attends to audio and to vision in stacked blocks",
    ),
)
