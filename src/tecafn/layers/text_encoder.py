"""The text encoder: any pretrained encoder, wholly, partly or not trained."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tecafn.core.batch import Padded
from tecafn.core.errors import UserError
from tecafn.core.info import STORED_FEATURES, DataInfo, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.text import uncut_lengths
from tecafn.layers.adapter import adapt
from tecafn.layers.attention import Transformer, TransformerSettings
from tecafn.layers.context_mask import context_mask
from tecafn.layers.encoder_source import FAMILY, hub_options, not_found, resolve_source
from tecafn.layers.own_forward import OwnForward
from tecafn.layers.sequence import add_positions, may_hide_frames, zero_padding

# Those that tell the second segment of a pair by an embedding; the others have one segment.
SEGMENTED = ("bert", "electra", "ernie")
# Of a configuration, what does not change what the weights mean.
_SAYS_NOTHING = ("_name_or_path", "architectures", "dtype", "transformers_version")


def _load(what: Any, source: str, name: str, **options: Any) -> Any:
    """``what.from_pretrained`` with its many failures turned into one line."""
    from safetensors import SafetensorError

    options |= hub_options(source) | {"trust_remote_code": False}
    try:
        return what.from_pretrained(source, **options)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        if Path(source).is_dir():
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"text_encoder {name!r}: the directory is there but does not load as an encoder: "
                f"{reason}"
            ) from error
        raise UserError(not_found(name, "no network?")) from error


def _load_weights(source: str, name: str, model_type: str) -> Any:
    """The model in float32, every weight from its files.

    Raises:
        UserError: the files lack weights, which transformers would fill with random numbers.
    """
    from transformers import AutoModel

    options = {"output_loading_info": True, **_attention_of(model_type)}
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
            max_tokens=self._max_tokens - self._tokenizer.num_special_tokens_to_add(pair=True),
            count=lambda *given: len(self._tokenizer(*given, truncation=False)["input_ids"]),
        )
        return np.array(lengths, np.int64)

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

    def context_masks(
        self, texts: Sequence[str], contexts: Sequence[str | None]
    ) -> list[NDArray[np.bool_]]:
        """Which tokens are those of the context, the separator after it included.

        What is left is what the text alone would have: its own tokens and the special ones around.

        Returns:
            One (L,) bool array for each text, in step with the token ids.
        """
        found: dict[int, NDArray[np.bool_]] = {}
        for rows, encoded, own in self._encode(texts, contexts, return_special_tokens_mask=True):
            for place, row in enumerate(rows):
                special = np.asarray(encoded["special_tokens_mask"][place], np.bool_)
                num_own = None
                if own:
                    text = self._tokenizer(self._cut([texts[row]])[0], add_special_tokens=False)
                    num_own = len(text["input_ids"])
                mask = context_mask(special, num_own)
                found[row] = mask
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
        if not self._tokenizer.is_fast:
            return [self._longest_beginning(text, room) for text in texts]
        encoded = self._tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True
        )
        return [
            text if len(offsets) <= room else text[: offsets[room - 1][1]]
            for text, offsets in zip(texts, encoded["offset_mapping"], strict=True)
        ]

    def _longest_beginning(self, text: str, room: int) -> str:
        """As much of a text as ``room`` tokens hold, of a tokenizer that knows no characters."""

        def fits(length: int) -> bool:
            ids = self._tokenizer(text[:length], add_special_tokens=False)["input_ids"]
            return len(ids) <= room

        if fits(len(text)):
            return text
        fitting, too_long = 0, len(text)
        while too_long - fitting > 1:
            middle = (fitting + too_long) // 2
            fitting, too_long = (middle, too_long) if fits(middle) else (fitting, middle)
        return text[:fitting]

    @property
    def separator_id(self) -> int:
        """The id of [SEP]; tokens after the first one are the second segment of a pair."""
        return int(self._tokenizer.sep_token_id)

    def save(self, directory: Path) -> None:
        """Write the tokenizer's files so that a model can be used without its source."""
        self._tokenizer.save_pretrained(str(directory))


# Heads of added layers: the most of these that divide the width.
_HEADS = (8, 6, 5, 4, 3, 2, 1)
_ADDED_DROPOUT = 0.1


