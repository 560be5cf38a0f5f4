"""Ids as the field's tools write them, taken apart into label.csv's video and clip.

One id alone does not say how it is to be read: ``-3g5_yACwYnA`` may be a video, or clip
``yACwYnA`` of the video ``-3g5``. All ids of a source together do, so ``read_ids`` takes all of
them, decides one layout and refuses what no layout explains.
"""

from __future__ import annotations

import ntpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from tecafn.core.errors import UserError, nearest_known
from tecafn.data.names import (
    MARKS,
    SEPARATOR,
    as_seen,
    file_name,
    has_control,
    is_list,
    is_path,
    without_ending,
    without_marks,
    without_video,
)
from tecafn.data.samples import canonical_split, public_id
from tecafn.data.shares import more_than_a_few

# What `--ids` takes, and what each is.
LAYOUTS: Final = {
    "video-clip": "video$_$clip or video_clip, cut at the last separator",
    "video-number": "video[k]",
    "video": "the bare video; its clips are numbered from 1 in the order of the file",
    "sample": "a name of the sample; every sample is a video of its own",
}
_NUMBERED = re.compile(r"(.+)\[(\d+)\]", re.DOTALL)
_COUNTED = re.compile(r"(.+)_(\d+)", re.DOTALL)
_TIMED = re.compile(r"(.+)_(\d+)_(\d+)", re.DOTALL)
_WITH_POINT = re.compile(r"(.+?(?:\$_\$|_))(\d+)\.(\d+)", re.DOTALL)
_SECONDS = re.compile(
    r"(?P<head>.+_|.*\$_\$|)(?P<whole>\d{1,9})(?P<point>[._])(?P<rest>\d+)", re.DOTALL
)
_FOLDERS: Final = "were paths; the last folder is the video, the file the clip"
_KNOWN: Final = "video$_$clip, video_clip or video[k]"
_FLOAT32_DIGITS: Final = 9  # As many tell any two numbers of float32 apart.


@dataclass(frozen=True)
class RawId:
    """One sample's id as the source has it.

    Args:
        where: file, split and row, for messages.
        value: a string, bytes, a number, or a row of (id, start, end).
        split: the sample's.
    """

    where: str
    value: Any
    split: str = ""


@dataclass(frozen=True)
class SourceId:
    """An id taken apart.

    Args:
        source_id: as the source writes it.
        video, clip: those of label.csv.
        start, end: seconds, where the source has them.
        number: k of ``video[k]``, None in the other layouts.
    """

    source_id: str
    video: str
    clip: str
    start: float | None = None
    end: float | None = None
    number: int | None = None

    @property
    def id(self) -> str:
        """The public id."""
        return public_id(self.video, self.clip)


@dataclass(frozen=True)
class ReadIds:
    """All ids of a source, in its order, and what the user should hear of them."""

    ids: tuple[SourceId, ...]
    decisions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Spelled:
    """An id as text, before it is cut."""

    where: str
    written: str
    text: str
    split: str = ""
    seconds: tuple[str, str] | None = None
    is_integer: bool = False


