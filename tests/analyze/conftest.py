"""Fixtures of the tests of analysis."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_clip

from tecafn.analyze.scoring import SentimentModel, open_model


@pytest.fixture(scope="session")
def text_run(tiny_toml: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that reads the words alone."""
    from tecafn.experiments.config import load_config
    from tecafn.experiments.run import train_run

    out = tmp_path_factory.mktemp("text-run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        settings = load_config(tiny_toml, ['modalities=["text"]'])
        train_run(settings, data=tiny_store, out=out, device="cpu", progress=False)
    return out


@pytest.fixture(scope="session")
def text_model(text_run: Path) -> SentimentModel:
    """It opened."""
    return open_model(str(text_run))


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips are read in this process: starting one takes longer than a small clip."""

    def call(function: Callable[..., Any], job: Any, **_: object) -> Any:
        return function(job, lambda _: None)

    monkeypatch.setattr("tecafn.analyze.reading.call_guarded", call)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Three seconds of sound with subtitles beside it."""
    times = np.arange(3 * 16_000) / 16_000
    hum = (0.3 * np.sign(np.sin(2 * np.pi * 150 * times))).astype(np.float32)
    path = make_clip(tmp_path / "talk.wav", sounds=[hum], audio_codec="pcm_s16le")
    path.with_suffix(".srt").write_text(
        "1\n00:00:00,200 --> 00:00:01,400\nThe film was good.\n\n"
        "2\n00:00:02,000 --> 00:00:02,900\nNot very great.\n"
    )
    return path
