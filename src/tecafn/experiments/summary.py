"""What the finished cells of a comparison say: means over seeds, paired differences, what is open.

Samples are paired, seeds are not: a difference is of each sample's error averaged over all seeds
of each row, its interval resamples videos; beside it stands Welch's test over the seeds, and under
each table the smallest effect that it could have found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tecafn.core.conventions import METRIC_INFO, Convention
from tecafn.core.errors import UserError
from tecafn.core.registry import METHODS
from tecafn.core.tables import flatten
from tecafn.evaluation.errors import row_errors
from tecafn.evaluation.hard_pairs import find_designed_pairs, find_hard_pairs, score_pairs
from tecafn.evaluation.metrics import Floats
from tecafn.evaluation.significance import holm_adjusted, paired_difference
from tecafn.evaluation.uncertainty import (
    Compared,
    mean_intervals,
    paired_variance,
    smallest_detectable_effect,
    welch_difference,
)
from tecafn.experiments.cells import Cell
from tecafn.experiments.config import RunConfig
from tecafn.experiments.rows import AS_WRITTEN, Row
from tecafn.records.cell import read_cell_usage
from tecafn.records.comparison import (
    ComparisonRow,
    Detectable,
    OverSeeds,
    RowDifference,
    SeedMean,
)
from tecafn.records.predictions import read_predictions
from tecafn.records.record import PairShare, RunRecord, read_record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of a comparison, before anything is trained.

    Args:
        row: as it was asked for.
        method: as registered; empty where the config cannot be read.
        config: its file, as shown.
        settings: what the file and the overrides make; None if it is refused.
        refused: why it cannot be trained, in one line; empty if it can.
        cells: one per seed; none if it is refused.
    """

    row: Row
    method: str
    config: str
    settings: RunConfig | None
    refused: str
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """As the table shows it."""
        return self.row.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedPredictions:
    """The finished cells of one row on one split.

    Args:
        seeds: S of them.
        records: one per seed.
        predictions: (S, N) scores, or probabilities of class 1.
        labels: (N,).
        videos, pair_ids: (N,) names.
        ids: N public ids.
        texts: N transcripts.
    """

    seeds: tuple[int, ...]
    records: tuple[RunRecord, ...]
    predictions: Floats
    labels: Floats
    videos: NDArray[np.str_]
    pair_ids: tuple[str, ...]
    ids: tuple[str, ...]
    texts: tuple[str, ...]

    def values(self, split: str, metric: str) -> list[float | None]:
        """A metric of each seed."""
        return [record["evaluations"][split]["metrics"].get(metric) for record in self.records]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """The finished cells of a comparison, measured.

    Args:
        rows: in the order they are shown.
        metrics: by which some row was measured.
        best: the best row by the primary metric.
        against: the row that differences are taken from.
        detectable: by metric; None where the deviation over seeds or videos is unknown.
        finished: what was read, by row.
    """

    rows: list[ComparisonRow]
    metrics: list[str]
    best: str | None
    against: str | None
    detectable: dict[str, Detectable | None]
    finished: Mapping[str, SeedPredictions]


def measure(
    entries: Sequence[Entry],
    *,
    split: str,
    rules: Convention,
    max_gap: float,
    against: str | None = None,
    sort: str | None = None,
) -> Measured:
    """Read the finished cells and say what a table of them says.

    Args:
        entries: the rows.
        split: what figures are of.
        rules: the data's convention; it says which metrics there are and which one ranks.
        max_gap: how near the labels of a hard pair are.
        against: the row that differences are taken from; None, or a row without a finished cell,
            is the best one.
        sort: the metric that rows are sorted by; ``rows`` keeps their order; None = the primary.

    Raises:
        UserError: cells were evaluated on different samples.
    """
    finished: dict[str, SeedPredictions] = {}
    for entry in entries:
        runs = read_cells(entry.cells)
        if runs is not None:
            finished[entry.name] = runs
    if len({runs.ids for runs in finished.values()}) > 1:
        raise UserError("the cells of this comparison were evaluated on different samples")
    best = _best(finished, split, rules.primary)
    reference = against if against in finished else best
    differences, detectable = _differences(finished, reference, rules)
    intervals = {name: _intervals(runs, rules) for name, runs in finished.items()}
    rows = [
        _row(
            entry,
            finished.get(entry.name),
            split,
            differences.get(entry.name, {}),
            intervals.get(entry.name, {}),
            max_gap,
        )
        for entry in entries
    ]
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    if sort != AS_WRITTEN:
        rows.sort(key=lambda row: _rank(row, sort or rules.primary))
    return Measured(
        rows=rows,
        metrics=names,
        best=best,
        against=reference,
        detectable=detectable,
        finished=finished,
    )


