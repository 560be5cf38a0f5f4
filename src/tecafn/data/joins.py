"""Joining features to the rows of label.csv: by the ids, in the numbering that explains most.

Features come from other hands than the table: ``video[k]`` counts from 0 where label.csv counts
from 1, ids are paths with endings, numbers are padded with zeros. A join by the ids as they stand
then finds little, or, which is worse, finds nearly everything on the wrong clips: of n clips
numbered from 0, n - 1 have an id that the table has, too. So every numbering is tried, the one that
explains more rows is taken and said, and where two explain equally many, the user is asked.
"""

from __future__ import annotations

import ntpath
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tecafn.core.errors import UserError
from tecafn.data.names import without_marks
from tecafn.data.shares import more_than_a_few

# What `--match-ids` takes.
RULES: Final = {
    "as-written": "clips have the same numbers in the features and in the table",
    "plus-one": "clips of the features count from 0, those of the table from 1",
    "minus-one": "clips of the features count from 1, those of the table from 0",
    "ignore-case": "capital and small letters are the same",
}
_SHIFTS: Final = {0: "as-written", 1: "plus-one", -1: "minus-one"}
_SPOKEN: Final = {
    0: "",
    1: "clips there count from 0, in {table} from 1",
    -1: "clips there count from 1, in {table} from 0",
}
_NUMBERED = re.compile(r"(.+)\[(\d+)\]", re.DOTALL)
_COUNTED = re.compile(r"(.*_)(\d+)", re.DOTALL)
_ENDING = re.compile(
    r"(?<=.)\.(mp4|avi|mov|mkv|webm|m4v|wav|flac|mp3|ogg|m4a|npy|npz|csv|txt|pt|pkl|h5)\Z",
    re.IGNORECASE,
)
_FLOAT = re.compile(r"(.*_\d+)\.0+", re.DOTALL)

Pair = tuple[str, str]


@dataclass(frozen=True)
class Join:
    """Which of a file's entries belongs to which row of the table.

    Args:
        positions: by video and clip of the table the entry's position in the file.
        num_rows: different rows of the table.
        num_ids: entries of the file.
        decision: what was found and how, for the user.
        is_partial: do more than a few rows find nothing, as the caller allowed?
    """

    positions: Mapping[Pair, int]
    num_rows: int
    num_ids: int
    decision: str
    is_partial: bool = False

    @property
    def num_found(self) -> int:
        """Rows of the table that found an entry."""
        return len(self.positions)


@dataclass(frozen=True)
class _Way:
    """One way to read the ids: how freely, and with which difference of the clips' numbers."""

    level: int
    shift: int
    positions: Mapping[Pair, int]


def join_ids(
    ids: Sequence[str],
    rows: Iterable[Pair],
    *,
    what: str,
    file: str,
    table: str,
    min_share: float | None = None,
    rule: str | None = None,
    nothing: str | None = None,
) -> Join:
    r"""Find for each row of the table its entry among ``ids``.

    Ids are compared as they are (``$_$`` is ``_``, ``video[k]`` is ``video_k``); then without
    folders, file endings, marks that tools leave (quotes, say) and zeros in front of the clip's
    number, and with accents composed; then, only where nothing has
    agreed so far, without case. Each time the clips' numbers may be the same, or differ by one.

    Args:
        ids: of the file, all different.
        rows: video and clip of each row of the table.
        what: audio, vision, ...: what the rows look for.
        file: the file's name, for messages.
        table: the table's name, for messages.
        min_share: least share of rows that must find an entry; None = all but a few
            (``more_than_a_few``).
        rule: of ``RULES``, several with commas between; None = look.
        nothing: what to say where no row finds an entry.

    Raises:
        UserError: too few rows find an entry, two numberings explain equally many, two entries
            would be one, or there is no such rule.

    Example:
        >>> rows = [("v", "1"), ("v", "2"), ("w", "1")]
        >>> join = join_ids(["v[0]", "v[1]", "w[0]"], rows, what="audio", file="a.npz",
        ...                 table="label.csv")
        >>> join.positions
        {('v', '1'): 0, ('v', '2'): 1, ('w', '1'): 2}
        >>> print(join.decision.replace("; ", "\n"))
        audio: 3 of 3 rows of label.csv are in a.npz
        clips there count from 0, in label.csv from 1
    """
    told = _rules(rule)
    pairs = list(dict.fromkeys(rows))
    ways = {level: _ways(ids, pairs, level, told) for level in range(3)}
    strict = _best([*ways[0], *ways[1]])
    loose = _best(ways[2])
    chosen = strict
    if "ignore-case" in told or not len(strict.positions):
        chosen = loose if len(loose.positions) > len(strict.positions) else strict
    _refuse_ties(chosen, ways[chosen.level], ids, pairs, names=(what, file, table))
    found = len(chosen.positions)
    hint = ""
    if len(loose.positions) > found:
        hint = f"; ignoring case, {len(loose.positions)} would: --match-ids ignore-case"
    if pairs and not found:
        examples = _examples([f"{video}_{clip}" for video, clip in pairs])
        raise UserError(
            f"{nothing or f'{file} and {table} share no id'}: {_examples(ids)} against {examples}"
        )
    missing = len(pairs) - found
    is_partial = more_than_a_few(missing, len(pairs))
    if found < min_share * len(pairs) if min_share is not None else is_partial:
        lost = next(f"{video}_{clip}" for video, clip in pairs if (video, clip)
                    not in chosen.positions)  # fmt: skip
        raise UserError(
            f"{found} of {len(pairs)} rows of {table} find {what} in {file}; {lost!r}, for one, "
            f"does not (ids in the file: {_examples(ids)}){hint}; if that is right, use "
            f"--min-join-share {int(100 * found / len(pairs)) / 100:g}"
        )
    how = [_SPOKEN[chosen.shift].format(table=table)] if chosen.shift else []
    if chosen.level:
        how.append("written otherwise" + (", in other case" if chosen.level == 2 else ""))
    decision = f"{what}: {found} of {len(pairs)} rows of {table} are in {file}{hint}"
    return Join(
        positions=chosen.positions,
        num_rows=len(pairs),
        num_ids=len(ids),
        decision="; ".join([decision, *how]),
        is_partial=is_partial,
    )


