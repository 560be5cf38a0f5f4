"""Two hundred clips at once: what is accepted ends, all else hears when to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("dbos")

import serving_stub

LoadBenchmark = Callable[[str], ModuleType]
MOST_GROWTH = 200 * 2**20


def test_two_hundred_clips_at_once_lose_none_and_take_bounded_memory(
    load_benchmark: LoadBenchmark, tmp_path: Path
) -> None:
    benchmark = load_benchmark("serve")
    server = serving_stub.start(tmp_path / "server", workers=2, max_queue=4)

    async def send_all() -> Any:
        asked = benchmark.Asked(server.url, server.process.pid)
        await asked.wait_until_ready()
        try:
            return await asked.rush(b"slow 0.1", count=200)
        finally:
            await asked.client.aclose()

    try:
        # A browser's session leaves a loop open in the main thread, where no other may run.
        with ThreadPoolExecutor(1) as thread:
            rush = thread.submit(asyncio.run, send_all()).result()
    finally:
        server.stop()
    accepted, refused = rush.statuses[202], rush.statuses[429]
    assert accepted + refused == 200
    assert accepted >= 4
    assert refused > 0
    assert rush.is_told_when
    assert rush.ended == {"COMPLETED": accepted}
    assert rush.num_lost == 0
    assert rush.highest - rush.before < MOST_GROWTH
    assert rush.health.seconds
