"""Word times made better: forced alignment where pocketsphinx is, else the voice's energy."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from tecafn.extract.media import Audio
from tecafn.extract.voice.signal import RATE_HZ, Samples
from tecafn.extract.words.activity import active_frames, snapped
from tecafn.extract.words.word import RoughWord, Word

_GROUP_SECONDS = 20.0
_MARGIN_SECONDS = 0.5
_FRAMES_PER_SECOND = 100
# Whisper is off by a second at most; what an aligner moves further it has misunderstood.
_LARGEST_MOVE_SECONDS = 1.5
_LEAST_KNOWN_SHARE = 0.6
_LETTERS = {
    "a": "AE",
    "b": "B",
    "c": "K",
    "d": "D",
    "e": "EH",
    "f": "F",
    "g": "G",
    "h": "HH",
    "i": "IH",
    "j": "JH",
    "k": "K",
    "l": "L",
    "m": "M",
    "n": "N",
    "o": "AA",
    "p": "P",
    "q": "K",
    "r": "R",
    "s": "S",
    "t": "T",
    "u": "AH",
    "v": "V",
    "w": "W",
    "x": "K S",
    "y": "Y",
    "z": "Z",
}
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def can_align() -> bool:
    """Is pocketsphinx installed? It has no wheel for Python 3.14."""
    return importlib.util.find_spec("pocketsphinx") is not None


def refined(
    words: Sequence[Word],
    audio: Audio,
    *,
    forced: bool | None = None,
    tell: Callable[[float], None] | None = None,
) -> tuple[Word, ...]:
    """The words with starts and ends where the voice has them.

    Times are first cut to where the voice's energy is. Forced alignment then places the words of
    up to 20 s at a time; a word that it moves by more than 1.5 s keeps its time, unless that was
    interpolated anyway. A group most of whose words the aligner's English dictionary does not know
    is left as it is.

    Args:
        words: in the order of their times.
        audio: at 16 kHz.
        forced: align by pocketsphinx? None = if it is installed.
        tell: told the seconds that are done.
    """
    align = can_align() if forced is None else forced
    result: list[Word] = []
    for group in _groups(words):
        begin = max(group[0].start - _MARGIN_SECONDS, audio.start)
        end = min(group[-1].end + _MARGIN_SECONDS, audio.end)
        samples = audio.read(begin, end)
        if not len(samples):  # words beside the sound stay where somebody put them
            result += group
            continue
        if tell is not None:
            tell(end)
        active = active_frames(samples)
        better = snapped(group, active, start=begin)
        placed = _aligned([word.text for word in group], samples) if align else None
        if placed is None:
            result += better
            continue
        chosen = [
            _chosen(word, begin + first, begin + last)
            for word, (first, last) in zip(better, placed, strict=True)
        ]
        # Short pauses go to the words beside them.
        result += snapped(chosen, active, start=begin)
    return tuple(_ascending(result))


def _chosen(word: Word, start: float, end: float) -> Word:
    """The aligner's time, unless it is too far from one that somebody knew."""
    if not word.interpolated and abs(start - word.start) > _LARGEST_MOVE_SECONDS:
        return word
    return replace(word, start=start, end=end, interpolated=False)


def _ascending(words: Sequence[Word]) -> Iterator[Word]:
    last = -float("inf")
    for word in words:
        start = max(word.start, last)
        end = max(word.end, start)
        yield (
            word if (start, end) == (word.start, word.end) else replace(word, start=start, end=end)
        )
        last = start


