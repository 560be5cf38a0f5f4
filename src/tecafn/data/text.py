"""What a batch carries for the text: token ids, cached hidden states, or stored vectors.

Of a word-aligned dataset also where each token was spoken: ``frames_of_texts``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tecafn.core.modality import Modality
from tecafn.core.text import is_blank
from tecafn.data.recognition import ChangedText
from tecafn.data.store import SplitView

Tokenize = Callable[[Sequence[str], Sequence[str | None]], Sequence[NDArray[np.int64]]]
"""Maps N texts and their contexts (None where there is none) to N arrays (L,) of token ids,
special tokens included."""

TokenSpans = Callable[[Sequence[str], Sequence[str | None]], Sequence[NDArray[np.int64]]]
"""Maps the same to N arrays (L, 2): from which character of the text to which a token reaches;
(-1, -1) for special tokens and those of a context."""

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")  # an apostrophe may be a typesetter's
_PAUSE = "sp"


@runtime_checkable
class HiddenStates(Protocol):
    """Text states computed once by a frozen encoder.

    ``hidden(row)`` is (L, D) float32 for a row of the **whole split**: a cache made once serves
    every fold's subset.
    """

    def hidden(self, row: int) -> NDArray[np.float32]:
        """(L, D) float32 states of the split's row."""
        ...


class FrameSource(Protocol):
    """What a batch has of one modality, row by row."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) frames or tokens of each row; 0 = absent."""
        ...

    @property
    def width(self) -> int | None:
        """Columns of a frame; None of token ids."""
        ...

    def frames(self, row: int) -> NDArray[Any]:
        """(L, D) frames, or (L,) token ids, of a row of the view."""
        ...


class TokenIds:
    """(L,) int64 per row, tokenised once; a blank text has none and so is absent."""

    def __init__(self, view: SplitView, tokenize: Tokenize) -> None:
        ids = [np.asarray(row, np.int64) for row in tokenize(view.texts, view.column("context"))]
        if len(ids) != len(view):
            raise ValueError(f"tokenize must give {len(view)} arrays, got {len(ids)}")
        blank = np.empty(0, np.int64)
        self._ids = [
            blank if is_blank(text) else row for row, text in zip(ids, view.texts, strict=True)
        ]
        self.lengths = np.array([len(row) for row in self._ids], np.int64)
        self.width: int | None = None

    def frames(self, row: int) -> NDArray[Any]:
        """(L,) token ids."""
        return self._ids[row]


class CachedStates:
    """(L, D) float32 per row from a cache; a blank text has none and so is absent."""

    def __init__(self, view: SplitView, states: HiddenStates) -> None:
        self._states = states
        self._split_rows = view.split_rows
        shapes = [states.hidden(int(row)).shape for row in view.split_rows]
        self._blank = np.array([is_blank(text) for text in view.texts])
        self.lengths = np.where(
            self._blank, 0, np.array([shape[0] for shape in shapes], np.int64)
        ).astype(np.int64)
        self.width: int | None = int(shapes[0][1])

    def frames(self, row: int) -> NDArray[Any]:
        """(L, D) hidden states."""
        states = self._states.hidden(int(self._split_rows[row]))
        return states[:0] if self._blank[row] else states


class StoredVectors:
    """(L, D) float32 per row, as the store has them."""

    def __init__(self, view: SplitView, modality: Modality) -> None:
        self._view = view
        self._modality = modality
        self.lengths = view.lengths(modality)
        self.width: int | None = view.widths[modality]

    def frames(self, row: int) -> NDArray[Any]:
        """(L, D) stored frames."""
        return self._view.sequence(row, self._modality)


