"""Multi-head attention and the transformer layer that both encoders and fusion are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from tecafn.layers.dropout import Dropout, draw_kept
from tecafn.layers.sequence import Places, hides_frames

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

    def forward(
        self,
        query: Tensor,
        source: Tensor,
        source_mask: Tensor | None,
        *,
        query_places: Places | None = None,
        source_places: Places | None = None,
    ) -> Tensor:
        """(B, Lq, D) attends to (B, Ls, D) where ``source_mask`` is True, or everywhere if None.

        The mask is (B, Ls), or (B, H, Ls) where heads see different frames. A row whose source has
        no real frame attends to all of it instead of dividing by zero; what comes out is
        meaningless there and callers drop it by ``present``.

        With ``query_places`` the query, and what comes out, are packed (N, D); with
        ``source_places`` the source is.
        """
        asked, keys_values = self.query(query), self.key_value(source)
        if query_places is not None:
            asked = query_places.spread(asked)
        if source_places is not None:
            keys_values = source_places.spread(keys_values)
        key, value = keys_values.chunk(2, dim=-1)
        heads = (self._heads(asked), self._heads(key), self._heads(value))
        dropped = self.dropout if self.training else 0.0
        allowed = None if source_mask is None else _readable(source_mask)
        if allowed is not None and dropped and query.device.type == "cpu":
            is_asked = None if query_places is None else query_places.mask
            attended = _attention_with_dropout(*heads, allowed, dropped, is_asked)
        else:
            attended = functional.scaled_dot_product_attention(
                *heads, attn_mask=allowed, dropout_p=dropped
            )
        merged = attended.transpose(1, 2).flatten(2)
        if query_places is not None:
            merged = query_places.pack(merged)
        answer: Tensor = self.output(merged)
        return answer


def _readable(mask: Tensor) -> Tensor:
    """Which frames each head of each row reads, (B, 1 or H, 1, Ls)."""
    allowed = mask | ~mask.any(-1, keepdim=True)
    allowed = allowed.unsqueeze(-2)  # every query of a head sees the same frames
    return allowed if allowed.ndim == 4 else allowed.unsqueeze(1)


def _attention_with_dropout(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor,
    probability: float,
    asked: Tensor | None = None,
) -> Tensor:
    """What ``scaled_dot_product_attention`` computes, for training on a CPU.

    There it has no fused kernel with dropout.

    Args:
        query: (B, H, Lq, D/H).
        key, value: (B, H, Ls, D/H).
        allowed: (B, 1, 1, Ls) or (B, H, 1, Ls) bool, at least one True in each row.
        probability: of dropping an attention weight.
        asked: (B, Lq) bool, which queries' answers are read; others may come out as zero. None for
            all.
    """
    # Products this narrow, and softmax, take longer in bfloat16 than in float32 on a CPU.
    dtype = torch.promote_types(query.dtype, torch.float32)
    # Contiguous once, not in each of the products.
    heads = (x.to(dtype).contiguous() for x in (query, key, value))
    parts = _parts_of(allowed.flatten(1, 2), asked, num_heads=query.shape[1], length=query.shape[2])
    attended: Tensor = _DroppedAttention.apply(  # type: ignore[no-untyped-call]
        *heads, allowed, probability, parts
    )
    return attended.to(query.dtype)


_LOG2_E = math.log2(math.e)
# Attention weights that are worked on at a time: few enough to stay in a core's own cache.
_WEIGHTS_A_PART = 1 << 18


@dataclass(frozen=True)
class _Part:
    """Neighbouring rows of a batch, cut behind the last query and the last key that one needs.

    Args:
        rows: which.
        num_queries, num_keys: how many stay.
        hides: some of these keys are hidden all the same.
    """

    rows: slice
    num_queries: int
    num_keys: int
    hides: bool

    def cut(self, per_query: Tensor) -> Tensor:
        """(B, H, Lq, ...) to this part's (b, H, lq, ...)."""
        return per_query[self.rows, :, : self.num_queries]

    def cut_keys(self, per_key: Tensor) -> Tensor:
        """(B, H, Ls, ...) to this part's (b, H, ls, ...)."""
        return per_key[self.rows, :, : self.num_keys]

    def cut_both(self, weights: Tensor) -> Tensor:
        """(B, H, Lq or 1, Ls) to this part's (b, H, lq or 1, ls)."""
        return weights[self.rows, :, : self.num_queries, : self.num_keys]


