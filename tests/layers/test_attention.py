"""Attention and transformer layers against loops, and what masks must never let through."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tecafn.layers.attention import (
    MultiHeadAttention,
    Residual,
    Transformer,
    TransformerLayer,
    TransformerSettings,
)


def material(seed: int, dim: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (3, 4, D), source (3, 5, D) and its mask, with a hole in front and one within."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(3, 4, dim, generator=generator, dtype=torch.float64)
    source = torch.randn(3, 5, dim, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * 5, [False, True, False, True, True], [True] + [False] * 4])
    return query, source, mask


def naive(module: MultiHeadAttention, query: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """One query, one head, one real source frame at a time."""
    dim = query.shape[2]
    width = dim // module.num_heads
    weight, bias = module.key_value.weight, module.key_value.bias
    answer = torch.zeros_like(query)
    for b in range(query.shape[0]):
        for t in range(query.shape[1]):
            q = module.query.weight @ query[b, t] + module.query.bias
            joined = torch.zeros(dim, dtype=query.dtype)
            for head in range(module.num_heads):
                own = slice(head * width, (head + 1) * width)
                scores, values = [], []
                for s in range(source.shape[1]):
                    if mask[b, s]:
                        key = weight[:dim] @ source[b, s] + bias[:dim]
                        values.append((weight[dim:] @ source[b, s] + bias[dim:])[own])
                        scores.append(math.exp((q[own] @ key[own]).item() / math.sqrt(width)))
                for score, value in zip(scores, values, strict=True):
                    joined[own] += score / sum(scores) * value
            answer[b, t] = module.output.weight @ joined + module.output.bias
    return answer


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("num_heads", [1, 2, 3, 6])
def test_attention_equals_a_naive_loop(seed: int, num_heads: int) -> None:
    torch.manual_seed(seed)
    module = MultiHeadAttention(6, num_heads=num_heads, dropout=0.5).double().eval()
    query, source, mask = material(seed)
    with torch.no_grad():
        torch.testing.assert_close(
            module(query, source, mask), naive(module, query, source, mask), rtol=0, atol=1e-12
        )


def test_the_weights_are_those_that_attention_takes_its_mean_by() -> None:
    query, source, mask = material(0)
    module = MultiHeadAttention(6, num_heads=3, dropout=0.0).double()
    weights = module.weights(query, source, mask)
    assert weights.shape == (len(query), 3, query.shape[1], source.shape[1])
    assert not weights.masked_select(~mask[:, None, None, :]).any()
    values = module.key_value(source)[..., 6:].unflatten(-1, (3, 2)).transpose(1, 2)
    means = (weights @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(module.output(means), module(query, source, mask))


def test_masked_frames_are_never_seen_and_get_no_gradient() -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(6, num_heads=2, dropout=0.0).double()
    query, source, mask = material(0)
    before = module(query, source, mask)
    changed = torch.where(mask.unsqueeze(-1), source, 1e6)
    torch.testing.assert_close(module(query, changed, mask), before)
    changed.requires_grad_()
    module(query, changed, mask).sum().backward()
    assert changed.grad is not None
    assert bool((changed.grad[~mask] == 0).all())


def test_a_row_without_a_real_frame_is_finite_and_so_is_its_gradient() -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(6, num_heads=2, dropout=0.0).double()
    query, source, mask = material(0)
    mask[1] = False
    source.requires_grad_()
    answer = module(query, source, mask)
    answer.sum().backward()
    assert bool(answer.isfinite().all())
    assert source.grad is not None
    assert bool(source.grad.isfinite().all())


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(6, num_heads=2, dropout=0.5).double()
    query, source, mask = material(0)
    assert not torch.equal(module(query, source, mask), module(query, source, mask))
    module.eval()
    assert torch.equal(module(query, source, mask), module(query, source, mask))


def test_attention_while_training_is_the_same_but_for_the_dropped_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With dropout torch's own kernel is not used on a CPU; nothing else may change."""
    torch.manual_seed(0)
    module = MultiHeadAttention(6, num_heads=2, dropout=0.5).double()
    query, source, mask = material(0)
    expected = module.eval()(query, source, mask)

    def all_kept(shape: torch.Size, probability: float) -> tuple[Tensor, float]:
        del probability
        return torch.ones(shape, dtype=torch.uint8), 1.0

    monkeypatch.setattr("tecafn.layers.cpu_attention.draw_kept", all_kept)
    torch.testing.assert_close(module.train()(query, source, mask), expected)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="num_heads must divide the width 30, got 4"):
        MultiHeadAttention(30, num_heads=4, dropout=0.0)


