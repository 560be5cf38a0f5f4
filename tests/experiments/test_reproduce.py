"""A paper's tables: budgets, published numbers, charts, loss tracing and cases, and the command."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cells_here import in_this_process

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.data.store import Store
from tecafn.evaluation.hard_pairs import find_hard_pairs
from tecafn.experiments.extras import draw_cases, published_rows, trace, trace_losses
from tecafn.experiments.reproduce import check_splits, folder_of, read_budget
from tecafn.experiments.shipped import list_tables
from tecafn.experiments.summary import SeedPredictions
from tecafn.records.events import read_events
from tecafn.report.comparison import render_markdown, render_page

MakeStore = Callable[..., Path]
TABLES = ["figure3", "figure4", "table3", "table4", "table5", "table6", "table7", "table8"]


OURS = ["fusion", "revised", "revised-compared"]


def test_the_papers_tables_and_ours_ship() -> None:
    assert list_tables() == [f"tecafn/{name}" for name in sorted(TABLES + OURS)]


def test_budgets_are_data_and_a_table_may_have_its_own(tmp_path: Path) -> None:
    assert read_budget(Path("table5"), "paper").seeds == 5
    assert "training.max_epochs=2" in read_budget(Path("table5"), "quick").overrides
    path = tmp_path / "t.toml"
    path.write_text("[budgets.tiny]\nseeds = 1\nset = ['a=1']\n", encoding="utf-8")
    assert read_budget(path, "tiny").overrides == ("a=1",)
    assert read_budget(path, "paper").overrides == ()
    with pytest.raises(UserError, match="no budget 'quik': did you mean 'quick'"):
        read_budget(Path("table5"), "quik")
    path.write_text("[budgets.tiny]\nseeds = 0\n", encoding="utf-8")
    with pytest.raises(UserError, match="budget 'tiny' must have seeds"):
        read_budget(path, "tiny")


def test_a_short_budget_has_a_folder_of_its_own() -> None:
    assert folder_of(Path("table5"), Path("o"), "paper", "d") == Path("o/table5/d")
    assert folder_of(Path("table5"), Path("o"), "quick", "d") == Path("o/table5-quick/d")


# Published numbers


def summary_of(dataset: str, **data: Any) -> Any:
    sizes = {"train": 1284, "valid": 229, "test": 686}
    known = {"dataset": dataset, "splits": sizes, "task": "regression", "convention": "mosi"}
    return {"split": "test", "data": known | data}


ASKED = {"cmu-mosi": {"a": {"mae": ["0.684", "P"]}, "b": {"mae": ["0.9", "m"]}}}


def test_published_numbers_stand_beside_their_own_dataset_and_keep_their_source() -> None:
    found = published_rows(ASKED, summary_of("cmu-mosi"))
    assert found is not None
    assert found["is_comparable"]
    assert found["rows"]["a"]["mae"]["printed"] == "0.684"
    assert found["rows"]["a"]["mae"]["is_verified"]
    assert not found["rows"]["b"]["mae"]["is_verified"]
    for changed in (
        summary_of("cmu-mosi", splits={"train": 5, "valid": 5, "test": 5}),
        summary_of("synthetic-mosi"),
    ):
        other = published_rows(ASKED, changed)
        assert other is not None
        assert not other["is_comparable"]
    assert published_rows(ASKED, summary_of("ch-sims")) is None
    of_methods = published_rows("methods", summary_of("cmu-mosi"))
    assert of_methods is not None
    assert of_methods["rows"]["TFN"]["mae"]["printed"] == "0.901"
    assert of_methods["rows"]["HCIL"] == {}
    with pytest.raises(UserError, match="published must be"):
        published_rows({"cmu-mosi": {"a": {"mae": 0.684}}}, summary_of("cmu-mosi"))
    with pytest.raises(UserError, match="published must be"):
        published_rows({"cmu-mosi": {"a": {"mae": ["0.684", "Z"]}}}, summary_of("cmu-mosi"))


# Splits


def test_sizes_of_splits_are_compared_with_those_of_the_paper(
    make_store: MakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path / "store", sizes={"train": 6, "valid": 4, "test": 4})
    dataset = Store.open(store).description.dataset
    table = tmp_path / "sizes.toml"
    for size, code, words in ((6, 0, "are those"), (7, 1, "train has 6 samples, stated are 7")):
        sizes = f"{{ train = {size}, valid = 4, test = 4 }}"
        table.write_text(f'kind = "splits"\n[expected]\n{dataset} = {sizes}\n', encoding="utf-8")
        out = tmp_path / "out"
        assert main(["reproduce", str(table), "--data", str(store), "--out", str(out)]) == code
        assert words in capsys.readouterr().out
        folder = out / "sizes" / dataset
        assert words in (folder / "splits.md").read_text(encoding="utf-8")
        rows = list(
            csv.DictReader(io.StringIO((folder / "splits.csv").read_text(encoding="utf-8")))
        )
        assert [row["samples"] for row in rows] == ["6", "4", "4"]
        assert {path.suffix for path in folder.iterdir()} == {".md", ".csv", ".tex", ".html"}
    _, found = check_splits(Path("table3"), data=store, out=tmp_path / "out")
    assert [size.expected for size in found] == [None] * 3


@pytest.mark.parametrize(
    "given",
    [
        ("--seeds", "3"),
        ("--processes", "2"),
        ("--budget", "nonsense"),
        ("--set", "foo=1"),
        ("--threads", "2"),
        ("--device", "banana"),
        ("--tables-only",),
    ],
)
def test_a_table_of_sizes_refuses_what_is_of_trainings(
    given: tuple[str, ...],
    tiny_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["reproduce", "table3", "--data", str(tiny_store), "--out", str(tmp_path / "out")]
    assert main([*command, *given]) == 2
    assert capsys.readouterr().err == (
        f"error: {given[0]}: table3 counts samples and trains nothing; leave it out\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("table", ["table3", "table4"])
def test_one_dataset_twice_is_refused_before_the_work(
    table: str,
    tiny_store: Path,
    make_store: MakeStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = make_store(tmp_path / "other", seed=1)
    data = ["--data", str(tiny_store), "--data", str(other)]
    assert main(["reproduce", table, *data, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tiny_store} and {other} are both of tiny" in line
    assert not (tmp_path / "out").exists()


# Losses


def test_a_loss_is_averaged_over_windows_by_its_name() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=50)
    steps: Any = [
        {"step": k + 1, "phase": "main", "losses": {"ta": float(v)}, "total": None}
        for k, v in enumerate(values)
    ]
    found = trace(steps, window=15)
    assert list(found) == [("main", "ta")]
    ends, means = found["main", "ta"]
    assert ends == [15, 30, 45, 50]
    slow = [sum(values[a:b]) / (b - a) for a, b in ((0, 15), (15, 30), (30, 45), (45, 50))]
    assert means == pytest.approx(slow)


# Cases


def test_cases_are_drawn_and_not_chosen() -> None:
    random = np.random.default_rng(0)
    labels = random.uniform(-3, 3, 200).round(1)
    videos = np.array([f"v{k // 10}" for k in range(200)])

    def runs(noise: float) -> SeedPredictions:
        return SeedPredictions(
            seeds=(0, 1),
            records=(),
            predictions=labels + noise * np.random.default_rng(1).normal(size=(2, 200)),
            labels=labels,
            videos=videos,
            pair_ids=("",) * 200,
            ids=tuple(f"i{k}" for k in range(200)),
            texts=tuple(f"text {k}" for k in range(200)),
        )

    found = draw_cases({"good": runs(0.1), "bad": runs(2.0)}, (-3, 3))
    swapped = draw_cases({"bad": runs(2.0), "good": runs(0.1)}, (-3, 3))
    pairs = {tuple(pair) for pair in find_hard_pairs(labels, videos.tolist(), max_gap=0.4).tolist()}
    assert found["num_pairs"] == len(pairs)
    assert [(case["low"], case["high"]) for case in found["cases"]] == [
        (-3, -1.5), (-1.5, 0), (0, 1.5), (1.5, 3)
    ]  # fmt: skip
    for case, other in zip(found["cases"], swapped["cases"], strict=True):
        # Whoever predicts, the same clips are shown.
        assert [clip["id"] for clip in case["clips"]] == [clip["id"] for clip in other["clips"]]
        one, two = (int(clip["id"][1:]) for clip in case["clips"])
        assert (one, two) in pairs
        assert case["low"] <= (labels[one] + labels[two]) / 2 <= case["high"]
        assert set(case["clips"][0]["predictions"]) == {"good", "bad"}


# The command


@pytest.fixture(scope="module")
def reproduced(
    tmp_path_factory: pytest.TempPathFactory, tiny_store: Path, tiny_toml: Path
) -> tuple[Path, list[str]]:
    """The folder of a table of two rows with a chart, published numbers and cases."""
    folder = tmp_path_factory.mktemp("reproduced")
    dataset = Store.open(tiny_store).description.dataset
    (folder / "mine.toml").write_text(
        f'''
kind = "cases"
title = "Mine"
chart = {{ axis = "p" }}
config = "{tiny_toml}"
split = "valid"
sort = "rows"
against = "one"
seeds = 2
set = ["training.max_epochs=1"]
[rows.one]
set = ["model.swap_probability=0.1"]
x = 0.1
[rows.two]
set = ["model.swap_probability=0.5"]
x = 0.5
[published.{dataset}]
one = {{ mae = ["0.684", "P"], acc7 = ["40.1", "m"] }}
''',
        encoding="utf-8",
    )
    arguments = ["reproduce", str(folder / "mine.toml"), "--data", str(tiny_store)]
    arguments += ["--out", str(folder / "out"), "--device", "cpu", "--quiet"]
    # That cells are processes of their own, tests of comparisons hold.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("tecafn.experiments.compare.CellRunner.run", in_this_process)
        assert main([*arguments, "--processes", "2"]) == 0
    return folder / "out" / "mine" / dataset, arguments


def test_the_pages_of_a_table_show_all_that_it_asks_for(
    reproduced: tuple[Path, list[str]],
) -> None:
    folder, _ = reproduced
    summary = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert [row["x"] for row in summary["methods"]] == [0.1, 0.5]
    assert summary["cases"]["num_pairs"] >= len(summary["cases"]["cases"])
    page = (folder / "comparison.md").read_text(encoding="utf-8")
    assert page.startswith("# Mine\n")
    assert "Beside the published numbers" in page
    assert "0.684" in page
    assert "40.1 ?" in page
    assert "they are not comparable" in page
    assert "Smallest detectable effect" in page
    html = (folder / "comparison.html").read_text(encoding="utf-8")
    assert html.count("<svg") > 2
    assert not re.search(r'(src|href)="(?!#)', html)
    (one, two) = csv.DictReader(
        io.StringIO((folder / "comparison.csv").read_text(encoding="utf-8"))
    )
    assert (one["published_mae"], two["published_mae"]) == ("0.684", "")
    assert "from memory" in one["published_acc7_source"]
    tex = (folder / "comparison.tex").read_text(encoding="utf-8")
    assert tex.count("\\begin{tabular}") == tex.count("\\end{tabular}") >= 2


def test_loss_tracing_is_what_the_events_say(reproduced: tuple[Path, list[str]]) -> None:
    folder, _ = reproduced
    cells = [
        SimpleNamespace(run=folder / "one" / f"seed-{seed}", is_finished=lambda: True)
        for seed in (0, 1)
    ]
    entry: Any = SimpleNamespace(name="one", cells=cells)
    losses = trace_losses([entry], window=2)
    assert {"task", "ta", "tv", "bicon", "tap", "tvp", "total"} <= {
        one["name"] for one in losses["series"]
    }
    first = next(one for one in losses["series"] if one["name"] == "task")
    expected = []
    for cell in cells:
        events = read_events(cell.run)
        assert events is not None
        values = [float(step["losses"]["task"] or 0) for step in events.steps]
        expected.append(np.mean(values[:2]))
    assert first["means"][0] == pytest.approx(np.mean(expected))
    assert first["stds"] is not None
    assert first["stds"][0] == pytest.approx(np.std(expected, ddof=1))
    summary = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    page = render_page(summary | {"losses": losses})
    assert "Losses over training" in page
    assert "first window" in render_markdown(summary | {"losses": losses})


def test_what_is_finished_is_not_trained_again(
    reproduced: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, arguments = reproduced
    records = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/record.json")}
    assert len(records) == 4
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in records} == records
    capsys.readouterr()
    assert main([*arguments, "--budget", "quick"]) == 2
    assert "no budget 'quick'" in capsys.readouterr().err
