"""Models that are run in two parts by their own forward."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tecafn.layers.own_forward import OwnForward

NUM_LAYERS = 3


class Body(nn.Module):
    """Layers, and a place where other sizes of the model have a module."""

    def __init__(self) -> None:
        super().__init__()
        self.projection: nn.Module | None
        self.register_module("projection", None)
        self.layer = nn.ModuleList(nn.Linear(4, 4) for _ in range(NUM_LAYERS))

    def forward(self, states: Tensor) -> Tensor:
        if self.projection is not None:
            states = self.projection(states)
        for layer in self.layer:
            states = layer(states).tanh()
        return states


class Model(nn.Module):
    """Reads ids, with padding hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=9, num_hidden_layers=NUM_LAYERS)
        self.embeddings = nn.Embedding(9, 4)
        self.body = Body()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        states = self.body(self.embeddings(input_ids))
        return SimpleNamespace(last_hidden_state=states)


def test_a_module_that_a_model_leaves_out_stays_left_out_in_its_parts() -> None:
    torch.manual_seed(0)
    model = OwnForward(Model())
    assert len(model.layers) == NUM_LAYERS
    ids = torch.tensor([[2, 5, 7]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        whole = model.run(ids, mask, None)
        for count in range(NUM_LAYERS + 1):
            assert model.can_be_parted(count)
            states = model.run_lower(ids, mask, None, count=count)
            torch.testing.assert_close(model.run_upper(states, mask, count=count), whole)
