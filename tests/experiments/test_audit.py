"""An audit passes on what a run left, and fails on each thing that somebody may forge in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.experiments.audit import FAILED, PASSED, UNKNOWN, audit
from tecafn.experiments.compare import Protocol, compare_methods
from tecafn.experiments.config import load_config
from tecafn.experiments.cross_validation import cross_validate_run
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.paired import compare_runs
from tecafn.experiments.rows import Row
from tecafn.experiments.run import train_run
from tecafn.records.evaluation_log import EVALUATIONS_FILE, read_evaluation_log

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def evaluated(tiny_run: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has been evaluated on test; not to be written to."""
    run = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(tiny_run, run)
    evaluate_run(run, data=tiny_store, split="test", device="cpu")
    return run


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    shutil.copytree(evaluated, tmp_path / "run")
    return tmp_path / "run"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def failures(run: Path, **options: Any) -> dict[str, str]:
    return {f.question: f.words for f in audit(run, **options) if f.verdict == FAILED}


def test_an_audit_passes_on_an_honest_run(run: Path, tiny_store: Path) -> None:
    findings = audit(run, data=tiny_store)
    assert len(findings) == 7
    assert [f.verdict for f in findings] == [PASSED] * 7
    # Asking for the test metrics again is no second evaluation.
    evaluate_run(run, data=tiny_store, split="test", device="cpu")
    log = read_evaluation_log(run)
    assert log is not None
    assert [entry["name"] for entry in log] == ["valid", "test"]
    assert main(["audit", str(run), "--data", str(tiny_store)]) == 0


def record(change: Callable[[dict[str, Any]], None]) -> Change:
    return lambda run: edit(run / "record.json", change)


def set_chosen_on(record: dict[str, Any]) -> None:
    record["training"]["chosen_on"] = "test"


def set_evaluation_chosen_on(record: dict[str, Any]) -> None:
    record["evaluations"]["test"]["chosen_on"] = "test"


def set_best_epoch(record: dict[str, Any]) -> None:
    record["training"]["best_epoch"] = 1 - record["training"]["best_epoch"]


def set_monitor_value(record: dict[str, Any]) -> None:
    record["training"]["monitor_value"] -= 0.01


def set_metric(record: dict[str, Any]) -> None:
    record["evaluations"]["test"]["metrics"]["mae"] -= 0.01


def evaluated_on_test(change: Callable[[dict[str, Any]], None]) -> Change:
    return record(lambda record: change(record["evaluations"]["test"]))


def set_nan(evaluation: dict[str, Any]) -> None:
    evaluation["metrics"]["mae"] = float("nan")


def remove_metric(evaluation: dict[str, Any]) -> None:
    del evaluation["metrics"]["mae"]


def remove_metrics(evaluation: dict[str, Any]) -> None:
    evaluation["metrics"] = {}


def add_metric(evaluation: dict[str, Any]) -> None:
    evaluation["metrics"]["acc9"] = 0.9


def set_interval(evaluation: dict[str, Any]) -> None:
    evaluation["intervals"]["mae"] = [0.1, 0.2]


def set_pairs(evaluation: dict[str, Any]) -> None:
    evaluation["hard_pairs"] = {**(evaluation["hard_pairs"] or {}), "ordered": 0.99}


def set_designed_pairs(evaluation: dict[str, Any]) -> None:
    evaluation["designed_pairs"] = {"num_pairs": 9, "ordered": 0.99}


def set_num_samples(evaluation: dict[str, Any]) -> None:
    evaluation["num_samples"] = 8000


def set_method(record: dict[str, Any]) -> None:
    record["method"] = "mult"


def set_data_hash(record: dict[str, Any]) -> None:
    record["data"]["hash"] = "0" * 64


def set_evaluated_data(record: dict[str, Any]) -> None:
    record["evaluations"]["test"]["data_hash"] = "0" * 64


def set_config(record: dict[str, Any]) -> None:
    record["config"]["training"]["learning_rate"] = 0.5


def set_seed(record: dict[str, Any]) -> None:
    record["seed"] = 7


def set_code(record: dict[str, Any]) -> None:
    record["code_hash"] = "0" * 64


