"""One writer for one run directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tecafn.core.errors import UserError
from tecafn.core.parallel import rank
from tecafn.core.places import LOCK_FILE


@contextmanager
def run_lock(run_dir: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold ``RUN/.lock`` while this run writes its directory; created if it is missing.

    The operating system drops the lock when its process ends, however it ends, so a killed run
    never blocks its own resume. Of several processes that train together rank 0 holds it: enter
    after they have been launched.

    Args:
        run_dir: the run's directory.
        wait_seconds: how long to wait for another run that holds it.

    Raises:
        UserError: another run holds the lock.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, run_lock(Path(folder) / "run"):
        ...     (Path(folder) / "run" / ".lock").exists()
        True
    """
    from filelock import FileLock, Timeout

    if rank() != 0:
        yield
        return
    lock = FileLock(run_dir / LOCK_FILE)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise UserError(
            f"{run_dir} is being written by another run; wait for it or choose another folder"
        ) from None
    except OSError as error:
        raise UserError(f"cannot lock {run_dir}: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()
