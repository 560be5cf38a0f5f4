"""What happened during training, one JSON object per line, and the same for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tecafn.core.errors import UserError
from tecafn.core.parallel import rank
from tecafn.records.events import EVENTS_FILE, event_line
from tecafn.training.tensorboard import ScalarBoard


class EventLog:
    r"""Appends to ``RUN/events.jsonl`` and, if wanted, to ``RUN/tensorboard/``.

    Only rank 0 writes; on other ranks every call does nothing. A line is written as soon as its
    event happens, so that a killed run keeps all but possibly the last.

    Args:
        run_dir: the run's directory, made if missing.
        tensorboard: also write scalars for TensorBoard.

    Raises:
        UserError: the file cannot be opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with EventLog(Path(folder), tensorboard=False) as events:
        ...         events.write({"event": "start", "seed": 0})
        ...     (Path(folder) / "events.jsonl").read_text()
        '{"event": "start", "seed": 0}\n'
    """

    def __init__(self, run_dir: Path, *, tensorboard: bool = True) -> None:
        self._path = run_dir / EVENTS_FILE
        self._tensorboard_dir = run_dir / "tensorboard" if tensorboard else None
        self._writes = rank() == 0
        self._board: ScalarBoard | None = None
        if not self._writes:
            return
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="ascii", buffering=1)
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from None

    def write(self, event: Mapping[str, Any]) -> None:
        """Append one event; ``docs/run-directory.md`` lists the kinds.

        Raises:
            UserError: the line cannot be written (disk full).
        """
        if not self._writes:
            return
        with self._refusals_as_user_errors():
            self._file.write(event_line(event))
            if self._tensorboard_dir is not None:
                self._write_scalars(event)

    def position(self) -> int:
        """Bytes written so far, all of them safe on disk; 0 on other ranks than 0.

        Raises:
            UserError: they cannot be written.
        """
        if not self._writes:
            return 0
        with self._refusals_as_user_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._path.stat().st_size

    def rewind(self, position: int, *, step: int) -> None:
        """Forget what was written after ``position``: the resumed run will write it again.

        Args:
            position: what ``position()`` gave when the checkpoint was written.
            step: the checkpoint's step; TensorBoard drops what lies after it.

        Raises:
            UserError: the file cannot be read or written.
        """
        if not self._writes:
            return
        with self._refusals_as_user_errors():
            written = self._path.read_bytes()
            # Up to the last whole line: after a power cut the file may be shorter than it should.
            self._file.truncate(written[:position].rfind(b"\n") + 1)
            self._open_board(first_step=step + 1)
        if len(written) < position:
            self.write(
                {"event": "warning", "message": "events.jsonl had lost lines before the checkpoint"}
            )

    def close(self) -> None:
        """Flush and close both files.

        Raises:
            UserError: what was still to be written cannot be written.
        """
        if not self._writes:
            return
        with self._refusals_as_user_errors():
            try:
                self._file.close()
            finally:
                if self._board is not None:
                    self._board.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        with suppress(UserError):  # on a full disk closing fails again, which says nothing new
            self.close()

    @contextmanager
    def _refusals_as_user_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror or error}") from None

    def _open_board(self, first_step: int | None = None) -> None:
        if self._tensorboard_dir is not None and self._board is None:
            self._board = ScalarBoard(self._tensorboard_dir, first_step=first_step)

    def _write_scalars(self, event: Mapping[str, Any]) -> None:
        self._open_board()
        assert self._board is not None
        step = event.get("step", 0)
        if event["event"] == "step":
            phase = event["phase"]
            scalars = {f"loss/{phase}/{name}": value for name, value in event["losses"].items()}
            scalars[f"loss/{phase}/total"] = event["total"]
            scalars[f"gradient_norm/{phase}"] = event["gradient_norm"]
            for name, rate in event["learning_rates"].items():
                scalars[f"learning_rate/{phase}/{name}"] = rate
        elif event["event"] == "epoch":
            scalars = {f"valid/{name}": value for name, value in event["valid"].items()}
        else:
            return
        numbers = {name: value for name, value in scalars.items() if isinstance(value, int | float)}
        self._board.write(numbers, step=step)
        if event["event"] == "epoch":
            self._board.flush()
