"""A trained model small enough to travel in a package: adapters and head, in half precision."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import cast

import torch
from torch import nn

from tecafn.core.errors import UserError
from tecafn.core.scheme import Network
from tecafn.core.weights import load_module, save_module
from tecafn.layers.adapter import AdaptedLinear, adapters_from
from tecafn.layers.text_encoder import TextEncoder
from tecafn.serving.builtin import model_folder
from tecafn.serving.predictor import (
    CONFIG_FILE,
    TEXT_ENCODER_FOLDER,
    WEIGHTS_FILE,
    ModelDefinition,
    read_definition,
)

MOST_BYTES = 10_000_000


@torch.no_grad()
def compact(
    run: str | Path,
    out: Path,
    *,
    encoder: str | None = None,
    rank: int = 8,
    dtype: torch.dtype = torch.float16,
) -> int:
    """Write a model as its encoder's name, adapters, and whatever else is no part of the encoder.

    A model that was trained with adapters keeps them. Of one whose encoder was trained itself, each
    linear layer's change becomes the nearest adapter of the rank (``layers.adapter``); what changed
    of embeddings, biases and norms is left out, and ``tecafn evaluate`` shows what that costs.
    Numbers are rounded to ``dtype``. The tokenizer is the encoder's own.

    Args:
        run: a run's folder or an exported model's.
        out: the folder to write, new or such a model's.
        encoder: which the change is from, where the encoder was trained itself; None = by the
            run's own name for it.
        rank: of the adapters, where the model has none yet.
        dtype: of the numbers; with float32 the model may be of any size.

    Returns:
        Bytes of the weights.

    Raises:
        UserError: it does not read text with an encoder, cannot be read, or is larger than 10 MB.
    """
    folder = model_folder(run)
    definition = read_definition(folder)
    if not definition.info.reads_sentences:
        raise UserError(f"{run} has no text encoder, which alone is left out")
    spec = definition.info.text_encoder
    if spec.adapter_rank is not None:
        network = definition.build_network()
        load_module(network, folder / WEIGHTS_FILE)
    else:
        network = _adapted(folder, definition, encoder or spec.source, rank)
        spec = dataclasses.replace(spec, source=encoder or spec.source, adapter_rank=rank)
    spec = dataclasses.replace(spec, weights_hash=_encoder_of(network).weights_hash)
    info = dataclasses.replace(definition.info, text_encoder=spec)
    definition = dataclasses.replace(definition, info=info)
    _refuse_too_large(network.to(dtype))
    content = _weights_of(network)
    if len(content) > MOST_BYTES and dtype != torch.float32:
        raise UserError(
            f"the weights must have at most {MOST_BYTES:,} bytes, got {len(content):,}: give a "
            "lower rank"
        )
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(definition.as_dict(), indent=2)
    (out / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    (out / WEIGHTS_FILE).write_bytes(content)
    return len(content)


def _adapted(folder: Path, definition: ModelDefinition, encoder: str, rank: int) -> Network:
    """The network with adapters in place of what training changed of the encoder's layers."""
    spec = definition.info.text_encoder
    stored = spec.saved_in(str(folder / TEXT_ENCODER_FOLDER))
    full = _built(definition, text_encoder=stored)
    load_module(full, folder / WEIGHTS_FILE)
    adapted_spec = dataclasses.replace(spec, source=encoder, load_weights=True, adapter_rank=rank)
    network = _built(definition, text_encoder=adapted_spec)
    layers = {
        name: layer for name, layer in network.named_modules() if isinstance(layer, AdaptedLinear)
    }
    found = adapters_from(
        {name: cast(nn.Linear, full.get_submodule(name)).weight for name in layers},
        {name: layer.weight for name, layer in layers.items()},
        rank=rank,
    )
    for name, (up, down) in found.items():
        layers[name].up.copy_(up)
        layers[name].down.copy_(down)
    trained = full.state_dict()
    own = {name: tensor for name, tensor in network.state_dict().items() if name in trained}
    for name, tensor in own.items():
        tensor.copy_(trained[name])
    return network


def _built(definition: ModelDefinition, **changed: object) -> Network:
    info = dataclasses.replace(definition.info, **changed)  # type: ignore[arg-type]
    return dataclasses.replace(definition, info=info).build_network().eval()


def _weights_of(network: Network) -> bytes:
    """The file that ``save_module`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        save_module(network, Path(folder) / WEIGHTS_FILE)
        return (Path(folder) / WEIGHTS_FILE).read_bytes()


def _encoder_of(network: Network) -> TextEncoder:
    return next(module for module in network.modules() if isinstance(module, TextEncoder))


def _refuse_too_large(network: nn.Module) -> None:
    """Refuse numbers that half precision does not hold."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"half precision does not hold {name!r}: some numbers are too large")
