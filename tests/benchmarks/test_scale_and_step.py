"""The benchmarks of cost run from end to end on tiny settings, and count what they say they do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tecafn.core.batch import Batch, Padded
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality

Importing = Callable[[str], ModuleType]

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def test_anonymous_memory_counts_what_is_held_and_the_children(
    load_benchmark: Importing, tmp_path: Path
) -> None:
    measuring = load_benchmark("measuring")
    held = 64 * 2**20
    nested = f"x = bytearray(b'1') * {held}; print('held', flush=True); input()"
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {nested!r}], stdin=subprocess.PIPE)\n"
        "input()\nchild.communicate(b'\\n')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    assert held <= measuring.anonymous_bytes(process.pid) < held + 64 * 2**20
    process.communicate(b"\n")
    assert measuring.anonymous_bytes(process.pid) == 0


class FiveBatches:
    """An epoch of five batches of one row, numbered on from epoch to epoch."""

    num_samples = 5

    def num_batches(self, epoch: int) -> int:
        return 5

    def batches(self, epoch: int) -> Iterator[Batch]:
        for number in range(5):
            frames = Padded(torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.bool))
            yield Batch(
                sequences={Modality.AUDIO: frames},
                present={Modality.AUDIO: torch.tensor([True])},
                labels=torch.zeros(1),
                index=torch.tensor([5 * epoch + number]),
                ids=("v_1",),
            )


def test_steps_are_counted_after_the_warm_up_and_go_on_into_the_next_epoch(
    load_benchmark: Importing,
) -> None:
    measuring = load_benchmark("measuring")
    beside: list[int] = []
    source = measuring.FirstSteps(
        FiveBatches(), 4, epoch=2, warm_up=3, beside=lambda batch: beside.append(int(batch.index))
    )
    taken = source.batches(0)
    seen = [int(next(taken).index) for _ in range(source.num_batches(0))]
    assert seen == list(range(10, 18))
    assert beside == seen[:-1]
    steps = source.steps()
    assert [(s.samples, s.frames) for s in steps] == [(1, 3)] * 4
    assert all(s.seconds >= s.loading >= 0 for s in steps)


def test_corpora_that_the_disk_cannot_hold_are_refused_in_a_line(
    load_benchmark: Importing, tmp_path: Path
) -> None:
    scale = load_benchmark("scale")
    with pytest.raises(UserError, match=r"the corpora need [\d.]+ GB below .*, [\d.]+ GB are free"):
        scale.check_space(tmp_path, [10**12])
    scale.check_space(tmp_path, [10])


def test_lengths_of_the_second_corpus_have_nothing_to_do_with_one_another(
    load_benchmark: Importing, tmp_path: Path
) -> None:
    step = load_benchmark("train_step")
    setup = step.Setup(alternations=1, clips=1, train=800, smoke=True, folder=tmp_path)
    found = []
    for correlated in (True, False):
        view = step.corpus(setup, correlated=correlated).split("train")
        lengths = torch.tensor(
            [view.lengths(m).tolist() for m in (Modality.AUDIO, Modality.VISION)]
        )
        found.append(torch.corrcoef(lengths.double().log())[0, 1].item())
    assert found[0] > 0.7
    assert abs(found[1]) < 0.15


def test_the_gpu_part_runs_and_counts_operations(load_benchmark: Importing, tmp_path: Path) -> None:
    step = load_benchmark("train_step")
    setup = step.Setup(alternations=2, clips=1, train=96, smoke=True, folder=tmp_path)
    step.corpus(setup)
    part = step.measure_gpu(16, setup, device="cpu")
    # Word vectors are looked up; the encoder's one layer is 48 wide: no less than its products.
    tokens = 8
    assert part["operations"] > 3 * 2 * tokens * (4 * 48**2 + 2 * 48 * 96)
    first, second = (block for block in step.gpu_blocks([part]) if block.startswith("|"))
    assert first.splitlines()[-1].startswith("| 16 |")
    assert "text encoder, backward" in second
    assert step.gpu_blocks([]) == ["Not measured: this machine has none."]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["scale", "train_step"])
def test_a_smoke_run_prints_its_page(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--smoke", "--folder", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "| --- |" in ran.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    if name == "train_step":  # resumed, nothing is measured twice
        assert (again.stdout, again.stderr) == (ran.stdout, "")
