"""The types of `records/` are what the files have: no key that a type does not know or lacks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from tecafn.experiments.compare import Protocol, compare_methods
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.paired import compare_runs
from tecafn.experiments.rows import Row
from tecafn.records.begun import Begun, read_begun
from tecafn.records.comparison import ComparisonSummary, read_comparison
from tecafn.records.evaluation_log import LoggedEvaluation, read_evaluation_log
from tecafn.records.events import EndEvent, EpochEvent, ResumeEvent, StartEvent, StepEvent
from tecafn.records.record import RunRecord, read_record


def mismatches(  # noqa: C901 - a branch per kind of type
    value: Any, hint: Any, where: str
) -> Iterator[str]:
    """What of a value is not of its type, at any depth."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        yield from mismatches(value, arguments[0], where)
    elif origin in (UnionType, Union):
        found = [list(mismatches(value, each, where)) for each in arguments]
        if all(found):
            yield from min(found, key=len)
    elif is_typeddict(hint):
        if not isinstance(value, Mapping):
            yield f"{where} is no object"
            return
        hints = get_type_hints(hint, include_extras=True)
        for key in value.keys() - hints.keys():
            yield f"{where}.{key} is not known to {hint.__name__}"
        for key, inner in hints.items():
            if key in value:
                yield from mismatches(value[key], inner, f"{where}.{key}")
            elif hint.__total__ and get_origin(inner) is not NotRequired:
                yield f"{where} lacks {key}"
    elif origin is dict:
        for key, inner in value.items():
            yield from mismatches(inner, arguments[1], f"{where}.{key}")
    elif origin is list:
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for number, inner in enumerate(value):
            yield from mismatches(inner, arguments[0], f"{where}[{number}]")
    elif hint is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            yield f"{where} is no number: {value!r}"
    elif hint is NoneType:
        if value is not None:
            yield f"{where} is not null"
    elif hint is not Any and not isinstance(value, hint):
        yield f"{where} is no {hint.__name__}: {value!r}"


@pytest.fixture(scope="module")
def run(tiny_run: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("typed")
    for name in ("one", "two"):
        shutil.copytree(tiny_run, folder / name)
        evaluate_run(folder / name, data=tiny_store, split="test", device="cpu")
    compare_runs(folder / "one", folder / "two", split="test")
    return folder / "one"


def test_a_run_leaves_what_the_types_say(run: Path) -> None:
    found = list(mismatches(read_record(run), RunRecord, "record"))
    found += mismatches(read_begun(run), Begun, "begun")
    found += mismatches(read_evaluation_log(run), list[LoggedEvaluation], "log")
    kinds = {
        "start": StartEvent,
        "resume": ResumeEvent,
        "step": StepEvent,
        "epoch": EpochEvent,
        "end": EndEvent,
    }
    lines = (run / "events.jsonl").read_text(encoding="ascii").splitlines()
    for line in lines:
        event = json.loads(line)
        found += mismatches(event, kinds[event["event"]], event["event"])
    assert not found


def test_a_comparison_leaves_what_the_types_say(
    run: Path, tiny_store: Path, tiny_toml: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        for seed in (0, 1):
            shutil.copytree(run, tmp_path / name / f"seed-{seed}")
            for file in ("begun.json", "record.json"):
                path = tmp_path / name / f"seed-{seed}" / file
                value = json.loads(path.read_text(encoding="utf-8"))
                value["config"]["seed"] = seed
                if file == "record.json":
                    value["seed"] = seed
                path.write_text(json.dumps(value), encoding="utf-8")
    protocol = Protocol(
        data=tiny_store,
        out=tmp_path,
        rows=tuple(Row(name=name, config=str(tiny_toml), x=1.0) for name in ("a", "b")),
        seeds=(0, 1),
        split="test",
        device="cpu",
        more={
            "kind": "cases",
            "chart": {"axis": "x"},
            "published": {"tiny": {"a": {"mae": ["0.5", "P"]}}},
        },
    )
    compare_methods(protocol, train=False)
    summary = read_comparison(tmp_path)
    assert "published" in summary
    assert not list(mismatches(summary, ComparisonSummary, "summary"))


def test_the_check_itself_finds_what_is_wrong() -> None:
    event: dict[str, Any] = {"event": "resume", "step": 1, "epoch": 0}
    assert not list(mismatches(event, ResumeEvent, "e"))
    assert list(mismatches({**event, "more": 1}, ResumeEvent, "e")) == [
        "e.more is not known to ResumeEvent"
    ]
    assert list(mismatches({"event": "resume", "step": "1"}, ResumeEvent, "e")) == [
        "e.step is no int: '1'",
        "e lacks epoch",
    ]
