"""Multi-head attention and the transformer layer that both encoders and fusion are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.fast import is_on
from tecafn.layers.cpu_attention import CpuAttention
from tecafn.layers.dropout import Dropout
from tecafn.layers.sequence import may_hide_frames

Residual = Literal["printed", "pre_norm"]

_attend_with_dropout = CpuAttention()


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention over several heads (eq. 8-10).

    Args:
        dim: width; ``num_heads`` must divide it.
        num_heads: H.
        dropout: on the attention weights, while training.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide the width {dim}, got {num_heads}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.output = nn.Linear(dim, dim)

    def _heads(self, values: Tensor) -> Tensor:
        rows, length, dim = values.shape
        heads = values.view(rows, length, self.num_heads, dim // self.num_heads)
        return heads.transpose(1, 2)  # (B, L, D) -> (B, H, L, D/H)

    def forward(
        self,
        query: Tensor,
        source: Tensor,
        source_mask: Tensor | None,
        *,
        asked: Tensor | None = None,
    ) -> Tensor:
        """(B, Lq, D) attends to (B, Ls, D) where ``source_mask`` is True, or everywhere if None.

        The mask is (B, Ls), or (B, H, Ls) where heads see different frames. A row whose source has
        no real frame attends to all of it instead of dividing by zero; what comes out is
        meaningless there and callers drop it by ``present``.

        Of the queries those are read afterwards that ``asked`` (B, Lq) names; None for all.
        """
        queries, keys_values = self.query(query), self.key_value(source)
        key, value = keys_values.chunk(2, dim=-1)
        heads = (self._heads(queries), self._heads(key), self._heads(value))
        dropped = self.dropout if self.training else 0.0
        allowed = None if source_mask is None else _readable(source_mask)
        on_cpu = query.device.type == "cpu"
        if allowed is not None and dropped and on_cpu and is_on("cpu_attention"):
            attended = _attend_with_dropout(*heads, allowed, dropped, asked)
        else:
            attended = functional.scaled_dot_product_attention(
                *heads, attn_mask=allowed, dropout_p=dropped
            )
        answer: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return answer

    def weights(self, query: Tensor, source: Tensor, source_mask: Tensor | None) -> Tensor:
        """(B, H, Lq, Ls), how much of each source frame each query reads in ``forward``.

        Dropout is left out.
        """
        queries = self._heads(self.query(query))
        keys = self._heads(self.key_value(source).chunk(2, dim=-1)[0])
        scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
        if source_mask is not None:
            scores = scores.masked_fill(~_readable(source_mask), float("-inf"))
        weights: Tensor = scores.softmax(-1)
        return weights


def _readable(mask: Tensor) -> Tensor:
    """Which frames each head of each row reads, (B, 1 or H, 1, Ls)."""
    allowed = mask | ~mask.any(-1, keepdim=True)
    allowed = allowed.unsqueeze(-2)  # every query of a head sees the same frames
    return allowed if allowed.ndim == 4 else allowed.unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """What the layers of a transformer have in common.

    Args:
        num_heads: H.
        attention_dropout, relu_dropout, residual_dropout: probabilities.
        residual: ``printed`` adds the normalised input as TeCaFN's paper prints it,
            ``f(LN(x)) + LN(x)``; ``pre_norm`` is the usual ``x + f(LN(x))``.
        closing_norm: end with a LayerNorm, as MulT (Tsai et al. 2019) does.
    """

    num_heads: int
    attention_dropout: float = 0.0
    relu_dropout: float = 0.0
    residual_dropout: float = 0.0
    residual: Residual = "printed"
    closing_norm: bool = False


class TransformerLayer(nn.Module):
    """One layer of eq. 2-3 (self-attention) or eq. 11-12 (attention to another modality).

    Args:
        dim: width D; the feed-forward network is 4 D wide.
        settings: heads, dropouts and the residual.
        cross: True for attention to another sequence, which then has a LayerNorm of its own.
    """

    def __init__(self, dim: int, settings: TransformerSettings, *, cross: bool) -> None:
        super().__init__()
        self.residual = settings.residual
        self.attention_norm = nn.LayerNorm(dim)
        self.source_norm = nn.LayerNorm(dim) if cross else None
        self.attention = MultiHeadAttention(
            dim, num_heads=settings.num_heads, dropout=settings.attention_dropout
        )
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 4 * dim),
            nn.ReLU(),
            Dropout(settings.relu_dropout),
            nn.Linear(4 * dim, dim),
        )
        self.residual_dropout = Dropout(settings.residual_dropout)

    def _add(self, stream: Tensor, normed: Tensor, change: Tensor) -> Tensor:
        dropped: Tensor = self.residual_dropout(change)
        return (normed if self.residual == "printed" else stream) + dropped

    def forward(
        self,
        stream: Tensor,
        source: Tensor | None,
        source_mask: Tensor | None,
        *,
        stream_mask: Tensor | None = None,
    ) -> Tensor:
        """One step of the stream (B, L, D).

        Args:
            stream: the query side.
            source: (B, Ls, D) of the other modality, or None for self-attention.
            source_mask: (B, Ls), or (B, L) for self-attention, or one per head: (B, H, Ls); None
                where all frames are real.
            stream_mask: (B, L) bool, which frames of the stream are read afterwards; what comes out
                elsewhere means nothing. None for all.
        """
        normed = self.attention_norm(stream)
        if self.source_norm is None:
            key_value = normed
        else:
            assert source is not None, "cross-attention needs a source"
            key_value = self.source_norm(source)
        attended = self.attention(normed, key_value, source_mask, asked=stream_mask)
        stream = self._add(stream, normed, attended)
        normed = self.feed_forward_norm(stream)
        change: Tensor = self.feed_forward(normed)
        return self._add(stream, normed, change)


class Transformer(nn.Module):
    """L layers, each with parameters of its own.

    Args:
        dim: width D.
        settings: of every layer.
        num_layers: L.
        cross: the stream attends to another sequence instead of itself.
    """

    def __init__(
        self, dim: int, settings: TransformerSettings, *, num_layers: int, cross: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(dim, settings, cross=cross) for _ in range(num_layers)
        )
        self.closing_norm = nn.LayerNorm(dim) if settings.closing_norm else nn.Identity()

    def forward(
        self,
        stream: Tensor,
        source: Tensor | None,
        source_mask: Tensor,
        *,
        stream_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, L, D) through all layers.

        Args:
            stream: see ``TransformerLayer.forward``.
            source: likewise.
            source_mask: likewise.
            stream_mask: likewise.
        """
        # In training hardly any batch is without padding.
        mask = source_mask if self.training or may_hide_frames(source_mask) else None
        for layer in self.layers:
            stream = layer(stream, source, mask, stream_mask=stream_mask)
        closed: Tensor = self.closing_norm(stream)
        return closed
