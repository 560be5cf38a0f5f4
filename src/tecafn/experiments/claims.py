"""Who runs which cell, where several processes or machines share one folder.

A claim is a file that is created only where there is none, so that one of any number of processes
gets it, also on a file system that several machines share. Whoever holds a claim touches it; one
that nobody has touched for a while was left by a process or a machine that died, and is taken over.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any

from tecafn.core.errors import UserError
from tecafn.core.places import LOCK_FILE

CLAIM_FILE = "cell.claim"
TOUCH_SECONDS = 10.0
STALE_SECONDS = 120.0


def is_locked(run_dir: Path) -> bool:
    """Does a run write this directory now? False where there is none."""
    from filelock import FileLock, Timeout

    path = run_dir / LOCK_FILE
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


@dataclass
class Claims:
    """The cells that this process has claimed; a context in which they are kept alive.

    Args:
        touch_seconds: how often a claim is touched.
        stale_seconds: a claim that was not touched for so long, by our own clock, is dead. Clocks
            of different machines are never compared.
    """

    touch_seconds: float = TOUCH_SECONDS
    stale_seconds: float = STALE_SECONDS
    _held: set[Path] = field(default_factory=set)
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _closed: Event = field(default_factory=Event)
    _thread: Thread | None = None

    def __enter__(self) -> Claims:
        self._closed.clear()
        self._thread = Thread(target=self._touch, name="claims", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        for path in list(self._held):
            self._release(path)

    @contextmanager
    def claimed(self, folder: Path) -> Iterator[bool]:
        """Claim a cell's folder while the context lasts; False where somebody else has it.

        Raises:
            UserError: the claim cannot be written.
        """
        path = folder / CLAIM_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_ours = self._create(path) or self._take_over(path)
        except OSError as error:
            raise UserError(f"cannot claim {folder}: {error.strerror or error}") from None
        try:
            yield is_ours
        finally:
            if is_ours:
                self._release(path)

    def _create(self, path: Path) -> bool:
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(file, "w", encoding="ascii") as opened:
            opened.write(_ours())
        with self._lock:
            self._held.add(path)
        return True

    def _take_over(self, path: Path) -> bool:
        """Replace a claim whose holder is dead.

        The right to replace one very claim is a file of its own, created only where there is none:
        of several that find it dead, one replaces it.
        """
        claim = _read(path)
        if claim is None or not self._is_dead(path, claim):
            return False
        for attempt in range(100):
            right = path.with_name(f".{path.name}.{claim['token']}.{attempt}")
            try:
                os.close(os.open(right, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            except FileExistsError:
                if not self._untouched(right):
                    return False
                continue  # who had the right died with it
            break
        else:
            return False
        try:
            now = _read(path)
            if now is None or now["token"] != claim["token"]:
                return False
            fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
            fresh.write_text(_ours(), encoding="ascii")
            os.replace(fresh, path)
            with self._lock:
                self._held.add(path)
            return True
        finally:
            right.unlink(missing_ok=True)

    def _is_dead(self, path: Path, claim: dict[str, Any]) -> bool:
        if claim.get("machine") == machine():
            return not runs_here(int(claim.get("pid", 0)))
        return self._untouched(path)

    def _untouched(self, path: Path) -> bool:
        """Have we seen the file for long enough without a touch?"""
        try:
            touched = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        key, now = str(path), time.monotonic()
        before = self._seen.get(key)
        if before is None or before[0] != touched:
            self._seen[key] = (touched, now)
            return False
        return now - before[1] >= self.stale_seconds

    def _touch(self) -> None:
        while not self._closed.wait(self.touch_seconds):
            with self._lock:
                held = list(self._held)
            for path in held:
                with suppress(OSError):
                    os.utime(path)

    def _release(self, path: Path) -> None:
        with self._lock:
            self._held.discard(path)
        claim = _read(path)
        if claim is not None and claim.get("token") == _TOKEN:
            path.unlink(missing_ok=True)


_TOKEN = uuid.uuid4().hex


def _ours() -> str:
    return json.dumps({"token": _TOKEN, "machine": machine(), "pid": os.getpid()})


def machine() -> str:
    """This boot of this machine, and what its process numbers count in."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def runs_here(pid: int) -> bool:
    """Is there a process of this number on this machine?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def _read(path: Path) -> dict[str, Any] | None:
    """A claim; None where it is gone. One that was cut short by a death has no holder."""
    try:
        claim = json.loads(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        claim = {}
    if not isinstance(claim, dict) or "token" not in claim:
        return {"token": "unreadable"}
    return claim
