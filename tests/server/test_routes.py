"""Every route, as a client sees it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from serving_stub import Place

from tecafn.analyze.timeline import AI_ACT
from tecafn.server.running import listen
from tecafn.server.settings import ServerSettings
from tecafn.server.spool import Upload

UNKNOWN = "0" * 32


def test_a_job_goes_from_the_queue_to_its_result_in_every_format(place: Place) -> None:
    answer = place.send(b"0123456789", name="my talk.mp4", data={"text": "hello"})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['job_id']}" == job["links"]["self"]
    assert job["state"] in ("QUEUED", "IN_PROGRESS")
    assert job["file"] == "my talk.mp4"
    done = place.end(job["job_id"])
    assert done["state"] == "COMPLETED"
    assert done["progress"] == 1.0
    assert done["created"] <= done["started"] <= done["ended"]
    result = done["links"]["result"]
    assert place.client.get(result).json() == {"size": 10}
    kinds = {"json": "application/json", "csv": "text/csv", "vtt": "text/vtt", "page": "text/html"}
    for format, kind in kinds.items():
        shown = place.client.get(result, params={"format": format})
        assert shown.status_code == 200
        assert shown.headers["content-type"].startswith(kind)
    assert place.client.get(result, params={"format": "exe"}).status_code == 422


def test_the_clip_and_its_text_are_gone_when_the_job_has_ended(place: Place) -> None:
    job = place.send(b"x", data={"text": "something private"}).json()
    place.end(job["job_id"])
    folder = place.spool.job(job["job_id"])
    assert folder is not None
    assert not folder.clip.exists()
    assert b"private" not in b"".join(p.read_bytes() for p in folder.path.iterdir())


def test_progress_comes_as_events_until_the_job_has_ended(place: Place) -> None:
    job = place.send(b"slow 1.5").json()
    with place.client.stream("GET", job["links"]["events"]) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    events = [
        json.loads(event.removeprefix("event: job\ndata: "))
        for event in text.split("\n\n")
        if event.startswith("event: job")
    ]
    states = [event["state"] for event in events]
    shares = [event["progress"] for event in events]
    assert states[-1] == "COMPLETED"
    assert "IN_PROGRESS" in states
    assert shares == sorted(shares)
    assert any(0 < share < 1 for share in shares)
    assert "decode" in {event["step"] for event in events}


def test_a_job_that_fails_says_why_without_naming_places_on_the_server(place: Place) -> None:
    job = place.end(place.send(b"refuse").json()["job_id"])
    assert job["state"] == "FAILED"
    assert job["reason"] == "cannot be read as video or sound"
    answer = place.client.get(f"/v1/jobs/{job['job_id']}/result")
    assert answer.status_code == 409
    assert "cannot be read" in answer.json()["detail"]


def test_a_clip_that_crashes_its_decoder_fails_after_two_tries_and_others_go_on(
    place: Place,
) -> None:
    job_id = place.send(b"crash").json()["job_id"]
    job = place.end(job_id, seconds=60)
    assert job["state"] == "FAILED"
    assert "SIGSEGV" in job["reason"]
    folder = place.spool.job(job_id)
    assert folder is not None
    assert folder.counts() == {"starts": 1, "failures of decode": 2}
    assert place.end(place.send().json()["job_id"])["state"] == "COMPLETED"


def test_the_same_key_makes_one_job_and_another_clip_with_it_is_refused(place: Place) -> None:
    headers = {"Idempotency-Key": "one"}
    first = place.send(b"a", headers=headers)
    again = place.send(b"a", headers=headers)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.headers["idempotency-replayed"] == "true"
    assert first.json()["job_id"] == again.json()["job_id"]
    other = place.send(b"b", headers=headers)
    assert other.status_code == 422
    assert "Idempotency-Key" in other.json()["detail"]
    assert place.send(b"a", headers={"Idempotency-Key": "two"}).json() != first.json()
    assert place.send(b"a", headers={"Idempotency-Key": " "}).status_code == 422


def test_a_deleted_job_is_gone_with_all_its_files(place: Place) -> None:
    job_id = place.send().json()["job_id"]
    place.end(job_id)
    assert place.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    folder = place.spool.job(job_id)
    assert folder is not None
    assert not folder.exists
    for method, path in [("GET", ""), ("GET", "/events"), ("GET", "/result"), ("DELETE", "")]:
        answer = place.client.request(method, f"/v1/jobs/{job_id}{path}")
        assert answer.status_code == 404


def test_a_job_in_work_can_be_deleted_and_the_worker_takes_the_next(place: Place) -> None:
    headers = {"Idempotency-Key": "deleted"}
    job_id = place.send(b"slow 60", headers=headers).json()["job_id"]
    until = time.monotonic() + 20
    while place.client.get(f"/v1/jobs/{job_id}").json()["progress"] == 0:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert place.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert place.end(place.send().json()["job_id"])["state"] == "COMPLETED"
    assert place.client.get(f"/v1/jobs/{job_id}").status_code == 404
    assert place.send(b"slow 60", headers=headers).status_code == 409


def test_jobs_are_listed_by_state_the_newest_first(place: Place) -> None:
    good = place.end(place.send().json()["job_id"])
    bad = place.end(place.send(b"refuse").json()["job_id"])
    for state, job in (("COMPLETED", good), ("FAILED", bad)):
        listed = place.client.get("/v1/jobs", params={"state": state}).json()["jobs"]
        assert job in listed
        assert {one["state"] for one in listed} == {state}
    assert len(place.client.get("/v1/jobs", params={"limit": 1}).json()["jobs"]) == 1
    assert place.client.get("/v1/jobs", params={"state": "GONE"}).status_code == 422


@pytest.mark.parametrize("path", ["", "/events", "/result"])
@pytest.mark.parametrize("job_id", [UNKNOWN, "x", "..%2F..%2Fsecret", "%00", "A" * 32])
def test_what_is_no_job_is_not_found(place: Place, job_id: str, path: str) -> None:
    assert place.client.get(f"/v1/jobs/{job_id}{path}").status_code == 404


def test_a_result_is_refused_before_there_is_one(make_place: Callable[..., Place]) -> None:
    place = make_place()
    job = place.send().json()
    assert job["state"] == "QUEUED"
    answer = place.client.get(f"/v1/jobs/{job['job_id']}/result")
    assert answer.status_code == 409
    assert "QUEUED" in answer.json()["detail"]


def test_a_full_queue_refuses_and_says_when_to_come_again(
    make_place: Callable[..., Place],
) -> None:
    place = make_place(max_queue=2)
    assert [place.send().status_code for _ in range(4)] == [202, 202, 429, 429]
    refused = place.send()
    assert int(refused.headers["retry-after"]) > 0
    place.client.delete(place.client.get("/v1/jobs").json()["jobs"][0]["links"]["self"])
    assert place.send().status_code == 202


def test_a_server_that_starts_again_knows_its_jobs_and_sweeps_what_no_job_has(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    job = place.send().json()
    torn = place.spool.receive()
    torn.clip.write_bytes(b"half")
    orphan = place.spool.job("f" * 32)
    assert orphan is not None
    orphan.path.mkdir()
    again = make_place()
    assert again.client.get(job["links"]["self"]).json() == job
    until = time.monotonic() + 10
    while torn.exists or orphan.exists:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_results_and_clips_are_deleted_when_their_time_has_come(
    make_place: Callable[..., Place],
) -> None:
    from tecafn.server.service import Service

    place = make_place(keep_result_hours=0)
    received = place.spool.receive()
    received.clip.write_bytes(b"x")
    received.write_upload(Upload(label="a", size=1, sha256=""))
    import serving_stub
    from dbos import DBOSClient

    service = Service(place.settings, serving_stub.Predictor())  # type: ignore[arg-type]
    job = place.spool.accept(received, "a" * 32)
    service.jobs.submit(job.id)
    client = DBOSClient(system_database_url=place.settings.database_url)
    client.cancel_workflow(job.id)
    with client._sys_db.engine.begin() as connection:  # as a worker would have left it
        connection.exec_driver_sql("UPDATE workflow_status SET status = 'SUCCESS'")
    assert service.jobs.get(job.id) is not None
    time.sleep(1.1)
    service.clean()
    assert not job.exists
    assert service.jobs.get(job.id) is None


# Predictions


def test_texts_are_predicted_in_their_order(place: Place) -> None:
    given = {"inputs": [{"text": "ab"}, {"text": "abcd"}, {"audio": [[1.0, None]]}]}
    answer = place.client.post("/v1/predict", json=given)
    assert answer.status_code == 200
    assert answer.json()["predictions"] == [2.0, 4.0, 0.0]
    assert answer.json()["model"]["takes"] == ["text", "audio"]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"inputs": []}, 422),
        ({}, 422),
        ({"inputs": [{"words": "x"}]}, 422),
        ({"inputs": [{"text": 1}]}, 422),
        ({"inputs": [{"text": "poison"}]}, 422),
        ({"inputs": [{}]}, 422),
        ({"inputs": [{"text": "a"}] * 257}, 413),
        ({"inputs": [{"audio": [[1e400]]}]}, 422),
    ],
)
def test_a_wrong_request_to_predict_is_refused_with_words(
    place: Place, given: dict[str, object], status: int
) -> None:
    body = json.dumps(given)
    answer = place.client.post(
        "/v1/predict", content=body, headers={"content-type": "application/json"}
    )
    if "1e400" in body or "Infinity" in body:
        assert answer.status_code in (200, 422)  # infinite frames are masked
        return
    assert answer.status_code == status
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b"[" * 100_000, b'{"inputs": [{"text": "\\ud800"}]}']
)
def test_a_body_that_is_no_json_is_refused(place: Place, body: bytes) -> None:
    answer = place.client.post(
        "/v1/predict", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422)


# What machines ask


def test_health_readiness_and_measures(place: Place) -> None:
    assert place.client.get("/health").json()["status"] == "ok"
    place.end(place.send().json()["job_id"])  # the worker is there
    ready = place.client.get("/ready")
    assert ready.status_code == 200
    assert ready.json()["is_ready"] is True
    measures = place.client.get("/metrics").text
    for name in ("tecafn_jobs_accepted_total", 'tecafn_jobs{state="QUEUED"}', "tecafn_workers 1"):
        assert name in measures
    assert 'route="/v1/jobs/{job_id}"' in measures


def test_without_a_worker_a_server_is_not_ready(make_place: Callable[..., Place]) -> None:
    answer = make_place().client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["workers"] == 0


def test_the_interface_describes_every_route_with_examples(place: Place) -> None:
    described = place.client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/jobs", "/v1/jobs/{job_id}", "/v1/jobs/{job_id}/events", "/v1/jobs/{job_id}/result",
        "/v1/predict", "/v1/about", "/v1/session", "/health", "/ready", "/metrics",
    }  # fmt: skip
    schemas = described["components"]["schemas"]
    for name in ("JobOut", "PredictIn", "PredictOut", "Detail"):
        assert schemas[name]["examples"]
    assert "multipart/form-data" in str(described["paths"]["/v1/jobs"]["post"]["requestBody"])


def test_the_page_loads_nothing_from_elsewhere_and_says_the_law(place: Place) -> None:
    import html

    page = place.client.get("/")
    assert html.escape(AI_ACT) in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    for name in ("app.js", "style.css", "icon.svg"):
        assert f"/static/{name}" in page.text
        assert place.client.get(f"/static/{name}").status_code == 200
    assert place.client.get("/static/index.html").status_code == 404
    assert place.client.get("/static/..%2Fapp.py").status_code == 404
    assert place.client.get("/v1/about").json()["notice"] == AI_ACT


def test_parts_of_an_answer_do_not_wait_for_receipts(tmp_path: Path) -> None:
    settings = ServerSettings(folder=tmp_path, model="stub", port=0)
    with (
        listen(settings) as listening,
        socket.create_connection(listening.getsockname()[:2]),
        listening.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
