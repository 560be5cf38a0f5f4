"""Jobs as durable workflows: what the server asks of the database that workers work from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, WorkflowStatus
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from tecafn.core.errors import UserError

APPLICATION: Final = "tecafn"
VERSION: Final = "1"
"""Of the steps' order; a job that another version began is continued only by workers of its own."""
QUEUE: Final = "clips"
WORKFLOW: Final = "clip"
SERIALIZER: Final = DBOSPortableJSONSerializer()


class State(StrEnum):
    """Of a job."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        """Does nothing come after it?"""
        return self in (State.COMPLETED, State.FAILED)


_STATES: Final = {
    "ENQUEUED": State.QUEUED,
    "DELAYED": State.QUEUED,
    "PENDING": State.IN_PROGRESS,
    "SUCCESS": State.COMPLETED,
    "ERROR": State.FAILED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": State.FAILED,
}
_DELETED: Final = "CANCELLED"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the database knows of a job; times are seconds since 1970."""

    id: str
    state: State
    created: float
    started: float | None = None
    ended: float | None = None
    reason: str | None = None


class Jobs:
    """The database of jobs.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://...``; tables are made where they are missing.

    Raises:
        UserError: it cannot be reached or written.
    """

    def __init__(self, url: str) -> None:
        quiet()
        prepare(url)
        self._client = DBOSClient(
            system_database_url=url, serializer=SERIALIZER, application_name=APPLICATION
        )

    def close(self) -> None:
        """Leave the database."""
        self._client.destroy()

    def is_reachable(self) -> bool:
        """Does the database answer?"""
        try:
            self._client.check_connection()
        except Exception:  # whatever a driver raises: the answer is no
            return False
        return True

    def submit(self, job_id: str) -> None:
        """Put a job into the queue; nothing if there is one of this name."""
        self._client.enqueue(
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "workflow_id": job_id,
                "app_version": VERSION,
            },
            job_id,
        )

    def get(self, job_id: str) -> Job | None:
        """One job; None where there is none, or somebody deleted it."""
        found = self._client.list_workflows(workflow_ids=[job_id], load_input=False)
        return _job(found[0]) if found else None

    def is_deleted(self, job_id: str) -> bool:
        """Was there such a job, which somebody deleted a while ago?"""
        found = self._client.list_workflows(
            workflow_ids=[job_id], load_input=False, load_output=False
        )
        return bool(found) and found[0].status == _DELETED

    def newest(self, *, limit: int, states: Sequence[State] = ()) -> list[Job]:
        """The newest jobs."""
        # Whether a job has failed is in its outcome, which the database does not look into.
        names = [n for n, s in _STATES.items() if not states or s in states or s.is_final]
        jobs: list[Job] = []
        offset = 0
        while len(jobs) < limit:
            page = self._client.list_workflows(
                name=WORKFLOW,
                status=names,
                limit=limit,
                offset=offset,
                sort_desc=True,
                load_input=False,
            )
            found = [job for job in map(_job, page) if job is not None]
            jobs += [job for job in found if not states or job.state in states]
            offset += len(page)
            if len(page) < limit:
                break
        return jobs[:limit]

    def num_waiting(self, *, at_most: int) -> int:
        """How many jobs wait; counts no further than ``at_most``."""
        found = self._client.list_workflows(
            name=WORKFLOW,
            status=["ENQUEUED", "DELAYED"],
            limit=at_most,
            load_input=False,
            load_output=False,
        )
        return len(found)

    def num_working(self) -> int:
        """How many jobs are being worked on."""
        found = self._client.list_workflows(
            name=WORKFLOW, status="PENDING", load_input=False, load_output=False
        )
        return len(found)

    def names(self) -> frozenset[str]:
        """Of all jobs that there are."""
        found = self._client.list_workflows(
            name=WORKFLOW, status=list(_STATES), load_input=False, load_output=False
        )
        return frozenset(one.workflow_id for one in found)

    def cancel(self, job_id: str) -> None:
        """Nobody works on it any more, and it is not there for anybody who asks."""
        # What has ended stays ended in the database, and is forgotten at once.
        self._client.cancel_workflow(job_id)
        job = self.get(job_id)
        if job is not None and job.state.is_final:
            self._client.delete_workflow(job_id)

    def ended(self, *, hours_ago: float) -> list[Job]:
        """Jobs that ended so long ago or earlier, the oldest first."""
        before = _iso(hours_ago)
        found = self._client.list_workflows(
            name=WORKFLOW, status=list(_STATES), completed_before=before, load_input=False
        )
        return [job for job in map(_job, found) if job is not None and job.state.is_final]

    def forget(self, job_ids: Sequence[str]) -> None:
        """Of these nothing is kept."""
        if job_ids:
            self._client.delete_workflows(list(job_ids))

    def forget_deleted(self, *, hours_ago: float) -> None:
        """Of what was deleted so long ago nothing is kept."""
        found = self._client.list_workflows(
            name=WORKFLOW,
            status=_DELETED,
            completed_before=_iso(hours_ago),
            load_input=False,
            load_output=False,
        )
        self.forget([one.workflow_id for one in found])


def prepare(url: str) -> None:
    """Make what tables are missing.

    Raises:
        UserError: the database cannot be reached or written.
    """
    try:
        DBOS.migrate(url)
        if make_url(url).get_backend_name() == "sqlite":
            engine = create_engine(url)
            with engine.connect() as connection:
                # Who reads need not wait for who writes; it stays so in the file.
                connection.execute(text("PRAGMA journal_mode=WAL"))
            engine.dispose()
    except (SQLAlchemyError, OSError, ImportError) as error:
        # A driver's words may hold the address with its password.
        reason = type(getattr(error, "orig", None) or error).__name__
        raise UserError(f"the database of jobs cannot be used: {reason}") from None


def quiet() -> None:
    """Logs hold no reasons and no arguments: those may quote what somebody said."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.CRITICAL)
    logger.propagate = False


def _iso(hours_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours_ago)).isoformat()


def _job(found: WorkflowStatus) -> Job | None:
    state = _STATES.get(found.status)
    if state is None:
        return None
    reason = None
    if state == State.COMPLETED and isinstance(found.output, dict):
        reason = found.output.get("error")
    elif state == State.FAILED:
        reason = "it ended unexpectedly"
    return Job(
        id=found.workflow_id,
        state=State.FAILED if reason is not None else state,
        created=(found.created_at or 0) / 1000,
        started=None if found.dequeued_at is None else found.dequeued_at / 1000,
        ended=None if found.completed_at is None else found.completed_at / 1000,
        reason=reason,
    )
