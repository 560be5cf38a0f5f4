"""Requests that are refused, and what is said to whoever sent them."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException


class Refused(HTTPException):
    """A request that is answered with an error.

    Args:
        status: of the answer.
        detail: a sentence for whoever sent it.
        headers: of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)


def busy(detail: str, *, seconds: float) -> Refused:
    """Something is full: come again after so many seconds."""
    return Refused(429, detail, {"Retry-After": str(max(1, round(seconds)))})
