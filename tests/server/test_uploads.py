"""What strangers may send: names, sizes, lengths and paces that are meant to do harm."""

from __future__ import annotations

import io
import json
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import serving_stub
from serving_stub import Place

from tecafn.core.errors import UserError
from tecafn.extract.guard import Limits
from tecafn.server.spool import JobFolder, Upload
from tecafn.server.step import Step, Tell
from tecafn.server.steps import steps_of
from tecafn.server.worker import do_step

BOUNDARY = b"boundary"
NAMES = [
    "../../../etc/passwd",
    "..\\..\\windows\\system.ini",
    "/etc/passwd",
    ":".join(["C", "\\a.mp4"]),
    "a\x00b.mp4",
    "....//....//a",
    "~/.ssh/id_rsa",
    "con.mp4",
    "%2e%2e%2f",
    "\u202efdp.mp4",
    "x" * 3000,
    "",
    ".",
    "..",
    "clip",
    "request.json",
    "\n",
]


def form(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    """A form of (header, content)."""
    pieces = [
        b"--%s\r\n%s\r\n\r\n%s\r\n" % (BOUNDARY, header.encode(), content)
        for header, content in parts
    ]
    return b"".join(pieces) + (b"--%s--\r\n" % BOUNDARY if end else b"")


def post(place: Place, body: bytes, kind: str = "") -> tuple[int, str]:
    kind = kind or f"multipart/form-data; boundary={BOUNDARY.decode()}"
    answer = place.client.post("/v1/jobs", content=body, headers={"content-type": kind})
    return answer.status_code, answer.json()["detail"] if answer.status_code >= 400 else ""


def test_no_name_reaches_the_file_system(make_place: Callable[..., Place]) -> None:
    place = make_place(max_queue=1000)
    root = place.settings.folder.parent
    for name in NAMES:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "%0A")
        header = f'Content-Disposition: form-data; name="file"; filename="{quoted}"'
        status, _ = post(place, form((header, b"clip")))
        assert status == 202
    folders = list(place.spool.jobs.iterdir())
    assert len(folders) == len(NAMES)
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {"clip", "request.json"}
        label = JobFolder(folder).upload().label
        assert 0 < len(label) <= 120
        assert not set(label) & set("/\\\x00\n\u202e")
    assert {path.name for path in root.iterdir()} == {"server"}
    assert list(place.spool.incoming.iterdir()) == []


def test_a_transcript_keeps_one_of_our_endings(make_place: Callable[..., Place]) -> None:
    place = make_place()
    files = {"file": ("a.mp4", b"x"), "transcript": ("../../evil.SRT", b"1\n")}
    assert place.client.post("/v1/jobs", files=files).status_code == 202
    (folder,) = place.spool.jobs.iterdir()
    assert (folder / "transcript.srt").read_bytes() == b"1\n"
    files["transcript"] = ("a.exe", b"")
    assert place.client.post("/v1/jobs", files=files).status_code == 422


CLIP = 'Content-Disposition: form-data; name="file"; filename="a.mp4"'


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "", 400),
        (b"clip", "application/octet-stream", 415),
        (b"clip", "multipart/form-data", 415),
        (b"clip", "multipart/form-data; boundary=" + "x" * 300, 400),
        (b"{}", "application/json", 415),
        (b"garbage", "", 400),
        (form((CLIP, b"x"), end=False), "", 400),
        (form((CLIP, b"x"))[:-9], "", 400),
        (form((CLIP, b"")), "", 422),
        (form(('Content-Disposition: form-data; name="text"', b"x")), "", 422),
        (form((CLIP, b"x"), (CLIP, b"y")), "", 422),
        (form((CLIP, b"x"), ('Content-Disposition: form-data; name="url"', b"y")), "", 422),
        (form(("Content-Disposition: attachment", b"x")), "", 422),
        (form(("X-Other: y", b"x")), "", 422),
        (form((CLIP, b"x"), ('Content-Disposition: form-data; name="text"', b"\xff")), "", 422),
        (form((CLIP, b"x"), ('Content-Disposition: form-data; name="face"', b"/etc")), "", 422),
        (form((f"{CLIP}\r\nX: {'y' * 100_000}", b"x")), "", 400),
        (form(("\r\n".join([CLIP, *["X: y"] * 1000]), b"x")), "", 400),
        (form(*[(CLIP, b"x")] * 500), "", 422),
    ],
)
def test_a_form_that_is_none_is_refused_and_leaves_nothing(
    place: Place, body: bytes, kind: str, status: int
) -> None:
    before = set(place.spool.jobs.iterdir())
    code, detail = post(place, body, kind)
    assert code == status
    assert detail
    assert set(place.spool.jobs.iterdir()) <= before
    assert list(place.spool.incoming.iterdir()) == []


