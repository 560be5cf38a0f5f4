"""Losses, phases, registries and what a method is told of the data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.errors import UserError
from tecafn.core.info import DataInfo, TextEncoderSpec
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.registry import Registry
from tecafn.core.scheme import Network, Phase, Scheme, parameter_groups


def losses(terms: dict[str, float], weights: dict[str, float]) -> Losses:
    tensors = {name: torch.tensor(value) for name, value in terms.items()}
    return Losses(tensors, weights, Output(torch.zeros(1)))


def test_total_is_the_weighted_sum() -> None:
    made = losses({"task": 2.0, "ta": 3.0, "tap": 10.0}, {"task": 1.0, "ta": 0.1, "tap": 0.5})
    assert made.total.item() == pytest.approx(7.3)


def test_total_refuses_a_term_without_a_weight_and_lists_the_weights() -> None:
    with pytest.raises(ValueError, match=r"without a weight: \['tv'\]; weights: \['ta', 'task'\]"):
        losses({"task": 1.0, "tv": 1.0}, {"task": 1.0, "ta": 1.0}).total  # noqa: B018


def test_a_weight_without_a_term_is_legal() -> None:
    assert losses({"task": 1.0}, {"task": 1.0, "ta": 1.0}).total.item() == 1.0


def test_a_zero_weight_drops_its_term_even_where_it_is_not_finite() -> None:
    made = losses({"task": 1.0, "tap": float("nan")}, {"task": 1.0, "tap": 0.0})
    assert made.total.item() == 1.0


def test_total_refuses_when_every_weight_is_zero() -> None:
    with pytest.raises(ValueError, match="every weight is zero"):
        losses({"task": 1.0}, {"task": 0.0}).total  # noqa: B018


def test_total_carries_the_gradient_of_every_term() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    made = Losses({"a": x * 3, "b": x**2}, {"a": 0.5, "b": 2.0}, Output(torch.zeros(1)))
    made.total.backward()
    assert x.grad is not None
    assert x.grad.item() == 0.5 * 3 + 2 * 2 * 2


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.1])
def test_a_phase_runs_over_a_share_of_the_epoch(fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"fraction must be in \(0, 1\], got {fraction}"):
        Phase("main", lambda batch, progress: losses({}, {}), {}, fraction)


class Doubler(Network):
    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = nn.Linear(1, 1)
        self.frozen = nn.Linear(1, 1).requires_grad_(False)
        self.context_encoder = nn.Linear(1, 1)

    def forward(self, batch: Batch) -> Output:
        return Output(2.0 * batch.index)


class DoublerScheme(Scheme):
    def __init__(self) -> None:
        super().__init__()
        self.network = Doubler()

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        return Losses({"task": torch.zeros(())}, {"task": 1.0}, self(batch))


def empty_batch() -> Batch:
    return Batch({}, {}, None, torch.tensor([3, 4]), ("a", "b"))


def test_predict_is_the_networks_answer() -> None:
    assert DoublerScheme().predict(empty_batch()).tolist() == [6.0, 8.0]


def test_the_usual_phase_trains_everything_trainable_in_two_groups() -> None:
    scheme = DoublerScheme()
    (phase,) = scheme.phases()
    assert (phase.name, phase.fraction) == ("main", 1.0)
    named = {id(p): name for name, p in scheme.named_parameters()}
    groups = {
        group: [named[id(p)] for p in parameters] for group, parameters in phase.parameters.items()
    }
    assert groups == {
        "main": ["network.context_encoder.weight", "network.context_encoder.bias"],
        "text_encoder": ["network.text_encoder.weight", "network.text_encoder.bias"],
    }


def test_groups_without_parameters_are_left_out() -> None:
    assert set(parameter_groups(nn.Linear(1, 1))) == {"main"}
    assert parameter_groups(nn.Linear(1, 1).requires_grad_(False)) == {}


def test_an_unknown_name_is_one_line_with_the_nearest_and_all_known() -> None:
    shapes = Registry[int]("shape")
    shapes.register("square", 4)
    shapes.register("circle", 0)
    with pytest.raises(UserError) as error:
        shapes["sqare"]
    assert str(error.value) == (
        "unknown shape 'sqare': did you mean 'square'? known: circle, square"
    )
    with pytest.raises(UserError, match=r"^unknown shape 'xyz': known: circle, square$"):
        shapes["xyz"]


def test_a_name_is_taken_once() -> None:
    shapes = Registry[int]("shape")
    shapes.register("square", 4)
    with pytest.raises(ValueError, match="shape 'square' is registered already"):
        shapes.register("square", 5)
    assert shapes["square"] == 4


def test_a_registry_is_a_sorted_mapping() -> None:
    shapes = Registry[int]("shape")
    for name in ("b", "c", "a"):
        shapes.register(name, ord(name))
    assert list(shapes) == ["a", "b", "c"]
    assert len(shapes) == 3
    assert "a" in shapes
    assert "z" not in shapes


def test_a_negative_number_of_trained_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="num_trained_layers must be >= 0 or None, got -1"):
        TextEncoderSpec(num_trained_layers=-1)


@pytest.mark.parametrize(
    ("options", "half_width", "output_dim"),
    [
        ({}, 3.0, 1),
        ({"label_range": (-1.0, 1.0)}, 1.0, 1),
        ({"label_range": (0.0, 5.0)}, 2.5, 1),
        ({"task": "classification", "num_classes": 2}, 3.0, 2),
    ],
)
def test_data_info_knows_scale_and_outputs(
    options: dict[str, Any], half_width: float, output_dim: int
) -> None:
    info = DataInfo(widths={}, **options)
    assert (info.half_width, info.output_dim) == (half_width, output_dim)


def test_output_holds_named_features() -> None:
    features: dict[str, Tensor] = {"fused": torch.ones(2, 3)}
    assert Output(torch.zeros(2), features).features["fused"].shape == (2, 3)
