"""In Python: `tecafn.train`, `evaluate`, `compare` and `load` do what the commands do."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tecafn
from tecafn import cli
from tecafn.experiments.config import load_config
from tecafn.experiments.settings_file import read_settings

VERBS = ("train", "evaluate", "compare", "load")


def test_train_evaluate_and_load_are_three_calls(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, no_fsync: None
) -> None:
    out = tmp_path / "run"
    record = tecafn.train(
        tiny_toml,
        data=tiny_store,
        out=out,
        device="cpu",
        progress=False,
        seed=3,
        training={"max_epochs": 1},
    )
    assert record == json.loads((out / "record.json").read_text(encoding="utf-8"))
    assert (record["config"]["seed"], record["training"]["epochs"]) == (3, 1)
    assert record["config"]["training"]["batch_size"] == 8, "the other keys of a table stay"
    evaluation = tecafn.evaluate(str(out), data=str(tiny_store), device="cpu")
    assert evaluation["split"] == "test"
    assert evaluation["num_samples"] == 12
    again = tecafn.evaluate(out, data=tiny_store, device="cpu", against=out)
    assert {key: again[key] for key in evaluation} == evaluation
    assert again["comparison"]["difference"]
    assert tecafn.load(out).predict(text="a good film").shape == (1,)


def test_a_config_that_was_loaded_can_be_trained_with_other_values(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, no_fsync: None
) -> None:
    config = load_config(tiny_toml)
    options: dict[str, Any] = {"data": tiny_store, "device": "cpu", "progress": False}
    record = tecafn.train(config, out=tmp_path / "a", training={"max_epochs": 1}, **options)
    assert record["config"] == load_config(tiny_toml, ["training.max_epochs=1"]).as_dict()


def test_folds_are_an_argument(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, no_fsync: None
) -> None:
    record = tecafn.train(
        tiny_toml,
        data=tiny_store,
        out=tmp_path / "folds",
        device="cpu",
        progress=False,
        cross_validate="video",
        folds=3,
        training={"max_epochs": 1},
    )
    assert "out-of-fold" in record["evaluations"]


def test_an_unknown_key_names_the_nearest_and_trains_nothing(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(tecafn.UserError, match=r"unknown key 'epochs'.*training.max_epochs"):
        tecafn.train(tiny_toml, data=tiny_store, out=out, epochs=1)
    with pytest.raises(tecafn.UserError, match="training must be a table, got 3"):
        tecafn.train(tiny_toml, data=tiny_store, out=out, training=3)
    assert not out.exists()


@pytest.mark.slow
def test_a_comparison_is_one_call(
    tiny_toml: Path, tiny_store: Path, tiny_run: Path, tmp_path: Path
) -> None:
    configs, out = tmp_path / "configs", tmp_path / "comparison"
    configs.mkdir()
    shutil.copy(tiny_toml, configs / "tecafn.toml")
    summary = tecafn.compare(
        data=tiny_store,
        out=out,
        methods=["tecafn"],
        seeds=[4],
        configs=configs,
        overrides=["training.max_epochs=1"],
        device="cpu",
        progress=False,
    )
    (row,) = summary["methods"]
    assert (row["name"], row["seeds"]) == ("tecafn", [4])
    assert (out / "comparison.html").is_file()
    with pytest.raises(tecafn.UserError, match="unknown method 'tecafm'"):
        tecafn.compare(data=tiny_store, out=tmp_path / "no", methods="tecafm", device="cpu")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seeds": "3"}, "seeds must be how many, or a list of them, got '3'"),
        ({"seeds": 2.0}, "seeds must be how many, or a list of them, got 2.0"),
        ({"seeds": [0, 0]}, r"seeds must be different whole numbers >= 0, got \[0, 0\]"),
        ({"overrides": "training.max_epochs=1"}, "overrides must be a list of key=value"),
    ],
)
def test_compare_refuses_seeds_and_overrides_of_another_kind(
    tiny_store: Path, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(tecafn.UserError, match=words):
        tecafn.compare(data=tiny_store, out=tmp_path / "no", methods=["concat"], **given)


def test_what_would_be_ignored_is_refused(
    tiny_toml: Path, tiny_store: Path, tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "no"
    with pytest.raises(tecafn.UserError, match=r"folds \(3\) go with a cross-validation"):
        tecafn.train(tiny_toml, data=tiny_store, out=out, folds=3)
    assert cli.main(["train", str(tiny_toml), f"--data={tiny_store}", f"--out={out}", "--folds=3"])
    with pytest.raises(tecafn.UserError, match="--split test goes with --data"):
        tecafn.export(tiny_run, out=out, split="test")
    assert not out.exists()
    for run, where in ((tiny_run, "a folder here"), ("builtin", "in the package")):
        with pytest.raises(tecafn.UserError, match=f"revision='v1' is of a model .* is {where}"):
            tecafn.load(run, revision="v1")
    with pytest.raises(tecafn.UserError, match=r"load needs a run, .* got NoneType"):
        tecafn.load(None)  # type: ignore[arg-type]


def test_the_verbs_are_listed_and_import_no_torch_until_they_are_used() -> None:
    code = (
        "import sys, tecafn\n"
        f"assert set({VERBS!r}) <= set(dir(tecafn)) & set(tecafn.__all__)\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.parametrize("name", ["train", "evaluate", "compare"])
def test_every_argument_of_a_verb_is_described(name: str) -> None:
    verb = getattr(tecafn, name)
    text = inspect.getdoc(verb) or ""
    for argument in inspect.signature(verb).parameters:
        assert f"    {argument}:" in text or f"    **{argument}:" in text
    assert ">>> tecafn." in text


def test_reading_a_config_in_python_finds_the_shipped_one() -> None:
    from tecafn.experiments.shipped import find_config

    assert read_settings(find_config(Path("mosi/tecafn.toml")))["method"] == "tecafn"
