"""A paper's tables and figures: files of rows, a budget, and one command for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tecafn.core.errors import UserError, nearest_known
from tecafn.core.places import refuse_taken
from tecafn.data.store import Store
from tecafn.experiments.cells import Cell, Outcome
from tecafn.experiments.compare import Protocol, compare_methods
from tecafn.experiments.rows import read_table, read_table_file, read_toml
from tecafn.experiments.shipped import find_table
from tecafn.records.comparison import ComparisonSummary
from tecafn.report.splits import SplitSize, write_splits

BUDGETS_FILE = "budgets.toml"
PAPER = "paper"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much training a table gets.

    Args:
        name: ``paper`` or ``quick``.
        seeds: how many, where the command does not say.
        overrides: ``key=value`` of every row.
        note: for the page.
    """

    name: str
    seeds: int
    overrides: tuple[str, ...]
    note: str


@dataclass(frozen=True, kw_only=True)
class Display:
    """Who is told of the cells; see ``compare_methods``."""

    planned: Callable[[Sequence[Cell]], None] = lambda _cells: None
    started: Callable[[Cell], None] = lambda _cell: None
    ended: Callable[[Outcome], None] = lambda _outcome: None
    waiting: Callable[[Sequence[Cell]], None] = lambda _cells: None


def read_budget(table: Path, name: str) -> Budget:
    """A budget, from ``budgets.toml`` beside the table; its ``[budgets.<name>]`` replaces values.

    A table with no such file beside it has the budget ``paper``, which sets nothing.

    Args:
        table: a file of rows, or the name of a shipped one.
        name: of the budget.

    Raises:
        UserError: there is no such budget, or it has a value of the wrong type.

    Example:
        >>> read_budget(Path("table5"), "quick").seeds
        1
    """
    beside = find_table(table).parent / BUDGETS_FILE
    known = read_toml(beside) if beside.is_file() else {PAPER: {}}
    own = read_table_file(table).get("budgets", {})
    if name not in known and name not in own:
        raise UserError(f"no budget {name!r}: {nearest_known(name, {**known, **own})}")
    raw: Mapping[str, Any] = {**known.get(name, {}), **own.get(name, {})}
    seeds, overrides, note = raw.get("seeds", 5), raw.get("set", []), raw.get("note", "")
    is_right = type(seeds) is int and seeds >= 1 and isinstance(note, str)
    if not is_right or not all(isinstance(each, str) for each in overrides):
        raise UserError(
            f"budget {name!r} must have seeds (a number >= 1), set (a list of texts) and note, got "
            f"{dict(raw)!r}"
        )
    return Budget(name=name, seeds=seeds, overrides=tuple(overrides), note=note)


def folder_of(table: Path, out: Path, budget: str, dataset: str) -> Path:
    """Where a table of one dataset lies: ``OUT/<table>/<dataset>``, a short budget's beside it.

    Example:
        >>> folder_of(Path("tecafn/table5"), Path("out"), "quick", "cmu-mosi").as_posix()
        'out/table5-quick/cmu-mosi'
    """
    name = find_table(table).stem
    return out / (name if budget == PAPER else f"{name}-{budget}") / dataset


def refuse_one_dataset_twice(data: Sequence[Path]) -> None:
    """Refuse stores of one dataset: a table of each would lie in the same folder.

    Raises:
        UserError: it names both.
    """
    seen: dict[str, Path] = {}
    for path in data:
        dataset = Store.open(path).description.dataset
        if dataset in seen:
            raise UserError(
                f"{seen[dataset]} and {path} are both of {dataset}, and their tables would be one; "
                "give them two commands with another --out each"
            )
        seen[dataset] = path


def reproduce(
    table: Path,
    protocol: Protocol,
    *,
    budget: str,
    seeds: int | None = None,
    overrides: Sequence[str] = (),
    display: Display | None = None,
    train: bool = True,
) -> tuple[Path, ComparisonSummary]:
    """Train and evaluate a table's rows on one dataset and write its pages.

    What is finished is not done again; several processes may share one folder.

    Args:
        table: a file of rows, or the name of a shipped one.
        protocol: data, ``out`` (the folder of all tables), device and processes.
        budget: ``paper`` or ``quick``.
        seeds: how many; None = the budget's.
        overrides: ``key=value`` of every row, after the budget's; ``row:key=value`` of one.
        display: who is told of the cells.
        train: False writes the tables of what is finished.

    Returns:
        The folder of the pages, and the summary that they were made from.

    Raises:
        UserError: as ``compare_methods``, ``read_table`` and ``read_budget``.
    """
    said, limits = read_table(table), read_budget(table, budget)
    display = display or Display()
    dataset = Store.open(protocol.data).description.dataset
    folder = folder_of(table, protocol.out, budget, dataset)
    of_table = dataclasses.replace(protocol, out=folder).of_table(said)
    own_seeds = said.seeds if budget == PAPER else None
    count = range(seeds or limits.seeds)
    of_table = dataclasses.replace(
        of_table,
        seeds=tuple(count) if seeds or own_seeds is None else own_seeds,
        overrides=(*limits.overrides, *of_table.overrides, *overrides),
        notes=(*((limits.note,) if limits.note else ()), *of_table.notes),
    )
    return folder, compare_methods(
        of_table,
        planned=display.planned,
        started=display.started,
        ended=display.ended,
        waiting=display.waiting,
        train=train,
    )


def check_splits(table: Path, *, data: Path, out: Path) -> tuple[Path, list[SplitSize]]:
    """Compare the sizes of a store's splits with those that a paper states, and write the pages.

    Args:
        table: a file with ``expected``: dataset to split to size.
        data: a store.
        out: the folder of all tables.

    Returns:
        The folder of the pages, and each split's size with the expected one, None where the paper
        has no such dataset.

    Raises:
        UserError: the file has no ``expected``, or is no table of splits.
    """
    raw = read_table_file(table)
    expected = raw.get("expected")
    if not isinstance(expected, Mapping):
        raise UserError(f"table {table}: expected sizes of splits, [expected], got none")
    store = Store.open(data)
    dataset = store.description.dataset
    name = dataset.lower().replace("_", "-")
    stated = expected.get(name) or expected.get(f"cmu-{name}") or {}
    found = {split: counts["num_samples"] for split, counts in store.manifest["splits"].items()}
    sizes = [
        SplitSize(split, found.get(split, 0), stated.get(split))
        for split in dict.fromkeys((*stated, *found))
    ]
    folder = folder_of(table, out, PAPER, dataset)
    refuse_taken(folder, may_be="neither")
    write_splits(folder, sizes, title=str(raw.get("title", "Splits")), dataset=dataset)
    return folder, sizes
