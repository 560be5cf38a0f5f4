"""What a reader is, and what readers share: checking values of files that nobody vouches for."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.registry import Registry
from tecafn.data.file_kinds import kind_of_path
from tecafn.data.layouts import explain, modality_named
from tecafn.data.padding import Side
from tecafn.data.samples import (
    SPLITS,
    DatasetDescription,
    Sample,
    SourceFile,
    canonical_split,
)
from tecafn.data.unpickle import load_pickle
from tecafn.data.which import UNNAMED, Evidence, Which, decide

Frames = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a source does not say about itself.

    Args:
        dataset: cmu-mosi, cmu-mosei, ch-sims or any other name; None = see ``which.decide``.
        label_range: lowest and highest label; None = the dataset's.
        ids: how ids are read, one of ``tecafn.data.ids.LAYOUTS``; None = as all of them look.
        drop_duplicates: import the first of the samples with one id, which else is an error.
        split: the split of a file that holds one; None = take it from the file's name.
        audio, vision: files with frames: npz for a label.csv, .csd for a folder that holds several
            of one modality.
        padding: where a modality's arrays are padded; a modality that is not named is searched.
        ignore_lengths: find frames by their zero rows, whatever the file's lengths say.
        allow_missing_frames: modalities of which more than a few samples may be without frames.
        min_join_share: least share of the table's rows that must find frames in a file joined to
            it; None = all but a few, see ``tecafn.data.shares``.
        match_ids: how a joined file's ids correspond to the table's, one of
            ``tecafn.data.joins.RULES``; None = look.
    """

    dataset: str | None = None
    label_range: tuple[float, float] | None = None
    ids: str | None = None
    drop_duplicates: bool = False
    split: str | None = None
    audio: Path | None = None
    vision: Path | None = None
    padding: Mapping[Modality, Side] = field(default_factory=dict)
    ignore_lengths: bool = False
    allow_missing_frames: frozenset[Modality] = frozenset()
    min_join_share: float | None = None
    match_ids: str | None = None


Read = Callable[[Path, ReadOptions], tuple[DatasetDescription, Iterator[Sample]]]


@dataclass(frozen=True)
class Reader:
    """A format of files.

    Args:
        summary: one line on what it reads.
        read: gives the description and a stream of samples. A literal NaN label stays NaN in the
            sample: the store refuses it, the integrity report lists it.
        recognises: could this be a source of mine? Decides when the user names no format.
        cuts_ids: has the source ids in one piece, which ``ReadOptions.ids`` says how to cut?
    """

    summary: str
    read: Read
    recognises: Callable[[Path], bool]
    cuts_ids: bool = False


READERS: Registry[Reader] = Registry("format")


