"""A1, A8: what spreadsheets and other hands do to label.csv is read, or refused with its place."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.data import Sample, open_source
from tecafn.data.readers.table import table_report

HEADER = ("video_id", "clip_id", "text", "label", "annotation", "mode")
Rows = Sequence[tuple[str, ...]]
ROWS: Rows = [
    ("-3g5_yA", "1", "so good", "1.5", "Positive", "train"),
    ("-3g5_yA", "2", "not bad, not good", "-0.5", "Negative", "train"),
    ("c", "10", 'she said "no"', "0", "Neutral", "valid"),
    ("d", "7", "two\nlines", "", "", "test"),
]


def _text(rows: Rows = ROWS, *, separator: str = ",", header: Any = HEADER) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=separator, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[Sample]]:
    """Reads bytes, or text as UTF-8, as a label.csv."""

    def _read(content: str | bytes) -> list[Sample]:
        path = tmp_path / "label.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(open_source(path, format="label-csv")[1])

    return _read


def _values(samples: list[Sample]) -> list[Any]:
    return [(s.video, s.clip, s.text, s.label, s.split) for s in samples]


EXPECTED = [
    ("-3g5_yA", "1", "so good", 1.5, "train"),
    ("-3g5_yA", "2", "not bad, not good", -0.5, "train"),
    ("c", "10", 'she said "no"', 0.0, "valid"),
    ("d", "7", "two\nlines", None, "test"),
]


# Separators


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_any_separator_and_decimal_comma_is_read(
    read: Callable[..., list[Sample]], separator: str, decimal: str
) -> None:
    rows = [(*row[:3], row[3].replace(".", decimal), *row[4:]) for row in ROWS]
    assert _values(read(_text(rows, separator=separator))) == EXPECTED


@pytest.mark.parametrize("first", ["sep=;\n", "\n\n", '"";""\n'])
def test_lines_before_the_header_are_passed_over(
    read: Callable[..., list[Sample]], first: str
) -> None:
    assert _values(read(first + _text(separator=";"))) == EXPECTED


@pytest.mark.parametrize(
    "header",
    [
        (" video_id", "clip_id ", " text", "Label", "annotation", "MODE"),
        ("Video ID", "Clip-ID", "TEXT", "label", "Annotation", "mode"),
        ("\ufeffvideo_id", *HEADER[1:]),
    ],
)
def test_a_header_in_other_writing_is_read(
    read: Callable[..., list[Sample]], header: tuple[str, ...]
) -> None:
    assert _values(read(_text(header=header))) == EXPECTED


def test_empty_columns_and_rows_are_passed_over(read: Callable[..., list[Sample]]) -> None:
    rows: Rows = [(*ROWS[0], "", ""), ("",) * 8, (*ROWS[1], "", ""), ROWS[2], ("",), (*ROWS[3], "")]
    assert _values(read(_text(rows, header=(*HEADER, "", "")))) == EXPECTED


def test_a_missing_split_says_what_its_column_is(read: Callable[..., list[Sample]]) -> None:
    content = _text([row[:-1] for row in ROWS], header=HEADER[:-1])
    with pytest.raises(UserError, match="no column 'mode', which is the split: train, valid or"):
        read(content)


def test_a_column_that_is_there_twice_is_one_line(read: Callable[..., list[Sample]]) -> None:
    rows = [(*row, "9") for row in ROWS]
    with pytest.raises(UserError, match=r"column 'label' more than once \(columns 4, 7\)"):
        read(_text(rows, header=(*HEADER, "Label")))


def test_unquoted_separators_name_the_row_and_the_reason(
    read: Callable[..., list[Sample]],
) -> None:
    content = ",".join(HEADER) + "\na,1,fine,1.5,x,train\nb,2,well, no,1.5,x,train\n"
    with pytest.raises(UserError, match=r"row 3 must have 6 fields, got 7; .*',' .*in quotes"):
        read(content)


# Encodings and line ends


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_unicode_with_any_line_end_is_read(
    read: Callable[..., list[Sample]], encoding: str, end: str
) -> None:
    rows: Rows = [("d\u00e9", "1", "\u6211\u4e0d\u60f3 caf\u00e9", "1.5", "", "train")]
    (sample,) = read(_text(rows).replace("\n", end).encode(encoding))
    assert (sample.video, sample.text, sample.label) == ("d\u00e9", rows[0][2], 1.5)


@pytest.mark.parametrize(
    ("encoding", "text", "end"),
    [
        ("cp1252", "caf\u00e9 \u2013 \u201cfine\u201d", "\r\n"),
        ("latin-1", "gar\u00e7on, na\u00efve", "\n"),
        ("gb18030", "\u6211\u4e0d\u60f3\u518d\u89c1\u5230\u4ed6", "\r\n"),
        ("mac_roman", "caf\u00e9 fa\u00e7ade", "\r"),
    ],
)
def test_what_is_not_unicode_is_guessed_and_said(
    read: Callable[..., list[Sample]], tmp_path: Path, encoding: str, text: str, end: str
) -> None:
    rows: Rows = [("a", str(number), text, "1.5", "", "train") for number in range(5)]
    samples = read(_text(rows, separator=";").replace("\n", end).encode(encoding))
    assert {sample.text for sample in samples} == {text}
    (warning,) = table_report(tmp_path / "label.csv").warnings
    assert "is not UTF-8" in warning
    spoken = "cp1252" if encoding == "latin-1" else encoding
    assert f"read as {spoken}" in warning


def test_bytes_that_no_encoding_explains_name_the_line(
    read: Callable[..., list[Sample]],
) -> None:
    rows: Rows = [("a", "1", "fine", "1", "", "train"), ("a", "2", "caf", "1", "", "train")]
    content = _text(rows).encode().replace(b"caf", b"caf\x81")
    with pytest.raises(UserError, match=r"line 3 has the byte 0x81, and cp1252"):
        read(content)


# Quotes and long fields


def test_long_fields_are_read_and_the_limit_of_others_stays(
    read: Callable[..., list[Sample]],
) -> None:
    before = csv.field_size_limit()
    long = "word " * 30000
    rows: Rows = [("a", "1", long, "1", "", "train"), ("a", "2", f"{long}, x", "1", "", "train")]
    assert [len(sample.text) for sample in read(_text(rows))] == [len(long), len(long) + 3]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    "stray",
    ['a 5" screen', '"so he said', 'he said so"', '"no" he said', '"', 'x "" y'],
)
def test_a_stray_quote_is_part_of_the_text(read: Callable[..., list[Sample]], stray: str) -> None:
    lines = [",".join(HEADER), f"a,1,{stray},1.5,x,train", 'b,2,"well, no",1,x,valid',
             f"c,3,{stray},2,x,test"]  # fmt: skip
    samples = read("\n".join(lines) + "\n")
    assert [(s.id, s.text, s.label) for s in samples] == [
        ("a_1", stray, 1.5),
        ("b_2", "well, no", 1.0),
        ("c_3", stray, 2.0),
    ]


def test_a_stray_quote_that_cannot_be_read_names_row_and_column(
    read: Callable[..., list[Sample]],
) -> None:
    content = ",".join(HEADER) + '\na,1,fine,1.5,x,train\nb,2,"well, no" he said,1,x,valid\n'
    with pytest.raises(UserError, match=r"row 3, column text: a stray quote"):
        read(content)


def test_a_stray_quote_is_said(read: Callable[..., list[Sample]], tmp_path: Path) -> None:
    read(",".join(HEADER) + '\na,1,fine,1.5,x,train\nb,2,"well,1,x,valid\n')
    (warning,) = table_report(tmp_path / "label.csv").warnings
    assert "stray quote in row 3" in warning


def test_text_of_several_lines_may_be_the_last_column(
    read: Callable[..., list[Sample]],
) -> None:
    content = 'video_id,clip_id,mode,text\na,1,train,"one,\n2,\nthree"\nb,2,test,x\n'
    assert [sample.text for sample in read(content)] == ["one,\n2,\nthree", "x"]


# Spreadsheets


def test_clips_that_became_numbers_are_mended_with_a_note(
    read: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    rows: Rows = [(row[0], f"{row[1]}.0", *row[2:]) for row in ROWS]
    assert _values(read(_text(rows))) == EXPECTED
    assert any(
        "4 of 4 clip_id such as 1.0" in n for n in table_report(tmp_path / "label.csv").notes
    )
    rows = [(row[0], f"{row[1]},0", *row[2:]) for row in ROWS]
    assert _values(read(_text(rows, separator=";"))) == EXPECTED


def test_clips_that_are_seconds_stay(read: Callable[..., list[Sample]]) -> None:
    rows: Rows = [
        ("a", "82.7645", "x", "1", "", "train"),
        ("a", "90.0", "x", "1", "", "train"),
        ("a", "95_5", "x", "1", "", "train"),
    ]
    assert [sample.clip for sample in read(_text(rows))] == ["82.7645", "90.0", "95_5"]


def test_blanks_around_ids_go_with_a_note(
    read: Callable[..., list[Sample]], tmp_path: Path
) -> None:
    rows: Rows = [(f" {row[0]}\u00a0", f"{row[1]} ", *row[2:]) for row in ROWS]
    assert _values(read(_text(rows))) == EXPECTED
    assert any("blanks around them" in note for note in table_report(tmp_path / "label.csv").notes)


WORDS = ["#NAME?", "#REF!", "#N/A", "#VALUE!", "#DIV/0!", "#BEZUG!", "#NOM?", "#\u00a1REF!",
         "#NV", "Err:508", "#####"]  # fmt: skip
DATES = ["3-Jan", "Jan-03", "03-Jan-24", "3. Mai", "1/3/2024", "03.01.2024", "2024-01-03"]
SHORTENED = ["1.23E+10", "1,23E+10", "5e+11", "1.5E-07"]


@pytest.mark.parametrize("damaged", [*WORDS, *DATES, *SHORTENED])
@pytest.mark.parametrize("column", ["video_id", "clip_id"])
def test_ids_that_a_spreadsheet_has_changed_name_row_and_column(
    read: Callable[..., list[Sample]], column: str, damaged: str
) -> None:
    rows = [list(row) for row in ROWS]
    rows[1][HEADER.index(column)] = damaged
    with pytest.raises(UserError, match=rf"row 3: {column} must be .*spreadsheet") as caught:
        read(_text([tuple(row) for row in rows]))
    assert repr(damaged) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damaged", [*WORDS, "3-Jan"])
def test_labels_that_a_spreadsheet_has_changed_name_row_and_column(
    read: Callable[..., list[Sample]], damaged: str
) -> None:
    rows: Rows = [*ROWS[:2], (*ROWS[2][:3], damaged, *ROWS[2][4:])]
    with pytest.raises(UserError, match=r"row 4: label must be a number.*spreadsheet"):
        read(_text(rows))


@pytest.mark.parametrize("damaged", WORDS)
def test_an_error_word_is_no_sentence(read: Callable[..., list[Sample]], damaged: str) -> None:
    rows: Rows = [("a", "1", damaged, "1", "", "train")]
    with pytest.raises(UserError, match=r"row 2: text must be what was said"):
        read(_text(rows))


@pytest.mark.parametrize("text", ["#wow!", "number 3", "in jan 2003", "# 1!", "1.5", "may 3"])
def test_sentences_that_only_look_damaged_are_read(
    read: Callable[..., list[Sample]], text: str
) -> None:
    assert read(_text([("a", "1", text, "1", "", "train")]))[0].text == text


@pytest.mark.parametrize(
    "video", ["-3g5yACwYnA", "100178", "_dI--eQ6qVU", "1E5xyz", "video_0001", "03bSnISJMiM"]
)
def test_videos_of_the_field_are_kept(read: Callable[..., list[Sample]], video: str) -> None:
    sample = read(_text([(video, "82_7645", "x", "1", "", "train")]))[0]
    assert (sample.video, sample.clip) == (video, "82_7645")


@pytest.mark.parametrize("number", ["1_000", "0x10", "1.000,5", "one"])
def test_what_is_no_number_is_no_label(read: Callable[..., list[Sample]], number: str) -> None:
    with pytest.raises(UserError, match="row 2: label must be a number or empty"):
        read(_text([("a", "1", "x", number, "", "train")]))


def test_the_import_says_how_the_table_was_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: Rows = [(row[0], f"{row[1]}.0", *row[2:]) for row in ROWS]
    path = tmp_path / "label.csv"
    path.write_bytes(_text(rows, separator=";").replace("so good", "caf\u00e9").encode("cp1252"))
    assert main(["data", "import", str(path), "--out", str(tmp_path / "store")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "label.csv is read as cp1252, separated by semicolons" in printed
    assert "4 of 4 clip_id such as 1.0 are read as 1" in printed
    assert "label.csv is not UTF-8" in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04xl/workbook", "a spreadsheet's own file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old spreadsheet's own file"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\x1f\x8b\x08\x00", "packed by gzip"),
        (b"", "has no header: it is empty"),
    ],
)
def test_what_is_no_table_is_named(
    read: Callable[..., list[Sample]], content: bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (lambda text: f"'{text}", "a spreadsheet's mark of text"),
        (lambda text: f'="{text}"', "a spreadsheet's mark of text"),
        (lambda text: f"'{text}'", "quotes around them"),
        (lambda text: f"\u201c{text}\u201d", "quotes around them"),
        (lambda text: f"\ufeff{text}", "invisible characters"),
        (lambda text: f"{text[:1]}\u200b{text[1:]}", "invisible characters"),
        (lambda text: f"{text}\x00", "invisible characters"),
        (lambda text: f"['{text}']", "lists of one written as text"),
        (lambda text: f"b'{text}'", "bytes written as text"),
        (lambda text: f"{text}.mp4", "ended like a media file"),
        (lambda text: f"Raw/{text}.MP4", "were paths"),
        (lambda text: "\\".join(("C:", "Raw", f"{text}.wav")), "were paths"),
    ],
)
@pytest.mark.parametrize("only_first", [False, True])
def test_marks_of_tools_around_ids_go_with_a_note(
    read: Callable[..., list[Sample]], tmp_path: Path, mark: Any, said: str, only_first: bool
) -> None:
    marked = [(mark(row[0]), mark(row[1]), *row[2:]) for row in ROWS]
    rows = [marked[0], *ROWS[1:]] if only_first else marked
    assert _values(read(_text(rows))) == EXPECTED
    count = 2 if only_first else 8
    notes = table_report(tmp_path / "label.csv").notes
    assert any(f"{count} ids" in note and said in note for note in notes)


def test_marks_around_ids_of_a_later_part_do_not_hide_a_video_in_two_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two files with byte order marks, one after the other."""
    rows: Rows = [("a", "1", "x", "1", "", "train"), ("\ufeffa", "2", "y", "1", "", "test")]
    (tmp_path / "label.csv").write_text(_text(rows))
    assert main(["data", "import", str(tmp_path), "--out", str(tmp_path / "store")]) == 0
    assert "1 video is in two splits" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("joined", ["{}_{}", "{}$_${}"])
