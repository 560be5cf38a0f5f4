"""The words of a clip, from whatever there is: a transcript of any kind, or the sound itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tecafn.core.errors import UserError
from tecafn.extract.media import Audio
from tecafn.extract.speech_model import find_speech_model
from tecafn.extract.words.activity import active_frames, drifts
from tecafn.extract.words.alignment import matched, refined, spread
from tecafn.extract.words.recognition import Heard, recognise
from tecafn.extract.words.speech import Span
from tecafn.extract.words.word import RoughWord, Word, moved, with_times
from tecafn.extract.words.written import (
    SUBTITLES,
    TEXTS,
    TIMED,
    TRANSCRIPTS,
    read_plain,
    read_subtitles,
    read_timed,
)

_CHECKED_SECONDS = 600.0


@dataclass(frozen=True)
class Transcript:
    """The words of a clip and where they come from.

    Args:
        words: in the order of their times, each with times.
        source: ``subtitles``, ``text``, ``timed words`` or the speech model's name.
        no_speech: stretches in which nobody speaks; only a recogniser tells.
        remarks: what was interpolated, dropped or looks wrong, for the user.
    """

    words: tuple[Word, ...]
    source: str
    no_speech: tuple[Span, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The words with spaces between them."""
        return " ".join(word.text for word in self.words)


def read_words(
    audio: Audio | None,
    *,
    transcript: Path | str | None = None,
    text: str | None = None,
    offset: float = 0.0,
    speech_model: str | Path | None = None,
    device: str = "cpu",
    forced: bool | None = None,
    tell: Callable[[float], None] | None = None,
) -> Transcript:
    """The words of a clip with their times.

    Args:
        audio: the clip's sound at 16 kHz; None = it has none.
        transcript: a subtitle file, a JSON file of words, or a text file; None = recognise.
        text: what is said, in place of a file.
        offset: seconds to add to the transcript's times, where its clock is another.
        speech_model: see ``find_speech_model``.
        device: of the recogniser.
        forced: align by pocketsphinx? None = if it is installed.
        tell: told seconds that are done, so that one can see that it goes on.

    Raises:
        UserError: the transcript cannot be read, or is of no known kind, or has no times and there
            is no sound; or recognition is needed and cannot be had.
    """
    if audio is not None and not audio.num_samples:
        audio = None
    if transcript is None and text is None:
        if audio is None:
            return Transcript((), "nothing", remarks=("the clip has no sound: no words",))
        model = find_speech_model(speech_model)
        heard = recognise(audio, model, device=device, tell=tell)
        align = forced if _is_english(heard) else False
        words = refined(heard.words, audio, forced=align, tell=tell)
        return Transcript(words, model.name, heard.no_speech, _remarks(words, audio, heard))
    if text is not None:
        rough = [RoughWord(word) for word in text.split()]
        source = "text"
    else:
        assert transcript is not None, "one of the two is given"
        found, source = _written(Path(transcript))
        if source == "subtitles":
            return _with_sound([*moved(_timed(found), offset)], audio, source, forced, tell)
        rough = found
    if not rough:
        return Transcript((), source)
    if any(word.start is not None for word in rough):
        end = max(word.end for word in rough if word.end is not None)
        last = end if audio is None else max(end, audio.end - offset)
        words = moved(with_times(rough, start=min(0.0, _first(rough)), end=last), offset)
        return _with_sound(words, audio, source, forced, tell)
    if audio is None:
        raise UserError("a text without times needs the clip's sound to be placed in, it has none")
    return _placed(rough, audio, speech_model, device, forced, tell)


def _first(rough: list[RoughWord]) -> float:
    return min(word.start for word in rough if word.start is not None)


def _written(path: Path) -> tuple[list[RoughWord], str]:
    kind = path.suffix.lower()
    if kind in SUBTITLES:
        words = read_subtitles(path)
        return [RoughWord(w.text, w.start, w.end) for w in words], "subtitles"
    if kind in TIMED:
        return read_timed(path), "timed words"
    if kind in TEXTS:
        return read_plain(path), "text"
    known = ", ".join(TRANSCRIPTS)
    raise UserError(f"{path} is no transcript of a known kind: its name must end in one of {known}")


def _timed(rough: list[RoughWord]) -> list[Word]:
    """A subtitle's words: the cue is known, the place within it is not."""
    return [
        Word(word.text, word.start, word.end, interpolated=True)
        for word in rough
        if word.start is not None and word.end is not None
    ]


def _with_sound(
    words: list[Word] | tuple[Word, ...],
    audio: Audio | None,
    source: str,
    forced: bool | None,
    tell: Callable[[float], None] | None,
) -> Transcript:
    if audio is None:
        return Transcript(tuple(words), source, remarks=_interpolated(words))
    # Before they are moved: a transcript that drifts is not to be mended in silence.
    drifted = _drifts(words, audio)
    better = tuple(words) if drifted else refined(words, audio, forced=forced, tell=tell)
    return Transcript(better, source, remarks=(*drifted, *_interpolated(better)))


def _placed(
    rough: list[RoughWord],
    audio: Audio,
    speech_model: str | Path | None,
    device: str,
    forced: bool | None,
    tell: Callable[[float], None] | None,
) -> Transcript:
    """A text without times, by what a recogniser hears, or else by the voice's energy."""
    remarks: list[str] = []
    words: tuple[Word, ...]
    try:
        heard = recognise(audio, find_speech_model(speech_model), device=device, tell=tell)
        known = matched(rough, heard.words)
        share = sum(word.start is not None for word in known) / len(known)
        if share < 0.5:
            remarks.append(
                f"only {100 * share:.0f} % of the text's words were heard in the clip: "
                "is it this clip's text?"
            )
        words = with_times(known, start=audio.start, end=audio.end)
    except UserError as error:
        if speech_model is not None:
            raise
        remarks.append(f"the text is placed by the voice's energy alone: {error}")
        words = tuple(spread(rough, audio))
    words = refined(words, audio, forced=forced, tell=tell)
    return Transcript(words, "text", remarks=(*remarks, *_interpolated(words)))


def _is_english(heard: Heard) -> bool:
    return heard.language in ("en", "")


def _remarks(words: tuple[Word, ...], audio: Audio, heard: Heard) -> tuple[str, ...]:
    said = []
    if not words:
        said.append("no speech was found in the clip")
    if heard.invented:
        places = ", ".join(f"{one.start:.1f}-{one.end:.1f} s" for one in heard.invented[:5])
        said.append(f"{len(heard.invented)} segments were dropped as invented words: {places}")
    return (*said, *_drifts(words, audio), *_interpolated(words))


def _interpolated(words: list[Word] | tuple[Word, ...]) -> tuple[str, ...]:
    count = sum(word.interpolated for word in words)
    return (f"{count} of {len(words)} words have interpolated times",) if count else ()


def _drifts(words: list[Word] | tuple[Word, ...], audio: Audio) -> tuple[str, ...]:
    """The self-check of times against the voice, ten minutes of sound at a time."""
    found = []
    for start, samples in audio.pieces(_CHECKED_SECONDS):
        end = start + _CHECKED_SECONDS
        inside = [word for word in words if start <= word.start < end]
        found += drifts(inside, active_frames(samples), start=start)
    return tuple(str(one) for one in found)
