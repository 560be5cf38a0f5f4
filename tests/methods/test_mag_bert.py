"""MAG-BERT's gate from the paper's equations, where it stands, and what it needs of the data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tecafn.core.batch import Batch, Padded
from tecafn.core.errors import UserError
from tecafn.core.info import DataInfo, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.data import DatasetDescription, Sample, Store, StoreWriter
from tecafn.experiments.config import load_config
from tecafn.experiments.evaluate import evaluate_run, predict_run
from tecafn.experiments.run import train_run
from tecafn.methods.mag_bert import MAGBERT, AdaptationGate, MAGBERTConfig
from tecafn.serving.predictor import load
from tecafn.testing import MethodCase, _double, method_case

TEXT, AUDIO, VISION = Modality
SEEDS = (0, 1, 2)
SPOKEN = ("film", "good", "bad", "dull", "great", "very")


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("mag_bert") as made:
        yield made


def network_of(case: MethodCase, seed: int, **spec: Any) -> MAGBERT:
    info = dataclasses.replace(
        case.info, text_encoder=dataclasses.replace(case.info.text_encoder, **spec)
    )
    network = dataclasses.replace(case, info=info).build(seed=seed, dropout=False).double().network
    assert isinstance(network, MAGBERT)
    return network.eval()


def batch_of(case: MethodCase, seed: int) -> Batch:
    return _double(case.mixed_batch(seed=seed))


def gated(state: Tensor, spoken: dict[Modality, Tensor], gate: AdaptationGate) -> Tensor:
    """One token through eq. 1-5; ``spoken`` has the frames that it has."""
    change = [0.0] * len(state)
    for m, frame in spoken.items():
        opened = gate.gates[m](torch.cat([frame, state])).tolist()
        moved = gate.shifts[m](frame).tolist()
        change = [h + max(g, 0.0) * s for h, g, s in zip(change, opened, moved, strict=True)]
    length = math.hypot(*state.tolist())
    alpha = min(length / (math.hypot(*change) + 1e-6) * gate.shift, 1.0)
    shifted: Tensor = gate.norm(state + alpha * torch.tensor(change).double())
    return shifted


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shift", [0.3, 1.0, 50.0])
def test_gate_is_the_papers(seed: int, shift: float) -> None:
    torch.manual_seed(seed)
    gate = AdaptationGate(6, {AUDIO: 3, VISION: 4}, shift=shift, dropout=0.0).double()
    states = torch.randn(2, 5, 6, dtype=torch.float64)
    spoken = {
        m: Padded(5 * torch.randn(2, 5, width, dtype=torch.float64), torch.rand(2, 5) < 0.6)
        for m, width in ((AUDIO, 3), (VISION, 4))
    }
    got = gate(states, spoken)
    for row in range(2):
        for token in range(5):
            own = {m: p.values[row, token] for m, p in spoken.items() if p.mask[row, token]}
            torch.testing.assert_close(got[row, token], gated(states[row, token], own, gate))


def test_a_shift_is_no_longer_than_its_share_of_the_state() -> None:
    torch.manual_seed(0)
    gate = AdaptationGate(6, {AUDIO: 3}, shift=0.25, dropout=0.0).double()
    gate.norm = torch.nn.Identity()  # type: ignore[assignment]
    states = torch.randn(1, 4, 6, dtype=torch.float64)
    loud = Padded(1e3 * torch.rand(1, 4, 3, dtype=torch.float64), torch.ones(1, 4).bool())
    moved = torch.linalg.vector_norm(gate(states, {AUDIO: loud}) - states, dim=-1)
    torch.testing.assert_close(moved, 0.25 * torch.linalg.vector_norm(states, dim=-1))


def through(layers: Any, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Some of BERT's layers, one after another."""
    seen = (mask | ~mask.any(1, keepdim=True))[:, None, None, :]
    for layer in layers:
        states = layer(states, attention_mask=seen)
    return states


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_trained", [None, 1])
def test_gate_stands_where_the_frozen_part_ends(
    case: MethodCase, seed: int, num_trained: int | None
) -> None:
    """After the embeddings if everything is trained, after layer 1 of 2 if one is frozen."""
    network, batch = network_of(case, seed, num_trained_layers=num_trained), batch_of(case, seed)
    encoder: Any
    encoder, gate = network.frames.text_encoder, network.gate
    text = batch.sequences[TEXT]
    states = encoder.embeddings(input_ids=text.values)
    if num_trained == 1:
        states = through(encoder.layers[:1], states, text.mask)
    frames = network.frames(batch)
    assert batch.frame_of_token is not None
    shifted = torch.zeros_like(states)
    moved = set()
    for row in range(batch.size):
        for token in range(states.shape[1]):
            frame = int(batch.frame_of_token[row, token])
            own = {
                m: frames[m].values[row, frame]
                for m in (AUDIO, VISION)
                if frame >= 0 and frames[m].mask[row, frame]
            }
            shifted[row, token] = gated(states[row, token], own, gate)
            moved.add(len(own))
    assert moved == {0, 1, 2}
    behind = encoder.layers[0 if num_trained is None else 1 :]
    final = through(behind, shifted, text.mask)[:, 0]
    expected = torch.where(batch.present[TEXT].unsqueeze(1), final, network.slots.vectors[TEXT])
    output = network(batch)
    torch.testing.assert_close(output.features["text"], expected)
    pooler: Any = network.pooler
    score = network.answer.linear(torch.tanh(pooler[0](expected))).squeeze(1)
    torch.testing.assert_close(output.prediction, score)


