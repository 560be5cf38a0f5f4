"""What an audit asks of one run."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tecafn.core.conventions import METRIC_INFO
from tecafn.core.tables import flatten
from tecafn.experiments.audit.findings import (
    FailedError,
    Finding,
    NotShownError,
    ask,
    finding,
)
from tecafn.experiments.audit.rederived import (
    TOLERANCE,
    derived_evaluation,
    first_difference,
    is_as_logged,
)
from tecafn.records.begun import read_begun
from tecafn.records.evaluation_log import (
    LoggedEvaluation,
    comparison_name,
    read_evaluation_log,
)
from tecafn.records.events import EpochEvent, read_events
from tecafn.records.predictions import read_predictions
from tecafn.records.record import RunRecord, code_hash, config_hash, file_hash, read_record

_WEIGHTS = Path("model") / "model.safetensors"


def audit_run(
    run: Path, name: str, data_hash: str | None, *, other_code: bool
) -> Iterator[Finding]:
    """Ask everything of a run; ``name`` says of which one."""
    record = read_record(run)
    yield from ask(name, _QUESTIONS, run, record)
    if record["comparisons"]:
        yield finding(
            name,
            "the comparisons are the ones that were made",
            lambda: _comparisons_were_made(run, record),
        )
    yield finding(name, "the data are the same ones", lambda: _same_data(run, record, data_hash))
    yield finding(
        name, "the code is the same", lambda: _same_code(run, record, other_code=other_code)
    )


def _validation_chose(run: Path, record: RunRecord) -> str:
    """The epoch that was kept is the best by the validation metrics of every epoch."""
    monitor = str(record["config"]["training"].get("monitor", "mae"))
    if "folds" in record:
        for fold in record["folds"]:
            events = read_events(run / f"fold-{fold['fold']:02d}")
            if events is None:
                raise NotShownError(f"fold {fold['fold']} has no events.jsonl")
            _check_choice(
                events.epochs, monitor, fold["best_epoch"], fold["monitor_value"],
                where=f"fold {fold['fold']}: ",
            )  # fmt: skip
        return f"{len(record['folds'])} folds, each by {monitor} on its validation videos"
    training = record["training"]
    if training["chosen_on"] != "valid":
        raise FailedError(
            f"the record says that the split {training['chosen_on']!r} chose the epoch"
        )
    others = {
        f"{name}: {evaluation['chosen_on']}"
        for name, evaluation in record["evaluations"].items()
        if evaluation["chosen_on"] != "valid"
    }
    if others:
        raise FailedError(f"evaluations say that another split chose: {', '.join(sorted(others))}")
    if training["monitor"] != monitor:
        raise FailedError(f"the config's monitor is {monitor}, the record's {training['monitor']}")
    events = read_events(run)
    if events is None:
        raise NotShownError("there is no events.jsonl: the epochs' validation metrics are gone")
    value = training["monitor_value"]
    _check_choice(events.epochs, monitor, training["best_epoch"], value, where="")
    return f"epoch {training['best_epoch'] + 1} of {len(events.epochs)}, by {monitor} on valid"


def _check_choice(
    epochs: Sequence[EpochEvent], monitor: str, best: int, value: float | None, *, where: str
) -> None:
    values = {e["epoch"]: v for e in epochs if (v := e["valid"].get(monitor)) is not None}
    if not values:
        raise NotShownError(f"{where}no epoch has {monitor} on the validation split")
    info = METRIC_INFO.get(monitor)
    sign = 1.0 if info is None or info.lower_is_better else -1.0
    # The first of equals: a later one does not improve on it.
    derived = min(values, key=lambda epoch: (sign * values[epoch], epoch))
    if derived != best:
        raise FailedError(
            f"{where}by {monitor} on valid epoch {derived + 1} is the best "
            f"({values[derived]:.6g}); the record kept epoch {best + 1}"
        )
    if value is None or not math.isclose(values[derived], value, rel_tol=1e-9):
        raise FailedError(
            f"{where}its {monitor} on valid was {values[derived]:.6g}, the record says {value}"
        )


def _test_was_evaluated_once(run: Path, record: RunRecord) -> str:
    """One evaluation of the test split, by one set of weights, as the log has it."""
    if record.get("protocols"):
        names = ", ".join(record["protocols"])
        raise FailedError(f"the test split chose, too, by the protocol {names}")
    log = read_evaluation_log(run)
    of_record = {
        name: evaluation
        for name, evaluation in record["evaluations"].items()
        if name.partition("@")[0] == "test"
    }
    if log is None:
        if not of_record:
            return "the test split has not been evaluated"
        raise NotShownError("there is no log of evaluations: the run is of an earlier version")
    looks = [entry for entry in log if _is_look_at_test(entry)]
    for name, evaluation in of_record.items():
        mine = [entry for entry in looks if entry["name"] == name]
        if not mine:
            raise FailedError(f"the record has an evaluation {name!r} that the log does not know")
        last = mine[-1]
        if last["weights_hash"] != evaluation["weights_hash"]:
            raise FailedError(
                f"the evaluation {name!r} of the record is not the one that was logged"
            )
    for name in dict.fromkeys(entry["name"] for entry in looks):
        weights = dict.fromkeys(e["weights_hash"] for e in looks if e["name"] == name)
        if name not in of_record:
            raise FailedError(f"the log has an evaluation {name!r} that the record does not show")
        if len(weights) > 1:
            raise FailedError(
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
            raise FailedError(f"{path.name} was changed since it was written")
        derived = derived_evaluation(rows, record, evaluation)
        recorded = {key: evaluation.get(key, "nothing") for key in derived}
        if evaluation["hard_pairs"] and derived["hard_pairs"]:  # version 0.1 left the gap out
            gap = {"max_gap": derived["hard_pairs"]["max_gap"]}
            recorded["hard_pairs"] = {**gap, **evaluation["hard_pairs"]}
        found = first_difference(recorded, derived, tolerance=TOLERANCE)
        if found is not None:
            key, value, again = found
            raise FailedError(
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
            raise FailedError(f"config.toml cannot be read: {error}") from None
    if not sources:
        raise NotShownError("there is neither begun.json nor config.toml to compare with")
    for name, config in sources.items():
        other = flatten(config)
        for key in sorted(recorded.keys() | other.keys()):
            if recorded.get(key) != other.get(key):
                raise FailedError(
                    f"{key} is {recorded.get(key)!r} in the record and {other.get(key)!r} in {name}"
                )
    if record["seed"] != record["config"]["seed"]:
        raise FailedError(f"seed is {record['seed']}, the config's {record['config']['seed']}")
    if record["method"] != record["config"]["method"]:
        raise FailedError(
            f"method is {record['method']}, the config's {record['config']['method']}"
        )
    for entry in read_evaluation_log(run) or ():
        if entry["config_hash"] != config_hash(record["config"]):
            raise FailedError(f"{entry['name']} was evaluated under another config")
    return f"as in {' and '.join(sources)}"


def _same_weights(run: Path, record: RunRecord) -> str:
    """Each evaluation is of the weights that the run exported."""
    hashes = {name: e["weights_hash"] for name, e in record["evaluations"].items()}
    if "folds" in record:
        return "a cross-validation keeps no weights"
    path = run / _WEIGHTS
    if not path.is_file():
        if len(set(hashes.values())) > 1:
            raise FailedError("evaluations are of different weights")
        raise NotShownError(f"{_WEIGHTS} is gone: evaluations agree with each other alone")
    found = file_hash(path)
    for name, recorded in hashes.items():
        if recorded != found:
            raise FailedError(f"{name} was evaluated with other weights than {_WEIGHTS} has")
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
            raise NotShownError(
                f"the log does not have {shown}: `tecafn evaluate ... --against` makes it anew"
            )
        if config_hash(comparison) not in hashes:
            raise FailedError(f"{shown} is not the one that was made")
    return f"{len(record['comparisons'])} as logged; the other runs were not opened"


_QUESTIONS: Mapping[str, Callable[[Path, RunRecord], str]] = {
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
        raise FailedError("the record's data are not those that the run was begun with")
    for name, evaluation in record["evaluations"].items():
        if "@" not in name and evaluation["data_hash"] != recorded:
            raise FailedError(f"{name} was evaluated on other data than the run was trained on")
    if data_hash is not None and data_hash != recorded:
        raise FailedError("the store has other content than the run was trained on")
    if data_hash is None:
        return "by the records' hashes; --data hashes the store too"
    return "by the records' hashes and the store's files"


def _same_code(run: Path, record: RunRecord, *, other_code: bool) -> str:
    trained = record.get("code_hash")
    if trained is None:
        raise NotShownError("the record has no hash of the code: the run is of an earlier version")
    for entry in read_evaluation_log(run) or ():
        # A later look for another purpose (robustness:test) is no result of the run.
        is_result = ":" not in entry["name"] or entry["name"].startswith("protocol:")
        if is_result and entry["code_hash"] != trained and not other_code:
            raise FailedError(
                f"{entry['name']} was evaluated by other code than the run was trained with "
                "(--other-code allows it)"
            )
    if trained != code_hash() and not other_code:
        raise FailedError("the run is of other code than this package (--other-code allows it)")
    return "as installed" if trained == code_hash() else "of another version, which is allowed"
