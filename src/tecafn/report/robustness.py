"""Pages on how runs answer when something of their data is changed, from ``robustness.json``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tecafn.core.conventions import METRIC_INFO, convention_named
from tecafn.evaluation.metrics import format_metric, names_in_order
from tecafn.records.measured import allowed_errors
from tecafn.records.record import Evaluation, write_text_atomically
from tecafn.records.robustness import Point, Robustness, RobustRun
from tecafn.report import figures
from tecafn.report.html import page_environment
from tecafn.report.marks import MINUS, markdown, markdown_table

_PAIRS = {
    "hard_pairs": "hard pairs ranked correctly",
    "designed_pairs": "designed pairs ranked correctly",
}
_CURVES = {"lost frames": "share of the frames lost", "mistaken words": "share of words mistaken"}
_ABOUT = {
    "dropped": "the modality is absent for every sample",
    "shuffled": "every sample has the modality of another sample of the split",
    "noise": "frames are Gaussian noise with the training split's mean and deviation of each "
    "column; words are drawn from the training split as often as they stand there",
    "lost frames": "frames are masked where they stood, each by chance; a sample that loses all "
    "lacks the modality",
    "mistaken words": "words are replaced by chance, as a speech recogniser mistakes them: by a "
    "word of the training split that sounds alike (Soundex) where there is one, else by any; "
    "stored text vectors by those of other words",
}


@dataclass(frozen=True)
class Curve:
    """A run's points of one kind over the rates.

    Args:
        kind: what was done.
        modalities: to which.
        points: by rate, from 0.
    """

    kind: str
    modalities: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def title(self) -> str:
        """In words, such as ``lost frames of audio and vision``."""
        return _words_of(self.kind, self.modalities)

    @property
    def rates(self) -> NDArray[np.float64]:
        """(W,) of the points."""
        return np.array([point["rate"] for point in self.points])

    def values(self, measure: str) -> NDArray[np.float64]:
        """(W,) of a measure, NaN where it is undefined."""
        found = [_value(point["evaluation"], measure) for point in self.points]
        return np.array([np.nan if value is None else value for value in found])

    def area(self, measure: str) -> float | None:
        """The area under the curve over the width of its rates: the measure's mean over rates.

        None where a point is undefined.
        """
        values, rates = self.values(measure), self.rates
        if np.isnan(values).any():
            return None
        area = float(np.sum(np.diff(rates) * (values[1:] + values[:-1]) / 2))
        return area / float(rates[-1] - rates[0])


def curves_of(run: RobustRun) -> list[Curve]:
    """The curves of a run, in the order they were measured."""
    groups: dict[tuple[str, tuple[str, ...]], list[Point]] = {}
    for point in run["points"]:
        if point["kind"] in _CURVES:
            groups.setdefault((point["kind"], tuple(point["modalities"])), []).append(point)
    return [Curve(kind, names, tuple(points)) for (kind, names), points in groups.items()]


def measures_of(found: Robustness) -> list[str]:
    """All measures, those of pairs last."""
    every = [point["evaluation"] for run in found["runs"] for point in run["points"]]
    names = names_in_order(list({name for one in every for name in one["metrics"]}))
    return names + [pairs for pairs in _PAIRS if any(one.get(pairs) for one in every)]


def _value(evaluation: Evaluation, measure: str) -> float | None:
    if measure in _PAIRS:
        pairs: Any = evaluation.get(measure)
        return None if not pairs else pairs["ordered"]
    return evaluation["metrics"].get(measure)


def _interval(evaluation: Evaluation, measure: str) -> tuple[float, float] | None:
    if measure in _PAIRS:
        pairs: Any = evaluation.get(measure)
        ends = pairs.get("interval") if pairs else None
    else:
        ends = evaluation["intervals"].get(measure)
    return None if ends is None else (float(ends[0]), float(ends[1]))


def _is_share(measure: str) -> bool:
    return measure in _PAIRS or (measure in METRIC_INFO and METRIC_INFO[measure].percent)


def _shown(measure: str, value: float | None) -> str:
    if measure in _PAIRS:
        return "" if value is None else f"{100 * value:.2f}"
    return format_metric(measure, value)


def _change(measure: str, value: float | None, clean: float | None) -> str:
    """By how much a value differs from that of the unchanged data."""
    if value is None or clean is None:
        return ""
    text = f"{100 * (value - clean):+.2f}" if _is_share(measure) else f"{value - clean:+.3f}"
    return text.replace("-", MINUS)


def _words_of(kind: str, modalities: Sequence[str]) -> str:
    names = " and ".join(modalities)
    if kind == "clean":
        return "as it is"
    return f"{kind} of {names}" if kind == "lost frames" else f"{names}: {kind}"


def _labels(found: Robustness) -> dict[str, str]:
    rules = convention_named(found["convention"])
    return {name: _PAIRS.get(name) or rules.label_of(name) for name in measures_of(found)}


def write_robustness_pages(folder: Path, found: Robustness) -> None:
    """Write ``robustness.html``, ``.md`` and ``.csv``.

    Raises:
        UserError: they cannot be written.
    """
    for ending, text in (
        ("html", render_page(found)),
        ("md", render_markdown(found)),
        ("csv", render_csv(found)),
    ):
        write_text_atomically(folder / f"robustness.{ending}", text)


def render_csv(found: Robustness) -> str:
    """A line per run, change, rate and measure; then one per area."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", "change", "modalities", "rate", "measure", "value", "low", "high"])
    for run in found["runs"]:
        for point in run["points"]:
            names = "+".join(point["modalities"])
            for measure in measures_of(found):
                value = _value(point["evaluation"], measure)
                ends = _interval(point["evaluation"], measure) or ("", "")
                head = [run["name"], point["kind"], names, f"{point['rate']:g}", measure]
                writer.writerow([*head, "" if value is None else value, *ends])
        for curve in curves_of(run):
            for measure in measures_of(found):
                area = curve.area(measure)
                head = [run["name"], curve.kind, "+".join(curve.modalities), "area", measure]
                writer.writerow([*head, "" if area is None else area, "", ""])
    return file.getvalue()


