"""How many processes were started together, and which of them this is. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from tecafn.core.errors import UserError

# What srun names a shell that somebody works in; Fabric goes by the same names.
_SHELLS = ("bash", "interactive")


@dataclass(frozen=True)
class Launched:
    """What the launcher's environment variables say.

    Args:
        rank: this process's number, from 0.
        num_processes: started together, on all machines.
        num_here: of these, on this machine.
        num_machines: how many machines.
    """

    rank: int = 0
    num_processes: int = 1
    num_here: int = 1
    num_machines: int = 1


def launched(environment: Mapping[str, str] | None = None) -> Launched:
    """Read torchrun's variables, or SLURM's where ``srun`` started this process.

    Inside a SLURM allocation a process that ``srun`` did not start is alone, whatever the number
    of tasks is: it may be torchrun's, or a login shell.

    Args:
        environment: ``os.environ`` by default.

    Raises:
        UserError: ``srun`` started several processes without ``--ntasks-per-node``.

    Example:
        >>> launched({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}).num_machines
        2
        >>> launched({})
        Launched(rank=0, num_processes=1, num_here=1, num_machines=1)
    """
    values = os.environ if environment is None else environment
    if "RANK" in values and "WORLD_SIZE" in values:
        total = int(values["WORLD_SIZE"])
        here = int(values.get("LOCAL_WORLD_SIZE", total))
        return Launched(int(values["RANK"]), total, here, max(1, total // here))
    total = int(values.get("SLURM_NTASKS", "1"))
    by_srun = "SLURM_STEP_ID" in values and values.get("SLURM_JOB_NAME") not in _SHELLS
    if total == 1 or not by_srun:
        return Launched()
    if "SLURM_NTASKS_PER_NODE" not in values:
        raise UserError(
            f"srun started {total} processes; say how many on each node with --ntasks-per-node"
        )
    here, nodes = int(values["SLURM_NTASKS_PER_NODE"]), int(values.get("SLURM_NNODES", "1"))
    return Launched(int(values["SLURM_PROCID"]), total, here, nodes)