def set_weights(record: dict[str, Any]) -> None:
    record["evaluations"]["test"]["weights_hash"] = "0" * 64


def add_protocol(record: dict[str, Any]) -> None:
    record["protocols"] = {"authors_test_peeking": {"metrics": {}}}


def remove_test(record: dict[str, Any]) -> None:
    del record["evaluations"]["test"]


def change_predictions(run: Path) -> None:
    """Better predictions, with the metrics that they have."""
    path = run / "predictions" / "test.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = lines[1].split(",")
    cells[4] = cells[3]
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n", encoding="utf-8")


def change_weights(run: Path) -> None:
    path = run / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def drop_log_line(run: Path) -> None:
    path = run / EVALUATIONS_FILE
    path.write_text(path.read_text().splitlines(keepends=True)[1], encoding="ascii")


def drop_last_log_line(run: Path) -> None:
    path = run / EVALUATIONS_FILE
    path.write_text(path.read_text().splitlines(keepends=True)[0], encoding="ascii")


def look_again_with_other_weights(run: Path) -> None:
    """As if other weights had been evaluated on test before these."""
    from tecafn.records.evaluation_log import log_evaluation

    path = run / EVALUATIONS_FILE
    entries: list[Any] = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    looks: list[Any] = [entries[0], {**entries[1], "weights_hash": "1" * 64}, entries[1]]
    for entry in looks:
        log_evaluation(run, entry)


def change_config_file(run: Path) -> None:
    path = run / "config.toml"
    path.write_text(path.read_text().replace("batch_size = 8", "batch_size = 9"), encoding="utf-8")


def change_begun_data(run: Path) -> None:
    edit(run / "begun.json", lambda begun: begun.update(data_hash="0" * 64))


def change_events(run: Path) -> None:
    """A later epoch would have been the best."""
    path = run / "events.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    best = json.loads((run / "record.json").read_text())["training"]["best_epoch"]
    for event in events:
        if event["event"] == "epoch" and event["epoch"] != best:
            event["valid"]["mae"] = 0.0
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="ascii")


CHOSE = "the validation split chose the epoch"
ONCE = "the test split was evaluated once"
METRICS = "the predictions give the metrics"
CONFIG = "the config is the one it was begun with"
WEIGHTS = "the weights are the ones that were evaluated"
DATA = "the data are the same ones"
CODE = "the code is the same"


@pytest.mark.parametrize(
    ("forge", "question", "words"),
    [
        (record(set_chosen_on), CHOSE, "the split 'test' chose"),
        (record(set_evaluation_chosen_on), CHOSE, "another split chose: test: test"),
        (record(set_best_epoch), CHOSE, "is the best"),
        (record(set_monitor_value), CHOSE, "the record says"),
        (change_events, CHOSE, "is the best"),
        (record(add_protocol), ONCE, "authors_test_peeking"),
        (look_again_with_other_weights, ONCE, "2 different sets of weights"),
        (drop_log_line, ONCE, "does not follow from the one before"),
        (drop_last_log_line, ONCE, "the log does not know"),
        (record(remove_test), ONCE, "the record does not show"),
        (record(set_metric), METRICS, "mae on test: the predictions give"),
        (evaluated_on_test(set_nan), METRICS, "the record says nan"),
        (evaluated_on_test(remove_metric), METRICS, "the record says nothing"),
        (evaluated_on_test(remove_metrics), METRICS, "the record says nothing"),
        (evaluated_on_test(add_metric), METRICS, "acc9 on test: the predictions give nothing"),
        (evaluated_on_test(set_interval), METRICS, "the record says [0.1, 0.2]"),
        (evaluated_on_test(set_pairs), METRICS, "hard_pairs"),
        (evaluated_on_test(set_designed_pairs), METRICS, "designed_pairs on test"),
        (evaluated_on_test(set_num_samples), METRICS, "the predictions give 12, the record says 8"),
        (record(set_method), CONFIG, "method is mult, the config's tecafn"),
        (change_predictions, METRICS, "was changed since it was written"),
        (record(set_config), CONFIG, "training.learning_rate is 0.5 in the record"),
        (change_config_file, CONFIG, "training.batch_size is 8 in the record and 9"),
        (record(set_seed), CONFIG, "seed is 7"),
        (record(set_weights), WEIGHTS, "other weights"),
        (change_weights, WEIGHTS, "other weights"),
        (record(set_data_hash), DATA, "begun with"),
        (record(set_evaluated_data), DATA, "other data"),
        (change_begun_data, DATA, "begun with"),
        (record(set_code), CODE, "other code"),
    ],
)
def test_each_forgery_is_found(run: Path, forge: Change, question: str, words: str) -> None:
    assert not failures(run)
    forge(run)
    assert words in failures(run)[question]
    assert main(["audit", str(run)]) == 1


