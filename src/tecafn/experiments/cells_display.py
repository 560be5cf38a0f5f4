"""What a person sees while cells run: bars on a terminal, else one line a finished cell."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from threading import Event, Thread
from types import TracebackType
from typing import Any

from tecafn.experiments.cells import Cell, Outcome, last_line


class CellsDisplay:
    """Writes to stderr. Its methods are what ``compare_methods`` calls.

    Args:
        progress: False, or a stderr that is no terminal, gives one line a finished cell.
    """

    def __init__(self, *, progress: bool) -> None:
        self._wants_bar = progress and sys.stderr.isatty()
        self._bar: Any = None
        self._total: Any = None
        self._tasks: dict[Cell, Any] = {}
        self._num_cells = 0
        self._num_done = 0
        self._closed = Event()
        self._ticker = Thread(target=self._tick, name="cells-display", daemon=True)

    def __enter__(self) -> CellsDisplay:
        if self._wants_bar:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[what]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                refresh_per_second=2,
            )
            self._bar.start()
            self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        if self._bar is not None:
            self._ticker.join()
            self._bar.stop()

    def planned(self, cells: Sequence[Cell]) -> None:
        """How much there is to do."""
        self._num_cells = len(cells)
        if self._bar is not None:
            self._total = self._bar.add_task("runs", total=len(cells), what=f"0 of {len(cells)}")

    def started(self, cell: Cell) -> None:
        """A cell's process is about to start."""
        if self._bar is not None:
            name = f"{cell.row}, seed {cell.seed}"
            self._tasks[cell] = self._bar.add_task(name, total=None, what="")

    def ended(self, outcome: Outcome) -> None:
        """A cell has ended."""
        self._num_done += 1
        how = outcome.reason and f"failed: {outcome.reason}"
        line = (
            f"[{self._num_done}/{self._num_cells}] {outcome.cell.row}, seed "
            f"{outcome.cell.seed}: {how or 'done'}, {format_duration(outcome.seconds)}"
        )
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
            return
        self._bar.remove_task(self._tasks.pop(outcome.cell))
        what = f"{self._num_done} of {self._num_cells}"
        self._bar.update(self._total, completed=self._num_done, what=what)
        self._bar.console.print(line, markup=False, highlight=False)

    def _tick(self) -> None:
        """Show what each running process said last: its epoch and its validation."""
        while not self._closed.wait(1.0):
            for cell, task in list(self._tasks.items()):
                self._bar.update(task, what=last_line(cell).replace("[", "\\["))


def format_duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> format_duration(42.4), format_duration(150)
        ('42 s', '2 min 30 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
