"""The guarded jobs of ``guard`` on the machines of a Ray cluster, as a job of Ray Data.

Every machine sees the clips and the folder that features are written to under the same paths, as
in `docs/cluster.md`. On each machine clips are read in guarded processes as at home, so what a clip
becomes, and what is said of one that cannot be read, does not depend on where that was.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from tecafn.core.errors import UserError
from tecafn.extract.guard import Limits, Outcome, Tell, run_guarded

LOCAL: Final = "local"
# A process per so many clips at most: starting one takes as long as reading a short clip.
_MOST_PER_TASK: Final = 16
_TASKS_PER_CORE: Final = 4

Job = TypeVar("Job")
_Rows = dict[str, Any]


def run_on_ray(
    function: Callable[[Any, Tell], Any],
    jobs: Iterable[Job],
    *,
    address: str,
    processes: int = 1,
    limits: Limits | None = None,
) -> Iterator[Outcome[Job]]:
    """Outcomes as they come, in no order; those that did not fail have no value.

    Args:
        function: see ``run_guarded``; what it makes it writes where all machines see it.
        jobs: their paths are absolute.
        address: of the cluster, as ``ray.init`` takes it (``auto``, ``ray://HOST:10001``); `local`
            starts one on this machine for as long as the jobs take.
        processes: of a local one; a cluster takes as many as it has cores.
        limits: of each process; None = the default ones.

    Raises:
        UserError: Ray is not installed, the cluster is not reached, or it fails.
    """
    waiting = list(jobs)
    if not waiting:
        return
    library = _started(address, processes)
    try:
        cores = int(library.cluster_resources().get("CPU", 1))
        size = max(1, min(_MOST_PER_TASK, len(waiting) // (_TASKS_PER_CORE * cores)))
        numbers = [{"number": number} for number in range(len(waiting))]
        dataset = library.data.from_items(
            numbers, override_num_blocks=math.ceil(len(numbers) / size)
        ).map_batches(
            functools.partial(_read, function=function, jobs=waiting, limits=limits),
            batch_size=size,
            num_cpus=1,
        )
        for row in dataset.iter_rows():
            error = str(row["error"])
            yield Outcome(waiting[int(row["number"])], error=error or None)
    except library.exceptions.RayError as error:
        raise UserError(f"the Ray cluster failed: {_first_line(error)}") from None
    finally:
        library.shutdown()


def _read(
    batch: _Rows,
    *,
    function: Callable[[Any, Tell], Any],
    jobs: Sequence[Any],
    limits: Limits | None,
) -> _Rows:
    """On a machine of the cluster: the jobs of a batch's numbers, in a guarded process."""
    todo = [(function, int(number), jobs[int(number)]) for number in batch["number"]]
    told: dict[str, list[Any]] = {"number": [], "error": []}
    for outcome in run_guarded(_without_value, todo, limits=limits):
        told["number"].append(outcome.job[1])
        told["error"].append(outcome.error or "")
    return {name: np.array(values) for name, values in told.items()}


def _without_value(job: tuple[Callable[[Any, Tell], Any], int, Any], tell: Tell) -> None:
    function, _, own = job
    function(own, tell)


def _started(address: str, processes: int) -> Any:
    """Ray, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise UserError(
            f"--ray needs Ray, which is not installed or lacks {error.name}: "
            "pip install 'tecafn[video,ray]'"
        ) from None
    try:
        own: dict[str, Any] = {}
        if address == LOCAL:
            own = {"num_cpus": processes, "include_dashboard": False}
        ray.init(
            address=address,
            **own,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, OSError, RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f"no Ray cluster at {address}: {_first_line(error)}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
