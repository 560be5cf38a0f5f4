"""The integrity report finds what is wrong and says how bad it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.data import IntegrityReport, ReadOptions, check, import_dataset

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
