"""What goes over the wire, with examples for the description of the interface."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

JOB_ID = "4f3c2a9d8e7b4c61a5d0f2e3b4c5d6e7"


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be text that can be encoded as UTF-8") from None
    return text


class Detail(BaseModel):
    """Why a request was refused."""

    detail: str
    model_config = ConfigDict(json_schema_extra={"examples": [{"detail": "there is no such job"}]})


class Mistake(BaseModel):
    """Where a request is wrong."""

    loc: list[str | int]
    msg: str
    type: str


class Mistakes(BaseModel):
    """What is wrong with a request: a sentence, or each value that is wrong."""

    detail: str | list[Mistake]


class JobOut(BaseModel):
    """A job."""

    job_id: str = Field(description="Its name.")
    state: Literal["QUEUED", "IN_PROGRESS", "COMPLETED", "FAILED"]
    file: str = Field(description="What the clip was called.")
    step: str = Field(description="What is being done; empty before and after.")
    progress: float = Field(ge=0, le=1, description="Share of the work that is done.")
    created: float = Field(description="Seconds since 1970.")
    started: float | None = Field(None, description="When a worker began or continued it.")
    ended: float | None = None
    reason: str | None = Field(None, description="Why it failed.")
    links: dict[str, str] = Field(description="Where more of it is.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job_id": JOB_ID,
                    "state": "IN_PROGRESS",
                    "file": "talk.mp4",
                    "step": "voice and face",
                    "progress": 0.42,
                    "created": 1764150000.0,
                    "started": 1764150002.0,
                    "ended": None,
                    "reason": None,
                    "links": {
                        "self": f"/v1/jobs/{JOB_ID}",
                        "events": f"/v1/jobs/{JOB_ID}/events",
                    },
                }
            ]
        }
    )


class JobList(BaseModel):
    """The newest jobs first."""

    jobs: list[JobOut]


Row = Annotated[list[float | None], Field(min_length=1, max_length=4096)]
Frames = Annotated[list[Row], Field(max_length=20_000)]


class SampleIn(BaseModel):
    """What is known of a sample; what is left out is absent."""

    text: Annotated[str, AfterValidator(_encodable)] | None = Field(None, max_length=20_000)
    audio: Frames | None = Field(None, description="Frames as in the training data; null masks.")
    vision: Frames | None = None

    model_config = ConfigDict(extra="forbid")


class PredictIn(BaseModel):
    """Samples to predict."""

    inputs: list[SampleIn] = Field(min_length=1)

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"inputs": [{"text": "The plot was thin, but I loved it."}, {"text": "Dull."}]}
            ]
        },
    )


class ModelOut(BaseModel):
    """What predicted."""

    name: str
    method: str
    dataset: str = Field(description="What it was trained on.")
    takes: list[str] = Field(description="Modalities that it looks at.")
    task: str = Field(description="regression or classification.")
    scale: list[float] = Field(description="Lowest and highest label.")


class PredictOut(BaseModel):
    """A number per sample, in their order."""

    predictions: list[float]
    model: ModelOut

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "predictions": [1.4, -1.2],
                    "model": {
                        "name": "builtin",
                        "method": "tecafn",
                        "dataset": "mosei",
                        "takes": ["text"],
                        "task": "regression",
                        "scale": [-3.0, 3.0],
                    },
                }
            ]
        }
    )


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"]
    version: str


class Readiness(BaseModel):
    """Can the server do its work?"""

    is_ready: bool
    database: bool
    workers: int
    disk: bool
    model: ModelOut


class About(BaseModel):
    """What this server does, and where it stops."""

    version: str
    needs_token: bool
    max_mb: float
    max_minutes: float
    max_queue: int
    keep_clip_hours: float
    keep_result_hours: float
    model: ModelOut
    notice: str = Field(description="A sentence on the law where voice and face are looked at.")


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its description."""
    said = {
        400: "It cannot be read.",
        401: "The token is missing or wrong.",
        403: "It comes from another site's page.",
        404: "There is no such job.",
        408: "It came too slowly.",
        409: "The job is not in a state for that.",
        413: "It is too large.",
        415: "It is of another kind.",
        421: "The server is not known by the name that was called.",
        422: "A value is wrong.",
        429: "Something is full; Retry-After says when to come again.",
        503: "The server cannot work now.",
    }
    always = (401, 421)
    return {
        status: {"description": said[status], "model": Mistakes if status == 422 else Detail}
        for status in (*statuses, *always)
    }
