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


@pytest.fixture
def comparison(run: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "comparison"
    shutil.copytree(run, folder / "row" / "seed-0")
    for kind in ("json", "md", "csv", "tex", "html"):
        (folder / f"comparison.{kind}").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def searched(run: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "search"
    shutil.copytree(run, folder / "trials" / "a" / "seed-0")
    for name in ("study.db", "best.toml", "trials.csv"):
        (folder / name).write_text("", encoding="utf-8")
    return folder


def test_predictions_results_and_tables_overwrite_no_record(
    refused: Refused, run: Path, store: Path, comparison: Path, searched: Path
) -> None:
    before = [files(place) for place in (run, store, comparison, searched)]
    own = (
        (run, "record.json"),
        (run, "model"),
        (comparison, "comparison.json"),
        (comparison, "comparison.html"),
        (comparison, "row/seed-0/record.json"),
        (searched, "study.db"),
        (searched, "trials/a/seed-0/record.json"),
        (store, "manifest.json"),
    )
    for place, name in own:
        for command in (
            ("predict", run, "--data", store, "--out"),
            ("leaderboard", "no-registry", "--markdown"),
            ("push", run, "a/b", "--dry-run"),
            ("export", run, "--out"),
        ):
            line = refused(*command, place / name)
            assert "is a file of the" in line or "inside the data store" in line
    for out, words in (
        (run / "config.toml", "is a file of the run"),
        (run / "predictions.toml", "is a file of the run"),  # in whose folder the tables would lie
        (searched / "best.toml", "is a file of the search"),
        (store.with_suffix(".toml"), "inside the data store"),
    ):
        assert words in refused("submit", run, "--data", store, "--out", out)
    assert [files(place) for place in (run, store, comparison, searched)] == before


def test_comparisons_and_searches_lie_in_no_other(
    refused: Refused, comparison: Path, searched: Path, store: Path, tiny_toml: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space.toml"
    space.write_text("[space]\n'training.batch_size' = [4]\n", encoding="utf-8")
    compare = ("compare", "--data", store, "--configs", tiny_toml.parent)
    tune = ("tune", tiny_toml, "--space", space, "--data", store)
    for command, out, how in (
        (compare, searched, f"is the search {searched}"),
        (compare, searched / "new", f"lies inside the search {searched}"),
        (compare, comparison / "row", f"lies inside the comparison {comparison}"),
        (tune, comparison, f"is the comparison {comparison}"),
        (tune, comparison / "row", f"lies inside the comparison {comparison}"),
        (("train", tiny_toml, "--data", store), searched, f"is the search {searched}"),
    ):
        assert how in refused(*command, "--out", out)


def test_what_cannot_be_written_is_said_before_the_work(
    refused: Refused, run: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("evaluate", "explain", "export"):
        monkeypatch.setattr(f"tecafn.experiments.{name}.open_run", None)
    monkeypatch.setattr("tecafn.experiments.export.load", None)
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    for command in (
        ("predict", run, "--data", store),
        ("explain", run, "--data", store),
        ("export", run),
    ):
        line = refused(*command, "--out", file / "x")
        assert line == f"error: cannot write --out {file / 'x'}: {file} is a file"
