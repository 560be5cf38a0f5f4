"""Where a command may write: never into a data store, nor over another's run, comparison, search.

A folder that cannot be written is said here as well, before any work.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tecafn.core.errors import UserError

LOCK_FILE = ".lock"
_COMPARISON = "comparison.json"
COMPARISON_FILES = (_COMPARISON, *(f"comparison.{kind}" for kind in ("md", "csv", "tex", "html")))
# What a run keeps in its folder; anything else there is its owner's.
_OF_A_RUN = (
    "record.json",
    "begun.json",
    "config.toml",
    "events.jsonl",
    "evaluations.jsonl",
    "report.html",
    "cell.log",
    "cell.json",
    "cell.claim",
    LOCK_FILE,
)
_FOLDERS_OF_A_RUN = ("model", "predictions", "checkpoints", "tensorboard")
# What each kind keeps in its folder.
_OWN_FILES = {
    "run": (*_OF_A_RUN, *_FOLDERS_OF_A_RUN),
    "comparison": COMPARISON_FILES,
    "search": ("study.db", ".study.lock", "best.toml", "trials.csv", "trials"),
}


def refuse_taken(out: Path, *, may_be: Literal["run", "comparison", "search", "neither"]) -> None:
    """Refuse a folder to write that is, or lies inside, a data store or somebody else's run.

    Args:
        out: the folder; links are followed.
        may_be: what ``out`` itself may be already, to go on with; whether it can be gone on with is
            looked at elsewhere. A run may lie inside a comparison or a search: its cells and trials
            do. A comparison or a search lies inside neither.

    Raises:
        UserError: it is or does; the line names the folder around it. Or it cannot be written.
    """
    for place in _around(out):
        own = place == out.resolve()
        kind = _kind_of(place)
        is_allowed = kind is None or (own and kind == may_be)
        is_several = kind in ("comparison", "search")
        if is_allowed or (is_several and not own and may_be in ("run", "neither")):
            continue
        how = ", which must stay as it was imported" if kind == "data store" else ""
        raise UserError(
            f"--out {out} {'is' if own else 'lies inside'} the {kind} {place}{how}; "
            "name a folder outside it"
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    _refuse_unwritable(out, "--out")


def refuse_overwriting(out: Path, *, option: str = "--out") -> None:
    """Refuse a file that belongs to a data store, a run, a comparison or a search.

    Args:
        out: the file.
        option: by which it was named.

    Raises:
        UserError: it does; the line names whose it is. Or it cannot be written.
    """
    target = out.resolve()
    for place in _around(target.parent):
        kind = _kind_of(place)
        if kind == "data store":
            raise UserError(
                f"{option} {out} lies inside the data store {place}, which must stay as it was "
                "imported; name a file outside it"
            )
        first = target.relative_to(place).parts[0]
        if first in _OWN_FILES.get(kind or "", ()):
            raise UserError(f"{option} {out} is a file of the {kind} {place}; name another")
    _refuse_unwritable(out, option)


def _refuse_unwritable(out: Path, option: str) -> None:
    """Refuse what has no folder around it that something new may be written into."""
    if out.exists():
        return
    nearest = next(place for place in _around(out.parent) if place.exists())
    if not nearest.is_dir():
        raise UserError(f"cannot write {option} {out}: {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        # Windows has neither of the two.
        is_fixed = hasattr(os, "statvfs") and os.statvfs(nearest).f_flag & os.ST_RDONLY
        reason = os.strerror(errno.EROFS if is_fixed else errno.EACCES)
        raise UserError(f"cannot write {option} {out}: {nearest}: {reason}")


def _around(place: Path) -> Iterator[Path]:
    resolved = place.resolve()
    yield from (resolved, *resolved.parents)


def _kind_of(place: Path) -> str | None:
    """What a folder is, by the files that ours alone have together."""

    def has(*names: str) -> bool:
        return all((place / name).exists() for name in names)

    if has("manifest.json", "samples.parquet"):
        return "data store"
    if has("begun.json", "config.toml") or has("record.json", "predictions"):
        return "run"
    if has(_COMPARISON):
        return "comparison"
    return "search" if has("study.db") or has("trials.csv", "trials") else None
