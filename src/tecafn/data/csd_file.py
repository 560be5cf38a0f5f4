"""Reads CMU's .csd files (HDF5): for each video (n, d) features and (n, 2) seconds.

They lie in ``/<root>/data/<video or "video[k]">/{features, intervals}``. A damaged or hostile file
may name other files, announce any size, or unpack to far more than it holds. So only plain datasets
inside the file are read, sizes are compared with the file's, and compressed pieces are unpacked
here, up to what they announce and no further.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.data.file_kinds import kind_of_path
from tecafn.data.samples import split_segment_id

_FREE_BYTES: Final = 64 * 2**20
_BYTES_PER_PACKED_BYTE: Final = 32
_MOST_CHUNKS: Final = 2**16
_DEFLATE, _SHUFFLE = 1, 2  # HDF5's numbers of the filters that are undone here


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise UserError(
            ".csd files are HDF5: install h5py, or tecafn with the extra [csd]"
        ) from None
    return h5py


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a damaged HDF5 file fails in every way its library knows
        reason = kind_of_path(path)
        if reason is None or reason.startswith("an HDF5"):
            reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} is damaged or no .csd file: {reason}") from None


@dataclass(frozen=True)
class TimedFrames:
    """One video's rows: (n, d) numbers or byte strings, and (n, 2) seconds."""

    path: Path
    features: Any  # an array, or a dataset that still lies on the disk
    intervals: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """These rows of the features, read from the disk as one piece.

        Raises:
            UserError: the file is damaged there.
        """
        first = int(rows.min()) if len(rows) else 0
        with _one_line_errors(self.path):
            piece: NDArray[Any] = self.features[first : int(rows.max()) + 1 if len(rows) else 0]
            return piece[rows - first]


class CsdFile:
    """An open .csd file.

    Attributes:
        path: where it is.
        root: the sequence's name, such as CMU_MOSI_COVAREP.
        width: d, columns of the features.
        holds_words: byte strings, not numbers.

    Raises:
        UserError: h5py is missing, or the file is damaged, hostile or of another layout.
    """

    def __init__(self, path: Path) -> None:
        h5py = _import_h5py()
        self.path = path
        if not path.is_file():
            raise UserError(f"no such file: {path}")
        with _one_line_errors(path):
            self._file = h5py.File(path, "r")
            self._num_bytes = path.stat().st_size
            self._entries: dict[str, list[str]] = defaultdict(list)
            roots = [name for name in self._file if "data" in self._group(self._file, name)]
            if len(roots) != 1:
                raise UserError(f"{path} must have one group with 'data', it has {len(roots)}")
            self.root: str = roots[0]
            self._data = self._group(self._file[self.root], "data")
            for name in self._data:
                self._entries[_video_of(name)].append(name)
            first = next(iter(self._data), None)
            if first is None:
                raise UserError(f"{path} has no video")
            features = self._dataset(first, "features", kinds="fiuS")
            self.width = int(features.shape[1])
            self.holds_words: bool = features.dtype.kind == "S"

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __contains__(self, video: str) -> bool:
        return video in self._entries

    def read(self, video: str) -> TimedFrames | None:
        """The rows of a video, its entries ``video[k]`` in a row; None if it has none."""
        if video not in self._entries:
            return None
        with _one_line_errors(self.path):
            parts = [self._entry(name) for name in sorted(self._entries[video], key=_number_of)]
            if len(parts) == 1:
                return parts[0]
            return TimedFrames(
                self.path,
                np.concatenate([part.features[:] for part in parts]),
                np.concatenate([part.intervals for part in parts]),
            )

    def _entry(self, name: str) -> TimedFrames:
        kinds = "S" if self.holds_words else "fiu"
        features = self._dataset(name, "features", kinds=kinds)
        intervals = self._dataset(name, "intervals", kinds="fiu")
        what = f"{self.path}: {name}"
        if features.shape[1] != self.width:
            raise UserError(f"{what} must have {self.width} columns, got {features.shape[1]}")
        if intervals.shape != (features.shape[0], 2):
            raise UserError(
                f"{what}: intervals must be ({features.shape[0]}, 2), got {intervals.shape}"
            )
        times = np.asarray(intervals[:], np.float64)
        return TimedFrames(self.path, features, times)

    def _group(self, parent: Any, name: str) -> Any:
        """A group that lies in this file; links to elsewhere are not followed."""
        h5py = _import_h5py()
        if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
            raise UserError(f"{self.path}: {name!r} is a link to elsewhere; it is not followed")
        group = parent[name]
        if not isinstance(group, h5py.Group):
            raise UserError(f"{self.path}: {name!r} must be a group")
        return group

    def _dataset(self, name: str, key: str, *, kinds: str) -> Any:
        """A dataset (n, d) or (n,) of the entry ``name``, unpacked if it is compressed."""
        h5py = _import_h5py()
        what = f"{self.path}: {name}/{key}"
        entry = self._group(self._data, name)
        if not isinstance(entry.get(key, getlink=True), h5py.HardLink):
            raise UserError(f"{what} must be a dataset in this file")
        dataset = entry[key]
        if not isinstance(dataset, h5py.Dataset):
            raise UserError(f"{what} must be a dataset")
        settings = dataset.id.get_create_plist()
        if dataset.is_virtual or settings.get_external_count():
            raise UserError(f"{what} keeps its values in another file; it is not read")
        shape, dtype = dataset.shape, dataset.dtype
        is_matrix = shape is not None and len(shape) in (1, 2) and all(shape[1:])
        if not is_matrix or dtype.kind not in kinds or not dtype.itemsize:
            raise UserError(
                f"{what} must be (n, d) {'byte strings' if kinds == 'S' else 'numbers'}, "
                f"got {dtype} {shape}"
            )
        filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
        num_bytes = math.prod(shape) * dtype.itemsize
        most = self._num_bytes
        if filters:
            most = _FREE_BYTES + _BYTES_PER_PACKED_BYTE * self._num_bytes
        if num_bytes > most:
            raise UserError(
                f"{what} announces {num_bytes} bytes, far more than the file's size explains"
            )
        if not set(filters) <= {_DEFLATE, _SHUFFLE}:
            raise UserError(
                f"{what} is packed by a filter other than gzip and shuffle; unpack it with "
                "`h5repack -f NONE`"
            )
        if filters:
            values = _unpacked(dataset, filters, what)
            return values.reshape(len(values), -1)
        return dataset if len(shape) == 2 else dataset[:].reshape(-1, 1)