def frames_of_texts(view: SplitView, spans: TokenSpans | None) -> list[NDArray[np.int64]] | None:
    """For each token of each text the frame it was spoken in, in a word-aligned dataset.

    Args:
        view: the rows; ``words`` has one per frame, pauses included.
        spans: what ``Tokenizer.spans`` gives; None where text comes as stored vectors, which are
            aligned themselves.

    Returns:
        N arrays (L,) int64 with -1 for a token without a frame, as long as the text; None if no
        row has words.
    """
    limit = view.max_frames
    if spans is None:
        lengths = view.lengths(Modality.TEXT)
        return [_within(np.arange(length, dtype=np.int64), limit) for length in lengths]
    words = view.column("words")
    if not any(words):
        return None
    reaches = spans(view.texts, view.column("context"))
    return [
        np.empty(0, np.int64)
        if is_blank(text)
        else _within(align_tokens(text, reach, said or ()), limit)
        for text, reach, said in zip(view.texts, reaches, words, strict=True)
    ]


def frames_of_changed_texts(
    view: SplitView, spans: TokenSpans, changed: Sequence[ChangedText]
) -> list[NDArray[np.int64]] | None:
    """``frames_of_texts`` where words were put in place of others: each has the other's frame.

    Args:
        view: the rows with their texts as they were.
        spans: what ``Tokenizer.spans`` gives.
        changed: the N texts as they are read now.

    Returns:
        N arrays (L,) int64, as long as the changed texts; None if no row has words.
    """
    spoken = view.column("words")
    if not any(spoken):
        return None
    reaches = spans([one.text for one in changed], view.column("context"))
    found = []
    for text, one, reach, said in zip(view.texts, changed, reaches, spoken, strict=True):
        if is_blank(one.text):
            found.append(np.empty(0, np.int64))
            continue
        frames = align_tokens(text, np.array(one.before, np.int64).reshape(-1, 2), said or ())
        place = np.full(len(one.text) + 1, -1, np.int64)  # of each character
        for (start, end), frame in zip(one.after, frames, strict=True):
            place[start:end] = frame
        found.append(_within(_of_characters(reach, place), view.max_frames))
    return found


def _within(frames: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """-1 in place of frames that were cut: their words were spoken in none that is left."""
    return frames if limit is None else np.where(frames < limit, frames, -1)


def align_tokens(text: str, spans: NDArray[np.int64], words: Sequence[str]) -> NDArray[np.int64]:
    """Which of the spoken words each token of a text belongs to.

    The text's words and the spoken ones are matched in order, whatever their case and punctuation;
    a word that only one side has matches nothing.

    Args:
        text: as it was tokenised.
        spans: (L, 2) characters of each token, (-1, -1) for special ones.
        words: W spoken words; pauses are "sp".

    Returns:
        (L,) int64 in [0, W), or -1.

    Example:
        >>> spans = np.array([[-1, -1], [0, 3], [3, 5], [5, 6], [7, 11], [-1, -1]])
        >>> align_tokens("Didn't work", spans, ["sp", "DIDN'T", "uh", "WORK"]).tolist()
        [-1, 1, 1, 1, 3, -1]
    """
    written = list(_WORD.finditer(text))
    spoken = [
        (number, _folded(match[0]))
        for number, word in enumerate(words)
        if word != _PAUSE
        for match in _WORD.finditer(word)
    ]
    matcher = SequenceMatcher(
        None, [_folded(match[0]) for match in written], [word for _, word in spoken], autojunk=False
    )
    place = np.full(len(text) + 1, -1, np.int64)  # of each character
    for block in matcher.get_matching_blocks():
        for step in range(block.size):
            start, end = written[block.a + step].span()
            place[start:end] = spoken[block.b + step][0]
    return _of_characters(spans, place)


def _of_characters(spans: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """The frame of each token, from the frame of each character of its text."""
    frames = np.full(len(spans), -1, np.int64)
    for token, (start, end) in enumerate(spans.tolist()):
        if start >= 0:
            # Some tokenizers count the space before a word as the token's; it has no frame.
            known = place[start:end][place[start:end] >= 0]
            frames[token] = known[0] if len(known) else -1
    return frames


def _folded(word: str) -> str:
    """Without case and apostrophes."""
    return word.casefold().replace("'", "").replace("\u2019", "")
