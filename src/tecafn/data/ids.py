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
from tecafn.data.samples import canonical_split, public_id

# What `--ids` takes, and what each is.
LAYOUTS: Final = {
    "video-clip": "video$_$clip or video_clip, cut at the last separator",
    "video-number": "video[k]",
    "video": "the bare video; its clips are numbered from 1 in the order of the file",
    "sample": "a name of the sample; every sample is a video of its own",
}
_SEPARATOR: Final = "$_$"
_NUMBERED = re.compile(r"(.+)\[(\d+)\]", re.DOTALL)
_COUNTED = re.compile(r"(.+)_(\d+)", re.DOTALL)
_TIMED = re.compile(r"(.+)_(\d+)_(\d+)", re.DOTALL)
_AS_BYTES = re.compile(r"""b(['"])(.*)\1""", re.DOTALL)
# Before the separator or at the end.
_MEDIA = re.compile(
    r"(?<=.)\.(mp4|avi|mov|mkv|webm|m4v|wav|flac|mp3|ogg|m4a)(?=\Z|\$_\$|\[\d+\]\Z|_\d+\Z)",
    re.IGNORECASE,
)
_WITH_POINT = re.compile(r"(.+?(?:\$_\$|_))(\d+)\.(\d+)", re.DOTALL)
_KNOWN: Final = "video$_$clip, video_clip or video[k]"


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
) -> ReadIds:
    """Take the ids of a whole source apart.

    Args:
        raw: every sample's id, in the source's order.
        layout: one of ``LAYOUTS``; None = the one that all ids have together.
        because: whose word ``layout`` is.
        first_number: label.csv's clip of ``video[0]``: 1 for CMU-MOSI, whose ids count from 0.

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
    spelled, notes = _cleaned([_spelled(one) for one in raw])
    if not spelled:
        return ReadIds(())
    chosen = _layout(spelled) if layout is None else _told(layout, spelled)
    ids = tuple(chosen.read(spelled, first_number))
    if first_number and _num_shared(ids):
        # Beside video$_$clip, video[k] may already be in label.csv's numbering.
        as_written = tuple(chosen.read(spelled, 0))
        if not _num_shared(as_written):
            ids = as_written
            notes.append("ids video[k] keep k: counted from 1 they would be those of other samples")
    return ReadIds(
        ids,
        (chosen.sentence if layout is None else f"{chosen.sentence}, {because}",),
        (*notes, *chosen.notes),
    )


def _num_shared(ids: Sequence[SourceId]) -> int:
    return len(ids) - len({one.id for one in ids})


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
    plain = [str(part) if type(part) in (int, float) else part for part in value]
    name, start, end = (id_text(part, where=raw.where) for part in plain)
    if not name.strip() or not start.strip():
        raise UserError(f"{raw.where}: id must be video, start, end, got {(name, start, end)!r}")
    seconds = (start.strip(), end.strip())
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


def _cleaned(spelled: list[_Spelled]) -> tuple[list[_Spelled], list[str]]:
    """The same ids without what does not belong to them, and how many had it."""
    notes = []
    for change, what in (
        (str.strip, "had blanks around them, which are gone"),
        (_without_bytes_mark, "were bytes written as text (b'...'), which is undone"),
        (_without_folders, "were paths; the last folder is the video, the file the clip"),
        (_without_ending, "ended like a media file (.mp4); the ending is gone"),
        (str.strip, ""),
    ):
        count = 0
        for position, one in enumerate(spelled):
            text = change(one.text)
            if text != one.text:
                count += 1
                spelled[position] = replace(one, text=text)
            if not text:
                raise UserError(f"{one.where}: id must not be empty, got {one.written!r}")
        if count and what:
            notes.append(f"{count} of {len(spelled)} ids {what}")
    points = [_WITH_POINT.fullmatch(one.text) for one in spelled]
    if any(points) and all(match is None or not match[3].strip("0") for match in points):
        # No clip has a fraction: the numbers went through a table of floats.
        for position, match in enumerate(points):
            if match:
                spelled[position] = replace(spelled[position], text=match[1] + match[2])
        count = sum(match is not None for match in points)
        notes.append(f"{count} of {len(spelled)} ids had clips such as 1.0, which are read as 1")
    return spelled, notes


def _without_bytes_mark(text: str) -> str:
    match = _AS_BYTES.fullmatch(text)
    return match[2] if match else text


def _without_ending(text: str) -> str:
    return _MEDIA.sub("", text)


def _without_folders(text: str) -> str:
    if "/" not in text and "\\" not in text:
        return text
    folder, name = ntpath.split(text.rstrip("/\\"))
    video = ntpath.basename(folder)
    name = _without_ending(name)
    return f"{video}{_SEPARATOR}{name}" if video and _SEPARATOR not in name else name


# Layouts


@dataclass(frozen=True)
class _Layout:
    """How ids are cut; ``cut`` gives video, clip and k of ``video[k]``."""

    sentence: str
    cut: Callable[[_Spelled], tuple[str, str, int | None]]
    notes: tuple[str, ...] = ()
    counts: bool = False

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
    if match and _SEPARATOR not in one.text:
        return match[1], str(int(match[2])), int(match[2])
    return _cut_at(one, _SEPARATOR)


def _cut_at(one: _Spelled, separator: str) -> tuple[str, str, int | None]:
    video, found, clip = one.text.rpartition(separator)
    if not found or not video or not clip:
        raise UserError(
            f"{one.where}: id must look like video{separator}clip, got {one.written!r}{_WAY_OUT}"
        )
    return video, clip, None


def _cut_last(one: _Spelled) -> tuple[str, str, int | None]:
    return _cut_at(one, "_")


def _cut_timed(one: _Spelled) -> tuple[str, str, int | None]:
    match = _TIMED.fullmatch(one.text)
    assert match is not None
    return match[1], f"{match[2]}_{match[3]}", None


def _cut_start(one: _Spelled) -> tuple[str, str, int | None]:
    """MOSEI's rows: the clip is the start in label.csv's writing (82.7645: 82_7645)."""
    assert one.seconds is not None
    return one.text, one.seconds[0].replace(".", "_"), None


def _cut_point(one: _Spelled) -> tuple[str, str, int | None]:
    video, clip, _ = _cut_at(one, "_")
    return video, clip.replace(".", "_"), None


def _cut_nothing(one: _Spelled) -> tuple[str, str, int | None]:
    return one.text, "", None


_WAY_OUT: Final = "; --ids says how ids are to be read: " + ", ".join(LAYOUTS)
_BARE: Final = _Layout(
    "ids are bare videos: clips are numbered from 1 within each video, in the order of the file; "
    "label.csv's numbering is another",
    _cut_nothing,
    counts=True,
)
_JOINED: Final = _Layout("ids are video_clip, cut at the last _", _cut_last)
_POINTS: Final = _Layout("ids are video_clip, the clip its start in seconds (82.7645)", _cut_point)
_TIMES: Final = _Layout("ids are video_clip, the clip its start in seconds (82_7645)", _cut_timed)


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
        return _cut_at(one, _SEPARATOR if _SEPARATOR in one.text else "_")

    return _Layout("ids are video_clip, cut at the last separator", cut)


def _is_explicit(one: _Spelled) -> bool:
    return _SEPARATOR in one.text or _NUMBERED.fullmatch(one.text) is not None


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
        looks = f"video{_SEPARATOR}clip" if _SEPARATOR in first.text else "video[k]"
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
    numbered = sum(_SEPARATOR not in one.text for one in spelled)
    if numbered == len(spelled):
        return _Layout("ids are video[k]", _cut_explicit)
    if not numbered:
        return _Layout(f"ids are video{_SEPARATOR}clip", _cut_explicit)
    return _Layout(
        f"ids are video[k] and video{_SEPARATOR}clip",
        _cut_explicit,
        (f"{numbered} ids are video[k], {len(spelled) - numbered} are video{_SEPARATOR}clip",),
    )


def _row_layout(spelled: list[_Spelled]) -> _Layout:
    """MulT's rows: (video_clip, start, end) of MOSI, (video, start, end) of MOSEI."""
    times = defaultdict(set)
    for one in spelled:
        times[one.text].add(one.seconds)
    recurs = any(len(starts) > 1 for starts in times.values())
    counted = [one for one in spelled if _COUNTED.fullmatch(one.text)]
    if len(counted) == len(spelled) and not recurs:
        return _Layout("ids are (video_clip, start, end), cut at the last _", _cut_last)
    if not recurs and 2 * len(counted) >= len(spelled):
        other = next(one for one in spelled if not _COUNTED.fullmatch(one.text))
        raise UserError(
            f"{other.where}: id must look like video_clip, as {len(counted)} of {len(spelled)} "
            f"do ({counted[0].text!r}), got {other.text!r}{_WAY_OUT}"
        )
    return _Layout("ids are (video, start, end), the clip its start", _cut_start)


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
    last = {one.text: one.text.rpartition("_")[0] for one in spelled}
    videos = set(last.values())
    splits = {one.split for one in spelled}
    # One video in every split, or one for each that is called like it, is a name that counts.
    if len(splits) > 1 and (len(videos) == 1 or all(map(canonical_split, videos))):
        raise UserError(
            f"{spelled[0].where}: id {spelled[0].written!r} read as video_clip makes "
            f"{len(spelled)} samples {len(videos)} video{'s' * (len(videos) > 1)}"
            f"{_WAY_OUT}"
        )
    timed = [_TIMED.fullmatch(one.text) for one in spelled]
    if all(timed):
        heads = Counter(match[1] for match in timed if match)
        # Cut at the last _ nearly every sample would be a video of its own.
        if 1 < len(heads) < len(last) and 10 * len(videos) > 9 * len(last):
            return _TIMES
    return _JOINED


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
        self._splits: dict[str, str] = {}
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
        if pairs := lookalikes(self._ids):
            shown = _some(" and ".join(pair) for pair in pairs)
            found.append(
                f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''} of ids differ in case, blanks "
                f"or leading zeros alone: {shown}"
            )
        return found


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
        head, separator, clip = one.casefold().rpartition("_")
        key = f"{''.join(head.split())}{separator}{clip.strip().lstrip('0') or '0'}"
        first = known.setdefault(key, one)
        if first != one:
            pairs.append((first, one))
    return pairs
