"""Two runs on the same samples: paired differences of their errors."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np

from tecafn.core.conventions import Convention
from tecafn.core.errors import UserError
from tecafn.data.store import Store
from tecafn.evaluation.errors import row_errors
from tecafn.evaluation.significance import paired_difference
from tecafn.experiments.audit.rederived import check_predictions
from tecafn.experiments.evaluate import log_look
from tecafn.experiments.run_folder import write_report
from tecafn.records.evaluation_log import comparison_name, read_evaluation_log
from tecafn.records.measured import (
    convention_of_data,
    convention_of_evaluation,
    evaluation_on,
)
from tecafn.records.predictions import SplitPredictions, read_predictions
from tecafn.records.record import (
    Evaluation,
    PairedDifference,
    RunComparison,
    RunRecord,
    config_hash,
    now,
    read_record,
    write_record,
)
from tecafn.training.ranks import on_rank_0
from tecafn.training.run_lock import run_lock

# Another evaluation of the same run writes for a moment only.
_PATIENCE_SECONDS = 60.0


def compare_runs(
    run: Path, other: Path, *, split: str, data: Path | None = None, name: str | None = None
) -> RunComparison:
    """Paired differences of two runs' errors on the same samples; added to ``run``'s record.

    A collective call where several processes have met.

    Args:
        run: the run whose record is extended.
        other: the one it is compared with, evaluated on the same split.
        split: which.
        data: the store of that split; None = the one that each run was trained on. The other run
            may have been evaluated on the same samples of another store, with other features.
        name: what to call the other one.

    Raises:
        UserError: a run has no predictions on the split, they were changed since they were
            written, are of different samples, or were measured by different conventions.
    """
    store = None if data is None else Store.open(data)

    def compare() -> RunComparison:
        with run_lock(run, wait_seconds=_PATIENCE_SECONDS):
            return _compare(run, other, split, store, name)

    read_record(run)  # before a lock makes a folder of it
    return on_rank_0(compare)


def _compare(
    run: Path, other: Path, split: str, store: Store | None, name: str | None
) -> RunComparison:
    record, theirs = read_record(run), read_record(other)
    key, other_key = split, split
    if store is not None:
        found, theirs_found = (
            evaluation_on(one, split=split, data_hash=store.content_hash)
            for one in (record, theirs)
        )
        if found is None:
            raise UserError(_not_evaluated(run, split, store))
        key, other_key = found, theirs_found or split
    mine_evaluated = record["evaluations"].get(key)
    if mine_evaluated is None:
        raise UserError(_not_evaluated(run, split, store))
    evaluation = theirs["evaluations"].get(other_key)
    if evaluation is None:
        raise UserError(_not_evaluated(other, split, store))
    rules = _convention(record, key)
    others = _convention(theirs, other_key)
    if rules != others:
        raise UserError(
            f"{run} was measured on {split!r} by convention {rules.name!r}, {other} by "
            f"{others.name!r}: evaluate both again on the same store"
        )
    mine = read_predictions(run / "predictions" / f"{key}.csv")
    yours = read_predictions(other / "predictions" / f"{other_key}.csv")
    same_labels = np.array_equal(mine.labels, yours.labels, equal_nan=True)
    if mine.ids != yours.ids or not same_labels:
        if store is not None and evaluation["data_hash"] != store.content_hash:
            raise UserError(_not_evaluated(other, split, store))
        raise UserError(f"{run} and {other} were evaluated on different samples of {split!r}")
    check_predictions(run, record, key)
    check_predictions(other, theirs, other_key)
    comparison: RunComparison = {
        "name": name or str(theirs["method"]),
        "split": key,
        "metrics": evaluation["metrics"],
        "hard_pairs": evaluation["hard_pairs"],
        "designed_pairs": evaluation["designed_pairs"],
        "difference": paired_differences(mine, yours, rules),
    }
    kept = [
        c for c in record["comparisons"] if (c["name"], c["split"]) != (comparison["name"], key)
    ]
    record["comparisons"] = [*kept, comparison]
    # A run of version 0.1 has no log, and one that begins here would not know its evaluations.
    if read_evaluation_log(run) is not None:
        log_look(
            run,
            record,
            comparison_name(key, comparison["name"]),
            cast(Evaluation, {**mine_evaluated, "created": now()}),
            predictions_hash=config_hash(comparison),
        )
    write_record(run, record)
    write_report(run)
    return comparison


def _not_evaluated(run: Path, split: str, store: Store | None) -> str:
    if store is None:
        return f"{run} has not been evaluated on {split!r}"
    return (
        f"{run} has not been evaluated on {split!r} of {store.path}: "
        f"`tecafn evaluate {run} --data {store.path} --split {split}`"
    )


def _convention(record: RunRecord, split: str) -> Convention:
    """By which a run was measured on a split; that of its data where it was not."""
    evaluation = record["evaluations"].get(split)
    measured_by = None if evaluation is None else convention_of_evaluation(evaluation)
    return measured_by or convention_of_data(record["data"])


def paired_differences(
    mine: SplitPredictions, yours: SplitPredictions, rules: Convention
) -> dict[str, PairedDifference]:
    """First minus second, by each measure that the convention pairs runs by.

    Intervals resample videos and permutations flip whole videos: clips of one video are alike.
    A measure by which no sample counts, such as P/N where every label is 0, is left out.
    """
    labels, videos = mine.labels, np.array(mine.videos)
    both = np.stack([mine.predictions, yours.predictions])
    found: dict[str, PairedDifference] = {}
    for metric in rules.paired:
        errors, counted = row_errors(metric, both, labels, convention=rules.name)
        if counted.any():
            difference = paired_difference(*errors, clusters=videos[counted])
            found[metric] = cast(PairedDifference, difference.as_dict())
    return found