def whole_rows(found: Robustness) -> Iterator[tuple[RobustRun, Point, Evaluation]]:
    """Each run's clean point and those of whole modalities, with the clean one's evaluation."""
    for run in found["runs"]:
        for point in run["points"]:
            if point["kind"] not in _CURVES:
                yield run, point, run["points"][0]["evaluation"]


def _whole_table(found: Robustness) -> tuple[list[str], list[list[tuple[str, str]]]]:
    """Columns, and rows of (value, change) with the row's name first."""
    labels, several = _labels(found), len(found["runs"]) > 1
    rows = []
    for run, point, clean in whole_rows(found):
        name = _words_of(point["kind"], point["modalities"])
        cells = [(f"{run['name']}, {name}" if several else name, "")]
        for measure in labels:
            value = _value(point["evaluation"], measure)
            change = (
                "" if point["kind"] == "clean" else _change(measure, value, _value(clean, measure))
            )
            cells.append((_shown(measure, value), change))
        rows.append(cells)
    return ["change", *labels.values()], rows


def _area_table(found: Robustness) -> tuple[list[str], list[list[tuple[str, str]]]]:
    """Likewise, the means over the rates of each curve."""
    labels, several = _labels(found), len(found["runs"]) > 1
    rows = []
    for run in found["runs"]:
        clean = run["points"][0]["evaluation"]
        for curve in curves_of(run):
            cells = [(f"{run['name']}, {curve.title}" if several else curve.title, "")]
            for measure in labels:
                area = curve.area(measure)
                cells.append(
                    (_shown(measure, area), _change(measure, area, _value(clean, measure)))
                )
            rows.append(cells)
    return ["curve", *labels.values()], rows


