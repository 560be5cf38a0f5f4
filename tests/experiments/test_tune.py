"""The search for settings: shared, resumable, and scored on the validation split alone."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.data.store import Store
from tecafn.experiments import tune as tuning
from tecafn.experiments.config import RunConfig, load_config
from tecafn.experiments.run import train_run
from tecafn.experiments.search_space import (
    Pruner,
    Range,
    Sampler,
    SearchSpace,
    read_space,
)
from tecafn.experiments.shipped import papers_folder
from tecafn.experiments.tune import Search, tune
from tecafn.records.record import read_record

pytestmark = pytest.mark.usefixtures("no_fsync")
RATES, SIZES = (1e-3, 1e-2), (4, 8)
GRID = SearchSpace({"training.learning_rate": RATES, "training.batch_size": SIZES}, "grid", "none")


def search(toml: Path, store: Path, out: Path, **changed: Any) -> Search:
    given: dict[str, Any] = {
        "config": toml,
        "overrides": ("training.max_epochs=1",),
        "space": GRID,
        "data": store,
        "out": out,
        "device": "cpu",
    }
    return Search(**{**given, **changed})


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def sealed_store(make_store: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a test split: a search that does not look at it does not miss it."""
    folder = tmp_path_factory.mktemp("sealed")
    return make_store(folder / "store", sizes={"train": 12, "valid": 6})