def _video_of(entry: str) -> str:
    try:
        return split_segment_id(entry)[0]
    except ValueError:
        return entry


def _number_of(entry: str) -> int:
    try:
        return split_segment_id(entry)[1]
    except ValueError:
        return -1


def _unpacked(dataset: Any, filters: list[int], what: str) -> NDArray[Any]:
    """All values of a compressed dataset.

    HDF5 itself would inflate a piece to whatever it holds; here it is what it announces or refused.
    """
    shape, chunk, dtype = dataset.shape, dataset.chunks, dataset.dtype
    chunk_bytes = math.prod(chunk) * dtype.itemsize
    num_chunks = math.prod(-(-size // step) for size, step in zip(shape, chunk, strict=True))
    whole_bytes = math.prod(shape) * dtype.itemsize
    if num_chunks > _MOST_CHUNKS or chunk_bytes > _FREE_BYTES + 2 * whole_bytes:
        raise UserError(f"{what} is cut into {num_chunks} pieces of {chunk_bytes} bytes")
    whole = np.zeros(shape, dtype)
    steps = [range(0, size, step) for size, step in zip(shape, chunk, strict=True)]
    for offset in itertools.product(*steps):
        stored = dataset.id.get_chunk_info_by_coord(offset).size
        if stored > chunk_bytes + chunk_bytes // 64 + 1024:
            raise UserError(f"{what} has a packed piece larger than its contents")
        skipped, raw = dataset.id.read_direct_chunk(offset)
        for number in reversed(range(len(filters))):
            if not skipped >> number & 1:
                raw = _undo(filters[number], raw, dtype.itemsize, chunk_bytes, what)
        if len(raw) != chunk_bytes:
            raise UserError(f"{what} has a piece of {len(raw)} bytes, expected {chunk_bytes}")
        values = np.frombuffer(raw, dtype).reshape(chunk)
        place = tuple(slice(start, start + step) for start, step in zip(offset, chunk, strict=True))
        target = whole[place]
        target[...] = values[tuple(slice(size) for size in target.shape)]
    return whole


def _undo(kind: int, raw: bytes, itemsize: int, most: int, what: str) -> bytes:
    if kind == _DEFLATE:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(raw, most)
        if not unpacker.eof and unpacker.decompress(unpacker.unconsumed_tail, 1):
            raise UserError(f"{what} unpacks to more than it announces")
        return plain
    # Shuffle puts the first bytes of all items first, then the second ones, ...
    return np.frombuffer(raw, np.uint8).reshape(itemsize, -1).T.tobytes()
