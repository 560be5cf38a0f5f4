"""MFN (Zadeh et al. 2018): what its answer is made of; the recurrence has tests of its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.layers.memory_fusion import joint_frames
from tecafn.methods.mfn import MFN
from tecafn.testing import method_case

SEEDS = (0, 1, 2)
TEXT, AUDIO, VISION = Modality


def double(batch: Batch) -> Batch:
    sequences = {
        m: Padded(p.values.double(), p.mask) if p.values.is_floating_point() else p
        for m, p in batch.sequences.items()
    }
    return dataclasses.replace(batch, sequences=sequences)


def test_it_asks_for_word_aligned_data() -> None:
    assert METHODS["mfn"].needs == ("aligned",)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_answer_comes_from_the_last_hidden_states_and_the_memory(seed: int) -> None:
    with method_case("mfn") as case, torch.no_grad():
        network = case.build(seed=seed).network.double().eval()
        assert isinstance(network, MFN)
        for slot in network.slots.vectors.values():
            slot.normal_()
        batch = double(case.mixed_batch(seed=seed))
        output = network(batch)
        hidden, memory = network.fusion(joint_frames(network.frames(batch), batch))
        for row in range(batch.size):
            parts = [
                hidden[m][row] if batch.present[m][row] else network.slots.vectors[m]
                for m in (TEXT, AUDIO, VISION)
            ]
            fused = torch.cat([*parts, memory[row]])
            torch.testing.assert_close(output.features["fused"][row], fused)
            first = network.hidden[0]
            layer = (first.weight @ fused + first.bias).clamp(min=0)
            expected = network.answer.linear.weight[0] @ layer + network.answer.linear.bias[0]
            torch.testing.assert_close(output.prediction[row], expected)


def test_a_token_is_heard_in_its_own_frame() -> None:
    with method_case("mfn") as case, torch.no_grad():
        network = case.build().network.eval()
        batch = case.batch(4)
        assert batch.frame_of_token is not None
        # The same words, all spoken one frame later.
        later = torch.where(batch.frame_of_token >= 0, batch.frame_of_token + 1, -1)
        moved = network(dataclasses.replace(batch, frame_of_token=later)).prediction
        assert bool((moved != network(batch).prediction).all())
