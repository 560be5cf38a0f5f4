"""Multi-head attention and the transformer layer that both encoders and fusion are made of."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from tecafn.layers.dropout import Dropout, draw_kept
from tecafn.layers.sequence import hides_frames

Residual = Literal["printed", "pre_norm"]


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

    def forward(self, query: Tensor, source: Tensor, source_mask: Tensor | None) -> Tensor:
        """(B, Lq, D) attends to (B, Ls, D) where ``source_mask`` is True, or everywhere if None.

        The mask is (B, Ls), or (B, H, Ls) where heads see different frames. A row whose source has
        no real frame attends to all of it instead of dividing by zero; what comes out is
        meaningless there and callers drop it by ``present``.
        """
        key, value = self.key_value(source).chunk(2, dim=-1)
        heads = (self._heads(self.query(query)), self._heads(key), self._heads(value))
        dropped = self.dropout if self.training else 0.0
        allowed = None if source_mask is None else _readable(source_mask)
        if allowed is not None and dropped and query.device.type == "cpu":
            attended = _attention_with_dropout(*heads, allowed, dropped)
        else:
            attended = functional.scaled_dot_product_attention(
                *heads, attn_mask=allowed, dropout_p=dropped
            )
        merged: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return merged


def _readable(mask: Tensor) -> Tensor:
    """Which frames each head of each row reads, (B, 1 or H, 1, Ls)."""
    allowed = mask | ~mask.any(-1, keepdim=True)
    allowed = allowed.unsqueeze(-2)  # every query of a head sees the same frames
    return allowed if allowed.ndim == 4 else allowed.unsqueeze(1)


def _attention_with_dropout(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, probability: float
) -> Tensor:
    """What ``scaled_dot_product_attention`` computes, for training on a CPU.

    There it has no fused kernel with dropout.

    Args:
        query: (B, H, Lq, D/H).
        key, value: (B, H, Ls, D/H).
        allowed: (B, 1, 1, Ls) or (B, H, 1, Ls) bool, at least one True in each row.
        probability: of dropping an attention weight.
    """
    # Products this narrow, and softmax, take longer in bfloat16 than in float32 on a CPU.
    dtype = torch.promote_types(query.dtype, torch.float32)
    bias = torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, float("-inf"))
    # Contiguous once, not in each of the products.
    heads = (x.to(dtype).contiguous() for x in (query, key, value))
    attended: Tensor = _DroppedAttention.apply(  # type: ignore[no-untyped-call]
        *heads, bias, probability
    )
    return attended.to(query.dtype)


_LOG2_E = math.log2(math.e)
# Attention weights that are worked on at a time: few enough to stay in a core's own cache.
_WEIGHTS_A_PART = 1 << 18


# Scores no larger than this are raised as they are: 2^60 times thousands of frames is no overflow.
_SAFE_EXPONENT = 60.0


def _exponentials(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    """(B, H, Lq, Ls) attention weights but for a factor of each query's: softmax before its sum.

    To base 2, which takes a third of the time of e on a CPU. softmax subtracts each query's highest
    score, another pass that takes as long; here that is done only where scores are so large that
    they need it, which the vectors' lengths bound.
    """
    scores: Tensor = (query * (_LOG2_E * query.shape[-1] ** -0.5)) @ key.transpose(-1, -2)
    scores.add_(bias)
    if not _bound_of_scores(query, key) < _SAFE_EXPONENT:
        scores.sub_(scores.detach().amax(-1, keepdim=True))
    return scores.exp2_()


def _bound_of_scores(query: Tensor, key: Tensor) -> float:
    """No score to base 2 is larger in size (Cauchy and Schwarz)."""
    if not len(query):
        return 0.0
    squares = (float(x.detach().square().sum(-1).max()) for x in (query, key))
    return _LOG2_E * math.sqrt(math.prod(squares) / query.shape[-1])


# Up to so many columns of a head a product is faster transposed.
_NARROW = 8


def _times_narrow(wide: Tensor, narrow: Tensor) -> Tensor:
    """``wide @ narrow``, where a head's few columns would leave most of a CPU's lanes idle.

    Transposed, the long side is in the lanes: a third of the time with 6 columns.
    """
    if narrow.shape[-1] > _NARROW:
        return wide @ narrow
    return (narrow.transpose(-1, -2) @ wide.transpose(-1, -2)).transpose(-1, -2)


# Up to so many weights are kept for the backward pass; more are computed anew there.
_WEIGHTS_KEPT = 1 << 20


class _DroppedAttention(Function):
    """Attention that keeps little for the backward pass.

    Of long sequences it keeps one byte a weight, not three floats, and computes the weights anew, a
    few rows of the batch at a time: over six layers they would fill gigabytes. What each query's
    weights are divided by is applied to the few columns that come out, not to the weights. The
    backward pass is made of differentiable operations, so that a loss may hold a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, probability: float
    ) -> Tensor:
        shape = torch.Size((*query.shape[:3], key.shape[2]))
        keep, ctx.scale = draw_kept(shape, probability)
        ctx.rows = max(1, _WEIGHTS_A_PART // max(1, shape[1:].numel()))
        is_small = shape.numel() <= _WEIGHTS_KEPT
        attended, known = [], []
        with torch.autocast("cpu", enabled=False):
            for q, k, v, b, m in zip(
                *(x.split(ctx.rows) for x in (query, key, value, bias, keep)), strict=True
            ):
                raised = _exponentials(q, k, b)
                total = raised.sum(-1, keepdim=True)
                dropped = raised * m if is_small else raised.mul_(m)
                attended.append(_times_narrow(dropped, v).mul_(ctx.scale / total))
                if is_small:
                    known.append((raised, total))
            answer = torch.cat(attended)
        ctx.known = known or None  # made here, so they hold no graph: see backward
        ctx.save_for_backward(query, key, value, bias, keep, answer)
        return answer

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        parts = [x.split(ctx.rows) for x in (*ctx.saved_tensors, gradient.contiguous())]
        # Where the gradient itself will be differentiated, weights must follow from query and key.
        known = None if torch.is_grad_enabled() else ctx.known
        with torch.autocast("cpu", enabled=False):
            gradients = [
                _attention_gradients(*part, scale=ctx.scale, known=weights)
                for *part, weights in zip(*parts, known or [None] * len(parts[0]), strict=True)
            ]
            query, key, value = (torch.cat(rows) for rows in zip(*gradients, strict=True))
        return query, key, value, None, None


def _attention_gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    keep: Tensor,
    attended: Tensor,
    gradient: Tensor,
    *,
    scale: float,
    known: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value from that of ``attended``, all (B, H, L, D/H).

    ``known`` are the exponentials and each query's sum of them, if they were kept.
    """
    if known is None:
        raised = _exponentials(query, key, bias)
        total = raised.sum(-1, keepdim=True)
    else:
        raised, total = known
    # Of each query, the sum over its weights of weight times the weight's gradient.
    mean = (gradient * attended).sum(-1, keepdim=True) / total
    gradient = gradient * (scale / total)
    kept = raised * keep
    of_kept = (gradient @ value.transpose(-1, -2)).mul_(kept)
    of_scores = of_kept.addcmul_(mean, raised, value=-1)
    shrink = query.shape[-1] ** -0.5
    of_query = _times_narrow(of_scores, key) * shrink
    of_key = _times_narrow(of_scores.transpose(-1, -2), query * shrink)
    of_value = _times_narrow(kept.transpose(-1, -2), gradient)
    return of_query, of_key, of_value


class TransformerLayer(nn.Module):
    """One layer of eq. 2-3 (self-attention) or eq. 11-12 (attention to another modality).

    ``residual="printed"`` adds the normalised input as the paper prints it, ``f(LN(x)) + LN(x)``;
    ``"pre_norm"`` is the usual ``x + f(LN(x))``.

    Args:
        dim: width D; the feed-forward network is 4 D wide.
        num_heads: H.
        attention_dropout, relu_dropout, residual_dropout: probabilities.
        residual: which sum.
        cross: True for attention to another sequence, which then has a LayerNorm of its own.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        attention_dropout: float,
        relu_dropout: float,
        residual_dropout: float,
        residual: Residual,
        cross: bool,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention_norm = nn.LayerNorm(dim)
        self.source_norm = nn.LayerNorm(dim) if cross else None
        self.attention = MultiHeadAttention(dim, num_heads=num_heads, dropout=attention_dropout)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.ReLU(), Dropout(relu_dropout), nn.Linear(4 * dim, dim)
        )
        self.residual_dropout = Dropout(residual_dropout)

    def _add(self, stream: Tensor, normed: Tensor, change: Tensor) -> Tensor:
        dropped: Tensor = self.residual_dropout(change)
        return (normed if self.residual == "printed" else stream) + dropped

    def forward(self, stream: Tensor, source: Tensor | None, source_mask: Tensor | None) -> Tensor:
        """One step of the stream (B, L, D).

        Args:
            stream: the query side.
            source: (B, Ls, D) of the other modality, or None for self-attention.
            source_mask: (B, Ls), or (B, L) for self-attention, or one a head: (B, H, Ls); None
                where all frames are real.
        """
        normed = self.attention_norm(stream)
        if self.source_norm is None:
            key_value = normed
        else:
            assert source is not None, "cross-attention needs a source"
            key_value = self.source_norm(source)
        stream = self._add(stream, normed, self.attention(normed, key_value, source_mask))
        normed = self.feed_forward_norm(stream)
        change: Tensor = self.feed_forward(normed)
        return self._add(stream, normed, change)


class Transformer(nn.Module):
    """L layers; see ``TransformerLayer`` for the arguments.

    ``closing_norm=True`` ends with a LayerNorm, as MulT (Tsai et al. 2019) does.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_layers: int,
        num_heads: int,
        attention_dropout: float = 0.0,
        relu_dropout: float = 0.0,
        residual_dropout: float = 0.0,
        residual: Residual = "printed",
        cross: bool = False,
        closing_norm: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(
                dim,
                num_heads=num_heads,
                attention_dropout=attention_dropout,
                relu_dropout=relu_dropout,
                residual_dropout=residual_dropout,
                residual=residual,
                cross=cross,
            )
            for _ in range(num_layers)
        )
        self.closing_norm = nn.LayerNorm(dim) if closing_norm else None

    def forward(self, stream: Tensor, source: Tensor | None, source_mask: Tensor) -> Tensor:
        """(B, L, D) through all layers."""
        # In training hardly any batch is without padding.
        mask = source_mask if self.training or hides_frames(source_mask) else None
        for layer in self.layers:
            stream = layer(stream, source, mask)
        return stream if self.closing_norm is None else self.closing_norm(stream)
