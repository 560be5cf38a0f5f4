"""TETFN: text-enhanced transformers between audio and vision, and a task for every modality.

Wang et al., "TETFN: a text enhanced transformer fusion network for multimodal sentiment analysis",
Pattern Recognition 2023.

Where audio and vision attend to each other, the one that is looked at first attends to the text
itself. Text attends to both in the usual way. Each modality's labels are generated as for Self-MM,
see ``losses.generated_labels``.

Published means here: as in the code that MMSA (Mao et al. 2022) has of it. The defaults are ours
and depart from that, see ``TETFN``; the settings ``num_lower_layers``, ``scaled_inputs``,
``positions``, ``streams``, ``reading`` and ``fusion_dim`` bring it back, and
``configs/*/tetfn_published.toml`` has them all as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Literal

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
from tecafn.layers.heads import OutputLayer, task_heads
from tecafn.layers.sequence import (
    MaskedConv1d,
    SequenceLSTM,
    add_positions,
    last_real,
    zero_padding,
)
from tecafn.layers.unimodal import ModalityFrames, fill_absent_frames
from tecafn.losses.generated_labels import UnimodalTasks, UnimodalTaskScheme


@dataclass(frozen=True, kw_only=True)
class TETFNConfig:
    """Settings; all widths and depths are ours, of the order of MulT's and Self-MM's.

    Args:
        dim: common width d of the sequences; ``num_heads`` divides it.
        num_heads: attention heads.
        num_layers: layers of each attention from one modality to another; published 2.
        num_lower_layers: of those from audio or vision to the text, which another modality then
            attends to; published 1. None = ``num_layers``.
        num_memory_layers: layers of the self-attention after them; published 2.
        scaled_inputs: frames times the square root of their width before positions are added;
            published True.
        positions: ``once``, where the sequences come in, counted from 0; ``each``, before every
            transformer and its source, the self-attention too, counted from 1, as published.
        streams: ``enhanced``: audio and vision have the text-enhanced stream alone; ``all``: one
            straight from the text beside it, as published.
        reading: of a stream's frames: their ``maximum``, or the ``last`` real one, as published.
        fusion_dim: width of two ReLU layers before the answer, the first of which is the fused
            feature; published 64. None = MulT's residual block, whose answer is the feature.
        audio_lstm_dim, vision_lstm_dim: widths of the LSTMs before the convolutions to d.
        kernel_size: of the convolutions, odd.
        task_dim: width of each task's features.
        first_weight: see ``losses.generated_labels.UnimodalTasks``; 0 is the paper's.
        embedding_dropout, attention_dropout, relu_dropout, residual_dropout: in the transformers.
        output_dropout: inside the residual block before the answer; before the ReLU layers, where
            they stand in its place.
        task_dropout: of each task's vector.
    """

    dim: int = 30
    num_heads: int = 5
    num_layers: int = 2
    num_lower_layers: int | None = None
    num_memory_layers: int = 2
    scaled_inputs: bool = False
    positions: Literal["once", "each"] = "once"
    streams: Literal["enhanced", "all"] = "enhanced"
    reading: Literal["maximum", "last"] = "maximum"
    fusion_dim: int | None = None
    audio_lstm_dim: int = 16
    vision_lstm_dim: int = 32
    kernel_size: int = 3
    task_dim: int = 32
    first_weight: float = 1.0
    embedding_dropout: float = 0.1
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    output_dropout: float = 0.1
    task_dropout: float = 0.1

    def crossing(self, num_layers: int | None = None) -> Transformer:
        """``num_layers`` of d to another modality."""
        return self.layers(self.dim, num_layers or self.num_layers, cross=True)

    def layers(self, dim: int, num_layers: int, *, cross: bool) -> Transformer:
        """A transformer as all here are, pre-norm with a closing LayerNorm."""
        settings = select(self, TransformerSettings, residual="pre_norm", closing_norm=True)
        return Transformer(dim, settings, num_layers=num_layers, cross=cross)


def maximum(sequence: Padded) -> Tensor:
    """Each column's maximum over the real frames, (B, L, D) to (B, D).

    Zero where a row has no real frame.

    Example:
        >>> frames = Padded(torch.tensor([[[-1.0], [-3.0], [9.0]]]),
        ...                 torch.tensor([[True, True, False]]))
        >>> maximum(frames).item()
        -1.0
    """
    lowest = torch.finfo(sequence.values.dtype).min
    values = sequence.values.masked_fill(~sequence.mask.unsqueeze(-1), lowest)
    there = sequence.mask.any(1, keepdim=True)
    return values.amax(1).masked_fill(~there, 0.0)


class Entrance(nn.Module):
    """Frames with their positions, as they enter; see ``TETFNConfig`` for the ways.

    Args:
        config: how.
    """

    def __init__(self, config: TETFNConfig) -> None:
        super().__init__()
        self.scaled = config.scaled_inputs
        self.first = 1 if config.positions == "each" else 0
        self.dropout = Dropout(config.embedding_dropout)

    def forward(self, values: Tensor) -> Tensor:
        """(B, L, D) to the same shape."""
        scale = sqrt(values.shape[-1]) if self.scaled else 1.0
        placed: Tensor = self.dropout(add_positions(values, scale=scale, first=self.first))
        return placed


def entrances(config: TETFNConfig) -> tuple[nn.Module, nn.Module]:
    """What sequences pass first, and what they pass before every transformer."""
    once, each = Entrance(config), nn.Identity()
    return (each, once) if config.positions == "each" else (once, each)


class TextEnhanced(nn.Module):
    """What a target takes from a source that has first looked at the text.

    Lower attention: the source asks, the text answers. Upper: the target asks, what came of it
    answers.

    Args:
        config: widths and depths.
    """

    def __init__(self, config: TETFNConfig) -> None:
        super().__init__()
        self.lower = config.crossing(config.num_lower_layers)
        self.upper = config.crossing()
        _, self.enter = entrances(config)

    def forward(self, target: Padded, source: Padded, text: Padded) -> Tensor:
        """(B, Lt, d), with source (B, Ls, d) and text (B, L, d), to (B, Lt, d)."""
        enhanced = self.lower(
            self.enter(source.values), self.enter(text.values), text.mask, stream_mask=source.mask
        )
        reinforced: Tensor = self.upper(
            self.enter(target.values), self.enter(enhanced), source.mask, stream_mask=target.mask
        )
        return reinforced


class TETFN(Network):
    """LSTMs and convolutions to d, the four streams, self-attention, maxima over time, the answer.

    Ours, by default, where MMSA's code of it has something else: audio and vision have no stream
    straight from the text, which they have there; frames are not scaled by the square root of
    their width; positions are added once, counted from 0; the lower attention is as deep as the
    upper; the streams are read by their maximum over the real frames, as the unimodal sequences
    are; the answer has MulT's residual block, whose result is the fused feature. Settings undo
    each of these.

    Ours in any case: in the place of a modality that a sample lacks stands one learned frame;
    attention sees every real frame, where that code hides later ones; convolutions keep the length
    and have a bias; a layer's source has a LayerNorm of its own; one attention dropout for all.
    """

    def __init__(self, config: TETFNConfig, info: DataInfo) -> None:
        super().__init__()
        dim = config.dim
        self.frames = ModalityFrames(info)
        lstm_dims = per_modality(config, "lstm_dim")
        self.recurrent, self.convolutions = nn.ModuleDict(), nn.ModuleDict()
        for modality, width in self.frames.dims.items():
            if modality in lstm_dims:
                self.recurrent[modality] = SequenceLSTM(width, lstm_dims[modality])
                width = lstm_dims[modality]
            self.convolutions[modality] = MaskedConv1d(width, dim, kernel_size=config.kernel_size)
        self.absent = nn.ParameterDict({m: 0.1 * torch.randn(dim) for m in Modality})
        self.enter_once, self.enter = entrances(config)
        self.text_from_audio = config.crossing()
        self.text_from_vision = config.crossing()
        self.audio_from_vision = TextEnhanced(config)
        self.vision_from_audio = TextEnhanced(config)
        self.from_text = nn.ModuleDict()
        if config.streams == "all":
            self.from_text.update({m: config.crossing() for m in lstm_dims})
        width = 2 * dim if config.streams == "all" else dim
        widths = {Modality.TEXT: 2 * dim, Modality.AUDIO: width, Modality.VISION: width}
        self.memories = nn.ModuleDict(
            {m: config.layers(w, config.num_memory_layers, cross=False) for m, w in widths.items()}
        )
        self.read = maximum if config.reading == "maximum" else last_real
        joined_dim = sum(widths.values())
        self.fused_dim = config.fusion_dim or joined_dim
        self.is_residual = config.fusion_dim is None
        if self.is_residual:
            self.block = nn.Sequential(
                nn.Linear(joined_dim, joined_dim),
                nn.ReLU(),
                Dropout(config.output_dropout),
                nn.Linear(joined_dim, joined_dim),
            )
            self.hidden: nn.Module = nn.Identity()
        else:
            self.block = nn.Sequential(
                Dropout(config.output_dropout), nn.Linear(joined_dim, self.fused_dim), nn.ReLU()
            )
            self.hidden = nn.Sequential(nn.Linear(self.fused_dim, self.fused_dim), nn.ReLU())
        self.answer = OutputLayer(self.fused_dim, info, output="linear")

    def sequences(self, batch: Batch) -> dict[Modality, Padded]:
        """(B, L, d) of all three; a sample that lacks one has a single learned frame."""
        projected: dict[Modality, Padded] = {}
        frames = self.frames(batch)
        for modality in Modality:
            own = frames.get(modality)
            if own is not None:
                if modality in self.recurrent:
                    own, _ = self.recurrent[modality](own)
                values = self.convolutions[modality](own.values, own.mask)
                own = Padded(zero_padding(values, own.mask), own.mask)
            projected[modality] = fill_absent_frames(
                own, self.absent[modality], batch.has(modality)
            )
        return projected

    def streams(self, sequences: Mapping[Modality, Padded]) -> dict[Modality, Padded]:
        """What each modality took from the others.

        (B, L, 2 d) of text, (B, L, d) of audio and vision, or 2 d with streams from the text.
        """
        placed = {
            m: Padded(self.enter_once(sequence.values), sequence.mask)
            for m, sequence in sequences.items()
        }
        text, audio, vision = (placed[m] for m in Modality)

        def crossed(stream: nn.Module, target: Padded, source: Padded) -> Tensor:
            taken: Tensor = stream(
                self.enter(target.values),
                self.enter(source.values),
                source.mask,
                stream_mask=target.mask,
            )
            return taken

        taken = {
            Modality.TEXT: [
                crossed(self.text_from_audio, text, audio),
                crossed(self.text_from_vision, text, vision),
            ],
            Modality.AUDIO: [self.audio_from_vision(audio, vision, text)],
            Modality.VISION: [self.vision_from_audio(vision, audio, text)],
        }
        for name, stream in self.from_text.items():
            modality = Modality(name)
            taken[modality].insert(0, crossed(stream, placed[modality], text))
        return {m: Padded(torch.cat(parts, dim=2), placed[m].mask) for m, parts in taken.items()}

    def forward(self, batch: Batch) -> Output:
        """(B,) scores; features ``vector_<modality>`` (B, d) and ``fused``."""
        sequences = self.sequences(batch)
        ends = []
        for modality, stream in self.streams(sequences).items():
            remembered = self.memories[modality](
                self.enter(stream.values), None, stream.mask, stream_mask=stream.mask
            )
            ends.append(self.read(Padded(remembered, stream.mask)))
        joined = torch.cat(ends, dim=1)
        fused = joined + self.block(joined) if self.is_residual else self.block(joined)
        features = {f"vector_{m}": maximum(sequence) for m, sequence in sequences.items()}
        return Output(self.answer(self.hidden(fused)), features | {"fused": fused})


class TETFNScheme(UnimodalTaskScheme):
    """The multimodal task's absolute error and each modality's weighted one."""

    def __init__(self, config: TETFNConfig, info: DataInfo) -> None:
        network = TETFN(config, info)
        task_dims = dict.fromkeys(network.frames.dims, config.task_dim)
        in_dims = dict.fromkeys(task_dims, config.dim)
        tasks = UnimodalTasks(
            task_heads(in_dims, task_dims, info, dropout=config.task_dropout),
            dims=task_dims,
            fused_dim=network.fused_dim,
            info=info,
            first_weight=config.first_weight,
        )
        super().__init__(network, tasks)


METHODS.register(
    "tetfn",
    Method(
        config=TETFNConfig,
        build=TETFNScheme,
        paper="Wang et al., TETFN: A text enhanced transformer fusion network for multimodal "
        "sentiment analysis, Pattern Recognition 2023",
        basis="code",
        certified="MMSA's code but for its causal mask, wired as in tetfn_published.toml; the "
        "default wiring is ours",
        tasks=("regression",),
        summary="text-enhanced transformers between audio and vision, generated labels",
    ),
)
