"""Texts that are no sentences: what tools write where there is none, what an encoding destroyed.

A column of ``nan`` is what pandas makes of an empty one; a column of ``?????`` is what a
spreadsheet's "ANSI" leaves of Chinese. One such text says little ("None." is an answer), so it is
decided over all texts of a source.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from tecafn.core.errors import UserError
from tecafn.core.text import is_blank
from tecafn.data.shares import more_than_a_few
from tecafn.data.text_signs import listed_words, sign_of, without_entities

# In lower case and without brackets.
_PLACEHOLDERS: Final = frozenset(
    ("nan", "-nan", "nat", "none", "null", "nil", "na", "n/a", "undefined", "missing", "empty",
     "unk", "unknown", "pad")
)  # fmt: skip
# What repr() makes of bytes.
_AS_BYTES: Final = re.compile(r"""b(['"])((?:[^\\]|\\.)*)\1""", re.DOTALL)
_ESCAPE: Final = re.compile(rb"""\\(x[0-9a-f]{2}|[\\'"tnr])""")
_SHORT: Final = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}
_LOST: Final = ("?", "\ufffd")
_NEARLY_ALL: Final = 0.9
_ENOUGH_TEXTS: Final = 10
_COMPARED: Final = 1000  # characters


class TextSurvey:
    r"""Counts over a source's texts, and mends each of them by what was found over all.

    Example:
        >>> survey = TextSurvey(["nan"] * 19 + ["so good"])
        >>> survey.mend("nan"), survey.mend("so good")
        ('', 'so good')
        >>> survey.warnings()
        ("text is 'nan' in 19 of 20 samples that have any, which is read as no sentence",)
        >>> TextSurvey(["b'so good'"]).mend("b'so good'")
        'so good'
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._num_texts = 0
        self._num_bytes = 0
        self._num_destroyed = 0
        self._first_destroyed = ""
        self._placeholders: Counter[str] = Counter()
        self._num_lists = self._num_entities = 0
        self._signs: Counter[str] = Counter()
        self._first_with: dict[str, str] = {}
        self._same: Counter[str] = Counter()
        for text in texts:
            self.add(text)

    def add(self, text: str, *, where: str = "") -> None:
        """Count one text; ``where`` names it in errors."""
        if is_blank(text):
            return
        self._num_texts += 1
        self._num_bytes += _AS_BYTES.fullmatch(text.strip()) is not None
        if (placeholder := _placeholder(_without_bytes_mark(text))) is not None:
            self._placeholders[placeholder] += 1
        self._num_lists += listed_words(text) is not None
        self._num_entities += without_entities(text) != text
        if (sign := sign_of(text)) is not None:
            self._signs[sign] += 1
            self._first_with.setdefault(sign, f"{where} has {_shortened(text)}")
        self._same[" ".join(text[:_COMPARED].split()).casefold()] += 1
        if _is_destroyed(text):
            self._num_destroyed += 1
            self._first_destroyed = self._first_destroyed or f"{where} has {text.strip()[:20]!r}"

    @property
    def _placeholder(self) -> tuple[str, int] | None:
        """The one that nearly all texts are, and how many."""
        for placeholder, count in self._placeholders.most_common(1):
            if count >= max(_ENOUGH_TEXTS, _NEARLY_ALL * self._num_texts):
                return placeholder, count
        return None

    @property
    def _are_bytes(self) -> bool:
        return self._num_bytes > 0 and self._num_bytes >= _NEARLY_ALL * self._num_texts

    @property
    def _have_entities(self) -> bool:
        return more_than_a_few(self._num_entities, self._num_texts)

    @property
    def _are_lists(self) -> bool:
        return self._num_lists > 0 and self._num_lists >= _NEARLY_ALL * self._num_texts

    def mend(self, text: str) -> str:
        """The text as it was said: without what tools made of it, and without what is no sentence.

        A bytes' mark is undone, a list of words joined, and entities of HTML are characters again
        where more than a few texts have any.
        """
        if self._are_bytes:
            text = _without_bytes_mark(text)
        if self._are_lists and (words := listed_words(text)) is not None:
            text = " ".join(words)
        if self._have_entities:
            text = without_entities(text)
        found = self._placeholder
        return "" if found is not None and _placeholder(text) == found[0] else text

    def notes(self) -> tuple[str, ...]:
        """What was mended."""
        mended = {
            "bytes written as text (b'...'), which is undone": self._num_bytes * self._are_bytes,
            "lists of words written as text (['so', 'good']), which are joined": (
                self._num_lists * self._are_lists
            ),
        }
        said = [
            f"{count} of {self._num_texts} texts were {what}"
            for what, count in mended.items()
            if count
        ]
        if self._num_entities:
            done = "are characters again" if self._have_entities else "are kept as they are"
            said.append(
                f"{self._num_entities} of {self._num_texts} texts had entities of HTML (&amp;), "
                f"which {done}"
            )
        return tuple(said)

    def warnings(self) -> tuple[str, ...]:
        """What is read as no sentence."""
        if self._placeholder is None:
            return ()
        placeholder, count = self._placeholder
        return (
            f"text is {placeholder!r} in {count} of {self._num_texts} samples that have any, which "
            "is read as no sentence",
        )

    def fault(self) -> str | None:
        """What is wrong with texts that cannot be mended; None where nothing is."""
        if self._num_destroyed >= max(_ENOUGH_TEXTS, _NEARLY_ALL * self._num_texts):
            return (
                f"text is destroyed in {self._num_destroyed} of {self._num_texts} samples: "
                f"{self._first_destroyed}, where an encoding without its characters was written; "
                "save it again as UTF-8, or empty it to import no text"
            )
        if self._placeholder is not None:
            placeholder, count = self._placeholder
            return (
                f"text is {placeholder!r} in {count} of {self._num_texts} samples, which is no "
                "sentence: empty it to import no text"
            )
        return None

    def doubts(self) -> tuple[str, ...]:
        """Texts that look as if they were none, too few to be read so and more than a few."""
        if self.fault() is not None:
            return ()
        total = self._num_texts
        said = [
            f"text is {placeholder!r} in {count} of {total} samples, and is kept as a sentence"
            for placeholder, count in self._placeholders.items()
            if more_than_a_few(count, total)
        ]
        if more_than_a_few(self._num_destroyed, total):
            said.append(
                f"text is destroyed in {self._num_destroyed} of {total} samples: "
                f"{self._first_destroyed}"
            )
        said += [
            f"text holds {sign} in {count} of {total} samples, and is kept as it is: "
            f"{self._first_with[sign]}"
            for sign, count in self._signs.items()
            if more_than_a_few(count, total)
        ]
        for text, count in self._same.most_common(1):
            if count >= max(_ENOUGH_TEXTS, _NEARLY_ALL * total):
                said.append(f"text is the same in {count} of {total} samples: {_shortened(text)}")
        return tuple(said)

    def check(self) -> None:
        """Refuse texts that cannot be mended.

        Raises:
            UserError: nearly all texts are destroyed, or one and the same placeholder.
        """
        if (fault := self.fault()) is not None:
            raise UserError(fault)


def _shortened(text: str) -> str:
    return repr(" ".join(text.split())[:40])


def _placeholder(text: str) -> str | None:
    """The text in lower case where it is a tool's word for none, or holds no letter or digit."""
    plain = text.strip().casefold()
    if plain.strip("<>[](){}") in _PLACEHOLDERS:
        return plain
    is_mute = not any(c.isalnum() for c in plain) and not any(c in plain for c in _LOST)
    return plain if plain and is_mute else None


def _is_destroyed(text: str) -> bool:
    """Is it, but for figures and punctuation, made of what stands for lost characters?"""
    plain = "".join(text.split())
    num_lost = sum(plain.count(mark) for mark in _LOST)
    if "\ufffd" not in plain and num_lost < 2:
        return False
    return 2 * num_lost >= len(plain) and not any(c.isalpha() for c in plain)


def _without_bytes_mark(text: str) -> str:
    """``b'so good'`` as ``so good``; any other text as it is."""
    match = _AS_BYTES.fullmatch(text.strip())
    if match is None:
        return text
    try:
        return str(_ESCAPE.sub(_unescaped, match[2].encode("ascii")), "utf-8")
    except UnicodeError:
        return text


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    return bytes((int(code[1:], 16),)) if len(code) == 3 else _SHORT.get(code, code)
