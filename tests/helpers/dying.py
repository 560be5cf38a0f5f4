"""A function that ends its process, as a decoder may; imports nothing that a process waits for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def die(_: str, tell: Callable[[float], None]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
