"""Traces in voice and face of what is said and who says it: a synthetic corpus's correspondence.

Without them the three modalities of a video share nothing but their lengths, so that nobody could
tell whose voice belongs to which words. With a correspondence ``c`` in (0, 1]

- **energy** of the voice and **beats** of the face follow each word's arousal, word by word;
- **pitch** of the voice and **animation** of the face follow the arousal of the remark's strongest
  word, and share the speaker's style, one number per video;
- stress falls on the word that carries the sentiment;
- an incongruent clip is one whose voice and face pull apart: its voice plays the words down, with
  energy and pitch against the words' arousal, while its face goes with them.

``c`` is the share of a trace's variance that the words decide; the rest is the moment's. Traces lie
in directions of a voice's or face's factors that nothing else uses, and change no text, no label
and no latent. ``docs/synthetic-corpus.md`` has the formulas and what an oracle tells with them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tecafn.data.lexicon import (
    DEGREES,
    DOING,
    LIKING,
    PERSON,
    TOPICS,
    VERB_DEGREES,
    VERDICT,
    Graded,
)
from tecafn.data.remarks import words_of

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

CONTOUR, LEVEL = 0, 1
"""Columns of a course: what follows word by word, and what holds through the utterance."""

# Voice and face pull apart where the product of their latents is below this: one clip in five.
INCONGRUENT_BELOW = -0.5

# Mean and deviation, over the corpus, of a word's arousal and of a remark's strongest word's.
_WORD_MEAN, _WORD_STD = 0.276, 0.606
_STRONGEST_MEAN, _STRONGEST_STD = 1.227, 0.741

# Deviations of the traces at c = 1, where a latent's is 1.
_CONTOUR_SCALE, _LEVEL_SCALE, _STYLE_SCALE = 0.8, 0.8, 0.6


@dataclass(frozen=True)
class Traces:
    """What voice and face show of a video's words and speaker.

    Args:
        voice: (T, 2) over all audio frames in a row: energy, pitch.
        face: (T', 2) over all vision frames in a row: beats, animation.
        stress: (U,) the word each utterance's stresses move to.
        moved: (U, S) bool, which of them do.
        congruent: (U,) bool.
    """

    voice: Floats
    face: Floats
    stress: Integers
    moved: npt.NDArray[np.bool_]
    congruent: npt.NDArray[np.bool_]


def word_arousal(text: str) -> Floats:
    """(W,) how strongly each word judges, whichever way: 0 for a word that judges nothing.

    The words of a graded phrase have its valence's size, times the degree before it.

    Args:
        text: a remark of the grammar; words outside the lexicon judge nothing.

    Example:
        >>> word_arousal("The film was extremely good.").tolist()
        [0.0, 0.0, 0.0, 1.68, 1.68]
    """
    words = [word if word == "I" else word.lower() for word in words_of(text)]
    arousal = np.zeros(len(words))
    strengths, degrees, longest = _phrases()
    place = 0
    while place < len(words):
        found = _longest_match(words, place, strengths, longest)
        if found is None:
            place += 1
            continue
        length, strength = found
        before = _degree_before(words, place, degrees)
        first = place
        if before is not None:
            first, strength = place - before[0], strength * before[1]
        arousal[first : place + length] = strength
        place += length
    return arousal


def _longest_match(
    words: Sequence[str], place: int, strengths: dict[str, float], longest: int
) -> tuple[int, float] | None:
    for length in range(min(longest, len(words) - place), 0, -1):
        strength = strengths.get(" ".join(words[place : place + length]))
        if strength is not None:
            return length, strength
    return None


def _degree_before(
    words: Sequence[str], place: int, degrees: dict[str, float]
) -> tuple[int, float] | None:
    """How many words the degree before ``place`` has, and its factor."""
    for length in (2, 1):
        if place >= length:
            factor = degrees.get(" ".join(words[place - length : place]))
            if factor is not None:
                return length, factor
    return None


@functools.cache
def _phrases() -> tuple[dict[str, float], dict[str, float], int]:
    """Sizes of graded phrases, factors of degrees, and the longest phrase's number of words."""
    tables: list[Graded] = [PERSON, LIKING, DOING, VERDICT]
    tables += [topic.adjectives for topic in TOPICS]
    strengths: dict[str, float] = {}
    for table in tables:
        for phrase, valence in zip(table.phrases, table.valences, strict=True):
            # As a remark has it, where commas are dropped; a person's and a thing's grade of one
            # word differ by little, and the first counts.
            strengths.setdefault(phrase, abs(valence))
    degrees = {degree.phrase: degree.factor for degree in (*DEGREES, *VERB_DEGREES)}
    return strengths, degrees, max(phrase.count(" ") + 1 for phrase in strengths)


def draw_traces(
    generator: np.random.Generator,
    texts: Sequence[str],
    *,
    correspondence: float,
    agreement: Floats,
    words: Sequence[Floats],
    num_audio: Integers,
    num_vision: Integers,
    num_stresses: int,
) -> Traces:
    """The traces of one video.

    Args:
        generator: of the traces alone, so that nothing else of the corpus moves.
        texts: U remarks.
        correspondence: c in (0, 1].
        agreement: (U,) products of the voice's and the face's latents.
        words: U arrays (W, 2) of word intervals in seconds.
        num_audio: (U,) audio frames.
        num_vision: (U,) vision frames.
        num_stresses: S stressed words of an utterance.
    """
    arousal = [word_arousal(text) for text in texts]
    congruent = agreement >= INCONGRUENT_BELOW
    strongest = np.array([values.max() for values in arousal])
    level = (strongest - _STRONGEST_MEAN) / _STRONGEST_STD
    contour = [(values - _WORD_MEAN) / _WORD_STD for values in arousal]
    style = float(generator.standard_normal())
    sign = np.where(congruent, 1.0, -1.0)

    def course(direction: Floats, num_frames: Integers) -> Floats:
        """(T, 2): each word's and each remark's arousal, partly the moment's own."""
        levels = _partly(generator, level, correspondence) * direction * _LEVEL_SCALE
        levels = levels + np.sqrt(correspondence) * _STYLE_SCALE * style
        parts = []
        for row, intervals in enumerate(words):
            heights = _partly(generator, contour[row], correspondence)
            place = word_of_frames(intervals, int(num_frames[row]))
            energy = _CONTOUR_SCALE * direction[row] * heights[place]
            parts.append(np.column_stack([energy, np.full(len(place), levels[row])]))
        return np.concatenate(parts)

    voice = course(sign, num_audio)
    face = course(np.ones_like(sign), num_vision)
    moved = generator.random((len(texts), num_stresses)) < correspondence
    carrying = np.array([int(values.argmax()) for values in arousal])
    return Traces(voice, face, carrying, moved, congruent)


def _partly(generator: np.random.Generator, wanted: Floats, share: float) -> Floats:
    """A mixture of which ``share`` of the variance is ``wanted``'s; all of it shrinks with it."""
    own = generator.standard_normal(len(wanted))
    return np.asarray(share * wanted + np.sqrt(share * (1 - share)) * own)


def word_of_frames(intervals: Floats, num_frames: int) -> Integers:
    """(L,) the word that is spoken in each of an utterance's frames, which divide it evenly.

    Example:
        >>> word_of_frames(np.array([[0.0, 1.0], [1.0, 4.0]]), 4).tolist()
        [0, 1, 1, 1]
    """
    start, end = intervals[0, 0], intervals[-1, 1]
    middles = start + (end - start) * (np.arange(num_frames) + 0.5) / num_frames
    place = np.searchsorted(intervals[:, 1], middles, side="right")
    return np.asarray(place.clip(max=len(intervals) - 1), np.int64)
