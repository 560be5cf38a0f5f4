"""Small files of the field's formats, made here."""

from __future__ import annotations

import csv
import json
import pickle
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
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


# One small source of each format, as the field has it


@dataclass(frozen=True)
class FieldSource:
    """A source, the options it needs, and its files that are no table of numbers beside it."""

    format: str
    path: Path
    files: tuple[Path, ...]
    options: dict[str, Any] = field(default_factory=dict)


def _frames(seed: int, length: int, width: int) -> Any:
    return np.random.default_rng(seed).normal(size=(length, width)).astype(np.float32)


def _padded(seed: int, lengths: list[int], total: int, width: int, *, in_front: bool) -> Any:
    """(N, total, width) with zeros in front of, or behind, the given numbers of frames."""
    result = np.zeros((len(lengths), total, width), np.float32)
    for row, length in enumerate(lengths):
        place = slice(total - length, total) if in_front else slice(0, length)
        result[row, place] = _frames(seed + row, length, width)
    return result


def _label_csv(folder: Path) -> FieldSource:
    table = folder / "label.csv"
    table.write_text(
        "video_id,clip_id,text,label,annotation,mode\n"
        "a_b,1,FINE,1.5,Positive,train\na_b,2,GOOD,0,Neutral,train\nc,3,BAD,,,valid\n"
    )
    audio = folder / "audio.npz"
    np.savez(audio, ids=["a_b_1", "a_b_2", "c_3"], audio=_frames(0, 3, 4))
    return FieldSource("label-csv", table, (table, audio), {"audio": audio})


def _mmsa(folder: Path) -> FieldSource:
    def split(names: list[str]) -> dict[str, Any]:
        return {
            "raw_text": [f"text of {name}" for name in names],
            "id": names,
            "text": _frames(0, 8, 3).reshape(2, 4, 3),
            "text_bert": np.array([[[101, 7, 102, 0], [1, 1, 1, 0], [0, 0, 0, 0]]] * 2),
            "audio": _padded(1, [2, 3], 5, 5, in_front=False),
            "vision": _padded(2, [1, 4], 6, 20, in_front=False),
            "audio_lengths": [2, 3],
            "vision_lengths": [1, 4],
            "regression_labels": np.array([1.5, -2.0], dtype=np.float32),
        }

    path = folder / "unaligned_50.pkl"
    data = {"train": split(["v_1$_$1", "v_1$_$2"]), "valid": split(["w$_$3", "w$_$4"])}
    path.write_bytes(pickle.dumps(data, protocol=4))
    return FieldSource("mmsa", path, (path,))


def _sims(folder: Path) -> FieldSource:
    def split(number: int) -> dict[str, Any]:
        labels = {f"regression_labels_{m}": np.array([0.2, -0.6]) for m in "TAV"}
        return {
            "raw_text": ["\u6211\u4e0d\u60f3", "\u597d"],
            "id": [f"video_{number:04d}$_$0001", f"video_{number:04d}$_$0002"],
            "text": np.ones((2, 39, 8), np.float32),
            "text_bert": np.ones((2, 3, 39), np.float32),
            "audio": _padded(1, [2, 3], 4, 33, in_front=False),
            "vision": _padded(2, [1, 2], 3, 709, in_front=False),
            "audio_lengths": [2, 3],
            "vision_lengths": [1, 2],
            "regression_labels": np.array([0.4, -1.0]),
            **labels,
        }

    path = folder / "sims.pkl"
    data = {name: split(n) for n, name in enumerate(("train", "valid", "test"))}
    path.write_bytes(pickle.dumps(data, protocol=4))
    return FieldSource("mmsa", path, (path,))


def _misa(folder: Path) -> FieldSource:
    def row(words: list[str], label: float, segment: str) -> Any:
        frames = (_frames(1, len(words), 4), _frames(2, len(words), 3))
        return ((np.arange(len(words)), *frames, words), np.array([[label]], np.float32), segment)

    path = folder / "train.pkl"
    rows = [row(["so", "good"], 1.5, "v_1[0]"), row(["not", "sp", "bad"], 0.5, "v_1[7]")]
    path.write_bytes(pickle.dumps(rows, protocol=4))
    return FieldSource("misa", path, (path,))


