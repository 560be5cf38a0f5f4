"""The rows of label.csv: ``video_id, clip_id, text, label[, label_T, label_A, label_V], mode``.

Spreadsheets and other hands leave their marks on such tables: another separator, another encoding,
decimal commas, clips ``1.0``, error words where an id began with a minus sign. What can be read
in one way only is read and said; the rest is refused with row and column. The dialect itself is
that of ``tecafn.data.csv_text``.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.csv_text import CsvTable, open_csv
from tecafn.data.samples import DatasetDescription, canonical_split, public_id

_REQUIRED = ("video_id", "clip_id", "text", "mode")
# Column names are compared in lower case.
_UNIMODAL = {
    "label_t": Modality.TEXT,
    "label_a": Modality.AUDIO,
    "label_v": Modality.VISION,
}
_SPELLED = {"label": "label", "label_t": "label_T", "label_a": "label_A", "label_v": "label_V"}
_UNLABELLED = ("", "null", "none")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)

# What spreadsheets write where a cell's formula fails, in any language: an id or a sentence that
# begins with - or = is taken for a formula. #NAME? #REF! #N/A #BEZUG! #NOM? #N/D #NV Err:508 ###
_ERROR_WORD = re.compile(
    r"#[\u00a1\u00bf]?[^\W_]{1,10}(?:/[^\W_])?[!?]|#N/A|#N/D|#NV|#\u041d/\u0414|#GETTING_DATA"
    r"|#{2,}|(?i:ERR):\d{3}"
)
_SHORTENED = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE][+-]\d+")
_MONTH = r"(?:jan|feb|m[a\u00e4]r|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-z]{0,6}\.?"
_DATE = re.compile(
    rf"\d{{1,2}}[-./ ]{{1,2}}{_MONTH}(?:[-./ ]{{1,2}}\d{{2,4}})?"
    rf"|{_MONTH}[-./ ]{{1,2}}\d{{2,4}}"
    r"|\d{1,2}/\d{1,2}/\d{2,4}|\d{1,2}\.\d{1,2}\.\d{2,4}|\d{4}-\d{1,2}-\d{1,2}(?: 00:00:00)?"
    r"|\d{1,2}\u6708\d{1,2}\u65e5",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"(\d+)[.,]0+")
_FRACTION = re.compile(r"\d+[.,]\d*[1-9]\d*")


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


@dataclass(frozen=True)
class TableReport:
    """What the user should hear of a table: how it was read, what was mended, what is doubtful."""

    decisions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def added_to(self, description: DatasetDescription) -> DatasetDescription:
        """The description with this after what it says itself."""
        return replace(
            description,
            decisions=(*description.decisions, *self.decisions),
            notes=(*description.notes, *self.notes),
            warnings=(*description.warnings, *self.warnings),
        )


def find_table(source: Path) -> Path:
    """label.csv of a folder, or the file itself."""
    return source / "label.csv" if source.is_dir() else source


def csv_rows(table: Path, *, required: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """``table row n`` (the header is row 1) and the fields of each row that is not empty.

    Fields go by their column's name in lower case, without blanks around it.

    Raises:
        UserError: the file or a required column is missing, or a row has other columns.
    """
    for number, row in open_csv(table, required=required).rows():
        yield f"{table} row {number}", row


def csv_number(text: str, *, what: str) -> float:
    """The number a field holds, with a point or a comma.

    Raises:
        UserError: it holds none; ``what`` names row and column.

    Example:
        >>> csv_number("-1,5", what="row 2: label"), csv_number("2.25", what="row 3: label")
        (-1.5, 2.25)
    """
    number = _number(text)
    if number is None:
        raise UserError(f"{what} must be a number, got {text[:40]!r}{_damage(text)}")
    return number


def _number(text: str) -> float | None:
    plain = text.strip().replace("\u2212", "-")
    if _NUMBER.fullmatch(plain):
        return float(plain.replace(",", "."))
    return float(plain) if _NOT_FINITE.fullmatch(plain) else None


def _label(text: str, *, what: str) -> float | None:
    if text.strip().lower() in _UNLABELLED:
        return None
    number = _number(text)
    if number is None:
        raise UserError(f"{what} must be a number or empty, got {text[:40]!r}{_damage(text)}")
    return number


# What spreadsheets do


def _is_error_word(text: str) -> bool:
    """Is it one, in capitals? A sentence such as ``#wow!`` is none."""
    plain = text.strip()
    found = _ERROR_WORD.fullmatch(plain) is not None
    return found and (plain == plain.upper() or plain.lower().startswith("err:"))


def _damage(text: str) -> str:
    """What a spreadsheet has made of a field, as the end of a sentence; empty if nothing."""
    plain = text.strip()
    if _is_error_word(plain.upper()):
        return ", a spreadsheet's error word"
    if _SHORTENED.fullmatch(plain):
        return ", a number that a spreadsheet has shortened"
    return ", a date that a spreadsheet has made of it" if _DATE.fullmatch(plain) else ""


