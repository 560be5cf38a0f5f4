"""The routes: jobs, predictions, the page, and what machines ask of a server."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

import tecafn
from tecafn.analyze.exports import EXPORTS
from tecafn.analyze.timeline import AI_ACT
from tecafn.server.gate import COOKIE, Gate, session_of
from tecafn.server.jobs import State
from tecafn.server.measures import CONTENT_TYPE
from tecafn.server.refusing import Refused
from tecafn.server.schemas import (
    About,
    Health,
    JobList,
    JobOut,
    PredictIn,
    PredictOut,
    Readiness,
    answers,
)
from tecafn.server.service import Service
from tecafn.server.settings import ServerSettings
from tecafn.server.step import CLIP_LINK, PAGE, TIMELINE

if TYPE_CHECKING:
    from tecafn.serving.opening import AnyPredictor

REPORT_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src 'self'; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts allow-downloads"
)
"""A report's own script runs; it is of no origin, reaches nothing of the server, loads nothing."""

_TABLES: Final = frozenset({TIMELINE, *(export.file for export in EXPORTS)})
_STATIC: Final = {"app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}


class Format(StrEnum):
    """Of a result."""

    JSON = "json"
    CSV = "csv"
    VTT = "vtt"
    PAGE = "page"


_FILES: Final = {
    Format.JSON: (TIMELINE, "application/json"),
    Format.CSV: ("timeline.csv", "text/csv; charset=utf-8"),
    Format.VTT: ("timeline.vtt", "text/vtt; charset=utf-8"),
    Format.PAGE: (PAGE, "text/html; charset=utf-8"),
}

_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "Video or sound.",
                        },
                        "text": {
                            "type": "string",
                            "maxLength": 100000,
                            "description": "What is said in it; else it is recognised.",
                        },
                        "transcript": {
                            "type": "string",
                            "format": "binary",
                            "description": "A file with what is said: .srt, .vtt, .json, .txt.",
                        },
                        "face": {
                            "type": "string",
                            "pattern": "^(left|right|[0-9]{1,6})$",
                            "description": "Whose face; else whose mouth moves with the voice.",
                        },
                    },
                }
            }
        },
    }
}

_SOME_RESULT: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The timeline.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/csv": {"schema": {"type": "string"}},
            "text/vtt": {"schema": {"type": "string"}},
            "text/html": {"schema": {"type": "string"}},
        },
    }
}
_SOME_EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events called job, with the job as their data, until it has ended.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}
_SOME_TEXT: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Measures.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


def make_app(settings: ServerSettings, predictor: AnyPredictor) -> ASGIApp:
    """The application, behind its gate.

    Args:
        settings: of the server.
        predictor: of small requests; clips are the workers'.

    Raises:
        UserError: the folder or the database cannot be used.
    """
    service = Service(settings, predictor)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.sweep)
        task = asyncio.create_task(service.run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        service.jobs.close()

    app = FastAPI(
        title="tecafn",
        version=tecafn.__version__,
        summary="Clips to timelines of sentiment, and predictions.",
        description=AI_ACT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        separate_input_output_schemas=False,
    )
    app.add_exception_handler(RequestValidationError, _say_what_is_wrong)
    _add_jobs(app, service)
    _add_results(app, service)
    _add_predictions(app, service)
    _add_machines(app, service)
    _add_page(app)
    return Gate(app, settings, service.measures)


async def _say_what_is_wrong(_: Request, error: Exception) -> JSONResponse:
    """Where and what, without the value: it may be large, secret, or nothing that JSON can hold."""
    assert isinstance(error, RequestValidationError)
    mistakes = [
        {"loc": list(one["loc"]), "msg": one["msg"], "type": one["type"]}
        for one in error.errors()[:20]
    ]
    return JSONResponse({"detail": mistakes}, status_code=422)


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/jobs",
        status_code=202,
        response_model=JobOut,
        responses={
            200: {"description": "The job that this key made before.", "model": JobOut},
            **answers(400, 403, 408, 409, 413, 415, 422, 429, 503),
        },
        openapi_extra=_FORM,
        tags=["jobs"],
    )
    async def start_job(
        request: Request,
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(description="A repeated request with the same key makes no second job."),
        ] = None,
    ) -> JobOut:
        """Send a clip; its job waits in a queue."""
        try:
            job, is_new = await service.accept(
                request.stream(),
                content_type=request.headers.get("content-type", ""),
                key=idempotency_key,
            )
        except ClientDisconnect:
            raise Refused(400, "the request ended too early") from None
        response.headers["Location"] = f"/v1/jobs/{job.job_id}"
        if not is_new:
            response.status_code = 200
            response.headers["Idempotency-Replayed"] = "true"
        return job

    @app.get("/v1/jobs", response_model=JobList, responses=answers(422), tags=["jobs"])
    async def list_jobs(
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        state: Annotated[list[State] | None, Query(description="Any of these.")] = None,
    ) -> JobList:
        """The newest jobs."""
        return JobList(jobs=await service.newest(limit=limit, states=state or []))

    @app.get("/v1/jobs/{job_id}", response_model=JobOut, responses=answers(404), tags=["jobs"])
    async def show_job(job_id: str) -> JobOut:
        """How far a job is."""
        return await service.show(job_id)

    @app.get(
        "/v1/jobs/{job_id}/events",
        response_class=StreamingResponse,
        responses={**_SOME_EVENTS, **answers(404, 429)},
        tags=["jobs"],
    )
    async def follow_job(job_id: str) -> StreamingResponse:
        """A job's progress as server-sent events."""
        events = await service.events(job_id)
        return StreamingResponse(events, media_type="text/event-stream")

    @app.delete(
        "/v1/jobs/{job_id}",
        status_code=204,
        responses=answers(403, 404),
        tags=["jobs"],
    )
    async def delete_job(job_id: str) -> None:
        """Delete a job with its clip and its result; one that runs is ended."""
        await service.delete(job_id)


