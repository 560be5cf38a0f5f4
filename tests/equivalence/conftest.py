"""Shared by the tests of equivalence."""

import sys
from pathlib import Path

# Makes ``plain_torch`` importable.
sys.path.insert(0, str(Path(__file__).parent))
