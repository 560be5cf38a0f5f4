"""One self-contained HTML file about a run, from what the run saved and nothing else.

The page makes no request and runs no script: figures are inline SVG, styles are inline, and a
content security policy forbids the rest. Transcripts are hostile input, escaped like all else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from tecafn.core.conventions import METRIC_INFO, Convention
from tecafn.evaluation.hard_pairs import (
    find_designed_pairs,
    find_hard_pairs,
    label_gap,
    max_gap_of,
    order_scores,
)
from tecafn.evaluation.metrics import (
    answered_classes,
    format_metric,
    names_in_order,
    seven_classes,
    sims_classes,
)
from tecafn.evaluation.published import SOURCES, comparable_table
from tecafn.records.measured import (
    allowed_errors,
    convention_of_data,
    convention_of_evaluation,
    remark_on_intervals,
)
from tecafn.records.predictions import SplitPredictions
from tecafn.records.record import short_commit
from tecafn.records.run_files import RunFiles, read_run
from tecafn.report import figures

Json = Mapping[str, Any]

NUM_WORST = 15
NUM_PAIRS_SHOWN = 10
_TERMS = {
    "total": "weighted sum of all terms",
    "task": "the prediction itself",
    "ta": "contrast of core and audio",
    "tv": "contrast of core and vision",
    "bicon": "contrast of the fused pairs",
    "tap": "own or replaced audio",
    "tvp": "own or replaced vision",
    "con": "sum of the contrasts",
    "ap": "sum of the pair predictions",
    "pair_accuracy": "share of pair predictions that are right",
}


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run directory.

    Args:
        run_dir: holds ``record.json``; ``events.jsonl`` and ``predictions/<split>.csv`` may be
            missing, the page then says so.

    Returns:
        The file's path. It replaces an older report in one step.

    Raises:
        UserError: no readable record, or a predictions file that does not fit; one line.
    """
    page = render_report(read_run(run_dir))
    path = run_dir / "report.html"
    partial = run_dir / ".report.html.partial"
    # Broken characters of a transcript must not stop a report.
    partial.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    os.replace(partial, path)
    return path


def render_report(run: RunFiles) -> str:
    """The page of a run."""
    return page_environment().get_template("report.html.j2").render(**_page(run))


