"""CSV tables as spreadsheets in any locale write them: separator, encoding, line ends, quotes.

The standard library's ``csv`` would do but for three things: its limit of 131,072 characters per
field is one of the whole process, its errors do not say where a stray quote stands, and it leaves
separator and encoding to the caller. Its sniffer guesses from the data; here the header decides,
whose names are known.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tecafn.core.errors import UserError, nearest_known
from tecafn.data.samples import canonical_split

SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MOST_CHARACTERS: Final = 2**20  # of one field
_HEADER_CHARACTERS: Final = 2**16
_MOST_LINES: Final = 1000  # of one field
_CHUNK: Final = 2**20
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Beginnings, in lower case, of what bears a table's name and is none.
_NO_TABLES: Final = (
    (b"pk\x03\x04", "a spreadsheet's own file or another zip archive: save it as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet's own file: save it as CSV in UTF-8"),
    (b"\x1f\x8b", "packed by gzip: unpack it first"),
    (b"sqlite format 3", "a database"),
    (b"par1", "a parquet file"),
    (b"%pdf", "a PDF"),
    (b"<!doctype", "a web page: download the file itself"),
    (b"<html", "a web page: download the file itself"),
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself (git lfs pull)"),
)
_HIGH: Final = re.compile(rb"[\x80-\xff]+")
# Letters beyond ASCII stand alone in Western text; in Chinese two bytes make one.
_MOST_RUNS: Final = 0.34


@dataclass(frozen=True)
class CsvTable:
    """A CSV file whose dialect is known.

    Args:
        path: the file.
        encoding: a codec of Python's.
        separator: between fields.
        header_row: the header's row, 1 unless blank rows or ``sep=`` come before it.
        columns: names in lower case, '' for a column that is not read.
        decisions, notes, warnings: what the user should hear of all that.
    """

    path: Path
    encoding: str
    separator: str
    header_row: int
    columns: tuple[str, ...]
    decisions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def rows(self, *, literal: list[int] | None = None) -> Iterator[tuple[int, dict[str, str]]]:
        """Number and fields of each row after the header; empty rows are passed over.

        Args:
            literal: gets the numbers of rows in which a quote was read as part of the text.

        Raises:
            UserError: a row has other columns than the header, or is no text; it is named.
        """
        count = len(self.columns)
        rows = _split_rows(
            _lines(self.path, self.encoding),
            self.separator,
            table=self,
            literal=[] if literal is None else literal,
        )
        for number, fields in rows:
            if number <= self.header_row or not any(map(str.strip, fields)):
                continue
            while len(fields) > count and not fields[-1].strip():
                fields.pop()
            if len(fields) != count:
                hint = ""
                if len(fields) > count:
                    hint = f"; a field that has a {self.separator!r} in it must stand in quotes"
                raise UserError(
                    f"{self.path} row {number} must have {count} fields, got {len(fields)}{hint}"
                )
            yield (
                number,
                {name: field for name, field in zip(self.columns, fields, strict=True) if name},
            )


# Of columns whose names do not say what they hold.
_MEANINGS: Final = {"mode": "the split: train, valid or test"}


def open_csv(path: Path, *, required: tuple[str, ...], known: tuple[str, ...] = ()) -> CsvTable:
    r"""Find a CSV file's encoding, its header and its separator.

    Args:
        path: the file.
        required: columns that it must have, in lower case.
        known: others that are read where they are there.

    Raises:
        UserError: there is no such file, it is no text, or a column is missing or there twice.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "label.csv"
        >>> _ = path.write_text("Video_ID; clip_id;label\nv;1;0,5\n")
        >>> table = open_csv(path, required=("video_id", "clip_id"))
        >>> table.separator, list(table.rows())
        (';', [(2, {'video_id': 'v', 'clip_id': '1', 'label': '0,5'})])
    """
    encoding, warning = _encoding(path)
    number, line, told = _header_line(path, encoding)
    separator, header = _best_split(line, required, told)
    names = [_column(name) for name in header]
    while names and not names[-1]:
        names.pop()
    for name in required:
        if name not in names:
            what = f", which is {_MEANINGS[name]}" if name in _MEANINGS else ""
            raise UserError(
                f"{path} has no column {name!r}{what}: {nearest_known(name, header[:20])}"
            )
    for name in dict.fromkeys((*required, *known)):
        places = [str(place) for place, other in enumerate(names, start=1) if other == name]
        if len(places) > 1:
            raise UserError(
                f"{path} has the column {name!r} more than once (columns {', '.join(places)}); "
                "keep the one that is meant"
            )
    columns = [name if name not in names[:place] else "" for place, name in enumerate(names)]
    decisions = []
    if separator != "," or encoding not in ("utf-8", "utf-8-sig"):
        spoken = "UTF-8" if encoding.startswith("utf-8") else encoding
        decisions.append(f"{path.name} is read as {spoken}, separated by {SEPARATORS[separator]}")
    return CsvTable(
        path=path,
        encoding=encoding,
        separator=separator,
        header_row=number,
        columns=tuple(columns),
        decisions=tuple(decisions),
        warnings=() if warning is None else (warning,),
    )


def _column(name: str) -> str:
    """A column's name in the one writing that is compared: ``Video ID`` is ``video_id``."""
    return re.sub(r"[\s-]+", "_", name.replace("\ufeff", "").strip().lower())