def read_ids(
    raw: Sequence[RawId],
    *,
    layout: str | None = None,
    because: str = "as told by --ids",
    first_number: int = 0,
    is_guess: bool = False,
) -> ReadIds:
    """Take the ids of a whole source apart.

    Args:
        raw: every sample's id, in the source's order.
        layout: one of ``LAYOUTS``; None = the one that all ids have together.
        because: whose word ``layout`` is.
        first_number: label.csv's clip of ``video[0]``: 1 for CMU-MOSI, whose ids count from 0.
        is_guess: nothing says that it is this dataset: only ``video[k]`` is taken to count so.

    Raises:
        UserError: an id is no text, empty, or of an unknown or of another layout than the others:
            the row, what it has, what would be read, and the option that says how to read it.

    Example:
        >>> def ids(*texts):
        ...     return [one.id for one in read_ids([RawId("row", text) for text in texts]).ids]
        >>> ids("a_b$_$3", "c$_$1"), ids("a_b_3", "a_b_4"), ids("a_b[0]", "a_b[1]")
        (['a_b_3', 'c_1'], ['a_b_3', 'a_b_4'], ['a_b_0', 'a_b_1'])
        >>> ids("-3g5_yA", "-3g5_yA", "0w3_dK", "0w3_dK")  # bare videos
        ['-3g5_yA_1', '-3g5_yA_2', '0w3_dK_1', '0w3_dK_2']
        >>> ids((b"a_b_3", b"0.5", b"2.5"), (b"a_b_4", b"2.5", b"4"))
        ['a_b_3', 'a_b_4']
        >>> ids(("a_b", "82.7645", "90.1"), ("a_b", "3.5", "5.0"))
        ['a_b_82_7645', 'a_b_3_5']
    """
    if layout is not None and layout not in LAYOUTS:
        raise UserError(f"unknown layout of ids: {nearest_known(layout, list(LAYOUTS))}")
    spelled, decisions, notes = _cleaned([_spelled(one) for one in raw], layout=layout)
    if not spelled:
        return ReadIds(())
    chosen = _layout(spelled) if layout is None else _told(layout, spelled)
    ids = tuple(chosen.read(spelled, first_number))
    shifted: list[str] = []
    if first_number and not is_guess and layout is None and chosen.numbers:
        ids, shifted = _from_first(ids, spelled, first_number)
    if first_number and _num_shared(ids):
        # Beside video$_$clip, video[k] may already be in label.csv's numbering.
        as_written = tuple(chosen.read(spelled, 0))
        if not _num_shared(as_written):
            ids, shifted = as_written, []
            notes.append("ids video[k] keep k: counted from 1 they would be those of other samples")
    return ReadIds(
        ids,
        (
            chosen.sentence if layout is None else f"{chosen.sentence}, {because}",
            *decisions,
            *shifted,
        ),
        (*notes, *chosen.notes),
    )


def _num_shared(ids: Sequence[SourceId]) -> int:
    return len(ids) - len({one.id for one in ids})


def _from_first(
    ids: tuple[SourceId, ...], spelled: Sequence[_Spelled], first_number: int
) -> tuple[tuple[SourceId, ...], list[str]]:
    """Clips that are numbers counted from 0, in label.csv's numbering, and the decision.

    Raises:
        UserError: clips of some videos count from 0, those of others do not.
    """
    numbered = [position for position, one in enumerate(ids) if one.number is None]
    if not all(re.fullmatch(r"[0-9]+", ids[position].clip) for position in numbered):
        return ids, []
    videos = {ids[position].video for position in numbered}
    from_zero = {ids[n].video: n for n in reversed(numbered) if not int(ids[n].clip)}
    if not from_zero:
        return ids, []
    counted = f"clips of {len(from_zero)} of {len(videos)} videos count from 0"
    if 10 * len(from_zero) < 9 * len(videos):
        first = min(from_zero.values())
        raise UserError(
            f"{spelled[first].where}: id {ids[first].source_id!r} is clip 0, and {counted}: are "
            f"all to be {first_number} more, as label.csv counts from {first_number}? --ids "
            "video-clip keeps the numbers"
        )
    shifted = list(ids)
    for position in numbered:
        one = ids[position]
        shifted[position] = replace(one, clip=str(int(one.clip) + first_number))
    return tuple(shifted), [
        f"{counted}, label.csv's from {first_number}: clip k is read as k + {first_number} (--ids "
        "video-clip keeps the numbers)"
    ]


def id_rows(value: object, *, what: str) -> list[Any]:
    """One entry per sample from a column of ids: a list, or an array of one or two dimensions.

    Raises:
        UserError: it is something else.
    """
    if isinstance(value, np.ndarray) and value.ndim in (1, 2):
        try:
            value = value.tolist()
        except ValueError:
            raise UserError(f"{what} holds characters outside Unicode") from None
    if not isinstance(value, (list, tuple)):
        shown = f"shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise UserError(
            f"{what} must be a list of strings, or of rows (id, start, end), got {shown}"
        )
    return list(value)


# From values to text


def _spelled(raw: RawId) -> _Spelled:
    value = raw.value
    if isinstance(value, np.ndarray) and value.ndim <= 1:
        value = value.tolist()
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, (list, tuple, np.ndarray)):
        return _row(raw, value)
    text = id_text(value, where=raw.where)
    return _Spelled(raw.where, text, text, raw.split, is_integer=is_integer(value))


