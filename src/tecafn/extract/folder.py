"""Many clips to a store that methods train on: in guarded processes, resumable, cached."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.modality import Modality
from tecafn.core.places import refuse_taken
from tecafn.core.text import is_blank
from tecafn.data.importing import write_store
from tecafn.data.readers import ReadOptions, open_source
from tecafn.data.samples import DatasetDescription, Sample, missing_frames_of
from tecafn.data.store import Store
from tecafn.extract.clip import ClipSettings, extract_clip
from tecafn.extract.clip_features import ClipFeatures, Segment
from tecafn.extract.clip_files import SUFFIXES, transcript_of
from tecafn.extract.guard import Limits, Outcome, Tell, call_guarded, run_guarded
from tecafn.extract.ray_jobs import run_on_ray
from tecafn.extract.words import Word

_REPORT: Final = "clips.csv"
_WORDS: Final = "words.json"


@dataclass(frozen=True)
class ClipRow:
    """What became of a sample's clip.

    Args:
        id: of the sample.
        file: the clip, within its folder; empty where there is none.
        error: why it has no features; empty where it has.
        features: what was found, without the frames; None where there is none.
        kept: the file with the frames; None where there is none.
    """

    id: str
    file: str
    error: str = ""
    features: ClipFeatures | None = None
    kept: Path | None = None


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
    text: str
    transcript: Path | None
    identity: str = ""  # what the settings must come to where it is read; empty = here


@dataclass
class _Progress:
    """Passes on what processes say, by where a clip's features go."""

    done: Callable[[int, int], None] | None
    total: int
    number: int = 0
    failures: dict[Path, str] = field(default_factory=dict)

    def take(self, outcome: Outcome[_Job]) -> None:
        self.number += 1
        if outcome.error is not None:
            prefix = f"{outcome.job.path}: "
            self.failures[outcome.job.target] = outcome.error.removeprefix(prefix)
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
    ray: str | None = None,
    limits: Limits | None = None,
    done: Callable[[int, int], None] | None = None,
) -> Extracted:
    """Read every clip that a label.csv, or the folder's own layout, names and write a store.

    A clip is ``FOLDER/<video_id>/<clip_id>.<suffix>`` or ``FOLDER/<video_id>_<clip_id>.<suffix>``.
    Where the table has no text, a transcript of the clip's name beside it is read, and without one
    words are recognised. Features are kept in ``cache`` under a hash of the clip's content and of
    all that decides the numbers; so the same command continues after a kill, and a clip that two
    tables name is read once.

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
        ray: the address of a Ray cluster that reads them, see ``run_on_ray``; all of its machines
            see ``folder`` and ``cache`` under the same paths. None = this machine.
        limits: of each process.
        done: told after every clip how many of how many are done.

    Raises:
        UserError: the table or ``out`` is wrong, a model is not installed, or no clip could be
            read.
    """
    settings = settings or ClipSettings()
    if settings.cut:
        raise UserError("a label is of a whole clip: only a single clip is cut into utterances")
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
    if settings.per_word and description.widths:
        raise UserError(f"the folder's own {_names(description.widths)} frames are not per word")
    specs = {m: s for m, s in settings.specifications().items() if m not in description.widths}
    jobs = _jobs(pairs, cache, settings)
    todo = list({job.target: job for job in jobs if job and not job.target.exists()}.values())
    total = len({job.target for job in jobs if job})
    progress = _Progress(done, total, total - len(todo))
    if done is not None:
        done(progress.number, progress.total)
    for outcome in _outcomes(todo, ray, processes=processes, limits=limits):
        progress.take(outcome)
    rows = tuple(
        _row(sample, job, folder, progress.failures)
        for (sample, _), job in zip(pairs, jobs, strict=True)
    )
    if all(row.error for row in rows):
        raise UserError(f"no clip could be read; the first: {rows[0].file}: {rows[0].error}")
    report = cache / _REPORT
    _write_report(report, rows)
    _write_words(cache / _WORDS, [_said(row) for row in rows if _has_words(row)])
    described = replace(description, aligned=settings.per_word)
    _write_store(out, described, [sample for sample, _ in pairs], rows, specs, options)
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
    transcript: Path | None = None,
    limits: Limits | None = None,
    tell: Tell | None = None,
) -> tuple[Store, ClipFeatures]:
    """Read one clip into a store to predict from: a sample of the split test, or one per utterance.

    Its words are written beside the store, as ``OUT.words.json``.

    Args:
        path: the clip.
        out: where the store shall be.
        settings: None = the default ones.
        text: what is said in it.
        transcript: a file with what is said; None = one of the clip's name beside it, if there is.
        limits: of the process that reads it.
        tell: told the seconds that are done.

    Raises:
        UserError: it cannot be read, or has neither sound nor a face nor words.
    """
    settings = settings or ClipSettings()
    refuse_taken(out, may_be="neither")
    if not is_blank(text) and transcript is not None:
        raise UserError("what is said is given twice: as a text and as a transcript")
    transcript = transcript or transcript_of(path)
    specs = settings.specifications()
    settings.identity(text, transcript)  # what is missing is said before a clip is decoded
    features: ClipFeatures = call_guarded(
        _extract_whole, (path, settings, text, transcript), limits=limits, progress=tell
    )
    if features.is_empty and is_blank(text):
        raise UserError(f"{path}: nothing is heard or seen in it: {'; '.join(features.remarks)}")
    whole = Sample(
        id=path.stem, source_id=path.name, video=path.stem, clip="", split="test", text=text,
    )  # fmt: skip
    described = DatasetDescription(
        dataset="own-clips",
        widths={m: spec.width for m, spec in specs.items()},
        features=specs,
        aligned=settings.per_word,
        splits=("test",),
        allowed=tuple(missing_frames_of(m) for m in specs),
        notes=tuple(features.remarks),
        source_format="clip",
    )
    samples = [_filled(whole, segment) for segment in features.segments]
    if len(samples) > 1:
        samples = [
            replace(sample, id=f"{path.stem}_{number}", clip=str(number))
            for number, sample in enumerate(samples, 1)
        ]
    store = write_store(out, described, iter(samples))
    row = ClipRow(path.stem, path.name, features=features)
    _write_words(out.with_name(f"{out.name}.{_WORDS}"), _said(row) if _has_words(row) else None)
    return store, features


