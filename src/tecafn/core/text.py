"""Whether a text says anything, and whether it may be too long: one rule each."""

from __future__ import annotations

import unicodedata

# Control and format characters: zero-width spaces, byte-order marks, soft hyphens.
_UNSEEN = ("Cc", "Cf")


def is_blank(text: str) -> bool:
    r"""Has a text nothing that can be read? It is then absent, as an empty one is.

    Example:
        >>> is_blank(""), is_blank(" \u200b\ufeff"), is_blank("no")
        (True, True, False)
    """
    return all(char.isspace() or unicodedata.category(char) in _UNSEEN for char in text)


def may_exceed(num_tokens: int, *texts: str) -> bool:
    """Can texts have more tokens than so many, together? A token stands for one byte at least.

    Example:
        >>> may_exceed(4, "good"), may_exceed(3, "go", "od")
        (False, True)
    """
    return sum(len(text.encode("utf-8", "replace")) for text in texts) > num_tokens
