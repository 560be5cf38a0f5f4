"""A server with its workers: started together, ended together, each restarted when it dies."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final

import uvicorn
from filelock import FileLock, Timeout

from tecafn.core.errors import UserError
from tecafn.server.app import make_app
from tecafn.server.logs import begin_log
from tecafn.server.settings import SETTINGS, ServerSettings, as_json
from tecafn.server.spool import Spool
from tecafn.serving.opening import open_predictor

if TYPE_CHECKING:
    from tecafn.serving.opening import AnyPredictor

_WORKER: Final = (sys.executable, "-m", "tecafn.server")
_WAIT_SECONDS: Final = 10.0
_LONGEST_PAUSE: Final = 10.0
_STEADY_SECONDS: Final = 3.0

log = logging.getLogger("tecafn.server")


def serve(
    settings: ServerSettings,
    *,
    predictor: AnyPredictor | None = None,
    worker: Sequence[str] = _WORKER,
) -> None:
    """Be a server until SIGTERM or SIGINT.

    Args:
        settings: of the server.
        predictor: of small requests; None = the settings' model, loaded.
        worker: the command that starts one of its workers.

    Raises:
        UserError: the model, the folder or the database cannot be used, the port is taken, or
            another server uses the folder.
    """
    begin_log()
    spool = Spool(settings.folder)
    if predictor is None:
        # Workers load it when they need it; here a wrong name is said at once.
        predictor = open_predictor(settings.model)
    lock = FileLock(spool.folder / "server.lock")
    try:
        lock.acquire(timeout=_WAIT_SECONDS)
    except Timeout:
        raise UserError(f"another server uses {settings.folder}") from None
    with lock:
        app = make_app(settings, predictor)
        listening = listen(settings)
        host, port = listening.getsockname()[:2]
        settings = dataclasses.replace(settings, port=port)
        workers = Workers(settings, worker)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="on",
            ws="none",
            timeout_keep_alive=15,
            timeout_graceful_shutdown=3,
        )
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{port}", flush=True)
        try:
            workers.start()
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            workers.end()


def listen(settings: ServerSettings) -> socket.socket:
    """A socket, before anything else is started.

    Raises:
        UserError: the address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        made = socket.create_server((settings.host, settings.port), family=family, backlog=512)
        # Connections inherit it. Without, an answer's second part waits for the first part's
        # receipt, which the client's system holds back for 40 ms; asyncio sets it on sockets that
        # it made itself.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot listen on {settings.host}:{settings.port}: {reason}") from None


class Workers:
    """Worker processes that are started again when they die.

    Args:
        settings: of the server.
        command: that starts one.
    """

    def __init__(self, settings: ServerSettings, command: Sequence[str]) -> None:
        self._settings = settings
        self._command = list(command)
        self._stop = threading.Event()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._threads = [
            threading.Thread(
                target=self._keep, args=(number,), daemon=True, name=f"worker-{number}"
            )
            for number in range(settings.workers)
        ]

    def start(self) -> None:
        """Start all of them."""
        for thread in self._threads:
            thread.start()

    def _keep(self, number: int) -> None:
        pause = 0.5
        while not self._stop.is_set():
            started = time.monotonic()
            process = self._start()
            self._running[number] = process
            code = process.wait()
            if self._stop.is_set():
                return
            log.warning("worker %d ended with code %d; it is started again", number, code)
            if time.monotonic() - started > _STEADY_SECONDS:
                pause = 0.5
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _start(self) -> subprocess.Popen[bytes]:
        told = as_json(self._settings)
        return subprocess.Popen(
            self._command, stdin=subprocess.PIPE, env={**os.environ, SETTINGS: told}
        )

    def kill(self) -> None:
        """End all of them at once, as a power cut would; none is started again."""
        self._stop.set()
        for process in list(self._running.values()):
            process.kill()
            process.wait()

    def end(self) -> None:
        """End all of them; what they are at is continued at the next start."""
        self._stop.set()
        for process in list(self._running.values()):
            with suppress(OSError):
                stdin: IO[bytes] | None = process.stdin
                if stdin is not None:
                    stdin.close()
        for process in list(self._running.values()):
            try:
                process.wait(timeout=_WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