def read_cells(cells: Sequence[Cell]) -> SeedPredictions | None:
    """The finished cells of a row; None if there are none.

    Raises:
        UserError: they were evaluated on different samples.
    """
    done = [cell for cell in cells if cell.is_finished()]
    if not done:
        return None
    tables = [read_predictions(cell.run / "predictions" / f"{cell.split}.csv") for cell in done]
    first = tables[0]
    for cell, table in zip(done, tables, strict=True):
        if table.ids != first.ids:
            raise UserError(f"{cell.run} and {done[0].run} were evaluated on different samples")
    return SeedPredictions(
        seeds=tuple(cell.seed for cell in done),
        records=tuple(read_record(cell.run) for cell in done),
        predictions=np.array([table.predictions for table in tables]),
        labels=first.labels,
        videos=np.array(first.videos),
        pair_ids=first.pair_ids,
        ids=first.ids,
        texts=first.texts,
    )


def _best(finished: Mapping[str, SeedPredictions], split: str, primary: str) -> str | None:
    """The row with the best mean of the primary metric."""

    def mean(name: str) -> float:
        values = [value for value in finished[name].values(split, primary) if value is not None]
        value = float(np.mean(values)) if values else np.inf
        return value if METRIC_INFO[primary].lower_is_better else -value

    return min(finished, key=mean, default=None)


def _intervals(runs: SeedPredictions, rules: Convention) -> dict[str, list[float] | None]:
    """Of each metric's mean over seeds; of one seed they are in its record."""
    found = mean_intervals(
        runs.predictions, runs.labels, runs.videos.tolist(), convention=rules.name
    )
    return {name: None if ends is None else list(ends) for name, ends in found.items()}


def _differences(
    finished: Mapping[str, SeedPredictions],
    reference: str | None,
    rules: Convention,
) -> tuple[dict[str, dict[str, RowDifference]], dict[str, Detectable | None]]:
    """Row to metric to its difference from the reference, p corrected by Holm; detectable effects.

    A metric by which no sample counts, such as P/N where every label is 0, is left out.
    """
    found: dict[str, dict[str, RowDifference]] = {}
    detectable: dict[str, Detectable | None] = {}
    if reference is None:
        return found, detectable
    others = {name: runs for name, runs in finished.items() if name != reference}
    for metric in rules.paired:
        differences: dict[str, RowDifference] = {}
        compared: list[Compared] = []
        for name, runs in others.items():
            made = _difference(runs, finished[reference], metric, rules)
            if made is not None:
                differences[name] = made[0]
                compared += made[1:]
        _correct(list(differences.values()))
        for name, difference in differences.items():
            found.setdefault(name, {})[metric] = difference
        if compared:
            effect = smallest_detectable_effect(compared)
            detectable[metric] = None if effect is None else cast(Detectable, effect.as_dict())
    return found, detectable


def _difference(
    runs: SeedPredictions, reference: SeedPredictions, metric: str, rules: Convention
) -> tuple[RowDifference, Compared] | None:
    """One row's difference and its noise; None where no sample counts."""
    (mine, counted), (theirs, _) = (
        row_errors(metric, one.predictions, one.labels, convention=rules.name)
        for one in (runs, reference)
    )
    videos = runs.videos[counted]
    if not counted.any():
        return None
    difference = paired_difference(mine.mean(axis=0), theirs.mean(axis=0), clusters=videos)
    values, others = mine.mean(axis=1).tolist(), theirs.mean(axis=1).tolist()
    welch = welch_difference(values, others)
    num_videos = len(np.unique(videos))
    variance = (
        paired_variance(mine.mean(axis=0), theirs.mean(axis=0), videos.tolist())[0]
        if num_videos > 1
        else 0.0
    )
    row: RowDifference = {
        "value": difference.value,
        "interval": None if difference.interval is None else list(difference.interval),
        "p_value": difference.p_value,
        "p_holm": difference.p_value,
        "num_seeds": min(len(values), len(others)),
        "over_seeds": None if welch is None else cast(OverSeeds, welch.as_dict()),
    }
    return row, Compared(values, others, variance, num_videos)


def _correct(differences: Sequence[RowDifference]) -> None:
    """Both p-values, corrected for the number of rows that have one."""
    adjusted = holm_adjusted([difference["p_value"] for difference in differences])
    for difference, p_value in zip(differences, adjusted, strict=True):
        difference["p_holm"] = p_value
    tests = [test for test in (d.get("over_seeds") for d in differences) if test]
    for test, p_value in zip(tests, holm_adjusted([t["p_value"] for t in tests]), strict=True):
        test["p_holm"] = p_value


