"""Two runs on the same samples: paired differences of their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tecafn.core.errors import UserError
from tecafn.evaluation.significance import paired_difference
from tecafn.experiments.run_folder import write_report
from tecafn.records.predictions import SplitPredictions, read_predictions
from tecafn.records.record import read_record, write_record
from tecafn.training.run_lock import run_lock
from tecafn.training.together import on_rank_0

# Another evaluation of the same run writes for a moment only.
_PATIENCE_SECONDS = 60.0


def compare_runs(run: Path, other: Path, *, split: str, name: str | None = None) -> dict[str, Any]:
    """Paired differences of two runs' errors on the same samples; added to ``run``'s record.

    A collective call where several processes have met.

    Args:
        run: the run the record of which is added to.
        other: the one it is compared with, evaluated on the same split.
        split: which.
        name: what to call the other one.

    Raises:
        UserError: a run has no predictions on the split, or they are of different samples.
    """

    def compare() -> dict[str, Any]:
        with run_lock(run, wait_seconds=_PATIENCE_SECONDS):
            return _compare(run, other, split, name)

    read_record(run)  # before a lock makes a folder of it
    return on_rank_0(compare)


def _compare(run: Path, other: Path, split: str, name: str | None) -> dict[str, Any]:
    record, theirs = read_record(run), read_record(other)
    evaluation = theirs["evaluations"].get(split)
    if evaluation is None:
        raise UserError(f"{other} has not been evaluated on {split!r}")
    mine = read_predictions(run / "predictions" / f"{split}.csv")
    yours = read_predictions(other / "predictions" / f"{split}.csv")
    same_labels = np.array_equal(mine.labels, yours.labels, equal_nan=True)
    if mine.ids != yours.ids or not same_labels:
        raise UserError(f"{run} and {other} were evaluated on different samples of {split!r}")
    comparison = {
        "name": name or str(theirs["method"]),
        "split": split,
        "metrics": evaluation["metrics"],
        "hard_pairs": evaluation["hard_pairs"],
        "designed_pairs": evaluation["designed_pairs"],
        "difference": paired_differences(mine, yours, task=record["data"]["task"]),
    }
    kept = [
        c for c in record["comparisons"] if (c["name"], c["split"]) != (comparison["name"], split)
    ]
    record["comparisons"] = [*kept, comparison]
    write_record(run, record)
    write_report(run)
    return comparison


def paired_differences(
    mine: SplitPredictions, yours: SplitPredictions, *, task: str
) -> dict[str, Any]:
    """First minus second: MAE and binary accuracy of a score, accuracy of classes.

    Intervals resample videos and permutations flip whole videos: clips of one video are alike.
    """
    labels, videos = mine.labels, np.array(mine.videos)
    first, second = mine.predictions, yours.predictions
    if task == "classification":
        errors = [((p > 0.5) == (labels > 0.5)).astype(np.float64) for p in (first, second)]
        return {"accuracy": paired_difference(*errors, clusters=videos).as_dict()}
    polar = labels != 0
    hits = [((p > 0) == (labels > 0))[polar].astype(np.float64) for p in (first, second)]
    return {
        "mae": paired_difference(
            np.abs(first - labels), np.abs(second - labels), clusters=videos
        ).as_dict(),
        "acc2_pos": paired_difference(*hits, clusters=videos[polar]).as_dict(),
    }
