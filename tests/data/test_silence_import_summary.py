"""A9: an import ends with a table, then the decisions taken, and the warnings last."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.cli import main
from tecafn.data import Store
from tecafn.data.summary import render_summary

AUDIO_LENGTHS = {"train": [3, 5, 10, 4], "valid": [2, 2], "test": [7, 0]}
LABELS = {"train": [-2.0, 1.0, 2.5, -1.0], "valid": [0.5, 1.5], "test": [3.0, -3.0]}


@pytest.fixture
def imported(dump: Callable[..., Path], tmp_path: Path, capsys: Any) -> tuple[Path, list[str]]:
    """A store, and the lines that its import printed."""
    data = {}
    for split, lengths in AUDIO_LENGTHS.items():
        audio = np.zeros((len(lengths), 12, 5), np.float32)
        for row, length in enumerate(lengths):
            audio[row, 12 - length :] = 1
        data[split] = {
            "id": [f"{split}v{row // 2}$_${row % 2 + 1}" for row in range(len(lengths))],
            "raw_text": ["quite fine indeed", "fine", "well well", "so so so"][: len(lengths)],
            "audio": audio,
            "vision": np.ones((len(lengths), 3, 20), np.float32),
            "audio_lengths": lengths,
            "regression_labels": np.array(LABELS[split]),
        }
    out = tmp_path / "store"
    arguments = ["data", "import", dump(data, "mosi_own.pkl"), "--out", out]
    assert main([str(argument) for argument in arguments]) == 0
    return out, capsys.readouterr().out.splitlines()


def _cells(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines]


def test_the_table_has_samples_frames_lengths_and_widths(
    imported: tuple[Path, list[str]],
) -> None:
    cells = _cells(imported[1])
    start = cells.index(
        ["split", "modality", "samples", "with", "frames", "median", "longest", "width"]
    )
    assert cells[start + 1 : start + 10] == [
        ["train", "sentences", "4", "4", "2.5", "3", "words"],
        ["audio", "4", "4", "4.5", "10", "5"],
        ["vision", "4", "4", "3", "3", "20"],
        ["valid", "sentences", "2", "2", "2", "3", "words"],
        ["audio", "2", "2", "2", "2", "5"],
        ["vision", "2", "2", "3", "3", "20"],
        ["test", "sentences", "2", "2", "2", "3", "words"],
        ["audio", "2", "1", "7", "7", "5"],
        ["vision", "2", "2", "3", "3", "20"],
    ]


def test_the_table_has_label_ranges_means_and_videos(imported: tuple[Path, list[str]]) -> None:
    cells = _cells(imported[1])
    start = cells.index(
        ["split", "samples", "labelled", "lowest", "label", "highest", "mean", "videos"]
    )
    assert cells[start + 1 : start + 4] == [
        ["train", "4", "4", "-2", "2.5", "0.125", "2"],
        ["valid", "2", "2", "0.5", "1.5", "1", "1"],
        ["test", "2", "2", "-3", "3", "0", "1"],
    ]


def test_decisions_come_after_the_tables_and_warnings_last(
    imported: tuple[Path, list[str]],
) -> None:
    lines = imported[1]
    decisions, warnings = lines.index("decisions"), lines.index("warnings")
    assert decisions < warnings
    said = " ".join(" ".join(lines[decisions:warnings]).split())
    assert "audio: padded in front, cut by audio_lengths; 33 of 96 rows are frames" in said
    assert lines[-1] == "- audio has no frame in 1 of 2 samples of test"


def test_every_line_after_the_first_fits_80_columns(imported: tuple[Path, list[str]]) -> None:
    assert max(map(len, imported[1][1:])) <= 80


def test_the_manifest_keeps_the_counts(imported: tuple[Path, list[str]]) -> None:
    manifest = json.loads((imported[0] / "manifest.json").read_text())
    train = manifest["summary"]["train"]
    assert train["labels"] == {"min": -2.0, "max": 2.5, "mean": 0.125}
    assert train["frames"]["audio"] == {
        "num_samples": 4, "median": 4.5, "longest": 10, "total": 22
    }  # fmt: skip
    assert (train["num_videos"], train["num_labelled"]) == (2, 4)


def test_a_store_of_before_loads_and_renders(imported: tuple[Path, list[str]]) -> None:
    path = imported[0] / "manifest.json"
    manifest = json.loads(path.read_text())
    for key in ("summary", "allowed", "warnings", "decisions"):
        del manifest[key]
    path.write_text(json.dumps(manifest))
    assert "split" not in render_summary(Store.open(imported[0]).manifest)


def test_unlabelled_and_textless_splits_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "label.csv"
    table.write_text("video_id,clip_id,text,label,mode\na,1,,1,train\na,2,fine,,test\n")
    assert main(["data", "import", str(table), "--out", str(tmp_path / "s")]) == 0
    cells = _cells(capsys.readouterr().out.splitlines())
    assert ["train", "sentences", "1", "0", "0", "0", "words"] in cells
    assert ["test", "1", "0", "-", "-", "-", "1"] in cells
    assert ["valid", "0", "0", "-", "-", "-", "0"] in cells