def _parts_of(allowed: Tensor, asked: Tensor | None, *, num_heads: int, length: int) -> list[_Part]:
    """All rows, in parts of few enough weights.

    Args:
        allowed: (B, 1 or H, Ls) bool.
        asked: (B, Lq) bool, or None for all Lq = ``length``.
        num_heads: H.
        length: Lq.
    """
    ends_of_keys = _ends(allowed.any(1))
    counts = allowed.sum(2).amin(1).tolist()
    ends_of_queries = [length] * len(counts) if asked is None else _ends(asked)
    parts: list[_Part] = []
    first = num_queries = num_keys = 0
    for row, (queries, keys) in enumerate(zip(ends_of_queries, ends_of_keys, strict=True)):
        longer = max(num_queries, queries), max(num_keys, keys)
        if row > first and (row + 1 - first) * num_heads * math.prod(longer) > _WEIGHTS_A_PART:
            hides = min(counts[first:row]) < num_keys
            parts.append(_Part(slice(first, row), num_queries, num_keys, hides))
            first, longer = row, (queries, keys)
        num_queries, num_keys = longer
    if counts:
        hides = min(counts[first:]) < num_keys
        parts.append(_Part(slice(first, len(counts)), num_queries, num_keys, hides))
    return parts


def _ends(mask: Tensor) -> list[int]:
    """One more than the index of the last True of each row of (B, L); 0 where there is none."""
    count = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    ends: list[int] = (mask * count).amax(1).tolist()
    return ends


# Scores no larger than this are raised as they are: 2^60 times thousands of frames is no overflow.
_SAFE_EXPONENT = 60.0


def _exponentials(query: Tensor, key: Tensor, allowed: Tensor | None, *, is_safe: bool) -> Tensor:
    """(B, H, Lq, Ls) attention weights but for a factor of each query's: softmax before its sum.

    To base 2, which takes a third of the time of e on a CPU. softmax subtracts each query's highest
    score, another pass that takes as long; here that is done only where scores are so large that
    they need it, which the vectors' lengths bound.

    Args:
        query: (B, H, Lq, D/H).
        key: (B, H, Ls, D/H).
        allowed: as ``_attention_with_dropout`` has it; None where nothing is hidden.
        is_safe: no score is larger than ``_SAFE_EXPONENT``.
    """
    scores: Tensor = (query * (_LOG2_E * query.shape[-1] ** -0.5)) @ key.transpose(-1, -2)
    if allowed is not None:
        bias = torch.zeros_like(allowed, dtype=scores.dtype).masked_fill_(~allowed, float("-inf"))
        scores.add_(bias)
    if not is_safe:
        scores.sub_(scores.detach().amax(-1, keepdim=True))
    return scores.exp2_()


def _bound_of_scores(query: Tensor, key: Tensor) -> float:
    """No score to base 2 is larger in size (Cauchy and Schwarz)."""
    if not (query.numel() and key.numel()):
        return 0.0
    squares = (float(x.detach().square().sum(-1).max()) for x in (query, key))
    return _LOG2_E * math.sqrt(math.prod(squares) / query.shape[-1])


# Heads this narrow multiply faster transposed.
_NARROW = 8


def _times_narrow(wide: Tensor, narrow: Tensor) -> Tensor:
    """``wide @ narrow``, where a head's few columns would leave most of a CPU's lanes idle.

    Transposed, the long side is in the lanes: a third of the time with 6 columns.
    """
    if narrow.shape[-1] > _NARROW:
        return wide @ narrow
    return (narrow.transpose(-1, -2) @ wide.transpose(-1, -2)).transpose(-1, -2)


# As many weights are kept for the backward pass; more are recomputed there.
_WEIGHTS_KEPT = 1 << 20


