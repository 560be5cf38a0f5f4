"""Train and compare models of multimodal sentiment: text, audio and vision in, a score out.

``train``, ``evaluate``, ``compare`` and ``load`` do what the commands of those names do; see
``docs/python.md``.

Example:
    >>> import tecafn
    >>> [m["name"] for m in tecafn.list_methods() if "2024" in m["paper"]]
    ['crnet', 'hcil', 'tecafn', 'tmbl']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tecafn.core.threads import wait_asleep

wait_asleep()

__version__ = "0.2.0.dev0"
__all__ = [
    "Batch",
    "Modality",
    "Padded",
    "Predictor",
    "UserError",
    "compare",
    "evaluate",
    "export",
    "list_methods",
    "load",
    "push_to_hub",
    "train",
]

if TYPE_CHECKING:
    from tecafn.core.batch import Batch, Padded
    from tecafn.core.errors import UserError
    from tecafn.core.modality import Modality
    from tecafn.experiments.api import compare, evaluate, train
    from tecafn.experiments.export import export_run as export
    from tecafn.experiments.sharing import push_to_hub
    from tecafn.serving.predictor import Predictor, load

_HOMES = {
    "Batch": "tecafn.core.batch",
    "Modality": "tecafn.core.modality",
    "Padded": "tecafn.core.batch",
    "UserError": "tecafn.core.errors",
    "Predictor": "tecafn.serving.predictor",
    "load": "tecafn.serving.predictor",
    "compare": "tecafn.experiments.api",
    "evaluate": "tecafn.experiments.api",
    "train": "tecafn.experiments.api",
    "export": "tecafn.experiments.export",
    "push_to_hub": "tecafn.experiments.sharing",
}
_NAMES = {"export": "export_run"}


def __getattr__(name: str) -> Any:
    # Imported when first asked for: `import tecafn` should not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'tecafn' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), _NAMES.get(name, name))


def __dir__() -> list[str]:
    """The public names, those that are not imported yet included."""
    return sorted({*__all__, "__version__", "__doc__"})


def list_methods() -> list[dict[str, Any]]:
    """Every registered method: name, summary, tasks, needs, paper and what it rests on."""
    from tecafn.experiments.shipped import list_methods as listed

    return listed()
