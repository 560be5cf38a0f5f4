"""Work in a thread beside other work."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tecafn.core.errors import UserError
from tecafn.extract.beside import Beside

Tell = Callable[[float], None]


def test_both_are_at_work_at_once_and_the_result_is_waited_for() -> None:
    within, beside = threading.Event(), threading.Event()

    def meet(tell: Tell) -> str:
        beside.set()
        assert within.wait(30.0)
        return threading.current_thread().name

    with Beside(meet, lambda _: None) as other:
        assert beside.wait(30.0)
        within.set()
        assert other.result() != threading.current_thread().name


def test_progress_is_that_within_and_then_that_beside() -> None:
    told: list[float] = []
    go_on = threading.Event()

    def tell_twice(tell: Tell) -> None:
        tell(0.5)
        assert go_on.wait(30.0)
        tell(0.6)

    with Beside(tell_twice, told.append) as other:
        while not told:
            pass
        other.tell(7.0)
        threading.Timer(0.2, go_on.set).start()
        other.result()
    assert told == [0.0, 7.0, 0.6]


def test_an_error_beside_ends_the_work_within() -> None:
    def fail(tell: Tell) -> None:
        raise UserError("no model")

    def go_on() -> None:
        with Beside(fail, lambda _: None) as other:
            while True:
                other.tell(1.0)

    with pytest.raises(UserError, match="no model"):
        go_on()


def test_an_error_within_ends_the_work_beside() -> None:
    ended = threading.Event()

    def go_on(tell: Tell) -> None:
        try:
            while True:
                tell(0.0)
        finally:
            ended.set()

    with pytest.raises(UserError, match="no picture"), Beside(go_on, lambda _: None):
        raise UserError("no picture")
    assert ended.is_set()
