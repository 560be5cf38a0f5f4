"""A config is a typed value: what is wrong with it is said in one line before anything runs."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.experiments.config import (
    RunConfig,
    load_config,
    parse_config,
    write_config,
)
from tecafn.experiments.shipped import configs_folder, find_config, list_configs
from tecafn.training.config import TrainingConfig

SHIPPED = [configs_folder() / name for name in list_configs()]


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    """Writes a config file."""

    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("raw", "key", "nearest"),
    [
        ({"methd": "tecafn"}, "methd", "method"),
        ({"trainin": {}}, "trainin", "training"),
        ({"model": {"num_layer": 2}}, "model.num_layer", "num_layers"),
        ({"training": {"max_epoch": 2}}, "training.max_epoch", "max_epochs"),
        ({"text_encder": "minilm"}, "text_encder", "text_encoder"),
    ],
)
def test_unknown_key_names_the_nearest_known_one(
    raw: dict[str, Any], key: str, nearest: str
) -> None:
    with pytest.raises(UserError, match=f"unknown key '{key}': did you mean '{nearest}'"):
        parse_config(raw)


def test_unknown_method_names_the_nearest_known_one() -> None:
    with pytest.raises(UserError, match="unknown method 'tecafm': did you mean 'tecafn'"):
        parse_config({"method": "tecafm"})


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"method": 3}, "method must be a name, got 3"),
        ({"model": 3}, "model must be a table, got 3"),
        ({"training": [1]}, r"training must be a table, got \[1\]"),
        ({"seed": "x"}, "seed: .*got 'x'"),
        ({"seed": "7"}, "seed: .*got '7'"),
        ({"seed": True}, "seed: .*got True"),
        ({"seed": 1.5}, "seed: .*got 1.5"),
        ({"seed": -1}, "seed must be in 0 to .*, got -1"),
        ({"seed": 2**40}, "seed must be in 0 to .*, got 1099511627776"),
        ({"max_text_tokens": 4}, "max_text_tokens must be >= 8, got 4"),
        ({"num_trained_text_layers": "most"}, "num_trained_text_layers: .*got 'most'"),
        ({"num_trained_text_layers": "2"}, "num_trained_text_layers: .*got '2'"),
        ({"num_trained_text_layers": -1}, "num_trained_text_layers must be .*got -1"),
        ({"modalities": []}, "modalities must name at least one"),
        ({"modalities": ["text", "smell"]}, "modalities: .*got 'smell'"),
        ({"modalities": ["text", "text"]}, "modalities must differ, got text, text"),
        ({"modalities": "text"}, "modalities: .*got 'text'"),
        ({"text_encoder": 3}, "text_encoder: .*got 3"),
        ({"training": {"max_epochs": 0}}, "max_epochs must be an integer >= 1, got 0"),
        ({"training": {"max_epochs": "2"}}, "training.max_epochs: .*got '2'"),
        ({"training": {"max_epochs": True}}, "training.max_epochs: .*got True"),
        ({"training": {"learning_rate": float("nan")}}, "learning_rate must be > 0, got nan"),
        ({"training": {"learning_rates": {"main": "x"}}}, "training.learning_rates: .*'x'"),
        ({"training": {"optimizer": "sgd"}}, "training.optimizer: .*got 'sgd'"),
        ({"training": {"monitor": "mea"}}, "monitor 'mea' is unknown: did you mean 'mae'"),
        ({"model": {"swap_probability": 1.5}}, r"swap_probability must be in \[0, 1\], got 1.5"),
        ({"model": {"fusion": "product"}}, "model.fusion: .*got 'product'"),
        ({"model": {"weights": {"tb": 1.0}}}, "unknown terms"),
    ],
)
def test_wrong_type_or_range_is_one_line_that_names_the_key(
    raw: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=named) as caught:
        parse_config(raw, where="my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("method = ", "expected a TOML file"),
        ("[model", "expected a TOML file"),
        ("a = 1\na = 2", "expected a TOML file"),
        ("seed = 1979-05-27", "seed: "),
    ],
)
def test_broken_file_is_one_line(toml: Any, text: str, named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        load_config(toml(text))
    assert "config.toml" in str(caught.value)


def test_file_in_another_encoding_and_a_folder_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes("# caf\u00e9".encode("latin-1"))
    for path in (tmp_path / "latin.toml", tmp_path):
        with pytest.raises(UserError, match="expected a TOML file"):
            load_config(path)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("training.max_epochs=2", lambda c: c.training.max_epochs == 2),
        ("training.max_epochs = 2 ", lambda c: c.training.max_epochs == 2),
        ("text_encoder=minilm", lambda c: c.text_encoder == "minilm"),
        ('text_encoder="minilm"', lambda c: c.text_encoder == "minilm"),
        ("text_encoder=some/folder name", lambda c: c.text_encoder == "some/folder name"),
        ("num_trained_text_layers=all", lambda c: c.num_trained_text_layers == "all"),
        ("num_trained_text_layers=2", lambda c: c.num_trained_text_layers == 2),
        ('modalities=["text","audio"]', lambda c: c.modalities == ("text", "audio")),
        ("training.learning_rate=1e-3", lambda c: c.training.learning_rate == 1e-3),
        ("training.learning_rate=1", lambda c: c.training.learning_rate == 1.0),
        ("training.learning_rates.main=0.5", lambda c: c.training.rate_of("main") == 0.5),
        (
            "training.learning_rates={main = 0.5, text_encoder = 1e-5}",
            lambda c: c.training.learning_rates == {"main": 0.5, "text_encoder": 1e-5},
        ),
        ("model.num_hard_negatives=all", lambda c: c.model.num_hard_negatives == "all"),
        (
            "model.swap_probability={audio = 0.0, vision = 0.5}",
            lambda c: c.model.swap_probability == {"audio": 0.0, "vision": 0.5},
        ),
    ],
)
def test_override_is_read_as_toml_and_else_as_text(toml: Any, override: str, read: Any) -> None:
    assert read(load_config(toml("seed = 3"), [override]))


def test_a_table_as_an_override_changes_its_keys_alone(toml: Any) -> None:
    path = toml("[training]\nmax_epochs = 9\nbatch_size = 7\n")
    config = load_config(path, ["training={max_epochs=2}", "model={dim=20}"])
    assert (config.training.max_epochs, config.training.batch_size) == (2, 7)
    emptied = load_config(path, ["training={}"])
    assert emptied.training.batch_size == RunConfig().training.batch_size


def test_later_override_wins_and_the_rest_of_the_file_stays(toml: Any) -> None:
    path = toml("seed = 3\n[training]\nmax_epochs = 9\nbatch_size = 4")
    config = load_config(path, ["training.max_epochs=1", "training.max_epochs=2"])
    assert (config.seed, config.training.max_epochs, config.training.batch_size) == (3, 2, 4)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("training.max_epochs", "--set expects key=value, got 'training.max_epochs'"),
        ("=2", "--set expects key=value, got '=2'"),
        ("seed.x=2", "'seed' is a value, not a table"),
        ("training.max_epoch=2", "did you mean 'max_epochs'"),
        ("training=2", "training must be a table, got 2"),
    ],
)
def test_wrong_override_is_one_line(toml: Any, override: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_config(toml("seed = 3"), [override])


@pytest.mark.parametrize(
    ("alias", "name", "value", "read"),
    [
        ("text_encoder.trainable_layers", "num_trained_text_layers", "2", 2),
        ("text_encoder.num_trained_layers", "num_trained_text_layers", "all", "all"),
        ("text_encoder.source", "text_encoder", "some/folder", "some/folder"),
        ("text_encoder.max_tokens", "max_text_tokens", "64", 64),
    ],
)
def test_override_by_an_alias_reaches_the_key_and_says_its_name_once(
    toml: Any, capsys: pytest.CaptureFixture[str], alias: str, name: str, value: str, read: Any
) -> None:
    from tecafn.experiments import settings_file as module

    module._aliases_said.clear()
    path = toml('text_encoder = "minilm"')
    for _ in range(2):
        assert getattr(load_config(path, [f"{alias}={value}"]), name) == read
    assert capsys.readouterr().err == f"note: --set {alias} is {name} here\n"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("max_epochs=2", "unknown key 'max_epochs': did you mean 'training.max_epochs'?"),
        ("model.batch_size=2", "'model.batch_size': did you mean 'training.batch_size'?"),
        ("training.dim=2", "unknown key 'training.dim': did you mean 'model.dim'?"),
        ("training.seed=2", "unknown key 'training.seed': did you mean 'seed'?"),
        ("training.epochs=2", "unknown key 'training.epochs': did you mean 'max_epochs'?"),
        ("trainin.max_epochs=2", "key 'trainin.max_epochs': did you mean 'training.max_epochs'?"),
        ("learning_rates.main=2", "did you mean 'training.learning_rates.main'?"),
        ("text_encoder.layers=2", "a value, not a table; did you mean 'num_trained_text_layers'?"),
        ("text_encoder.tokens=2", "a value, not a table; did you mean 'max_text_tokens'?"),
    ],
)
def test_unknown_key_names_the_nearest_one_of_the_whole_config(
    toml: Any, override: str, named: str
) -> None:
    # The file names no text encoder: what is left at its default is no table either.
    with pytest.raises(UserError, match=re.escape(named)):
        load_config(toml("seed = 3"), [override])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_shipped_config_parses_and_is_found_by_its_place(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(path)
    assert config.method in METHODS
    assert find_config(path.relative_to(configs_folder())) == path
    assert find_config(Path("configs") / path.relative_to(configs_folder())) == path


# Every shipped config as it was when each had its whole budget in its own file. What is changed in
# a config on purpose is changed here, too.
IN_FULL = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "configs-in-full.json").read_text("utf-8")
)


@pytest.mark.parametrize("name", sorted(IN_FULL))
def test_a_config_that_extends_its_budget_says_what_it_said_in_full(name: str) -> None:
    assert load_config(configs_folder() / name) == parse_config(IN_FULL[name])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_shipped_config_shows_what_departs_from_its_budget_and_nothing_else(path: Path) -> None:
    own = tomllib.loads(path.read_text(encoding="utf-8"))
    budget = tomllib.loads((path.parent / own["extends"]).read_text(encoding="utf-8"))

    def repeated(own: dict[str, Any], budget: dict[str, Any]) -> list[str]:
        both = [key for key in own if key in budget]
        tables = [key for key in both if isinstance(own[key], dict)]
        inner = [f"{t}.{key}" for t in tables for key in repeated(own[t], budget[t])]
        return inner + [key for key in both if key not in tables and own[key] == budget[key]]

    assert not repeated(own, budget)
    assert not {"method", "model", "seed"} & budget.keys()


def test_what_a_file_says_replaces_what_it_extends_key_by_key(toml: Any, tmp_path: Path) -> None:
    (tmp_path / "budget.toml").write_text(
        "max_text_tokens = 96\n[training]\nmax_epochs = 4\nbatch_size = 16\n"
        "[training.learning_rates]\ntext_encoder = 5e-5\nmain = 1e-2\n",
        encoding="utf-8",
    )
    path = toml(
        'extends = "budget.toml"\nmethod = "concat"\n[training]\nbatch_size = 8\n'
        "[training.learning_rates]\nmain = 1e-3\n"
    )
    config = load_config(path, ["training.max_epochs=2"])
    assert (config.method, config.max_text_tokens) == ("concat", 96)
    assert (config.training.max_epochs, config.training.batch_size) == (2, 8)
    assert config.training.learning_rates == {"text_encoder": 5e-5, "main": 1e-3}
    assert "extends" not in config.as_dict(), "a run's record has the values, not where they stood"


@pytest.mark.parametrize(
    ("base", "extends", "error"),
    [
        (None, '"budget.toml"', "it extends budget.toml, and there is no such file beside it"),
        (
            'extends = "more.toml"',
            '"budget.toml"',
            "extends budget.toml, which extends 'more.toml'",
        ),
        ('extends = "config.toml"', '"budget.toml"', "may extend a file that extends none"),
        ("seed = 1", '"config.toml"', "may extend a file that extends none"),
        ("seed = 1", "3", "extends must be the name of a TOML file, got 3"),
        ("seed = 1", '""', "extends must be the name of a TOML file, got ''"),
        ("seed = = 1", '"budget.toml"', "budget.toml: expected a TOML file, got"),
        ("sede = 1", '"budget.toml"', "unknown key 'sede'"),
        ("training = 1", '"budget.toml"', "training must be a table, got 1"),
    ],
)
def test_a_file_that_cannot_be_extended_is_named(
    toml: Any, tmp_path: Path, base: str | None, extends: str, error: str
) -> None:
    if base is not None:
        (tmp_path / "budget.toml").write_text(base, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(error)):
        load_config(toml(f"extends = {extends}"))


def test_budgets_are_not_listed_and_are_in_the_wheel_beside_the_configs() -> None:
    assert not [path for path in SHIPPED if path.name.startswith("budget")]
    for folder in {path.parent for path in SHIPPED}:
        assert (folder / "budget.toml").is_file()
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["configs"] == "tecafn/configs", "the whole folder"


def test_configs_are_shipped() -> None:
    assert {path.parent.name for path in SHIPPED} >= {"mosi", "synthetic"}


def _round_trip(config: RunConfig, path: Path) -> RunConfig:
    write_config(config, path)
    return load_config(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_config_survives_the_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert _round_trip(config, tmp_path / "again.toml") == config


@pytest.mark.parametrize("name", list(METHODS))
def test_defaults_of_every_method_survive_the_round_trip(name: str, tmp_path: Path) -> None:
    config = parse_config({"method": name})
    assert isinstance(config.model, METHODS[name].config)
    assert _round_trip(config, tmp_path / "again.toml") == config


@pytest.mark.parametrize("name", list(METHODS))
def test_setting_that_may_be_none_is_none_by_default(name: str) -> None:
    # TOML has no None: it is left out of the file, and comes back as the default.
    for kind in (RunConfig, TrainingConfig, METHODS[name].config):
        for field in dataclasses.fields(kind):
            if "None" in str(field.type):
                assert field.default is None, field.name


CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31),
        "text_encoder": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        "num_trained_text_layers": st.integers(0, 12) | st.just("all"),
        "max_text_tokens": st.integers(8, 512),
        "modalities": st.lists(st.sampled_from(list(Modality)), min_size=1, unique=True),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "max_epochs": st.integers(1, 100),
                "learning_rate": st.floats(1e-8, 10),
                "learning_rates": st.dictionaries(st.text("abc_. \"'"), st.floats(1e-8, 1)),
                "schedule": st.sampled_from(["plateau", "linear", "cosine", "constant"]),
                "decay_norm_and_bias": st.booleans(),
            },
        ),
        "model": st.fixed_dictionaries(
            {},
            optional={
                "core": st.just(Modality.TEXT),
                "swap_probability": st.floats(0, 1)
                | st.dictionaries(st.sampled_from(list(Modality)), st.floats(0, 1)),
                "num_hard_negatives": st.integers(1, 30)
                | st.just("all")
                | st.just({Modality.AUDIO: "all", Modality.VISION: 2}),
                "weights": st.dictionaries(st.sampled_from(["ta", "bicon"]), st.floats(0, 2)),
            },
        ),
    },
)


@given(raw=CONFIGS)
@settings(max_examples=60, deadline=None)
def test_any_config_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, raw: dict[str, Any]
) -> None:
    config = parse_config(raw)
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    assert _round_trip(config, path) == config
    # And through the record, which holds the same as JSON.
    assert parse_config(config.as_dict()) == config
    tomllib.loads(path.read_text(encoding="utf-8"))
