"""What a run's predictions say, computed again; is it what its record says? Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tecafn.core.errors import UserError
from tecafn.evaluation.assessment import assess
from tecafn.evaluation.metrics import (
    answered_classes,
    classification_metrics,
    sentiment_metrics,
)
from tecafn.evaluation.significance import Resampling
from tecafn.records.evaluation_log import read_evaluation_log
from tecafn.records.measured import convention_of_data, convention_of_evaluation
from tecafn.records.predictions import SplitPredictions, read_predictions
from tecafn.records.record import Evaluation, RunRecord, file_hash

# Labels in the predictions' file have six decimals.
TOLERANCE = 2e-5
# Kept cells have predictions of four.
_TOLERANCE_OF_KEPT = 1e-4


def is_as_logged(run: Path, name: str) -> bool | None:
    """Is ``predictions/<name>.csv`` the file that an evaluation wrote? None where no log has it.

    Args:
        run: the run's directory.
        name: of the evaluation.

    Raises:
        UserError: the log is broken, or one of the two cannot be read.
    """
    hashes = {entry["name"]: entry["predictions_hash"] for entry in read_evaluation_log(run) or ()}
    logged = hashes.get(name)
    path = run / "predictions" / f"{name}.csv"
    try:
        return None if logged is None else file_hash(path) == logged
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def check_predictions(run: Path, record: RunRecord, name: str) -> None:
    """Refuse predictions that were changed since an evaluation wrote them.

    Those of a run without a log of evaluations, as of version 0.1, must give the metrics that its
    record has.

    Args:
        run: the run's directory.
        record: of the run.
        name: of the evaluation.

    Raises:
        UserError: they were changed, or do not give the record's metrics.
    """
    path = run / "predictions" / f"{name}.csv"
    as_logged = is_as_logged(run, name)
    if as_logged is False:
        raise UserError(f"{path} was changed since the evaluation wrote it: see `tecafn audit`")
    if as_logged:
        return
    evaluation = record["evaluations"][name]
    derived = derived_metrics(read_predictions(path).labelled(), record, evaluation)
    found = first_difference(evaluation["metrics"], derived, tolerance=_TOLERANCE_OF_KEPT)
    if found is not None:
        metric, recorded, again = found
        raise UserError(
            f"{path} gives {metric} {again}, the record says {recorded}, and no log of evaluations "
            "says which of the two was changed"
        )


def derived_metrics(
    rows: SplitPredictions, record: RunRecord, evaluation: Evaluation
) -> dict[str, float | None]:
    """The metrics alone of labelled predictions, by the evaluation's convention."""
    rules = convention_of_evaluation(evaluation) or convention_of_data(record["data"])
    if rules.is_of_classes:
        return dict(classification_metrics(_classes(rows), rows.labels, rules.name))
    return dict(sentiment_metrics(rows.predictions, rows.labels, rules.name))


def derived_evaluation(
    rows: SplitPredictions, record: RunRecord, evaluation: Evaluation
) -> dict[str, Any]:
    """All of an evaluation that labelled predictions give, with the record's resampling.

    Returns:
        ``num_samples, metrics, undefined, intervals, hard_pairs, designed_pairs``, and
        ``num_videos`` where the evaluation has it.
    """
    rules = convention_of_evaluation(evaluation) or convention_of_data(record["data"])
    low, high = record["data"]["label_range"]
    resampling = evaluation["resampling"]
    found = assess(
        _classes(rows) if rules.is_of_classes else rows.predictions,
        rows.labels,
        rows.videos,
        convention=rules.name,
        label_range=(float(low), float(high)),
        pair_ids=rows.pair_ids if any(rows.pair_ids) else None,
        resampling=Resampling(
            level=resampling["level"],
            num_resamples=resampling["num_resamples"],
            seed=resampling["seed"],
        ),
    )
    left_out = {"convention", "resampling"} | ({"num_videos"} - evaluation.keys())
    return {k: v for k, v in found.items() if k not in left_out}


def _classes(rows: SplitPredictions) -> np.ndarray[Any, np.dtype[np.int64]]:
    return answered_classes(rows.predictions).astype(np.int64)


def first_difference(
    recorded: Any, derived: Any, *, tolerance: float, key: str = ""
) -> tuple[str, Any, Any] | None:
    """Where two JSON values differ first: the dotted key, and both values; None if nowhere.

    Numbers may differ by ``tolerance``, and by that share of the derived one; NaN equals nothing.

    Example:
        >>> first_difference({"a": {"b": 1.0}}, {"a": {"b": 2.0, "c": None}}, tolerance=1e-6)
        ('a.b', 1.0, 2.0)
        >>> first_difference({}, {"a": 1.0}, tolerance=1e-6)
        ('a', 'nothing', 1.0)
    """
    if isinstance(recorded, Mapping) and isinstance(derived, Mapping):
        for name in dict.fromkeys((*derived, *recorded)):
            one, other = (each.get(name, "nothing") for each in (recorded, derived))
            where = f"{key}.{name}" if key else str(name)
            found = first_difference(one, other, tolerance=tolerance, key=where)
            if found is not None:
                return found
        return None
    if _is_list(recorded) and _is_list(derived) and len(recorded) == len(derived):
        pairs = zip(recorded, derived, strict=True)
        same = all(first_difference(*pair, tolerance=tolerance) is None for pair in pairs)
    elif _is_number(recorded) and _is_number(derived):
        same = abs(recorded - derived) <= tolerance * max(1.0, abs(derived))
    else:
        same = type(recorded) is type(derived) and recorded == derived
    return None if same else (key, recorded, derived)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
