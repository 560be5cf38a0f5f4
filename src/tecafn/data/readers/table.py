"""The rows of label.csv: ``video_id, clip_id, text, label[, label_T, label_A, label_V], mode``.

Spreadsheets and other hands leave their marks on such tables: another separator, another encoding,
decimal commas, clips ``1.0``, error words where an id began with a minus sign. What can be read
in one way only is read and said; the rest is refused with row and column. The dialect itself is
that of ``tecafn.data.csv_text``.
"""

from __future__ import annotations

import functools
import ntpath
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.csv_text import CsvTable, open_csv
from tecafn.data.label_survey import PolarityCheck
from tecafn.data.layouts import like_labels, like_text
from tecafn.data.names import (
    file_name,
    has_control,
    is_path,
    without_ending,
    without_marks,
    without_video,
)
from tecafn.data.samples import DatasetDescription, canonical_split, public_id
from tecafn.data.sentences import TextSurvey

_ID_COLUMNS = ("video_id", "clip_id")
_REQUIRED = (*_ID_COLUMNS, "text", "mode")
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
_TIME = re.compile(r"\d{1,4}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\.?)?")
# Of clips alone: a video may be called 1e5.
_POWER = re.compile(r"\d+(?:[.,]\d+)?[eE]\d+")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:[.,]\d{3})+")
_WHOLE = re.compile(r"(\d+)[.,]0+")
_FRACTION = re.compile(r"\d+[.,]\d*[1-9]\d*")
_ENDING: Final = "ended like a media file (.mp4); the ending is gone"
_FOLDERS: Final = "were paths; the file's name is kept, without its folders and its ending"
_TWICE: Final = "began with their video, which is gone"


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
    if _TIME.fullmatch(plain):
        return ", a time that a spreadsheet has made of it"
    return ", a date that a spreadsheet has made of it" if _DATE.fullmatch(plain) else ""


def _plain(text: str) -> tuple[str, list[str]]:
    """A video or clip without marks, folders and ending, and what it had of them."""
    plain, marks = without_marks(text)
    name = without_ending(plain) if "." in plain else plain
    if name == plain:
        return plain, marks
    # Without an ending a/b may be a name, or a part of a whole.
    return (file_name(name), [*marks, _FOLDERS]) if is_path(plain) else (name, [*marks, _ENDING])


def _check_id(text: str, *, what: str, is_clip: bool) -> None:
    """Refuse a video or clip that a spreadsheet has made something else of.

    Raises:
        UserError: it has.
    """
    damage = _damage(text)
    if is_clip and _POWER.fullmatch(text):
        damage = ", a number that a spreadsheet has shortened"
    if damage:
        raise UserError(
            f"{what} must be as the source wrote it, got {text[:40]!r}{damage}; take it from the "
            "source again, as text"
        )
    if is_path(text) or has_control(text):
        raise UserError(
            f"{what}: video_id and clip_id must be file names, without folders and control "
            f"characters, got {text[:40]!r}"
        )


@dataclass(frozen=True)
class _Survey:
    """What a first pass over a table's ids and labels finds."""

    mends: frozenset[str]  # columns whose 1.0 are read as 1
    spoken: TextSurvey
    repeats: bool  # every clip begins with its video
    report: TableReport

    def pair(self, row: Mapping[str, str], columns: tuple[str, str]) -> tuple[str, str]:
        """Video and clip of a row, mended."""
        video, clip = (
            whole[1] if column in self.mends and (whole := _WHOLE.fullmatch(plain)) else plain
            for column in columns
            for plain in (_plain(row[column])[0],)
        )
        return video, without_video(video, clip) if self.repeats else clip


def _survey(table: CsvTable, *, columns: tuple[str, str], path: Path) -> _Survey:
    return _surveyed(table, columns, path, *_state(path))


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@functools.lru_cache(maxsize=4)
def _surveyed(
    table: CsvTable, columns: tuple[str, str], path: Path, _mtime: int, _size: int
) -> _Survey:
    """Counts what will be mended: it depends on the whole column whether 1.0 is 1."""
    whole = dict.fromkeys(columns, 0)
    fractions = dict.fromkeys(columns, 0)
    marked: Counter[str] = Counter()
    num_rows = num_commas = 0
    literal: list[int] = []
    spoken = TextSurvey()
    clips = _Clips()
    polarity = PolarityCheck("annotation")
    for number, row in table.rows(literal=literal):
        num_rows += 1
        spoken.add(row.get("text", ""))
        fields = []
        for column in columns:
            field, marks = _plain(row[column])
            fields.append(field)
            marked.update(marks)
            whole[column] += _WHOLE.fullmatch(field) is not None
            fractions[column] += _FRACTION.fullmatch(field) is not None
        clips.add(number, row[columns[0]], *fields)
        polarity.add(
            _number(row.get("label", "")), row.get("annotation", ""), where=f"row {number}"
        )
        num_commas += any("," in row.get(name, "") for name in _SPELLED)
    mends = frozenset(c for c in columns if whole[c] and not fractions[c])
    name = path.name
    clips.check(path, columns, may_be_grouped=columns[1] not in mends)
    if clips.all_repeat:
        marked[_TWICE] += num_rows
    notes = [
        f"{name}: {whole[column]} of {num_rows} {column} such as 1.0 are read as 1: a spreadsheet "
        "had made numbers of them"
        for column in columns
        if column in mends
    ]
    notes += [f"{name}: {count} ids {what}" for what, count in marked.items()]
    if num_commas:
        notes.append(f"{name}: labels of {num_commas} of {num_rows} rows have a decimal comma")
    warnings = list(table.warnings)
    if literal:
        rows = ", ".join(map(str, literal[:8])) + (", ..." if len(literal) > 8 else "")
        warnings.append(
            f"{name}: a stray quote in row{'s' * (len(literal) > 1)} {rows} is read as part of the "
            "text"
        )
    warnings += _unread(table, name)
    warnings += spoken.warnings()
    warnings += [f"{name}: {warning}" for warning in polarity.warnings()]
    notes += spoken.notes()
    report = TableReport(table.decisions, (*table.notes, *notes), tuple(warnings))
    return _Survey(mends, spoken, clips.all_repeat, report)


