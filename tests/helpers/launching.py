"""Starts the command line in other processes, one or several together, to be watched or killed.

The processes are forked from one that has imported everything, because importing is what takes
the time, and draw no report; otherwise they are what ``python -m tecafn`` or torchrun starts.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# All that a run imports, some of it when it is first needed.
_IMPORTED = (
    "tecafn.cli",
    "tecafn.experiments.cross_validation",
    "tecafn.report.html",
    "transformers.models.bert.modeling_bert",
    "scipy.stats",
    "pyarrow.dataset",
    "pydantic.type_adapter",
    "rich.table",
    "tensorboardX.event_file_writer",
)


@dataclass(frozen=True)
class Ended:
    """What a process left.

    Args:
        code: its exit code, negative for a signal.
        out, err: what it printed.
        written: every path that it opened to write, made, renamed or removed.
    """

    code: int
    out: str
    err: str
    written: tuple[str, ...]


@dataclass(frozen=True)
class Running:
    """A started process."""

    process: BaseProcess
    log: Path

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self, seconds: float = 120.0) -> Ended:
        """Its end; it is an error, and its end, if that takes longer."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"not ended after {seconds} s: {self.text('err')}")
        written = tuple(dict.fromkeys(self.text("written").splitlines()))
        return Ended(self.process.exitcode, self.text("out"), self.text("err"), written)

    def text(self, what: str) -> str:
        return self.log.with_suffix(f".{what}").read_text(encoding="utf-8")


def start(arguments: Sequence[object], log: Path) -> Running:
    """``tecafn arguments``; what it prints goes to files named after ``log``."""
    return _start([str(argument) for argument in arguments], {}, log)


def start_together(arguments: Sequence[object], log: Path, *, num: int) -> list[Running]:
    """``num`` processes, with the environment variables that torchrun gives them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0}
    shared |= {"WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num}
    texts = [str(argument) for argument in arguments]
    return [
        _start(
            texts,
            {name: str(value) for name, value in {**shared, "RANK": r, "LOCAL_RANK": r}.items()},
            log.with_name(f"{log.name}-rank{r}"),
        )
        for r in range(num)
    ]


def run(arguments: Sequence[object], log: Path) -> Ended:
    """``tecafn arguments`` to its end."""
    return start(arguments, log).wait()


def run_together(arguments: Sequence[object], log: Path, *, num: int) -> list[Ended]:
    """``num`` processes to their end, by rank."""
    return [one.wait() for one in start_together(arguments, log, num=num)]


def forked(target: Callable[..., None], arguments: tuple[Any, ...]) -> BaseProcess:
    """A process that calls ``target``, with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    os.environ["OMP_NUM_THREADS"] = "1"  # before the server starts
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def _start(arguments: list[str], environment: dict[str, str], log: Path) -> Running:
    for what in ("out", "err", "written"):
        log.with_suffix(f".{what}").write_text("")
    return Running(forked(_be_tecafn, (arguments, environment, log)), log)


def _be_tecafn(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    import torch

    import tecafn.report.html as report_module
    from tecafn.cli import main

    # A suite that was started as a background job has inherited that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for what, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(log.with_suffix(f".{what}"), os.O_WRONLY | os.O_APPEND), descriptor)
    sys.stdin = open(os.devnull)  # noqa: SIM115 - for the process's life
    _note_writes(log.with_suffix(".written"))
    torch.set_num_threads(1)
    os.fsync = lambda fd: None  # no test cuts the power
    # Drawing takes most of a tiny run's time.
    report_module.write_report = lambda run: (run / "report.html").touch()  # type: ignore[assignment, return-value]
    os.environ.update(environment)
    sys.argv = ["tecafn", *arguments]
    sys.exit(main())


def _note_writes(path: Path) -> None:
    """From now on, note down what this process writes."""
    note = os.open(path, os.O_WRONLY | os.O_APPEND)
    changing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def look(event: str, values: tuple[Any, ...]) -> None:
        if event == "open":
            name, _, flags = values
            changed = [name] if isinstance(flags, int) and flags & changing else []
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate"):
            changed = [values[0]]
        elif event == "os.rename":
            changed = [values[0], values[1]]
        else:
            return
        for name in changed:
            if isinstance(name, str | os.PathLike):
                os.write(note, os.fsencode(os.path.abspath(os.fspath(name))) + b"\n")

    sys.addaudithook(look)


# What a run leaves


def events_of(run_dir: Path) -> list[dict[str, Any]]:
    """The events without what a resume may change: its own line, and times."""
    lines = (run_dir / "events.jsonl").read_text(encoding="ascii").splitlines()
    events = [json.loads(line) for line in lines]
    return [
        {key: value for key, value in event.items() if key != "seconds"}
        for event in events
        if event["event"] not in ("resume", "warning")
    ]


def num_steps(run_dir: Path) -> int:
    """Steps that a run under way has written down."""
    path = run_dir / "events.jsonl"
    return path.read_text(encoding="ascii").count('"phase": ') if path.exists() else 0


def outcome_of(run_dir: Path) -> dict[str, Any]:
    """What must be equal, bit for bit, between a disturbed run and an undisturbed one."""
    files = ["model/model.safetensors", "predictions/valid.csv"]
    files += sorted(
        str(path.relative_to(run_dir)) for path in (run_dir / "checkpoints").rglob("*.safetensors")
    )
    return {name: (run_dir / name).read_bytes() for name in files} | {"events": events_of(run_dir)}


def wait_until(happened: Callable[[], bool], running: Sequence[Running]) -> None:
    """Look every few milliseconds; all must be running meanwhile."""
    deadline = time.monotonic() + 120
    while not happened():
        for one in running:
            assert one.process.is_alive(), one.text("err")
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)
