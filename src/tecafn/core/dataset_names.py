"""What datasets are called: the corpus that we generate is *synthetic*, whatever wrote its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SYNTHETIC = "synthetic"
# Stores, models, records and comparisons of version 0.1 have this name of it.
_OLDER_SYNTHETIC = "embedded"


def synthetic_name(shape: str) -> str:
    """The name of the generated corpus in a shape.

    Example:
        >>> synthetic_name("mosei")
        'synthetic-mosei'
    """
    return f"{SYNTHETIC}-{shape}"


def is_synthetic(dataset: str) -> bool:
    """Was the dataset generated?

    Example:
        >>> is_synthetic("synthetic-mosi"), is_synthetic("cmu-mosi")
        (True, False)
    """
    return dataset.partition("-")[0] == SYNTHETIC


def current_name(dataset: str) -> str:
    """A dataset's name as it is today; whatever reads one from a file asks here.

    Example:
        >>> current_name("embedded-mosi"), current_name("cmu-mosi")
        ('synthetic-mosi', 'cmu-mosi')
    """
    head, dash, shape = dataset.partition("-")
    return SYNTHETIC + dash + shape if head == _OLDER_SYNTHETIC else dataset


def with_current_name(document: Mapping[str, Any]) -> dict[str, Any]:
    """A run's record or a comparison's summary, its data called as they are today.

    Args:
        document: as a file has it; ``data`` may tell the dataset.

    Example:
        >>> with_current_name({"method": "lmf", "data": {"dataset": "embedded-mosi"}})
        {'method': 'lmf', 'data': {'dataset': 'synthetic-mosi'}}
    """
    data = document.get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get("dataset"), str):
        return dict(document)
    return {**document, "data": {**data, "dataset": current_name(data["dataset"])}}
