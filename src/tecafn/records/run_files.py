"""A run as saved: the record, the events, the predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tecafn.records.events import EVENTS_FILE, EpochEvent, Events, StepEvent, read_events
from tecafn.records.predictions import SplitPredictions, read_predictions
from tecafn.records.record import RunRecord, read_record


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

    record: RunRecord
    steps: tuple[StepEvent, ...]
    epochs: tuple[EpochEvent, ...]
    predictions: Mapping[str, SplitPredictions]
    notes: tuple[str, ...]


def read_run(run_dir: Path) -> RunFiles:
    """Read a run directory; everything but ``record.json`` may be missing.

    Raises:
        UserError: no readable ``record.json``, or a predictions file that does not fit.
    """
    record = read_record(run_dir)
    notes: list[str] = []
    events = read_events(run_dir)
    if events is None:
        notes.append(f"{EVENTS_FILE} is missing: no loss or validation curves")
        events = Events()
    if events.num_unreadable:
        notes.append(f"{EVENTS_FILE}: {events.num_unreadable} unreadable line(s) left out")
    evaluated = list(record.get("evaluations") or {})
    paths = {path.stem: path for path in sorted((run_dir / "predictions").glob("*.csv"))}
    order = [name for name in evaluated if name in paths]
    order += [name for name in paths if name not in evaluated]
    notes += [f"predictions/{name}.csv is missing" for name in evaluated if name not in paths]
    predictions = {name: read_predictions(paths[name]) for name in order}
    return RunFiles(record, events.steps, events.epochs, predictions, tuple(notes))
