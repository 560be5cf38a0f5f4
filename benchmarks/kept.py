"""Finished cells of the benchmarks, kept in ``benchmarks/cells`` so that another machine goes on.

    python benchmarks/kept.py keep       # what is finished below runs/
    python benchmarks/kept.py restore    # what is kept, as far as it is not there

A cell is a run: a method or a row of settings, with a seed. Kept of it are how it was begun, its
record and its predictions, to four decimals and without what belongs to the data (ids, labels,
texts), which come from the store when a cell is restored. Weights are not kept. Whoever wants to
train everything anew removes the folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import PAPER_TABLES, ROOT, dataset_of, store_path, table_names

from tecafn.core.errors import UserError
from tecafn.data.store import Store
from tecafn.evaluation.evaluator import Predictions
from tecafn.experiments.evaluate import prediction_rows
from tecafn.records.predictions import read_predictions, write_predictions
from tecafn.records.record import write_record

CELLS = ROOT / "benchmarks" / "cells"
RUNS = ROOT / "runs"
_FILES = {"begun": "begun.json", "usage": "cell.json"}


@dataclass(frozen=True)
class Kept:
    """Where a benchmark's cells lie and what they were trained on.

    Args:
        folder: below ``runs``; a cell is ``folder/<row>/seed-<n>``.
        store: the dataset.
    """

    folder: str
    store: Path


def paper_folder(table: str) -> str:
    """Where ``tecafn reproduce`` puts a table's cells, see ``paper_tables.py``."""
    return f"paper/{table}/synthetic-mosi"


KEPT = (
    *(
        Kept(f"bench-search/{method}", store_path("synthetic", RUNS))
        for method in ("tecafn", "tetfn", "lmf", "mult")
    ),
    *(Kept(f"compare-{name}", store_path(dataset_of(name), RUNS)) for name in table_names()),
    *(Kept(paper_folder(name), store_path("synthetic", RUNS)) for name in PAPER_TABLES),
)


def keep(run: Path, target: Path) -> None:
    """Write a finished run's cell, one JSON file.

    Args:
        run: has a record and ``predictions/<split>.csv`` for each evaluation.
        target: the file.
    """
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    cell: dict[str, Any] = {"record": record, "predictions": {}}
    for name, file in _FILES.items():
        if (run / file).exists():
            cell[name] = json.loads((run / file).read_text(encoding="utf-8"))
    for split in record["evaluations"]:
        rows = read_predictions(run / "predictions" / f"{split}.csv")
        cell["predictions"][split] = [round(value, 4) for value in rows.predictions.tolist()]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(cell, separators=(",", ":")) + "\n", encoding="utf-8")


def restore(source: Path, run: Path, store: Store) -> None:
    """Make a run of a kept cell: enough for tables, not to predict with.

    Raises:
        UserError: it was trained on other data.
    """
    cell = json.loads(source.read_text(encoding="utf-8"))
    if cell["record"]["data"]["hash"] != store.content_hash:
        raise UserError(f"{source} was trained on other data than {store.path} has")
    run.mkdir(parents=True, exist_ok=True)
    for name, file in _FILES.items():
        if name in cell:
            (run / file).write_text(json.dumps(cell[name], indent=2) + "\n", encoding="utf-8")
    for split, values in cell["predictions"].items():
        view = store.split(split)
        predictions = Predictions(
            ids=tuple(view.ids),
            index=np.arange(len(view)),
            predictions=np.array(values, np.float64),
            labels=np.asarray(view.labels, np.float64),
        )
        path = run / "predictions" / f"{split}.csv"
        write_predictions(path, prediction_rows(view, predictions))
    write_record(run, cell["record"])


def _chosen(folders: Sequence[str] | None) -> list[Kept]:
    return [kept for kept in KEPT if folders is None or kept.folder in folders]


def keep_all(folders: Sequence[str] | None = None) -> int:
    """Keep the finished cells of these folders, or of all; how many there are."""
    count = 0
    for kept in _chosen(folders):
        for record in sorted((RUNS / kept.folder).glob("*/seed-*/record.json")):
            run = record.parent
            keep(run, CELLS / kept.folder / run.parent.name / f"{run.name}.json")
            count += 1
    return count


def restore_all(folders: Sequence[str] | None = None) -> int:
    """Restore the kept cells of these folders, or of all, that are not there; how many were.

    Cells whose dataset is not there are left out.
    """
    count = 0
    for kept in _chosen(folders):
        sources = sorted((CELLS / kept.folder).glob("*/seed-*.json"))
        if not sources or not kept.store.exists():
            continue
        store = Store.open(kept.store)
        for source in sources:
            run = RUNS / kept.folder / source.parent.name / source.stem
            if not (run / "record.json").exists():
                restore(source, run, store)
                count += 1
    return count


def main() -> None:
    """Keep or restore, and say how many cells."""
    actions = {"keep": keep_all, "restore": restore_all}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        raise UserError(f"say what to do: {' or '.join(actions)}")
    count = actions[sys.argv[1]]()
    print(f"{sys.argv[1]}: {count} cells")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