@pytest.mark.parametrize("num_trained", [0, 1])
def test_cached_states_of_frozen_layers_serve_as_well_as_ids(
    case: MethodCase, num_trained: int
) -> None:
    network, batch = network_of(case, 0, num_trained_layers=num_trained), batch_of(case, 0)
    states = network.frames.text_encoder.run_frozen(batch.sequences[TEXT])
    cached = dataclasses.replace(batch, sequences={**batch.sequences, TEXT: states})
    torch.testing.assert_close(network(cached).prediction, network(batch).prediction)


def test_without_a_trained_layer_behind_the_gate_the_tokens_mean_is_pooled(
    case: MethodCase,
) -> None:
    """[CLS] has no frame: pooled, it would see nothing of audio and vision."""
    network, batch = network_of(case, 0, num_trained_layers=0), batch_of(case, 0)
    assert network.pooling == "mean"
    assert network_of(case, 0).pooling == "first"
    first = network.frames.text_encoder.run_frozen(batch.sequences[TEXT])
    shifted = network.gate(first.values, network._spoken(batch))
    there = batch.present[TEXT]
    mean = torch.stack(
        [row[mask].mean(0) for row, mask in zip(shifted[there], first.mask[there], strict=True)]
    )
    torch.testing.assert_close(network(batch).features["text"][there], mean)


def test_stored_text_vectors_are_gated_in_their_places() -> None:
    info = DataInfo(widths={TEXT: 6, AUDIO: 2}, text_encoder=TextEncoderSpec(source="features"))
    network = MAGBERT(MAGBERTConfig(), info).eval()
    generator = torch.Generator().manual_seed(0)
    everyone = torch.ones(2, 4, dtype=torch.bool)
    text = Padded(torch.randn(2, 4, 6, generator=generator), everyone)
    audio = Padded(torch.randn(2, 4, 2, generator=generator), everyone)
    batch = Batch(
        sequences={TEXT: text, AUDIO: audio},
        present={TEXT: everyone[:, 0], AUDIO: everyone[:, 0]},
        labels=None,
        index=torch.arange(2),
        ids=("a", "b"),
        frame_of_token=torch.arange(4).repeat(2, 1),
    )
    heard = network(batch).prediction
    other = dataclasses.replace(
        batch, sequences={TEXT: text, AUDIO: Padded(-audio.values, everyone)}
    )
    assert not torch.allclose(heard, network(other).prediction)


def test_text_with_frames_but_without_their_alignment_is_refused(case: MethodCase) -> None:
    network, batch = network_of(case, 0), batch_of(case, 0)
    with pytest.raises(ValueError, match="frame_of_token must say which frame"):
        network(dataclasses.replace(batch, frame_of_token=None))


