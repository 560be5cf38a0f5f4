"""An exported model analyses clips and answers requests where torch is not installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tecafn
from tecafn.analyze.scoring import SentimentModel, open_model
from tecafn.core.errors import UserError
from tecafn.serving.builtin import model_folder
from tecafn.serving.intervals import (
    Intervals,
    Scored,
    calibrate,
    hash_of_weights,
    write_calibration,
)
from tecafn.serving.opening import open_predictor

pytest.importorskip("av")

# Any import of torch fails as if it were not there.
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from tecafn.cli import main
"""


@pytest.fixture(scope="module")
def exported(text_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "onnx"
    tecafn.export(text_run, out=out)
    return out


def test_a_clip_becomes_the_timeline_that_torch_gives(
    talk: Path, exported: Path, text_model: SentimentModel, tmp_path: Path
) -> None:
    code = WITHOUT + (
        "code = main(sys.argv[1:])\n"
        "assert not {'torch', 'transformers', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    command = ("analyze", talk, "--model", exported, "--quiet", "--out", tmp_path / "page")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    timeline = json.loads((tmp_path / "page" / "timeline.json").read_text(encoding="utf-8"))
    texts = [" ".join(word["text"] for word in one["words"]) for one in timeline["utterances"]]
    expected = text_model.predictor.predict(text=texts)
    scores = [one["score"] for one in timeline["utterances"]]
    assert scores == pytest.approx(expected, abs=1e-3)


def test_the_packages_model_needs_torch_and_says_what_does_not(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec

    def absent(name: str, package: str | None = None) -> Any:
        return None if name == "torch" else there(name, package)

    monkeypatch.setattr("tecafn.serving.opening.find_spec", absent)
    for ask in (open_model, open_predictor):
        with pytest.raises(UserError, match=r"builtin needs torch.*tecafn export --format onnx"):
            ask("builtin")
    assert open_predictor(exported).takes == ("text",)


def test_a_graph_in_another_form_or_place_is_one_line(
    exported: Path, text_run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    tecafn.export(text_run, out=other, format="torch")
    for ask in (open_predictor, lambda folder: open_model(str(folder))):
        with pytest.raises(UserError, match=r"has no model\.onnx, which `tecafn export"):
            ask(other)
    with pytest.raises(UserError, match=r"is a graph.*tecafn\.onnx\.load.*name the run"):
        tecafn.load(exported)


def test_intervals_of_a_calibrated_run_go_with_its_graph(text_run: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.uniform(-3, 3, 80)
    scored = Scored(
        scores=labels + random.normal(size=80) / 2,
        labels=labels,
        num_words=np.full(80, 5),
        videos=[f"v{row // 8}" for row in range(80)],
        datasets=["made"] * 80,
    )
    run = tmp_path / "run"
    shutil.copytree(text_run, run)
    weights = hash_of_weights(model_folder(run))
    data = [{"dataset": "d", "split": "valid", "hash": "h"}]
    write_calibration(
        run, calibrate(scored, label_range=(-3.0, 3.0), data=data, weights_hash=weights)
    )
    out = tmp_path / "exported"
    report = tecafn.export(run, out=out)
    assert "calibration.json" in report.exported.files
    assert Intervals.load(out) == Intervals.load(run)
    assert open_model(str(out)).scorer.coverage == 0.9
    (out / "model.onnx").write_bytes((out / "model.onnx").read_bytes() + b" ")
    with pytest.raises(UserError, match="export it anew"):
        open_model(str(out))
