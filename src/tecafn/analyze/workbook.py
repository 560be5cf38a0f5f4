"""A timeline as a spreadsheet: a sheet for utterances, words, trend, turning points and tracks."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence

from tecafn.analyze.timeline import Timeline

Cell = str | float | int | bool | None

# Spreadsheets have no such characters.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_MOST_CHARACTERS = 32_767


def sheets_of(timeline: Timeline) -> dict[str, tuple[Sequence[str], Iterable[Sequence[Cell]]]]:
    """Columns and rows of each sheet."""
    tracks = timeline.tracks
    longest = max((len(track.values) for track in tracks), default=0)
    rate = tracks[0].frames_per_second if tracks else 1.0
    return {
        "utterances": (UTTERANCE_COLUMNS, utterance_rows(timeline)),
        "words": (
            ("utterance", "start", "end", "text", "effect", "confidence", "interpolated"),
            (
                (number, w.start, w.end, w.text, w.effect, w.confidence, w.interpolated)
                for number, one in enumerate(timeline.utterances, 1)
                for w in one.words
            ),
        ),
        "trend": (
            ("time", "score"),
            zip(timeline.trend.times, timeline.trend.values, strict=True),
        ),
        "turning points": (
            ("time", "kind", "score", "change", "words"),
            ((p.time, p.kind, p.value, p.change, p.quote) for p in timeline.turning_points),
        ),
        "gaps": (
            ("start", "end", "what"),
            ((gap.start, gap.end, gap.what) for gap in timeline.gaps),
        ),
        "tracks": (
            ("time", *(track.name for track in tracks)),
            (
                (
                    round(row / rate, 3),
                    *(t.values[row] if row < len(t.values) else None for t in tracks),
                )
                for row in range(longest)
            ),
        ),
    }


UTTERANCE_COLUMNS = (
    "utterance",
    "start",
    "end",
    "score",
    "low",
    "high",
    "out_of_range",
    "doubts",
    "text",
    "voice",
)


def utterance_rows(timeline: Timeline) -> Iterable[Sequence[Cell]]:
    """A row per utterance; what does not exist is None or empty."""
    for number, one in enumerate(timeline.utterances, 1):
        doubts = "; ".join(one.doubts)
        yield (
            number, one.start, one.end, one.score, one.low, one.high, one.out_of_range, doubts,
            one.text, one.voice_in_words,
        )  # fmt: skip


def as_xlsx(timeline: Timeline) -> bytes:
    """Excel's format; a text that looks like a formula stays a text."""
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    book = Workbook(write_only=True)
    for name, (columns, rows) in sheets_of(timeline).items():
        sheet = book.create_sheet(name)
        sheet.freeze_panes = "A2"

        def cell(value: Cell, sheet: object = sheet) -> object:
            if not isinstance(value, str):
                return value
            text = _UNWRITABLE.sub("\ufffd", value)[:_MOST_CHARACTERS]
            made = WriteOnlyCell(sheet, value=text)
            made.data_type = "s"
            return made

        sheet.append(list(columns))
        for row in rows:
            sheet.append([cell(value) for value in row])
    written = io.BytesIO()
    book.save(written)
    return written.getvalue()
