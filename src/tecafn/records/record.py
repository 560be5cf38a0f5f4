"""A run's record: what was run, on what, with which outcome. Written once, then only added to."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import tecafn
from tecafn.core.dataset_names import with_current_name
from tecafn.core.errors import UserError
from tecafn.records.events import HealthReading

FORMAT_VERSION = 1
_LIBRARIES = ("torch", "transformers", "lightning-fabric", "numpy", "safetensors", "pyarrow")


class AllowedError(TypedDict):
    """What ``tecafn data check`` calls an error, and the user allowed.

    Args:
        name: of the check.
        message: what it found.
    """

    name: str
    message: str


class DataRecord(TypedDict):
    """What a record says of its data.

    Args:
        dataset: its name.
        hash: of the store's content.
        splits: samples of each.
        label_range: lowest and highest label.
        task: regression or classification.
        convention: by which it is measured; records of version 0.1 do not say.
        class_names: of a classification whose classes have names.
        features: how the frames of each modality were made, of data that say so.
        allowed_errors: what was wrong with it and was allowed by name.
    """

    dataset: str
    hash: str
    splits: dict[str, int]
    label_range: list[float]
    task: str
    convention: NotRequired[str]
    class_names: NotRequired[list[str]]
    features: NotRequired[dict[str, dict[str, Any]]]
    allowed_errors: NotRequired[list[AllowedError]]


class TrainingRecord(TypedDict):
    """How training went.

    Args:
        epochs: how many were trained.
        best_epoch: the one whose weights were kept, from 0.
        stopped: why it ended.
        seconds: of training, over every process that continued it.
        threads: of a process.
        monitor, monitor_value: the metric that chose the epoch, and its value.
        chosen_on: the split that it was measured on.
        num_parameters, num_trained_parameters: of the scheme.
        health: readings of the epoch whose weights were kept.
    """

    epochs: int
    best_epoch: int
    stopped: str
    seconds: float
    threads: int
    monitor: str
    monitor_value: float | None
    chosen_on: str
    num_parameters: int
    num_trained_parameters: int
    health: NotRequired[dict[str, HealthReading]]


class FoldRecord(TypedDict):
    """One fold of a cross-validation.

    Args:
        fold: its number, from 0.
        num_train, num_valid, num_held_out: samples.
        epochs, best_epoch, monitor_value, seconds: as for a run's training.
    """

    fold: int
    num_train: int
    num_valid: int
    num_held_out: int
    epochs: int
    best_epoch: int
    monitor_value: float
    seconds: float


class PairShare(TypedDict):
    """How well predictions rank pairs of samples.

    Args:
        num_pairs, num_videos: what was counted.
        ordered: share ranked as the labels are, a tie counting one half; None without pairs.
        interval: 95 %, from resampling videos.
        mae: mean absolute error of the pairs' samples.
        max_gap: how far apart the labels of a hard pair may be, exclusive.
    """

    num_pairs: int
    num_videos: int
    ordered: float | None
    interval: list[float] | None
    mae: float | None
    max_gap: NotRequired[float]


class Ceiling(TypedDict):
    """What the noise-free score of a generated corpus reaches.

    Args:
        metrics: by name.
        hard_pairs, designed_pairs: as an evaluation's.
    """

    metrics: dict[str, float | None]
    hard_pairs: PairShare | None
    designed_pairs: PairShare | None


class ResamplingRecord(TypedDict):
    """How intervals were made.

    Args:
        level: coverage.
        num_resamples: how many.
        seed: of the draws.
        unit: what was drawn: videos.
    """

    level: float
    num_resamples: int
    seed: int
    unit: str


class Evaluation(TypedDict):
    """Everything that is known of a run on one labelled split.

    Args:
        split: which.
        chosen_on: what chose the checkpoint.
        weights_hash: of the exported weights; None of a cross-validation.
        data_hash: of the store's content.
        created: when, in UTC.
        absent: how many samples lacked a modality that the network reads.
        convention: by which it was measured.
        num_samples: of the split.
        num_videos: of the split; versions before 0.2 do not have it.
        resampling: how intervals were made.
        metrics: by name; None where the data leave one undefined.
        undefined: the reason for each None.
        intervals: 95 %, from resampling videos.
        hard_pairs, designed_pairs: None where there are none.
        ceiling: on a generated corpus.
        allowed_errors: what was wrong with the data and was allowed by name.
    """

    split: str
    chosen_on: str
    weights_hash: str | None
    data_hash: str
    created: str
    absent: NotRequired[dict[str, int]]
    convention: NotRequired[str]
    num_samples: int
    num_videos: NotRequired[int]
    resampling: ResamplingRecord
    metrics: dict[str, float | None]
    undefined: dict[str, str]
    intervals: dict[str, list[float] | None]
    hard_pairs: PairShare | None
    designed_pairs: PairShare | None
    ceiling: NotRequired[Ceiling]
    allowed_errors: NotRequired[list[AllowedError]]


class PairedDifference(TypedDict):
    """A paired difference of two runs' errors.

    Args:
        value: the mean.
        interval: 95 %, from resampling videos.
        p_value: of permutations that flip whole videos, two-sided.
    """

    value: float
    interval: list[float] | None
    p_value: float


class RunComparison(TypedDict):
    """This run against another one on the same samples.

    Args:
        name: what the other one is called.
        split: which.
        metrics, hard_pairs, designed_pairs: the other one's.
        difference: by metric, this run's minus the other's.
    """

    name: str
    split: str
    metrics: dict[str, float | None]
    hard_pairs: PairShare | None
    designed_pairs: PairShare | None
    difference: dict[str, PairedDifference]


class StartRecord(TypedDict):
    """The run whose weights another one began with.

    Args:
        run: its folder's name.
        weights_hash: of those weights.
        data: the dataset's name and its content's hash.
        chosen_on: the split that chose the epoch.
        init_from: what it began with itself.
    """

    run: str
    weights_hash: str
    data: dict[str, str]
    chosen_on: str | None
    init_from: NotRequired[StartRecord]


class RunRecord(TypedDict):
    """What was run, on what, with which outcome.

    Args:
        format_version: of this file.
        tecafn_version: of the program.
        created: when training ended, in UTC.
        method, paper: the method's name, and the paper it is from.
        config: in full.
        seed: of everything random.
        commit: of the program's checkout, ``+changes`` where it differed; None outside one.
        code_hash: of the package's sources; records of version 0.1 have none.
        versions: of Python and the libraries.
        data: what it was trained on.
        init_from: the run whose weights it began with, if any.
        training: how that went; a cross-validation has ``folds`` in its place.
        folds: one per fold.
        evaluations: by split; one on another dataset's split is ``<split>@<hash>``.
        comparisons: with other runs.
        protocols: evaluations by another protocol, such as ``authors_test_peeking``.
    """

    format_version: int
    tecafn_version: str
    created: str
    method: str
    paper: str
    config: dict[str, Any]
    seed: int
    commit: str | None
    code_hash: NotRequired[str]
    versions: dict[str, str]
    data: DataRecord
    init_from: NotRequired[StartRecord]
    training: NotRequired[TrainingRecord]
    folds: NotRequired[list[FoldRecord]]
    evaluations: dict[str, Evaluation]
    comparisons: list[RunComparison]
    protocols: NotRequired[dict[str, Any]]


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def library_versions() -> dict[str, str]:
    """Python, platform and the libraries that numbers depend on."""
    versions = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    return versions | {name: importlib.metadata.version(name) for name in _LIBRARIES}


def source_commit() -> str | None:
    """The checkout's commit, with ``+changes`` when it differs from it; None outside a checkout."""
    folder = Path(tecafn.__file__).parent

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # An installed copy may lie inside another project's checkout, whose commit says nothing.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "-uno") else commit


