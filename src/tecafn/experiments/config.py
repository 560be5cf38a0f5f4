"""One run's settings: a TOML file, ``--set`` overrides, and the typed value they become."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pydantic
import tomli_w

import tecafn.methods  # noqa: F401 - registers them
from tecafn.core.errors import UserError, nearest_known
from tecafn.core.info import STORED_FEATURES, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.experiments.settings_file import nearest_key, read_settings
from tecafn.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run but the data and the device.

    Args:
        method: a registered method.
        model: the method's own settings, an instance of its config class.
        seed: of initialisation, order of batches, dropout and replacements.
        text_encoder: ``minilm``, ``mpnet``, the name on the Hugging Face hub or the local directory
            of any encoder that transformers' ``AutoModel`` loads, or ``features`` for text vectors
            stored in the dataset.
        num_trained_text_layers: how many of the encoder's last layers are trained; ``"all"``
            includes the embeddings, 0 freezes it.
        text_adapter_rank: train low-rank adapters of this rank in those layers, >= 1, and leave the
            encoder's weights as they are; a checkpoint then holds the adapters alone. None = train
            the weights. Rates of 1e-4 to 1e-3 suit adapters.
        num_added_text_layers: this many transformer layers of ours, trained, follow the text
            encoder in every method. With a frozen encoder, a comparison then compares fusion, not
            which networks happen to have layers over tokens.
        max_text_tokens: longer texts are cut.
        context_utterances: this many previous utterances of the same video and split are read
            before a text, as a first segment; what is pooled is the utterance alone. 0 = none. A
            sample that the dataset gives a context of its own (UR-FUNNY) keeps that.
        max_frames: keep this many frames from the start of each sample's audio and vision, >= 1;
            None = all. The longest clip decides how much memory a batch takes.
        max_train_samples: train on this many samples of the training split, always the same ones,
            >= 1; None = all. For a quick look and for learning curves.
        modalities: the ones in use; the others are absent from the network's point of view.
        training: optimizer, schedule, stopping.
    """

    method: str = "tecafn"
    model: Any = None
    seed: int = 0
    text_encoder: str = "minilm"
    num_trained_text_layers: int | Literal["all"] = "all"
    text_adapter_rank: int | None = None
    num_added_text_layers: int = 0
    max_text_tokens: int = 128
    context_utterances: int = 0
    max_frames: int | None = None
    max_train_samples: int | None = None
    modalities: tuple[Modality, ...] = tuple(Modality)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("modalities must name at least one, got none")
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"modalities must differ, got {', '.join(self.modalities)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in 0 to 2**32 - 1, got {self.seed}")
        self._check_text()
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"max_frames must be >= 1, got {self.max_frames}")
        if self.max_train_samples is not None and self.max_train_samples < 1:
            raise ValueError(f"max_train_samples must be >= 1, got {self.max_train_samples}")

    def _check_text(self) -> None:
        if self.num_trained_text_layers != "all" and self.num_trained_text_layers < 0:
            raise ValueError(
                f'num_trained_text_layers must be >= 0 or "all", got {self.num_trained_text_layers}'
            )
        rank = self.text_adapter_rank
        if rank is not None and rank < 1:
            raise ValueError(f"text_adapter_rank must be >= 1, got {rank}")
        if rank is not None and self.num_trained_text_layers == 0:
            raise ValueError(
                "text_adapter_rank adapts the trained layers, num_trained_text_layers must not be 0"
            )
        if self.num_added_text_layers < 0:
            raise ValueError(
                f"num_added_text_layers must be >= 0, got {self.num_added_text_layers}"
            )
        if self.max_text_tokens < 8:
            raise ValueError(f"max_text_tokens must be >= 8, got {self.max_text_tokens}")
        if self.context_utterances < 0:
            raise ValueError(f"context_utterances must be >= 0, got {self.context_utterances}")
        if self.context_utterances and self.text_encoder == STORED_FEATURES:
            raise ValueError("context_utterances needs a text encoder, stored vectors have none")

    def text_encoder_spec(self) -> TextEncoderSpec:
        """The text encoder as a network takes it."""
        count = self.num_trained_text_layers
        return TextEncoderSpec(
            source=self.text_encoder,
            num_trained_layers=None if count == "all" else count,
            adapter_rank=self.text_adapter_rank,
            num_added_layers=self.num_added_text_layers,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for TOML and JSON; what is None is left out."""
        plain: dict[str, Any] = _plain(self)
        return plain


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: _plain(item) for name, item in items if item is not None}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def load_config(path: Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a TOML file and apply ``key=value`` overrides.

    Args:
        path: the file.
        overrides: such as ``training.max_epochs=2`` or ``text_encoder=minilm``; a value is read
            as TOML where it is TOML, else as text.

    Raises:
        UserError: no such file, not TOML, an unknown key (the nearest known one is named), or a
            value of the wrong type or range.
    """
    return parse_config(read_settings(path, overrides), where=str(path))


def parse_config(raw: Mapping[str, Any], *, where: str = "config") -> RunConfig:
    """A typed config from plain values; ``where`` names the source in errors.

    Raises:
        UserError: as ``load_config``.

    Example:
        >>> import tecafn.methods
        >>> parse_config({"method": "tecafn", "model": {"num_layers": 2}}).model.num_layers
        2
    """
    tables = dict(raw)
    name = tables.get("method", "tecafn")
    if not isinstance(name, str):
        raise UserError(f"{where}: method must be a name, got {name!r}")
    method = METHODS[name]
    tree = config_keys(name)
    tables_of_config = (
        (method.config, "model", tables.pop("model", {})),
        (TrainingConfig, "training", tables.pop("training", {})),
        (RunConfig, "", tables),
    )
    # All keys before all values: a key at the wrong place says more than what it lacks there.
    for _, prefix, raw in reversed(tables_of_config):
        _refuse_unknown(prefix, raw, tree, where)
    model, training, shell = (
        _parse(kind, raw, where=where, prefix=prefix) for kind, prefix, raw in tables_of_config
    )
    config: RunConfig = dataclasses.replace(shell, model=model, training=training)
    return config


def config_keys(method: str) -> tuple[str, ...]:
    """Every key of a method's config, as ``--set`` takes it.

    Example:
        >>> [key for key in config_keys("tecafn") if "epochs" in key]
        ['model.swap_warmup_epochs', 'training.max_epochs', 'training.keep_improving_epochs']
    """
    tables = (("", RunConfig), ("model.", METHODS[method].config), ("training.", TrainingConfig))
    return tuple(
        prefix + field.name for prefix, kind in tables for field in dataclasses.fields(kind)
    )


def _refuse_unknown(prefix: str, raw: Any, tree: tuple[str, ...], where: str) -> None:
    """Name the nearest key of the same table, or of another one where that is nearer."""
    if not isinstance(raw, Mapping):
        raise UserError(f"{where}: {prefix} must be a table, got {raw!r}")
    table = f"{prefix}." if prefix else ""
    known = [k.removeprefix(table) for k in tree if k.rpartition(".")[0] == prefix]
    for key in raw:
        if key in known:
            continue
        nearest = nearest_key(table + key, tree)
        hint = nearest_known(key, known)
        if nearest and nearest.rpartition(".")[0] != prefix:
            hint = f"did you mean {nearest!r}? known: {', '.join(sorted(known))}"
        elif nearest:
            hint = f"did you mean {nearest.removeprefix(table)!r}? " + hint.partition("? ")[2]
        raise UserError(f"{where}: unknown key {table + key!r}: {hint}")


def _parse(kind: type[Any], raw: Mapping[str, Any], *, where: str, prefix: str) -> Any:
    try:
        # As JSON, where strict still takes a list for a tuple and a name for an enum's member: no
        # text becomes a number, and no truth value either.
        text = json.dumps(dict(raw), default=str)
        return pydantic.TypeAdapter(kind).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = (
            f"{prefix}." * bool(prefix) + ".".join(str(part) for part in first["loc"][:1])
        ).rstrip(".")
        message = first["msg"].removeprefix("Value error, ")
        came = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise UserError(f"{where}: {place + ': ' if place else ''}{message}{came}") from None


def write_config(config: RunConfig, path: Path) -> None:
    """Write the full config, defaults included."""
    path.write_text(tomli_w.dumps(config.as_dict()), encoding="utf-8")
