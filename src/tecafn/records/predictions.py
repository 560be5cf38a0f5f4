"""``predictions/<split>.csv``: one row per sample, written by an evaluation, read by all."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError

COLUMNS = ("id", "video", "clip", "label", "prediction", "pair_id", "text")


@dataclass(frozen=True)
class SplitPredictions:
    """The rows of ``predictions/<split>.csv``.

    Args:
        ids: N public ids.
        videos: N video names.
        clips: N clips within the videos.
        texts: N transcripts, as hostile as their source.
        pair_ids: N names of designed pairs, "" outside one.
        predictions: (N,) scores; of two classes the probability of class 1, of more the class.
        labels: (N,) labels, NaN where unknown.
    """

    ids: tuple[str, ...]
    videos: tuple[str, ...]
    clips: tuple[str, ...]
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
            clips=tuple(self.clips[row] for row in rows),
            texts=tuple(self.texts[row] for row in rows),
            pair_ids=tuple(self.pair_ids[row] for row in rows),
            predictions=self.predictions[rows],
            labels=self.labels[rows],
        )


def write_predictions(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``predictions/<split>.csv``; None becomes an empty cell.

    Args:
        path: the file; its folder is made.
        rows: a value for each of ``COLUMNS``.

    Raises:
        UserError: it cannot be written; what stood there before still stands.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def read_predictions(path: Path) -> SplitPredictions:
    """Read ``predictions/<split>.csv``.

    Raises:
        UserError: the split has not been evaluated in this run, the file cannot be read, a column
            is missing, or a number is not one.
    """
    try:
        with fields_of_any_length(), path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{path}: expected columns {', '.join(COLUMNS)}, missing {', '.join(missing)}"
                )
            rows = list(reader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such predictions; run `tecafn evaluate` first") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a table in UTF-8, got: {error}") from None

    def number(row: int, column: str) -> float:
        text = rows[row][column] or ""
        if column == "label" and not text.strip():
            return float("nan")
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise UserError(
                f"{path}: row {row + 1} ({rows[row]['id']}) expected a finite {column}, "
                f"got {text!r}"
            )
        return value

    def texts(column: str) -> tuple[str, ...]:
        return tuple(row[column] or "" for row in rows)

    return SplitPredictions(
        ids=texts("id"),
        videos=texts("video"),
        clips=texts("clip"),
        texts=texts("text"),
        pair_ids=texts("pair_id"),
        predictions=np.array([number(row, "prediction") for row in range(len(rows))]),
        labels=np.array([number(row, "label") for row in range(len(rows))]),
    )


@contextmanager
def fields_of_any_length() -> Iterator[None]:
    """Let the csv module read fields over 131,072 characters inside; transcripts may be longer.

    The limit is process-wide, and readers of strange files rely on it, so it is restored.

    Example:
        >>> with fields_of_any_length():
        ...     len(next(csv.reader(["x" * 200_000]))[0])
        200000
    """
    usual = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(usual)