def short_commit(commit: str | None) -> str:
    """A commit's first 10 digits, with ``+changes`` where there were some.

    Example:
        >>> short_commit("0123456789abcdef+changes")
        '0123456789+changes'
    """
    digits, plus, changes = (commit or "").partition("+")
    return digits[:10] + plus + changes


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of a config, whatever the order of its keys.

    Example:
        >>> config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
        True
    """
    text = json.dumps(config, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@cache
def code_hash() -> str:
    """SHA-256 over the names and contents of the package's Python files."""
    folder = Path(tecafn.__file__).parent
    lines = (
        f"{path.relative_to(folder).as_posix()} {file_hash(path)}\n"
        for path in sorted(folder.rglob("*.py"))
    )
    return hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_record(run_dir: Path, record: Mapping[str, Any] | RunRecord) -> None:
    """Write ``RUN/record.json``."""
    text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=True)
    write_text_atomically(run_dir / "record.json", text + "\n")


def read_record(run_dir: Path) -> RunRecord:
    """Read ``RUN/record.json``.

    Raises:
        UserError: no such run, an unfinished one, or a format this version does not know.
    """
    path = run_dir / "record.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        unfinished = (run_dir / "checkpoints").is_dir()
        hint = "training did not finish: `tecafn train ... --resume`" if unfinished else "no record"
        raise UserError(f"{run_dir}: expected a run's directory, found {hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON, got: {error}") from None
    version = record.get("format_version") if isinstance(record, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: format_version must be {FORMAT_VERSION}, got {version!r}")
    return cast(RunRecord, with_current_name(record))
