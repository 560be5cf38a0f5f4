"""A run on the hub: what is shared, what the card says, and that loading executes nothing."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

import tecafn
from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.experiments import sharing
from tecafn.experiments.evaluate import evaluate_run
from tecafn.records.record import file_hash, read_record, write_record
from tecafn.serving.predictor import load

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture(scope="module")
def run(tiny_run: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated on test."""
    copy = shutil.copytree(tiny_run, tmp_path_factory.mktemp("shared") / "run")
    evaluate_run(copy, data=tiny_store, split="test", device="cpu")
    return copy


class Hub:
    """In place of ``HfApi`` and the download: repositories with commits."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.commits = folder, 0
        self.private: dict[str, bool] = {}

    def __call__(self, **options: Any) -> Hub:
        return self

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.private[repo_id] = private

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        assert commit_message
        self.commits += 1
        oid = f"{self.commits:040x}"
        shutil.copytree(folder_path, self.folder / repo_id / oid)
        return type("CommitInfo", (), {"oid": oid})()

    def download(self, repo_id: str, *, revision: str | None, **options: Any) -> str:
        return str(self.folder / repo_id / (revision or f"{self.commits:040x}"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr(sharing, "HfApi", made)
    monkeypatch.setattr("tecafn.serving.predictor.snapshot_download", made.download)
    monkeypatch.setattr("tecafn.serving.predictor.hub_options", lambda name: {})
    return made


def test_a_pushed_run_is_loaded_at_its_commit(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = tecafn.push_to_hub(run, "somebody/tiny", private=True)
    assert hub.private == {"somebody/tiny": True}
    expected = load(run).predict("the film was good")
    capsys.readouterr()
    for model in (load("somebody/tiny", revision=commit), load(f"somebody/tiny@{commit}")):
        assert model.predict("the film was good") == pytest.approx(expected)
    assert capsys.readouterr().err == ""
    load("somebody/tiny")
    assert f"somebody/tiny@{commit} pins it" in capsys.readouterr().err
    with pytest.raises(UserError, match="names a revision"):
        load(f"somebody/tiny@{commit}", revision="main")


def test_what_is_shared_names_no_folder_of_this_machine(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shared"
    assert main(["push", str(run), "a/b", "--dry-run", str(out), "--licence", "mit"]) == 0
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"README.md", "config.json", "model.safetensors"} <= names
    assert "record.json" not in names
    assert "text_encoder/tokenizer.json" in names
    assert str(run.parent) not in (out / "README.md").read_text(encoding="utf-8")
    assert main(["push", str(run), "a/b", "--dry-run", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_card_says_what_the_record_says(run: Path) -> None:
    record = read_record(run)
    card = sharing.card_of(run, licence="cc-by-nc-4.0")
    assert "\nlicense: cc-by-nc-4.0\n" in card.split("---")[1]
    evaluation = record["evaluations"]["test"]
    low, high = evaluation["intervals"]["mae"] or (None, None)
    assert f"| {evaluation['metrics']['mae']:.3f} | {low:.3f} to {high:.3f} |" in card
    for said in (
        f"`{record['data']['hash']}`",
        f"`{file_hash(run / 'record.json')}`",
        f"best epoch: {record['training']['best_epoch']} of {record['training']['epochs']}",
        f"torch {record['versions']['torch']}",
        "test: 12 samples",
        "| data tiny | not known to tecafn",
        "## Limits",
        record["paper"],
    ):
        assert said in card, said
    assert "not stated by their owner" in sharing.card_of(run)
    assert "license:" not in sharing.card_of(run).split("---")[1]


def test_a_card_keeps_the_errors_that_were_allowed(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    record = read_record(copy)
    record["data"]["allowed_errors"] = [{"name": "leak", "message": "3 videos are in two splits"}]
    write_record(copy, record)
    assert "3 videos are in two splits" in sharing.card_of(copy)


class Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('a pickle was executed')",))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "pytorch_model.bin", "text_encoder/tokenizer.pkl", "modeling.py"]
)
def test_a_pickle_or_a_program_in_a_model_is_refused_and_not_executed(
    run: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(run / "model", tmp_path / "model")
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError) as caught:
        load(folder)
    assert name.rpartition("/")[2] in str(caught.value)
    with pytest.raises(UserError):
        sharing.collect(_run_with(run, folder, tmp_path), tmp_path / "out")


def _run_with(run: Path, model: Path, tmp_path: Path) -> Path:
    changed = tmp_path / "changed"
    changed.mkdir()
    shutil.copyfile(run / "record.json", changed / "record.json")
    shutil.copytree(model, changed / "model")
    return changed


def test_code_that_an_encoder_names_is_not_fetched(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run / "model", tmp_path / "model")
    path = folder / "text_encoder" / "config.json"
    named = "somebody/else--modeling.Model"
    values = json.loads(path.read_text(encoding="utf-8"))
    values |= {"auto_map": {"AutoConfig": named, "AutoModel": named}, "model_type": "unheard_of"}
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError):
        load(folder)
