"""What a server is told when it starts: where, for whom, and how much of everything."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from tecafn.core.errors import UserError

PORT: Final = 8321
MEGABYTE: Final = 1_000_000
SETTINGS: Final = "TECAFN_SERVE_SETTINGS"
"""What a server tells its workers; in the environment, where other users cannot read it."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What a server and its workers do, and where they stop.

    Args:
        folder: uploads, results and, unless ``database`` says otherwise, the database of jobs;
            workers on other machines see the same folder.
        model: a run's folder, an exported graph's, a model's name or its name on the hub.
        database: of jobs; None = a SQLite file in ``folder``.
        host: the address that is listened on.
        port: likewise; 0 = any that is free.
        token: what requests must carry; None = nothing.
        allow_no_token: listen beyond this machine without a token?
        allowed_hosts: names by which the server is called, besides its own address.
        workers: processes that work on clips, one clip each.
        max_mb: of a clip, in megabytes.
        max_minutes: of a clip, in minutes.
        max_queue: jobs that may wait; one more is refused.
        max_uploads: requests that may send a clip at a time.
        max_streams: requests that may listen to progress at a time.
        stall_seconds: the longest pause within a request's body.
        min_rate: bytes per second of a body below which it is given up.
        keep_clip_hours: how long a clip stays after its job has ended.
        keep_result_hours: how long a result stays.
        max_samples: of a request to predict.
        max_waiting: samples that may wait for a prediction.

    Raises:
        UserError: a value is out of range, or others could reach the server without a token.
    """

    folder: Path
    model: str
    database: str | None = None
    host: str = "127.0.0.1"
    port: int = PORT
    token: str | None = None
    allow_no_token: bool = False
    allowed_hosts: tuple[str, ...] = ()
    workers: int = 1
    max_mb: float = 500.0
    max_minutes: float = 60.0
    max_queue: int = 100
    max_uploads: int = 8
    max_streams: int = 100
    stall_seconds: float = 30.0
    min_rate: float = 1000.0
    keep_clip_hours: float = 0.0
    keep_result_hours: float = 24.0
    max_samples: int = 256
    max_waiting: int = 1024

    def __post_init__(self) -> None:
        lowest = {"port": 0, "workers": 0, "keep_clip_hours": 0, "keep_result_hours": 0}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            least = lowest.get(name)
            if not (value > 0 if least is None else value >= least):
                wanted = "more than 0" if least is None else f"{least} or more"
                raise UserError(f"{name} must be {wanted}, got {value:g}")
        if self.token is not None and len(self.token) < 16:
            raise UserError("a token must have 16 characters or more, or else it can be guessed")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise UserError("a token must be printable ASCII: it travels in a header")
        if not self.is_loopback and self.token is None and not self.allow_no_token:
            raise UserError(
                f"on {self.host} others can reach the server: give it a token "
                "(--token-file, or TECAFN_TOKEN), or allow it with --no-token"
            )

    @property
    def is_loopback(self) -> bool:
        """Can only this machine reach it?"""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def database_url(self) -> str:
        """As SQLAlchemy writes it."""
        if self.database is None:
            return f"sqlite:///{self.folder.resolve() / 'jobs.sqlite'}"
        return self.database

    @property
    def max_bytes(self) -> int:
        """Of a clip."""
        return int(self.max_mb * MEGABYTE)

    @property
    def hosts(self) -> frozenset[str]:
        """Names by which a request may call the server; empty = any.

        A page elsewhere whose name is made to mean this machine would otherwise reach a server
        that only this machine can reach.
        """
        if not self.is_loopback and not self.allowed_hosts:
            return frozenset()
        own = {"localhost", "127.0.0.1", "[::1]", self.host.lower()}
        return frozenset(own | {name.lower() for name in self.allowed_hosts})


def read_token(path: Path | None) -> str | None:
    """From a file, or from TECAFN_TOKEN; a command line is seen by everybody on a machine.

    Raises:
        UserError: the file cannot be read, or is empty.
    """
    if path is None:
        return os.environ.get("TECAFN_TOKEN") or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"cannot read {path}: {reason}") from None
    if not token:
        raise UserError(f"{path} has no token")
    return token


def as_json(settings: ServerSettings) -> str:
    """For a worker; it needs no token."""
    values = dataclasses.asdict(dataclasses.replace(settings, token=None, allow_no_token=True))
    return json.dumps({**values, "folder": str(settings.folder.resolve())})


def from_json(text: str) -> ServerSettings:
    """What ``as_json`` gave."""
    values = json.loads(text)
    folder, hosts = Path(values.pop("folder")), tuple(values.pop("allowed_hosts"))
    return ServerSettings(folder=folder, allowed_hosts=hosts, **values)
