"""Where each token was spoken: made of a text, its tokens' characters, and the frames' words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tecafn.core.batch import Batch
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data import BatchLoader, DatasetDescription, Sample, Store, StoreWriter, import_dataset
from tecafn.data.text import align_tokens, frames_of_texts
from tecafn.layers.text_encoder import Tokenizer

WIDTHS = {Modality.AUDIO: 2, Modality.VISION: 3}


def spans_of(text: str) -> NDArray[np.int64]:
    """[CLS], the words cut into pieces of three letters, [SEP]."""
    spans, at = [(-1, -1)], 0
    for word in text.split(" "):
        spans += [(at + start, at + min(start + 3, len(word))) for start in range(0, len(word), 3)]
        at += len(word) + 1
    return np.array([*spans, (-1, -1)], np.int64)


def spans(texts: Sequence[str], contexts: Sequence[str | None]) -> list[NDArray[np.int64]]:
    assert len(texts) == len(contexts)
    return [spans_of(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("so good", ["so", "good"], [-1, 0, 1, 1, -1]),
        ("so good", ["SO", "sp", "GOOD", "sp"], [-1, 0, 2, 2, -1]),
        ("It's so, so bad.", ["it\u2019s", "so", "SO", "bad"], [-1, 0, 0, 1, 2, 3, -1, -1]),
        ("it was bad", ["it", "uh", "bad"], [-1, 0, -1, 2, -1]),
        ("one-way", ["one", "way"], [-1, 0, 1, 1, -1]),
        ("sp sp", ["sp", "sp"], [-1, -1, -1, -1]),
        ("bad", [], [-1, -1, -1]),
        ("... bad", ["bad"], [-1, -1, 0, -1]),
    ],
)
def test_tokens_find_their_word(text: str, words: list[str], expected: list[int]) -> None:
    assert align_tokens(text, spans_of(text), words).tolist() == expected


def test_a_space_that_a_tokenizer_counts_as_the_tokens_has_no_frame() -> None:
    reach = np.array([[0, 2], [2, 7]], np.int64)  # "so", " good"
    assert align_tokens("so good", reach, ["so", "good"]).tolist() == [0, 1]


def test_repeated_words_are_matched_in_order() -> None:
    text = "the the end the"
    assert align_tokens(text, spans_of(text), ["the", "end", "the"]).tolist() in (
        [-1, 0, -1, 1, 2, -1],
        [-1, -1, 0, 1, 2, -1],
    )


def aligned_store(folder: Path, samples: list[dict[str, Any]], *, aligned: bool = True) -> Store:
    random = np.random.default_rng(0)
    description = DatasetDescription(dataset="toy", widths=WIDTHS, aligned=aligned)
    with StoreWriter(folder, description) as writer:
        for number, fields in enumerate(samples):
            count = len(fields.get("words") or ()) or 2
            frames = {
                m: random.normal(size=(count, width)).astype(np.float32)
                for m, width in WIDTHS.items()
            }
            plain: dict[str, Any] = {
                "id": f"v_{number}",
                "source_id": "",
                "video": "v",
                "clip": str(number),
                "split": "train",
                "label": 0.5,
                "sequences": frames,
            }
            writer.add(Sample(**(plain | fields)))
    return Store.open(folder)


SAMPLES: list[dict[str, Any]] = [
    {"text": "so good", "words": ("so", "sp", "good")},
    {"text": "   ", "words": ("sp",)},
    {"text": "it was dreadful", "words": ("sp", "it", "was", "dreadful")},
    {"text": "no words known", "words": None},
]
EXPECTED = [[-1, 0, 2, 2, -1], [], [-1, 1, 2, 3, 3, 3, -1], [-1] * 7]


def tokenize(texts: Sequence[str], contexts: Sequence[str | None]) -> list[NDArray[np.int64]]:
    return [np.arange(1, len(reach) + 1) for reach in spans(texts, contexts)]


def test_texts_without_words_and_blank_ones_have_no_frame(tmp_path: Path) -> None:
    view = aligned_store(tmp_path / "store", SAMPLES).split("train")
    found = frames_of_texts(view, spans)
    assert found is not None
    assert [frames.tolist() for frames in found] == EXPECTED


def test_without_any_words_there_is_no_alignment(tmp_path: Path) -> None:
    view = aligned_store(tmp_path / "store", SAMPLES[3:]).split("train")
    assert frames_of_texts(view, spans) is None


class Cached:
    """A frozen encoder's states, as long as the texts."""

    def __init__(self, tokens: list[NDArray[np.int64]]) -> None:
        self.tokens = tokens

    def hidden(self, row: int) -> NDArray[np.float32]:
        return np.ones((len(self.tokens[row]), 2), np.float32)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("is_cached", [False, True])
def test_batches_carry_the_frame_of_each_token(
    tmp_path: Path, num_workers: int, is_cached: bool
) -> None:
    view = aligned_store(tmp_path / "store", SAMPLES).split("train")
    tokens = tokenize(view.texts, view.column("context"))
    loader = BatchLoader(
        view,
        modalities=tuple(Modality),
        batch_size=2,
        seed=0,
        shuffle=True,
        text=Cached(tokens) if is_cached else tokenize,
        num_workers=num_workers,
        frame_of_token=frames_of_texts(view, spans),
    )
    seen = 0
    for batch in loader.batches(0):
        assert batch.frame_of_token is not None
        for row, frames in zip(batch.index.tolist(), batch.frame_of_token.tolist(), strict=True):
            own = EXPECTED[row]
            assert frames[: len(own)] == own
            assert set(frames[len(own) :]) <= {-1}
            seen += 1
    assert seen == 4


