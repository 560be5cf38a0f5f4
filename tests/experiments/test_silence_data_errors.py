"""A7: what ``data check`` calls an error is not trained on or measured without a word."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from labelled_stores import make_labelled_store

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.data import Store, check, import_dataset
from tecafn.data.integrity import data_errors, refuse_errors
from tecafn.data.readers import ReadOptions
from tecafn.experiments.cells import Cell
from tecafn.experiments.compare import Protocol, compare_methods
from tecafn.experiments.config import load_config
from tecafn.experiments.cross_validation import cross_validate_run
from tecafn.experiments.evaluate import evaluate_run, predict_run
from tecafn.experiments.run import train_run
from tecafn.records.record import read_record

pytestmark = pytest.mark.usefixtures("no_fsync")
SOUND = {"train": [-2.0, 1.0, 0.5, 2.0] * 3, "valid": [1.0, -1.0] * 4, "test": [1.0, -2.0] * 4}
RATINGS = {split: [1.0, 5.0, 4.0, 2.0] * 3 for split in SOUND}


def words_of_check(store: Store) -> list[str]:
    """The errors as ``data check`` says them."""
    return [f"{row.name}: {row.message}" for row in check(store).rows if row.level == "error"]


@pytest.fixture
def ratings(tmp_path: Path) -> Store:
    """Labels from 1 to 5 in a store from -3 to 3."""
    return make_labelled_store(tmp_path / "ratings", RATINGS)


@pytest.fixture
def leaking(tmp_path: Path) -> Store:
    """Validation clips of the training videos."""
    return make_labelled_store(tmp_path / "leaking", SOUND, videos={"valid": "train"})


def with_the_same_ids(path: Path) -> Store:
    """Validation clips that are training clips: same id, same video."""
    store = make_labelled_store(path, SOUND)
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(path / "samples.parquet").to_pylist()
    train = [row for row in rows if row["split"] == "train"]
    for row, twin in zip((r for r in rows if r["split"] == "valid"), train, strict=False):
        row |= {name: twin[name] for name in ("id", "video", "clip", "text")}
    schema = pq.read_schema(path / "samples.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path / "samples.parquet")
    manifest = dict(store.manifest)
    digest = hashlib.sha256((path / "samples.parquet").read_bytes()).hexdigest()
    manifest["files"] = {**manifest["files"], "samples.parquet": digest}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return Store.open(path)


# One rule for data check and for the commands


@pytest.mark.parametrize("kind", ["sound", "ratings", "leaking", "same ids", "empty"])
def test_a7_the_commands_find_what_data_check_calls_an_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = {
        "sound": lambda: make_labelled_store(path, SOUND),
        "ratings": lambda: make_labelled_store(path, RATINGS),
        "leaking": lambda: make_labelled_store(path, SOUND, videos={"valid": "train"}),
        "same ids": lambda: with_the_same_ids(path),
        "empty": lambda: make_labelled_store(path, SOUND | {"test": []}),
    }[kind]()
    found = [f"{row.name}: {row.message}" for row in data_errors(store)]
    assert found == words_of_check(store)
    names = {line.partition(":")[0] for line in found}
    assert (
        names
        == {
            "sound": set(),
            "ratings": {"labels"},
            "leaking": {"videos"},
            "same ids": {"videos", "ids"},
            "empty": {"split"},
        }[kind]
    )


def test_a7_an_empty_split_stops_nobody_who_does_not_need_it(tmp_path: Path) -> None:
    store = make_labelled_store(tmp_path / "store", SOUND | {"test": []})
    assert refuse_errors(store, allowed=False) == ()


def test_a7_videos_in_two_splits_are_how_ch_sims_is_published(tmp_path: Path) -> None:
    labels = {split: [0.2, -0.4] * 4 for split in SOUND}
    store = make_labelled_store(
        tmp_path / "store",
        labels,
        dataset="ch-sims",
        label_range=(-1.0, 1.0),
        videos={"valid": "train", "test": "train"},
    )
    assert data_errors(store) == ()
    found = [row for row in check(store).rows if row.name == "videos" and row.level == "warning"]
    assert "2 in two splits" in found[0].message
    assert "drawn by clips" in found[0].message


def test_a7_a_label_of_one_modality_outside_the_range_counts(tmp_path: Path) -> None:
    import numpy as np

    from tecafn.core.modality import Modality
    from tecafn.data import DatasetDescription, Sample, StoreWriter

    described = DatasetDescription(dataset="ch-sims", widths={}, label_range=(-1.0, 1.0))
    with StoreWriter(tmp_path / "store", described) as writer:
        for split in ("train", "valid", "test"):
            unimodal = {Modality.AUDIO: 2.0 if split == "valid" else float(np.float32(0.2))}
            writer.add(Sample(id=split, source_id=split, video=split, clip="1", split=split,
                              text="fine", label=0.2, unimodal_labels=unimodal))  # fmt: skip
    store = Store.open(tmp_path / "store")
    (found,) = data_errors(store)
    assert found.message == "1 outside -1 to 1: 'valid (valid): 2'"


# The commands


def test_a7_train_refuses_in_the_words_of_data_check_and_writes_nothing(
    ratings: Store, tiny_toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train", str(tiny_toml), "--data", str(ratings.path), "--out", str(out)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for words in words_of_check(ratings):
        assert words in said
    assert "--allow-data-errors" in said
    assert "--label-range" in said
    assert not out.exists()


@pytest.mark.parametrize("kind", ["leaking", "same ids"])
def test_a7_valid_clips_that_are_train_clips_stop_training(
    kind: str, leaking: Store, tiny_toml: Path, tmp_path: Path
) -> None:
    store = leaking if kind == "leaking" else with_the_same_ids(tmp_path / "same")
    settings = load_config(tiny_toml)
    with pytest.raises(UserError, match=r"2 in two splits: 'train00', 'train01'"):
        train_run(settings, data=store.path, out=tmp_path / "run", device="cpu")


def test_a7_what_was_allowed_stands_in_record_report_and_on_screen(
    ratings: Store, tiny_toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["train", str(tiny_toml), "--data", str(ratings.path), "--out", str(run)]
    command += ["--device", "cpu", "--quiet", "--set", "training.max_epochs=1"]
    assert main([*command, "--allow-data-errors"]) == 0
    (words,) = words_of_check(ratings)
    assert words in " ".join(capsys.readouterr().out.split())
    record = read_record(run)
    name, _, message = words.partition(": ")
    for part in (record["data"], record["evaluations"]["valid"]):
        assert part["allowed_errors"] == [{"name": name, "message": message}]
    assert "calls an error, allowed by name: labels: " in (run / "report.html").read_text("utf-8")
    # Evaluating is asked anew, and what was allowed stands there, too. Predicting needs no label.
    with pytest.raises(UserError, match=r"outside -3 to 3"):
        evaluate_run(run, data=ratings.path, device="cpu")
    evaluation = evaluate_run(run, data=ratings.path, device="cpu", allow_data_errors=True)
    assert evaluation["allowed_errors"][0]["name"] == "labels"
    out = tmp_path / "predictions.csv"
    assert predict_run(run, data=ratings.path, split="test", out=out, device="cpu") == 12


def test_a7_sound_data_leave_no_word_in_the_record(tiny_run: Path) -> None:
    record = read_record(tiny_run)
    assert "allowed_errors" not in record["data"]
    assert "allowed_errors" not in record["evaluations"]["valid"]


def test_a7_folds_by_video_need_no_splits_by_video(
    leaking: Store, ratings: Store, tiny_toml: Path, tmp_path: Path
) -> None:
    settings = load_config(tiny_toml, ["training.max_epochs=1"])
    kwargs: dict[str, Any] = {"by": "video", "num_folds": 3, "device": "cpu", "progress": False}
    record = cross_validate_run(settings, data=leaking.path, out=tmp_path / "a", **kwargs)
    assert "allowed_errors" not in record["data"]
    with pytest.raises(UserError, match=r"outside -3 to 3"):
        cross_validate_run(settings, data=ratings.path, out=tmp_path / "b", **kwargs)


def protocol_of(store: Store, out: Path, **options: Any) -> Protocol:
    return Protocol(
        data=store.path,
        out=out,
        methods=("concat",),
        seeds=(0,),
        configs="mosi",
        device="cpu",
        **options,
    )


def test_a7_compare_refuses_once_before_the_first_cell(ratings: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"labels: 18 outside -3 to 3"):
        compare_methods(protocol_of(ratings, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a7_a_comparison_of_allowed_data_says_so_in_every_table(
    ratings: Store, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    summary = compare_methods(protocol_of(ratings, out, allow_data_errors=True), train=False)
    assert summary["data"]["allowed_errors"][0]["name"] == "labels"
    for ending in ("md", "html", "tex"):
        assert "allowed by name: labels" in (out / f"comparison.{ending}").read_text("utf-8")


def test_a7_the_cells_of_a_comparison_are_allowed_what_it_was(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "row": "m", "seed": 0, "run": tmp_path, "config": tmp_path, "overrides": (),
        "data": tmp_path, "split": "test", "device": "cpu", "threads": 1, "convention": "mosi",
    }  # fmt: skip
    for allowed in (False, True):
        commands = " ".join(chain(*Cell(**settings, allow_data_errors=allowed).commands()))
        assert commands.count("--allow-data-errors") == (2 if allowed else 0)


# What is kept beside the store


def test_a7_the_table_is_read_once_for_many_runs(
    ratings: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = data_errors(ratings)

    def fail(store: Store, names: Any) -> Any:
        raise AssertionError("read again")

    monkeypatch.setattr(Store, "table_columns", fail)
    assert data_errors(Store.open(ratings.path)) == found


def test_a7_what_is_kept_of_other_content_is_not_believed(ratings: Store, tmp_path: Path) -> None:
    sound = make_labelled_store(tmp_path / "sound", SOUND)
    assert data_errors(sound) == ()
    data_errors(ratings)
    shutil.copy(sound.path / "cache" / "integrity.json", ratings.path / "cache")
    assert [row.name for row in data_errors(ratings)] == ["labels"]


def test_a7_another_label_range_is_another_question(tmp_path: Path) -> None:
    store = make_labelled_store(tmp_path / "store", RATINGS, label_range=(1.0, 5.0))
    assert data_errors(store) == ()
    manifest = json.loads((store.path / "manifest.json").read_text())
    narrow = manifest | {"label_range": [-3.0, 3.0], "convention": "mosi"}
    (store.path / "manifest.json").write_text(json.dumps(narrow))
    assert [row.name for row in data_errors(Store.open(store.path))] == ["labels"]


def test_a7_a_table_that_was_changed_after_its_import_is_refused(ratings: Store) -> None:
    data_errors(ratings)
    path = ratings.path / "samples.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match="was changed since it was imported"):
        refuse_errors(Store.open(ratings.path), allowed=True)


def test_a7_a_store_that_cannot_be_written_is_looked_at_again(
    ratings: Store,
) -> None:
    (ratings.path / "cache").write_text("in the way of a folder")
    assert [row.name for row in data_errors(ratings)] == ["labels"]
    assert [row.name for row in data_errors(ratings)] == ["labels"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"of": {}}', '{"of": 3, "errors": 4}'])
def test_a7_a_damaged_note_beside_the_store_is_made_anew(damage: str, ratings: Store) -> None:
    data_errors(ratings)
    (ratings.path / "cache" / "integrity.json").write_text(damage)
    assert [row.name for row in data_errors(ratings)] == ["labels"]


# Real data


REAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mosi": ("mosi/label.csv", "label-csv", {"dataset": "mosi"}),
    "mosei": ("mosei/label.csv", "label-csv", {"dataset": "mosei"}),
    "ur-funny": ("ur_funny/text.jsonl", "ur-funny", {}),
}


@pytest.mark.parametrize("name", REAL)
def test_a7_real_data_train_without_being_allowed_to(
    name: str, data_root: Path, tmp_path: Path
) -> None:
    source, format, options = REAL[name]
    store = import_dataset(
        data_root / source,
        format=format,
        out=tmp_path / "store",
        options=ReadOptions(**options),
    )
    assert refuse_errors(store, allowed=False) == ()


def test_a7_the_synthetic_corpus_is_sound(tmp_path: Path, make_store: Callable[..., Path]) -> None:
    from tecafn.data.synthetic import CorpusSpec, make_corpus

    corpus = make_corpus(tmp_path / "c", CorpusSpec(num_train=80, num_valid=40, num_test=60))
    assert data_errors(corpus) == ()