def _unread(table: CsvTable, name: str) -> list[str]:
    """Columns that are not read and look like what no row of the table has."""
    wanted = {"text": like_text, "label": like_labels}
    others = [c for c in table.columns if c and c not in (*_REQUIRED, *_SPELLED)]
    likely = {key: [c for c in others if is_like(c)] for key, is_like in wanted.items()}
    empty = {key: columns for key, columns in likely.items() if columns}
    filled: set[str] = set()
    for _, row in table.rows() if empty else ():
        filled.update(c for c, field in row.items() if field.strip().lower() not in _UNLABELLED)
    return [
        f"{name}: no row has a {key}, and the column {column!r} is not read: name it {key!r} if "
        "that is what it holds"
        for key, columns in empty.items()
        if key not in filled
        for column in columns
        if column in filled
    ]


class _Clips:
    """What the clips of a table show together."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._repeating = 0
        self._alone: tuple[int, str] | None = None  # the first that does not begin with its video
        self._grouped: tuple[int, str] | None = None
        self._has_other_numbers = False
        self._folders: dict[str, str] = {}  # of each video that is a path, its folder
        self._twice: tuple[int, str, str] | None = None

    @property
    def all_repeat(self) -> bool:
        """Does every clip begin with its video?"""
        return 0 < self._num_rows == self._repeating

    def add(self, number: int, path: str, video: str, clip: str) -> None:
        """Look at one row."""
        self._num_rows += 1
        if is_path(path):
            folder = ntpath.dirname(without_marks(path)[0])
            if self._folders.setdefault(video, folder) != folder and self._twice is None:
                self._twice = (number, video, f"{self._folders[video]} and {folder}")
        if without_video(video, clip) != clip:
            self._repeating += 1
        elif self._alone is None:
            self._alone = (number, clip)
        if _GROUPED.fullmatch(clip):
            self._grouped = self._grouped or (number, clip)
        elif re.fullmatch(r"\d{4,}|\d+[.,_]\d+", clip):
            self._has_other_numbers = True

    def check(self, path: Path, columns: tuple[str, str], *, may_be_grouped: bool) -> None:
        """Refuse what may be read in two ways.

        Raises:
            UserError: a clip has a separator of thousands, most clips begin with their video, or
                two files of different folders would be one video.
        """
        if self._twice:
            number, video, folders = self._twice
            raise UserError(
                f"{path} row {number}: {columns[0]} {video!r} is in two folders, {folders[:80]}: "
                "write names without folders, two if they are two videos"
            )
        column = columns[1]
        if may_be_grouped and self._grouped and not self._has_other_numbers:
            number, clip = self._grouped
            digits = re.sub("[.,]", "", clip)
            raise UserError(
                f"{path} row {number}: {column} must be as the source wrote it, got {clip!r}: "
                f"{digits} with a separator of thousands, or seconds? write {digits}, or seconds "
                f"as {re.sub('[.,]', '_', clip)}"
            )
        if self._alone and 2 * self._repeating > self._num_rows:
            number, clip = self._alone
            raise UserError(
                f"{path} row {number}: {column} must begin with its video, as {self._repeating} of "
                f"{self._num_rows} do, got {clip[:40]!r}"
            )


def _open_labels(table: Path) -> tuple[CsvTable, _Survey]:
    opened = open_csv(table, required=_REQUIRED, known=tuple(_SPELLED))
    return opened, _survey(opened, columns=_ID_COLUMNS, path=table)


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
        yield survey.pair(row, columns)


def table_rows(table: Path) -> Iterator[TableRow]:
    """The rows of label.csv; an empty or null label is none, an absent column likewise.

    A clip ``1.0`` is ``1`` where no clip of the table has a fraction; ``table_report`` counts them.

    Raises:
        UserError: a column is missing, or a field is wrong; row and column are named.
    """
    opened, survey = _open_labels(table)
    for number, row in opened.rows():
        what = f"{table} row {number}"
        video, clip = survey.pair(row, _ID_COLUMNS)
        if not video or not clip:
            raise UserError(f"{what}: video_id and clip_id must not be empty")
        for column, field in zip(_ID_COLUMNS, (video, clip), strict=True):
            _check_id(field, what=f"{what}: {column}", is_clip=column == "clip_id")
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
            text=survey.spoken.mend(row["text"]),
            label=labels.get("label"),
            unimodal={
                modality: value
                for column, modality in _UNIMODAL.items()
                if (value := labels.get(column)) is not None
            },
        )
