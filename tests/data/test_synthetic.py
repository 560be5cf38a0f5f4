"""The synthetic corpus: the same every time, pairs as designed, shares and ceiling as told."""

from __future__ import annotations

import hashlib
import itertools
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.core.modality import Modality
from tecafn.data.lexicon import TOPICS
from tecafn.data.remarks import Draws, compose, reword, words_of
from tecafn.data.samples import Sample
from tecafn.data.store import Store
from tecafn.data.synthetic import (
    LABEL_RANGE,
    WIDTHS,
    CorpusSpec,
    Latents,
    describe,
    generate,
    generate_with_latents,
    make_corpus,
    score,
)

SPEC = CorpusSpec(num_train=1500, num_valid=300, num_test=1500)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Sample, Latents]]:
    return list(generate_with_latents(SPEC))


@pytest.fixture(scope="module")
def designed(drawn: list[tuple[Sample, Latents]]) -> list[list[tuple[Sample, Latents]]]:
    groups: dict[str, list[tuple[Sample, Latents]]] = defaultdict(list)
    for sample, latents in drawn:
        if sample.pair_id is not None:
            groups[sample.pair_id].append((sample, latents))
    return list(groups.values())


def digest(samples: Iterable[Sample]) -> str:
    """SHA-256 of everything a sample holds."""
    sha = hashlib.sha256()
    for sample in samples:
        plain = (
            sample.id, sample.source_id, sample.video, sample.clip, sample.split, sample.text,
            sample.label, sample.oracle, sample.pair_id, sample.start, sample.end, sample.words,
        )  # fmt: skip
        sha.update(repr(plain).encode())
        assert sample.word_intervals is not None
        sha.update(sample.word_intervals.tobytes())
        for modality in sorted(sample.sequences):
            sha.update(sample.sequences[modality].tobytes())
    return sha.hexdigest()


def test_equal_specs_give_equal_corpora_and_other_seeds_others() -> None:
    spec = CorpusSpec(num_train=60, num_valid=30, num_test=30)
    again = CorpusSpec(num_train=60, num_valid=30, num_test=30)
    other = CorpusSpec(num_train=60, num_valid=30, num_test=30, seed=1)
    assert digest(generate(spec)) == digest(generate(again))
    assert digest(generate(spec)) != digest(generate(other))


def test_a_video_is_the_same_whatever_the_split_sizes() -> None:
    small = CorpusSpec(num_train=100, num_valid=5, num_test=60)
    large = CorpusSpec(num_train=150, num_valid=50, num_test=90)

    def videos(spec: CorpusSpec) -> dict[str, str]:
        return {
            name: digest(samples)
            for name, samples in itertools.groupby(generate(spec), key=lambda s: s.video)
        }

    one, other = videos(small), videos(large)
    for name in ("train00000", "train00001", "train00002", "test00000", "test00001"):
        assert one[name] == other[name]
    assert len(set(other.values())) == len(other)


