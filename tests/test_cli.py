"""The command line: what goes wrong by a user's mistake is one line and exit code 2."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tecafn.cli
from tecafn.cli import main
from tecafn.core.errors import UserError

pytestmark = pytest.mark.usefixtures("no_fsync")

MakeStore = Callable[..., Path]
HEADER = "video_id,clip_id,text,label,mode\n"
SOUND = "a,1,good,1.5,train\nb,1,bad,-2,valid\nc,1,fine,0.5,test\n"


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def tecafn_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command in this process."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


Command = Callable[..., Done]


def assert_one_line(done: Done, *named: object) -> None:
    """Exit code 2, and one line on stderr that names these."""
    assert done.code == 2, done
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.err
    for name in named:
        assert str(name).lower() in lines[0].lower()  # typer writes CONFIG or config


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run that may be written to."""
    return shutil.copytree(tiny_run, tmp_path / "run-copy")


@pytest.fixture
def label_csv(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a label.csv of these rows."""

    def write(rows: str = SOUND) -> Path:
        path = tmp_path / "source" / "label.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEADER + rows, encoding="utf-8")
        return path

    return write


# From the data to the predictions


def test_whole_way_from_a_data_set_to_predictions(
    tecafn_command: Command, tiny_toml: Path, tmp_path: Path, label_csv: Callable[..., Path]
) -> None:
    random = np.random.default_rng(0)
    names, rows = [], []
    for split, size in (("train", 12), ("valid", 6), ("test", 6)):
        for k in range(size):
            label = "" if split == "test" else f"{random.uniform(-3, 3):.3f}"
            names.append(f"{split}{k // 3}_{k}")
            rows.append(f"{split}{k // 3},{k},the film was good,{label},{split}\n")
    source = label_csv("".join(rows))
    audio = tmp_path / "audio.npz"
    np.savez(audio, ids=np.array(names), audio=random.normal(size=(24, 5)).astype(np.float32))
    store, out = tmp_path / "store", tmp_path / "run"

    done = tecafn_command(
        "data", "import", source, "--format", "label-csv", "--audio", audio, "--out", store
    )
    assert (done.code, done.err) == (0, "")
    assert "train 12 (12 labelled), valid 6 (6 labelled), test 6 (0 labelled); widths: audio 5" in (
        done.out
    )
    done = tecafn_command("data", "check", store)
    assert done.code == 0, done
    done = tecafn_command(
        *("train", tiny_toml, "--data", store, "--out", out, "--device", "cpu", "--quiet"),
        *("--set", "training.max_epochs=1"),
    )
    assert done.code == 0, done
    assert done.err.splitlines()[-1].startswith("epoch 1/1: ")
    assert "valid: 6 samples, checkpoint chosen on valid" in done.out
    assert done.out.splitlines()[-1] == f"report: {out / 'report.html'}"
    done = tecafn_command("evaluate", out, "--data", store, "--split", "test", "--device", "cpu")
    assert_one_line(done, "split 'test'", store, "6 of 6 samples", f"tecafn predict {out} ")
    predictions = tmp_path / "predictions.csv"
    done = tecafn_command(
        *("predict", out, "--data", store, "--split", "test", "--out", predictions),
        *("--device", "cpu"),
    )
    assert (done.code, done.out.split()) == (0, [f"{predictions}:", "6", "predictions"])
    with predictions.open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [row["id"] for row in written] == names[18:]
    assert all(np.isfinite(float(row["prediction"])) for row in written)


def test_evaluation_prints_a_table_and_json(
    tecafn_command: Command, run: Path, tiny_store: Path
) -> None:
    done = tecafn_command("evaluate", run, "--data", tiny_store, "--device", "cpu")
    assert (done.code, done.err) == (0, "")
    assert "test: 12 samples, checkpoint chosen on valid" in done.out
    done = tecafn_command("evaluate", run, "--data", tiny_store, "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert told == json.loads((run / "record.json").read_text())["evaluations"]["test"]
    assert {"mae", "corr", "acc7", "acc2_nonneg", "f1_pos"} <= told["metrics"].keys()
    done = tecafn_command("evaluate", run, "--data", tiny_store, "--against", run, "--json")
    assert json.loads(done.out)["comparison"]["difference"]["mae"]["value"] == 0
    done = tecafn_command("evaluate", run, "--data", tiny_store, "--against", run)
    assert f"{run} minus {run}, paired" in done.out


def test_cross_validation_through_the_command_line(
    tecafn_command: Command, tiny_toml: Path, make_store: MakeStore, tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", sizes={"train": 12, "valid": 0, "test": 0})
    arguments: tuple[Any, ...] = ("train", tiny_toml, "--data", store, "--device", "cpu", "--quiet")
    arguments += ("--set", "training.max_epochs=1", "--cross-validate", "video")
    done = tecafn_command(*arguments, "--folds", 3, "--out", tmp_path / "run")
    assert done.code == 0, done
    assert "out-of-fold: 12 samples" in done.out
    done = tecafn_command(*arguments, "--folds", 4, "--out", tmp_path / "other")
    assert_one_line(done, "folds must be between 3 and the number of videos 3, got 4")


def test_corpus_is_made_and_its_sizes_are_checked(tecafn_command: Command, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    sizes = ("--train", 30, "--valid", 6, "--test", 6)
    done = tecafn_command("data", "make", "--out", out, *sizes, "--shape", "mosei")
    assert (done.code, done.err) == (0, "")
    assert "synthetic-mosei: train 30 (30 labelled)" in done.out
    assert "audio 74, vision 35" in done.out
    assert_one_line(tecafn_command("data", "make", "--out", out, *sizes), out, "is the data store")
    done = tecafn_command("data", "make", "--out", tmp_path / "x", "--train", 0)
    assert_one_line(done, "num_train must be >= 1, got 0")


def test_demo_trains_compares_and_draws(
    tecafn_command: Command, tiny_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tecafn.data.synthetic import CorpusSpec
    from tecafn.experiments import demo
    from tecafn.experiments.config import load_config

    spec = CorpusSpec(num_train=40, num_valid=12, num_test=30)
    monkeypatch.setattr(demo, "CorpusSpec", lambda: spec)
    monkeypatch.setattr(demo, "load_config", lambda path, sets: load_config(tiny_toml, sets))
    out = tmp_path / "demo"
    done = tecafn_command("demo", "--out", out)
    assert done.code == 0, done
    said = [line for line in done.err.splitlines() if " of 2: " in line]
    assert said == ["1 of 2: the network on text alone", "2 of 2: TeCaFN on text, audio and vision"]
    assert "test: 30 samples, checkpoint chosen on valid" in done.out
    assert f"report: {out / 'report.html'}" in done.out
    record = json.loads((out / "record.json").read_text())
    assert [c["name"] for c in record["comparisons"]] == ["text alone"]
    assert record["evaluations"]["test"]["ceiling"]["metrics"]["mae"] < 0.3
    text_alone = json.loads((out / "text-alone" / "record.json").read_text())
    assert text_alone["config"]["modalities"] == ["text"]
    assert_one_line(tecafn_command("demo", "--out", out), out, "holds a demo already")
    # Killed before its last step, it goes on.
    record["comparisons"] = []
    (out / "record.json").write_text(json.dumps(record))
    assert tecafn_command("demo", "--out", out, "--quiet").code == 0
    assert json.loads((out / "record.json").read_text())["comparisons"]


# Lists and help


@pytest.mark.parametrize("what", ["methods", "datasets", "configs"])
def test_lists_are_valid_json_and_readable_tables(tecafn_command: Command, what: str) -> None:
    done = tecafn_command("list", what, "--json")
    assert (done.code, done.err) == (0, "")
    listed = json.loads(done.out)
    known = {"methods": "tecafn", "datasets": "label-csv", "configs": "mosi/tecafn.toml"}[what]
    names = [e if isinstance(e, str) else e.get("name", e.get("format")) for e in listed]
    assert known in names
    table = tecafn_command("list", what)
    assert (table.code, table.err) == (0, "")
    assert known in table.out


def test_listed_config_can_be_trained_by_its_name(
    tecafn_command: Command, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = tecafn_command(
        *("train", "mosi/tecafn.toml", "--data", tiny_store, "--out", "run"),
        *("--set", "training.max_epoch=1", "--set", "text_encoder=minilm"),
    )
    assert_one_line(done, "mosi/tecafn.toml: unknown key 'training.max_epoch'")


def test_help_names_every_command_and_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom tecafn.cli import main\ncode = main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pyarrow'} & sys.modules.keys()\n"
        "print(code, sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stderr == "0 []\n"
    for command in ("demo", "data", "train", "evaluate", "predict", "list", "--debug"):
        assert command in done.stdout


@pytest.mark.parametrize("group", [[], ["data"], ["list"]])
def test_group_without_a_command_shows_its_help(tecafn_command: Command, group: list[str]) -> None:
    done = tecafn_command(*group)
    assert (done.code, done.err) == (2, "")
    assert "Usage: tecafn" in done.out


# Mistakes: each is one line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["trian"], "No such command 'trian'"),
        (["list", "methodz"], "methods"),
        (["train"], "config"),
        (["train", "c.toml", "--out", "x"], "--data"),
        (["train", "c.toml", "--data", "d"], "--out"),
        (["predict", "run", "--data", "d"], "--out"),
        (["train", "c.toml", "--bogus"], "--bogus"),
        (["list", "methods", "--jsn"], "--json"),
        (["demo", "--seed", "x"], "--seed"),
        (["data", "make", "--shape", "sims", "--out", "x"], "'sims'"),
        (["evaluate"], "run"),
    ],
)
def test_wrong_command_or_option_is_one_line(
    tecafn_command: Command, arguments: list[str], named: str
) -> None:
    assert_one_line(tecafn_command(*arguments), named)


def test_missing_files_are_one_line(
    tecafn_command: Command, tiny_toml: Path, tiny_store: Path, tiny_run: Path, tmp_path: Path
) -> None:
    gone, out = tmp_path / "gone", tmp_path / "out"
    for arguments in (
        ["data", "import", gone, "--out", out],
        ["data", "check", gone],
        ["train", gone, "--data", tiny_store, "--out", out],
        ["train", tiny_toml, "--data", gone, "--out", out],
        ["evaluate", gone, "--data", tiny_store],
        ["evaluate", tiny_run, "--data", gone],
        ["predict", tiny_run, "--data", gone, "--out", out],
        ["evaluate", tiny_run, "--data", tiny_store, "--split", "valid", "--against", gone],
    ):
        assert_one_line(tecafn_command(*arguments), gone)
        assert not out.exists()


def test_missing_frames_for_a_label_csv_are_one_line(
    tecafn_command: Command, label_csv: Callable[..., Path], tmp_path: Path
) -> None:
    source, gone = label_csv(), tmp_path / "gone.npz"
    for command in (["check", source], ["import", source, "--out", tmp_path / "store"]):
        assert_one_line(tecafn_command("data", *command, "--audio", gone), gone)


def mmsa_pickle(path: Path, **changes: Any) -> Path:
    """An MMSA file of one sample a split."""
    random = np.random.default_rng(0)

    def split(name: str) -> dict[str, Any]:
        return {
            "raw_text": ["good"],
            "id": [f"{name}$_$1"],
            "audio": random.normal(size=(1, 3, 5)).astype(np.float32),
            "vision": random.normal(size=(1, 4, 20)).astype(np.float32),
            "audio_lengths": [3],
            "vision_lengths": [4],
            "regression_labels": np.array([1.5], np.float32),
        } | changes

    path.write_bytes(pickle.dumps({name: split(name) for name in ("train", "valid", "test")}))
    return path


def test_mmsa_pickle_is_imported(tecafn_command: Command, tmp_path: Path) -> None:
    # Else the refusals below could be of a file that nobody takes.
    source = mmsa_pickle(tmp_path / "sound.pkl")
    done = tecafn_command("data", "import", source, "--format", "mmsa", "--out", tmp_path / "s")
    assert (done.code, done.err) == (0, "")


def test_truncated_pickle_is_one_line(tecafn_command: Command, tmp_path: Path) -> None:
    whole = mmsa_pickle(tmp_path / "whole.pkl").read_bytes()
    out = tmp_path / "store"
    for size in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        source = tmp_path / "cut.pkl"
        source.write_bytes(whole[:size])
        for command in (["check", source], ["import", source, "--out", out]):
            assert_one_line(tecafn_command("data", *command, "--format", "mmsa"), source)
        assert not out.exists()


class Payload:
    """Unpickled by the standard library, it would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("format", ["mmsa", "misa", None])
def test_pickle_that_would_run_a_command_is_one_line_and_runs_nothing(
    tecafn_command: Command, tmp_path: Path, format: str | None, protocol: int
) -> None:
    trace, source = tmp_path / "trace", tmp_path / "train.pkl"
    payload = pickle.dumps({"train": Payload(f"touch {trace}")}, protocol=protocol)
    source.write_bytes(payload)
    pickle.loads(payload)  # the payload is a real one
    assert trace.exists()
    trace.unlink()
    chosen = ["--format", format] if format else []
    for command in (["check", source], ["import", source, "--out", tmp_path / "store"]):
        done = tecafn_command("data", *command, *chosen)
        assert_one_line(done, source, *(["system"] if format else []))
        assert not trace.exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"audio": 74}, "the model takes audio 5 wide"),
        ({"vision": 35}, "the model takes vision 20 wide"),
        ({"task": "classification"}, "the model does regression"),
    ],
)
def test_widths_that_differ_between_data_and_checkpoint_are_one_line(
    tecafn_command: Command,
    tiny_run: Path,
    make_store: MakeStore,
    tmp_path: Path,
    command: str,
    options: dict[str, Any],
    named: str,
) -> None:
    store, out = make_store(tmp_path / "store", **options), tmp_path / "predictions.csv"
    arguments = [command, tiny_run, "--data", store, "--device", "cpu"]
    done = tecafn_command(*arguments, *(["--out", out] if command == "predict" else []))
    assert_one_line(done, named, store)
    assert not out.exists()