def _rules(rule: str | None) -> frozenset[str]:
    names = [name.strip().lower() for name in (rule or "").split(",") if name.strip()]
    unknown = [name for name in names if name not in RULES]
    if unknown or len(set(names) & set(_SHIFTS.values())) > 1:
        raise UserError(
            f"--match-ids must be one of {', '.join(_SHIFTS.values())}, or ignore-case, or both "
            f"with a comma between, got {rule!r}"
        )
    return frozenset(names)


# Keys


def _key(text: str, level: int) -> str:
    """An id in the one writing that is compared at a level."""
    if level:
        # Some file systems take letters and their accents apart.
        text = unicodedata.normalize("NFC", without_marks(text)[0])
        if "/" in text or "\\" in text:
            folder, name = ntpath.split(text.rstrip("/\\"))
            text = f"{ntpath.basename(folder)}_{_ENDING.sub('', name)}"
        text = _ENDING.sub("", text)
    if match := _NUMBERED.fullmatch(text):
        text = f"{match[1]}_{int(match[2])}"
    text = text.replace("$_$", "_")
    if level:
        if match := _FLOAT.fullmatch(text):
            text = match[1]
        if match := _COUNTED.fullmatch(text):
            text = f"{match[1]}{int(match[2])}"
    return text.casefold() if level == 2 else text


def _shifted(key: str, shift: int) -> str | None:
    """The key with another clip; None where it has no number that could be another."""
    match = _COUNTED.fullmatch(key)
    if match is None or str(int(match[2])) != match[2] or int(match[2]) + shift < 0:
        return None
    return f"{match[1]}{int(match[2]) + shift}"


def _alternatives(text: str, level: int) -> tuple[str, ...]:
    """Keys that an id with folders may have: video/clip, or the file's name alone."""
    if level and ("/" in text or "\\" in text):
        return (_key(text, level), _key(ntpath.basename(text.strip().rstrip("/\\")), level))
    return (_key(text, level),)


def _ways(
    ids: Sequence[str], pairs: Sequence[Pair], level: int, told: frozenset[str]
) -> list[_Way]:
    """The ways of one level: none where two ids, or two rows, would become one."""
    wanted = {_key(f"{video}_{clip}", level): (video, clip) for video, clip in pairs}
    keys = [_alternatives(text, level) for text in ids]
    if level and (len(wanted) < len(pairs) or len({key[0] for key in keys}) < len(ids)):
        return []
    ways = []
    for shift, name in _SHIFTS.items():
        if told & set(_SHIFTS.values()) and name not in told:
            continue
        positions: dict[Pair, int] = {}
        for position, alternatives in enumerate(keys):
            for key in alternatives:
                other = key if not shift else _shifted(key, shift)
                if other in wanted and wanted[other] not in positions:
                    positions[wanted[other]] = position
                    break
        ways.append(_Way(level, shift, positions))
    return ways


def _best(ways: Sequence[_Way]) -> _Way:
    """The one that explains most rows; of equals the first."""
    return max(ways, key=lambda way: len(way.positions), default=_Way(0, 0, {}))


def _has_zero(keys: Iterable[str]) -> bool:
    return any(
        (match := _COUNTED.fullmatch(key)) is not None and int(match[2]) == 0 for key in keys
    )


def _refuse_ties(
    chosen: _Way,
    ways: Sequence[_Way],
    ids: Sequence[str],
    pairs: Sequence[Pair],
    *,
    names: tuple[str, str, str],
) -> None:
    """Ask where two numberings explain equally many rows and nothing speaks for one of them.

    Numbers as they stand are taken where both sides have a clip 0, or neither has.

    Raises:
        UserError: ask.
    """
    equals = [way for way in ways if len(way.positions) == len(chosen.positions)]
    if len(equals) < 2 or not chosen.positions:
        return
    level = chosen.level
    alike = _has_zero(_key(text, level) for text in ids) == _has_zero(
        _key(f"{video}_{clip}", level) for video, clip in pairs
    )
    if not chosen.shift and alike:
        return
    what, file, table = names
    options = " or ".join(f"--match-ids {_SHIFTS[way.shift]}" for way in equals)
    raise UserError(
        f"{what}: {len(chosen.positions)} of {len(pairs)} rows of {table} agree with {file} in "
        f"{len(equals)} numberings of the clips; say which is right: {options}"
    )


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(repr(text)[:40] for text in ids[:2]) + (", ..." if len(ids) > 2 else "")
