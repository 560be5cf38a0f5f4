"""Attention with dropout on a CPU, where torch has no fused kernel for it.

A fast path (``core/fast.py``): without it ``scaled_dot_product_attention`` computes the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from tecafn.layers.dropout import draw_kept

_LOG2_E = math.log2(math.e)


@dataclass(frozen=True, kw_only=True)
class CpuAttention:
    """What ``scaled_dot_product_attention`` computes, for training on a CPU.

    Products this narrow, and softmax, take longer in bfloat16 than in float32 on a CPU, so it
    computes in float32 under autocast too.

    Args:
        weights_per_part: attention weights that are worked on at a time, few enough to stay in a
            core's own cache.
        weights_kept: up to this many weights are kept for the backward pass; more are computed
            again there.
        narrow: heads of at most this many columns multiply faster transposed.
        safe_exponent: scores no larger than this are raised as they are: 2^60 times thousands of
            frames is no overflow.

    Example:
        >>> query, key = torch.randn(2, 3, 4, 2), torch.randn(2, 3, 5, 2)
        >>> attend = CpuAttention()
        >>> attend(query, key, key, torch.ones(2, 1, 1, 5, dtype=torch.bool), 0.1).shape
        torch.Size([2, 3, 4, 2])
    """

    weights_per_part: int = 1 << 18
    weights_kept: int = 1 << 20
    narrow: int = 8
    safe_exponent: float = 60.0

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor,
        probability: float,
        asked: Tensor | None = None,
    ) -> Tensor:
        """(B, H, Lq, D/H), what each query reads.

        Args:
            query: (B, H, Lq, D/H).
            key: (B, H, Ls, D/H).
            value: (B, H, Ls, D/H).
            allowed: (B, 1, 1, Ls) or (B, H, 1, Ls) bool, at least one True in each row.
            probability: of dropping an attention weight.
            asked: (B, Lq) bool, the queries whose answers are read; others may come out as zero.
                None for all.
        """
        dtype = torch.promote_types(query.dtype, torch.float32)
        # Contiguous once, not in each of the products.
        heads = (x.to(dtype).contiguous() for x in (query, key, value))
        parts = parts_of(
            allowed.flatten(1, 2),
            asked,
            num_heads=query.shape[1],
            length=query.shape[2],
            weights_per_part=self.weights_per_part,
        )
        attended: Tensor = _DroppedAttention.apply(  # type: ignore[no-untyped-call]
            *heads, allowed, probability, parts, self
        )
        return attended.to(query.dtype)


@dataclass(frozen=True)
class Part:
    """Neighbouring rows of a batch, cut after the last query and the last key that one needs.

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


def parts_of(
    allowed: Tensor, asked: Tensor | None, *, num_heads: int, length: int, weights_per_part: int
) -> list[Part]:
    """All rows, in parts of few enough weights.

    Args:
        allowed: (B, 1 or H, Ls) bool.
        asked: (B, Lq) bool, or None for all Lq = ``length``.
        num_heads: H.
        length: Lq.
        weights_per_part: a part has no more, unless a single row does.
    """
    ends_of_keys = _ends(allowed.any(1))
    counts = allowed.sum(2).amin(1).tolist()
    ends_of_queries = [length] * len(counts) if asked is None else _ends(asked)
    parts: list[Part] = []
    first = num_queries = num_keys = 0
    for row, (queries, keys) in enumerate(zip(ends_of_queries, ends_of_keys, strict=True)):
        longer = max(num_queries, queries), max(num_keys, keys)
        if row > first and (row + 1 - first) * num_heads * math.prod(longer) > weights_per_part:
            hides = min(counts[first:row]) < num_keys
            parts.append(Part(slice(first, row), num_queries, num_keys, hides))
            first, longer = row, (queries, keys)
        num_queries, num_keys = longer
    if counts:
        hides = min(counts[first:]) < num_keys
        parts.append(Part(slice(first, len(counts)), num_queries, num_keys, hides))
    return parts


def _ends(mask: Tensor) -> list[int]:
    """One more than the index of the last True of each row of (B, L); 0 where there is none."""
    count = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    ends: list[int] = (mask * count).amax(1).tolist()
    return ends


