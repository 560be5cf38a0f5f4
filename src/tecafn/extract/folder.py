"""Many clips to a store that methods train on: in guarded processes, resumable, cached."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.modality import Modality
from tecafn.core.places import refuse_taken
from tecafn.data.importing import write_store
from tecafn.data.readers import ReadOptions, open_source
from tecafn.data.samples import DatasetDescription, Sample, missing_frames_of
from tecafn.data.store import Store
from tecafn.extract.clip import ClipFeatures, ClipSettings, extract_clip
from tecafn.extract.guard import Limits, Outcome, Tell, call_guarded, run_guarded

SUFFIXES: Final = (
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".3gp", ".flv",
    ".wmv", ".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus",
)  # fmt: skip
_REPORT: Final = "clips.csv"


@dataclass(frozen=True)
class ClipRow:
    """What became of a sample's clip.

    Args:
        id: of the sample.
        file: the clip, within its folder; empty where there is none.
        error: why it has no features; empty where it has.
        features: what was found, without the sequences; None where it failed.
    """

    id: str
    file: str
    error: str = ""
    features: ClipFeatures | None = None


@dataclass(frozen=True)
class Extracted:
    """What an extraction wrote.

    Args:
        store: the store.
        rows: of every sample, in the order of the table.
        report: a CSV with a row per sample.
    """

    store: Store
    rows: tuple[ClipRow, ...]
    report: Path

    @property
    def failed(self) -> tuple[ClipRow, ...]:
        """Samples that the store lacks."""
        return tuple(row for row in self.rows if row.error)


@dataclass(frozen=True)
class _Job:
    """A clip to read, and where its features go."""

    path: Path
    target: Path
    settings: ClipSettings


@dataclass
class _Progress:
    """Passes on what processes say, by clip."""

    done: Callable[[int, int], None] | None
    total: int
    number: int = 0
    failures: dict[Path, str] = field(default_factory=dict)

    def take(self, outcome: Outcome[_Job]) -> None:
        self.number += 1
        if outcome.error is not None:
            prefix = f"{outcome.job.path}: "
            self.failures[outcome.job.path] = outcome.error.removeprefix(prefix)
        if self.done is not None:
            self.done(self.number, self.total)


def extract_folder(
    folder: Path,
    table: Path | None,
    *,
    out: Path,
    settings: ClipSettings | None = None,
    options: ReadOptions | None = None,
    cache: Path | None = None,
    processes: int = 1,
    limits: Limits | None = None,
    done: Callable[[int, int], None] | None = None,
) -> Extracted:
    """Read every clip that a label.csv, or the folder's own layout, names and write a store.

    A clip is ``FOLDER/<video_id>/<clip_id>.<suffix>`` or ``FOLDER/<video_id>_<clip_id>.<suffix>``.
    Features are kept in ``cache`` under a hash of the clip's content and of all that decides the
    numbers; so the same command continues after a kill, and a clip that two tables name is read
    once.

    Args:
        folder: with the clips.
        table: label.csv, see docs/formats.md; None = the folder has a layout that names its clips,
            such as RAVDESS's. What else such a layout has, such as action units, is kept in place
            of what would be extracted.
        out: where the store shall be.
        settings: what decides the features; None = the default ones.
        options: how the table is read.
        cache: None = ``OUT.clips`` beside the store.
        processes: clips that are read at a time.
        limits: of each process.
        done: told after every clip how many of how many are done.

    Raises:
        UserError: the table or ``out`` is wrong, a model is not installed, or no clip could be
            read.
    """
    settings = settings or ClipSettings()
    refuse_taken(out, may_be="neither")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists already; name another folder or remove it")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    cache = cache or out.with_name(f"{out.name}.clips")
    description, pairs = (
        _named_by_folder(folder, options)
        if table is None
        else _named_by_table(folder, table, options)
    )
    specs = {m: s for m, s in settings.specifications().items() if m not in description.widths}
    identity = settings.identity()
    targets = _targets([path for _, path in pairs if path is not None], cache, identity)
    todo = [_Job(path, target, settings) for path, target in targets.items() if not target.exists()]
    progress = _Progress(done, len(targets), len(targets) - len(todo))
    if done is not None:
        done(progress.number, progress.total)
    for outcome in run_guarded(_extract_to, todo, processes=processes, limits=limits):
        progress.take(outcome)
    rows = tuple(_row(sample, path, folder, targets, progress.failures) for sample, path in pairs)
    if all(row.error for row in rows):
        raise UserError(f"no clip could be read; the first: {rows[0].file}: {rows[0].error}")
    report = cache / _REPORT
    _write_report(report, rows)
    _write_store(out, description, pairs, rows, targets, specs, options)
    return Extracted(Store.open(out), rows, report)


_Named = tuple[DatasetDescription, list[tuple[Sample, Path | None]]]


def _named_by_table(folder: Path, table: Path, options: ReadOptions | None) -> _Named:
    """The samples of a label.csv with their clips."""
    description, samples = open_source(table, format="label-csv", options=options)
    if description.widths:
        raise UserError("frames come from the clips here; leave --audio and --vision files out")
    found = _files(folder)
    pairs = [(sample, found.get((sample.video, sample.clip))) for sample in samples]
    if not any(path for _, path in pairs):
        example = f"{pairs[0][0].video}/{pairs[0][0].clip}.mp4" if pairs else "VIDEO/CLIP.mp4"
        raise UserError(f"{folder} has no clip of {table.name}; one would be {example}")
    return description, pairs


def _named_by_folder(folder: Path, options: ReadOptions | None) -> _Named:
    """The samples of a folder whose layout a reader knows, each with the clip that it names."""
    advice = f"name the label.csv of its clips after {folder}"
    try:
        description, samples = open_source(folder, options=options)
        pairs = [(sample, sample.media) for sample in samples]
    except UserError as error:
        raise UserError(f"{error}; {advice}") from None
    if not any(path for _, path in pairs):
        layout = description.source_format
        raise UserError(f"{folder} is read as {layout}, whose samples name no clips: {advice}")
    return description, pairs


def extract_one(
    path: Path,
    *,
    out: Path,
    settings: ClipSettings | None = None,
    text: str = "",
    limits: Limits | None = None,
    tell: Tell | None = None,
) -> tuple[Store, ClipFeatures]:
    """Read one clip into a store with one sample of the split test, to predict from.

    Args:
        path: the clip.
        out: where the store shall be.
        settings: None = the default ones.
        text: what is said in it.
        limits: of the process that reads it.
        tell: told the seconds that are done.

    Raises:
        UserError: it cannot be read, or has neither sound nor a face.
    """
    settings = settings or ClipSettings()
    refuse_taken(out, may_be="neither")
    specs = settings.specifications()
    features: ClipFeatures = call_guarded(
        _extract_whole, (path, settings), limits=limits, progress=tell
    )
    if not features.sequences and not text.strip():
        raise UserError(f"{path}: nothing is heard or seen in it: {'; '.join(features.remarks)}")
    sample = Sample(
        id=path.stem, source_id=path.name, video=path.stem, clip="", split="test", text=text,
        sequences=features.sequences,
    )  # fmt: skip
    description = DatasetDescription(
        dataset="own-clips",
        widths={m: spec.width for m, spec in specs.items()},
        features=specs,
        splits=("test",),
        allowed=tuple(missing_frames_of(m) for m in specs),
        notes=tuple(features.remarks),
        source_format="clip",
    )
    return write_store(out, description, iter([sample])), features


def _extract_to(job: _Job, tell: Tell) -> None:
    extract_clip(job.path, job.settings, tell=tell).save(job.target)


def _extract_whole(job: tuple[Path, ClipSettings], tell: Tell) -> ClipFeatures:
    return extract_clip(job[0], job[1], tell=tell)


def _files(folder: Path) -> dict[tuple[str, str], Path]:
    """Clips by video and clip; of several the first in ``SUFFIXES``."""
    found: dict[tuple[str, str], Path] = {}
    for suffix in SUFFIXES:
        for path in sorted(_with_suffix(folder, suffix)):
            parent = path.parent
            if parent == folder:
                stem = path.stem.replace("$_$", "_")
                # Videos contain underscores, and so may clips: every cut is a name it goes by.
                for at in (k for k, c in enumerate(stem) if c == "_"):
                    found.setdefault((stem[:at], stem[at + 1 :]), path)
                found.setdefault((stem, ""), path)
            else:
                found.setdefault((parent.name, path.stem), path)
    return found


def _with_suffix(folder: Path, suffix: str) -> Iterator[Path]:
    for place in (folder, folder / "Raw"):
        for depth in ("*", "*/*"):
            for path in place.glob(depth):
                if path.suffix.lower() == suffix and path.is_file():
                    yield path


def _targets(paths: Sequence[Path], cache: Path, identity: str) -> dict[Path, Path]:
    """Where each clip's features are kept: by its content and what decides the numbers."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        targets = {}
        for path in paths:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            key = hashlib.sha256(f"{content} {identity}".encode()).hexdigest()
            targets[path] = cache / f"{key[:32]}.zip"
        return targets
    except OSError as error:
        raise UserError(f"cannot read or write {error.filename}: {error.strerror}") from None