class AddedLayers(nn.Module):
    """Transformer layers of ours between a text encoder and whatever reads its states.

    ``x + f(LN(x))`` with a closing LayerNorm; nothing at all with no layers. The states of a
    pretrained encoder know their positions, stored vectors are given theirs.

    Args:
        dim: width of the states.
        num_layers: how many, >= 0.
        adds_positions: the states do not know where they stand.
    """

    def __init__(self, dim: int, *, num_layers: int, adds_positions: bool = False) -> None:
        super().__init__()
        self.adds_positions = adds_positions
        self.transformer = None
        if num_layers:
            settings = TransformerSettings(
                num_heads=next(heads for heads in _HEADS if dim % heads == 0),
                attention_dropout=_ADDED_DROPOUT,
                relu_dropout=_ADDED_DROPOUT,
                residual_dropout=_ADDED_DROPOUT,
                residual="pre_norm",
                closing_norm=True,
            )
            self.transformer = Transformer(dim, settings, num_layers=num_layers)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) to the same shape; what comes out for padding means nothing."""
        if self.transformer is None:
            return states
        if self.adds_positions:
            states = add_positions(states)
        changed: Tensor = self.transformer(states, None, mask)
        return changed

    def __len__(self) -> int:
        return 0 if self.transformer is None else len(self.transformer.layers)


class TextEncoder(nn.Module):
    """Last hidden states of a pretrained encoder, any that turns token ids into hidden states.

    The embeddings and all but the last ``num_trained_layers`` layers are frozen: they run in
    evaluation mode always (no dropout), so that what they compute can be computed once and
    cached. ``forward`` takes either token ids or those cached states.

    The layers of BERT and its kin are run by hand; of other families the model's own forward runs,
    see ``layers.own_forward``.

    Of ``[CLS] context [SEP] text [SEP]`` what follows the first [SEP] is the second segment, where
    the encoder knows segments (RoBERTa and its kin have one). Batches need not carry segments: the
    ids tell them.

    With ``adapter_rank`` the weights stay as they came, and low-rank adapters of the trained
    layers' linear layers are trained (``layers.adapter``). A state dict then holds the adapters
    alone; ``weights_hash`` says which weights they belong to.

    Args:
        spec: which encoder and how much of it is trained.

    Raises:
        UserError: the source cannot be found, does not encode text, has not as many layers that
            can be trained apart, or has other weights than the spec says.
    """

    def __init__(self, spec: TextEncoderSpec) -> None:
        super().__init__()
        from transformers import AutoConfig

        _quiet_transformers()
        source = resolve_source(spec.source)
        config = _load(AutoConfig, source, spec.source)
        model = _build_model(config, source, spec)
        self.config: Any = model.config
        self.body = _body(model, spec.source)
        # Under the names that checkpoints have had from the beginning.
        for name, module in self.body.parts.items():
            self.add_module(name, module)
        self.separator_id: int | None = None
        if self.body.takes_segments:
            self.separator_id = _separator_id(config, source, spec.source)
            # Written with the architecture, so that a saved model needs no tokenizer to know it.
            self.config.sep_token_id = self.separator_id
        self.hidden_dim = self.body.hidden_dim
        trained, num_layers = spec.num_trained_layers, len(self.body.layers)
        if trained is not None and trained > num_layers > 0:
            raise UserError(
                f"num_trained_text_layers must be at most the encoder's {num_layers}, got {trained}"
            )
        if trained and not self.body.can_be_parted(num_layers - trained):
            raise UserError(
                f'num_trained_text_layers must be 0 or "all" for text_encoder {spec.source!r}, '
                f"whose layers ({type(model).__name__}) cannot be run apart, got {trained}"
            )
        self.num_frozen_layers = 0 if trained is None else num_layers - trained
        self.is_partly_frozen = trained is not None
        if self.is_partly_frozen:
            self.requires_grad_(False)
            for layer in self._trained_layers:
                layer.requires_grad_(True)
        self._unstored: frozenset[str] = frozenset()
        if spec.adapter_rank is not None:
            self._adapt(spec, spec.adapter_rank)
        self.added_layers = AddedLayers(self.hidden_dim, num_layers=spec.num_added_layers)

    def _adapt(self, spec: TextEncoderSpec, rank: int) -> None:
        num_layers = len(self._trained_layers)
        if not num_layers:
            raise UserError(
                f"text_adapter_rank needs layers to adapt, and text_encoder {spec.source!r} "
                + ("is wholly frozen" if len(self.body.layers) else "has none that are told apart")
            )
        self.weights_hash = self._hash_weights()
        if spec.weights_hash not in (None, self.weights_hash):
            raise UserError(
                f"text_encoder {spec.source!r} must have the weights that the adapters were "
                f"trained beside (SHA-256 {spec.weights_hash}), got others ({self.weights_hash})"
            )
        self.requires_grad_(False)
        adapt(self._trained_layers, rank=rank)
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        self._unstored = frozenset(super().state_dict()) - trained
        self.register_load_state_dict_post_hook(_forget_unstored)  # type: ignore[no-untyped-call]

    def _hash_weights(self) -> str:
        """SHA-256 over the parameters, in the order of their names."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.named_parameters(), key=itemgetter(0)):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def is_adapted(self) -> bool:
        """Are adapters trained, and the encoder's own weights not?"""
        return bool(self._unstored)

    def state_dict(self, *args: Any, **options: Any) -> Any:
        """As ``nn.Module.state_dict``, without the weights beside which adapters are trained."""
        prefix = options.get("prefix", "")
        state = super().state_dict(*args, **options)
        for name in self._unstored:
            state.pop(prefix + name, None)
        return state

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        self._prefix = prefix  # under which the hook below looks for what is missing
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def train(self, mode: bool = True) -> TextEncoder:
        """As ``nn.Module.train``, but the frozen part stays in evaluation mode."""
        super().train(mode)
        if self.is_partly_frozen or self.is_adapted:
            for part in self.children():
                part.eval()
            for layer in (*self._trained_layers, self.added_layers):
                layer.train(mode)
        return self

    @functools.cached_property
    def _can_begin_after_embeddings(self) -> bool:
        return bool(len(self.body.layers)) and self.body.can_be_parted(0)

    @property
    def _trained_layers(self) -> list[nn.Module]:
        """Those after the frozen ones."""
        return [*self.body.layers][self.num_frozen_layers :]

    @property
    def num_trained_layers(self) -> int:
        """Layers after the frozen ones, those that were added among them."""
        return len(self._trained_layers) + len(self.added_layers)

    @property
    def num_positions(self) -> int | None:
        """The longest text, in tokens, that the encoder can read; None = any length."""
        known: int | None = getattr(self.config, "max_position_embeddings", None)
        if known is None or known <= 0:  # relative positions alone; -1 in some configurations
            return None
        for name, module in self.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
                behind = module.padding_idx  # RoBERTa and its kin count from behind padding
                return known if behind is None else known - behind - 1
        return known

    def run_upper(self, hidden: Padded) -> Tensor:
        """The states that the first trained layer takes, (B, L, D), through the trained layers.

        What comes out for padding means nothing.
        """
        if len(hidden.values) == 0 or not self._trained_layers:
            return hidden.values
        allowed = self._allowed(hidden.mask)
        return self.body.run_upper(hidden.values, allowed, count=self.num_frozen_layers)

    def _allowed(self, mask: Tensor) -> Tensor:
        """Every query sees every real token.

        A row without any (an absent text) sees them all: an empty softmax is NaN in some kernels,
        and callers drop that row by ``present``.
        """
        return mask | ~mask.any(1, keepdim=True)

    def segment_ids(self, tokens: Padded, separator_id: int) -> Tensor:
        """(B, L) int64: how many separators stand before a token, up to the last segment's number.

        Padding is of segment 0, as tokenizers have it.
        """
        separators = ((tokens.values == separator_id) & tokens.mask).long()
        before = separators.cumsum(1) - separators
        return before.clamp(max=self.config.type_vocab_size - 1) * tokens.mask

    def _segments(self, tokens: Padded) -> Tensor | None:
        return None if self.separator_id is None else self.segment_ids(tokens, self.separator_id)

    def run_frozen(self, text: Padded) -> Padded:
        """The hidden states (B, L, D) that the first trained layer takes.

        Those after the embeddings where everything is trained, or else after the frozen layers.

        Args:
            text: token ids (B, L), or these states (B, L, D), cached, which are returned.

        Raises:
            UserError: all layers are trained, and the encoder's cannot be run apart.
        """
        if text.values.is_floating_point():
            return text
        if not self.is_partly_frozen and not self._can_begin_after_embeddings:
            raise UserError(
                f"the layers of a {self.config.model_type} encoder cannot be run apart, which this "
                "method needs; name another text_encoder"
            )
        if len(text.values) == 0:
            return dataclasses.replace(text, values=self._nothing(text.mask))
        allowed, count = self._allowed(text.mask), self.num_frozen_layers
        values = self.body.run_lower(text.values, allowed, self._segments(text), count=count)
        return dataclasses.replace(text, values=values)

    def _nothing(self, mask: Tensor) -> Tensor:
        """(0, L, D): of a process's empty share of a batch, which transformers cannot reshape."""
        weight = next(self.parameters())
        return weight.new_zeros(*mask.shape, self.hidden_dim) + 0 * weight.sum()

    def run_trained(self, hidden: Padded) -> Padded:
        """What the trained layers make of ``run_frozen``: (B, L, D), zero where masked.

        The other half of ``forward``, for a method that changes the states in between.
        """
        return self._read_on(_own_frames(self.run_upper(hidden), hidden))

    def forward(self, text: Padded) -> Padded:
        """Token ids (B, L), or cached states (B, L, D), to last hidden states (B, L, D).

        Those of a context are masked: the encoder has read it, and what follows does not.
        """
        if text.values.is_floating_point():
            return self.run_trained(text)
        if len(text.values) == 0:
            return _own_frames(self._nothing(text.mask), text)
        allowed = self._allowed(text.mask)
        states = self.body.run(text.values, allowed, self._segments(text))
        return self._read_on(_own_frames(states, text))

    def _read_on(self, states: Padded) -> Padded:
        """The encoder's last states through the added layers, if there are any."""
        if not len(self.added_layers):
            return states
        values = self.added_layers(states.values, states.mask)
        return Padded(zero_padding(values, states.mask), states.mask)

    def frozen_fingerprint(self) -> str:
        """SHA-256 over what decides the frozen states: the key under which they are cached."""
        shape = {k: v for k, v in self.config.to_dict().items() if k not in _SAYS_NOTHING}
        digest = hashlib.sha256(
            f"{self.num_frozen_layers} {self.separator_id} {sorted(shape.items())}".encode()
        )
        trained = {
            id(tensor)
            for layer in (*self._trained_layers, self.added_layers)
            for tensor in (*layer.parameters(), *layer.buffers())
        }
        frozen = [*self.named_parameters(), *self.named_buffers()] if self.is_partly_frozen else []
        for name, tensor in sorted(frozen, key=itemgetter(0)):
            if id(tensor) not in trained:
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save_architecture(self, directory: Path) -> None:
        """Write the configuration (not the weights) for ``load_weights=False``."""
        self.config.save_pretrained(str(directory))


