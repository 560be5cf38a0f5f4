"""Audio, vision and text to one vector each, for the methods that fuse utterances, not frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Output
from tecafn.core.scheme import Network
from tecafn.core.settings import per_modality
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.sequence import SequenceLSTM
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames, UtteranceLSTM, pool


class LastHidden(nn.Module):
    """Audio or vision to one vector: a one-layer LSTM's last state, then a linear layer.

    Args:
        width: of a frame.
        hidden_dim: of the LSTM.
        out_dim: of the vector.
    """

    def __init__(self, width: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.recurrent = SequenceLSTM(width, hidden_dim)
        self.project = nn.Linear(hidden_dim, out_dim)

    def forward(self, frames: Padded) -> Tensor:
        """(B, L, width) to (B, out_dim)."""
        _, last = self.recurrent(frames)
        vector: Tensor = self.project(last)
        return vector


class ClsProjection(nn.Module):
    """Text to one vector: its [CLS], and a linear layer where another width is asked for.

    Args:
        width: of a token's state.
        out_dim: of the vector; None = the state itself.
    """

    def __init__(self, width: int, out_dim: int | None) -> None:
        super().__init__()
        self.project = nn.Identity() if out_dim is None else nn.Linear(width, out_dim)

    def forward(self, frames: Padded) -> Tensor:
        """(B, L, width) to (B, out_dim)."""
        vector: Tensor = self.project(pool(frames, "first"))
        return vector


class UtteranceEncoders(nn.Module):
    """One vector of each modality; ``dims`` has their widths.

    Args:
        widths: of a frame of each modality in use (``ModalityFrames.dims``).
        lstm_dims: width of the LSTM of audio and of vision.
        dims: width of each vector; a text that is left out keeps the encoder's.

    Source: Self-MM, Yu et al. 2021, its unimodal encoders.
    """

    def __init__(
        self,
        widths: Mapping[Modality, int],
        *,
        lstm_dims: Mapping[Modality, int],
        dims: Mapping[Modality, int],
    ) -> None:
        super().__init__()
        self.dims = {m: dims.get(m, width) for m, width in widths.items()}
        self.encoders = nn.ModuleDict(
            {
                m: ClsProjection(width, dims.get(m))
                if m == Modality.TEXT
                else LastHidden(width, lstm_dims[m], dims[m])
                for m, width in widths.items()
            }
        )

    def forward(self, frames: Mapping[Modality, Padded]) -> dict[Modality, Tensor]:
        """(B, L, width) to (B, D) of the modalities that are there."""
        return {m: self.encoders[m](sequence) for m, sequence in frames.items()}


class ConcatFusion(nn.Module):
    """One vector per modality, joined; two ReLU layers and a linear one.

    Args:
        encoders: to the vectors.
        info: task and label range.
        fused_dim: width of both layers.
        dropout: of the joined vectors.

    Source: Self-MM, Yu et al. 2021. Ours: a learned vector in the place of an absent modality's.
    """

    def __init__(
        self, encoders: UtteranceEncoders, info: DataInfo, *, fused_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoders = encoders
        self.slots = AbsentVectors(encoders.dims)
        self.fuse = nn.Sequential(
            Dropout(dropout), nn.Linear(sum(encoders.dims.values()), fused_dim), nn.ReLU()
        )
        self.hidden = nn.Sequential(nn.Linear(fused_dim, fused_dim), nn.ReLU())
        self.answer = OutputLayer(fused_dim, info, output="linear")

    def forward(self, frames: Mapping[Modality, Padded], batch: Batch) -> Output:
        """(B,) scores; features ``vector_<modality>`` and ``fused`` (B, fused_dim)."""
        filled = self.slots(self.encoders(frames), batch)
        fused = self.fuse(torch.cat([filled[m] for m in self.encoders.dims], dim=1))
        features = {f"vector_{m}": vector for m, vector in filled.items()} | {"fused": fused}
        return Output(self.answer(self.hidden(fused)), features)


@dataclass(frozen=True, kw_only=True)
class UtteranceSettings:
    """Widths and dropout of an ``UtteranceNetwork``.

    Args:
        audio_lstm_dim, vision_lstm_dim: widths of the LSTMs.
        audio_dim, vision_dim: widths of the vectors made of their last states.
        fused_dim: width of the fused features.
        fusion_dropout: of the joined vectors.
    """

    audio_lstm_dim: int
    vision_lstm_dim: int
    audio_dim: int
    vision_dim: int
    fused_dim: int
    fusion_dropout: float


class UtteranceNetwork(Network):
    """The whole network of Self-MM, and of those that take it over: a batch to its answer.

    Args:
        settings: widths and dropout.
        info: of the dataset.

    Source: Self-MM, Yu et al. 2021.
    """

    def __init__(self, settings: UtteranceSettings, info: DataInfo) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        self.joined = ConcatFusion(
            UtteranceEncoders(
                self.frames.dims,
                lstm_dims=per_modality(settings, "lstm_dim"),
                dims=per_modality(settings, "dim"),
            ),
            info,
            fused_dim=settings.fused_dim,
            dropout=settings.fusion_dropout,
        )

    def forward(self, batch: Batch) -> Output:
        """(B,) scores; features ``vector_<modality>`` and ``fused`` (B, fused_dim)."""
        output: Output = self.joined(self.frames(batch), batch)
        return output


class ProjectionEncoders(nn.Module):
    """One vector of one width of each modality: the text's mean, last states of audio and vision.

    Args:
        widths: of a frame of each modality in use (``ModalityFrames.dims``).
        dim: of the vectors.

    Source: MISA, Hazarika et al. 2020.
    """

    def __init__(self, widths: Mapping[Modality, int], dim: int) -> None:
        super().__init__()
        self.recurrent, self.project = nn.ModuleDict(), nn.ModuleDict()
        for modality, width in widths.items():
            if modality != Modality.TEXT:
                recurrent = UtteranceLSTM(width)
                self.recurrent[modality], width = recurrent, recurrent.out_dim
            self.project[modality] = nn.Sequential(
                nn.Linear(width, dim), nn.ReLU(), nn.LayerNorm(dim)
            )

    def forward(self, frames: Mapping[Modality, Padded]) -> dict[Modality, Tensor]:
        """(B, L, width) to (B, dim) of the modalities that are there."""
        vectors: dict[Modality, Tensor] = {}
        for modality, sequence in frames.items():
            if modality == Modality.TEXT:
                vector = pool(sequence, "mean")
            else:
                vector = self.recurrent[modality](sequence)
            vectors[modality] = self.project[modality](vector)
        return vectors