def test_too_much_is_refused_whatever_is_said_of_its_length(place: Place) -> None:
    large = form((CLIP, b"x" * 2_100_000))
    assert post(place, large)[0] == 413
    huge = form((CLIP, b"x" * 6_000_000))
    assert post(place, huge)[0] == 413
    text = ('Content-Disposition: form-data; name="text"', b"x" * 1_100_000)
    assert post(place, form((CLIP, b"x"), text))[0] == 413
    answer = place.client.post("/v1/predict", content=b" " * 4_100_000)
    assert answer.status_code == 413
    assert list(place.spool.incoming.iterdir()) == []


# What is in a file, met by the real first step


def _zip_bomb() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", bytes(50_000_000))
    return written.getvalue()


def _png_bomb() -> bytes:
    """50,000 by 50,000 pixels, 2.5 GB of grey, in some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        packed = struct.pack(">I", len(data)) + kind + data
        return packed + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _contents(secret: Path) -> dict[str, bytes]:
    return {
        "zip bomb": _zip_bomb(),
        "image bomb": _png_bomb(),
        "playlist": f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode(),
        "list of files": f"ffconcat version 1.0\nfile {secret}\n".encode(),
        "script": b"#!/bin/sh\ntouch evil\n",
        "text": b"a clip",
        "empty box": b"\x00\x00\x00\x08ftyp",
    }


def test_a_file_that_is_no_clip_is_refused_after_two_tries_and_opens_no_other(
    tmp_path: Path,
) -> None:
    pytest.importorskip("av")
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"RIFF secret")
    steps = steps_of("builtin", max_minutes=1)
    tried = {}
    for name, content in _contents(secret).items():
        job = JobFolder(tmp_path / name.replace(" ", "-"))
        job.path.mkdir()
        job.clip.write_bytes(content)
        job.write_upload(Upload(label="a", size=len(content), sha256=""))
        # In this process, for speed; that a decoder may crash is tested with the worker.
        tried[name] = do_step(job, [_unguarded(steps[0])], 0)
        assert job.counts()["failures of decode"] == 2
        assert str(tmp_path) not in tried[name]
    assert all("cannot be read as video or sound" in reason for reason in tried.values()), tried


def _unguarded(step: Step) -> Step:
    from tecafn.extract import media

    def run(job: JobFolder, tell: Tell) -> None:
        media.probe(job.clip)

    return Step(step.name, step.weight, run)


@pytest.mark.slow
def test_an_image_bomb_does_not_take_more_than_the_memory_allowed(tmp_path: Path) -> None:
    from tecafn.extract.guard import call_guarded
    from tecafn.server.reading import probe

    path = tmp_path / "clip"
    path.write_bytes(_png_bomb())
    with pytest.raises(UserError):
        call_guarded(probe, path, limits=Limits(memory_bytes=600_000_000))


# Over a socket


def _talk(port: int, *pieces: bytes, pause: float = 0.0, close: bool = False) -> tuple[int, float]:
    """Send the pieces; the status of the answer, 0 = none, and the seconds it took."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            if close:
                connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        except OSError:
            answer = b""
    status = int(answer.split()[1]) if answer.startswith(b"HTTP/") else 0
    return status, time.monotonic() - started


def _head(length: int | str, path: str = "/v1/jobs", extra: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}\r\n"
        f"Content-Length: {length}\r\n{extra}\r\n"
    ).encode()


def _drops(body: bytes) -> list[bytes]:
    return [body[i : i + 1] for i in range(len(body))]


def test_a_body_that_stops_or_drips_is_given_up(served: serving_stub.Served) -> None:
    body = form((CLIP, b"x"))
    with ThreadPoolExecutor() as pool:
        stalled = pool.submit(_talk, served.port, _head(1000), body[:20])
        dripping = pool.submit(_talk, served.port, _head(1000), *_drops(body[:20]), pause=0.25)
        predicting = pool.submit(_talk, served.port, _head(1000, "/v1/predict"), b"{")
        answers = [one.result() for one in (stalled, dripping, predicting)]
    assert [status for status, _ in answers] == [408, 408, 408]
    assert max(seconds for _, seconds in answers) < 15


def test_a_wrong_length_is_refused_and_the_server_goes_on(served: serving_stub.Served) -> None:
    body = form((CLIP, b"x"))
    assert _talk(served.port, _head(len(body) + 10), body, close=True)[0] in (0, 400)
    assert _talk(served.port, _head(len(body) - 10), body)[0] == 400
    for wrong in (-1, "x", "1, 2", 10**30):
        assert _talk(served.port, _head(wrong), body)[0] in (400, 413)
    both = "Transfer-Encoding: chunked\r\n"
    assert _talk(served.port, _head(len(body), extra=both), body)[0] == 400
    assert _talk(served.port, b"\x16\x03\x01\x02\x00\x01")[0] in (0, 400)
    assert _talk(served.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200


def test_who_sends_too_much_hears_why(served: serving_stub.Served) -> None:
    body = form((CLIP, b"x" * 3_000_000))
    assert _talk(served.port, _head(len(body)), body)[0] == 413


def test_nothing_is_left_of_what_was_refused(served: serving_stub.Served, tmp_path: Path) -> None:
    import httpx2

    listed = httpx2.get(f"{served.url}/v1/jobs").json()
    assert listed == {"jobs": []}, json.dumps(listed)
