"""The integrity report finds what is wrong and says how bad it is."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.data import IntegrityReport, ReadOptions, check, import_dataset
from tecafn.data.defects import COVAREP, PUBLISHED_SUMS, covarep_columns

Write = Callable[..., Path]
HEADER = ("video_id", "clip_id", "text", "label", "mode")
SOUND = (
    ("a", "1", "one", "1", "train"),
    ("b", "1", "two", "-3", "valid"),
    ("c", "1", "three", "", "test"),
)


def _messages(report: IntegrityReport, level: str) -> list[str]:
    return [f"{row.name}: {row.message}" for row in report.rows if row.level == level]


def test_sound_source_has_no_error_and_no_warning(write_table: Write) -> None:
    report = check(write_table(HEADER, *SOUND))
    assert report.exit_code == 0
    assert _messages(report, "error") == []
    assert _messages(report, "warning") == []
    assert "labels: test: 0 of 1 labelled" in _messages(report, "info")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", "2", "four", "1", "test"), "videos: 1 in two splits: 'a'"),
        (("a", "1", "four", "1", "test"), "ids: 1 in two splits: 'a_1'"),
        (("d", "1", "four", "nan", "train"), "labels: 1 NaN or infinite: 'd_1 (train): nan'"),
        (("d", "1", "four", "3.5", "train"), "labels: 1 outside -3 to 3: 'd_1 (train): 3.5'"),
    ],
)
def test_error_makes_exit_code_1(write_table: Write, row: tuple[str, ...], message: str) -> None:
    report = check(write_table(HEADER, *SOUND, row))
    assert message in _messages(report, "error")
    assert report.exit_code == 1
    assert report.rows[0].level == "error"


def test_empty_split_is_an_error(write_table: Write) -> None:
    report = check(write_table(HEADER, *SOUND[:2]))
    assert _messages(report, "error") == ["split: test is empty"]


def test_file_of_one_split_lacks_no_other(misa_rows: Any, dump: Write) -> None:
    assert check(dump(misa_rows, "valid.pkl")).exit_code == 0


def test_sizes_are_compared_with_table_3(write_table: Write) -> None:
    report = check(write_table(HEADER, *SOUND), options=ReadOptions(dataset="mosei"))
    assert "split: valid has 1 samples, Table 3 has 1871" in _messages(report, "warning")
    assert report.exit_code == 0


def test_repeated_text_and_ids_are_warnings(write_table: Write) -> None:
    report = check(
        write_table(
            HEADER, *SOUND, ("c", "1", "Three ", "", "test"), ("a", "5", "THREE", "", "train")
        )
    )
    warnings = _messages(report, "warning")
    assert "text: 1 texts occur more than once, 1 of them in two splits" in warnings
    assert "ids: 1 twice in a split: 'c_1'" in warnings


def test_bad_frames_are_counted_in_source_and_store_alike(
    mmsa_data: Any, dump: Write, tmp_path: Path
) -> None:
    mmsa_data["train"]["audio"][0, 0, 0] = np.nan
    mmsa_data["train"]["audio"][1, 1, 1] = -np.inf
    mmsa_data["valid"]["vision"][0] = 0
    path = dump(mmsa_data)
    store = import_dataset(path, format="mmsa", out=tmp_path / "store")
    reports = [check(path), check(store), check(tmp_path / "store")]
    for report in reports:
        assert report.rows == reports[0].rows
    bad = "audio: 1 frames with NaN and 1 with infinity: kept in place, masked when loaded"
    assert bad in _messages(reports[0], "warning")
    info = _messages(reports[0], "info")
    assert "vision: 1 empty sequences, treated as absent" in info
    assert "audio: 5 columns, lengths 2 to 3, median 2.5" in info


def test_changed_store_is_refused(mmsa_data: Any, dump: Write, tmp_path: Path) -> None:
    import_dataset(dump(mmsa_data), format="mmsa", out=tmp_path / "store")
    shard = tmp_path / "store" / "audio" / "00000.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="hash differs"):
        check(tmp_path / "store")


def test_report_renders_as_text_and_json(write_table: Write) -> None:
    report = check(write_table(HEADER, *SOUND[:2]))
    text = report.render()
    assert "error    split: test is empty" in text
    assert text.endswith("1 error, 0 warnings")
    told = json.loads(json.dumps(report.as_dict()))
    assert told["exit_code"] == 1
    assert told["rows"][0] == {"level": "error", "name": "split", "message": "test is empty"}


# Published sums and known defects


def _defects(source: Any, **options: Any) -> dict[str, str]:
    """Level of each known defect's message."""
    rows = check(source.path, format=source.format, options=ReadOptions(**options)).rows
    return {row.message: row.level for row in rows if row.name == "known defect"}


