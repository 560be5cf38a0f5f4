"""The fast paths by name, and a way to run without them.

A fast path computes what a plainer one computes, sooner. Each is taken wherever it applies, unless
it is switched off here: to measure what it saves (``make bench-fast-paths``), or to compare the two
in a test. ``docs/performance.md`` has a row for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

FastPath = Literal[
    "cpu_attention",
    "dropout_masks",
    "unpacked_lstm",
    "no_mask",
    "packed_weights",
]
FAST_PATHS: tuple[FastPath, ...] = get_args(FastPath)

_OFF: ContextVar[frozenset[FastPath]] = ContextVar("fast paths that are off", default=frozenset())


def is_on(name: FastPath) -> bool:
    """Whether this fast path may be taken."""
    return name not in _OFF.get()


@contextmanager
def without(*names: FastPath) -> Iterator[None]:
    """Take the plainer path instead, inside the ``with`` block and in this thread.

    A gradient is computed on the path that computed the value, wherever ``backward`` is called.

    Raises:
        ValueError: there is no fast path of this name.

    Example:
        >>> with without("dropout_masks"):
        ...     is_on("dropout_masks"), is_on("unpacked_lstm")
        (False, True)
    """
    unknown = sorted(set(names) - set(FAST_PATHS))
    if unknown:
        raise ValueError(f"unknown fast paths {unknown}; known: {', '.join(FAST_PATHS)}")
    token = _OFF.set(_OFF.get() | set(names))
    try:
        yield
    finally:
        _OFF.reset(token)
