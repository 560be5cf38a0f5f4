"""F5: what comments and tables point to exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "tecafn"


def test_pages_that_the_sources_name_exist() -> None:
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
        for name in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8"))
        # A benchmark's own page is there once it was run.
        if not (ROOT / name).is_file() and not name.startswith("docs/results/")
    }
    assert missing == set()


def test_every_folder_of_the_table_of_imports_exists() -> None:
    source = (ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8")
    table = source[source.index("MAY_IMPORT = {") : source.index("ON_TOP = ")]
    named = set(re.findall(r'^    "(\w+)":', table, flags=re.MULTILINE))
    assert named == {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}


def test_every_kind_of_event_is_described() -> None:
    described = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    kinds = {
        kind
        for path in (PACKAGE / "training").glob("*.py")
        for kind in re.findall(r'"event": "(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert kinds >= {"start", "step", "epoch", "end", "resume", "warning"}
    assert {kind for kind in kinds if f"| `event` | text | `{kind}`. |" not in described} == set()


def test_no_benchmark_imports_a_module_for_a_side_effect_that_it_does_not_have() -> None:
    for path in (ROOT / "benchmarks").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert "import tecafn.cli  # noqa" not in source, path
        assert not re.search(r"common, which sets how threads wait", source), path
