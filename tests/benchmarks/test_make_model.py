"""What makes the models of the package: cards say what was measured, and it runs as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.experiments.config import load_config
from tecafn.serving import builtin
from tecafn.serving.builtin import NAMES, builtin_folder
from tecafn.serving.intervals import read_calibration
from tecafn.serving.predictor import load

SHIPPED = [name for name in NAMES if (builtin._FOLDER / name / "card.json").is_file()]


@pytest.fixture
def make_model(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("make_model")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_says_what_was_measured(
    name: str, make_model: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = builtin_folder(name)
    values = json.loads((folder / make_model.VALUES).read_text(encoding="utf-8"))
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert card == make_model.card(values, read_calibration(name))
    assert values["bytes"] == (folder / "model.safetensors").stat().st_size
    for part in ("Data and terms", "Measured", "Intervals", "Limits", "Not to be used", "5(1)(f)"):
        assert part in card
    assert main(["model-card", name]) == 0
    assert capsys.readouterr().out == card


def test_a_run_whose_encoder_was_trained_goes_on_with_adapters(
    make_model: ModuleType,
    train_tiny: Callable[..., dict[str, Any]],
    tmp_path: Path,
    tiny_bert: Path,
    tiny_store: Path,
    tiny_toml: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = ("method=concat", "model={}", 'modalities=["text"]')
    train_tiny("full", *text, "training.learning_rates.text_encoder=1e-3")
    config = tmp_path / "tiny-tune.toml"
    config.write_text(
        f"method = 'concat'\ntext_encoder = '{tiny_bert}'\ntext_adapter_rank = 4\n"
        "modalities = ['text']\n[training]\nmax_epochs = 1\nbatch_size = 8\n"
    )
    monkeypatch.setattr(make_model, "CONFIGS", tmp_path)
    monkeypatch.setattr(make_model, "RANK", 4)
    encoder = {"encoder": str(tiny_bert)}
    compact = make_model.compact
    monkeypatch.setattr(make_model, "compact", lambda *a, **k: compact(*a, **k, **encoder))
    run = make_model.tuned("tiny", tmp_path / "full", tiny_store, out=tmp_path, device="cpu")
    record = json.loads((run / "record.json").read_text())
    assert record["init_from"]["run"] == "tiny-adapters"
    assert record["config"]["text_adapter_rank"] == 4


def test_an_unknown_card_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model-card", "biltin"]) == 2
    assert "known: builtin, builtin-base, voice" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*NAMES, "teacher"])
def test_both_trainings_of_a_model_are_of_one_network(name: str, make_model: ModuleType) -> None:
    first, second = (
        load_config(make_model.CONFIGS / f"{name}-{dataset}.toml") for dataset in ("mosei", "mosi")
    )
    assert first.modalities == second.modalities == ("text",)
    of_the_network = ("method", "model", "text_encoder", "text_adapter_rank", "max_text_tokens")
    for key in of_the_network:
        assert getattr(first, key) == getattr(second, key), key


def test_a_run_becomes_a_model_with_its_calibration_and_card(
    make_model: ModuleType,
    train_tiny: Callable[..., dict[str, Any]],
    tmp_path: Path,
    make_store: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = make_store(tmp_path / "more", sizes={"train": 20, "valid": 60, "test": 4})
    train_tiny(
        "r", "text_adapter_rank=2", 'modalities=["text"]', "training.max_epochs=1", data=store
    )
    capsys.readouterr()
    data = {"mosi": store}
    make_model.make("builtin", tmp_path / "r", data, models=tmp_path / "models", out=tmp_path)
    folder = tmp_path / "models" / "builtin"
    names = {"config.json", "model.safetensors", "calibration.json", "card.json", "card.md"}
    assert {path.name for path in folder.iterdir()} == names
    assert "of 60 utterances of 15 videos covered" in capsys.readouterr().out
    card = (folder / "card.md").read_text(encoding="utf-8")
    mae = json.loads((folder / "card.json").read_text())["valid"]["mosi"]["metrics"]["mae"]
    assert f"{mae:.3f} [" in card
    assert len(load(folder).predict(["the film was good"])) == 1


def test_training_labels_go_halfway_to_the_teachers_and_others_stay(
    make_model: ModuleType, tmp_path: Path
) -> None:
    source = tmp_path / "label.csv"
    source.write_text(
        "video_id,clip_id,text,label,mode\nv,1,good,2.0,train\nv,2,bad,-3.0,train\n"
        "w,1,fine,1.0,valid\nx,1,so,,test\n",
        encoding="utf-8",
    )
    teachers = [{"v_1": 1.0, "v_2": -4.0}, {"v_1": 2.0, "v_2": -4.0}]
    out = make_model.write_mixed(source, teachers, tmp_path / "mixed.csv")
    lines = out.read_text(encoding="utf-8").split()
    assert lines[1:] == ["v,1,good,1.7500,train", "v,2,bad,-3.0000,train", "w,1,fine,1.0,valid",
                         "x,1,so,,test"]  # fmt: skip
    with pytest.raises(UserError, match="did not predict the training row v_2"):
        make_model.write_mixed(source, [{"v_1": 1.0}], tmp_path / "mixed.csv")
