"""Pickled dictionaries of splits, told apart by all of their keys: MMSA's layout and MulT's.

Both have ``id``, ``text``, ``audio`` and ``vision``. MMSA's says ``regression_labels``, tells
lengths and pads at the end; MulT's says ``labels`` and pads in front. What has keys of both is
read by neither unless the user says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.samples import SPLITS, canonical_split

MMSA, MULT = "mmsa", "mult"
_MODALITIES: Final = tuple(m.value for m in Modality)
# What other tools call a modality.
_ALIASES: Final = {
    "video": "vision",
    "visual": "vision",
    "visual_features": "vision",
    "video_features": "vision",
    "vision_features": "vision",
    "image": "vision",
    "acoustic": "audio",
    "audio_features": "audio",
    "sound": "audio",
    "speech": "audio",
    "language": "text",
    "text_features": "text",
}
_ONLY_MMSA: Final = (
    "text_bert",
    *(f"{m}_lengths" for m in _MODALITIES),
    "annotations",
    *(
        f"{kind}_labels{suffix}"
        for kind in ("regression", "classification")
        for suffix in ("", "_T", "_A", "_V")
    ),
)
_KEYS: Final = {
    MMSA: frozenset(("id", "raw_text", *_MODALITIES, *_ONLY_MMSA)),
    MULT: frozenset(("id", "raw_text", *_MODALITIES, "labels")),
}
_LABELS: Final = {MMSA: "regression_labels", MULT: "labels"}
_WANTS: Final = (
    "mmsa wants id, raw_text or frames (text, audio, vision), and labels as regression_labels; "
    "mult wants frames and labels as labels, and no lengths"
)
_LIKE_LABELS: Final = (
    "label", "labels", "sentiment", "sentiments", "score", "scores", "y", "m", "target", "targets",
    "polarity", "valence", "rating", "ratings", "sarcasm", "humor", "humour", "annotation",
)  # fmt: skip
_LIKE_TEXT: Final = (
    "text", "texts", "raw_text", "raw_texts", "transcript", "transcripts", "transcription",
    "transcriptions", "sentence", "sentences", "utterance", "utterances", "caption", "captions",
    "content", "speech_text", "asr", "asr_text", "punchline", "words",
)  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """A dictionary's splits, under their canonical names, and what was done with the rest."""

    parts: dict[str, dict[str, Any]]
    decisions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def modality_named(key: str) -> str | None:
    """The modality that a name is one of, in the words of the field's tools.

    Example:
        >>> modality_named("Visual"), modality_named("audio"), modality_named("x")
        ('vision', 'audio', None)
    """
    plain = key.strip().lower()
    return plain if plain in _MODALITIES else _ALIASES.get(plain)


def like_labels(name: str) -> bool:
    """Would a column or key of this name hold labels?

    Example:
        >>> like_labels("Sentiment"), like_labels("my_label"), like_labels("speaker")
        (True, True, False)
    """
    plain = name.strip().lower()
    return plain in _LIKE_LABELS or "label" in plain


def like_text(name: str) -> bool:
    """Would a column or key of this name hold what was said?"""
    return name.strip().lower() in _LIKE_TEXT


def layout_of(loaded: object) -> str | None:
    """The layout, mmsa or mult, by the keys of all splits; None for what is neither or both.

    Example:
        >>> layout_of({"train": {"id": ["a_1"], "raw_text": ["fine"]}})
        'mmsa'
        >>> layout_of({"train": {"labels": 1, "audio": 2}})
        'mult'
        >>> layout_of({"train": {"labels": 1, "audio": 2, "audio_lengths": 3}}) is None
        True
    """
    keys = _all_keys(loaded)
    has_frames = any(_ALIASES.get(key, key) in _MODALITIES for key in keys)
    if "labels" in keys:
        return MULT if has_frames and not keys & set(_ONLY_MMSA) else None
    if has_frames and is_bare_part(loaded):
        return MMSA  # one clip need not have an id
    return MMSA if "id" in keys and (has_frames or "raw_text" in keys) else None