def _mmim(folder: Path) -> FieldSource:
    def row(words: list[str], label: float, vlen: int, alen: int, name: str) -> Any:
        visual = _padded(1, [vlen], 6, 4, in_front=False)[0]
        acoustic = _padded(2, [alen], 5, 3, in_front=False)[0]
        inner = (np.arange(len(words)), visual, acoustic, words, vlen, alen)
        return (inner, np.array([[label]], np.float32), name)

    for number, name in enumerate(("train", "dev", "test")):
        rows = [
            row(["so", "sp", "good"], 1.5, 4, 2, f"v_{number}[0]"),
            row(["bad"], -0.5, 0, 5, f"v_{number}$_$3"),
        ]
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(rows, protocol=4))
    return FieldSource("mmim", folder, tuple(sorted(folder.glob("*.pkl"))))


def _mag(folder: Path) -> FieldSource:
    def row(words: list[str], label: float, segment: str) -> Any:
        frames = (_frames(1, len(words), 4), _frames(2, len(words), 3))
        return ((words, *frames), np.array([[label]], np.float32), segment)

    path = folder / "mosi.pkl"
    data = {
        name: [row(["so", "good"], 1.5, f"v_{number}[0]"), row(["bad"], -1.0, f"v_{number}[4]")]
        for number, name in enumerate(("train", "dev", "test"))
    }
    path.write_bytes(pickle.dumps(data, protocol=4))
    return FieldSource("mag", path, (path,))


def _mult(folder: Path) -> FieldSource:
    def split(video: bytes) -> dict[str, Any]:
        return {
            "text": _padded(0, [3, 1], 4, 6, in_front=True),
            "audio": _padded(1, [2, 5], 7, 5, in_front=True),
            "vision": _padded(2, [1, 4], 9, 20, in_front=True),
            "labels": np.array([[[1.5]], [[-2.0]]], np.float32),
            "id": np.array([[video, b"82.7645", b"90.5"], [video, b"3.1", b"4.0"]]),
        }

    path = folder / "mosi_data_noalign.pkl"
    data = {"train": split(b"v_1"), "valid": split(b"w"), "test": split(b"x")}
    path.write_bytes(pickle.dumps(data, protocol=4))
    return FieldSource("mult", path, (path,))


def _csd(folder: Path, *, format: str = "csd", packed: bool = False) -> FieldSource:
    """Two videos: frames of half a second, words of a second; -inf in one frame."""

    def write(name: str, videos: dict[str, tuple[Any, Any]]) -> None:
        with h5py.File(folder / f"CMU_MOSI_{name}.csd", "w") as file:
            root = file.create_group(f"CMU_MOSI_{name}")
            root.create_group("metadata").create_dataset("root name", data=[f'"{name}"'])
            for video, (features, intervals) in videos.items():
                entry = root.create_group(f"data/{video}")
                for key, values in (("features", features), ("intervals", intervals)):
                    how = {"chunks": values.shape, "compression": "gzip"} if packed else {}
                    entry.create_dataset(key, data=values, **how)

    def times(length: int, step: float) -> Any:
        starts = np.arange(length) * step
        return np.stack([starts, starts + step], axis=1)

    audio = _frames(0, 12, 3).astype(np.float64)
    audio[5, 1] = -np.inf
    words = np.array([[b"it"], [b"sp"], [b"is"], [b"good"], [b"sp"], [b"bad"]])
    write("COVAREP", {"v_1": (audio, times(12, 0.5)), "w": (audio[:4], times(4, 0.5))})
    write("Visual_FACET_42", {"v_1": (_frames(1, 6, 2), times(6, 1.0))})
    write("ModifiedTimestampedWords", {v: (words, times(6, 1.0)) for v in ("v_1", "w")})
    (folder / "label.csv").write_text(
        "video_id,clip_id,text,label,mode\n"
        "v_1,1,IT IS,1.5,train\nv_1,2,GOOD BAD,-0.5,train\nw,1,IT IS GOOD,0,valid\nw,2,X,,test\n"
    )
    (folder / "segment_times.csv").write_text(
        "video_id,segment,start,end\nv_1,1,0.0,3.0\nv_1,2,3.0,6.0\nw,1,0.0,4.0\nw,2,2.0,2.0\n"
    )
    return FieldSource(format, folder, tuple(sorted(p for p in folder.iterdir())))