@pytest.mark.parametrize("value", ["nan", "NaN", "inf"])
def test_nan_labels_are_refused_by_the_import_and_listed_by_the_check(
    tecafn_command: Command, label_csv: Callable[..., Path], tmp_path: Path, value: str
) -> None:
    source = label_csv(SOUND + f"d,7,dull,{value},train\n")
    done = tecafn_command("data", "import", source, "--out", tmp_path / "store")
    assert_one_line(done, "d_7", value.lower())
    assert not (tmp_path / "store").exists()
    done = tecafn_command("data", "check", source)
    assert (done.code, done.err) == (1, "")
    assert "error    labels: 1 NaN or infinite: 'd_7 (train)" in done.out


def test_nan_label_in_a_pickle_is_one_line(tecafn_command: Command, tmp_path: Path) -> None:
    source = mmsa_pickle(tmp_path / "nan.pkl", regression_labels=np.array([np.nan], np.float32))
    done = tecafn_command("data", "import", source, "--format", "mmsa", "--out", tmp_path / "s")
    assert_one_line(done, "label is nan")
    assert tecafn_command("data", "check", source, "--format", "mmsa").code == 1


@pytest.mark.parametrize("split", ["train", "valid"])
def test_empty_split_cannot_be_trained_on(
    tecafn_command: Command, tiny_toml: Path, make_store: MakeStore, tmp_path: Path, split: str
) -> None:
    store = make_store(tmp_path / "store", sizes={"train": 8, "valid": 4, "test": 4} | {split: 0})
    out = tmp_path / "run"
    done = tecafn_command("train", tiny_toml, "--data", store, "--out", out, "--device", "cpu")
    assert_one_line(done, f"split '{split}'", store, "is empty")


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_empty_split_cannot_be_evaluated_or_predicted(
    tecafn_command: Command, run: Path, make_store: MakeStore, tmp_path: Path, command: str
) -> None:
    store = make_store(tmp_path / "store", sizes={"train": 8, "valid": 4, "test": 0})
    out = ["--out", tmp_path / "p.csv"] if command == "predict" else []
    done = tecafn_command(command, run, "--data", store, "--device", "cpu", *out)
    assert_one_line(done, "split 'test'", store, "is empty")
    done = tecafn_command(command, run, "--data", store, "--split", "tset", *out)
    assert_one_line(done, "no split 'tset'", "train (8), valid (4), test (0)")


