"""Shared by the tests of reports."""

import sys
from pathlib import Path

# Makes ``fake_run`` importable.
sys.path.insert(0, str(Path(__file__).parent))