def _checked_id(text: str, *, what: str, mends: bool) -> str:
    """A video or clip as it was before a spreadsheet.

    Raises:
        UserError: it is empty, or a spreadsheet has made something else of it.
    """
    plain = text.strip()
    damage = _damage(plain)
    if damage:
        raise UserError(
            f"{what} must be as the source wrote it, got {plain[:40]!r}{damage}; take it from the "
            "source again, as text"
        )
    whole = _WHOLE.fullmatch(plain) if mends else None
    return whole[1] if whole else plain


@dataclass(frozen=True)
class _Survey:
    """What a first pass over a table's ids and labels finds."""

    mends: frozenset[str]  # columns whose 1.0 are read as 1
    report: TableReport


def _survey(table: CsvTable, *, columns: tuple[str, ...], path: Path) -> _Survey:
    return _surveyed(table, columns, path, *_state(path))


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@functools.lru_cache(maxsize=4)
def _surveyed(
    table: CsvTable, columns: tuple[str, ...], path: Path, _mtime: int, _size: int
) -> _Survey:
    """Counts what will be mended: it depends on the whole column whether 1.0 is 1."""
    whole = dict.fromkeys(columns, 0)
    fractions = dict.fromkeys(columns, 0)
    num_rows = num_blanks = num_commas = 0
    literal: list[int] = []
    for _, row in table.rows(literal=literal):
        num_rows += 1
        for column in columns:
            field = row[column]
            num_blanks += field != field.strip()
            whole[column] += _WHOLE.fullmatch(field.strip()) is not None
            fractions[column] += _FRACTION.fullmatch(field.strip()) is not None
        num_commas += any("," in row.get(name, "") for name in _SPELLED)
    mends = frozenset(c for c in columns if whole[c] and not fractions[c])
    name = path.name
    notes = [
        f"{name}: {whole[column]} of {num_rows} {column} such as 1.0 are read as 1: a spreadsheet "
        "had made numbers of them"
        for column in columns
        if column in mends
    ]
    if num_blanks:
        notes.append(f"{name}: {num_blanks} ids had blanks around them, which are gone")
    if num_commas:
        notes.append(f"{name}: labels of {num_commas} of {num_rows} rows have a decimal comma")
    warnings = list(table.warnings)
    if literal:
        rows = ", ".join(map(str, literal[:8])) + (", ..." if len(literal) > 8 else "")
        warnings.append(
            f"{name}: a stray quote in row{'s' * (len(literal) > 1)} {rows} is read as part of the "
            "text"
        )
    report = TableReport(table.decisions, (*table.notes, *notes), tuple(warnings))
    return _Survey(mends, report)


def _open_labels(table: Path) -> tuple[CsvTable, _Survey]:
    opened = open_csv(table, required=_REQUIRED, known=tuple(_SPELLED))
    return opened, _survey(opened, columns=("video_id", "clip_id"), path=table)


def table_report(table: Path) -> TableReport:
    """How a label.csv is read and what is mended in it.

    Raises:
        UserError: it cannot be read.
    """
    return _open_labels(table)[1].report


def table_ids(table: Path) -> Iterator[str]:
    """The public id of every row, unchecked."""
    for video, clip in table_pairs(table):
        yield public_id(video, clip)


def table_pairs(table: Path, *, clip_column: str = "clip_id") -> Iterator[tuple[str, str]]:
    """Video and clip of every row, mended as ``table_rows`` does.

    Raises:
        UserError: a column is missing.
    """
    columns = ("video_id", clip_column)
    opened = open_csv(table, required=columns)
    survey = _survey(opened, columns=columns, path=table)
    for _, row in opened.rows():
        video, clip = (
            whole[1]
            if column in survey.mends and (whole := _WHOLE.fullmatch(row[column].strip()))
            else row[column].strip()
            for column in columns
        )
        yield video, clip


def table_rows(table: Path) -> Iterator[TableRow]:
    """The rows of label.csv; an empty or null label is none, an absent column likewise.

    A clip ``1.0`` is ``1`` where no clip of the table has a fraction; ``table_report`` counts them.

    Raises:
        UserError: a column is missing, or a field is wrong; row and column are named.
    """
    opened, survey = _open_labels(table)
    for number, row in opened.rows():
        what = f"{table} row {number}"
        if not row["video_id"].strip() or not row["clip_id"].strip():
            raise UserError(f"{what}: video_id and clip_id must not be empty")
        video, clip = (
            _checked_id(row[column], what=f"{what}: {column}", mends=column in survey.mends)
            for column in ("video_id", "clip_id")
        )
        split = canonical_split(row["mode"])
        if split is None:
            raise UserError(f"{what}: mode must be train, valid or test, got {row['mode'][:40]!r}")
        if _is_error_word(row["text"]):
            raise UserError(
                f"{what}: text must be what was said, got {row['text'].strip()[:40]!r}, a "
                "spreadsheet's error word"
            )
        labels = {
            column: _label(row[column], what=f"{what}: {_SPELLED[column]}")
            for column in _SPELLED
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
