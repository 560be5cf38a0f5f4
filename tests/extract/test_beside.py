"""Work in a thread beside other work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tecafn.core.errors import UserError
from tecafn.extract.beside import Beside, Later, ahead, in_turn

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


def test_items_are_made_ahead_and_no_further_than_a_few() -> None:
    made: list[int] = []
    is_made = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 3:
                is_made.set()
            yield number

    coming = ahead(items())
    assert next(coming) == 0
    assert is_made.wait(30.0)  # the others, while nobody asks
    coming.close()
    assert len(made) <= 6


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 50])
def test_all_items_come_in_their_order_and_their_source_is_asked_no_more_at_its_end(
    count: int,
) -> None:
    ends: list[int] = []

    class Source(Iterator[int]):
        number = -1

        def __next__(self) -> int:
            self.number += 1
            if self.number >= count:
                ends.append(self.number)
                raise StopIteration
            return self.number

    assert list(ahead(Source())) == list(range(count))
    assert len(ends) == 1


def test_an_error_comes_where_its_item_would_and_is_the_last() -> None:
    def items() -> Iterator[int]:
        yield from range(6)
        raise UserError("damaged")

    seen: list[int] = []
    with pytest.raises(UserError, match="damaged"):
        seen.extend(ahead(items()))
    assert seen == list(range(6))


def test_calls_are_made_in_turn_a_few_behind_and_all_before_the_end() -> None:
    made: list[int] = []
    go_on = threading.Event()

    def call(number: int) -> int:
        assert go_on.wait(30.0)
        made.append(number)
        return number

    with Later[int]() as later:
        calls = [later(call, number) for number in range(4)]
        assert made == []
        threading.Timer(0.2, go_on.set).start()
        calls.append(later(call, 4))  # too many are open: the first is waited for
        assert 0 in made
    assert made == [0, 1, 2, 3, 4] == [one.result() for one in calls]


def test_an_error_of_a_call_is_told_to_who_asks_for_its_result() -> None:
    def fail() -> None:
        raise UserError("no eye")

    with Later[None]() as later:
        calls = [later(fail) for _ in range(9)]
        with pytest.raises(UserError, match="no eye"):
            calls[0].result()


def test_in_turn_everything_is_done_by_who_asks() -> None:
    threads: list[str] = []

    def note(*_: object) -> int:
        threads.append(threading.current_thread().name)
        return 3

    with in_turn():
        with Beside(note, lambda _: None) as beside, Later[int]() as later:
            assert (beside.result(), later(note).result()) == (3, 3)
        assert list(ahead(note() for _ in range(2))) == [3, 3]
    assert set(threads) == {threading.current_thread().name}
    assert len(threads) == 4
