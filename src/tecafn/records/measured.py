"""Which data a record's numbers are of, by which convention, and which errors were allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tecafn.core.conventions import Convention, convention_named, convention_of
from tecafn.core.errors import UserError
from tecafn.records.record import RunRecord


def evaluation_on(record: RunRecord, *, split: str, data_hash: str) -> str | None:
    """The name of the evaluation on a split of these data; None where there is none.

    It is the bare split's of the data that were trained on, and ``<split>@<hash>`` of others.

    Args:
        record: of a run.
        split: which.
        data_hash: of the store's content.
    """
    for name, evaluation in record["evaluations"].items():
        if (evaluation["split"], evaluation["data_hash"]) == (split, data_hash):
            return name
    return None


def convention_of_evaluation(evaluation: Mapping[str, Any]) -> Convention | None:
    """The convention that an evaluation was measured by; None where it does not say.

    Raises:
        UserError: this version does not know it.
    """
    name = evaluation.get("convention")
    return None if name is None else _convention(str(name))


def convention_of_data(data: Mapping[str, Any]) -> Convention:
    """The convention of a run's data, from its record.

    Records of version 0.1 do not name it: it is the one that goes with what they say of the data.

    Args:
        data: ``record["data"]``; where it does not tell the label range, nothing is known of the
            scale.

    Raises:
        UserError: this version does not know it.
    """
    if data.get("convention"):
        return _convention(str(data["convention"]))
    task = str(data.get("task") or "regression")
    low, high = data.get("label_range") or (0.0, float("inf"))
    label_range = float(low), float(high)
    dataset = str(data.get("dataset") or "")
    return convention_named(convention_of(dataset, task=task, label_range=label_range))


def _convention(name: str) -> Convention:
    try:
        return convention_named(name)
    except ValueError as error:
        raise UserError(f"a record of another version: {error}") from None


# The fewest videos whose resampling gives intervals that need no remark.
_FEW_VIDEOS = 10


def remark_on_intervals(num_videos: int | None) -> str:
    """Why there is no interval, or why it is too narrow; empty where there is nothing to say.

    A percentile interval of few videos holds the truth less often than its level says:
    docs/metrics.md has how often.

    Args:
        num_videos: that were resampled; None where a record does not say.

    Example:
        >>> remark_on_intervals(1)
        'There are no intervals: they come from resampling videos, and here is one video.'
        >>> remark_on_intervals(686)
        ''
    """
    if num_videos is None or num_videos >= _FEW_VIDEOS:
        return ""
    if num_videos == 1:
        return "There are no intervals: they come from resampling videos, and here is one video."
    return (
        f"The intervals come from resampling {num_videos} videos: they are too narrow, and hold "
        "the truth less often than their level says."
    )


def allowed_errors(*parts: Mapping[str, Any]) -> list[str]:
    """What was wrong with the data, by a record's or a summary's parts, and was allowed by name.

    Args:
        parts: a record, an evaluation, or a comparison's summary: with ``allowed_errors``, or with
            ``data`` that has them.

    Example:
        >>> allowed_errors({"data": {"allowed_errors": [{"name": "ids", "message": "3 twice"}]}})
        ['The data have what `tecafn data check` calls an error, allowed by name: ids: 3 twice.']
    """
    found = [
        f"{error['name']}: {error['message']}"
        for part in parts
        for holder in (part, part.get("data") or {})
        for error in holder.get("allowed_errors") or ()
    ]
    if not found:
        return []
    said = "; ".join(dict.fromkeys(found))
    ending = "" if said.endswith("...") else "."
    return [
        f"The data have what `tecafn data check` calls an error, allowed by name: {said}{ending}"
    ]
