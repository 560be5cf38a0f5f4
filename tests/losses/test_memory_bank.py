"""The memory of earlier samples: who is in it, who may draw from it, and what it never touches."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.losses.memory_bank import NegativeBank
from tecafn.methods.tecafn import TeCaFNConfig, TeCaFNScheme

TEXT, AUDIO, VISION = Modality
WIDTHS = {TEXT: 6, AUDIO: 5, VISION: 4}


def pushed(bank: NegativeBank, index: list[int], *, present: list[bool] | None = None) -> None:
    """Samples whose keys and frames tell their index."""
    numbers = torch.tensor(index)
    here = torch.ones(len(index), dtype=torch.bool) if present is None else torch.tensor(present)
    keys = torch.stack([numbers.double().cos(), numbers.double().sin()], 1).float()
    length = 4
    values = numbers.float()[:, None, None].expand(-1, length, 2)
    mask = torch.arange(length) <= (numbers % length).unsqueeze(1)
    bank.push(5 * keys, Padded(values, mask), numbers, here)


def test_the_last_samples_stay_and_the_oldest_go_first() -> None:
    bank = NegativeBank(4, num_frames=4, dim=2)
    pushed(bank, [0, 1, 2])
    assert bank.index.tolist() == [0, 1, 2, -1]
    pushed(bank, [3, 4, 5])
    assert bank.index.tolist() == [4, 5, 2, 3]
    pushed(bank, [6])
    assert bank.index.tolist() == [4, 5, 6, 3]


def test_of_a_batch_larger_than_the_bank_the_last_stay() -> None:
    bank = NegativeBank(3, num_frames=4, dim=2)
    pushed(bank, [0])
    pushed(bank, list(range(10, 18)))
    assert sorted(bank.index.tolist()) == [15, 16, 17]
    pushed(bank, [20])
    assert sorted(bank.index.tolist()) == [16, 17, 20]


def test_samples_without_the_modality_are_not_stored() -> None:
    bank = NegativeBank(4, num_frames=4, dim=2)
    pushed(bank, [0, 1, 2, 3], present=[True, False, False, True])
    assert bank.index.tolist() == [0, 3, -1, -1]
    pushed(bank, [4], present=[False])
    assert bank.index.tolist() == [0, 3, -1, -1]


def test_frames_and_keys_are_those_of_their_sample() -> None:
    bank = NegativeBank(5, num_frames=4, dim=2)
    pushed(bank, list(range(8)))
    slots = torch.arange(5)
    taken = bank.take(slots)
    for slot in range(5):
        number = int(bank.index[slot])
        assert taken.mask[slot].sum() == number % 4 + 1
        assert bool((taken.values[slot][taken.mask[slot]] == number).all())
        assert bool((taken.values[slot][~taken.mask[slot]] == 0).all())
        assert bank.similarity(bank.keys)[slot, slot].item() == pytest.approx(1.0, abs=1e-6)


def test_long_sequences_are_cut_and_short_ones_padded() -> None:
    frames = Padded(torch.ones(2, 6, 3), torch.ones(2, 6, dtype=torch.bool))
    cut = NegativeBank(2, num_frames=4, dim=3)
    cut.push(torch.ones(2, 3), frames, torch.arange(2), torch.ones(2, dtype=torch.bool))
    assert cut.take(torch.tensor([1])).values.shape == (1, 4, 3)
    padded = NegativeBank(2, num_frames=9, dim=3)
    padded.push(torch.ones(2, 3), frames, torch.arange(2), torch.ones(2, dtype=torch.bool))
    taken = padded.take(torch.tensor([0, 1]))
    assert taken.values.shape == (2, 6, 3)
    assert bool(taken.mask.all())


def test_a_sample_cut_to_nothing_is_no_candidate() -> None:
    """Its only real frame stands behind the cut."""
    bank = NegativeBank(2, num_frames=2, dim=3)
    mask = torch.tensor([[False, False, True], [True, False, False]])
    bank.push(
        torch.ones(2, 3), Padded(torch.ones(2, 3, 3), mask), torch.tensor([4, 5]), mask.any(1)
    )
    assert bank.candidates(torch.tensor([9])).tolist() == [[False, True]]


def test_similarity_is_the_cosine_whatever_the_lengths() -> None:
    bank = NegativeBank(3, num_frames=4, dim=2)
    pushed(bank, [0, 1, 2])
    query = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    expected = functional.cosine_similarity(query[:, None], bank.keys[None], dim=2)
    torch.testing.assert_close(bank.similarity(7 * query), expected)


def test_nothing_of_it_is_a_parameter_or_has_a_gradient() -> None:
    bank = NegativeBank(3, num_frames=4, dim=2)
    keys = torch.ones(2, 2, requires_grad=True)
    values = torch.ones(2, 4, 2, requires_grad=True)
    everyone = torch.ones(2, dtype=torch.bool)
    bank.push(keys, Padded(values, everyone[:, None].expand(2, 4)), torch.arange(2), everyone)
    assert not list(bank.parameters())
    assert not bank.take(torch.tensor([0])).values.requires_grad
    assert not bank.similarity(keys).requires_grad


@pytest.mark.parametrize(("size", "frames"), [(0, 4), (4, 0)])
def test_an_impossible_bank_is_refused(size: int, frames: int) -> None:
    with pytest.raises(ValueError, match="a bank holds >= 1 samples of >= 1 frames"):
        NegativeBank(size, num_frames=frames, dim=2)


# ---------------------------------------------------------------------------------------------
# In the scheme


def scheme_of(**options: Any) -> TeCaFNScheme:
    torch.manual_seed(0)
    settled = {"swap_probability": 1.0, "bank_size": 16, "bank_frames": 6}
    config = TeCaFNConfig(
        dim=10, num_layers=1, num_unimodal_layers=1, unimodal_hidden_dim=6, **(settled | options)
    )
    info = DataInfo(widths=WIDTHS, text_encoder=TextEncoderSpec(source="features"))
    return TeCaFNScheme(config, info).eval()


def batch_of(first: int, rows: int = 4, *, lacking: str = "") -> Batch:
    """Samples ``first`` to ``first + rows - 1``; the last lacks some modalities."""
    generator = torch.Generator().manual_seed(first)
    sequences, present = {}, {}
    for modality, width in WIDTHS.items():
        mask = torch.ones(rows, 5, dtype=torch.bool)
        mask[0, 3:] = False
        present[modality] = torch.ones(rows, dtype=torch.bool)
        present[modality][-1] = modality[0] not in lacking
        mask &= present[modality].unsqueeze(1)
        sequences[modality] = Padded(torch.randn(rows, 5, width, generator=generator), mask)
    return Batch(
        sequences=sequences,
        present=present,
        labels=torch.zeros(rows),
        index=torch.arange(first, first + rows),
        ids=tuple(str(row) for row in range(rows)),
    )


def step(scheme: TeCaFNScheme, batch: Batch, *, epoch: int = 0) -> Any:
    """A loss and what follows it, without an optimizer."""
    progress = Progress(seed=0, epoch=epoch)
    losses = scheme.loss(batch, progress)
    scheme.after_step(batch, losses, progress)
    return losses


def index_of(scheme: TeCaFNScheme, modality: Modality = AUDIO) -> list[int]:
    bank = scheme.bank_for(modality)
    assert bank is not None
    return [i for i in bank.index.tolist() if i >= 0]


def drawn(scheme: TeCaFNScheme, batch: Batch, modality: Modality, epoch: int) -> list[int]:
    """The index of each row's partner, from the columns of batch and bank."""
    seen: list[Tensor] = []
    original = scheme._partners

    def watched(which: Modality, other: Padded, pairing: Any) -> Padded:
        if which == modality:
            seen.append(pairing.column)
        return original(which, other, pairing)

    scheme._partners = watched  # type: ignore[method-assign, assignment]
    scheme.loss(batch, Progress(seed=0, epoch=epoch))
    del scheme._partners
    bank = scheme.bank_for(modality)
    assert bank is not None
    return [int(i) for i in torch.cat([batch.index, bank.index])[seen[0]]]