def layer_of(residual: Residual, *, cross: bool) -> TransformerLayer:
    torch.manual_seed(3)
    layer = TransformerLayer(6, TransformerSettings(num_heads=2, residual=residual), cross=cross)
    with torch.no_grad():  # a LayerNorm that is no identity
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.double()


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("residual", ["printed", "pre_norm"])
def test_residuals_are_as_named(residual: Residual, cross: bool) -> None:
    layer = layer_of(residual, cross=cross)
    stream, source, mask = material(1)
    if not cross:
        mask = mask[:, :4]
    norm = layer.attention_norm(stream)
    keys = layer.source_norm(source) if layer.source_norm is not None else norm
    base = norm if residual == "printed" else stream
    middle = base + layer.attention(norm, keys, mask)
    norm = layer.feed_forward_norm(middle)
    base = norm if residual == "printed" else middle
    expected = base + layer.feed_forward(norm)
    torch.testing.assert_close(layer(stream, source if cross else None, mask), expected)


def test_self_attention_has_no_norm_for_a_source_and_cross_attention_needs_one() -> None:
    assert layer_of("printed", cross=False).source_norm is None
    stream, _, mask = material(0)
    with pytest.raises(AssertionError, match="cross-attention needs a source"):
        layer_of("printed", cross=True)(stream, None, mask)


def test_layers_have_weights_of_their_own_and_run_in_order() -> None:
    torch.manual_seed(0)
    module = Transformer(6, TransformerSettings(num_heads=2), num_layers=3, cross=True).double()
    stream, source, mask = material(2)
    expected = stream
    for layer in module.layers:
        expected = layer(expected, source, mask)
    torch.testing.assert_close(module(stream, source, mask), expected)
    assert len({id(parameter) for parameter in module.parameters()}) == 3 * len(
        list(module.layers[0].parameters())
    )


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_on_a_cpu_leaves_padding_out_and_changes_nothing_that_is_read(
    cross: bool, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holes in a mask, padding in front, and rows of padding alone included."""

    def all_kept(shape: torch.Size, probability: float) -> tuple[Tensor, float]:
        del probability
        return torch.ones(shape, dtype=torch.uint8), 1.0

    monkeypatch.setattr("tecafn.layers.cpu_attention.draw_kept", all_kept)
    torch.manual_seed(0)
    settings = TransformerSettings(num_heads=2, attention_dropout=dropout, closing_norm=True)
    module = Transformer(6, settings, num_layers=2, cross=cross).double()
    stream_mask = torch.tensor(
        [[True, True, False, False], [False, True, False, True], [True] * 4, [False] * 4]
    )
    stream = torch.randn(4, 4, 6, dtype=torch.float64, requires_grad=True)
    source, source_mask = None, stream_mask
    if cross:
        source = torch.randn(4, 5, 6, dtype=torch.float64, requires_grad=True)
        source_mask = torch.tensor([[False, True, True, False, False], [True] * 5] * 2)
    inputs = [x for x in (stream, source) if x is not None]
    weight = torch.randn(4, 4, 6, dtype=torch.float64) * stream_mask.unsqueeze(-1)
    found = []
    for is_training in (False, True):
        module.train(is_training)
        answer = module(stream, source, source_mask, stream_mask=stream_mask)
        gradients = torch.autograd.grad(
            (answer * weight).sum(), [*inputs, *module.parameters()], allow_unused=True
        )
        found.append((answer, gradients))
    (expected, of_expected), (ours, of_ours) = found
    torch.testing.assert_close(ours[stream_mask], expected[stream_mask])
    for one, other in zip(of_ours, of_expected, strict=True):
        torch.testing.assert_close(one, other)
    if cross:  # what is padding is not looked at, whatever it holds
        assert source is not None
        spoiled = source.masked_fill(~source_mask.unsqueeze(-1), 1e3)
        again = module(stream, spoiled, source_mask, stream_mask=stream_mask)
        torch.testing.assert_close(again[stream_mask], ours[stream_mask])
