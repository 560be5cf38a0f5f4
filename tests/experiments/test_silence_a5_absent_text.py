"""A5 and C: absent text is refused in training; what else is absent is said with counts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.data import DatasetDescription, Sample, StoreWriter
from tecafn.data.store import Store
from tecafn.experiments.config import RunConfig, load_config
from tecafn.experiments.evaluate import evaluate_run, predict_run
from tecafn.experiments.setup import describe_data
from tecafn.serving.predictor import load

WIDTHS = {Modality.TEXT: 6, Modality.AUDIO: 5, Modality.VISION: 20}
ABSENT = np.full((2, 20), np.nan, np.float32)


def write_store(
    path: Path,
    *,
    modalities: str = "tav",
    sentences: Sequence[str] = ("good",),
    without: dict[int, str] | None = None,
    aligned: bool = False,
) -> Path:
    """8 samples per split; ``modalities`` has the letters of stored frames."""
    random = np.random.default_rng(0)
    widths = {m: width for m, width in WIDTHS.items() if m[0] in modalities}
    description = DatasetDescription(dataset="tiny", widths=widths, aligned=aligned)
    with StoreWriter(path, description) as writer:
        for split in ("train", "valid", "test"):
            for number in range(8):
                lacking = (without or {}).get(number, "")
                writer.add(
                    Sample(
                        id=f"{split}{number // 4}_{number % 4}",
                        source_id=f"{split}{number // 4}_{number % 4}",
                        video=f"{split}{number // 4}",
                        clip=str(number % 4),
                        split=split,
                        text="" if "t" in lacking else sentences[number % len(sentences)],
                        label=float(random.uniform(-3, 3)),
                        sequences={
                            m: random.normal(size=(3, width)).astype(np.float32)
                            for m, width in widths.items()
                            if m[0] not in lacking
                        },
                    )
                )
    return path


def config_of(tiny_toml: Path, method: str = "tecafn", *overrides: str) -> RunConfig:
    settings = load_config(tiny_toml, overrides)
    import dataclasses

    return dataclasses.replace(settings, method=method, model=METHODS[method].config())


@pytest.mark.parametrize("method", ["tecafn", "misa", "mag_bert", "concat"])
def test_text_vectors_alone_are_refused_with_an_encoder_and_features_are_named(
    tmp_path: Path, tiny_toml: Path, method: str
) -> None:
    store = Store.open(write_store(tmp_path / "store", sentences=["", " \u200b"], aligned=True))
    told = r"split 'train' of .* has none; it has text vectors 6 wide: use --set text_encoder=feat"
    with pytest.raises(UserError, match=told) as caught:
        describe_data(store, store.split("train"), config_of(tiny_toml, method))
    assert "\n" not in str(caught.value)
    features = config_of(tiny_toml, method, "text_encoder=features")
    assert describe_data(store, store.split("train"), features).usable == tuple(Modality)


def test_no_text_at_all_names_the_setting_that_leaves_it_out(
    tmp_path: Path, tiny_toml: Path
) -> None:
    store = Store.open(write_store(tmp_path / "store", modalities="av", sentences=[""]))
    for encoder in ((), ("text_encoder=features",)):
        with pytest.raises(UserError, match=r"no text at all: .*'modalities=\[\"audio\",\"vision"):
            describe_data(store, store.split("train"), config_of(tiny_toml, "misa", *encoder))
    left_out = config_of(tiny_toml, "misa", 'modalities=["audio","vision"]')
    usable = describe_data(store, store.split("train"), left_out).usable
    assert usable == (Modality.AUDIO, Modality.VISION)


def test_features_of_data_with_sentences_name_an_encoder(tmp_path: Path, tiny_toml: Path) -> None:
    store = Store.open(write_store(tmp_path / "store", modalities="av"))
    with pytest.raises(UserError, match="it has 8 sentences: name an encoder"):
        describe_data(
            store, store.split("train"), config_of(tiny_toml, "tecafn", "text_encoder=features")
        )


def test_what_some_samples_lack_is_said_with_counts_in_training(
    tmp_path: Path, train_tiny: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_store(tmp_path / "store", modalities="av", without={1: "t", 2: "tv", 5: "v"})
    train_tiny("run", "training.max_epochs=1", data=data)
    said = capsys.readouterr().err
    for split in ("train", "valid"):
        assert f"note: text is absent for 2 of 8 samples of split '{split}'\n" in said
        assert f"note: vision is absent for 2 of 8 samples of split '{split}'\n" in said
    assert "audio is absent" not in said


def predicted(path: Path) -> list[float]:
    with path.open(newline="", encoding="utf-8") as file:
        return [float(row["prediction"]) for row in csv.DictReader(file)]


def test_predict_on_data_without_vision_predicts_and_says_so(
    tiny_run: Path,
    make_store: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_store(tmp_path / "store", vision=None)
    out = tmp_path / "p.csv"
    assert predict_run(tiny_run, data=data, split="test", out=out, device="cpu") == 12
    said = capsys.readouterr().err
    assert "note: vision is absent for 12 of 12 samples of split 'test': the dataset has" in said
    view = Store.open(data).split("test")
    audio = [view.sequence(row, Modality.AUDIO) for row in range(12)]
    expected = load(tiny_run).predict(view.texts, audio=audio)
    assert predicted(out) == pytest.approx(expected.tolist(), abs=1e-5)


def test_predict_counts_what_single_samples_lack(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_store(tmp_path / "store", modalities="av", without={0: "a", 3: "tav", 4: "ta"})
    predict_run(tiny_run, data=data, split="test", out=tmp_path / "p.csv", device="cpu")
    said = capsys.readouterr().err
    assert "note: text is absent for 2 of 8 samples of split 'test'\n" in said
    assert "note: audio is absent for 3 of 8 samples of split 'test'\n" in said
    assert "note: vision is absent for 1 of 8 samples of split 'test'\n" in said
    assert "warning: 1 of 8 samples of split 'test' have none of text, audio, vision, for " in said
    assert np.isfinite(predicted(tmp_path / "p.csv")).all()


def test_predict_where_nothing_can_be_read_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    data = write_store(tmp_path / "store", modalities="t", sentences=[""])
    with pytest.raises(UserError, match="no sample of split 'test' has any of them"):
        predict_run(tiny_run, data=data, split="test", out=tmp_path / "p.csv", device="cpu")


def test_evaluate_says_and_records_what_was_absent(
    tiny_run: Path, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    import shutil

    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    data = make_store(tmp_path / "store", vision=None)
    assert evaluate_run(run, data=data, split="test", device="cpu")["absent"] == {"vision": 12}
