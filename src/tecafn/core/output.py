"""What a network gives and what a scheme's loss is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tecafn.core.health import Reading


@dataclass(frozen=True)
class Output:
    """One answer per sample.

    Args:
        prediction: (B,) score on the label's scale, or (B, C) logits.
        features: named representations, for schemes and for analysis.
    """

    prediction: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Where training stands. Random draws that belong to a sample key on ``seed`` and ``epoch``."""

    seed: int
    epoch: int
    step: int = 0


@dataclass(frozen=True)
class Losses:
    """Named loss terms, as the paper names them, and the weight of each in the total.

    Args:
        terms: scalars.
        weights: one weight per term; a zero weight drops the term from the total.
        output: the network's answer that the terms were computed from.
        log: further scalars to write down (sums, shares), not optimised.
        health: readings by name, each with what it would be if nothing had been learned.
        carry: what the scheme hands to its own ``after_step``; nobody else looks at it.

    Example:
        >>> import torch
        >>> losses = Losses({"task": torch.tensor(2.0), "ta": torch.tensor(3.0)},
        ...                 {"task": 1.0, "ta": 0.1}, Output(torch.zeros(1)))
        >>> round(losses.total.item(), 4)
        2.3
    """

    terms: Mapping[str, Tensor]
    weights: Mapping[str, float]
    output: Output
    log: Mapping[str, Tensor] = field(default_factory=dict)
    health: Mapping[str, Reading] = field(default_factory=dict)
    carry: Any = None

    @property
    def total(self) -> Tensor:
        """The weighted sum.

        Raises:
            ValueError: a term has no weight.
        """
        missing = sorted(set(self.terms) - set(self.weights))
        if missing:
            raise ValueError(
                f"loss terms without a weight: {missing}; weights: {sorted(self.weights)}"
            )
        weighted = [
            self.weights[name] * term for name, term in self.terms.items() if self.weights[name]
        ]
        if not weighted:
            raise ValueError(f"every weight is zero: {dict(self.weights)}")
        total = weighted[0]
        for term in weighted[1:]:
            total = total + term
        return total