def _header_line(path: Path, encoding: str) -> tuple[int, str, str | None]:
    """Row and text of the first line that is not blank, and the separator that ``sep=`` names."""
    told = None
    for number, line in enumerate(_lines(path, encoding), start=1):
        plain = line.replace("\ufeff", "").strip()
        if number == 1 and plain.lower().startswith("sep=") and len(plain) <= 5:
            told = line.strip("\n").rstrip(" ")[4:5] or "\t"
        elif plain.strip("".join(SEPARATORS) + ' "'):
            return number, line[:_HEADER_CHARACTERS], told
    raise UserError(f"{path} has no header: it is empty")


def _best_split(line: str, required: Sequence[str], told: str | None) -> tuple[str, list[str]]:
    """The separator under which the header has most of the required names, and its fields."""
    best: tuple[int, str, list[str]] = (-1, ",", [])
    for separator in SEPARATORS if told not in SEPARATORS else (told,):
        fields, _ = _split(line, separator)
        found = fields if fields is not None else line.split(separator)
        names = {_column(name) for name in found}
        score = sum(name in names for name in required)
        if score > best[0]:
            best = (score, separator, found)
    return best[1], best[2]


# Encodings


def _encoding(path: Path) -> tuple[str, str | None]:
    """The file's codec, and a warning where it had to be guessed."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            for mark, encoding in _BOMS:
                if head.startswith(mark):
                    return encoding, None
            for mark, what in _NO_TABLES:
                if head.lstrip().lower().startswith(mark):
                    raise UserError(f"{path} is no CSV file, but {what}")
            if head[1:2] == b"\0" or head[:1] == b"\0":
                return ("utf-16-le" if head[1:2] == b"\0" else "utf-16-be"), None
            file.seek(0)
            decoder = codecs.getincrementaldecoder("utf-8")()
            try:
                while chunk := file.read(_CHUNK):
                    decoder.decode(chunk)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                file.seek(0)
                return _guessed(path, file.read(16 * _CHUNK))
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return "utf-8", None


def _guessed(path: Path, data: bytes) -> tuple[str, str]:
    """What a table that is not UTF-8 is likely to be.

    Raises:
        UserError: nothing is likely.
    """
    runs = _HIGH.findall(data)
    num_long = sum(len(run) > 1 for run in runs)
    if num_long > _MOST_RUNS * len(runs):
        if _has_letters_of_one_byte(b"".join(runs)):
            raise UserError(
                f"{path} is not UTF-8, and its bytes look like the letters of another script of "
                "one byte each (Cyrillic, Greek, Hebrew, Arabic), which is not guessed; save the "
                "table as UTF-8"
            )
        encoding = "gb18030"
    else:
        encoding = "mac_roman" if b"\r" in data and b"\n" not in data else "cp1252"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not a CSV file in UTF-8: line {line} has the byte "
            f"0x{data[error.start]:02x}, and {encoding} does not explain it either; save the "
            "table as UTF-8"
        ) from None
    example = next((word for word in text.split() if not word.isascii()), "")
    for separator in SEPARATORS:
        example = next((part for part in example.split(separator) if not part.isascii()), example)
    return encoding, (
        f"{path.name} is not UTF-8 and does not say what it is; read as {encoding} "
        f"({example[:20]!r}): if that is wrong, save it as UTF-8"
    )


def _has_letters_of_one_byte(high: bytes) -> bool:
    """Do bytes beyond ASCII lie where such encodings (cp1251 and others) have their letters?

    Of Chinese every second byte lies anywhere from 0xa1.
    """
    num_letters = sum(byte >= 0xC0 or byte in (0xA8, 0xB8) for byte in high)
    return len(high) >= 16 and num_letters > 0.95 * len(high)


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines with one kind of end, whatever the file's.

    Raises:
        UserError: a line is not text in ``encoding``, or holds far too much.
    """
    number = 0
    try:
        with path.open(encoding=encoding, newline=None) as file:
            while line := file.readline(16 * MOST_CHARACTERS):
                number += 1
                if len(line) == 16 * MOST_CHARACTERS:
                    raise UserError(f"{path} line {number} is longer than any row of a table")
                yield line
    except UnicodeError as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"{path} is not a CSV file in UTF-8 or {encoding}, near line {number + 1}: {reason}"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


