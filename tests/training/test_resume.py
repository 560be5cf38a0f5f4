"""A killed and resumed run must end as if it had not been killed, bit for bit."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import training_toys
from training_toys import Killed, ToySource, events_of, fit, killer, parameters_of, toy_scheme

from tecafn.core.errors import UserError
from tecafn.training.config import TrainingConfig
from tecafn.training.trainer import FitResult

SETTINGS: dict[str, dict[str, Any]] = {
    "every epoch": {},
    "mid-epoch": {"checkpoint_every_steps": 4},
    "mid-epoch, accumulating": {"checkpoint_every_steps": 2, "accumulate": 2},
    "every step, warm-up": {"checkpoint_every_steps": 1, "warmup_fraction": 0.5},
    "linear": {"schedule": "linear", "checkpoint_every_steps": 5, "optimizer": "adamw"},
}


KILLED_AT = [0, 5, 6, 15]


def settings(name: str) -> TrainingConfig:
    # A large rate, so that epochs get stale: the halved rate and the early stop must survive too.
    return TrainingConfig(
        max_epochs=6,
        learning_rate=0.3,
        learning_rates={"text_encoder": 0.2},
        plateau_patience=1,
        patience=4,
        **SETTINGS[name],
    )


def checkpoint_bytes(run_dir: Path) -> dict[str, bytes]:
    """Every weight and optimizer file that a run leaves."""
    folder = run_dir / "checkpoints"
    files = sorted(folder.rglob("*.safetensors"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_same(undisturbed: Path, resumed: Path) -> None:
    assert events_of(resumed) == events_of(undisturbed)
    assert checkpoint_bytes(resumed) == checkpoint_bytes(undisturbed)
    assert checkpoint_bytes(resumed)


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed."""

    run_dir: Path
    result: FitResult
    weights: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Whole]:
    runs = {}
    for name in SETTINGS:
        run_dir, scheme = tmp_path_factory.mktemp("whole"), toy_scheme("dropout")
        result = fit(scheme, run_dir, settings(name))
        runs[name] = Whole(run_dir, result, parameters_of(scheme))
    return runs


def test_the_undisturbed_runs_cover_what_can_go_wrong(wholes: dict[str, Whole]) -> None:
    results = [whole.result for whole in wholes.values()]
    assert {result.stopped for result in results} == {"patience", "max_epochs"}
    assert any(result.best_epoch < result.epochs - 1 for result in results)
    rates = [
        {event["learning_rates"]["main"] for event in events_of(whole.run_dir) if "phase" in event}
        for whole in wholes.values()
    ]
    assert {0.3, 0.15} <= rates[0]
    for whole in wholes.values():
        assert sum("phase" in event for event in events_of(whole.run_dir)) > max(KILLED_AT)


@pytest.mark.parametrize("step", KILLED_AT)
@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_run_killed_at_any_step_resumes_bit_for_bit(
    wholes: dict[str, Whole], tmp_path: Path, name: str, step: int
) -> None:
    whole = wholes[name]
    with pytest.raises(Killed):
        fit(toy_scheme("dropout", before_loss=killer(step)), tmp_path, settings(name))
    resumed = toy_scheme("dropout")
    result = fit(resumed, tmp_path, settings(name), resume=True)
    assert replace(result, seconds=0) == replace(whole.result, seconds=0)
    for key, tensor in whole.weights.items():
        assert torch.equal(parameters_of(resumed)[key], tensor), key
    assert_same(whole.run_dir, tmp_path)


@pytest.mark.parametrize("step", [6, 10, 17])
def test_alternating_phases_resume_bit_for_bit(tmp_path: Path, step: int) -> None:
    # Eight steps an epoch, two in the first phase: checkpoints lie in both and at their border.
    config = replace(settings("mid-epoch"), checkpoint_every_steps=5, max_epochs=4)
    fit(toy_scheme("phases"), tmp_path / "whole", config)
    killed = toy_scheme("phases")
    killed.before_loss = killer(step)
    with pytest.raises(Killed):
        fit(killed, tmp_path / "cut", config)
    fit(toy_scheme("phases"), tmp_path / "cut", config, resume=True)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_a_run_killed_again_and_again_still_ends_the_same(
    wholes: dict[str, Whole], tmp_path: Path
) -> None:
    for step in (1, 5, 7, 10, 15, 16):
        scheme = toy_scheme("dropout", before_loss=killer(step))
        with pytest.raises(Killed):
            fit(scheme, tmp_path, settings("mid-epoch"), resume=True)
    fit(toy_scheme("dropout"), tmp_path, settings("mid-epoch"), resume=True)
    assert_same(wholes["mid-epoch"].run_dir, tmp_path)


