"""Scalars for TensorBoard, written by the thread that has them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ScalarBoard:
    """One event file in a folder that TensorBoard reads.

    tensorboardX's own ``SummaryWriter`` hands everything to a second thread through a queue of ten
    places. A full disk ends that thread, and the next to write waits for a place for ever; so its
    record writer is used without the thread, and what the system refuses is raised here.

    Args:
        folder: made if missing.
        first_step: TensorBoard drops what earlier files hold of this step and later ones.

    Raises:
        OSError: the file cannot be written, here and in every method.
    """

    def __init__(self, folder: Path, *, first_step: int | None = None) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog
        from tensorboardX.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter(str(folder / name))
        self._add(file_version="brain.Event:2")
        if first_step is not None:
            self._add(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, scalars: Mapping[str, float], *, step: int) -> None:
        """Add one value to each named curve."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._add(step=step, summary=Summary(value=values))

    def _add(self, **fields: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def flush(self) -> None:
        """Let TensorBoard see what was written."""
        self._records.flush()

    def close(self) -> None:
        """Write what is left and close; closes even if writing fails."""
        self._records.close()
