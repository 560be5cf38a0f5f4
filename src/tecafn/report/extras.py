"""What a table shows besides its rows: published numbers, charts, loss tracing, single cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from tecafn.core.conventions import METRIC_INFO
from tecafn.evaluation.metrics import format_metric, names_in_order
from tecafn.records.comparison import Cases, ComparisonSummary, LossSeries, Published
from tecafn.report import figures
from tecafn.report.marks import MINUS, latex, markdown, markdown_table

UNVERIFIED = "?"
# The terms of a curve, the main ones first, in one figure each.
_SUMS = ("total", "task", "con", "ap")


@dataclass(frozen=True)
class PlainTable:
    """A table of plain text.

    Args:
        title: in a sentence.
        columns: the first is the row's name.
        rows: as many cells each.
        notes: sentences under it.
        texts: the columns of words, which begin at the left.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    texts: tuple[str, ...] = ()


def published_table(summary: ComparisonSummary, labels: dict[str, str]) -> PlainTable | None:
    """Measured means beside published numbers; a cell that is unknown stays empty.

    Args:
        summary: of the comparison.
        labels: the printed name of each metric.
    """
    published = summary.get("published")
    if published is None:
        return None
    metrics = names_in_order(list({name for row in published["rows"].values() for name in row}))
    columns = ["row"]
    for name in metrics:
        columns += [labels.get(name, name), "published"]
    rows = []
    for row in summary["methods"]:
        known = published["rows"].get(row["name"], {})
        cells = [row["name"]]
        for name in metrics:
            mean = row["metrics"].get(name)
            cell = known.get(name)
            mark = "" if cell is None or cell["is_verified"] else f" {UNVERIFIED}"
            cells += [
                "" if mean is None else format_metric(name, mean["mean"]),
                "" if cell is None else cell["printed"] + mark,
            ]
        rows.append(cells)
    return PlainTable(
        f"Beside the published numbers ({published['dataset']})",
        columns,
        rows,
        published_notes(summary, published),
    )


def published_notes(summary: ComparisonSummary, published: Published) -> list[str]:
    """Whether the numbers can be compared, and where they come from."""
    notes = []
    if not published["is_comparable"]:
        notes.append(
            f"The published numbers are of {published['dataset']}, the measured ones of the "
            f"{summary['split']} split of {summary['data']['dataset']}: **they are not "
            "comparable**; only the order of the rows and their differences may be looked at."
        )
    sources: dict[str, list[str]] = {}
    for name, row in published["rows"].items():
        for source in dict.fromkeys(cell["source"] for cell in row.values()):
            sources.setdefault(source, []).append(name)
    words = {source: ", ".join(names) for source, names in sources.items()}
    if len(words) == 1:
        notes.append(f"Source of every published number: {next(iter(words))}.")
    elif words:
        said = "; ".join(f"{source} ({names})" for source, names in words.items())
        notes.append(f"Sources of the published numbers: {said}.")
    every = (cell for row in published["rows"].values() for cell in row.values())
    if any(not cell["is_verified"] for cell in every):
        notes.append(f"{UNVERIFIED} marks a number that nobody has compared with a print.")
    return notes


def cases_table(cases: Cases) -> PlainTable:
    """The single cases: text, label, and what each row said with its absolute error."""
    names = list(
        dict.fromkeys(n for c in cases["cases"] for k in c["clips"] for n in k["predictions"])
    )
    rows = []
    for number, case in enumerate(cases["cases"], 1):
        for clip in case["clips"]:
            answers = [
                f"{_signed(clip['predictions'][name])} "
                f"({abs(clip['predictions'][name] - clip['label']):.2f})"
                for name in names
            ]
            interval = f"{_signed(case['low'], 1)} to {_signed(case['high'], 1)}"
            rows.append([f"{number}", interval, clip["text"], _signed(clip["label"]), *answers])
    note = (
        f"Of {cases['num_pairs']} pairs of clips of one video whose labels differ by less than "
        f"{cases['max_gap']:g}, one was drawn at random for each quarter of the scale, by the mean "
        "of its labels. Each row's answer is the mean over seeds, in brackets its absolute error. "
        "All pairs are counted under hard pairs in the table of rows: single cases prove nothing."
    )
    return PlainTable(
        "Cases",
        ["case", "interval", "text", "label", *names],
        rows,
        [note] if rows else [],
        texts=("interval", "text"),
    )


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", MINUS)


def plain_tables(summary: ComparisonSummary, labels: dict[str, str]) -> list[PlainTable]:
    """All of them that the summary has."""
    published = published_table(summary, labels)
    tables = [] if published is None else [published]
    if "cases" in summary:
        tables.append(cases_table(summary["cases"]))
    if "losses" in summary:
        tables.append(_losses_table(summary["losses"]["series"], summary["losses"]["window"]))
    return tables


