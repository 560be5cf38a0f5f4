"""Tables within tables, as settings and records are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value under its dotted key.

    Example:
        >>> flatten({"seed": 0, "training": {"max_epochs": 4}})
        {'seed': 0, 'training.max_epochs': 4}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
