"""The paper's tables on the synthetic corpus: all are made by one command, and kept cells fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tecafn.experiments.rows import read_table

ROOT = Path(__file__).resolve().parents[2]
CELLS = ROOT / "benchmarks" / "cells"
# Of data that are checked and not trained on, of every method, and of our own questions.
MADE_OTHERWISE = {"table3", "table4", "fusion", "revised", "revised-compared"}
NO_TABLES = {"budgets", "search"}


def test_one_command_makes_all_tables_of_the_paper(
    load_benchmark: Callable[[str], ModuleType],
) -> None:
    common, kept = load_benchmark("common"), load_benchmark("kept")
    files = {path.stem for path in (ROOT / "papers" / "tecafn").glob("*.toml")} - NO_TABLES
    assert set(common.PAPER_TABLES) == files - MADE_OTHERWISE
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = (one for one in makefile.splitlines() if "benchmarks/paper_tables.py" in one)
    assert set(line.partition("paper_tables.py ")[2].split()) == set(common.PAPER_TABLES)
    folders = {one.folder for one in kept.KEPT}
    assert {f"paper/{name}/synthetic-mosi" for name in common.PAPER_TABLES} <= folders


def test_the_kept_cells_of_a_table_are_of_its_rows(
    load_benchmark: Callable[[str], ModuleType],
) -> None:
    for table in load_benchmark("common").PAPER_TABLES:
        folder = CELLS / load_benchmark("kept").paper_folder(table)
        if not folder.is_dir():
            continue
        rows = {row.folder for row in read_table(ROOT / "papers/tecafn" / f"{table}.toml").rows}
        assert {path.name for path in folder.iterdir()} == rows
        for path in folder.glob("*/seed-*.json"):
            record = json.loads(path.read_text(encoding="utf-8"))["record"]
            assert record["data"]["dataset"] == "synthetic-mosi"
            assert record["evaluations"]["test"]["chosen_on"] == "valid"


@pytest.mark.slow
def test_a_table_is_made_with_the_quick_budget(
    load_benchmark: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    paper_tables = load_benchmark("paper_tables")
    monkeypatch.setattr(paper_tables, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["paper_tables.py", "figure3", "--smoke"])
    paper_tables.main()
    page = capsys.readouterr().out
    assert all(f"| {row} |" in page for row in ("TeCaFN", "AeCaFN", "VeCaFN"))
    assert "quick budget" in page
