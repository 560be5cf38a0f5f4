"""Tables of the registry of results, computed from predictions; without torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tecafn.core.conventions import convention_named
from tecafn.core.errors import UserError
from tecafn.evaluation.metrics import classification_metrics, format_metric, sentiment_metrics
from tecafn.records.results import Result, SeedResult, read_result
from tecafn.report.marks import markdown, markdown_table


@dataclass(frozen=True)
class LeaderboardRow:
    """One result.

    Args:
        result: as registered.
        metrics: by name: one value per seed.
        flags: why its figures are no estimate.
    """

    result: Result
    metrics: Mapping[str, tuple[float, ...]]
    flags: tuple[str, ...]

    @property
    def main(self) -> float:
        """By which rows are ordered, less is better: the mean of the convention's first measure."""
        rules = convention_named(self.result.convention)
        measure = next(m for m in rules.measures if m.name == rules.primary)
        value = statistics.fmean(self.metrics[measure.name])
        return value if measure.lower_is_better else -value


@dataclass(frozen=True)
class Leaderboard:
    """All results on one split of one dataset.

    Args:
        dataset, split, data_hash: which.
        convention: of its metrics.
        rows: the best first; those with flags after all others.
        missing: names of results whose labels are not in the registry.
    """

    dataset: str
    split: str
    data_hash: str
    convention: str
    rows: tuple[LeaderboardRow, ...]
    missing: tuple[str, ...] = field(default=())


def read_leaderboards(
    folder: Path, *, labels: Mapping[str, Mapping[str, float]] | None = None
) -> list[Leaderboard]:
    """Every ``*.toml`` of a folder, by what it was measured on.

    Args:
        folder: of the registry.
        labels: by the hash of a dataset's content, the labels by id; for results that carry none.

    Raises:
        UserError: no such folder, or a file in it is damaged.
    """
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise UserError(f"{folder} holds no results (*.toml)")
    groups: dict[tuple[str, str, str, str], list[Result]] = {}
    for path in paths:
        result = read_result(path)
        key = (result.dataset, result.split, result.data_hash, result.convention)
        groups.setdefault(key, []).append(result)
    return [_leaderboard(key, results, labels or {}) for key, results in sorted(groups.items())]


def _leaderboard(
    key: tuple[str, str, str, str],
    results: Sequence[Result],
    labels: Mapping[str, Mapping[str, float]],
) -> Leaderboard:
    dataset, split, data_hash, convention = key
    known = labels.get(data_hash, {})
    ids = results[0].seeds[0].ids
    rows, missing = [], []
    for result in results:
        if sorted(result.seeds[0].ids) != sorted(ids):
            raise UserError(
                f"{result.path} and {results[0].path} predict other samples of {dataset} {split}"
            )
        metrics = [_metrics(result, seed, known) for seed in result.seeds]
        if any(found is None for found in metrics):
            missing.append(result.name)
            continue
        by_name = [found for found in metrics if found is not None]
        names = [n for n in by_name[0] if all(found[n] is not None for found in by_name)]
        values = {n: tuple(float(found[n] or 0.0) for found in by_name) for n in names}
        rows.append(LeaderboardRow(result, values, tuple(result.flags())))
    rows.sort(key=lambda row: (bool(row.flags), row.main, row.result.name))
    return Leaderboard(dataset, split, data_hash, convention, tuple(rows), tuple(missing))


def _metrics(
    result: Result, seed: SeedResult, known: Mapping[str, float]
) -> Mapping[str, float | None] | None:
    """Of one seed; None where labels are missing."""
    labels = np.array(
        [
            known.get(identity, float("nan")) if np.isnan(label) else label
            for identity, label in zip(seed.ids, seed.labels, strict=True)
        ]
    )
    if np.isnan(labels).any():
        return None
    if result.task == "classification":
        classes = np.rint(seed.predictions).astype(np.int64)
        return classification_metrics(classes, labels.astype(np.int64), result.convention)
    return sentiment_metrics(seed.predictions, labels, result.convention)


def table_of(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of cells."""
    rules = convention_named(board.convention)
    names = list(board.rows[0].metrics) if board.rows else []
    columns = ["result", "method", "seeds", *(rules.label_of(name) for name in names), "flags"]
    rows = [
        [
            row.result.name,
            row.result.method,
            str(len(row.result.seeds)),
            *(_cell(name, row.metrics.get(name, ())) for name in names),
            "; ".join(row.flags),
        ]
        for row in board.rows
    ]
    return columns, rows


def _cell(name: str, values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = format_metric(name, statistics.fmean(values))
    if len(values) == 1:
        return mean
    return f"{mean} \u00b1 {format_metric(name, statistics.stdev(values))}"


def title_of(board: Leaderboard) -> str:
    """What was measured."""
    return f"{board.dataset}, {board.split} (data {board.data_hash[:10]})"


def render_markdown(boards: Sequence[Leaderboard]) -> str:
    """All tables as one page."""
    parts = [
        "# Leaderboard",
        "*Made by `tecafn leaderboard` from the predictions in the registry.* Mean and standard "
        "deviation over seeds. A flag is computed: a row that has seen evaluated videos, or whose "
        "epoch was chosen on the split, stands below all others.",
    ]
    for board in boards:
        columns, rows = table_of(board)
        parts.append(f"## {title_of(board)}")
        parts.append(markdown_table(columns, [[markdown(cell) for cell in row] for row in rows]))
        if board.missing:
            parts.append(
                f"Without labels, and so not measured: {', '.join(board.missing)}. "
                "`--data` names the dataset."
            )
    return "\n\n".join(parts) + "\n"
