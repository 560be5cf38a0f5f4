"""``begun.json``: what a resume must find unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from tecafn.core.errors import UserError
from tecafn.records.record import StartRecord, write_text_atomically

BEGUN_FILE = "begun.json"


class Begun(TypedDict):
    """How a run was begun.

    Args:
        config: in full.
        data_hash: of the store's content.
        num_folds: of a cross-validation.
        init_from: the run whose weights it began with.
    """

    config: dict[str, Any]
    data_hash: str
    num_folds: NotRequired[int]
    init_from: NotRequired[StartRecord]


def write_begun(run_dir: Path, begun: Begun) -> None:
    """Write ``RUN/begun.json``.

    Raises:
        UserError: it cannot be written.
    """
    write_text_atomically(run_dir / BEGUN_FILE, json.dumps(begun, indent=2) + "\n")


def read_begun(run_dir: Path) -> Begun | None:
    """Read ``RUN/begun.json``; None where there is none, as of a run of the first version.

    Raises:
        UserError: it cannot be read.
    """
    path = run_dir / BEGUN_FILE
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(begun, dict):
        raise UserError(f"{path} cannot be read: expected an object, got a {type(begun).__name__}")
    return cast(Begun, begun)