# Rows


def _split(line: str, separator: str) -> tuple[list[str] | None, int]:
    """The fields of a line, or None and the number of the field whose quote goes wrong.

    A quoted field may have blanks around its quotes. -1 less the number: its quote is still open
    at the end of the line.
    """
    fields: list[str] = []
    position, length = 0, len(line.rstrip("\n"))
    while True:
        start = position
        while start < length and line[start] == " " != separator:
            start += 1
        if line[start : start + 1] == '"':
            end = _closing(line, start + 1)
            if end < 0:
                return None, -1 - len(fields)
            after = end + 1
            while after < length and line[after] == " " != separator:
                after += 1
            if after < length and line[after] != separator:
                return None, len(fields)
            fields.append(line[start + 1 : end].replace('""', '"'))
        else:
            after = line.find(separator, position, length)
            after = length if after < 0 else after
            fields.append(line[position:after])
        if after >= length:
            return fields, 0
        position = after + 1


def _closing(line: str, position: int) -> int:
    """Where the quote that encloses a field closes; -1 if it does not."""
    while (end := line.find('"', position)) >= 0:
        if line[end + 1 : end + 2] != '"':
            return end
        position = end + 2
    return -1


def _split_rows(
    lines: Iterable[str], separator: str, *, table: CsvTable, literal: list[int]
) -> Iterator[tuple[int, list[str]]]:
    """Row number and fields. A quoted field may run over several lines.

    A quote that encloses no field (it closes nowhere, or amid a field, or only after whole rows)
    is read as part of the text where the line alone has all columns.

    Raises:
        UserError: it has not; row and column are named.
    """
    source = _Pushback(iter(lines))
    for number, line in enumerate(source, start=1):
        fields, place = _split(line, separator)
        if fields is None:
            taken, opened = [line], place
            num_characters = len(line)
            while fields is None and place < 0:
                more = next(source, None)
                if more is None:
                    break
                if num_characters > MOST_CHARACTERS or len(taken) > _MOST_LINES:
                    taken.append(more)
                    break
                taken.append(more)
                num_characters += len(more)
                if '"' in more:
                    fields, place = _split("".join(taken), separator)
            if fields is None or _holds_rows(taken, separator, table, column=-1 - opened):
                column = max(place, -1 - place)
                source.give_back(taken[1:])
                fields = _without_quotes(line, separator, table, number, column)
                literal.append(number)
        yield number, fields


def _holds_rows(lines: Sequence[str], separator: str, table: CsvTable, *, column: int) -> bool:
    """Does what a quote in ``column`` encloses over several lines look like rows of the table?"""
    if len(lines) < 2:
        return False
    is_last = column == len(table.columns) - 1
    suspected = lines[1:] if is_last else lines[:-1]
    return any(_is_row(line, separator, table) for line in suspected)


def _is_row(line: str, separator: str, table: CsvTable) -> bool:
    """Has a line, its quotes apart, all columns, and a split where the split is?"""
    fields = line.rstrip("\n").split(separator)
    if len(fields) != len(table.columns):
        return False
    if "mode" not in table.columns:
        return True
    return canonical_split(fields[table.columns.index("mode")].strip('"')) is not None


def _without_quotes(
    line: str, separator: str, table: CsvTable, number: int, column: int
) -> list[str]:
    """The fields of a line in which quotes mean nothing.

    Raises:
        UserError: there are more or fewer than columns.
    """
    fields = line.rstrip("\n").split(separator)
    if len(fields) != len(table.columns):
        named = table.columns[column] if column < len(table.columns) else str(column + 1)
        raise UserError(
            f"{table.path} row {number}, column {named or column + 1}: a stray quote; the quotes "
            'around a field must close before the next separator, one within it is written ""'
        )
    return fields


class _Pushback:
    """An iterator that takes back."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._returned: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return self._returned.pop() if self._returned else next(self._source)

    def give_back(self, lines: Sequence[str]) -> None:
        """The next ones are ``lines``, in their order."""
        self._returned.extend(reversed(lines))