def page_environment() -> Environment:
    """Where pages are made: everything is escaped, and a forgotten value is an error."""
    environment = Environment(
        loader=PackageLoader("tecafn.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda value: f"{value:,}".replace(
        ",", "\N{NARROW NO-BREAK SPACE}"
    )
    return environment


def _page(run: RunFiles) -> dict[str, Any]:
    record = run.record
    data: Json = record.get("data") or {}
    task = str(data.get("task") or "regression")
    split = _main_split(run)
    evaluation: Json = (record.get("evaluations") or {}).get(split) or {}
    rows = run.predictions.get(split)
    labelled = rows.labelled() if rows is not None else None
    if labelled is not None and not labelled.num_samples:
        labelled = None
    label_range = _label_range(data)
    rules = convention_of_evaluation(evaluation) or convention_of_data(data)
    return {
        "header": _header(record, task),
        "notes": [*allowed_errors(record, evaluation), *run.notes],
        "split": split,
        "headlines": _headlines(evaluation, rules),
        "metrics": _metrics_table(record),
        "undefined": evaluation.get("undefined") or {},
        "comparisons": _comparisons(record, split, evaluation, rules),
        "published": _published(record, split, evaluation, rules),
        "training": _training(run),
        "answers": _answers(rows, labelled, rules, label_range, data.get("class_names") or ()),
        "worst": _worst(labelled, task),
        "hard_pairs": _pairs(labelled, task, evaluation, "hard_pairs", label_range),
        "designed_pairs": _pairs(labelled, task, evaluation, "designed_pairs", label_range),
        "config": _flatten(record.get("config") or {}),
        "versions": sorted((str(k), str(v)) for k, v in (record.get("versions") or {}).items()),
        "data": _data_facts(data),
        "provenance": _provenance(evaluation),
    }


def _main_split(run: RunFiles) -> str:
    """The split the report is about: test when it was evaluated, else the last evaluated one."""
    evaluated = list(run.record.get("evaluations") or {})
    if "test" in evaluated or not (evaluated or run.predictions):
        return "test"
    return evaluated[-1] if evaluated else next(iter(run.predictions))


def _label_range(data: Json) -> tuple[float, float] | None:
    """Lowest and highest label; None where the record does not say."""
    ends = data.get("label_range")
    return (float(ends[0]), float(ends[1])) if ends else None


def _header(record: Json, task: str) -> dict[str, Any]:
    training: Json = record.get("training") or {}
    data: Json = record.get("data") or {}
    chosen = ""
    if training.get("monitor"):
        monitor = str(training["monitor"])
        chosen = (
            f"Epoch {_shown_epoch(training.get('best_epoch'))} of {training.get('epochs', '?')} "
            f"was chosen on the {training.get('chosen_on', '?')} split"
        )
        if isinstance(training.get("monitor_value"), int | float):
            label = convention_of_data(data).label_of(monitor)
            chosen += f", where its {label} was best: "
            chosen += format_metric(monitor, float(training["monitor_value"]))
            chosen += " %" if _unit(monitor) else ""
    stopped = {
        "patience": "training stopped when it no longer improved",
        "max_epochs": "training ran all its epochs",
    }.get(str(training.get("stopped")), "")
    facts = [
        ("Dataset", data.get("dataset")),
        ("Task", task),
        ("Seed", record.get("seed")),
        ("Parameters", _parameters(training)),
        ("Training time", _duration(training.get("seconds"))),
        ("Written", _moment(record.get("created"))),
        (
            "tecafn",
            f"{record.get('tecafn_version') or ''} {short_commit(record.get('commit'))}".strip(),
        ),
    ]
    return {
        "method": str(record.get("method") or "unnamed method"),
        "paper": record.get("paper"),
        "dataset": data.get("dataset"),
        "facts": [(name, str(value)) for name, value in facts if value not in (None, "")],
        "chosen": "; ".join(part for part in (chosen, stopped) if part),
    }


def _parameters(training: Json) -> str:
    total, trained = training.get("num_parameters"), training.get("num_trained_parameters")
    if not isinstance(total, int):
        return ""
    text = f"{total / 1e6:.1f} million"
    if isinstance(trained, int) and trained != total:
        text += f", {trained / 1e6:.1f} trained"
    return text


def _duration(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _moment(timestamp: object) -> str:
    """An ISO 8601 time to the minute; anything else as it came."""
    try:
        moment = datetime.fromisoformat(str(timestamp or ""))
    except ValueError:
        return str(timestamp or "")
    zone = "" if moment.tzinfo is None else f" {moment.tzname()}"
    return f"{moment:%Y-%m-%d %H:%M}{zone}"


def _number(metric: str, value: object) -> str:
    if isinstance(value, int | float):
        return format_metric(metric, float(value))
    return format_metric(metric, None)


def _interval(metric: str, interval: object) -> str:
    if not isinstance(interval, Sequence) or len(interval) != 2:
        return ""
    return f"{_number(metric, interval[0])} to {_number(metric, interval[1])}"


def _unit(metric: str) -> str:
    info = METRIC_INFO.get(metric)
    return "%" if info and info.percent else ""


def _direction(metric: str) -> str:
    info = METRIC_INFO.get(metric)
    return "lower is better" if info and info.lower_is_better else "higher is better"


def _headlines(evaluation: Json, rules: Convention) -> list[dict[str, str]]:
    metrics: Json = evaluation.get("metrics") or {}
    intervals: Json = evaluation.get("intervals") or {}
    cards = [
        {
            "label": rules.label_of(name),
            "value": _number(name, metrics[name]),
            "unit": _unit(name) if metrics[name] is not None else "",
            "interval": _interval(name, intervals.get(name)),
        }
        for name in rules.headlines
        if name in metrics
    ]
    for name, label in (("designed_pairs", "Designed pairs"), ("hard_pairs", "Hard pairs")):
        pairs = evaluation.get(name)
        if pairs and pairs.get("ordered") is not None:
            cards.append(
                {
                    "label": f"{label} ranked correctly",
                    "value": f"{100 * pairs['ordered']:.1f}",
                    "unit": "%",
                    "interval": _share_interval(pairs.get("interval")),
                }
            )
    return cards


def _share_interval(interval: object) -> str:
    if not isinstance(interval, Sequence) or len(interval) != 2:
        return ""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _metrics_table(record: Json) -> dict[str, Any] | None:
    evaluations: Json = record.get("evaluations") or {}
    names = names_in_order(
        list({name for one in evaluations.values() for name in one.get("metrics") or {}})
    )
    if not names:
        return None
    # The split that the run is judged by comes first.
    splits = sorted(evaluations, key=lambda split: split != "test")
    data: Json = record.get("data") or {}
    rules = {
        split: convention_of_evaluation(evaluations[split]) or convention_of_data(data)
        for split in splits
    }
    used = list({one.name: one for one in rules.values()}.values())
    # One row per definition: a key may mean two things where datasets of two kinds were measured.
    measured = [
        (name, label)
        for name in names
        for label in dict.fromkeys(one.label_of(name) for one in used if name in one.names)
    ]
    return {
        "splits": [
            {
                "name": split,
                "num_samples": evaluations[split].get("num_samples"),
                "chose": evaluations[split].get("chosen_on") == split,
            }
            for split in splits
        ],
        "rows": [
            {
                "label": label,
                "direction": ("in %, " if _unit(name) else "") + _direction(name),
                "definition": "; ".join(
                    dict.fromkeys(
                        one.definition_of(name) for one in used if one.label_of(name) == label
                    )
                ),
                "cells": [
                    _metric_cell(evaluations[split], name)
                    if rules[split].label_of(name) == label
                    else {"value": "", "interval": ""}
                    for split in splits
                ],
            }
            for name, label in measured
        ],
        "conventions": [
            f"the {one.name} convention ({one.about})" for one in used if not one.is_of_classes
        ],
        "resampling": evaluations[splits[0]].get("resampling"),
        "remarks": [
            f"{split}: {remark[0].lower()}{remark[1:]}"
            for split in splits
            if (remark := remark_on_intervals(evaluations[split].get("num_videos")))
        ],
    }


def _metric_cell(evaluation: Json, name: str) -> dict[str, str]:
    metrics: Json = evaluation.get("metrics") or {}
    if name not in metrics:
        return {"value": "", "interval": ""}
    return {
        "value": _number(name, metrics[name]),
        "interval": _interval(name, (evaluation.get("intervals") or {}).get(name)),
    }


def _share(pairs: object) -> dict[str, Any] | None:
    """A share of pairs ranked correctly, for its number and its small chart."""
    if not isinstance(pairs, Mapping) or pairs.get("ordered") is None:
        return None
    ordered = 100 * float(pairs["ordered"])
    interval = pairs.get("interval")
    low, high = (100 * float(end) for end in interval) if interval else (ordered, ordered)
    return {
        "value": f"{ordered:.1f}",
        "interval": _share_interval(interval),
        "at": round(ordered, 2),
        "low": round(low, 2),
        "width": round(high - low, 2),
        "num_pairs": pairs.get("num_pairs"),
    }


def _comparisons(
    record: Json, split: str, evaluation: Json, rules: Convention
) -> dict[str, Any] | None:
    """This run beside what it was compared with, and beside the synthetic corpus's ceiling."""
    others = [one for one in record.get("comparisons") or [] if one.get("split") == split]
    ceiling = evaluation.get("ceiling")
    if not others and not ceiling:
        return None
    entries: list[tuple[str, str, Json]] = [("this", "this run", evaluation)]
    entries += [("other", str(one.get("name", "?")), one) for one in others]
    if ceiling:
        entries.append(("ceiling", "ceiling: what the data allow", ceiling))
    shown = [
        name
        for name in rules.headlines
        if not name.startswith("f1")
        and any(name in (entry.get("metrics") or {}) for _, _, entry in entries)
    ]
    differing = names_in_order(
        list({name for _, _, entry in entries for name in entry.get("difference") or {}})
    )
    rows = []
    for kind, name, entry in entries:
        metrics: Json = entry.get("metrics") or {}
        differences: Json = entry.get("difference") or {}
        rows.append(
            {
                "kind": kind,
                "name": name,
                "cells": [_number(m, metrics[m]) if m in metrics else "" for m in shown],
                "designed_pairs": _share(entry.get("designed_pairs")),
                "hard_pairs": _share(entry.get("hard_pairs")),
                "differences": [
                    _difference(m, differences[m]) if m in differences else None for m in differing
                ],
            }
        )
    return {
        "metrics": [rules.label_of(name) + (", %" if _unit(name) else "") for name in shown],
        "rows": rows,
        "has_designed": any(row["designed_pairs"] for row in rows),
        "has_hard": any(row["hard_pairs"] for row in rows),
        "differences": [
            rules.label_of(name) + (", points" if _unit(name) else "") for name in differing
        ],
    }


def _difference(metric: str, difference: Json) -> dict[str, str]:
    def signed(value: float) -> str:
        scaled = 100 * value if _unit(metric) else value
        text = f"{scaled:+.2f}" if _unit(metric) else f"{scaled:+.3f}"
        return text.replace("-", "\N{MINUS SIGN}")

    interval = difference.get("interval")
    p_value = difference.get("p_value")
    p_text = ""
    if isinstance(p_value, int | float):
        p_text = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    return {
        "value": signed(float(difference.get("value", 0.0))),
        "interval": f"{signed(interval[0])} to {signed(interval[1])}" if interval else "",
        "p": p_text,
    }


def _split_sizes(data: Json) -> dict[str, int]:
    """Samples of each split; a record holds a number or the store's object of counts."""
    sizes = {}
    for name, value in (data.get("splits") or {}).items():
        count = value.get("num_samples") if isinstance(value, Mapping) else value
        if isinstance(count, int):
            sizes[str(name)] = count
    return sizes


def _published(
    record: Json, split: str, evaluation: Json, rules: Convention
) -> dict[str, Any] | None:
    """Printed numbers, where dataset, split and measures are the paper's."""
    data: Json = record.get("data") or {}
    metrics: Json = evaluation.get("metrics") or {}
    table = comparable_table(
        str(data.get("dataset") or ""), split, _split_sizes(data), convention=rules.name
    )
    if table is None or not metrics:
        return None
    used = {name for row in table.rows for name in row.cells}
    shown = names_in_order(list(used))
    if not shown:
        return None
    rows = []
    for row in table.rows:
        cells = [row.cells.get(name) for name in shown]
        rows.append(
            {
                "name": row.method,
                "note": row.note,
                "this": False,
                "cells": [
                    {
                        "value": cell.printed if cell else "",
                        "sources": " ".join(cell.sources) if cell else "",
                        "unverified": bool(cell) and not cell.is_verified if cell else False,
                    }
                    for cell in cells
                ],
            }
        )
    rows.append(
        {
            "name": f"{record.get('method', 'this run')} (this run, one seed)",
            "note": "",
            "this": True,
            "cells": [
                {"value": _number(name, metrics.get(name)), "sources": "", "unverified": False}
                for name in shown
            ],
        }
    )
    return {
        "metrics": [rules.label_of(name) for name in shown],
        "rows": rows,
        "sources": list(SOURCES.items()),
    }


def _training(run: RunFiles) -> dict[str, Any] | None:
    if not run.steps and not run.epochs:
        return None
    training: Json = run.record.get("training") or {}
    rules = convention_of_data(run.record.get("data") or {})
    monitor = str(training.get("monitor") or rules.primary)
    # Beside the metric that chose the epoch, one that did not.
    curves: list[dict[str, str]] = []
    for name in (monitor, "corr" if monitor != "corr" else "mae", "f1"):
        curve = _validation_curve(
            run.epochs, name, training.get("best_epoch"), name=f"validation{len(curves)}"
        )
        if curve is not None and len(curves) < 2:
            role = "chose the epoch" if name == monitor else "did not choose the epoch"
            curves.append(
                {
                    "metric": rules.label_of(name),
                    "about": f"{role}; {_direction(name)}",
                    "figure": curve,
                }
            )
    return {"curves": curves, "health": _health(training), **_loss_curves(run.steps)}


_READINGS = {
    "contrast": "loss of a contrast; chance: the logarithm of the number of candidates",
    "head": "loss of a head that tells two kinds apart; chance: the entropy of their shares",
    "hubs": "largest share of the rows that have one sample among their hardest; chance: the "
    "largest of random draws",
    "influence": "how far another sample's frames of one modality move it; 1: as far as to "
    "another sample altogether",
}


def _health(training: Json) -> list[dict[str, str]]:
    """What the losses beside the task's did in the chosen epoch, a row for each reading."""
    rows = []
    for name, reading in (training.get("health") or {}).items():
        shares: Json = reading.get("shares") or {}
        values = [f"{modality} {float(share):.2f}" for modality, share in shares.items()]
        if not values and _is_finite(reading.get("value")):
            values = [f"{float(reading['value']):.3f}"]
        chance = reading.get("chance")
        rows.append(
            {
                "name": str(name),
                "meaning": _READINGS.get(str(reading.get("kind")), ""),
                "value": ", ".join(values),
                "chance": f"{float(chance):.3f}" if _is_finite(chance) else "",
                "amiss": str(reading.get("amiss") or ""),
            }
        )
    return rows


def _shown_epoch(number: object) -> int | str:
    """Records count epochs from 0, what people read counts from 1.

    Example:
        >>> _shown_epoch(0), _shown_epoch(None)
        (1, '?')
    """
    return number + 1 if isinstance(number, int) else "?"


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _validation_curve(
    epochs: Sequence[Json], metric: str, best: object, *, name: str
) -> Markup | None:
    points = [
        (_shown_epoch(event["epoch"]), float(event["valid"][metric]))
        for event in epochs
        if _is_finite((event.get("valid") or {}).get(metric))
    ]
    if not points:
        return None
    info = METRIC_INFO.get(metric)
    numbers, values = np.array(points, dtype=np.float64).T
    return figures.validation_curve(
        numbers,
        values,
        chosen=best + 1 if isinstance(best, int) else None,
        percent=bool(info and info.percent),
        name=name,
    )


def _loss_curves(steps: Sequence[Json]) -> dict[str, Any]:
    """A panel for each named term of each phase."""
    series: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
    for event in steps:
        phase = str(event.get("phase", "main"))
        terms = {"total": event.get("total"), **(event.get("losses") or {})}
        for name, value in terms.items():
            if _is_finite(value):
                numbers, values = series.setdefault((phase, str(name)), ([], []))
                numbers.append(int(event["step"]))
                values.append(float(value))
    if not series:
        return {"losses": [], "window": 0, "num_steps": 0}
    num_steps = max(len(values) for _, values in series.values())
    # The paper averages 15 steps; a very short or long run needs another width to be readable.
    window = min(max(15, -(-num_steps // 300)), max(1, num_steps // 20))
    num_phases = len({phase for phase, _ in series})
    panels = []
    for position, ((phase, name), (numbers, values)) in enumerate(series.items()):
        mean_steps, means = figures.windowed_means(numbers, values, window=window)
        panels.append(
            {
                "term": name if num_phases == 1 else f"{phase}: {name}",
                "meaning": _TERMS.get(name, ""),
                "figure": figures.loss_curve(
                    mean_steps,
                    means,
                    unit="share" if name.endswith("accuracy") else "loss",
                    name=f"loss{position}",
                ),
            }
        )
    return {"losses": panels, "window": window, "num_steps": num_steps}


def _answers(
    rows: SplitPredictions | None,
    labelled: SplitPredictions | None,
    rules: Convention,
    label_range: tuple[float, float] | None,
    names: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Figures of predictions against labels, or of predictions alone where there are no labels."""
    if rows is None or not rows.num_samples:
        return None
    classification = rules.is_of_classes
    ends = float(rows.predictions.min()), float(rows.predictions.max())
    binary = rules.name == "classification"
    value_range = (0.0, 1.0) if binary else label_range or ends
    axis = "probability of class 1" if binary else "class" if classification else "prediction"
    answers: dict[str, Any] = {
        "num_samples": rows.num_samples,
        "num_labelled": 0 if labelled is None else labelled.num_samples,
        "classification": classification,
        "scatter": None,
        "errors": None,
        "histogram": None,
        "confusion": None,
    }
    if labelled is None:
        answers["histogram"] = figures.value_histogram(
            {"predictions": rows.predictions}, value_range=value_range, axis=axis, name="values"
        )
        return answers
    scores, labels = labelled.predictions, labelled.labels
    if classification:
        guessed, true = (answered_classes(v).astype(np.int64) for v in (scores, labels))
        highest = max(1, int(guessed.max()), int(true.max()))
        if highest == 1:  # else what is predicted is the class, and no probability
            groups = {
                name: scores[true == value]
                for name, value in (("label 0", 0), ("label 1", 1))
                if np.any(true == value)
            }
            answers["histogram"] = figures.value_histogram(
                groups, value_range=value_range, axis=axis, name="values"
            )
        answers["confusion"] = _confusion(
            guessed,
            true,
            names=[
                names[value] if value < len(names) else str(value)
                for value in range(max(highest + 1, len(names)))
            ],
            title="Confusion of the classes",
        )
        return answers
    answers["scatter"] = figures.predicted_against_true(
        scores,
        labels,
        label_range=label_range or (float(labels.min()), float(labels.max())),
        name="scatter",
    )
    answers["errors"] = figures.error_histogram(scores - labels, name="errors")
    answers["confusion"] = _confusion_of_scores(scores, labels, rules)
    return answers


def _confusion_of_scores(
    scores: NDArray[np.float64], labels: NDArray[np.float64], rules: Convention
) -> dict[str, Any] | None:
    """The finest classes that the convention has; None where it has none."""
    if "acc7" in rules.names:
        return _confusion(
            seven_classes(scores) + 3,
            seven_classes(labels) + 3,
            names=[_signed(value) for value in range(-3, 4)],
            title="Confusion of the seven classes",
        )
    if rules.name == "sims":
        return _confusion(
            sims_classes(scores, "acc5"),
            sims_classes(labels, "acc5"),
            names=[_signed_text(n) for n in ("-1 to -0.7", "to -0.1", "to 0.1", "to 0.7", "to 1")],
            title="Confusion of the five classes",
        )
    return None


def _confusion(
    predicted: NDArray[np.int64], truth: NDArray[np.int64], *, names: Sequence[str], title: str
) -> dict[str, Any]:
    """Counts by true (rows) and predicted class 0, 1, ..., each row shaded by its share."""
    rows = []
    classes = range(len(names))
    for label in classes:
        counts = [int(np.sum((truth == label) & (predicted == guess))) for guess in classes]
        total = sum(counts)
        rows.append(
            {
                "label": names[label],
                "total": total,
                "recall": f"{100 * counts[label] / total:.1f} %" if total else "",
                "cells": [
                    {
                        "count": count,
                        "percent": round(100 * count / total) if total else 0,
                        "right": guess == label,
                    }
                    for guess, count in zip(classes, counts, strict=True)
                ],
            }
        )
    return {"classes": list(names), "rows": rows, "title": title}


def _signed(value: int) -> str:
    return _signed_text(str(value))


def _signed_text(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _score(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _worst(labelled: SplitPredictions | None, task: str) -> list[dict[str, str]]:
    if labelled is None:
        return []
    errors = labelled.predictions - labelled.labels
    if task == "classification" and labelled.labels.max(initial=0) > 1:
        return []  # no class is further off than another
    order = np.argsort(-np.abs(errors), kind="stable")[:NUM_WORST]
    decimals = 0 if task == "classification" else 2
    return [
        {
            "id": labelled.ids[row],
            "text": labelled.texts[row],
            "label": f"{labelled.labels[row]:.{decimals}f}".replace("-", "\N{MINUS SIGN}"),
            "prediction": _score(labelled.predictions[row]),
            "error": f"{errors[row]:+.2f}".replace("-", "\N{MINUS SIGN}"),
        }
        for row in order
    ]


def _pairs(
    labelled: SplitPredictions | None,
    task: str,
    evaluation: Json,
    kind: str,
    label_range: tuple[float, float] | None,
) -> dict[str, Any] | None:
    """The record's numbers, and the pairs furthest on the wrong and on the right side."""
    recorded = evaluation.get(kind)
    if labelled is None or task == "classification":
        return None
    scores, labels = labelled.predictions, labelled.labels
    max_gap = (recorded or {}).get("max_gap") or (label_range and max_gap_of(label_range))
    if kind == "hard_pairs":
        if max_gap is None:
            return None
        pairs = find_hard_pairs(labels, labelled.videos, max_gap=max_gap)
    else:
        pairs = find_designed_pairs(labels, labelled.pair_ids)
    if not len(pairs):
        return None
    ordered = order_scores(pairs, scores, labels)
    # How far the predictions lie apart in the true direction.
    margin = np.abs(scores[pairs[:, 0]] - scores[pairs[:, 1]]) * np.sign(ordered - 0.5)
    by_margin = np.argsort(margin, kind="stable")
    half = NUM_PAIRS_SHOWN // 2
    wrong = [row for row in by_margin if ordered[row] < 1][:half]
    right = [row for row in by_margin[::-1] if ordered[row] == 1][:half]
    gap = label_gap(labels, pairs)

    def entry(row: np.intp) -> dict[str, Any]:
        # The sample with the lower label first, so that a right order reads upward.
        members = sorted(pairs[row].tolist(), key=lambda member: float(labels[member]))
        return {
            "gap": _score(float(gap[row])),
            "verdict": {1.0: "right", 0.5: "tied", 0.0: "wrong"}[float(ordered[row])],
            "members": [
                {
                    "id": labelled.ids[member],
                    "text": labelled.texts[member],
                    "label": _score(labels[member]),
                    "prediction": _score(scores[member]),
                }
                for member in members
            ],
        }

    return {
        "share": _share(recorded),
        "mae": (recorded or {}).get("mae"),
        "num_videos": (recorded or {}).get("num_videos"),
        "num_pairs": len(pairs),
        "max_gap": f"{max_gap:g}" if max_gap else "",
        "num_right": int(np.sum(ordered == 1)),
        "num_tied": int(np.sum(ordered == 0.5)),
        "num_wrong": int(np.sum(ordered == 0)),
        "shown": [entry(row) for row in [*wrong, *right]],
        "num_shown_wrong": len(wrong),
        "num_shown_right": len(right),
    }


def _flatten(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names with JSON values.

    Example:
        >>> _flatten({"a": {"b": 1}, "c": [1, 2]})
        [('a.b', '1'), ('c', '[1, 2]')]
    """
    if isinstance(value, Mapping) and value:
        flat = []
        for name, inner in value.items():
            flat += _flatten(inner, f"{prefix}.{name}" if prefix else str(name))
        return flat
    return [(prefix, json.dumps(value, ensure_ascii=False))] if prefix else []


def _data_facts(data: Json) -> list[tuple[str, str]]:
    facts = [("Dataset", str(data.get("dataset") or "?"))]
    facts += [(f"{split} samples", str(size)) for split, size in _split_sizes(data).items()]
    label_range = _label_range(data)
    if label_range:
        ends = _signed_text(f"{label_range[0]:g} to {label_range[1]:g}")
        facts.append(("Label range", ends))
    rules = convention_of_data(data)
    facts.append(("Measures", f"{rules.name}: {rules.about}"))
    if data.get("hash"):
        facts.append(("Content hash", str(data["hash"])))
    return facts


def _provenance(evaluation: Json) -> list[tuple[str, str]]:
    names = (
        ("Evaluated", "created"),
        ("Split that chose the weights", "chosen_on"),
        ("Weights hash", "weights_hash"),
        ("Data hash", "data_hash"),
    )
    return [(label, str(evaluation[key])) for label, key in names if evaluation.get(key)]
