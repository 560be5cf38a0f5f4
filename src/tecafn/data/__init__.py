"""From the field's files to batches: readers, the store, the integrity report, loaders."""

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