def _filled(sample: Sample, segment: Segment) -> Sample:
    """The sample with what was found in its stretch of the clip; a given text stays as it is."""
    words = segment.words
    timed = np.array([(word.start, word.end) for word in words], np.float32).reshape(-1, 2)
    return replace(
        sample,
        text=segment.text if is_blank(sample.text) else sample.text,
        sequences={**segment.sequences, **sample.sequences},
        words=tuple(word.text for word in words) if words else sample.words,
        word_intervals=timed if words else sample.word_intervals,
        start=segment.start if words else sample.start,
        end=segment.end if words else sample.end,
    )


def _outcomes(
    todo: Sequence[_Job], ray: str | None, *, processes: int, limits: Limits | None
) -> Iterator[Outcome[_Job]]:
    if ray is None:
        yield from run_guarded(_extract_to, todo, processes=processes, limits=limits)
        return
    near = {_anywhere(job): job for job in todo}
    for outcome in run_on_ray(_extract_to, near, address=ray, processes=processes, limits=limits):
        job, error = near[outcome.job], outcome.error
        if error is None and not job.target.exists():
            error = (
                "its features are on the machine that read it: name a --cache that all machines see"
            )
        elif error is not None:
            error = error.replace(str(outcome.job.path), str(job.path))
        yield Outcome(job, error=error)


def _anywhere(job: _Job) -> _Job:
    """The job for a machine with another working directory, and perhaps other models."""
    settings = job.settings
    if settings.speech_model is not None and Path(settings.speech_model).is_dir():
        settings = replace(settings, speech_model=str(Path(settings.speech_model).resolve()))
    transcript = None if job.transcript is None else job.transcript.resolve()
    return replace(
        job,
        path=job.path.resolve(),
        target=job.target.resolve(),
        settings=settings,
        transcript=transcript,
        identity=settings.identity(job.text, transcript),
    )


def _extract_to(job: _Job, tell: Tell) -> None:
    if job.identity and job.identity != job.settings.identity(job.text, job.transcript):
        raise UserError(
            f"{job.path}: {platform.node()} has other models or another tecafn than the machine "
            "that asked; install the same on all"
        )
    features = extract_clip(
        job.path, job.settings, text=job.text, transcript=job.transcript, tell=tell
    )
    features.save(job.target)


