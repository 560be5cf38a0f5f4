"""Names to things: methods and readers register themselves, the rest of the house looks them up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

from tecafn.core.errors import UserError, nearest_known
from tecafn.core.info import DataInfo

if TYPE_CHECKING:  # the names of methods and readers are looked up without torch, too
    from tecafn.core.scheme import Scheme

T = TypeVar("T")

Basis = Literal["paper", "code", "abstract", "ours"]


class Registry(Mapping[str, T], Generic[T]):
    """A read-mostly mapping that fails with the known names.

    Example:
        >>> shapes = Registry[int]("shape")
        >>> shapes.register("square", 4)
        >>> shapes["square"]
        4
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str, item: T) -> None:
        """Add ``item``; a name can be taken once."""
        if name in self._items:
            raise ValueError(f"{self._kind} {name!r} is registered already")
        self._items[name] = item

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            raise UserError(
                f"unknown {self._kind} {name!r}: {nearest_known(name, self._items)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)


def no_violations(config: Any) -> Mapping[str, str]:
    """No part of the contract is broken, whatever the settings."""
    del config
    return {}


@dataclass(frozen=True)
class Method:
    """A registered method.

    Args:
        config: the frozen dataclass of its settings.
        build: makes the scheme from settings and data.
        paper: authors, title, venue, year.
        basis: what the implementation rests on: the ``paper``; public ``code`` of it, whose
            computation ``tests/equivalence`` finds here; the ``abstract`` alone, where the paper
            was not available to us; or nothing published (``ours``).
        certified: with ``code``, whose code it is and what of it differs, in a few words.
        tasks: what it can be trained for.
        summary: one line for ``tecafn list methods``.
        needs: conditions on the data beyond widths, checked before training; none by default.
        known_violations: maps settings to the parts of ``tecafn.testing``'s contract that they
            knowingly break, each with the reason; a reproduction of somebody's flaw says so here.
    """

    config: type[Any]
    build: Callable[[Any, DataInfo], Scheme]
    paper: str
    basis: Basis = "paper"
    certified: str = ""
    tasks: tuple[str, ...] = ("regression", "classification")
    summary: str = ""
    needs: tuple[str, ...] = ()
    known_violations: Callable[[Any], Mapping[str, str]] = no_violations

    def __post_init__(self) -> None:
        if self.basis not in get_args(Basis):
            raise ValueError(f"basis must be {', '.join(get_args(Basis))}, got {self.basis!r}")
        if bool(self.certified) != (self.basis == "code"):
            raise ValueError(
                f"certified goes with the basis 'code', and only with it: got basis "
                f"{self.basis!r}, certified {self.certified!r}"
            )


METHODS: Registry[Method] = Registry("method")
