"""Do a run's, or a table's, own records bear out what it claims? Re-derived from the files.

Which split chose the checkpoint is found again from the validation metrics of every epoch; that the
test split was evaluated once, from the log of evaluations, whose lines seal each other; what was
measured, with intervals and tests, from the predictions; that data, config and code are the same
ones, from their hashes. An audit finds what was changed in one place; whoever forges every file
alike leaves no trace in them. A table's rows are measured again as they were, which loads torch.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import tecafn
from tecafn.core.conventions import METRIC_INFO
from tecafn.core.errors import UserError
from tecafn.core.tables import flatten
from tecafn.data.store import Store
from tecafn.evaluation.hard_pairs import max_gap_of
from tecafn.evaluation.metrics import names_in_order
from tecafn.experiments.rederived import (
    TOLERANCE,
    derived_evaluation,
    first_difference,
    is_as_logged,
)
from tecafn.records.begun import read_begun
from tecafn.records.comparison import (
    COMPARISON_FILE,
    ComparisonRow,
    ComparisonSummary,
    read_comparison,
    reference_of,
)
from tecafn.records.evaluation_log import (
    BrokenLogError,
    LoggedEvaluation,
    comparison_name,
    read_evaluation_log,
)
from tecafn.records.events import EpochEvent, read_events
from tecafn.records.measured import convention_of_data
from tecafn.records.predictions import read_predictions
from tecafn.records.record import (
    RunRecord,
    code_hash,
    config_hash,
    file_hash,
    read_record,
)

if TYPE_CHECKING:
    from tecafn.experiments.summary import Entry

PASSED, FAILED, UNKNOWN = "passed", "FAILED", "not shown"
# The table's figures are of the same files; sums of another machine differ in the last digits.
_TOLERANCE_OF_TABLE = 1e-7
_WEIGHTS = Path("model") / "model.safetensors"


@dataclass(frozen=True)
class Finding:
    """One question that an audit asked.

    Args:
        run: of which run; empty of a table as a whole.
        question: what was asked, such as ``the validation split chose the epoch``.
        verdict: ``passed``, ``FAILED``, or ``not shown`` where the records do not tell.
        words: what was found.
    """

    run: str
    question: str
    verdict: str
    words: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {
            "run": self.run,
            "question": self.question,
            "verdict": self.verdict,
            "words": self.words,
        }


def audit(place: Path, *, data: Path | None = None, other_code: bool = False) -> list[Finding]:
    """Everything that was asked of a run or of a comparison, and what was found.

    Args:
        place: a run's directory, or a comparison's.
        data: the store; its files are hashed. None = the records' hashes are compared alone.
        other_code: the results may be of another version of the package than this one.

    Raises:
        UserError: there is neither, or its record cannot be read.
    """
    hashed = None if data is None else _verified_hash(data)
    if (place / COMPARISON_FILE).is_file():
        return list(_audit_table(place, hashed, other_code=other_code))
    return list(_audit_run(place, place.name, hashed, other_code=other_code))


def _verified_hash(data: Path) -> str:
    store = Store.open(data)
    store.verify()
    return store.content_hash


def _audit_table(folder: Path, data_hash: str | None, *, other_code: bool) -> Iterator[Finding]:
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
        yield from _audit_run(run, name, data_hash, other_code=other_code)
        records[name] = read_record(run)
    yield from _ask("", _TABLE_QUESTIONS, summary, records)
    yield _finding(
        "",
        "the predictions give the table",
        lambda: _predictions_give_the_table(folder, summary),
    )


def _audit_run(
    run: Path, name: str, data_hash: str | None, *, other_code: bool
) -> Iterator[Finding]:
    record = read_record(run)
    yield from _ask(name, _RUN_QUESTIONS, run, record)
    if record["comparisons"]:
        yield _finding(
            name,
            "the comparisons are the ones that were made",
            lambda: _comparisons_were_made(run, record),
        )
    yield _finding(name, "the data are the same ones", lambda: _same_data(run, record, data_hash))
    yield _finding(
        name, "the code is the same", lambda: _same_code(run, record, other_code=other_code)
    )


class _FailedError(Exception):
    """A question that is answered with no."""


class _NotShownError(Exception):
    """A question that the records do not answer."""


def _ask(
    name: str, questions: Mapping[str, Callable[..., str]], *about: object
) -> Iterator[Finding]:
    for question, answer in questions.items():
        yield _finding(name, question, lambda answer=answer: answer(*about))  # type: ignore[misc]


def _finding(name: str, question: str, answer: Callable[[], str]) -> Finding:
    try:
        return Finding(name, question, PASSED, answer())
    except _NotShownError as reason:
        return Finding(name, question, UNKNOWN, str(reason))
    except (_FailedError, BrokenLogError) as reason:
        return Finding(name, question, FAILED, str(reason))
    except UserError as reason:
        return Finding(name, question, FAILED, f"cannot be read: {reason}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Finding(name, question, FAILED, f"the record is damaged: {error!r}")


# Of a run


def _validation_chose(run: Path, record: RunRecord) -> str:
    """The epoch that was kept is the best by the validation metrics of every epoch."""
    monitor = str(record["config"]["training"].get("monitor", "mae"))
    if "folds" in record:
        for fold in record["folds"]:
            events = read_events(run / f"fold-{fold['fold']:02d}")
            if events is None:
                raise _NotShownError(f"fold {fold['fold']} has no events.jsonl")
            _check_choice(
                events.epochs, monitor, fold["best_epoch"], fold["monitor_value"],
                where=f"fold {fold['fold']}: ",
            )  # fmt: skip
        return f"{len(record['folds'])} folds, each by {monitor} on its validation videos"
    training = record["training"]
    if training["chosen_on"] != "valid":
        raise _FailedError(
            f"the record says that the split {training['chosen_on']!r} chose the epoch"
        )
    others = {
        f"{name}: {evaluation['chosen_on']}"
        for name, evaluation in record["evaluations"].items()
        if evaluation["chosen_on"] != "valid"
    }
    if others:
        raise _FailedError(f"evaluations say that another split chose: {', '.join(sorted(others))}")
    if training["monitor"] != monitor:
        raise _FailedError(f"the config's monitor is {monitor}, the record's {training['monitor']}")
    events = read_events(run)
    if events is None:
        raise _NotShownError("there is no events.jsonl: the epochs' validation metrics are gone")
    value = training["monitor_value"]
    _check_choice(events.epochs, monitor, training["best_epoch"], value, where="")
    return f"epoch {training['best_epoch'] + 1} of {len(events.epochs)}, by {monitor} on valid"


def _check_choice(
    epochs: Sequence[EpochEvent], monitor: str, best: int, value: float | None, *, where: str
) -> None:
    values = {e["epoch"]: v for e in epochs if (v := e["valid"].get(monitor)) is not None}
    if not values:
        raise _NotShownError(f"{where}no epoch has {monitor} on the validation split")
    info = METRIC_INFO.get(monitor)
    sign = 1.0 if info is None or info.lower_is_better else -1.0
    # The first of equals: a later one does not improve on it.
    derived = min(values, key=lambda epoch: (sign * values[epoch], epoch))
    if derived != best:
        raise _FailedError(
            f"{where}by {monitor} on valid epoch {derived + 1} is the best "
            f"({values[derived]:.6g}); the record kept epoch {best + 1}"
        )
    if value is None or not math.isclose(values[derived], value, rel_tol=1e-9):
        raise _FailedError(
            f"{where}its {monitor} on valid was {values[derived]:.6g}, the record says {value}"
        )


def _test_was_evaluated_once(run: Path, record: RunRecord) -> str:
    """One evaluation of the test split, by one set of weights, as the log has it."""
    if record.get("protocols"):
        names = ", ".join(record["protocols"])
        raise _FailedError(f"the test split chose, too, by the protocol {names}")
    log = read_evaluation_log(run)
    of_record = {
        name: evaluation
        for name, evaluation in record["evaluations"].items()
        if name.partition("@")[0] == "test"
    }
    if log is None:
        if not of_record:
            return "the test split has not been evaluated"
        raise _NotShownError("there is no log of evaluations: the run is of an earlier version")
    looks = [entry for entry in log if _is_look_at_test(entry)]
    for name, evaluation in of_record.items():
        mine = [entry for entry in looks if entry["name"] == name]
        if not mine:
            raise _FailedError(f"the record has an evaluation {name!r} that the log does not know")
        last = mine[-1]
        if last["weights_hash"] != evaluation["weights_hash"]:
            raise _FailedError(
                f"the evaluation {name!r} of the record is not the one that was logged"
            )
    for name in dict.fromkeys(entry["name"] for entry in looks):
        weights = dict.fromkeys(e["weights_hash"] for e in looks if e["name"] == name)
        if name not in of_record:
            raise _FailedError(f"the log has an evaluation {name!r} that the record does not show")
        if len(weights) > 1:
            raise _FailedError(
                f"{name!r} was evaluated with {len(weights)} different sets of weights"
            )
    return f"{len(of_record)} evaluation(s)" if of_record else "the test split was not evaluated"


def _is_look_at_test(entry: LoggedEvaluation) -> bool:
    name = entry["name"]
    return name.partition("@")[0] == "test" or name.startswith("protocol:")


def _predictions_give_the_metrics(run: Path, record: RunRecord) -> str:
    """All that an evaluation says of its predictions, computed again from them."""
    names = list(record["evaluations"])
    for name, evaluation in record["evaluations"].items():
        path = run / "predictions" / f"{name}.csv"
        rows = read_predictions(path).labelled()
        if is_as_logged(run, name) is False:
            raise _FailedError(f"{path.name} was changed since it was written")
        derived = derived_evaluation(rows, record, evaluation)
        recorded = {key: evaluation.get(key, "nothing") for key in derived}
        if evaluation["hard_pairs"] and derived["hard_pairs"]:  # version 0.1 left the gap out
            gap = {"max_gap": derived["hard_pairs"]["max_gap"]}
            recorded["hard_pairs"] = {**gap, **evaluation["hard_pairs"]}
        found = first_difference(recorded, derived, tolerance=TOLERANCE)
        if found is not None:
            key, value, again = found
            raise _FailedError(
                f"{key.removeprefix('metrics.')} on {name}: the predictions give {again}, the "
                f"record says {value}"
            )
    unchecked = any("ceiling" in evaluation for evaluation in record["evaluations"].values())
    rest = "; a ceiling is of the corpus and is not checked" if unchecked else ""
    return f"{', '.join(names) or 'nothing'} computed again, with intervals and pairs{rest}"


def _same_config(run: Path, record: RunRecord) -> str:
    """The record's config is the one that the run was begun with, and the log's."""
    recorded = flatten(record["config"])
    begun = read_begun(run)
    sources: dict[str, Mapping[str, Any]] = {} if begun is None else {"begun.json": begun["config"]}
    path = run / "config.toml"
    if path.is_file():
        try:
            sources["config.toml"] = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise _FailedError(f"config.toml cannot be read: {error}") from None
    if not sources:
        raise _NotShownError("there is neither begun.json nor config.toml to compare with")
    for name, config in sources.items():
        other = flatten(config)
        for key in sorted(recorded.keys() | other.keys()):
            if recorded.get(key) != other.get(key):
                raise _FailedError(
                    f"{key} is {recorded.get(key)!r} in the record and {other.get(key)!r} in {name}"
                )
    if record["seed"] != record["config"]["seed"]:
        raise _FailedError(f"seed is {record['seed']}, the config's {record['config']['seed']}")
    if record["method"] != record["config"]["method"]:
        raise _FailedError(
            f"method is {record['method']}, the config's {record['config']['method']}"
        )
    for entry in read_evaluation_log(run) or ():
        if entry["config_hash"] != config_hash(record["config"]):
            raise _FailedError(f"{entry['name']} was evaluated under another config")
    return f"as in {' and '.join(sources)}"


def _same_weights(run: Path, record: RunRecord) -> str:
    """Each evaluation is of the weights that the run exported."""
    hashes = {name: e["weights_hash"] for name, e in record["evaluations"].items()}
    if "folds" in record:
        return "a cross-validation keeps no weights"
    path = run / _WEIGHTS
    if not path.is_file():
        if len(set(hashes.values())) > 1:
            raise _FailedError("evaluations are of different weights")
        raise _NotShownError(f"{_WEIGHTS} is gone: evaluations agree with each other alone")
    found = file_hash(path)
    for name, recorded in hashes.items():
        if recorded != found:
            raise _FailedError(f"{name} was evaluated with other weights than {_WEIGHTS} has")
    return f"{len(hashes)} evaluation(s) of {_WEIGHTS}"


def _comparisons_were_made(run: Path, record: RunRecord) -> str:
    """Each comparison with another run is one that the log has; that run is not looked for."""
    logged: dict[str, set[str | None]] = {}
    for entry in read_evaluation_log(run) or ():
        logged.setdefault(entry["name"], set()).add(entry["predictions_hash"])
    for comparison in record["comparisons"]:
        hashes = logged.get(comparison_name(comparison["split"], comparison["name"]))
        shown = f"the comparison with {comparison['name']} on {comparison['split']}"
        if hashes is None:
            raise _NotShownError(
                f"the log does not have {shown}: `tecafn evaluate ... --against` makes it anew"
            )
        if config_hash(comparison) not in hashes:
            raise _FailedError(f"{shown} is not the one that was made")
    return f"{len(record['comparisons'])} as logged; the other runs were not opened"


_RUN_QUESTIONS: Mapping[str, Callable[[Path, RunRecord], str]] = {
    "the validation split chose the epoch": _validation_chose,
    "the test split was evaluated once": _test_was_evaluated_once,
    "the predictions give the metrics": _predictions_give_the_metrics,
    "the config is the one it was begun with": _same_config,
    "the weights are the ones that were evaluated": _same_weights,
}


def _same_data(run: Path, record: RunRecord, data_hash: str | None) -> str:
    recorded = record["data"]["hash"]
    begun = read_begun(run)
    if begun is not None and begun["data_hash"] != recorded:
        raise _FailedError("the record's data are not those that the run was begun with")
    for name, evaluation in record["evaluations"].items():
        if "@" not in name and evaluation["data_hash"] != recorded:
            raise _FailedError(f"{name} was evaluated on other data than the run was trained on")
    if data_hash is not None and data_hash != recorded:
        raise _FailedError("the store has other content than the run was trained on")
    if data_hash is None:
        return "by the records' hashes; --data hashes the store too"
    return "by the records' hashes and the store's files"


def _same_code(run: Path, record: RunRecord, *, other_code: bool) -> str:
    trained = record.get("code_hash")
    if trained is None:
        raise _NotShownError("the record has no hash of the code: the run is of an earlier version")
    for entry in read_evaluation_log(run) or ():
        # A later look for another purpose (robustness:test) is no result of the run.
        is_result = ":" not in entry["name"] or entry["name"].startswith("protocol:")
        if is_result and entry["code_hash"] != trained and not other_code:
            raise _FailedError(
                f"{entry['name']} was evaluated by other code than the run was trained with "
                "(--other-code allows it)"
            )
    if trained != code_hash() and not other_code:
        raise _FailedError("the run is of other code than this package (--other-code allows it)")
    return "as installed" if trained == code_hash() else "of another version, which is allowed"


# Of a table


def _one_protocol(summary: ComparisonSummary, records: Mapping[str, RunRecord]) -> str:
    """All runs are of the summary's data, and those of one row differ in the seed alone."""
    rows: dict[str, dict[str, Any]] = {}
    for name, record in records.items():
        if record["data"]["hash"] != summary["data"]["hash"]:
            raise _FailedError(f"{name} is of other data than the table")
        flat = {k: v for k, v in flatten(record["config"]).items() if k != "seed"}
        row = name.partition("/")[0]
        first = rows.setdefault(row, flat)
        for key in sorted(first.keys() | flat.keys()):
            if first.get(key) != flat.get(key):
                raise _FailedError(
                    f"{name} has {key} {flat.get(key)!r}, other seeds of the row {first.get(key)!r}"
                )
    for key, value in summary["common_settings"].items():
        for row, flat in rows.items():
            if flat.get(key) != value:
                raise _FailedError(f"{row} has {key} {flat.get(key)!r}, the table says {value!r}")
    return f"{len(records)} runs of {len(rows)} rows"


