"""Whether a text says anything: the one rule by which it is there or absent."""

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
