"""What an audit asks of a comparison, besides its runs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tecafn
from tecafn.core.tables import flatten
from tecafn.evaluation.hard_pairs import max_gap_of
from tecafn.evaluation.metrics import names_in_order
from tecafn.experiments.audit.findings import (
    FAILED,
    FailedError,
    Finding,
    NotShownError,
    ask,
    finding,
)
from tecafn.experiments.audit.of_run import audit_run
from tecafn.experiments.audit.rederived import first_difference
from tecafn.records.comparison import (
    ComparisonRow,
    ComparisonSummary,
    read_comparison,
    reference_of,
)
from tecafn.records.measured import convention_of_data
from tecafn.records.record import RunRecord, code_hash, read_record

if TYPE_CHECKING:
    from tecafn.experiments.summary import Entry, SeedPredictions

# The table's figures are of the same files; sums of another machine differ in the last digits.
_TOLERANCE = 1e-7


def audit_table(folder: Path, data_hash: str | None, *, other_code: bool) -> Iterator[Finding]:
    """Ask everything of a comparison and of each of its runs."""
    summary = read_comparison(folder)
    runs = {
        path.parent.relative_to(folder).as_posix(): path.parent
        for path in sorted(folder.glob("*/seed-*/record.json"))
    }
    if not runs:
        yield Finding("", "the table has finished runs", FAILED, f"none is below {folder}")
        return
    records = {}
    for name, run in runs.items():
        yield from audit_run(run, name, data_hash, other_code=other_code)
        records[name] = read_record(run)
    yield from ask("", _QUESTIONS, summary, records)
    for question, answer in (
        ("the predictions give the table", _predictions_give_the_table),
        ("the files show the table", _files_show_the_table),
    ):
        yield finding("", question, partial(answer, folder, summary))


def _one_protocol(summary: ComparisonSummary, records: Mapping[str, RunRecord]) -> str:
    """All runs are of the summary's data, and those of one row differ in the seed alone."""
    rows: dict[str, dict[str, Any]] = {}
    for name, record in records.items():
        if record["data"]["hash"] != summary["data"]["hash"]:
            raise FailedError(f"{name} is of other data than the table")
        flat = {k: v for k, v in flatten(record["config"]).items() if k != "seed"}
        row = name.partition("/")[0]
        first = rows.setdefault(row, flat)
        for key in sorted(first.keys() | flat.keys()):
            if first.get(key) != flat.get(key):
                raise FailedError(
                    f"{name} has {key} {flat.get(key)!r}, other seeds of the row {first.get(key)!r}"
                )
    for key, value in summary["common_settings"].items():
        for row, flat in rows.items():
            if flat.get(key) != value:
                raise FailedError(f"{row} has {key} {flat.get(key)!r}, the table says {value!r}")
    return f"{len(records)} runs of {len(rows)} rows"


def _same_code_for_all(_summary: ComparisonSummary, records: Mapping[str, RunRecord]) -> str:
    hashes = {record.get("code_hash") for record in records.values()}
    if hashes == {None}:
        raise NotShownError("no record has a hash of the code")
    if len(hashes) > 1:
        raise FailedError(f"the runs are of {len(hashes)} versions of the code")
    return "all runs are of one version"


def _table_shows_the_runs(summary: ComparisonSummary, records: Mapping[str, RunRecord]) -> str:
    """Every mean of the table is that of the runs' records."""
    folders: dict[str, list[RunRecord]] = {}
    for name, record in records.items():
        folders.setdefault(name.partition("/")[0], []).append(record)
    shown = [row for row in summary["methods"] if row["seeds"]]
    counted = 0
    for row in shown:
        mine = _runs_of(row["name"], folders)
        by_seed = {record["seed"]: record for record in mine}
        if sorted(by_seed) != sorted(row["seeds"]):
            raise FailedError(
                f"{row['name']}: the table has seeds {row['seeds']}, the runs {sorted(by_seed)}"
            )
        methods = {record["method"] for record in mine}
        if "method" in row and methods != {row["method"]}:
            raise FailedError(
                f"{row['name']}: the runs are of {' and '.join(sorted(methods))}, the table says "
                f"{row['method']}"
            )
        for metric, cell in row["metrics"].items():
            values = [
                by_seed[seed]["evaluations"][summary["split"]]["metrics"].get(metric)
                for seed in row["seeds"]
            ]
            known = [value for value in values if value is not None]
            mean = float(np.mean(known)) if len(known) == len(values) else None
            if cell["values"] != values or not _close(cell["mean"], mean):
                raise FailedError(
                    f"{row['name']}: {metric} of the runs is {mean}, the table says {cell['mean']}"
                )
            counted += 1
    if len(shown) < len(folders):
        raise FailedError(f"{len(folders)} rows have runs, the table shows {len(shown)}")
    return f"{counted} cells of {len(shown)} rows"


