"""TETFN's text-enhanced streams and maxima, in loops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tecafn.core.batch import Padded
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.layers.attention import Transformer
from tecafn.layers.sequence import sinusoidal_positions
from tecafn.methods.tetfn import TETFN, TETFNConfig, TETFNScheme, maximum
from tecafn.testing import MethodCase, _double, method_case

SEEDS = (0, 1, 2)
CONFIG = TETFNConfig(dim=6, num_heads=2, num_memory_layers=1, task_dim=4)


@pytest.fixture(scope="module")
def case() -> Iterator[MethodCase]:
    with method_case("tetfn", config=CONFIG) as made:
        yield made


def scheme_of(case: MethodCase, seed: int) -> TETFNScheme:
    scheme = case.build(seed=seed, dropout=False).double()
    assert isinstance(scheme, TETFNScheme)
    return scheme


def crossed(module: Transformer, query: Tensor, source: Tensor) -> Tensor:
    """One sample: frames (L, d) ask real frames (Ls, d)."""
    seen = torch.ones(1, len(source), dtype=torch.bool)
    answer: Tensor = module(query.unsqueeze(0), source.unsqueeze(0), seen)
    return answer[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_each_stream_is_the_papers_over_the_real_frames_of_a_sample(
    case: MethodCase, seed: int
) -> None:
    network, batch = scheme_of(case, seed).network, _double(case.mixed_batch(seed=seed))
    assert isinstance(network, TETFN)
    sequences = network.sequences(batch)
    fused = network(batch).features["fused"]
    for row in range(batch.size):
        own = {}
        for m, sequence in sequences.items():
            length, dim = sequence.values.shape[1:]
            placed = sequence.values[row] + sinusoidal_positions(length, dim).double()
            own[m] = placed[sequence.mask[row]]
        text, audio, vision = (own[m] for m in Modality)
        streams = {
            Modality.TEXT: torch.cat(
                [
                    crossed(network.text_from_audio, text, audio),
                    crossed(network.text_from_vision, text, vision),
                ],
                dim=1,
            ),
            # Lower: the other modality asks the text; upper: the target asks what came of it.
            Modality.AUDIO: crossed(
                network.audio_from_vision.upper,
                audio,
                crossed(network.audio_from_vision.lower, vision, text),
            ),
            Modality.VISION: crossed(
                network.vision_from_audio.upper,
                vision,
                crossed(network.vision_from_audio.lower, audio, text),
            ),
        }
        ends = []
        for m, stream in streams.items():
            seen = torch.ones(1, len(stream), dtype=torch.bool)
            ends.append(network.memories[m](stream.unsqueeze(0), None, seen)[0].amax(0))
        joined = torch.cat(ends)
        torch.testing.assert_close(fused[row], joined + network.block(joined))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_maximum_sees_real_frames_alone(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(5, 6, 3, generator=generator)
    mask = torch.rand(5, 6, generator=generator) < 0.5
    mask[0], mask[1, 0] = False, True
    got = maximum(Padded(torch.where(mask.unsqueeze(-1), values, 99.0), mask)).tolist()
    for row, line in enumerate(got):
        for column, value in enumerate(line):
            seen = [values[row, t, column].item() for t in range(6) if mask[row, t]]
            assert value == (max(seen) if seen else 0.0)


def test_what_a_sample_lacks_is_one_learned_frame(case: MethodCase) -> None:
    network, batch = scheme_of(case, 0).network, _double(case.mixed_batch())
    for m, sequence in network.sequences(batch).items():
        for row, there in enumerate(batch.present[m].tolist()):
            if there:
                assert torch.equal(sequence.mask[row], batch.sequences[m].mask[row])
            else:
                assert sequence.mask[row].tolist() == [True] + [False] * 6
                assert torch.equal(sequence.values[row, 0], network.absent[m])


def test_a_modality_task_reads_the_maximum_over_time_and_has_a_label_of_its_own(
    case: MethodCase,
) -> None:
    scheme, batch = scheme_of(case, 0), _double(case.mixed_batch())
    assert batch.labels is not None
    for epoch in range(2):
        progress = Progress(seed=0, epoch=epoch)
        losses = scheme.loss(batch, progress)
        scheme.after_step(batch, losses, progress)
    assert set(losses.terms) == {"task", *Modality}
    for m, sequence in scheme.network.sequences(batch).items():
        torch.testing.assert_close(losses.output.features[f"vector_{m}"], maximum(sequence))
        _, generated = scheme.tasks.bank.labels_of(m, batch.labels, batch.index)
        assert torch.equal(generated, batch.present[m])
