"""Processes around what strangers made."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tecafn.core.errors import UserError
from tecafn.extract.guard import Limits, Outcome, call_guarded, run_guarded

Tell = Callable[[float], None]


def behave(job: str | None, tell: Tell) -> str:
    tell(1.5)
    if job == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif job == "exit":
        os._exit(3)
    elif job == "hang":
        time.sleep(60)
    elif job == "nap":
        time.sleep(3)
    elif job == "spin":
        while True:
            pass
    elif job == "grow":
        kept = []
        for number in range(100):
            kept.append(bytearray(50_000_000))
            tell(number)
    elif job == "refuse":
        raise UserError("not a clip:\n really")
    elif job == "raise":
        raise ValueError("oops")
    return f"{job} done"


def test_a_job_that_fails_in_any_way_is_a_line_and_the_others_go_on() -> None:
    jobs = ["a", "die", "b", "hang", "exit", "grow", "refuse", "raise", "c"]
    limits = Limits(memory_bytes=600_000_000, stall_seconds=5.0)
    progress: list[tuple[str, float]] = []
    found: dict[str, Outcome[str]] = {
        outcome.job: outcome
        for outcome in run_guarded(
            behave,
            jobs,
            processes=2,
            limits=limits,
            progress=lambda job, seconds: progress.append((job, seconds)),
        )
    }
    assert sorted(found) == sorted(jobs)
    assert [found[job].value for job in "abc"] == ["a done", "b done", "c done"]
    assert found["die"].error == "the process that read it was ended by SIGSEGV"
    assert found["exit"].error == "the process that read it ended with code 3"
    assert found["hang"].error == "no progress in 5 s; it was given up"
    assert found["grow"].error == "it takes more than the 0.6 GB of memory allowed"
    assert found["refuse"].error == "not a clip: really"
    assert found["raise"].error == "ValueError: oops"
    assert ("a", 1.5) in progress


def test_one_guarded_call_gives_its_value_or_an_error() -> None:
    assert call_guarded(behave, "x") == "x done"
    with pytest.raises(UserError, match="not a clip: really"):
        call_guarded(behave, "refuse")


def test_a_job_may_be_none() -> None:
    assert call_guarded(behave, None) == "None done"
    found = [outcome.value for outcome in run_guarded(behave, ["a", None, None])]
    assert found == ["a done", "None done", "None done"]


def test_a_process_that_waits_for_its_turn_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is the time that it had for itself, not what a clock on the wall says."""
    limits = Limits(stall_seconds=1.0)
    spent = iter(range(1_000_000))

    def little(pid: int | None) -> float:
        return next(spent) / 50  # a fiftieth of a second per look

    monkeypatch.setattr("tecafn.extract.guard._cpu_seconds", little)
    assert call_guarded(behave, "nap", limits=limits) == "nap done"
    monkeypatch.setattr("tecafn.extract.guard._cpu_seconds", lambda pid: 0.0)
    with pytest.raises(UserError, match=r"no progress in 1 s; it was given up"):
        call_guarded(behave, "nap", limits=limits)


def test_a_process_that_works_without_progress_is_given_up() -> None:
    with pytest.raises(UserError, match="no progress in 2 s; it was given up"):
        call_guarded(behave, "spin", limits=Limits(stall_seconds=2.0))