def _row(
    entry: Entry,
    runs: SeedPredictions | None,
    split: str,
    difference: dict[str, RowDifference],
    intervals: Mapping[str, list[float] | None],
    max_gap: float,
) -> ComparisonRow:
    """One line of the tables."""
    method = METHODS.get(entry.method)
    seeds = () if runs is None else runs.seeds
    usage = {cell.seed: read_cell_usage(cell.run) for cell in entry.cells}
    missing = [cell.seed for cell in entry.cells if cell.seed not in seeds]
    failures = {str(seed): usage[seed]["reason"] for seed in missing if usage[seed].get("reason")}
    row: ComparisonRow = {
        "name": entry.name,
        "method": entry.method,
        "summary": method.summary if method else "",
        "paper": method.paper if method else "",
        "basis": method.basis if method else "",
        "certified": method.certified if method else "",
        "after_abstract": method is not None and method.basis == "abstract",
        "config": entry.config,
        "overrides": list(entry.row.overrides),
        "note": entry.row.note,
        "x": entry.row.x,
        "refused": entry.refused,
        "seeds": list(seeds),
        "open": [seed for seed in missing if str(seed) not in failures],
        "failures": failures,
        "metrics": {},
        "difference": difference,
        "hard_pairs": None,
        "designed_pairs": None,
        "seconds": None,
        "epochs": None,
        "num_parameters": None,
        "num_trained_parameters": None,
        "peak_memory_bytes": None,
    }
    if runs is None:
        return row
    trainings = [record["training"] for record in runs.records]
    evaluations = [record["evaluations"][split] for record in runs.records]
    peaks = [usage[seed].get("peak_memory_bytes") for seed in seeds]
    row["metrics"] = {
        name: {**seed_mean(runs.values(split, name)), "interval": intervals.get(name)}
        for name in evaluations[0]["metrics"]
    }
    if evaluations[0]["hard_pairs"]:
        row["hard_pairs"] = hard_pair_share(runs, max_gap)
    if evaluations[0]["designed_pairs"]:
        row["designed_pairs"] = _designed_pairs(runs)
    row["seconds"] = seed_mean([float(t["seconds"]) for t in trainings])
    row["epochs"] = seed_mean([float(t["epochs"]) for t in trainings])
    row["num_parameters"] = trainings[0]["num_parameters"]
    row["num_trained_parameters"] = trainings[0]["num_trained_parameters"]
    row["peak_memory_bytes"] = max((peak for peak in peaks if peak), default=None)
    recorded = [usage[seed] for seed in seeds if {"jobs", "threads"} <= set(usage[seed])]
    row["ran"] = sorted([*pair] for pair in {(used["jobs"], used["threads"]) for used in recorded})
    return row


def seed_mean(values: Sequence[float | None]) -> SeedMean:
    """Mean, deviation (S - 1) and the values; an undefined value leaves both undefined.

    Example:
        >>> seed_mean([1.0, 3.0])["mean"], seed_mean([1.0, None])["mean"]
        (2.0, None)
    """
    known = [float(value) for value in values if value is not None]
    is_defined = len(known) == len(values)
    return {
        "mean": float(np.mean(known)) if is_defined else None,
        "std": float(np.std(known, ddof=1)) if is_defined and len(known) > 1 else None,
        "values": list(values),
    }


def hard_pair_share(runs: SeedPredictions, max_gap: float) -> PairShare:
    """Share of pairs ranked correctly, averaged over seeds; the interval resamples videos."""
    videos = runs.videos.tolist()
    pairs = find_hard_pairs(runs.labels, videos, max_gap=max_gap)
    report = score_pairs(pairs, runs.predictions, runs.labels, videos)
    return cast(PairShare, dataclasses.replace(report, max_gap=max_gap).as_dict())


def _designed_pairs(runs: SeedPredictions) -> PairShare:
    """The same of the pairs that were designed."""
    pairs = find_designed_pairs(runs.labels, runs.pair_ids)
    report = score_pairs(pairs, runs.predictions, runs.labels, runs.videos.tolist())
    return cast(PairShare, report.as_dict())


def _rank(row: ComparisonRow, metric: str) -> tuple[bool, float, str]:
    """Best first; what has no result last."""
    value = row["metrics"][metric]["mean"] if metric in row["metrics"] else None
    info = METRIC_INFO.get(metric)
    sign = 1.0 if info is not None and info.lower_is_better else -1.0
    return (value is None, 0.0 if value is None else sign * value, row["name"])


def shared_settings(
    entries: Sequence[Entry],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings of the run and its training that all rows share, and the others by row."""
    flat = {}
    for entry in entries:
        if entry.settings is not None:
            settings = entry.settings.as_dict()
            flat[entry.name] = flatten(
                {k: v for k, v in settings.items() if k not in ("method", "seed", "model")}
            )
    common: dict[str, Any] = {}
    differing: dict[str, dict[str, Any]] = {}
    for key in dict.fromkeys(key for settings in flat.values() for key in settings):
        values = {name: one.get(key) for name, one in flat.items()}
        first = next(iter(values.values()))
        if all(value == first for value in values.values()):
            common[key] = first
        else:
            differing[key] = values
    return common, differing
