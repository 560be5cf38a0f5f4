from typing import Any

import pytest

from tecafn.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_epochs", 0),
        ("batch_size", 2.5),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rates", {"text_encoder": -1.0}),
        ("optimizer", "sgd"),
        ("weight_decay", -1e-4),
        ("gradient_clip", -1.0),
        ("accumulate", True),
        ("schedule", "step"),
        ("plateau_patience", 0),
        ("warmup_fraction", 1.0),
        ("patience", 0),
        ("monitor", "mea"),
        ("precision", "16-mixed"),
        ("checkpoint_every_steps", -1),
        ("num_workers", -1),
    ],
)
def test_a_value_out_of_range_names_its_field(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}") as caught:
        TrainingConfig(**{name: value})
    assert "\n" not in str(caught.value)


def test_an_unknown_monitor_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'mae'"):
        TrainingConfig(monitor="mea")


def test_mae_improves_downwards_accuracy_upwards_and_a_tie_improves_nothing() -> None:
    mae, accuracy = TrainingConfig(monitor="mae"), TrainingConfig(monitor="accuracy")
    assert mae.improves(0.8, 0.9)
    assert not mae.improves(0.9, 0.8)
    assert accuracy.improves(0.9, 0.8)
    assert not accuracy.improves(0.8, 0.9)
    assert not mae.improves(0.8, 0.8)
    assert not accuracy.improves(0.8, 0.8)
    assert accuracy.improves(0.0, None)
