"""MulT (Tsai et al. 2019): who attends to whom, and the arithmetic around it, in slow loops."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality
from tecafn.layers.attention import Transformer, TransformerLayer
from tecafn.layers.sequence import last_real, sinusoidal_positions
from tecafn.methods.mult import MulT, MulTConfig
from tecafn.testing import MethodCase, method_case

SEEDS = (0, 1, 2)
TEXT, AUDIO, VISION = Modality


def stir(module: nn.Module) -> None:
    """What starts at zero would hide what it does."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def double(batch: Batch) -> Batch:
    return dataclasses.replace(
        batch,
        sequences={
            m: Padded(p.values.double(), p.mask) if p.values.is_floating_point() else p
            for m, p in batch.sequences.items()
        },
    )


def network_and_batch(case: MethodCase, seed: int) -> tuple[MulT, Batch]:
    network = case.build(seed=seed).network.double().eval()
    assert isinstance(network, MulT)
    stir(network)
    return network, double(case.batch(3, seed=seed))


def attend(query: Tensor, source: Tensor, layer: TransformerLayer) -> Tensor:
    """Multi-head attention of (Lq, D) to real frames (Ls, D), one head and query at a time."""
    module = layer.attention
    dim, width = query.shape[1], query.shape[1] // module.num_heads
    projected = module.key_value(source)
    keys, values, queries = projected[:, :dim], projected[:, dim:], module.query(query)
    rows = []
    for asked in queries:
        joined = []
        for head in range(module.num_heads):
            own = slice(head * width, (head + 1) * width)
            scores = torch.stack([asked[own] @ key[own] / math.sqrt(width) for key in keys])
            joined.append((scores.softmax(0).unsqueeze(1) * values[:, own]).sum(0))
        rows.append(torch.cat(joined))
    return module.output(torch.stack(rows))


def run(transformer: nn.Module, stream: Tensor, source: Tensor | None, real: Tensor) -> Tensor:
    """Pre-norm layers: x + attention(LN(x), LN(source)), then x + feed-forward(LN(x))."""
    assert isinstance(transformer, Transformer)
    assert transformer.closing_norm is not None
    for layer in transformer.layers:
        assert isinstance(layer, TransformerLayer)
        normed = layer.attention_norm(stream)
        if source is None:
            seen = normed[real]
        else:
            assert layer.source_norm is not None
            seen = layer.source_norm(source[real])
        stream = stream + attend(normed, seen, layer)
        hidden = layer.feed_forward[0](layer.feed_forward_norm(stream)).clamp(min=0)
        stream = stream + layer.feed_forward[3](hidden)
    return transformer.closing_norm(stream)


def scaled(sequence: Tensor) -> Tensor:
    length, dim = sequence.shape
    return math.sqrt(dim) * sequence + sinusoidal_positions(length, dim).double()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_is_the_papers_one_sample_and_one_query_at_a_time(seed: int) -> None:
    config = MulTConfig(dim=8, num_heads=2, num_memory_layers=1)
    with method_case("mult", config=config) as case, torch.no_grad():
        network, batch = network_and_batch(case, seed)
        got = network(batch).prediction
        frames = network.frames(batch)
        for row in range(batch.size):
            real = {m: frames[m].mask[row] for m in Modality}
            low = {}
            for m in Modality:
                convolution = network.convolutions[m].conv  # kernel 1 is a linear layer a frame
                each = frames[m].values[row] @ convolution.weight[:, :, 0].T + convolution.bias
                low[m] = each * real[m].unsqueeze(1)
            last = []
            for target in Modality:
                streams = [
                    run(
                        network.crossings[f"{source}_to_{target}"],
                        scaled(low[target]),
                        scaled(low[source]),
                        real[source],
                    )
                    for source in Modality
                    if source != target
                ]
                joined = scaled(torch.cat(streams, dim=1))
                states = run(network.memories[target], joined, None, real[target])
                last.append(states[real[target]][-1])
            fused = torch.cat(last)
            assert fused.shape == (6 * config.dim,)
            hidden = network.block[0](fused).clamp(min=0)
            expected = network.answer.linear(fused + network.block[3](hidden)).squeeze(-1)
            torch.testing.assert_close(got[row], expected)


def test_every_ordered_pair_of_modalities_has_a_transformer_of_its_own() -> None:
    with method_case("mult") as case:
        network = case.build().network
    assert isinstance(network, MulT)
    assert set(network.crossings) == {f"{a}_to_{b}" for a in Modality for b in Modality if a != b}


def test_an_absent_source_is_a_learned_stream_and_an_absent_target_a_learned_vector() -> None:
    with method_case("mult") as case, torch.no_grad():
        network, _ = network_and_batch(case, 0)
        batch = double(case.batch(2, lacking={0: "a"}))
        before = network(batch).prediction
        network.absent_sources["audio_to_text"].add_(1.0)
        stream_moved = network(batch).prediction
        network.slots.vectors["audio"].add_(1.0)
        vector_moved = network(batch).prediction
    assert before[0] != stream_moved[0] != vector_moved[0]
    assert before[1] == stream_moved[1] == vector_moved[1]


def test_the_last_real_frame_is_found_behind_holes_and_before_padding() -> None:
    values = torch.arange(12.0).view(3, 4, 1)
    mask = torch.tensor(
        [[True, False, True, False], [True, True, True, True], [False, False, False, False]]
    )
    assert last_real(Padded(values, mask)).squeeze(1).tolist() == [2.0, 7.0, 0.0]


@pytest.mark.parametrize("modalities", [(TEXT,), (TEXT, VISION)])
def test_fewer_modalities_in_use_train_and_predict(modalities: tuple[Modality, ...]) -> None:
    with method_case("mult") as case:
        fewer = dataclasses.replace(
            case, info=dataclasses.replace(case.info, modalities=modalities)
        )
        network = fewer.build().network.eval()
        assert isinstance(network, MulT)
        assert network.modalities == modalities
        assert bool(network(case.mixed_batch()).prediction.isfinite().all())


def test_attention_dropout_is_the_targets_and_the_memories_have_the_texts() -> None:
    config = MulTConfig(
        text_attention_dropout=0.3, audio_attention_dropout=0.4, vision_attention_dropout=0.5
    )
    probability = {TEXT: 0.3, AUDIO: 0.4, VISION: 0.5}
    with method_case("mult", config=config) as case:
        network = case.build().network
    assert isinstance(network, MulT)
    assert len(network.crossings) == 6
    for name, module in network.crossings.items():
        assert isinstance(module, Transformer)
        target = name.split("_to_")[1]
        for layer in module.layers:
            assert isinstance(layer, TransformerLayer)
            assert layer.attention.dropout == probability[Modality(target)], name
    for module in network.memories.values():
        assert isinstance(module, Transformer)
        for layer in module.layers:
            assert isinstance(layer, TransformerLayer)
            assert layer.attention.dropout == 0.3
