"""The folder of a run: who may write there, with what it was begun, how it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import tecafn
from tecafn.core.errors import UserError
from tecafn.core.registry import METHODS
from tecafn.data.integrity import IntegrityRow, errors_as_dicts
from tecafn.data.store import Store
from tecafn.experiments.config import RunConfig, parse_config, write_config
from tecafn.records.record import (
    FORMAT_VERSION,
    library_versions,
    now,
    read_record,
    source_commit,
    write_text_atomically,
)
from tecafn.training.checkpoint import Checkpoints
from tecafn.training.ranks import on_rank_0
from tecafn.training.run_lock import run_lock

FOLD_RESULT = "out-of-fold.npz"


@contextmanager
def claim_run_folder(out: Path, begun_with: Mapping[str, Any], *, resume: bool) -> Iterator[bool]:
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


def write_beginning(out: Path, config: RunConfig, begun_with: Mapping[str, Any]) -> None:
    """Write the config, and ``RUN/begun.json``: what a resume must find unchanged."""
    write_config(config, out / "config.toml")
    write_text_atomically(out / "begun.json", json.dumps(begun_with, indent=2) + "\n")


def check_begun(out: Path, now: Mapping[str, Any]) -> None:
    """Refuse to continue a run under other settings or on other data than it was begun with.

    A setting that came later than the run has its default there.

    Raises:
        UserError: they differ; the line names the first difference.
    """
    path = out / "begun.json"
    if not path.exists():  # a run of the first version, which did not write it
        return
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
        then = _flat(begun | _with_defaults(begun))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    # Through JSON, as the file went: what was a tuple there is a list.
    given = _flat(json.loads(json.dumps(now)))
    for name in sorted(then.keys() | given.keys()):
        if then.get(name) != given.get(name):
            raise UserError(
                f"{out} was begun with {name} {then.get(name)!r}, got {given.get(name)!r}: resume "
                "it as it was begun, or name another directory"
            )


def _with_defaults(begun: Mapping[str, Any]) -> dict[str, Any]:
    """The config that a run was begun with, with what has been added to configs since."""
    try:
        return {"config": parse_config(begun["config"]).as_dict()}
    except (KeyError, UserError):  # of settings that are gone it cannot be made; they differ
        return {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def new_record(
    config: RunConfig, store: Store, *, allowed: Iterable[IntegrityRow] = (), **outcome: Any
) -> dict[str, Any]:
    """A record without evaluations: what was run, by which program, on which data.

    Args:
        config: of the run.
        store: its data.
        allowed: errors in the data that the user has allowed.
        outcome: what came of it, ``training`` or ``folds``.
    """
    return {
        "format_version": FORMAT_VERSION,
        "tecafn_version": tecafn.__version__,
        "created": now(),
        "method": config.method,
        "paper": METHODS[config.method].paper,
        "config": config.as_dict(),
        "seed": config.seed,
        "commit": source_commit(),
        "versions": library_versions(),
        "data": describe_store(store) | allowance(allowed),
        **outcome,
        "evaluations": {},
        "comparisons": [],
    }


def describe_store(store: Store) -> dict[str, Any]:
    """What a record says of its data."""
    description = store.description
    return {
        "dataset": description.dataset,
        "hash": store.content_hash,
        "splits": {
            name: counts["num_samples"] for name, counts in store.manifest["splits"].items()
        },
        "label_range": list(description.label_range),
        "task": description.task,
        "convention": description.convention,
    }


def allowance(errors: Iterable[IntegrityRow]) -> dict[str, Any]:
    """The entry ``allowed_errors`` of a record; nothing where nothing was wrong."""
    found = errors_as_dicts(errors)
    return {"allowed_errors": found} if found else {}


def finished_record(out: Path) -> dict[str, Any]:
    """The record of a run, once what a kill may have left to do is done."""
    if not (out / "report.html").exists():
        write_report(out)
    record = read_record(out)
    keeps_improving = record["config"]["training"].get("keep_improving_epochs", False)
    Checkpoints(out / "checkpoints", keep_every_best=keeps_improving).drop_all_but_best()
    return record


def write_report(run: Path) -> Path:
    """Draw ``RUN/report.html`` from what the run wrote."""
    from tecafn.report.html import write_report as draw

    return draw(run)