def _row(
    sample: Sample,
    path: Path | None,
    folder: Path,
    targets: Mapping[Path, Path],
    failures: Mapping[Path, str],
) -> ClipRow:
    if path is None:
        # A layout's own features, such as action units, are enough.
        error = "" if sample.sequences else "there is no such clip in the folder"
        return ClipRow(sample.id, "", error)
    file = path.relative_to(folder).as_posix()
    if path in failures:
        return ClipRow(sample.id, file, failures[path])
    features = ClipFeatures.load(targets[path])
    if not features.sequences and not sample.sequences and not sample.text.strip():
        return ClipRow(sample.id, file, f"nothing is in it: {'; '.join(features.remarks)}")
    return ClipRow(sample.id, file, "", replace(features, sequences={}))


def _write_report(path: Path, rows: Sequence[ClipRow]) -> None:
    columns = ("id", "file", "error", "seconds", "pictures", "faces", "face", "face_confidence",
               "face_reason", "remarks")  # fmt: skip
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            found = row.features
            values: tuple[Any, ...] = ("",) * 7
            if found is not None:
                values = (
                    f"{found.duration:.3f}", found.num_pictures, len(found.faces),
                    "" if found.face is None else found.face, f"{found.face_confidence:.2f}",
                    found.face_reason, "; ".join(found.remarks),
                )  # fmt: skip
            writer.writerow((row.id, row.file, row.error, *values))
    partial.replace(path)


