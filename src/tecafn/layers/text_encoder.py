"""The text encoder: a pretrained BERT-family encoder, wholly, partly or not trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tecafn.core.batch import Padded
from tecafn.core.errors import UserError
from tecafn.core.info import STORED_FEATURES, DataInfo, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.layers.encoder_source import FAMILY, hub_options, not_found, resolve_source
from tecafn.layers.sequence import may_hide_frames, zero_padding

# Those that tell the second segment of a pair by an embedding; the others have one segment.
SEGMENTED = ("bert", "electra", "ernie")
# Of a configuration, what gives the same weights another meaning.
_DECIDES_STATES = (
    "model_type", "num_attention_heads", "n_heads", "hidden_act", "activation", "layer_norm_eps",
    "pad_token_id",
)  # fmt: skip


def _load(what: Any, source: str, name: str, **options: Any) -> Any:
    """``what.from_pretrained`` with its many failures turned into one line."""
    from safetensors import SafetensorError

    options |= hub_options(source)
    try:
        return what.from_pretrained(source, **options)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        if Path(source).is_dir():
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"text_encoder {name!r}: the directory is there but does not load as a "
                f"BERT-family model: {reason}"
            ) from error
        raise UserError(not_found(name, "no network?")) from error


def _load_weights(source: str, name: str) -> Any:
    """The model in float32, every weight from its files.

    Raises:
        UserError: the files lack weights, which transformers would fill with random numbers.
    """
    from transformers import AutoModel

    options = {"attn_implementation": "sdpa", "output_loading_info": True}
    model, report = _load(AutoModel, source, name, **options)
    # The pooler is not used, and many checkpoints have none.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise UserError(
            f"text_encoder {name!r}: its files lack {len(missing)} of the weights of a "
            f"{type(model).__name__}, {missing[0]} for one; expected a complete checkpoint"
        )
    return model


def _separator_id(config: Any, source: str, name: str) -> int | None:
    """The id of [SEP]: the model's configuration names it, or else its tokenizer does.

    None, and so no second segment, for a model with neither.
    """
    from transformers import AutoTokenizer

    known: int | None = getattr(config, "sep_token_id", None)
    if known is None:
        try:
            known = _load(AutoTokenizer, source, name).sep_token_id
        except UserError:
            return None
    return known


def _quiet_transformers() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


class Tokenizer:
    """Text to token ids, ``[CLS] ... [SEP]`` or ``[CLS] context [SEP] text [SEP]``.

    Args:
        source: as ``TextEncoderSpec.source``.
        max_tokens: longer texts are truncated at the end; of a pair the context is cut first, its
            beginning before what was said last.
    """

    def __init__(self, source: str, *, max_tokens: int = 128) -> None:
        from transformers import AutoTokenizer

        _quiet_transformers()
        self._tokenizer = _load(AutoTokenizer, resolve_source(source), source)
        self._max_tokens = max_tokens

    def __call__(
        self, texts: Sequence[str], contexts: Sequence[str | None] | None = None
    ) -> list[NDArray[np.int64]]:
        """One int64 array of token ids for each text; of a pair where it has a context."""
        found: dict[int, NDArray[np.int64]] = {}
        for rows, encoded, _ in self._encode(texts, contexts):
            for row, ids in zip(rows, encoded["input_ids"], strict=True):
                found[row] = np.asarray(ids, dtype=np.int64)
        return [found[row] for row in range(len(texts))]

    def uncut_lengths(
        self, texts: Sequence[str], contexts: Sequence[str | None] | None = None
    ) -> NDArray[np.int64]:
        """(N,) tokens that each text, with its context, would have if none were cut."""
        pairs = [
            (text, (context or "").strip())
            for text, context in zip(texts, contexts or [None] * len(texts), strict=True)
        ]
        # A token stands for one byte at least: short texts need not be read again.
        special = self._tokenizer.num_special_tokens_to_add(pair=True)
        sizes = [sum(len(part.encode("utf-8", "replace")) for part in pair) for pair in pairs]
        lengths = np.zeros(len(pairs), np.int64)
        for row, (text, context) in enumerate(pairs):
            if sizes[row] + special > self._max_tokens:
                given = (context, text) if context else (text,)
                lengths[row] = len(self._tokenizer(*given, truncation=False)["input_ids"])
        return lengths

    def spans(
        self, texts: Sequence[str], contexts: Sequence[str | None] | None = None
    ) -> list[NDArray[np.int64]]:
        """Which characters of its text each token stands for.

        Returns:
            One (L, 2) int64 array of starts and ends for each text, in step with the token ids;
            (-1, -1) for special tokens and those of a context.

        Raises:
            UserError: the tokenizer has no fast implementation, which alone knows them.
        """
        if not self._tokenizer.is_fast:
            raise UserError(
                "word-aligned text needs a fast tokenizer, which knows the characters of each "
                f"token; {type(self._tokenizer).__name__} does not"
            )
        found: dict[int, NDArray[np.int64]] = {}
        for rows, encoded, own in self._encode(texts, contexts, return_offsets_mapping=True):
            for place, row in enumerate(rows):
                reach = np.asarray(encoded["offset_mapping"][place], dtype=np.int64).reshape(-1, 2)
                segments = encoded.sequence_ids(place)  # None for special tokens
                reach[np.array([segment != own for segment in segments], np.bool_)] = -1
                found[row] = reach
        return [found[row] for row in range(len(texts))]

    def _encode(
        self, texts: Sequence[str], contexts: Sequence[str | None] | None, **options: bool
    ) -> Iterator[tuple[list[int], Any, int]]:
        """Rows, their encoding and the segment that is the text: single texts, then pairs.

        Each row by itself: what stands beside it must not change how it is read.
        """
        before = [(context or "").strip() for context in contexts or [None] * len(texts)]
        singles = [row for row, context in enumerate(before) if not context]
        if singles:
            alone = [texts[row] for row in singles]
            options_alone = {"truncation": True, "max_length": self._max_tokens, **options}
            yield singles, self._tokenizer(alone, **options_alone), 0
        pairs = [row for row, context in enumerate(before) if context]
        if pairs:
            # A text is truncated at its end, so that characters keep their places.
            seconds = self._cut([texts[row] for row in pairs])
            yield pairs, self._encode_pairs([before[row] for row in pairs], seconds, **options), 1

    def _encode_pairs(self, contexts: Sequence[str], texts: Sequence[str], **options: bool) -> Any:
        side = self._tokenizer.truncation_side
        self._tokenizer.truncation_side = "left"
        try:
            return self._tokenizer(
                list(contexts),
                list(texts),
                truncation="only_first",
                max_length=self._max_tokens,
                **options,
            )
        finally:
            self._tokenizer.truncation_side = side

    def _cut(self, texts: Sequence[str]) -> list[str]:
        """Texts that leave room for one token of context, which truncation may not remove."""
        room = self._max_tokens - self._tokenizer.num_special_tokens_to_add(pair=True) - 1
        encoded = self._tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True
        )
        return [
            text if len(offsets) <= room else text[: offsets[room - 1][1]]
            for text, offsets in zip(texts, encoded["offset_mapping"], strict=True)
        ]

    @property
    def separator_id(self) -> int:
        """The id of [SEP]; tokens after the first one are the second segment of a pair."""
        return int(self._tokenizer.sep_token_id)

    def save(self, directory: Path) -> None:
        """Write the tokenizer's files so that a model can be used without its source."""
        self._tokenizer.save_pretrained(str(directory))


