"""A worker: takes jobs from the queue and does their steps.

A step that was cut short runs again; one that has ended does not. A clip at which a step
fails twice has failed, and so has one at which workers end again and again.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from dbos import DBOS
from filelock import FileLock, Timeout

from tecafn.core.errors import UserError
from tecafn.server.jobs import APPLICATION, QUEUE, SERIALIZER, VERSION, WORKFLOW, prepare, quiet
from tecafn.server.logs import begin_log
from tecafn.server.settings import ServerSettings
from tecafn.server.spool import Deleted, JobFolder, Progress, Spool
from tecafn.server.step import Step

TRIES: Final = 2
"""How often a step may fail."""
MOST_STARTS: Final = 30
"""How often workers may begin or continue a job: one that ends them all is given up."""
_POLL_SECONDS: Final = 0.2
_ALIVE_SECONDS: Final = 2.0
_ADOPT_SECONDS: Final = 5.0
_PROGRESS_SECONDS: Final = 0.3

log = logging.getLogger("tecafn.server")


class _Telling:
    """Writes a step's share of a job down, not too often, and ends the step of a deleted job."""

    def __init__(self, job: JobFolder, steps: Sequence[Step], number: int) -> None:
        total = sum(step.weight for step in steps)
        self._job = job
        self._name = steps[number].name
        self._before = sum(step.weight for step in steps[:number]) / total
        self._weight = steps[number].weight / total
        self._last = 0.0

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self._last < _PROGRESS_SECONDS:
            return
        self._last = now
        done = self._before + self._weight * min(max(share, 0.0), 1.0)
        self._job.write_progress(Progress(step=self._name, share=round(done, 4)))


def do_step(job: JobFolder, steps: Sequence[Step], number: int) -> str:
    """Do a step, and once more if it fails; why it failed, or nothing.

    Raises:
        Deleted: the job has gone.
    """
    step = steps[number]
    what = f"failures of {step.name}"
    while job.counts().get(what, 0) < TRIES:
        try:
            tell = _Telling(job, steps, number)
            tell(0.0)
            step.run(job, tell)
            return ""
        except Deleted:
            raise
        except UserError as error:
            reason = presentable(str(error), job)
        except Exception as error:
            # Its words may quote what somebody said; the log has its kind alone.
            log.error("job %s: %s: %s", job.id, step.name, type(error).__name__)
            reason = f"{step.name} failed unexpectedly ({type(error).__name__})"
        if not job.exists:
            raise Deleted
        job.write("reason.txt", reason.encode())
        job.count(what)
    return (job.read("reason.txt") or b"").decode() or f"{step.name} failed"


def presentable(reason: str, job: JobFolder) -> str:
    """In one line, without the places where things lie on the server."""
    line = " ".join(reason.split())
    for path in (job.clip, job.path, job.path.resolve()):
        line = line.replace(f"{path}: ", "").replace(f"{path}/", "").replace(str(path), "the clip")
    return line[:500]


def workflow_of(
    spool: Spool, steps: Sequence[Step], *, keep_clip: bool
) -> Callable[[str], dict[str, str]]:
    """The function that is a job.

    Args:
        spool: with the jobs' folders.
        steps: of a job, in their order.
        keep_clip: shall the clip stay when the job has ended?
    """

    def begin(job_id: str) -> JobFolder:
        job = spool.job(job_id)
        if job is None or not job.exists:
            raise Deleted
        return job

    def clip(job_id: str) -> dict[str, str]:
        started = time.monotonic()
        try:
            job = begin(job_id)
            # Not a step: it is to happen at every start.
            if job.count("starts") > MOST_STARTS:
                error = f"its worker ended {MOST_STARTS} times while at it; it was given up"
            else:
                error = _all_steps(job)
            if not keep_clip:
                job.remove_clip()
        except Deleted:
            error = "it was deleted"
        seconds = time.monotonic() - started
        log.info("job %s: %s after %.1f s", job_id, "failed" if error else "done", seconds)
        return {"error": error} if error else {}

    def _all_steps(job: JobFolder) -> str:
        for number, step in enumerate(steps):

            def do(number: int = number) -> dict[str, str]:
                return {"error": do_step(job, steps, number)}

            outcome: Mapping[str, str] = DBOS.run_step({"name": step.name}, do)
            if outcome["error"]:
                return outcome["error"]
        return ""

    return clip


