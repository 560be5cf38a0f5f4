"""Shared by the tests of experiments."""

import sys
from pathlib import Path

# Makes ``launching`` importable here as it is in the processes that run it.
sys.path.insert(0, str(Path(__file__).parent))
