"""MulT: multimodal transformer for unaligned sequences.

Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019. Every
modality's sequence is reinforced by each of the others through a directed cross-modal transformer;
what a modality got is joined and passed through a transformer of its own; the last step of each
predicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Output
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network
from tecafn.core.settings import per_modality, select
from tecafn.layers.attention import Transformer, TransformerSettings
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.sequence import (
    MaskedConv1d,
    add_positions,
    last_real,
    zero_padding,
)
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames
from tecafn.losses.task import TaskScheme


@dataclass(frozen=True, kw_only=True)
class MulTConfig:
    """Settings; the defaults are those of the authors' public code, meant for unaligned MOSEI.

    Args:
        dim: common width d of the sequences; ``num_heads`` divides it.
        num_heads: attention heads.
        num_layers: layers of each directed cross-modal transformer.
        num_memory_layers: layers of the self-attention transformer after them.
        text_kernel_size, audio_kernel_size, vision_kernel_size: of the convolution to d, odd.
        input_dropout: of the text's token vectors.
        embedding_dropout: of what enters a transformer.
        text_attention_dropout: on attention weights where text is the target, and in all the
            self-attention transformers.
        audio_attention_dropout, vision_attention_dropout: where these are the targets.
        relu_dropout, residual_dropout: inside the transformers.
        output_dropout: inside the residual block before the answer.
    """

    dim: int = 30
    num_heads: int = 5
    num_layers: int = 5
    num_memory_layers: int = 5
    text_kernel_size: int = 1
    audio_kernel_size: int = 1
    vision_kernel_size: int = 1
    input_dropout: float = 0.25
    embedding_dropout: float = 0.25
    text_attention_dropout: float = 0.1
    audio_attention_dropout: float = 0.0
    vision_attention_dropout: float = 0.0
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    output_dropout: float = 0.0

    def transformer_to(self, target: Modality) -> TransformerSettings:
        """Of the cross-modal transformers to this modality; those to text serve the memories."""
        return select(
            self,
            TransformerSettings,
            attention_dropout=per_modality(self, "attention_dropout")[target],
            residual="pre_norm",
            closing_norm=True,
        )


class MulT(Network):
    """Convolutions, directed cross-modal transformers, self-attention, the last steps.

    A sequence that lacks a source takes a learned vector in each frame of that stream; a sequence
    that a sample lacks has a learned vector in the place of its last step.

    Ours: the authors' code hides later frames from a query, which unaligned sequences, with
    different rates, give no meaning to; here attention sees every real frame. Between modalities
    that code takes the source's attention dropout; here it is the target's. It reads the last
    position, padding included; here it is the last real frame. It counts positions from 1, has no
    bias in the convolutions, and one LayerNorm for query and source of a layer; here positions
    count from 0, convolutions have a bias, and the source has a LayerNorm of its own.
    """

    def __init__(self, config: MulTConfig, info: DataInfo) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        self.modalities = tuple(self.frames.dims)
        kernel_sizes = per_modality(config, "kernel_size")
        self.convolutions = nn.ModuleDict(
            {
                m: MaskedConv1d(width, config.dim, kernel_size=kernel_sizes[m])
                for m, width in self.frames.dims.items()
            }
        )
        self.input_dropout = Dropout(config.input_dropout)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        settings = {m: config.transformer_to(m) for m in Modality}
        self.crossings = nn.ModuleDict()
        self.absent_sources = nn.ParameterDict()
        for target in self.modalities:
            for source in self.sources(target):
                self.crossings[f"{source}_to_{target}"] = Transformer(
                    config.dim, settings[target], num_layers=config.num_layers, cross=True
                )
                self.absent_sources[f"{source}_to_{target}"] = torch.zeros(config.dim)
        # Of a dataset with one modality the sequence itself goes on.
        joined_dim = max(1, len(self.modalities) - 1) * config.dim
        self.memories = nn.ModuleDict(
            {
                m: Transformer(
                    joined_dim, settings[Modality.TEXT], num_layers=config.num_memory_layers
                )
                for m in self.modalities
            }
        )
        self.slots = AbsentVectors(dict.fromkeys(self.modalities, joined_dim))
        fused_dim = joined_dim * len(self.modalities)
        self.block = nn.Sequential(
            nn.Linear(fused_dim, fused_dim),
            nn.ReLU(),
            Dropout(config.output_dropout),
            nn.Linear(fused_dim, fused_dim),
        )
        self.answer = OutputLayer(fused_dim, info, output="linear")

    def sources(self, target: Modality) -> tuple[Modality, ...]:
        """The other modalities in use, in the order text, audio, vision."""
        return tuple(m for m in self.modalities if m != target)

    def project(self, batch: Batch) -> dict[Modality, Padded]:
        """(B, L, d) of every modality the batch has."""
        projected = {}
        for modality, frames in self.frames(batch).items():
            values = frames.values
            if modality == Modality.TEXT:
                values = self.input_dropout(values)
            values = self.convolutions[modality](values, frames.mask)
            projected[modality] = Padded(zero_padding(values, frames.mask), frames.mask)
        return projected

    def reinforce(
        self, target: Modality, projected: Mapping[Modality, Padded], batch: Batch
    ) -> Tensor:
        """What the target's frames take from the other modalities: (B, L, joined width)."""
        own = projected[target]
        streams = []
        for source in self.sources(target):
            name = f"{source}_to_{target}"
            slot = self.absent_sources[name].expand_as(own.values)
            if source in projected:
                other = projected[source]
                queries = self._placed(own.values)
                keys = self._placed(other.values)
                stream = self.crossings[name](queries, keys, other.mask, stream_mask=own.mask)
                slot = torch.where(batch.present[source][:, None, None], stream, slot)
            streams.append(slot)
        return torch.cat(streams, dim=2) if streams else own.values

    def _placed(self, values: Tensor) -> Tensor:
        """Frames as they enter a transformer; the factor is that of the public code."""
        placed: Tensor = self.embedding_dropout(add_positions(values, scale=sqrt(values.shape[-1])))
        return placed

    def forward(self, batch: Batch) -> Output:
        """(B,) scores or (B, C) logits."""
        projected = self.project(batch)
        last = {}
        for target, own in projected.items():
            joined = self._placed(self.reinforce(target, projected, batch))
            remembered = self.memories[target](joined, None, own.mask, stream_mask=own.mask)
            last[target] = last_real(Padded(remembered, own.mask))
        filled = self.slots(last, batch)
        fused = torch.cat([filled[m] for m in self.modalities], dim=1)
        fused = fused + self.block(fused)
        return Output(self.answer(fused), {"fused": fused})


METHODS.register(
    "mult",
    Method(
        config=MulTConfig,
        build=lambda config, info: TaskScheme(MulT(config, info)),
        paper="Tsai et al., Multimodal Transformer for Unaligned Multimodal Language "
        "Sequences, ACL 2019",
        basis="code",
        certified="the authors' code but for its causal mask, first position and common norm",
        summary="six directed cross-modal transformers over unaligned sequences",
    ),
)
