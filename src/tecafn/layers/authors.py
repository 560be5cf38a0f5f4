"""What TeCaFN's public code does and its paper does not: each a small piece with a name.

Kept to explain the published numbers, not to be built upon: half of these let padding or neighbours
into a prediction. ``docs/paper-and-code.md`` says what each does; nothing here is on by default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tecafn.core.batch import Padded
from tecafn.core.info import DataInfo, FeatureStatistics
from tecafn.layers.attention import Transformer, TransformerSettings
from tecafn.layers.dropout import Dropout
from tecafn.layers.encoders import between_tokens
from tecafn.layers.sequence import (
    MaskedConv1d,
    SequenceLSTM,
    Standardise,
    add_positions,
    masked_mean,
    zero_padding,
)
from tecafn.layers.text_encoder import TextEncoder, build_text_encoder


def count_padding(sequence: Padded) -> Padded:
    """The same frames, each of them said to be real.

    Example:
        >>> one = Padded(torch.ones(1, 2, 3), torch.tensor([[True, False]]))
        >>> count_padding(one).mask
        tensor([[True, True]])
    """
    return Padded(sequence.values, torch.ones_like(sequence.mask))


def misplaced_masks(mask: Tensor, *, num_heads: int) -> Tensor:
    """The mask that each head of each sample is given there.

    That code flattens attention batch-major (row ``b * H + h`` is head h of sample b), then reads
    the same rows head-major when it lays the masks over them, where row r belongs to sample
    ``r mod B``. So head h of sample b is given the mask of sample ``(b * H + h) mod B``: only a
    batch of one, or of a size that divides b * H + h - b for every head, is masked rightly.

    Args:
        mask: (B, L) bool.
        num_heads: H.

    Returns:
        (B, H, L) bool.

    Example:
        >>> misplaced_masks(torch.eye(3, dtype=torch.bool), num_heads=2).int().argmax(-1)
        tensor([[0, 1],
                [2, 0],
                [1, 2]])
    """
    rows = torch.arange(len(mask), device=mask.device).unsqueeze(1) * num_heads
    rows = rows + torch.arange(num_heads, device=mask.device)
    return mask[rows % max(len(mask), 1)]  # (B, L) -> (B, H, L)


class FrozenGaussian(nn.Module):
    """q(y | x) of the Barber-Agakov bound: a mean and a log-variance for each column of y.

    There the two networks have an optimizer that never takes a step, so here they are frozen as
    they were drawn: gradients reach x and y alone.

    Args:
        dim: width of x and of y.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()

        def network() -> nn.Sequential:
            return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

        self.mean = network()
        self.log_variance = network()
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) to mean and log-variance, (B, D) each."""
        return self.mean(x), self.log_variance(x)


def token_means(sequences: Iterable[Padded], rows: Tensor) -> tuple[list[Tensor], Tensor]:
    """Each token position's mean over samples: what the second contrast compares there.

    Its tensors are length-first where the contrast expects rows first, so that it is over
    positions: row l of (L, d) is the mean of every sample's frame at position l.

    Args:
        sequences: of the same mask, (B, L, d).
        rows: (B,) bool, the samples that count.

    Returns:
        The means, (L, d) each, and (L,) bool: positions that some sample has.
    """
    means = []
    counted = rows
    for sequence in sequences:
        real = (sequence.mask & rows.unsqueeze(1)).T  # (B, L) -> (L, B)
        means.append(masked_mean(sequence.values.transpose(0, 1), real))
        counted = real.any(1)
    return means, counted


@dataclass(frozen=True, kw_only=True)
class AsTheAuthors:
    """Where a frame encoder departs from the paper as the authors' public code does.

    Args:
        no_lstm: the transformer's states go on as they are.
        early_convolution: the convolution has kernel 1 and stands before the transformer, where it
            is the linear layer that is there anyway; none follows.
        scaled_inputs: frames times the square root of d before positions are added.
        unmasked: self-attention sees padding, which holds a raw frame of zeros.
    """

    no_lstm: bool = False
    early_convolution: bool = False
    scaled_inputs: bool = False
    unmasked: bool = False


class AuthorsFrameEncoder(nn.Module):
    """``layers.encoders.FrameEncoder`` with some of the authors' departures from eq. 1-5.

    With none of them it computes what that encoder does, from parameters of the same names.

    Args:
        width: columns of a frame.
        statistics: the training split's column means and deviations; None = already standardised.
        differences: the departures.
        dim, transformer, num_layers, hidden_dim, kernel_size, embedding_dropout: as there.
    """

    def __init__(
        self,
        width: int,
        statistics: FeatureStatistics | None,
        *,
        differences: AsTheAuthors,
        dim: int,
        transformer: TransformerSettings,
        num_layers: int,
        hidden_dim: int,
        kernel_size: int,
        embedding_dropout: float,
    ) -> None:
        super().__init__()
        self.differences = differences
        self.standardise = Standardise.by(statistics, width)
        self.project = nn.Linear(width, dim)
        self.embedding_dropout = Dropout(embedding_dropout)
        self.transformer = Transformer(dim, transformer, num_layers=num_layers)
        if differences.early_convolution:
            hidden_dim = dim  # nothing after the LSTM would bring its width to d
        self.lstm = None if differences.no_lstm else SequenceLSTM(dim, hidden_dim)
        in_dim = dim if differences.no_lstm else hidden_dim
        self.convolution = (
            None
            if differences.early_convolution
            else MaskedConv1d(in_dim, dim, kernel_size=kernel_size)
        )

    def forward(self, frames: Padded) -> Padded:
        """(B, L, width) to (B, L, d)."""
        differences = self.differences
        values = self.project(self.standardise(zero_padding(frames.values, frames.mask)))
        scale = values.shape[-1] ** 0.5 if differences.scaled_inputs else 1.0
        values = self.embedding_dropout(add_positions(values, scale=scale))
        seen = count_padding(frames).mask if differences.unmasked else frames.mask
        # Without an LSTM and a convolution padding leaves as it is, for whoever reads it.
        is_masked_later = self.lstm is not None or self.convolution is not None
        values = self.transformer(values, None, seen, stream_mask=seen if is_masked_later else None)
        if self.lstm is not None:
            states, _ = self.lstm(Padded(values, frames.mask))
            values = states.values
        if self.convolution is not None:
            values = self.convolution(values, frames.mask)
        return Padded(values, frames.mask)


class AuthorsTextSequenceEncoder(nn.Module):
    """``layers.encoders.TextSequenceEncoder`` whose padding keeps the text encoder's states.

    Padding holds the padding token, or zero states after frozen layers (a cache has none for it).

    Args:
        info: names the text encoder.
        padded_to: shorter texts are padded to this number of tokens.
        dim, kernel_size, transformer: as there.
    """

    def __init__(
        self,
        info: DataInfo,
        *,
        padded_to: int,
        dim: int,
        kernel_size: int,
        transformer: Transformer | None = None,
    ) -> None:
        super().__init__()
        self.padded_to = padded_to
        self.transformer = transformer
        self.text_encoder = build_text_encoder(info)
        self.convolution = MaskedConv1d(self.text_encoder.hidden_dim, dim, kernel_size=kernel_size)

    def forward(self, text: Padded) -> Padded:
        """Token ids (B, L), or cached states (B, L, H), to (B, L or more, d)."""
        text = text.padded_to(self.padded_to)
        states = self._states(text)
        values = self.convolution(states, torch.ones_like(text.mask))
        return Padded(between_tokens(self.transformer, values, text.mask), text.mask)

    def _states(self, text: Padded) -> Tensor:
        """(B, L, H), those of padding among them."""
        encoder = self.text_encoder
        if not isinstance(encoder, TextEncoder):
            stored: Padded = encoder(text)
            return stored.values
        if not text.values.is_floating_point():
            padding = torch.full_like(text.values, encoder.config.pad_token_id or 0)
            ids = torch.where(text.mask, text.values, padding)
            text = encoder.run_frozen(dataclasses.replace(text, values=ids))
            if encoder.is_partly_frozen:
                values = zero_padding(text.values, text.mask)
                text = dataclasses.replace(text, values=values)
        states: Tensor = encoder.added_layers(encoder.run_upper(text), text.mask)
        return states