def _write_store(
    out: Path,
    description: DatasetDescription,
    pairs: Sequence[tuple[Sample, Path | None]],
    rows: Sequence[ClipRow],
    targets: Mapping[Path, Path],
    specs: Mapping[Modality, FeatureSpec],
    options: ReadOptions | None,
) -> None:
    failed = [row for row in rows if row.error]
    warnings = []
    if failed:
        names = ", ".join(row.id for row in failed[:5]) + (", ..." if len(failed) > 5 else "")
        warnings.append(
            f"{len(failed)} of {len(rows)} clips could not be read and are left out: {names}"
        )
    remarks: dict[str, int] = {}
    for row in rows:
        for remark in row.features.remarks if row.features else ():
            remarks[remark] = remarks.get(remark, 0) + 1
    common = [f"{count} clips: {remark}" for remark, count in remarks.items() if count > 1]
    described = replace(
        description,
        widths={**description.widths, **{m: spec.width for m, spec in specs.items()}},
        features={**description.features, **specs},
        allowed=(*description.allowed, *(missing_frames_of(m) for m in specs)),
        notes=(*description.notes, *common),
        warnings=(*description.warnings, *warnings),
    )

    def samples() -> Iterator[Sample]:
        for (sample, path), row in zip(pairs, rows, strict=True):
            if row.error:
                continue
            sequences = {} if path is None else ClipFeatures.load(targets[path]).sequences
            seen = {m: f for m, f in sequences.items() if m in specs and np.isfinite(f).any()}
            yield replace(sample, sequences={**seen, **sample.sequences})

    write_store(out, described, samples(), options=options)
