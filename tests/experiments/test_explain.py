"""Explanations: they add up, name words and frames, and show the partners that the gate draws."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tecafn.cli import main
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.store import Store
from tecafn.experiments.evaluate import evaluate_run, open_run
from tecafn.experiments.explain import explain_run, lines_of
from tecafn.experiments.setup import open_device
from tecafn.layers.attention import MultiHeadAttention
from tecafn.losses.contrastive import info_nce
from tecafn.losses.negatives import sample_hard_negatives
from tecafn.serving.attention import cross_attention
from tecafn.serving.predictor import load

pytestmark = pytest.mark.usefixtures("no_fsync")
AUDIO, VISION = Modality.AUDIO, Modality.VISION


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("explain") / "run")


@pytest.mark.parametrize("masked", [False, True])
def test_weights_are_those_that_forward_uses(masked: bool) -> None:
    torch.manual_seed(0)
    layer = MultiHeadAttention(8, num_heads=2, dropout=0.5).double().eval()
    query, source = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
    mask = torch.tensor([[True, True, False, True, False], [True] * 5]) if masked else None
    weights = layer.weights(query, source, mask)
    assert weights.shape == (2, 2, 3, 5)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 3).double())
    values = layer._heads(layer.key_value(source).chunk(2, dim=-1)[1])
    expected = layer.output((weights @ values).transpose(1, 2).flatten(2))
    assert torch.allclose(layer(query, source, mask), expected, atol=1e-12)
    if mask is not None:
        assert bool((weights[0][..., ~mask[0]] == 0).all())


def test_a_model_of_the_package_is_explained_in_a_folder_of_another_name(
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        found = explain_run(Path("builtin"), data=tiny_store, device="cpu")
        assert found.folder == Path("explain-builtin/explanation-valid")
        assert (tmp_path / found.folder / "explanation.csv").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["explain-builtin"]
    assert "is the model of the package" not in capsys.readouterr().err


def test_a_splits_contributions_add_up_to_its_predictions(run: Path, tiny_store: Path) -> None:
    found = explain_run(run, data=tiny_store, device="cpu")
    view = Store.open(tiny_store).split("valid")
    assert list(found.ids) == view.ids
    with (run / "explanation-valid" / "explanation.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == view.ids
    with (run / "predictions" / "valid.csv").open(encoding="utf-8") as file:
        predicted = {row["id"]: float(row["prediction"]) for row in csv.DictReader(file)}
    for row in rows:
        total = float(row["base"]) + sum(float(row[m]) for m in Modality)
        assert total == pytest.approx(float(row["prediction"]), abs=1e-5)
        assert float(row["prediction"]) == pytest.approx(predicted[row["id"]], abs=1e-5)
    assert {"text+audio", "text+vision", "audio+vision"} < set(rows[0])


def test_a_sample_shows_each_word_over_the_frames_that_it_has(run: Path, tiny_store: Path) -> None:
    view = Store.open(tiny_store).split("valid")
    found = explain_run(run, data=tiny_store, sample=view.ids[3], device="cpu")
    sample = found.sample
    assert sample is not None
    assert sample.attention is not None
    assert sample.gate is None
    for modality in (AUDIO, VISION):
        attention = sample.attention[modality]
        assert attention.core == tuple(view.texts[3].split())
        assert attention.frames.tolist() == list(range(len(view.sequence(3, modality))))
        assert attention.weights.sum(1) == pytest.approx(np.ones(len(attention.core)), abs=1e-5)
        assert np.ptp(attention.weights) > 0
    saved = json.loads(next((run / "explanation-valid").glob("*.json")).read_text("utf-8"))
    assert saved["attention"]["audio"]["core"] == view.texts[3].split()
    assert saved["prediction"] == pytest.approx(float(found.contributions.full[3]))
    assert any("attention to audio" in line for line in lines_of(found))


def test_a_words_weights_are_the_mean_of_its_tokens(
    train_tiny: Callable[..., Any], make_store: Callable[..., Path], tmp_path: Path
) -> None:
    """A word that the tokenizer does not know as one, beside one that it does."""
    store = make_store(tmp_path / "store")
    train_tiny("run", "training.max_epochs=1", data=store)
    opened = open_run(tmp_path / "run", store, "valid", open_device("cpu"))
    text = "good film-great"  # five tokens: [CLS] good film - great [SEP] without the last
    opened.view.texts[0] = text
    (batch,) = opened.predictor.batches([text], audio=[opened.view.sequence(0, AUDIO)])
    from tecafn.experiments.explain import attention_of

    found = attention_of(opened, batch, 0)[AUDIO]
    assert found.core == ("good", "film-great")
    weights = cross_attention(opened.predictor, batch)[AUDIO][0].mean((0, 1))
    assert opened.predictor.tokenizer is not None
    (spans,) = opened.predictor.tokenizer.spans([text])
    of_second = [k for k, (start, _) in enumerate(spans.tolist()) if start >= 5]
    assert len(of_second) > 1
    assert found.weights[1] == pytest.approx(weights[of_second].mean(0).numpy(), abs=1e-6)


def test_partners_are_those_that_the_gate_would_draw(run: Path, tiny_store: Path) -> None:
    view = Store.open(tiny_store).split("train")
    found = explain_run(run, data=tiny_store, split="train", sample=view.ids[5], device="cpu")
    assert found.sample is not None
    gate = found.sample.gate
    assert gate is not None
    from tecafn.experiments.trained_scheme import best_weights, trained_scheme

    opened = open_run(run, tiny_store, "train", open_device("cpu"))
    scheme: Any = trained_scheme(
        run, load(run), weights=best_weights(run), precision="32-true"
    ).eval()
    (batch,) = opened.source.batches(0)
    with torch.no_grad():
        of_batch = scheme.keys(batch)
    for modality, (query, key, both) in of_batch.items():
        contrast = info_nce(query, key, present=both, temperature=0.1)
        drawn = set()
        for epoch in range(60):
            pairing = sample_hard_negatives(
                contrast.similarity, batch.index, positive=contrast.positive,
                candidates=contrast.candidates, swap_probability=1.0, num_hard_negatives=3,
                seed=0, epoch=epoch, stream=0,
            )  # fmt: skip
            row = batch.index.tolist().index(5)
            drawn.add(view.ids[int(batch.index[pairing.column[row]])])
        shown = gate[modality]
        assert {partner.id for partner in shown.partners} == drawn
        assert shown.probability == 0.7
        ranked = [partner.similarity for partner in shown.partners]
        assert ranked == sorted(ranked, reverse=True)
        first = view.ids.index(shown.partners[0].id)
        assert shown.partners[0].text == view.texts[first]
        assert shown.partners[0].label == pytest.approx(view.labels[first])
        place = batch.index.tolist().index(first)
        assert ranked[0] == pytest.approx(contrast.similarity[row, place].item(), abs=1e-5)


def test_any_method_is_explained_and_another_core_names_frames(
    train_tiny: Callable[..., Any], tiny_store: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    toml = tmp_path / "concat.toml"
    toml.write_text(
        f"method = 'concat'\ntext_encoder = '{tiny_bert}'\n[training]\nmax_epochs = 1\n"
    )
    line = ["train", str(toml), "--data", str(tiny_store), "--device", "cpu", "--quiet"]
    assert main([*line, "--out", str(tmp_path / "concat")]) == 0
    sample = Store.open(tiny_store).split("valid").ids[0]
    found = explain_run(tmp_path / "concat", data=tiny_store, sample=sample, device="cpu")
    assert found.sample is not None
    assert found.sample.attention is None
    assert any("tecafn alone" in line for line in lines_of(found))
    train_tiny("aecafn", "model.core='audio'", "training.max_epochs=1")
    found = explain_run(tmp_path / "aecafn", data=tiny_store, sample=sample, device="cpu")
    assert found.sample is not None
    assert found.sample.attention is not None
    assert set(found.sample.attention) == {Modality.TEXT, VISION}
    assert found.sample.attention[VISION].core[0] == "0"


def test_of_several_classes_each_is_explained(
    train_tiny: Callable[..., Any], make_store: Callable[..., Path], tmp_path: Path
) -> None:
    store = make_store(tmp_path / "store", task="classification")
    train_tiny("run", "training.max_epochs=1", "training.monitor='accuracy'", data=store)
    found = explain_run(tmp_path / "run", data=store, device="cpu")
    of = found.contributions
    assert bool(((of.full >= 0) & (of.full <= 1)).all())
    total = of.base + sum(of.values.values())
    assert total == pytest.approx(of.full, abs=1e-6)


def test_the_test_split_is_explained_after_it_was_evaluated(
    tiny_run: Path, tiny_store: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(UserError, match=r"evaluate .* comes first"):
        explain_run(run, data=tiny_store, split="test", device="cpu")
    evaluate_run(run, data=tiny_store, split="test", device="cpu")
    explain_run(run, data=tiny_store, split="test", device="cpu")
    log = (run / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["name"] for line in log] == ["valid", "test", "explain:test"]


def test_mistakes_are_one_line(
    tiny_run: Path, tiny_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = Store.open(tiny_store).split("valid").ids[0]
    for more, named in (
        (["--sample", known + "x"], f"did you mean '{known}'"),
        (["--split", "dev"], "dev"),
        (["--out", str(tiny_store)], "data store"),
    ):
        line = ["explain", str(tiny_run), "--data", str(tiny_store), "--device", "cpu", *more]
        assert main(line) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert named in error
