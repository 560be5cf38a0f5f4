"""What a table of labels shows of the dataset it belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tecafn.core.modality import Modality
from tecafn.data.readers.table import table_rows
from tecafn.data.samples import SourceFile
from tecafn.data.which import Evidence


def table_evidence(
    table: Path, *, widths: Mapping[Modality, int], files: tuple[SourceFile, ...]
) -> Evidence:
    """The labels and split sizes of a label.csv, with the columns of the frames beside it.

    Raises:
        UserError: see ``table_rows``.
    """
    labels: list[float] = []
    sizes: Counter[str] = Counter()
    unimodal = False
    for row in table_rows(table):
        sizes[row.split] += 1
        unimodal |= bool(row.unimodal)
        if row.label is not None:
            labels.append(row.label)
    return Evidence(
        widths=widths, labels=np.array(labels), unimodal=unimodal, sizes=sizes, files=files
    )
