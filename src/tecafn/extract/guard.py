"""Processes that read what strangers made: limits on memory and time around each file.

A decoder may crash, hang or ask for all memory, whatever checks it has. So clips are read in
processes of their own; one that dies, is silent for long or grows too large is ended, and its clip
is a failure with a reason while the others go on.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from tecafn.core.errors import UserError

MEMORY_BYTES: Final = 2_000_000_000
STALL_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.25
_START_SECONDS: Final = 120.0  # to start a process and import what it needs
# On a busy machine a process that gets this share of a core or more is waited for, so many times
# as long, until it has had the time for itself.
_LEAST_SHARE: Final = 0.002
_MOST_PATIENCE: Final = 15.0

Job = TypeVar("Job")
Tell = Callable[[float], None]


@dataclass(frozen=True)
class Limits:
    """What a process may take.

    Args:
        memory_bytes: resident memory, and private memory where the system has such a limit.
        stall_seconds: the longest time without any progress; time in which others had the
            processor is not counted.
        seconds: the longest time for one job; None = any.
    """

    memory_bytes: int = MEMORY_BYTES
    stall_seconds: float = STALL_SECONDS
    seconds: float | None = None


@dataclass(frozen=True)
class Outcome(Generic[Job]):
    """What became of a job.

    Args:
        job: as it was given.
        value: what the function returned; None if it failed.
        error: a line for the user; None if it did not fail.
    """

    job: Job
    value: Any = None
    error: str | None = None


def run_guarded(
    function: Callable[[Any, Tell], Any],
    jobs: Iterable[Job],
    *,
    processes: int = 1,
    limits: Limits | None = None,
    progress: Callable[[Job, float], None] | None = None,
) -> Iterator[Outcome[Job]]:
    """Outcomes as they come, in no order.

    Args:
        function: called in another process with a job and a function that it tells its progress;
            must be importable there, as its jobs and results must be picklable. A ``UserError`` is
            the job's failure; any other exception too, named by its class.
        jobs: taken when a process is free.
        processes: how many at a time.
        limits: of each process; None = the default ones.
        progress: told each job's progress.
    """
    limits = limits or Limits()
    waiting = iter(jobs)
    workers: list[_Worker[Job]] = []
    try:
        exhausted = False
        while True:
            while not exhausted and (idle := _idle(workers, processes, function, limits)):
                try:
                    idle.give(next(waiting))
                except StopIteration:
                    exhausted = True
            busy = [worker for worker in workers if worker.is_busy]
            if not busy:
                return
            for worker in busy:
                if outcome := worker.outcome(progress):
                    yield outcome
            workers = [worker for worker in workers if worker.is_alive]
            if not any(worker.has_message for worker in workers):
                wait([worker.connection for worker in workers], timeout=_POLL_SECONDS)
    finally:
        for worker in workers:
            worker.end()


def call_guarded(
    function: Callable[[Any, Tell], Any],
    job: Any,
    *,
    limits: Limits | None = None,
    progress: Callable[[float], None] | None = None,
) -> Any:
    """One job, in a process of its own.

    Raises:
        UserError: it failed, for whatever reason.
    """
    tell = None if progress is None else (lambda _, seconds: progress(seconds))
    (outcome,) = run_guarded(function, [job], limits=limits, progress=tell)
    if outcome.error is not None:
        raise UserError(outcome.error)
    return outcome.value


class _Worker(Generic[Job]):
    def __init__(self, function: Callable[[Any, Tell], Any], limits: Limits) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve,
            args=(theirs, function.__module__, function.__qualname__, limits.memory_bytes),
            daemon=True,
        )
        self.process.start()
        theirs.close()
        self.is_busy = False
        self.is_alive = True
        self._job: Job
        self._limits = limits
        self._given = self._heard = time.monotonic()
        self._spent = _cpu_seconds(self.process.pid)
        self._is_ready = False

    def give(self, job: Job) -> None:
        self._job = job
        self.is_busy = True
        self._given = self._heard = time.monotonic()
        self._spent = _cpu_seconds(self.process.pid)
        with suppress(OSError):  # it has died: outcome finds out
            self.connection.send(job)

    @property
    def has_message(self) -> bool:
        try:
            return self.connection.poll()
        except OSError:
            return True

    def outcome(self, progress: Callable[[Job, float], None] | None) -> Outcome[Job] | None:
        """What has become of its job by now, if anything has."""
        job = self._job
        try:
            while self.connection.poll():
                kind, value = self.connection.recv()
                self._heard = time.monotonic()
                self._spent = _cpu_seconds(self.process.pid)
                if kind == "ready":
                    self._is_ready = True
                    self._given = self._heard
                    continue
                if kind == "progress":
                    if progress is not None:
                        progress(job, value)
                    continue
                self.is_busy = False
                if kind == "done":
                    return Outcome(job, value)
                if kind == "failed and unfit":
                    self.end()
                return Outcome(job, error=value)
        except (EOFError, OSError):
            self.process.join(5.0)
            return self._failed(self._death())
        now = time.monotonic()
        stall = self._limits.stall_seconds if self._is_ready else _START_SECONDS
        if now - self._heard > stall and self._has_stalled(now - self._heard, stall):
            return self._failed(f"no progress in {stall:g} s; it was given up")
        if self._limits.seconds is not None and now - self._given > self._limits.seconds:
            return self._failed(f"not done in {self._limits.seconds:g} s; it was given up")
        if _resident_bytes(self.process.pid) > self._limits.memory_bytes:
            return self._failed(_too_much(self._limits.memory_bytes))
        return None

    def _has_stalled(self, silent: float, stall: float) -> bool:
        """Does it hang, rather than wait for its turn on a busy machine?"""
        now = _cpu_seconds(self.process.pid)
        if now is None or self._spent is None:
            return True
        spent = now - self._spent
        is_waiting = _LEAST_SHARE * silent < spent < stall
        return not is_waiting or silent > _MOST_PATIENCE * stall

    def _failed(self, reason: str) -> Outcome[Job]:
        self.is_busy = False
        self.end()
        return Outcome(self._job, error=reason)

    def _death(self) -> str:
        code = self.process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"the process that read it was ended by {signal.Signals(-code).name}"
        return f"the process that read it ended with code {code}"

    def end(self) -> None:
        self.is_alive = False
        self.connection.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.process.close()


def _idle(
    workers: list[_Worker[Job]],
    processes: int,
    function: Callable[[Any, Tell], Any],
    limits: Limits,
) -> _Worker[Job] | None:
    """A process without a job, started if there may be another."""
    free = next((worker for worker in workers if worker.is_alive and not worker.is_busy), None)
    if free is None and len(workers) < processes:
        free = _Worker(function, limits)
        workers.append(free)
    return free


def _too_much(memory_bytes: int) -> str:
    return f"it takes more than the {memory_bytes / 1e9:.1f} GB of memory allowed"


def _resident_bytes(pid: int | None) -> int:
    """Of a process; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu_seconds(pid: int | None) -> float | None:
    """That a process has had so far; None where the system does not say."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _serve(connection: Connection, module: str, name: str, memory_bytes: int) -> None:
    """What a process does: jobs until nobody sends any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _limit_memory(memory_bytes)
    # Beside busy processes a thread per core only spins; to be said before NumPy is imported.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    function: Callable[[Any, Tell], Any] = getattr(importlib.import_module(module), name)

    connection.send(("ready", None))
    last = 0.0

    def tell(seconds: float) -> None:
        nonlocal last
        if time.monotonic() - last > _POLL_SECONDS:
            last = time.monotonic()
            connection.send(("progress", seconds))

    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            message = ("done", function(job, tell))
        except UserError as error:
            message = ("failed", " ".join(str(error).split()))
        except MemoryError:
            message = ("failed and unfit", _too_much(memory_bytes))
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            message = ("failed and unfit", f"{type(error).__name__}: {said}")
        try:
            connection.send(message)
        except (BrokenPipeError, OSError):
            return  # whoever asked has gone


def _limit_memory(memory_bytes: int) -> None:
    """Private memory, where the system counts it; the address space says little about use."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = memory_bytes if hard == resource.RLIM_INFINITY else min(hard, memory_bytes)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
