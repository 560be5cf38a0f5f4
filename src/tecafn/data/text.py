"""What a batch carries for the text: token ids, cached hidden states, or stored vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tecafn.core.batch import Modality
from tecafn.data.store import SplitView

Tokenize = Callable[[Sequence[str], Sequence[str | None]], Sequence[NDArray[np.int64]]]
"""Maps N texts and their contexts (None where there is none) to N arrays (L,) of token ids,
special tokens included."""


@runtime_checkable
class HiddenStates(Protocol):
    """Text states computed once by a frozen encoder.

    ``hidden(row)`` is (L, D) float32 for a row of the **whole split**: a cache made once serves
    every fold's subset.
    """

    def hidden(self, row: int) -> NDArray[np.float32]:
        """(L, D) float32 states of the split's row."""
        ...


class TokenIds:
    """(L,) int64 per row, tokenised once; a blank text has none and so is absent."""

    def __init__(self, view: SplitView, tokenize: Tokenize) -> None:
        ids = [np.asarray(row, np.int64) for row in tokenize(view.texts, view.column("context"))]
        if len(ids) != len(view):
            raise ValueError(f"tokenize must give {len(view)} arrays, got {len(ids)}")
        blank = np.empty(0, np.int64)
        self._ids = [
            row if text.strip() else blank for row, text in zip(ids, view.texts, strict=True)
        ]
        self.lengths = np.array([len(row) for row in self._ids], np.int64)
        self.width: int | None = None

    def frames(self, row: int) -> NDArray[Any]:
        """(L,) token ids."""
        return self._ids[row]


class CachedHidden:
    """(L, D) float32 per row from a cache; a blank text has none and so is absent."""

    def __init__(self, view: SplitView, states: HiddenStates) -> None:
        self._states = states
        self._split_rows = view.split_rows
        shapes = [states.hidden(int(row)).shape for row in view.split_rows]
        self._blank = np.array([not text.strip() for text in view.texts])
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


FrameSource = TokenIds | CachedHidden | StoredVectors
