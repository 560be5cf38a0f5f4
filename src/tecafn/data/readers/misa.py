"""MISA's word-aligned pickles: ``((word_ids, visual, acoustic, words), label, "video[k]")``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tecafn.data.readers.base import READERS, Reader, ReadOptions
from tecafn.data.readers.tuples import TupleLayout, read_tuples
from tecafn.data.samples import DatasetDescription, Sample

_LAYOUT = TupleLayout(
    format="misa",
    fields=("word_ids", "visual", "acoustic", "words"),
    spoken="words",
)


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Samples of a MISA pickle: one split's list, a dictionary of splits, or a folder of files.

    Raises:
        UserError: see ``read_tuples``.
    """
    return read_tuples(source, options, _LAYOUT)


READERS.register(
    "misa",
    Reader(
        summary="MISA's word-aligned pickles: one split's list, a dictionary or folder of splits",
        read=read,
        recognises=_LAYOUT.recognises,
        cuts_ids=True,
    ),
)
