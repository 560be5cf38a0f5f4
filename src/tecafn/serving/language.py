"""In which language words are, so that no score is given for one that a model never read."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any, Final

from tecafn.core.errors import UserError

# A language is told from so many characters on; fewer are told together with what is around them.
_LEAST_CHARACTERS: Final = 80
_LEAST_PROBABILITY: Final = 0.9

OF_DATASET: Final = {
    "cmu-mosi": ("en",),
    "cmu-mosei": ("en",),
    "ur-funny": ("en",),
    "ravdess": ("en",),
    "ch-sims": ("zh",),
    "ch-sims-v2": ("zh",),
}
"""Languages (ISO 639-1) of datasets; of others nothing is known."""

# The first word of the Unicode names of their letters.
_SCRIPT_OF: Final = {"en": "LATIN", "zh": "CJK"}


def languages_of(dataset: str) -> tuple[str, ...]:
    """Of a dataset by its name; empty where nothing is known.

    Example:
        >>> languages_of("cmu-mosi"), languages_of("own-clips")
        (('en',), ())
    """
    parts = [OF_DATASET.get(name.strip(), ()) for name in dataset.replace("+", ",").split(",")]
    return tuple(sorted({code for part in parts for code in part})) if all(parts) else ()


def foreign(texts: Sequence[str], known: Sequence[str]) -> list[str]:
    """The language of each text that is none of ``known``; empty where it is, or is unclear.

    A short text is read together with its neighbours, so that "No." is not Italian.

    Args:
        texts: utterances in their order.
        known: ISO 639-1; none = everything is.

    Raises:
        UserError: py3langid is not installed.
    """
    if not known:
        return [""] * len(texts)
    return [_foreign_at(texts, number, known) for number in range(len(texts))]


def _foreign_at(texts: Sequence[str], number: int, known: Sequence[str]) -> str:
    language, probability = _language_of(texts[number])
    if language in known and probability >= _LEAST_PROBABILITY:
        return ""  # clear by itself, whatever stands around it
    return _foreign(_with_neighbours(texts, number), known)


def _with_neighbours(texts: Sequence[str], number: int) -> str:
    first = last = number
    size = len(texts[number])
    while size < _LEAST_CHARACTERS and (first > 0 or last < len(texts) - 1):
        if first > 0:
            first -= 1
            size += len(texts[first])
        if last < len(texts) - 1:
            last += 1
            size += len(texts[last])
    return " ".join(texts[first : last + 1])


@functools.lru_cache(maxsize=4096)
def _language_of(text: str) -> tuple[str, float]:
    language, probability = _identifier().classify(text)
    return str(language), float(probability)


def _foreign(text: str, known: Sequence[str]) -> str:
    if not any(letter.isalpha() for letter in text):
        return ""
    language, probability = _language_of(text)
    if language in known:
        return ""
    return language if probability >= _LEAST_PROBABILITY or _is_other_script(text, known) else ""


def _is_other_script(text: str, known: Sequence[str]) -> bool:
    """Are most letters of a script that no known language is written in?"""
    scripts = {_SCRIPT_OF.get(code, "") for code in known}
    if "" in scripts:
        return False
    letters = [unicodedata.name(letter, "").split(" ")[0] for letter in text if letter.isalpha()]
    return sum(name in scripts for name in letters) < len(letters) / 2


@functools.lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise UserError(
            "the language of the words cannot be told: pip install 'tecafn[video]' brings py3langid"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