def _losses_table(series: Sequence[LossSeries], window: int) -> PlainTable:
    """First and last window of each loss."""
    rows = [
        [
            one["row"],
            one["phase"],
            one["name"],
            f"{one['means'][0]:.4g}",
            f"{one['means'][-1]:.4g}",
            f"{one['steps'][-1]:.0f}",
        ]
        for one in series
        if one["means"]
    ]
    columns = ["row", "phase", "loss", "first window", "last window", "steps"]
    note = f"Each value is the mean of {window} training steps, averaged over seeds."
    return PlainTable("Losses", columns, rows, [note])


def markdown_extras(summary: ComparisonSummary, labels: dict[str, str]) -> list[str]:
    """Blocks of a Markdown page."""
    blocks = []
    for table in plain_tables(summary, labels):
        rows = [[markdown(cell) for cell in row] for row in table.rows]
        blocks += [f"## {table.title}", markdown_table(table.columns, rows), *table.notes]
    return blocks


def latex_extras(summary: ComparisonSummary, labels: dict[str, str]) -> list[str]:
    """Further tabulars."""
    lines = []
    for table in plain_tables(summary, labels):
        lines += [
            f"\n% {table.title}",
            f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            "\\toprule",
            f"{' & '.join(latex(name) for name in table.columns)} \\\\",
            "\\midrule",
            *(f"{' & '.join(latex(cell) for cell in row)} \\\\" for row in table.rows),
            "\\bottomrule",
            "\\end{tabular}",
            *(f"\n{latex(note.replace('**', ''))}" for note in table.notes),
        ]
    return lines


def page_extras(summary: ComparisonSummary, labels: dict[str, str]) -> dict[str, Any]:
    """What the page shows of them: tables and figures."""
    tables = [
        {
            "title": table.title,
            "columns": table.columns,
            "rows": table.rows,
            "texts": table.texts,
            "notes": [note.replace("**", "") for note in table.notes],
        }
        for table in plain_tables(summary, labels)
        if table.title != "Losses"
    ]
    return {"extra_tables": tables, "charts": charts(summary, labels), "losses": losses(summary)}


def charts(summary: ComparisonSummary, labels: dict[str, str]) -> list[tuple[str, Markup]]:
    """A chart for each metric that rows are paired by: means with intervals, seeds, published."""
    axis = summary.get("chart")
    rows = [row for row in summary["methods"] if row["metrics"]]
    if axis is None or not rows:
        return []
    published = summary.get("published")
    found = []
    detectable = summary.get("detectable", {})
    for metric in dict.fromkeys((summary["primary"], *detectable)):
        cells = [row["metrics"].get(metric) for row in rows]
        if any(cell is None or cell["mean"] is None for cell in cells):
            continue
        info = METRIC_INFO.get(metric)
        scale = 100.0 if info is not None and info.percent else 1.0
        printed = [
            (published["rows"].get(row["name"], {}) if published else {}).get(metric)
            for row in rows
        ]
        figure = figures.row_chart(
            names=[row["name"] for row in rows],
            places=[row.get("x") for row in rows],
            means=np.array([scale * float(c["mean"] or 0) for c in cells if c is not None]),
            intervals=[
                None
                if c is None or not c.get("interval")
                else tuple(scale * e for e in c["interval"] or ())
                for c in cells
            ],
            seeds=[
                [scale * v for v in (c["values"] if c is not None else []) if v is not None]
                for c in cells
            ],
            published=[None if one is None else float(one["printed"]) for one in printed],
            published_of=published["dataset"]
            if published and not published["is_comparable"]
            else "",
            axis=axis,
            unit=labels.get(metric, metric) + (", %" if scale > 1 else ""),
            name=f"chart-{metric}",
        )
        found.append((labels.get(metric, metric), figure))
    return found


def losses(summary: ComparisonSummary) -> list[tuple[str, Markup]]:
    """A curve for each row, phase and term."""
    if "losses" not in summary:
        return []
    several_rows = len({one["row"] for one in summary["losses"]["series"]}) > 1
    several_phases = len({one["phase"] for one in summary["losses"]["series"]}) > 1
    found = []
    for number, one in enumerate(_in_order(summary["losses"]["series"])):
        parts = [one["row"]] * several_rows + [one["phase"]] * several_phases + [one["name"]]
        figure = figures.band_curve(
            np.array(one["steps"]),
            np.array(one["means"]),
            None if one["stds"] is None else np.array(one["stds"]),
            unit="loss",
            name=f"loss-{number}",
        )
        found.append((", ".join(parts), figure))
    return found


def _in_order(series: Sequence[LossSeries]) -> list[LossSeries]:
    known = list(_SUMS)
    return sorted(
        series,
        key=lambda one: known.index(one["name"]) if one["name"] in known else len(known),
    )
