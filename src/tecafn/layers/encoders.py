"""Unimodal encoders of the transformer era: one sequence in, one of the common width out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Padded
from tecafn.core.info import DataInfo, FeatureStatistics
from tecafn.layers.attention import Residual, Transformer
from tecafn.layers.authors import count_padding, scale_and_place
from tecafn.layers.dropout import Dropout
from tecafn.layers.sequence import (
    MaskedConv1d,
    SequenceLSTM,
    Standardise,
    masked_mean,
    sinusoidal_positions,
    zero_padding,
)
from tecafn.layers.text_encoder import TextEncoder, build_text_encoder


@dataclass(frozen=True, kw_only=True)
class Dropouts:
    """Probabilities inside a transformer."""

    embedding: float = 0.0
    attention: float = 0.0
    relu: float = 0.0
    residual: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AsTheAuthors:
    """Where a frame encoder departs from the paper as the authors' public code does.

    Args:
        no_lstm: the transformer's states go on as they are.
        early_convolution: the convolution has kernel 1 and stands before the transformer, where it
            is the linear layer that is there anyway; none follows.
        scaled_inputs: frames times the square root of d before positions are added.
        unmasked: self-attention sees padding, which holds a raw frame of zeros.
        closing_norm: the transformer ends with a LayerNorm.
    """

    no_lstm: bool = False
    early_convolution: bool = False
    scaled_inputs: bool = False
    unmasked: bool = False
    closing_norm: bool = False


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
        authors: departures from the paper; none by default.
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
        authors: AsTheAuthors | None = None,
    ) -> None:
        super().__init__()
        authors = authors or AsTheAuthors()
        self.scaled_inputs, self.unmasked = authors.scaled_inputs, authors.unmasked
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
            closing_norm=authors.closing_norm,
        )
        if authors.early_convolution:
            hidden_dim = dim  # nothing after the LSTM would bring its width to d
        self.lstm = None if authors.no_lstm else SequenceLSTM(dim, hidden_dim)
        self.convolution = (
            None
            if authors.early_convolution
            else MaskedConv1d(dim if authors.no_lstm else hidden_dim, dim, kernel_size=kernel_size)
        )

    def forward(self, frames: Padded) -> Padded:
        """(B, L, width) to (B, L, d)."""
        values = self.project(self.standardise(zero_padding(frames.values, frames.mask)))
        if self.scaled_inputs:
            values = scale_and_place(values)
        else:
            length, dim = values.shape[1:]
            positions = sinusoidal_positions(length, dim, device=values.device)
            values = values + positions.to(values.dtype)
        values = self.embedding_dropout(values)  # eq. 1
        seen = count_padding(frames) if self.unmasked else frames
        # Without an LSTM and a convolution padding leaves as it is, for whatever reads it.
        is_masked_later = self.lstm is not None or self.convolution is not None
        read = seen.mask if is_masked_later else None
        values = self.transformer(values, None, seen.mask, stream_mask=read)  # eq. 2-3
        if self.lstm is not None:
            states, _ = self.lstm(Padded(values, frames.mask))  # eq. 4
            values = states.values
        if self.convolution is not None:
            values = self.convolution(values, frames.mask)  # eq. 5
        return Padded(values, frames.mask)


class TextSequenceEncoder(nn.Module):
    """Text to X_t: last hidden states, then a temporal convolution (TeCaFN, eq. 1, 4, 5).

    Args:
        info: names the text encoder.
        dim: common width d.
        kernel_size: of the convolution, odd.
        padded_to: as the authors' public code has it: shorter texts are padded to this many tokens,
            and padding keeps the encoder's states, which then stand in X_t.
        transformer: self-attention over the convolved tokens, which positions are added to first;
            the paper has none.
    """

    def __init__(
        self,
        info: DataInfo,
        *,
        dim: int,
        kernel_size: int,
        padded_to: int | None = None,
        transformer: Transformer | None = None,
    ) -> None:
        super().__init__()
        self.padded_to = padded_to
        self.transformer = transformer
        self.text_encoder = build_text_encoder(info)
        self.convolution = MaskedConv1d(self.text_encoder.hidden_dim, dim, kernel_size=kernel_size)

    def forward(self, text: Padded) -> Padded:
        """Token ids (B, L), or cached states (B, L, H), to (B, L, d)."""
        if self.padded_to is None:
            states = self.text_encoder(text)
            values = self.convolution(states.values, states.mask)
            return Padded(self._between_tokens(values, states.mask), states.mask)
        missing = max(0, self.padded_to - text.mask.shape[1])
        behind = (0, missing) if text.values.ndim == 2 else (0, 0, 0, missing)
        text = Padded(functional.pad(text.values, behind), functional.pad(text.mask, (0, missing)))
        encoder = self.text_encoder
        states = (
            encoder(text, keep_padding=True) if isinstance(encoder, TextEncoder) else encoder(text)
        )
        values = self.convolution(states.values, count_padding(states).mask)
        return Padded(self._between_tokens(values, text.mask), text.mask)

    def _between_tokens(self, values: Tensor, mask: Tensor) -> Tensor:
        """(B, L, d) through the transformer, if there is one."""
        if self.transformer is None:
            return values
        positions = sinusoidal_positions(values.shape[1], values.shape[2], device=values.device)
        placed = values + positions.to(values.dtype)
        changed: Tensor = self.transformer(placed, None, mask, stream_mask=mask)
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
        known = statistics or FeatureStatistics([0.0] * width, [1.0] * width)
        self.standardise = Standardise(known.mean, known.std)
        self.project = nn.Linear(width, dim)

    def forward(self, frames: Padded) -> Padded:
        """(B, L, width) to (B, 1, d)."""
        values = self.standardise(zero_padding(frames.values, frames.mask))
        vector: Tensor = self.project(masked_mean(values, frames.mask))
        return Padded(vector.unsqueeze(1), frames.mask.any(1, keepdim=True))
