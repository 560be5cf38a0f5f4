"""A table of ``benchmarks/rows`` on its dataset: trained, kept, and written as a results page.

    python benchmarks/comparison.py NAME [--jobs N] [--threads N] [--tables-only] [--smoke]

NAME is that of a file in ``benchmarks/rows``. It is ``tecafn compare --rows`` with the data found
or made; the tables lie in ``runs/compare-<name>``. A killed comparison continues, cell by cell, and
what ``benchmarks/cells`` keeps is not trained again. The page is also written of an unfinished
comparison (``--tables-only``), and then says which cells are open. ``--smoke`` trains each row for
an epoch, on few samples where the data are generated, and prints the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from common import ROOT, ROWS, dataset_of, make_store, table_names, write_results
from kept import keep_all, restore_all

from tecafn.core.errors import UserError
from tecafn.experiments.cells_display import CellsDisplay
from tecafn.experiments.compare import Protocol, compare_methods
from tecafn.experiments.rows import read_table
from tecafn.report.comparison import markdown_blocks, title_of

SMOKE = ("training.max_epochs=1", "num_trained_text_layers=0")


def protocol_of(name: str, data: Path, runs: Path, *, jobs: int = 2, threads: int = 1) -> Protocol:
    """What the table's file says, on these data."""
    out = runs / f"compare-{name}"
    protocol = Protocol(data=data, out=out, device="cpu", jobs=jobs, threads=threads)
    return protocol.of_table(read_table(ROWS / f"{name}.toml"))


def shortened(protocol: Protocol) -> Protocol:
    """The same rows, an epoch each, with one seed."""
    overrides = tuple(f"{row.name}:{key}" for row in protocol.compared() for key in SMOKE)
    return dataclasses.replace(
        protocol, seeds=protocol.seeds[:1], overrides=(*protocol.overrides, *overrides)
    )


def page_of(name: str) -> str:
    """The name of the results page.

    Example:
        >>> page_of("mosi"), page_of("variants-mosi")
        ('comparison-mosi', 'variants-mosi')
    """
    return name if name.startswith("variants") else f"comparison-{name}"


def main() -> None:
    """Compare, or write the tables of what is finished."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=table_names())
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    parser.add_argument("--smoke", action="store_true", help="an epoch, few samples, no page")
    options = parser.parse_args()
    runs = ROOT / "runs" / ("smoke-comparison" if options.smoke else "")
    data = make_store(dataset_of(options.name), runs, smoke=options.smoke)
    protocol = protocol_of(options.name, data, runs, jobs=options.jobs, threads=options.threads)
    if options.smoke:
        protocol = shortened(protocol)
    else:
        restore_all([protocol.out.name])
    with CellsDisplay(progress=True) as display:
        summary = compare_methods(
            protocol,
            planned=display.planned,
            started=display.started,
            ended=display.ended,
            train=not options.tables_only,
        )
    blocks = markdown_blocks(summary)
    if options.smoke:
        print("\n\n".join(blocks))
        return
    keep_all([protocol.out.name])
    command = f"python benchmarks/comparison.py {options.name}"
    write_results(page_of(options.name), title_of(summary), command, blocks)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