def _row(raw: RawId, value: Any) -> _Spelled:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        shape = f"of shape {value.shape}" if isinstance(value, np.ndarray) else f"of {len(value)}"
        raise UserError(
            f"{raw.where}: id must be one string, or a row of (id, start, end), got a row {shape}"
        )
    name, start, end = (
        np.format_float_positional(part, trim="0")
        if isinstance(part, (float, np.floating))
        else id_text(part, where=raw.where)
        for part in value
    )
    seconds = (without_marks(start)[0], without_marks(end)[0])
    if not name.strip() or not seconds[0]:
        raise UserError(f"{raw.where}: id must be video, start, end, got {(name, start, end)!r}")
    return _Spelled(raw.where, f"{name}[{start}-{end}]", name, raw.split, seconds)


def is_integer(value: object) -> bool:
    """Is it a whole number, Python's or NumPy's?"""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return bool(value.dtype.kind in "iu")
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def id_text(value: object, *, where: str) -> str:
    """One id as text, from a string, UTF-8 bytes or an integer.

    Raises:
        UserError: it is something else (a number with a point, for one), or no valid Unicode.

    Example:
        >>> id_text(b"a_1", where="row 0"), id_text(np.int64(7), where="row 0")
        ('a_1', '7')
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if is_integer(value):
        return str(value)
    try:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return str(value, "utf-8")
        if isinstance(value, str):
            value.encode("utf-8")
            return str(value)
    except UnicodeError:
        raise UserError(f"{where}: id holds a string that is not valid Unicode") from None
    shown = f"{value!r}, " if isinstance(value, (float, np.floating)) else ""
    raise UserError(
        f"{where}: id must be a string, got {shown}a {type(value).__name__}; ids such as "
        f"{_KNOWN} are read"
    )


def _cleaned(
    spelled: list[_Spelled], *, layout: str | None
) -> tuple[list[_Spelled], list[str], list[str]]:
    """The same ids without what does not belong to them, what was decided, and how many had it."""
    counts: Counter[str] = Counter(dict.fromkeys(MARKS, 0))
    for position, one in enumerate(spelled):
        text, marks = without_marks(one.text)
        counts.update(marks)
        if has_control(text) or is_list(text):
            what = "a control character in it" if has_control(text) else "a list written as text"
            raise UserError(f"{one.where}: id must be one string, got {one.written!r}, {what}")
        spelled[position] = replace(one, text=text)
    decisions = _flat(spelled) if layout in (None, "video-number") else []
    for change, what in (
        (file_name, "") if decisions else (_without_folders, _FOLDERS),
        (without_ending, "ended like a media file (.mp4); the ending is gone"),
        (str.strip, ""),
    ):
        for position, one in enumerate(spelled):
            text = change(one.text)
            counts[what] += text != one.text
            if not text:
                raise UserError(f"{one.where}: id must not be empty, got {one.written!r}")
            spelled[position] = replace(one, text=text)
    notes = [f"{n} of {len(spelled)} ids {what}" for what, n in counts.items() if n and what]
    for mend in (_named_once, _shortened, _without_points):
        notes += mend(spelled)
    return spelled, decisions, notes


def _named_once(spelled: list[_Spelled]) -> list[str]:
    """Make ``video$_$video_1`` ``video$_$1``, where all ids are so; the note."""
    once = []
    for one in spelled:
        video, found, clip = one.text.partition(SEPARATOR)
        rest = without_video(video, clip)
        if not found or rest == clip:
            return []
        once.append(replace(one, text=f"{video}{SEPARATOR}{rest}"))
    spelled[:] = once
    return [f"{len(once)} of {len(once)} clips began with their video, which is gone"]


def _without_points(spelled: list[_Spelled]) -> list[str]:
    """Make clips such as 1.0 whole numbers; the note."""
    points = [_WITH_POINT.fullmatch(one.text) for one in spelled]
    if not any(points) or any(match is not None and match[3].strip("0") for match in points):
        return []
    # No clip has a fraction: the numbers went through a table of floats.
    for position, match in enumerate(points):
        if match:
            spelled[position] = replace(spelled[position], text=match[1] + match[2])
    count = sum(match is not None for match in points)
    return [f"{count} of {len(spelled)} ids had clips such as 1.0, which are read as 1"]


def _without_folders(text: str) -> str:
    """The last folder is the video, unless the file's name has it."""
    if not is_path(text):
        return text
    name = file_name(text)
    video = ntpath.basename(ntpath.dirname(text.rstrip("/\\")))
    return name if not video or _names_both(name) else f"{video}{SEPARATOR}{name}"


def _names_both(text: str) -> bool:
    return SEPARATOR in text or _NUMBERED.fullmatch(text) is not None


