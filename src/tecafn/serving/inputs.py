"""What a saved model is given: texts and frames of samples, checked, cut and padded.

Without torch, so that an exported model (``tecafn.onnx``) reads its input as ``Predictor`` does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.text import is_blank

Row = NDArray[Any] | None


class Tokenizes(Protocol):
    """Turns texts into token ids: ``layers.text_encoder.Tokenizer``, or an exported one."""

    def __call__(
        self, texts: Sequence[str], contexts: Sequence[str | None] | None = None
    ) -> list[NDArray[np.int64]]:
        """One array of ids for each text."""
        ...

    def context_masks(
        self, texts: Sequence[str], contexts: Sequence[str | None]
    ) -> list[NDArray[np.bool_]]:
        """Which tokens of each text are its context's."""
        ...

    def uncut_lengths(
        self, texts: Sequence[str], contexts: Sequence[str | None] | None = None
    ) -> NDArray[np.int64]:
        """(N,) tokens that each text would have if none were cut; 0 where none is."""
        ...

    @property
    def max_tokens(self) -> int:
        """At how many a text is cut."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """What a saved model reads.

    Args:
        takes: the modalities it was trained on.
        widths: of a frame of each modality that comes as frames.
        method: its name, for errors.
        is_aligned: the method needs to know in which frame each token was spoken.
        max_frames: of audio and vision this many first frames are taken; None = all.
        context_utterances: how many previous utterances it was trained to read before a text.
    """

    takes: tuple[Modality, ...]
    widths: Mapping[Modality, int]
    method: str
    is_aligned: bool
    max_frames: int | None
    context_utterances: int


@dataclass(frozen=True)
class PaddedArrays:
    """One modality of some samples, as ``core.batch.Padded`` has it: values, mask, context."""

    values: NDArray[Any]
    mask: NDArray[np.bool_]
    context: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Samples:
    """Checked samples.

    Args:
        model: what reads them.
        columns: by modality one row per sample, None where the sample lacks it.
        contexts: per sample, which tokens of its text were said before; None where a context is
            pooled with the text.
        reads_sentences: text comes as token ids.
    """

    model: ModelInput
    columns: Mapping[Modality, Sequence[Row]]
    contexts: Sequence[NDArray[np.bool_]] | None
    reads_sentences: bool

    @property
    def num_samples(self) -> int:
        """How many."""
        return len(next(iter(self.columns.values())))

    def batches(self, size: int) -> Iterator[dict[Modality, PaddedArrays]]:
        """``size`` samples at a time; a modality that none of them has is left out."""
        for start in range(0, self.num_samples, size):
            part = slice(start, start + size)
            batch = {
                m: padded(rows[part])
                for m, rows in self.columns.items()
                if any(row is not None for row in rows[part])
            }
            text = batch.get(Modality.TEXT)
            if text is not None and self.contexts is not None:
                context = np.zeros_like(text.mask)
                for place, mask in enumerate(self.contexts[part]):
                    if text.mask[place].any():
                        context[place, : len(mask)] = mask
                batch[Modality.TEXT] = PaddedArrays(text.values, text.mask, context)
            yield batch

    def frame_of_token(self, batch: Mapping[Modality, PaddedArrays]) -> NDArray[np.int64] | None:
        """(B, Lt): in which frame each token of a batch was spoken; None where nobody asks.

        Raises:
            UserError: sentences and frames were given without a word alignment.
        """
        text = batch.get(Modality.TEXT)
        if not self.model.is_aligned or text is None or len(batch) == 1:
            return None
        if self.reads_sentences:
            raise UserError(
                f"method {self.model.method!r} needs to know in which frame each word was "
                "spoken: predict a word-aligned dataset (tecafn predict RUN --data DIR), or give "
                "text without frames"
            )
        places = np.broadcast_to(np.arange(text.mask.shape[1]), text.mask.shape)
        limit = self.model.max_frames
        known = text.mask if limit is None else text.mask & (places < limit)
        return np.where(known, places, -1)


def read_samples(
    model: ModelInput,
    tokenizer: Tokenizes | None,
    *,
    text: Any,
    audio: Any,
    vision: Any,
    context: str | Sequence[str | None] | None,
    ignore_unused: bool,
) -> Samples:
    """Check what was given; see ``Predictor.predict`` for what it may be.

    Raises:
        UserError: nothing was given for a sample, the numbers of samples differ, a width is not
            that of the training data, or a modality was given that the model does not read.
    """
    _refuse_unused(model, {"text": text, "audio": audio, "vision": vision}, ignore_unused)
    columns = {
        Modality.TEXT: _text_rows(model, tokenizer, text, context),
        Modality.AUDIO: _frame_rows(model, Modality.AUDIO, audio),
        Modality.VISION: _frame_rows(model, Modality.VISION, vision),
    }
    given = {m: _cut(model, m, rows) for m, rows in columns.items() if rows is not None}
    if context is not None and Modality.TEXT not in given:
        raise UserError("context goes with a text, got none")
    if not given:
        raise UserError(f"nothing to predict from; this model takes {', '.join(model.takes)}")
    sizes = {len(rows) for rows in given.values()}
    if len(sizes) != 1:
        counts = {str(m): len(rows) for m, rows in given.items()}
        raise UserError(f"predict needs one number of samples in all modalities, got {counts}")
    for row in range(sizes.pop()):
        if all(rows[row] is None for rows in given.values()):
            raise UserError(
                f"sample {row} has nothing to predict from: no {' and no '.join(given)} (an "
                "empty text, or a sequence without a finite frame, is absent)"
            )
    before = None
    if Modality.TEXT in given and context is not None and tokenizer is not None:
        before = _context_masks(model, tokenizer, text, context)
    return Samples(model, given, before, reads_sentences=tokenizer is not None)


def refuse_not_finite(values: NDArray[np.float64]) -> None:
    """Refuse predictions (N,) or (N, C) of which one is not finite.

    Raises:
        UserError: names the first sample.
    """
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, *_ = place = tuple(wrong[0].tolist())
        raise UserError(
            f"the prediction of sample {row} is {values[place]}; are its frames extreme?"
        )


def padded(rows: Sequence[Row]) -> PaddedArrays:
    """Sequences of different lengths in one array.

    Frames with NaN or infinity stay where they are, zeroed and masked, so that what is aligned by
    position stays aligned.

    Args:
        rows: B arrays, (L, D) floats or (L,) token ids, at least one of them; None or L = 0 where
            a sample lacks the modality: a single masked frame, or what the longest row needs.

    Returns:
        (B, longest L, ...) and its mask.

    Example:
        >>> padded([np.array([[1.0], [float("nan")]]), None]).mask
        array([[ True, False],
               [False, False]])
    """
    known = next(row for row in rows if row is not None)
    longest = max(1, *(0 if row is None else len(row) for row in rows))
    values = np.zeros((len(rows), longest, *known.shape[1:]), known.dtype)
    mask = np.zeros((len(rows), longest), np.bool_)
    for place, row in enumerate(rows):
        if row is not None and len(row):
            values[place, : len(row)] = row
            mask[place, : len(row)] = True
    if values.dtype.kind == "f":
        finite = np.isfinite(values).all(-1)
        mask &= finite
        values[~finite] = 0.0
    return PaddedArrays(values, mask)


def _refuse_unused(model: ModelInput, given: Mapping[str, Any], ignore_unused: bool) -> None:
    """Refuse what the model would not look at."""
    unused = [name for name, value in given.items() if name not in model.takes]
    wrong = [name for name in unused if _says_something(given[name])]
    if wrong and not ignore_unused:
        raise UserError(
            f"this model was not trained with {' and '.join(wrong)}, it takes "
            f"{', '.join(model.takes)}; leave it out, or in Python pass ignore_unused=True"
        )


def _cut(model: ModelInput, modality: Modality, rows: Sequence[Row]) -> Sequence[Row]:
    """Audio and vision up to ``max_frames``, as in training."""
    limit = model.max_frames
    long = [row for row in rows if row is not None and limit is not None and len(row) > limit]
    if modality == Modality.TEXT or not long:
        return rows
    warnings.warn(
        f"{modality} of {len(long)} of {len(rows)} samples is cut at max_frames {limit}, which "
        f"this model was trained with; the longest has {max(map(len, long))} frames",
        stacklevel=3,
    )
    return [None if row is None else row[:limit] for row in rows]


def _text_rows(
    model: ModelInput,
    tokenizer: Tokenizes | None,
    text: Any,
    context: str | Sequence[str | None] | None,
) -> Sequence[Row] | None:
    if text is None or Modality.TEXT not in model.takes:
        return None
    if tokenizer is None:
        return _frame_rows(model, Modality.TEXT, text)
    texts: list[Any] = [text] if isinstance(text, str | bytes) else _items(Modality.TEXT, text)
    for row, item in enumerate(texts):
        if item is not None and not isinstance(item, str):
            raise UserError(
                f"text of sample {row} must be a string, or None where it is absent, got "
                f"{_kind(item)}"
            )
    contexts = _contexts(context)
    if contexts is not None and len(contexts) != len(texts):
        raise UserError(f"context must be one for each text, got {len(contexts)} for {len(texts)}")
    said = [t or "" for t in texts]
    ids = tokenizer(said, contexts) if texts else []
    lengths = tokenizer.uncut_lengths(said, contexts)
    num_cut = int((lengths > tokenizer.max_tokens).sum())
    if num_cut:
        warnings.warn(
            f"text of {num_cut} of {len(texts)} samples is cut at max_text_tokens "
            f"{tokenizer.max_tokens}, which this model was trained with; the longest has "
            f"{lengths.max()} tokens",
            stacklevel=3,
        )
    # A blank text says nothing: it is absent, as in training.
    return [None if is_blank(t or "") else i for t, i in zip(texts, ids, strict=True)]


def _context_masks(
    model: ModelInput, tokenizer: Tokenizes, text: Any, context: str | Sequence[str | None]
) -> list[NDArray[np.bool_]] | None:
    """Which tokens of each text are its context, where that is not pooled with the text."""
    if not model.context_utterances:
        return None
    texts = [text] if isinstance(text, str) else list(text)
    return tokenizer.context_masks([t or "" for t in texts], _contexts(context) or ())


def _contexts(context: Any) -> list[str | None] | None:
    """What was said before each text, as a list."""
    if context is None:
        return None
    if isinstance(context, bytes | Mapping) or not isinstance(context, str | Iterable):
        raise UserError(f"context must be one text or a list of them, got {_kind(context)}")
    contexts = [context] if isinstance(context, str) else list(context)
    for row, item in enumerate(contexts):
        if item is not None and not isinstance(item, str):
            raise UserError(
                f"context of sample {row} must be a string, or None where there is none, got "
                f"{_kind(item)}"
            )
    return contexts


def _frame_rows(model: ModelInput, modality: Modality, value: Any) -> list[Row] | None:
    width = model.widths.get(modality)
    if value is None or width is None:
        return None
    if isinstance(value, str | bytes):
        raise UserError(
            f"{modality} must be (L, {width}) numbers, as in the training data, got {_kind(value)}"
        )
    items = [value] if _is_one_sample(value) else _items(modality, value)
    return [_frames(modality, row, item, width) for row, item in enumerate(items)]


def _says_something(value: Any) -> bool:
    """Is it more than None, or a list of nothing but None?"""
    if isinstance(value, list | tuple):
        return any(item is not None for item in value)
    return value is not None


def _kind(value: Any) -> str:
    """What something is, for an error: ``a str``, ``an int``."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _is_tensor(value: Any) -> bool:
    """Is it one of torch's? Nobody can hand one over who has not loaded torch."""
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def _is_one_sample(value: Any) -> bool:
    """Is it an array of one sample, or a list (of lists) of numbers, rather than B samples?

    Of arrays the ones with three dimensions, or of objects, are B samples.
    """
    if not isinstance(value, list | tuple):
        is_array = isinstance(value, np.ndarray | np.generic) or _is_tensor(value)
        return is_array and value.ndim < 3 and value.dtype != object
    rows = [row if isinstance(row, list | tuple) else [row] for row in value]
    cells = [cell for row in rows for cell in row]
    return bool(cells) and all(isinstance(cell, int | float | str | np.generic) for cell in cells)


