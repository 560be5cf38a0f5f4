"""A timeline in the formats of other programs: tables, subtitles, annotations."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tecafn.analyze.annotations import as_eaf, as_textgrid
from tecafn.analyze.files import write_whole
from tecafn.analyze.timeline import ScoredUtterance, Timeline
from tecafn.analyze.workbook import UTTERANCE_COLUMNS, as_xlsx, utterance_rows


def write_exports(timeline: Timeline, out: Path) -> tuple[str, ...]:
    """Write every format whose library is installed into a folder; the names of the files.

    Raises:
        UserError: one cannot be written.
    """
    written = []
    for export in EXPORTS:
        if export.is_possible:
            write_whole(out / export.file, export.make(timeline))
            written.append(export.file)
    return tuple(written)


def missing_exports() -> list[str]:
    """Files that are not written, for want of a library."""
    return [export.file for export in EXPORTS if not export.is_possible]


def as_csv(timeline: Timeline) -> bytes:
    """A row per utterance; what does not exist is empty."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(UTTERANCE_COLUMNS)
    writer.writerows(utterance_rows(timeline))
    return written.getvalue().encode()


def as_vtt(timeline: Timeline) -> bytes:
    """WebVTT: a cue per utterance, its score before its words."""
    cues = ["WEBVTT\n"]
    for number, one in enumerate(timeline.utterances, 1):
        score = score_text(one)
        words = _escaped(one.text)
        cues.append(f"{number}\n{_clock(one.start)} --> {_clock(one.end)}\n[{score}] {words}\n")
    return "\n".join(cues).encode()


def score_text(one: ScoredUtterance) -> str:
    """A score as a reader reads it.

    Example:
        >>> score_text(ScoredUtterance(start=0, end=1, words=(), score=0.5, low=-1.0, high=2.0))
        '+0.50, -1.00 to +2.00'
    """
    if one.score is None:
        return f"no score: {one.out_of_range}" if one.out_of_range else "no score"
    if one.low is None or one.high is None:
        return f"{one.score:+.2f}"
    return f"{one.score:+.2f}, {one.low:+.2f} to {one.high:+.2f}"


def _clock(seconds: float) -> str:
    """``00:01:02.345``."""
    milli = round(seconds * 1000)
    return (
        f"{milli // 3_600_000:02d}:{milli // 60_000 % 60:02d}:"
        f"{milli // 1000 % 60:02d}.{milli % 1000:03d}"
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@dataclass(frozen=True)
class Export:
    """A format.

    Args:
        file: its name.
        make: the file's content.
        package: what makes it, as it is imported; empty = this package.
    """

    file: str
    make: Callable[[Timeline], bytes]
    package: str = ""

    @property
    def is_possible(self) -> bool:
        """Is its library installed?"""
        return not self.package or importlib.util.find_spec(self.package) is not None


EXPORTS: Final = (
    Export("timeline.csv", as_csv),
    Export("timeline.vtt", as_vtt),
    Export("timeline.xlsx", as_xlsx, "openpyxl"),
    Export("timeline.eaf", as_eaf, "pympi"),
    Export("timeline.TextGrid", as_textgrid, "praatio"),
)