def _flat(spelled: Sequence[_Spelled]) -> list[str]:
    """The decision that the files' names are the ids, because the folders cannot be the videos.

    So it is where there are no more folders than splits, and the names are video_clip of more
    videos than there are folders.

    Raises:
        UserError: it is so of most of the names.
    """
    paths = [one for one in spelled if is_path(one.text)]
    names = {one.text: file_name(one.text) for one in paths}
    folders = {ntpath.basename(ntpath.dirname(text.rstrip("/\\"))) for text in names}
    counted = {
        text: match[1]
        for text, name in names.items()
        if (match := _COUNTED.fullmatch(name) or _WITH_POINT.fullmatch(name))
    }
    videos = set(counted.values())
    if (
        not paths
        or len(folders) > len({one.split for one in paths})
        or len(videos) <= len(folders)
        or 2 * len(counted) <= len(names)
    ):
        return []
    shown = ", ".join(sorted(folders)[:3])
    folder = f"folder{'s' * (len(folders) > 1)} ({shown})"
    for one in paths:
        if one.text not in counted and not _names_both(names[one.text]):
            raise UserError(
                f"{one.where}: the file's name must look like video_clip, as {len(counted)} of "
                f"{len(names)} in {len(folders)} {folder} do, got {one.written!r}; --ids "
                "video-clip takes the folder for the video"
            )
    return [
        f"ids are paths in {len(folders)} {folder}, and their names look like video_clip: the "
        "folder is not the video (--ids video-clip takes it)"
    ]


def _shortened(spelled: list[_Spelled]) -> list[str]:
    """Shorten seconds that went through float32 to the fewest digits it tells apart; the note.

    1.1 comes back from it as 1.100000023841858, which is no clip of label.csv.
    """
    changed, example = {}, ""
    for position, one in enumerate(spelled):
        text = one.text if one.seconds is None else one.seconds[0]
        match = _SECONDS.fullmatch(text)
        if match is None or len((match["whole"] + match["rest"]).lstrip("0")) <= _FLOAT32_DIGITS:
            continue
        written = f"{match['whole']}.{match['rest']}"
        value = np.float32(written)
        if f"{float(value):.{len(match['rest'])}f}" != written:
            return []  # Some seconds are finer, so none is float32's.
        short = np.format_float_positional(value, trim="0").replace(".", match["point"])
        example = example or f"{written}, read as {short.replace('_', '.')}"
        text = f"{match['head']}{short}"
        seconds = None if one.seconds is None else (text, one.seconds[1])
        changed[position] = replace(one, text=one.text if seconds else text, seconds=seconds)
    for position, one in changed.items():
        spelled[position] = one
    if not changed:
        return []
    return [f"{len(changed)} of {len(spelled)} ids had seconds of float32 ({example})"]


# Layouts


@dataclass(frozen=True)
class _Layout:
    """How ids are cut; ``cut`` gives video, clip and k of ``video[k]``.

    ``counts``: clips are counted here. ``numbers``: clips are the source's numbers, not seconds.
    """

    sentence: str
    cut: Callable[[_Spelled], tuple[str, str, int | None]]
    notes: tuple[str, ...] = ()
    counts: bool = False
    numbers: bool = False

    def read(self, spelled: Iterable[_Spelled], first_number: int) -> Iterable[SourceId]:
        numbers: Counter[str] = Counter()
        for one in spelled:
            video, clip, number = self.cut(one)
            if number is not None:
                clip = str(number + first_number)
            if self.counts:
                numbers[video] += 1
                clip = str(numbers[video])
            start, end = (None, None) if one.seconds is None else map(_seconds, one.seconds)
            yield SourceId(one.written, video, clip, start, end, number)


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _cut_explicit(one: _Spelled) -> tuple[str, str, int | None]:
    match = _NUMBERED.fullmatch(one.text)
    if match and SEPARATOR not in one.text:
        return match[1], str(int(match[2])), int(match[2])
    return _cut_at(one, SEPARATOR)


def _cut_at(one: _Spelled, separator: str) -> tuple[str, str, int | None]:
    video, found, clip = one.text.rpartition(separator)
    if not found or not video or not clip:
        raise UserError(
            f"{one.where}: id must look like video{separator}clip, got {one.written!r}{_WAY_OUT}"
        )
    return video, _start(clip), None


