"""tecafn extract on a folder whose layout names its clips."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest
import sounds

from tecafn.cli import main
from tecafn.core.modality import Modality
from tecafn.data.store import Store

pytest.importorskip("av")
pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two spoken clips, one with action units, and of one with units alone."""
    folder = tmp_path_factory.mktemp("ravdess")
    source = folder / "clips"
    source.mkdir()
    for name in ("03-01-05-02-01-01-12", "03-01-01-01-02-01-20"):
        with wave.open(str(source / f"{name}.wav"), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(16_000)
            sound.writeframes(np.int16(9_000 * sounds.sine(150, 0.5)).tobytes())
    ids = np.array(["01-01-05-02-01-01-12", "01-01-08-01-01-02-24"])
    np.savez(source / "openface_au.npz", ids=ids, vision=np.ones((2, 4), np.float32))
    store = folder / "store"
    arguments = ["extract", str(source), "--out", str(store), "--audio", "measures", "--quiet"]
    assert main(arguments) == 0
    return store


def test_sound_becomes_sequences_and_action_units_stay(extracted: Path) -> None:
    store = Store.open(extracted)
    angry = store.split("train")
    assert angry.labels.tolist() == [4.0]
    assert angry.sequence(0, Modality.AUDIO).shape == (5, 35)
    assert angry.sequence(0, Modality.VISION).shape == (1, 4)
    units_alone = store.split("test")
    assert units_alone.lengths(Modality.AUDIO).tolist() == [0]
    assert units_alone.lengths(Modality.VISION).tolist() == [1]
    assert store.split("valid").lengths(Modality.VISION).tolist() == [0]


def test_what_was_extracted_says_how_and_what_was_given_does_not(extracted: Path) -> None:
    features = json.loads((extracted / "manifest.json").read_text())["features"]
    assert list(features) == ["audio"]
    assert features["audio"]["extractor"] == "voice-measures"


def test_a_folder_that_names_no_clips_asks_for_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes(b"RIFF")
    assert main(["extract", str(tmp_path / "clips"), "--out", str(tmp_path / "store")]) == 2
    line = capsys.readouterr().err.strip()
    assert "name the label.csv of its clips" in line
    assert "\n" not in line