class Worker:
    """A process that works on one job at a time, until it is ended.

    Args:
        settings: of the server.
        steps: of a job.
    """

    def __init__(self, settings: ServerSettings, steps: Sequence[Step]) -> None:
        self._settings = settings
        self._spool = Spool(settings.folder)
        self._steps = steps
        self._stop = threading.Event()

    def stop(self) -> None:
        """End it; what it is at is continued by the next worker."""
        self._stop.set()

    def run(self) -> None:
        """Work until ``stop``.

        Raises:
            UserError: the database cannot be used.
        """
        quiet()
        prepare(self._settings.database_url)
        with _slot(self._spool.workers) as name:
            alive = self._spool.workers / f"{name}.alive"
            alive.touch()
            self._launch(name)
            log.info("worker %s: ready", name)
            adopted = 0.0
            while not self._stop.wait(_ALIVE_SECONDS):
                with suppress(OSError):
                    alive.touch()
                if time.monotonic() - adopted > _ADOPT_SECONDS:
                    _adopt(self._spool.workers, name)
                    adopted = time.monotonic()
            alive.unlink(missing_ok=True)
            for child in multiprocessing.active_children():
                child.kill()

    def _launch(self, name: str) -> None:
        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": self._settings.database_url,
                "application_version": VERSION,
                "executor_id": name,
                "serializer": SERIALIZER,
                "log_level": "CRITICAL",
                "notification_listener_polling_interval_sec": 5.0,
            }
        )
        keep = self._settings.keep_clip_hours > 0
        clip = workflow_of(self._spool, self._steps, keep_clip=keep)
        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(clip)
        DBOS.listen_queues([QUEUE])
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=1,
            polling_interval_sec=_POLL_SECONDS,
            on_conflict="always_update",
        )


@contextmanager
def _slot(folder: Path) -> Iterator[str]:
    """A name that no other living worker has; the lowest, so that what it left is continued."""
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname()) or "host"
    for number in range(10_000):
        name = f"{host}-{number}"
        try:
            with FileLock(folder / f"{name}.lock", timeout=0):
                yield name
                return
        except Timeout:
            continue
    raise UserError(f"{folder} has no free place for a worker")


def _adopt(folder: Path, own: str) -> None:
    """Put the jobs of workers that have gone back into the queue."""
    for path in sorted(folder.glob("*.lock")):
        name = path.name.removesuffix(".lock")
        if name == own:
            continue
        with suppress(Timeout), FileLock(path, timeout=0):
            left = DBOS.list_workflows(
                status="PENDING", executor_id=name, load_input=False, load_output=False
            )
            for workflow in left:
                log.info("job %s: continued for worker %s", workflow.workflow_id, name)
                DBOS.resume_workflow(workflow.workflow_id, queue_name=QUEUE)


def end_with_parent(stop: Callable[[], None]) -> None:
    """Call ``stop`` when the process that started this one has gone: our input ends."""

    def watch() -> None:
        with suppress(OSError, ValueError):
            while os.read(sys.stdin.fileno(), 1024):
                pass
        stop()
        # What does not stop by itself is ended.
        time.sleep(5.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def work(settings: ServerSettings, steps: Sequence[Step], *, is_child: bool) -> None:
    """Be a worker until SIGTERM, SIGINT or, for a server's child, the server's end.

    Raises:
        UserError: the database cannot be used.
    """
    worker = Worker(settings, steps)
    if is_child:
        end_with_parent(worker.stop)
    try:
        worker.run()
    finally:
        for child in multiprocessing.active_children():
            child.kill()
    # Threads at a clip would be waited for; the clip is continued by the next worker instead.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def run_worker(settings: ServerSettings, *, is_child: bool = False) -> None:
    """Be a worker with the steps of a clip.

    Raises:
        UserError: the database cannot be used.
    """
    from tecafn.server.steps import steps_of

    begin_log()
    work(settings, steps_of(settings.model, max_minutes=settings.max_minutes), is_child=is_child)
