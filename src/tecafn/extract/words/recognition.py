"""Words that a recogniser hears: Whisper by faster-whisper, on a CPU, without a network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tecafn.core.errors import UserError
from tecafn.extract.media import Audio
from tecafn.extract.speech_model import SpeechModel
from tecafn.extract.words.speech import (
    Piece,
    Span,
    find_speech,
    pieces_of,
    speech_library,
    without_speech,
)
from tecafn.extract.words.word import Word

_NO_SPEECH_PROBABILITY, _LEAST_LOG_PROBABILITY = 0.6, -1.0
_MOST_COMPRESSION = 2.4
_LEAST_CONFIDENCE = 0.35
_LONGEST_LOOP, _LOOPED = 8, 4
_SHORTEST_WORD_SECONDS = 0.02


@dataclass(frozen=True)
class Heard:
    """What a recogniser made of a clip.

    Args:
        words: in the order of their times.
        no_speech: stretches of at least a second in which nobody speaks.
        invented: stretches whose words were dropped as invented.
        language: as the recogniser says, such as ``en``.
    """

    words: tuple[Word, ...]
    no_speech: tuple[Span, ...]
    invented: tuple[Span, ...]
    language: str


def recognise(
    audio: Audio,
    model: SpeechModel,
    *,
    device: str = "cpu",
    tell: Callable[[float], None] | None = None,
) -> Heard:
    """The words of a clip.

    A voice activity detector finds speech first: Whisper invents words in silence and music.
    Speech is handed over in pieces of at most 30 s cut at pauses, each for itself, greedily, so
    that the same clip gives the same words. A segment that Whisper calls silent, that repeats
    itself, or of whose words it is very unsure is dropped and reported.

    Args:
        audio: at 16 kHz.
        model: see ``find_speech_model``.
        device: ``cpu`` or ``cuda``.
        tell: told the seconds that are done.

    Raises:
        UserError: a package is missing or does not load, the model is damaged, or the device
            cannot be used.
    """
    spans = find_speech(audio, tell=tell)
    silent = tuple(without_speech(spans, audio))
    pieces = pieces_of(spans, audio)
    if not pieces:
        return Heard((), silent, (), "")
    words: list[Word] = []
    invented: list[Span] = []
    language = ""
    for piece in pieces:
        segments, language = _transcribed(piece.samples(audio), model, device)
        for segment in segments:
            said = list(_words_of(segment, piece))
            if _is_invented(segment, said):
                start, end = piece.on_clip(segment.start, segment.end)
                invented.append(Span(start, end))
            else:
                words += said
        if tell is not None:
            tell(piece.spans[-1].end)
    words.sort(key=lambda word: word.start)
    return Heard(tuple(_in_order(words)), silent, tuple(invented), language)


def _transcribed(samples: Any, model: SpeechModel, device: str) -> tuple[list[Any], str]:
    whisper = load_recogniser(model, device)
    try:
        segments, about = whisper.transcribe(
            np.ascontiguousarray(samples, np.float32),
            beam_size=1,
            temperature=0.0,
            word_timestamps=True,
            vad_filter=False,
            condition_on_previous_text=False,
        )
        return list(segments), str(about.language)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(_explained(error, model, device)) from None


@functools.lru_cache(maxsize=1)
def load_recogniser(model: SpeechModel, device: str = "cpu") -> Any:
    """faster-whisper's model; kept, so that the next clip finds it loaded.

    Raises:
        UserError: see ``recognise``.
    """
    if device not in ("cpu", "cuda"):
        raise UserError(f"the recogniser's device must be cpu or cuda, got {device!r}")
    # Without it faster-whisper would ask the hub for another model's.
    if not (model.folder / "tokenizer.json").is_file():
        raise UserError(f"speech model {model.name}: {model.folder} lacks tokenizer.json")
    library = speech_library("faster_whisper")
    _keep_tqdm_within_the_process()
    try:
        return library.WhisperModel(
            str(model.folder),
            device=device,
            compute_type="int8" if device == "cpu" else "default",
            cpu_threads=1,
            num_workers=1,
            local_files_only=True,
        )
    except Exception as error:  # tokenizers raises bare ones
        raise UserError(_explained(error, model, device)) from None


def _keep_tqdm_within_the_process() -> None:
    # faster-whisper counts with tqdm, whose own lock is a semaphore of the system: a process
    # that is ended leaves it behind, and Python says so on the console.
    import threading

    speech_library("tqdm").tqdm.set_lock(threading.RLock())


def _explained(error: BaseException, model: SpeechModel, device: str) -> str:
    reason = " ".join(str(error).split())[:160]
    if device != "cpu":
        return f"the recogniser cannot use {device}: {reason}; use the device cpu"
    return f"speech model {model.name} in {model.folder} cannot be used: {reason}"


def _words_of(segment: Any, piece: Piece) -> Iterator[Word]:
    for word in segment.words or ():
        text = word.word.strip()
        if not any(letter.isalnum() for letter in text):
            continue
        start, end = piece.on_clip(float(word.start), float(word.end))
        yield Word(text, start, max(end, start), round(float(word.probability), 4))


def _is_invented(segment: Any, words: list[Word]) -> bool:
    # The ratio is that of the whole piece, in which somebody may well say a thing twice.
    if segment.compression_ratio > _MOST_COMPRESSION and _loops([word.text for word in words]):
        return True
    unsure = segment.avg_logprob < _LEAST_LOG_PROBABILITY
    if unsure and segment.no_speech_prob > _NO_SPEECH_PROBABILITY:
        return True
    mean = float(np.mean([word.confidence or 0.0 for word in words])) if words else 0.0
    return unsure and mean < _LEAST_CONFIDENCE


def _loops(texts: Sequence[str]) -> bool:
    """Does a run of one to eight words come four times in a row?

    Example:
        >>> _loops("thank you thank you thank you thank you".split())
        True
        >>> _loops("what you can do for you ask what you can do".split())
        False
    """
    plain = [text.lower().strip(".,!?") for text in texts]
    for length in range(1, _LONGEST_LOOP + 1):
        equal = 0
        for here, there in zip(plain, plain[length:], strict=False):
            equal = equal + 1 if here == there else 0
            if equal >= length * (_LOOPED - 1):
                return True
    return False


def _in_order(words: list[Word]) -> Iterator[Word]:
    """Words that do not overlap and last at least .02 s; times that were moved are interpolated."""
    last = -float("inf")
    for word in words:
        start = max(word.start, last)
        end = max(word.end, start + _SHORTEST_WORD_SECONDS)
        same = start == word.start and end == word.end
        yield word if same else Word(word.text, start, end, word.confidence, interpolated=True)
        last = end
