"""How threads wait, how many there are, and that they add up alike in every run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tecafn
from tecafn.core import threads
from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality
from tecafn.core.output import Output
from tecafn.core.scheme import Network
from tecafn.data.store import Store
from tecafn.experiments.cells import Cell, CellRunner
from tecafn.experiments.config import load_config
from tecafn.experiments.run import train_run
from tecafn.losses.task import TaskScheme
from tecafn.training.threads import num_threads_for, repeatable_arithmetic

SOURCE = Path(tecafn.__file__).resolve().parents[1]
NAMES = (*threads.WAITING, *threads.NUMBER, threads.AT_MOST)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine of two cores, whose user has said nothing."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def policy_after(code: str, **variables: str) -> str:
    """What OMP_WAIT_POLICY says after some code in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in NAMES}
    environment |= {"PYTHONPATH": str(SOURCE), **variables}
    code += "\nimport os; print(os.environ.get('OMP_WAIT_POLICY', 'nothing'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("code", ["import tecafn", "import tecafn.cli", "import tecafn.methods"])
def test_threads_sleep_while_they_wait(code: str) -> None:
    assert policy_after(code) == "PASSIVE"


def test_command_line_sets_it_before_torch_is_loaded() -> None:
    code = (
        "import sys, runpy\nsys.argv = ['tecafn', 'list', 'configs']\n"
        "try:\n    runpy.run_module('tecafn', run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    assert policy_after(code) == "PASSIVE"


@pytest.mark.parametrize(
    ("name", "value", "policy"),
    [
        ("OMP_WAIT_POLICY", "ACTIVE", "ACTIVE"),
        ("GOMP_SPINCOUNT", "1000", "nothing"),
        ("KMP_BLOCKTIME", "200", "nothing"),
    ],
)
def test_variables_of_the_user_win(name: str, value: str, policy: str) -> None:
    assert policy_after("import tecafn", **{name: value}) == policy


def test_nothing_is_set_once_torch_is_loaded() -> None:
    assert policy_after("import torch, tecafn") == "nothing"


@pytest.mark.parametrize("may_use_fewer", [True, False])
def test_cells_inherit_how_threads_wait_and_learn_whether_their_number_is_a_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may_use_fewer: bool
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    cell = Cell(
        row="x", seed=0, run=tmp_path, config=tmp_path, overrides=(), data=tmp_path,
        split="valid", device="cpu", threads=3, convention="mosi",
        may_use_fewer=may_use_fewer,
    )  # fmt: skip
    code = "import os, sys, json; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    told = tmp_path / "told.json"
    command = (sys.executable, "-c", code, str(told))
    monkeypatch.setattr(Cell, "commands", lambda self: (command,))
    CellRunner(1, lambda cell: None, lambda outcome: None).run([cell])
    environment = json.loads(told.read_text())
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "3"
    assert (threads.AT_MOST in environment) == may_use_fewer


# Their number


class _Product(Network):
    """One product of (B x L, D) with (D, D), and dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch: Batch) -> Output:
        values = self.dropout(self.layer(batch.sequences[Modality.AUDIO].values))
        return Output(values.sum((1, 2)), {})


def _batch(width: int) -> Batch:
    frames = Padded(torch.randn(8, 16, width), torch.ones(8, 16, dtype=torch.bool))
    return Batch(
        sequences={Modality.AUDIO: frames},
        present={Modality.AUDIO: torch.ones(8, dtype=torch.bool)},
        labels=torch.zeros(8),
        index=torch.arange(8),
        ids=tuple("abcdefgh"),
    )


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("width", "number"), [(32, 1), (1024, 2)])
def test_small_operations_take_one_thread_and_large_ones_all(width: int, number: int) -> None:
    scheme, batch = TaskScheme(_Product(width)), _batch(width)
    scheme.train()
    state = torch.get_rng_state()
    assert [num_threads_for(scheme, batch) for _ in range(3)] == [number] * 3
    assert scheme.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("two_threads")
def test_a_number_that_the_user_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme, batch = TaskScheme(_Product(32)), _batch(32)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert num_threads_for(scheme, batch) == 2
    monkeypatch.setenv(threads.AT_MOST, "2")  # a share of the cores: fewer will do
    assert num_threads_for(scheme, batch) == 1


def _train(config: Path, store: Path, out: Path, *sets: str, resume: bool = False) -> Any:
    return train_run(
        load_config(config, sets), data=store, out=out, device="cpu", progress=False, resume=resume
    )


@pytest.mark.usefixtures("two_threads", "no_fsync")
@pytest.mark.slow
def test_record_says_how_many_threads_trained_and_the_number_is_put_back(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path
) -> None:
    short = "training.max_epochs=1"
    assert _train(tiny_toml, tiny_store, tmp_path / "a", short)["training"]["threads"] == 1
    assert torch.get_num_threads() == 2
    record = _train(tiny_toml, tiny_store, tmp_path / "b", short, "training.num_threads=2")
    assert record["training"]["threads"] == 2


@pytest.mark.usefixtures("two_threads", "no_fsync")
def test_a_resumed_run_has_the_threads_that_it_was_begun_with(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tecafn.training import trainer

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _train(tiny_toml, tiny_store, whole, "training.max_epochs=2")

    class KilledError(Exception):
        pass

    run_epoch = trainer._Fit._run_epoch

    def once(self: Any) -> None:
        if self._state.epoch:
            raise KilledError
        run_epoch(self)

    with monkeypatch.context() as patched:
        patched.setattr(trainer._Fit, "_run_epoch", once)
        with pytest.raises(KilledError):
            _train(tiny_toml, tiny_store, killed, "training.max_epochs=2")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # from which a new run would take two
    record = _train(tiny_toml, tiny_store, killed, "training.max_epochs=2", resume=True)
    assert record["training"]["threads"] == 1
    for name in ("valid.csv",):
        theirs = [(run / "predictions" / name).read_bytes() for run in (whole, killed)]
        assert theirs[0] == theirs[1]


# That they add up alike


@pytest.mark.usefixtures("two_threads")
def test_the_gradient_of_an_indexed_tensor_is_added_up_in_one_order() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 50, (200_000,), generator=generator)
    weights = torch.randn(200_000, 4, generator=generator)

    def gradient() -> torch.Tensor:
        table = torch.zeros(50, 4, requires_grad=True)
        (table[rows] * weights).sum().backward()
        assert table.grad is not None
        return table.grad

    with repeatable_arithmetic(torch.device("cpu")):
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(10))
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads", "no_fsync")
@pytest.mark.slow
def test_two_runs_of_two_threads_are_equal_bit_for_bit(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path
) -> None:
    sets = ("training.max_epochs=2", "training.num_threads=2")
    for name in ("a", "b"):
        _train(tiny_toml, tiny_store, tmp_path / name, *sets)
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    assert Store.open(tiny_store).split("train").task == "regression"


@pytest.mark.parametrize(
    ("group", "limits", "expected"),
    [
        ("0::/\n", {}, None),
        ("4:memory:/old\n0::/a/b\n", {"a/b": "max", "a": "3000"}, 3000),  # of the group around it
        ("0::/a/b\n", {"a/b": "2000", "a": "3000"}, 2000),
        ("0::/\n", {"": "4000"}, 4000),  # as a container sees it
        ("0::/a\n", {"a": "9" * 18}, None),  # more than there is
    ],
)
def test_memory_is_no_more_than_a_container_allows(
    tmp_path: Path, group: str, limits: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(group)
    for name, limit in limits.items():
        folder = tmp_path / "sys" / "fs" / "cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
    whole = threads.memory_bytes(str(tmp_path / "nowhere"))
    assert whole is not None
    assert threads.memory_bytes(str(tmp_path)) == (whole if expected is None else expected)