def open_source(
    source: Path, *, format: str | None = None, options: ReadOptions | None = None
) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Description and samples of ``source``; without ``format`` the reader that knows it.

    Raises:
        UserError: there is no such file, format or reader, two readers know it, or the file is
            wrong.
    """
    if not source.exists():
        raise UserError(f"no such file or directory: {source}")
    options = options or ReadOptions()
    if format is None:
        try:
            known = [name for name in READERS if READERS[name].recognises(source)]
            if not known:
                raise UserError(_unknown(source))
        finally:
            _loaded.cache_clear()
        if len(known) > 1:
            raise UserError(
                f"{source} could be {' or '.join(known)}: name its format with --format"
            )
        format = known[0]
    reader = READERS[format]
    if options.ids is not None and not reader.cuts_ids:
        raise UserError(f"--ids is for ids in one piece; {format} has video and clip apart")
    if options.split is not None and canonical_split(options.split) is None:
        raise UserError(f"--split must be one of {', '.join(SPLITS)}, got {options.split!r}")
    if options.split is not None and not reader.cuts_ids:
        raise UserError(f"--split is for a file of one split; {format} names each sample's")
    return reader.read(source, options)


def _unknown(source: Path) -> str:
    """What a source is that no reader knows, and what would be read."""
    known = f"{source} has no layout I know"
    formats = f"name its format, one of {', '.join(READERS)}"
    if source.is_dir():
        names = sorted(path.name for path in source.iterdir() if path.suffix.lower() in _SOURCES)
        if names:
            return f"{known} as a folder; it holds {one_line_list(names)}: name one, or its format"
        return f"{known}: a folder without a file of a layout that is read; {formats}"
    if is_pickle_file(source):
        explained = explain(peek_pickle(source))
        return f"{known}: {explained}" if explained else f"{known}; {formats}"
    kind = kind_of_path(source)
    if kind is None:
        return f"{known}; {formats}"
    says_what_to_do = ": " in kind
    return f"{known}: it is {kind}" if says_what_to_do else f"{known}: it is {kind}; {formats}"


_SOURCES = (".pkl", ".pickle", ".csv", ".jsonl", ".csd", ".npz")
_OF_THE_SYSTEM = (".ds_store", "thumbs.db", "desktop.ini", "__macosx", "__pycache__")


def left_alone(source: Path, read: Iterable[Path]) -> tuple[str, ...]:
    """A note on what lies in the folder ``source`` beside what is read; none where nothing does.

    Args:
        source: a folder, or a file, for which there is nothing to say.
        read: files and folders in it that are read.
    """
    if not source.is_dir():
        return ()
    ours = {path.name for path in read}
    others = sorted(
        path.name
        for path in source.iterdir()
        if path.name not in ours
        and path.name.lower() not in _OF_THE_SYSTEM
        and not path.name.startswith(".")
    )
    return (f"left alone in {source.name}: {one_line_list(others)}",) if others else ()


PICKLE_SUFFIXES = (".pkl", ".pickle")


@functools.lru_cache(maxsize=8)
def _loaded(path: Path, _changed: int) -> object:
    return load_pickle(path)


def peek_pickle(path: Path) -> object:
    """What a pickle holds, for the readers that look whether it is theirs; loaded once for all.

    Raises:
        UserError: the pickle is refused.
    """
    return _loaded(path, path.stat().st_mtime_ns)


def is_pickle_file(source: Path) -> bool:
    """Is it a file with a pickle's suffix, or with a pickle's beginning and no other suffix?"""
    if not source.is_file():
        return False
    if source.suffix.lower() in PICKLE_SUFFIXES:
        return True
    if source.suffix.lower() in _SOURCES:
        return False
    try:
        with source.open("rb") as file:
            protocol, *rest = file.read(2) or b"\0"
    except OSError:
        return False
    return protocol == 0x80 and bool(rest) and 2 <= rest[0] <= 5


# Which dataset


def which_dataset(
    options: ReadOptions, source: Path, evidence: Evidence, *, otherwise: str = UNNAMED
) -> Which:
    """The dataset that ``source`` is, its scale, and the sentences to be said; see ``decide``."""
    return decide(
        evidence,
        source,
        dataset=options.dataset,
        label_range=options.label_range,
        otherwise=otherwise,
    )


def common_widths(
    frames: Mapping[str, Mapping[Modality, NDArray[Any]]], source: Path
) -> dict[Modality, int]:
    """The columns of each modality, the same in all splits.

    Args:
        frames: for each split the (N, T, D) arrays that it has.
        source: for the message.

    Raises:
        UserError: a modality has another width in another split.

    Example:
        >>> common_widths({"train": {Modality.AUDIO: np.zeros((9, 50, 5))}}, Path("mosi.pkl"))
        {<Modality.AUDIO: 'audio'>: 5}
    """
    widths: dict[Modality, int] = {}
    for split, arrays in frames.items():
        for modality, values in arrays.items():
            width = int(values.shape[2])
            if widths.setdefault(modality, width) != width:
                raise UserError(
                    f"{source}: {modality} must have one width, got {widths[modality]} "
                    f"and {width} in split {split!r}"
                )
    return widths


def refuse_other_modality(name: str, modality: Modality, path: Path) -> None:
    """Frames that bear another modality's name are not taken for this one's.

    Raises:
        UserError: ``name``, that of an array in ``path``, is another modality's.
    """
    if modality_named(name) not in (None, modality.value):
        raise UserError(
            f"{path} is read as {modality}, but its array is called {name!r}: name the file of "
            f"{modality}, or rename the array"
        )


def describe_file(path: Path) -> SourceFile:
    """Name, hash and size of a file, read in pieces."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return SourceFile(path.name, digest, path.stat().st_size)


# Values of unvouched files


