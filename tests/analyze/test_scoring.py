"""Scores of utterances: what words do, intervals, languages, doubts, and which models may score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.analyze.scoring import SentimentModel, open_model
from tecafn.core.errors import UserError
from tecafn.extract.clip import ClipSettings
from tecafn.extract.clip_features import Segment
from tecafn.extract.words import Word
from tecafn.serving.intervals import Intervals
from tecafn.serving.language import foreign, languages_of
from tecafn.serving.voice import VoiceHead


def said(text: str, start: float = 0.0, *, confidence: float | None = None) -> Segment:
    words = tuple(
        Word(word, start + k, start + k + 0.8, confidence) for k, word in enumerate(text.split())
    )
    return Segment(start=start, end=words[-1].end, text=text, words=words)


SEGMENTS = [said("the film was good"), said("not very fine", 10.0), said("great", 20.0)]


def test_scores_are_the_models(text_model: SentimentModel) -> None:
    expected = text_model.predictor.predict(text=[one.text for one in SEGMENTS])
    found = text_model.scored(SEGMENTS)
    assert [one.score for one in found] == pytest.approx(expected, abs=1e-4)
    assert [(one.start, one.end) for one in found] == [(0.0, 3.8), (10.0, 12.8), (20.0, 20.8)]


def test_a_words_effect_is_the_score_minus_the_score_without_it(text_model: SentimentModel) -> None:
    first, _, single = text_model.scored(SEGMENTS)
    for number, word in enumerate(first.words):
        rest = [other.text for k, other in enumerate(first.words) if k != number]
        without = text_model.predictor.predict(text=" ".join(rest))[0]
        assert word.effect == pytest.approx((first.score or 0.0) - without, abs=2e-4)
    assert single.words[0].effect is None  # nothing is left without it
    assert len({word.effect for word in first.words}) > 1


def test_intervals_surround_the_score_where_the_model_has_them(text_model: SentimentModel) -> None:
    wide = Intervals(level=0.9, most_words=(2,), half_widths=(0.5, 0.25), label_range=(-3.0, 3.0))
    model = dataclasses.replace(text_model, intervals=wide)
    found = model.scored(SEGMENTS)
    assert [(one.high or 0) - (one.low or 0) for one in found] == pytest.approx(
        [0.5, 0.5, 1.0], abs=1e-3
    )
    assert all(one.low is None for one in text_model.scored(SEGMENTS))


def test_what_is_out_of_the_models_languages_has_no_score(text_model: SentimentModel) -> None:
    scorer = dataclasses.replace(text_model.scorer, languages=("en",))
    model = dataclasses.replace(text_model, scorer=scorer)
    german = said("Das war ein wirklich guter Film und ich habe ihn sehr gemocht.", 30.0)
    english, other = model.scored([said("The film was good and I liked every minute."), german])
    assert english.score is not None
    assert (other.score, other.out_of_range) == (None, "de")
    assert {word.effect for word in other.words} == {None}


def test_few_words_and_unsure_ones_are_doubted(text_model: SentimentModel) -> None:
    doubts = [one.doubts for one in text_model.scored(SEGMENTS)]
    assert doubts == [(), (), ("a single word",)]
    unsure = text_model.scored([said("the film was good", confidence=0.4)])[0]
    assert unsure.doubts == ("the recogniser is unsure of the words",)
    assert text_model.scored([said("the film was good", confidence=0.8)])[0].doubts == ()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("ANYHOW IT WAS REALLY GOOD", ""),
        ("No.", ""),
        ("Umm", ""),
        ("12345 ...", ""),
        ("Das war ein guter Film, und ich habe ihn gemocht.", "de"),
        ("\u6211\u559c\u6b22\u8fd9\u90e8\u7535\u5f71", "zh"),
    ],
)
def test_a_language_is_called_foreign_only_where_it_is_clear(text: str, language: str) -> None:
    assert foreign([text], ("en",)) == [language]
    assert foreign([text], ()) == [""]


def test_a_short_text_is_read_with_its_neighbours() -> None:
    texts = ["Das war ein guter Film, und ich habe ihn sehr gemocht.", "No.", "Ja, genau so."]
    assert foreign(texts, ("en",))[1] == "de"


def test_the_real_transcripts_are_english(data_root: Path) -> None:
    import csv

    with (data_root / "mosi" / "label.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert [text for text in texts[:300] if foreign([text], ("en",)) != [""]] == []


def test_languages_are_those_of_all_datasets_or_unknown() -> None:
    assert languages_of("cmu-mosei+cmu-mosi") == ("en",)
    assert languages_of("cmu-mosi, own") == ()


def test_a_model_of_classes_gives_no_timeline(
    train_tiny: Callable[..., Any], make_store: Callable[..., Path], tmp_path: Path
) -> None:
    store = make_store(tmp_path / "classes", task="classification")
    train_tiny("classes-run", 'training.monitor="accuracy"', data=store)
    with pytest.raises(UserError, match="tells 2 classes apart; a timeline needs a model"):
        open_model(str(tmp_path / "classes-run"))


def test_a_model_of_frames_that_clips_do_not_have_is_refused(tiny_run: Path) -> None:
    model = open_model(str(tiny_run))
    assert model.is_fused
    with pytest.raises(UserError, match="reads audio frames that `tecafn extract` does not make"):
        model.settings(ClipSettings())


def test_another_models_identity_is_another(text_model: SentimentModel, tiny_run: Path) -> None:
    assert open_model(str(tiny_run)).scorer.identity != text_model.scorer.identity
    assert open_model(text_model.scorer.name).scorer == text_model.scorer


def test_the_network_is_not_loaded_before_it_scores(text_run: Path) -> None:
    model = open_model(str(text_run))
    model.settings(ClipSettings())
    assert "predictor" not in vars(model)
    model.scored(SEGMENTS[:1])
    assert "predictor" in vars(model)


def test_nothing_to_score_loads_nothing(text_run: Path) -> None:
    model = open_model(str(text_run))
    assert model.scored([]) == ()
    assert "predictor" not in vars(model)


def test_a_damaged_calibration_is_not_taken_for_none(text_run: Path, tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(text_run, run)
    (run / "model" / "calibration.json").write_text("{}")
    with pytest.raises(UserError, match=r"calibration\.json is damaged"):
        open_model(str(run))


def test_a_voice_is_told_of_beside_the_score_and_never_changes_it(
    text_model: SentimentModel,
) -> None:
    head = VoiceHead.load()
    heard = np.random.default_rng(0).normal(size=(3, head.weight.shape[1])).astype(np.float32)
    heard[1] = np.nan  # too short to be judged
    model = dataclasses.replace(text_model, voice=head)
    found = model.scored(SEGMENTS, voices=heard)
    expected = head.of(heard.astype(np.float64))
    assert [bool(one.voice) for one in found] == [True, False, True]
    for row in (0, 2):
        assert tuple(found[row].voice) == head.emotions
        assert list(found[row].voice.values()) == pytest.approx(expected[row], abs=1e-3)
    assert [one.score for one in found] == [one.score for one in text_model.scored(SEGMENTS)]
    assert not any(one.voice for one in text_model.scored(SEGMENTS, voices=heard))
    assert not any(one.voice for one in model.scored(SEGMENTS))


def test_what_is_read_of_a_clip_follows_from_who_judges_the_voice(
    text_model: SentimentModel,
) -> None:
    head = VoiceHead.load()
    model = dataclasses.replace(text_model, voice=head)
    assert model.settings(ClipSettings()).voice_blocks == head.blocks
    assert text_model.settings(ClipSettings()).voice_blocks == ()
