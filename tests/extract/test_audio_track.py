"""The audio sequence of an utterance, and a reader's samples with it."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sounds

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.samples import DatasetDescription, Sample
from tecafn.extract.from_reader import with_sound
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


def _samples(folder: Path) -> Iterator[Sample]:
    with wave.open(str(folder / "good.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(np.int16(9_000 * sounds.sine(150, 0.5)).tobytes())
    (folder / "bad.wav").write_text("no sound at all")
    for name, media in (("good", "good.wav"), ("bad", "bad.wav"), ("none", None)):
        yield Sample(
            id=name,
            source_id=name,
            video=name,
            clip="",
            split="train",
            text="fine",
            media=None if media is None else folder / media,
        )


def test_samples_get_the_sequence_of_their_file_and_the_rest_go_on(tmp_path: Path) -> None:
    pytest.importorskip("av")
    said: list[str] = []
    track = audio_track("measures", frames_per_second=10)
    described, samples = with_sound(
        DatasetDescription(dataset="toy", widths={}), _samples(tmp_path), track, note=said.append
    )
    found = {sample.id: sample.sequences for sample in samples}
    assert found["good"][Modality.AUDIO].shape == (5, len(COLUMNS))
    assert found["bad"] == found["none"] == {}
    assert len(said) == 1
    assert said[0].startswith("bad has no audio: ")
    assert described.widths == {Modality.AUDIO: len(COLUMNS)}
    assert described.features == {Modality.AUDIO: track.spec}
