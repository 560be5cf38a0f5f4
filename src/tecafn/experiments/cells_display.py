"""What a person sees while cells run: bars on a terminal, else one line a finished cell."""

from __future__ import annotations

import sys
import time
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
        self._began = time.monotonic()
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
        self._num_cells, self._num_done, self._began = len(cells), 0, time.monotonic()
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
        how = f"failed: {outcome.reason}" if outcome.reason else "done"
        how += " elsewhere" if outcome.is_elsewhere else f", {format_duration(outcome.seconds)}"
        line = (
            f"[{self._num_done}/{self._num_cells}] {outcome.cell.row}, seed "
            f"{outcome.cell.seed}: {how}{self._what_remains()}"
        )
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
            return
        if outcome.cell in self._tasks:
            self._bar.remove_task(self._tasks.pop(outcome.cell))
        what = f"{self._num_done} of {self._num_cells}"
        self._bar.update(self._total, completed=self._num_done, what=what)
        self._bar.console.print(line, markup=False, highlight=False)

    def waiting(self, cells: Sequence[Cell]) -> None:
        """Nothing is left but what other processes run."""
        names = ", ".join(f"{cell.row} (seed {cell.seed})" for cell in cells)
        line = f"waiting for what other processes run: {names}"
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False)

    def _what_remains(self) -> str:
        """How many runs are left, and how long they will take at the pace so far."""
        left = self._num_cells - self._num_done
        if left <= 0:
            return ""
        pace = (time.monotonic() - self._began) / self._num_done
        return f"; {left} left, about {format_duration(pace * left)}"

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