def _items(modality: Modality, value: Any) -> list[Any]:
    """B samples of one modality."""
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise UserError(f"{modality} must be one sample or a list of them, got {_kind(value)}")
    if _is_tensor(value):
        value = _array_of(value, f"{modality} must be one sample or a list of them")
    try:
        return list(value)
    except TypeError:  # an array without dimensions
        raise UserError(
            f"{modality} must be one sample or a list of them, got {_kind(value)} of one number"
        ) from None


def _array_of(tensor: Any, wanted: str) -> NDArray[Any]:
    """A tensor as float64, also one that needs a gradient, or is of bfloat16."""
    if tensor.is_complex():
        raise UserError(f"{wanted}, got complex ones")
    try:
        array: NDArray[Any] = tensor.detach().cpu().double().numpy()
    except (RuntimeError, TypeError):  # sparse, or on no device that has values
        raise UserError(f"{wanted}, got a tensor of {tensor.layout} on {tensor.device}") from None
    return array


def _frames(modality: Modality, row: int, item: Any, width: int) -> Row:
    """(L, width) float32 of one sample; None where no frame is finite."""
    if item is None:
        return None
    wanted = f"{modality} of sample {row} must be (L, {width}) numbers, as in the training data"
    if _is_tensor(item):
        item = _array_of(item, wanted)
    try:
        if isinstance(item, np.ma.MaskedArray):  # a masked frame is one with NaN
            item = np.ma.filled(item.astype(np.float64), np.nan)
        values = np.asarray(item)
        if values.dtype.kind not in "biuf" and values.dtype != object:
            raise TypeError
        values = values.astype(np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{wanted}, got {_kind(item)} of something else") from None
    if values.size == 0 and (values.ndim == 1 or values.shape[-1] == width):
        return None
    if values.ndim != 2 or values.shape[1] != width:
        shape = f"shape {tuple(values.shape)}"
        turned = values.ndim == 2 and values.shape[0] == width
        raise UserError(f"{wanted}, got {shape}{', which is turned round' if turned else ''}")
    if (np.abs(values[np.isfinite(values)]) > np.finfo(np.float32).max).any():
        raise UserError(f"{wanted}, got some beyond what single precision holds")
    if not np.isfinite(values).all(axis=1).any():
        return None
    return values.astype(np.float32)
