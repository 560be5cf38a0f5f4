"""UR-FUNNY: its folder of pickles, or its text as JSON lines.

The pickles map an id to what is known of it:
- ``language_sdk.pkl`` (version 1: ``word_embedding_indexes_sdk.pkl``):
  ``punchline_embedding_indexes`` and, in version 2, ``punchline_sentence``,
  ``context_sentences``, ``punchline_intervals``;
- ``covarep_features_sdk.pkl``, ``openface_features_sdk.pkl``: ``punchline_features``, one per word;
- ``humor_label_sdk.pkl``: 0 or 1.
``data_folds.pkl`` has the ids of train, dev, test, ``word_embedding_list.pkl`` the GloVe vectors
that the indexes number.

A line of the JSON file is ``{"id", "split", "punchline", "context": [sentences], "label"}``, the
label 0, 1 or null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.layouts import like_labels, like_text
from tecafn.data.readers.base import (
    PICKLE_SUFFIXES,
    READERS,
    Frames,
    Reader,
    ReadOptions,
    as_frames,
    as_numbers,
    as_string,
    as_strings,
    bounded,
    describe_file,
    joined,
    left_alone,
    one_line_list,
    present_only,
)
from tecafn.data.samples import SPLITS, DatasetDescription, Sample, SourceFile, canonical_split
from tecafn.data.sentences import TextSurvey
from tecafn.data.shares import more_than_a_few
from tecafn.data.unpickle import load_pickle
from tecafn.data.which import FUNNY, scale_of, spoken_name

_OWN_VIDEO: Final = "ids name no video: every sample is a video of its own"
_LINE_BYTES: Final = 2**20
_MOST_VALUES: Final = 2**22  # of one sample's frames


def _recognises(source: Path) -> bool:
    if source.is_dir():
        return (source / "text.jsonl").is_file() or _find(source, "data_folds") is not None
    return source.suffix.lower() == ".jsonl" and source.is_file()


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Samples of a folder of pickles, of text.jsonl, or of a folder that holds it.

    Text is the punchline, ``context`` the sentences before it in one string. Frames are the
    punchline's, one per word; without sentences (version 1) its GloVe vectors are stored in the
    text's place. An id of the folds that the language file lacks is left out, and a note says so.

    Raises:
        UserError: a file is missing, refused, or of another layout.
    """
    if not source.is_dir():
        return _read_lines(source, options)
    if _find(source, "data_folds") is not None:
        return _read_pickles(source, options)
    if (source / "text.jsonl").is_file():
        description, samples = _read_lines(source / "text.jsonl", options)
        notes = (*description.notes, *left_alone(source, (source / "text.jsonl",)))
        return replace(description, notes=notes), samples
    raise UserError(f"{source} must have data_folds.pkl and its companions, or text.jsonl")


def _describe(
    files: Sequence[SourceFile],
    options: ReadOptions,
    *,
    widths: Mapping[Modality, int],
    splits: tuple[str, ...],
    aligned: bool,
    notes: tuple[str, ...],
) -> DatasetDescription:
    if options.label_range is not None:
        raise UserError("--label-range is for scores; UR-FUNNY's layout has the classes 0 and 1")
    told = options.dataset is not None
    dataset = spoken_name(options.dataset) if options.dataset is not None else FUNNY
    return DatasetDescription(
        dataset=dataset,
        widths=widths,
        **vars(scale_of(FUNNY)),
        decisions=(
            f"the dataset is {dataset}: {'as told by --dataset' if told else 'its layout says so'}",
        ),
        aligned=aligned,
        splits=splits,
        notes=(_OWN_VIDEO, *notes),
        source_format="ur-funny",
        source_files=tuple(files),
    )


def _label(value: object, what: str) -> float | None:
    """0 or 1; NaN stays, for the store to refuse and the report to list."""
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.size == 1:
        value = value.reshape(-1)[0].item()
    if type(value) in (bool, int, float):
        label = float(value)  # type: ignore[arg-type]
        if label in (0, 1) or math.isnan(label):
            return label
        raise UserError(f"{what}: label must be 0 or 1, got {label:g}")
    raise UserError(f"{what}: label must be 0 or 1, got a {type(value).__name__}")