class _DroppedAttention(Function):
    """Attention that keeps little for the backward pass, and leaves padding out.

    Of long sequences it keeps one byte per weight, not three floats, and recomputes the weights a
    few rows of the batch at a time; stored over six layers they would take gigabytes. What each
    query's weights are divided by is applied to the few columns that come out, not to the weights.
    The backward pass is made of differentiable operations, so that a loss may hold a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor,
        probability: float,
        parts: list[_Part],
    ) -> Tensor:
        shape = torch.Size((*query.shape[:3], key.shape[2]))
        keep, ctx.scale = draw_kept(shape, probability)
        ctx.parts, ctx.is_safe = parts, _bound_of_scores(query, key) < _SAFE_EXPONENT
        is_small = shape.numel() <= _WEIGHTS_KEPT
        answer, known = torch.zeros_like(query), []
        with torch.autocast("cpu", enabled=False):
            for part in parts:
                hidden = part.cut_both(allowed) if part.hides else None
                raised = _exponentials(
                    part.cut(query), part.cut_keys(key), hidden, is_safe=ctx.is_safe
                )
                total = raised.sum(-1, keepdim=True)
                kept = part.cut_both(keep)
                dropped = raised * kept if is_small else raised.mul_(kept)
                attended = _times_narrow(dropped, part.cut_keys(value))
                torch.mul(attended, ctx.scale / total, out=part.cut(answer))
                if is_small:
                    known.append((raised, total))
        ctx.known = known or None  # made here, so they hold no graph: see backward
        ctx.save_for_backward(query, key, value, allowed, keep, answer)
        return answer

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        query, key, value, allowed, keep, answer = ctx.saved_tensors
        # Where the gradient itself will be differentiated, weights must follow from query and key.
        known = None if torch.is_grad_enabled() else ctx.known
        of_query, of_key, of_value = (torch.zeros_like(x) for x in (query, key, value))
        with torch.autocast("cpu", enabled=False):
            for part, weights in zip(ctx.parts, known or [None] * len(ctx.parts), strict=True):
                asked, keys = part.cut(query), part.cut_keys(key)
                if weights is None:
                    hidden = part.cut_both(allowed) if part.hides else None
                    raised = _exponentials(asked, keys, hidden, is_safe=ctx.is_safe)
                    weights = raised, raised.sum(-1, keepdim=True)
                found = _attention_gradients(
                    asked,
                    keys,
                    part.cut_keys(value),
                    part.cut_both(keep),
                    part.cut(answer),
                    part.cut(gradient),
                    scale=ctx.scale,
                    weights=weights,
                )
                part.cut(of_query).copy_(found[0])
                part.cut_keys(of_key).copy_(found[1])
                part.cut_keys(of_value).copy_(found[2])
        return of_query, of_key, of_value, None, None, None


def _attention_gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keep: Tensor,
    attended: Tensor,
    gradient: Tensor,
    *,
    scale: float,
    weights: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value from that of ``attended``, all (B, H, L, D/H).

    ``weights`` are the exponentials and each query's sum of them.
    """
    raised, total = weights
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

    def forward(
        self,
        stream: Tensor,
        source: Tensor | None,
        source_mask: Tensor | None,
        *,
        stream_places: Places | None = None,
        source_places: Places | None = None,
    ) -> Tensor:
        """One step of the stream (B, L, D).

        Args:
            stream: the query side.
            source: (B, Ls, D) of the other modality, or None for self-attention.
            source_mask: (B, Ls), or (B, L) for self-attention, or one a head: (B, H, Ls); None
                where all frames are real.
            stream_places: the stream is packed, (N, D), and stays so.
            source_places: the source is packed.
        """
        normed = self.attention_norm(stream)
        if self.source_norm is None:
            key_value, source_places = normed, stream_places
        else:
            assert source is not None, "cross-attention needs a source"
            key_value = self.source_norm(source)
        attended = self.attention(
            normed, key_value, source_mask, query_places=stream_places, source_places=source_places
        )
        stream = self._add(stream, normed, attended)
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
            stream, source, source_mask: see ``TransformerLayer.forward``.
            stream_mask: (B, L) bool, which frames of the stream are read afterwards; what comes out
                elsewhere means nothing. None for all.
        """
        # In training hardly any batch is without padding.
        mask = source_mask if self.training or hides_frames(source_mask) else None
        if not (self.training and stream.device.type == "cpu"):
            for layer in self.layers:
                stream = layer(stream, source, mask)
            return stream if self.closing_norm is None else self.closing_norm(stream)
        # A third of a batch is padding: what works on frames one by one leaves it out. On a GPU,
        # or for one clip, finding and moving the frames would take longer.
        places = None if stream_mask is None else Places(stream_mask)
        source_places = None
        if source is not None:
            source_places = Places(source_mask if source_mask.ndim == 2 else source_mask.any(1))
            source = source_places.pack(source)
        if places is not None:
            stream = places.pack(stream)
        for layer in self.layers:
            stream = layer(stream, source, mask, stream_places=places, source_places=source_places)
        if self.closing_norm is not None:
            stream = self.closing_norm(stream)
        return stream if places is None else places.spread(stream)
