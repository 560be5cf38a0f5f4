"""A table as data: its rows, the row that differences are taken from, seeds, split, title.

::

    title = "What the residual does"
    config = "synthetic/tecafn.toml"     # of every row that names no other
    split = "test"
    seeds = [0, 1, 2]                    # or a number
    against = "paper"
    set = ["training.max_epochs=10"]     # of every row

    [rows.paper]
    [rows."pre_norm residual"]
    set = ['model.residual="pre_norm"']

Read without torch: a mistake is said before anything is loaded.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tecafn.core.errors import UserError, nearest_known
from tecafn.core.places import COMPARISON_FILES
from tecafn.experiments.shipped import find_config, find_table

AS_WRITTEN = "rows"
_ROW_KEYS = ("method", "config", "set", "note", "x")
_TABLE_KEYS = (
    "title",
    "notes",
    "method",
    "config",
    "configs",
    "set",
    "split",
    "seeds",
    "against",
    "sort",
    "rows",
)
# What `tecafn reproduce` makes more of than a table of rows; see reproduce.py.
_MORE_KEYS = ("kind", "published", "chart", "window", "expected", "budgets")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    Args:
        name: as the table shows it; the folder of its runs is made from it.
        method: a registered method, whose config is the one of the dataset; None where ``config``
            names one.
        config: a TOML file, or the name of a shipped one; None with ``method``.
        overrides: ``key=value`` of this row, as ``--set`` takes them.
        note: what a reader of the row should know.
        x: its place on the axis of the table's chart, where it has one.

    Raises:
        UserError: it names both a method and a config or neither, or its name makes no folder.
    """

    name: str
    method: str | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    note: str = ""
    x: float | None = None

    def __post_init__(self) -> None:
        if (self.method is None) == (self.config is None):
            raise UserError(f"row {self.name!r} must name either a method or a config")
        if not re.search(r"\w", self.name) or ":" in self.name or self.name != self.name.strip():
            raise UserError(
                f"a row's name must have a letter or digit, no ':' and no space around it, got "
                f"{self.name!r}"
            )
        if self.folder.lower() in COMPARISON_FILES:
            raise UserError(
                f"a row's runs lie in a folder of its name, and {self.folder} is a file of the "
                "comparison; name the row otherwise"
            )

    @property
    def folder(self) -> str:
        """The folder of its runs below the comparison's.

        Example:
            >>> Row(name="w/o V, A", method="tecafn").folder
            'w-o-V,-A'
        """
        return folder_for(self.name)


def folder_for(name: str) -> str:
    """The folder of a row's runs, from its name.

    Example:
        >>> folder_for("w/o L_ta + L_tv")
        'w-o-L_ta-+-L_tv'
    """
    return re.sub(r"[^\w.,=+-]", "-", name).lstrip(".") or "-"


def rows_of_methods(names: Iterable[str]) -> tuple[Row, ...]:
    """What ``--methods`` is short for: a row per method, in the dataset's config.

    Example:
        >>> [row.name for row in rows_of_methods(["tfn", "mult"])]
        ['tfn', 'mult']
    """
    return tuple(Row(name=name, method=name) for name in names)


def check_rows(rows: Sequence[Row]) -> None:
    """Refuse rows that could not be told apart.

    Raises:
        UserError: none, or two of one name or of one folder.
    """
    if not rows:
        raise UserError("a table needs at least one row, got none")
    seen: dict[str, str] = {}
    for row in rows:
        # Not every file system tells upper from lower case.
        key = row.folder.lower()
        if key in seen:
            raise UserError(f"rows must differ, got {seen[key]!r} and {row.name!r}")
        seen[key] = row.name


