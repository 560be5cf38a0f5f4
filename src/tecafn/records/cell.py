"""``cell.json``: what the processes of a comparison's cell used, and why it failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict, cast

from tecafn.core.errors import UserError
from tecafn.records.record import write_text_atomically

CELL_FILE = "cell.json"


class CellUsage(TypedDict, total=False):
    """What the processes of one run of a comparison used.

    Args:
        threads: of the process's arithmetic.
        jobs: runs at once.
        process_seconds: of the last process that trained, from start to end; with the evaluation,
            unless that is on the validation split.
        peak_memory_bytes: the most that any process that trained held.
        reason: why it failed, in one line; empty if it is finished.
    """

    threads: int
    jobs: int
    process_seconds: float
    peak_memory_bytes: int | None
    reason: str


def add_cell_usage(run_dir: Path, facts: CellUsage) -> None:
    """Add to ``RUN/cell.json``; memory is the most that any attempt held.

    Raises:
        UserError: it cannot be read or written.
    """
    known = read_cell_usage(run_dir)
    peaks = [one.get("peak_memory_bytes") for one in (known, facts)]
    merged: CellUsage = {**known, **facts}
    merged["peak_memory_bytes"] = max((peak for peak in peaks if peak), default=None)
    write_text_atomically(run_dir / CELL_FILE, json.dumps(merged, indent=2) + "\n")


def read_cell_usage(run_dir: Path) -> CellUsage:
    """Read ``RUN/cell.json``; empty where there is none.

    Raises:
        UserError: it cannot be read.
    """
    path = run_dir / CELL_FILE
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(facts, dict):
        raise UserError(f"{path}: expected an object, got a {type(facts).__name__}")
    return cast(CellUsage, facts)
