"""What a server and its workers say of themselves."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any


def begin_log(stream: Callable[[], Any] = lambda: sys.stderr) -> None:
    """Lines on stderr, which hold names of jobs and numbers, and nothing that anybody sent."""
    ours = logging.getLogger("tecafn.server")
    if ours.handlers:
        return
    handler = logging.StreamHandler(stream())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    # What a library says of a request it could not read goes nowhere else.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
