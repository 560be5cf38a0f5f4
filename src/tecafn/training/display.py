"""What a person sees while training: a progress bar on a terminal, else one line an epoch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tecafn.core.parallel import rank


class Display:
    """Writes to stderr, from rank 0 only.

    Args:
        num_batches: batches of the whole run, all epochs and phases: what the remaining time is
            computed from. A run that stops early ends before it.
        max_epochs: epochs at most.
        monitor: name of the validation metric to show.
        progress: False, or a stderr that is no terminal, gives one line an epoch instead of a bar.
    """

    def __init__(self, *, num_batches: int, max_epochs: int, monitor: str, progress: bool) -> None:
        self._num_batches = num_batches
        self._max_epochs = max_epochs
        self._monitor = monitor
        self._speaks = rank() == 0
        self._wants_bar = self._speaks and progress and sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Display:
        if self._wants_bar:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(bar_width=None),
                TextColumn("batch {task.fields[batch]}"),
                TextColumn("loss {task.fields[loss]}"),
                TextColumn(f"valid {self._monitor} {{task.fields[valid]}}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                # Redrawing costs time that two cores would rather train with.
                refresh_per_second=2,
            )
            self._task = self._bar.add_task(
                "train", total=self._num_batches, epoch="-", batch="-", loss="-", valid="-"
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def message(self, text: str) -> None:
        """One line for the user, above the bar if there is one."""
        if not self._speaks:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def step(
        self, *, epoch: int, phase: str, batch: int, num_batches: int, done: int, total: float
    ) -> None:
        """After an optimizer step.

        Args:
            epoch: from 0.
            phase: its name.
            batch: batches done in this phase of this epoch.
            num_batches: of this phase in an epoch.
            done: batches done in the whole run.
            total: the step's total loss.
        """
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=done,
                epoch=f"{epoch + 1}/{self._max_epochs}",
                batch=f"{batch}/{num_batches} ({phase})",
                loss=f"{total:.4f}",
            )

    def epoch(
        self, *, epoch: int, loss: float, valid: Mapping[str, float], best: bool, seconds: float
    ) -> None:
        """After an epoch's validation.

        Args:
            epoch: from 0.
            loss: mean total loss over the epoch's steps.
            valid: metrics on the validation split.
            best: is it the best epoch so far?
            seconds: the epoch took.
        """
        value = f"{valid[self._monitor]:.4f}"
        if self._bar is not None:
            self._bar.update(self._task, valid=value)
            return
        mark = ", best so far" if best else ""
        self.message(
            f"epoch {epoch + 1}/{self._max_epochs}: loss {loss:.4f}, "
            f"valid {self._monitor} {value}{mark}, {seconds:.1f} s"
        )
