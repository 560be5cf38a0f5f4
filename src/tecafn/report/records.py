"""What a run left on disk, read back for its report: the record, the events, the predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tecafn.core.errors import UserError
from tecafn.records.predictions import SplitPredictions, read_predictions
from tecafn.records.record import read_record


class ReportError(UserError):
    """A run directory that cannot be reported on; the message is one line."""


@dataclass(frozen=True)
class RunFiles:
    """A run as saved.

    Args:
        record: the object of ``record.json``.
        steps: ``step`` events in order.
        epochs: ``epoch`` events in order.
        predictions: by split, in the order the record evaluated them.
        notes: what was missing or unreadable, for the reader of the report.
    """

    record: Mapping[str, Any]
    steps: tuple[Mapping[str, Any], ...]
    epochs: tuple[Mapping[str, Any], ...]
    predictions: Mapping[str, SplitPredictions]
    notes: tuple[str, ...]


def read_run(run_dir: Path) -> RunFiles:
    """Read a run directory; everything but ``record.json`` may be missing.

    Raises:
        UserError: no readable ``record.json``, or a predictions file that does not fit.
    """
    record = read_record(run_dir)
    notes: list[str] = []
    steps, epochs = _read_events(run_dir / "events.jsonl", notes)
    evaluated = list(record.get("evaluations") or {})
    paths = {path.stem: path for path in sorted((run_dir / "predictions").glob("*.csv"))}
    order = [name for name in evaluated if name in paths]
    order += [name for name in paths if name not in evaluated]
    notes += [f"predictions/{name}.csv is missing" for name in evaluated if name not in paths]
    predictions = {name: read_predictions(paths[name]) for name in order}
    return RunFiles(record, steps, epochs, predictions, tuple(notes))


def short_commit(commit: str | None) -> str:
    """A commit's first 10 digits, with ``+changes`` where there were some.

    Example:
        >>> short_commit("0123456789abcdef+changes")
        '0123456789+changes'
    """
    digits, plus, changes = (commit or "").partition("+")
    return digits[:10] + plus + changes


def _read_events(
    path: Path, notes: list[str]
) -> tuple[tuple[Mapping[str, Any], ...], tuple[Mapping[str, Any], ...]]:
    if not path.is_file():
        notes.append(f"{path.name} is missing: no loss or validation curves")
        return (), ()
    # A resumed run may repeat a step; the later line is the one that counted.
    steps: dict[tuple[str, int], Mapping[str, Any]] = {}
    epochs: dict[int, Mapping[str, Any]] = {}
    num_unreadable = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                event = json.loads(line)
                kind = event["event"]
                if kind == "step":
                    steps[str(event.get("phase", "main")), int(event["step"])] = event
                elif kind == "epoch":
                    epochs[int(event["epoch"])] = event
            except (ValueError, KeyError, TypeError):
                # A killed run can leave half a line.
                num_unreadable += 1
    if num_unreadable:
        notes.append(f"{path.name}: {num_unreadable} unreadable line(s) left out")
    return (
        tuple(steps[key] for key in sorted(steps, key=lambda key: key[1])),
        tuple(epochs[key] for key in sorted(epochs)),
    )
