"""Who may ask, from where and with what; what every answer carries; what logs hold."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from serving_stub import Place

from tecafn.core.errors import UserError
from tecafn.server.gate import is_same, session_of
from tecafn.server.settings import ServerSettings, as_json, from_json, read_token

TOKEN = "0123456789abcdef-token"
OPEN_PATHS = ["/", "/health", "/ready", "/openapi.json", "/static/app.js"]
CLOSED_PATHS = ["/v1/jobs", "/v1/jobs/" + "0" * 32, "/metrics", "/v1/about", "/nowhere"]


@pytest.fixture
def guarded(make_place: Callable[..., Place]) -> Place:
    return make_place(token=TOKEN)


@pytest.mark.parametrize("path", OPEN_PATHS)
def test_what_tells_nothing_needs_no_token(guarded: Place, path: str) -> None:
    assert guarded.client.get(path).status_code in (200, 503)


@pytest.mark.parametrize("path", CLOSED_PATHS)
def test_all_else_needs_the_token(guarded: Place, path: str) -> None:
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"x-api-key": TOKEN[:-1]},
        {"cookie": f"tecafn_session={TOKEN}"},
        {"cookie": "tecafn_session=\xe9".encode("latin-1")},
    ):
        answer = guarded.client.get(path, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    for headers in (
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer {TOKEN}"},
        {"x-api-key": TOKEN},
        {"cookie": f"tecafn_session={session_of(TOKEN)}"},
    ):
        assert guarded.client.get(path, headers=headers).status_code in (200, 404)


def test_a_browser_gets_a_cookie_in_the_tokens_place(guarded: Place) -> None:
    assert guarded.client.post("/v1/session").status_code == 401
    answer = guarded.client.post("/v1/session", headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert guarded.client.get("/v1/jobs").status_code == 200


def test_tokens_are_compared_whatever_their_characters() -> None:
    assert is_same("a", "a")
    assert not is_same("\xe9", "a")
    assert not is_same("", "a")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://localhost:1"},
    ],
)
def test_pages_of_other_sites_can_send_nothing(place: Place, headers: dict[str, str]) -> None:
    assert place.send(headers=headers).status_code == 403
    assert place.client.delete("/v1/jobs/" + "0" * 32, headers=headers).status_code == 403
    assert place.client.post("/v1/predict", json={}, headers=headers).status_code == 403


def test_the_servers_own_page_can(place: Place) -> None:
    own = {"origin": "http://localhost", "sec-fetch-site": "same-origin"}
    assert place.send(headers=own).status_code == 202


@pytest.mark.parametrize("host", ["elsewhere.example", "localhost.elsewhere.example", "", "[::2]"])
def test_a_name_that_was_made_to_mean_this_machine_is_refused(place: Place, host: str) -> None:
    assert place.client.get("/health", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8321", "[::1]:8321", "LOCALHOST"])
def test_this_machines_own_names_are_known(place: Place, host: str) -> None:
    assert place.client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/health", "/v1/jobs", "/v1/jobs/x", "/nowhere", "/static/app.js"]
)
def test_every_answer_carries_the_headers_of_a_careful_site(place: Place, path: str) -> None:
    headers = place.client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_a_report_runs_apart_from_the_server_and_loads_nothing(place: Place) -> None:
    job = place.end(place.send().json()["job_id"])
    headers = place.client.get(job["links"]["result"], params={"format": "page"}).headers
    policy = headers["content-security-policy"]
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
    assert "default-src 'none'" in policy


def test_logs_hold_nothing_that_was_sent(
    place: Place, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("tecafn.server")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    try:
        job = place.end(place.send(b"secret-A", name="secret-B.mp4").json()["job_id"])
        place.send(b"refuse secret-C", data={"text": "secret-D"})
        place.client.post("/v1/predict", json={"inputs": [{"text": "poison secret-E"}]})
        place.client.get("/v1/jobs/secret-F?secret-G")
    finally:
        logger.removeHandler(caplog.handler)
    assert job["state"] == "FAILED"
    assert "secret" not in job["reason"]
    written = "".join(capfd.readouterr()) + caplog.text
    assert "POST /v1/jobs 202" in written
    assert "secret" not in written


# Settings


def test_others_reach_a_server_without_a_token_only_if_that_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--no-token"):
        ServerSettings(folder=tmp_path, model="x", host="0.0.0.0")
    ServerSettings(folder=tmp_path, model="x", host="0.0.0.0", token=TOKEN)
    ServerSettings(folder=tmp_path, model="x", host="0.0.0.0", allow_no_token=True)
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert ServerSettings(folder=tmp_path, model="x", host=host).is_loopback


@pytest.mark.parametrize(
    "values",
    [
        {"token": "short"},
        {"token": "0123456789abcde\n"},
        {"max_mb": 0.0},
        {"max_minutes": float("nan")},
        {"workers": -1},
        {"keep_clip_hours": -1.0},
        {"max_queue": 0},
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, values: dict[str, object]) -> None:
    with pytest.raises(UserError):
        ServerSettings(folder=tmp_path, model="x", **values)  # type: ignore[arg-type]


def test_workers_are_told_all_but_the_token(tmp_path: Path) -> None:
    settings = ServerSettings(folder=tmp_path, model="x", token=TOKEN, allowed_hosts=("a",))
    told = as_json(settings)
    assert TOKEN not in told
    assert from_json(told).allowed_hosts == ("a",)
    assert from_json(told).folder == tmp_path.resolve()


def test_a_token_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file) == TOKEN
    monkeypatch.delenv("TECAFN_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("TECAFN_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    file.write_text("\n")
    with pytest.raises(UserError, match="no token"):
        read_token(file)
    with pytest.raises(UserError, match="cannot read"):
        read_token(tmp_path / "none")
