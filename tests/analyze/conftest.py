"""Fixtures of the tests of analysis."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
