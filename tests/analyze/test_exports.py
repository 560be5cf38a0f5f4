"""Every export, read again by the programs' own libraries, is what was written."""

from __future__ import annotations

import csv
import io
import itertools
import warnings
from pathlib import Path

import pytest
from timelines import talk, timeline, utterance

from tecafn.analyze.annotations import as_eaf, as_textgrid, tiers_of
from tecafn.analyze.exports import EXPORTS, as_csv, as_vtt, score_text, write_exports
from tecafn.analyze.timeline import Timeline
from tecafn.analyze.workbook import UTTERANCE_COLUMNS, as_xlsx, sheets_of, utterance_rows

HOSTILE = '=1+1 "quoted" <i>&amp;</i> \u4f60\u597d, it\'s -- fine'


def odd() -> Timeline:
    """Texts that formats quote, times that touch, words without length, no score, no interval."""
    return timeline(
        [
            utterance(0.0, 2.0, 1.5, text=HOSTILE),
            utterance(
                2.0,
                2.0,
                -3.0,
                text="now now now",
                doubts=("a", "b"),
                voice={"calm": 0.615, "sad": 0.3, "happy": 0.085},
            ),
            utterance(5.0, 7.0, None, text="Das war gut.", out_of_range="de"),
        ],
        duration=9.0,
    )


TIMELINES = [talk(40.0), odd(), timeline([], duration=3.0)]


@pytest.mark.parametrize("one", TIMELINES, ids=["talk", "odd", "nothing"])
def test_the_csv_reads_equal(one: Timeline) -> None:
    rows = list(csv.reader(io.StringIO(as_csv(one).decode(), newline="")))
    expected = [["" if v is None else str(v) for v in row] for row in utterance_rows(one)]
    assert rows == [list(UTTERANCE_COLUMNS), *expected]


@pytest.mark.parametrize("one", TIMELINES, ids=["talk", "odd", "nothing"])
def test_the_subtitles_read_equal(one: Timeline) -> None:
    pysubs2 = pytest.importorskip("pysubs2")
    cues = pysubs2.SSAFile.from_string(as_vtt(one).decode(), format_="vtt")
    found = [(cue.start, cue.end, _unescaped(cue.plaintext)) for cue in cues]
    assert found == [
        (round(u.start * 1000), round(u.end * 1000), f"[{score_text(u)}] {u.text}")
        for u in one.utterances
    ]


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


@pytest.mark.parametrize("one", TIMELINES, ids=["talk", "odd", "nothing"])
def test_the_spreadsheet_reads_equal(one: Timeline, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    (tmp_path / "t.xlsx").write_bytes(as_xlsx(one))
    book = openpyxl.load_workbook(tmp_path / "t.xlsx")
    assert book.sheetnames == list(sheets_of(one))
    for name, (columns, rows) in sheets_of(one).items():
        found = [[cell.value for cell in row] for row in book[name].iter_rows()]
        expected = [list(columns), *([None if v == "" else v for v in row] for row in rows)]
        assert found == expected, name
    kinds = {cell.data_type for row in book["utterances"].iter_rows() for cell in row}
    assert "f" not in kinds


@pytest.mark.parametrize("one", TIMELINES, ids=["talk", "odd", "nothing"])
def test_elan_reads_equal(one: Timeline, tmp_path: Path) -> None:
    pympi = pytest.importorskip("pympi")
    (tmp_path / "t.eaf").write_bytes(as_eaf(one))
    document = pympi.Eaf(str(tmp_path / "t.eaf"))
    assert list(document.get_tier_names()) == list(tiers_of(one))
    for name, marks in tiers_of(one).items():
        found = [row[:3] for row in document.get_annotation_data_for_tier(name)]
        assert sorted(found) == marks, name
    assert document.get_linked_files()[0]["RELATIVE_MEDIA_URL"] == "../talk.wav"


@pytest.mark.parametrize("one", TIMELINES, ids=["talk", "odd", "nothing"])
def test_praat_reads_equal(one: Timeline, tmp_path: Path) -> None:
    textgrid = pytest.importorskip("praatio.textgrid")
    path = tmp_path / "t.TextGrid"
    path.write_bytes(as_textgrid(one))
    with warnings.catch_warnings():
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False)
    expected = {name: found for name, found in tiers_of(one).items() if found}
    assert set(grid.tierNames) - {"utterance"} == set(expected) - {"utterance"}
    for name, marks in expected.items():
        found = [
            (round(e.start * 1000), round(e.end * 1000), e.label)
            for e in grid.getTier(name).entries
        ]
        assert found == marks, name


def test_annotations_are_apart_and_have_a_length() -> None:
    for found in tiers_of(odd()).values():
        assert all(start < end for start, end, _ in found)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(found))


def test_what_no_format_can_hold_is_replaced() -> None:
    one = timeline([utterance(0.0, 2.0, 1.0, text="a\x00b\x1bc")], duration=3.0)
    assert tiers_of(one)["utterance"][0][2] == "a\ufffdb\ufffdc"
    for export in EXPORTS:
        assert export.make(one)


def test_a_format_without_its_library_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tecafn.analyze.exports.importlib.util.find_spec", lambda name: None)
    assert write_exports(odd(), tmp_path) == ("timeline.csv", "timeline.vtt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["timeline.csv", "timeline.vtt"]