def are_seeds(values: Sequence[Any]) -> bool:
    """Are they different whole numbers from 0 to 2**32 - 1, at least one?

    Example:
        >>> are_seeds([0, 3]), are_seeds([0, 0]), are_seeds([0.5])
        (True, False, False)
    """
    are_whole = all(type(seed) is int and 0 <= seed < 2**32 for seed in values)
    return bool(values) and are_whole and len(set(values)) == len(values)


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a file of rows says; None where it leaves the choice to the command.

    Args:
        path: the file.
        rows: at least one.
        title: of the pages; empty for the usual one.
        notes: paragraphs under the table.
        configs: the folder of the methods' configs, as ``--configs`` takes it.
        overrides: ``key=value`` of every row.
        split: what is evaluated.
        seeds: which.
        against: the row that differences are taken from; None = the best.
        sort: the metric that rows are sorted by, the best first; ``rows`` keeps the file's order;
            None = the measure that makes a method the best.
        more: the tables and keys that the rows have no use for, as the file has them.
    """

    path: Path
    rows: tuple[Row, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    configs: str | None = None
    overrides: tuple[str, ...] = ()
    split: str | None = None
    seeds: tuple[int, ...] | None = None
    against: str | None = None
    sort: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def read_table(name: Path) -> Table:
    """Read a file of rows, by path or by the name of a shipped one.

    Args:
        name: such as ``tables/residual.toml``; shipped ones go without folder and ending.

    Raises:
        UserError: no such file, not TOML, an unknown key (the nearest one is named), a value of
            the wrong type, or rows that cannot be told apart.
    """
    raw, where = read_table_file(name), f"table {name}"
    path = find_table(name)
    _refuse_unknown(raw, (*_TABLE_KEYS, *_MORE_KEYS), where)
    shared = _Reader(raw, where)
    rows = raw.get("rows")
    if not isinstance(rows, Mapping) or not rows:
        raise UserError(f"{where}: expected rows, such as [rows.paper], got none")
    made = tuple(_row(name, value, shared, path) for name, value in rows.items())
    check_rows(made)
    against = shared.text("against")
    if against is not None and against not in [row.name for row in made]:
        known = nearest_known(against, [row.name for row in made])
        raise UserError(f"{where}: against {against!r} is no row: {known}")
    return Table(
        path=path,
        rows=made,
        title=shared.text("title") or "",
        notes=shared.texts("notes"),
        configs=shared.text("configs"),
        overrides=shared.texts("set"),
        split=shared.text("split"),
        seeds=shared.seeds(),
        against=against,
        sort=shared.text("sort"),
        more={key: raw[key] for key in _MORE_KEYS if key in raw},
    )


def read_table_file(name: Path) -> dict[str, Any]:
    """What a table's file says, before anything of it is checked.

    Raises:
        UserError: no such file, or not TOML.
    """
    return read_toml(find_table(name))


def _row(name: str, raw: Any, shared: _Reader, path: Path) -> Row:
    where = f"{shared.where}: rows.{name}"
    if not isinstance(raw, Mapping):
        raise UserError(f"{where}: expected a table of its settings, got {raw!r}")
    _refuse_unknown(raw, _ROW_KEYS, where)
    own = _Reader(raw, where)
    method, config = own.text("method"), own.text("config")
    if method is None and config is None:
        method, config = shared.text("method"), shared.text("config")
    if method is None and config is None:
        raise UserError(f"{where}: expected a config or a method, of the row or of the table")
    x = raw.get("x")
    if x is not None and (isinstance(x, bool) or not isinstance(x, int | float)):
        raise UserError(f"{where}: x must be a number, got {x!r}")
    return Row(
        name=name,
        method=method,
        config=None if config is None else _beside(config, path),
        overrides=own.texts("set"),
        note=own.text("note") or "",
        x=None if x is None else float(x),
    )


def _beside(config: str, table: Path) -> str:
    """A config that lies beside the table, by its path; any other name as it is."""
    near = table.parent / config
    return str(near) if near.is_file() and not find_config(Path(config)).is_file() else config


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file of a table.

    Raises:
        UserError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"table {path}: no such file; see `tecafn list tables`") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"table {path}: expected a TOML file, got: {error}") from None


def _refuse_unknown(raw: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in raw:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}: {nearest_known(key, known)}")


@dataclass(frozen=True)
class _Reader:
    """Typed values of a TOML table."""

    raw: Mapping[str, Any]
    where: str

    def text(self, key: str) -> str | None:
        value = self.raw.get(key)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{self.where}: {key} must be a text, got {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.raw.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UserError(f"{self.where}: {key} must be a list of texts, got {value!r}")
        return tuple(value)

    def seeds(self) -> tuple[int, ...] | None:
        value = self.raw.get("seeds")
        if value is None:
            return None
        listed = list(range(value)) if type(value) is int else value
        if not isinstance(listed, list) or not are_seeds(listed):
            raise UserError(
                f"{self.where}: seeds must be how many (>= 1), or a list of different ones, got "
                f"{value!r}"
            )
        return tuple(listed)