def _predictions_give_the_table(folder: Path, summary: ComparisonSummary) -> str:
    """The table's figures, measured again as it was: means, deviations, intervals, tests, pairs."""
    from tecafn.experiments.summary import measure

    rules = convention_of_data(summary["data"])
    low, high = summary["data"]["label_range"]
    entries = [_entry_of(folder, summary, row, rules.name) for row in summary["methods"]]
    measured = measure(
        entries,
        split=summary["split"],
        rules=rules,
        max_gap=max_gap_of((float(low), float(high))),
        against=reference_of(summary),
        sort=summary.get("sort"),
    )
    shown = [row["name"] for row in summary["methods"]]
    order = [row["name"] for row in measured.rows]
    if shown != order:
        raise FailedError(f"the order of the rows is {', '.join(order)}, not {', '.join(shown)}")
    for row, again in zip(summary["methods"], measured.rows, strict=True):
        of_row = {key: again.get(key) for key in _MEASURED_OF_ROW if key in again}
        _check_table(summary, f"{row['name']}: ", row, of_row)
    runs = next(iter(measured.finished.values()), None)
    whole: dict[str, Any] = {
        "metrics": names_in_order(measured.metrics),
        "primary": rules.primary,
        "best": measured.best,
        "against": measured.against,
        "detectable": measured.detectable,
    }
    if runs is not None:
        whole |= {"num_samples": len(runs.ids), "num_videos": len(set(runs.videos.tolist()))}
        whole["ceiling"] = runs.records[0]["evaluations"][summary["split"]].get("ceiling")
    _check_table(summary, "", summary, whole)
    more = _derived_extras(summary, entries, measured.finished)
    _check_table(summary, "", summary, more)
    found = ["deviations", "intervals", "tests", "pairs", *more]
    rest = "; published numbers are not checked" if "published" in summary else ""
    return f"{', '.join(found)} of {len(shown)} rows computed again{rest}"


def _derived_extras(
    summary: ComparisonSummary,
    entries: Sequence[Entry],
    finished: Mapping[str, SeedPredictions],
) -> dict[str, Any]:
    """Loss tracing and single cases, where the table shows them."""
    from tecafn.experiments.extras import draw_cases, trace_losses

    found: dict[str, Any] = {}
    if "losses" in summary:
        found["losses"] = trace_losses(entries, window=summary["losses"]["window"])
    if "cases" in summary:
        found["cases"] = draw_cases(finished, summary["data"]["label_range"])
    return found


def _files_show_the_table(folder: Path, summary: ComparisonSummary) -> str:
    """What people read (Markdown, CSV, LaTeX, the page) is drawn from the summary."""
    from tecafn.report.comparison import table_files

    files = table_files(summary)
    there = [name for name in files if (folder / name).is_file()]
    for name in there:
        if _without_charts((folder / name).read_bytes()) == _without_charts(files[name]):
            continue
        advice = "`tecafn compare` or `reproduce` with --tables-only writes it anew"
        if _is_of_this_code(summary, folder):
            raise FailedError(f"{name} does not show what the table says; {advice}")
        raise NotShownError(f"another version of tecafn wrote {name}; {advice}")
    missing = [name for name in files if name not in there]
    rest = f"; there is no {' and no '.join(missing)}" if missing else ""
    return f"{', '.join(there) or 'nothing'} drawn again, but for charts{rest}"


def _without_charts(content: bytes) -> bytes:
    """A chart's paths depend on the version of the library that draws it."""
    return re.sub(rb"<svg.*?</svg>", b"", content, flags=re.DOTALL)


def _is_of_this_code(summary: ComparisonSummary, folder: Path) -> bool:
    """Was the table made by this very code, as far as its runs tell?"""
    hashes = {
        read_record(run.parent).get("code_hash") for run in folder.glob("*/seed-*/record.json")
    }
    return summary["tecafn_version"] == tecafn.__version__ and hashes == {code_hash()}


_MEASURED_OF_ROW = (
    "seeds",
    "metrics",
    "difference",
    "hard_pairs",
    "designed_pairs",
    "seconds",
    "epochs",
    "num_parameters",
    "num_trained_parameters",
    "peak_memory_bytes",
    "ran",
)


def _entry_of(
    folder: Path, summary: ComparisonSummary, row: ComparisonRow, convention: str
) -> Entry:
    """A row as it was compared, with the cells that the table says are finished."""
    from tecafn.experiments.cells import Cell
    from tecafn.experiments.rows import Row
    from tecafn.experiments.summary import Entry

    asked = Row(name=row["name"], method=row.get("method", ""))
    return Entry(
        row=asked,
        method=row.get("method", ""),
        config=row["config"],
        settings=None,
        refused=row["refused"],
        cells=tuple(
            Cell(
                row=row["name"],
                seed=seed,
                run=folder / asked.folder / f"seed-{seed}",
                config=Path(row["config"]),
                overrides=(),
                data=folder,  # nothing is trained
                split=summary["split"],
                device="cpu",
                threads=1,
                convention=convention,
            )
            for seed in row["seeds"]
        ),
    )


def _check_table(
    summary: ComparisonSummary, where: str, recorded: Mapping[str, Any], derived: Mapping[str, Any]
) -> None:
    """Fail where a part of the table is not what was measured again."""
    again = json.loads(json.dumps(derived))  # as the file went
    mine = {key: recorded.get(key, "nothing") for key in again}
    found = first_difference(mine, again, tolerance=_TOLERANCE)
    if found is None:
        return
    key, value, expected = found
    if value == "nothing" and summary["tecafn_version"] != tecafn.__version__:
        raise NotShownError(
            f"{where}the table is of version {summary['tecafn_version']} and lacks {key}"
        )
    raise FailedError(f"{where}{key} computed again is {expected}, the table says {value}")


def _runs_of(name: str, folders: Mapping[str, list[RunRecord]]) -> list[RunRecord]:
    from tecafn.experiments.rows import folder_for

    return folders.get(folder_for(name), [])


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


_QUESTIONS: Mapping[str, Callable[[ComparisonSummary, Mapping[str, RunRecord]], str]] = {
    "the rows are of one protocol": _one_protocol,
    "the rows are of one code": _same_code_for_all,
    "the table shows what the runs say": _table_shows_the_runs,
}
