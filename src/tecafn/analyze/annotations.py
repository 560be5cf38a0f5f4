"""A timeline as annotations on tiers: for ELAN (.eaf) and Praat (.TextGrid)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from tecafn.analyze.timeline import Timeline

Annotation = tuple[int, int, str]
"""First and last millisecond, and a label."""

_SHORTEST_MS: Final = 1
# XML 1.0 has no such characters, and nobody can see them.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_SOUND = {".wav": "audio/x-wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg"}


def tiers_of(timeline: Timeline) -> dict[str, list[Annotation]]:
    """Annotations of each tier, in order, apart, and at least a millisecond long.

    Example:
        >>> tiers_of(timeline)["score"][0]      # doctest: +SKIP
        (200, 1400, '+0.52')
    """
    said = timeline.utterances
    scored = [one for one in said if one.score is not None]
    tiers = {
        "utterance": [(one.start, one.end, one.text) for one in said],
        "score": [(one.start, one.end, f"{one.score:+.2f}") for one in scored],
        "interval": [
            (one.start, one.end, f"{one.low:+.2f} to {one.high:+.2f}")
            for one in scored
            if one.low is not None and one.high is not None
        ],
        "voice": [(one.start, one.end, one.voice_in_words) for one in said if one.voice],
        "word": [(word.start, word.end, word.text) for one in said for word in one.words],
        "effect": [
            (word.start, word.end, f"{word.effect:+.2f}")
            for one in said
            for word in one.words
            if word.effect is not None
        ],
        "low confidence": [(one.start, one.end, one.reason) for one in timeline.low_confidence],
        "turning point": [
            (one.time, one.time, f"{one.kind} {one.value:+.2f}") for one in timeline.turning_points
        ],
    }
    for what in ("no speech", "no face"):
        tiers[what] = [(gap.start, gap.end, what) for gap in timeline.gaps if gap.what == what]
    return {name: _apart(found) for name, found in tiers.items()}


def _apart(found: Iterable[tuple[float, float, str]]) -> list[Annotation]:
    """In milliseconds; none begins before another ends."""
    result: list[Annotation] = []
    last = 0
    for start, end, label in sorted(found, key=lambda one: one[:2]):
        first = max(round(start * 1000), last)
        last = max(round(end * 1000), first + _SHORTEST_MS)
        result.append((first, last, _UNWRITABLE.sub("\ufffd", label)))
    return result


def as_eaf(timeline: Timeline) -> bytes:
    """ELAN: a tier of annotations for each of ``tiers_of``, beside the clip."""
    from pympi import Eaf

    document = Eaf(author="tecafn")
    document.remove_tier("default")
    for name, found in tiers_of(timeline).items():
        document.add_tier(name)
        for start, end, label in found:
            document.add_annotation(name, start, end, label)
    kind = _SOUND.get(Path(timeline.clip).suffix.lower(), "video/mp4")
    document.add_linked_file(f"../{timeline.clip}", relpath=f"../{timeline.clip}", mimetype=kind)
    return _written(document.to_file)


def as_textgrid(timeline: Timeline) -> bytes:
    """Praat: an interval tier for each of ``tiers_of`` that has any."""
    from praatio.data_classes.interval_tier import IntervalTier
    from praatio.data_classes.textgrid import Textgrid

    tiers = {name: found for name, found in tiers_of(timeline).items() if found}
    last = max([round(timeline.duration * 1000), *(found[-1][1] for found in tiers.values())])
    grid = Textgrid(0.0, last / 1000)
    for name, found in tiers.items():
        entries = [(start / 1000, end / 1000, label) for start, end, label in found]
        grid.addTier(IntervalTier(name, entries, 0.0, last / 1000))
    if not tiers:  # Praat opens no file without a tier
        grid.addTier(IntervalTier("utterance", [(0.0, last / 1000, "")], 0.0, last / 1000))

    def save(path: str) -> None:
        grid.save(path, format="long_textgrid", includeBlankSpaces=True, reportingMode="error")

    return _written(save)


def _written(write: Callable[[str], Any]) -> bytes:
    """What a library writes into a file."""
    with tempfile.TemporaryDirectory(prefix="tecafn-") as folder:
        path = Path(folder) / "made"
        write(str(path))
        return path.read_bytes()
