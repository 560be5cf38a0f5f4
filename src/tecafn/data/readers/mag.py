"""MAG's pickles: ``{"train", "dev", "test": [((words, visual, acoustic), label, segment)]}``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tecafn.data.readers.base import READERS, Reader, ReadOptions
from tecafn.data.readers.tuples import TupleLayout, read_tuples
from tecafn.data.samples import DatasetDescription, Sample

_LAYOUT = TupleLayout(format="mag", fields=("words", "visual", "acoustic"), spoken="words")


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Samples of a MAG pickle, one frame of each modality a word.

    Segments are ``video[k]``, ``video$_$clip`` or ``video_clip``.

    Raises:
        UserError: see ``read_tuples``.
    """
    return read_tuples(source, options, _LAYOUT)


READERS.register(
    "mag",
    Reader(
        summary="MAG-BERT's pickle: a dictionary of splits of word-aligned tuples",
        read=read,
        recognises=_LAYOUT.recognises,
        cuts_ids=True,
    ),
)
