"""Where a command may write: never into a data store, nor into a run that is not its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tecafn.core.errors import UserError

LOCK_FILE = ".lock"
_COMPARISON = "comparison.json"
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


def refuse_taken(out: Path, *, may_be: Literal["run", "comparison", "neither"]) -> None:
    """Refuse a folder to write that is, or lies inside, a data store or somebody else's run.

    Args:
        out: the folder; links are followed.
        may_be: what ``out`` itself may be already, to go on with; whether it can be gone on with is
            looked at elsewhere. A run may lie inside a comparison: its cells do.

    Raises:
        UserError: it is or does; the line names the folder around it.
    """
    for place in _around(out):
        own = place == out.resolve()
        kind = _kind_of(place)
        is_allowed = kind is None or (own and kind == may_be)
        if is_allowed or (kind == "comparison" and not own):
            continue
        how = ", which must stay as it was imported" if kind == "data store" else ""
        raise UserError(
            f"--out {out} {'is' if own else 'lies inside'} the {kind} {place}{how}; "
            "name a folder outside it"
        )


def refuse_overwriting(out: Path) -> None:
    """Refuse a file that belongs to a data store or to a run.

    Raises:
        UserError: it does; the line names whose it is.
    """
    target = out.resolve()
    for place in _around(target.parent):
        kind = _kind_of(place)
        if kind == "data store":
            raise UserError(
                f"--out {out} lies inside the data store {place}, which must stay as it was "
                "imported; name a file outside it"
            )
        first = target.relative_to(place).parts[0]
        if kind == "run" and first in (*_OF_A_RUN, *_FOLDERS_OF_A_RUN):
            raise UserError(f"--out {out} is a file of the run {place}; name another")


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
    return "comparison" if has(_COMPARISON) else None
