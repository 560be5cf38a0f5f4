"""What goes wrong around a run: a clear line, the last good state kept, the same bits after."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import launching
import pytest
import torch
from launching import num_steps, outcome_of, start, wait_until

from tecafn.cli import main
from tecafn.core.output import Losses, Progress
from tecafn.methods.tecafn import TeCaFNScheme
from tecafn.records.record import Evaluation
from tecafn.training.checkpoint import Checkpoints
from tecafn.training.run_lock import run_lock

pytestmark = pytest.mark.usefixtures("no_fsync")

# The tiny run's six steps, three an epoch, with more checkpoints: they must change nothing.
OFTEN = ["--set", "training.checkpoint_every_steps=2"]


@pytest.fixture(autouse=True)
def _without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a tiny run's time."""
    monkeypatch.setattr(
        "tecafn.report.html.write_report", lambda run: (run / "report.html").touch()
    )


@pytest.fixture
def command(tiny_toml: Path, tiny_store: Path) -> Callable[..., list[str]]:
    """``command(out, *more)``: to train the run that ``tiny_run`` is, elsewhere."""

    def make(out: Path, *more: object) -> list[str]:
        arguments = ["train", tiny_toml, "--data", tiny_store, "--out", out, "--device", "cpu"]
        # The config that a resume compares must be the same, so it is given every time.
        return [str(argument) for argument in (*arguments, "--quiet", *OFTEN, *more)]

    return make


Command = Callable[..., list[str]]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, happens: Callable[[], Any]) -> None:
    """Let something happen in the loss of this step (from 0)."""
    loss = TeCaFNScheme.loss

    def watched(self: TeCaFNScheme, batch: Any, progress: Progress) -> Losses:
        if progress.step == step:
            happens()
        return loss(self, batch, progress)

    monkeypatch.setattr(TeCaFNScheme, "loss", watched)


