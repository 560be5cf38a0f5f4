"""Frames and words that are cut are counted and said; what is left belongs together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import BatchLoader, DatasetDescription, Sample, Store, StoreWriter
from tecafn.data.statistics import column_statistics
from tecafn.data.text import frames_of_texts
from tecafn.experiments.config import load_config, parse_config
from tecafn.layers.text_encoder import Tokenizer
from tecafn.serving.predictor import load

WIDTHS = {Modality.AUDIO: 2, Modality.VISION: 3}
LENGTHS = (3, 9, 5)


@pytest.fixture
def aligned_store(tmp_path: Path) -> Path:
    """Three word-aligned samples of 3, 9 and 5 words; a frame's first value is its number."""
    description = DatasetDescription(dataset="tiny", widths=WIDTHS, aligned=True)
    with StoreWriter(tmp_path / "aligned", description) as writer:
        for number, length in enumerate(LENGTHS):
            words = tuple(f"word{place}" for place in range(length))
            frames: dict[Modality, NDArray[np.float32]] = {
                m: np.arange(length, dtype=np.float32)[:, None] + np.zeros((1, w), np.float32)
                for m, w in WIDTHS.items()
            }
            writer.add(
                Sample(
                    id=f"v{number}_0", source_id=f"v{number}_0", video=f"v{number}", clip="0",
                    split="train", text=" ".join(words), label=1.0, sequences=frames, words=words,
                )
            )  # fmt: skip
    return tmp_path / "aligned"


def test_the_first_frames_are_kept_everywhere(aligned_store: Path) -> None:
    whole = Store.open(aligned_store).split("train")
    view = Store.open(aligned_store, max_frames=4).split("train")
    assert whole.lengths(Modality.AUDIO).tolist() == list(LENGTHS)
    assert view.lengths(Modality.AUDIO).tolist() == [3, 4, 4]
    assert view.stored_lengths(Modality.AUDIO).tolist() == list(LENGTHS)
    for modality in WIDTHS:
        assert view.sequence(1, modality)[:, 0].tolist() == [0, 1, 2, 3]
    assert view.subset([1]).sequence(0, Modality.AUDIO)[:, 0].tolist() == [0, 1, 2, 3]
    mean = column_statistics(view, Modality.AUDIO).mean
    assert mean == pytest.approx([np.mean([0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3])] * 2)
    loader = BatchLoader(view, modalities=list(WIDTHS), batch_size=3, seed=0, shuffle=False)
    (batch,) = loader.batches(0)
    assert batch.sequences[Modality.VISION].mask.sum(1).tolist() == [3, 4, 4]


def test_words_of_frames_that_were_cut_have_none(aligned_store: Path) -> None:
    def spans(texts: list[str], contexts: list[str | None]) -> list[NDArray[np.int64]]:
        del contexts
        found = []
        for text in texts:
            starts = np.cumsum([0, *(len(word) + 1 for word in text.split())][:-1])
            ends = starts + [len(word) for word in text.split()]
            found.append(np.stack([starts, ends], 1).astype(np.int64))
        return found

    whole = frames_of_texts(Store.open(aligned_store).split("train"), spans)  # type: ignore[arg-type]
    view = Store.open(aligned_store, max_frames=4).split("train")
    kept = frames_of_texts(view, spans)  # type: ignore[arg-type]
    assert whole is not None
    assert kept is not None
    assert whole[1].tolist() == list(range(9))
    assert kept[1].tolist() == [0, 1, 2, 3, -1, -1, -1, -1, -1]
    assert kept[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", [0, -1])
def test_max_frames_is_at_least_one(value: int) -> None:
    with pytest.raises(UserError, match=f"max_frames must be >= 1, got {value}"):
        parse_config({"max_frames": value})


def test_a_run_without_a_limit_is_written_as_before(tiny_toml: Path) -> None:
    assert "max_frames" not in load_config(tiny_toml).as_dict()


@pytest.mark.usefixtures("no_fsync")
def test_training_evaluating_and_predicting_say_what_is_cut(
    make_store: Callable[..., Path],
    tiny_toml: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = make_store(tmp_path / "store")
    out = tmp_path / "run"
    limits = ("--set", "max_frames=3", "--set", "max_text_tokens=8")

    def told(*arguments: object) -> list[str]:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if " is cut at " in line]

    def expected(split: str) -> list[str]:
        view = Store.open(store).split(split)
        lines = []
        for modality in (Modality.AUDIO, Modality.VISION):
            lengths = view.lengths(modality)
            lines.append(
                f"note: {split}: {modality} of {(lengths > 3).sum()} of {len(view)} samples is cut "
                f"at max_frames 3; the longest has {lengths.max()} frames"
            )
        source = load_config(tiny_toml).text_encoder
        tokens = Tokenizer(source, max_tokens=512)(view.texts)
        sizes = np.array([len(row) for row in tokens])
        assert (sizes > 8).any()
        lines.append(
            f"note: {split}: text of {(sizes > 8).sum()} of {len(view)} samples is cut at "
            f"max_text_tokens 8; the longest has {sizes.max()} tokens"
        )
        return lines

    data = ("--data", store, "--device", "cpu")
    short = ("--set", "training.max_epochs=1", "--quiet")
    trained = told("train", tiny_toml, *data, "--out", out, *limits, *short)
    assert trained == expected("train") + expected("valid")
    assert told("evaluate", out, *data) == expected("test")
    assert told("predict", out, *data, "--out", tmp_path / "p.csv") == expected("test")

    predictor = load(out)
    frames = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    with pytest.warns(UserWarning, match=r"audio of 1 of 1 samples is cut at max_frames 3"):
        cut = predictor.predict(text="good", audio=frames)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert predictor.predict(text="good", audio=frames[:3]).tolist() == cut.tolist()


@pytest.mark.usefixtures("no_fsync")
def test_what_fits_is_not_spoken_of(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("train", tiny_toml, "--data", tiny_store, "--out", tmp_path / "run", "--quiet")
    limits = ("--set", "max_frames=1000", "--set", "training.max_epochs=1", "--device", "cpu")
    assert main([str(part) for part in (*command, *limits)]) == 0
    assert " is cut " not in capsys.readouterr().err
