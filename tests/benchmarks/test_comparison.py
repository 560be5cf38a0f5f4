"""The tables of ``benchmarks/rows``: each row can be trained, and kept cells are of rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from tecafn.core.registry import METHODS
from tecafn.data.store import Store
from tecafn.data.synthetic import CorpusSpec
from tecafn.experiments.compare import Protocol, plan
from tecafn.experiments.run_folder import check_begun
from tecafn.experiments.summary import Entry
from tecafn.records.record import write_record

ROOT = Path(__file__).resolve().parents[2]
CELLS = ROOT / "benchmarks" / "cells"
NAMES = sorted(path.stem for path in (ROOT / "benchmarks" / "rows").glob("*.toml"))
VARIANTS = ("variants-mosi", "variants-repeated", "variants-synthetic")
# Where audio is one vector and there is no vision.
NOTHING_TO_SEE = ("token contrast", "unmasked self-attention", "unmasked audio", "misplaced masks")


@pytest.fixture
def comparison(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("comparison")


@pytest.fixture
def planned(
    comparison: ModuleType, tiny_store: Path, tmp_path: Path
) -> Callable[[str], tuple[Protocol, list[Entry]]]:
    """A table by name, planned on a few samples; nothing is trained."""

    def of(name: str) -> tuple[Protocol, list[Entry]]:
        protocol = comparison.protocol_of(name, tiny_store, tmp_path)
        return protocol, plan(protocol, Store.open(tiny_store))

    return of


Planned = Callable[[str], tuple[Protocol, Sequence[Entry]]]


def test_the_tables_are_the_ones_the_command_takes(comparison: ModuleType) -> None:
    assert comparison.table_names() == NAMES == ["mosi", "synthetic", *VARIANTS]
    datasets = [comparison.dataset_of(name) for name in NAMES]
    assert datasets == ["mosi", "synthetic", "mosi", "synthetic", "synthetic"]
    assert [comparison.page_of(name) for name in NAMES] == [
        "comparison-mosi",
        "comparison-synthetic",
        *VARIANTS,
    ]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"benchmarks/comparison.py {name}\n" in makefile
        assert (ROOT / "docs" / "results" / f"{comparison.page_of(name)}.md").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_every_row_can_be_trained_and_differs_from_the_others(name: str, planned: Planned) -> None:
    protocol, entries = planned(name)
    settings = []
    for entry in entries:
        if entry.settings is None:
            assert "needs word-aligned frames" in entry.refused, entry.name
        else:
            assert len(entry.cells) == len(protocol.seeds)
            settings.append(entry.settings.as_dict())
    assert all(one not in settings[:number] for number, one in enumerate(settings))
    assert protocol.title
    assert protocol.split == ("valid" if "mosi" in name else "test")


@pytest.mark.parametrize("name", NAMES)
def test_kept_cells_are_of_rows_and_were_begun_as_the_rows_say(
    name: str, planned: Planned, tmp_path: Path
) -> None:
    _, entries = planned(name)
    rows = {entry.row.folder: entry for entry in entries}
    folder = CELLS / f"compare-{name}"
    found = {path.name for path in folder.iterdir()}
    assert found <= set(rows)
    assert found == {entry.row.folder for entry in entries if entry.settings is not None}
    for row in found:
        for cell in rows[row].cells:
            kept = json.loads((folder / row / f"seed-{cell.seed}.json").read_text("utf-8"))
            run = tmp_path / name / row / str(cell.seed)
            run.mkdir(parents=True)
            (run / "begun.json").write_text(json.dumps(kept["begun"]), encoding="utf-8")
            write_record(run, kept["record"])
            settings = rows[row].settings
            assert settings is not None
            config = {**settings.as_dict(), "seed": cell.seed}
            check_begun(run, {"config": config, "data_hash": kept["begun"]["data_hash"]})


def test_every_folder_of_kept_cells_is_restored_by_somebody(
    load_benchmark: Callable[[str], ModuleType],
) -> None:
    known = {kept.folder.partition("/")[0] for kept in load_benchmark("kept").KEPT}
    # Those of a shipped table are kept too: docs/results/revised-compared.md.
    assert {path.name for path in CELLS.iterdir() if any(path.rglob("*.json"))} - known == {
        "revised-compared"
    }


def test_all_methods_are_compared_on_the_corpus_that_the_page_describes(planned: Planned) -> None:
    protocol, entries = planned("synthetic")
    assert {entry.row.method for entry in entries} - {None} == set(METHODS)
    spec = CorpusSpec()
    sizes = f"Train {spec.num_train}, valid {spec.num_valid}, test {spec.num_test} samples"
    assert f"{sizes} (corpus seed {spec.seed})" in protocol.notes[0]


def test_variants_change_the_papers_row(planned: Planned) -> None:
    synthetic, mosi, repeated = (
        {row.name: row.overrides for row in planned(name)[0].compared()}
        for name in ("variants-synthetic", "variants-mosi", "variants-repeated")
    )
    assert all(planned(name)[0].against == "the paper" for name in VARIANTS)
    assert synthetic["the paper"] == ()
    assert [name for name in synthetic if name not in mosi] == list(NOTHING_TO_SEE)
    assert ", ".join(NOTHING_TO_SEE) in " ".join(planned("variants-mosi")[0].notes)
    for other in (mosi, repeated):
        for name in other:
            assert other[name] == synthetic[name] or name == "text alone"
    assert planned("variants-repeated")[0].seeds == (0, 1, 2, 3, 4)


def test_a_smoke_run_is_an_epoch_with_one_seed_also_where_a_row_has_its_own(
    comparison: ModuleType, planned: Planned, tiny_store: Path
) -> None:
    short = comparison.shortened(planned("synthetic")[0])
    assert short.seeds == (0,)
    for entry in plan(short, Store.open(tiny_store)):
        if entry.settings is not None:
            assert entry.settings.training.max_epochs == 1, entry.name
