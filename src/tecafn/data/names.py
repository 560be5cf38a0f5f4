"""Names of videos, clips and samples as text, without what tools and hands leave around them."""

from __future__ import annotations

import ntpath
import re
import unicodedata
from collections.abc import Callable
from typing import Final

SEPARATOR: Final = "$_$"
# Before the separator or at the end.
_MEDIA = re.compile(
    r"(?<=.)\.(mp4|avi|mov|mkv|webm|m4v|wav|flac|mp3|ogg|m4a)(?=\Z|\$_\$|\[\d+\]\Z|_\d+\Z)",
    re.IGNORECASE,
)
_UNMARKED = re.compile(r"[\w.$-]+(?:\[\d+\])?", re.ASCII)  # Nothing to do: nearly every name.
_AS_BYTES = re.compile(r"""b(['"])(.*)\1""", re.DOTALL)
# A list of one as Python writes it, ['a_1'] or ('a_1',), and NumPy's np.str_('a_1').
_AS_LIST = re.compile(
    r"""(?:\[|\(|(?:np\.|numpy\.)?(?:str|bytes)_\()\s*(b?(['"])(?:(?!\2).)+\2)\s*,?\s*[\])]"""
    r"""|\[\s*([^\[\]'",]+)\s*,?\s*\]""",
    re.DOTALL,
)
_AS_LONG_LIST = re.compile(r"""[\[(]\s*b?['"].*[\])]""", re.DOTALL)
_IN_QUOTES = re.compile(
    r"""(['"`])((?:(?!\1).)+)\1"""
    r"""|[\u2018\u201c\u201e]([^\u2018-\u201f]+)[\u2018\u2019\u201c\u201d]""",
    re.DOTALL,
)
# How a spreadsheet keeps -3g5 from being a formula: '-3g5 or ="-3g5".
_AS_SHEET_TEXT = re.compile(r"""=\s*"([^"]+)"|'([^']+)""", re.DOTALL)
_LOOSE = re.compile(r"\s+(?=(?:_\s*\d+|\[\d+\])\Z)|(?<=_)\s+(?=\d+\Z)")
# Shown as nothing or as a blank, though Unicode calls them letters, marks or symbols.
_FILLERS = re.compile("[\u034f\u115f\u1160\u2800\u3164\ufe00-\ufe0f\uffa0]")


def without_marks(text: str) -> tuple[str, list[str]]:
    """A name without what tools leave around it, and which of ``MARKS`` it had.

    Example:
        >>> without_marks("b'a_1'")
        ('a_1', ["were bytes written as text (b'...'), which is undone"])
        >>> without_marks(" ['a_1']")[0], without_marks("-3g5_yA"), without_marks("'-3g5 $_$ 1")[0]
        ('a_1', ('-3g5_yA', []), '-3g5$_$1')
    """
    if _UNMARKED.fullmatch(text):
        return text, []
    found: dict[str, None] = {}
    before = None
    while text != before:
        before = text
        for what, change in MARKS.items():
            changed = change(text)
            if changed != text:
                found[what] = None
                text = changed
    if SEPARATOR in text:
        parts = [without_marks(part) for part in text.split(SEPARATOR)]
        text = SEPARATOR.join(part for part, _ in parts)
        found |= dict.fromkeys(what for _, marks in parts for what in marks)
    return text, list(found)


def has_control(text: str) -> bool:
    """Does a name hold a character that is a command to a terminal, such as NUL?"""
    return not text.isprintable() and any(
        unicodedata.category(character) == "Cc" for character in text
    )


def is_list(text: str) -> bool:
    """Is it a list of several, written as text?

    Example:
        >>> is_list("['a_1', '0.5', '2.5']"), is_list("(a)_(1)")
        (True, False)
    """
    return _AS_LONG_LIST.fullmatch(text) is not None


def without_ending(text: str) -> str:
    """A name without the ending of a media file, which may be before its clip.

    Example:
        >>> without_ending("a.mp4_1"), without_ending("a_1.WAV")
        ('a_1', 'a_1')
    """
    return _MEDIA.sub("", text)


def without_video(video: str, clip: str) -> str:
    """A clip without the video that it begins with.

    Example:
        >>> without_video("a_b", "a_b_1"), without_video("a_b", "a_b$_$1"), without_video("a", "ab")
        ('1', '1', 'ab')
    """
    for separator in (SEPARATOR, "_"):
        if clip.startswith(f"{video}{separator}") and clip != f"{video}{separator}":
            return clip[len(video) + len(separator) :]
    return clip


def is_path(text: str) -> bool:
    """Does a name have folders?"""
    return "/" in text or "\\" in text


def file_name(text: str) -> str:
    """The name of a path's file, without the ending of a media file; what is no path stays."""
    return without_ending(ntpath.basename(text.rstrip("/\\"))) if is_path(text) else text


def as_seen(text: str) -> str:
    """A name without what a reader may miss: case, blanks, invisible characters, composition.

    Example:
        >>> as_seen("A\u200bb c\u0301") == as_seen("ab \u0107")
        True
    """
    return "".join(unicodedata.normalize("NFKC", _visible(text)).casefold().split())


def _visible(text: str) -> str:
    """The text without characters that nobody sees; blanks of any kind are plain ones."""
    if text.isascii() and text.isprintable():
        return text
    plain = "".join(
        " " if character.isspace() else character
        for character in _FILLERS.sub("", text)
        if unicodedata.category(character) != "Cf"
    )
    # Fields of fixed width end in NUL; within a name it stands for something that is lost.
    while plain and has_control(plain[0] + plain[-1]):
        plain = plain[1:] if has_control(plain[0]) else plain[:-1]
    return plain


def _without_bytes_mark(text: str) -> str:
    match = _AS_BYTES.fullmatch(text)
    return match[2] if match else text


def _without_list_mark(text: str) -> str:
    match = _AS_LIST.fullmatch(text)
    return match[1] or match[3] if match else text


def _without_quotes(text: str) -> str:
    match = _IN_QUOTES.fullmatch(text)
    return match[2] or match[3] if match else text


def _without_sheet_mark(text: str) -> str:
    match = _AS_SHEET_TEXT.fullmatch(text)
    return match[1] or match[2] if match else text


def _without_loose_blanks(text: str) -> str:
    return _LOOSE.sub("", text)


# What tools leave around names, as the end of a sentence, and how it is undone.
MARKS: Final[dict[str, Callable[[str], str]]] = {
    "had blanks around them, which are gone": str.strip,
    "had invisible characters (a zero width space, NUL), which are gone": _visible,
    "had blanks before the clip, which are gone": _without_loose_blanks,
    "were bytes written as text (b'...'), which is undone": _without_bytes_mark,
    "were lists of one written as text (['...']), which is undone": _without_list_mark,
    "had quotes around them, which are gone": _without_quotes,
    "had a spreadsheet's mark of text ('... or =\"...\"), which is gone": _without_sheet_mark,
}
