"""Memory maps of source files, and giving their pages back while they are read.

A mapped file is not loaded, yet what has been touched of it counts as the process's memory until
the system wants it back. A source larger than memory is read once, from front to back: what is
behind can go at once.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from tecafn.data.samples import Sample

_RELEASE_EVERY: Final = 256 * 2**20
_OPEN: Final[weakref.WeakSet[mmap.mmap]] = weakref.WeakSet()


def remember(mapping: mmap.mmap) -> mmap.mmap:
    """``mapping``, whose pages are from now on given back by ``releasing``."""
    _OPEN.add(mapping)
    return mapping


def map_array(
    source: Any, dtype: np.dtype[Any], *, offset: int, shape: tuple[int, ...], order: Any
) -> np.memmap[Any, Any]:
    """An array that lies in the file ``source`` (a path or an open file), read-only."""
    array = np.memmap(source, dtype, "r", offset, shape, order)
    remember(array._mmap)  # type: ignore[attr-defined]
    return array


def release_pages() -> None:
    """Give back the pages of all maps; they come again when they are touched."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapping in list(_OPEN):
            if not mapping.closed:
                mapping.madvise(mmap.MADV_DONTNEED)


def releasing(samples: Iterator[Sample]) -> Iterator[Sample]:
    """The same samples; after every 256 MB of frames the maps' pages are given back."""
    num_bytes = 0
    for sample in samples:
        yield sample
        num_bytes += sum(frames.nbytes for frames in sample.sequences.values())
        if num_bytes >= _RELEASE_EVERY:
            num_bytes = 0
            release_pages()
    release_pages()
