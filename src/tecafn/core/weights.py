"""Weights on disk: safetensors, written without pickle and loaded strictly."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tecafn.core.errors import UserError


def save_module(module: nn.Module, path: Path) -> None:
    """Write a module's parameters and buffers as safetensors.

    Tied weights are written once; the file's metadata says which names share them.

    Args:
        module: its own tensors and those of its parts are written.
        path: the file, overwritten.

    Example:
        >>> import tempfile
        >>> layer = nn.Linear(2, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_module(layer, Path(folder) / "layer.safetensors")
        ...     load_module(nn.Linear(2, 3), Path(folder) / "layer.safetensors")
    """
    tensors: dict[str, Tensor] = {}
    shared_with: dict[str, str] = {}
    first_name: dict[tuple[object, ...], str] = {}
    for name, tensor in module.state_dict().items():
        # The same memory read the same way is the same tensor; an empty one shares nothing.
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and place in first_name:
            shared_with[name] = first_name[place]
        else:
            first_name[place] = name
            # A copy of its own, because safetensors refuses views of one memory.
            tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    save_file(tensors, path, metadata={"shared": json.dumps(shared_with)})


def load_module(module: nn.Module, path: Path, *, kept: Collection[str] = ()) -> None:
    """Fill a module from ``save_module``'s file, in place and strictly.

    Weights stored in half precision fill float32 ones, which hold them exactly.

    Args:
        module: as the one that was saved.
        path: the file.
        kept: names whose present values stay, whatever the file has.

    Raises:
        UserError: the file is unreadable, a name is missing or unknown, or a shape or type
            differs; the line names the first such parameter.
    """
    try:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read weights {path}: {error}") from None
    for name, source in json.loads(metadata.get("shared", "{}")).items():
        tensors[name] = tensors[source]
    expected = module.state_dict()
    tensors |= {name: expected[name] for name in kept}
    for name, tensor in expected.items():
        if name not in tensors:
            raise UserError(f"{path} lacks parameter {name!r} of shape {tuple(tensor.shape)}")
        problem = _difference(tensor, tensors[name])
        if problem:
            raise UserError(f"{path} does not fit: parameter {name!r} {problem}")
    unknown = sorted(set(tensors) - set(expected))
    if unknown:
        raise UserError(f"{path} has parameter {unknown[0]!r}, which this network lacks")
    module.load_state_dict(tensors, strict=True)  # which copies into the module's own type


def _difference(expected: Tensor, got: Tensor) -> str:
    """What is wrong with a stored tensor; empty when it fits."""
    if expected.shape != got.shape:
        text = f"expected shape {tuple(expected.shape)}, got {tuple(got.shape)}"
        if expected.ndim >= 2 and (expected.shape[0], *expected.shape[2:]) == (
            got.shape[0],
            *got.shape[2:],
        ):
            text += (
                f"; the checkpoint takes {got.shape[1]} columns, the data has {expected.shape[1]}"
            )
        return text
    is_widened = got.dtype in (torch.float16, torch.bfloat16) and expected.dtype == torch.float32
    if expected.dtype != got.dtype and not is_widened:
        wanted, stored = (str(t.dtype).removeprefix("torch.") for t in (expected, got))
        return f"expected type {wanted}, got {stored}"
    return ""