class TextEncoder(nn.Module):
    """Last hidden states of a BERT-family encoder.

    The embeddings and all but the last ``num_trained_layers`` layers are frozen: they run in
    evaluation mode always (no dropout), so that what they compute can be computed once and
    cached. ``forward`` takes either token ids or those cached states.

    Of ``[CLS] context [SEP] text [SEP]`` what follows the first [SEP] is the second segment, where
    the encoder knows segments (RoBERTa and its kin have one). Batches need not carry segments: the
    ids tell them.

    Args:
        spec: which encoder and how much of it is trained.

    Raises:
        UserError: the source cannot be found, or is not of the BERT family.
    """

    def __init__(self, spec: TextEncoderSpec) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        _quiet_transformers()
        source = resolve_source(spec.source)
        config = _load(AutoConfig, source, spec.source)
        hidden_dim = getattr(config, "hidden_size", 0)
        is_projected = getattr(config, "embedding_size", hidden_dim) != hidden_dim  # small ELECTRA
        if config.model_type not in FAMILY or is_projected:
            raise UserError(
                f"text_encoder {spec.source!r} must be of the BERT family ({', '.join(FAMILY)}; "
                f"embeddings as wide as the layers), got {config.model_type}"
            )
        if spec.load_weights:
            model = _load_weights(source, spec.source)
        else:
            model = AutoModel.from_config(config, attn_implementation="sdpa")
        # Some checkpoints are stored in half precision; precision is the trainer's choice.
        model = model.float()
        stack = model.transformer if config.model_type == "distilbert" else model.encoder
        self.config = model.config
        self.separator_id: int | None = None
        if config.model_type in SEGMENTED and config.type_vocab_size > 1:
            self.separator_id = _separator_id(config, source, spec.source)
            # Written with the architecture, so that a saved model needs no tokenizer to know it.
            self.config.sep_token_id = self.separator_id
        self.embeddings = model.embeddings
        self.layers = cast(nn.ModuleList, stack.layer)
        self.hidden_dim = int(hidden_dim)
        trained = spec.num_trained_layers
        if trained is not None and trained > len(self.layers):
            raise UserError(
                f"num_trained_text_layers must be at most the encoder's {len(self.layers)}, "
                f"got {trained}"
            )
        self.num_frozen_layers = 0 if trained is None else len(self.layers) - trained
        self.is_partly_frozen = trained is not None
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def _frozen_modules(self) -> list[nn.Module]:
        if not self.is_partly_frozen:
            return []
        return [self.embeddings, *self.layers[: self.num_frozen_layers]]

    def train(self, mode: bool = True) -> TextEncoder:
        """As ``nn.Module.train``, but the frozen part stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    @property
    def frozen_layers(self) -> list[nn.Module]:
        """Those whose states are the same in every epoch."""
        return [*self.layers][: self.num_frozen_layers]

    @property
    def trained_layers(self) -> list[nn.Module]:
        """Those after the frozen ones."""
        return [*self.layers][self.num_frozen_layers :]

    def run_layers(self, hidden: Padded, layers: Sequence[nn.Module]) -> Tensor:
        """Hidden states (B, L, D) through some layers. What comes out for padding means nothing."""
        values, mask = hidden.values, hidden.mask
        if len(values) == 0:
            return values  # a process's empty share of a batch, which transformers cannot reshape
        # Every query sees every real token. A row without any (an absent text) sees them all: an
        # empty softmax is NaN in some kernels, and callers drop that row by ``present``.
        allowed: Tensor | None = None
        if self.training or may_hide_frames(mask):
            allowed = (mask | ~mask.any(1, keepdim=True))[:, None, None, :]
        for layer in layers:
            states = layer(values, attention_mask=allowed)
            values = states[0] if isinstance(states, tuple) else states
        return values

    def segment_ids(self, tokens: Padded, separator_id: int) -> Tensor:
        """(B, L) int64: how many separators stand before a token, up to the last segment's number.

        Padding is of segment 0, as tokenizers have it.
        """
        separators = ((tokens.values == separator_id) & tokens.mask).long()
        before = separators.cumsum(1) - separators
        return before.clamp(max=self.config.type_vocab_size - 1) * tokens.mask

    def run_frozen(self, text: Padded) -> Padded:
        """The hidden states (B, L, D) that the first trained layer takes.

        Those after the embeddings where everything is trained, or else after the frozen layers.

        Args:
            text: token ids (B, L), or these states (B, L, D), cached, which are returned.
        """
        if text.values.is_floating_point():
            return text
        segments = {}
        if self.separator_id is not None:
            segments["token_type_ids"] = self.segment_ids(text, self.separator_id)
        embedded = Padded(self.embeddings(input_ids=text.values, **segments), text.mask)
        return Padded(self.run_layers(embedded, self.frozen_layers), text.mask)

    def run_trained(self, hidden: Padded) -> Padded:
        """What the trained layers make of ``run_frozen``: (B, L, D), zero where masked.

        The other half of ``forward``, for a method that changes the states in between.
        """
        states = self.run_layers(hidden, self.trained_layers)
        return Padded(zero_padding(states, hidden.mask), hidden.mask)

    def forward(self, text: Padded) -> Padded:
        """Token ids (B, L), or cached states (B, L, D), to last hidden states (B, L, D)."""
        return self.run_trained(self.run_frozen(text))

    @property
    def num_trained_layers(self) -> int:
        """Layers after the frozen ones."""
        return len(self.trained_layers)

    def frozen_fingerprint(self) -> str:
        """SHA-256 over what decides the frozen states: the key under which they are cached."""
        shape = {name: getattr(self.config, name, None) for name in _DECIDES_STATES}
        digest = hashlib.sha256(
            f"{self.num_frozen_layers} {self.separator_id} {sorted(shape.items())}".encode()
        )
        for module in self._frozen_modules():
            for name, value in sorted(module.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save_architecture(self, directory: Path) -> None:
        """Write the configuration (not the weights) for ``load_weights=False``."""
        self.config.save_pretrained(str(directory))


class StoredTextVectors(nn.Module):
    """Text encoded before it was stored (GloVe rows, frozen BERT vectors): passed through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden_dim = width
        self.is_partly_frozen = False
        self.num_trained_layers = 0

    def forward(self, text: Padded) -> Padded:
        """(B, L, D) with padding zeroed."""
        return Padded(zero_padding(text.values, text.mask), text.mask)

    def run_frozen(self, text: Padded) -> Padded:
        """The stored vectors."""
        return self.forward(text)

    def run_trained(self, hidden: Padded) -> Padded:
        """No layer is trained: the vectors as they are, padding zeroed."""
        return self.forward(hidden)


def build_text_encoder(info: DataInfo) -> TextEncoder | StoredTextVectors:
    """The encoder that ``info`` names; ``features`` reads the dataset's stored text vectors."""
    if info.text_encoder.source != STORED_FEATURES:
        return TextEncoder(info.text_encoder)
    if Modality.TEXT not in info.widths:
        raise UserError(
            "text_encoder 'features' needs a dataset with stored text vectors; this one has "
            f"{', '.join(sorted(info.widths)) or 'none'}"
        )
    return StoredTextVectors(info.widths[Modality.TEXT])