def _own_frames(states: Tensor, text: Padded) -> Padded:
    """Without those of padding and of a context."""
    return Padded(zero_padding(states, text.own_mask), text.own_mask)


def _forget_unstored(encoder: TextEncoder, incompatible: Any) -> None:
    """What a state dict does not hold is not missing from it."""
    unstored = {encoder._prefix + name for name in encoder._unstored}
    kept = [name for name in incompatible.missing_keys if name not in unstored]
    incompatible.missing_keys[:] = kept


class _Stepped:
    """The layers of BERT and its kin, which take states and a mask and nothing else.

    Args:
        model: of ``FAMILY``, embeddings as wide as the layers.
    """

    def __init__(self, model: Any) -> None:
        distilled = model.config.model_type == "distilbert"
        self.embeddings = cast(nn.Module, model.embeddings)
        self.layers = cast(nn.ModuleList, (model.transformer if distilled else model.encoder).layer)
        self.parts = {"embeddings": self.embeddings, "layers": self.layers}
        self.hidden_dim = int(model.config.hidden_size)
        num_types = getattr(model.config, "type_vocab_size", 0)
        self.takes_segments = model.config.model_type in SEGMENTED and num_types > 1

    def run(self, tokens: Tensor, allowed: Tensor, segments: Tensor | None) -> Tensor:
        """Token ids (B, L) to last hidden states (B, L, D)."""
        return self._run(self._embed(tokens, segments), allowed, self.layers)

    def run_lower(
        self, tokens: Tensor, allowed: Tensor, segments: Tensor | None, *, count: int
    ) -> Tensor:
        """Token ids (B, L) to the states (B, L, D) after the first ``count`` layers."""
        return self._run(self._embed(tokens, segments), allowed, [*self.layers][:count])

    def run_upper(self, states: Tensor, allowed: Tensor, *, count: int) -> Tensor:
        """The states after the first ``count`` layers to last hidden states, (B, L, D) both."""
        return self._run(states, allowed, [*self.layers][count:])

    def can_be_parted(self, count: int) -> bool:
        """Anywhere."""
        return 0 <= count <= len(self.layers)

    def _embed(self, tokens: Tensor, segments: Tensor | None) -> Tensor:
        more = {} if segments is None else {"token_type_ids": segments}
        return cast(Tensor, self.embeddings(input_ids=tokens, **more))

    def _run(self, values: Tensor, allowed: Tensor, layers: Iterable[nn.Module]) -> Tensor:
        is_needed = self.layers[-1].training or may_hide_frames(allowed)
        mask = allowed[:, None, None, :] if is_needed else None
        for layer in layers:
            states = layer(values, attention_mask=mask)
            values = states[0] if isinstance(states, tuple) else states
        return values