def test_it_is_off_by_default_and_then_there_is_none() -> None:
    assert TeCaFNConfig().bank_size == 0
    scheme = scheme_of(bank_size=0)
    assert scheme.bank_for(AUDIO) is None
    assert not any("bank" in name for name in scheme.state_dict())
    assert not any("bank" in name for name in step(scheme, batch_of(0)).output.features)


def test_each_step_stores_its_batch_by_modality() -> None:
    scheme = scheme_of()
    step(scheme, batch_of(0, lacking="a"))
    assert index_of(scheme, AUDIO) == [0, 1, 2]
    assert index_of(scheme, VISION) == [0, 1, 2, 3]
    step(scheme, batch_of(10, lacking="t"))
    assert index_of(scheme, VISION) == [0, 1, 2, 3, 10, 11, 12]  # without a core no partner


def test_negatives_come_from_earlier_batches_too() -> None:
    scheme = scheme_of(num_hard_negatives="all")
    step(scheme, batch_of(0))
    later, partners = batch_of(100), set[int]()
    for epoch in range(40):
        partners |= set(drawn(scheme, later, VISION, epoch))
    assert partners == {0, 1, 2, 3, 100, 101, 102, 103}


def test_the_hardest_are_chosen_from_batch_and_bank_together() -> None:
    scheme = scheme_of(num_hard_negatives=1)
    step(scheme, batch_of(0))
    later = batch_of(100)
    encoded = scheme.network.encode(later)
    query = functional.normalize(scheme.core_mappers[AUDIO](encoded[TEXT]), dim=1)
    own = functional.normalize(scheme.other_mappers[AUDIO](encoded[AUDIO]), dim=1)
    earlier = scheme.network.encode(batch_of(0))[AUDIO]
    keys = torch.cat([own, functional.normalize(scheme.other_mappers[AUDIO](earlier), dim=1)])
    similarity = query @ keys.T
    similarity[torch.arange(4), torch.arange(4)] = -9
    everyone = torch.cat([later.index, torch.arange(4)])
    expected = everyone[similarity.argmax(1)].tolist()
    assert drawn(scheme, later, AUDIO, 0) == expected
    assert any(index < 100 for index in expected)


