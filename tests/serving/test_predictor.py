"""A trained network that anybody can use: saved, loaded, pushed, and asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.hub_mixin
import numpy as np
import pytest
import torch
from saved import read_rows

import tecafn
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.weights import save_module
from tecafn.data.store import SplitView, Store
from tecafn.experiments.evaluate import evaluate_run
from tecafn.serving.predictor import ModelDefinition, Predictor, load, load_export

pytestmark = pytest.mark.usefixtures("no_fsync")

AUDIO, VISION = np.ones((3, 5), np.float32), np.ones((4, 20), np.float32)


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run that may be written to."""
    return shutil.copytree(tiny_run, tmp_path / "run-copy")


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> Predictor:
    return load(tiny_run)


@pytest.fixture(scope="module")
def view(tiny_store: Path) -> SplitView:
    return Store.open(tiny_store).split("test")


def frames(view: SplitView, modality: Modality) -> list[np.ndarray]:
    return [view.sequence(row, modality) for row in range(len(view))]


def everything(view: SplitView) -> dict[str, Any]:
    return {
        "text": view.texts,
        "audio": frames(view, Modality.AUDIO),
        "vision": frames(view, Modality.VISION),
    }


# Prediction


def test_answers_are_the_evaluations(predictor: Predictor, view: SplitView, run: Path) -> None:
    evaluate_run(run, data=_store_of(view), split="test", device="cpu")
    rows = read_rows(run / "predictions" / "test.csv")
    answers = predictor.predict(**everything(view))
    assert answers.shape == (12,)
    assert answers.dtype == np.float64
    assert [float(row["prediction"]) for row in rows] == pytest.approx(answers.tolist(), abs=1e-5)


def _store_of(view: SplitView) -> Path:
    return view._shards[Modality.AUDIO]._folder.parent


def test_sample_alone_is_predicted_as_among_others(predictor: Predictor, view: SplitView) -> None:
    given = everything(view)
    together = predictor.predict(**given)
    for row in range(len(view)):
        alone = predictor.predict(
            given["text"][row], audio=given["audio"][row], vision=given["vision"][row]
        )
        assert alone.shape == (1,)
        assert alone[0] == pytest.approx(together[row], abs=1e-5)


def test_more_samples_than_one_batch_keep_their_order(predictor: Predictor) -> None:
    texts = [f"the film was {word}" for word in ("good", "bad", "not very great", "i")] * 40
    answers = predictor.predict(texts)
    assert answers.shape == (160,)
    assert answers.tolist() == pytest.approx((answers[:4].tolist()) * 40, abs=1e-5)
    assert len(set(np.round(answers[:4], 6))) == 4


def test_scores_stay_on_the_labels_scale(predictor: Predictor, view: SplitView) -> None:
    given = everything(view) | {"audio": [1e6 * a for a in frames(view, Modality.AUDIO)]}
    assert np.abs(predictor.predict(**given)).max() <= 3


def test_none_is_an_absent_modality_for_one_sample_or_for_all(
    predictor: Predictor, view: SplitView
) -> None:
    given = everything(view)
    audio = [given["audio"][0], None]
    mixed = predictor.predict(given["text"][:2], audio=audio, vision=[None, None])
    first = predictor.predict(given["text"][0], audio=given["audio"][0])
    second = predictor.predict(given["text"][1])
    assert mixed.tolist() == pytest.approx([first[0], second[0]], abs=1e-5)
    whole = predictor.predict(given["text"][0], audio=given["audio"][0], vision=given["vision"][0])
    assert abs(first[0] - whole[0]) > 1e-6


def test_blank_text_and_empty_frames_are_absent(predictor: Predictor) -> None:
    answers = predictor.predict(["", "  ", None, "good"], audio=[AUDIO] * 4)
    assert answers[:3].tolist() == pytest.approx([answers[0]] * 3, abs=1e-6)
    assert abs(answers[3] - answers[0]) > 1e-6
    empty = predictor.predict("good", audio=np.empty((0, 5)))
    assert empty[0] == pytest.approx(predictor.predict("good")[0], abs=1e-6)


