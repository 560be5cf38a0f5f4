"""A run that begins with another's weights, and runs whose checkpoints hold adapters alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.experiments.evaluate import predict_run, weights_hash
from tecafn.records.record import read_record
from tecafn.serving.predictor import load

TrainTiny = Callable[..., dict[str, Any]]
MakeStore = Callable[..., Path]
STILL = ("training.learning_rate=1e-12", "training.learning_rates.text_encoder=1e-12")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_a_run_begins_with_the_weights_of_another_and_says_so(
    train_tiny: TrainTiny, tiny_run: Path, tmp_path: Path, make_store: MakeStore
) -> None:
    other = make_store(tmp_path / "other", seed=5)
    record = train_tiny("on", *STILL, "training.max_epochs=1", data=other, init_from=tiny_run)
    begun_with = record["init_from"]
    assert begun_with["run"] == tiny_run.name
    assert begun_with["weights_hash"] == weights_hash(tiny_run)
    assert begun_with["data"]["hash"] == read_record(tiny_run)["data"]["hash"]
    assert begun_with["data"]["hash"] != record["data"]["hash"]
    mine, theirs = weights(tmp_path / "on"), weights(tiny_run)
    of_the_data = {name for name in mine if "standardise" in name}
    assert of_the_data
    for name, tensor in mine.items():
        # Means and deviations of frames are those of its own data.
        same = torch.allclose(tensor, theirs[name], rtol=0, atol=1e-7)
        assert same is (name not in of_the_data), name
    chain = train_tiny("again", *STILL, "training.max_epochs=1", init_from=tmp_path / "on")
    assert chain["init_from"]["init_from"] == begun_with


def test_a_resumed_run_must_have_begun_with_the_same(
    train_tiny: TrainTiny, tiny_run: Path, tmp_path: Path
) -> None:
    first = train_tiny("a", "training.max_epochs=1", init_from=tiny_run)
    again = train_tiny("a", "training.max_epochs=1", init_from=tiny_run, resume=True)
    assert again["created"] == first["created"]
    with pytest.raises(UserError, match=r"was begun with init_from"):
        train_tiny("a", "training.max_epochs=1", resume=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method=concat", "model={}"), "is a run of 'tecafn', this one is of 'concat'"),
        (("model.dim=20",), "expected shape"),
        (("text_adapter_rank=2",), "adapters of rank None; this run has"),
    ],
)
def test_weights_of_another_network_are_refused(
    overrides: tuple[str, ...], message: str, train_tiny: TrainTiny, tiny_run: Path
) -> None:
    with pytest.raises(UserError, match=message) as error:
        train_tiny("b", *overrides, init_from=tiny_run)
    assert "\n" not in str(error.value)


def test_an_unfinished_run_gives_no_weights_and_folds_take_none(
    train_tiny: TrainTiny, tmp_path: Path, tiny_run: Path, tiny_toml: Path, tiny_store: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(UserError):
        train_tiny("c", init_from=tmp_path)
    arguments = ["train", tiny_toml, "--data", tiny_store, "--out", tmp_path / "d"]
    arguments += ["--init-from", tiny_run, "--cross-validate", "video"]
    assert main([str(argument) for argument in arguments]) == 2
    assert "--init-from cannot go with --cross-validate" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["tecafn", "concat", "misa", "self_mm", "tetfn"])
def test_every_method_trains_adapters_and_stores_nothing_else_of_the_encoder(
    method: str, train_tiny: TrainTiny, tmp_path: Path, tiny_store: Path
) -> None:
    table = [] if method == "tecafn" else [f"method={method}", "model={}"]
    record = train_tiny("r", *table, "text_adapter_rank=2", "training.max_epochs=1",
                        "training.learning_rates.text_encoder=1e-2")  # fmt: skip
    run = tmp_path / "r"
    stored = weights(run)
    of_the_encoder = {name for name in stored if "text_encoder" in name}
    assert of_the_encoder
    assert all(name.endswith((".up", ".down")) for name in of_the_encoder)
    assert any(bool(stored[n].any()) for n in of_the_encoder if n.endswith(".up"))
    for path in run.rglob("*.safetensors"):
        names = load_file(path)
        assert not [n for n in names if "text_encoder" in n and n.endswith("weight")], path
    spec = json.loads((run / "model" / "config.json").read_text())["data"]["text_encoder"]
    assert spec["adapter_rank"] == 2
    assert len(spec["weights_hash"]) == 64
    assert record["config"]["text_adapter_rank"] == 2
    predict_run(run, data=tiny_store, split="valid", out=tmp_path / "p.csv", device="cpu")
    again = load(run)
    again.save_pretrained(tmp_path / "copy")
    [score] = again.predict(text="the film was good")
    assert load(tmp_path / "copy").predict(text="the film was good") == pytest.approx([score])


def test_an_interrupted_run_with_adapters_goes_on_bit_for_bit(
    train_tiny: TrainTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_tiny("whole", "text_adapter_rank=2")
    from tecafn.training.checkpoint import Checkpoints

    class KilledError(Exception):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "read_best", killed)
        with pytest.raises(KilledError):
            train_tiny("cut", "text_adapter_rank=2")
    resumed = train_tiny("cut", "text_adapter_rank=2", resume=True)
    assert weights_hash(tmp_path / "cut") == weights_hash(tmp_path / "whole")
    metrics = [r["evaluations"]["valid"]["metrics"] for r in (whole, resumed)]
    assert metrics[0] == metrics[1]


def test_an_adapter_without_a_layer_to_adapt_is_refused(train_tiny: TrainTiny) -> None:
    with pytest.raises(UserError, match="num_trained_text_layers must not be 0"):
        train_tiny("e", "text_adapter_rank=2", "num_trained_text_layers=0")
