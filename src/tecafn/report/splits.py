"""The sizes of a dataset's splits beside those that a paper states."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tecafn.records.record import write_text_atomically
from tecafn.report.html import page_environment
from tecafn.report.marks import latex, markdown


@dataclass(frozen=True)
class SplitSize:
    """One split.

    Args:
        split: its name.
        found: samples in the data.
        expected: as the paper states; None where it has no such dataset.
    """

    split: str
    found: int
    expected: int | None

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.expected is None:
            return "not in the paper"
        return "as stated" if self.found == self.expected else "differs"


def verdict_of(sizes: Sequence[SplitSize], dataset: str) -> str:
    """The table in a sentence.

    Example:
        >>> verdict_of([SplitSize("train", 2, 3)], "cmu-mosi")
        'The splits of cmu-mosi are not those of the paper: train has 2 samples, stated are 3.'
    """
    wrong = [
        f"{size.split} has {size.found} samples, stated are {size.expected}"
        for size in sizes
        if size.verdict == "differs"
    ]
    if wrong:
        return f"The splits of {dataset} are not those of the paper: {'; '.join(wrong)}."
    if all(size.expected is None for size in sizes):
        return f"The paper has no dataset {dataset}: there is nothing to compare with."
    return f"The splits of {dataset} are those of the paper."


def write_splits(folder: Path, sizes: Sequence[SplitSize], *, title: str, dataset: str) -> None:
    """Write ``splits.md, .csv, .tex, .html``.

    Raises:
        UserError: they cannot be written.
    """
    columns = ["split", "samples", "stated", ""]
    rows = [
        [s.split, str(s.found), "" if s.expected is None else str(s.expected), s.verdict]
        for s in sizes
    ]
    verdict = verdict_of(sizes, dataset)
    lines = [columns, ["---"] * 4, *([markdown(cell) for cell in row] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["dataset", "split", "samples", "stated", "verdict"])
    writer.writerows([dataset, *row] for row in rows)
    tex = [
        "\\begin{tabular}{lrrl}",
        "\\toprule",
        f"{' & '.join(columns)} \\\\",
        "\\midrule",
        *(f"{' & '.join(latex(cell) for cell in row)} \\\\" for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    page = page_environment().get_template("splits.html.j2")
    folder.mkdir(parents=True, exist_ok=True)
    for ending, text in (
        ("md", f"# {title}\n\n{markdown(verdict)}\n\n{table}\n"),
        ("csv", file.getvalue()),
        ("tex", "\n".join(tex) + "\n"),
        ("html", page.render(title=title, verdict=verdict, columns=columns, rows=rows)),
    ):
        write_text_atomically(folder / f"splits.{ending}", text)
