"""The wheel works without the repository, and an exported model without torch, below 400 MB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git has, so that a stray file cannot hide a missing one."""
    pytest.importorskip("build", reason="make test-wheel installs it")
    folder = tmp_path_factory.mktemp("wheel")
    archive = folder / "source.tar"
    _run("git", "archive", "--output", archive, "HEAD", cwd=ROOT)
    source = folder / "source"
    source.mkdir()
    _run("tar", "-xf", archive, "-C", source, cwd=folder)
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", source, cwd=folder)
    (made,) = (folder / "dist").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel alone; its libraries are this environment's."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=True)
    _run(folder / "bin" / "pip", "install", "--quiet", "--no-deps", wheel, cwd=folder)
    return folder / "bin" / "python"


# Found by path, and so without the .pth file that would bring the checkout's own package along.
LIBRARIES = sysconfig.get_paths()["purelib"]


def test_configs_papers_and_models_are_inside(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "tecafn/configs/mosi/tecafn.toml",
        "tecafn/papers/tecafn/table5.toml",
        "tecafn/models/builtin/model.safetensors",
        "tecafn/report/templates/report.html.j2",
        "tecafn/evaluation/published.toml",
        "tecafn/py.typed",
    ):
        assert name in names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]


def test_the_wheel_works_without_the_repository(python: Path, tmp_path: Path) -> None:
    code = (
        "import json, tecafn, tecafn.experiments.shipped as s\n"
        "print(json.dumps([tecafn.__file__, s.list_configs(), s.list_tables(), "
        "tecafn.load('builtin').predict(['It was lovely.', 'It was awful.']).tolist()]))"
    )
    file, configs, tables, scores = json.loads(
        _run(python, "-c", code, cwd=tmp_path, PYTHONPATH=LIBRARIES).splitlines()[-1]
    )
    assert Path(file).is_relative_to(python.parents[1])
    assert "mosi/tecafn.toml" in configs
    assert "table5" in " ".join(tables)
    assert scores[0] > 0 > scores[1]
    command = (python, "-m", "tecafn")
    sizes = ("--train", "20", "--valid", "8", "--test", "8")
    _run(*command, "data", "make", "--out", "corpus", *sizes, cwd=tmp_path, PYTHONPATH=LIBRARIES)
    _run(
        *command, "train", "synthetic/lmf.toml", "--data", "corpus", "--out", "run",
        "--set", "training.max_epochs=1", "--quiet", cwd=tmp_path, PYTHONPATH=LIBRARIES,
    )  # fmt: skip
    assert (tmp_path / "run" / "report.html").is_file()


def test_an_exported_model_runs_in_an_environment_without_torch_below_400_mb(
    wheel: Path, tiny_run: Path, tmp_path: Path
) -> None:
    import tecafn

    tecafn.export(tiny_run, out=tmp_path / "exported")
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=True)
    pip = (folder / "bin" / "pip", "install", "--quiet")
    _run(*pip, "numpy", "onnxruntime", "tokenizers", cwd=tmp_path)
    _run(*pip, "--no-deps", wheel, cwd=tmp_path)
    code = (
        "import json, sys, tecafn.onnx\n"
        "print(json.dumps(tecafn.onnx.load('exported').predict('the film was good').tolist()))"
    )
    (got,) = json.loads(_run(folder / "bin" / "python", "-c", code, cwd=tmp_path))
    (expected,) = tecafn.load(tiny_run).predict("the film was good")
    assert got == pytest.approx(expected, abs=1e-5)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{size / 1e6:.0f} MB")
    assert size < 400e6
