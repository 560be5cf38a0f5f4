"""Small requests that come at the same time are predicted together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from numpy.typing import NDArray

from tecafn.core.errors import UserError

Predict = Callable[..., NDArray[Any]]
"""What ``Predictor.predict`` does: lists of equal lengths by name, a number per sample."""
Frames = Sequence[Sequence[float | None]]
BATCH: Final = 64
WAIT_SECONDS: Final = 0.004


class Full(Exception):  # noqa: N818 - it becomes an answer, not a traceback
    """Too many samples wait already."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What is known of a sample; None where something is absent."""

    text: str | None = None
    audio: Frames | None = None
    vision: Frames | None = None


@dataclass
class _Request:
    samples: Sequence[Given]
    answer: asyncio.Future[list[float]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Batcher:
    """Gathers samples of requests, predicts them in a thread, and gives each request its own.

    A batch begins when there is a sample and nothing is being predicted; so a lone request waits
    ``WAIT_SECONDS`` at most, and many at once wait for one another's batch, not for one another.

    Args:
        predict: called with lists of equal lengths, in one thread at a time.
        max_waiting: samples that may wait.
        told: called with the size of every batch.
    """

    def __init__(
        self, predict: Predict, *, max_waiting: int, told: Callable[[int], None] | None = None
    ) -> None:
        self._predict = predict
        self._max_waiting = max_waiting
        self._told = told or (lambda _: None)
        self._waiting: list[_Request] = []
        self._wake = asyncio.Event()

    @property
    def num_waiting(self) -> int:
        """Samples that wait."""
        return sum(len(request.samples) for request in self._waiting)

    async def predict(self, samples: Sequence[Given]) -> list[float]:
        """One number per sample.

        Raises:
            Full: too many wait already.
            UserError: a sample cannot be predicted; counted from 0 within this request.
        """
        if self.num_waiting + len(samples) > self._max_waiting:
            raise Full
        request = _Request(samples)
        self._waiting.append(request)
        self._wake.set()
        return await request.answer

    async def run(self) -> None:
        """Work until it is cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(WAIT_SECONDS)
            requests: list[_Request] = []
            size = 0
            while self._waiting and (not requests or size + len(self._waiting[0].samples) <= BATCH):
                request = self._waiting.pop(0)
                # Whoever has gone needs no answer.
                if not request.answer.done():
                    requests.append(request)
                    size += len(request.samples)
            if not self._waiting:
                self._wake.clear()
            if requests:
                self._told(size)
                await self._answer(requests)

    async def _answer(self, requests: list[_Request]) -> None:
        samples = [sample for request in requests for sample in request.samples]
        try:
            values = await asyncio.to_thread(self._values, samples)
        except Exception as error:
            if len(requests) == 1:
                if not requests[0].answer.done():
                    requests[0].answer.set_exception(error)
                return
            # One request's mistake is not the others'.
            for request in requests:
                await self._answer([request])
            return
        start = 0
        for request in requests:
            end = start + len(request.samples)
            if not request.answer.done():
                request.answer.set_result(values[start:end])
            start = end

    def _values(self, samples: Sequence[Given]) -> list[float]:
        columns = {name: [getattr(one, name) for one in samples] for name in _NAMES}
        given = {n: column for n, column in columns.items() if any(v is not None for v in column)}
        if not given:
            raise UserError(f"give each sample one of {', '.join(_NAMES)}")
        return [float(value) for value in self._predict(**given)]


_NAMES: Final = ("text", "audio", "vision")