def _sentence(value: object, what: str) -> str:
    """A string, or a list of strings and such lists, in one string."""
    if not isinstance(value, (list, tuple)):
        return as_string(value, what=what)
    parts = []
    for item in value:
        inner = item if isinstance(item, (list, tuple)) else [item]
        parts.append(joined(as_strings(inner, what=what), what=what).strip())
    return joined(parts, what=what)


# JSON lines


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _lines(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with source.open("rb") as file:
            number = 0
            while line := file.readline(_LINE_BYTES + 1):
                number += 1
                what = f"{source} line {number}"
                if len(line) > _LINE_BYTES:
                    raise UserError(f"{what} has more than {_LINE_BYTES} bytes")
                if not line.strip():
                    continue
                try:
                    row = json.loads(str(line, "utf-8"), parse_constant=_refuse_constant)
                except (ValueError, RecursionError) as error:
                    reason = " ".join(str(error).split())[:120]
                    raise UserError(f"{what} is not JSON in UTF-8: {reason}") from None
                if not isinstance(row, dict):
                    raise UserError(f"{what} must be an object, got a {type(row).__name__}")
                yield what, row
    except FileNotFoundError:
        raise UserError(f"no such file: {source}") from None
    except OSError as error:
        raise UserError(f"cannot read {source}: {error.strerror or error}") from None


def _read_lines(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    spoken = TextSurvey()
    filled: dict[str, None] = {}
    for _, row in _lines(source):
        if isinstance(punchline := row.get("punchline"), str):
            spoken.add(punchline)
        filled.update((key, None) for key, value in row.items() if value not in (None, "", []))
    description = _describe(
        [describe_file(source)],
        options,
        widths={},
        splits=SPLITS,
        aligned=False,
        notes=spoken.notes(),
    )
    described = replace(description, warnings=(*_unread(filled, source.name), *spoken.warnings()))
    return described, _line_samples(source, spoken)


def _unread(filled: Collection[str], name: str) -> list[str]:
    """Keys that are not read and look like what no line has."""
    others = [key for key in filled if key not in ("id", "split", "punchline", "context", "label")]
    return [
        f"{name}: no line has a {wanted}, and the key {key!r} is not read: name it {wanted!r} if "
        "that is what it holds"
        for wanted, is_like in (("punchline", like_text), ("label", like_labels))
        if wanted not in filled
        for key in others
        if is_like(key)
    ]


def _line_samples(source: Path, spoken: TextSurvey) -> Iterator[Sample]:
    for what, row in _lines(source):
        for key in ("id", "split", "punchline"):
            if key not in row:
                raise UserError(f"{what} has no {key!r}: {one_line_list(list(row))}")
        given = str(row["id"]) if type(row["id"]) is int else row["id"]
        name = as_string(given, what=f"{what}: id")
        split = canonical_split(as_string(row["split"], what=f"{what}: split"))
        if not name or split is None:
            raise UserError(
                f"{what}: id must not be empty and split be train, valid or test, "
                f"got {one_line_list([name, row['split']])}"
            )
        context = row.get("context")
        yield Sample(
            id=name,
            source_id=name,
            video=name,
            clip="",
            split=split,
            text=spoken.mend(as_string(row["punchline"], what=f"{what}: punchline")),
            label=_label(row.get("label"), what),
            context=None if not context else _sentence(context, f"{what}: context"),
            where=what,
        )


# Pickles


def _find(folder: Path, *words: str) -> Path | None:
    """The pickle whose name holds one of ``words``, the first words first."""
    try:
        pickles = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICKLE_SUFFIXES)
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror or error}") from None
    return next((p for word in words for p in pickles if word in p.name.lower()), None)


