"""A part of a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tecafn.server.spool import JobFolder

TIMELINE: Final = "timeline.json"
PAGE: Final = "report.html"
CLIP_LINK: Final = "clip"
"""Where the page finds the clip, if it is kept: beside the result."""
Tell = Callable[[float], None]


@dataclass(frozen=True)
class Step:
    """A part of a job, which may be done again at any time with the same outcome.

    Args:
        name: as users see it.
        weight: its share of a job's time.
        run: does it for a job, and tells the share that is done.
    """

    name: str
    weight: float
    run: Callable[[JobFolder, Tell], None]
