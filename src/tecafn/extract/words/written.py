"""Words that somebody has written down: subtitles, word-timed JSON, plain text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tecafn.core.errors import UserError
from tecafn.extract.words.word import RoughWord, Word, with_times

SUBTITLES = (".srt", ".vtt", ".ass", ".ssa", ".sub")
TEXTS = (".txt",)
TIMED = (".json",)
TRANSCRIPTS = (*SUBTITLES, *TIMED, *TEXTS)

_MOST_BYTES = 64 * 2**20
_NO_SPEECH = re.compile(r"\[[^\]]*\]|\u266a[^\u266a]*\u266a?|\u266b|\u266a|\{\\[^}]*\}|<[^>]*>")
_WORD_KEYS, _START_KEYS = ("word", "text", "token"), ("start", "start_time", "begin", "t0")
_END_KEYS = ("end", "end_time", "stop", "t1")
_CONFIDENCE_KEYS = ("confidence", "probability", "score", "conf")


def read_subtitles(path: Path) -> tuple[Word, ...]:
    """Words of a subtitle file; within a cue they share its time by their length.

    What stands in square brackets or between notes of music is no speech and is left out.

    Raises:
        UserError: the file cannot be read, is no subtitle file, or has no word.
    """
    try:
        import pysubs2
    except ImportError:
        raise UserError(
            f"subtitles ({path.name}) need the package pysubs2: pip install 'tecafn[video]'"
        ) from None
    text = read_text(path)
    try:
        cues = pysubs2.SSAFile.from_string(text, format_=_format_of(path, text))
    except (pysubs2.Pysubs2Error, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path} is no subtitle file that can be read: {_line(error)}") from None
    words: list[Word] = []
    for cue in sorted(cues, key=lambda one: (one.start, one.end)):
        spoken = _NO_SPEECH.sub(" ", "" if cue.is_comment else cue.plaintext).split()
        spoken = [word for word in spoken if any(letter.isalnum() for letter in word)]
        begin, end = cue.start / 1000, max(cue.end, cue.start) / 1000
        words += with_times([RoughWord(word) for word in spoken], start=begin, end=end)
    if not words:
        raise UserError(f"{path} has no cue with words")
    return tuple(words)


def _format_of(path: Path, text: str) -> str | None:
    """By the file's beginning where it says so; None lets pysubs2 look."""
    if text.lstrip("\ufeff").startswith("WEBVTT"):
        return "vtt"
    return {".srt": "srt", ".ass": "ass", ".ssa": "ssa"}.get(path.suffix.lower())


def read_timed(path: Path) -> list[RoughWord]:
    """Words of a JSON file: a list of words, or segments that have lists of words.

    A word is ``{"word": "fine", "start": 1.2, "end": 1.5}``; ``text``, ``start_time``, ``end_time``
    and ``probability`` and other common names are known. Numbers and symbols often come without
    times and are interpolated later. Of a segment without words, those of its text share its time.

    Raises:
        UserError: the file cannot be read, is no JSON, or has another layout.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {_line(error)}") from None
    words = list(_words_in(content, path))
    if not words:
        raise UserError(
            f"{path} must have words, such as "
            '[{"word": "fine", "start": 1.2, "end": 1.5}, ...], found none'
        )
    return words


def _words_in(content: Any, path: Path) -> Iterator[RoughWord]:
    if isinstance(content, Mapping):
        lists = [content[key] for key in ("words", "word_segments", "segments") if key in content]
        if not lists:
            raise UserError(f"{path} must have 'words' or 'segments', got {_names(content)}")
        # Some writers give both; the words of the segments are the same ones.
        yield from _words_in(lists[0], path)
        return
    if not isinstance(content, list):
        raise UserError(f"{path} must hold a list of words, got {type(content).__name__}")
    for number, item in enumerate(content, start=1):
        if not isinstance(item, Mapping):
            raise UserError(f"{path}: entry {number} must be an object, got {type(item).__name__}")
        if isinstance(item.get("words"), list) and item["words"]:
            yield from _words_in(item["words"], path)
        else:
            yield from _words_of(item, f"{path}: entry {number}")


def _words_of(item: Mapping[str, Any], what: str) -> Iterator[RoughWord]:
    text = next((item[key] for key in _WORD_KEYS if isinstance(item.get(key), str)), None)
    if text is None:
        raise UserError(f"{what} must have a text, 'word' or 'text', got {_names(item)}")
    start, end = (_seconds(item, keys, what) for keys in (_START_KEYS, _END_KEYS))
    if start is not None and end is not None and end < start:
        raise UserError(f"{what} ends at {end} s, before it starts at {start} s")
    spoken = text.split()
    if len(spoken) == 1:
        confidence = _seconds(item, _CONFIDENCE_KEYS, what)
        yield RoughWord(spoken[0], start, end, confidence)
    elif start is None or end is None:
        yield from (RoughWord(word) for word in spoken)
    else:
        for word in with_times([RoughWord(word) for word in spoken], start=start, end=end):
            yield RoughWord(word.text, word.start, word.end)


def _seconds(item: Mapping[str, Any], keys: Sequence[str], what: str) -> float | None:
    for key in keys:
        value = item.get(key)
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise UserError(f"{what}: {key} must be a number of seconds, got {value!r}")
        return float(value)
    return None


def read_plain(path: Path) -> list[RoughWord]:
    """Words of a text file, without times.

    Raises:
        UserError: the file cannot be read or has no word.
    """
    words = [RoughWord(word) for word in read_text(path).split()]
    if not words:
        raise UserError(f"{path} has no word")
    return words


def read_text(path: Path) -> str:
    """A text file in UTF-8, UTF-16 with its mark, or else Windows' Western encoding.

    Raises:
        UserError: it cannot be read, is no text, or has more than 64 MB.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path} is larger than 64 MB: it is no transcript")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content:
        raise UserError(f"{path} is no text: it holds bytes of zero")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _names(content: Mapping[str, Any]) -> str:
    return ", ".join(repr(str(name))[:30] for name in list(content)[:6]) or "nothing"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]
