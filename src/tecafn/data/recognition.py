"""Words put in place of others, as a speech recogniser mistakes one word for another.

A word is replaced by one that sounds alike (the same Soundex code) among those of the training
split's texts, the frequent ones more often; a word that nothing sounds like is replaced by any.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# Chinese, Japanese and Korean are written without spaces: there a character is a word.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:['\u2019][^\W_{_CJK}]+)*")
_DIGITS = dict.fromkeys("bfpv", "1") | dict.fromkeys("cgjkqsxz", "2") | dict.fromkeys("dt", "3")
_DIGITS |= {"l": "4"} | dict.fromkeys("mn", "5") | {"r": "6"}


@dataclass(frozen=True)
class ChangedText:
    """A text with words put in place of others.

    Args:
        text: as it is now.
        before: where each of its words began and ended in the text as it was.
        after: where they begin and end now.
    """

    text: str
    before: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]


def soundex(word: str) -> str:
    """How a word sounds: its first letter and up to three digits for the consonants after it.

    Another alphabet than the Latin one has no such code: the word itself then.

    Example:
        >>> soundex("Robert"), soundex("rupert"), soundex("Tymczak"), soundex("Pfister")
        ('r163', 'r163', 't522', 'p236')

    Source: R. C. Russell 1918, US patent 1261167; as in Knuth, The Art of Computer Programming,
    vol. 3, ch. 6.
    """
    letters = [c for c in word.casefold() if c.isalpha()]
    if not letters or not all(c.isascii() for c in letters):
        return word.casefold()
    code, last = letters[0], _DIGITS.get(letters[0], "")
    for letter in letters[1:]:
        digit = _DIGITS.get(letter, "")
        if digit and digit != last:
            code += digit
        if letter not in "hw":  # these two do not part letters that sound alike
            last = digit
    return code[:4].ljust(4, "0")


class _Words:
    """Words that are drawn as often as they were counted."""

    def __init__(self, counts: Counter[str]) -> None:
        self._words = sorted(counts)
        self._steps = np.cumsum([counts[word] for word in self._words])

    def draw(self, uniform: float, *, but: str) -> str | None:
        """The word at this share of all that were counted; None where there is none but ``but``."""
        if self._words in ([], [but]):
            return None
        total = int(self._steps[-1])
        place = int(np.searchsorted(self._steps, uniform * total, side="right"))
        if self._words[place] == but:
            place = (place + 1) % len(self._words)
        return self._words[place]


class MistakenWords:
    """What each word may be mistaken for.

    Args:
        texts: where words are taken from: those of the training split.

    Example:
        >>> words = MistakenWords(["a good film", "a god of gold"])
        >>> changed = words.replace("Good!", rate=1.0, random=np.random.default_rng(0))
        >>> changed.text, changed.before, changed.after
        ('god!', ((0, 4),), ((0, 3),))
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = Counter(word.casefold() for text in texts for word in _WORD.findall(text))
        alike: dict[str, Counter[str]] = defaultdict(Counter)
        for word, count in counts.items():
            alike[soundex(word)][word] = count
        self._all = _Words(counts)
        self._alike = {code: _Words(own) for code, own in alike.items()}

    def replace(
        self, text: str, *, rate: float, random: Generator, alike: bool = True
    ) -> ChangedText:
        """Replace each word with probability ``rate``; what is replaced at a rate is at a higher.

        Args:
            text: any.
            rate: in [0, 1].
            random: two numbers of each word are drawn from it, at any rate.
            alike: by one that sounds alike, where there is one; else by any.
        """
        matches = list(_WORD.finditer(text))
        uniform: NDArray[np.float64] = random.random((len(matches), 2))
        parts: list[str] = []
        before, after, done, length = [], [], 0, 0
        for match, (is_due, which) in zip(matches, uniform.tolist(), strict=True):
            word = match[0]
            if is_due < rate:
                word = self._other(word.casefold(), which, alike=alike) or word
            kept = text[done : match.start()]
            before.append(match.span())
            after.append((length + len(kept), length + len(kept) + len(word)))
            parts += [kept, word]
            done, length = match.end(), after[-1][1]
        return ChangedText("".join(parts) + text[done:], tuple(before), tuple(after))

    def _other(self, word: str, uniform: float, *, alike: bool) -> str | None:
        own = self._alike.get(soundex(word)) if alike else None
        found = None if own is None else own.draw(uniform, but=word)
        return found or self._all.draw(uniform, but=word)
