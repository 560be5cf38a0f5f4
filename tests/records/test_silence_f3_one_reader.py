"""F3: each file of a run has one reader, so what one command shows no other command refuses."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from saved import log_predictions, read_rows
from typer.testing import CliRunner

from tecafn.cli import app
from tecafn.core.errors import UserError
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.paired import compare_runs
from tecafn.records.predictions import read_predictions, write_predictions
from tecafn.records.record import read_record
from tecafn.records.run_files import read_run
from tecafn.report.html import write_report

SOURCES = Path(__file__).resolve().parents[2] / "src" / "tecafn"
LONG = "word " * 40_000  # 200,000 characters; the csv module reads 131,072


@pytest.fixture
def long_text_runs(tiny_run: Path, tiny_store: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two evaluated runs, a transcript of which is longer than the csv module's limit."""
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    evaluate_run(run, data=tiny_store, split="test", device="cpu")
    path = run / "predictions" / "test.csv"
    rows = read_rows(path)
    rows[0]["text"] = LONG
    write_predictions(path, rows)
    log_predictions(run, "test")
    return run, Path(shutil.copytree(run, tmp_path / "other"))


def test_a_long_transcript_goes_through_every_reader(long_text_runs: tuple[Path, Path]) -> None:
    run, other = long_text_runs
    before = csv.field_size_limit()
    assert read_predictions(run / "predictions" / "test.csv").texts[0] == LONG
    assert read_run(run).predictions["test"].texts[0] == LONG
    assert write_report(run).is_file()
    difference = compare_runs(run, other, split="test")["difference"]
    assert {name: found["value"] for name, found in difference.items()} == {
        "mae": 0.0,
        "acc2_pos": 0.0,
    }
    assert csv.field_size_limit() == before


def test_a_long_transcript_goes_through_evaluate_against(
    long_text_runs: tuple[Path, Path], tiny_store: Path
) -> None:
    run, other = long_text_runs
    command = ["evaluate", run, "--data", tiny_store, "--against", other, "--device", "cpu"]
    done = CliRunner().invoke(app, [str(argument) for argument in command])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_every_reader_of_a_record_checks_its_format(
    tiny_run: Path, tmp_path: Path, version: object
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    record["format_version"] = version
    (run / "record.json").write_text(json.dumps(record), encoding="utf-8")
    for read in (read_record, read_run, write_report):
        with pytest.raises(UserError, match=r"record\.json: format_version must be 1, got"):
            read(run)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"id,video,clip,label,prediction,pair_id,text\na_1,a,1,0.5,high,,fine\n", "row 1 .a_1."),
        (b"id,prediction\na_1,0.5\n", "missing video, clip, label, pair_id, text"),
        (b"", "missing id, video"),
        (b"id,video,clip,label,prediction,pair_id,text\na_1,a,1,0.5,1,,\xff\n", "UTF-8"),
    ],
)
def test_a_damaged_table_of_predictions_is_one_line_for_comparing_too(
    tiny_run: Path, tmp_path: Path, content: bytes, told: str
) -> None:
    runs = [Path(shutil.copytree(tiny_run, tmp_path / name)) for name in ("run", "other")]
    (runs[1] / "predictions" / "valid.csv").write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        compare_runs(*runs, split="valid")
    assert "\n" not in str(error.value)


def test_each_file_of_a_run_is_read_in_one_place() -> None:
    reading = {"record.json": set[str](), "DictReader": set[str]()}
    patterns = {"record.json": r'json\.loads\([^)]*record|"record\.json"\).read', "DictReader": ""}
    for path in SOURCES.rglob("*.py"):
        source, name = path.read_text(encoding="utf-8"), path.relative_to(SOURCES).as_posix()
        if name.startswith("data/"):
            continue
        if re.search(patterns["record.json"], source):
            reading["record.json"].add(name)
        if "DictReader" in source:
            reading["DictReader"].add(name)
    assert reading["record.json"] <= {"records/record.py"}
    assert reading["DictReader"] == {"records/predictions.py"}
