"""Several processes share a folder: each cell is run by one, and by another where that one died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tecafn.experiments.cells import Cell, CellRunner, Outcome
from tecafn.experiments.claims import CLAIM_FILE, Claims, is_locked
from tecafn.training.run_lock import run_lock

# A runner whose cells note that they ran; `first` of the arguments is the folder, then seconds.
RUNNER = """
import sys
from pathlib import Path
from tecafn.experiments.cells import Cell, CellRunner
folder, seconds = Path(sys.argv[1]), sys.argv[2]
Cell.is_finished = lambda cell: (cell.run / "done").exists()
Cell.commands = lambda cell: ((sys.executable, "-c", f'''
import os, time
with open({str(folder / "log")!r}, "a") as log: log.write({cell.row!r} + chr(10))
time.sleep({seconds})
open({str(cell.run / "done")!r}, "w").close()
''', "run"),)
cells = [
    Cell(row=name, seed=0, run=folder / name, config=folder, overrides=(), data=folder,
         split="valid", device="cpu", threads=1, convention="mosi")
    for name in "abcdefgh"
]
print("ready", flush=True)
sys.stdin.readline()
for outcome in CellRunner(2, lambda cell: None, lambda outcome: None).run(cells):
    print(outcome.cell.row, outcome.is_elsewhere, repr(outcome.reason), flush=True)
"""


def start(folder: Path, seconds: float = 0.3) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(folder), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_share_a_folder_and_run_no_cell_twice(tmp_path: Path) -> None:
    processes = [start(tmp_path) for _ in range(2)]
    for process in processes:
        go(process)
    said = [process.communicate(timeout=600)[0].split("\n")[:-1] for process in processes]
    assert sorted((tmp_path / "log").read_text().split()) == list("abcdefgh")
    # Both end with all of them, and each ran some.
    for lines in said:
        assert [line.split()[0] for line in lines] == list("abcdefgh")
        assert all(line.endswith("''") for line in lines)
        assert {line.split()[1] for line in lines} == {"True", "False"}
    assert not list(tmp_path.glob("*/*claim*"))


def test_what_a_killed_process_left_is_run_again_and_nothing_else(tmp_path: Path) -> None:
    process = start(tmp_path, seconds=1.0)
    go(process)
    log = tmp_path / "log"
    until = time.monotonic() + 30
    while not log.exists() or len(log.read_text().split()) < 3:
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    begun = log.read_text().split()
    finished = {path.parent.name for path in tmp_path.glob("*/done")}
    assert list(tmp_path.glob(f"*/{CLAIM_FILE}"))
    again = start(tmp_path)
    go(again)
    assert again.communicate(timeout=600)[0].count("''") == 8
    ran = log.read_text().split()
    assert set(ran) == set("abcdefgh")
    assert all(ran.count(name) == 1 for name in finished)
    assert all(ran.count(name) <= 2 for name in begun)
    assert not list(tmp_path.glob("*/*claim*"))


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A cell's folder with a claim of another machine."""
    claim = {"token": "theirs", "machine": "another", "pid": 1}
    (tmp_path / CLAIM_FILE).write_text(json.dumps(claim), encoding="ascii")
    return tmp_path


def test_a_claim_of_another_machine_holds_while_it_is_touched(foreign: Path) -> None:
    claims = Claims(stale_seconds=0.3)
    for k in range(5):
        os.utime(foreign / CLAIM_FILE, (k, k))
        with claims.claimed(foreign) as is_ours:
            assert not is_ours
        time.sleep(0.1)


def test_a_claim_that_nobody_touches_is_taken_by_one(foreign: Path) -> None:
    several = [Claims(stale_seconds=0.2) for _ in range(4)]
    for claims in several:
        with claims.claimed(foreign) as is_ours:
            assert not is_ours
    time.sleep(0.3)
    with several[0].claimed(foreign) as first:
        assert first
        for claims in several[1:]:
            with claims.claimed(foreign) as is_ours:
                assert not is_ours
    assert not (foreign / CLAIM_FILE).exists()


def test_a_claim_that_was_cut_short_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / CLAIM_FILE).write_text("", encoding="ascii")
    claims = Claims(stale_seconds=0.1)
    with claims.claimed(tmp_path) as is_ours:
        assert not is_ours
    time.sleep(0.2)
    with claims.claimed(tmp_path) as is_ours:
        assert is_ours


def test_a_right_that_died_with_its_holder_is_no_dead_end(foreign: Path) -> None:
    (foreign / f".{CLAIM_FILE}.theirs.0").write_text("", encoding="ascii")
    claims = Claims(stale_seconds=0.1)
    for expected in (False, False, True):
        with claims.claimed(foreign) as is_ours:
            assert is_ours == expected
        time.sleep(0.2)


def test_held_claims_are_touched(tmp_path: Path) -> None:
    with Claims(touch_seconds=0.05) as claims, claims.claimed(tmp_path) as is_ours:
        assert is_ours
        path = tmp_path / CLAIM_FILE
        os.utime(path, (0, 0))
        time.sleep(0.3)
        assert path.stat().st_mtime > 0


def test_a_run_that_somebody_writes_is_left_to_him(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training process of a killed runner goes on; its cell is waited for."""
    assert not is_locked(tmp_path)
    cell = Cell(
        row="a", seed=0, run=tmp_path, config=tmp_path, overrides=(), data=tmp_path, split="valid",
        device="cpu", threads=1, convention="mosi",
    )  # fmt: skip
    finished: list[bool] = []
    monkeypatch.setattr(Cell, "is_finished", lambda cell: bool(finished))
    monkeypatch.setattr(Cell, "commands", lambda cell: ((sys.executable, "-c", "1/0", "train"),))
    seen: list[object] = []

    def waiting(cells: object) -> None:
        seen.append(cells)
        assert is_locked(tmp_path)
        finished.append(True)
        held.__exit__(None, None, None)

    held = run_lock(tmp_path)
    held.__enter__()
    monkeypatch.setattr("tecafn.experiments.cells._POLL_SECONDS", 0.01)
    runner = CellRunner(1, seen.append, lambda outcome: None, waiting)
    assert runner.run([cell]) == [Outcome(cell, "", 0.0, is_elsewhere=True)]
    assert seen == [[cell]]
