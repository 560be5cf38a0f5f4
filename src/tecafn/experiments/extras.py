"""What a table shows besides its rows: published numbers, a chart, loss tracing, single cases.

The table's file asks for them; they are computed once, from what the runs left, and kept in the
comparison's summary, from which the pages are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tecafn.core.dataset_names import is_synthetic
from tecafn.core.errors import UserError
from tecafn.evaluation.hard_pairs import find_hard_pairs, max_gap_of
from tecafn.evaluation.published import SOURCES, Cell, comparable_table, published_tables
from tecafn.experiments.summary import Entry, SeedPredictions
from tecafn.records.comparison import (
    Case,
    Cases,
    ComparisonSummary,
    Losses,
    LossSeries,
    Published,
    PublishedCell,
)
from tecafn.records.events import StepEvent, read_events

NUM_INTERVALS = 4
WINDOW = 15


def add_extras(
    summary: ComparisonSummary,
    asked: Mapping[str, Any],
    entries: Sequence[Entry],
    finished: Mapping[str, SeedPredictions],
) -> None:
    """Add to a summary what its table's file asks for.

    Args:
        summary: is added to.
        asked: ``kind``, ``published``, ``chart`` and ``window`` of the file.
        entries: the rows.
        finished: what the finished cells of each row predicted.

    Raises:
        UserError: the file asks for something that there is not.
    """
    if "chart" in asked:
        chart = asked["chart"]
        if not isinstance(chart, Mapping) or not isinstance(chart.get("axis"), str):
            raise UserError(f'chart must name its axis, {{ axis = "p" }}, got {chart!r}')
        summary["chart"] = chart["axis"]
    if "published" in asked:
        published = published_rows(asked["published"], summary)
        if published is not None:
            summary["published"] = published
    kind = asked.get("kind", "rows")
    if kind == "losses":
        summary["losses"] = trace_losses(entries, window=int(asked.get("window", WINDOW)))
    elif kind == "cases" and finished and summary["data"]["task"] == "regression":
        summary["cases"] = draw_cases(finished, summary["data"]["label_range"])
    elif kind not in ("rows", "cases"):
        raise UserError(f"kind must be rows, losses or cases, got {kind!r}")


def published_rows(asked: Any, summary: ComparisonSummary) -> Published | None:
    """The published numbers of a table's rows that stand beside a dataset.

    On a dataset of which nothing is published they are those of the one that it is shaped like, and
    are marked as not comparable.

    Args:
        asked: ``methods`` for the numbers of ``evaluation/published.toml``; else dataset to row to
            metric to (number, source).
        summary: of the comparison.

    Raises:
        UserError: it is neither.
    """
    data = summary["data"]
    tables = _tables(asked)
    known = comparable_table(
        data["dataset"],
        summary["split"],
        data["splits"],
        convention=data.get("convention", "mosi"),
    )
    if known is not None and known.dataset in tables:
        return {"dataset": known.dataset, "is_comparable": True, "rows": tables[known.dataset]}
    name = data["dataset"].lower().replace("_", "-")
    shape = name.partition("-")[2] if is_synthetic(name) else name
    for dataset in (shape, f"cmu-{shape}"):
        if dataset in tables:
            return {"dataset": dataset, "is_comparable": False, "rows": tables[dataset]}
    return None


def _tables(asked: Any) -> dict[str, dict[str, dict[str, PublishedCell]]]:
    if asked == "methods":
        return {
            dataset: {
                row.method: {name: _cell(cell) for name, cell in row.cells.items()}
                for row in table.rows
            }
            for dataset, table in published_tables().items()
        }
    try:
        return {
            dataset: {
                row: {
                    name: _cell(Cell(printed, tuple(sources.split())))
                    for name, (printed, sources) in cells.items()
                }
                for row, cells in rows.items()
            }
            for dataset, rows in asked.items()
        }
    except (AttributeError, TypeError, ValueError, KeyError):
        raise UserError(
            'published must be "methods", or dataset, row and metric with a number and its source, '
            f'such as mae = ["0.684", "P"]; sources are {", ".join(SOURCES)}'
        ) from None


def _cell(cell: Cell) -> PublishedCell:
    return {
        "printed": cell.printed,
        "source": "; ".join(SOURCES[source] for source in cell.sources),
        "is_verified": cell.is_verified,
    }


def trace_losses(entries: Sequence[Entry], *, window: int) -> Losses:
    """Every loss by its name, averaged over windows of training steps and over seeds.

    Args:
        entries: the rows; their finished cells count.
        window: steps, >= 1.

    Source: TeCaFN, Huang et al. 2024, Sect. 4.7: "the average loss is plotted at fixed intervals
    every 15 training steps".
    """
    if window < 1:
        raise UserError(f"window must be >= 1, got {window}")
    series: list[LossSeries] = []
    for entry in entries:
        runs = [read_events(cell.run) for cell in entry.cells if cell.is_finished()]
        traces = [trace(events.steps, window=window) for events in runs if events is not None]
        for phase, name in dict.fromkeys(key for one in traces for key in one):
            both = [one[phase, name] for one in traces if (phase, name) in one]
            length = min(len(steps) for steps, _ in both)
            values = np.array([means[:length] for _, means in both])
            series.append(
                {
                    "row": entry.name,
                    "phase": phase,
                    "name": name,
                    "steps": both[0][0][:length],
                    "means": values.mean(axis=0).tolist(),
                    "stds": values.std(axis=0, ddof=1).tolist() if len(values) > 1 else None,
                }
            )
    return {"window": window, "series": series}


def trace(
    steps: Sequence[StepEvent], *, window: int
) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """Phase and term to the last step and the mean of each window; the last window may be short.

    Example:
        >>> events = [{"step": k, "losses": {"ta": float(k)}, "total": 0.0} for k in (1, 2, 3)]
        >>> trace(events, window=2)["main", "ta"]
        ([2.0, 3.0], [1.5, 3.0])
    """
    found: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    values: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for event in steps:
        phase = event.get("phase", "main")
        for name, value in (*event["losses"].items(), ("total", event["total"])):
            if value is not None:
                values.setdefault((phase, name), []).append((event["step"], value))
    for key, pairs in values.items():
        parts = [pairs[k : k + window] for k in range(0, len(pairs), window)]
        found[key] = (
            [float(part[-1][0]) for part in parts],
            [float(np.mean([value for _, value in part])) for part in parts],
        )
    return found


def draw_cases(finished: Mapping[str, SeedPredictions], label_range: Sequence[float]) -> Cases:
    """One pair of clips of each interval of the scale, drawn at random, and what each row said.

    A pair is of one video, with labels that differ by less than ``max_gap_of`` the range. The scale
    is cut in four equal intervals; the mean of the two labels says in which a pair lies. Pairs are
    drawn, and not chosen by how well somebody did.

    Args:
        finished: predictions of each row, of the same samples.
        label_range: lowest and highest label.

    Source: TeCaFN, Huang et al. 2024, Sect. 4.9: "we randomly choose four pairs of similar samples
    distributed in different sentimental intervals".
    """
    first = next(iter(finished.values()))
    low, high = label_range
    max_gap = max_gap_of((low, high))
    pairs = find_hard_pairs(first.labels, first.videos.tolist(), max_gap=max_gap)
    random = np.random.default_rng(0)
    edges = np.linspace(low, high, NUM_INTERVALS + 1)
    middles = first.labels[pairs].mean(axis=1)
    places = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, NUM_INTERVALS - 1)
    cases: list[Case] = []
    for number in range(NUM_INTERVALS):
        inside = np.flatnonzero(places == number)
        if not len(inside):
            continue
        pair = pairs[random.choice(inside)].tolist()
        cases.append(
            {
                "low": float(edges[number]),
                "high": float(edges[number + 1]),
                "clips": [
                    {
                        "id": first.ids[row],
                        "text": first.texts[row],
                        "label": float(first.labels[row]),
                        "predictions": {
                            name: float(runs.predictions[:, row].mean())
                            for name, runs in finished.items()
                        },
                    }
                    for row in pair
                ],
            }
        )
    return {"max_gap": max_gap, "num_pairs": len(pairs), "cases": cases}
