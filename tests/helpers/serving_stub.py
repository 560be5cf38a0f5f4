"""A server whose model and steps are quick; all else of it is real.

``main`` is one, or a worker of one, told by the command line and the environment. What a clip
holds decides what becomes of it, see ``STEPS``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from dying import die
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.extract.guard import Limits, call_guarded
from tecafn.server.logs import begin_log
from tecafn.server.settings import SETTINGS, ServerSettings, as_json, from_json
from tecafn.server.spool import JobFolder, Spool
from tecafn.server.step import Step, Tell
from tecafn.server.worker import work

if TYPE_CHECKING:
    from starlette.testclient import TestClient

# Processes that a worker starts would import a script again; of -c there is nothing to import.
_MAIN = "import serving_stub, sys; serving_stub.main()"
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
)
WORKER = (sys.executable, "-c", _MAIN, "worker")


_REPORT = b"""<!doctype html><html lang="en"><title>report</title><h1>A stub's report</h1>
<video src="clip"></video> <a href="timeline.csv" download>timeline.csv</a></html>"""


class Predictor:
    """Scores a text by its length, and refuses the word poison."""

    takes = (Modality.TEXT, Modality.AUDIO)
    definition = SimpleNamespace(
        method="stub", dataset="stub", task="regression", label_range=(-3.0, 3.0), num_classes=1
    )

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def predict(self, **given: list[Any]) -> NDArray[np.float64]:
        rows = next(iter(given.values()))
        self.sizes.append(len(rows))
        for number, text in enumerate(given.get("text", [])):
            if text is not None and "poison" in text:
                raise UserError(f"text of sample {number} is poison")
        texts = given.get("text", rows)
        return np.array([float(len(one or "")) for one in texts])


def _decode(job: JobFolder, tell: Tell) -> None:
    content = job.clip.read_bytes()
    if content.startswith(b"crash"):
        call_guarded(die, "clip", limits=Limits(stall_seconds=20))
    if content.startswith(b"refuse"):
        raise UserError(f"{job.clip}: cannot be read as video or sound")
    if content.startswith(b"secret"):
        raise RuntimeError(content.decode())
    _journal(job, "decode")
    seconds = float(content.split()[1]) if content.startswith(b"slow") else 0.01
    started = time.monotonic()
    while (done := time.monotonic() - started) < seconds:
        time.sleep(0.01)
        tell(done / seconds)
    job.write("words.json", b'{"size": %d}' % len(content))


def _score(job: JobFolder, tell: Tell) -> None:
    _journal(job, "score")
    time.sleep(0.02)
    tell(0.5)
    job.write("timeline.json", job.read("words.json") or b"")


def _page(job: JobFolder, tell: Tell) -> None:
    _journal(job, "page")
    time.sleep(0.01)
    job.write("timeline.csv", b"start,end,score,text\n")
    job.write("timeline.vtt", b"WEBVTT\n")
    job.write("report.html", _REPORT)


STEPS = (Step("decode", 0.5, _decode), Step("score", 0.3, _score), Step("page", 0.2, _page))


def _journal(job: JobFolder, step: str) -> None:
    """Who did what; a line that is whole, whoever is killed."""
    journal = job.path.parent.parent / "journal"
    with journal.open("ab") as file:
        file.write(f"{job.id} {step} {os.getpid()}\n".encode())


@dataclass
class Place:
    """A server and its client."""

    client: TestClient
    settings: ServerSettings

    @property
    def spool(self) -> Spool:
        return Spool(self.settings.folder)

    def send(self, content: bytes = b"clip", *, name: str = "a.mp4", **options: Any) -> Any:
        return self.client.post("/v1/jobs", files={"file": (name, content)}, **options)

    def end(self, job_id: str, *, seconds: float = 30.0) -> dict[str, Any]:
        """The job when it has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            job: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}").json()
            if job["state"] in ("COMPLETED", "FAILED"):
                return job
            time.sleep(0.05)
        raise AssertionError(f"not ended: {job}")


def start(folder: Path, **values: Any) -> Served:
    """A server, which listens on a port of its own."""
    settings = ServerSettings(**{"folder": folder, "model": "stub", "port": 0, **values})
    return Served(settings)


class Served:
    """A server process; ``url`` is where it listens."""

    def __init__(
        self,
        settings: ServerSettings,
        command: Sequence[str] = (sys.executable, "-c", _MAIN, "server"),
    ) -> None:
        told = json.loads(as_json(settings)) | {"token": settings.token}
        with (settings.folder.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, SETTINGS: json.dumps(told)},
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        assert self.url.startswith("http"), (settings.folder.parent / "log").read_text()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def kill(self) -> None:
        self.process.kill()
        self._ended()

    def _ended(self) -> int:
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def start_real(folder: Path, *options: str) -> Served:
    """``tecafn serve`` itself."""
    command = [sys.executable, "-m", "tecafn", "serve", "--folder", str(folder), "--port", "0"]
    return Served(ServerSettings(folder=folder, model="builtin"), [*command, *options])


def main() -> None:
    settings = from_json(os.environ.pop(SETTINGS))
    if sys.argv[1] == "worker":
        begin_log()
        work(settings, STEPS, is_child=True)
    else:
        from tecafn.server.running import serve

        serve(settings, predictor=Predictor(), worker=WORKER)  # type: ignore[arg-type]
