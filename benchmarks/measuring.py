"""What the benchmarks of time and memory share: steps of the real trainer, and who holds memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from tecafn.core.batch import Batch, BatchSource
from tecafn.core.scheme import Scheme
from tecafn.data.store import Store
from tecafn.experiments import setup
from tecafn.experiments.config import RunConfig
from tecafn.experiments.setup import open_fabric
from tecafn.training.events import EventLog
from tecafn.training.trainer import Trainer

_POLL_SECONDS = 0.02
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Step:
    """One training step as it was measured.

    Args:
        seconds: from asking for the batch to asking for the next one.
        loading: of these, until the batch was there.
        samples: rows of the batch.
        frames: frames of the padded batch, all modalities together.
        beside: what was run between the steps, in seconds; 0 without.
    """

    seconds: float
    loading: float
    samples: int
    frames: int
    beside: float


class FirstSteps:
    """The first batches of a source, for the trainer, with the time each step took.

    Args:
        source: the training batches.
        count: steps to measure.
        epoch: whose batches.
        warm_up: steps before those, not measured.
        beside: called with each batch after its step, and timed by itself.
    """

    def __init__(
        self,
        source: BatchSource,
        count: int,
        *,
        epoch: int = 0,
        warm_up: int = 3,
        beside: Callable[[Batch], None] | None = None,
    ) -> None:
        self._source = source
        self._count = warm_up + count
        self._epoch = epoch
        self._warm_up = warm_up
        self._beside = beside
        self._measured: list[Step] = []

    @property
    def num_samples(self) -> int:
        """Rows of the source."""
        return self._source.num_samples

    def num_batches(self, epoch: int) -> int:
        """One more than is measured: a step's end shows when the next batch is asked for."""
        del epoch
        return self._count + 1

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches, from epoch to epoch of the source if one is too short."""
        del epoch
        batches = self._endless()
        while True:
            begun = time.perf_counter()
            batch = next(batches)
            loaded = time.perf_counter()
            yield batch
            done = time.perf_counter()
            if self._beside is not None:
                self._beside(batch)
            self._measured.append(
                Step(
                    seconds=done - begun,
                    loading=loaded - begun,
                    samples=batch.size,
                    frames=sum(padded.mask.numel() for padded in batch.sequences.values()),
                    beside=time.perf_counter() - done,
                )
            )

    def steps(self) -> list[Step]:
        """What was measured."""
        return self._measured[self._warm_up : self._count]

    def _endless(self) -> Iterator[Batch]:
        epoch = self._epoch
        while True:
            yield from self._source.batches(epoch)
            epoch += 1


@dataclass(frozen=True)
class Prepared:
    """A scheme and its batches, made as a run makes them."""

    config: RunConfig
    fabric: Fabric
    scheme: Scheme
    train: BatchSource
    valid: BatchSource


def prepare(config: RunConfig, store: Store, device: str = "cpu") -> Prepared:
    """What ``train_run`` does before the first step."""
    view = store.split("train")
    prepared = setup.prepare(config, store, view, open_fabric(device, config.training.precision))
    return Prepared(
        config=config,
        fabric=prepared.fabric,
        scheme=prepared.scheme,
        train=prepared.batches.loader(view, shuffle=True, labelled=True),
        valid=prepared.batches.loader(store.split("valid"), shuffle=False, labelled=True),
    )


def run_steps(prepared: Prepared, source: FirstSteps) -> list[Step]:
    """Train on ``source`` with the trainer itself, events and checkpoint included."""
    with tempfile.TemporaryDirectory() as folder, EventLog(Path(folder)) as events:
        trainer = Trainer(
            prepared.config.training,
            fabric=prepared.fabric,
            run_dir=Path(folder),
            seed=prepared.config.seed,
            events=events,
            progress=False,
        )
        trainer.fit(prepared.scheme, source, prepared.valid, validate=_no_validation)
    return source.steps()


def _no_validation(scheme: Scheme, source: BatchSource) -> Mapping[str, float]:
    """The steps alone are measured."""
    del scheme, source
    return {"mae": 0.0}


def anonymous_bytes(root: int) -> int:
    """Anonymous memory of a process and all its descendants: RssAnon of /proc/PID/status, summed.

    Pages of memory-mapped files are not in it: the system takes them back when it needs them.
    """
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
            tasks = list(Path(f"/proc/{pid}/task").iterdir())
            for task in tasks:
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                total += 1024 * int(line.split()[1])
    return total


def run_part(script: Path, arguments: Sequence[str], *, threads: int) -> dict[str, Any]:
    """Run a part of a benchmark in a process of its own, so that its memory is its own.

    Args:
        script: the benchmark.
        arguments: of it; it prints one JSON object as its last line.
        threads: of torch.

    Returns:
        That object, with ``peak_bytes``: the highest anonymous memory of the process and its
        workers together, looked at fifty times a second.

    Raises:
        RuntimeError: the part failed; its complaint goes along.
    """
    # Not to a pipe, which would fill up while memory is looked at.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as complaints:
        command = ["env", f"OMP_NUM_THREADS={threads}", sys.executable, str(script), *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=complaints)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(_POLL_SECONDS)
        output.seek(0)
        complaints.seek(0)
        lines = output.read().splitlines()
        if process.returncode or not lines:
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{complaints.read()[-2000:]}")
    measured: dict[str, Any] = json.loads(lines[-1])
    return {**measured, "peak_bytes": peak}