def test_frames_of_nothing_but_nan_are_absent(predictor: Predictor) -> None:
    answer = predictor.predict("good", audio=np.full((3, 5), np.nan))
    assert answer == pytest.approx(predictor.predict("good"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_frames_with_nan_or_infinity_are_masked(
    predictor: Predictor, view: SplitView, bad: float
) -> None:
    audio = [view.sequence(0, Modality.AUDIO).copy() for _ in range(2)]
    audio[0][1, 2] = bad
    audio[1][1] = bad
    one, other = predictor.predict(["good", "good"], audio=audio)
    assert np.isfinite(one)
    assert one == pytest.approx(other, abs=1e-6)
    assert abs(one - predictor.predict("good", audio=view.sequence(0, Modality.AUDIO))[0]) > 1e-7


def test_arrays_may_be_lists_tensors_or_of_another_type(predictor: Predictor) -> None:
    random = np.random.default_rng(0).normal(size=(3, 5))
    expected = predictor.predict("good", audio=random)
    for audio in (
        torch.from_numpy(random),
        random.astype(np.float32),
        [random],
        [random.tolist()],
        random[None],
        [torch.from_numpy(random)],
    ):
        assert predictor.predict("good", audio=audio) == pytest.approx(expected, abs=1e-6)


def test_given_arrays_are_not_changed(predictor: Predictor) -> None:
    audio = np.full((3, 5), np.nan, np.float32)
    audio[0] = 1
    before = audio.copy()
    audio.flags.writeable = False
    predictor.predict("good", audio=audio)
    np.testing.assert_array_equal(audio, before)


def test_no_samples_give_no_answers(predictor: Predictor) -> None:
    assert predictor.predict([]).shape == (0,)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "nothing to predict from; this model takes text, audio, vision"),
        ({"text": None, "audio": None}, "nothing to predict from"),
        (
            {"text": "a", "audio": np.ones((3, 6))},
            r"sample 0 must be \(L, 5\) .* \(3, 6\)",
        ),
        (
            {"text": "a", "vision": [np.ones(20)]},
            r"sample 0 must be \(L, 20\) .* \(20,\)",
        ),
        (
            {"text": "a", "audio": np.ones(5)},
            r"audio of sample 0 must be \(L, 5\) .* \(5,\)",
        ),
        ({"text": "a", "audio": 5.0}, "audio must be one sample or a list of them, got a float"),
        (
            {"text": "a", "audio": [[[1.0] * 5, [1.0]]]},
            r"audio of sample 0 must be \(L, 5\) numbers",
        ),
        ({"text": "a", "audio": [["x"]]}, r"audio of sample 0 must be \(L, 5\) numbers"),
        ({"text": ["a", "b"], "audio": AUDIO}, "one number of samples .*'text': 2, 'audio': 1"),
        ({"text": ["a", 3]}, "text of sample 1 must be a string, .* got an int"),
        ({"text": 3}, "text must be one sample or a list of them, got an int"),
        ({"text": b"good"}, "text of sample 0 must be a string, .* got a bytes"),
        ({"text": ["a", "b"], "context": ["c"]}, "context must be one for each text, got 1 for 2"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(
    predictor: Predictor, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        predictor.predict(**given)
    assert "\n" not in str(caught.value)


def test_context_is_read_where_it_is_given(predictor: Predictor) -> None:
    alone, after = (
        predictor.predict("good", context=context)[0] for context in (None, "the film was bad")
    )
    assert abs(alone - after) > 1e-7
    mixed = predictor.predict(["good", "good"], context=[None, "the film was bad"])
    assert mixed[1] == pytest.approx(after, abs=1e-6)


def test_long_text_is_cut_not_refused(predictor: Predictor, run: Path) -> None:
    config = run / "model" / "config.json"
    values = json.loads(config.read_text())
    assert values["max_text_tokens"] == 128
    values["max_text_tokens"] = 8
    config.write_text(json.dumps(values))
    short = load(run)
    with pytest.warns(UserWarning, match="text of 2 of 2 samples is cut at max_text_tokens 8"):
        one, other = short.predict(["good " * 6 + "bad", "good " * 60])
    assert one == pytest.approx(other, abs=1e-6)
    one, other = predictor.predict(["good " * 6 + "bad", "good " * 6])
    assert abs(one - other) > 1e-7


@pytest.mark.parametrize(
    ("modalities", "takes"),
    [('["text"]', ("text",)), ('["audio", "vision"]', ("audio", "vision"))],
)
def test_model_of_some_modalities_does_not_look_at_others(
    train_tiny: Callable[..., Any], tmp_path: Path, modalities: str, takes: tuple[str, ...]
) -> None:
    train_tiny("some", f"modalities={modalities}", "training.max_epochs=1")
    some = load(tmp_path / "some")
    assert some.takes == takes
    given: dict[str, Any] = {"text": "good", "audio": AUDIO, "vision": VISION}
    own = {name: value for name, value in given.items() if name in takes}
    unused = {name: value for name, value in given.items() if name not in takes}
    assert some.predict(**given, ignore_unused=True) == pytest.approx(some.predict(**own))
    told = (
        f"was not trained with {' and '.join(unused)}, it takes {', '.join(takes)}; leave it out, "
        "or in Python"
    )
    for wrong in (given, unused):
        with pytest.raises(UserError, match=told):
            some.predict(**wrong)
    with pytest.raises(UserError, match=f"this model takes {', '.join(takes)}$"):
        some.predict(**unused, ignore_unused=True)


def test_two_classes_give_the_probability_of_the_second(
    train_tiny: Callable[..., Any], make_store: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_store(tmp_path / "store", task="classification")
    train_tiny("run", "training.monitor=accuracy", "training.max_epochs=1", data=data)
    classifier = load(tmp_path / "run")
    view = Store.open(data).split("valid")
    answers = classifier.predict(**everything(view))
    rows = read_rows(tmp_path / "run" / "predictions" / "valid.csv")
    assert [float(row["prediction"]) for row in rows] == pytest.approx(answers.tolist(), abs=1e-5)
    assert ((answers > 0) & (answers < 1)).all()


# Export


def test_saved_and_loaded_predictor_gives_equal_predictions(
    predictor: Predictor, view: SplitView, tmp_path: Path
) -> None:
    expected = predictor.predict(**everything(view))
    predictor.save_pretrained(tmp_path / "one")
    again = Predictor.from_pretrained(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")
    for one in (again, Predictor.from_pretrained(str(tmp_path / "two")), load(tmp_path / "two")):
        assert np.array_equal(one.predict(**everything(view)), expected)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_definition_survives_its_file(predictor: Predictor) -> None:
    values = json.loads(json.dumps(predictor.definition.as_dict()))
    again = ModelDefinition.from_dict(values)
    assert again.as_dict() == predictor.definition.as_dict()
    assert again.config == predictor.definition.config


def test_load_needs_neither_the_text_encoders_folder_nor_its_weights(
    train_tiny: Callable[..., Any],
    make_bert: Callable[..., Path],
    tmp_path: Path,
    view: SplitView,
) -> None:
    encoder = make_bert(tmp_path / "bert")
    for name, trained in (("trained", "all"), ("frozen", "0")):
        overrides = [f"text_encoder={encoder}", f"num_trained_text_layers={trained}"]
        data = _copy(_store_of(view), tmp_path / name)
        train_tiny(name, *overrides, "training.max_epochs=1", data=data)
    expected = {name: load(tmp_path / name).predict(view.texts) for name in ("trained", "frozen")}
    shutil.rmtree(encoder)
    for name, answers in expected.items():
        assert np.array_equal(load(tmp_path / name).predict(view.texts), answers)


def _copy(store: Path, where: Path) -> Path:
    """A store that may be written to: frozen layers leave a cache beside it."""
    return shutil.copytree(store, where.with_name(f"{where.name}-store"))


def test_export_alone_loads_from_anywhere(run: Path, tmp_path: Path, view: SplitView) -> None:
    expected = load(run).predict(view.texts)
    moved = shutil.move(run / "model", tmp_path / "elsewhere")
    shutil.rmtree(run)
    assert np.array_equal(load(moved).predict(view.texts), expected)
    assert np.array_equal(tecafn.load(str(moved)).predict(view.texts), expected)


def test_predictor_moves_to_a_device(run: Path) -> None:
    loaded = load(run)
    assert loaded.to("cpu") is loaded
    assert loaded.device == torch.device("cpu")
    assert not loaded.network.training


def _edit(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = run / "model" / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda v: v.pop("format_version"), "format_version must be 1, got None"),
        (lambda v: v.update(format_version=2), "format_version must be 1, got 2"),
        (lambda v: v.update(method="tecafm"), "unknown method 'tecafm': did you mean 'tecafn'"),
        (lambda v: v.update(method=[]), r"unknown method '\[\]'"),
        (lambda v: v.pop("method"), "damaged: it lacks 'method'"),
        (lambda v: v.pop("settings"), "damaged: it lacks 'settings'"),
        (lambda v: v.update(settings=3), "config.json is damaged"),
        (lambda v: v["settings"].update(num_layers="many"), "config.json is damaged.*num_layers"),
        (lambda v: v["settings"].update(num_heads=3), "num_heads"),
        (lambda v: v["settings"].update(dim=20), "does not fit: parameter .* expected shape"),
        (lambda v: v["data"].update(widths={"audio": 6, "vision": 20}), "does not fit"),
        (lambda v: v["data"].update(modalities=["smell"]), "config.json is damaged"),
        (lambda v: v.update(max_text_tokens="x"), "config.json is damaged"),
        (lambda v: v.update(data=None), "config.json is damaged"),
    ],
)
def test_damaged_definition_is_one_line(run: Path, change: Any, told: str) -> None:
    _edit(run, change)
    with pytest.raises(UserError, match=told) as caught:
        load(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3", b"[" * 100_000])
@pytest.mark.parametrize("read", [load, Predictor.from_pretrained])
def test_config_that_is_no_definition_is_one_line(run: Path, content: bytes, read: Any) -> None:
    (run / "model" / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json|format_version"):
        read(run / "model")


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 100])
def test_damaged_weights_are_one_line(run: Path, content: bytes) -> None:
    weights = run / "model" / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (content, whole[: len(whole) // 2], whole[:-1]):
        weights.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot read weights .*model\.safetensors") as caught:
            load(run)
        assert "\n" not in str(caught.value)
    weights.unlink()
    with pytest.raises(UserError, match=r"cannot read weights .*model\.safetensors"):
        load(run)


def test_weights_of_another_network_are_one_line(run: Path) -> None:
    save_module(torch.nn.Linear(2, 3), run / "model" / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors lacks parameter"):
        load(run)


def test_export_without_its_text_encoder_is_one_line(run: Path) -> None:
    shutil.rmtree(run / "model" / "text_encoder")
    with pytest.raises(UserError, match="text_encoder"):
        load(run)


def test_folder_that_holds_no_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected an exported model with config\.json"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"expected an exported model with config\.json"):
        load_export(tmp_path / "nothing")


# The hub


class Hub:
    """In place of ``HfApi``: keeps what would be uploaded."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.repositories: list[str] = []

    def __call__(self, **options: Any) -> Hub:
        return self

    def create_repo(self, *, repo_id: str, **options: Any) -> Any:
        self.repositories.append(repo_id)
        return type("RepoUrl", (), {"repo_id": repo_id})()

    def upload_folder(self, *, repo_id: str, folder_path: str, **options: Any) -> str:
        assert repo_id in self.repositories
        folder = Path(folder_path)
        self.files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        return "commit"


def test_push_uploads_what_a_load_needs(
    predictor: Predictor, view: SplitView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", hub)
    predictor.push_to_hub("somebody/tiny")
    assert hub.repositories == ["somebody/tiny"]
    assert {"config.json", "model.safetensors", "README.md"} <= hub.files.keys()
    assert "text_encoder/tokenizer.json" in hub.files
    assert b"library_name: tecafn" in hub.files["README.md"]
    assert b"multimodal-sentiment-analysis" in hub.files["README.md"]
    for name, content in hub.files.items():
        path = tmp_path / "downloaded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    # What the hub would give back, fetched by name.
    fetched = []

    def download(repo_id: str, **options: Any) -> str:
        fetched.append((repo_id, options["revision"], options["allow_patterns"]))
        return str(tmp_path / "downloaded")

    monkeypatch.setattr("tecafn.serving.predictor.snapshot_download", download)
    loaded = load("somebody/tiny", revision="v1")
    assert np.array_equal(loaded.predict(view.texts), predictor.predict(view.texts))
    ((name, revision, patterns),) = fetched
    assert (name, revision) == ("somebody/tiny", "v1")
    # No pickle is asked for.
    assert patterns == [
        "config.json",
        "model.safetensors",
        "calibration.json",
        "text_encoder/*.json",
        "text_encoder/*.txt",
        "text_encoder/*.model",
    ]


@pytest.mark.parametrize(
    "name", ["somebody/nothing", "not a name", "a/b/c", "runs/gone", "/nowhere/at/all", ""]
)
def test_wrong_name_without_a_network_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_offline_by_environment_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    code = (
        "import tecafn\n"
        "try:\n    tecafn.load('somebody/nothing')\n"
        "except tecafn.UserError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith("somebody/nothing: no such directory, and no such model could be")


# The text encoder that the package carries


def test_minilm_loads_tokenises_and_is_of_its_published_size() -> None:
    from tecafn.core.info import TextEncoderSpec
    from tecafn.layers.text_encoder import TextEncoder, Tokenizer

    encoder = TextEncoder(TextEncoderSpec(num_trained_layers=0))
    assert encoder.hidden_dim == 384
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(22.6e6, rel=0.02)
    ids = Tokenizer("minilm")(["The plot was thin, but I loved it."])[0]
    assert ids[0] == 101
    assert ids[-1] == 102