def test_published_sums_are_complete() -> None:
    assert sorted(PUBLISHED_SUMS.values()) == [
        (dataset, alignment)
        for dataset in ("cmu-mosei", "cmu-mosi")
        for alignment in ("aligned", "unaligned")
    ]
    assert {len(bytes.fromhex(digest)) for digest in PUBLISHED_SUMS} == {32}


def test_published_file_is_named_and_another_one_too(
    make_source: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = make_source("mmsa")
    digest = hashlib.sha256(source.path.read_bytes()).hexdigest()
    unknown = f"unaligned_50.pkl has SHA-256 {digest[:12]}..., none of the published sums"
    assert f"file: {unknown} of cmu-mosi" in _messages(check(source.path), "warning")
    monkeypatch.setitem(PUBLISHED_SUMS, digest, ("cmu-mosi", "unaligned"))
    shown = "file: unaligned_50.pkl is MMSA's published unaligned file of cmu-mosi (SHA-256)"
    assert shown in _messages(check(source.path), "info")
    store = import_dataset(source.path, format=None, out=tmp_path / "store")
    assert shown in _messages(check(store), "info")
    report = check(source.path, options=ReadOptions(dataset="mosei"))
    assert f"{shown}, but is read as cmu-mosei" in _messages(report, "warning")


def test_sizes_of_ch_sims_are_known(make_source: Callable[[str], Any]) -> None:
    report = check(make_source("sims").path)
    assert "split: train has 2 samples, its paper has 1368" in _messages(report, "warning")


def test_bad_covarep_frames_are_named_with_their_columns(make_source: Callable[[str], Any]) -> None:
    source = make_source("mult")
    data = pickle.loads(source.path.read_bytes())
    data["train"]["audio"][0, -1, 1] = -np.inf
    data["train"]["audio"][1, -1, [0, 1]] = np.nan, -np.inf
    source.path.write_bytes(pickle.dumps(data))
    expected = "-inf and NaN in COVAREP: 2 frames, in VUV, QOQ (2 infinite values, 1 NaN)"
    assert _defects(source)[expected] == "warning"


def test_covarep_columns_are_74() -> None:
    assert len(COVAREP) == 74
    assert (COVAREP[0], COVAREP[10], COVAREP[11], COVAREP[73]) == (
        "F0", "creak", "MCEP_0", "HMPDD_12",
    )  # fmt: skip
    assert covarep_columns(74) == COVAREP
    assert covarep_columns(73) is None


def test_zero_length_segments_are_named(make_source: Callable[[str], Any]) -> None:
    defects = _defects(make_source("csd"))
    assert defects["zero-length segments: 1 end where they start or before"] == "warning"
    assert defects["zero-length segments: 1 samples have no frame of any modality"] == "warning"


def test_capitals_and_zero_labels_are_named(write_table: Write) -> None:
    table = write_table(HEADER, ("a", "1", "GOOD", "0", "train"), ("b", "1", "BAD", "-1", "train"))
    messages = _messages(check(table), "info")
    assert any("known defect: text in capitals: 2 of 2" in message for message in messages)
    assert any("known defect: labels exactly 0: 1 of 2" in message for message in messages)


def test_duplicated_ids_are_named(write_table: Write) -> None:
    report = check(write_table(HEADER, *SOUND, SOUND[0]))
    assert "known defect: duplicated ids: 1" in _messages(report, "warning")


def test_counts_that_differ_between_mirrors_are_named(write_table: Write) -> None:
    report = check(write_table(HEADER, *SOUND), options=ReadOptions(dataset="mosei"))
    expected = "3 samples, Table 3 has 22,856; mirrors have 22,860, 22,856, 22,852"
    assert any(expected in message for message in _messages(report, "warning"))


def test_punchlines_in_two_splits_are_named(make_source: Callable[[str], Any]) -> None:
    source = make_source("ur-funny text")
    line = '{"id": 9, "split": "test", "punchline": "HA ", "label": null}\n'
    source.path.write_text(source.path.read_text() + line)
    assert _defects(source)["UR-FUNNY punchlines in two splits: 1"] == "warning"


def test_numbering_from_0_is_named(make_source: Callable[[str], Any]) -> None:
    defects = _defects(make_source("misa"))
    assert defects["numbering from 0: 2 ids video[k] are clip k + 1 of label.csv"] == "info"


def test_sound_source_has_no_known_defect(write_table: Write) -> None:
    report = check(write_table(HEADER, *SOUND))
    assert [row for row in report.rows if row.name == "known defect"] == []
