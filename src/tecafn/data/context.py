"""What was said before an utterance: the previous ones of the same video, never a later one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tecafn.core.text import is_blank

Order = tuple[Any, ...]


def previous_texts(
    videos: Sequence[str],
    clips: Sequence[str],
    starts: Sequence[float | None],
    texts: Sequence[str],
    *,
    count: int,
) -> list[str | None]:
    """For each utterance the ``count`` before it in its video, in the order they were said.

    A video's utterances are ordered by their starts where all have one, or else by the numbers in
    their clips' names (10 after 9); those that compare equal stay in the data's order. Blank texts
    say nothing and are passed over.

    Args:
        videos: N recordings; an empty name is a recording of its own.
        clips: N names within the videos.
        starts: N seconds, or None.
        texts: N texts.
        count: how many utterances, >= 1.

    Returns:
        N texts; None for an utterance that nothing comes before.

    Example:
        >>> previous_texts(["a", "b", "a"], ["2", "1", "1"], [None] * 3,
        ...                ["second", "alone", "first"], count=1)
        ['first', None, None]
    """
    of_video: dict[str, list[int]] = defaultdict(list)
    for row, video in enumerate(videos):
        if video:
            of_video[video].append(row)
    before: list[str | None] = [None] * len(texts)
    for rows in of_video.values():
        timed = all(starts[row] is not None for row in rows)

        def place(row: int, timed: bool = timed) -> Order:
            return (starts[row],) if timed else _numbered(clips[row])

        said: list[str] = []
        for row in sorted(rows, key=place):
            if said:
                before[row] = " ".join(said[-count:])
            if not is_blank(texts[row]):
                said.append(texts[row].strip())
    return before


def _numbered(name: str) -> Order:
    """A key under which 10 comes after 9.

    Example:
        >>> sorted(["10", "9", "1[2]", "a"], key=_numbered)
        ['1[2]', '9', '10', 'a']
    """
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)
