"""Several processes do each command as one does: same results, each sample once, one writer."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import launching
import pytest
import torch
from launching import Ended, events_of, num_steps, outcome_of, run, run_together, start_together
from safetensors.torch import load_file
from saved import read_rows

from tecafn.records.record import read_record

# Batches of 8 leave one row over: none for the first of two processes.
SIZES = {"train": 25, "valid": 9, "test": 13}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def config(make_bert: Callable[..., Path], folder: Path) -> Path:
    """No dropout anywhere, in double precision; one layer of the text encoder is frozen."""
    bert = make_bert(folder / "still-bert")
    described = json.loads((bert / "config.json").read_text(encoding="utf-8"))
    described |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (bert / "config.json").write_text(json.dumps(described), encoding="utf-8")
    path = folder / "still.toml"
    dropouts = ("embedding", "attention", "relu", "residual", "head", "mapper")
    path.write_text(
        f"""
method = "tecafn"
text_encoder = '{bert}'
num_trained_text_layers = 1
[model]
dim = 10
num_layers = 1
num_unimodal_layers = 1
unimodal_hidden_dim = 8
{"".join(f"{name}_dropout = 0.0" + chr(10) for name in dropouts)}
[training]
max_epochs = 2
batch_size = 8
precision = "64-true"
checkpoint_every_steps = 1
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def make_data(make_store: Callable[..., Path], folder: Path) -> Callable[[str], Path]:
    """A store of its own, so with a text cache of its own."""
    return lambda name: make_store(folder / name, sizes=SIZES)


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Args:
        out: its directory.
        data: its store, which no other run has used.
        ended: by rank.
    """

    out: Path
    data: Path
    ended: Sequence[Ended]


@pytest.fixture(scope="module")
def trained(config: Path, make_data: Callable[[str], Path], folder: Path) -> dict[int, Trained]:
    """By number of processes."""
    runs = {}
    for num in (1, 2):
        data, out = make_data(f"store-{num}"), folder / f"run-{num}"
        command = ["train", config, "--data", data, "--out", out, "--device", "cpu"]
        log = folder / f"train-{num}"
        ended = [run(command, log)] if num == 1 else run_together(command, log, num=num)
        for one in ended:
            assert one.code == 0, one.err
        runs[num] = Trained(out, data, ended)
    return runs


def predictions_in(path: Path) -> dict[str, float]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: float(row["prediction"]) for row in csv.DictReader(file)}


def files_in(out: Path) -> set[str]:
    """Relative, but for TensorBoard's, which are named after the time."""
    paths = (str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    return {path for path in paths if not path.startswith("tensorboard")}


def about(ended: Ended, folder: Path) -> list[str]:
    """Paths below ``folder`` that a process wrote."""
    return [path for path in ended.written if Path(path).is_relative_to(folder)]


# Training


def test_two_processes_train_the_weights_of_one(trained: dict[int, Trained]) -> None:
    weights = {}
    for num, one in trained.items():
        (best,) = (one.out / "checkpoints" / "best").glob("*/scheme.safetensors")
        weights[num] = load_file(best)
    assert set(weights[1]) == set(weights[2])
    for name, tensor in weights[1].items():
        torch.testing.assert_close(weights[2][name], tensor, rtol=0, atol=1e-9, msg=name)
    exported = [
        load_file(either.out / "model" / "model.safetensors") for either in trained.values()
    ]
    for name, tensor in exported[0].items():
        torch.testing.assert_close(exported[1][name], tensor, rtol=1e-6, atol=1e-6, msg=name)


def test_two_processes_log_the_losses_and_metrics_of_one(trained: dict[int, Trained]) -> None:
    one, two = (events_of(either.out) for either in trained.values())
    assert [event["event"] for event in one] == [event["event"] for event in two]
    assert [event["processes"] for event in (one[0], two[0])] == [1, 2]
    assert sum(event["event"] == "step" for event in one) == 8
    for ours, theirs in zip(one[1:], two[1:], strict=True):
        for event in (ours, theirs):  # of the first batch of validation that rank 0 has
            event.get("health", {}).pop("fused", None)
        for key, value in ours.items():
            assert_alike(theirs[key], value, key)


def assert_alike(one: Any, other: Any, what: str) -> None:
    """Equal but for rounding, at any depth."""
    if isinstance(other, dict):
        assert one.keys() == other.keys(), what
        for key, value in other.items():
            assert_alike(one[key], value, f"{what}.{key}")
    elif isinstance(other, float):
        assert one == pytest.approx(other, abs=1e-8), what
    else:
        assert one == other, what


def test_validation_counts_every_sample_once(trained: dict[int, Trained]) -> None:
    rows = [read_rows(r.out / "predictions" / "valid.csv") for r in trained.values()]
    for one, other in zip(*rows, strict=True):
        assert float(one.pop("prediction")) == pytest.approx(float(other.pop("prediction")))
        assert one == other
    assert len(rows[0]) == len({row["id"] for row in rows[1]}) == 9
    for either in trained.values():
        assert read_record(either.out)["evaluations"]["valid"]["num_samples"] == 9


def test_rank_0_alone_writes_and_speaks(trained: dict[int, Trained]) -> None:
    first, second = trained[2].ended
    out = trained[2].out
    assert about(first, out)
    assert about(second, out) == []
    assert second.out == ""
    assert "epoch" not in second.err
    assert first.out.count("valid: 9 samples") == 1
    assert files_in(out) == files_in(trained[1].out)
    assert len(list((out / "tensorboard").iterdir())) == 1


def test_text_states_are_computed_by_one_process_and_read_by_the_other(
    trained: dict[int, Trained],
) -> None:
    for either in trained.values():
        built = [
            path
            for ended in either.ended
            for path in about(ended, either.data / "cache")
            if Path(path).name == "states.npy"
        ]
        assert len(built) == len(set(built)) == 2  # train and valid
        assert not list((either.data / "cache").glob(".building-*"))


# Evaluation and prediction


def test_two_processes_evaluate_and_predict_what_one_does(
    trained: dict[int, Trained], tmp_path: Path
) -> None:
    one, two = (shutil.copytree(trained[1].out, tmp_path / name) for name in ("one", "two"))
    data = trained[1].data
    command = ["evaluate", "--data", data, "--device", "cpu"]
    alone = run([*command, one], tmp_path / "alone")
    together = run_together([*command, two], tmp_path / "together", num=2)
    assert [alone.code, *(ended.code for ended in together)] == [0, 0, 0]
    assert together[0].out == alone.out
    assert "test: 13 samples" in alone.out
    assert together[1].out == ""
    assert about(together[1], two) == []
    evaluations: list[Any] = [read_record(folder)["evaluations"]["test"] for folder in (one, two)]
    for evaluation in evaluations:
        evaluation.pop("created")
    for name, value in evaluations[0].pop("metrics").items():
        assert evaluations[1]["metrics"][name] == pytest.approx(value, abs=1e-5)
    assert evaluations[1]["num_samples"] == 13

    # Asked again, both give what is written down, and nothing is written.
    before = (two / "record.json").read_bytes()
    again = run_together([*command, two], tmp_path / "again", num=2)
    assert (again[0].out, again[1].out) == (alone.out, "")
    assert (two / "record.json").read_bytes() == before

    csvs = [tmp_path / f"{name}.csv" for name in ("alone", "together")]
    command = ["predict", one, "--data", data, "--device", "cpu", "--out"]
    run([*command, csvs[0]], tmp_path / "predict-alone")
    ended = run_together([*command, csvs[1]], tmp_path / "predict-together", num=2)
    assert [one.out for one in ended] == [f"{csvs[1]}: 13 predictions\n", ""]
    assert about(ended[1], tmp_path / "together.csv") == []
    ours, theirs = (predictions_in(path) for path in csvs)
    assert list(ours) == list(theirs)
    assert len(csvs[1].read_text(encoding="utf-8").splitlines()) == 1 + 13
    assert theirs == pytest.approx(ours, abs=1e-5)


# Death


def test_killed_process_ends_the_others_and_a_resume_gives_the_undisturbed_bits(
    trained: dict[int, Trained], config: Path, tmp_path: Path
) -> None:
    out, data = tmp_path / "run", trained[2].data
    command = ["train", config, "--data", data, "--out", out, "--device", "cpu"]
    running = start_together(command, tmp_path / "cut", num=2)
    launching.wait_until(lambda: num_steps(out) >= 4, running)
    running[1].send(signal.SIGKILL)
    killed = time.monotonic()
    first, second = (one.wait(60) for one in running)
    assert time.monotonic() - killed < 30
    assert (first.code, second.code) == (1, -signal.SIGKILL)
    last = first.err.splitlines()[-1]
    assert last == (
        "rank 0 of 2: error: rank 1 has died; the last checkpoint stands; continue with --resume "
        "and 2 processes"
    )
    assert "Traceback" not in first.err
    assert not (out / "record.json").exists()
    assert list((out / "checkpoints").glob("0*"))

    for ended in run_together([*command, "--resume"], tmp_path / "resumed", num=2):
        assert ended.code == 0, ended.err
    assert '"event": "resume"' in (out / "events.jsonl").read_text(encoding="ascii")
    assert outcome_of(out) == outcome_of(trained[2].out)


# With torchrun itself


def torchrun(num: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*program, f"--nproc-per-node={num}", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 4])
def test_torchrun_trains_evaluates_and_predicts_as_one_process_does(
    num: int,
    trained: dict[int, Trained],
    config: Path,
    make_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    data, out = make_data(f"store-torchrun-{num}"), tmp_path / "run"
    tecafn: list[Any] = [num, "-m", "tecafn"]
    done = torchrun(*tecafn, "train", config, "--data", data, "--out", out, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1
    weights = [load_file(r / "model" / "model.safetensors") for r in (trained[1].out, out)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-6, atol=1e-6, msg=name)
    done = torchrun(*tecafn, "evaluate", out, "--data", data, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test: 13 samples") == 1
    path = tmp_path / "p.csv"
    done = torchrun(*tecafn, "predict", out, "--data", data, "--device", "cpu", "--out", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{path}: 13 predictions\n"
    evaluated = predictions_in(out / "predictions" / "test.csv")
    assert predictions_in(path) == pytest.approx(evaluated, abs=1e-6)


@pytest.mark.slow
def test_mistake_that_all_processes_make_is_told_once(
    trained: dict[int, Trained], config: Path, tmp_path: Path
) -> None:
    command = ["train", config, "--data", trained[1].data, "--out", tmp_path / "run"]
    for mistake in (["--set", "model.num_heads=7"], ["--set", "model.num_head=5"]):
        done = torchrun(2, "-m", "tecafn", *command, "--device", "cpu", *mistake)
        assert done.returncode != 0
        told = [line for line in done.stderr.splitlines() if "error: " in line]
        assert len(told) == 1, done.stderr
        assert "num_head" in told[0]


@pytest.mark.slow
def test_torchrun_starts_a_killed_run_again_where_it_stopped(
    trained: dict[int, Trained], config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["train", config, "--data", trained[2].data, "--out", out, "--device", "cpu"]
    with (tmp_path / "log").open("w") as log:
        agent = subprocess.Popen(
            [*program, "--max-restarts=1", "-m", "tecafn", *map(str, command), "--resume"],
            # torch 2.13 else leaves the first start's addresses where the second looks for its own.
            env={**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 120
        while num_steps(out) < 4:
            assert agent.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
        if not children.exists():
            pytest.skip("this system does not list a process's children")
        for pid in children.read_text().split():
            if b"RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
        assert agent.wait(200) == 0, (tmp_path / "log").read_text()
    finally:
        agent.kill()
        agent.wait()
    told = (tmp_path / "log").read_text()
    assert "rank 1 has died; the last checkpoint stands" in told
    assert "resuming after step " in told
    assert outcome_of(out) == outcome_of(trained[2].out)
