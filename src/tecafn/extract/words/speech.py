"""Where there is speech in a clip, and pieces of it that a recogniser takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.extract.media import Audio
from tecafn.extract.voice.signal import RATE_HZ, Samples

PIECE_SECONDS = 30.0
"""The longest that Whisper listens to at once; a call costs the same however short."""

_BLOCK_SECONDS = 60.0
_PAUSE_SECONDS, _PADDING_SECONDS, _SHORTEST_SECONDS = 0.3, 0.2, 0.1
# A pause within a piece is kept up to this length; what is longer is cut to it.
_KEPT_PAUSE_SECONDS = 0.6
_CUT_SEARCH_SECONDS = 5.0


@dataclass(frozen=True)
class Span:
    """Seconds on the clip's clock from ``start`` to ``end``."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


def find_speech(audio: Audio, *, tell: Callable[[float], None] | None = None) -> list[Span]:
    """Stretches with speech, by the voice activity detector that faster-whisper carries (Silero).

    Sound is looked at in blocks of a minute, so that memory does not grow with the clip.

    Raises:
        UserError: faster-whisper is not installed or does not load.
    """
    vad = speech_library("faster_whisper.vad")
    options = vad.VadOptions(
        min_silence_duration_ms=int(1000 * _PAUSE_SECONDS),
        speech_pad_ms=int(1000 * _PADDING_SECONDS),
        min_speech_duration_ms=int(1000 * _SHORTEST_SECONDS),
    )
    found: list[Span] = []
    for start, samples in audio.pieces(_BLOCK_SECONDS):
        # Silero needs a whole window of 512 samples.
        padded = np.pad(samples, (0, max(512 - len(samples), 0)))
        for part in vad.get_speech_timestamps(padded, options, sampling_rate=RATE_HZ):
            begin = start + part["start"] / RATE_HZ
            end = start + min(part["end"], len(samples)) / RATE_HZ
            if found and begin - found[-1].end < _PAUSE_SECONDS:
                found[-1] = Span(found[-1].start, end)
            else:
                found.append(Span(begin, end))
        if tell is not None:
            tell(start)
    return found


def speech_library(name: str) -> Any:
    """A module that speech recognition needs.

    Raises:
        UserError: it is not installed, or something under it does not load.
    """
    import importlib

    package = name.partition(".")[0].replace("_", "-")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == name.partition(".")[0]:
            raise UserError(
                f"speech recognition needs the package {package}, which is not installed: "
                "pip install 'tecafn[video]'"
            ) from None
        raise UserError(
            f"{package} does not load, {error.name} is missing: pip install 'tecafn[video]'"
        ) from None
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{package} does not load: {reason}; `pip install --force-reinstall {package}` "
            "often mends that"
        ) from None


def without_speech(spans: Sequence[Span], audio: Audio, *, least: float = 1.0) -> list[Span]:
    """What lies between the spans and is at least so many seconds long."""
    edges = [audio.start, *(edge for span in spans for edge in (span.start, span.end)), audio.end]
    gaps = [Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [gap for gap in gaps if gap.seconds >= least]


@dataclass(frozen=True)
class Piece:
    """Speech of at most 30 s that is handed over at once, with long pauses cut short.

    Args:
        spans: the stretches, in order; between two of them stands a pause.
    """

    spans: tuple[Span, ...]

    def samples(self, audio: Audio) -> Samples:
        """Its sound: the stretches, and between them what remains of the pauses."""
        parts: list[NDArray[np.float32]] = []
        for number, span in enumerate(self.spans):
            if number:
                parts.append(np.zeros(round(self._pause(number) * RATE_HZ), np.float32))
            parts.append(audio.read(span.start, span.end))
        return np.concatenate(parts)

    def _pause(self, number: int) -> float:
        """Seconds between a stretch and the one before it."""
        gap = self.spans[number].start - self.spans[number - 1].end
        return min(gap, _KEPT_PAUSE_SECONDS)

    @property
    def seconds(self) -> float:
        """How long its sound is."""
        pauses = sum(self._pause(number) for number in range(1, len(self.spans)))
        return pauses + sum(span.seconds for span in self.spans)

    def on_clip(self, begin: float, end: float) -> tuple[float, float]:
        """An interval of the piece's sound on the clip's clock.

        What begins in one stretch and ends in another belongs to the one that has more of it.
        """
        place, best, found = 0.0, -1.0, (self.spans[0].start, self.spans[0].start)
        for number, span in enumerate(self.spans):
            place += self._pause(number) if number else 0.0
            low, high = max(begin, place), min(end, place + span.seconds)
            # Beside every stretch: the nearest one has the least negative overlap.
            if high - low > best or number == 0:
                best = high - low
                low, high = (min(max(t, place), place + span.seconds) for t in (begin, end))
                found = (span.start + low - place, span.start + high - place)
            place += span.seconds
        return found


def pieces_of(spans: Sequence[Span], audio: Audio) -> list[Piece]:
    """Pack speech into pieces of at most 30 s, cut at pauses.

    A stretch of more than 30 s without a pause is cut where it is quietest in its last 5 s.
    """
    short = [part for span in spans for part in _no_longer(span, audio)]
    pieces: list[Piece] = []
    for span in short:
        if pieces:
            longer = Piece((*pieces[-1].spans, span))
            if longer.seconds <= PIECE_SECONDS:
                pieces[-1] = longer
                continue
        pieces.append(Piece((span,)))
    return pieces


def _no_longer(span: Span, audio: Audio) -> list[Span]:
    parts = []
    while span.seconds > PIECE_SECONDS:
        latest = span.start + PIECE_SECONDS
        earliest = latest - _CUT_SEARCH_SECONDS
        samples = audio.read(earliest, latest)
        window = RATE_HZ // 10
        power = np.convolve(samples.astype(np.float64) ** 2, np.ones(window), mode="valid")
        cut = earliest + (int(power.argmin()) + window // 2) / RATE_HZ if len(power) else latest
        parts.append(Span(span.start, cut))
        span = Span(cut, span.end)
    return [*parts, span]
