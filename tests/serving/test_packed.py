"""Rearranged weights give the layer's own answers and stay out of everybody's way."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tecafn.serving.packed import PackedLinear, can_pack, pack_weights

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


def test_without_onednn_layers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tecafn.serving.packed.can_pack", lambda: False)
    network = Small()
    pack_weights(network)
    assert type(network.large) is nn.Linear
