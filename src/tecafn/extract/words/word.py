"""Words with their times, and the utterances they make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Word:
    """One word as it is written, and when it is spoken.

    Args:
        text: with its punctuation.
        start, end: seconds on the clip's clock.
        confidence: 0 to 1, of the recogniser; None where nobody says.
        interpolated: were the times made up from the neighbours', for want of better ones?
    """

    text: str
    start: float
    end: float
    confidence: float | None = None
    interpolated: bool = False


@dataclass(frozen=True)
class Utterance:
    """Words that belong together.

    Args:
        words: at least one.
    """

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """The words with spaces between them."""
        return " ".join(word.text for word in self.words)

    @property
    def start(self) -> float:
        """Seconds at which the first word begins."""
        return self.words[0].start

    @property
    def end(self) -> float:
        """Seconds at which the last word ends."""
        return max(word.end for word in self.words)


@dataclass(frozen=True)
class RoughWord:
    """A word whose times may be unknown."""

    text: str
    start: float | None = None
    end: float | None = None
    confidence: float | None = None


def with_times(words: Sequence[RoughWord], *, start: float, end: float) -> tuple[Word, ...]:
    """The words, each with times; unknown ones share the gap between known ones by their length.

    Times that run backwards or lie outside ``start`` to ``end`` are moved inside and count as
    interpolated.

    Args:
        words: in the order in which they are spoken.
        start: seconds after which the words lie.
        end: seconds before which they lie.

    Example:
        >>> for word in with_times([RoughWord("It", 1.0, 1.2), RoughWord("cost"),
        ...                         RoughWord("$5", None, None)], start=0.0, end=2.4):
        ...     print(word.text, round(word.start, 2), round(word.end, 2), word.interpolated)
        It 1.0 1.2 False
        cost 1.2 2.0 True
        $5 2.0 2.4 True
    """
    result: list[Word] = []
    waiting: list[RoughWord] = []
    last = start
    for word in words:
        if word.start is None or word.end is None:
            waiting.append(word)
            continue
        begins = min(max(word.start, last), end)
        ends = min(max(word.end, begins), end)
        moved = abs(begins - word.start) > 1e-6 or abs(ends - word.end) > 1e-6
        result += _shared(waiting, last, begins)
        result.append(Word(word.text, begins, ends, word.confidence, moved))
        waiting, last = [], ends
    return (*result, *_shared(waiting, last, max(end, last)))


def _shared(words: Sequence[RoughWord], start: float, end: float) -> list[Word]:
    """Words one after the other, each as long as its share of the letters."""
    total = sum(len(word.text) for word in words)
    result, place = [], start
    for word in words:
        after = place + (end - start) * len(word.text) / max(total, 1)
        result.append(Word(word.text, place, after, word.confidence, interpolated=True))
        place = after
    return result


_SENTENCE_END = re.compile(r"[.?!\u2026\u3002\uff1f\uff01]+[\"')\]\u201d\u2019]*$")
_ABBREVIATION = re.compile(r"(?i)^[\"'(\[]*(?:mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|[a-z])\.$")
_CLAUSE_END = re.compile(r"[,;:]$")


def utterances(
    words: Iterable[Word], *, max_seconds: float = 15.0, pause_seconds: float = 0.8
) -> list[Utterance]:
    """Cut words into utterances: after a sentence, at a pause, and before one becomes too long.

    What is longer than ``max_seconds`` is cut at its longest pause, after a comma where pauses are
    equal, again and again. A single word is never cut.

    Args:
        words: in the order of their times.
        max_seconds: an utterance's greatest length, > 0.
        pause_seconds: silence between two words that ends an utterance, > 0.

    Example:
        >>> said = [Word("Good.", 0.0, 0.4), Word("Is", 0.5, 0.6), Word("it?", 0.6, 0.8),
        ...         Word("Dr.", 0.9, 1.0), Word("Who", 1.0, 1.3), Word("said", 2.5, 2.8)]
        >>> [one.text for one in utterances(said)]
        ['Good.', 'Is it?', 'Dr. Who', 'said']
    """
    if not max_seconds > 0 or not pause_seconds > 0:
        raise ValueError(
            f"max_seconds and pause_seconds must be > 0, got {max_seconds} and {pause_seconds}"
        )
    runs: list[list[Word]] = []
    before: Word | None = None
    for word in words:
        ends_here = before is None or (
            word.start - before.end >= pause_seconds or _ends_sentence(before.text)
        )
        if ends_here:
            runs.append([])
        runs[-1].append(word)
        before = word
    return [Utterance(tuple(part)) for run in runs for part in _no_longer_than(run, max_seconds)]


def _ends_sentence(text: str) -> bool:
    return bool(_SENTENCE_END.search(text)) and not _ABBREVIATION.match(text)


def _no_longer_than(run: list[Word], max_seconds: float) -> list[list[Word]]:
    """The run in parts that are short enough, where words allow it."""
    parts, left = [], [run]
    while left:
        part = left.pop()
        if len(part) == 1 or max(w.end for w in part) - part[0].start <= max_seconds:
            parts.append(part)
            continue
        cut = 1 + max(range(len(part) - 1), key=lambda k: _cut_worth(part, k))
        left += [part[cut:], part[:cut]]
    return parts


def _cut_worth(part: Sequence[Word], place: int) -> tuple[float, bool, int]:
    """How good it is to cut after a word: pause in tenths, a comma, nearness to the middle."""
    pause = round(max(part[place + 1].start - part[place].end, 0.0), 1)
    return pause, bool(_CLAUSE_END.search(part[place].text)), -abs(2 * place + 2 - len(part))


def moved(words: Iterable[Word], seconds: float) -> tuple[Word, ...]:
    """The same words so many seconds later."""
    return tuple(replace(w, start=w.start + seconds, end=w.end + seconds) for w in words)
