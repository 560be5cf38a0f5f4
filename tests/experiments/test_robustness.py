"""Robustness: rate 0 is what evaluate finds, each change reaches the network, test comes last."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.experiments.audit import FAILED, audit
from tecafn.experiments.evaluate import evaluate_run, open_run
from tecafn.experiments.robustness import Changes, Probe, measure_robustness, probes_of
from tecafn.experiments.setup import open_device
from tecafn.records.robustness import Robustness
from tecafn.report.robustness import curves_of

pytestmark = pytest.mark.usefixtures("no_fsync")
AUDIO, VISION, TEXT = Modality.AUDIO, Modality.VISION, Modality.TEXT


@pytest.fixture(scope="module")
def measured(
    tiny_run: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Robustness]:
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("robust") / "run")
    folder, found = measure_robustness([run], data=tiny_store, device="cpu")
    return run, folder, found


@pytest.fixture(scope="module")
def changes(tiny_run: Path, tiny_store: Path) -> Changes:
    opened = open_run(tiny_run, tiny_store, "test", open_device("cpu"))
    return Changes(opened, seed=0)


def predictions(changes: Changes, probe: Probe) -> np.ndarray:
    opened = changes._opened
    return opened.predict(source=changes.source(probe)).predictions


def without(evaluation: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in evaluation.items() if key != "created"}


def test_what_is_not_changed_is_what_evaluate_finds(
    measured: tuple[Path, Path, Robustness], tiny_store: Path
) -> None:
    run, _, found = measured
    evaluation = evaluate_run(run, data=tiny_store, split="valid", device="cpu")
    points = found["runs"][0]["points"]
    unchanged = [p for p in points if p["kind"] == "clean" or p["rate"] == 0.0]
    assert len(unchanged) == 5
    for point in unchanged:
        assert without({**point["evaluation"]}) == without({**evaluation})


@pytest.mark.parametrize(
    "probe",
    [
        Probe("lost frames", (AUDIO,), 0.0),
        Probe("lost frames", (AUDIO, VISION), 0.0),
        Probe("mistaken words", (TEXT,), 0.0),
    ],
)
def test_at_rate_0_predictions_are_equal_to_the_last_bit(changes: Changes, probe: Probe) -> None:
    clean = predictions(changes, Probe("clean"))
    assert np.array_equal(predictions(changes, probe), clean)
    assert np.array_equal(changes._opened.predict().predictions, clean)


def test_every_change_reaches_the_network_and_is_the_same_when_repeated(changes: Changes) -> None:
    clean = predictions(changes, Probe("clean"))
    probes = [p for p in probes_of([TEXT, AUDIO, VISION])[0] if p.kind != "clean" and p.rate]
    for probe in probes:
        if probe.kind == "lost frames" and probe.rate < 0.3:
            continue
        changed = predictions(changes, probe)
        assert not np.array_equal(changed, clean), probe
        assert np.array_equal(predictions(changes, probe), changed), probe


def test_losing_every_frame_is_dropping_the_modality(changes: Changes) -> None:
    lost = predictions(changes, Probe("lost frames", (AUDIO,), 1.0))
    dropped = predictions(changes, Probe("dropped", (AUDIO,)))
    assert lost == pytest.approx(dropped, abs=1e-5)


def test_the_page_has_a_chart_for_every_curve_and_measure(
    measured: tuple[Path, Path, Robustness],
) -> None:
    run, folder, found = measured
    assert folder == run / "robustness-valid"
    curves = curves_of(found["runs"][0])
    assert [(c.kind, c.modalities, len(c.points)) for c in curves] == [
        ("lost frames", ("audio",), 10),
        ("lost frames", ("vision",), 10),
        ("lost frames", ("audio", "vision"), 10),
        ("mistaken words", ("text",), 6),
    ]
    page = (folder / "robustness.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 4 * 8
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    with (folder / "robustness.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["change"] for row in rows} == {p["kind"] for p in found["runs"][0]["points"]}
    mae = [r for r in rows if (r["change"], r["modalities"], r["measure"]) ==
           ("lost frames", "audio", "mae")]  # fmt: skip
    values = np.array([float(r["value"]) for r in mae if r["rate"] != "area"])
    assert len(values) == 10
    area = next(float(r["value"]) for r in mae if r["rate"] == "area")
    assert area == pytest.approx((values[1:] + values[:-1]).sum() / 2 / 9)
    text = (folder / "robustness.md").read_text(encoding="utf-8")
    assert "hard pairs ranked correctly" in text
    assert f"| audio: dropped | {values_of(found, 'dropped', 'audio'):.3f} (" in text


def values_of(found: Robustness, kind: str, modality: str) -> float:
    for point in found["runs"][0]["points"]:
        if (point["kind"], point["modalities"]) == (kind, [modality]):
            return float(point["evaluation"]["metrics"]["mae"] or 0)
    raise AssertionError


def test_several_runs_stand_on_one_page_and_are_not_measured_twice(
    measured: tuple[Path, Path, Robustness],
    train_tiny: Callable[..., dict[str, Any]],
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, _, first = measured
    train_tiny("words", "modalities=['text']", "training.max_epochs=1")
    out = tmp_path / "pages"
    arguments = ["robustness", str(run), "--data", str(tiny_store), "--out", str(out)]
    assert main(arguments) == 0
    opened: list[Path] = []

    def watch(place: Path, *rest: Any) -> Any:
        opened.append(place)
        return open_run(place, *rest)

    monkeypatch.setattr("tecafn.experiments.robustness.open_run", watch)
    words = tmp_path / "words"
    assert main([*arguments[:2], str(words), *arguments[2:]]) == 0
    assert opened == [words]
    found = json.loads((out / "robustness.json").read_text(encoding="utf-8"))
    assert [r["name"] for r in found["runs"]] == ["run", "words"]
    assert found["runs"][0]["points"] != [] == found["runs"][0]["skipped"]
    assert found["runs"][1]["skipped"] == ["text is all that it reads: it cannot be dropped"]
    points = zip(found["runs"][0]["points"], first["runs"][0]["points"], strict=True)
    assert all(a["evaluation"]["metrics"] == b["evaluation"]["metrics"] for a, b in points)


def test_the_test_split_is_looked_at_after_it_was_evaluated(
    tiny_run: Path, tiny_store: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(UserError, match=r"evaluate .* comes first"):
        measure_robustness([run], data=tiny_store, split="test", device="cpu")
    assert not (run / "robustness-test").exists()
    evaluate_run(run, data=tiny_store, split="test", device="cpu")
    _, found = measure_robustness([run], data=tiny_store, split="test", device="cpu")
    log = (run / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["name"] for line in log] == ["valid", "test", "robustness:test"]
    assert not [f for f in audit(run, data=tiny_store) if f.verdict == FAILED]
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    clean = found["runs"][0]["points"][0]["evaluation"]
    assert clean["metrics"] == record["evaluations"]["test"]["metrics"]


def test_mistakes_are_one_line(
    tiny_run: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, named in (
        ([tiny_run, tiny_run], "one run was given twice"),
        ([tmp_path / "gone"], "gone"),
        ([tiny_run, "--split", "dev"], "dev"),
        ([tiny_run, "--out", tiny_store], "data store"),
    ):
        line = ["robustness", *map(str, arguments), "--data", str(tiny_store), "--device", "cpu"]
        assert main(line) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert named in error