def _start(text: str) -> str:
    """Seconds as MOSEI's label.csv writes them: 82.7645 is clip 82_7645."""
    return text.replace(".", "_") if re.fullmatch(r"[0-9]+\.[0-9]+", text) else text


def _cut_last(one: _Spelled) -> tuple[str, str, int | None]:
    return _cut_at(one, "_")


def _cut_start(one: _Spelled) -> tuple[str, str, int | None]:
    """MOSEI's rows: the clip is the start."""
    assert one.seconds is not None
    return one.text, one.seconds[0].replace(".", "_"), None


def _cut_nothing(one: _Spelled) -> tuple[str, str, int | None]:
    return one.text, "", None


_WAY_OUT: Final = "; --ids says how ids are to be read: " + ", ".join(LAYOUTS)
_BARE: Final = _Layout(
    "ids are bare videos: clips are numbered from 1 within each video, in the order of the file; "
    "label.csv's numbering is another",
    _cut_nothing,
    counts=True,
)
_JOINED: Final = _Layout("ids are video_clip, cut at the last _", _cut_last, numbers=True)
_POINTS: Final = _Layout("ids are video_clip, the clip its start in seconds (82.7645)", _cut_last)


def _told(layout: str, spelled: list[_Spelled]) -> _Layout:
    """The layout that the user names."""
    if layout == "sample":
        return _Layout("ids name samples: every sample is a video of its own", _cut_nothing)
    if layout == "video":
        if all(one.seconds is not None for one in spelled):
            return _Layout("ids are (video, start, end), the clip its start", _cut_start)
        return _BARE
    if layout == "video-number":
        for one in spelled:
            if not _NUMBERED.fullmatch(one.text):
                raise UserError(f"{one.where}: id must look like video[k], got {one.written!r}")
        return _Layout("ids are video[k]", _cut_explicit)

    def cut(one: _Spelled) -> tuple[str, str, int | None]:
        return _cut_at(one, SEPARATOR if SEPARATOR in one.text else "_")

    return _Layout("ids are video_clip, cut at the last separator", cut)


def _is_explicit(one: _Spelled) -> bool:
    return SEPARATOR in one.text or _NUMBERED.fullmatch(one.text) is not None


def _layout(spelled: list[_Spelled]) -> _Layout:
    """The one layout that all ids have.

    Raises:
        UserError: there is none, or there are two.
    """
    explicit = [one for one in spelled if _is_explicit(one)]
    if len(explicit) == len(spelled):
        return _explicit_layout(explicit)
    if explicit:
        other = next(one for one in spelled if not _is_explicit(one))
        first = explicit[0]
        looks = f"video{SEPARATOR}clip" if SEPARATOR in first.text else "video[k]"
        raise UserError(
            f"{other.where}: id must look like {looks}, as {len(explicit)} of {len(spelled)} do "
            f"({first.written!r}), got {other.written!r}{_WAY_OUT}"
        )
    timed = [one for one in spelled if one.seconds is not None]
    if len(timed) == len(spelled):
        return _row_layout(timed)
    if timed:
        other = next(one for one in spelled if one.seconds is None)
        raise UserError(
            f"{other.where}: id must look like video_clip, or be a row of (id, start, end) as "
            f"{len(timed)} of {len(spelled)} are, got {other.written!r}"
        )
    return _plain_layout(spelled)


def _explicit_layout(spelled: list[_Spelled]) -> _Layout:
    _refuse_counting(spelled, (_cut_explicit(one)[0] for one in spelled))
    numbered = sum(SEPARATOR not in one.text for one in spelled)
    if numbered == len(spelled):
        return _Layout("ids are video[k]", _cut_explicit)
    if not numbered:
        timed = all(_WITH_POINT.fullmatch(one.text) for one in spelled)
        seconds = ", the clip its start in seconds (82.7645)" if timed else ""
        return _Layout(f"ids are video{SEPARATOR}clip{seconds}", _cut_explicit, numbers=True)
    return _Layout(
        f"ids are video[k] and video{SEPARATOR}clip",
        _cut_explicit,
        (f"{numbered} ids are video[k], {len(spelled) - numbered} are video{SEPARATOR}clip",),
        numbers=True,
    )