@pytest.fixture(scope="module")
def searched(tiny_toml: Path, sealed_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tune") / "out"
    tune(search(tiny_toml, sealed_store, out))
    return out


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Trainings of no time: the error is 1000 times the rate, plus a tenth of the seed."""
    trained: list[RunConfig] = []

    def train(config: RunConfig, *, after_epoch: Any = None, **rest: Any) -> dict[str, Any]:
        trained.append(config)
        value = 1000 * config.training.learning_rate + config.seed / 10
        for epoch in range(config.training.max_epochs):
            if after_epoch is not None:
                after_epoch(epoch, value)
        return {"training": {"monitor_value": value}}

    monkeypatch.setattr(tuning, "train_run", train)
    return trained


def test_a_grid_tries_every_combination_once_and_the_best_is_a_config(
    searched: Path, tiny_toml: Path, sealed_store: Path, tmp_path: Path
) -> None:
    found = rows(searched)
    pairs = {(float(r["training.learning_rate"]), int(r["training.batch_size"])) for r in found}
    assert pairs == {(rate, size) for rate in RATES for size in SIZES}
    assert len(found) == 4
    best = min(found, key=lambda row: float(row["valid_mae"]))
    config = load_config(searched / "best.toml")
    assert config.training.learning_rate == float(best["training.learning_rate"])
    assert config.training.batch_size == int(best["training.batch_size"])
    again = train_run(config, data=sealed_store, out=tmp_path / "run", device="cpu", progress=False)
    assert again["training"]["monitor_value"] == float(best["valid_mae"])


def test_no_trial_looks_at_the_test_split(searched: Path) -> None:
    runs = list(searched.glob("trials/*/seed-*"))
    assert len(runs) == 4
    for run in runs:
        assert set(read_record(run)["evaluations"]) == {"valid"}
        log = (run / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["name"] for line in log] == ["valid"]
        assert not (run / "model").exists()


def test_a_finished_search_does_nothing(
    searched: Path, tiny_toml: Path, sealed_store: Path, pretend: list[RunConfig]
) -> None:
    before = rows(searched)
    tune(search(tiny_toml, sealed_store, searched))
    assert rows(searched) == before
    assert pretend == []


def test_a_larger_search_goes_on_from_a_smaller_one(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, pretend: list[RunConfig]
) -> None:
    given = search(tiny_toml, tiny_store, tmp_path / "out", trials=2)
    assert tune(given).counts["complete"] == 2
    first = rows(tmp_path / "out")
    assert tune(replace(given, trials=3)).counts["complete"] == 3
    assert len(pretend) == 3
    assert rows(tmp_path / "out")[:2] == first


def test_another_search_is_refused_in_the_same_place(
    searched: Path, tiny_toml: Path, tiny_store: Path, sealed_store: Path
) -> None:
    for changed, named in (
        ({"overrides": ("training.max_epochs=2",)}, "another config"),
        ({"space": SearchSpace({"training.batch_size": (4,)}, "grid", "none")}, "another space"),
        ({"seeds": 2}, "another seeds"),
        ({"data": tiny_store}, "another data"),
    ):
        with pytest.raises(UserError, match=named):
            tune(search(tiny_toml, sealed_store, searched, **changed))


def test_the_mean_over_seeds_decides(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, pretend: list[RunConfig]
) -> None:
    one = SearchSpace({"training.learning_rate": (1e-3,)}, "grid", "none")
    given = search(tiny_toml, tiny_store, tmp_path / "out", space=one, seeds=2)
    found = tune(replace(given, overrides=("seed=3",)))
    assert [config.seed for config in pretend] == [3, 4]
    assert found.value == pytest.approx(1.35)
    assert load_config(tmp_path / "out" / "best.toml").seed == 3


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_samplers_stay_in_their_ranges_and_a_metric_that_grows_is_maximised(
    sampler: Sampler, tiny_toml: Path, tiny_store: Path, tmp_path: Path, pretend: list[RunConfig]
) -> None:
    space = SearchSpace(
        {
            "training.learning_rate": Range(1e-4, 1e-2, log=True),
            "training.batch_size": Range(4, 8, step=2),
            "model.weights": ({}, {"bicon": 0.0}),
        },
        sampler,
        "none",
    )
    out = tmp_path / "out"
    changed = ("training.max_epochs=1", "training.monitor='corr'")
    found = tune(search(tiny_toml, tiny_store, out, space=space, trials=15, overrides=changed))
    assert len(pretend) == found.counts["complete"] == 15
    rates = [config.training.learning_rate for config in pretend]
    assert len(set(rates)) == 15
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert {config.training.batch_size for config in pretend} == {4, 6, 8}
    assert {len(config.model.weights) for config in pretend} == {0, 1}
    best = load_config(out / "best.toml")
    assert best.training.learning_rate == max(rates)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_draws_the_same_again_in_any_process(
    sampler: Sampler,
    tiny_toml: Path,
    tiny_store: Path,
    tmp_path: Path,
    pretend: list[RunConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = SearchSpace({"training.learning_rate": Range(1e-4, 1e-2, log=True)}, sampler, "none")
    drawn = []
    for machine, seed in (("one", 0), ("another", 0), ("one", 1)):
        monkeypatch.setattr(tuning, "machine", lambda machine=machine: machine)
        out = tmp_path / f"{machine}-{seed}"
        tune(search(tiny_toml, tiny_store, out, space=space, trials=13, seed=seed))
        drawn.append([config.training.learning_rate for config in pretend])
        pretend.clear()
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


@pytest.mark.parametrize("pruner", ["median", "none"])
def test_what_does_worse_than_the_median_is_ended(
    pruner: Pruner, tiny_toml: Path, tiny_store: Path, tmp_path: Path, pretend: list[RunConfig]
) -> None:
    rates = tuple(1e-3 * (1 + n / 10) for n in range(6))
    space = SearchSpace({"training.learning_rate": (*rates, 1e-2)}, "grid", pruner)
    # The order of the grid is drawn; with this seed the bad rate comes last.
    seed = next(s for s in range(99) if [*space.grid(seed=s)][-1]["training.learning_rate"] == 1e-2)
    out, epochs = tmp_path / "out", ("training.max_epochs=3",)
    tune(search(tiny_toml, tiny_store, out, space=space, overrides=epochs, seed=seed))
    last = rows(out)[-1]
    ends = ("pruned", "2") if pruner == "median" else ("complete", "3")
    assert (last["state"], last["epochs"]) == ends


def test_the_checkpoints_of_a_trial_that_is_ended_go(
    tiny_toml: Path, sealed_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: True)
    one = SearchSpace({"training.learning_rate": (1e-3,)}, "grid", "median")
    with pytest.raises(UserError, match="no trial was finished"):
        tune(search(tiny_toml, sealed_store, tmp_path / "out", space=one))
    (run,) = (tmp_path / "out").glob("trials/*/seed-0")
    assert (run / "events.jsonl").exists()
    assert not (run / "checkpoints").exists()


def test_settings_that_do_not_go_together_fail_alone(
    tiny_toml: Path, sealed_store: Path, tmp_path: Path
) -> None:
    space = SearchSpace({"model.dim": (10, 15), "model.num_heads": (2, 5)}, "grid", "none")
    out = tmp_path / "out"
    found = tune(search(tiny_toml, sealed_store, out, space=space))
    assert (found.counts["complete"], found.counts["failed"]) == (3, 1)
    (failed,) = (row for row in rows(out) if row["state"] == "fail")
    assert "num_heads must divide" in failed["reason"]
    space = SearchSpace({"model.dim": (15,), "model.num_heads": (2,)}, "grid", "none")
    with pytest.raises(UserError, match=r"no trial was finished: .*num_heads must divide"):
        tune(search(tiny_toml, sealed_store, tmp_path / "none", space=space))


def test_what_would_fail_every_trial_is_said_before_the_first(
    tiny_toml: Path, sealed_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "out"
    no_encoder = ("training.max_epochs=1", "text_encoder='no/encoder'")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    for changed, words in (
        ({"device": "cuda"}, "torch finds no CUDA device"),
        ({"device": "banana"}, "device must be one of"),
        ({"overrides": no_encoder}, "text_encoder 'no/encoder': no such local directory"),
        ({"data": tmp_path / "none"}, "no such store"),
    ):
        with pytest.raises(UserError, match=words):
            tune(search(tiny_toml, sealed_store, out, **changed))
    assert not out.exists()


def test_a_trial_that_failed_for_another_reason_than_its_settings_is_tried_again(
    tiny_toml: Path, sealed_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = SearchSpace({"model.dim": (10, 15), "model.num_heads": (2, 5)}, "grid", "none")
    given = search(tiny_toml, sealed_store, tmp_path / "out", space=space)
    tried: list[tuple[int, int]] = []
    is_gone = [False]

    def check_device(_: str) -> None:
        if is_gone[0]:
            raise UserError("no device")

    def train(config: RunConfig, **_: Any) -> dict[str, Any]:
        pair = (config.model.dim, config.model.num_heads)
        is_gone[0] = pair == (10, 5) and pair not in tried
        tried.append(pair)
        check_device("")
        if pair == (15, 2):
            raise UserError("num_heads must divide dim")
        return {"training": {"monitor_value": 1.0}}

    monkeypatch.setattr(tuning, "check_device", check_device)
    monkeypatch.setattr(tuning, "train_run", train)
    assert tune(given).counts == {"complete": 2, "pruned": 0, "failed": 2}
    assert len(tried) == 4
    is_gone[0] = False
    assert tune(given).counts == {"complete": 3, "pruned": 0, "failed": 1}
    assert tried[4:] == [(10, 5)]


# Several processes

COMMAND = """
import sys, time
from pathlib import Path
from tecafn.cli import main
from tecafn.experiments import tune as tuning

train, log = tuning.train_run, Path(sys.argv[1])

def logged(config, *, after_epoch=None, **rest):
    with log.open("a", encoding="ascii") as file:
        file.write(f"{rest['out'].parent.name}\\n")
    def slowly(epoch, value):
        time.sleep(float(sys.argv[2]))
        if after_epoch is not None:
            after_epoch(epoch, value)
    return train(config, after_epoch=slowly, **rest)

tuning.train_run = logged
sys.exit(main(sys.argv[3:]))
"""


def start(log: Path, seconds: float, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, str(log), str(seconds), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def arguments_of(toml: Path, store: Path, folder: Path, *more: str) -> list[str]:
    space = folder / "space.toml"
    space.write_text(
        'sampler = "grid"\npruner = "none"\n[space]\n'
        '"training.learning_rate" = [1e-3, 1e-2]\n"training.batch_size" = [4, 8]\n'
    )
    return [
        "tune", str(toml), "--space", str(space), "--data", str(store), "--device", "cpu",
        "--out", str(folder / "out"), *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_two_processes_share_a_study_and_compute_no_trial_twice(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path
) -> None:
    given = arguments_of(tiny_toml, tiny_store, tmp_path, "--set", "training.max_epochs=1")
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    processes = [start(log, 0.5, *given) for log in logs]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    computed = [log.read_text(encoding="ascii").split() for log in logs if log.exists()]
    together = [name for one in computed for name in one]
    assert len(together) == len(set(together)) == 4
    assert len(rows(tmp_path / "out")) == 4
    study = optuna.load_study(
        study_name="tecafn", storage=f"sqlite:///{tmp_path / 'out' / 'study.db'}"
    )
    complete = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert sorted(t.user_attrs["slot"] for t in complete) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = arguments_of(tiny_toml, tiny_store, tmp_path, "--set", "training.max_epochs=2")
    process = start(tmp_path / "log", 30.0, *given)  # it sleeps when its first epoch is written
    until = time.monotonic() + 300
    while not list((tmp_path / "out").glob("trials/*/*/checkpoints/[0-9]*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.2)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (begun,) = (tmp_path / "out").glob("trials/*/seed-0")
    assert main(given) == 0
    assert [row["state"] for row in rows(tmp_path / "out")] == ["complete"] * 4
    events = (begun / "events.jsonl").read_text(encoding="utf-8")
    assert '"resume"' in events
    assert "4 complete" in capfd.readouterr().out


@pytest.mark.filterwarnings("ignore:.*experimental")
def test_a_slot_whose_processes_die_again_and_again_is_given_up(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, pretend: list[RunConfig]
) -> None:
    out = tmp_path / "out"
    given = search(tiny_toml, tiny_store, out)
    study = tuning._open_study(optuna, given, "mae")
    tuning._queue(optuna, study, given)
    for _ in range(3):
        slots = [t for t in study.trials if t.state == optuna.trial.TrialState.WAITING]
        slot = slots[-1].user_attrs["slot"]
        trial = slots[-1]
        study._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)
        tuning._queue_again(study, study.trials[trial.number])
    found = tune(given)
    assert (found.counts["complete"], found.counts["failed"]) == (3, 1)
    assert rows(out)[slot]["reason"] == "its process died"


@pytest.mark.filterwarnings("ignore:.*experimental")
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_trial_that_died_elsewhere_is_ended_by_a_sampler_that_never_began_it(
    sampler: Sampler, tiny_toml: Path, tiny_store: Path, tmp_path: Path
) -> None:
    given = search(tiny_toml, tiny_store, tmp_path, space=replace(GRID, sampler=sampler))
    study = optuna.create_study(sampler=tuning._sampler(optuna, given))
    elsewhere = optuna.load_study(
        study_name=study.study_name, storage=study._storage, sampler=tuning._sampler(optuna, given)
    )
    elsewhere.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    assert study.trials[0].state == optuna.trial.TrialState.FAIL


# What may be chosen

WRONG = {
    "": r"expected a table \[space\]",
    "[space]\n": r"expected a table \[space\]",
    "sampler = 'gird'\n[space]\nseed = [1]": "did you mean 'grid'",
    "[spaces]\nseed = [1]": "unknown key 'spaces'",
    "[space]\nmax_frames = 3": "list of values or",
    "[space]\nmax_frames = [3, 3]": "lists a value twice",
    "[space]\nmax_frames = {low = 3, high = 2}": "low must be less than high",
    "[space]\nmax_frames = {low = 0, high = 2, log = true}": "needs low > 0",
    "[space]\nmax_frames = {low = 1, high = 2, lag = true}": "did you mean 'log'",
    "[space]\nmax_frames = {low = 1, high = 2, step = 5}": "at most high - low",
    "sampler = 'grid'\n[space]\nmax_frames = {low = 1, high = 2}": "a grid needs a list",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_space_that_says_nothing_useful_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=WRONG[text]):
        read_space(path)


def test_the_papers_space_is_that_of_its_section() -> None:
    space = read_space(Path("tecafn/search"))
    assert space.size == 972
    assert len([*space.grid(seed=0)]) == 972
    assert space.choices["training.gradient_clip"] == (1.0, 2.0, 4.0, 8.0)
    assert read_space(papers_folder() / "tecafn" / "search.toml").size == 972


def test_mistakes_are_one_line_before_anything_is_trained(
    tiny_toml: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "space.toml"
    for text, more, named in (
        ("[space]\n'training.learning_rat' = [1]", [], "did you mean"),
        ("[space]\n'training.learning_rate' = [-1.0, 1.0]", [], "learning_rate must be > 0"),
        ("[space]\nseed = [1, 2]", [], "--seeds"),
        ("[space]\n'training.monitor' = ['mae', 'corr']", [], "different rules"),
        ("[space]\n'training.batch_size' = [4]", ["--storage", "nothing://x"], "cannot open"),
        ("[space]\n'training.batch_size' = [4]", ["--out", str(tiny_store)], "data store"),
    ):
        space.write_text(text)
        out = [] if "--out" in more else ["--out", str(tmp_path / "out")]
        line = ["tune", str(tiny_toml), "--space", str(space), "--data", str(tiny_store)]
        assert main([*line, *out, *more]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert named in error
    assert not (tmp_path / "out" / "trials").exists()
    assert Store.open(tiny_store).content_hash
