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
from tecafn.core.parallel import rank
from tecafn.layers.text_encoder import TextEncoder

_BATCH_TOKENS = 4096


class HiddenStates:
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
) -> HiddenStates:
    """What the encoder's frozen layers say of each text, computed now or read from the cache.

    Of several processes, of one run or of several, one computes and the others wait for it.

    Args:
        encoder: with ``num_trained_layers`` set; only its frozen part runs.
        tokens: one id array a text.
        cache_dir: beside the store; where it cannot be written, every process computes for itself
            into a temporary folder, and that is said.
        device: where to compute.

    Raises:
        UserError: the states cannot be written.
    """
    from filelock import FileLock

    digest = hashlib.sha256(encoder.frozen_fingerprint().encode())
    for ids in tokens:
        digest.update(len(ids).to_bytes(4, "little") + ids.tobytes())
    folder = cache_dir / digest.hexdigest()[:32]
    states = _read(folder)
    if states is not None:
        return states
    lock = FileLock(cache_dir / f".{folder.name}.lock")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if rank() == 0:
            print(f"note: {cache_dir} cannot be written ({error.strerror}); text states are "
                  "computed for this run only", file=sys.stderr)  # fmt: skip
        own = Path(tempfile.mkdtemp(prefix="tecafn-text-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        _fill(own, encoder, tokens, device)
        return HiddenStates(own)
    try:
        states = _read(folder)  # another process may have computed them while this one waited
        if states is None:
            _build(folder, encoder, tokens, device)
            states = HiddenStates(folder)
        return states
    finally:
        lock.release()


def _read(folder: Path) -> HiddenStates | None:
    """The states in a folder of the cache; None if there are none or they are damaged."""
    if not (folder / "done.json").is_file():
        return None
    try:
        return HiddenStates(folder)
    except (OSError, ValueError, EOFError):
        print(f"note: {folder} is damaged; text states are computed anew", file=sys.stderr)
        return None


def _build(
    folder: Path, encoder: TextEncoder, tokens: Sequence[NDArray[np.int64]], device: torch.device
) -> None:
    """Make ``folder`` appear whole; the caller holds its lock."""
    building = folder.with_name(f".building-{folder.name}")
    for left_over in (building, folder):  # by a kill, or damaged
        shutil.rmtree(left_over, ignore_errors=True)
    _fill(building, encoder, tokens, device)
    building.rename(folder)


def _fill(
    folder: Path, encoder: TextEncoder, tokens: Sequence[NDArray[np.int64]], device: torch.device
) -> None:
    try:
        folder.mkdir(exist_ok=True)
        _compute(encoder, tokens, folder, device)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(
            f"cannot write text states to {folder.parent}: {error.strerror or error}"
        ) from None


def _compute(
    encoder: TextEncoder, tokens: Sequence[NDArray[np.int64]], folder: Path, device: torch.device
) -> None:
    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    path = folder / "states.npy"
    states = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.float32, shape=(int(offsets[-1]), encoder.hidden_dim)
    )
    if hasattr(os, "posix_fallocate"):
        # Takes the space now: a disk found full while a mapped page is written kills the process.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    # Moved outside inference mode: weights that are moved within it can never be trained.
    frozen = encoder.to(device).eval()
    for rows in _batches_by_length(lengths):
        longest = int(lengths[rows].max())
        ids = torch.zeros(len(rows), longest, dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : lengths[row]] = torch.from_numpy(tokens[row])
        mask = torch.arange(longest) < torch.from_numpy(lengths[rows])[:, None]
        with torch.inference_mode():
            read = frozen.run_frozen(Padded(ids, mask).to(device))
        values = read.values.float().cpu().numpy()
        for place, row in enumerate(rows):
            states[offsets[row] : offsets[row + 1]] = values[place, : lengths[row]]
    states.flush()
    np.save(folder / "offsets.npy", offsets)
    (folder / "done.json").write_text(json.dumps({"num_texts": len(tokens)}), encoding="ascii")


def _batches_by_length(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of similar length together, about ``_BATCH_TOKENS`` tokens per batch."""
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, _BATCH_TOKENS // max(int(lengths[order[start]]), 1))
        batches.append(order[start : start + size])
        start += size
    return batches