def interrupt() -> None:
    raise KeyboardInterrupt


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Lines on stderr but those of epochs and notes."""
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if not line.startswith(("epoch ", "note: "))]


def assert_resumes(command: Command, out: Path, undisturbed: Path) -> None:
    """And ends as the run that nothing disturbed."""
    assert main(command(out, "--resume")) == 0
    assert outcome_of(out) == outcome_of(undisturbed)


# Signals


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "interrupted; --resume continues a run"),
        (
            signal.SIGTERM,
            143,
            "error: ended by SIGTERM; the last checkpoint stands; continue with --resume",
        ),
    ],
)
def test_interrupted_run_says_one_line_and_resumes_to_the_undisturbed_bits(
    command: Command,
    tiny_run: Path,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    line: str,
) -> None:
    out = tmp_path / "run"
    running = start(command(out), tmp_path / "cut")
    wait_until(lambda: num_steps(out) >= 4, [running])
    running.send(number)
    ended = running.wait(60)
    lines = [one for one in ended.err.splitlines() if not one.startswith("epoch ")]
    assert (ended.code, lines) == (code, [line])
    assert not (out / "record.json").exists()
    step, skipped = Checkpoints(out / "checkpoints").newest()
    assert step in (2, 3, 4, 6)
    assert skipped == []
    assert_resumes(command, out, tiny_run)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_at_random_moments_change_no_bit(
    tiny_toml: Path, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    # Kept text states, too, can be killed while they are computed; each run has a store of its own.
    def arguments(name: str) -> list[object]:
        data = tmp_path / f"store-{name}"
        if not data.exists():
            make_store(data)
        options = ("num_trained_text_layers=1", "training.max_epochs=8", "training.patience=8")
        sets = [part for one in options for part in ("--set", one)]
        command = ["train", tiny_toml, "--data", data, "--out", tmp_path / name, *OFTEN, *sets]
        return [*command, "--device", "cpu", "--quiet", "--resume"]

    whole = launching.start(arguments("whole"), tmp_path / "whole-log")
    begun = time.monotonic()
    assert whole.wait().code == 0
    length = time.monotonic() - begun
    expected = outcome_of(tmp_path / "whole")

    kills: list[tuple[int, int]] = []  # run, steps it had done
    run, seed = 0, 0
    while len(kills) < 20 or (tmp_path / f"run-{run}").exists():
        out = tmp_path / f"run-{run}"
        running = start(arguments(out.name), tmp_path / f"log-{seed}")
        if len(kills) < 20:
            running.process.join(random.Random(seed).uniform(0, length))
            seed += 1
            if running.process.is_alive():
                running.send(signal.SIGKILL)
        ended = running.wait()
        if ended.code == -signal.SIGKILL:
            kills.append((run, num_steps(out)))
            continue
        assert ended.code == 0, ended.err
        assert outcome_of(out) == expected, f"run {run}, killed at {kills}"
        assert not list(out.rglob(".writing-*"))
        run += 1
    print(f"{len(kills)} kills in {run} runs of {length:.1f} s; run and step: {kills}")
    assert len({steps for _, steps in kills}) > 5


# Broken checkpoints


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
@pytest.mark.parametrize("name", ["scheme.safetensors", "optimizers.safetensors"])
def test_broken_checkpoint_is_told_and_the_one_before_gives_the_undisturbed_bits(
    command: Command,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    name: str,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 5, interrupt)
        assert main(command(out)) == 130
    kept = sorted(path.name for path in (out / "checkpoints").glob("0*"))
    assert kept == ["00000003", "00000004"]
    damage(out / "checkpoints" / kept[1] / name)
    capsys.readouterr()
    assert_resumes(command, out, tiny_run)
    lines = [line for line in told(capsys) if not line.startswith("health: ")]
    assert len(lines) == 2
    broken = out / "checkpoints" / kept[1]
    assert lines[0].startswith(f"warning: skipped the broken checkpoint {broken}: {name}")
    assert lines[1].startswith("resuming after step 3, ")


def test_run_without_a_whole_checkpoint_is_one_line(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 5, interrupt)
        main(command(out))
    for path in (out / "checkpoints").glob("0*/trainer.json"):
        truncate(path)
    capsys.readouterr()
    assert main(command(out, "--resume")) == 2
    (line,) = told(capsys)
    assert line.startswith("error: no checkpoint can be resumed: ")
    for name in ("00000003", "00000004", "trainer.json does not match its hash"):
        assert name in line


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB of its own, which root alone can have."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("NO REAL DISK IS FILLED: a file system can be mounted here by nobody but root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> None:
    """To the last byte."""
    with (disk / "filler").open("ab", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            return


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


@pytest.mark.parametrize("step", [0, 2, 5])
def test_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    command: Command,
    tiny_run: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    out = small_disk / "run"
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: fill(small_disk))
        assert main(command(out)) == 2
    (line,) = told(capsys)
    assert line.startswith("error: cannot write ")
    assert "No space left on device" in line
    if step:
        assert Checkpoints(out / "checkpoints").newest() == (step // 2 * 2, [])
    (small_disk / "filler").unlink()
    assert_resumes(command, out, tiny_run)


def test_full_disk_under_the_text_states_is_one_line_and_no_bus_error(
    tiny_toml: Path, make_store: Callable[..., Path], small_disk: Path, tmp_path: Path
) -> None:
    data = make_store(small_disk / "store")
    (data / "cache").mkdir()
    fill(small_disk)
    command = ["train", tiny_toml, "--data", data, "--out", tmp_path / "run", "--device", "cpu"]
    ended = launching.run([*command, "--set", "num_trained_text_layers=0"], tmp_path / "log")
    assert ended.code == 2, ended
    (line,) = ended.err.splitlines()
    assert line.startswith(f"error: cannot write text states to {data / 'cache'}: No space left")
    assert not list((data / "cache").rglob("*.npy"))


def test_read_only_folder_is_one_line(
    command: Command,
    tiny_run: Path,
    tiny_store: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun, finished = small_disk / "begun", shutil.copytree(tiny_run, small_disk / "finished")
    with monkeypatch.context() as patch:
        at_step(patch, 3, interrupt)
        main(command(begun))
    make_read_only(small_disk)
    new = small_disk / "new"
    common = ["--data", tiny_store, "--device", "cpu"]
    for arguments, named in (
        (command(new), new),
        (command(new, "--cross-validate", "video", "--folds", 3), new),
        (command(begun, "--resume"), begun),
        (["evaluate", finished, *common], finished),
        (["predict", finished, *common, "--out", small_disk / "p.csv"], small_disk / "p.csv"),
    ):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        (line,) = told(capsys)
        assert line.startswith("error: cannot ")
        assert str(named) in line
        assert "Read-only file system" in line


def test_store_that_cannot_be_written_is_trained_on_all_the_same(
    tiny_toml: Path,
    make_store: Callable[..., Path],
    small_disk: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_store(small_disk / "store")
    make_read_only(small_disk)
    out = tmp_path / "run"
    command = ["train", tiny_toml, "--data", data, "--out", out, "--device", "cpu", "--quiet"]
    assert main([*map(str, command), "--set", "num_trained_text_layers=0"]) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2  # train and valid
    assert "cannot be written (Read-only file system); text states" in notes[0]


# Memory


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(1 << 46, dtype=torch.uint8),  # 64 TiB: really refused
        lambda: bytearray(1 << 60),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to ...")),
        lambda: (_ for _ in ()).throw(OSError(12, "Cannot allocate memory")),
    ],
    ids=["torch", "python", "cuda", "system"],
)
def test_out_of_memory_says_what_to_lower_and_keeps_the_last_good_state(
    command: Command,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    allocate: Callable[[], Any],
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 5, allocate)
        assert main(command(out)) == 2
    (line,) = told(capsys)
    assert line.startswith("error: out of memory; the longest clip, ")
    assert "frames; lower max_frames, max_text_tokens or training.batch_size " in line
    assert Checkpoints(out / "checkpoints").newest() == (4, [])
    assert_resumes(command, out, tiny_run)


def test_prediction_out_of_memory_is_one_line(
    tiny_run: Path,
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def allocate(*arguments: Any, **options: Any) -> Any:
        return torch.empty(1 << 46, dtype=torch.uint8)

    monkeypatch.setattr("tecafn.experiments.evaluate.predict_source", allocate)
    command = [
        "predict",
        tiny_run,
        "--data",
        tiny_store,
        "--out",
        tmp_path / "p",
        "--device",
        "cpu",
    ]
    assert main([str(argument) for argument in command]) == 2
    (line,) = told(capsys)
    assert line.startswith("error: out of memory; the longest clip, ")
    assert line.endswith(" frames; give it a machine, or a --device, with more")


# Two at once


@pytest.mark.parametrize("more", [[], ["--resume"], ["--cross-validate", "video", "--folds", "3"]])
def test_folder_that_another_run_writes_is_refused(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    out = tmp_path / "run"
    with run_lock(out):
        assert main(command(out, *more)) == 2
    (line,) = told(capsys)
    assert line.startswith(f"error: {out} is being written by another run; ")
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_run_that_ended_while_the_second_one_started_is_not_written_over(
    command: Command, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(tiny_run, tmp_path / "run")
    before = outcome_of(out)
    assert main(command(out)) == 2
    (line,) = told(capsys)
    assert "holds a run already" in line
    assert outcome_of(out) == before


def test_evaluation_waits_for_another_that_writes_and_takes_its_answer(
    tiny_run: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tecafn.experiments.evaluate as evaluate_module

    out = shutil.copytree(tiny_run, tmp_path / "run")
    predict = vars(evaluate_module)["predict_source"]
    first: list[Evaluation] = []

    def overtaken(*arguments: Any, **options: Any) -> Any:
        answers = predict(*arguments, **options)
        monkeypatch.setattr(evaluate_module, "predict_source", predict)
        first.append(evaluate_module.evaluate_run(out, data=tiny_store, device="cpu"))
        monkeypatch.setattr(
            evaluate_module, "write_record", os.abort
        )  # must not write a second time
        return answers

    monkeypatch.setattr(evaluate_module, "predict_source", overtaken)
    assert evaluate_module.evaluate_run(out, data=tiny_store, device="cpu") == first[0]
