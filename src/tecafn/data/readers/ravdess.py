"""RAVDESS: acted speech whose file names say everything, with action units beside it.

S. Livingstone and F. Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song", PLoS
ONE 13 (2018). A name has seven numbers: modality, channel (01 speech, 02 song), emotion, intensity,
statement, repetition, actor; ``03-01-05-02-01-01-12.wav`` is actor 12, angry, loudly so.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.arrays import open_npz
from tecafn.data.readers.base import (
    READERS,
    Reader,
    ReadOptions,
    as_frames,
    as_numbers,
    as_strings,
    describe_file,
    one_line_list,
)
from tecafn.data.samples import DatasetDescription, Sample, SourceFile, missing_frames_of

EMOTIONS: Final = (
    "neutral",
    "calm",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgust",
    "surprised",
)
"""The classes 0 to 7: the third number of a name minus one."""

STATEMENTS: Final = ("Kids are talking by the door", "Dogs are sitting by the door")
_NAME: Final = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")
_MEDIA: Final = (".wav", ".ogg", ".flac", ".mp3", ".m4a", ".mp4", ".mkv", ".mov", ".avi", ".webm")
_MOST_LOOKED_AT: Final = 10_000
_UNITS: Final = "openface_au.npz"
_SPEECH: Final = "01"
# Whole actors, as every split of it must have: 16, 4 and 4 of the 24.
_LAST_OF_TRAIN, _LAST_OF_VALID = 16, 20


@dataclass(frozen=True)
class _Clip:
    """What a file's name says.

    Args:
        key: the name without its first number, which differs between a recording's forms.
        media: the file with its sound or video; None = only action units are there.
    """

    name: str
    key: str
    emotion: int
    statement: int
    actor: int
    media: Path | None


def read(source: Path, options: ReadOptions) -> tuple[DatasetDescription, Iterator[Sample]]:
    """Spoken clips of a folder, action units from ``openface_au.npz`` where it lies there.

    The label is the emotion, 0 to 7 as in ``EMOTIONS``; the actor is the video that
    cross-validation keeps together. Sound is not decoded here: ``tecafn extract`` makes sequences
    of the files, and a sample's ``media`` says which. A recording that is there as sound and as
    video is one sample, read from its video.

    Raises:
        UserError: there is no such file, or the action units are of another layout.
    """
    if not source.is_dir():
        raise UserError(f"{source} must be a folder with RAVDESS's files")
    files, num_songs = _media(source)
    units, columns = _action_units(source / _UNITS)
    clips = _clips(files, units)
    if not clips:
        raise UserError(
            f"{source} has no clip of speech: names must look like 03-01-05-02-01-01-12.wav"
        )
    if options.label_range is not None:
        raise UserError("--label-range is for scores; RAVDESS has eight emotions")
    num_silent = sum(clip.media is None for clip in clips)
    notes = []
    if num_songs:
        notes.append(f"{num_songs} files of song are left out")
    if num_silent:
        notes.append(f"{num_silent} clips have action units and neither sound nor video")
    widths = {Modality.VISION: columns} if columns else {}
    description = DatasetDescription(
        dataset=options.dataset or "ravdess",
        widths=widths,
        task="classification",
        label_range=(0.0, float(len(EMOTIONS) - 1)),
        num_classes=len(EMOTIONS),
        class_names=EMOTIONS,
        decisions=(
            f"labels are emotions by number: {', '.join(f'{k} {e}' for k, e in _numbered())}",
            "a video is an actor; train has actors 1-16, valid 17-20, test 21-24",
        ),
        notes=tuple(notes),
        allowed=(missing_frames_of(Modality.VISION),) if columns else (),
        source_format="ravdess",
        source_files=_described(source, files),
    )
    return description, _samples(clips, units)


def _numbered() -> Iterator[tuple[int, str]]:
    yield from enumerate(EMOTIONS)


def _media(source: Path) -> tuple[dict[str, Path], int]:
    """The file of each recording, by the name without its first number; and how many are song."""
    found: dict[str, Path] = {}
    num_songs = 0
    for path in sorted(source.rglob("*")):
        match = _NAME.fullmatch(path.stem)
        if match is None or path.suffix.lower() not in _MEDIA or not path.is_file():
            continue
        if match[2] != _SPEECH:
            num_songs += 1
            continue
        # Sorted by name, so video with sound (01) comes before video alone (02) and sound (03).
        key = path.stem[3:]
        if key not in found or _prefers(path, found[key]):
            found[key] = path
    return found, num_songs


def _prefers(path: Path, other: Path) -> bool:
    """Is ``path`` the fuller form of the recording? 01 has both, 03 sound, 02 video alone."""
    order = ("01", "03", "02")
    return order.index(path.stem[:2]) < order.index(other.stem[:2])


def _action_units(path: Path) -> tuple[dict[str, NDArray[Any]], int]:
    """(L, D) action units by the name without its first number, and D; nothing without the file."""
    if not path.is_file():
        return {}, 0
    arrays = open_npz(path)
    for name in ("ids", "vision"):
        if name not in arrays:
            raise UserError(
                f"{path} must have an array {name!r}, got {one_line_list(list(arrays))}"
            )
    ids = as_strings(arrays["ids"], what=f"{path}: ids")
    vision = as_numbers(arrays["vision"], what=f"{path}: vision", ndim=2)
    if len(ids) != len(vision):
        raise UserError(f"{path}: vision has {len(vision)} rows, ids has {len(ids)}")
    wrong = [name for name in ids if _NAME.fullmatch(name) is None]
    if wrong:
        raise UserError(f"{path}: ids must be RAVDESS's names, got {one_line_list(wrong, limit=3)}")
    return {name[3:]: row[None] for name, row in zip(ids, vision, strict=True)}, vision.shape[1]


def _clips(files: dict[str, Path], units: dict[str, NDArray[Any]]) -> list[_Clip]:
    clips = []
    for key in sorted({*files, *units}):
        channel, emotion, _, statement, _, actor = (int(part) for part in key.split("-"))
        if channel != int(_SPEECH):
            continue
        media = files.get(key)
        clips.append(
            _Clip(media.stem if media else f"01-{key}", key, emotion, statement, actor, media)
        )
    return clips


def _split(actor: int) -> str:
    if actor <= _LAST_OF_TRAIN:
        return "train"
    return "valid" if actor <= _LAST_OF_VALID else "test"


def _samples(clips: list[_Clip], units: dict[str, NDArray[Any]]) -> Iterator[Sample]:
    for clip in clips:
        video = f"actor-{clip.actor:02d}"
        sequences = {}
        if clip.key in units:
            sequences[Modality.VISION] = as_frames(units[clip.key])
        yield Sample(
            id=f"{video}_{clip.key}",
            source_id=clip.name,
            video=video,
            clip=clip.key,
            split=_split(clip.actor),
            text=STATEMENTS[clip.statement - 1],
            label=float(clip.emotion - 1),
            sequences=sequences,
            where=clip.name,
            media=clip.media,
        )


def _described(source: Path, files: dict[str, Path]) -> tuple[SourceFile, ...]:
    """The action units' file, and all clips together: names, sizes and sums in one."""
    described = [describe_file(source / _UNITS)] if (source / _UNITS).is_file() else []
    digest, size = hashlib.sha256(), 0
    for key, path in files.items():
        one = describe_file(path)
        digest.update(f"{key} {one.sha256}\n".encode())
        size += one.num_bytes
    if files:
        described.append(SourceFile("clips/", digest.hexdigest(), size))
    return tuple(described)


def _recognises(source: Path) -> bool:
    if not source.is_dir():
        return False
    # Two levels, and not all of a home folder.
    paths = itertools.islice(itertools.chain(source.glob("*"), source.glob("*/*")), _MOST_LOOKED_AT)
    return any(
        path.suffix.lower() in _MEDIA and _NAME.fullmatch(path.stem) is not None for path in paths
    )


READERS.register(
    "ravdess",
    Reader(
        summary="a folder of RAVDESS's clips, openface_au.npz beside them",
        read=read,
        recognises=_recognises,
    ),
)