def test_empty_split_fails_the_check(
    tecafn_command: Command, label_csv: Callable[..., Path]
) -> None:
    done = tecafn_command("data", "check", label_csv("".join(SOUND.splitlines(True)[:2])))
    assert (done.code, done.err) == (1, "")
    assert "error    split: test is empty" in done.out


@pytest.mark.parametrize(
    ("text", "sets", "named"),
    [
        ("[training]\nmax_epoch = 2", [], "'training.max_epoch': did you mean 'max_epochs'"),
        ("mehtod = 'tecafn'", [], "'mehtod': did you mean 'method'"),
        ("", ["training.max_epoch=2"], "'training.max_epoch': did you mean 'max_epochs'"),
        ("", ["model.num_layer=2"], "'model.num_layer': did you mean 'num_layers'"),
        ("method = 'self_mn'", [], "unknown method 'self_mn'"),
        ("", ["method=tecafm"], "unknown method 'tecafm': did you mean 'tecafn'"),
        ("", ["training.max_epochs"], "--set expects key=value"),
        ("", ["training.max_epochs=x"], "training.max_epochs"),
        ("", ["model.num_heads=7"], "num_heads"),
        ("", ["num_trained_text_layers=99"], "at most the encoder's"),
        ("", ["max_text_tokens=129"], "max_text_tokens must be at most 128, the positions"),
        ("= 3", [], "expected a TOML file"),
    ],
)
def test_wrong_config_is_one_line(
    tecafn_command: Command,
    tiny_store: Path,
    tiny_bert: Path,
    tmp_path: Path,
    text: str,
    sets: list[str],
    named: str,
) -> None:
    config, out = tmp_path / "my.toml", tmp_path / "run"
    config.write_text(text, encoding="utf-8")
    chosen = [part for one in (f"text_encoder={tiny_bert}", *sets) for part in ("--set", one)]
    arguments = ["train", config, "--data", tiny_store, "--out", out, "--device", "cpu", "--quiet"]
    assert_one_line(tecafn_command(*arguments, *chosen), named)
    assert not (out / "record.json").exists()


