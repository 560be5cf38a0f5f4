"""``evaluations.jsonl``: every evaluation of a run, in order; each line seals the one before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypedDict, cast

from tecafn.core.errors import UserError

EVALUATIONS_FILE = "evaluations.jsonl"


class LoggedEvaluation(TypedDict):
    """One evaluation.

    Args:
        created: when, in UTC.
        name: under which the record has it, or ``protocol:<name>``, or of a comparison with
            another run ``comparison:<evaluation>:<its name>``.
        weights_hash: of the exported weights; None of a cross-validation.
        data_hash: of the store's content.
        config_hash: of the config as the record has it.
        code_hash: of the package that predicted.
        predictions_hash: of ``predictions/<name>.csv``, of a comparison its ``config_hash``; None
            where none was written.
        previous: SHA-256 of the line before, empty in the first.
    """

    created: str
    name: str
    weights_hash: str | None
    data_hash: str
    config_hash: str
    code_hash: str
    predictions_hash: str | None
    previous: str


class BrokenLogError(UserError):
    """A line of the log was changed, or removed, after it was written."""


def comparison_name(evaluation: str, other: str) -> str:
    """Under which a comparison with another run is logged.

    Args:
        evaluation: the name of this run's.
        other: what the other run is called.

    Example:
        >>> comparison_name("test", "text alone")
        'comparison:test:text alone'
    """
    return f"comparison:{evaluation}:{other}"


def log_evaluation(run_dir: Path, entry: LoggedEvaluation) -> None:
    """Append a line; ``previous`` is filled in.

    Raises:
        UserError: it cannot be written.
    """
    path = run_dir / EVALUATIONS_FILE
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
        sealed = {**entry, "previous": _seal(lines[-1]) if lines else ""}
        with path.open("a", encoding="ascii") as file:
            file.write(json.dumps(sealed) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def read_evaluation_log(run_dir: Path) -> list[LoggedEvaluation] | None:
    """The lines in order; None where there is no log, as of a run of version 0.1.

    Raises:
        BrokenLogError: a line does not seal the one before.
        UserError: it cannot be read.
    """
    path = run_dir / EVALUATIONS_FILE
    try:
        lines = path.read_bytes().splitlines()
        entries = [json.loads(line) for line in lines]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected JSON lines, got: {error}") from None
    for number, entry in enumerate(entries):
        seal = _seal(lines[number - 1]) if number else ""
        if not isinstance(entry, dict) or entry.get("previous") != seal:
            raise BrokenLogError(
                f"{path}: line {number + 1} does not follow from the one before it"
            )
    return cast(list[LoggedEvaluation], entries)


def _seal(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
