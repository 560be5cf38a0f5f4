"""The script of the head on voices: actors are left out, and the card says what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tecafn.serving.builtin import card_of, voice_folder
from tecafn.serving.voice import VoiceHead

pytest.importorskip("sklearn")


@pytest.fixture
def script(
    load_benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    found = load_benchmark("make_voice_head")
    monkeypatch.setattr(found, "STRENGTHS", (0.1, 1.0))
    model = type("Model", (), {"sha256": "0" * 64})
    monkeypatch.setattr(found, "find_speech_model", lambda: model)
    return found


def spoken(*, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten actors, each with a voice of his own; emotions show in other columns."""
    random = np.random.default_rng(seed)
    actors = np.repeat(np.arange(1, 11), 24)
    emotions = np.tile(np.arange(8), 30)
    vectors = random.normal(size=(240, 20))
    vectors[:, :8] += 3.0 * np.eye(8)[emotions]
    vectors[:, 8:] += 5.0 * random.normal(size=(10, 12))[actors - 1]
    return vectors, emotions, actors


def test_no_fold_shares_an_actor_and_each_has_women_and_men(script: ModuleType) -> None:
    actors = spoken()[2]
    folds = script.actors_apart(actors)
    assert sorted(np.concatenate(folds).tolist()) == list(range(240))
    for fold in folds:
        inside = set(actors[fold])
        assert not inside & set(np.delete(actors, fold))
        assert {actor % 2 for actor in inside} == {0, 1}


def test_a_clip_that_an_actor_repeats_is_not_told_by_its_double(script: ModuleType) -> None:
    random = np.random.default_rng(0)
    vectors, _, actors = spoken()
    doubled = np.repeat(random.normal(size=(120, 20)), 2, axis=0)
    emotions = np.repeat(random.permutation(np.tile(np.arange(8), 15)), 2)
    assert vectors.shape == doubled.shape
    found = script.left_out(doubled, emotions, actors, strength=1.0)
    assert (found.argmax(axis=1) == emotions).mean() < 0.25
    head = script.fitted(doubled[::2], emotions[::2], strength=1.0)
    assert (head.of(doubled[1::2]).argmax(axis=1) == emotions[1::2]).mean() > 0.4


def test_head_and_card_say_what_was_measured(script: ModuleType, tmp_path: Path) -> None:
    vectors, emotions, actors = spoken()
    values = script.make(vectors, emotions, actors, out=tmp_path)
    assert values["accuracy"] > 0.8
    assert values["interval"][0] <= values["accuracy"] <= values["interval"][1]
    assert np.sum(values["confusion"]) == 240
    head = VoiceHead.load(tmp_path)
    assert (head.of(vectors).argmax(axis=1) == emotions).mean() > values["accuracy"]
    assert f"{100 * values['accuracy']:.1f} % of clips right" in (tmp_path / "card.md").read_text()


def test_the_shipped_card_is_that_of_the_measured_values(script: ModuleType) -> None:
    values = json.loads((voice_folder() / script.VALUES).read_text(encoding="utf-8"))
    assert card_of("voice") == script.card(values)
    assert values["num_actors"] == 20
    assert values["accuracy"] >= 0.70
