"""Shared by the tests of training."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Makes ``training_toys`` importable here as it is in the subprocesses that run it.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module", autouse=True)
def _without_waiting_for_the_disk() -> Iterator[None]:
    """No test cuts the power, and waiting for the disk was most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
