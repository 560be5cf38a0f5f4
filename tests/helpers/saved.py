"""What runs saved, read without the package's own readers, and changed as if it was so made."""

from __future__ import annotations

import csv
from pathlib import Path


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of ``predictions/<split>.csv`` as they stand there."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def log_predictions(run: Path, name: str) -> None:
    """Log predictions that a test has written, as if an evaluation had."""
    from tecafn.experiments.evaluate import log_look
    from tecafn.records.record import file_hash, read_record

    record = read_record(run)
    written = file_hash(run / "predictions" / f"{name}.csv")
    log_look(run, record, name, record["evaluations"][name], predictions_hash=written)