def _add_results(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/jobs/{job_id}/result",
        response_class=Response,
        responses={**_SOME_RESULT, **answers(404, 409, 422)},
        tags=["jobs"],
    )
    async def show_result(job_id: str, format: Format = Format.JSON) -> Response:
        """The timeline of a job that is COMPLETED."""
        return await _send_file(service, job_id, format)

    @app.get(f"/v1/jobs/{{job_id}}/{CLIP_LINK}", include_in_schema=False)
    async def play_clip(job_id: str) -> Response:
        """The clip, as long as it is kept; the result's page plays it."""
        path, kind = await service.clip(job_id)
        # The page is of no origin: what it may play must be open to such pages.
        headers = {"cross-origin-resource-policy": "cross-origin"}
        return FileResponse(path, media_type=kind, headers=headers)

    @app.get("/v1/jobs/{job_id}/page/{seal}/{name}", include_in_schema=False)
    async def show_page(job_id: str, seal: str, name: str) -> Response:
        """The result's page and what it loads, for whoever was given its address."""
        service.check_seal(job_id, seal)
        if name == PAGE:
            return await _send_file(service, job_id, Format.PAGE)
        return await (play_clip(job_id) if name == CLIP_LINK else show_file(job_id, name))

    @app.get("/v1/jobs/{job_id}/{name}", include_in_schema=False)
    async def show_file(job_id: str, name: str) -> Response:
        """A table that the result's page links to."""
        if name not in _TABLES:
            raise Refused(404, "there is no such result")
        content = await service.result(job_id, name)
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(content, headers=headers, media_type="application/octet-stream")


async def _send_file(service: Service, job_id: str, format: Format) -> Response:
    name, kind = _FILES[format]
    content = await service.result(job_id, name)
    headers = {}
    if format == Format.PAGE:
        headers = {"content-security-policy": REPORT_POLICY, "x-frame-options": "SAMEORIGIN"}
    elif format != Format.JSON:
        headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, headers=headers, media_type=kind)


def _add_predictions(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/predict",
        response_model=PredictOut,
        responses=answers(400, 403, 408, 413, 422, 429),
        tags=["predictions"],
    )
    async def predict(given: PredictIn) -> PredictOut:
        """Predict samples from text or prepared features; small requests are batched."""
        values = await service.predict(given.inputs)
        return PredictOut(predictions=values, model=service.model)


def _add_machines(app: FastAPI, service: Service) -> None:
    @app.get("/health", response_model=Health, responses=answers(), tags=["server"])
    async def health() -> Health:
        """The server answers."""
        return Health(status="ok", version=tecafn.__version__)

    @app.get(
        "/ready",
        response_model=Readiness,
        responses={
            503: {"description": "It cannot work now.", "model": Readiness},
            **answers(),
        },
        tags=["server"],
    )
    async def ready(response: Response) -> Readiness:
        """Can the server do its work: database, worker, disk, model?"""
        workers = await asyncio.to_thread(service.spool.living_workers)
        database, disk = await service.is_reachable(), service.has_disk
        is_ready = database and disk and workers > 0
        response.status_code = 200 if is_ready else 503
        return Readiness(
            is_ready=is_ready, database=database, workers=workers, disk=disk, model=service.model
        )

    @app.get(
        "/metrics",
        response_class=Response,
        responses={**_SOME_TEXT, **answers()},
        tags=["server"],
    )
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(await service.render_measures(), media_type=CONTENT_TYPE)

    @app.get("/v1/about", response_model=About, responses=answers(), tags=["server"])
    async def about() -> About:
        """What this server does, and where it stops."""
        settings = service.settings
        return About(
            version=tecafn.__version__,
            needs_token=settings.token is not None,
            max_mb=settings.max_mb,
            max_minutes=settings.max_minutes,
            max_queue=settings.max_queue,
            keep_clip_hours=settings.keep_clip_hours,
            keep_result_hours=settings.keep_result_hours,
            model=service.model,
            notice=AI_ACT,
        )

    @app.post(
        "/v1/session",
        status_code=204,
        responses=answers(403),
        tags=["server"],
    )
    async def begin_session(response: Response) -> None:
        """Let a browser that has sent the token keep a cookie in its place."""
        token = service.settings.token
        if token is not None:
            response.set_cookie(COOKIE, session_of(token), httponly=True, samesite="strict")


def _add_page(app: FastAPI) -> None:
    folder = files("tecafn.server").joinpath("page")
    contents = {name: folder.joinpath(name).read_bytes() for name in ("index.html", *_STATIC)}
    notice = html.escape(AI_ACT).encode()
    contents["index.html"] = contents["index.html"].replace(b"NOTICE", notice)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return Response(contents["index.html"], media_type="text/html; charset=utf-8")

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        if name not in _STATIC:
            raise Refused(404, "there is no such file")
        kind = _STATIC[name]
        return Response(contents[name], media_type=f"{kind}; charset=utf-8")
