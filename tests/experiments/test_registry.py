"""The registry of results: figures come from predictions, and so do the warnings about them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.paired import compare_runs
from tecafn.experiments.registry import labels_of, submit
from tecafn.records.evaluation_log import EVALUATIONS_FILE
from tecafn.records.record import read_record, write_record
from tecafn.records.results import read_result
from tecafn.report.leaderboard import read_leaderboards, render_markdown

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture(scope="module")
def run(tiny_run: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = shutil.copytree(tiny_run, tmp_path_factory.mktemp("registry") / "run")
    evaluate_run(copy, data=tiny_store, split="test", device="cpu")
    return copy


@pytest.fixture
def registry(run: Path, tiny_store: Path, tmp_path: Path) -> Path:
    submit([run], data=tiny_store, out=tmp_path / "results" / "ours.toml")
    return tmp_path / "results"


def test_the_table_has_the_figures_of_the_evaluation(run: Path, registry: Path) -> None:
    (board,) = read_leaderboards(registry)
    (row,) = board.rows
    expected = read_record(run)["evaluations"]["test"]["metrics"]
    for name, (value,) in row.metrics.items():
        assert value == pytest.approx(expected[name], abs=1e-6)
    assert set(row.metrics) == {name for name, value in expected.items() if value is not None}
    assert row.flags == ()
    assert f"| tecafn | tecafn | 1 | {expected['mae']:.3f} |" in render_markdown([board])


def test_no_torch_is_needed(registry: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from tecafn.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "leaderboard", str(registry)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "tiny, test" in done.stdout


def test_a_row_that_saw_what_it_is_measured_on_is_flagged_and_stands_last(
    run: Path,
    registry: Path,
    tiny_store: Path,
    make_store: Callable[..., Path],
    tmp_path: Path,
) -> None:
    # The same videos under other labels and another hash: no declaration gives it away.
    submit([run], data=tiny_store, out=registry / "valid.toml", split="valid")
    (flags,) = [
        row.flags for board in read_leaderboards(registry) if board.split == "valid"
        for row in board.rows
    ]  # fmt: skip
    assert flags == (
        "has seen 2 of the 2 evaluated videos",
        "its epoch was chosen on this valid split",
    )
    other = make_store(tmp_path / "other", sizes={"train": 20, "valid": 8, "test": 12}, seed=3)
    leaky = shutil.copytree(run, tmp_path / "leaky")
    evaluate_run(leaky, data=other, split="train", device="cpu")
    result = submit(
        [leaky], data=other, trained_on=tiny_store, split="train", out=tmp_path / "leaky.toml"
    )
    assert result.flags() == ["has seen 5 of the 5 evaluated videos"]


def test_a_flagged_row_stands_below_a_worse_one(registry: Path) -> None:
    cheat = registry / "cheat.toml"
    shutil.copytree(registry / "ours", registry / "cheat")
    text = (registry / "ours.toml").read_text().replace("ours/", "cheat/").replace(
        'name = "tecafn"', 'name = "cheat"'
    )  # fmt: skip
    # Better predictions, and the videos they are of among those that were seen.
    from tecafn.records.record import file_hash
    from tecafn.records.results import video_key

    predictions = registry / "cheat" / "seed-0.csv"
    before = file_hash(predictions), file_hash(registry / "cheat" / "videos.txt")
    head, *rows = predictions.read_text().splitlines()
    cells = [row.split(",") for row in rows]
    predictions.write_text(
        "\n".join([head, *(",".join([*c[:4], c[3], *c[5:]]) for c in cells)]) + "\n"
    )
    videos = registry / "cheat" / "videos.txt"
    videos.write_text(f"{video_key(cells[0][1])}\n")
    for old, path in zip(before, (predictions, videos), strict=True):
        text = text.replace(old, file_hash(path))
    cheat.write_text(text)
    (board,) = read_leaderboards(registry)
    assert [row.result.name for row in board.rows] == ["tecafn", "cheat"]
    assert board.rows[1].main == 0
    assert board.rows[1].flags == ("has seen 1 of the 3 evaluated videos",)


@pytest.mark.parametrize("file", ["ours/seed-0.csv", "ours/videos.txt"])
def test_a_changed_file_is_refused(registry: Path, file: str) -> None:
    with (registry / file).open("a") as opened:
        opened.write("\n")
    with pytest.raises(UserError, match=r"is not the file that .*ours\.toml names"):
        read_leaderboards(registry)


def test_a_file_outside_the_registry_is_not_read(registry: Path) -> None:
    path = registry / "ours.toml"
    path.write_text(path.read_text().replace("ours/videos.txt", "../../videos.txt"))
    with pytest.raises(UserError, match="outside of its folder"):
        read_result(path)


def test_labels_may_be_left_out_and_come_from_the_store(
    run: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    command = ["submit", str(run), "--data", str(tiny_store), "--out", str(folder / "x.toml")]
    assert main([*command, "--without-labels"]) == 0
    (board,) = read_leaderboards(folder)
    assert (board.rows, board.missing) == ((), ("tecafn",))
    (board,) = read_leaderboards(folder, labels=labels_of([tiny_store]))
    assert len(board.rows) == 1
    page = tmp_path / "page.md"
    assert main(["leaderboard", str(folder), "--markdown", str(page)]) == 0
    assert "not measured: tecafn" in page.read_text()
    assert "name the store with --data" in capsys.readouterr().out


@pytest.mark.parametrize("has_log", [True, False])
def test_predictions_that_were_changed_are_refused(
    run: Path, tiny_store: Path, tmp_path: Path, has_log: bool
) -> None:
    cheat = shutil.copytree(run, tmp_path / "cheat")
    other = shutil.copytree(run, tmp_path / "other")
    out = tmp_path / "results" / "x.toml"
    if not has_log:  # as of version 0.1
        (cheat / EVALUATIONS_FILE).unlink()
        submit([cheat], data=tiny_store, out=tmp_path / "honest" / "x.toml")
        compare_runs(cheat, other, split="test")
        assert not (cheat / EVALUATIONS_FILE).exists()
    path = cheat / "predictions" / "test.csv"
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    cells = [row.split(",") for row in rows]
    perfect = [",".join([*c[:4], c[3], *c[5:]]) for c in cells]
    path.write_text("\n".join([head, *perfect]) + "\n", encoding="utf-8")
    told = (
        r"test\.csv was changed since" if has_log else r"test\.csv gives mae 0\.0, the record says"
    )
    with pytest.raises(UserError, match=told):
        submit([cheat], data=tiny_store, out=out)
    assert not out.exists()
    command = ["evaluate", str(cheat), "--data", str(tiny_store), "--device", "cpu"]
    assert main([*command, "--against", str(other)]) == 2
    for runs in ((cheat, other), (other, cheat)):
        with pytest.raises(UserError, match=told):
            compare_runs(*runs, split="test")


def test_what_does_not_go_together_is_refused(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.toml"
    bare = shutil.copytree(run, tmp_path / "bare")
    text = (bare / "record.json").read_text().replace('"split": "valid"', '"split": "gone"')
    (bare / "record.json").write_text(text.replace('"valid": {', '"gone": {'))
    with pytest.raises(UserError, match="is not evaluated on valid"):
        submit([bare], data=tiny_store, split="valid", out=out)
    with pytest.raises(UserError, match="different seeds, got"):
        submit([run, run], data=tiny_store, out=out)
    with pytest.raises(UserError, match="holds no results"):
        read_leaderboards(tmp_path / "nothing")


def test_what_is_refused_leaves_an_earlier_result_whole(
    run: Path, registry: Path, tiny_run: Path, tiny_store: Path, tmp_path: Path
) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in registry.rglob("*") if path.is_file()}

    before = files()
    unevaluated = shutil.copytree(tiny_run, tmp_path / "other")
    record = read_record(unevaluated)
    write_record(unevaluated, {**record, "seed": 7, "config": {**record["config"], "seed": 7}})
    with pytest.raises(UserError, match="is not evaluated on test"):
        submit([run, unevaluated], data=tiny_store, out=registry / "ours.toml", with_labels=False)
    assert files() == before
    read_leaderboards(registry)


def test_a_name_with_dots_is_kept(run: Path, tiny_store: Path, tmp_path: Path) -> None:
    for name in ("v2.1", "v2.2.toml"):
        submit([run], data=tiny_store, out=tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {
        "v2.1", "v2.1.toml", "v2.2", "v2.2.toml"
    }  # fmt: skip
    assert len(read_leaderboards(tmp_path)[0].rows) == 2
