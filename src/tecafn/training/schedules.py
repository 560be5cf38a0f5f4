"""The learning rate as a function of the step and of how long validation has been stale."""

from __future__ import annotations

import math

import torch

from tecafn.training.config import ScheduleName, TrainingConfig


def warmup_factor(step: int, num_warmup: int) -> float:
    """Linear rise that first reaches 1 at step ``num_warmup``; no step has a rate of 0.

    Args:
        step: from 0.
        num_warmup: steps of the rise.

    Example:
        >>> [warmup_factor(step, 3) for step in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / (num_warmup + 1))


def decay_factor(name: ScheduleName, step: int, *, num_warmup: int, num_steps: int) -> float:
    """Share of the full rate at ``step``: 1 until the warm-up ends, 0 at ``num_steps``.

    ``plateau`` and ``constant`` do not depend on the step.

    Example:
        >>> [decay_factor("linear", step, num_warmup=1, num_steps=5) for step in range(6)]
        [1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
        >>> round(decay_factor("cosine", 3, num_warmup=0, num_steps=6), 6)
        0.5
    """
    done = max(0, step - num_warmup) / max(1, num_steps - num_warmup)
    done = min(1.0, done)
    if name == "linear":
        return 1.0 - done
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


class Schedule:
    """Sets the rates of one phase's optimizer before each of its steps.

    Three factors multiply: warm-up, decay and, for ``plateau``, one half for every
    ``plateau_patience`` epochs in a row without improvement (then counting starts again). As
    the early stop does, it counts stale epochs: with a patience of 4 the rate of the epoch after
    the fourth stale one is halved. torch's ``ReduceLROnPlateau`` with ``patience=3`` and
    ``threshold=0`` gives the same rates; it cannot be used itself because it overwrites the
    rate that the warm-up has to multiply.

    Args:
        optimizer: its present rates are the full rates.
        num_steps: optimizer steps of the phase over all epochs.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, config: TrainingConfig, num_steps: int
    ) -> None:
        self._optimizer = optimizer
        self._full_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._config = config
        self._num_steps = num_steps
        self._num_warmup = round(config.warmup_fraction * num_steps)
        self._step = 0
        self._num_stale = 0
        self._num_halvings = 0
        self._apply()

    def _apply(self) -> None:
        factor = (
            warmup_factor(self._step, self._num_warmup)
            * decay_factor(
                self._config.schedule,
                self._step,
                num_warmup=self._num_warmup,
                num_steps=self._num_steps,
            )
            * 0.5**self._num_halvings
        )
        for group, rate in zip(self._optimizer.param_groups, self._full_rates, strict=True):
            group["lr"] = rate * factor

    def after_step(self) -> None:
        """Move on to the next step's rate."""
        self._step += 1
        self._apply()

    def after_epoch(self, *, improved: bool) -> None:
        """Take note of whether the monitored metric got better."""
        self._num_stale = 0 if improved else self._num_stale + 1
        if self._config.schedule == "plateau" and self._num_stale >= self._config.plateau_patience:
            self._num_halvings += 1
            self._num_stale = 0
        self._apply()

    def state(self) -> dict[str, int]:
        """All that changes, for the checkpoint."""
        return {
            "step": self._step,
            "num_stale": self._num_stale,
            "num_halvings": self._num_halvings,
        }

    def load_state(self, state: dict[str, int]) -> None:
        """Continue from ``state()`` of an earlier run."""
        self._step = state["step"]
        self._num_stale = state["num_stale"]
        self._num_halvings = state["num_halvings"]
        self._apply()
