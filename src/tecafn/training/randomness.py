"""Every random generator that training may touch: set, written down, restored."""

from __future__ import annotations

import json
import random

import numpy as np
import torch
from torch import Tensor

from tecafn.core.parallel import gather_rows, rank


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators (all devices), differently on each rank.

    Ranks differ so that their dropout masks do; what must not depend on the number of ranks is
    drawn by ``core.parallel.sample_uniform`` instead.
    """
    mine = seed + rank()
    random.seed(mine)
    np.random.seed(mine % 2**32)
    torch.manual_seed(mine)


def _to_hex(state: Tensor) -> str:
    return bytes(state.numpy()).hex()


def _from_hex(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)


def generator_states(device: torch.device) -> list[str]:
    """Every rank's generator states, one JSON text per rank; a collective call.

    Args:
        device: where this rank trains; a CUDA device has a generator of its own.
    """
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, list(words), gauss],
        "numpy": [name, [int(key) for key in keys], position, has_gauss, cached],
        "torch": _to_hex(torch.get_rng_state()),
        "cuda": _to_hex(torch.cuda.get_rng_state(device)) if device.type == "cuda" else None,
    }
    line = bytearray(json.dumps(state).encode("ascii") + b"\n")
    gathered = gather_rows(torch.frombuffer(line, dtype=torch.uint8).to(device))
    return bytes(gathered.cpu().numpy()).decode("ascii").splitlines()


def restore_generators(states: list[str], device: torch.device) -> None:
    """Put this rank's generators where ``generator_states`` saw them.

    Args:
        states: one JSON text per rank, of as many ranks as train now.
        device: whose generator is restored, where it is a GPU.
    """
    state = json.loads(states[rank()])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_from_hex(state["torch"]))
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(_from_hex(state["cuda"]), device)