def _exponentials(query: Tensor, key: Tensor, allowed: Tensor | None, *, is_safe: bool) -> Tensor:
    """(B, H, Lq, Ls) attention weights but for a factor of each query's: softmax before its sum.

    To base 2, which takes a third of the time of e on a CPU. softmax subtracts each query's highest
    score, another pass that takes as long; here that is done only where scores are so large that
    they need it, which the vectors' lengths bound.

    Args:
        query: (B, H, Lq, D/H).
        key: (B, H, Ls, D/H).
        allowed: as ``CpuAttention`` has it; None where nothing is hidden.
        is_safe: no score is larger than ``safe_exponent``.
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


def _times(left: Tensor, right: Tensor, *, narrow: int) -> Tensor:
    """``left @ right``, where a head's few columns would leave most of a CPU's lanes idle.

    Transposed, the long side is in the lanes: a third of the time with 6 columns.
    """
    if right.shape[-1] > narrow:
        return left @ right
    return (right.transpose(-1, -2) @ left.transpose(-1, -2)).transpose(-1, -2)


class _DroppedAttention(Function):
    """Attention that keeps little for the backward pass, and leaves padding out.

    Of long sequences it keeps one byte per weight, not three floats, and recomputes the weights a
    few rows at a time; stored over six layers they would take gigabytes. What each query's weights
    are divided by is applied to the few columns that come out, not to the weights. The backward
    pass is made of differentiable operations, so that a loss may hold a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor,
        probability: float,
        parts: list[Part],
        settings: CpuAttention,
    ) -> Tensor:
        shape = torch.Size((*query.shape[:3], key.shape[2]))
        keep, ctx.scale = draw_kept(shape, probability)
        ctx.parts, ctx.narrow = parts, settings.narrow
        ctx.is_safe = _bound_of_scores(query, key) < settings.safe_exponent
        is_small = shape.numel() <= settings.weights_kept
        answer, stored = torch.zeros_like(query), []
        with torch.autocast("cpu", enabled=False):
            for part in parts:
                hidden = part.cut_both(allowed) if part.hides else None
                exp_scores = _exponentials(
                    part.cut(query), part.cut_keys(key), hidden, is_safe=ctx.is_safe
                )
                total = exp_scores.sum(-1, keepdim=True)
                kept = part.cut_both(keep)
                dropped = exp_scores * kept if is_small else exp_scores.mul_(kept)
                attended = _times(dropped, part.cut_keys(value), narrow=ctx.narrow)
                torch.mul(attended, ctx.scale / total, out=part.cut(answer))
                if is_small:
                    stored.append((exp_scores, total))
        ctx.stored = stored or None  # made here, so they hold no graph: see backward
        ctx.save_for_backward(query, key, value, allowed, keep, answer)
        return answer

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        query, key, value, allowed, keep, answer = ctx.saved_tensors
        # Where the gradient itself will be differentiated, weights must follow from query and key.
        stored = None if torch.is_grad_enabled() else ctx.stored
        of_query, of_key, of_value = (torch.zeros_like(x) for x in (query, key, value))
        with torch.autocast("cpu", enabled=False):
            for part, weights in zip(ctx.parts, stored or [None] * len(ctx.parts), strict=True):
                queries, keys = part.cut(query), part.cut_keys(key)
                if weights is None:
                    hidden = part.cut_both(allowed) if part.hides else None
                    exp_scores = _exponentials(queries, keys, hidden, is_safe=ctx.is_safe)
                    weights = exp_scores, exp_scores.sum(-1, keepdim=True)
                gradients = _attention_gradients(
                    queries,
                    keys,
                    part.cut_keys(value),
                    part.cut_both(keep),
                    part.cut(answer),
                    part.cut(gradient),
                    scale=ctx.scale,
                    weights=weights,
                    narrow=ctx.narrow,
                )
                part.cut(of_query).copy_(gradients[0])
                part.cut_keys(of_key).copy_(gradients[1])
                part.cut_keys(of_value).copy_(gradients[2])
        return of_query, of_key, of_value, None, None, None, None


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
    narrow: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value from that of ``attended``, all (B, H, L, D/H).

    ``weights`` are the exponentials and each query's sum of them.
    """
    exp_scores, total = weights
    # Of each query, the sum over its weights of weight times the weight's gradient.
    mean = (gradient * attended).sum(-1, keepdim=True) / total
    gradient = gradient * (scale / total)
    kept = exp_scores * keep
    of_kept = (gradient @ value.transpose(-1, -2)).mul_(kept)
    of_scores = of_kept.addcmul_(mean, exp_scores, value=-1)
    shrink = query.shape[-1] ** -0.5
    of_query = _times(of_scores, key, narrow=narrow) * shrink
    of_key = _times(of_scores.transpose(-1, -2), query * shrink, narrow=narrow)
    of_value = _times(kept.transpose(-1, -2), gradient, narrow=narrow)
    return of_query, of_key, of_value
