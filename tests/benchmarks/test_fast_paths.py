"""Every fast path has a price and a test; what was measured stands between the markers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tecafn.core.fast import FAST_PATHS, is_on

ROOT = Path(__file__).resolve().parents[2]
Importing = Callable[[str], ModuleType]


def test_every_fast_path_has_a_row_whose_files_exist_and_is_measured_once(
    load_benchmark: Importing,
) -> None:
    bench = load_benchmark("fast_paths")
    assert tuple(bench.ROWS) == FAST_PATHS
    assert sorted(bench.STEPS + bench.CLIPS) == sorted(FAST_PATHS)
    for row in bench.ROWS.values():
        assert (ROOT / row.file).is_file()
        assert (ROOT / row.test).is_file()


def test_the_page_prices_every_fast_path_and_no_other(load_benchmark: Importing) -> None:
    bench = load_benchmark("fast_paths")
    page = bench.PAGE.read_text(encoding="utf-8")
    written = page[page.index(bench.BEGIN) : page.index(bench.END)]
    rows = [line.split("|") for line in written.splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in rows] == list(FAST_PATHS)
    assert all("%" in row[3] for row in rows)


def test_a_saving_is_a_share_of_the_time_without_the_path(load_benchmark: Importing) -> None:
    bench = load_benchmark("fast_paths")

    def run() -> None:
        begun = time.process_time()
        while time.process_time() - begun < (0.01 if is_on("no_mask") else 0.04):
            pass

    found = bench.savings([run, run], ("no_mask", "packed_weights"), repeats=3)
    assert found["seconds"] == pytest.approx(0.01, rel=0.3)
    assert found["saved"]["no_mask"] == pytest.approx([0.75, 0.75], abs=0.1)
    assert found["saved"]["packed_weights"] == pytest.approx([0.0, 0.0], abs=0.3)


def test_what_is_outside_the_markers_stays(load_benchmark: Importing, tmp_path: Path) -> None:
    bench = load_benchmark("fast_paths")
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{bench.BEGIN}\n\nold\n\n{bench.END}\n\nafter\n", encoding="utf-8")
    for _ in range(2):
        bench.write_between_markers(page, ["new", "table"])
    text = page.read_text(encoding="utf-8")
    assert text == f"before\n\n{bench.BEGIN}\n\nnew\n\ntable\n\n{bench.END}\n\nafter\n"
    page.write_text("before", encoding="utf-8")
    with pytest.raises(ValueError, match="needs the lines"):
        bench.write_between_markers(page, ["new"])
    assert page.read_text(encoding="utf-8") == "before"


@pytest.mark.slow
def test_the_benchmark_runs_from_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "fast_paths.py"), "--smoke"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(f"`{name}`" in done.stdout for name in FAST_PATHS)
