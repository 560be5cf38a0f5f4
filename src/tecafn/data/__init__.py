"""From the field's files to batches: readers, the store, the integrity report, loaders.

A name is imported when it is first asked for: only the loaders need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tecafn.data.importing import import_dataset
    from tecafn.data.integrity import IntegrityReport, check
    from tecafn.data.loader import BatchLoader, plan_batches
    from tecafn.data.readers import READERS, ReadOptions, open_source
    from tecafn.data.samples import DatasetDescription, Sample
    from tecafn.data.statistics import column_statistics
    from tecafn.data.store import SplitView, Store, StoreWriter

__all__ = [
    "READERS",
    "BatchLoader",
    "DatasetDescription",
    "IntegrityReport",
    "ReadOptions",
    "Sample",
    "SplitView",
    "Store",
    "StoreWriter",
    "check",
    "column_statistics",
    "import_dataset",
    "open_source",
    "plan_batches",
]

_HOMES = {
    "BatchLoader": "loader",
    "DatasetDescription": "samples",
    "IntegrityReport": "integrity",
    "READERS": "readers",
    "ReadOptions": "readers",
    "Sample": "samples",
    "SplitView": "store",
    "Store": "store",
    "StoreWriter": "store",
    "check": "integrity",
    "column_statistics": "statistics",
    "import_dataset": "importing",
    "open_source": "readers",
    "plan_batches": "loader",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tecafn.data' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"tecafn.data.{_HOMES[name]}"), name)