def _row_layout(spelled: list[_Spelled]) -> _Layout:
    """MulT's rows: (video_clip, start, end) of MOSI, (video, start, end) of MOSEI.

    Videos recur with other seconds, clips do not. What most rows show counts, so that one doubled
    clip is a duplicate as anywhere else.

    Raises:
        UserError: neither explains the ids.
    """
    times = defaultdict(set)
    for one in spelled:
        times[one.text].add(one.seconds)
    recurring = [one for one in spelled if len(times[one.text]) > 1]
    counted = [one for one in spelled if _COUNTED.fullmatch(one.text)]
    if 2 * len(recurring) > len(spelled) or 2 * len(counted) < len(spelled):
        return _Layout("ids are (video, start, end), the clip its start", _cut_start)
    if more_than_a_few(len(recurring), len(spelled)):
        one = recurring[0]
        raise UserError(
            f"{one.where}: id {one.text!r} is that of {len(times[one.text])} rows with other "
            f"seconds, as {len(recurring)} of {len(spelled)} are: a video (--ids video), or a clip "
            "that is there more than once (--ids video-clip)?"
        )
    if len(counted) == len(spelled):
        _refuse_counting(spelled, (_cut_last(one)[0] for one in spelled))
        return _Layout(
            "ids are (video_clip, start, end), cut at the last _", _cut_last, numbers=True
        )
    other = next(one for one in spelled if not _COUNTED.fullmatch(one.text))
    raise UserError(
        f"{other.where}: id must look like video_clip, as {len(counted)} of {len(spelled)} "
        f"do ({counted[0].text!r}), got {other.text!r}{_WAY_OUT}"
    )


def _plain_layout(spelled: list[_Spelled]) -> _Layout:
    """Strings without ``$_$`` or ``[k]``: video_clip, or bare videos."""
    sizes = Counter(one.text for one in spelled)
    recurring = sum(size for size in sizes.values() if size > 1)
    counted = [one for one in spelled if _COUNTED.fullmatch(one.text)]
    if 2 * recurring > len(spelled) and not any(one.is_integer for one in spelled):
        if 2 * len(counted) < len(spelled):
            return _BARE
        (often, size), *_ = sizes.most_common(1)
        raise UserError(
            f"{next(one.where for one in spelled if one.text == often)}: id {often!r} is that of "
            f"{size} samples: a video (--ids video numbers its clips), or a clip that is there "
            "more than once?"
        )
    if len(counted) == len(spelled):
        return _counted_layout(spelled)
    if all(_WITH_POINT.fullmatch(one.text) or _COUNTED.fullmatch(one.text) for one in spelled):
        return _POINTS
    other = next(one for one in spelled if not _COUNTED.fullmatch(one.text))
    if counted and 2 * len(counted) >= len(spelled):
        raise UserError(
            f"{other.where}: id must look like video_clip, as {len(counted)} of {len(spelled)} do "
            f"({counted[0].written!r}), got {other.written!r}{_WAY_OUT}"
        )
    raise UserError(
        f"{other.where}: id must look like {_KNOWN}, got {other.written!r}"
        f"{', a number' if other.is_integer else ''}{_WAY_OUT}"
    )


def _counted_layout(spelled: list[_Spelled]) -> _Layout:
    """``video_<number>`` throughout: the number may be the clip, or the clip two of them."""
    _refuse_counting(spelled, (_cut_last(one)[0] for one in spelled))
    return _timed_layout(spelled) or _JOINED


def _refuse_counting(spelled: Sequence[_Spelled], videos: Iterable[str]) -> None:
    """Refuse names that merely count the samples: one for all splits, or one for each split.

    Names that count are different; a video that is there again and again is a duplicate.

    Raises:
        UserError: they do.
    """
    found = set(videos)
    splits = {one.split for one in spelled}
    num_texts = len({one.text for one in spelled})
    counts = num_texts > len(found) and 2 * num_texts > len(spelled)
    if len(splits) < 2 or len(found) > len(splits) or not counts:
        return
    if len(found) == 1 or all(map(_names_split, found)):
        raise UserError(
            f"{spelled[0].where}: id {spelled[0].written!r} read as video_clip makes "
            f"{len(spelled)} samples {len(found)} video{'s' * (len(found) > 1)}"
            f"{_WAY_OUT}"
        )


def _names_split(text: str) -> bool:
    """Is a split's name one of the words of a name: ``train``, ``mosi_dev``?"""
    return any(map(canonical_split, re.split(r"[^A-Za-z]+", text)))