def test_without_text_there_is_nothing_to_shift(case: MethodCase) -> None:
    info = dataclasses.replace(case.info, modalities=(AUDIO, VISION))
    with pytest.raises(ValueError, match="text, which is not in use"):
        MAGBERT(MAGBERTConfig(), info)


def test_the_shift_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"shift must be > 0, got 0.0"):
        MAGBERTConfig(shift=0.0)


# From a word-aligned store to a model


@pytest.fixture(scope="module")
def aligned_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips whose label is heard and seen in the frame of one of their words."""
    folder = tmp_path_factory.mktemp("aligned") / "store"
    random = np.random.default_rng(0)
    widths = {AUDIO: 2, VISION: 3}
    with StoreWriter(
        folder, DatasetDescription(dataset="tiny", widths=widths, aligned=True)
    ) as writer:
        for split, size in (("train", 12), ("valid", 6), ("test", 6)):
            for number in range(size):
                said = [str(word) for word in random.choice(SPOKEN, 4)]
                words = (said[0], "sp", *said[1:])
                writer.add(
                    Sample(
                        id=f"{split}{number}_1",
                        source_id="",
                        video=f"{split}{number}",
                        clip="1",
                        split=split,
                        text=" ".join(said),
                        label=float(random.uniform(-3, 3)),
                        sequences={
                            m: random.normal(size=(5, width)).astype(np.float32)
                            for m, width in widths.items()
                        },
                        words=words,
                    )
                )
    return folder


@pytest.fixture
def toml(tiny_bert: Path, tmp_path: Path) -> Callable[..., Path]:
    def write(**top: int) -> Path:
        path = tmp_path / "mag.toml"
        lines = [f"{name} = {value}" for name, value in top.items()]
        path.write_text(
            "\n".join(
                [
                    'method = "mag_bert"',
                    f"text_encoder = '{tiny_bert}'",
                    *lines,
                    "[training]",
                    "max_epochs = 1",
                    "batch_size = 4",
                ]
            ),
            encoding="utf-8",
        )
        return path

    return write


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("top", [{}, {"num_trained_text_layers": 1}], ids=["ids", "cached"])
def test_a_word_aligned_store_is_trained_on_evaluated_and_predicted(
    aligned_store: Path, toml: Callable[..., Path], tmp_path: Path, top: dict[str, int]
) -> None:
    run = tmp_path / "run"
    train_run(load_config(toml(**top)), data=aligned_store, out=run, device="cpu", progress=False)
    evaluate_run(run, data=aligned_store, split="test", device="cpu")
    assert (
        predict_run(run, data=aligned_store, split="test", out=tmp_path / "p.csv", device="cpu")
        == 6
    )
    predictor = load(run)
    texts = Store.open(aligned_store).split("test").texts
    assert np.isfinite(predictor.predict(texts)).all()
    frames = [np.zeros((5, 2), np.float32)] * 6
    assert np.isfinite(predictor.predict(audio=frames)).all()
    with pytest.raises(UserError, match="needs to know in which frame each word was spoken"):
        predictor.predict(texts, audio=frames)


@pytest.mark.usefixtures("no_fsync")
def test_frames_reach_the_answer_of_a_trained_model(
    aligned_store: Path, toml: Callable[..., Path], tmp_path: Path
) -> None:
    """Predictions from the dataset are not those of the texts alone."""
    run = tmp_path / "run"
    train_run(load_config(toml()), data=aligned_store, out=run, device="cpu", progress=False)
    predict_run(run, data=aligned_store, split="test", out=tmp_path / "p.csv", device="cpu")
    lines = (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()[1:]
    with_frames = [float(line.split(",")[1]) for line in lines]
    alone = load(run).predict(Store.open(aligned_store).split("test").texts)
    assert np.abs(np.array(with_frames) - alone).max() > 1e-4


@pytest.mark.usefixtures("no_fsync")
def test_a_store_without_alignment_is_one_line(
    tiny_store: Path, toml: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^method 'mag_bert' needs word-aligned frames"):
        train_run(
            load_config(toml()), data=tiny_store, out=tmp_path / "run", device="cpu", progress=False
        )
