"""Work in a thread beside other work, with one progress and an end together.

What reads a clip spends nearly all of its time outside of Python, in decoders and networks, so
that threads do use several cores. What is computed is the same with threads and without.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Generic, Self, TypeVar

Tell = Callable[[float], None]
T = TypeVar("T")

# A picture of 640 x 360 takes 0.7 MB, and its eyes hold on to it.
_NUM_AHEAD: Final = 4
_IN_TURN: ContextVar[bool] = ContextVar("work is done in turn", default=False)


@contextmanager
def in_turn() -> Iterator[None]:
    """Do all work in the thread that asks for it, to see what each part takes."""
    token = _IN_TURN.set(True)
    try:
        yield
    finally:
        _IN_TURN.reset(token)


class Beside(Generic[T]):
    """Calls a function in a thread of its own, while what stands within the ``with`` goes on.

    Progress is that of the work within, then that of the function; before that the function's
    progress says again what was said last, as a sign of life.

    Args:
        function: given what it tells its progress. Where the work within fails, it is ended the
            next time that it does.
        tell: told seconds that are done, by one thread at a time.

    Example:
        >>> with Beside(lambda tell: sum(range(10)), print) as beside:
        ...     beside.tell(1.0)
        ...     beside.result()
        1.0
        45
    """

    def __init__(self, function: Callable[[Tell], T], tell: Tell) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._last = 0.0
        self._is_awaited = self._is_given_up = False
        self._pool = ThreadPoolExecutor(1)
        self._future: Future[T]
        if _IN_TURN.get():
            self._future = _done(lambda: function(self._told_by_function))
        else:
            self._future = self._pool.submit(function, self._told_by_function)

    def tell(self, seconds: float) -> None:
        """So much of the work within is done; raises what the function ended in, if it did."""
        if self._future.done():
            self._future.result()
        with self._lock:
            self._last = seconds
            self._tell(seconds)

    def result(self) -> T:
        """What the function returns or raises, waited for."""
        self._is_awaited = True
        return self._future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._is_given_up = kind is not None
        self._pool.shutdown()

    def _told_by_function(self, seconds: float) -> None:
        if self._is_given_up:
            raise _GivenUpError
        with self._lock:
            self._tell(seconds if self._is_awaited else self._last)


class Later(Generic[T]):
    """Calls that a thread of its own makes one after the other, a few of them behind the caller.

    The thread ends with ``close``, or when nothing refers to this any more.

    Example:
        >>> with Later[int]() as later:
        ...     [later(pow, 2, n).result() for n in range(3)]
        [1, 2, 4]
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._open: deque[Future[T]] = deque()

    def __call__(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Make this call after those before it; waits while too many have not been made."""
        if _IN_TURN.get():
            return _done(lambda: function(*arguments))
        if len(self._open) >= _NUM_AHEAD:
            self._open.popleft().exception()  # waited for; whoever holds it learns what it says
        call = self._pool.submit(function, *arguments)
        self._open.append(call)
        return call

    def close(self) -> None:
        """Make the calls that are open, and end the thread."""
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ahead(items: Iterator[T]) -> Generator[T]:
    """The same items, made in a thread of its own, a few of them before they are asked for.

    Close it before what the items come from.

    Example:
        >>> list(ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    if _IN_TURN.get():
        yield from items
        return
    once = (item for item in items)  # which, once at its end, asks the items no more
    end = object()
    with Later[T | object]() as later:
        coming = deque(later(next, once, end) for _ in range(_NUM_AHEAD))
        while (item := coming.popleft().result()) is not end:
            coming.append(later(next, once, end))
            yield item  # type: ignore[misc]  # it is no end, so it is an item


def _done(function: Callable[[], T]) -> Future[T]:
    """A call that has been made."""
    future: Future[T] = Future()
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
    return future


class _GivenUpError(Exception):
    """Nobody waits for the result any more."""
