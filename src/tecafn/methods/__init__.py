"""One file per method. Importing this package registers them all in ``core.registry.METHODS``."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
