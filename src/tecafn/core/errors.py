"""Errors for people. Imports nothing, so that a command can fail before torch is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake its user can mend: shown as one line, exit code 2."""


def nearest_known(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name and lists the others.

    Example:
        >>> nearest_known("tecafm", ["tecafn", "mult"])
        "did you mean 'tecafn'? known: mult, tecafn"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"
