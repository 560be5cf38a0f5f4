"""What every request passes: whom it calls, whence it comes, its token, its size and its pace.

Also what every answer carries, and the line of the log that says so. No line holds what was sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tecafn.server.measures import Measures
from tecafn.server.refusing import Refused
from tecafn.server.settings import MEGABYTE, ServerSettings

COOKIE: Final = "tecafn_session"
JOBS: Final = "/v1/jobs"
OPEN: Final = frozenset({"/", "/health", "/ready", "/openapi.json"})
STATIC: Final = "/static/"
SEALED: Final = re.compile(rf"{JOBS}/[0-9a-f]{{32}}/page/[0-9a-f]{{32}}/[A-Za-z0-9_.-]+")
"""What belongs to a job's page: its address is what gives access."""
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_MOST_JSON: Final = 4 * MEGABYTE
_FORM_OVERHEAD: Final = 3 * MEGABYTE
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 32 * MEGABYTE

log = logging.getLogger("tecafn.server")


def session_of(token: str) -> str:
    """What a browser keeps in a token's place."""
    return hmac.new(token.encode(), b"tecafn session", hashlib.sha256).hexdigest()


def is_same(given: str, wanted: str) -> bool:
    """Compare in a time that says nothing of where two differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


class Gate:
    """Around the application.

    Args:
        app: what answers.
        settings: with limits, names and token.
        measures: of requests.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, measures: Measures) -> None:
        self._app = app
        self._settings = settings
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        passage = _Passage(scope, receive, send, self._settings)
        started = time.perf_counter()
        try:
            self._check(scope)
            await self._app(scope, passage.receive, passage.send)
        except Refused as refused:
            await passage.answer(refused)
        except Exception as error:
            # The words of an error may quote what was sent; its place says enough.
            places = "; ".join(
                f"{frame.filename}:{frame.lineno}"
                for frame in traceback.extract_tb(error.__traceback__)[-4:]
            )
            log.error("%s: %s at %s", scope["method"], type(error).__name__, places)
            if not passage.status:
                await passage.answer(Refused(500, "something went wrong in the server"))
        finally:
            self._note(scope, passage.status, time.perf_counter() - started)

    def _check(self, scope: Scope) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        self._check_host(headers)
        if scope["method"] not in _SAFE:
            self._check_origin(headers)
        path = scope["path"]
        is_open = path in OPEN or path.startswith(STATIC) or SEALED.fullmatch(path)
        if not is_open:
            self._check_token(headers)
        self._check_length(headers, path)

    def _check_host(self, headers: Mapping[bytes, str]) -> None:
        hosts = self._settings.hosts
        if hosts and _host_name(headers.get(b"host", "")) not in hosts:
            raise Refused(421, "the server is not known by this name; see --allow-host")

    def _check_origin(self, headers: Mapping[bytes, str]) -> None:
        """Another site's page may not make a browser send something here."""
        site = headers.get(b"sec-fetch-site", "none")
        origin = headers.get(b"origin")
        is_own = origin is None or urlsplit(origin).netloc == headers.get(b"host")
        if site not in ("none", "same-origin") or not is_own:
            raise Refused(403, "requests from pages of other sites are refused")

    def _check_token(self, headers: Mapping[bytes, str]) -> None:
        token = self._settings.token
        if token is None:
            return
        scheme, _, bearer = headers.get(b"authorization", "").partition(" ")
        # All are compared, whatever there is: the time taken says nothing.
        is_known = [
            scheme.lower() == "bearer" and is_same(bearer.strip(), token),
            is_same(headers.get(b"x-api-key", ""), token),
            is_same(_cookie(headers.get(b"cookie", "")), session_of(token)),
        ]
        if not any(is_known):
            raise Refused(
                401,
                "this server needs a token: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    def _check_length(self, headers: Mapping[bytes, str], path: str) -> None:
        length = headers.get(b"content-length", "0")
        limit = _limit(self._settings, path)
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._measures.requests.labels(method, route, status).inc()
        self._measures.seconds.labels(route).observe(seconds)
        if route not in ("/health", "/ready", "/metrics"):
            log.info("%s %s %d %.0f ms", method, route, status, 1000 * seconds)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Passage:
    """A request's body and its answer, watched."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, settings: ServerSettings
    ) -> None:
        self.status = 0
        self._receive = receive
        self._send = send
        self._settings = settings
        self._limit = _limit(settings, scope["path"])
        self._size = 0
        self._begun = time.monotonic()
        self._has_more = True

    async def receive(self) -> Message:
        """The next piece of the body, if it comes in time and is not too much."""
        if not self._has_more:
            return await self._receive()  # that the client has gone
        try:
            message = await asyncio.wait_for(self._receive(), self._settings.stall_seconds)
        except TimeoutError:
            raise Refused(408, "the request came too slowly") from None
        if message["type"] != "http.request":
            self._has_more = False
            return message
        self._has_more = message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise _too_large(self._limit)
        seconds = time.monotonic() - self._begun
        is_slow = self._size < self._settings.min_rate * (seconds - self._settings.stall_seconds)
        if is_slow and self._has_more:
            raise Refused(408, "the request came too slowly")
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on, with our headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name.lower() for name, _ in message["headers"]}
            ours = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in given]
            message = {**message, "headers": [*message["headers"], *ours]}
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and self._has_more and self.status >= 400:
            # Who still sends would not hear the answer if the connection were closed on him.
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while self._has_more and size < _LINGER_BYTES:
                    message = await self._receive()
                    self._has_more = message.get("more_body", False)
                    size += len(message.get("body", b""))

    async def answer(self, refused: Refused) -> None:
        """Say why a request is refused, unless an answer has begun."""
        if self.status:
            return
        body = json.dumps({"detail": refused.detail}).encode()
        given = dict(refused.headers or {})
        headers = {**given, "Content-Type": "application/json", "Content-Length": str(len(body))}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send(
            {"type": "http.response.start", "status": refused.status_code, "headers": pairs}
        )
        await self.send({"type": "http.response.body", "body": body})


def _limit(settings: ServerSettings, path: str) -> int:
    return settings.max_bytes + _FORM_OVERHEAD if path == JOBS else _MOST_JSON


def _too_large(limit: int) -> Refused:
    return Refused(413, f"the request is larger than {limit / MEGABYTE:g} MB")


def _host_name(host: str) -> str:
    """Without the port.

    Example:
        >>> _host_name("[::1]:8321"), _host_name("LocalHost:80"), _host_name("a")
        ('[::1]', 'localhost', 'a')
    """
    name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host
    return name.partition(":")[0].lower() if not name.startswith("[") else name.lower()


def _cookie(header: str) -> str:
    try:
        morsel: Any = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if morsel is None else str(morsel.value)
