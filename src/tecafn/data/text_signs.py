"""What tools leave in a sentence, or put in its place: lists of words, entities, file names.

None of it is what was said, and a text encoder reads it as if it were. Lists and entities have one
reading and are undone; the rest is recognised, so that it can be said.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from typing import Final

_WORD = r"""(?:b|u|np\.str_\()?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\)?"""
# As Python, NumPy and JSON write it: ['so', 'good'], ['so' 'good'], ["so", "good"].
_WORD_LIST: Final = re.compile(rf"[\[(]\s*{_WORD}(?:\s*,\s*{_WORD}|\s+{_WORD})*\s*,?\s*[\])]")
_WORDS: Final = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_IN_WORD: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_SHORT: Final = {"n": "\n", "t": "\t", "r": "\r"}
_ENTITY: Final = re.compile(r"&(?:#\d{2,7}|#[xX][0-9a-fA-F]{2,6}|[a-zA-Z]{2,8}\d?);")
_LONGEST_LIST: Final = 100_000

_TOKENS: Final = re.compile(r"(?:^|\s)##\w|\[(?:CLS|SEP|PAD|UNK|MASK)\]|\u2581|\u0120\w")
_FILE: Final = re.compile(
    r"(?:.*[/\\])?[^/\\]+\.(?:mp4|avi|mov|mkv|webm|wav|flac|mp3|ogg|m4a|txt|csv|json|srt|vtt"
    r"|npy|npz|pkl|annotprocessed|textonly)",
    re.IGNORECASE,
)
_TIME_CODE: Final = re.compile(r"\b\d{1,2}:\d{2}(?::\d{2})?[.,]\d{2,3}\b|-->")
_MARKUP: Final = re.compile(r"</?(?:p|br|b|i|u|em|strong|div|span|font|s|v|c)\b[^<>]*>", re.I)
_ESCAPES: Final = re.compile(r"""\\(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[nrt'"])""")
_OBJECT: Final = re.compile(r"""\{\s*['"]\w+['"]\s*:.*\}""", re.DOTALL)
_RUN_ON: Final = re.compile(r"[A-Za-z0-9_+,.'!?-]{25,}")
# Nearly every text has none of the first, and the second: then it holds no sign.
_SUSPECT: Final = re.compile(r"[#\[(<>&\\%{}]|\d:\d|\.\w{3,}\Z")
_TWO_WORDS: Final = re.compile(r"[A-Za-z]\S* ")
_LABELS: Final = frozenset(("positive", "negative", "neutral", "pos", "neg", "neu"))


def without_entities(text: str) -> str:
    r"""The text with its characters in place of HTML's names for them, twice escaped ones too.

    Example:
        >>> without_entities("don&#39;t &amp;quot;say&amp;quot; R&D; so")
        'don\'t "say" R&D; so'
    """
    for _ in range(2):
        if not _ENTITY.search(text):
            break
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    return text


def listed_words(text: str) -> list[str] | None:
    r"""The words of a list that was written as text; None where it is no such list.

    Example:
        >>> listed_words("['so', \"isn't\"]"), listed_words("[laughs] so good")
        (['so', "isn't"], None)
    """
    plain = text.strip()
    if plain[:1] not in "[(" or len(plain) > _LONGEST_LIST or not _WORD_LIST.fullmatch(plain):
        return None
    return [_IN_WORD.sub(_escaped, one or other) for one, other in _WORDS.findall(plain)]


def _escaped(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    return chr(int(code, 16)) if code else _SHORT.get(match[3], match[3])


def sign_of(text: str) -> str | None:
    r"""What a text holds that nobody says, as the end of a sentence; None where it is a sentence.

    Example:
        >>> sign_of("play ##ing"), sign_of("Raw/a/1.mp4"), sign_of("it was 10/10")
        ("a tokenizer's marks (##, [CLS])", 'the name of a file', None)
    """
    plain = text.strip()
    if plain.isascii() and _TWO_WORDS.search(plain) and not _SUSPECT.search(plain):
        return None
    for what, shows in _SIGNS.items():
        if shows(plain):
            return what
    return None


def _is_misread(text: str) -> bool:
    """Is it UTF-8 that was read as Windows' encoding of one byte per letter?"""
    if text.isascii():
        return False
    try:
        raw = b"".join(_windows_byte(character) for character in text)
        return str(raw, "utf-8") != text
    except UnicodeError:
        return False


def _windows_byte(character: str) -> bytes:
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")  # what cp1252 leaves undefined


_SIGNS: Final[Mapping[str, Callable[[str], object]]] = {
    "a tokenizer's marks (##, [CLS])": _TOKENS.search,
    "the name of a file": _FILE.fullmatch,
    "time codes of subtitles": _TIME_CODE.search,
    "numbers alone": lambda text: (
        any(c.isdigit() for c in text) and not any(c.isalpha() for c in text)
    ),
    "JSON": _OBJECT.fullmatch,
    "a list of words": listed_words,
    "markup (<br>)": _MARKUP.search,
    "escapes (\\n, \\u2019)": _ESCAPES.search,
    "%20 in place of blanks": re.compile(r"\w%20\w").search,
    "words without blanks between them": _RUN_ON.fullmatch,
    "UTF-8 that was read in another encoding": _is_misread,
    "entities of HTML": lambda text: without_entities(text) != text,
    "nothing but a label": lambda text: text.casefold() in _LABELS,
}