def test_group_of_learning_rates_that_no_phase_has_is_one_line(
    tecafn_command: Command, tiny_store: Path, tiny_toml: Path, tmp_path: Path
) -> None:
    arguments = ["train", tiny_toml, "--data", tiny_store, "--out", tmp_path / "run", "--quiet"]
    arguments += ["--device", "cpu", "--set", "training.learning_rates.mian=1e-3"]
    assert_one_line(tecafn_command(*arguments), "'mian'", "main")


def test_encoder_from_the_hub_without_a_network_says_what_to_do_instead(
    tecafn_command: Command, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An empty cache, and no way out.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    done = tecafn_command(
        *("train", "mosi/tecafn.toml", "--data", tiny_store, "--out", tmp_path / "run"),
        *("--device", "cpu", "--quiet"),
    )
    assert_one_line(done, "'bert-base-uncased'", "no network?", "text_encoder=minilm")


def test_device_that_is_not_there_is_one_line(
    tecafn_command: Command,
    tiny_store: Path,
    tiny_toml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = ["train", tiny_toml, "--data", tiny_store, "--out", tmp_path / "run"]
    assert_one_line(tecafn_command(*arguments, "--device", "cuda"), "no CUDA device")
    assert_one_line(tecafn_command(*arguments, "--device", "tpu"), "auto, cpu, cuda", "'tpu'")


def test_place_that_cannot_be_written_is_one_line(
    tecafn_command: Command,
    tiny_store: Path,
    tiny_toml: Path,
    tiny_run: Path,
    label_csv: Callable[..., Path],
    tmp_path: Path,
) -> None:
    # Nothing can be made below a file, not even by root.
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    for arguments in (
        ["train", tiny_toml, "--data", tiny_store, "--device", "cpu"],
        ["train", tiny_toml, "--data", tiny_store, "--device", "cpu", "--cross-validate", "video"],
        ["predict", tiny_run, "--data", tiny_store, "--device", "cpu"],
        ["data", "import", label_csv()],
        ["data", "make", "--train", 3, "--valid", 3, "--test", 3],
        ["demo"],
    ):
        done = tecafn_command(*arguments, "--out", out)
        assert_one_line(done, out)
    done = tecafn_command("predict", tiny_run, "--data", tiny_store, "--out", tmp_path)
    assert_one_line(done, tmp_path, "Is a directory")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_is_one_line(tecafn_command: Command, tiny_run: Path, tiny_store: Path) -> None:
    done = tecafn_command("predict", tiny_run, "--data", tiny_store, "--out", "/dev/full")
    assert_one_line(done, "/dev/full", "No space left on device")


def test_permission_and_disk_errors_that_nobody_explained_are_one_line(
    tecafn_command: Command, tiny_run: Path, tiny_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As root nothing is forbidden, so the system's answer is made here.
    import tecafn.experiments.evaluate as evaluate_module

    for error, named in (
        (PermissionError(13, "Permission denied", "some/place"), "some/place: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ):

        def fail(*arguments: Any, error: OSError = error, **options: Any) -> None:
            raise error

        monkeypatch.setattr(evaluate_module, "predict_source", fail)
        done = tecafn_command("predict", tiny_run, "--data", tiny_store, "--out", "p.csv")
        assert_one_line(done, named)


# Everything else


def test_check_tells_sound_data_from_unsound(
    tecafn_command: Command, label_csv: Callable[..., Path], tiny_store: Path
) -> None:
    assert tecafn_command("data", "check", tiny_store).code == 0
    done = tecafn_command("data", "check", label_csv(), "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["exit_code"] == 0
    unsound = label_csv(SOUND + "a,2,awful,1,test\n")
    done = tecafn_command("data", "check", unsound, "--json")
    assert (done.code, done.err) == (1, "")
    told = json.loads(done.out)
    assert told["exit_code"] == 1
    assert told["rows"][0]["message"] == "1 in two splits: 'a'"


def test_debug_shows_a_traceback_and_nothing_else_does(
    tecafn_command: Command, tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone")
    for arguments in (["--debug", "data", "check", gone], ["data", "check", gone, "--debug"]):
        with pytest.raises(UserError, match="no such file"):
            main(arguments)
    assert_one_line(tecafn_command("data", "check", gone), gone)


def test_debug_of_a_process_ends_with_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tecafn", "data", "check", str(tmp_path / "gone")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: no such file or directory: {tmp_path / 'gone'}\n"
    done = subprocess.run(
        [*command, "--debug"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")


def test_fault_of_ours_is_told_from_a_users_mistake(
    tecafn_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("tecafn.list_methods", broken)
    done = tecafn_command("list", "methods")
    assert done.code == 1
    assert done.err == "unexpected RuntimeError: a fault of ours (--debug shows where)\n"
    with pytest.raises(RuntimeError):
        main(["list", "methods", "--debug"])


def test_interrupted_command_says_how_to_go_on(
    tecafn_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tecafn.list_methods", interrupted)
    done = tecafn_command("list", "methods")
    assert done.code == 130
    assert done.err == "interrupted; --resume continues a run\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_that_closes_the_pipe_gets_no_traceback(unbuffered: str) -> None:
    code = (
        "import sys\nfrom tecafn.cli import main\n"
        "sys.stdin.read()\nsys.exit(main(['list', 'configs']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()  # nobody reads
    process.stdout = None
    _, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (1, b"")


def test_main_takes_the_arguments_of_the_process_by_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tecafn", "list", "configs"])
    assert tecafn.cli.main() == 0
    assert "synthetic/tecafn.toml" in capsys.readouterr().out


# Comparing methods


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--methods", "tecafm"), ("unknown method 'tecafm'", "did you mean 'tecafn'?")),
        (("--seeds", "0"), ("seeds must be >= 1, got 0",)),
        (("--jobs", "0"), ("jobs must be >= 1, got 0",)),
        (("--set", "seed=1"), ("--set 'seed=1'", "--seeds")),
        (("--configs", "nowhere"), ("no configs 'nowhere'", "mosi")),
        (("--set", "text_encoder=./nowhere"), ("no method can be trained", "'./nowhere'")),
        (("--configs", "mosi", "--set", "training.batchsize=1"), ("'training.batchsize'",)),
        (("--configs", "mosi", "--split", "train2"), ("train2",)),
    ],
)
def test_a_comparison_that_cannot_begin_is_one_line(
    tecafn_command: Command,
    tiny_store: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    named: tuple[str, ...],
) -> None:
    out = tmp_path / "comparison"
    done = tecafn_command("compare", "--data", tiny_store, "--out", out, *options)
    assert_one_line(done, *named)
    assert not out.exists()


@pytest.mark.parametrize("option", ["--processes", "--threads"])
def test_a_reproduction_names_the_option_that_cannot_be(
    tecafn_command: Command, tiny_store: Path, tmp_path: Path, option: str
) -> None:
    out = tmp_path / "out"
    done = tecafn_command("reproduce", "table6", "--data", tiny_store, "--out", out, option, "0")
    assert_one_line(done, option, "greater than or equal to 1")
    assert not out.exists()


def test_a_comparison_without_results_says_what_is_open_and_fails(
    tecafn_command: Command, tiny_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "comparison"
    done = tecafn_command(
        *("compare", "--data", tiny_store, "--out", out, "--configs", "synthetic"),
        *("--methods", "concat, tecafn", "--seeds", "2", "--tables-only"),
    )
    assert (done.code, done.err) == (1, "")
    assert "Open: concat (seed 0, 1); tecafn (seed 0, 1)." in done.out
    assert done.out.splitlines()[-1].startswith(f"tables: {out / 'comparison.html'}")
    assert {path.suffix for path in out.glob("comparison.*")} == {
        ".json", ".md", ".csv", ".tex", ".html"
    }  # fmt: skip


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_with_the_same_command(
    make_store: MakeStore, tmp_path: Path, tiny_bert: Path
) -> None:
    store = make_store(tmp_path / "store", sizes={"train": 200, "valid": 12})
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "concat.toml").write_text(
        f"method = 'concat'\ntext_encoder = '{tiny_bert}'\n"
        "[model]\ndim = 10\nnum_unimodal_layers = 1\nunimodal_hidden_dim = 8\n"
        "[training]\nmax_epochs = 12\npatience = 12\nbatch_size = 4\n"
    )
    out = tmp_path / "comparison"
    command = [
        *(sys.executable, "-m", "tecafn", "compare", "--data", str(store), "--out", str(out)),
        *("--configs", str(configs), "--methods", "concat", "--seeds", "2", "--device", "cpu"),
        *("--jobs", "2", "--threads", "1"),
    ]
    checkpoints = [out / "concat" / f"seed-{seed}" / "checkpoints" for seed in (0, 1)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 120
        while not all(any(c.glob("*")) for c in checkpoints) and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=600)
    assert process.returncode == 130, (output, errors)
    assert errors.decode().splitlines()[-1] == "interrupted; the same command continues"
    assert "Open: concat (seed 0, 1)" in (out / "comparison.md").read_text(encoding="utf-8")
    # Nothing is left running: the directories can be locked, and the same command goes on.
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    assert "[2/2]" in done.stderr
    for seed in (0, 1):
        events = (out / "concat" / f"seed-{seed}" / "events.jsonl").read_text().splitlines()
        epochs = [json.loads(line) for line in events if '"event": "epoch"' in line]
        numbers = [event["epoch"] for event in epochs]
        assert sorted(set(numbers)) == list(range(12))
        assert (out / "concat" / f"seed-{seed}" / "record.json").exists()