def _extract_whole(job: tuple[Path, ClipSettings, str, Path | None], tell: Tell) -> ClipFeatures:
    path, settings, text, transcript = job
    return extract_clip(path, settings, text=text, transcript=transcript, tell=tell)


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


def _jobs(
    pairs: Sequence[tuple[Sample, Path | None]], cache: Path, settings: ClipSettings
) -> list[_Job | None]:
    """What is to be read for each sample, kept by content and by what decides the numbers."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        jobs: list[_Job | None] = []
        for sample, path in pairs:
            if path is None:
                jobs.append(None)
                continue
            # What is given and not used decides nothing.
            transcript = transcript_of(path) if is_blank(sample.text) else None
            identity = settings.identity(sample.text, transcript)
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            key = hashlib.sha256(f"{content} {identity}".encode()).hexdigest()
            target = cache / f"{key[:32]}.zip"
            jobs.append(_Job(path, target, settings, sample.text, transcript))
        return jobs
    except OSError as error:
        raise UserError(f"cannot read or write {error.filename}: {error.strerror}") from None


def _row(sample: Sample, job: _Job | None, folder: Path, failures: Mapping[Path, str]) -> ClipRow:
    if job is None:
        # A layout's own features, such as action units, are enough.
        error = "" if sample.sequences else "there is no such clip in the folder"
        return ClipRow(sample.id, "", error)
    file = job.path.relative_to(folder).as_posix()
    if job.target in failures:
        return ClipRow(sample.id, file, failures[job.target])
    features = ClipFeatures.load(job.target)
    if features.is_empty and not sample.sequences and is_blank(sample.text):
        return ClipRow(sample.id, file, f"nothing is in it: {'; '.join(features.remarks)}")
    # Frames are loaded again when they are written: those of all clips do not fit into memory.
    bare = tuple(replace(segment, sequences={}) for segment in features.segments)
    return ClipRow(sample.id, file, "", replace(features, segments=bare), job.target)


def _write_report(path: Path, rows: Sequence[ClipRow]) -> None:
    columns = ("id", "file", "error", "seconds", "pictures", "faces", "face", "face_confidence",
               "face_reason", "words", "words_from", "remarks")  # fmt: skip
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            found = row.features
            values: tuple[Any, ...] = ("",) * 9
            if found is not None:
                values = (
                    f"{found.duration:.3f}", found.num_pictures, len(found.faces),
                    "" if found.face is None else found.face, f"{found.face_confidence:.2f}",
                    found.face_reason, sum(len(one.words) for one in found.segments),
                    found.words_from, "; ".join(found.remarks),
                )  # fmt: skip
            writer.writerow((row.id, row.file, row.error, *values))
    partial.replace(path)


def _has_words(row: ClipRow) -> bool:
    return row.features is not None and bool(row.features.words_from)


def _said(row: ClipRow) -> dict[str, Any]:
    """A clip's words with their times, in a layout that is read as a transcript again."""
    assert row.features is not None, "a clip with words"
    return {
        "id": row.id,
        "from": row.features.words_from,
        "no_speech": row.features.no_speech,
        "segments": [
            {
                "start": round(segment.start, 3),
                "end": round(segment.end, 3),
                "text": segment.text,
                "words": [_as_written(word) for word in segment.words],
            }
            for segment in row.features.segments
        ],
    }


def _write_words(path: Path, content: Mapping[str, Any] | Sequence[Any] | None) -> None:
    """What is said, as JSON; no file where nothing is."""
    if not content:
        path.unlink(missing_ok=True)
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _as_written(word: Word) -> dict[str, Any]:
    about = {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)}
    known = {} if word.confidence is None else {"confidence": word.confidence}
    return {**about, **known, "interpolated": word.interpolated}


def _write_store(
    out: Path,
    description: DatasetDescription,
    samples: Sequence[Sample],
    rows: Sequence[ClipRow],
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

    def filled() -> Iterator[Sample]:
        for sample, row in zip(samples, rows, strict=True):
            if row.error:
                continue
            if row.kept is None:
                yield sample
                continue
            segment = ClipFeatures.load(row.kept).segments[0]
            found = {m: frames for m, frames in segment.sequences.items() if m in specs}
            yield _filled(sample, replace(segment, sequences=found))

    write_store(out, described, filled(), options=options)


def _names(widths: Mapping[Modality, int]) -> str:
    return " and ".join(str(modality) for modality in widths)
