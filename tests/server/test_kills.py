"""Servers and workers are killed at random moments, and every job ends, once."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import serving_stub

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="processes are looked up in /proc"
)


def _children(pid: int) -> list[int]:
    """Of all its threads: each worker is started by one of its own."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


class _Client:
    """Somebody who asks until he is answered, as a client should."""

    def __init__(self, folder: Path, **values: Any) -> None:
        self._folder = folder
        self._values = values
        self.server = serving_stub.start(folder, **values)

    def start_again(self) -> None:
        self.server = serving_stub.start(self._folder, **self._values)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        for _ in range(200):
            with suppress(httpx2.TransportError):
                answer = httpx2.request(method, f"{self.server.url}{path}", timeout=30, **options)
                if answer.status_code not in (429, 503):
                    return answer
            time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def send(self, number: int) -> str:
        answer = self.ask(
            "POST",
            "/v1/jobs",
            files={"file": ("a.mp4", b"slow 0.1 %d" % number)},
            headers={"Idempotency-Key": str(number)},
        )
        assert answer.status_code in (200, 202), answer.text
        return str(answer.json()["job_id"])


def _kill_and_count(
    folder: Path, *, num_jobs: int, worker_kills: int, server_kills: int, workers: int = 2
) -> None:
    chance = random.Random(0)
    client = _Client(folder, workers=workers, max_queue=1000)
    ids = [client.send(number) for number in range(num_jobs)]
    kills = ["worker"] * worker_kills + ["server"] * server_kills
    chance.shuffle(kills)
    for kind in kills:
        time.sleep(chance.uniform(0.05, 0.6))
        if kind == "server":
            client.server.kill()
            client.start_again()
            continue
        until = time.monotonic() + 30
        while not (children := _children(client.server.process.pid)):
            assert time.monotonic() < until, "the last ones are not started again"
            time.sleep(0.02)
        with suppress(ProcessLookupError):
            os.kill(chance.choice(children), signal.SIGKILL)
    # Who did not hear that his clip was accepted sends it again: no second job comes of it.
    assert [client.send(number) for number in range(num_jobs)] == ids
    until = time.monotonic() + 180
    states: dict[str, str] = {}
    while time.monotonic() < until:
        listed = client.ask("GET", "/v1/jobs", params={"limit": 200}).json()["jobs"]
        states = {job["job_id"]: job["state"] for job in listed}
        if set(states.values()) == {"COMPLETED"}:
            break
        time.sleep(0.2)
    assert set(states) == set(ids)
    assert set(states.values()) == {"COMPLETED"}, Counter(states.values())
    lines = (folder / "journal").read_text().splitlines()
    for number, job_id in enumerate(ids):
        result = client.ask("GET", f"/v1/jobs/{job_id}/result").json()
        assert result == {"size": len(b"slow 0.1 %d" % number)}
    # A step that had ended was not begun again: every repetition is due to a kill.
    done = Counter(tuple(line.split()[:2]) for line in lines)
    assert set(done) == {(i, step) for i in ids for step in ("decode", "score", "page")}
    assert sum(done.values()) - len(done) <= 2 * (worker_kills + 2 * server_kills)
    time.sleep(1.0)
    assert (folder / "journal").read_text().splitlines() == lines
    client.server.stop()


def test_kills_lose_no_job_and_double_none(tmp_path: Path) -> None:
    _kill_and_count(tmp_path / "server", num_jobs=4, worker_kills=2, server_kills=1, workers=1)


@pytest.mark.slow
def test_a_hundred_kills_lose_no_job_and_double_none(tmp_path: Path) -> None:
    _kill_and_count(tmp_path / "server", num_jobs=60, worker_kills=75, server_kills=25)


@pytest.mark.slow
def test_a_job_of_a_worker_that_never_comes_back_is_continued_by_another(tmp_path: Path) -> None:
    client = _Client(tmp_path / "server", workers=0)
    from tecafn.server.running import Workers
    from tecafn.server.settings import ServerSettings

    settings = ServerSettings(folder=tmp_path / "server", model="stub", workers=1)
    first, second = (Workers(settings, serving_stub.WORKER) for _ in range(2))
    answer = client.ask("POST", "/v1/jobs", files={"file": ("a.mp4", b"slow 8")})
    job = answer.json()["links"]["self"]
    first.start()
    _wait(client, job, "IN_PROGRESS")
    second.start()
    until = time.monotonic() + 60
    while client.ask("GET", "/ready").json()["workers"] < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    if client.ask("GET", job).json()["state"] == "IN_PROGRESS":
        first.kill()
    _wait(client, job, "COMPLETED")
    for workers in (first, second):
        workers.end()
    client.server.stop()


def _wait(client: _Client, job: str, state: str) -> None:
    until = time.monotonic() + 60
    while client.ask("GET", job).json()["state"] != state:
        assert time.monotonic() < until
        time.sleep(0.1)