def as_strings(value: object, *, what: str) -> list[str]:
    """A flat list of strings from a list, tuple or array of strings or bytes.

    Raises:
        UserError: it is something else, or holds characters that no text has.
    """
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "USO":
        try:
            value = value.tolist()
        except ValueError:
            raise UserError(f"{what} holds characters outside Unicode") from None
    if not isinstance(value, (list, tuple)):
        raise UserError(f"{what} must be a list of strings, got {_kind(value)}")
    return [as_string(item, what=what) for item in value]


def as_string(value: object, *, what: str) -> str:
    """One string from str or UTF-8 bytes.

    Raises:
        UserError: it is something else, or cannot be written as UTF-8.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "US":
        value = value.item()
    try:
        if isinstance(value, (bytes, memoryview)):
            return str(value, "utf-8")
        if isinstance(value, str):
            value.encode("utf-8")
            return value
    except UnicodeError:
        raise UserError(f"{what} holds a string that is not valid Unicode") from None
    raise UserError(f"{what} must hold strings, got {_kind(value)}")


_MOST_TEXT = 2**20


def joined(words: Sequence[str], *, what: str) -> str:
    """The words with spaces between them.

    Raises:
        UserError: together they are longer than a million characters: a list in a pickle may hold
            one string very often.
    """
    if sum(len(word) + 1 for word in words) > _MOST_TEXT:
        raise UserError(f"{what} is longer than {_MOST_TEXT} characters")
    return " ".join(words)


def as_numbers(value: object, *, what: str, ndim: int) -> NDArray[Any]:
    """An array of numbers with ``ndim`` dimensions; for one dimension a flat list will do.

    Raises:
        UserError: it is something else.
    """
    if ndim == 1 and isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1:
        value = value.tolist()  # a column of a table of mixed types
    if ndim == 1 and isinstance(value, (list, tuple)):
        if not all(type(item) in (int, float, bool) or _is_scalar(item) for item in value):
            raise UserError(f"{what} must hold numbers")
        value = np.array([float(item) for item in value])
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise UserError(f"{what} must be an array of numbers, got {_kind(value)}")
    if value.ndim != ndim:
        raise UserError(f"{what} must have {ndim} dimensions, got shape {value.shape}")
    return value


def _is_scalar(value: object) -> bool:
    """Is it NumPy's number, which a pickle gives as an array without dimensions?"""
    return isinstance(value, (np.ndarray, np.generic)) and (
        value.ndim == 0 and value.dtype.kind in "biuf"
    )


def as_frames(value: NDArray[Any]) -> Frames:
    """A float32 copy of one sample's (L, D) frames; what overflows becomes infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(value, dtype=np.float32, order="C")


def _used(frames: NDArray[Any]) -> NDArray[np.int64]:
    """Rows of (L, D) that are not all zero."""
    with np.errstate(invalid="ignore"):  # damaged files may hold NaN that signals
        return np.flatnonzero((frames != 0).any(axis=1))


def present_only(sequences: Mapping[Modality, Frames]) -> dict[Modality, Frames]:
    """Only the sequences with a frame that is not all zero: zeros stand for a failed extraction."""
    return {m: frames for m, frames in sequences.items() if frames.size and _used(frames).size}


def bounded(samples: Iterator[Sample], *, source: Path, num_bytes: int) -> Iterator[Sample]:
    """The same samples, until together they hold far more than the files they come from.

    In a pickle one object may stand in many places; a small file could fill the disk.

    Raises:
        UserError: more than eight times ``num_bytes`` (int8 becomes float32) and 64 MB have come.
    """
    left = 64 * 2**20 + 8 * num_bytes
    for sample in samples:
        left -= len(sample.text) + sum(frames.nbytes for frames in sample.sequences.values()) + 64
        left -= sum(len(word) + 8 for word in sample.words or ())
        if left < 0:
            raise UserError(f"{source} is refused: it unpacks to far more than its size explains")
        yield sample


def one_line_list(names: Sequence[object], *, limit: int = 8) -> str:
    """At most ``limit`` names, shortened, on one line.

    Example:
        >>> one_line_list(["a", "b", "c"], limit=2)
        "'a', 'b', ..."
    """
    shown = [repr(name)[:40] for name in names[:limit]]
    return ", ".join([*shown, "..."] if len(names) > limit else shown)


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} with shape {value.shape}"
    return f"a {type(value).__name__}"
