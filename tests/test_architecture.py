"""Who may import whom, read from the source of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "tecafn"

# A folder, or a module that stands directly in the package, to the folders it may import.
# Whatever lies on top of everything is left out of this table.
MAY_IMPORT = {
    "core": set[str](),
    "layers": {"core"},
    "losses": {"core"},
    "methods": {"core", "layers", "losses"},
    "data": {"core"},
    "training": {"core", "records"},
    "evaluation": {"core"},
    "records": {"core"},
    "report": {"core", "evaluation", "records"},
    "experiments": {
        "core",
        "layers",
        "losses",
        "methods",
        "data",
        "training",
        "evaluation",
        "records",
        "report",
    },
    "serving": {"core", "layers", "methods"},
    "extract": {"core", "data"},
    "analyze": {"core", "extract", "serving"},
    "server": {"analyze", "core", "extract", "serving"},
}
ON_TOP = {"__init__", "__main__", "cli", "console", "exits", "in_turn", "onnx", "testing"}

# A third-party library to the folders that may import it; torch and numpy are looked at apart.
LIBRARIES = {
    "PIL": {"extract"},
    "ai_edge_litert": {"extract"},
    "av": {"extract"},
    "dbos": {"server"},
    "fastapi": {"server"},
    "filelock": {"training", "experiments", "server"},
    "huggingface_hub": {"experiments", "extract", "layers", "serving"},
    "jinja2": {"analyze", "report"},
    "lightning_fabric": {"training", "experiments"},
    "markupsafe": {"report"},
    "matplotlib": {"report"},
    "onnx": {"serving"},
    "onnxruntime": {"serving"},
    "openpyxl": {"analyze"},
    "pocketsphinx": {"extract"},
    "praatio": {"analyze"},
    "pympi": {"analyze"},
    "optuna": {"experiments"},
    "packaging": {"extract"},
    "pyarrow": {"data"},
    "py3langid": {"serving"},
    "pysubs2": {"extract"},
    "ray": {"extract"},
    "h5py": {"data"},
    "prometheus_client": {"server"},
    "pydantic": {"analyze", "experiments", "server", "serving"},
    "python_multipart": {"server"},
    "rich": {"console", "experiments", "training"},
    "safetensors": {"layers", "training", "experiments", "serving", "testing"},
    "scipy": {"analyze", "data", "evaluation", "extract"},
    "sqlalchemy": {"server"},
    "starlette": {"server"},
    "tensorboardX": {"training"},
    "tokenizers": {"serving"},
    "tomli_w": {"experiments"},
    "transformers": {"layers", "testing"},
    "typer": {"cli"},
    "uvicorn": {"server"},
}
# Imported inside what needs them, so that nothing else waits for them or fails without them.
LAZY = {
    "PIL",
    "ai_edge_litert",
    "av",
    "onnx",
    "onnxruntime",
    "openpyxl",
    "optuna",
    "pocketsphinx",
    "praatio",
    "py3langid",
    "pympi",
    "pysubs2",
    "ray",
    "scipy",
    "tensorboardX",
    "tokenizers",
    "transformers",
}
WITHOUT_TORCH = {"records", "report", "cli", "console", "exits", "in_turn", "onnx", "__main__"}
WITHOUT_NUMPY = {"core", "losses"}

# What the tables above forbid and is meant all the same.
EXCEPTIONS = {
    ("core/weights.py", "safetensors"): "weights on disk are safetensors wherever they are written",
    ("experiments/calibrate.py", "tecafn.serving"): "it opens what a run saved",
    ("experiments/evaluate.py", "tecafn.serving"): "it opens what a run saved",
    ("experiments/explain.py", "tecafn.serving"): "it explains what a run saved",
    ("experiments/export.py", "tecafn.serving"): "it writes what a run saved as a graph",
    ("experiments/peeking.py", "tecafn.serving"): "it loads what a run saved",
    ("experiments/run.py", "tecafn.serving"): "a run is saved as the folder that serving loads",
    ("experiments/sharing.py", "tecafn.serving"): "it shares what a run saved",
    ("experiments/starting.py", "tecafn.serving"): "it reads what another run saved",
    ("experiments/trained_scheme.py", "tecafn.serving"): "it builds what a run saved",
    ("experiments/tune.py", "tecafn.serving"): "it knows which folder of a trial is a network",
}


@dataclass(frozen=True)
class Import:
    """One name that a module imports; lazy = inside a function, or for type checkers alone."""

    name: str
    is_lazy: bool


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, ``from a import b`` as ``a.b`` where the caller asks for modules."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    outer = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        lazy = id(node) not in outer
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module is not None
            yield from (Import(f"{node.module}.{alias.name}", lazy) for alias in node.names)


def place_of(path: Path, package: Path) -> str:
    """The folder of a module, or its own name where it stands directly in the package."""
    parts = path.relative_to(package).parts
    return parts[0] if len(parts) > 1 else path.stem


def violations(package: Path) -> Iterator[tuple[str, str, str]]:
    """(file, what it imports, why it may not)."""
    for path in sorted(package.rglob("*.py")):
        place = place_of(path, package)
        file = path.relative_to(package).as_posix()
        if place not in MAY_IMPORT and place not in ON_TOP:
            yield file, place, "is in a folder that the table does not know"
            continue
        for found in imports_of(path):
            first, *rest = found.name.split(".")
            if first in sys.stdlib_module_names:
                continue
            if first != "tecafn":
                reason = _library_problem(first, place, is_lazy=found.is_lazy)
                if reason:
                    yield file, first, reason
                continue
            if not rest:
                continue  # the package itself, for its version
            target = rest[0]
            if place in ON_TOP or target == place or target in MAY_IMPORT[place]:
                is_sibling = place == "methods" == target and path.stem != "__init__"
                if is_sibling:
                    yield file, ".".join(["tecafn", *rest[:2]]), "is another method"
            elif (package / target).is_dir() or target in ON_TOP:
                yield file, f"tecafn.{target}", f"{place} may not import {target}"


def _library_problem(library: str, place: str, *, is_lazy: bool) -> str:
    """Why this folder may not import this library so; empty when it may."""
    if library == "torch":
        return f"{place} runs without torch" if place in WITHOUT_TORCH else ""
    if library == "numpy":
        return f"{place} is torch alone" if place in WITHOUT_NUMPY else ""
    if library not in LIBRARIES:
        return "is a library that the table does not know"
    if place not in LIBRARIES[library]:
        return f"{place} may not import it"
    if library in LAZY and not is_lazy:
        return "is imported inside what needs it"
    return ""


def test_every_import_follows_the_arrows() -> None:
    found = [
        f"{file}: {name} {reason}"
        for file, name, reason in violations(PACKAGE)
        if (file, name) not in EXCEPTIONS
    ]
    assert found == []


def test_every_exception_is_still_needed() -> None:
    found = {(file, name) for file, name, _ in violations(PACKAGE)}
    assert sorted(set(EXCEPTIONS) - found) == []


def reached(start: Path, package: Path) -> set[str]:
    """Every library that importing ``start`` loads, through module-level imports alone."""
    todo, seen, libraries = [start], set[Path](), set[str]()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        for found in imports_of(path):
            if found.is_lazy:
                continue
            first, *rest = found.name.split(".")
            if first != "tecafn":
                libraries.add(first)
                continue
            at = package
            todo.append(at / "__init__.py")
            for part in rest:
                if (at / f"{part}.py").is_file():
                    todo.append(at / f"{part}.py")
                    break
                if not (at / part).is_dir():
                    break
                at = at / part
                todo.append(at / "__init__.py")
    return libraries


# Folders and files which nothing that they import makes wait for torch.
START_WITHOUT_TORCH = [
    "report",
    "records",
    "cli.py",
    "console.py",
    "exits.py",
    "onnx.py",
    "serving/exported.py",
    "serving/inputs.py",
    "serving/onnx_predictor.py",
    "serving/opening.py",
    "serving/plain_tokenizer.py",
    "__init__.py",
    "evaluation/metrics.py",
    "core/modality.py",
    "core/info.py",
    "core/registry.py",
    "data/readers",
    "data/importing.py",
    "data/integrity.py",
    "data/statistics.py",
    "data/store.py",
    "data/synthetic.py",
    "analyze",
    "extract",
    "experiments/cells.py",
    "experiments/launched.py",
    "experiments/registry.py",
    "experiments/settings_file.py",
    "experiments/shipped.py",
    "layers/encoder_source.py",
    "server",
    "serving/builtin.py",
    "serving/intervals.py",
]


@pytest.mark.parametrize("place", START_WITHOUT_TORCH)
def test_what_needs_no_tensor_starts_without_torch(place: str) -> None:
    where = PACKAGE / place
    files = sorted(where.rglob("*.py")) if where.is_dir() else [where]
    assert files
    for file in files:
        assert "torch" not in reached(file, PACKAGE), file


def test_importing_the_report_loads_no_torch() -> None:
    code = "import sys, tecafn.report.html; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("file", "source", "problem"),
    [
        ("core/a.py", "import numpy", "core is torch alone"),
        ("core/a.py", "from tecafn.layers import b", "core may not import layers"),
        ("core/a.py", "def f():\n    import pyarrow", "core may not import it"),
        ("layers/a.py", "from tecafn.losses.x import y", "layers may not import losses"),
        ("layers/a.py", "import transformers", "is imported inside what needs it"),
        ("losses/a.py", "import tecafn.methods.x", "losses may not import methods"),
        ("methods/a.py", "from tecafn.methods.b import B", "is another method"),
        ("methods/a.py", "from tecafn.methods import b", "is another method"),
        ("methods/a.py", "from tecafn.data.store import Store", "methods may not import data"),
        (
            "training/a.py",
            "def f():\n    from tecafn.data import x",
            "training may not import data",
        ),
        ("evaluation/a.py", "from tecafn import methods", "evaluation may not import methods"),
        ("data/a.py", "from transformers import AutoTokenizer", "data may not import it"),
        ("report/a.py", "def f():\n    import torch", "report runs without torch"),
        (
            "serving/a.py",
            "from tecafn.training.trainer import T",
            "serving may not import training",
        ),
        ("data/a.py", "import tecafn.cli", "data may not import cli"),
        ("data/a.py", "import pandas", "is a library that the table does not know"),
        ("plots/a.py", "import os", "is in a folder that the table does not know"),
        ("report/a.py", "from matplotlib import pyplot", ""),
        ("methods/a.py", "from tecafn.losses.task import task_loss\nimport os, torch", ""),
        ("cli.py", "from tecafn.training.trainer import T", ""),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, source: str, problem: str) -> None:
    for folder in MAY_IMPORT:
        (tmp_path / folder).mkdir()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(source)
    found = [reason for _, _, reason in violations(tmp_path)]
    assert found == ([problem] if problem else [])