def plain_table(found: Robustness) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows of the headline measures: whole modalities, then areas."""
    shown = convention_named(found["convention"]).headlines
    labels = _labels(found)
    kept = [0, *(1 + place for place, name in enumerate(labels) if name in shown)]
    columns, whole = _whole_table(found)
    _, areas = _area_table(found)
    rows = [*whole, *([(f"area, {name}", ""), *cells] for (name, _), *cells in areas)]
    cells = [[" ".join(filter(None, row[place])) for place in kept] for row in rows]
    return f"{_title(found)}: {_about(found)}", [columns[place] for place in kept], cells


def notes_of(found: Robustness) -> list[str]:
    """What a reader must know: how it was measured and what was left out."""
    kinds = {point["kind"] for run in found["runs"] for point in run["points"]}
    notes = [*allowed_errors(found)]
    notes += [f"{kind.capitalize()}: {_ABOUT[kind]}." for kind in _ABOUT if kind in kinds]
    notes.append(
        "Behind a value stands its difference from the same run's on unchanged data. The area of a "
        "curve, over the width of its rates, is the measure's mean over them. Intervals (95 %) are "
        "from resampling videos. One network is measured, which was trained on unchanged data; all "
        f"draws are of seed {found['seed']}."
    )
    for run in found["runs"]:
        notes += [f"{run['name']}: {line}." for line in run["skipped"]]
    return notes


def _title(found: Robustness) -> str:
    names = [run["name"] for run in found["runs"]]
    several = f"{len(names)} runs" if len(names) > 1 else names[0]
    return f"Robustness of {several}"


def _about(found: Robustness) -> str:
    size = found["runs"][0]["points"][0]["evaluation"]["num_samples"]
    return f"{found['dataset']}, {found['split']} split, {size} samples"


def render_markdown(found: Robustness) -> str:
    """Tables of whole modalities, of areas and of every curve."""
    blocks = [f"# {_title(found)}", f"{_about(found)}."]
    for title, (columns, rows) in (
        ("Whole modalities", _whole_table(found)),
        ("Areas under the curves", _area_table(found)),
    ):
        cells = [
            [markdown(f"{value} ({change})" if change else value) for value, change in row]
            for row in rows
        ]
        if rows:
            blocks += [f"## {title}", markdown_table([markdown(c) for c in columns], cells)]
    labels = _labels(found)
    for run in found["runs"]:
        for curve in curves_of(run):
            cells = [
                [
                    f"{point['rate']:g}",
                    *(_shown(name, _value(point["evaluation"], name)) for name in labels),
                ]
                for point in curve.points
            ]
            blocks += [
                f"## {markdown(run['name'])}: {curve.title}",
                markdown_table(["rate", *map(markdown, labels.values())], cells),
            ]
    return "\n\n".join([*blocks, *map(markdown, notes_of(found))]) + "\n"


def render_page(found: Robustness) -> str:
    """The page: tables, then a chart per curve and measure with all runs."""
    rules = convention_named(found["convention"])
    tables = [
        {"title": title, "columns": columns, "rows": rows}
        for title, (columns, rows) in (
            ("Whole modalities", _whole_table(found)),
            ("Areas under the curves", _area_table(found)),
        )
        if rows
    ]
    shown = [*rules.headlines, *_PAIRS]
    charts = [
        {
            "title": title,
            "main": [(label, figure) for name, label, figure in drawn if name in shown],
            "further": [(label, figure) for name, label, figure in drawn if name not in shown],
        }
        for title, drawn in _charts(found)
    ]
    facts = [
        (run["name"], f"{run['method']}, seed {run['seed']}, weights {run['weights_hash'][:12]}")
        for run in found["runs"]
    ]
    return (
        page_environment()
        .get_template("robustness.html.j2")
        .render(
            title=_title(found),
            about=_about(found),
            tables=tables,
            charts=charts,
            notes=notes_of(found),
            facts=facts,
        )
    )


def _charts(found: Robustness) -> Iterator[tuple[str, list[tuple[str, str, Markup]]]]:
    """For each kind of curve (measure, label, figure) of every measure."""
    by_title: dict[str, list[tuple[RobustRun, Curve]]] = {}
    for run in found["runs"]:
        for curve in curves_of(run):
            by_title.setdefault(curve.title, []).append((run, curve))
    for place, (title, curves) in enumerate(by_title.items()):
        drawn = []
        for measure, label in _labels(found).items():
            lines = [line for run, curve in curves if (line := _line(run, curve, measure))]
            if lines:
                unit = label + (", %" if _is_share(measure) else "")
                first = curves[0][1]
                figure = figures.line_chart(
                    first.rates,
                    lines,
                    axis=_CURVES[first.kind],
                    unit=unit,
                    name=f"curve-{place}-{measure}",
                )
                drawn.append((measure, label, figure))
        yield title, drawn


def _line(run: RobustRun, curve: Curve, measure: str) -> figures.Line | None:
    scale = 100.0 if _is_share(measure) else 1.0
    values = scale * curve.values(measure)
    if np.isnan(values[[0, -1]]).any():
        return None
    ends = [_interval(point["evaluation"], measure) or (np.nan, np.nan) for point in curve.points]
    low, high = scale * np.array(ends).T
    return figures.Line(run["name"], values, low, high)