def test_a_run_killed_during_validation_resumes_bit_for_bit(
    wholes: dict[str, Whole], tmp_path: Path
) -> None:
    config = settings("mid-epoch")
    calls = []

    def dies_in_the_second_epoch(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return training_toys.validate(*arguments)

    with pytest.raises(KeyboardInterrupt):
        fit(toy_scheme("dropout"), tmp_path, config, validate_with=dies_in_the_second_epoch)
    fit(toy_scheme("dropout"), tmp_path, config, resume=True)
    assert_same(wholes["mid-epoch"].run_dir, tmp_path)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    scheme, again = toy_scheme("dropout"), toy_scheme("dropout")
    first = fit(scheme, tmp_path, settings("every epoch"))
    events, files = events_of(tmp_path), checkpoint_bytes(tmp_path)
    second = fit(again, tmp_path, settings("every epoch"), resume=True)
    assert second == first
    assert events_of(tmp_path) == events
    assert checkpoint_bytes(tmp_path) == files
    assert torch.equal(scheme.network.head.weight, again.network.head.weight)


def test_a_broken_newest_checkpoint_is_told_and_the_run_still_ends_the_same(
    wholes: dict[str, Whole], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings("mid-epoch")
    with pytest.raises(Killed):
        fit(toy_scheme("dropout", before_loss=killer(15)), tmp_path, config)
    *_, newest = sorted(p for p in (tmp_path / "checkpoints").iterdir() if p.name != "best")
    with (newest / "scheme.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    capsys.readouterr()
    fit(toy_scheme("dropout"), tmp_path, config, resume=True)
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(told) == 1
    assert newest.name in told[0]
    assert "scheme.safetensors" in told[0]
    assert '"event": "warning"' in (tmp_path / "events.jsonl").read_text()
    assert_same(wholes["mid-epoch"].run_dir, tmp_path)


def test_a_process_killed_by_a_signal_resumes_bit_for_bit(tmp_path: Path) -> None:
    log = tmp_path / "cut" / "events.jsonl"
    program = [sys.executable, training_toys.__file__, str(tmp_path / "cut")]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as process:
        for _ in range(1200):
            if log.exists() and len(log.read_text().splitlines()) >= 17:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert '"event": "end"' not in log.read_text()
    fit(toy_scheme(), tmp_path / "cut", training_toys.SLOW, resume=True)
    assert '"event": "resume"' in log.read_text()
    fit(toy_scheme(), tmp_path / "whole", training_toys.SLOW)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_resuming_with_other_widths_is_one_line(tmp_path: Path) -> None:
    fit(toy_scheme(), tmp_path, settings("every epoch"))
    with pytest.raises(UserError, match="takes 5 columns, the data has 6") as caught:
        fit(toy_scheme(width=6), tmp_path, settings("every epoch"), resume=True)
    assert "'network.text_encoder.weight' expected shape (8, 6)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_resuming_with_other_phases_is_one_line(tmp_path: Path) -> None:
    fit(toy_scheme(), tmp_path, settings("every epoch"))
    with pytest.raises(UserError, match=r"has the phases \['main'\]") as caught:
        fit(toy_scheme("phases"), tmp_path, settings("every epoch"), resume=True)
    assert "\n" not in str(caught.value)


def test_the_source_skips_what_was_done(tmp_path: Path) -> None:
    source = ToySource()
    config = replace(settings("mid-epoch"), max_epochs=1)
    seen: list[int] = []
    with pytest.raises(Killed):
        fit(toy_scheme(before_loss=killer(5)), tmp_path, config, train=source)
    scheme = toy_scheme(before_loss=lambda progress: seen.append(progress.step))
    fit(scheme, tmp_path, config, train=source, resume=True)
    assert seen == [4, 5]
