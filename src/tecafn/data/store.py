"""The store: how imported data lies on disk, written as a stream and read through memory maps.

A directory with ``manifest.json`` (what it is, and the SHA-256 of every other file),
``samples.parquet`` (one row per sample) and ``<modality>/00000.npy`` ... (all frames of many
samples in a row, (F, D) float32). A sample's row says in which shard its frames begin, where,
and how many there are.

Frames with NaN or infinity are stored as they came, in their place; the loader masks them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tecafn.core.conventions import convention_named
from tecafn.core.dataset_names import current_name
from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.info import Task
from tecafn.core.modality import Modality
from tecafn.data.context import previous_texts
from tecafn.data.samples import DatasetDescription, Sample, SourceFile
from tecafn.data.summary import Census

FORMAT_VERSION: Final = 1
_MANIFEST: Final = "manifest.json"
_SAMPLES: Final = "samples.parquet"
_ROWS_A_GROUP: Final = 4096
_SHARD_BYTES: Final = 256 * 2**20
UNIMODAL_COLUMNS: Final = ("label_text", "label_audio", "label_vision")


def _schema(modalities: Iterable[Modality]) -> pa.Schema:
    fields = [
        *((name, pa.string()) for name in ("id", "source_id", "video", "clip", "split", "text")),
        *((name, pa.float32()) for name in ("label", *UNIMODAL_COLUMNS)),
        ("pair_id", pa.string()),
        ("oracle", pa.float32()),
        ("context", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("words", pa.list_(pa.string())),
        ("word_intervals", pa.list_(pa.list_(pa.float32()))),
        *(
            (f"{m}_{part}", pa.int64())
            for m in modalities
            for part in ("shard", "offset", "length")
        ),
    ]
    return pa.schema(fields)


class _ShardWriter:
    """Appends frames to numbered .npy files, without holding them."""

    _HEADER: Final = 128

    def __init__(self, folder: Path, width: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._width = width
        self._file: IO[bytes] | None = None
        self._rows = 0
        self._shard = -1

    def append(self, frames: NDArray[np.float32]) -> tuple[int, int]:
        """Shard and offset at which ``frames`` (L, D) now lie."""
        if self._file is None or self._rows * self._width * 4 + frames.nbytes > _SHARD_BYTES:
            self.close()
            self._shard += 1
            self._rows = 0
            self._file = (self._folder / f"{self._shard:05d}.npy").open("wb")
            self._file.write(self._header(0))
        offset = self._rows
        self._file.write(np.ascontiguousarray(frames, dtype="<f4").tobytes())
        self._rows += len(frames)
        return self._shard, offset

    def close(self) -> None:
        """Write the row count, now known, into the open shard's header."""
        if self._file is not None:
            self._file.seek(0)
            self._file.write(self._header(self._rows))
            _sync(self._file)
            self._file.close()
            self._file = None

    def _header(self, rows: int) -> bytes:
        # Always the same length, so that the final row count can overwrite the first.
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {self._width}), }}"
        padding = self._HEADER - 10 - len(text) - 1
        return (
            b"\x93NUMPY\x01\x00"
            + struct.pack("<H", self._HEADER - 10)
            + f"{text}{' ' * padding}\n".encode("ascii")
        )


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


