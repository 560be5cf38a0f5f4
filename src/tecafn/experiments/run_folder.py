"""The folder of a run: who may write there, with what it was begun, how it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import tecafn
from tecafn.core.errors import UserError
from tecafn.core.registry import METHODS
from tecafn.core.tables import flatten
from tecafn.data.integrity import IntegrityRow, errors_as_dicts
from tecafn.data.store import Store
from tecafn.experiments.config import RunConfig, parse_config, write_config
from tecafn.records.begun import Begun, read_begun, write_begun
from tecafn.records.record import (
    FORMAT_VERSION,
    AllowedError,
    DataRecord,
    Evaluation,
    FoldRecord,
    RunRecord,
    TrainingRecord,
    code_hash,
    library_versions,
    now,
    read_record,
    source_commit,
)
from tecafn.records.robustness import Robustness
from tecafn.training.checkpoint import Checkpoints
from tecafn.training.ranks import on_rank_0
from tecafn.training.run_lock import run_lock

FOLD_RESULT = "out-of-fold.npz"


@contextmanager
def claim_run_folder(out: Path, begun_with: Begun, *, resume: bool) -> Iterator[bool]:
    """Let nobody else write the run's directory, and see whether this run may.

    A collective call; rank 0 looks, under the lock, because what it and others write shows.

    Yields:
        Is the run finished already?

    Raises:
        UserError: another run writes there, or has written there, or was begun otherwise.
    """
    with ExitStack() as held:

        def look() -> bool:
            held.enter_context(run_lock(out))
            used = check_out(out, resume=resume)
            if used:
                check_begun(out, begun_with)
            return used and (out / "record.json").exists()

        yield on_rank_0(look)


def check_out(out: Path, *, resume: bool) -> bool:
    """Refuse to mix two runs in one directory.

    Returns:
        Is there a run to continue?

    Raises:
        UserError: there is one but it shall not be resumed, or ``out`` cannot be written.
    """
    traces = ("record.json", "checkpoints", "fold-*/checkpoints", f"fold-*/{FOLD_RESULT}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        used = any(path for trace in traces for path in out.glob(trace))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from None
    if used and not resume:
        raise UserError(
            f"{out} holds a run already; name another directory, or continue with --resume"
        )
    if not os.access(out, os.W_OK):
        raise UserError(f"cannot write {out}: permission denied")
    return used


def write_beginning(out: Path, config: RunConfig, begun_with: Begun) -> None:
    """Write the config, and ``RUN/begun.json``: what a resume must find unchanged."""
    write_config(config, out / "config.toml")
    write_begun(out, begun_with)


def check_begun(out: Path, now: Begun) -> None:
    """Refuse to continue a run under other settings or on other data than it was begun with.

    A finished one is held to its record, too: the record may have been copied here alone, and of
    a run without ``begun.json`` nothing else says what it is. A setting that came later than the
    run has its default there.

    Raises:
        UserError: they differ; the line names the first difference.
    """
    # Through JSON, as the file went: what was a tuple there is a list.
    given = flatten(json.loads(json.dumps(now)))
    by = {f"{out}": read_begun(out), f"{out}, by its record.json,": _begun_by_record(out)}
    for where, begun in by.items():
        if begun is None:
            continue
        then = flatten({**begun, **_with_defaults(begun)})
        for name in sorted(then.keys() | given.keys()):
            if then.get(name) != given.get(name):
                raise UserError(
                    f"{where} was begun with {name} {then.get(name)!r}, got {given.get(name)!r}: "
                    "resume it as it was begun, or name another directory"
                )


def _begun_by_record(out: Path) -> Begun | None:
    """How a finished run was begun, by its record; None where there is no record.

    Raises:
        UserError: the record cannot be read.
    """
    if not (out / "record.json").exists():
        return None
    record = read_record(out)
    try:
        begun: Begun = {
            "config": {**record["config"], "seed": record["seed"]},
            "data_hash": record["data"]["hash"],
        }
        if "folds" in record:
            begun["num_folds"] = len(record["folds"])
        if "init_from" in record:
            begun["init_from"] = record["init_from"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{out / 'record.json'} is damaged: {error!r}") from None
    return begun


def _with_defaults(begun: Begun) -> dict[str, Any]:
    """The config that a run was begun with, with what has been added to configs since."""
    try:
        return {"config": parse_config(begun["config"]).as_dict()}
    except (KeyError, UserError):  # of settings that are gone it cannot be made; they differ
        return {}


def new_record(
    config: RunConfig,
    store: Store,
    *,
    allowed: Iterable[IntegrityRow] = (),
    training: TrainingRecord | None = None,
    folds: Sequence[FoldRecord] = (),
) -> RunRecord:
    """A record without evaluations: what was run, by which program, on which data.

    Args:
        config: of the run.
        store: its data.
        allowed: errors in the data that the user has allowed.
        training: how it went; None of a cross-validation.
        folds: of a cross-validation, in place of ``training``.
    """
    record: RunRecord = {
        "format_version": FORMAT_VERSION,
        "tecafn_version": tecafn.__version__,
        "created": now(),
        "method": config.method,
        "paper": METHODS[config.method].paper,
        "config": config.as_dict(),
        "seed": config.seed,
        "commit": source_commit(),
        "code_hash": code_hash(),
        "versions": library_versions(),
        "data": describe_store(store, allowed),
        "evaluations": {},
        "comparisons": [],
    }
    if training is None:
        record["folds"] = list(folds)
    else:
        record["training"] = training
    return record


def describe_store(store: Store, allowed: Iterable[IntegrityRow] = ()) -> DataRecord:
    """What a record says of its data, and of the errors in it that the user has allowed."""
    description = store.description
    data: DataRecord = {
        "dataset": description.dataset,
        "hash": store.content_hash,
        "splits": {
            name: counts["num_samples"] for name, counts in store.manifest["splits"].items()
        },
        "label_range": list(description.label_range),
        "task": description.task,
        "convention": description.convention,
    }
    if description.class_names:
        data["class_names"] = list(description.class_names)
    if description.features:
        data["features"] = {m.value: s.as_dict() for m, s in description.features.items()}
    add_allowed(data, allowed)
    return data


def add_allowed(part: DataRecord | Evaluation | Robustness, errors: Iterable[IntegrityRow]) -> None:
    """Add the entry ``allowed_errors`` to a part of a record; nothing where nothing was wrong."""
    found = errors_as_dicts(errors)
    if found:
        part["allowed_errors"] = cast(list[AllowedError], found)


def finished_record(out: Path, *, report: bool = True) -> RunRecord:
    """The record of a run, once what a kill may have left to do is done.

    Args:
        out: the run's directory.
        report: draw the report, if there is none.
    """
    if report and not (out / "report.html").exists():
        write_report(out)
    record = read_record(out)
    keeps_improving = record["config"]["training"].get("keep_improving_epochs", False)
    Checkpoints(out / "checkpoints", keep_every_best=keeps_improving).drop_all_but_best()
    return record


def write_report(run: Path) -> Path:
    """Draw ``RUN/report.html`` from what the run wrote."""
    from tecafn.report.html import write_report as draw

    return draw(run)