def _load(path: Path) -> dict[str, Any]:
    """A dictionary by id, the ids as text: one file has numbers where another has strings.

    Raises:
        UserError: it is no dictionary, or two ids are one as text.
    """
    loaded = load_pickle(path)
    if not isinstance(loaded, dict):
        raise UserError(f"{path} must be a dictionary by id, got a {type(loaded).__name__}")
    by_text = {str(name): value for name, value in loaded.items() if type(name) in (int, str)}
    if len(by_text) < sum(type(name) in (int, str) for name in loaded):
        raise UserError(f"{path} has ids that differ only as number and text")
    return by_text


def _shown(name: str) -> str:
    return name if name.isdigit() else repr(name)


@dataclass(frozen=True)
class _Files:
    """The loaded pickles; frames and vectors only where the folder has them."""

    language: Mapping[Any, Any]
    labels: Mapping[Any, Any]
    frames: Mapping[Modality, Mapping[Any, Any]]
    vectors: Any  # (V, D), or a list of V of (D,); None where sentences are there

    def entry(self, name: str, what: str) -> Mapping[Any, Any]:
        """What the language file knows of an id."""
        entry = self.language[name]
        if not isinstance(entry, dict):
            raise UserError(f"{what} must be a dictionary, got a {type(entry).__name__}")
        return entry

    def rows(self, modality: Modality, name: str, what: str) -> object:
        """The punchline's frames as the file has them, None where it lacks the id."""
        entry = self.frames[modality].get(name)
        if entry is None:
            return None
        if not isinstance(entry, dict) or "punchline_features" not in entry:
            shown = one_line_list(list(entry)) if isinstance(entry, dict) else type(entry).__name__
            raise UserError(f"{what}: {modality} must have 'punchline_features', got {shown}")
        return entry["punchline_features"]


def _folds(path: Path) -> dict[str, list[str]]:
    folds = {}
    for key, names in _load(path).items():
        split = canonical_split(key) if isinstance(key, str) else None
        if isinstance(names, np.ndarray) and names.ndim == 1:
            names = names.tolist()
        if split is None or not isinstance(names, list):
            raise UserError(f"{path} must map train, dev, test to ids, got {one_line_list([key])}")
        for name in names:
            if type(name) not in (int, str) or name == "":
                raise UserError(
                    f"{path}: an id must be a number or a string, got a {type(name).__name__}"
                )
        if split in folds:
            raise UserError(f"{path} has the split {split!r} twice")
        folds[split] = [str(name) for name in names]
    return {split: folds[split] for split in SPLITS if split in folds}


def _matrix(value: object, *, what: str) -> NDArray[Any]:
    """(L, D) from an array, or a list of L rows of D numbers; (0, 0) without rows."""
    if isinstance(value, np.ndarray) and (value.size or value.ndim == 2):
        return as_numbers(value, what=what, ndim=2)
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise UserError(f"{what} must be rows of numbers, got a {type(value).__name__}")
    rows = [as_numbers(row, what=f"{what}: a row", ndim=1) for row in value]
    if len({len(row) for row in rows}) > 1:
        raise UserError(f"{what} has rows of different widths")
    if not rows:
        return np.empty((0, 0))
    _check_size(len(rows), len(rows[0]), what)
    return np.stack(rows)


def _check_size(length: int, width: int, what: str) -> None:
    # A pickled list may hold one row very often.
    if length * width > _MOST_VALUES:
        raise UserError(
            f"{what} has {length} rows of {width}; up to {_MOST_VALUES} values are read"
        )


def _width(files: _Files, modality: Modality, names: Sequence[str], source: Path) -> int | None:
    """Columns of the first sample that has frames."""
    for name in names:
        what = f"{source} id {_shown(name)}"
        value = files.rows(modality, name, what)
        if value is None:
            continue
        matrix = _matrix(value, what=f"{what}: {modality}")
        if matrix.size:
            return int(matrix.shape[1])
    return None


def _num_rows(value: object) -> int:
    if isinstance(value, np.ndarray):
        return len(value) if value.ndim else 0
    return len(value) if isinstance(value, (list, tuple)) else 0


