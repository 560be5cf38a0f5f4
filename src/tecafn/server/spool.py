"""The folder of a server: a folder per job, whose name is the job's and never a request's."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tecafn.core.errors import UserError

_ID: Final = re.compile(r"[0-9a-f]{32}")
_CLIP: Final = "clip"
_REQUEST: Final = "request.json"
_PROGRESS: Final = "progress.json"
_TRIES: Final = "tries.json"


class Deleted(Exception):  # noqa: N818 - it is no error: somebody wanted it so
    """The job's folder has gone: somebody deleted the job."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What somebody sent, apart from the clip itself.

    Args:
        label: what the clip was called; shown, never opened.
        size: of the clip in bytes.
        sha256: of all that was sent.
        transcript: the ending of the file with what is said; empty where there is none.
        face: left, right or a number; None = whose mouth moves with the voice.
    """

    label: str
    size: int
    sha256: str
    transcript: str = ""
    face: str | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is.

    Args:
        step: what is being done; empty before the first one.
        share: 0 to 1, of the whole job.
    """

    step: str = ""
    share: float = 0.0


class JobFolder:
    """What is kept of a job: the clip, what was sent with it, results, progress.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """The job's."""
        return self.path.name

    @property
    def exists(self) -> bool:
        """Is it still there?"""
        return self.path.is_dir()

    @property
    def clip(self) -> Path:
        """The clip's file; whatever it was called, it is called this here."""
        return self.path / _CLIP

    def transcript(self, upload: Upload) -> Path | None:
        """The file with what is said, if one was sent."""
        return self.path / f"transcript{upload.transcript}" if upload.transcript else None

    def upload(self) -> Upload:
        """What was sent.

        Raises:
            Deleted: the job has gone.
        """
        return Upload(**self._read(_REQUEST))

    def write_upload(self, upload: Upload) -> None:
        """Keep what was sent."""
        self.write(_REQUEST, _as_json(asdict(upload)))

    def progress(self) -> Progress:
        """How far the job is."""
        try:
            return Progress(**self._read(_PROGRESS))
        except Deleted:
            return Progress()

    def write_progress(self, progress: Progress) -> None:
        """Say how far the job is.

        Raises:
            Deleted: the job has gone.
        """
        self.write(_PROGRESS, _as_json(asdict(progress)), durable=False)

    def count(self, what: str) -> int:
        """One more of something that must not happen too often; how many there are now.

        Raises:
            Deleted: the job has gone.
        """
        counts = self.counts()
        counts[what] = counts.get(what, 0) + 1
        self.write(_TRIES, _as_json(counts))
        return counts[what]

    def counts(self) -> dict[str, int]:
        """What ``count`` has counted so far."""
        try:
            return {str(k): int(v) for k, v in self._read(_TRIES).items()}
        except Deleted:
            return {}

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """A file that is whole or not there.

        Args:
            name: one of ours.
            content: all of it.
            durable: shall it outlive a power cut?

        Raises:
            Deleted: the job has gone.
        """
        partial = self.path / f".{name}.{secrets.token_hex(4)}"
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            partial.replace(self.path / name)
        except FileNotFoundError:
            raise Deleted from None
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is no such file."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def _read(self, name: str) -> dict[str, Any]:
        content = self.read(name)
        if content is None:
            raise Deleted
        values: dict[str, Any] = json.loads(content)
        return values

    def remove(self) -> None:
        """Delete all of it: nothing of a job is left that somebody wanted gone."""
        # Out of sight at once, so that a worker notices; what remains is swept at the next start.
        gone = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        with suppress(FileNotFoundError):
            self.path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def remove_clip(self) -> None:
        """Delete the clip and the transcript that was sent with it."""
        for path in [self.clip, *self.path.glob("transcript.*")]:
            path.unlink(missing_ok=True)


class Spool:
    """All jobs' folders.

    Args:
        folder: of the server; made if it is not there.

    Raises:
        UserError: it cannot be made.

    Example:
        >>> import tempfile
        >>> spool = Spool(Path(tempfile.mkdtemp()))
        >>> spool.job("../../etc") is None
        True
        >>> spool.job(spool.new_id()).exists
        False
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs = folder / "jobs"
        self.incoming = folder / "incoming"
        self.workers = folder / "workers"
        try:
            for path in (folder, self.jobs, self.incoming, self.workers):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UserError(f"cannot make {path}: {error.strerror or error}") from None

    def job(self, job_id: str) -> JobFolder | None:
        """Of a job; None where this cannot be a job's name."""
        return JobFolder(self.jobs / job_id) if _ID.fullmatch(job_id) else None

    def new_id(self, key: str | None = None) -> str:
        """A job's name, of which nobody can guess another; the same for the same key."""
        if key is None:
            return secrets.token_hex(16)
        return hmac.new(self._secret(), key.encode(), hashlib.sha256).hexdigest()[:32]

    def seal(self, job_id: str) -> str:
        """A part of the address of a job's page, which nobody can guess.

        The page is of no origin, so that a browser sends no cookie with what it loads: whoever was
        given its address may load what belongs to it.
        """
        return hmac.new(self._secret(), b"page " + job_id.encode(), hashlib.sha256).hexdigest()[:32]

    def _secret(self) -> bytes:
        path = self.folder / "secret"
        if not path.exists():
            partial = path.with_name(f".secret.{secrets.token_hex(4)}")
            partial.touch(mode=0o600)
            partial.write_bytes(secrets.token_bytes(32))
            with suppress(FileExistsError):
                os.link(partial, path)
            partial.unlink()
        return path.read_bytes()

    def receive(self) -> JobFolder:
        """A folder to write an upload to, which is no job yet."""
        path = self.incoming / secrets.token_hex(16)
        path.mkdir(mode=0o700)
        return JobFolder(path)

    def accept(self, received: JobFolder, job_id: str) -> JobFolder:
        """Make it the folder of a job.

        Raises:
            FileExistsError: there is such a job.
        """
        job = self.job(job_id)
        assert job is not None, "a name of ours"
        if job.exists:
            raise FileExistsError(job_id)
        try:
            received.path.rename(job.path)
        except OSError:
            if job.exists:
                raise FileExistsError(job_id) from None
            raise
        _sync(self.jobs)
        return job

    def sweep(self, known: Mapping[str, Any]) -> list[str]:
        """Delete what an interrupted server left: uploads without a job, folders half deleted.

        Args:
            known: the jobs that there are.

        Returns:
            The names of folders that no job has.
        """
        for path in self.incoming.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        left = [path for path in self.jobs.iterdir() if path.name not in known]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return [path.name for path in left]

    def living_workers(self, *, within: float = 30.0) -> int:
        """How many workers have been heard of in so many seconds."""
        now = time.time()
        count = 0
        for path in self.workers.glob("*.alive"):
            with suppress(FileNotFoundError):
                count += now - path.stat().st_mtime < within
        return count

    def free_bytes(self) -> int:
        """Of the disk that it is on."""
        return shutil.disk_usage(self.folder).free


def _as_json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode()


def _sync(folder: Path) -> None:
    """Names within a folder outlive a power cut, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
