"""Some of a method's settings, by their names: those of a part, those of each modality."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from tecafn.core.modality import Modality

T = TypeVar("T")


def select(config: Any, wanted: type[T], **others: Any) -> T:
    """The settings of a part of a method: the config's fields of the same names.

    Args:
        config: a dataclass.
        wanted: the part's settings, a dataclass.
        others: its fields that the config has under another name, or not at all.

    Raises:
        TypeError: a field of ``wanted`` is in neither.

    Example:
        >>> @dataclasses.dataclass
        ... class Part:
        ...     dim: int
        ...     cross: bool
        >>> @dataclasses.dataclass
        ... class Config:
        ...     dim: int = 30
        ...     rank: int = 3
        >>> select(Config(), Part, cross=True).dim
        30
    """
    values = dict(others)
    for field in dataclasses.fields(wanted):  # type: ignore[arg-type]
        if field.name not in values:
            if not hasattr(config, field.name):
                raise TypeError(
                    f"{type(config).__name__} has no {field.name}, which {wanted.__name__} needs"
                )
            values[field.name] = getattr(config, field.name)
    return wanted(**values)


def per_modality(config: Any, setting: str) -> dict[Modality, Any]:
    """A setting that has a value for each modality, or for some: ``text_dim``, ``audio_dim``, ...

    Args:
        config: has attributes ``<modality>_<setting>``.
        setting: without the modality.

    Returns:
        The values by modality, in the order text, audio, vision.

    Raises:
        TypeError: the config has none of them.

    Example:
        >>> class Config:
        ...     audio_dim, vision_dim = 16, 32
        >>> [(str(m), dim) for m, dim in per_modality(Config(), "dim").items()]
        [('audio', 16), ('vision', 32)]
    """
    names = {m: f"{m}_{setting}" for m in Modality}
    known = {m: getattr(config, name) for m, name in names.items() if hasattr(config, name)}
    if not known:
        raise TypeError(f"{type(config).__name__} has none of {', '.join(names.values())}")
    return known
