"""A server in this process and a worker beside it, with quick steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("dbos")

import serving_stub
from serving_stub import Place
from starlette.testclient import TestClient

from tecafn.server.app import make_app
from tecafn.server.running import Workers
from tecafn.server.settings import ServerSettings


@pytest.fixture
def make_place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """``make_place(max_queue=1)``: a server without a worker."""
    open_clients: list[TestClient] = []

    def make(**values: Any) -> Place:
        settings = ServerSettings(**{"folder": tmp_path / "server", "model": "stub", **values})
        app = make_app(settings, serving_stub.Predictor())  # type: ignore[arg-type]
        client = TestClient(app, base_url="http://localhost")
        client.__enter__()
        open_clients.append(client)
        return Place(client, settings)

    yield make
    for client in open_clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server with a worker, for a whole file of tests."""
    folder = tmp_path_factory.mktemp("serving")
    settings = ServerSettings(folder=folder / "server", model="stub", max_mb=2, max_minutes=1)
    app = make_app(settings, serving_stub.Predictor())  # type: ignore[arg-type]
    workers = Workers(settings, serving_stub.WORKER)
    workers.start()
    with TestClient(app, base_url="http://localhost") as client:
        yield Place(client, settings)
    workers.end()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving_stub.Served]:
    """A server that listens on a socket, and is quickly tired of slow ones."""
    folder = tmp_path_factory.mktemp("served") / "server"
    server = serving_stub.start(folder, stall_seconds=1.0, min_rate=2000.0, max_mb=2)
    yield server
    server.stop()