def _timed_layout(spelled: list[_Spelled]) -> _Layout | None:
    """``video_82_7645``, where most are so; beside them ``video_82`` is a whole second."""
    timed = {one.text: match for one in spelled if (match := _TIMED.fullmatch(one.text))}
    heads = {match[1] for match in timed.values()}
    # How many ids have a head that can only be their video.
    sure = Counter(
        match[1] for text, match in timed.items() if text.rpartition("_")[0] not in heads
    )

    def cut(one: _Spelled) -> tuple[str, str, int | None]:
        match = timed.get(one.text)
        video, clip, _ = _cut_last(one)
        # Beside clips of a_12, such as a_12_82_7645, a_12_5 is second 5 of a_12.
        if match is None or sure[match[1]] < sure[video]:
            return video, clip, None
        return match[1], f"{match[2]}_{match[3]}", None

    texts = {one.text: one for one in spelled}
    cuts = {text: cut(one) for text, one in texts.items()}
    videos = {video for video, _, _ in cuts.values()}
    split = [text for text, (_, clip, _) in cuts.items() if "_" in clip]
    last = {_cut_last(texts[text])[0] for text in split}
    # Cut at the last _ nearly every sample would be a video of its own.
    if (
        2 * len(split) <= len(texts)
        or not 1 < len(videos) < len(texts)
        or 10 * len(last) <= 9 * len(split)
    ):
        return None
    num_whole = len(texts) - len(split)
    notes = (f"{num_whole} of {len(texts)} ids are at a whole second (video_82)",)
    return _Layout(
        "ids are video_clip, the clip its start in seconds (82_7645)",
        cut,
        notes if num_whole else (),
    )


# What is doubtful of the ids as they are kept


class Identities:
    """Looks at the samples of an import for ids and videos that are doubtful together.

    Example:
        >>> seen = Identities()
        >>> for split, video in (("train", "a"), ("valid", "a")):
        ...     seen.add(f"{video}_{len(split)}{split[0]}", video, split)
        >>> seen.warnings()
        ["1 video is in two splits, which `tecafn data check` calls an error: 'a'"]
    """

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._splits: dict[str, str] = {}  # of each video, the first
        self._shared: dict[str, None] = {}

    def add(self, sample_id: str, video: str, split: str) -> None:
        """Look at one sample."""
        self._ids.append(sample_id)
        if self._splits.setdefault(video, split) != split:
            self._shared[video] = None

    def warnings(self) -> list[str]:
        """Sentences on videos in two splits, and on ids that hardly differ."""
        found = []
        if self._shared:
            count = len(self._shared)
            found.append(
                f"{count} video{'s are' if count > 1 else ' is'} in two splits, which "
                f"`tecafn data check` calls an error: {_some(self._shared)}"
            )
        if alike := self._alike():
            shown = _some(f"{a} ({self._splits[a]}) and {b} ({self._splits[b]})" for a, b in alike)
            found.append(
                f"{len(alike)} pair{'s' if len(alike) > 1 else ''} of videos in two splits differ "
                f"in case, blanks or the composition of accents alone: {shown}"
            )
        if pairs := lookalikes(self._ids):
            shown = _some(" and ".join(pair) for pair in pairs)
            found.append(
                f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of ids differ in case, blanks "
                f"or leading zeros alone: {shown}"
            )
        return found

    def _alike(self) -> list[tuple[str, str]]:
        """Pairs of videos of two splits that one may take for each other."""
        known: dict[str, str] = {}
        pairs = []
        for video, split in self._splits.items():
            first = known.setdefault(as_seen(video), video)
            if self._splits[first] != split:
                pairs.append((first, video))
        return pairs


def _some(names: Iterable[str], *, limit: int = 4) -> str:
    listed = list(names)
    shown = [repr(name)[:60] for name in listed[:limit]]
    return ", ".join([*shown, "..."] if len(listed) > limit else shown)


def lookalikes(ids: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different ids that only case, blanks or leading zeros of the clip tell apart.

    Example:
        >>> lookalikes(["a_01", "a_1", "B_2", "b_2", "c_3"])
        [('a_01', 'a_1'), ('B_2', 'b_2')]
    """
    known: dict[str, str] = {}
    pairs = []
    for one in ids:
        head, separator, clip = as_seen(one).rpartition("_")
        key = f"{head}{separator}{clip.lstrip('0') or '0'}"
        first = known.setdefault(key, one)
        if first != one:
            pairs.append((first, one))
    return pairs
