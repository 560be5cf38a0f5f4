"""Cells of a comparison: one row with one seed, trained in a process of its own.

A cell that crashes, is killed or runs out of memory takes nothing else with it, and its process
says what it needed: time, and the most memory it held. Imports no torch, so that the process that
waits for the cells stays small.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock

from tecafn.core.errors import UserError
from tecafn.core.threads import AT_MOST, NUMBER
from tecafn.experiments.claims import Claims, is_locked
from tecafn.records.cell import add_cell_usage, read_cell_usage
from tecafn.records.measured import convention_of_evaluation
from tecafn.records.record import read_record

LOG_FILE = "cell.log"
# How long a cell that is told to end may take to do so.
_GRACE_SECONDS = 30.0
# How often cells that others run are looked at.
_POLL_SECONDS = 2.0
# What getrusage counts in.
_BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row with one seed.

    Args:
        row: its name, as the table shows it.
        seed: of everything random.
        run: the run's directory.
        config: a TOML file.
        overrides: ``key=value``, the seed not among them.
        data: a store.
        split: the one to be evaluated.
        device: auto, cpu or cuda.
        threads: threads of the process's arithmetic.
        convention: by which the data are measured.
        allow_data_errors: train and evaluate also on data that ``data check`` calls wrong.
        may_use_fewer: they are a share of the cores and not what somebody asked for, so that the
            run may take one thread where it is as fast.
    """

    row: str
    seed: int
    run: Path
    config: Path
    overrides: tuple[str, ...]
    data: Path
    split: str
    device: str
    threads: int
    convention: str
    may_use_fewer: bool = False
    allow_data_errors: bool = False

    def commands(self) -> tuple[tuple[str, ...], ...]:
        """Processes that are run one after the other, until the cell is finished."""
        data = ["--data", str(self.data), "--device", self.device]
        data += ["--allow-data-errors"] if self.allow_data_errors else []
        settings = [f for o in (*self.overrides, f"seed={self.seed}") for f in ("--set", o)]
        train = ["train", str(self.config), *data, "--out", str(self.run), "--resume", "--quiet"]
        evaluate = ["evaluate", str(self.run), *data, "--split", self.split, "--json"]
        if self.split == "valid":  # whose evaluation belongs to training
            tecafn = (sys.executable, "-m", "tecafn")
            return (*tecafn, *train, *settings), (*tecafn, *evaluate)
        train += ["--no-report", *settings]  # the evaluation draws it
        both = (json.dumps(train), json.dumps(evaluate))
        return ((sys.executable, "-m", "tecafn.in_turn", *both),)

    def is_finished(self) -> bool:
        """Is it trained, and evaluated on the split by the data's measures?

        Raises:
            UserError: its record cannot be read.
        """
        if not (self.run / "record.json").exists():
            return False
        evaluation = read_record(self.run)["evaluations"].get(self.split)
        if evaluation is None:
            return False
        measured_by = convention_of_evaluation(evaluation)
        return measured_by is not None and measured_by.name == self.convention


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Args:
        cell: which.
        reason: why it failed, in one line; empty if it is finished.
        seconds: wall-clock time of its processes, this time.
        is_elsewhere: another process ran it.
    """

    cell: Cell
    reason: str
    seconds: float
    is_elsewhere: bool = False


@dataclass
class CellRunner:
    """Runs cells, several at once, and shares them with other runners of the same folder.

    A cell is claimed while it runs. One that another process or machine has claimed is left to it;
    this runner waits until it is finished, or runs it where its runner has died.

    Args:
        jobs: how many at once.
        started: called with a cell when its process starts.
        ended: called with its outcome.
        waiting: called with the cells that others run, when nothing else is left to do.

    All are called one at a time, ``started`` and ``ended`` from the cells' threads.
    """

    jobs: int
    started: Callable[[Cell], None]
    ended: Callable[[Outcome], None]
    waiting: Callable[[Sequence[Cell]], None] = lambda _cells: None
    claims: Claims = field(default_factory=Claims)
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)
    _stop: Event = field(default_factory=Event)

    def run(self, cells: Sequence[Cell]) -> list[Outcome]:
        """All outcomes, in the order of ``cells``.

        On an interruption the cells that run are told to end, which leaves each with its last
        checkpoint, and the others are not begun.
        """
        outcomes: dict[Cell, Outcome] = {}
        with self.claims:
            elsewhere: list[Cell] = []
            while len(outcomes) < len(cells):
                left = [cell for cell in cells if cell not in outcomes]
                found = self._run_round(left, seen_elsewhere=set(elsewhere))
                outcomes |= {outcome.cell: outcome for outcome in found if outcome is not None}
                still = [cell for cell in left if cell not in outcomes]
                if still and still != elsewhere:
                    self.waiting(still)
                elsewhere = still
                if still:
                    time.sleep(_POLL_SECONDS)
        return [outcomes[cell] for cell in cells]

    def _run_round(
        self, cells: Sequence[Cell], *, seen_elsewhere: Collection[Cell]
    ) -> list[Outcome | None]:
        """Run what nobody else runs; None for a cell that somebody does."""
        pool = ThreadPoolExecutor(max_workers=self.jobs, thread_name_prefix="cell")
        futures: list[Future[Outcome | None]] = [
            pool.submit(self._run_cell, cell, cell in seen_elsewhere) for cell in cells
        ]
        is_done = False
        try:
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
            is_done = True
        finally:
            # Whatever ends this early, nothing is left running behind it.
            if not is_done:
                self._stop.set()
                for future in futures:
                    future.cancel()
                self._end_running()
            pool.shutdown(wait=True)
        return [future.result() for future in futures]

    def _end_running(self) -> None:
        with self._lock:
            running = list(self._running)
        for process in running:
            if process.returncode is None:
                os.kill(process.pid, signal.SIGTERM)
        until = time.monotonic() + _GRACE_SECONDS
        for process in running:
            while process.returncode is None and time.monotonic() < until:
                time.sleep(0.05)
            if process.returncode is None:
                os.kill(process.pid, signal.SIGKILL)

    def _run_cell(self, cell: Cell, was_elsewhere: bool) -> Outcome | None:
        try:
            with self.claims.claimed(cell.run) as is_ours:
                # A runner that was killed may have left its training process at work.
                if not is_ours or is_locked(cell.run):
                    return None
                outcome = self._outcome_of_others(cell, was_elsewhere) or self._run_here(cell)
        except UserError as error:
            outcome = Outcome(cell, str(error), 0.0)
        if not self._stop.is_set():
            with self._lock:
                self.ended(outcome)
        return outcome

    def _outcome_of_others(self, cell: Cell, was_elsewhere: bool) -> Outcome | None:
        """How a cell ended that another process ran since we looked; None of one that is open."""
        if cell.is_finished():
            return Outcome(cell, "", 0.0, is_elsewhere=True)
        reason = read_cell_usage(cell.run).get("reason", "") if was_elsewhere else ""
        return Outcome(cell, reason, 0.0, is_elsewhere=True) if reason else None

    def _run_here(self, cell: Cell) -> Outcome:
        began = time.monotonic()
        with self._lock:
            self.started(cell)
        try:
            reason = self._run_commands(cell)
        except UserError as error:
            reason = str(error)
        except OSError as error:
            reason = f"{error.filename or cell.run}: {error.strerror or error}"
        return Outcome(cell, reason, time.monotonic() - began)

    def _run_commands(self, cell: Cell) -> str:
        """The reason of a failure, or an empty string."""
        cell.run.mkdir(parents=True, exist_ok=True)
        reason = ""
        for command in cell.commands():
            if self._stop.is_set():
                return "interrupted"
            reason = self._run_command(cell, command)
            # Training has evaluated the validation split already.
            if reason or cell.is_finished():
                break
        if not self._stop.is_set():
            add_cell_usage(cell.run, {"reason": reason})
        return reason

    def _run_command(self, cell: Cell, command: Sequence[str]) -> str:
        path = cell.run / LOG_FILE
        count = str(cell.threads)
        environment = os.environ | dict.fromkeys(NUMBER, count)
        environment.pop(AT_MOST, None)
        if cell.may_use_fewer:
            environment[AT_MOST] = count
        # The system starts counting a child's peak memory from ours.
        least = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with path.open("ab") as log:
            begin = log.tell()
            began = time.monotonic()
            with self._lock:
                if self._stop.is_set():
                    return "interrupted"
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    # Ctrl-C reaches the cells through us, so that each is told once.
                    start_new_session=True,
                )
                self._running.add(process)
            # In place of process.wait(): what this very child used, and not all children.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            with self._lock:
                self._running.discard(process)
        if command[3] != "evaluate":
            known = usage.ru_maxrss > least
            add_cell_usage(
                cell.run,
                {
                    "threads": cell.threads,
                    "jobs": self.jobs,
                    "process_seconds": round(time.monotonic() - began, 1),
                    "peak_memory_bytes": usage.ru_maxrss * _BYTES_PER_UNIT if known else None,
                },
            )
        return reason_for_exit(process.returncode, path, begin)


def reason_for_exit(returncode: int, log: Path, begin: int = 0) -> str:
    """Why a process failed, in one line, from its exit code and its log after ``begin``.

    Example:
        >>> reason_for_exit(0, Path("no-log-is-read"))
        ''
    """
    if returncode == 0:
        return ""
    lines = [line.strip() for line in _text_behind(log, begin).splitlines() if line.strip()]
    for line in reversed(lines):
        for opening in ("error: ", "unexpected "):
            if line.startswith(opening):
                return line.removeprefix("error: ").removesuffix(" (--debug shows where)")
    if returncode < 0:
        name = signal.Signals(-returncode).name
        # The out-of-memory killer sends SIGKILL and leaves no message.
        return f"ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
    return f"exit code {returncode}: {lines[-1] if lines else 'it said nothing'}"


def last_line(cell: Cell) -> str:
    """What the cell's process said last, for a display."""
    try:
        size = (cell.run / LOG_FILE).stat().st_size
        lines = _text_behind(cell.run / LOG_FILE, max(0, size - 2000)).splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def _text_behind(path: Path, begin: int) -> str:
    with path.open("rb") as file:
        file.seek(begin)
        return file.read().decode("utf-8", "replace")
