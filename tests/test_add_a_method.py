"""The worked example of docs/add-a-method.md: its blocks are taken from the page and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tecafn.methods  # noqa: F401  registers every method
from tecafn.core.errors import UserError
from tecafn.core.registry import METHODS
from tecafn.experiments.shipped import configs_folder

PAGE = Path(__file__).resolve().parents[1] / "docs" / "add-a-method.md"
METHOD = "src/tecafn/methods/gated.py"
CONFIG = "configs/synthetic/gated.toml"
TEST = "tests/methods/test_gated_equations.py"

# A process of its own: what it registers, no other test sees. The package's path is made longer, so
# that the file is found where it would lie, without lying there.
START = """
import sys
import tecafn.methods
tecafn.methods.__path__.append({folder!r})
import tecafn.methods.gated
"""


def blocks() -> dict[str, str]:
    """File name to the code of the page's blocks that begin with one."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return dict(found)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, where the page says they lie, below an empty folder."""
    root = tmp_path_factory.mktemp("checkout")
    for name, code in blocks().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    shutil.copy(configs_folder() / "synthetic" / "budget.toml", (root / CONFIG).parent)
    return root


def run(
    checkout: Path, code: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Python code behind the method's registration, with ``sys.argv`` of these arguments."""
    begin = START.format(folder=str((checkout / METHOD).parent))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + code, *arguments],
        capture_output=True,
        text=True,
        cwd=checkout,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_page_has_a_method_a_config_and_a_test() -> None:
    assert set(blocks()) == {METHOD, CONFIG, TEST}
    with pytest.raises(UserError):
        METHODS["gated"]  # else the page would not show what it says


def test_the_config_has_the_budget_of_its_folder() -> None:
    assert tomllib.loads(blocks()[CONFIG]) == {"method": "gated", "extends": "budget.toml"}
    assert (configs_folder() / "synthetic" / "budget.toml").is_file()


@pytest.mark.slow
def test_the_method_keeps_the_contract(checkout: Path) -> None:
    run(
        checkout,
        "from tecafn.testing import check_method\n"
        "check_method('gated')\n"
        "check_method('gated', task='classification')\n",
    )


def test_the_equations_test_passes_and_can_fail(checkout: Path) -> None:
    # Both in one process, and without pytest's plugins: importing is what takes the time.
    # A gate that lets everything through.
    code = (
        "import pytest, torch\n"
        "assert pytest.main(sys.argv[1:]) == 0\n"
        "kept = torch.nn.Linear.forward\n"
        "torch.nn.Linear.forward = lambda layer, x: kept(layer, x) + 1.0\n"
        "sys.exit(pytest.main(sys.argv[1:]) != 1)"
    )
    options = ("-q", "-p", "no:cacheprovider", "--rootdir", str(checkout), "-W", "error")
    done = run(checkout, code, *options, TEST, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    sound, broken = re.findall(r"^\d+ (?:passed|failed)", done.stdout, re.MULTILINE)
    assert (sound, broken) == ("3 passed", "3 failed")


def test_the_method_trains_and_is_evaluated_by_the_commands(
    checkout: Path, tmp_path: Path, tiny_store: Path, tiny_bert: Path
) -> None:
    out = tmp_path / "run"
    # Both commands in one process, for importing is what takes the time.
    commands = (
        "from tecafn.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print('listed:')\n"
        "sys.exit(main(['list', 'methods', '--json']))"
    )
    done = run(
        checkout,
        commands,
        *("train", CONFIG, "--data", str(tiny_store), "--out", str(out), "--device", "cpu"),
        *("--quiet", "--set", "training.max_epochs=1", "--set", f"text_encoder={tiny_bert}"),
        *("--set", "num_trained_text_layers=all"),
    )
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert record["method"] == "gated"
    assert record["training"]["epochs"] == 1
    assert record["evaluations"]["valid"]["metrics"]["mae"] > 0
    listed = json.loads(done.stdout.partition("listed:\n")[2])
    assert "gated" in [method["name"] for method in listed]


def test_the_example_is_formatted_and_linted_as_the_house_is(checkout: Path) -> None:
    root = PAGE.parents[1]
    for options in (("format", "--check"), ("check",)):
        command = [sys.executable, "-m", "ruff", *options, "--config", str(root / "pyproject.toml")]
        if options == ("check",):  # below an empty folder the package looks like somebody else's
            command += ["--config", 'lint.isort.known-first-party = ["tecafn"]']
        done = subprocess.run([*command, "."], cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
