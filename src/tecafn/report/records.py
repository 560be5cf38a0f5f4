"""What a run left on disk, read back for its report: the record, the events, the predictions."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError

_COLUMNS = ("id", "video", "clip", "label", "prediction", "pair_id", "text")


class ReportError(UserError):
    """A run directory that cannot be reported on; the message is one line."""


@dataclass(frozen=True)
class SplitPredictions:
    """The rows of ``predictions/<split>.csv``.

    Args:
        ids: N public ids.
        videos: N video names.
        texts: N transcripts, as hostile as their source.
        pair_ids: N names of designed pairs, "" outside one.
        predictions: (N,) scores, or probabilities of class 1.
        labels: (N,) labels, NaN where unknown.
    """

    ids: tuple[str, ...]
    videos: tuple[str, ...]
    texts: tuple[str, ...]
    pair_ids: tuple[str, ...]
    predictions: NDArray[np.float64]
    labels: NDArray[np.float64]

    @property
    def num_samples(self) -> int:
        """Number of rows N."""
        return len(self.ids)

    def labelled(self) -> SplitPredictions:
        """The rows that have a label."""
        rows = np.flatnonzero(~np.isnan(self.labels))
        return SplitPredictions(
            ids=tuple(self.ids[row] for row in rows),
            videos=tuple(self.videos[row] for row in rows),
            texts=tuple(self.texts[row] for row in rows),
            pair_ids=tuple(self.pair_ids[row] for row in rows),
            predictions=self.predictions[rows],
            labels=self.labels[rows],
        )


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
        ReportError: no readable ``record.json``, or a predictions file that does not fit.
    """
    record_path = run_dir / "record.json"
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(
            f"{record_path}: a report needs the run's record, none is there"
        ) from None
    except (OSError, ValueError) as error:
        raise ReportError(f"{record_path}: expected JSON, got {error}") from None
    if not isinstance(record, dict):
        raise ReportError(f"{record_path}: expected an object, got a {type(record).__name__}")
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


def read_predictions(path: Path) -> SplitPredictions:
    """Read one ``predictions/<split>.csv``.

    Raises:
        ReportError: a column is missing or a number is not one.
    """
    # Transcripts can be longer than the csv module's default limit on a field, which is everybody's
    # and so is put back: readers of strange files rely on it.
    usual = csv.field_size_limit(2**31 - 1)
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ReportError(
                    f"{path}: expected columns {', '.join(_COLUMNS)}, missing {', '.join(missing)}"
                )
            rows = list(reader)
    finally:
        csv.field_size_limit(usual)

    def number(row: int, column: str) -> float:
        text = rows[row][column] or ""
        if column == "label" and not text.strip():
            return float("nan")
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise ReportError(
                f"{path}: row {row + 1} ({rows[row]['id']}) expected a finite {column}, "
                f"got {text!r}"
            )
        return value

    def texts(column: str) -> tuple[str, ...]:
        return tuple(row[column] or "" for row in rows)

    return SplitPredictions(
        ids=texts("id"),
        videos=texts("video"),
        texts=texts("text"),
        pair_ids=texts("pair_id"),
        predictions=np.array([number(row, "prediction") for row in range(len(rows))]),
        labels=np.array([number(row, "label") for row in range(len(rows))]),
    )