class StoreWriter:
    """Writes a store sample by sample; it appears under its name only when it is complete.

    Args:
        path: where the store shall be; must not exist, or be an empty folder.
        description: what the samples belong to.

    Attributes:
        census: counts of the samples added so far.

    Raises:
        UserError: ``path`` is taken or cannot be written, or (from ``add``) a sample is wrong.

    Example:
        >>> import tempfile
        >>> from tecafn.data.samples import DatasetDescription, Sample
        >>> path = Path(tempfile.mkdtemp()) / "store"
        >>> toy = DatasetDescription(dataset="toy", widths={Modality.AUDIO: 2})
        >>> with StoreWriter(path, toy) as writer:
        ...     writer.add(Sample(id="v_1", source_id="v_1", video="v", clip="1", split="train",
        ...                       text="fine", label=1.0,
        ...                       sequences={Modality.AUDIO: np.ones((3, 2), np.float32)}))
        >>> Store.open(path).split("train").sequence(0, Modality.AUDIO).shape
        (3, 2)
    """

    def __init__(self, path: Path, description: DatasetDescription) -> None:
        self._path = path
        self._description = description
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UserError(f"{path} exists already; name another folder or remove it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None
        self._work.chmod(0o755)
        self._schema = _schema(description.widths)
        self._parquet = pq.ParquetWriter(self._work / _SAMPLES, self._schema)
        self._shards = {
            modality: _ShardWriter(self._work / modality, width)
            for modality, width in description.widths.items()
        }
        self.census = Census(description)
        self._allowed: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._first_with_id: dict[str, tuple[str, str]] = {}  # its video, and where it stands
        self._splits: dict[str, dict[str, Any]] = {
            split: {"num_samples": 0, "num_labelled": 0, "videos": set()}
            for split in description.splits
        }
        self._repairs = {
            m: {"nan_frames": 0, "inf_frames": 0, "empty_sequences": 0} for m in description.widths
        }
        self._words_timed = False
        self._notes: list[str] = []
        self._warnings: list[str] = []

    def note(self, *sentences: str) -> None:
        """Keep what was done beside the description's notes."""
        self._notes += sentences

    def warn(self, *sentences: str) -> None:
        """Keep what is doubtful beside the description's warnings."""
        self._warnings += sentences

    def allow(self, *checks: str) -> None:
        """Keep what the caller allowed beside what the description has."""
        self._allowed += checks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                self._parquet.close()
                for shards in self._shards.values():
                    shards.close()
        except OSError as failure:
            raise UserError(f"cannot write {self._path}: {failure.strerror or failure}") from None
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def add(self, sample: Sample) -> None:
        """Append one sample.

        Raises:
            UserError: a label is NaN or infinite, a width differs from the description's, the
                split is none of its, another sample has the same id, or the disk is full.
        """
        number = sum(counts["num_samples"] for counts in self._splits.values()) + 1
        what = f"sample {number}, {sample.id!r} ({sample.split})"
        if sample.split not in self._splits:
            raise UserError(f"{what}: split must be one of {', '.join(self._splits)}")
        labels = {"label": sample.label} | {
            f"label_{m}": value for m, value in sample.unimodal_labels.items()
        }
        for name, value in labels.items():
            if value is not None and not math.isfinite(value):
                raise UserError(
                    f"{what}: {name} is {value}; leave it empty if the sample is unlabelled"
                )
        where = sample.where or what
        if sample.id in self._first_with_id:
            video, first = self._first_with_id[sample.id]
            if video != sample.video:
                raise UserError(
                    f"{where}: id {sample.id!r} must be of one video, got {sample.video!r} and "
                    f"{video!r} ({first})"
                )
            raise UserError(
                f"{where}: id {sample.id!r} must be of one sample, it is also that of {first}; "
                "--drop-duplicates keeps the first"
            )
        self._first_with_id[sample.id] = (sample.video, where)
        unknown = set(sample.sequences) - set(self._shards)
        if unknown:
            raise UserError(f"{what}: the dataset has no {', '.join(sorted(unknown))}")
        row: dict[str, Any] = {
            "id": sample.id,
            "source_id": sample.source_id,
            "video": sample.video,
            "clip": sample.clip,
            "split": sample.split,
            "text": sample.text,
            **labels,
            "pair_id": sample.pair_id,
            "oracle": sample.oracle,
            "context": sample.context,
            "start": sample.start,
            "end": sample.end,
            "words": None if sample.words is None else list(sample.words),
            "word_intervals": (
                None
                if sample.word_intervals is None
                else np.asarray(sample.word_intervals, np.float32).tolist()
            ),
        }
        try:
            for modality in self._shards:
                row |= self._append(modality, sample.sequences.get(modality), what)
            self._rows.append(row)
            self.census.add(sample)
            counts = self._splits[sample.split]
            counts["num_samples"] += 1
            counts["num_labelled"] += sample.label is not None
            counts["videos"].add(sample.video)
            self._words_timed |= sample.word_intervals is not None
            if len(self._rows) >= _ROWS_A_GROUP:
                self._flush_rows()
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from None

    def _append(
        self, modality: Modality, frames: NDArray[np.float32] | None, what: str
    ) -> dict[str, int]:
        repairs = self._repairs[modality]
        if frames is None or len(frames) == 0:
            repairs["empty_sequences"] += 1
            return {f"{modality}_shard": 0, f"{modality}_offset": 0, f"{modality}_length": 0}
        width = self._description.widths[modality]
        if frames.ndim != 2 or frames.shape[1] != width:
            raise UserError(f"{what}: {modality} must be (L, {width}), got {frames.shape}")
        if not np.isfinite(frames).all():
            nan = np.isnan(frames).any(axis=1)
            repairs["nan_frames"] += int(nan.sum())
            repairs["inf_frames"] += int((np.isinf(frames).any(axis=1) & ~nan).sum())
        shard, offset = self._shards[modality].append(frames)
        return {
            f"{modality}_shard": shard,
            f"{modality}_offset": offset,
            f"{modality}_length": len(frames),
        }

    def _flush_rows(self) -> None:
        if self._rows:
            self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows.clear()

    def _finish(self) -> None:
        self._flush_rows()
        self._parquet.close()
        for shards in self._shards.values():
            shards.close()
        described = self._description
        files = sorted(p for p in self._work.rglob("*") if p.is_file())
        manifest = {
            "format_version": FORMAT_VERSION,
            "dataset": described.dataset,
            "task": described.task,
            "label_range": list(described.label_range),
            "num_classes": described.num_classes,
            "convention": described.convention,
            "aligned": described.aligned,
            "widths": {m.value: width for m, width in described.widths.items()},
            "splits": {
                split: {
                    "num_samples": counts["num_samples"],
                    "num_labelled": counts["num_labelled"],
                    "num_videos": len(counts["videos"]),
                }
                for split, counts in self._splits.items()
            },
            "source": {
                "format": described.source_format,
                "files": [
                    {"name": file.name, "sha256": file.sha256, "bytes": file.num_bytes}
                    for file in described.source_files
                ],
            },
            "files": {p.relative_to(self._work).as_posix(): _hash(p) for p in files},
            "decisions": list(described.decisions),
            "notes": [*described.notes, *self._notes],
            "warnings": [*described.warnings, *self._warnings],
            "allowed": list(dict.fromkeys([*described.allowed, *self._allowed])),
            "summary": self.census.as_dict(),
            "repairs": {m.value: counts for m, counts in self._repairs.items()},
            "words_timed": self._words_timed,
        }
        # Only where there are any, so that other stores are what they always were.
        if described.class_names:
            manifest["class_names"] = list(described.class_names)
        if described.features:
            manifest["features"] = {m.value: s.as_dict() for m, s in described.features.items()}
        with (self._work / _MANIFEST).open("wb") as file:
            file.write(json.dumps(manifest, indent=1, ensure_ascii=True).encode("ascii"))
            _sync(file)
        try:
            self._work.rename(self._path)
        except OSError:
            if self._path.exists() and any(self._path.iterdir()):
                raise UserError(f"{self._path} was made by someone else meanwhile") from None
            raise


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Shards:
    """Memory maps of one modality, opened when first read, again in every worker process."""

    def __init__(self, folder: Path, width: int) -> None:
        self._folder = folder
        self._width = width
        self._maps: dict[int, NDArray[np.float32]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would carry its contents.
        return {"_folder": self._folder, "_width": self._width, "_maps": {}}

    def frames(self, shard: int, offset: int, length: int) -> NDArray[np.float32]:
        """(length, D), read-only, on disk until touched."""
        opened = self._maps.get(shard)
        if opened is None:
            opened = self._maps[shard] = self._open(self._folder / f"{shard:05d}.npy")
        if offset + length > len(opened):
            raise UserError(f"{self._folder} is damaged: shard {shard} ends before its samples")
        return opened[offset : offset + length]

    def _open(self, path: Path) -> NDArray[np.float32]:
        try:
            # As a plain array: slices of numpy.memmap cost several times as much.
            opened = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{path} is damaged or missing: {' '.join(str(error).split())}"
            ) from None
        if opened.ndim != 2 or opened.shape[1] != self._width or opened.dtype != np.float32:
            raise UserError(
                f"{path} must hold float32 (F, {self._width}), got {opened.dtype} {opened.shape}"
            )
        return opened


class SplitView:
    """The samples of one split, or a subset of them, by row number 0 to N - 1.

    Attributes:
        name: train, valid or test.
        split_rows: (N,) int64, each row's number in the whole split (differs in a subset).
        ids, videos, texts: N strings each.
        labels: (N,) float32, NaN where unlabelled.
        labelled: (N,) bool.
        task, convention, label_range: what the labels are and how they are measured.
        max_frames: frames of audio and vision after this many are cut; None = none is.
        context_utterances: how many previous utterances are a sample's context where it has none
            of its own.
    """

    def __init__(
        self,
        name: str,
        table: pa.Table,
        shards: Mapping[Modality, _Shards],
        *,
        split_rows: NDArray[np.int64],
        description: DatasetDescription,
        max_frames: int | None = None,
        context_utterances: int = 0,
    ) -> None:
        self.name = name
        self.context_utterances = context_utterances
        self.max_frames = max_frames
        self.split_rows = split_rows
        self.widths = description.widths
        self.task: Task = description.task
        self.convention = description.convention
        self.label_range = description.label_range
        self._description = description
        self._table = table
        self._shards = shards
        self.ids: list[str] = table["id"].to_pylist()
        self.videos: list[str] = table["video"].to_pylist()
        self.texts: list[str] = table["text"].to_pylist()
        self.labels = self._floats("label")
        self.labelled: NDArray[np.bool_] = ~np.isnan(self.labels)
        self._places = {
            m: np.stack([self._integers(f"{m}_{part}") for part in ("shard", "offset", "length")])
            for m in self.widths
        }

    def __len__(self) -> int:
        return len(self.ids)

    def _floats(self, column: str) -> NDArray[np.float32]:
        # Not to_numpy, which imports pandas, too.
        return np.asarray(self._table[column].to_pylist(), np.float32)

    def _integers(self, column: str) -> NDArray[np.int64]:
        return np.asarray(self._table[column].to_pylist(), np.int64)

    def column(self, name: str) -> list[Any]:
        """N values of any column of samples.parquet; None where a sample has none.

        Columns are clip, source_id, pair_id, oracle, start, end, context, words, word_intervals
        and others.

        Raises:
            KeyError: there is no such column.
        """
        values: list[Any] = self._table[name].to_pylist()
        return values

    def unimodal_labels(self, modality: Modality) -> NDArray[np.float32]:
        """(N,) float32 labels of one modality alone (CH-SIMS), NaN where there is none."""
        return self._floats(f"label_{modality}")

    def lengths(self, modality: Modality) -> NDArray[np.int64]:
        """(N,) int64 frames, the first ``max_frames``; 0 = absent, or not stored at all."""
        lengths = self.stored_lengths(modality)
        limit = self._limit(modality)
        return lengths if limit is None else np.minimum(lengths, limit)

    def stored_lengths(self, modality: Modality) -> NDArray[np.int64]:
        """(N,) int64 frames before any is cut."""
        if modality not in self._places:
            return np.zeros(len(self), np.int64)
        lengths: NDArray[np.int64] = self._places[modality][2]
        return lengths

    def _limit(self, modality: Modality) -> int | None:
        """Text has a limit of its own, in tokens."""
        return None if modality is Modality.TEXT else self.max_frames

    def sequence(self, row: int, modality: Modality) -> NDArray[np.float32]:
        """(L, D) float32 frames as they came, read-only; (0, D) when absent.

        Raises:
            KeyError: the modality is not stored.
        """
        shard, offset, length = self._places[modality][:, row].tolist()
        if length == 0:
            return np.empty((0, self.widths[modality]), np.float32)
        limit = self._limit(modality)
        kept = length if limit is None else min(length, limit)
        return self._shards[modality].frames(shard, offset, kept)

    def subset(self, rows: Sequence[int] | NDArray[np.int64]) -> SplitView:
        """A view of these rows, in this order, numbered anew from 0."""
        chosen = np.asarray(rows, np.int64)
        return SplitView(
            self.name,
            self._table.take(pa.array(chosen)),
            self._shards,
            split_rows=self.split_rows[chosen],
            description=self._description,
            max_frames=self.max_frames,
            context_utterances=self.context_utterances,
        )

    def with_texts(self, texts: Sequence[str], contexts: Sequence[str | None]) -> SplitView:
        """The same samples with other texts and contexts, N each."""
        table = self._table
        for name, values in (("text", texts), ("context", contexts)):
            column = table.schema.get_field_index(name)
            table = table.set_column(column, name, pa.array(list(values), pa.string()))
        return SplitView(
            self.name,
            table,
            self._shards,
            split_rows=self.split_rows,
            description=self._description,
            max_frames=self.max_frames,
            context_utterances=self.context_utterances,
        )

    def samples(self) -> Iterator[Sample]:
        """The samples as their reader gave them."""
        position = 0
        for batch in self._table.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                yield self._sample(position, row)
                position += 1

    def _sample(self, position: int, row: dict[str, Any]) -> Sample:
        intervals = row["word_intervals"]
        return Sample(
            **{name: row[name] for name in ("id", "source_id", "video", "clip", "split", "text")},
            **{name: row[name] for name in ("label", "pair_id", "oracle", "context")},
            start=row["start"],
            end=row["end"],
            unimodal_labels={
                m: row[f"label_{m}"] for m in Modality if row[f"label_{m}"] is not None
            },
            sequences={
                m: self.sequence(position, m) for m in self.widths if row[f"{m}_length"] > 0
            },
            words=None if row["words"] is None else tuple(row["words"]),
            word_intervals=(
                None if intervals is None else np.asarray(intervals, np.float32).reshape(-1, 2)
            ),
        )


def _with_context(table: pa.Table, count: int) -> pa.Table:
    """The same samples; those without a context of their own have the previous utterances."""
    videos, clips, starts, texts, own = (
        table[name].to_pylist() for name in ("video", "clip", "start", "text", "context")
    )
    before = previous_texts(videos, clips, starts, texts, count=count)
    merged = [
        stored if (stored or "").strip() else said for stored, said in zip(own, before, strict=True)
    ]
    number = table.schema.get_field_index("context")
    return table.set_column(number, "context", pa.array(merged, pa.string()))


_MANIFEST_KEYS: Final = (
    "dataset", "task", "label_range", "num_classes", "aligned", "widths", "splits", "source",
    "files", "notes", "repairs", "words_timed",
)  # fmt: skip


class Store:
    """An opened store; ``Store.open(path)`` makes one.

    Attributes:
        path: its folder.
        manifest: the content of manifest.json.
        description: what the dataset is.
        max_frames: what its views cut audio and vision at.
        context_utterances: how many previous utterances its views give as context.
    """

    def __init__(
        self,
        path: Path,
        manifest: Mapping[str, Any],
        *,
        max_frames: int | None = None,
        context_utterances: int = 0,
    ) -> None:
        self.path = path
        self.context_utterances = context_utterances
        self.max_frames = max_frames
        self.manifest = {**manifest, "dataset": current_name(manifest["dataset"])}
        self.description = DatasetDescription(
            dataset=self.manifest["dataset"],
            widths={Modality(name): int(width) for name, width in manifest["widths"].items()},
            task=manifest["task"],
            label_range=(float(manifest["label_range"][0]), float(manifest["label_range"][1])),
            num_classes=int(manifest["num_classes"]),
            class_names=tuple(str(name) for name in manifest.get("class_names", ())),
            features={
                Modality(name): FeatureSpec.from_dict(spec)
                for name, spec in manifest.get("features", {}).items()
            },
            # Version 0.1 did not write it: what the data are says it then.
            stated_convention=manifest.get("convention"),
            aligned=bool(manifest["aligned"]),
            splits=tuple(manifest["splits"]),
            decisions=tuple(manifest.get("decisions", ())),
            notes=tuple(manifest["notes"]),
            # Absent from stores of before.
            warnings=tuple(manifest.get("warnings", ())),
            allowed=tuple(manifest.get("allowed", ())),
            source_format=manifest["source"]["format"],
            source_files=tuple(
                SourceFile(file["name"], file["sha256"], file["bytes"])
                for file in manifest["source"]["files"]
            ),
        )
        convention_named(self.description.convention)  # a manifest may have any name
        self._shards = {
            m: _Shards(path / m.value, width) for m, width in self.description.widths.items()
        }

    @classmethod
    def open(
        cls, path: str | Path, *, max_frames: int | None = None, context_utterances: int = 0
    ) -> Store:
        """Open the store in the folder ``path``.

        Args:
            path: the folder.
            max_frames: let its views have this many first frames of audio and vision alone.
            context_utterances: let a sample without a context of its own have as context what was
                said in this many previous utterances of its video, within the same split.

        Raises:
            UserError: it is no store, of another version, or incomplete.
        """
        path = Path(path)
        if not path.exists():
            raise UserError(f"no such store: {path}")
        try:
            manifest = json.loads((path / _MANIFEST).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{path} is no store: it has no {_MANIFEST}; make one with `tecafn data import`"
            ) from None
        except (ValueError, RecursionError, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{path / _MANIFEST} cannot be read: {reason}") from None
        version = manifest.get("format_version") if isinstance(manifest, dict) else None
        if version != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version!r}, expected {FORMAT_VERSION}: import it again"
            )
        missing = [key for key in _MANIFEST_KEYS if key not in manifest]
        if missing:
            raise UserError(f"{path / _MANIFEST} lacks {', '.join(missing)}")
        try:
            store = cls(
                path, manifest, max_frames=max_frames, context_utterances=context_utterances
            )
            names = list(manifest["files"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(
                f"{path / _MANIFEST} is damaged: {type(error).__name__} {error}"
            ) from None
        for name in (_SAMPLES, *names):
            if not (path / name).is_file():
                raise UserError(f"{path} is incomplete: {name} is missing")
        return store

    @property
    def content_hash(self) -> str:
        """SHA-256 over the files' names and hashes: the data's identity in records."""
        lines = "".join(
            f"{name} {digest}\n" for name, digest in sorted(self.manifest["files"].items())
        )
        return hashlib.sha256(lines.encode()).hexdigest()

    def verify(self) -> None:
        """Compare every file with its hash in the manifest.

        Raises:
            UserError: a file was changed.
        """
        for name, digest in self.manifest["files"].items():
            self._verify(name, digest)

    def verify_table(self) -> None:
        """Compare the table of the samples alone with its hash in the manifest: ids and labels.

        Raises:
            UserError: it was changed.
        """
        self._verify(_SAMPLES, self.manifest["files"].get(_SAMPLES))

    def _verify(self, name: str, digest: str | None) -> None:
        if _hash(self.path / name) != digest:
            raise UserError(f"{self.path / name} was changed since it was imported: hash differs")

    @property
    def table_path(self) -> Path:
        """The file with a row per sample."""
        return self.path / _SAMPLES

    def table_columns(self, names: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
        """Some columns of all splits, some thousand rows at a time.

        Raises:
            UserError: the table cannot be read, or lacks one.
        """
        try:
            with pq.ParquetFile(self.table_path) as file:
                for batch in file.iter_batches(columns=list(names), batch_size=_ROWS_A_GROUP):
                    columns = batch.to_pydict()
                    missing = [name for name in names if name not in columns]
                    if missing:
                        raise UserError(f"{self.table_path} lacks the column {missing[0]!r}")
                    yield columns
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{self.table_path} cannot be read: {reason}") from None

    @property
    def split_names(self) -> tuple[str, ...]:
        """The declared splits, empty ones included."""
        return self.description.splits

    def split(self, name: str) -> SplitView:
        """The samples of one split.

        Raises:
            UserError: there is no such split, or it is empty.
        """
        sizes = {s: counts["num_samples"] for s, counts in self.manifest["splits"].items()}
        if name not in sizes:
            known = ", ".join(f"{split} ({size})" for split, size in sizes.items())
            raise UserError(f"{self.path} has no split {name!r}, it has {known}")
        if not sizes[name]:
            raise UserError(f"split {name!r} of {self.path} is empty, expected samples")
        return self._view(name)

    def labelled_pool(self) -> SplitView:
        """The labelled samples of every split but test, for cross-validation.

        Raises:
            UserError: there is none.
        """
        splits = [name for name in self.split_names if name != "test"]
        pool = self._view("labelled", splits=splits)
        rows = np.flatnonzero(pool.labelled)
        if not len(rows):
            raise UserError(f"{self.path} has no labelled samples outside its test split")
        return self._view("labelled", splits=splits, rows=rows)

    def _view(
        self,
        name: str,
        *,
        splits: Sequence[str] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> SplitView:
        """The samples of some splits (default: of the one ``name``), or ``rows`` of them."""
        try:
            table = self._read_table([name] if splits is None else splits)
            if self.context_utterances:
                table = _with_context(table, self.context_utterances)
            if rows is not None:
                table = table.take(pa.array(rows))
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{self.path / _SAMPLES} cannot be read: {reason}") from None
        missing = [n for n in _schema(self.description.widths).names if n not in table.column_names]
        if missing:
            raise UserError(f"{self.path / _SAMPLES} lacks the column {missing[0]!r}")
        return SplitView(
            name,
            table,
            self._shards,
            split_rows=np.arange(len(table)),
            description=self.description,
            max_frames=self.max_frames,
            context_utterances=self.context_utterances,
        )

    def _read_table(self, splits: Sequence[str]) -> pa.Table:
        """The rows of some splits, a group at a time.

        ``pq.read_table`` with filters, and whatever makes an array of Python's objects, would
        import pandas where it is installed, which takes most of a second.
        """
        kept = []
        with pq.ParquetFile(self.table_path) as file:
            if "split" not in file.schema_arrow.names:
                raise UserError(f"{self.table_path} lacks the column 'split'")
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                is_kept = np.isin(table["split"].to_pylist(), splits)
                bits = pa.py_buffer(np.packbits(is_kept, bitorder="little"))
                mask = pa.Array.from_buffers(pa.bool_(), len(table), [None, bits])
                kept.append(table.filter(mask))
            return pa.concat_tables(kept) if kept else file.read()

    def samples(self) -> Iterator[Sample]:
        """Every sample, split by split."""
        for name in self.split_names:
            yield from self._view(name).samples()
