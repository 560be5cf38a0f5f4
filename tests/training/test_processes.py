"""Two processes train what one process trains."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import training_toys
from training_toys import ToySource, events_of, fit, parameters_of, toy_scheme

from tecafn.core.errors import UserError
from tecafn.training.config import TrainingConfig

SETTINGS: dict[str, Any] = {
    "max_epochs": 2,
    "accumulate": 2,
    "learning_rates": {"text_encoder": 5e-4},
    "precision": "64-true",
    "schedule": "constant",
    "gradient_clip": 0.5,
    "checkpoint_every_steps": 2,
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have trained the toy programs' runs."""
    run_dir = tmp_path_factory.mktemp("two")
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*program, training_toys.__file__, str(run_dir), json.dumps(SETTINGS)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return run_dir


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(folder / "final.pt", weights_only=True)
    return weights


def test_two_processes_train_the_weights_of_one_though_a_batch_leaves_one_without_rows(
    two: Path, tmp_path: Path
) -> None:
    scheme = toy_scheme("plain")
    fit(scheme, tmp_path, TrainingConfig(**SETTINGS), train=ToySource(num_samples=21))
    one, other = parameters_of(scheme), weights_in(two / "plain")
    assert set(one) == set(other)
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-10)
    steps = [
        [event for event in events_of(folder) if event["event"] == "step"]
        for folder in (tmp_path, two / "plain")
    ]
    assert len(steps[0]) == len(steps[1]) == 6
    for ours, theirs in zip(*steps, strict=True):
        assert theirs["total"] == pytest.approx(ours["total"], abs=1e-10)
        assert theirs["losses"] == pytest.approx(ours["losses"], abs=1e-10)
        assert theirs["gradient_norm"] == pytest.approx(ours["gradient_norm"], abs=1e-10)


@pytest.mark.parametrize("kind", ["plain", "dropout"])
def test_two_killed_processes_resume_bit_for_bit(two: Path, kind: str) -> None:
    whole, resumed = weights_in(two / kind), weights_in(two / f"{kind}-killed")
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name
    assert events_of(two / f"{kind}-killed") == events_of(two / kind)
    assert '"event": "resume"' in (two / f"{kind}-killed" / "events.jsonl").read_text()


def test_another_number_of_processes_cannot_resume(two: Path, tmp_path: Path) -> None:
    shutil.copytree(two / "plain", tmp_path / "run")
    with pytest.raises(UserError, match=r"written by 2 process\(es\), this run has 1") as caught:
        fit(toy_scheme("plain"), tmp_path / "run", TrainingConfig(**SETTINGS), resume=True)
    assert "\n" not in str(caught.value)