Body = _Stepped | OwnForward
"""What runs a model: both have ``parts``, ``layers``, ``hidden_dim`` and the same methods."""


def _body(model: Any, name: str) -> Body:
    config = model.config
    hidden_dim = getattr(config, "hidden_size", 0)
    is_projected = getattr(config, "embedding_size", hidden_dim) != hidden_dim  # small ELECTRA
    if config.model_type in FAMILY and not is_projected:
        return _Stepped(model)
    try:
        return OwnForward(model)
    except ValueError as error:
        raise UserError(
            f"text_encoder {name!r} must be an encoder of text that transformers' AutoModel loads, "
            f"got {config.model_type}: {error}"
        ) from None


def _build_model(config: Any, source: str, spec: TextEncoderSpec) -> Any:
    """The model in float32: some checkpoints are stored in half precision.

    Of an encoder and decoder (T5, BART) the encoder.
    """
    from transformers import AutoModel

    if spec.load_weights or spec.adapter_rank is not None:
        model = _load_weights(source, spec.source, config.model_type)
    else:
        model = AutoModel.from_config(config, **_attention_of(config.model_type))
    if config.is_encoder_decoder:
        model = model.get_encoder()
    return model.float()


def _attention_of(model_type: str) -> dict[str, str]:
    """Where the layers are run by hand the kind of mask must be known; others choose their own."""
    return {"attn_implementation": "sdpa"} if model_type in FAMILY else {}


