"""Who was started with whom, by the variables that torchrun and SLURM set."""

from __future__ import annotations

import pytest

from tecafn.core.errors import UserError
from tecafn.experiments.launched import Launched, launched

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "1"}
# As srun gives them to the fourth of six processes on three nodes.
SLURM = {
    "SLURM_JOB_ID": "81234",
    "SLURM_JOB_NAME": "tecafn",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "6",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "3",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
ALONE = Launched()


def test_torchrun_says_rank_processes_and_machines() -> None:
    assert launched(TORCHRUN) == Launched(rank=5, num_processes=8, num_here=4, num_machines=2)


def test_srun_says_rank_processes_and_machines() -> None:
    assert launched(SLURM) == Launched(rank=3, num_processes=6, num_here=2, num_machines=3)


def test_torchrun_inside_a_slurm_allocation_is_torchrun() -> None:
    assert launched({**SLURM, **TORCHRUN}).num_processes == 8


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**SLURM, "SLURM_NTASKS": "1"},
        # The batch script itself, or a shell in the allocation: one process, whatever was reserved.
        {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"},
        {**SLURM, "SLURM_JOB_NAME": "interactive"},
        {**SLURM, "SLURM_JOB_NAME": "bash"},
    ],
)
def test_process_that_nobody_started_with_others_is_alone(environment: dict[str, str]) -> None:
    assert launched(environment) == ALONE


def test_srun_without_tasks_per_node_is_one_line() -> None:
    environment = {k: v for k, v in SLURM.items() if k != "SLURM_NTASKS_PER_NODE"}
    with pytest.raises(UserError, match=r"srun started 6 processes.*--ntasks-per-node") as caught:
        launched(environment)
    assert "\n" not in str(caught.value)