def _same_code_for_all(_summary: ComparisonSummary, records: Mapping[str, RunRecord]) -> str:
    hashes = {record.get("code_hash") for record in records.values()}
    if hashes == {None}:
        raise _NotShownError("no record has a hash of the code")
    if len(hashes) > 1:
        raise _FailedError(f"the runs are of {len(hashes)} versions of the code")
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
            raise _FailedError(
                f"{row['name']}: the table has seeds {row['seeds']}, the runs {sorted(by_seed)}"
            )
        methods = {record["method"] for record in mine}
        if "method" in row and methods != {row["method"]}:
            raise _FailedError(
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
                raise _FailedError(
                    f"{row['name']}: {metric} of the runs is {mean}, the table says {cell['mean']}"
                )
            counted += 1
    if len(shown) < len(folders):
        raise _FailedError(f"{len(folders)} rows have runs, the table shows {len(shown)}")
    return f"{counted} cells of {len(shown)} rows"


def _predictions_give_the_table(folder: Path, summary: ComparisonSummary) -> str:
    """The table's figures, measured again as it was: means, deviations, intervals, tests, pairs."""
    from tecafn.experiments.summary import measure

    rules = convention_of_data(summary["data"])
    low, high = summary["data"]["label_range"]
    measured = measure(
        [_entry_of(folder, summary, row, rules.name) for row in summary["methods"]],
        split=summary["split"],
        rules=rules,
        max_gap=max_gap_of((float(low), float(high))),
        against=reference_of(summary),
        sort=summary.get("sort"),
    )
    shown = [row["name"] for row in summary["methods"]]
    order = [row["name"] for row in measured.rows]
    if shown != order:
        raise _FailedError(f"the order of the rows is {', '.join(order)}, not {', '.join(shown)}")
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
    beside = [key for key in ("chart", "published", "losses", "cases") if key in summary]
    rest = f"; not checked: {', '.join(beside)}" if beside else ""
    return f"deviations, intervals, tests and pairs of {len(shown)} rows computed again{rest}"


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
    found = first_difference(mine, again, tolerance=_TOLERANCE_OF_TABLE)
    if found is None:
        return
    key, value, expected = found
    if value == "nothing" and summary["tecafn_version"] != tecafn.__version__:
        raise _NotShownError(
            f"{where}the table is of version {summary['tecafn_version']} and lacks {key}"
        )
    raise _FailedError(f"{where}{key} computed again is {expected}, the table says {value}")


def _runs_of(name: str, folders: Mapping[str, list[RunRecord]]) -> list[RunRecord]:
    from tecafn.experiments.rows import folder_for

    return folders.get(folder_for(name), [])


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


_TABLE_QUESTIONS: Mapping[str, Callable[[ComparisonSummary, Mapping[str, RunRecord]], str]] = {
    "the rows are of one protocol": _one_protocol,
    "the rows are of one code": _same_code_for_all,
    "the table shows what the runs say": _table_shows_the_runs,
}