def _ur_funny(folder: Path) -> FieldSource:
    lengths = {1: 2, 3: 3, 4: 1, 5: 2}
    files: dict[str, Any] = {
        "data_folds": {"train": [1, 3], "dev": [4], "test": [5]},
        "humor_label_sdk": {1: 1, 3: 0, 4: 1},
        "language_sdk": {
            name: {
                "punchline_sentence": " ".join(["ha"] * length),
                "punchline_embedding_indexes": list(range(length)),
                "punchline_intervals": [[n, n + 0.5] for n in range(length)],
                "context_sentences": ["once upon", "a time"],
                "context_embedding_indexes": [[0, 1], [2, 3]],
                "context_intervals": [],
            }
            for name, length in lengths.items()
        },
        "covarep_features_sdk": {
            name: {
                "punchline_features": _frames(name, length, 81).astype(float).tolist(),
                "context_features": [],
            }
            for name, length in lengths.items()
        },
        "openface_features_sdk": {
            name: {"punchline_features": _frames(name, length, 3), "context_features": []}
            for name, length in lengths.items()
        },
        "word_embedding_list": [_frames(9, 1, 6)[0] for _ in range(4)],
    }
    for name, value in files.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(value, protocol=4))
    return FieldSource("ur-funny", folder, tuple(sorted(folder.glob("*.pkl"))))


def _ur_funny_text(folder: Path) -> FieldSource:
    rows: list[dict[str, Any]] = [
        {"id": 1, "split": "train", "label": 1, "punchline": "ha", "context": ["once upon", "a"]},
        {"id": 3, "split": "valid", "label": 0, "punchline": "caf\u00e9", "context": []},
        {"id": 4, "split": "test", "label": None, "punchline": "ho", "context": ["then"]},
    ]
    path = folder / "text.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FieldSource("ur-funny", path, (path,))


def _clip_arrays(folder: Path) -> FieldSource:
    (folder / "label.csv").write_text(
        "video_id,clip_id,text,label,mode\na_b,1,fine,1.5,train\na_b,2,good,2,train\nc,3,,,test\n"
    )
    for modality, width in (("audio", 4), ("vision", 2)):
        (folder / modality / "a_b").mkdir(parents=True)
        np.save(folder / modality / "a_b" / "1.npy", _frames(0, 3, width))
    np.savez(folder / "audio" / "a_b" / "2.npz", frames=_frames(1, 2, 4), columns=list("pqrs"))
    return FieldSource("clip-arrays", folder, tuple(sorted(p for p in folder.rglob("*.*"))))


def _ravdess(folder: Path) -> FieldSource:
    """Two clips with sound and action units, one with the units alone, a song."""
    names = ("03-01-05-02-01-01-12", "03-01-01-01-02-01-20", "03-02-03-01-01-01-02")
    (folder / "Actor_12").mkdir()
    for name in names:
        with wave.open(str(folder / "Actor_12" / f"{name}.wav"), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(16_000)
            sound.writeframes(np.int16(9_000 * np.sin(np.arange(4_800) / 12)).tobytes())
    units = [f"01{name[2:]}" for name in names[:2]] + ["01-01-08-01-01-02-24"]
    np.savez(folder / "openface_au.npz", ids=np.array(units), vision=_frames(0, 3, 5))
    return FieldSource("ravdess", folder, tuple(sorted(p for p in folder.rglob("*.*"))))


MAKERS: dict[str, Callable[[Path], FieldSource]] = {
    "label-csv": _label_csv,
    "mmsa": _mmsa,
    "sims": _sims,
    "misa": _misa,
    "mmim": _mmim,
    "mag": _mag,
    "mult": _mult,
    "csd": _csd,
    "csd packed": lambda folder: _csd(folder, packed=True),
    "csd-frames": lambda folder: _csd(folder, format="csd-frames"),
    "ur-funny": _ur_funny,
    "ur-funny text": _ur_funny_text,
    "clip-arrays": _clip_arrays,
    "ravdess": _ravdess,
}


@pytest.fixture(scope="session")
def makers() -> dict[str, Callable[[Path], FieldSource]]:
    """The makers of the small sources, by name; each takes the folder to write to."""
    return MAKERS


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[[str], FieldSource]:
    """Makes the small source named so in a folder of its own."""

    def make(name: str) -> FieldSource:
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        return MAKERS[name](folder)

    return make


@pytest.fixture(params=MAKERS)
def field_source(request: pytest.FixtureRequest, tmp_path: Path) -> FieldSource:
    """Each of the small sources."""
    folder = tmp_path / "source"
    folder.mkdir()
    return MAKERS[request.param](folder)