def _read_pickles(
    folder: Path, options: ReadOptions
) -> tuple[DatasetDescription, Iterator[Sample]]:
    paths = {}
    for purpose, words in (
        ("folds", ("data_folds",)),
        ("language", ("language_sdk", "word_embedding_indexes")),
        ("labels", ("humor_label",)),
    ):
        path = _find(folder, *words)
        if path is None:
            raise UserError(f"{folder} must have {words[0]}*.pkl, it has none")
        paths[purpose] = path
    folds = _folds(paths["folds"])
    found = {Modality.AUDIO: _find(folder, "covarep"), Modality.VISION: _find(folder, "openface")}
    paths |= {modality.value: path for modality, path in found.items() if path is not None}
    language = _load(paths["language"])
    has_text = any(isinstance(e, dict) and "punchline_sentence" in e for e in language.values())
    vectors: Any = None
    vector_width = 0
    if not has_text:
        vectors_path = _find(folder, "word_embedding_list")
        if vectors_path is None:
            raise UserError(
                f"{folder} has no sentences in {paths['language'].name}, so it must have "
                "word_embedding_list.pkl"
            )
        paths["vectors"] = vectors_path
        vectors = load_pickle(vectors_path)
        if not isinstance(vectors, (list, np.ndarray)) or not _num_rows(vectors):
            raise UserError(f"{vectors_path} must be a list of vectors")
        vector_width = len(as_numbers(vectors[0], what=f"{vectors_path}: a vector", ndim=1))
    files = _Files(
        language=language,
        labels=_load(paths["labels"]),
        frames={m: _load(path) for m, path in found.items() if path is not None},
        vectors=vectors,
    )
    known = {split: [n for n in names if n in language] for split, names in folds.items()}
    names = [name for split in known.values() for name in split]
    num_lost = sum(len(split) for split in folds.values()) - len(names)
    notes = ["frames are the punchline's; the context is text alone"]
    if num_lost:
        _check_found(len(names), len(names) + num_lost, paths["language"], paths["folds"], options)
        notes.append(f"{num_lost} ids of {paths['folds'].name} are not in the language file")
    for split, members in known.items():
        num_labelled = sum(name in files.labels for name in members)
        # The labels of a test split may be withheld.
        if split != "test" or num_labelled > 0:
            _check_found(num_labelled, len(members), paths["labels"], split, options)
    widths = {m: w for m in files.frames if (w := _width(files, m, names, folder)) is not None}
    if vectors is not None:
        widths[Modality.TEXT] = vector_width
    described = _describe(
        [describe_file(path) for path in paths.values()],
        options,
        widths=widths,
        splits=tuple(folds),
        aligned=len(files.frames) == 2 and all(_is_aligned(files, n, folder) for n in names),
        notes=(*notes, *left_alone(folder, paths.values())),
    )
    num_bytes = sum(path.stat().st_size for path in paths.values())
    samples = (
        _sample(files, name, split, widths=widths, source=folder)
        for split, members in known.items()
        for name in members
    )
    return described, bounded(samples, source=folder, num_bytes=num_bytes)


def _check_found(
    num_found: int, num_names: int, path: Path, among: Path | str, options: ReadOptions
) -> None:
    """Refuse a file that knows too few of the folds' ids.

    Raises:
        UserError: it does.
    """
    least = options.min_join_share
    if (
        num_found < least * num_names
        if least is not None
        else more_than_a_few(num_names - num_found, num_names)
    ):
        whose = f"split {among!r}" if isinstance(among, str) else among.name
        raise UserError(
            f"{path} has {num_found} of the {num_names} ids of {whose}; if that is right, "
            f"--min-join-share {int(100 * num_found / max(num_names, 1)) / 100:g}"
        )


