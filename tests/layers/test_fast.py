"""Every fast path has a switch, and without it the same is computed."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tecafn.core.batch import Padded
from tecafn.core.fast import FAST_PATHS, FastPath, is_on, without
from tecafn.layers.attention import Transformer, TransformerSettings
from tecafn.layers.dropout import draw_kept, dropout
from tecafn.layers.sequence import SequenceLSTM, may_hide_frames


def test_all_are_on_and_a_block_switches_off_those_it_names_alone() -> None:
    assert all(is_on(name) for name in FAST_PATHS)
    for name in FAST_PATHS:
        with without(name):
            assert [other for other in FAST_PATHS if not is_on(other)] == [name]
    with without(*FAST_PATHS[:2]), without(FAST_PATHS[2]):
        assert [is_on(name) for name in FAST_PATHS[:4]] == [False, False, False, True]
    assert all(is_on(name) for name in FAST_PATHS)


def test_other_threads_keep_theirs() -> None:
    found: list[bool] = []
    with without(*FAST_PATHS):
        thread = threading.Thread(target=lambda: found.append(is_on(FAST_PATHS[0])))
        thread.start()
        thread.join()
    assert found == [True]


def test_they_are_on_again_after_an_error() -> None:
    def fail() -> None:
        with without(*FAST_PATHS):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert all(is_on(name) for name in FAST_PATHS)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown fast paths \['fast'\]; known: cpu_attention"):
        without("fast").__enter__()  # type: ignore[arg-type]


def all_kept(shape: torch.Size, probability: float) -> tuple[Tensor, float]:
    """A mask that drops nothing: what differs then is rounding alone."""
    del probability
    return torch.ones(shape, dtype=torch.uint8), 1.0


def _computed(names: tuple[FastPath, ...], *, training: bool) -> list[Tensor]:
    """What a cross-attention and an LSTM compute with these paths off, and their gradients."""
    torch.manual_seed(0)
    settings = TransformerSettings(num_heads=2, attention_dropout=0.3, closing_norm=True)
    transformer = Transformer(6, settings, num_layers=2, cross=True)
    lstm = SequenceLSTM(6, 4)
    for module in (transformer, lstm):
        module.double().train(training)
    mask = torch.tensor([[True, True, True], [False, True, False], [True, False, True]])
    stream, source = (torch.randn(3, 3, 6).double().requires_grad_() for _ in range(2))
    with without(*names):
        fused = transformer(stream, source, mask, stream_mask=mask)
        states, last = lstm(Padded(fused, mask))
        answer = torch.cat([fused[mask].flatten(), states.values.flatten(), last.flatten()])
        inputs = [stream, source, *transformer.parameters(), *lstm.parameters()]
        return [answer, *torch.autograd.grad(answer.square().sum(), inputs, allow_unused=True)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("names", [*((name,) for name in FAST_PATHS), FAST_PATHS])
def test_without_a_fast_path_the_same_is_computed(
    names: tuple[FastPath, ...], training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tecafn.layers.cpu_attention.draw_kept", all_kept)
    sdpa = functional.scaled_dot_product_attention

    def kept_sdpa(
        query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None, dropout_p: float
    ) -> Tensor:
        del dropout_p
        return sdpa(query, key, value, attn_mask=attn_mask)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", kept_sdpa)
    for fast, plain in zip(
        _computed((), training=training), _computed(names, training=training), strict=True
    ):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cpu_attention", "tecafn.layers.attention._attend_with_dropout"),
        ("unpacked_lstm", "tecafn.layers.sequence.SequenceLSTM._unpacked"),
        ("dropout_masks", "tecafn.layers.dropout.np.random.SFC64"),
    ],
)
def test_each_switch_leads_past_the_fast_path(
    name: FastPath, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparisons above would hold of a switch that does nothing."""

    def taken(*_args: object, **_options: object) -> None:
        raise RuntimeError("the fast path is taken")

    monkeypatch.setattr(path, taken)
    _computed((name,), training=True)
    with pytest.raises(RuntimeError, match="the fast path is taken"):
        _computed((), training=True)


def test_without_its_fast_path_a_mask_is_not_looked_at() -> None:
    real = torch.ones(1, 2, dtype=torch.bool)
    assert not may_hide_frames(real)
    with without("no_mask"):
        assert may_hide_frames(real)


def test_torchs_own_dropout_masks_have_the_same_mean_and_scale() -> None:
    torch.manual_seed(0)
    with without("dropout_masks"):
        keep, scale = draw_kept(torch.Size([100_000]), 0.25)
        kept = dropout(torch.ones(100_000), 0.25)
    assert keep.dtype == torch.uint8
    assert keep.float().mean().item() == pytest.approx(0.75, abs=0.01)
    assert scale == pytest.approx(1 / 0.75)
    assert kept.mean().item() == pytest.approx(1.0, abs=0.01)
