"""What a server answers, how fast, and what becomes of 200 clips that are sent at once.

    python benchmarks/serve.py [--clip FILE] [--smoke]

Starts ``tecafn serve`` with the model of the package and two workers, and asks it from this process
on the same machine: times hold the client's own. Run with ``make bench-serve``; writes
``docs/results/serve.md``. ``--smoke`` asks little and prints the page.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from common import data_root, markdown_table, write_results

CLIP = "Oz06ZWiO20M_6.mp4"
TEXT = "The plot was thin, but I loved every minute of it."
WORKERS = 2
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Times:
    """Seconds that requests took."""

    seconds: Sequence[float]

    def share(self, percent: int) -> float:
        """A percentile in milliseconds."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


@dataclass(frozen=True)
class Rush:
    """What became of clips that were sent at once."""

    statuses: Counter[int]
    ended: Counter[str]
    is_told_when: bool
    health: Times
    before: int
    highest: int

    @property
    def num_lost(self) -> int:
        """Clips that were accepted and did not end."""
        return self.statuses[202] - self.ended["COMPLETED"] - self.ended["FAILED"]


class Asked:
    """A server and its client.

    Args:
        url: of the server.
        pid: of its process.
    """

    def __init__(self, url: str, pid: int) -> None:
        self.pid = pid
        limits = httpx2.Limits(max_connections=None)
        self.client = httpx2.AsyncClient(base_url=url, timeout=600, limits=limits)

    async def wait_until_ready(self) -> None:
        """Until a worker is there."""
        while (await self.client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.5)

    async def send(self, clip: bytes) -> Any:
        """A clip as a job."""
        return await self.client.post("/v1/jobs", files={"file": ("clip.mp4", clip)})

    async def accepted(self, clip: bytes) -> str:
        """A clip's job; while the queue is full, sent again when the server said to."""
        while (answer := await self.send(clip)).status_code == 429:
            await asyncio.sleep(float(answer.headers["retry-after"]))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    async def ended(self, job_id: str) -> str:
        """The state in which a job ends."""
        while True:
            state = (await self.client.get(f"/v1/jobs/{job_id}")).json()["state"]
            if state in ("COMPLETED", "FAILED"):
                return str(state)
            await asyncio.sleep(0.5)

    async def times(self, path: str, *, count: int, at_once: int, json: Any = None) -> Times:
        """Of so many requests, so many at once."""
        left = iter(range(count))
        seconds: list[float] = []

        async def ask() -> None:
            for _ in left:
                started = time.perf_counter()
                answer = await self.client.request("POST" if json else "GET", path, json=json)
                seconds.append(time.perf_counter() - started)
                assert answer.status_code == 200, answer.text

        await asyncio.gather(*[ask() for _ in range(at_once)])
        return Times(seconds)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[tuple[list[float], list[int]]]:
        """Seconds to /health, five times a second, and the server's bytes, while within."""
        seconds: list[float] = []
        sizes: list[int] = []

        async def watch() -> None:
            while True:
                started = time.perf_counter()
                answer = await self.client.get("/health")
                seconds.append(time.perf_counter() - started)
                assert answer.status_code == 200
                sizes.append(resident(self.pid))
                await asyncio.sleep(0.2)

        task = asyncio.create_task(watch())
        yield seconds, sizes
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def rush(self, clip: bytes, *, count: int) -> Rush:
        """Send so many clips at once, and wait until the accepted ones have ended."""
        before = resident(self.pid)
        async with self.watched() as (seconds, sizes):
            answers = await asyncio.gather(*[self.send(clip) for _ in range(count)])
            ids = [one.json()["job_id"] for one in answers if one.status_code == 202]
            ended = [await self.ended(job_id) for job_id in ids]
        refused = [one for one in answers if one.status_code == 429]
        return Rush(
            statuses=Counter(one.status_code for one in answers),
            ended=Counter(ended),
            is_told_when=all(int(one.headers["retry-after"]) > 0 for one in refused),
            health=Times(seconds),
            before=before,
            highest=max(sizes),
        )


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; of its children nothing."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such line")


