"""What an installation has for reading video, what it lacks, and the command that brings that."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from tecafn.core.errors import UserError
from tecafn.extract.face.models import INSTALL, KNOWN_SHA256, WHEEL, find
from tecafn.extract.speech_model import find_speech_model

State = Literal["ok", "missing", "wrong"]
VIDEO: Final = "pip install 'tecafn[video]'"
# Distribution, module, what it is for, and whether extraction fails without it.
_PACKAGES: Final = (
    ("av", "av", "reading video and sound", True),
    ("ai-edge-litert", "ai_edge_litert", "running the face models", True),
    ("pillow", "PIL", "cutting faces out", True),
    ("scipy", "scipy", "measuring the voice", True),
    ("faster-whisper", "faster_whisper", "recognising words", False),
    ("pocketsphinx", "pocketsphinx", "placing words to a twentieth of a second", False),
    ("pysubs2", "pysubs2", "reading subtitles", False),
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Args:
        what: its name.
        state: ok, missing, or wrong (there, but not to be used).
        detail: a version and place, or what is the matter.
        is_needed: does `tecafn extract` fail without it?
        command: what brings it; empty where nothing is to be done.
    """

    what: str
    state: State
    detail: str
    is_needed: bool
    command: str = ""


@dataclass(frozen=True)
class Report:
    """All findings."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def is_healthy(self) -> bool:
        """Is all there that extraction needs?"""
        return all(found.state == "ok" for found in self.findings if found.is_needed)

    @property
    def commands(self) -> tuple[str, ...]:
        """What brings all that is missing, each once."""
        return tuple(dict.fromkeys(f.command for f in self.findings if f.command))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "healthy": self.is_healthy,
            "python": sys.version.split()[0],
            "findings": [asdict(found) for found in self.findings],
            "commands": list(self.commands),
            "notes": list(self.notes),
        }

    def render(self) -> str:
        """Lines for a terminal."""
        width = max(len(found.what) for found in self.findings)
        lines = [
            f"{found.state:<7}  {found.what:<{width}}  {found.detail}"
            + ("" if found.state == "ok" or found.is_needed else " (optional)")
            for found in self.findings
        ]
        lines += [f"note: {note}" for note in self.notes]
        if self.commands:
            lines.append(f"to mend it: {' && '.join(self.commands)}")
        lines.append(
            "ready to read video" if self.is_healthy else "video cannot be read with what is here"
        )
        return "\n".join(lines)


def examine() -> Report:
    """Look at this installation; loads no library and asks no network."""
    findings = [*_packages(), *_face_models(), _speech_model()]
    return Report(tuple(findings), tuple(_notes()))


def _packages() -> Iterator[Finding]:
    for distribution, module, purpose, is_needed in _PACKAGES:
        if distribution == "pocketsphinx" and sys.version_info >= (3, 14):
            continue  # it has no wheel there; words are placed by the voice's energy
        try:
            version = importlib.metadata.version(distribution)
            is_there = importlib.util.find_spec(module) is not None
        except importlib.metadata.PackageNotFoundError:
            is_there = False
        if is_there:
            yield Finding(distribution, "ok", f"{version}, {purpose}", is_needed)
        else:
            yield Finding(distribution, "missing", purpose, is_needed, VIDEO)


def _face_models() -> Iterator[Finding]:
    for name in KNOWN_SHA256:
        place = functools.partial(_placed, name)
        yield _model(name, place, is_needed=True, command=INSTALL)


def _speech_model() -> Finding:
    return _model(
        "whisper-tiny.en",
        lambda: f"{find_speech_model().folder}",
        is_needed=True,
        command=VIDEO,
    )


def _placed(name: str) -> str:
    file = find(name)
    return f"{file.path} ({'your folder' if file.origin == 'folder' else WHEEL})"


def _model(what: str, place: Callable[[], str], *, is_needed: bool, command: str) -> Finding:
    try:
        return Finding(what, "ok", place(), is_needed)
    except UserError as error:
        state: State = "missing" if "not installed" in str(error) else "wrong"
        return Finding(what, state, str(error), is_needed, command)


def _notes() -> Iterator[str]:
    try:
        importlib.metadata.version(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return
    yield (
        f"`pip check` says that {WHEEL} lacks packages, TensorFlow among them. That is meant: its "
        "model files are read, its code is not used"
    )