def _groups(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Runs of words of at most 20 s, cut at the longest pause of their second half."""
    left = list(words)
    while left:
        fits = [k for k, word in enumerate(left) if word.end - left[0].start <= _GROUP_SECONDS]
        count = (fits[-1] + 1) if fits else 1
        if count < len(left) and count > 1:
            half = range(max(count // 2, 1), count + 1)
            count = max(half, key=lambda k: (left[k].start - left[k - 1].end, k))
        yield left[:count]
        left = left[count:]


@functools.lru_cache(maxsize=1)
def _decoder() -> Any:
    """The English model of pocketsphinx, without a language model."""
    from pocketsphinx import Decoder

    return Decoder(lm=None, samprate=float(RATE_HZ), loglevel="FATAL")


def _aligned(texts: Sequence[str], samples: Samples) -> list[tuple[float, float]] | None:
    """Seconds at which each word begins and ends; None where no alignment was found."""
    decoder = _decoder()
    names = [_in_dictionary(decoder, text) for text in texts]
    known = sum(name is not None for name in names)
    if known < _LEAST_KNOWN_SHARE * len(texts):
        return None
    spoken = [
        _added(decoder, text) if name is None else name
        for name, text in zip(names, texts, strict=True)
    ]
    sound = np.clip(samples * 32_767, -32_768, 32_767).astype(np.int16).tobytes()
    try:
        decoder.set_align_text(" ".join(spoken))
        decoder.start_utt()
        decoder.process_raw(sound, full_utt=True)
        decoder.end_utt()
        segments = list(decoder.seg() or ())
    except (RuntimeError, ValueError, TypeError):
        return None
    found = [
        (re.sub(r"\(\d+\)$", "", one.word), one.start_frame, one.end_frame)
        for one in segments
        if not one.word.startswith(("<", "[", "(", "+"))
    ]
    if [name for name, _, _ in found] != spoken:
        return None
    return [(a / _FRAMES_PER_SECOND, (b + 1) / _FRAMES_PER_SECOND) for _, a, b in found]


def _in_dictionary(decoder: Any, text: str) -> str | None:
    name = plain(text)
    return name if name and decoder.lookup_word(name) is not None else None


def _added(decoder: Any, text: str) -> str:
    """A name for a word that the dictionary lacks, with the sounds of its letters and digits."""
    letters = plain(text) or "a"
    name = f"own{letters}"
    if decoder.lookup_word(name) is None:
        phones = " ".join(
            decoder.lookup_word(_DIGITS[int(letter)]) if letter.isdigit() else _LETTERS[letter]
            for letter in letters
            if letter in _LETTERS or letter in "0123456789"
        )
        decoder.add_word(name, phones or "AH", False)
    return name


def plain(text: str) -> str:
    """A word as dictionaries have it: lower case, letters, digits and apostrophes.

    Example:
        >>> plain("Don't,"), plain("$5!")
        ("don't", '5')
    """
    return re.sub(r"[^a-z0-9']", "", text.lower().replace("\u2019", "'")).strip("'")


def matched(given: Sequence[RoughWord], heard: Sequence[Word]) -> list[RoughWord]:
    """Given words with the times of the same words among those heard; others have none yet.

    Args:
        given: what was said, as somebody wrote it.
        heard: what a recogniser heard, with times.
    """
    ours, theirs = [plain(w.text) for w in given], [plain(w.text) for w in heard]
    result = list(given)
    for one in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        for k in range(one.size):
            word = heard[one.b + k]
            result[one.a + k] = RoughWord(
                given[one.a + k].text, word.start, word.end, word.confidence
            )
    return result


def spread(given: Sequence[RoughWord], audio: Audio) -> list[Word]:
    """Given words laid over the parts with a voice's energy, each as long as its letters' share."""
    active = active_frames(audio.samples)
    places = np.flatnonzero(active) if active.any() else np.arange(len(active))
    total = sum(len(word.text) for word in given)
    words, letters = [], 0
    for word in given:
        first = places[min(letters * len(places) // total, len(places) - 1)]
        letters += len(word.text)
        last = places[min(max(letters * len(places) // total - 1, 0), len(places) - 1)] + 1
        start, end = (audio.start + int(k) / _FRAMES_PER_SECOND for k in (first, last))
        words.append(Word(word.text, start, max(end, start), word.confidence, interpolated=True))
    return words
