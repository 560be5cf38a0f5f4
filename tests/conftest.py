"""What every test shares: one thread, and where the real data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Two threads spin against each other on a busy machine; one makes sums repeatable, too.
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets, from TECAFN_DATA or beside the repository."""
    named = os.environ.get("TECAFN_DATA")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(
            f"REAL DATA NOT TESTED: {root} is no folder; set TECAFN_DATA to the folder that holds "
            "mosi, mosei and the others"
        )
    return root
