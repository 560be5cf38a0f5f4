"""A run's record: what was run, on what, with which outcome. Written once, then only added to."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tecafn
from tecafn.core.dataset_names import with_current_name
from tecafn.core.errors import UserError

FORMAT_VERSION = 1
_LIBRARIES = ("torch", "transformers", "lightning-fabric", "numpy", "safetensors", "pyarrow")


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def library_versions() -> dict[str, str]:
    """Python, platform and the libraries that numbers depend on."""
    versions = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    return versions | {name: importlib.metadata.version(name) for name in _LIBRARIES}


def source_commit() -> str | None:
    """The checkout's commit, with ``+changes`` when it differs from it; None outside a checkout."""
    folder = Path(tecafn.__file__).parent

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # An installed copy may lie inside another project's checkout, whose commit says nothing.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "-uno") else commit


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_record(run_dir: Path, record: Mapping[str, Any]) -> None:
    """Write ``RUN/record.json``."""
    text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=True)
    write_text_atomically(run_dir / "record.json", text + "\n")


def read_record(run_dir: Path) -> dict[str, Any]:
    """Read ``RUN/record.json``.

    Raises:
        UserError: no such run, an unfinished one, or a format this version does not know.
    """
    path = run_dir / "record.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        unfinished = (run_dir / "checkpoints").is_dir()
        hint = "training did not finish: `tecafn train ... --resume`" if unfinished else "no record"
        raise UserError(f"{run_dir}: expected a run's directory, found {hint}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON, got: {error}") from None
    version = record.get("format_version") if isinstance(record, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: format_version must be {FORMAT_VERSION}, got {version!r}")
    return with_current_name(record)
