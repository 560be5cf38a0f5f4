"""A resume that finds no checkpoint says so; epochs are counted from 1 wherever they are shown."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tecafn.cli import main
from tecafn.records.record import read_record

pytestmark = pytest.mark.usefixtures("no_fsync")


def _train(toml: Path, store: Path, out: Path, *more: object) -> int:
    command = ("train", toml, "--data", store, "--out", out, "--device", "cpu", "--quiet", *more)
    return main([str(part) for part in command])


def test_resume_without_a_checkpoint_says_so_before_it_begins_anew(
    tiny_toml: Path,
    tiny_store: Path,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = shutil.copytree(tiny_run, tmp_path / "run")
    (out / "record.json").unlink()  # as if it had been killed
    shutil.rmtree(out / "checkpoints")
    assert _train(tiny_toml, tiny_store, out, "--resume") == 0
    lines = capsys.readouterr().err.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("epoch 1/"))
    said = [line for line in lines[:first] if "nothing to resume" in line]
    assert said == [
        f"warning: nothing to resume: no checkpoint is left in {out / 'checkpoints'}; "
        "training begins anew"
    ]
    theirs = [(run / "predictions" / "valid.csv").read_bytes() for run in (out, tiny_run)]
    assert theirs[0] == theirs[1]


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_a_new_run_has_nothing_to_say_about_it(
    tiny_toml: Path,
    tiny_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    resume: tuple[str, ...],
) -> None:
    short = ("--set", "training.max_epochs=1")
    assert _train(tiny_toml, tiny_store, tmp_path / "run", *short, *resume) == 0
    assert "nothing to resume" not in capsys.readouterr().err


def test_epochs_are_counted_alike_in_console_and_page(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert _train(tiny_toml, tiny_store, out, "--set", "training.max_epochs=3") == 0
    console = [line for line in capsys.readouterr().err.splitlines() if "best so far" in line]
    best = int(re.findall(r"epoch (\d)/3", console[-1])[0])
    assert read_record(out)["training"]["best_epoch"] == best - 1  # records count from 0
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == [0, 1, 2]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"Epoch {best} of 3 was chosen on the valid split" in page
    assert f"Epoch {best} was chosen, at" in page
    assert f"chosen: epoch {best}" in page
    assert "counted from 0" not in page
    assert "(from 0)" not in page