def _all_keys(loaded: object) -> set[str]:
    if not isinstance(loaded, dict):
        return set()
    parts = [loaded] if is_bare_part(loaded) else _dicts_of_splits(loaded)
    return {key for part in parts for key in part if isinstance(key, str)}


def _dicts_of_splits(loaded: Mapping[Any, Any]) -> list[dict[Any, Any]]:
    return [
        part
        for key, part in loaded.items()
        if isinstance(part, dict) and (_split_of(key) is not None or _holds_samples(part))
    ]


def is_bare_part(loaded: object) -> bool:
    """Is it a split itself, or one clip: its keys at the top, where splits would be?"""
    return (
        isinstance(loaded, dict)
        and not any(_split_of(key) is not None for key in loaded)
        and any(_size(loaded.get(key)) for key in ("id", *_MODALITIES, *_ALIASES))
    )


def explain(loaded: object) -> str | None:
    """What a pickle holds and what would be read, where no reader knows it; None if unclear."""
    if isinstance(loaded, (dict, list, tuple)) and not loaded:
        return f"an empty {type(loaded).__name__}"
    if isinstance(loaded, dict):
        keys = sorted(_all_keys(loaded))
        if not keys:
            return f"a dictionary with the keys {_shown(loaded)}, none of them a split with samples"
        if layout_of(loaded) is None:
            return f"its splits have the keys {_shown(keys, limit=16)}; {_WANTS}; --format decides"
    if isinstance(loaded, (list, tuple)):
        first = loaded[0]
        inner = first[0] if isinstance(first, (list, tuple)) and first else None
        size = f", the first of which has {len(inner)}" if isinstance(inner, (list, tuple)) else ""
        of = f" of {len(first)} items{size}" if isinstance(first, (list, tuple)) else ""
        return (
            f"a list of {len(loaded)}, its first a {type(first).__name__}{of}; rows "
            "((...), label, id) are read, with 3 (mag), 4 (misa) or 6 (mmim) inner items"
        )
    return f"a {type(loaded).__name__}" if loaded is not None else None


def split_parts(
    loaded: Mapping[Any, Any], source: Path, *, layout: str, split: str | None = None
) -> Parts:
    """The splits of a pickled dictionary that hold samples.

    Keys that name no split are left alone, empty splits skipped, modalities under another name
    found, and each is said. A file that holds one split at its top takes its name from ``split``
    or the file's name; one clip, as the feature tool writes it, becomes a test sample.

    Raises:
        UserError: a key that names no split holds samples, a split is there twice, no split has a
            sample, or labels are under a key that the layout does not have.

    Example:
        >>> parts = split_parts({"Dev": {"id": ["a_1"], "raw_text": ["x"]}, "config": {"fps": 30}},
        ...                     Path("x.pkl"), layout="mmsa")
        >>> list(parts.parts), parts.notes
        (['valid'], ("left alone, being no split: 'config'",))
    """
    notes: list[str] = []
    if is_bare_part(loaded):
        loaded, more = _wrapped(loaded, source, split)
        notes += more
    elif split is not None:
        raise UserError(f"--split is for a file of one split; {source} has {_shown(loaded)}")
    found, more = _named_splits(loaded, source)
    notes += more
    decisions, warnings = [], []
    for name, part in found.items():
        decisions += _rename_modalities(part)
        what = f"{source} split {name!r}"
        if layout == MMSA:
            decisions += _labels_of_mmsa(part, what)
        elif lengths := [f"{m}_lengths" for m in _MODALITIES if f"{m}_lengths" in part]:
            raise UserError(
                f"{what} has {_shown(lengths)}, which mult has not: --format mmsa reads lengths"
            )
        unknown = [key for key in part if key not in _KEYS[layout]]
        rows = [key for key in unknown if _frames_shape(part[key]) is not None]
        warnings += [
            f"left alone: {key!r} holds frames, shape {_frames_shape(part[key])}, and is none of "
            f"{', '.join(_MODALITIES)}"
            for key in rows
        ]
        others = [(key, held) for key in unknown if key not in rows and (held := _held(part, key))]
        warnings += [f"left alone: {key!r} holds {held}" for key, held in others]
        named = [*rows, *(key for key, _ in others)]
        left = [key for key in unknown if key not in named]
        notes += [f"left alone, being no key of {layout}: {_shown(left)}"] if left else []
    ordered = {name: found[name] for name in SPLITS if name in found}
    return Parts(
        ordered,
        tuple(dict.fromkeys(decisions)),
        tuple(dict.fromkeys(notes)),
        tuple(dict.fromkeys(_without_counts(warnings))),
    )


