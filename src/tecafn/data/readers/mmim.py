"""MMIM's and TeCaFN's unaligned pickles.

Rows are ``((words, visual, acoustic, actual_words, vlen, alen), label, id)``: ``words`` are numbers
of a vocabulary, ``actual_words`` the words themselves, ``vlen`` and ``alen`` the real frames of
sequences that may be padded at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tecafn.data.readers.base import READERS, Reader, ReadOptions
from tecafn.data.readers.tuples import TupleLayout, read_tuples
from tecafn.data.samples import DatasetDescription, Sample

_LAYOUT = TupleLayout(
    format="mmim",
    fields=("words", "visual", "acoustic", "actual_words", "vlen", "alen"),
    spoken="actual_words",
)


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Samples of an MMIM pickle: one split's list, a dictionary of splits, or a folder of files.

    Frames after ``vlen`` and ``alen`` are padding. Ids are ``video[k]``, ``video$_$clip`` or
    ``video_clip``.

    Raises:
        UserError: see ``read_tuples``; a length is no number of frames that are there.
    """
    return read_tuples(source, options, _LAYOUT)


READERS.register(
    "mmim",
    Reader(
        summary="MMIM's and TeCaFN's unaligned tuples: a list, a dictionary or folder of splits",
        read=read,
        recognises=_LAYOUT.recognises,
        cuts_ids=True,
    ),
)
