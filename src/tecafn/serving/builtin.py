"""The models that travel in the package, by name; found without torch."""

from __future__ import annotations

import sys
from pathlib import Path

from tecafn.core.errors import UserError

BUILTIN = "builtin"
BUILTIN_BASE = "builtin-base"
NAMES = (BUILTIN, BUILTIN_BASE)
VOICE = "voice"
CARD_FILE = "card.md"

_FOLDER = Path(__file__).resolve().parents[1] / "models"


def is_builtin(run: str | Path) -> bool:
    """Is this the name of a model in the package?

    Example:
        >>> is_builtin("builtin-base"), is_builtin("runs/builtin")
        (True, False)
    """
    return str(run) in NAMES


def builtin_folder(name: str | Path) -> Path:
    """Where the files of a model in the package lie.

    A folder of that name in the working directory is not looked at, and a line says so.

    Raises:
        UserError: the installation lacks it.
    """
    folder = _FOLDER / str(name)
    if not (folder / "config.json").is_file():
        raise UserError(f"this installation lacks the model {name}: expected it in {folder}")
    if Path(name).exists():
        print(
            f"note: {name} is the model of the package; for the folder here, name it "
            f"{Path(name).resolve()}",
            file=sys.stderr,
        )
    return folder


def voice_folder() -> Path:
    """Where the head on voices lies.

    Raises:
        UserError: the installation lacks it.
    """
    folder = _FOLDER / VOICE
    if not folder.is_dir():
        raise UserError(f"this installation lacks the head on voices: expected it in {folder}")
    return folder


def card_of(name: str) -> str:
    """The card of a model of the package, or of the head on a voice, in Markdown.

    Raises:
        UserError: there is no such model here.
    """
    known = (*NAMES, VOICE)
    if name not in known:
        raise UserError(f"there is no model {name!r} in the package; known: {', '.join(known)}")
    try:
        return (_FOLDER / name / CARD_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"this installation lacks the card of {name}: {error}") from None


def model_folder(run: str | Path) -> Path:
    """The folder with the network's files: of a model's name, a run, or an exported model."""
    if is_builtin(run):
        return builtin_folder(run)
    inside = Path(run) / "model"
    return inside if inside.is_dir() else Path(run)


def default_model() -> str:
    """``builtin-base`` where its encoder is on this machine, else ``builtin``.

    The encoder is there after ``make mpnet``, or in the hub's cache; no network is asked.
    """
    from tecafn.layers.encoder_source import MPNET, is_here

    has_base = (_FOLDER / BUILTIN_BASE / "config.json").is_file()
    return BUILTIN_BASE if has_base and is_here(MPNET) else BUILTIN