def test_a_sample_never_draws_its_own_earlier_copy() -> None:
    """The same batch comes again, as it does every epoch: each finds three others, old or new."""
    scheme = scheme_of(num_hard_negatives="all")
    batch = batch_of(0)
    for epoch in range(30):
        assert all(p != i for i, p in enumerate(drawn(scheme, batch, AUDIO, epoch)))
        step(scheme, batch, epoch=epoch)
    alone = batch.select(torch.tensor([2]))
    only = scheme_of()
    step(only, alone)
    losses = only.loss(alone, Progress(seed=0, epoch=0))
    torch.testing.assert_close(losses.output.prediction, only.predict(alone))


def test_a_batch_of_one_finds_its_negatives_in_the_bank() -> None:
    scheme = scheme_of()
    step(scheme, batch_of(0))
    alone = batch_of(50, rows=1)
    assert drawn(scheme, alone, AUDIO, 0)[0] < 4
    losses = scheme.loss(alone, Progress(seed=0, epoch=0))
    assert losses.terms["ta"].item() == 0.0  # the bank is in no contrast


def test_a_partner_from_the_bank_is_fused_as_that_sample_would_be() -> None:
    scheme = scheme_of(num_hard_negatives=1)
    earlier = batch_of(0)
    step(scheme, earlier)
    alone = batch_of(50, rows=1)
    partners = {m: drawn(scheme, alone, m, 0)[0] for m in (AUDIO, VISION)}
    mixed = dataclasses.replace(
        alone,
        sequences={TEXT: alone.sequences[TEXT]}
        | {m: earlier.sequences[m].select(torch.tensor([p])) for m, p in partners.items()},
    )
    losses = scheme.loss(alone, Progress(seed=0, epoch=0))
    torch.testing.assert_close(losses.output.prediction, scheme.predict(mixed))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_contrasts_do_not_see_it(p: float) -> None:
    with_bank, without = scheme_of(swap_probability=p), scheme_of(swap_probability=p, bank_size=0)
    step(with_bank, batch_of(0))
    batch = batch_of(100)
    terms = [s.loss(batch, Progress(seed=0, epoch=0)).terms for s in (with_bank, without)]
    for name in ("ta", "tv"):
        assert torch.equal(terms[0][name], terms[1][name])
    if p == 0.0:
        assert all(torch.equal(terms[0][name], terms[1][name]) for name in terms[0])


def test_no_gradient_reaches_an_earlier_batch() -> None:
    scheme = scheme_of(num_hard_negatives="all")
    earlier = batch_of(0)
    leaf = earlier.sequences[AUDIO].values.clone().requires_grad_()
    sequences = {**earlier.sequences, AUDIO: Padded(leaf, earlier.sequences[AUDIO].mask)}
    step(scheme, dataclasses.replace(earlier, sequences=sequences))
    scheme.loss(batch_of(100), Progress(seed=0, epoch=0)).total.backward()
    assert leaf.grad is None


def test_prediction_and_export_know_nothing_of_it() -> None:
    scheme, batch = scheme_of(), batch_of(100)
    before = scheme.predict(batch)
    step(scheme, batch_of(0))
    assert torch.equal(scheme.predict(batch), before)
    assert not any("bank" in name for name in scheme.network.state_dict())


def test_it_resumes_bit_for_bit() -> None:
    def run(scheme: TeCaFNScheme, firsts: tuple[int, ...]) -> list[Tensor]:
        return [step(scheme, batch_of(first)).total.detach() for first in firsts]

    whole = scheme_of()
    run(whole, (0, 10, 20))
    saved = io.BytesIO()
    torch.save(whole.state_dict(), saved)
    expected = run(whole, (30, 0, 40))
    resumed = scheme_of()
    saved.seek(0)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    for got, wanted in zip(run(resumed, (30, 0, 40)), expected, strict=True):
        assert torch.equal(got, wanted)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_the_same_steps_draw_the_same_partners() -> None:
    answers = []
    for _ in range(2):
        scheme = scheme_of(swap_probability=0.7)
        answers.append([step(scheme, batch_of(n), epoch=n).total.item() for n in (0, 4, 0, 8)])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "options", [{"bank_size": -1}, {"bank_frames": 0}, {"bank_size": 4, "bank_frames": -2}]
)
def test_impossible_settings_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="bank_size must be >= 0 and bank_frames >= 1, got"):
        TeCaFNConfig(**options)  # type: ignore[arg-type]