def test_every_split_has_its_size_and_videos_of_its_own(drawn: Any) -> None:
    sizes = Counter(sample.split for sample, _ in drawn)
    assert sizes == {"train": 1500, "valid": 300, "test": 1500}
    splits_of = defaultdict(set)
    for sample, _ in drawn:
        splits_of[sample.video].add(sample.split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert len({sample.id for sample, _ in drawn}) == len(drawn)
    assert all(sample.id == f"{sample.video}_{sample.clip}" for sample, _ in drawn)
    whole = Counter(sample.video for sample, _ in drawn)
    cut = {
        f"{split}{max(int(v[-5:]) for v in whole if v.startswith(split)):05d}" for split in sizes
    }
    assert all(20 <= count <= 25 for video, count in whole.items() if video not in cut)


@pytest.mark.parametrize("shape", ["mosi", "mosei"])
def test_frames_have_the_shape_and_are_finite(shape: Any) -> None:
    spec = CorpusSpec(shape=shape, num_train=120, num_valid=5, num_test=5)
    assert describe(spec).widths == WIDTHS[shape]
    for sample in generate(spec):
        assert set(sample.sequences) == {Modality.AUDIO, Modality.VISION}
        for modality, frames in sample.sequences.items():
            assert frames.dtype == np.float32
            assert frames.shape[1] == WIDTHS[shape][modality]
            assert len(frames) >= 4
            assert np.isfinite(frames).all()


def test_columns_differ_in_scale_by_orders_of_magnitude(drawn: Any) -> None:
    frames = np.concatenate([sample.sequences[Modality.VISION] for sample, _ in drawn[:200]])
    deviations = frames.std(axis=0)
    assert deviations.max() / deviations.min() > 100


def test_labels_are_on_the_scale_and_the_oracle_lacks_only_annotation_noise(drawn: Any) -> None:
    label = np.array([sample.label for sample, _ in drawn])
    oracle = np.array([sample.oracle for sample, _ in drawn])
    t, p, e = np.array([(x.text, x.prosody, x.expression) for _, x in drawn]).T
    low, high = LABEL_RANGE
    assert label.min() >= low
    assert label.max() <= high
    assert np.array_equal(label, np.round(label, 4))
    np.testing.assert_allclose(oracle, np.clip(score(t, p, e), low, high), atol=1e-9)
    inside = (np.abs(label) < high) & (np.abs(oracle) < high)
    noise = (label - oracle)[inside]
    assert noise.std() == pytest.approx(0.115, rel=0.06)
    assert abs(noise.mean()) < 0.01
    assert 1.1 < label.std() < 1.3
    assert np.mean(np.abs(label) == high) < 0.03


def test_text_explains_six_tenths_and_some_of_the_rest_is_joint(drawn: Any) -> None:
    label = np.array([sample.label for sample, _ in drawn])
    t, p, e = np.array([(x.text, x.prosody, x.expression) for _, x in drawn]).T

    def share(part: Any) -> Any:
        return np.corrcoef(part, label)[0, 1] ** 2

    assert share(t) == pytest.approx(0.60, abs=0.04)
    assert share(p) == pytest.approx(0.15, abs=0.04)
    assert share(e) == pytest.approx(0.15, abs=0.04)
    assert share(p * e) == pytest.approx(0.07, abs=0.025)
    np.testing.assert_allclose(np.corrcoef([t, p, e, p * e]), np.eye(4), atol=0.08)
    for latent in (t, p, e):
        assert latent.std() == pytest.approx(1.0, abs=0.05)


def test_lengths_have_their_medians_and_correlations(drawn: Any) -> None:
    words = [len(sample.words or ()) for sample, _ in drawn]
    vision = [len(sample.sequences[Modality.VISION]) for sample, _ in drawn]
    audio = [len(sample.sequences[Modality.AUDIO]) for sample, _ in drawn]
    logs = np.log([words, vision, audio])
    np.testing.assert_allclose(np.exp(np.median(logs, axis=1)), [11, 60, 48], rtol=0.1)
    np.testing.assert_allclose(logs.std(axis=1), [0.6, 0.5, 0.5], atol=0.05)
    np.testing.assert_allclose(np.corrcoef(logs)[np.triu_indices(3, 1)], 0.8, atol=0.05)


def test_words_are_timed_in_order_within_the_utterance(drawn: Any) -> None:
    end_before: dict[str, float] = {}
    for sample, _ in drawn[:300]:
        assert sample.words == words_of(sample.text)
        intervals = sample.word_intervals
        assert intervals is not None
        assert intervals.shape == (len(sample.words), 2)
        assert sample.start is not None
        assert sample.end is not None
        assert intervals[0, 0] == pytest.approx(sample.start, abs=2e-3)
        assert intervals[-1, 1] == pytest.approx(sample.end, abs=2e-3)
        assert (intervals[:, 1] > intervals[:, 0]).all()
        np.testing.assert_array_equal(intervals[1:, 0], intervals[:-1, 1])
        assert sample.start > end_before.get(sample.video, 0.0)
        end_before[sample.video] = sample.end


def test_a_fifth_of_the_samples_are_pairs_in_every_split(drawn: Any) -> None:
    for split in ("train", "valid", "test"):
        paired = [s.pair_id is not None for s, _ in drawn if s.split == split]
        assert 0.17 <= np.mean(paired) <= 0.25


def test_the_demo_has_at_least_300_test_pairs() -> None:
    for seed in range(2):
        spec = CorpusSpec(num_train=1, num_valid=1, num_test=3000, seed=seed)
        pairs = {sample.pair_id for sample in generate(spec)} - {None}
        assert len(pairs) >= 300


def test_a_pair_is_one_remark_in_one_video_a_little_apart(designed: Any) -> None:
    gaps, same_text, first_higher = [], [], []
    for (one, _), (other, _) in designed:
        assert one.video == other.video
        assert one.id != other.id
        gaps.append(round(abs(one.label - other.label), 4))
        same_text.append(one.text == other.text)
        first_higher.append(one.label > other.label)
        kept = set(words_of(one.text.lower())) & set(words_of(other.text.lower()))
        longer = max(len(set(one.words)), len(set(other.words)))
        # Rewording touches a few words of one phrase; the shortest remarks are one or two words.
        assert len(kept) >= min(longer - 5, 0.5 * longer)
    assert min(gaps) >= 0.1
    assert max(gaps) <= 0.4
    quartiles = np.quantile(gaps, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quartiles, [0.175, 0.25, 0.325], atol=0.035)
    assert 0.35 < np.mean(same_text) < 0.65
    assert 0.4 < np.mean(first_higher) < 0.6


def test_one_modality_alone_tells_a_pair_apart_and_they_take_turns(designed: Any) -> None:
    told: Counter[Any] = Counter()
    for (_, one), (_, other) in designed:
        told[one.told_by] += 1
        assert one.told_by == other.told_by
        assert one.text == other.text
        same_voice = one.prosody == other.prosody
        same_face = one.expression == other.expression
        assert (same_voice, same_face) == (
            one.told_by == Modality.VISION,
            one.told_by == Modality.AUDIO,
        )
    assert 0.4 < told[Modality.AUDIO] / len(designed) < 0.6


def test_wording_telling_modality_and_the_higher_label_are_crossed(designed: Any) -> None:
    # The second of a pair, in the order of generation, is hidden by random places; so count, over
    # reworded pairs, whether the higher label goes with the longer text: it must not.
    longer_is_higher = [
        (len(one.text) - len(other.text)) * (one.label - other.label) > 0
        for (one, _), (other, _) in designed
        if len(one.text) != len(other.text)
    ]
    assert len(longer_is_higher) > 100
    assert 0.4 < np.mean(longer_is_higher) < 0.6


def test_the_other_modality_of_a_pair_has_fresh_noise(designed: Any) -> None:
    for (one, latents), (other, _) in designed[:20]:
        kept = Modality.VISION if latents.told_by == Modality.AUDIO else Modality.AUDIO
        length = min(len(one.sequences[kept]), len(other.sequences[kept]))
        first, second = one.sequences[kept][:length], other.sequences[kept][:length]
        assert (first != second).mean() > 0.9


def test_the_ceiling_orders_85_to_95_percent_of_the_pairs(designed: Any) -> None:
    ordered = [
        (one.label - other.label) * (one.oracle - other.oracle) > 0
        for (one, _), (other, _) in designed
    ]
    assert len(ordered) > 300
    assert 0.85 <= np.mean(ordered) <= 0.95


def test_a_pair_that_lost_a_sample_to_the_cut_is_none() -> None:
    for size in range(5, 20):
        spec = CorpusSpec(num_train=size, num_valid=1, num_test=1)
        counts = Counter(s.pair_id for s in generate(spec) if s.pair_id is not None)
        assert set(counts.values()) <= {2}


def test_a_linear_reader_recovers_each_latent_from_its_frames(drawn: Any) -> None:
    train = np.array([sample.split == "train" for sample, _ in drawn])
    test = np.array([sample.split == "test" for sample, _ in drawn])
    for modality, name in ((Modality.AUDIO, "prosody"), (Modality.VISION, "expression")):
        latent = np.array([getattr(x, name) for _, x in drawn])
        means = np.array([sample.sequences[modality].mean(axis=0) for sample, _ in drawn])
        means = (means - means[train].mean(axis=0)) / means[train].std(axis=0)
        design = np.column_stack([means, np.ones(len(means))])
        weights, *_ = np.linalg.lstsq(design[train], latent[train])
        residual = latent[test] - design[test] @ weights
        explained = 1 - residual.var() / latent[test].var()
        assert 0.88 < explained < 0.95
        # Under the speaker's offset no single column tells as much.
        single = np.corrcoef(np.column_stack([means, latent])[test].T)[-1, :-1] ** 2
        assert single.max() < explained - 0.08


def test_generation_streams() -> None:
    samples = generate(CorpusSpec(num_train=200_000))
    for _ in itertools.islice(samples, 100):
        pass
    tracemalloc.start()
    for _ in itertools.islice(samples, 1000):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_training_videos_seldom_use_rare_words(drawn: Any) -> None:
    rare = {
        phrase
        for topic in TOPICS
        for phrase, is_rare in zip(topic.adjectives.phrases, topic.adjectives.rare, strict=True)
        if is_rare
    }
    often = {p for topic in TOPICS for p in topic.adjectives.phrases} - rare

    def share(split: str) -> float:
        words = Counter(w.lower() for s, _ in drawn if s.split == split for w in s.words or ())
        num_rare = sum(words[phrase] for phrase in rare)
        return num_rare / (num_rare + sum(words[phrase] for phrase in often))

    assert share("train") < 0.5 * share("test")


def test_remarks_reach_their_aim_and_length() -> None:
    draws = Draws(np.random.default_rng(0))
    aims, said, asked, got = [], [], [], []
    for _ in range(1500):
        aim, size = draws.between(-2.4, 2.4), int(draws.between(1, 40))
        remark = compose(draws, draws.pick(TOPICS), valence=aim, num_words=size, avoid_rare=False)
        assert remark.text.isascii()
        assert remark.text[0].isupper()
        assert remark.text.endswith(".")
        assert -3.0 <= remark.valence <= 3.0
        aims.append(aim)
        said.append(remark.valence)
        asked.append(size)
        got.append(len(words_of(remark.text)))
    assert np.abs(np.subtract(aims, said)).mean() < 0.3
    assert np.abs(np.subtract(asked, got)).mean() < 2.0
    # How much is said tells nothing of what is said.
    assert abs(np.corrcoef(got, said)[0, 1]) < 0.08


def test_rewording_changes_the_words_and_stays_a_sentence() -> None:
    draws = Draws(np.random.default_rng(1))
    for _ in range(500):
        size = int(draws.between(1, 25))
        text = compose(
            draws,
            draws.pick(TOPICS),
            valence=draws.between(-2, 2),
            num_words=size,
            avoid_rare=False,
        ).text
        other = reword(draws, text)
        assert other != text
        assert other[0].isupper()
        assert other.endswith(".")


def test_the_store_holds_what_was_generated(tmp_path: Path) -> None:
    spec = CorpusSpec(num_train=40, num_valid=10, num_test=30)
    store = make_corpus(tmp_path / "corpus", spec)
    again = Store.open(tmp_path / "corpus")
    assert store.content_hash == again.content_hash
    samples = [sample for sample in generate(spec) if sample.split == "test"]
    view = again.split("test")
    assert len(view) == 30
    assert list(view.ids) == [sample.id for sample in samples]
    for row, sample in enumerate(samples):
        for modality, frames in sample.sequences.items():
            np.testing.assert_array_equal(view.sequence(row, modality), frames)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"shape": "iemocap"}, "shape must be one of"),
        ({"num_test": 0}, "num_test must be >= 1, got 0"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
    ],
)
def test_a_wrong_spec_is_one_line(wrong: Any, line: Any) -> None:
    with pytest.raises(ValueError, match=line):
        CorpusSpec(**wrong)
