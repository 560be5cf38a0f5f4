"""`--out` never writes into a data store, nor into a run that is not the command's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tecafn.cli import main

pytestmark = pytest.mark.usefixtures("no_fsync")

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must fail with one line, and gives the line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        (line,) = capsys.readouterr().err.splitlines()
        assert code == 2
        return line

    return run


@pytest.fixture
def store(tiny_store: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_store, tmp_path / "store")


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("inside", ["", "runs/a"])
def test_nothing_is_written_into_the_data_store(
    refused: Refused, store: Path, tiny_toml: Path, tiny_run: Path, tmp_path: Path, inside: str
) -> None:
    label = tmp_path / "label.csv"
    label.write_text("video_id,clip_id,text,label,mode\nv,0,good,1,train\n")
    before = files(store)
    out = store / inside
    sizes = ("--train", 3, "--valid", 3, "--test", 3)
    for command in (
        ("train", tiny_toml, "--data", store, "--device", "cpu"),
        ("train", tiny_toml, "--data", store, "--device", "cpu", "--resume"),
        ("train", tiny_toml, "--data", store, "--device", "cpu", "--cross-validate", "video"),
        ("compare", "--data", store, "--configs", tiny_toml.parent),
        ("data", "import", label),
        ("data", "make", *sizes),
        ("demo",),
    ):
        line = refused(*command, "--out", out)
        assert str(store) in line
        assert "data store" in line
    line = refused("predict", tiny_run, "--data", store, "--out", store / inside / "p.csv")
    assert "lies inside the data store" in line
    assert files(store) == before


def test_nothing_is_written_into_another_run(
    refused: Refused, run: Path, tiny_store: Path, tiny_toml: Path, tmp_path: Path
) -> None:
    label = tmp_path / "label.csv"
    label.write_text("video_id,clip_id,text,label,mode\nv,0,good,1,train\n")
    before = files(run)
    sizes = ("--train", 3, "--valid", 3, "--test", 3)
    for command in (
        ("train", tiny_toml, "--data", tiny_store, "--device", "cpu"),
        ("train", tiny_toml, "--data", tiny_store, "--device", "cpu", "--cross-validate", "video"),
        ("compare", "--data", tiny_store, "--configs", tiny_toml.parent),
        ("data", "import", label),
        ("data", "make", *sizes),
        ("demo",),
    ):
        line = refused(*command, "--out", run / "again")
        assert f"lies inside the run {run}" in line
    for command in (
        ("compare", "--data", tiny_store, "--configs", tiny_toml.parent),
        ("data", "import", label),
        ("data", "make", *sizes),
    ):
        assert f"is the run {run}" in refused(*command, "--out", run)
    for own in ("record.json", "predictions/valid.csv", "predictions/new.csv", "model/x.csv"):
        line = refused("predict", run, "--data", tiny_store, "--out", run / own)
        assert f"is a file of the run {run}" in line
    assert files(run) == before


def test_a_link_is_followed_and_a_folder_beside_is_free(
    refused: Refused, store: Path, tiny_toml: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(store)
    command = ("train", tiny_toml, "--data", store, "--device", "cpu")
    assert "data store" in refused(*command, "--out", tmp_path / "link" / "run")
    free = ("--out", tmp_path / "store-runs", "--set", "training.max_epochs=1", "--quiet")
    assert main([str(part) for part in (*command, *free)]) == 0


def test_predictions_may_lie_beside_what_the_run_wrote(
    run: Path, tiny_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("predict", run, "--data", tiny_store, "--device", "cpu", "--out", run / "mine.csv")
    assert main([str(part) for part in command]) == 0
    assert main([str(part) for part in command]) == 0  # and be written anew
