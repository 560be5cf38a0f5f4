"""What a search may choose from: a TOML file of settings and their ranges."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tecafn.core.errors import UserError, nearest_known
from tecafn.experiments.rows import read_toml
from tecafn.experiments.shipped import find_table

Sampler = Literal["grid", "tpe", "random"]
Pruner = Literal["median", "none"]
_RANGE_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Range:
    """Numbers between two ends.

    Args:
        low, high: ends, included; whole numbers where both are.
        log: draw the logarithm evenly.
        step: distance of the numbers from one another; None = any.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Are its numbers whole ones?"""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class SearchSpace:
    """What may be chosen, and how.

    Args:
        choices: for each key of a config its values, or a range of them.
        sampler: ``grid`` for every combination once; ``tpe`` or ``random`` propose some.
        pruner: ``median`` ends trials that do worse than the median of the others; ``none``.
    """

    choices: Mapping[str, tuple[Any, ...] | Range]
    sampler: Sampler
    pruner: Pruner

    @property
    def size(self) -> int | None:
        """How many combinations there are; None where a range has no step."""
        count = 1
        for choice in self.choices.values():
            if isinstance(choice, Range):
                return None
            count *= len(choice)
        return count

    def grid(self, *, seed: int) -> Iterator[dict[str, Any]]:
        """Every combination once, in an order drawn from the seed.

        Example:
            >>> space = SearchSpace({"seed": (1, 2), "max_frames": (8,)}, "grid", "none")
            >>> sorted(one["seed"] for one in space.grid(seed=0))
            [1, 2]
        """
        values = [choice for choice in self.choices.values() if isinstance(choice, tuple)]
        every = list(itertools.product(*values))
        for place in np.random.default_rng(seed).permutation(len(every)):
            yield dict(zip(self.choices, every[place], strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, by which two searches are compared."""
        return {
            key: list(choice) if isinstance(choice, tuple) else vars(choice)
            for key, choice in self.choices.items()
        }


def read_space(path: Path, *, sampler: str | None = None, pruner: str | None = None) -> SearchSpace:
    """Read a TOML file with a table ``[space]``, and ``sampler`` and ``pruner``.

    Args:
        path: the file, or the name of a shipped one, such as ``search``.
        sampler: in place of the file's.
        pruner: in place of the file's.

    Raises:
        UserError: no such file, or it does not say what may be chosen; whether the keys are those
            of a config is looked at when one is made.
    """
    raw = read_toml(find_table(path))
    for key in raw:
        if key not in ("space", "sampler", "pruner"):
            hint = nearest_known(key, ["space", "sampler", "pruner"])
            raise UserError(f"space {path}: unknown key {key!r}: {hint}")
    table = raw.get("space")
    if not isinstance(table, dict) or not table:
        raise UserError(f"space {path}: expected a table [space] of settings, got {table!r}")
    choices = {key: _choice(f"space {path}: {key}", value) for key, value in table.items()}
    space = SearchSpace(
        choices,
        _one_of("sampler", sampler or raw.get("sampler", "tpe"), get_args(Sampler)),
        _one_of("pruner", pruner or raw.get("pruner", "median"), get_args(Pruner)),
    )
    if space.sampler == "grid" and space.size is None:
        ranges = [key for key, choice in choices.items() if isinstance(choice, Range)]
        raise UserError(
            f"space {path}: a grid needs a list of values, {', '.join(ranges)} has a range; list "
            "the values, or take --sampler tpe"
        )
    return space


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise UserError(f"{name} {value!r} is unknown: {nearest_known(str(value), list(known))}")
    return value


def _choice(where: str, value: Any) -> tuple[Any, ...] | Range:
    if isinstance(value, list) and value:
        if any(
            a == b and isinstance(a, bool) == isinstance(b, bool)
            for a, b in itertools.combinations(value, 2)
        ):
            raise UserError(f"{where} lists a value twice: {value}")
        return tuple(value)
    if not isinstance(value, dict) or not {"low", "high"} <= set(value):
        raise UserError(
            f"{where} must be a list of values or {{ low = ..., high = ... }}, got {value!r}"
        )
    for key in value:
        if key not in _RANGE_KEYS:
            near = difflib.get_close_matches(key, _RANGE_KEYS, n=1)
            raise UserError(f"{where} has the key {key!r}; did you mean {(near or ['step'])[0]!r}?")
    low, high, step = value["low"], value["high"], value.get("step")
    numbers = [low, high, *([step] if step is not None else [])]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise UserError(f"{where}: low, high and step must be numbers, got {value!r}")
    log = value.get("log", False)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"{where}: low must be less than high, got {low} and {high}")
    if log and (low <= 0 or step is not None):
        raise UserError(f"{where}: a logarithmic range needs low > 0 and no step, got {value!r}")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"{where}: step must be > 0 and at most high - low, got {step}")
    return Range(low, high, bool(log), step)
