"""Small files of the field's formats, made here."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def mmsa_data() -> dict[str, dict[str, Any]]:
    """Two splits of an unaligned MMSA pickle: lengths 2, 3 (audio) and 1, 4 (vision)."""
    random = np.random.default_rng(0)

    def split(names: list[str]) -> dict[str, Any]:
        audio = random.normal(size=(2, 5, 5)).astype(np.float32)
        vision = random.normal(size=(2, 6, 20)).astype(np.float32)
        audio[0, 2:], audio[1, 3:] = 0, 0
        vision[0, 1:], vision[1, 4:] = 0, 0
        return {
            "raw_text": [f"text of {name}" for name in names],
            "id": names,
            "annotations": ["Positive", "Negative"],
            "text": random.normal(size=(2, 4, 8)).astype(np.float32),
            "text_bert": np.array([[[101, 7, 102, 0], [1, 1, 1, 0], [0, 0, 0, 0]]] * 2),
            "audio": audio,
            "vision": vision,
            "audio_lengths": [2, 3],
            "vision_lengths": [1, 4],
            "classification_labels": np.array([2, 0]),
            "regression_labels": np.array([1.5, -2.0], dtype=np.float32),
        }

    return {
        "train": split(["vid_one$_$1", "vid_one$_$12"]),
        "valid": split(["-two$_$3", "-two$_$4"]),
    }


@pytest.fixture
def misa_rows() -> list[Any]:
    """Two rows of a MISA list, the second with a pause."""
    random = np.random.default_rng(1)

    def row(words: list[str], label: float, segment: str) -> Any:
        visual = random.normal(size=(len(words), 4)).astype(np.float32)
        acoustic = random.normal(size=(len(words), 3)).astype(np.float32)
        ids = np.arange(len(words))
        return ((ids, visual, acoustic, words), np.array([[label]], np.float32), segment)

    return [
        row(["so", "good"], 1.5, "vid_[0][0]"),
        row(["not", "sp", "bad"], 0.5, "vid_[0][7]"),
    ]


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Writes label.csv from rows of strings, the header first."""

    def write(*rows: tuple[str, ...]) -> Path:
        path = tmp_path / "label.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        return path

    return write


@pytest.fixture
def dump(tmp_path: Path) -> Callable[..., Path]:
    """Pickles an object to a named file."""

    def write(value: object, name: str = "data.pkl", *, protocol: int = 4) -> Path:
        path = tmp_path / name
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        return path

    return write
