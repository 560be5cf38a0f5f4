"""Multimodal sentiment analysis: train, compare and trust.

Example:
    >>> import tecafn
    >>> [m["name"] for m in tecafn.list_methods() if "2024" in m["paper"]]
    ['crnet', 'hcil', 'tecafn', 'tmbl']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tecafn.core.threads import wait_asleep

wait_asleep()

__version__ = "0.1.0"
__all__ = ["Batch", "Modality", "Padded", "Predictor", "UserError", "list_methods", "load"]

if TYPE_CHECKING:
    from tecafn.core.batch import Batch, Padded
    from tecafn.core.errors import UserError
    from tecafn.core.modality import Modality
    from tecafn.serving.predictor import Predictor, load

_HOMES = {
    "Batch": "tecafn.core.batch",
    "Modality": "tecafn.core.modality",
    "Padded": "tecafn.core.batch",
    "UserError": "tecafn.core.errors",
    "Predictor": "tecafn.serving.predictor",
    "load": "tecafn.serving.predictor",
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for: `import tecafn` should not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'tecafn' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, those that are not imported yet included."""
    return sorted({*__all__, "__version__", "__doc__"})


def list_methods() -> list[dict[str, Any]]:
    """Every registered method: name, summary, tasks, needs and paper. Needs no torch."""
    from tecafn.experiments.shipped import list_methods as listed

    return listed()