COMPARISONS = "the comparisons are the ones that were made"


def test_a_forged_comparison_with_another_run_is_found(run: Path) -> None:
    compare_runs(run, run, split="test", name="text alone")
    compare_runs(run, run, split="valid")
    findings = {f.question: f for f in audit(run)}
    assert {f.verdict for f in findings.values()} == {PASSED}
    assert "2 as logged; the other runs were not opened" in findings[COMPARISONS].words

    def forge(record: dict[str, Any]) -> None:
        record["comparisons"][0]["difference"]["mae"] |= {"value": -1.0, "p_value": 0.0001}

    edit(run / "record.json", forge)
    assert "with text alone on test is not the one" in failures(run)[COMPARISONS]
    compare_runs(run, run, split="test", name="text alone")
    assert not failures(run)


def test_a_comparison_that_was_not_logged_is_not_passed(run: Path) -> None:
    log = (run / EVALUATIONS_FILE).read_bytes()
    compare_runs(run, run, split="test")
    (run / EVALUATIONS_FILE).write_bytes(log)
    assert {f.question for f in audit(run) if f.verdict == UNKNOWN} == {COMPARISONS}


def test_changed_data_are_found(run: Path, make_store: Callable[..., Path], tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", seed=5)
    assert "other content" in failures(run, data=other)[DATA]
    shard = next(other.glob("audio/*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=shard.name):
        audit(run, data=other)


def test_another_version_may_be_allowed(run: Path) -> None:
    edit(run / "record.json", set_code)
    assert not failures(run, other_code=True)


def test_what_an_older_run_does_not_tell_is_not_passed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / EVALUATIONS_FILE).unlink()
    (run / "events.jsonl").unlink()
    edit(run / "record.json", lambda record: record.pop("code_hash"))
    verdicts = {f.question: f.verdict for f in audit(run)}
    assert [q for q, verdict in verdicts.items() if verdict == UNKNOWN] == [CHOSE, ONCE, CODE]
    assert main(["audit", str(run)]) == 1
    assert "not shown: the test split was evaluated once" in capsys.readouterr().out
    assert main(["audit", str(run.parent / "none")]) == 2


def test_a_table_is_audited_with_its_runs(
    evaluated: Path, tiny_store: Path, tiny_toml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "table"
    for name in ("a-b", "c"):
        shutil.copytree(evaluated, out / name / "seed-0")
    protocol = Protocol(
        data=tiny_store,
        out=out,
        rows=tuple(Row(name=name, config=str(tiny_toml)) for name in ("a b", "c")),
        seeds=(0,),
        split="test",
        device="cpu",
    )
    compare_methods(protocol, train=False)
    findings = audit(out, data=tiny_store)
    assert len(findings) == 2 * 7 + 5
    assert {f.verdict for f in findings} == {PASSED}
    assert main(["audit", str(out)]) == 0

    def better(summary: dict[str, Any]) -> None:
        summary["methods"][0]["metrics"]["mae"]["mean"] -= 0.1

    def hide(summary: dict[str, Any]) -> None:
        summary["methods"] = summary["methods"][1:]

    summary = out / "comparison.json"
    honest = summary.read_text(encoding="utf-8")
    shows = "the table shows what the runs say"
    for forge, words in ((better, "the table says"), (hide, "the table shows 1")):
        edit(summary, forge)
        assert words in failures(out)[shows]
        summary.write_text(honest, encoding="utf-8")
    edit(out / "c" / "seed-0" / "record.json", set_code)
    assert "2 versions" in failures(out)["the rows are of one code"]
    edit(out / "c" / "seed-0" / "record.json", set_config)
    found = failures(out)
    assert "the table says" in found["the rows are of one protocol"]
    edit(out / "c" / "seed-0" / "record.json", set_data_hash)
    assert "other data than the table" in failures(out)["the rows are of one protocol"]


@pytest.mark.parametrize("name", ["self_mm", "tecafn"])
def test_what_the_first_version_wrote_is_computed_again(name: str) -> None:
    folder = Path(__file__).parents[1] / "fixtures" / "first-version" / "runs" / name
    findings = {f.question: f for f in audit(folder, other_code=True)}
    assert FAILED not in {f.verdict for f in findings.values()}
    assert findings[METRICS].verdict == PASSED


def test_an_audit_passes_on_classes_and_folds(
    tiny_toml: Path, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    classes = make_store(tmp_path / "classes", task="classification")
    settings = load_config(tiny_toml, ["training.monitor=accuracy"])
    train_run(settings, data=classes, out=tmp_path / "run", device="cpu", progress=False)
    evaluate_run(tmp_path / "run", data=classes, device="cpu")
    scores = make_store(tmp_path / "scores")
    cross_validate_run(
        load_config(tiny_toml, ["training.max_epochs=1"]),
        data=scores,
        out=tmp_path / "folds",
        by="video",
        num_folds=3,
        device="cpu",
        progress=False,
    )
    for run, data in (("run", classes), ("folds", scores)):
        assert not failures(tmp_path / run, data=data)


@pytest.fixture(scope="module")
def table(tiny_toml: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows with two seeds each; to be left as it was."""
    out = tmp_path_factory.mktemp("table")
    rows = {"slow": (), "fast": ("training.learning_rate=0.01",)}
    for name, overrides in rows.items():
        for seed in (0, 1):
            train_run(
                load_config(tiny_toml, [*overrides, f"seed={seed}"]),
                data=tiny_store,
                out=out / name / f"seed-{seed}",
                device="cpu",
                progress=False,
                report=False,
            )
    protocol = Protocol(
        data=tiny_store,
        out=out,
        rows=tuple(
            Row(name=name, config=str(tiny_toml), overrides=overrides)
            for name, overrides in rows.items()
        ),
        seeds=(0, 1),
        device="cpu",
    )
    compare_methods(protocol, train=False)
    return out


def other(summary: dict[str, Any]) -> dict[str, Any]:
    """The row that has a difference."""
    (row,) = [row for row in summary["methods"] if row["difference"]]
    return row


TABLE = "the predictions give the table"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: other(s)["metrics"]["mae"].update(std=1e-4), "metrics.mae.std computed again"),
        (lambda s: other(s)["metrics"]["mae"].update(interval=[0.1, 0.2]), "metrics.mae.interval"),
        (lambda s: other(s)["metrics"].pop("corr"), "metrics.corr"),
        (lambda s: other(s)["difference"]["mae"].update(value=-9.0), "difference.mae.value"),
        (lambda s: other(s)["difference"]["mae"].update(interval=[1, 2]), "difference.mae.inter"),
        (lambda s: other(s)["difference"]["mae"].update(p_value=1e-5), "difference.mae.p_value"),
        (lambda s: other(s)["difference"]["mae"].update(p_holm=1e-5), "difference.mae.p_holm"),
        (
            lambda s: other(s)["difference"]["mae"]["over_seeds"].update(p_value=1e-5),
            "difference.mae.over_seeds.p_value",
        ),
        (lambda s: other(s).update(difference={}), "difference.mae computed again"),
        (lambda s: other(s).update(hard_pairs={"ordered": 0.99}), "hard_pairs"),
        (lambda s: other(s).update(num_parameters=1), "num_parameters"),
        (lambda s: other(s)["seconds"].update(mean=0.001), "seconds.mean"),
        (lambda s: s["detectable"]["mae"].update(planned=0.001), "detectable.mae.planned"),
        (lambda s: s.update(num_samples=800), "num_samples computed again is 8"),
        (lambda s: s.update(best=other(s)["name"]), "best computed again"),
        (lambda s: s["methods"].reverse(), "the order of the rows is"),
    ],
)
def test_each_figure_of_a_table_is_measured_again(
    table: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    assert not failures(table)
    summary = table / "comparison.json"
    honest = summary.read_text(encoding="utf-8")
    try:
        edit(summary, change)
        assert words in failures(table)[TABLE]
    finally:
        summary.write_text(honest, encoding="utf-8")


FILES = "the files show the table"


@pytest.mark.parametrize("ending", ["md", "csv", "tex", "html"])
def test_a_figure_changed_in_one_of_the_files_is_found(table: Path, ending: str) -> None:
    path = table / f"comparison.{ending}"
    honest = path.read_bytes()
    (mae,) = {cell["mean"] for row in rows_of(table)[:1] for cell in [row["metrics"]["mae"]]}
    shown = (f"{mae:.3f}" if ending != "csv" else repr(mae)).encode()
    assert shown in honest
    try:
        path.write_bytes(honest.replace(shown, b"0.123"))
        assert f"comparison.{ending} does not show what the table says" in failures(table)[FILES]
        path.unlink()
        (found,) = [f for f in audit(table) if f.question == FILES]
        assert found.verdict == PASSED
        assert found.words.endswith(f"there is no comparison.{ending}")
    finally:
        path.write_bytes(honest)


def test_a_chart_that_another_library_draws_is_not_called_forged(table: Path) -> None:
    path = table / "comparison.html"
    honest = path.read_bytes()
    assert b"</svg>" in honest
    try:
        path.write_bytes(honest.replace(b"</svg>", b"<g/></svg>"))
        (found,) = [f for f in audit(table) if f.question == FILES]
        assert found.verdict == PASSED
    finally:
        path.write_bytes(honest)


def test_files_of_another_version_are_not_called_forged(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table / "comparison.md"
    honest = path.read_bytes()
    try:
        path.write_bytes(honest + b"a line of another version\n")
        monkeypatch.setattr("tecafn.experiments.audit.of_table.code_hash", lambda: "another")
        (found,) = [f for f in audit(table) if f.question == FILES]
        assert found.verdict == UNKNOWN
        assert "--tables-only writes it anew" in found.words
    finally:
        path.write_bytes(honest)


def rows_of(table: Path) -> list[dict[str, Any]]:
    summary = json.loads((table / "comparison.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = summary["methods"]
    return rows


@pytest.mark.parametrize("kind", ["losses", "cases"])
def test_losses_and_cases_are_computed_again(
    kind: str, evaluated: Path, tiny_store: Path, tiny_toml: Path, tmp_path: Path
) -> None:
    shutil.copytree(evaluated, tmp_path / "row" / "seed-0")
    protocol = Protocol(
        data=tiny_store,
        out=tmp_path,
        rows=(Row(name="row", config=str(tiny_toml)),),
        seeds=(0,),
        split="test",
        device="cpu",
        more={"kind": kind, "window": 2},
    )
    compare_methods(protocol, train=False)
    (found,) = [f for f in audit(tmp_path) if f.question == TABLE]
    assert found.verdict == PASSED
    assert kind in found.words

    def forge(summary: dict[str, Any]) -> None:
        if kind == "losses":
            summary["losses"]["series"][0]["means"][0] += 0.01
        else:
            summary["cases"]["num_pairs"] += 1

    edit(tmp_path / "comparison.json", forge)
    assert f"{kind}." in failures(tmp_path)[TABLE]


def test_a_renamed_method_and_an_older_table_are_not_passed(table: Path) -> None:
    summary = table / "comparison.json"
    honest = summary.read_text(encoding="utf-8")
    try:
        edit(summary, lambda s: s["methods"][0].update(method="mult"))
        shows = failures(table)["the table shows what the runs say"]
        assert "the runs are of tecafn, the table says mult" in shows
        summary.write_text(honest, encoding="utf-8")
        edit(summary, lambda s: s.update(tecafn_version="0.1.0") or s.pop("detectable"))
        found, files = [f for f in audit(table) if f.verdict != PASSED]
        assert (found.question, found.verdict) == (TABLE, UNKNOWN)
        assert found.words == "the table is of version 0.1.0 and lacks detectable"
        assert (files.question, files.verdict) == (FILES, UNKNOWN)
    finally:
        summary.write_text(honest, encoding="utf-8")
