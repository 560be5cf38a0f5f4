"""The rows of label.csv: ``video_id, clip_id, text, label[, label_T, label_A, label_V], mode``."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tecafn.core.errors import UserError, nearest_known
from tecafn.core.modality import Modality
from tecafn.data.samples import canonical_split, public_id

_REQUIRED = ("video_id", "clip_id", "text", "mode")
_UNIMODAL = {
    "label_T": Modality.TEXT,
    "label_A": Modality.AUDIO,
    "label_V": Modality.VISION,
}
_UNLABELLED = ("", "null", "none")


@dataclass(frozen=True)
class TableRow:
    """One row, checked; ``what`` names it in errors."""

    what: str
    video: str
    clip: str
    split: str
    text: str
    label: float | None
    unimodal: Mapping[Modality, float]

    @property
    def id(self) -> str:
        """The public id."""
        return public_id(self.video, self.clip)


def find_table(source: Path) -> Path:
    """label.csv of a folder, or the file itself."""
    return source / "label.csv" if source.is_dir() else source


def csv_rows(table: Path, *, required: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """``table row n`` (the header is row 1) and the fields of each row of a CSV file.

    Raises:
        UserError: the file or a required column is missing, or a row has other columns.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            for name in required:
                if name not in columns:
                    raise UserError(
                        f"{table} has no column {name!r}: {nearest_known(name, columns[:20])}"
                    )
            for number, row in enumerate(reader, start=2):
                if None in row or None in row.values():
                    raise UserError(f"{table} row {number} must have {len(columns)} fields")
                yield f"{table} row {number}", row
    except FileNotFoundError:
        raise UserError(f"no such file: {table}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} is not a CSV file in UTF-8: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read {table}: {error.strerror or error}") from None


def csv_number(text: str, *, what: str) -> float:
    """The number a field holds.

    Raises:
        UserError: it holds none; ``what`` names row and column.
    """
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{what} must be a number, got {text[:40]!r}") from None


def _label(text: str, *, what: str) -> float | None:
    if text.strip().lower() in _UNLABELLED:
        return None
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{what} must be a number or empty, got {text[:40]!r}") from None


def table_ids(table: Path) -> Iterator[str]:
    """The public id of every row, unchecked."""
    for _, row in csv_rows(table, required=_REQUIRED):
        yield public_id(row["video_id"], row["clip_id"])


def table_rows(table: Path) -> Iterator[TableRow]:
    """The rows of label.csv; an empty or null label is none, an absent column likewise.

    Raises:
        UserError: a column is missing, or a field is wrong; the row is named.
    """
    for what, row in csv_rows(table, required=_REQUIRED):
        video, clip = row["video_id"], row["clip_id"]
        if not video or not clip:
            raise UserError(f"{what}: video_id and clip_id must not be empty")
        split = canonical_split(row["mode"])
        if split is None:
            raise UserError(f"{what}: mode must be train, valid or test, got {row['mode'][:40]!r}")
        labels = {
            column: _label(row[column], what=f"{what}: {column}")
            for column in ("label", *_UNIMODAL)
            if column in row
        }
        yield TableRow(
            what=what,
            video=sys.intern(video),
            clip=clip,
            split=split,
            text=row["text"],
            label=labels.get("label"),
            unimodal={
                modality: value
                for column, modality in _UNIMODAL.items()
                if (value := labels.get(column)) is not None
            },
        )
