"""Changed data: what is drawn is a sample's own, rate 0 changes nothing, words keep frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tecafn.core.info import FeatureStatistics
from tecafn.core.modality import Modality
from tecafn.data.corruption import (
    LostFrames,
    Noise,
    OfOthers,
    ReplacedVectors,
    order_of_others,
    pool_of,
    random_of,
)
from tecafn.data.recognition import MistakenWords, soundex
from tecafn.data.store import Store
from tecafn.data.text import StoredVectors, frames_of_changed_texts, frames_of_texts

MakeStore = Callable[..., Path]


@pytest.fixture(scope="module")
def audio(tiny_store: Path) -> StoredVectors:
    return StoredVectors(Store.open(tiny_store).split("test"), Modality.AUDIO)


def test_what_is_lost_at_a_rate_is_lost_at_every_higher_one(audio: StoredVectors) -> None:
    lost = [
        np.concatenate(
            [
                np.isnan(LostFrames(audio, rate=rate, seed=3, stream=1).frames(r)[:, 0])
                for r in range(12)
            ]
        )
        for rate in (0.0, 0.3, 0.6, 0.9, 1.0)
    ]
    assert not lost[0].any()
    assert lost[-1].all()
    for fewer, more in itertools.pairwise(lost):
        assert (fewer <= more).all()
        assert fewer.sum() < more.sum()


def test_at_rate_0_frames_are_the_samples_own(audio: StoredVectors) -> None:
    pool = pool_of([audio.frames(0)], size=3, seed=0)
    for source in (
        LostFrames(audio, rate=0.0, seed=0, stream=0),
        ReplacedVectors(audio, pool, rate=0.0, seed=0, stream=0),
    ):
        assert np.array_equal(source.lengths, audio.lengths)
        for row in range(12):
            assert np.array_equal(source.frames(row), audio.frames(row))


def test_every_sample_gets_the_frames_of_another_one(audio: StoredVectors) -> None:
    order = order_of_others(audio.lengths, seed=0, stream=0)
    assert sorted(order) == list(range(12))
    assert (order != np.arange(12)).all()
    changed = OfOthers(audio, order)
    assert np.array_equal(changed.frames(2), audio.frames(int(order[2])))
    assert changed.lengths[2] == len(changed.frames(2))
    assert not np.array_equal(order, order_of_others(audio.lengths, seed=1, stream=0))


def test_noise_has_the_mean_and_deviation_that_it_is_given(audio: StoredVectors) -> None:
    long = StoredVectorsOf(np.full(40, 200))
    noise = Noise(long, FeatureStatistics(mean=[5.0, -1.0], std=[2.0, 0.0]), seed=0, stream=0)
    drawn = np.concatenate([noise.frames(row) for row in range(40)])
    assert drawn.mean(0) == pytest.approx([5.0, -1.0], abs=0.1)
    assert drawn.std(0) == pytest.approx([2.0, 0.0], abs=0.1)
    assert np.array_equal(noise.frames(7), noise.frames(7))
    assert not np.array_equal(noise.frames(7), noise.frames(8))


class StoredVectorsOf:
    """So many frames, which nobody reads."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths
        self.width = 2

    def frames(self, row: int) -> np.ndarray:
        raise AssertionError("noise reads no frames")


def test_replaced_vectors_are_of_the_pool(audio: StoredVectors) -> None:
    pool = np.full((4, 5), 9.0, np.float32)
    half = ReplacedVectors(audio, pool, rate=0.5, seed=0, stream=0)
    rows = np.concatenate([half.frames(row) for row in range(12)])
    own = np.concatenate([audio.frames(row) for row in range(12)])
    is_new = (rows == 9.0).all(1)
    assert 0.2 < is_new.mean() < 0.8
    assert np.array_equal(rows[~is_new], own[~is_new])


# Words

TRAIN = ["a good film", "a god of gold", "the robert and the rupert", "rupert again"]


def test_a_word_is_mistaken_for_one_that_sounds_alike() -> None:
    words = MistakenWords(TRAIN)
    for seed in range(5):
        changed = words.replace("Robert!", rate=1.0, random=np.random.default_rng(seed))
        assert changed.text == "rupert!"
    alone = words.replace("film", rate=1.0, random=np.random.default_rng(0)).text
    assert soundex(alone) != soundex("film")
    assert alone in " ".join(TRAIN).split()


