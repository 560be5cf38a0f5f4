"""Unimodal encoders of the transformer era: one sequence in, one of the common width out."""

from __future__ import annotations

from torch import Tensor, nn

from tecafn.core.batch import Padded
from tecafn.core.info import DataInfo, FeatureStatistics
from tecafn.layers.attention import Transformer, TransformerSettings
from tecafn.layers.dropout import Dropout
from tecafn.layers.sequence import (
    MaskedConv1d,
    SequenceLSTM,
    Standardise,
    add_positions,
    masked_mean,
    zero_padding,
)
from tecafn.layers.text_encoder import build_text_encoder


class FrameEncoder(nn.Module):
    """Audio or vision frames to X_m (TeCaFN, eq. 1-5).

    Standardised frames -> linear to d and positions -> transformer encoder -> LSTM -> temporal
    convolution. (ours: the linear layer, because the heads must divide the width.)

    Args:
        width: columns of a frame.
        statistics: the training split's column means and deviations; None = already standardised.
        dim: common width d.
        transformer, num_layers: of the transformer.
        hidden_dim: width of the LSTM.
        kernel_size: of the convolution, odd.
        embedding_dropout: of what enters the transformer.
    """

    def __init__(
        self,
        width: int,
        statistics: FeatureStatistics | None,
        *,
        dim: int,
        transformer: TransformerSettings,
        num_layers: int,
        hidden_dim: int,
        kernel_size: int,
        embedding_dropout: float,
    ) -> None:
        super().__init__()
        self.standardise = Standardise.by(statistics, width)
        self.project = nn.Linear(width, dim)
        self.embedding_dropout = Dropout(embedding_dropout)
        self.transformer = Transformer(dim, transformer, num_layers=num_layers)
        self.lstm = SequenceLSTM(dim, hidden_dim)
        self.convolution = MaskedConv1d(hidden_dim, dim, kernel_size=kernel_size)

    def forward(self, frames: Padded) -> Padded:
        """(B, L, width) to (B, L, d)."""
        mask = frames.mask
        values = self.project(self.standardise(zero_padding(frames.values, mask)))
        values = self.embedding_dropout(add_positions(values))  # eq. 1
        values = self.transformer(values, None, mask, stream_mask=mask)  # eq. 2-3
        states, _ = self.lstm(Padded(values, mask))  # eq. 4
        return Padded(self.convolution(states.values, mask), mask)  # eq. 5


class TextSequenceEncoder(nn.Module):
    """Text to X_t: last hidden states, then a temporal convolution (TeCaFN, eq. 1, 4, 5).

    Args:
        info: names the text encoder.
        dim: common width d.
        kernel_size: of the convolution, odd.
        transformer: self-attention over the convolved tokens, which positions are added to first;
            the paper has none.
    """

    def __init__(
        self,
        info: DataInfo,
        *,
        dim: int,
        kernel_size: int,
        transformer: Transformer | None = None,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = build_text_encoder(info)
        self.convolution = MaskedConv1d(self.text_encoder.hidden_dim, dim, kernel_size=kernel_size)

    def forward(self, text: Padded) -> Padded:
        """Token ids (B, L), or cached states (B, L, H), to (B, L, d)."""
        states = self.text_encoder(text)
        values = self.convolution(states.values, states.mask)
        return Padded(between_tokens(self.transformer, values, states.mask), states.mask)


def between_tokens(transformer: Transformer | None, values: Tensor, mask: Tensor) -> Tensor:
    """(B, L, d) and its positions through the transformer, if there is one."""
    if transformer is None:
        return values
    changed: Tensor = transformer(add_positions(values), None, mask, stream_mask=mask)
    return changed


class VectorEncoder(nn.Module):
    """A modality of one frame per sample to X_m: standardise, then linear to d.

    Frames of a sample that has several are averaged.

    Args:
        width: columns of a frame.
        statistics: the training split's column means and deviations; None = already standardised.
        dim: common width d.
    """

    def __init__(self, width: int, statistics: FeatureStatistics | None, *, dim: int) -> None:
        super().__init__()
        self.standardise = Standardise.by(statistics, width)
        self.project = nn.Linear(width, dim)

    def forward(self, frames: Padded) -> Padded:
        """(B, L, width) to (B, 1, d)."""
        values = self.standardise(zero_padding(frames.values, frames.mask))
        vector: Tensor = self.project(masked_mean(values, frames.mask))
        return Padded(vector.unsqueeze(1), frames.mask.any(1, keepdim=True))
