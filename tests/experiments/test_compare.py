"""A comparison: one protocol for all, cells that resume, sums that a slow loop gives as well."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tecafn.core.errors import UserError
from tecafn.core.registry import METHODS, Method
from tecafn.data.store import Store
from tecafn.evaluation.assessment import assess
from tecafn.evaluation.hard_pairs import find_hard_pairs
from tecafn.evaluation.significance import paired_difference
from tecafn.experiments.cells import Cell
from tecafn.experiments.compare import Protocol, _trainable, compare_methods, plan
from tecafn.experiments.config import load_config
from tecafn.experiments.rows import Row
from tecafn.experiments.shipped import config_folder
from tecafn.records.cell import add_cell_usage
from tecafn.records.predictions import write_predictions
from tecafn.records.record import write_record

MakeStore = Callable[..., Path]
METHODS_COMPARED = ("concat", "tecafn")
TRAINED = {"concat": 1000, "tecafn": 2000}


@pytest.fixture
def configs(tmp_path: Path, tiny_bert: Path) -> Path:
    """A folder with a config that trains in a second for each of two methods."""
    folder = tmp_path / "configs"
    folder.mkdir()
    for name in METHODS_COMPARED:
        layers = "num_layers = 1\n" if name == "tecafn" else ""
        (folder / f"{name}.toml").write_text(
            f"method = '{name}'\ntext_encoder = '{tiny_bert}'\n[model]\ndim = 10\n{layers}"
            "num_unimodal_layers = 1\nunimodal_hidden_dim = 8\n"
            "[training]\nmax_epochs = 1\nbatch_size = 8\n",
            encoding="utf-8",
        )
    return folder


@pytest.fixture
def make_protocol(tmp_path: Path, tiny_store: Path, configs: Path) -> Callable[..., Protocol]:
    """``make_protocol(seeds=(0, 1))``: two tiny methods on a tiny store."""

    def make(**changes: Any) -> Protocol:
        settings: dict[str, Any] = {
            "data": tiny_store,
            "out": tmp_path / "out",
            "methods": METHODS_COMPARED,
            "seeds": (0, 1),
            "configs": str(configs),
            "device": "cpu",
            "threads": 1,
        }
        return Protocol(**(settings | changes))

    return make


MakeProtocol = Callable[..., Protocol]


def fake_run(
    protocol: Protocol,
    folder: str,
    seed: int,
    *,
    noise: float,
    zeros: int = 0,
    method: str | None = None,
) -> np.ndarray:
    """A finished cell whose predictions are the labels and some noise; the first labels are 0."""
    store = Store.open(protocol.data)
    view = store.split(protocol.split)
    labels = view.labels.astype(np.float64)
    labels[:zeros] = 0
    method = method or folder
    random = np.random.default_rng([seed, len(folder)])
    predictions = labels + noise * random.normal(size=len(labels))
    if view.task == "classification":
        predictions = np.clip(labels + noise * random.normal(size=len(labels)), 0, 1)
    answers = predictions if view.task == "regression" else (predictions > 0.5).astype(int)
    run = protocol.out / folder / f"seed-{seed}"
    run.mkdir(parents=True)
    evaluation = {"data_hash": store.content_hash} | assess(
        answers, labels, view.videos, convention=view.convention, label_range=view.label_range
    )
    write_predictions(
        run / "predictions" / f"{protocol.split}.csv",
        [
            {"id": i, "video": v, "clip": "1", "label": y, "prediction": p, "pair_id": "",
             "text": ""}
            for i, v, y, p in zip(view.ids, view.videos, labels, predictions, strict=True)
        ],
    )  # fmt: skip
    settings = {entry.row.folder: entry.settings for entry in plan(protocol, store)}[folder]
    config = {} if settings is None else settings.as_dict()
    write_record(
        run,
        {
            "format_version": 1,
            "method": method,
            "config": {**config, "seed": seed},
            "seed": seed,
            "data": {"hash": store.content_hash},
            "training": {
                "seconds": 60.0 + seed,
                "epochs": 3,
                "num_parameters": 5000,
                "num_trained_parameters": TRAINED[method],
            },
            "evaluations": {protocol.split: evaluation},
        },
    )
    add_cell_usage(run, {"peak_memory_bytes": 100 + seed, "reason": ""})
    return predictions


def tables(protocol: Protocol) -> Any:
    return compare_methods(protocol, train=False)


def rows_of(summary: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in summary["methods"]}


# What the tables are made of


@pytest.mark.parametrize("data_seed", [0, 1, 2])
def test_means_deviations_and_differences_are_those_of_slow_loops(
    make_protocol: MakeProtocol, make_store: MakeStore, tmp_path: Path, data_seed: int
) -> None:
    store = make_store(tmp_path / "store", sizes={"train": 4, "valid": 24}, seed=data_seed)
    protocol = make_protocol(data=store, seeds=(0, 1, 2))
    made = {
        name: [fake_run(protocol, name, seed, noise=noise, zeros=5) for seed in protocol.seeds]
        for name, noise in (("concat", 1.0), ("tecafn", 0.4))
    }
    summary = tables(protocol)
    view = Store.open(store).split("valid")
    labels = view.labels.astype(np.float64)
    labels[:5] = 0
    assert summary["best"] == "tecafn"
    assert [row["name"] for row in summary["methods"]] == ["tecafn", "concat"]
    assert (summary["num_samples"], summary["num_videos"]) == (24, 6)

    errors = {}
    for name, row in rows_of(summary).items():
        maes = []
        errors[name] = [0.0] * len(labels)
        for predictions in made[name]:
            total = 0.0
            for k, (p, y) in enumerate(zip(predictions, labels, strict=True)):
                total += abs(p - y)
                errors[name][k] += abs(p - y) / 3
            maes.append(total / len(labels))
        mean = sum(maes) / 3
        deviation = math.sqrt(sum((mae - mean) ** 2 for mae in maes) / 2)
        assert row["metrics"]["mae"]["mean"] == pytest.approx(mean, abs=1e-12)
        assert row["metrics"]["mae"]["std"] == pytest.approx(deviation, abs=1e-12)
        assert row["metrics"]["mae"]["values"] == pytest.approx(maes, abs=1e-12)
        # A pair counts with its mean over seeds.
        share, count = 0.0, 0
        for i, j in find_hard_pairs(labels, view.videos, max_gap=0.4):
            for predictions in made[name]:
                right = (predictions[i] - predictions[j]) * (labels[i] - labels[j]) > 0
                share += float(right)
                count += 1
        assert row["hard_pairs"]["ordered"] == pytest.approx(share / count)
        assert row["seconds"]["mean"] == pytest.approx(61.0)
        assert row["num_trained_parameters"] == TRAINED[name]
        assert row["peak_memory_bytes"] == 102

    difference = rows_of(summary)["concat"]["difference"]["mae"]
    expected = paired_difference(errors["concat"], errors["tecafn"], clusters=view.videos)
    assert difference["value"] == pytest.approx(expected.value, abs=1e-12)
    assert difference["interval"] == pytest.approx(list(expected.interval or ()), abs=1e-12)
    assert difference["p_value"] == difference["p_holm"] == expected.p_value
    assert rows_of(summary)["tecafn"]["difference"] == {}

    hits = {
        name: sum(
            sum((p > 0) == (y > 0) for p, y in zip(predictions, labels, strict=True) if y != 0)
            for predictions in made[name]
        )
        / (3 * int(np.count_nonzero(labels)))
        for name in made
    }
    value = rows_of(summary)["concat"]["difference"]["acc2_pos"]["value"]
    assert value == pytest.approx(hits["concat"] - hits["tecafn"], abs=1e-12)


def test_classes_are_compared_by_accuracy(
    make_protocol: MakeProtocol, make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store(
        tmp_path / "store", sizes={"train": 4, "valid": 40}, task="classification", seed=1
    )
    protocol = make_protocol(data=store, overrides=("training.monitor=accuracy",))
    made = {
        name: [fake_run(protocol, name, seed, noise=noise) for seed in protocol.seeds]
        for name, noise in (("concat", 0.3), ("tecafn", 0.9))
    }
    summary = tables(protocol)
    labels = Store.open(store).split("valid").labels
    shares = {
        name: np.mean([(p > 0.5) == (labels > 0.5) for p in predictions])
        for name, predictions in made.items()
    }
    assert shares["concat"] > shares["tecafn"]
    assert (summary["primary"], summary["best"]) == ("accuracy", "concat")
    row = rows_of(summary)["tecafn"]
    assert row["metrics"]["accuracy"]["mean"] == pytest.approx(shares["tecafn"])
    assert row["difference"]["accuracy"]["value"] == pytest.approx(
        shares["tecafn"] - shares["concat"]
    )
    assert row["hard_pairs"] is None


def test_samples_are_paired_and_seeds_are_not(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol(seeds=(0, 1, 2))
    best = [fake_run(protocol, "tecafn", seed, noise=0.1) for seed in (0, 1)]
    other = [fake_run(protocol, "concat", seed, noise=1.0) for seed in (1, 2)]
    summary = tables(protocol)
    labels = Store.open(protocol.data).split("valid").labels
    row = rows_of(summary)["concat"]
    # Every seed of each counts, whether or not the other has one of the same number.
    expected = np.abs(np.array(other) - labels).mean() - np.abs(np.array(best) - labels).mean()
    assert row["difference"]["mae"]["value"] == pytest.approx(expected)
    assert row["difference"]["mae"]["num_seeds"] == 2
    test = stats.ttest_ind(
        *([np.abs(p - labels).mean() for p in runs] for runs in (other, best)), equal_var=False
    )
    assert row["difference"]["mae"]["over_seeds"]["p_value"] == pytest.approx(test.pvalue)
    assert row["difference"]["mae"]["over_seeds"]["value"] == pytest.approx(expected)
    assert (row["seeds"], row["open"]) == ([1, 2], [0])
    assert rows_of(summary)["tecafn"]["open"] == [2]


def test_a_single_seed_has_no_deviation_and_no_result_has_no_best(
    make_protocol: MakeProtocol,
) -> None:
    protocol = make_protocol(seeds=(0,))
    summary = tables(protocol)
    assert summary["best"] is None
    assert [row["open"] for row in summary["methods"]] == [[0], [0]]
    fake_run(protocol, "concat", 0, noise=1.0)
    row = rows_of(tables(protocol))["concat"]
    assert row["metrics"]["mae"]["std"] is None


def test_shared_and_own_settings_are_told_apart(make_protocol: MakeProtocol, configs: Path) -> None:
    path = configs / "concat.toml"
    path.write_text(path.read_text().replace("batch_size = 8", "batch_size = 4"))
    summary = tables(make_protocol(overrides=("training.max_epochs=7",)))
    assert summary["common_settings"]["training.max_epochs"] == 7
    assert summary["differing_settings"] == {"training.batch_size": {"concat": 4, "tecafn": 8}}
    assert not any(name.startswith("model") for name in summary["common_settings"])


def test_an_override_may_be_for_one_method(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol(
        overrides=("concat:training.max_epochs=2", "training.max_epochs=7", "concat: batch=1")
    )
    assert protocol.overrides_for("tecafn") == ("training.max_epochs=7",)
    assert protocol.overrides_for("concat")[:2] == (
        "training.max_epochs=7",
        "training.max_epochs=2",
    )
    protocol = make_protocol(overrides=("concat:training.max_epochs=2", "training.max_epochs=7"))
    summary = tables(protocol)
    assert summary["differing_settings"] == {"training.max_epochs": {"concat": 2, "tecafn": 7}}
    store = Store.open(protocol.data)
    of_cells = {
        entry.name: {cell.overrides for cell in entry.cells} for entry in plan(protocol, store)
    }
    assert of_cells["tecafn"] == {("training.max_epochs=7",)}
    assert of_cells["concat"] == {("training.max_epochs=7", "training.max_epochs=2")}


def test_an_override_may_be_for_a_row_whose_name_has_an_equals_sign() -> None:
    rows = tuple(Row(name=name, config="synthetic/concat.toml") for name in ("p=0", "p=0.5", "b"))
    given = ("p=0:training.max_epochs=1", "p=0.5:training.max_epochs=2", "model.dim=4")
    protocol = Protocol(data=Path("s"), out=Path("o"), rows=rows, overrides=given)
    found = {row.name: protocol.overrides_for(row.name) for row in rows}
    assert found == {
        "p=0": ("model.dim=4", "training.max_epochs=1"),
        "p=0.5": ("model.dim=4", "training.max_epochs=2"),
        "b": ("model.dim=4",),
    }
    with pytest.raises(UserError, match="a comparison sets method and seed itself"):
        Protocol(data=Path("s"), out=Path("o"), rows=rows, overrides=("p=0:seed=1",))


def test_methods_after_the_abstract_are_marked(
    make_protocol: MakeProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = METHODS["concat"]
    marked = Method(
        config=original.config,
        build=original.build,
        paper="",
        basis="abstract",
    )
    monkeypatch.setitem(METHODS._items, "concat", marked)
    rows = rows_of(tables(make_protocol()))
    assert rows["concat"]["after_abstract"]
    assert rows["concat"]["basis"] == "abstract"
    assert not rows["tecafn"]["after_abstract"]
    assert (rows["tecafn"]["basis"], rows["tecafn"]["certified"]) == ("paper", "")


# What cannot be compared


def test_a_method_that_cannot_be_trained_is_a_row_that_says_why(
    make_protocol: MakeProtocol, configs: Path
) -> None:
    protocol = make_protocol()
    fake_run(protocol, "concat", 0, noise=1.0)
    fake_run(protocol, "concat", 1, noise=1.0)
    config = configs / "tecafn.toml"
    text = config.read_text()
    for change, reason in (
        (lambda: config.write_text(text + "[nonsense]\n"), "unknown key 'nonsense'"),
        (lambda: config.write_text(text.replace("'tecafn'", "'concat'")), ""),
        (config.unlink, "there is no config configs/tecafn.toml"),
    ):
        change()
        summary = tables(protocol)
        row = rows_of(summary)["tecafn"]
        assert reason in row["refused"]
        assert row["refused"]
        assert (row["seeds"], row["open"]) == ([], [])
        assert summary["best"] == "concat"
        assert summary["methods"][-1]["name"] == "tecafn"


def test_a_method_that_does_not_do_the_task_is_a_row(
    make_protocol: MakeProtocol,
    make_store: MakeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = make_store(tmp_path / "store", task="classification")
    original = METHODS["concat"]
    scores_only = Method(
        config=original.config, build=original.build, paper="", tasks=("regression",)
    )
    monkeypatch.setitem(METHODS._items, "concat", scores_only)
    protocol = make_protocol(data=store, overrides=("training.monitor=accuracy",))
    row = rows_of(tables(protocol))["concat"]
    assert row["refused"] == "it does regression, the dataset is a classification"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("tecafm",)}, "did you mean 'tecafn'?"),
        ({"methods": ("concat", "concat")}, "rows must differ"),
        ({"methods": ()}, "at least one"),
        ({"configs": "nowhere"}, "no configs 'nowhere'"),
        ({"overrides": ("training.max_epoch=1",)}, "did you mean 'max_epochs'?"),
        ({"split": "dev"}, "dev"),
    ],
)
def test_what_is_wrong_for_all_is_one_error(
    make_protocol: MakeProtocol, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        tables(make_protocol(**changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jobs": 0}, "jobs must be >= 1, got 0"),
        ({"threads": -1}, "threads must be >= 1"),
        ({"seeds": ()}, "at least one seed"),
        ({"overrides": ("seed=3",)}, "sets method and seed itself"),
        ({"overrides": ("method = 'x'",)}, "sets method and seed itself"),
        ({"overrides": ("concat:seed=3",)}, "sets method and seed itself"),
        (
            {"overrides": ("concta:training.max_epochs=3",)},
            "'concta' is not compared: did you mean",
        ),
    ],
)
def test_a_protocol_is_checked(
    make_protocol: MakeProtocol, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        make_protocol(**changes)


@pytest.mark.parametrize("seeds", [(0, 0), (-1,), (0.5,), ("1",), (True,), (2**32,)])
def test_seeds_are_different_whole_numbers(make_protocol: MakeProtocol, seeds: Any) -> None:
    with pytest.raises(UserError, match="seeds must be different whole numbers"):
        make_protocol(seeds=seeds)


def test_a_rate_of_no_group_is_found_before_the_first_cell(make_protocol: MakeProtocol) -> None:
    for name, methods in (("nope", METHODS_COMPARED), ("main", ("concat",))):
        protocol = make_protocol(
            methods=methods, overrides=(f"training.learning_rates.{name}=0.1",), out=Path("none")
        )
        store = Store.open(protocol.data)
        entries = [_trainable(entry, store) for entry in plan(protocol, store)]
        refused = {entry.refused for entry in entries}
        assert all("unknown parameter group 'nope'" in why for why in refused) == (name == "nope")
        assert (refused == {""}) == (name == "main")


def test_an_unlabelled_split_is_refused(
    make_protocol: MakeProtocol, make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", unlabelled=("test",))
    with pytest.raises(UserError, match="12 of 12 samples without a label"):
        tables(make_protocol(data=store, split="test"))


def test_cells_of_another_protocol_are_not_mixed_in(
    make_protocol: MakeProtocol, configs: Path
) -> None:
    protocol = make_protocol()
    fake_run(protocol, "concat", 0, noise=1.0)
    settings = load_config(configs / "concat.toml", ["seed=0"]).as_dict()
    begun = {"config": settings, "data_hash": Store.open(protocol.data).content_hash}
    path = protocol.out / "concat" / "seed-0" / "begun.json"
    path.write_text(json.dumps(begun))
    tables(protocol)
    with pytest.raises(UserError, match=r"seed-0 was begun with config\.training\.max_epochs 1"):
        tables(make_protocol(overrides=("training.max_epochs=3",)))
    path.write_text(json.dumps(begun | {"data_hash": "0123"}))
    with pytest.raises(UserError, match="begun with data_hash '0123'"):
        tables(protocol)


@pytest.mark.parametrize("beginning", ["gone", "of this cell"])
def test_a_record_of_another_cell_is_refused(
    make_protocol: MakeProtocol, configs: Path, beginning: str
) -> None:
    protocol = make_protocol()
    fake_run(protocol, "concat", 0, noise=1.0)
    fake_run(protocol, "concat", 1, noise=1.0)
    tables(protocol)
    cells = protocol.out / "concat"
    shutil.rmtree(cells / "seed-1")
    shutil.copytree(cells / "seed-0", cells / "seed-1")
    if beginning == "of this cell":
        settings = load_config(configs / "concat.toml", ["seed=1"]).as_dict()
        begun = {"config": settings, "data_hash": Store.open(protocol.data).content_hash}
        (cells / "seed-1" / "begun.json").write_text(json.dumps(begun))
    told = r"seed-1, by its record\.json, was begun with config\.seed 0, got 1"
    with pytest.raises(UserError, match=told):
        tables(protocol)


def test_a_kept_record_of_an_earlier_version_is_accepted(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol()
    fake_run(protocol, "concat", 0, noise=1.0)
    run = protocol.out / "concat" / "seed-0"
    record = json.loads((run / "record.json").read_text())
    del record["config"]["training"]["warmup_fraction"]
    write_record(run, record)
    assert rows_of(tables(protocol))["concat"]["seeds"] == [0]


def test_configs_are_found_by_the_data_sets_name(tmp_path: Path) -> None:
    assert config_folder(None, "synthetic-mosei").name == "synthetic"
    assert config_folder(None, "mosi").name == "mosi"
    assert config_folder(None, "cmu-mosei").name == "mosei"
    assert config_folder(None, "ur-funny").name == "ur_funny"
    assert config_folder("mosei", "mosi").name == "mosei"
    assert config_folder(str(tmp_path), "mosi") == tmp_path
    with pytest.raises(UserError, match=r"dataset 'vlogs': name a folder .*mosi"):
        config_folder(None, "vlogs")


# What is run


def test_finished_cells_are_not_run_again_and_seeds_come_first(
    make_protocol: MakeProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = make_protocol(seeds=(0, 1, 2))
    fake_run(protocol, "concat", 1, noise=1.0)
    seen: list[tuple[str, int]] = []
    planned: list[int] = []

    def run(runner: object, cells: list[Cell]) -> list[object]:
        seen.extend((cell.row, cell.seed) for cell in cells)
        return []

    monkeypatch.setattr("tecafn.experiments.compare.CellRunner.run", run)
    compare_methods(protocol, planned=lambda cells: planned.append(len(cells)))
    assert planned == [5]
    assert seen == [
        ("concat", 0), ("tecafn", 0), ("tecafn", 1), ("concat", 2), ("tecafn", 2)
    ]  # fmt: skip


def test_an_interrupted_comparison_leaves_tables_of_what_it_has(
    make_protocol: MakeProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = make_protocol(seeds=(0,))

    def run(runner: object, cells: list[Cell]) -> list[object]:
        fake_run(protocol, "concat", 0, noise=1.0)
        raise KeyboardInterrupt

    monkeypatch.setattr("tecafn.experiments.compare.CellRunner.run", run)
    with pytest.raises(KeyboardInterrupt):
        compare_methods(protocol)
    page = (protocol.out / "comparison.md").read_text(encoding="utf-8")
    assert "This comparison is not finished. Open: tecafn (seed 0)." in page


GB = 2**30


@pytest.mark.parametrize(
    ("cores", "memory", "at_once", "threads"),
    [
        (1, 64 * GB, 1, 1),
        (2, 16 * GB, 2, 1),
        (8, 64 * GB, 4, 2),
        (8, 11 * GB, 2, 4),  # two cells of 4 GB, not three
        (8, 3 * GB, 1, 8),
        (8, None, 1, 8),  # a machine that does not say
    ],
)
def test_cells_at_once_are_what_a_cpu_has_cores_and_memory_for(
    make_protocol: MakeProtocol,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    memory: int | None,
    at_once: int,
    threads: int,
) -> None:
    monkeypatch.setattr("tecafn.experiments.compare.num_cores", lambda: cores)
    monkeypatch.setattr("tecafn.experiments.compare.memory_bytes", lambda: memory)
    protocol = make_protocol(device="cpu", threads=None)
    assert (protocol.num_jobs(), protocol.num_threads()) == (at_once, threads)
    assert make_protocol(device="cpu", jobs=3).num_jobs() == 3
    assert make_protocol(device="cpu", threads=5).num_threads() == 5


def test_cells_on_a_gpu_train_one_after_the_other(
    make_protocol: MakeProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_protocol(device="cuda").num_jobs() == 1
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert make_protocol(device="auto").num_jobs() == 1
    assert make_protocol(device="auto", jobs=2).num_jobs() == 2


def test_methods_are_trained_compared_and_gone_on_with(
    make_protocol: MakeProtocol, configs: Path, tmp_path: Path, tiny_store: Path
) -> None:
    # A copy, so that whatever the processes cache goes with the test.
    store = shutil.copytree(tiny_store, tmp_path / "store")
    broken = configs / "tecafn.toml"
    # Ten is no multiple of four heads: only the process that builds the network finds out.
    sound = broken.read_text()
    broken.write_text(sound.replace("dim = 10\n", "dim = 10\nnum_heads = 4\n", 1))
    protocol = make_protocol(data=store, seeds=(0,), split="test", jobs=2)
    ended: list[str] = []
    summary = compare_methods(protocol, ended=lambda outcome: ended.append(outcome.reason))
    rows = rows_of(summary)
    assert rows["concat"]["seeds"] == [0]
    assert rows["concat"]["metrics"]["mae"]["mean"] > 0
    assert rows["concat"]["seconds"]["mean"] > 0
    assert rows["concat"]["ran"] == [[2, protocol.num_threads()]]
    assert rows["concat"]["num_parameters"] > 0
    assert list(rows["tecafn"]["failures"]) == ["0"]
    assert "num_heads" in rows["tecafn"]["failures"]["0"]
    assert sorted(bool(reason) for reason in ended) == [False, True]
    record = json.loads((protocol.out / "concat" / "seed-0" / "record.json").read_text())
    assert set(record["evaluations"]) == {"valid", "test"}
    before = os.stat(protocol.out / "concat" / "seed-0" / "record.json").st_mtime_ns

    # The config is mended: the failed cell is tried again, the finished one is not.
    broken.write_text(sound)
    summary = compare_methods(protocol)
    assert os.stat(protocol.out / "concat" / "seed-0" / "record.json").st_mtime_ns == before
    rows = rows_of(summary)
    assert rows["tecafn"]["seeds"] == [0]
    assert rows["tecafn"]["failures"] == {}
    for ending in ("md", "csv", "tex", "html", "json"):
        assert (protocol.out / f"comparison.{ending}").stat().st_size > 200

    # Who improves a prediction by hand improves no table.
    predictions = protocol.out / "concat" / "seed-0" / "predictions" / "test.csv"
    predictions.write_text(predictions.read_text().replace("0.", "1.", 1))
    with pytest.raises(UserError, match=r"test\.csv was changed since the evaluation wrote it"):
        compare_methods(protocol, train=False)


# Rows


def test_rows_are_configs_with_overrides_and_keep_their_order(
    make_protocol: MakeProtocol, configs: Path
) -> None:
    config = str(configs / "concat.toml")
    rows = (
        Row(name="as it is", config=config),
        Row(name="wide, V", config=config, overrides=("model.dim=12",), note="A note.", x=12),
    )
    protocol = make_protocol(
        methods=None, rows=rows, against="as it is", sort="rows", title="A title", seeds=(0, 1)
    )
    made = {}
    for row, noise in zip(rows, (1.0, 0.3), strict=True):
        for seed in protocol.seeds:
            fake_run(protocol, row.folder, seed, noise=noise, method="concat")
        made[row.name] = row
    summary = tables(protocol)
    assert [row["name"] for row in summary["methods"]] == ["as it is", "wide, V"]
    assert (summary["best"], summary["against"]) == ("wide, V", "as it is")
    wide = rows_of(summary)["wide, V"]
    assert (wide["method"], wide["overrides"], wide["x"]) == ("concat", ["model.dim=12"], 12)
    assert wide["difference"]["mae"]["value"] < 0
    assert rows_of(summary)["as it is"]["difference"] == {}
    assert (protocol.out / "wide,-V" / "seed-1").is_dir()
    page = (protocol.out / "comparison.md").read_text(encoding="utf-8")
    assert page.startswith("# A title\n")
    assert "MAE minus as it is's" in page
    assert "`model.dim=12`. A note." in page
    assert "Smallest detectable effect of MAE" in page
    cells = {c.row: c.overrides for e in plan(protocol, Store.open(protocol.data)) for c in e.cells}
    assert cells == {"as it is": (), "wide, V": ("model.dim=12",)}


def test_a_mistake_in_a_rows_config_is_an_error_and_not_a_row(
    make_protocol: MakeProtocol, configs: Path
) -> None:
    config = str(configs / "concat.toml")
    rows = (
        Row(name="a", config=config),
        Row(name="b", config=config, overrides=("model.dmi=12",)),
    )
    with pytest.raises(UserError, match=r"row 'b': .*did you mean"):
        tables(make_protocol(methods=None, rows=rows))
    with pytest.raises(UserError, match=r"row 'c': config nowhere\.toml: no such file"):
        tables(make_protocol(methods=None, rows=(Row(name="c", config="nowhere.toml"),)))
    with pytest.raises(UserError, match="methods or rows, got both"):
        make_protocol(rows=rows)
    with pytest.raises(UserError, match="against 'z' is not compared"):
        make_protocol(methods=None, rows=rows, against="z")
    with pytest.raises(UserError, match="cannot sort by 'mea': did you mean 'mae'"):
        make_protocol(methods=None, rows=rows, sort="mea")


def test_each_cell_has_an_interval_over_videos_and_the_table_its_smallest_effect(
    make_protocol: MakeProtocol, make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", sizes={"train": 4, "valid": 24}, seed=0)
    protocol = make_protocol(data=store, seeds=(0, 1, 2))
    for seed in protocol.seeds:
        fake_run(protocol, "concat", seed, noise=1.0)
        fake_run(protocol, "tecafn", seed, noise=0.4)
    summary = tables(protocol)
    cell = rows_of(summary)["concat"]["metrics"]["mae"]
    low, high = cell["interval"]
    assert low < cell["mean"] < high
    effect = summary["detectable"]["mae"]
    assert effect["num_comparisons"] == 1
    assert 0 < effect["planned"] == effect["corrected"]
    values = [np.var(row["metrics"]["mae"]["values"], ddof=1) for row in summary["methods"]]
    assert effect["seed_deviation"] == pytest.approx(math.sqrt(np.mean(values)))
    for name in ("md", "tex", "html"):
        text = (protocol.out / f"comparison.{name}").read_text(encoding="utf-8")
        assert f"{effect['planned']:.3f}" in text
        assert f"{low:.3f}" in text


def test_one_seed_finds_no_effect_and_the_table_says_so(make_protocol: MakeProtocol) -> None:
    protocol = make_protocol(seeds=(0,))
    fake_run(protocol, "concat", 0, noise=1.0)
    fake_run(protocol, "tecafn", 0, noise=0.4)
    summary = tables(protocol)
    assert summary["detectable"]["mae"] is None
    assert rows_of(summary)["concat"]["difference"]["mae"]["over_seeds"] is None
    page = (protocol.out / "comparison.md").read_text(encoding="utf-8")
    assert "The smallest detectable effect of MAE is unknown" in page


def test_one_video_finds_no_effect_and_the_table_says_so(
    make_protocol: MakeProtocol, make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", sizes={"train": 4, "valid": 4}, seed=0)
    assert len(set(Store.open(store).split("valid").videos)) == 1
    protocol = make_protocol(data=store)
    for seed in protocol.seeds:
        fake_run(protocol, "concat", seed, noise=1.0)
        fake_run(protocol, "tecafn", seed, noise=0.4)
    summary = tables(protocol)
    assert summary["detectable"]["mae"] is None
    page = (protocol.out / "comparison.md").read_text(encoding="utf-8")
    assert "with one video, the deviation over videos was not measured" in page
