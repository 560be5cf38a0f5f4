"""Whether a text says anything, and whether it may be too long: one rule each."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

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


def uncut_lengths(
    texts: Sequence[str],
    contexts: Sequence[str | None] | None,
    *,
    max_tokens: int,
    count: Callable[..., int],
) -> list[int]:
    """How many tokens each text, with its context, would have if none were cut.

    0 of one that is so short that none can be: only long ones are counted.

    Args:
        texts: N of them.
        contexts: what was said before each; None where nothing was.
        max_tokens: at how many a text is cut, without those that the tokenizer adds.
        count: the tokens of a text, or of a context and a text.

    Example:
        >>> uncut_lengths(["so", "so good"], None, max_tokens=3, count=len)
        [0, 7]
    """
    lengths = []
    for text, said in zip(texts, contexts or [None] * len(texts), strict=True):
        context = (said or "").strip()
        given = (context, text) if context else (text,)
        lengths.append(count(*given) if may_exceed(max_tokens, *given) else 0)
    return lengths
