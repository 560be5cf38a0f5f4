"""Numbers that other papers published, each with its source, to stand beside a run's own.

The numbers are data in ``published.toml``. They may stand beside a run only where dataset, split
and measures are the paper's own: the test split, with all three splits of the sizes of Table 3,
measured by the convention that the papers follow.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tecafn.core.conventions import convention_named

SOURCES: Mapping[str, str] = {
    "P": "the TeCaFN paper's own sentences or tables",
    "T": "another published table",
    "m": "unverified: from memory",
}


@dataclass(frozen=True)
class Cell:
    """One published number.

    Args:
        printed: as printed; accuracies and F1 in percent.
        sources: keys of ``SOURCES``.

    Example:
        >>> Cell("36.44", ("m",)).is_verified
        False
    """

    printed: str
    sources: tuple[str, ...]

    @property
    def is_verified(self) -> bool:
        """False for a number that nobody has compared with a print."""
        return "m" not in self.sources


@dataclass(frozen=True)
class PublishedRow:
    """A method's published numbers, by this project's metric names; empty where none was found."""

    method: str
    cells: Mapping[str, Cell]
    note: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """All that is published about one dataset.

    Args:
        dataset: ``cmu-mosi``, ``cmu-mosei`` or ``ur-funny``.
        convention: how its numbers were measured.
        sizes: samples of train, valid and test (Table 3).
        rows: methods in the paper's order.
    """

    dataset: str
    convention: str
    sizes: Mapping[str, int]
    rows: tuple[PublishedRow, ...]


@cache
def published_tables() -> Mapping[str, PublishedTable]:
    """The tables by dataset.

    Example:
        >>> rows = {row.method: row for row in published_tables()["cmu-mosi"].rows}
        >>> rows["TeCaFN"].cells["mae"]
        Cell(printed='0.684', sources=('P',))
    """
    text = Path(__file__).with_name("published.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    return {
        dataset: PublishedTable(
            dataset=dataset,
            convention=table["convention"],
            sizes=table["sizes"],
            rows=tuple(
                PublishedRow(
                    method=row["method"],
                    cells={
                        name: Cell(value[0], tuple(value[1].split()))
                        for name, value in row.items()
                        if name not in ("method", "note")
                    },
                    note=row.get("note", ""),
                )
                for row in table["rows"]
            ),
        )
        for dataset, table in data.items()
    }


def comparable_table(
    dataset: str, split: str, sizes: Mapping[str, int], *, convention: str
) -> PublishedTable | None:
    """The published table that a run on this data may stand beside, if any.

    Args:
        dataset: the store's name of the dataset.
        split: the split evaluated.
        sizes: the store's samples of each split.
        convention: how the run was measured; columns of different ones are not comparable.

    Example:
        >>> sizes = {"train": 1284, "valid": 229, "test": 686}
        >>> comparable_table("cmu-mosi", "valid", sizes, convention="mosi") is None
        True
        >>> comparable_table("CMU-MOSI", "test", sizes, convention="mosi").dataset
        'cmu-mosi'
    """
    name = dataset.lower().replace("_", "-")
    tables = published_tables()
    # Stores may carry the short names that MMSA's files use.
    table = tables.get(name) or tables.get(f"cmu-{name}")
    if table is None or split != "test" or dict(sizes) != dict(table.sizes):
        return None
    if convention_named(convention).name != table.convention:
        return None
    return table