class StoredTextVectors(nn.Module):
    """Text encoded before it was stored (GloVe rows, frozen BERT vectors): passed through."""

    def __init__(self, width: int, *, num_added_layers: int = 0) -> None:
        super().__init__()
        self.hidden_dim = width
        self.is_partly_frozen = False
        self.num_trained_layers = num_added_layers
        self.added_layers = AddedLayers(width, num_layers=num_added_layers, adds_positions=True)

    def forward(self, text: Padded) -> Padded:
        """(B, L, D) with padding zeroed."""
        return self.run_trained(self.run_frozen(text))

    def run_frozen(self, text: Padded) -> Padded:
        """The stored vectors, padding zeroed."""
        return Padded(zero_padding(text.values, text.mask), text.mask)

    def run_trained(self, hidden: Padded) -> Padded:
        """The vectors through the added layers, if there are any, padding zeroed."""
        values = self.added_layers(hidden.values, hidden.mask)
        return Padded(zero_padding(values, hidden.mask), hidden.mask)


def build_text_encoder(info: DataInfo) -> TextEncoder | StoredTextVectors:
    """The encoder that ``info`` names; ``features`` reads the dataset's stored text vectors."""
    if info.text_encoder.source != STORED_FEATURES:
        return TextEncoder(info.text_encoder)
    if Modality.TEXT not in info.widths:
        raise UserError(
            "text_encoder 'features' needs a dataset with stored text vectors; this one has "
            f"{', '.join(sorted(info.widths)) or 'none'}"
        )
    return StoredTextVectors(
        info.widths[Modality.TEXT], num_added_layers=info.text_encoder.num_added_layers
    )