def _named_splits(
    loaded: Mapping[Any, Any], source: Path
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The splits with samples by their own names, and notes on what else the dictionary has."""
    found: dict[str, dict[str, Any]] = {}
    others, empty = [], []
    for key, part in loaded.items():
        name = _split_of(key)
        if name is None:
            if _holds_samples(part):
                raise UserError(
                    f"{source}: unknown split {_shown([key])}, which holds samples; splits are "
                    "train, valid (dev, val) and test"
                )
            others.append(key)
            continue
        if name in found or name in empty:
            raise UserError(f"{source} has a split twice: {_shown(loaded)}")
        if isinstance(part, dict) and _is_empty(part):
            empty.append(name)
            continue
        if not isinstance(part, dict):
            raise UserError(
                f"{source} split {name!r} must be a dictionary, got a {type(part).__name__}"
            )
        found[name] = dict(part)
    if not found:
        what = "all splits are empty" if empty else "no split"
        raise UserError(f"{source} has no sample: {what}")
    notes = [f"left alone, being no split: {_shown(others)}"] if others else []
    notes += [f"skipped, being empty: {', '.join(empty)}"] if empty else []
    return found, notes


def _without_counts(warnings: Iterable[str]) -> list[str]:
    """One warning a key: shapes differ between splits, the first stands for all."""
    first: dict[str, str] = {}
    for warning in warnings:
        first.setdefault(warning.partition(" holds ")[0], warning)
    return list(first.values())


def _split_of(key: object) -> str | None:
    if isinstance(key, bytes):
        key = key.decode("utf-8", "replace")
    return canonical_split(key) if isinstance(key, str) else None


def _holds_samples(part: object) -> bool:
    """Is it a split's dictionary or list, whatever it is called?"""
    if isinstance(part, dict):
        return any(
            _size(part.get(key))
            for key in ("id", "raw_text", "labels", *_MODALITIES, *_ONLY_MMSA, *_ALIASES)
        )
    return isinstance(part, list) and any(isinstance(row, (list, tuple)) for row in part[:1])


def _size(value: object) -> int:
    if isinstance(value, np.ndarray):
        return len(value) if value.ndim else 0
    return len(value) if isinstance(value, (list, tuple)) else 0


def _is_empty(part: Mapping[Any, Any]) -> bool:
    """No id, no text, no frame, no label; the feature tool leaves other keys at their size."""
    columns = ("id", "raw_text", *_MODALITIES, *_ALIASES, *_LABELS.values())
    return not any(_size(part.get(key)) for key in columns)


def _wrapped(
    loaded: Mapping[Any, Any], source: Path, split: str | None
) -> tuple[dict[str, Any], list[str]]:
    """One split's keys, or one clip's, in the dictionary that they belong in."""
    frames = {key: loaded[key] for key in (*_MODALITIES, *_ALIASES) if key in loaded}
    named = canonical_split(split) if split is not None else split_in_name(source)
    is_clip = bool(frames) and all(
        isinstance(value, np.ndarray) and value.ndim in (1, 2) and value.size
        for value in frames.values()
    )
    if is_clip and not isinstance(loaded.get("id"), (list, tuple, np.ndarray)):
        part: dict[str, Any] = {"id": [f"{source.stem}$_$1"]}
        for key, value in loaded.items():
            if key in frames:
                part[key] = value.reshape(1, -1, value.shape[-1])
            elif key in ("raw_text", "text_bert"):
                part[key] = [value] if isinstance(value, str) else np.asarray(value)[None]
        if isinstance(loaded.get("id"), str):
            part["id"] = [loaded["id"]]
        chosen = named or "test"
        return {chosen: part}, [
            f"the file holds one clip: it is the one sample of the split {chosen}"
        ]
    if named is None:
        raise UserError(
            f"{source} holds one split and its name does not say which: name it with "
            f"--split, one of {', '.join(SPLITS)}"
        )
    return {named: loaded}, [f"the file holds one split: {named}"]


def split_in_name(path: Path) -> str | None:
    """The split a file's name speaks of.

    Example:
        >>> split_in_name(Path("valid_word_aligned_misa.pkl")), split_in_name(Path("dev.pkl"))
        ('valid', 'valid')
    """
    words = "".join(c if c.isascii() and c.isalpha() else " " for c in path.stem.lower()).split()
    found = {split for word in words if (split := canonical_split(word))}
    return found.pop() if len(found) == 1 else None


def _rename_modalities(part: dict[str, Any]) -> list[str]:
    """Move frames under a modality's other name to the modality, and say so."""
    done = []
    for alias, modality in _ALIASES.items():
        if part.get(modality) is not None or _frames_shape(part.get(alias)) is None:
            continue
        part[modality] = part.pop(alias)
        if f"{alias}_lengths" in part and f"{modality}_lengths" not in part:
            part[f"{modality}_lengths"] = part.pop(f"{alias}_lengths")
        done.append(f"{modality} is read from the key {alias!r}")
    return done


def _frames_shape(value: object) -> tuple[int, ...] | None:
    if isinstance(value, np.ndarray) and value.ndim == 3 and value.dtype.kind in "fiu":
        return tuple(value.shape)
    return None


def _held(part: Mapping[Any, Any], key: object) -> str | None:
    """What a key that is not read seems to hold of what the split lacks, and the key wanted."""
    value = part[key]
    if not isinstance(key, str) or not _size(value):
        return None
    modality = modality_named(key)
    texts = [text for text in value[:100] if isinstance(text, (str, bytes))]
    if len(texts) == len(value[:100]):
        has_text = _size(part.get("raw_text")) and any(map(str.strip, map(str, part["raw_text"])))
        num_sentences = sum(len(text.split()) > 1 for text in texts)
        if not has_text and (like_text(key) or modality or 2 * num_sentences > len(texts)):
            return "text, and there is no raw_text: give it that name if it is what was said"
    elif modality is not None and part.get(modality) is None:
        shape = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else "a list"
        return (
            f"{shape}, and there is no {modality}: where it is {modality}, it must be an array "
            "(samples, frames, columns)"
        )
    return None


def _labels_of_mmsa(part: dict[str, Any], what: str) -> list[str]:
    """Labels where the layout has them; another key that looks like labels is not passed over."""
    if part.get("regression_labels") is not None:
        if _size(part["regression_labels"]) == 0:
            del part["regression_labels"]
            return ["regression_labels are empty: samples are unlabelled"]
        return []
    part.pop("regression_labels", None)
    if "labels" in part:
        part["regression_labels"] = part.pop("labels")
        return ["labels are read from the key 'labels'"]
    like = [
        key for key in part if isinstance(key, str) and key not in _KEYS[MMSA] and like_labels(key)
    ]
    if like:
        raise UserError(
            f"{what} has no 'regression_labels', where mmsa has its labels, but {_shown(like)}: "
            "rename the key"
        )
    return ["there are no regression_labels: samples are unlabelled"]


def _shown(names: Iterable[object], *, limit: int = 8) -> str:
    listed: Sequence[object] = list(names)
    shown = [repr(name)[:40] for name in listed[:limit]]
    return ", ".join([*shown, "..."] if len(listed) > limit else shown)
