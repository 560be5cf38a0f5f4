"""The health of a training run: does each loss beside the task's do anything?

A scheme's losses carry readings: a number, and what that number would be if nothing had been
learned. The trainer averages both over an epoch and says what is amiss; it knows no method's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["contrast", "head", "hubs", "influence"]

# A contrast that has won less than this share of its chance level has learned nothing to speak of,
# and so has a head that tells two kinds apart.
_LEAST_WON: dict[Kind, float] = {"contrast": 0.02, "head": 0.05}
# Hard negatives are hubs where the largest is this many times as large as the largest of random
# draws would be.
_HUB_FACTOR = 1.3
# One modality decides a fused vector that the others move less than this share as far.
_LEAST_INFLUENCE = 0.25


@dataclass(frozen=True)
class Reading:
    """A number of one training step, and what it would be if nothing had been learned.

    Args:
        kind: what it is: the loss of a ``contrast``; the loss of a ``head`` that tells two kinds
            apart; the share of the rows that have the same sample among their hardest (``hubs``).
        value: scalar.
        chance: scalar.
    """

    kind: Kind
    value: Tensor
    chance: Tensor


def contrast_reading(loss: Tensor, candidates: Tensor) -> Reading:
    """Of a contrast in which each row finds its own among ``candidates`` (N,) bool: chance is ln N.

    Example:
        >>> contrast_reading(torch.tensor(3.4), torch.ones(32, dtype=torch.bool)).chance
        tensor(3.4657)
    """
    count = candidates.sum().clamp(min=1).to(torch.promote_types(loss.dtype, torch.float32))
    return Reading("contrast", loss.detach(), count.log())


def head_reading(loss: Tensor, share: float) -> Reading:
    """Of a head that tells two kinds apart: chance is the entropy of ``share``, the one's share.

    Example:
        >>> head_reading(torch.tensor(0.3), 0.9).chance
        tensor(0.3251)
    """
    entropy = -sum(p * math.log(p) for p in (share, 1.0 - share) if p > 0.0)
    return Reading("head", loss.detach(), loss.new_tensor(entropy))


def judge(name: str, kind: Kind, value: float, chance: float | None) -> str:
    """What is amiss, in one sentence; empty if nothing is.

    Args:
        name: the term's.
        kind: of the reading.
        value: mean over an epoch.
        chance: mean over an epoch of what it would be; None where there is no such level.

    Example:
        >>> judge("ta", "contrast", 3.441, 3.455)
        'the contrast ta is at chance: 3.441 of 3.455, the logarithm of the number of candidates'
        >>> judge("ta", "contrast", 2.986, 3.455)
        ''
    """
    if chance is None or not (math.isfinite(value) and math.isfinite(chance)) or chance <= 0.0:
        return ""
    if kind == "hubs":
        if value <= _HUB_FACTOR * chance:
            return ""
        return (
            f"{name}: one sample is among the hardest of {100 * value:.0f} % of the rows; "
            f"of random draws the most frequent would be in {100 * chance:.0f} %"
        )
    if value < (1.0 - _LEAST_WON.get(kind, 0.0)) * chance:
        return ""
    if kind == "contrast":
        return (
            f"the contrast {name} is at chance: {value:.3f} of {chance:.3f}, "
            "the logarithm of the number of candidates"
        )
    return (
        f"the head {name} is at chance: {value:.3f} of {chance:.3f}, "
        "the entropy of what it is to tell"
    )


def judge_influence(what: str, shares: Mapping[str, float]) -> str:
    """Does one modality decide it alone? One sentence, or empty.

    Args:
        what: what is moved, ``fused`` or ``prediction``.
        shares: by modality how far another sample's frames move it; 1 = as far as to another
            sample altogether.

    Example:
        >>> judge_influence("fused", {"text": 1.0, "audio": 0.1, "vision": 0.1})
        'fused is dominated by text: audio and vision together move it 0.20 of 1.00'
        >>> judge_influence("fused", {"text": 0.7, "audio": 0.4})
        ''
    """
    if len(shares) < 2:
        return ""
    first = max(shares, key=lambda modality: shares[modality])
    others = [modality for modality in shares if modality != first]
    rest = sum(shares[modality] for modality in others)
    if rest >= _LEAST_INFLUENCE * shares[first]:
        return ""
    return (
        f"{what} is dominated by {first}: {' and '.join(others)} "
        f"{'together move' if len(others) > 1 else 'moves'} it {rest:.2f} of {shares[first]:.2f}"
    )


class EpochReadings:
    """Means of an epoch's readings, of which a checkpoint can hold the sums.

    Args:
        sums: what ``state`` gave.

    Example:
        >>> readings = EpochReadings()
        >>> readings.add("ta", "contrast", 3.0, 3.4)
        >>> readings.add("ta", "contrast", 2.0, 3.4)
        >>> readings.table()["ta"]["value"]
        2.5
    """

    def __init__(self, sums: Mapping[str, Any] | None = None) -> None:
        self._sums: dict[str, list[Any]] = {name: list(row) for name, row in (sums or {}).items()}

    def add(self, name: str, kind: Kind, value: float, chance: float) -> None:
        """One step's."""
        row = self._sums.setdefault(name, [kind, 0.0, 0.0, 0])
        row[1] += value
        row[2] += chance
        row[3] += 1

    def state(self) -> dict[str, list[Any]]:
        """Plain values."""
        return {name: list(row) for name, row in self._sums.items()}

    def table(self) -> dict[str, dict[str, Any]]:
        """For each name ``kind, value, chance, amiss``; the last is a sentence, or empty."""
        table: dict[str, dict[str, Any]] = {}
        for name, (kind, value, chance, count) in self._sums.items():
            mean, level = value / count, chance / count
            table[name] = {
                "kind": kind,
                "value": mean,
                "chance": level,
                "amiss": judge(name, kind, mean, level),
            }
        return table
