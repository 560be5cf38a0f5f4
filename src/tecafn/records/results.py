"""The registry of results: one TOML file per result, its predictions beside it; read and checked.

Nothing here is believed that can be computed: metrics come from the predictions, and whether a
result was trained on what it is measured on comes from the videos of both.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.records.predictions import read_predictions
from tecafn.records.record import file_hash

FORMAT_VERSION = 1
_DIGITS = 16


@dataclass(frozen=True)
class SeedResult:
    """One run's predictions of a split.

    Args:
        seed: of the run.
        ids: N public ids.
        videos: N names.
        labels: (N,), NaN where the file leaves them out.
        predictions: (N,) scores, or classes.
        chosen_on: the split that chose the epoch, and the hash of its data.
        record_hash, config_hash, code_hash, commit, version: of the run.
    """

    seed: int
    ids: tuple[str, ...]
    videos: tuple[str, ...]
    labels: NDArray[np.float64]
    predictions: NDArray[np.float64]
    chosen_on: str
    record_hash: str
    config_hash: str
    code_hash: str
    commit: str
    version: str


@dataclass(frozen=True)
class Result:
    """What one file of the registry says.

    Args:
        path: the file.
        name: of the row.
        method: registered name.
        dataset, split, data_hash: what was predicted.
        convention: by which it is measured.
        task: regression or classification.
        label_range: of the labels.
        trained_on: the dataset's name and the hash of its content.
        seen: ``video_key`` of every video that was trained on, or that an epoch was chosen on.
        began_with: datasets of the runs whose weights it began with, whose videos are not listed.
        seeds: one per run.
    """

    path: Path
    name: str
    method: str
    dataset: str
    split: str
    data_hash: str
    convention: str
    task: str
    label_range: tuple[float, float]
    trained_on: Mapping[str, str]
    seen: frozenset[str]
    began_with: tuple[str, ...]
    seeds: tuple[SeedResult, ...]

    def flags(self) -> list[str]:
        """Why its figures are no estimate of what it does on new data; computed, not stated."""
        videos = {video for seed in self.seeds for video in seed.videos}
        known = {video for video in videos if video_key(video) in self.seen}
        found = []
        if known:
            found.append(f"has seen {len(known)} of the {len(videos)} evaluated videos")
        if any(seed.chosen_on == f"{self.split}@{self.data_hash}" for seed in self.seeds):
            found.append(f"its epoch was chosen on this {self.split} split")
        if self.began_with:
            found.append(f"began with weights from {', '.join(self.began_with)}: videos unknown")
        return found


def video_key(video: str) -> str:
    """A video's name as the registry has it: the beginning of its SHA-256.

    Example:
        >>> video_key("03bSnISJMiM")
        '4ef5d384c2e645af'
    """
    return hashlib.sha256(video.encode("utf-8")).hexdigest()[:_DIGITS]


def read_result(path: Path) -> Result:
    """Read a file of the registry and its predictions.

    Raises:
        UserError: it or a file that it names is missing, damaged or not the one it names.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a result, got: {error}") from None
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: format_version must be {FORMAT_VERSION}, got {version!r}")
    try:
        low, high = map(float, values["label_range"])
        seen = _beside(path, values["trained_on"]["videos"], values["trained_on"]["videos_hash"])
        result = Result(
            path=path,
            name=str(values["name"]),
            method=str(values["method"]),
            dataset=str(values["dataset"]),
            split=str(values["split"]),
            data_hash=str(values["data_hash"]),
            convention=str(values["convention"]),
            task=str(values["task"]),
            label_range=(low, high),
            trained_on={key: str(values["trained_on"][key]) for key in ("dataset", "hash")},
            seen=frozenset(seen.read_text(encoding="utf-8").split()),
            began_with=tuple(map(str, values["trained_on"].get("began_with", ()))),
            seeds=tuple(_seed(path, entry) for entry in values["seeds"]),
        )
    except KeyError as error:
        raise UserError(f"{path} lacks {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not result.seeds:
        raise UserError(f"{path} has no seeds")
    first = result.seeds[0]
    for other in result.seeds[1:]:
        if other.ids != first.ids:
            raise UserError(f"{path}: seeds {first.seed} and {other.seed} predict other samples")
    return result


def _beside(path: Path, name: str, expected: str) -> Path:
    """A file that a result names, whose content is the one that was submitted."""
    file = path.parent / name
    if not file.resolve().is_relative_to(path.parent.resolve()):
        raise UserError(f"{path} names {name}, which lies outside of its folder")
    if not file.is_file():
        raise UserError(f"{path} names {name}, which is not there")
    found = file_hash(file)
    if found != expected:
        raise UserError(f"{file} is not the file that {path} names: its SHA-256 is {found}")
    return file


def _seed(path: Path, entry: Mapping[str, Any]) -> SeedResult:
    found = read_predictions(_beside(path, entry["predictions"], entry["predictions_hash"]))
    if not found.num_samples or len(set(found.ids)) != found.num_samples:
        raise UserError(f"{path}: {entry['predictions']} is empty, or an id stands there twice")
    return SeedResult(
        seed=int(entry["seed"]),
        ids=found.ids,
        videos=found.videos,
        labels=found.labels,
        predictions=found.predictions,
        chosen_on=str(entry["chosen_on"]),
        record_hash=str(entry["record_hash"]),
        config_hash=str(entry["config_hash"]),
        code_hash=str(entry["code_hash"]),
        commit=str(entry["commit"]),
        version=str(entry["version"]),
    )
