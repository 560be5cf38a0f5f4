"""Models that are made small: they predict as before, hold no encoder, and are refused if large."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tecafn.core.errors import UserError
from tecafn.experiments.calibrate import calibrate_run
from tecafn.layers.adapter import AdaptedLinear
from tecafn.serving.compact import compact
from tecafn.serving.intervals import Intervals
from tecafn.serving.predictor import load

TrainTiny = Callable[..., dict[str, Any]]
TEXTS = ["the film was good", "the film was very bad", "i was not dull", "great"]

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def full(train_tiny: TrainTiny, tmp_path: Path) -> Path:
    """A run whose encoder was trained, far enough to matter."""
    train_tiny(
        "full", "method=concat", "model={}", 'modalities=["text"]', "training.max_epochs=2",
        "training.learning_rates.text_encoder=2e-3", "training.learning_rate=5e-3",
    )  # fmt: skip
    return tmp_path / "full"


def test_adapters_of_the_full_rank_are_the_trained_encoders_layers(
    full: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    size = compact(full, tmp_path / "small", encoder=str(tiny_bert), rank=32)
    assert size == (tmp_path / "small" / "model.safetensors").stat().st_size
    stored = load_file(tmp_path / "small" / "model.safetensors")
    assert all(tensor.dtype == torch.float16 for tensor in stored.values())
    encoder = [name for name in stored if "text_encoder" in name]
    assert encoder
    assert all(name.endswith((".up", ".down")) for name in encoder)
    small, whole = load(tmp_path / "small"), load(full)
    trained = dict(whole.network.named_parameters())
    adapted = []
    for name, layer in small.network.named_modules():
        if isinstance(layer, AdaptedLinear):
            adapted.append(name)
            now, then = layer.whole_weight(), trained[f"{name}.weight"]
            assert torch.dist(now, then) < 0.01 * torch.dist(layer.weight, then)
    assert len(adapted) == 12
    # Embeddings, biases and norms are those of before; with the trained ones nothing is missing.
    with torch.no_grad():
        for name, parameter in small.network.named_parameters():
            if name in trained and name.removesuffix(".weight") not in adapted:
                parameter.copy_(trained[name])
    assert small.predict(TEXTS) == pytest.approx(whole.predict(TEXTS), abs=0.02)
    assert whole.predict(TEXTS).std() > 0.1


def test_a_run_with_adapters_keeps_them_in_half_precision(
    train_tiny: TrainTiny, tmp_path: Path, tiny_store: Path
) -> None:
    train_tiny("r", "text_adapter_rank=2", "training.learning_rates.text_encoder=1e-2")
    compact(tmp_path / "r", tmp_path / "small")
    small, whole = load(tmp_path / "small"), load(tmp_path / "r")
    assert small.predict(TEXTS) == pytest.approx(whole.predict(TEXTS), abs=5e-3)
    assert not (tmp_path / "small" / "text_encoder").exists()
    sizes = [p.stat().st_size for p in tmp_path.glob("*/**/model.safetensors")]
    assert min(sizes) < 0.7 * max(sizes)


def test_what_half_precision_does_not_hold_is_refused(
    train_tiny: TrainTiny, tmp_path: Path
) -> None:
    train_tiny("r", "text_adapter_rank=2", "training.max_epochs=1")
    path = tmp_path / "r" / "model" / "model.safetensors"
    stored = load_file(path)
    name = next(key for key in stored if key.endswith(".up"))
    stored[name][0, 0] = 1e6
    save_file(stored, path)
    with pytest.raises(UserError, match="half precision does not hold"):
        compact(tmp_path / "r", tmp_path / "small")
    assert not (tmp_path / "small" / "model.safetensors").exists()


def test_a_model_of_more_than_ten_megabytes_is_refused(
    full: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tecafn.serving.compact.MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"must have at most 1,000 bytes, got .*: give a lower"):
        compact(full, tmp_path / "small", encoder=str(tiny_bert), rank=2)
    assert not (tmp_path / "small" / "model.safetensors").exists()


def test_a_run_of_ones_own_is_calibrated_and_gives_intervals(
    train_tiny: TrainTiny, tmp_path: Path, make_store: Callable[..., Path]
) -> None:
    store = make_store(tmp_path / "more", sizes={"train": 20, "valid": 60, "test": 4})
    train_tiny("r", "training.max_epochs=1", data=store)
    found = calibrate_run(tmp_path / "r", data=[store], device="cpu")
    assert found.measured.num_utterances == 60
    assert found.measured.num_videos == 15
    assert 0.8 <= found.measured.covered <= 1.0
    assert found.data[0]["dataset"] == "tiny"
    assert Intervals.load(tmp_path / "r") == found.intervals
    before = (tmp_path / "r" / "model" / "calibration.json").read_bytes()
    copy = shutil.copytree(store, tmp_path / "copy")
    for twice in ([store, store], [store, copy]):
        with pytest.raises(UserError, match="one dataset was given twice"):
            calibrate_run(tmp_path / "r", data=twice, device="cpu")
    assert (tmp_path / "r" / "model" / "calibration.json").read_bytes() == before


def test_classes_and_other_scales_have_no_intervals(
    train_tiny: TrainTiny, tmp_path: Path, make_store: Callable[..., Path], tiny_run: Path
) -> None:
    store = make_store(tmp_path / "classes", task="classification")
    train_tiny("c", "training.max_epochs=1", "training.monitor=accuracy", data=store)
    with pytest.raises(UserError, match="intervals are of scores"):
        calibrate_run(tmp_path / "c", data=[store], device="cpu")
    with pytest.raises(UserError, match="on two scales"):
        calibrate_run(tiny_run, data=[store], device="cpu")
