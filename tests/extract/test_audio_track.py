"""The audio sequence of an utterance."""

from __future__ import annotations

import numpy as np
import pytest
import sounds

from tecafn.core.errors import UserError
from tecafn.extract.voice import COLUMNS, audio_track, measures


def test_frames_per_second_are_means_over_neighbours() -> None:
    sound = sounds.syllables(4.0, 1.0).astype(np.float32)
    times, values = audio_track("measures", frames_per_second=10)(sound, start=2.0)
    whole = measures(sound, 16_000).values
    assert times[:2] == pytest.approx([2.05, 2.15])
    assert values == pytest.approx(whole.reshape(10, 10, -1).mean(axis=1), rel=1e-5, abs=1e-5)


def test_a_last_mean_is_of_what_is_left() -> None:
    sound = sounds.syllables(4.0, 1.0).astype(np.float32)[: 16_000 - 1_120]  # 93 frames
    _, values = audio_track("measures", frames_per_second=10)(sound)
    whole = measures(sound, 16_000).values
    assert values[-1] == pytest.approx(whole[90:].mean(axis=0), rel=1e-5, abs=1e-5)


def test_the_specification_says_what_was_made() -> None:
    spec = audio_track("measures", frames_per_second=50).spec
    assert spec.columns == COLUMNS
    assert (spec.extractor, spec.frames_per_second) == ("voice-measures", 50.0)
    assert spec.models == {}


@pytest.mark.parametrize(
    ("kind", "rate", "said"),
    [
        ("wisper", None, "did you mean 'whisper'"),
        ("measures", 30, "must divide 100 for measures, got 30"),
        ("whisper", 100, "must divide 50 for whisper, got 100"),
    ],
)
def test_what_cannot_be_made_is_refused(kind: str, rate: int | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        audio_track(kind, frames_per_second=rate)
