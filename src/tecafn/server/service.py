"""What the routes do: accept, show, delete and clean up jobs, and predict."""

from __future__ import annotations

import asyncio
import json
import logging
import mimetypes
import re
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tecafn.core.errors import UserError
from tecafn.server.batching import Batcher, Full, Given
from tecafn.server.gate import JOBS, is_same
from tecafn.server.jobs import Job, Jobs, State
from tecafn.server.measures import Measures
from tecafn.server.refusing import Refused, busy
from tecafn.server.schemas import JobOut, ModelOut, SampleIn
from tecafn.server.settings import MEGABYTE, ServerSettings
from tecafn.server.spool import Deleted, JobFolder, Spool, Upload
from tecafn.server.step import PAGE
from tecafn.server.uploads import receive_form

if TYPE_CHECKING:
    from tecafn.serving.opening import AnyPredictor

_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")
_SPARE_BYTES: Final = 200 * MEGABYTE
_EVENT_SECONDS: Final = 0.5
_STILL_SECONDS: Final = 15.0
_CLEAN_SECONDS: Final = 60.0
_DELETED_HOURS: Final = 1.0

log = logging.getLogger("tecafn.server")


class Service:
    """One server's.

    Args:
        settings: with the limits.
        predictor: of small requests.
    """

    def __init__(self, settings: ServerSettings, predictor: AnyPredictor) -> None:
        self.settings = settings
        self.spool = Spool(settings.folder)
        self.jobs = Jobs(settings.database_url)
        self.measures = Measures()
        self.model = _about(settings.model, predictor)
        self.batcher = Batcher(
            predictor.predict,
            max_waiting=settings.max_waiting,
            told=self.measures.batches.observe,
        )
        self._num_uploads = 0
        self._num_admitted = 0
        self._admitting = asyncio.Lock()
        self._num_streams = 0

    async def run(self) -> None:
        """Predict and clean up until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.batcher.run())
            tasks.create_task(self._clean_for_ever())

    # Jobs

    async def accept(
        self, body: AsyncIterator[bytes], *, content_type: str, key: str | None
    ) -> tuple[JobOut, bool]:
        """A new job of what is sent; or the job that the same key made before.

        Returns:
            The job, and whether it is new.

        Raises:
            Refused: something is full, or what is sent cannot be a job.
        """
        if key is not None and not _KEY.fullmatch(key):
            raise Refused(422, "Idempotency-Key must have 1 to 200 printable ASCII characters")
        async with self._uploading():
            if not self.has_disk:
                raise Refused(503, "the disk is full", {"Retry-After": "60"})
            received = await to_thread(self.spool.receive)
            try:
                upload = await receive_form(body, content_type, received, self.settings)
                received.write_upload(upload)
                job_id = await to_thread(self.spool.new_id, key)
                is_new = await to_thread(self._submit, received, job_id, upload)
            except Deleted:
                raise Refused(503, "the server is being cleaned up", {"Retry-After": "5"}) from None
            finally:
                await asyncio.shield(to_thread(received.remove))
        if is_new:
            self.measures.accepted.inc()
            self.measures.uploaded.inc(upload.size)
            log.info("job %s: accepted, %d bytes", job_id, upload.size)
        job = await self.show(job_id)
        return job, is_new

    def _submit(self, received: JobFolder, job_id: str, upload: Upload) -> bool:
        if self.jobs.is_deleted(job_id):
            raise Refused(409, "the job of this Idempotency-Key was deleted; use another key")
        try:
            job = self.spool.accept(received, job_id)
        except FileExistsError:
            before = self.spool.job(job_id)
            assert before is not None, "a name of ours"
            if before.upload().sha256 != upload.sha256:
                raise Refused(
                    422, "another clip was sent with this Idempotency-Key before"
                ) from None
            # If the server ended between the folder and the queue, it is queued now.
            self.jobs.submit(job_id)
            return False
        try:
            self.jobs.submit(job_id)
        except Exception:
            job.remove()
            raise
        return True

    @asynccontextmanager
    async def _uploading(self) -> AsyncIterator[None]:
        """A place among those who send a clip, and one in the queue for what they send."""
        if self._num_uploads >= self.settings.max_uploads:
            self.measures.refused.labels("uploads").inc()
            raise busy(f"{self.settings.max_uploads} clips are being sent already", seconds=2)
        self._num_uploads += 1
        try:
            await self._admit()
            try:
                yield
            finally:
                self._num_admitted -= 1
        finally:
            self._num_uploads -= 1

    async def _admit(self) -> None:
        limit = self.settings.max_queue
        async with self._admitting:
            # Whoever was admitted before we look is counted, here or among those who wait.
            admitted = self._num_admitted
            waiting = await to_thread(self.jobs.num_waiting, at_most=limit)
            if waiting + admitted >= limit:
                self.measures.refused.labels("queue").inc()
                raise busy(f"{limit} jobs wait already", seconds=30)
            self._num_admitted += 1

    async def show(self, job_id: str) -> JobOut:
        """A job.

        Raises:
            Refused: there is none.
        """
        job, folder = await self._found(job_id)
        return await to_thread(self._shown, job, folder)

    async def newest(self, *, limit: int, states: list[State]) -> list[JobOut]:
        """The newest jobs."""
        jobs = await to_thread(self.jobs.newest, limit=limit, states=states)
        shown = []
        for job in jobs:
            folder = self.spool.job(job.id)
            if folder is not None and folder.exists:
                with suppress(Refused):
                    shown.append(await to_thread(self._shown, job, folder))
        return shown

    def _shown(self, job: Job, folder: JobFolder) -> JobOut:
        links = {"self": f"{JOBS}/{job.id}", "events": f"{JOBS}/{job.id}/events"}
        if job.state == State.COMPLETED:
            links["result"] = f"{JOBS}/{job.id}/result"
            links["page"] = f"{JOBS}/{job.id}/page/{self.spool.seal(job.id)}/{PAGE}"
        return _shown(job, folder, links)

    def check_seal(self, job_id: str, seal: str) -> None:
        """Was the address of the job's page given out by us?

        Raises:
            Refused: it was not.
        """
        if not is_same(seal, self.spool.seal(job_id)):
            raise Refused(404, "there is no such page")

    async def _found(self, job_id: str) -> tuple[Job, JobFolder]:
        folder = self.spool.job(job_id)
        job = None
        if folder is not None and folder.exists:
            job = await to_thread(self.jobs.get, job_id)
        if job is None or folder is None:
            raise Refused(404, "there is no such job")
        return job, folder

    async def result(self, job_id: str, name: str) -> bytes:
        """A file that a job left.

        Raises:
            Refused: there is no such job, or it has not ended, or it has failed.
        """
        job, folder = await self._found(job_id)
        if not job.state.is_final:
            raise Refused(409, f"the job is {job.state}; its result comes when it is COMPLETED")
        if job.state == State.FAILED:
            raise Refused(409, f"the job has failed: {job.reason}")
        content = await to_thread(folder.read, name)
        if content is None:
            raise Refused(404, "there is no such result")
        return content

    async def clip(self, job_id: str) -> tuple[Path, str]:
        """A job's clip and its kind.

        Raises:
            Refused: there is no such job, or its clip is not kept.
        """
        _, folder = await self._found(job_id)
        if not await to_thread(folder.clip.exists):
            raise Refused(404, "the clip is not kept")
        guessed = mimetypes.guess_type(folder.upload().label)[0] or ""
        is_media = guessed.startswith(("video/", "audio/"))
        return folder.clip, guessed if is_media else "video/mp4"

    async def delete(self, job_id: str) -> None:
        """Delete a job and all that belongs to it; a worker that is at it leaves off.

        Raises:
            Refused: there is none.
        """
        _, folder = await self._found(job_id)
        await to_thread(self.jobs.cancel, job_id)
        await to_thread(folder.remove)
        log.info("job %s: deleted", job_id)

    async def events(self, job_id: str) -> AsyncIterator[str]:
        """A job's progress as server-sent events, until it has ended.

        Raises:
            Refused: there is none, or too many listen.
        """
        first = await self.show(job_id)
        if self._num_streams >= self.settings.max_streams:
            self.measures.refused.labels("streams").inc()
            raise busy("too many listen to progress already; ask for the job instead", seconds=5)
        return self._events(first)

    async def _events(self, job: JobOut) -> AsyncIterator[str]:
        self._num_streams += 1
        try:
            last, still = "", 0.0
            while True:
                told = job.model_dump_json()
                if told != last:
                    yield f"event: job\ndata: {told}\n\n"
                    last, still = told, 0.0
                elif still >= _STILL_SECONDS:
                    yield ": still there\n\n"
                    still = 0.0
                if State(job.state).is_final:
                    return
                await asyncio.sleep(_EVENT_SECONDS)
                still += _EVENT_SECONDS
                try:
                    job = await self.show(job.job_id)
                except Refused:
                    yield f"event: deleted\ndata: {json.dumps({'job_id': job.job_id})}\n\n"
                    return
        finally:
            self._num_streams -= 1

    # Predictions

    async def predict(self, inputs: list[SampleIn]) -> list[float]:
        """A number per sample.

        Raises:
            Refused: too many, or one that cannot be predicted.
        """
        if len(inputs) > self.settings.max_samples:
            raise Refused(
                413, f"a request has at most {self.settings.max_samples} samples, got {len(inputs)}"
            )
        samples = [Given(text=one.text, audio=one.audio, vision=one.vision) for one in inputs]
        try:
            return await self.batcher.predict(samples)
        except Full:
            self.measures.refused.labels("predictions").inc()
            raise busy("too many samples wait for a prediction", seconds=1) from None
        except UserError as error:
            raise Refused(422, str(error)) from None

    # What it is like

    @property
    def has_disk(self) -> bool:
        """Is there room for another clip?"""
        return self.spool.free_bytes() > self.settings.max_bytes + _SPARE_BYTES

    async def is_reachable(self) -> bool:
        """Does the database answer?"""
        return await to_thread(self.jobs.is_reachable)

    async def render_measures(self) -> bytes:
        """For Prometheus."""
        limit = 10 * self.settings.max_queue
        waiting = await to_thread(self.jobs.num_waiting, at_most=limit)
        working = await to_thread(self.jobs.num_working)
        self.measures.jobs.labels(State.QUEUED.value).set(waiting)
        self.measures.jobs.labels(State.IN_PROGRESS.value).set(working)
        self.measures.workers.set(self.spool.living_workers())
        self.measures.free.set(self.spool.free_bytes())
        return self.measures.render()

    # Cleaning up

    def sweep(self) -> None:
        """Delete what an interrupted server left; before anybody is listened to."""
        left = self.spool.sweep(dict.fromkeys(self.jobs.names()))
        if left:
            log.info("%d folders without a job were deleted", len(left))

    async def _clean_for_ever(self) -> None:
        while True:
            try:
                await to_thread(self.clean)
            except Exception as error:
                log.error("cleaning up: %s", type(error).__name__)
            await asyncio.sleep(_CLEAN_SECONDS)

    def clean(self) -> None:
        """Delete what has been kept for long enough."""
        settings = self.settings
        old = self.jobs.ended(hours_ago=settings.keep_result_hours)
        for job in old:
            if (folder := self.spool.job(job.id)) is not None:
                folder.remove()
        self.jobs.forget([job.id for job in old])
        for job in self.jobs.ended(hours_ago=settings.keep_clip_hours):
            folder = self.spool.job(job.id)
            if folder is not None and folder.exists:
                folder.remove_clip()
        self.jobs.forget_deleted(hours_ago=_DELETED_HOURS)


def _shown(job: Job, folder: JobFolder, links: dict[str, str]) -> JobOut:
    try:
        upload = folder.upload()
    except Deleted:
        raise Refused(404, "there is no such job") from None
    progress = folder.progress()
    is_working = job.state == State.IN_PROGRESS
    share = 1.0 if job.state == State.COMPLETED else progress.share
    return JobOut(
        job_id=job.id,
        state=job.state.value,
        file=upload.label,
        step=progress.step if is_working else "",
        progress=0.0 if job.state == State.QUEUED else share,
        created=job.created,
        started=job.started,
        ended=job.ended if job.state.is_final else None,
        reason=job.reason,
        links=links,
    )


def _about(name: str, predictor: AnyPredictor) -> ModelOut:
    definition = predictor.definition
    is_score = definition.task == "regression"
    scale = (
        list(definition.label_range)
        if is_score
        else [0.0, 1.0 if definition.num_classes == 2 else float(definition.num_classes - 1)]
    )
    return ModelOut(
        name=name.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or name,
        method=definition.method,
        dataset=definition.dataset,
        takes=[modality.value for modality in predictor.takes],
        task=definition.task,
        scale=scale,
    )
