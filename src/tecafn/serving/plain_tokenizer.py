"""A saved tokenizer without transformers: the same token ids from the library beneath it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.text import uncut_lengths
from tecafn.layers.context_mask import context_mask


class PlainTokenizer:
    """Text to token ids as ``layers.text_encoder.Tokenizer`` makes them, from ``tokenizer.json``.

    Args:
        path: the file.
        max_tokens: longer texts are truncated at the end; of a pair the context is cut first, its
            beginning before what was said last.

    Raises:
        UserError: the file is missing or damaged, or tokenizers is not installed.
    """

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        try:
            import tokenizers
        except ImportError:
            raise UserError(
                "an exported model that reads sentences needs tokenizers: pip install tokenizers"
            ) from None
        try:
            self._alone = tokenizers.Tokenizer.from_file(str(path))
            self._pair = tokenizers.Tokenizer.from_file(str(path))
            self._bare = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no class of its own for errors
            raise UserError(
                f"{path} is missing or damaged: {' '.join(str(error).split())}"
            ) from None
        for one in (self._alone, self._pair, self._bare):
            one.no_padding()
            one.no_truncation()
        self._alone.enable_truncation(max_tokens)
        self._pair.enable_truncation(max_tokens, strategy="only_first", direction="left")
        self._max_tokens = max_tokens
        # One token of a context stays, which truncation may not remove.
        self._room = max_tokens - self._bare.num_special_tokens_to_add(is_pair=True) - 1

    def __call__(
        self, texts: Sequence[str], contexts: Sequence[str | None] | None = None
    ) -> list[NDArray[np.int64]]:
        """One int64 array of token ids for each text; of a pair where it has a context."""
        encoded = self._encode(texts, contexts)
        return [np.asarray(one.ids, dtype=np.int64) for one in encoded]

    @property
    def max_tokens(self) -> int:
        """At how many a text is cut."""
        return self._max_tokens

    def uncut_lengths(
        self, texts: Sequence[str], contexts: Sequence[str | None] | None = None
    ) -> NDArray[np.int64]:
        """(N,) tokens that each text would have if none were cut; see ``core/text.py``."""
        lengths = uncut_lengths(
            texts,
            contexts,
            max_tokens=self._max_tokens - self._bare.num_special_tokens_to_add(is_pair=True),
            count=lambda *given: len(self._bare.encode(*given).ids),
        )
        return np.array(lengths, np.int64)

    def context_masks(
        self, texts: Sequence[str], contexts: Sequence[str | None]
    ) -> list[NDArray[np.bool_]]:
        """Which tokens are those of the context, the separator after it included: (L,) bool."""
        masks = []
        before = [(context or "").strip() for context in contexts]
        for text, context, encoded in zip(
            texts, before, self._encode(texts, contexts), strict=True
        ):
            special = np.asarray(encoded.special_tokens_mask, np.bool_)
            num_own = 0
            if context:
                own = self._bare.encode(self._cut(text), add_special_tokens=False)
                num_own = len(own.ids)
            masks.append(context_mask(special, num_own if context else None))
        return masks

    def _encode(self, texts: Sequence[str], contexts: Sequence[str | None] | None) -> list[Any]:
        before = [(context or "").strip() for context in contexts or [None] * len(texts)]
        return [
            self._pair.encode(context, self._cut(text)) if context else self._alone.encode(text)
            for text, context in zip(texts, before, strict=True)
        ]

    def _cut(self, text: str) -> str:
        """As much of a text as leaves room for one token of context."""
        offsets = self._bare.encode(text, add_special_tokens=False).offsets
        return text if len(offsets) <= self._room else text[: offsets[self._room - 1][1]]
