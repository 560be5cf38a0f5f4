"""A table as data: what its file may say, and what becomes of a mistake in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.tables import flatten
from tecafn.experiments.config import load_config
from tecafn.experiments.rows import Row, check_rows, read_table
from tecafn.experiments.shipped import configs_folder, find_config
from tecafn.methods.tecafn import TeCaFNConfig

WHOLE = """
title = "What p does"
notes = ["One paragraph."]
config = "synthetic/tecafn.toml"
split = "test"
seeds = 3
against = "as it is"
sort = "rows"
set = ["training.max_epochs=2"]

[rows."as it is"]
[rows."no gate"]
set = ["model.swap_probability=0.0"]
note = "No sample is replaced."
x = 0
[rows.other]
config = "synthetic/concat.toml"
"""

MakeTable = Callable[[str], Path]


@pytest.fixture
def make_table(tmp_path: Path) -> MakeTable:
    def make(text: str) -> Path:
        path = tmp_path / "table.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return make


def test_a_table_is_read_in_the_order_of_its_file(make_table: MakeTable) -> None:
    table = read_table(make_table(WHOLE))
    assert [row.name for row in table.rows] == ["as it is", "no gate", "other"]
    assert table.rows[1].overrides == ("model.swap_probability=0.0",)
    assert (table.rows[1].x, table.rows[0].x) == (0.0, None)
    assert table.rows[2].config == "synthetic/concat.toml"
    assert (table.seeds, table.split, table.against) == ((0, 1, 2), "test", "as it is")
    assert (table.sort, table.overrides) == ("rows", ("training.max_epochs=2",))


def test_a_config_may_lie_beside_the_table(make_table: MakeTable, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("method = 'concat'\n", encoding="utf-8")
    table = read_table(make_table('config = "mine.toml"\n[rows.a]\n'))
    assert table.rows[0].config == str(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('config = "a"\nseed = 1\n[rows.a]\n', "unknown key 'seed': did you mean 'seeds'"),
        ('config = "a"\n[rows.a]\nsets = []\n', r"rows\.a: unknown key 'sets': did you mean 'set'"),
        ("[rows.a]\n", r"rows\.a: expected a config or a method"),
        ('config = "a"\n', "expected rows"),
        ('config = "a"\nseeds = [1, 1]\n[rows.a]\n', "seeds must be how many"),
        ('config = "a"\nseeds = 0\n[rows.a]\n', "seeds must be how many"),
        ('config = "a"\nseeds = true\n[rows.a]\n', "seeds must be how many"),
        ('config = "a"\nagainst = "b"\n[rows.a]\n', "against 'b' is no row"),
        ('config = "a"\n[rows.a]\nset = "x=1"\n', "set must be a list of texts"),
        ('config = "a"\n[rows.a]\nx = "1"\n', "x must be a number"),
        ('config = "a"\n[rows."a b"]\n[rows."a-b"]\n', "rows must differ, got 'a b' and 'a-b'"),
        ('config = "a"\n[rows.a]\n[rows.A]\n', "rows must differ, got 'a' and 'A'"),
        ('config = "a"\n[rows."a:b"]\n', "no ':'"),
        ('config = "a"\n[rows."../.."]\n', "letter or digit"),
        ('config = "a"\n[rows."comparison.json"]\n', "is a file of the comparison"),
        ('config = "a"\n[rows."Comparison.md"]\n', "is a file of the comparison"),
        ('config = "a"\nmethod = "b"\n[rows.a]\n', "either a method or a config"),
        ("not toml", "expected a TOML file"),
    ],
)
def test_a_mistake_in_a_table_is_one_line(make_table: MakeTable, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_table(make_table(text))


def test_a_row_stays_inside_the_folder_of_its_table() -> None:
    for name in ("../x", "/etc/x", "..x", "a/b"):
        folder = Row(name=name, method="m").folder
        assert "/" not in folder
        assert not folder.startswith(".")
    with pytest.raises(UserError, match="at least one row"):
        check_rows(())


def test_the_command_says_a_mistake_without_torch(
    make_table: MakeTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_table('config = "a"\nseed = 1\n[rows.a]\n')
    arguments = ["compare", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--rows", str(path)]) == 2
    assert "unknown key 'seed'" in capsys.readouterr().err
    assert main([*arguments, "--rows", str(path), "--methods", "all"]) == 2
    assert "not both" in capsys.readouterr().err
    assert main([*arguments, "--rows", str(tmp_path / "none.toml")]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["table4", "table5", "table6", "table7", "table8", "figure3"])
@pytest.mark.parametrize("folder", ["synthetic", "mosi", "mosei"])
def test_every_row_of_the_papers_tables_is_a_config_on_every_dataset(
    name: str, folder: str
) -> None:
    table = read_table(Path(name))
    settings = {}
    for row in table.rows:
        config = configs_folder() / folder / f"{row.method}.toml"
        if config.is_file():
            settings[row.name] = load_config(config, (*table.overrides, *row.overrides)).as_dict()
    assert settings
    of_tecafn = [own for own in settings.values() if own["method"] == "tecafn"]
    assert {own["model"]["variant"] for own in of_tecafn} == {"paper"}, "the paper's own tables"
    if name != "table4":
        assert len(settings) == len(table.rows)
        shown = [str(sorted(flatten(values).items())) for values in settings.values()]
        base = load_config(configs_folder() / folder / "tecafn.toml").as_dict()
        # Rows differ from each other; one of them may be the config as it is.
        assert len(set(shown)) == len(shown)
        assert base["method"] == "tecafn"


@pytest.mark.parametrize("name", ["figure4", "fusion", "revised", "revised-compared"])
def test_every_row_of_a_table_with_configs_loads_and_differs_from_the_others(name: str) -> None:
    table = read_table(Path(name))
    shown = []
    for row in table.rows:
        config = row.config or f"synthetic/{row.method}.toml"
        settings = load_config(
            find_config(Path(config)), (*table.overrides, *row.overrides)
        ).as_dict()
        shown.append(str(sorted(flatten(settings).items())))
    assert len(set(shown)) == len(shown)


def test_table_5_has_the_fourteen_rows_and_changes_what_the_paper_says() -> None:
    rows = {row.name: row for row in read_table(Path("tecafn/table5")).rows}
    assert len(rows) == 14
    path = configs_folder() / "mosei" / "tecafn.toml"

    def model(name: str) -> TeCaFNConfig:
        config: TeCaFNConfig = load_config(path, rows[name].overrides).model
        return config

    p = model("TeCaFN").swap_probability_for(Modality.VISION)
    assert 0 < p < 1
    gate = model("w/o L_tap")
    assert (
        gate.swap_probability_for(Modality.AUDIO),
        gate.swap_probability_for(Modality.VISION),
    ) == (0.0, p)
    assert gate.term_weights()["tap"] == 0
    assert gate.term_weights()["tvp"] == model("TeCaFN").term_weights()["tvp"] > 0
    random = model("w/o Hardneg_ta")
    assert random.num_hard_negatives_for(Modality.AUDIO) is None
    assert random.num_hard_negatives_for(Modality.VISION) == 3
    assert model("w/o L_ta").term_weights()["ta"] == 0 < model("w/o L_ta").term_weights()["tv"]
    assert load_config(path, rows["w/o V, A"].overrides).modalities == (Modality.TEXT,)


def test_one_modality_of_a_value_for_all_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("method = 'tecafn'\n[model]\nswap_probability = 0.4\n", encoding="utf-8")
    model = load_config(path, ["model.swap_probability.audio=0.1"]).model
    assert model.swap_probability == {Modality.AUDIO: 0.1, Modality.VISION: 0.4}
    # A value that the file leaves at its default, and another core.
    path.write_text("method = 'tecafn'\n[model]\ncore = 'audio'\n", encoding="utf-8")
    model = load_config(path, ["model.swap_probability.text=0.1"]).model
    assert model.swap_probability == {Modality.TEXT: 0.1, Modality.VISION: 0.7}
    with pytest.raises(UserError, match="is a value, not a table"):
        load_config(path, ["model.dim=3", "model.dim.audio=4"])
