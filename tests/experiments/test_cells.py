"""Cells run in processes of their own: what one does to itself, the others do not feel."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tecafn.experiments.cells import (
    LOG_FILE,
    Cell,
    CellRunner,
    Outcome,
    last_line,
    reason_for_exit,
)
from tecafn.in_turn import main as in_turn
from tecafn.records.cell import read_cell_usage

MakeCell = Callable[..., Cell]


@pytest.fixture
def make_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeCell:
    """``make_cell("a", "print(1)")``: a cell whose process runs this code in place of training."""
    codes: dict[str, str] = {}
    monkeypatch.setattr(
        Cell, "commands", lambda cell: ((sys.executable, "-c", codes[cell.row], "train"),)
    )

    def make(name: str, code: str, seed: int = 0) -> Cell:
        codes[name] = code
        return Cell(
            row=name,
            seed=seed,
            run=tmp_path / name / f"seed-{seed}",
            config=tmp_path / "config.toml",
            overrides=(),
            data=tmp_path,
            split="valid",
            device="cpu",
            threads=3,
            convention="mosi",
        )

    return make


def run_all(*cells: Cell, jobs: int = 1) -> list[Outcome]:
    return CellRunner(jobs, lambda cell: None, lambda outcome: None).run(cells)


def test_a_cell_trains_resumes_and_evaluates_with_its_own_settings(tmp_path: Path) -> None:
    cell = Cell(
        row="m",
        seed=4,
        run=tmp_path / "run",
        config=tmp_path / "m.toml",
        overrides=("training.max_epochs=2",),
        data=tmp_path / "store",
        split="test",
        device="cpu",
        threads=1,
        convention="mosi",
    )
    (command,) = cell.commands()  # one process, which imports once
    assert command[:3] == (sys.executable, "-m", "tecafn.in_turn")
    train, evaluate = (" ".join(json.loads(argument)) for argument in command[3:])
    assert train.startswith(f"train {cell.config} --data {cell.data}")
    assert "--resume" in train
    assert "--device cpu" in train
    # The seed comes last, so that nothing else decides it.
    assert train.endswith("--set training.max_epochs=2 --set seed=4")
    assert f"evaluate {cell.run}" in evaluate
    assert "--split test" in evaluate
    assert "--no-report" in train  # one report per cell: the evaluation's
    on_valid = dataclasses.replace(cell, split="valid").commands()[0]
    assert on_valid[:4] == (sys.executable, "-m", "tecafn", "train")
    assert "--no-report" not in on_valid  # nothing comes after training


def test_commands_come_in_turn_until_one_fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    listing, failing = ["list", "configs"], ["data", "check", str(tmp_path / "nowhere")]
    assert in_turn([listing, listing]) == 0
    assert capsys.readouterr().out.count("synthetic/tecafn.toml") == 2
    assert in_turn([failing, listing]) == 2
    assert "synthetic/tecafn.toml" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('all is well')", ""),
        ("import sys; sys.exit('error: it cannot be')", "it cannot be"),
        (
            "import sys; print('error: early on'); print('later noise'); sys.exit(2)",
            "early on",
        ),
        (
            "import sys; print('unexpected KeyError: 3 (--debug shows where)'); sys.exit(1)",
            "unexpected KeyError: 3",
        ),
        ("raise RuntimeError('no such thing')", "exit code 1: RuntimeError: no such thing"),
        ("import os; os._exit(7)", "exit code 7: it said nothing"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "ended by SIGKILL, perhaps for lack of memory",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
    ],
)
def test_however_a_process_ends_there_is_one_line_that_says_why(
    make_cell: MakeCell, code: str, reason: str
) -> None:
    cell = make_cell("a", code)
    (outcome,) = run_all(cell)
    assert outcome.reason == reason
    assert read_cell_usage(cell.run)["reason"] == reason


def test_the_others_go_on_when_one_crashes(make_cell: MakeCell) -> None:
    cells = [
        make_cell("a", "print('a')"),
        make_cell("b", "import os; os.abort()"),
        make_cell("c", "print('c')"),
    ]
    assert [outcome.reason for outcome in run_all(*cells)] == ["", "ended by SIGABRT", ""]


def test_only_what_was_said_this_time_is_the_reason(make_cell: MakeCell) -> None:
    run_all(make_cell("a", "import sys; sys.exit('error: the first time')"))
    (outcome,) = run_all(make_cell("a", "import sys; sys.exit(5)"))
    assert outcome.reason == "exit code 5: it said nothing"
    (outcome,) = run_all(cell := make_cell("a", "pass"))
    assert outcome.reason == read_cell_usage(cell.run)["reason"] == ""


def test_a_process_gets_its_threads_and_no_keyboard(make_cell: MakeCell) -> None:
    code = "import os, sys; print(os.environ['OMP_NUM_THREADS'], repr(sys.stdin.read()))"
    cell = make_cell("a", code)
    run_all(cell)
    assert last_line(cell) == "3 ''"


def test_memory_is_the_most_that_the_process_itself_held(make_cell: MakeCell) -> None:
    # More than this process has ever held, which is where the system starts counting.
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    cell = make_cell("a", f"held = b'x' * {ours + 200_000_000}; del held")
    run_all(cell)
    peak = read_cell_usage(cell.run)["peak_memory_bytes"]
    assert ours + 200e6 < peak < ours + 300e6
    # A later attempt, after a resume, may need less; the most that was needed stays.
    run_all(make_cell("a", f"held = b'x' * {ours + 100_000_000}"))
    assert read_cell_usage(cell.run)["peak_memory_bytes"] == peak


def test_memory_below_our_own_peak_is_not_claimed(make_cell: MakeCell) -> None:
    # The system starts counting a child's peak where its parent's stands.
    cell = make_cell("a", "pass")
    run_all(cell)
    assert read_cell_usage(cell.run)["peak_memory_bytes"] is None


def test_jobs_run_side_by_side_and_no_more_of_them(make_cell: MakeCell) -> None:
    lock, running, most = threading.Lock(), [0], [0]

    def started(cell: Cell) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])

    def ended(outcome: Outcome) -> None:
        with lock:
            running[0] -= 1

    cells = [make_cell(name, "import time; time.sleep(0.5)") for name in "abcde"]
    CellRunner(2, started, ended).run(cells)
    assert most[0] == 2


def test_an_interruption_leaves_no_process_behind_and_begins_no_other(
    make_cell: MakeCell, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    waiting = make_cell(
        "waits", f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )

    def ended(outcome: Outcome) -> None:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        raise KeyboardInterrupt

    began = time.monotonic()
    cells = [waiting, make_cell("quick", "pass"), make_cell("later", "pass")]
    with pytest.raises(KeyboardInterrupt):
        CellRunner(2, lambda cell: None, ended).run(cells)
    assert time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    # It did not fail: it is open.
    assert "reason" not in read_cell_usage(waiting.run)


def test_a_process_that_will_not_end_is_ended(
    make_cell: MakeCell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tecafn.experiments.cells._GRACE_SECONDS", 0.2)
    ready = tmp_path / "ready"
    deaf = make_cell(
        "deaf",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"open({str(ready)!r}, 'w').close(); time.sleep(60)",
    )

    def ended(outcome: Outcome) -> None:
        while not ready.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        CellRunner(2, lambda cell: None, ended).run([deaf, make_cell("quick", "pass")])
    assert time.monotonic() - began < 30


def test_a_cell_is_finished_when_its_split_is_evaluated(make_cell: MakeCell) -> None:
    cell = make_cell("a", "pass")
    assert not cell.is_finished()
    cell.run.mkdir(parents=True)
    record = {"format_version": 1, "evaluations": {"test": {}}}
    (cell.run / "record.json").write_text(json.dumps(record))
    assert not cell.is_finished()
    record["evaluations"] = {"valid": {"convention": "sims"}}
    (cell.run / "record.json").write_text(json.dumps(record))
    assert not cell.is_finished()  # by the measures of other data
    record["evaluations"] = {"valid": {"convention": "mmsa"}}  # as version 0.1 calls mosi's
    (cell.run / "record.json").write_text(json.dumps(record))
    assert cell.is_finished()


def test_a_folder_that_cannot_be_written_is_a_reason(make_cell: MakeCell, tmp_path: Path) -> None:
    cell = make_cell("a", "pass")
    (tmp_path / "a").write_text("a file is in the way")
    (outcome,) = run_all(cell)
    assert str(tmp_path / "a") in outcome.reason
    assert "\n" not in outcome.reason


def test_a_reason_is_read_past_broken_characters(tmp_path: Path) -> None:
    log = tmp_path / LOG_FILE
    log.write_bytes(b"error: caf\xe9 is closed\n")
    assert reason_for_exit(2, log) == "caf\N{REPLACEMENT CHARACTER} is closed"
