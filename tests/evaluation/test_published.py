"""The published numbers are those of the sources, and stand only beside the paper's own data."""

from __future__ import annotations

import pytest

from tecafn.core.conventions import METRIC_INFO
from tecafn.evaluation.published import SOURCES, comparable_table, published_tables

MOSI = {"train": 1284, "valid": 229, "test": 686}


def test_the_papers_own_row_is_as_printed() -> None:
    rows = {row.method: row for row in published_tables()["cmu-mosi"].rows}
    cells = rows["TeCaFN"].cells
    assert {name: cell.printed for name, cell in cells.items()} == {
        "mae": "0.684",
        "corr": "0.800",
        "acc7": "47.81",
        "acc2_nonneg": "84.99",
        "acc2_pos": "86.89",
        "f1_nonneg": "84.88",
        "f1_pos": "86.84",
    }
    assert all(cell.sources == ("P",) for cell in cells.values())


@pytest.mark.parametrize("dataset", ["cmu-mosi", "cmu-mosei"])
def test_tables_have_the_papers_sixteen_methods_with_known_metrics_and_sources(
    dataset: str,
) -> None:
    table = published_tables()[dataset]
    assert len({row.method for row in table.rows}) == len(table.rows) == 16
    for row in table.rows:
        assert bool(row.cells) != bool(row.note), row.method
        assert set(row.cells) <= set(METRIC_INFO)
        for cell in row.cells.values():
            assert set(cell.sources) <= set(SOURCES)
            assert 0 < float(cell.printed) < 100


def test_numbers_from_memory_are_marked_unverified() -> None:
    unverified = {
        (dataset, row.method)
        for dataset, table in published_tables().items()
        for row in table.rows
        if any(not cell.is_verified for cell in row.cells.values())
    }
    assert unverified == {
        ("cmu-mosi", "BIMHA"),
        ("cmu-mosi", "CRNet"),
        ("cmu-mosi", "TMBL"),
        ("cmu-mosei", "BIMHA"),
        ("cmu-mosei", "TMBL"),
    }


def test_a_cell_keeps_all_of_its_sources() -> None:
    rows = {row.method: row for row in published_tables()["cmu-mosi"].rows}
    assert rows["TFN"].cells["mae"].sources == ("T", "P")
    assert rows["TFN"].cells["corr"].sources == ("T",)


@pytest.mark.parametrize("name", ["cmu-mosi", "CMU_MOSI", "mosi", "MOSI"])
def test_the_papers_data_set_is_known_by_its_usual_names(name: str) -> None:
    table = comparable_table(name, "test", MOSI, convention="mosi")
    assert table is not None
    assert table.dataset == "cmu-mosi"


@pytest.mark.parametrize(
    ("dataset", "split", "sizes"),
    [
        ("cmu-mosi", "valid", MOSI),
        ("cmu-mosi", "test", {**MOSI, "test": 685}),
        ("cmu-mosi", "test", {"test": 686}),
        ("synthetic", "test", MOSI),
        ("cmu-mosei", "test", MOSI),
    ],
)
def test_other_data_has_no_published_table(dataset: str, split: str, sizes: dict[str, int]) -> None:
    assert comparable_table(dataset, split, sizes, convention="mosi") is None
