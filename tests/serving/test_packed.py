"""Rearranged weights give the layer's own answers and stay out of everybody's way."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tecafn.core.fast import without
from tecafn.layers.adapter import AdaptedLinear, adapt
from tecafn.layers.encoder_source import FAMILY
from tecafn.serving.packed import (
    PackedAdaptedLinear,
    PackedLinear,
    PackedTextLayer,
    can_pack,
    pack_weights,
)

needs_onednn = pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")


class Small(nn.Module):
    """A large and a small linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Linear(256, 320)
        self.small = nn.Linear(320, 4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(..., 256) to (..., 4)."""
        answer: torch.Tensor = self.small(self.large(rows))
        return answer


@needs_onednn
@pytest.mark.parametrize("shape", [(1, 256), (2, 7, 256), (300, 256), (0, 256)])
def test_it_computes_what_the_layer_computes(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    for bias in (True, False):
        linear = nn.Linear(256, 320, bias=bias)
        rows = torch.randn(shape)
        with torch.inference_mode():
            expected = rows.double() @ linear.weight.double().T
            if bias:
                expected += linear.bias.double()
            answer = PackedLinear(linear)(rows)
        assert answer.shape == (*shape[:-1], 320)
        torch.testing.assert_close(answer.double(), expected, atol=1e-5, rtol=1e-5)


@needs_onednn
def test_without_the_fast_path_the_layer_itself_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    linear, rows = nn.Linear(256, 320), torch.randn(7, 256)
    packed = PackedLinear(linear)

    def taken(rows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the fast path is taken")

    monkeypatch.setattr(type(packed._rearranged), "__call__", lambda _, rows: taken(rows))
    with torch.inference_mode():
        with without("packed_weights"):
            assert torch.equal(packed(rows), linear(rows))
        with pytest.raises(RuntimeError, match="the fast path is taken"):
            packed(rows)


@needs_onednn
def test_large_layers_are_replaced_and_keep_their_names_and_parameters() -> None:
    network = Small()
    before = dict(network.named_parameters())
    pack_weights(network)
    assert isinstance(network.large, PackedLinear)
    assert type(network.small) is nn.Linear
    after = dict(network.named_parameters())
    assert before.keys() == after.keys() == network.state_dict().keys()
    assert all(after[name] is before[name] for name in before)
    pack_weights(network)  # a second time changes nothing
    assert isinstance(network.large, PackedLinear)


@needs_onednn
def test_it_sees_weights_that_change() -> None:
    layer = PackedLinear(nn.Linear(256, 320))
    rows = torch.randn(3, 256)
    with torch.no_grad():
        before = layer(rows)
        layer.weight.mul_(2.0)
        torch.testing.assert_close(layer(rows) - layer.bias, 2 * (before - layer.bias))
        layer.load_state_dict(nn.Linear(256, 320).state_dict())
        expected = nn.functional.linear(rows, layer.weight, layer.bias)
        torch.testing.assert_close(layer(rows), expected)


@needs_onednn
def test_it_trains_and_takes_other_types() -> None:
    layer = PackedLinear(nn.Linear(256, 320))
    layer(torch.randn(3, 256)).sum().backward()
    assert layer.weight.grad is not None
    layer.double()
    with torch.no_grad():
        assert layer(torch.randn(3, 256).double()).dtype == torch.float64


@needs_onednn
def test_it_can_be_copied_saved_and_made_in_inference_mode(tmp_path: Path) -> None:
    rows = torch.randn(3, 256)
    layer = PackedLinear(nn.Linear(256, 320))
    with torch.no_grad():
        expected = layer(rows)
        torch.testing.assert_close(copy.deepcopy(layer)(rows), expected)
        torch.save(layer, tmp_path / "layer.pt")
        torch.testing.assert_close(layer(rows), expected)
    with torch.inference_mode():
        linear = nn.Linear(256, 320)
        torch.testing.assert_close(PackedLinear(linear)(rows), linear(rows))


def _text_layers(family: str, *, activation: str = "gelu") -> nn.ModuleList:
    """Two layers of a model with random weights, as ``TextEncoder`` has them."""
    from transformers import AutoConfig, AutoModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 9}
    sizes |= {"intermediate_size": 48, "max_position_embeddings": 12, "embedding_size": 32}
    if family == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 9}
    name = "activation" if family == "distilbert" else "hidden_act"
    config = AutoConfig.for_model(family, **sizes, **{name: activation})
    model = AutoModel.from_config(config, attn_implementation="sdpa").eval()
    stack = model.transformer if family == "distilbert" else model.encoder
    layers: nn.ModuleList = stack.layer
    for parameter in layers.parameters():  # biases are zero at first, norms one
        nn.init.normal_(parameter, std=0.3)
    return layers


def _states(layers: nn.ModuleList, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    for layer in layers:
        answer = layer(values, attention_mask=mask)
        values = answer[0] if isinstance(answer, tuple) else answer
    return values


@needs_onednn
@pytest.mark.parametrize("family", FAMILY)
def test_text_layers_compute_what_they_did(family: str) -> None:
    torch.manual_seed(0)
    layers, values = _text_layers(family), torch.randn(3, 7, 32)
    mask = (torch.arange(7) < torch.tensor([[7], [4], [1]]))[:, None, None]
    with torch.inference_mode():
        expected = [_states(layers, values, None), _states(layers, values, mask)]
        before = dict(layers.named_parameters())
        pack_weights(layers)
        after = dict(layers.named_parameters())
        assert list(before) == list(after) == list(layers.state_dict())
        assert all(after[name] is before[name] for name in before)
        assert isinstance(layers[0], PackedTextLayer) == (family != "distilbert")
        answers = [_states(layers, values, None), _states(layers, values, mask)]
    for answer, known in zip(answers, expected, strict=True):
        torch.testing.assert_close(answer, known, atol=1e-5, rtol=1e-5)


@needs_onednn
@pytest.mark.parametrize("family", FAMILY)
def test_adapted_text_layers_compute_what_they_did(family: str) -> None:
    torch.manual_seed(0)
    layers, values = _text_layers(family), torch.randn(3, 7, 32)
    adapt(layers, rank=2)
    for name, parameter in layers.named_parameters():
        if name.endswith(".up"):
            nn.init.normal_(parameter, std=0.3)
    with torch.inference_mode():
        expected = _states(layers, values, None)
        pack_weights(layers)
        torch.testing.assert_close(_states(layers, values, None), expected, atol=1e-5, rtol=1e-5)


@needs_onednn
def test_large_adapted_layers_are_replaced_and_see_adapters_that_change(tmp_path: Path) -> None:
    adapted = AdaptedLinear(nn.Linear(256, 320), rank=2)
    nn.init.normal_(adapted.up)
    network = nn.ModuleDict({"a": adapted})
    before, rows = dict(network.named_parameters()), torch.randn(3, 256)
    with torch.no_grad():
        expected = network["a"](rows)
        pack_weights(network)
        packed = network["a"]
        assert isinstance(packed, PackedAdaptedLinear)
        after = dict(network.named_parameters())
        assert before.keys() == after.keys() == network.state_dict().keys()
        assert all(after[name] is before[name] for name in before)
        torch.testing.assert_close(packed(rows), expected, atol=1e-4, rtol=1e-5)
        many = torch.randn(300, 256)
        torch.testing.assert_close(packed(many)[:7], packed(many[:7]), atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(copy.deepcopy(packed)(rows), expected, atol=1e-4, rtol=1e-5)
        torch.save(packed, tmp_path / "layer.pt")
        packed.up.zero_()
        plain = nn.functional.linear(rows, packed.weight, packed.bias)
        torch.testing.assert_close(packed(rows), plain, atol=1e-4, rtol=1e-5)
    packed(rows).sum().backward()
    assert packed.up.grad is not None
    assert packed.weight.grad is None


@needs_onednn
def test_text_layers_keep_their_activation_and_see_weights_that_change(tmp_path: Path) -> None:
    layers, values = _text_layers("bert", activation="relu"), torch.randn(2, 5, 32)
    pack_weights(layers)
    packed = layers[0]
    assert isinstance(packed, PackedTextLayer)
    for change in (lambda: None, lambda: packed.attention.self.value.weight.mul_(3.0)):
        with torch.no_grad():
            change()
            answer = packed(values)
            expected = packed._layer[0](values)
            torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(copy.deepcopy(packed)(values), answer)
            torch.save(packed, tmp_path / "layer.pt")


@needs_onednn
def test_text_layers_train_as_before() -> None:
    layers, values = _text_layers("bert"), torch.randn(2, 5, 32)
    layers.train()
    answers = []
    for _ in range(2):
        torch.manual_seed(0)
        answers.append(_states(layers, values, None))
        pack_weights(layers)
    assert layers.training
    assert torch.equal(*answers)
    answers[1].sum().backward()
    assert all(parameter.grad is not None for parameter in layers.parameters())


def test_without_onednn_layers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tecafn.serving.packed.can_pack", lambda: False)
    network = Small()
    pack_weights(network)
    assert type(network.large) is nn.Linear
