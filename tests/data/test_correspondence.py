"""A corpus's correspondence: nothing changes without it, and with it only frames do."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from tecafn.core.modality import Modality
from tecafn.data.correspondence import CONTOUR, LEVEL, word_arousal, word_of_frames
from tecafn.data.samples import Sample
from tecafn.data.synthetic import (
    CorpusSpec,
    Latents,
    describe,
    generate,
    generate_with_latents,
    read_traces,
)

AUDIO, VISION = Modality.AUDIO, Modality.VISION
Drawn = list[tuple[Sample, Latents]]

# Of the corpora before there was a correspondence. Texts, labels and times exactly; frames in the
# units of their columns to one digit, as processors differ in the last bit of a product.
EXACT = {
    ("mosi", 0): "b651fcfe1eebd390",
    ("mosi", 7): "57484f63f69ac388",
    ("mosei", 0): "5757319b1f02cb27",
    ("mosei", 7): "62fa713bd7bae36c",
}
FRAMES = {
    ("mosi", 0): "95273c5a0b5220d3",
    ("mosi", 7): "cd3e620e29e9e409",
    ("mosei", 0): "28de7d52c1fc693f",
    ("mosei", 7): "a8f8bb800df51561",
}


def what_is_said(sample: Sample) -> tuple[object, ...]:
    assert sample.word_intervals is not None
    return (
        sample.id, sample.split, sample.text, sample.label, sample.pair_id, sample.start,
        sample.end, sample.words, sample.word_intervals.tolist(),
        [len(frames) for frames in sample.sequences.values()],
    )  # fmt: skip


def hash_of(values: Iterable[object]) -> str:
    return hashlib.sha256(repr(list(values)).encode()).hexdigest()[:16]


def coarse(frames: np.ndarray) -> list[object]:
    """Median and spread-free digits: each value over its column's largest, to one digit."""
    largest = np.abs(frames).max(axis=0)
    return (np.round(np.abs(frames[:6]) / largest, 1)).tolist()


@pytest.mark.parametrize(("shape", "seed"), list(EXACT))
def test_without_a_correspondence_the_corpus_is_what_it_was(shape: Any, seed: Any) -> None:
    samples = list(
        generate(CorpusSpec(shape=shape, num_train=60, num_valid=20, num_test=20, seed=seed))
    )
    assert hash_of(map(what_is_said, samples)) == EXACT[shape, seed]
    frames = (coarse(s.sequences[m]) for s in samples[:10] for m in (AUDIO, VISION))
    assert hash_of(frames) == FRAMES[shape, seed]


@pytest.fixture(scope="module")
def without() -> Drawn:
    return list(generate_with_latents(SPEC))


@pytest.fixture(scope="module")
def whole() -> Drawn:
    """Traces that the words alone decide."""
    return list(generate_with_latents(dataclasses.replace(SPEC, correspondence=1.0)))


@pytest.fixture(scope="module")
def partly() -> Drawn:
    return list(generate_with_latents(dataclasses.replace(SPEC, correspondence=0.6)))


SPEC = CorpusSpec(num_train=900, num_valid=5, num_test=5, seed=3)


def test_a_correspondence_changes_frames_and_nothing_else(without: Drawn, partly: Drawn) -> None:
    for (sample, latents), (other, other_latents) in zip(without, partly, strict=True):
        assert what_is_said(sample) == what_is_said(other)
        assert sample.oracle == other.oracle
        assert dataclasses.replace(other_latents, congruent=True) == latents
        for modality in (AUDIO, VISION):
            assert not np.array_equal(sample.sequences[modality], other.sequences[modality])


def test_the_correspondence_is_in_range_and_described() -> None:
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"correspondence must be in \[0, 1\]"):
            CorpusSpec(correspondence=wrong)
    assert "correspondence" not in describe(CorpusSpec()).notes[0]
    assert describe(CorpusSpec(correspondence=0.6)).notes[0].endswith("correspondence 0.6")


def test_equal_correspondences_give_equal_frames(partly: Drawn) -> None:
    again = generate(dataclasses.replace(SPEC, correspondence=0.6))
    for (sample, _), other in zip(partly[:50], again, strict=False):
        for modality in (AUDIO, VISION):
            assert np.array_equal(sample.sequences[modality], other.sequences[modality])


def levels(drawn: Drawn, modality: Modality) -> np.ndarray:
    """(N,) level of each sample without its video's mean, which the speaker's style moves."""
    values = np.array(
        [read_traces(modality, s.sequences[modality])[:, LEVEL].mean() for s, _ in drawn]
    )
    return within_videos(drawn, values)


def within_videos(drawn: Drawn, values: np.ndarray) -> np.ndarray:
    videos = np.array([s.video for s, _ in drawn])
    values = values.astype(float)
    for video in set(videos):
        values[videos == video] -= values[videos == video].mean()
    return values


def strongest(drawn: Drawn) -> np.ndarray:
    return within_videos(drawn, np.array([word_arousal(s.text).max() for s, _ in drawn]))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