def test_clips_that_begin_with_their_video_are_the_rest(
    read: Callable[..., list[Sample]], tmp_path: Path, joined: str
) -> None:
    rows: Rows = [(row[0], joined.format(*row[:2]), *row[2:]) for row in ROWS]
    assert _values(read(_text(rows))) == EXPECTED
    said = "label.csv: 4 ids began with their video, which is gone"
    assert said in table_report(tmp_path / "label.csv").notes
    with pytest.raises(UserError, match=r"row 2: clip_id must begin with its video, as 3 of 4 do"):
        read(_text([ROWS[0], *rows[1:]]))
    # One clip that happens to look so is a clip.
    assert read(_text([rows[0], *ROWS[1:]]))[0].clip == rows[0][1]


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (["00:01:00", "00:02:00"], "row 2: clip_id must be .*a time that a spreadsheet has made"),
        (["1", "12:30"], "row 3: clip_id must be .*a time that a spreadsheet has made"),
        (["1:05 AM", "2"], "row 2: clip_id must be .*a time that a spreadsheet has made"),
        (["1e0", "2e0"], "row 2: clip_id must be .*a number that a spreadsheet has shortened"),
        (["1", "1.5E3"], "row 3: clip_id must be .*a number that a spreadsheet has shortened"),
        (["999", "1.001"], "row 3: clip_id must be .*1001 with a separator of thousands"),
        (["1,001", "1,002"], "row 2: clip_id must be .*write 1001, or seconds as 1_001"),
        (["Raw/1", "Raw/2"], "row 2: clip_id: video_id and clip_id must be file names"),
        (["a\x00b", "2"], "row 2: clip_id: video_id and clip_id must be file names"),
        (["\u200b", "2"], "row 2: video_id and clip_id must not be empty"),
    ],
)
def test_clips_that_may_be_read_in_two_ways_are_refused(
    read: Callable[..., list[Sample]], clips: list[str], message: str
) -> None:
    rows: Rows = [("v", clip, "x", "1", "", "train") for clip in clips]
    with pytest.raises(UserError, match=message) as caught:
        read(_text(rows))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "clips",
    [
        ["82.764", "0.125"],
        ["82.764", "1200"],
        ["82.764", "90.0625"],
        ["1_001", "1_002"],
        ["intro", "1st"],
        ["0001", "0002"],
    ],
)
def test_clips_that_can_be_read_in_one_way_stay(
    read: Callable[..., list[Sample]], clips: list[str]
) -> None:
    rows: Rows = [("v", clip, "x", "1", "", "train") for clip in clips]
    assert [sample.clip for sample in read(_text(rows))] == clips


def test_videos_of_two_folders_with_one_name_are_refused(
    read: Callable[..., list[Sample]],
) -> None:
    rows: Rows = [
        (f"{folder}/v.mp4", "1", "x", "1", "", split)
        for folder, split in (("one", "train"), (" two", "test"))
    ]
    with pytest.raises(UserError, match=r"row 3: video_id 'v' is in two folders, one and two"):
        read(_text(rows))
