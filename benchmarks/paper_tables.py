"""The paper's tables and figures with its full budget on the synthetic corpus, kept and written.

    python benchmarks/paper_tables.py TABLE... [--seeds 3] [--tables-only] [--smoke]

TABLE is that of a file in ``papers/tecafn``. It is ``tecafn reproduce`` in ``runs/paper``, and a
page in ``docs/results``. A killed one continues, cell by cell, and what ``benchmarks/cells`` keeps
is not trained again. The page is also written of an unfinished table (``--tables-only``), and then
says which cells are open. ``--smoke`` takes the quick budget and a corpus of few samples, and
prints the page.
"""

from __future__ import annotations

import argparse
import sys

from common import PAPER_TABLES, ROOT, make_store, write_results
from kept import keep_all, paper_folder, restore_all

from tecafn.core.errors import UserError
from tecafn.experiments.cells_display import CellsDisplay
from tecafn.experiments.compare import Protocol
from tecafn.experiments.reproduce import Display, reproduce
from tecafn.report.comparison import markdown_blocks, title_of

TABLES = ROOT / "papers" / "tecafn"


def page_of(table: str) -> str:
    """The name of the results page.

    Example:
        >>> page_of("table5")
        'table5-synthetic'
    """
    return f"{table}-synthetic"


def write(table: str, *, seeds: int, train: bool, smoke: bool) -> None:
    """Train what is missing of a table and write its page."""
    runs = ROOT / "runs" / ("smoke-paper" if smoke else "")
    data = make_store("synthetic", runs, smoke=smoke)
    if not smoke:
        restore_all([paper_folder(table)])
    with CellsDisplay(progress=True) as display:
        _, summary = reproduce(
            TABLES / f"{table}.toml",
            Protocol(data=data, out=runs / "paper", methods=(), device="cpu"),
            budget="quick" if smoke else "paper",
            seeds=1 if smoke else seeds,
            display=Display(
                planned=display.planned,
                started=display.started,
                ended=display.ended,
                waiting=display.waiting,
            ),
            train=train,
        )
    blocks = markdown_blocks(summary)
    if smoke:
        print("\n\n".join(blocks))
        return
    keep_all([paper_folder(table)])
    write_results(
        page_of(table), title_of(summary), f"python benchmarks/paper_tables.py {table}", blocks
    )


def main() -> None:
    """Write the pages of the tables that were named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="+", choices=PAPER_TABLES)
    parser.add_argument("--seeds", type=int, default=3, help="of each row")
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    parser.add_argument("--smoke", action="store_true", help="the quick budget, no page")
    options = parser.parse_args()
    for table in options.tables:
        write(table, seeds=options.seeds, train=not options.tables_only, smoke=options.smoke)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