def test_a_subset_keeps_its_own_frames(tmp_path: Path) -> None:
    view = aligned_store(tmp_path / "store", SAMPLES).split("train").subset([2, 0])
    found = frames_of_texts(view, spans)
    assert found is not None
    assert [frames.tolist() for frames in found] == [EXPECTED[2], EXPECTED[0]]


def test_frames_that_do_not_fit_the_texts_are_refused(tmp_path: Path) -> None:
    view = aligned_store(tmp_path / "store", SAMPLES).split("train")
    with pytest.raises(ValueError, match="one frame for each token"):
        BatchLoader(
            view,
            modalities=tuple(Modality),
            batch_size=2,
            seed=0,
            shuffle=False,
            text=tokenize,
            frame_of_token=[np.zeros(2, np.int64)] * 4,
        )


def test_an_unaligned_loader_says_nothing_of_frames(tmp_path: Path) -> None:
    view = aligned_store(tmp_path / "store", SAMPLES).split("train")
    loader = BatchLoader(
        view, modalities=tuple(Modality), batch_size=4, seed=0, shuffle=False, text=tokenize
    )
    batches: list[Batch] = list(loader.batches(0))
    assert batches[0].frame_of_token is None


# The tokenizer's side


def test_spans_are_the_characters_of_each_token(tiny_bert: Path) -> None:
    tokenizer = Tokenizer(str(tiny_bert))
    (reach,) = tokenizer.spans(["the film was good"])
    text = "the film was good"
    assert [text[start:end] for start, end in reach.tolist() if start >= 0] == text.split()
    assert reach[0].tolist() == reach[-1].tolist() == [-1, -1]


@pytest.mark.parametrize("max_tokens", [8, 16])
def test_spans_of_a_pair_leave_the_context_out_and_fit_the_ids(
    tiny_bert: Path, max_tokens: int
) -> None:
    tokenizer = Tokenizer(str(tiny_bert), max_tokens=max_tokens)
    texts, contexts = ["the film was good", "not bad"], ["the film was", None]
    ids, reaches = tokenizer(texts, contexts), tokenizer.spans(texts, contexts)
    for text, row, reach in zip(texts, ids, reaches, strict=True):
        assert len(row) == len(reach)
        said = [text[start:end] for start, end in reach.tolist() if start >= 0]
        assert said == text.split()


def test_a_tokenizer_that_knows_no_characters_is_one_line(tiny_bert: Path) -> None:
    tokenizer = Tokenizer(str(tiny_bert))

    class Slow:
        is_fast = False

    tokenizer._tokenizer = Slow()
    with pytest.raises(UserError, match=r"needs a fast tokenizer.*Slow does not"):
        tokenizer.spans(["good"])


def test_real_word_aligned_mosi_has_a_frame_for_every_token(
    data_root: Path, tmp_path: Path
) -> None:
    source = data_root / "mosi" / "valid_word_aligned_misa.pkl"
    if not source.is_file():
        pytest.skip("REAL DATA NOT TESTED: no valid_word_aligned_misa.pkl")
    store = import_dataset(source, format="misa", out=tmp_path / "store")
    assert store.description.aligned
    view = store.split("valid")
    tokenizer = Tokenizer("minilm")
    found = frames_of_texts(view, tokenizer.spans)
    assert found is not None
    columns = zip(view.texts, tokenizer.spans(view.texts), found, view.column("words"), strict=True)
    for text, reach, frames, words in columns:
        spoken = frames[reach[:, 0] >= 0]
        assert bool((spoken >= 0).all())
        assert bool((np.diff(spoken) >= 0).all())
        for (start, end), frame in zip(reach.tolist(), frames.tolist(), strict=True):
            if start >= 0:
                assert text[start:end].lower() in words[frame].lower()
        assert {words[frame] for frame in spoken.tolist()} == set(words) - {"sp"}
    assert len(found) == 229


def test_real_punctuated_mosi_texts_find_nearly_all_their_words(
    data_root: Path, tmp_path: Path
) -> None:
    """label.csv's sentences against the words that the aligner timed."""
    folder = data_root / "mosi"
    if not (folder / "CMU_MOSI_ModifiedTimestampedWords.csd").is_file():
        pytest.skip("REAL DATA NOT TESTED: no CMU_MOSI_ModifiedTimestampedWords.csd")
    store = import_dataset(folder, format="csd", out=tmp_path / "store")
    view = store.split("valid")
    tokenizer = Tokenizer("minilm")
    found = frames_of_texts(view, tokenizer.spans)
    assert found is not None
    placed = [
        bool(frame >= 0)
        for reach, frames in zip(tokenizer.spans(view.texts), found, strict=True)
        for (start, _), frame in zip(reach.tolist(), frames.tolist(), strict=True)
        if start >= 0
    ]
    assert sum(placed) / len(placed) > 0.95


def test_selecting_and_moving_keep_the_frames(tmp_path: Path) -> None:
    view = aligned_store(tmp_path / "store", SAMPLES).split("train")
    loader = BatchLoader(
        view,
        modalities=tuple(Modality),
        batch_size=4,
        seed=0,
        shuffle=False,
        text=tokenize,
        frame_of_token=frames_of_texts(view, spans),
    )
    (batch,) = loader.batches(0)
    part = batch.select(torch.tensor([3, 0]))
    assert batch.frame_of_token is not None
    assert part.frame_of_token is not None
    assert torch.equal(part.frame_of_token, batch.frame_of_token[torch.tensor([3, 0])])
    moved = batch.to("meta").frame_of_token
    assert moved is not None
    assert moved.device.type == "meta"
