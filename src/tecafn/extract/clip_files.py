"""Which files are clips, and what lies beside one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tecafn.extract.words.written import TRANSCRIPTS

SUFFIXES: Final = (
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".3gp", ".flv",
    ".wmv", ".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".opus",
)  # fmt: skip


def transcript_of(clip: Path) -> Path | None:
    """The transcript of a clip's name in its folder, if there is one: the first of its kinds."""
    candidates = (clip.with_suffix(suffix) for suffix in TRANSCRIPTS)
    return next((one for one in candidates if one.is_file()), None)
