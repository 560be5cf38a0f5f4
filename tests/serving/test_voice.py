"""The head on voices: probabilities of utterances, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.extract.speech_model import KNOWN_SHA256, WHEEL
from tecafn.extract.voice import FEWEST_STATES, pooled
from tecafn.serving.builtin import card_of, voice_folder
from tecafn.serving.voice import HEAD_FILE, VoiceHead

WIDTH = 2 * 384


@pytest.fixture(scope="module")
def head() -> VoiceHead:
    return VoiceHead.load()


def states(length: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, WIDTH)).astype(np.float32)


def test_the_shipped_head_is_small_and_reads_the_shipped_speech_model(head: VoiceHead) -> None:
    assert (voice_folder() / HEAD_FILE).stat().st_size < 1_000_000
    assert head.speech_model == KNOWN_SHA256[WHEEL]["model.bin"]
    assert head.blocks == (2, 3)
    assert head.emotions == (
        "neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised",
    )  # fmt: skip
    card = card_of("voice")
    for part in ("RAVDESS", "CC BY-NC-SA", "actors", "Not to be used", "5(1)(f)"):
        assert part in card


def test_each_utterance_has_probabilities_and_one_that_is_too_short_has_none(
    head: VoiceHead,
) -> None:
    said = [states(100), states(FEWEST_STATES - 1), states(FEWEST_STATES, seed=1)]
    found = head.of(np.stack([pooled(one) for one in said]))
    assert found.shape == (3, 8)
    assert np.isnan(found[1]).all()
    assert found[[0, 2]].sum(axis=1) == pytest.approx([1.0, 1.0])
    assert (found[[0, 2]] > 0).all()
    assert head.of(np.zeros((0, 2 * WIDTH))).shape == (0, 8)
    assert head.of(pooled(said[0])[None])[0] == pytest.approx(found[0])


def test_the_head_is_a_softmax_of_a_linear_map_of_mean_and_deviation(
    tmp_path: Path,
) -> None:
    made = VoiceHead(
        emotions=("a", "b"),
        weight=np.asfortranarray([[1.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0]]),
        bias=np.array([0.5, 0.0]),
        speech_model="0" * 64,
        blocks=(3,),
    )
    made.save(tmp_path)
    read = VoiceHead.load(tmp_path)
    values = np.tile([[1.0, 5.0], [3.0, 5.0]], (10, 1)).astype(np.float32)
    logits = np.array([2.0 + 2.0 * 1.0 + 0.5, 5.0])
    expected = np.exp(logits) / np.exp(logits).sum()
    assert read.of(pooled(values)[None])[0] == pytest.approx(expected)
    assert pooled(values).tolist() == [2.0, 5.0, 1.0, 0.0]


def test_states_of_another_speech_model_are_refused(head: VoiceHead) -> None:
    assert VoiceHead.load(speech_model=head.speech_model) is not None
    with pytest.raises(UserError, match=r"Whisper tiny\.en\), got 0000"):
        VoiceHead.load(speech_model="0" * 64)
    with pytest.raises(ValueError, match=r"vectors must be \(N, 1536\), got \(20, 512\)"):
        head.of(np.zeros((20, 512)))


@pytest.mark.parametrize("content", [None, b"", b"no safetensors"])
def test_a_missing_or_damaged_head_is_refused_in_one_line(
    content: bytes | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / HEAD_FILE).write_bytes(content)
    with pytest.raises(UserError, match="cannot read the head") as error:
        VoiceHead.load(tmp_path)
    assert "\n" not in str(error.value)