def _is_aligned(files: _Files, name: str, source: Path) -> bool:
    what = f"{source} id {_shown(name)}"
    lengths = {_num_rows(files.rows(modality, name, what)) for modality in files.frames}
    indexes = files.entry(name, what).get("punchline_embedding_indexes")
    if indexes is not None:
        lengths.add(_num_rows(indexes))
    return len(lengths - {0}) <= 1


def _vectors(files: _Files, indexes: object, *, width: int, what: str) -> Frames:
    """(L, D): the GloVe vector of each of the punchline's words."""
    rows = as_numbers(_flat(indexes), what=f"{what}: punchline_embedding_indexes", ndim=1)
    if rows.size and (rows.min() < 0 or rows.max() >= len(files.vectors) or rows.dtype.kind == "b"):
        raise UserError(
            f"{what}: punchline_embedding_indexes must lie in 0 to {len(files.vectors) - 1}"
        )
    _check_size(len(rows), width, what)
    result = np.empty((len(rows), width), np.float32)
    for position, row in enumerate(rows.tolist()):
        vector = as_numbers(files.vectors[int(row)], what=f"{what}: a word's vector", ndim=1)
        if len(vector) != width:
            raise UserError(f"{what}: word vectors have {width} and {len(vector)} columns")
        result[position] = as_frames(vector)
    return result


def _flat(indexes: object) -> object:
    """Indexes as a flat array; the source may write each in a list of its own."""
    if isinstance(indexes, (list, tuple)) and all(
        isinstance(item, (list, tuple)) and len(item) == 1 for item in indexes
    ):
        return [item[0] for item in indexes]
    if isinstance(indexes, np.ndarray) and indexes.ndim == 2 and indexes.shape[1] == 1:
        return indexes[:, 0]
    return indexes


def _sample(
    files: _Files,
    name: str,
    split: str,
    *,
    widths: Mapping[Modality, int],
    source: Path,
) -> Sample:
    what = f"{source} id {_shown(name)}"
    entry = files.entry(name, what)
    text = _sentence(entry.get("punchline_sentence", ""), f"{what}: punchline_sentence")
    context = entry.get("context_sentences")
    sequences = {}
    for modality in files.frames:
        value = files.rows(modality, name, what)
        if value is None or modality not in widths:
            continue
        matrix = _matrix(value, what=f"{what}: {modality}")
        if matrix.size and matrix.shape[1] != widths[modality]:
            raise UserError(
                f"{what}: {modality} must have {widths[modality]} columns, got {matrix.shape[1]}"
            )
        sequences[modality] = as_frames(matrix.reshape(-1, widths[modality]))
    if files.vectors is not None:
        indexes = entry.get("punchline_embedding_indexes", [])
        sequences[Modality.TEXT] = _vectors(files, indexes, width=widths[Modality.TEXT], what=what)
    words = tuple(text.split())
    intervals = _intervals(entry.get("punchline_intervals"), what=what)
    return Sample(
        id=str(name),
        source_id=str(name),
        video=str(name),
        clip="",
        split=split,
        text=text,
        label=_label(files.labels.get(name), what),
        sequences=present_only(sequences),
        context=_sentence(context, f"{what}: context_sentences") if context else None,
        words=words or None,
        start=None if intervals is None else float(intervals.min()),
        end=None if intervals is None else float(intervals.max()),
        word_intervals=(
            as_frames(intervals) if intervals is not None and len(words) == len(intervals) else None
        ),
        where=f"{what} of {split}",
    )


def _intervals(value: object, *, what: str) -> NDArray[Any] | None:
    """(W, 2) seconds, or None where the source has none that are numbers."""
    if value is None or not _num_rows(value):
        return None
    matrix = _matrix(value, what=f"{what}: punchline_intervals")
    if matrix.shape[1] != 2:
        raise UserError(f"{what}: punchline_intervals must have 2 columns, got {matrix.shape[1]}")
    return matrix if matrix.size and np.isfinite(matrix).all() else None


READERS.register(
    "ur-funny",
    Reader(
        summary="UR-FUNNY: the folder of its pickles, or its text.jsonl",
        read=read,
        recognises=_recognises,
    ),
)
