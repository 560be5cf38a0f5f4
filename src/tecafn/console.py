"""What a terminal, a pipe or a log file shows of a command: text, lists, tables, JSON."""

from __future__ import annotations

import codecs
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

# A list is laid out for a terminal of this width where it is wider, or not a terminal at all.
_WIDEST_LIST = 80
# What our own texts have beyond ASCII, for an output that cannot show it.
_PLAIN = {
    "\u00b1": "+-",
    "\u00d7": "x",
    "\u2212": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2026": "...",
    "\u2192": "->",
    "\u2264": "<=",
    "\u2265": ">=",
    "\u00a0": " ",
}


def _legible(error: UnicodeError) -> tuple[str, int]:
    r"""Codec error handler: a plain spelling, or else the character's number (``\u4f60``)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    spelled = (_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in unknown)
    return "".join(spelled), error.end


codecs.register_error("tecafn.legible", _legible)


@contextmanager
def legible_output() -> Iterator[None]:
    """Meanwhile standard output and standard error never fail for a character.

    One that their encoding lacks (ASCII, cp1252, half of a broken path in UTF-8) is spelled in
    ASCII; they are restored at the end, because in Python the streams are the caller's.
    """
    streams = [s for s in (sys.stdout, sys.stderr) if hasattr(s, "reconfigure")]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="tecafn.legible")
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            with suppress(OSError, ValueError):  # nobody reads, the disk is full, it is closed
                stream.reconfigure(errors=errors)


def print_json(value: Any) -> None:
    """Indented, in ASCII."""
    print(json.dumps(value, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A title and a table with a box.

    Cells are wrapped between words; where the words alone are wider than the terminal, the table
    is wider than it, so that no number is cut short.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    screen, box = Console(), 3 * len(columns) + 1
    widths = _widths([*zip(columns, *rows, strict=True)], room=screen.width - box)
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    print(title)  # as the table's own title it would be wrapped to the table's width
    Console(width=max(screen.width, sum(widths) + box)).print(table)


def _widths(columns: Sequence[Sequence[str]], *, room: int) -> list[int]:
    """The width of each column of cells: of its lines if there is room, else of its longest word.

    Example:
        >>> _widths([["result", "a long name"], ["MAE", "0.912"]], room=12)
        [7, 5]
    """
    from rich.cells import cell_len

    def longest(parts: Iterable[str]) -> int:
        return max((1, *map(cell_len, parts)))

    least = [longest(word for cell in cells for word in cell.split()) for cells in columns]
    widths = [longest(line for cell in cells for line in cell.split("\n")) for cells in columns]
    while sum(widths) > room:
        spare = [k for k, width in enumerate(widths) if width > least[k]]
        if not spare:
            break
        widths[max(spare, key=widths.__getitem__)] -= 1
    return widths


def print_list(entries: Mapping[str, Iterable[str]]) -> None:
    """Names, and beside each name its paragraphs, wrapped to the terminal's width.

    Example:
        >>> print_list({"misa": ["subspaces", "Hazarika et al. 2020"], "tfn": ["products"]})
        misa  subspaces
              Hazarika et al. 2020
        tfn   products
    """
    indent = max(map(len, entries), default=0) + 2
    terminal = shutil.get_terminal_size((_WIDEST_LIST, 24)).columns
    width = max(indent + 20, min(_WIDEST_LIST, terminal))
    for name, paragraphs in entries.items():
        lines = [
            line for text in paragraphs for line in textwrap.wrap(text, width=width - indent)
        ] or [""]
        for number, line in enumerate(lines):
            print(f"{'' if number else name:<{indent}}{line}".rstrip())


@contextmanager
def counting_bar(what: str, *, show: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on standard error, told (done, total); total 0 = unknown.

    None where it is not wanted or nobody is there to see it.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = Console(stderr=True)
    if not show or not screen.is_terminal:
        yield None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as progress:
        bar = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total or None)