@pytest.mark.parametrize("modality", [AUDIO, VISION])
def test_the_level_follows_the_strongest_word_as_far_as_the_correspondence_says(
    without: Drawn, partly: Drawn, whole: Drawn, modality: Modality
) -> None:
    is_congruent = np.array([latents.congruent for _, latents in partly])
    said = strongest(without)

    def follows(drawn: Drawn) -> float:
        return correlation(levels(drawn, modality)[is_congruent], said[is_congruent])

    assert abs(follows(without)) < 0.08
    assert 0.55 < follows(partly) < 0.85  # sqrt(0.6) but for the frames' noise
    assert follows(whole) > 0.9


def test_the_voice_of_an_incongruent_clip_goes_against_its_words_and_the_face_with_them(
    whole: Drawn,
) -> None:
    is_congruent = np.array([latents.congruent for _, latents in whole])
    agreement = np.array([latents.prosody * latents.expression for _, latents in whole])
    assert np.array_equal(is_congruent, agreement >= -0.5)
    assert 0.15 < np.mean(~is_congruent) < 0.27
    said = strongest(whole)
    assert correlation(levels(whole, AUDIO)[~is_congruent], said[~is_congruent]) < -0.85
    assert correlation(levels(whole, VISION)[~is_congruent], said[~is_congruent]) > 0.85


@pytest.mark.parametrize("modality", [AUDIO, VISION])
def test_energy_and_beats_follow_the_arousal_word_by_word(whole: Drawn, modality: Modality) -> None:
    """In clips with words of several strengths: within the clip, over its frames."""
    found = []
    for sample, latents in whole:
        arousal = word_arousal(sample.text)
        frames = sample.sequences[modality]
        if arousal.std() < 0.3 or len(frames) < 40 or not latents.congruent:
            continue
        assert sample.word_intervals is not None
        place = word_of_frames(sample.word_intervals.astype(float), len(frames))
        found.append(correlation(read_traces(modality, frames)[:, CONTOUR], arousal[place]))
    assert len(found) > 100
    assert np.mean(found) > 0.7


def test_the_speakers_style_runs_through_voice_and_face(without: Drawn, whole: Drawn) -> None:
    def style(drawn: Drawn, modality: Modality) -> np.ndarray:
        videos = sorted({s.video for s, _ in drawn})
        values = np.array(
            [read_traces(modality, s.sequences[modality])[:, LEVEL].mean() for s, _ in drawn]
        )
        names = np.array([s.video for s, _ in drawn])
        return np.array([values[names == video].mean() for video in videos])

    assert correlation(style(whole, AUDIO), style(whole, VISION)) > 0.8
    assert abs(correlation(style(without, AUDIO), style(without, VISION))) < 0.4


def test_stress_falls_on_the_word_that_carries_the_sentiment(without: Drawn, whole: Drawn) -> None:
    """The latent's course rises there, in the direction of the signal, where p is large."""

    def rise(drawn: Drawn) -> float:
        rises = []
        for sample, latents in drawn:
            arousal = word_arousal(sample.text)
            if abs(latents.prosody) < 1 or len(arousal) < 8 or arousal.max() == 0:
                continue
            assert sample.word_intervals is not None
            frames = sample.sequences[AUDIO]
            place = word_of_frames(sample.word_intervals.astype(float), len(frames))
            there = place == arousal.argmax()
            if there.any() and not there.all():
                course = read_signal(frames) * np.sign(latents.prosody)
                rises.append(course[there].mean() - course[~there].mean())
        return float(np.mean(rises))

    assert rise(whole) > rise(without) + 0.2


def read_signal(frames: np.ndarray) -> np.ndarray:
    from tecafn.data.synthetic import _AUDIO_COLUMNS

    columns = _AUDIO_COLUMNS[frames.shape[1]]
    factors = (frames / columns.scale - columns.level) @ np.linalg.pinv(columns.mixing)
    return np.asarray(factors @ columns.signal)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It was okay.", [0, 0, 0.3]),
        ("I really enjoyed the soup.", [0, 1.68, 1.68, 0, 0]),
        ("The plot was a little dull, but I loved it.", [0, 0, 0, 0.55, 0.55, 0.55, 0, 0, 2.1, 0]),
        ("Five stars from me.", [2.2, 2.2, 2.2, 2.2]),
        ("It opened in May.", [0, 0, 0, 0]),
    ],
)
def test_a_word_has_the_size_of_its_phrases_valence_times_its_degree(
    text: Any, expected: Any
) -> None:
    np.testing.assert_allclose(word_arousal(text), expected)


def test_every_word_has_an_arousal_and_almost_every_remark_some(without: Drawn) -> None:
    strong = 0
    for sample, _ in without:
        arousal = word_arousal(sample.text)
        assert len(arousal) == len(sample.words or ())
        strong += arousal.max() > 0
    assert strong > 0.95 * len(without)
