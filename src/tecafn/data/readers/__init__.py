"""One file a format; every module here registers itself in ``READERS`` when imported."""

import importlib
import pkgutil

from tecafn.data.readers.base import READERS, Reader, ReadOptions, open_source

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["READERS", "ReadOptions", "Reader", "open_source"]
