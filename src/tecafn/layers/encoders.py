"""Unimodal encoders of the transformer era: one sequence in, one of the common width out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tecafn.core.batch import Padded
from tecafn.core.info import DataInfo, FeatureStatistics
from tecafn.layers.attention import Residual, Transformer
from tecafn.layers.dropout import Dropout
from tecafn.layers.sequence import (
    MaskedConv1d,
    MaskedLSTM,
    Standardise,
    sinusoidal_positions,
    zero_padding,
)
from tecafn.layers.text_encoder import build_text_encoder


@dataclass(frozen=True, kw_only=True)
class Dropouts:
    """Probabilities inside a transformer."""

    embedding: float = 0.0
    attention: float = 0.0
    relu: float = 0.0
    residual: float = 0.0


class FrameEncoder(nn.Module):
    """Audio or vision frames to X_m (TeCaFN, eq. 1-5).

    Standardised frames -> linear to d and positions -> transformer encoder -> LSTM -> temporal
    convolution. (ours: the linear layer, because the heads must divide the width.)

    Args:
        width: columns of a frame.
        statistics: the training split's column means and deviations; None = already standardised.
        dim: common width d.
        num_layers, num_heads: of the transformer.
        hidden_dim: width of the LSTM.
        kernel_size: of the convolution, odd.
        residual: see ``TransformerLayer``.
        dropouts: probabilities.
    """

    def __init__(
        self,
        width: int,
        statistics: FeatureStatistics | None,
        *,
        dim: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        kernel_size: int,
        residual: Residual,
        dropouts: Dropouts,
    ) -> None:
        super().__init__()
        known = statistics or FeatureStatistics([0.0] * width, [1.0] * width)
        self.standardise = Standardise(known.mean, known.std)
        self.project = nn.Linear(width, dim)
        self.embedding_dropout = Dropout(dropouts.embedding)
        self.transformer = Transformer(
            dim,
            num_layers=num_layers,
            num_heads=num_heads,
            attention_dropout=dropouts.attention,
            relu_dropout=dropouts.relu,
            residual_dropout=dropouts.residual,
            residual=residual,
        )
        self.lstm = MaskedLSTM(dim, hidden_dim)
        self.convolution = MaskedConv1d(hidden_dim, dim, kernel_size=kernel_size)

    def forward(self, frames: Padded) -> Padded:
        """(B, L, width) to (B, L, d)."""
        values = self.project(self.standardise(zero_padding(frames.values, frames.mask)))
        length, dim = values.shape[1:]
        positions = sinusoidal_positions(length, dim, device=values.device).to(values.dtype)
        values = self.embedding_dropout(values + positions)  # eq. 1
        values = self.transformer(values, None, frames.mask)  # eq. 2-3
        values = self.lstm(values, frames.mask)  # eq. 4
        return Padded(self.convolution(values, frames.mask), frames.mask)  # eq. 5


class TextSequenceEncoder(nn.Module):
    """Text to X_t: last hidden states, then a temporal convolution (TeCaFN, eq. 1, 4, 5).

    Args:
        info: names the text encoder.
        dim: common width d.
        kernel_size: of the convolution, odd.
    """

    def __init__(self, info: DataInfo, *, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(info)
        self.convolution = MaskedConv1d(self.text_encoder.hidden_dim, dim, kernel_size=kernel_size)

    def forward(self, text: Padded) -> Padded:
        """Token ids (B, L), or cached states (B, L, H), to (B, L, d)."""
        states = self.text_encoder(text)
        return Padded(self.convolution(states.values, states.mask), states.mask)