@contextlib.contextmanager
def serving(command: Sequence[str], env: dict[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """A server process: where it listens, and its number."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **(env or {})}
        )
        assert process.stdout is not None
        try:
            yield process.stdout.readline().decode().strip(), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            process.stdout.close()


async def _decoding(asked: Asked, clip: bytes, count: int) -> tuple[float, Times]:
    """Clips per minute with all workers at work, and /health meanwhile."""
    async with asked.watched() as (seconds, _):
        started = time.perf_counter()

        async def one() -> str:
            return await asked.ended(await asked.accepted(clip))

        states = await asyncio.gather(*[one() for _ in range(count)])
        taken = time.perf_counter() - started
    assert set(states) == {"COMPLETED"}
    return 60 * count / taken, Times(seconds)


async def measure(url: str, pid: int, clip: bytes, *, smoke: bool) -> str:
    """The page."""
    asked = Asked(url, pid)
    await asked.wait_until_ready()
    count = 20 if smoke else 400
    given = {"inputs": [{"text": TEXT}]}
    await asked.times("/v1/predict", count=5, at_once=1, json=given)
    idle = await asked.times("/health", count=count, at_once=1)
    alone = await asked.times("/v1/predict", count=count // 4, at_once=1, json=given)
    many = await asked.times("/v1/predict", count=count, at_once=16, json=given)
    first, _ = await _decoding(asked, clip, WORKERS)  # the workers load their models
    print(f"first clips: {first:.2f} per minute", flush=True)
    per_minute, decoding = await _decoding(asked, clip, WORKERS if smoke else 6)
    print(f"clips: {per_minute:.2f} per minute, /health {decoding.share(99):.1f} ms", flush=True)
    rush = await asked.rush(clip, count=20 if smoke else 200)
    await asked.client.aclose()
    rows = [
        [name, str(len(one.seconds)), f"{one.share(50):.1f}", f"{one.share(99):.1f}"]
        for name, one in [
            ("`/health`, nothing else to do", idle),
            (f"`/health`, {WORKERS} clips are decoded", decoding),
            ("`/health`, 200 clips come at once, the accepted ones are decoded", rush.health),
            ("`/v1/predict`, one text, one request at a time", alone),
            ("`/v1/predict`, one text, 16 requests at a time", many),
        ]
    ]
    gain = statistics.mean(alone.seconds) / (statistics.mean(many.seconds) / 16)
    table = markdown_table(["request", "requests", "p50, ms", "p99, ms"], rows)
    lines = [
        f"- Sixteen requests to predict at a time are answered at {gain:.1f} times the rate of one",
        "  at a time: they are predicted together.",
        f"- {per_minute:.1f} clips of 7.5 seconds per minute with {WORKERS} workers, whose models",
        "  are loaded.",
        f"- {sum(rush.statuses.values())} clips sent at once are answered with status",
        f"  {_listed(rush.statuses)} (202 accepted, 429 refused); `Retry-After`:",
        f"  {'on each 429' if rush.is_told_when else 'NOT ON EACH 429'}. Accepted ones end as",
        f"  {_listed(rush.ended)}; lost: {rush.num_lost}. The server (without workers) holds",
        f"  {rush.before / MEBIBYTE:.0f} MiB before and {rush.highest / MEBIBYTE:.0f} MiB at most.",
    ]
    return "\n".join([table, "", *lines])


def _listed(counts: Counter[Any]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in sorted(counts.items()))


INTRODUCTION = f"""\
`tecafn serve --workers {WORKERS} --max-queue 4` with the model `builtin`, asked by a client on the
same two cores: times hold the client's own, and what else the machine did. The clip has 7.5 seconds
with one face."""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    clip = (options.clip or data_root() / "clips" / CLIP).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tecafn", "serve", "--model", "builtin", "--port", "0"]
        limits = ["--folder", folder, "--workers", str(WORKERS), "--max-queue", "4"]
        with serving([*command, *limits]) as (url, pid):
            page = asyncio.run(measure(url, pid, clip, smoke=options.smoke))
    if options.smoke:
        print(page)
    else:
        write_results("serve", "A server", "make bench-serve", [INTRODUCTION, page.strip()])


if __name__ == "__main__":
    main()
