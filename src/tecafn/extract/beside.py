"""Work in a thread beside other work, with one progress and an end together.

What reads a clip spends nearly all of its time outside of Python, in decoders and networks, so
that threads do use several cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Self, TypeVar

Tell = Callable[[float], None]
T = TypeVar("T")


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


class _GivenUpError(Exception):
    """Nobody waits for the result any more."""
