"""``robustness.json``: how runs answer when something of their data is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from tecafn.core.errors import UserError
from tecafn.records.record import AllowedError, Evaluation, write_text_atomically

ROBUSTNESS_FILE = "robustness.json"
ROBUSTNESS_FORMAT = 1

Kind = Literal["clean", "dropped", "shuffled", "noise", "lost frames", "mistaken words"]


class Point(TypedDict):
    """A run's answers on a split after one change to its data.

    Args:
        kind: what was done.
        modalities: to which.
        rate: to which share of the frames or words; 1 where a whole modality was changed.
        evaluation: metrics, intervals and pairs, as an evaluation of the run has them.
    """

    kind: Kind
    modalities: list[str]
    rate: float
    evaluation: Evaluation


class RobustRun(TypedDict):
    """One run.

    Args:
        name: of its folder, with as much of the path as tells it from the others.
        method: of the run.
        seed: of the run.
        weights_hash: of the exported weights.
        code_hash: of the package that predicted.
        points: the first is ``clean``: what ``tecafn evaluate`` finds.
        skipped: what could not be done with this run, and why.
    """

    name: str
    method: str
    seed: int
    weights_hash: str
    code_hash: str
    points: list[Point]
    skipped: list[str]


class Robustness(TypedDict):
    """All runs on one split.

    Args:
        robustness_format: of this file.
        created: when, in UTC.
        dataset: its name.
        data_hash: of the store's content.
        split: which.
        convention: by which it was measured.
        seed: of everything that was drawn.
        runs: in the order they were given.
        allowed_errors: what was wrong with the data and was allowed by name.
    """

    robustness_format: int
    created: str
    dataset: str
    data_hash: str
    split: str
    convention: str
    seed: int
    runs: list[RobustRun]
    allowed_errors: NotRequired[list[AllowedError]]


def write_robustness(folder: Path, found: Robustness) -> None:
    """Write ``robustness.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / ROBUSTNESS_FILE, json.dumps(found, indent=1) + "\n")


def read_robustness(folder: Path) -> Robustness | None:
    """What ``write_robustness`` wrote; None where there is nothing.

    Raises:
        UserError: it is damaged, or of another version.
    """
    path = folder / ROBUSTNESS_FILE
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected JSON, got: {error}") from None
    version = found.get("robustness_format") if isinstance(found, dict) else None
    if version != ROBUSTNESS_FORMAT:
        raise UserError(
            f"{path}: robustness_format must be {ROBUSTNESS_FORMAT}, got {version!r}; "
            "name another folder"
        )
    return cast(Robustness, found)
