"""Frozen encoder layers are computed once: their states lie on disk, keyed by weights and text."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tecafn.core.batch import Padded
from tecafn.core.errors import UserError
from tecafn.layers.text_encoder import TextEncoder

_BATCH_TOKENS = 4096


class TextStates:
    """Cached states, memory-mapped.

    Args:
        folder: holds ``states.npy`` (all tokens, D) float32 and ``offsets.npy`` (N + 1,) int64.
    """

    def __init__(self, folder: Path) -> None:
        self._states: NDArray[np.float32] = np.load(folder / "states.npy", mmap_mode="r")
        self._offsets: NDArray[np.int64] = np.load(folder / "offsets.npy")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def hidden(self, row: int) -> NDArray[np.float32]:
        """(L, D) states of one text."""
        start, end = self._offsets[row], self._offsets[row + 1]
        return self._states[start:end]

    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of each text."""
        return np.diff(self._offsets)


def cached_states(
    encoder: TextEncoder,
    tokens: Sequence[NDArray[np.int64]],
    *,
    cache_dir: Path,
    device: torch.device,
) -> TextStates:
    """What the encoder's frozen layers say of each text, computed now or read from the cache.

    Args:
        encoder: with ``num_trained_layers`` set; only its frozen part runs.
        tokens: one id array a text.
        cache_dir: beside the store; where it cannot be written, a temporary folder is used for
            this process, and that is said.
        device: where to compute.
    """
    digest = hashlib.sha256(encoder.frozen_fingerprint().encode())
    for ids in tokens:
        digest.update(len(ids).to_bytes(4, "little") + ids.tobytes())
    folder = cache_dir / digest.hexdigest()[:32]
    if (folder / "done.json").is_file():
        try:
            return TextStates(folder)
        except (OSError, ValueError, EOFError):
            print(f"note: {folder} is damaged; text states are computed anew", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=cache_dir))
        building.chmod(0o755)  # whoever may read the store may read its cache
    except OSError as error:
        print(f"note: {cache_dir} cannot be written ({error.strerror}); text states are computed "
              "for this run only", file=sys.stderr)  # fmt: skip
        building = Path(tempfile.mkdtemp(prefix="tecafn-text-"))
        atexit.register(shutil.rmtree, building, ignore_errors=True)
        folder = building
    try:
        _compute(encoder, tokens, building, device)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise UserError(
            f"cannot write text states to {building.parent}: {error.strerror or error}"
        ) from None
    if folder != building:
        try:
            os.replace(building, folder)
        except OSError:  # another process was first; its states are the same
            shutil.rmtree(building, ignore_errors=True)
    return TextStates(folder)


@torch.inference_mode()
def _compute(
    encoder: TextEncoder, tokens: Sequence[NDArray[np.int64]], folder: Path, device: torch.device
) -> None:
    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    states = np.lib.format.open_memmap(
        folder / "states.npy",
        mode="w+",
        dtype=np.float32,
        shape=(int(offsets[-1]), encoder.hidden_dim),
    )
    frozen = encoder.to(device).eval()
    for rows in _batches_by_length(lengths):
        longest = int(lengths[rows].max())
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : lengths[row]] = torch.from_numpy(tokens[row])
        mask = torch.arange(longest) < torch.from_numpy(lengths[rows])[:, None]
        values = frozen.frozen_states(Padded(ids, mask).to(device)).values.float().cpu().numpy()
        for place, row in enumerate(rows):
            states[offsets[row] : offsets[row + 1]] = values[place, : lengths[row]]
    states.flush()
    np.save(folder / "offsets.npy", offsets)
    (folder / "done.json").write_text(json.dumps({"num_texts": len(tokens)}), encoding="ascii")


def _batches_by_length(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of similar length together, about ``_BATCH_TOKENS`` tokens a batch."""
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, _BATCH_TOKENS // max(int(lengths[order[start]]), 1))
        batches.append(order[start : start + size])
        start += size
    return batches