def test_mistaken_words_are_as_many_as_asked_and_nested() -> None:
    words = MistakenWords(TRAIN)
    text = " ".join(["good film of the gold"] * 200)
    texts = [
        words.replace(text, rate=rate, random=random_of(0, seed=0, stream=0)).text.split()
        for rate in (0.0, 0.2, 0.5)
    ]
    assert texts[0] == text.split()
    shares = [np.mean([a != b for a, b in zip(texts[0], other, strict=True)]) for other in texts]
    assert shares == pytest.approx([0.0, 0.2, 0.5], abs=0.05)
    for own, few, many in zip(*texts, strict=True):
        assert few in (own, many)


def test_what_stands_between_words_stays_and_spans_name_the_words() -> None:
    words = MistakenWords(TRAIN)
    changed = words.replace("Good, -- FILM?", rate=1.0, random=np.random.default_rng(0))
    first, last = (changed.text[start:end] for start, end in changed.after)
    assert changed.text == f"{first}, -- {last}?"
    assert [("Good, -- FILM?")[s:e] for s, e in changed.before] == ["Good", "FILM"]
    for empty in ("", "  ", "?!"):
        kept = words.replace(empty, rate=1.0, random=np.random.default_rng(0))
        assert (kept.text, kept.before) == (empty, ())


def test_of_chinese_each_character_is_a_word() -> None:
    words = MistakenWords(["\u4f60\u597d", "\u5f88\u597d"])
    changed = words.replace("\u4f60\u597d", rate=1.0, random=np.random.default_rng(0))
    assert len(changed.before) == len(changed.text) == 2
    assert all(a != b for a, b in zip(changed.text, "\u4f60\u597d", strict=True))


def test_a_vocabulary_of_one_word_replaces_nothing() -> None:
    changed = MistakenWords(["no no"]).replace("No", rate=1.0, random=np.random.default_rng(0))
    assert changed.text == "No"


def test_a_mistaken_word_keeps_the_frame_in_which_it_was_spoken(tmp_path: Path) -> None:
    from tecafn.data import DatasetDescription, Sample, StoreWriter

    described = DatasetDescription(dataset="toy", widths={Modality.AUDIO: 1}, aligned=True)
    with StoreWriter(tmp_path / "store", described) as writer:
        for number, (text, said) in enumerate(
            [("a Good, film!", ("sp", "a", "good", "film")), ("gold", ("uh", "gold"))]
        ):
            writer.add(
                Sample(
                    id=f"v_{number}", source_id="", video="v", clip=str(number), split="train",
                    text=text, label=0.0, words=said,
                    sequences={Modality.AUDIO: np.zeros((len(said), 1), np.float32)},
                )
            )  # fmt: skip
    view = Store.open(tmp_path / "store").split("train")

    def spans(texts: Sequence[str], contexts: Sequence[str | None]) -> list[np.ndarray]:
        """[CLS], then a token per character, as a tokenizer of characters would give."""
        return [
            np.array([(-1, -1), *((k, k + 1) for k, c in enumerate(text))], np.int64)
            for text in texts
        ]

    words = MistakenWords([*view.texts, "the rupert"])
    same = [words.replace(t, rate=0.0, random=random_of(0, seed=0, stream=0)) for t in view.texts]
    usual = frames_of_texts(view, spans)
    kept = frames_of_changed_texts(view, spans, same)
    assert usual is not None
    assert kept is not None
    assert [f.tolist() for f in kept] == [f.tolist() for f in usual]
    changed = [
        words.replace(t, rate=1.0, random=random_of(0, seed=0, stream=0)) for t in view.texts
    ]
    moved = frames_of_changed_texts(view, spans, changed)
    assert moved is not None
    for one, frames, places in zip(changed, moved, [(1, 2, 3), (1,)], strict=True):
        for (start, end), place in zip(one.after, places, strict=True):
            assert set(frames[1 + start : 1 + end].tolist()) == {place}
