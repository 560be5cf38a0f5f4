"""Hard negatives and the replacement gate: who may be drawn, how often, and from what alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.parallel import sample_uniform
from tecafn.losses.negatives import Pairing, hub_reading, sample_hard_negatives
from tecafn.methods.tecafn import TeCaFNConfig, TeCaFNScheme

MANY = 100_000
P_VALUE = 1e-3
TEXT, AUDIO, VISION = Modality


def draw(similarity: Tensor, index: Tensor | None = None, **options: Any) -> Pairing:
    """``sample_hard_negatives`` over one process's batch."""
    rows, columns = similarity.shape
    settled: dict[str, Any] = {
        "positive": torch.arange(rows),
        "candidates": torch.ones(columns, dtype=torch.bool),
        "swap_probability": 1.0,
        "num_hard_negatives": 3,
        "seed": 0,
        "epoch": 0,
        "stream": 0,
    }
    index = torch.arange(rows) if index is None else index
    return sample_hard_negatives(similarity, index, **(settled | options))


def similarities(seed: int, size: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, size, generator=generator, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------
# Who may be drawn


@pytest.mark.parametrize("num", [1, 3, 11, 50, None])
@pytest.mark.parametrize("seed", range(5))
def test_hard_negatives_never_pick_the_positive(seed: int, num: int | None) -> None:
    similarity = similarities(seed) + 5 * torch.eye(12)  # each is most similar to itself
    for epoch in range(20):
        pairing = draw(similarity, num_hard_negatives=num, epoch=epoch)
        assert not pairing.matched.any()
        assert bool((pairing.column != torch.arange(12)).all())


@pytest.mark.parametrize("seed", range(5))
def test_the_one_hardest_is_the_most_similar_other_sample(seed: int) -> None:
    """The sample itself is excluded before choosing: one hard negative is always left."""
    similarity = similarities(seed) + 5 * torch.eye(12)
    pairing = draw(similarity, num_hard_negatives=1)
    for row in range(12):
        others = [c for c in range(12) if c != row]
        assert pairing.column[row] == max(others, key=lambda c: float(similarity[row, c]))


@pytest.mark.parametrize("num", [2, 3, 5])
def test_partners_are_among_the_num_most_similar_others(num: int) -> None:
    similarity = similarities(1) + 5 * torch.eye(12)
    seen: list[set[int]] = [set() for _ in range(12)]
    for epoch in range(60):
        for row, column in enumerate(
            draw(similarity, num_hard_negatives=num, epoch=epoch).column.tolist()
        ):
            seen[row].add(column)
    for row in range(12):
        others = [c for c in range(12) if c != row]
        hardest = sorted(others, key=lambda c: -float(similarity[row, c]))[:num]
        assert seen[row] == set(hardest)


def test_partners_without_the_modality_are_never_drawn() -> None:
    candidates = torch.tensor([True, False] * 6)
    for epoch in range(30):
        pairing = draw(similarities(2), candidates=candidates, num_hard_negatives=None, epoch=epoch)
        assert bool(candidates[pairing.column].all())
        assert not pairing.matched.any()


def test_a_row_without_candidates_stays_matched() -> None:
    nobody = draw(similarities(0), candidates=torch.zeros(12, dtype=torch.bool))
    assert nobody.matched.all()
    assert nobody.column.tolist() == list(range(12))
    itself_alone = torch.zeros(12, dtype=torch.bool)
    itself_alone[4] = True
    pairing = draw(similarities(0), candidates=itself_alone)
    assert pairing.matched.tolist() == [row == 4 for row in range(12)]
    assert set(pairing.column.tolist()) == {4}


def test_a_batch_of_one_stays_matched() -> None:
    pairing = draw(torch.ones(1, 1))
    assert pairing.matched.tolist() == [True]
    assert pairing.column.tolist() == [0]


def test_candidates_may_differ_by_row() -> None:
    allowed = torch.zeros(12, 12, dtype=torch.bool)
    allowed[:6, 7] = True
    pairing = draw(similarities(0), candidates=allowed)
    assert pairing.matched.tolist() == [False] * 6 + [True] * 6
    assert pairing.column.tolist() == [7] * 6 + list(range(6, 12))


def test_the_positive_may_stand_anywhere_among_gathered_columns() -> None:
    """Rank 1 of 3: rows 4 to 7 of twelve gathered ones."""
    similarity = similarities(0)[:4] + 5 * torch.eye(12)[4:8]
    for epoch in range(30):
        pairing = draw(
            similarity, positive=torch.arange(4, 8), num_hard_negatives=None, epoch=epoch
        )
        assert bool((pairing.column != torch.arange(4, 8)).all())
    kept = draw(similarity, positive=torch.arange(4, 8), swap_probability=0.0)
    assert kept.column.tolist() == [4, 5, 6, 7]
    assert kept.matched.all()


def test_an_empty_share_of_a_batch_is_legal() -> None:
    for columns in (0, 5):
        pairing = draw(torch.zeros(0, columns))
        assert pairing.column.shape == pairing.matched.shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_hard_negatives": 0}, "num_hard_negatives must be >= 1 or None, got 0"),
        ({"swap_probability": 1.01}, r"swap_probability must be in \[0, 1\], got 1.01"),
        ({"swap_probability": -0.1}, r"swap_probability must be in \[0, 1\], got -0.1"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(similarities(0), **options)


# ---------------------------------------------------------------------------------------------
# What a draw depends on


def test_whether_a_sample_is_swapped_depends_on_seed_epoch_index_and_stream_alone() -> None:
    index = torch.arange(500, 600)
    whole = draw(similarities(0, 100), index, swap_probability=0.4)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    permuted = draw(similarities(7, 100), index[order], swap_probability=0.4)
    assert torch.equal(permuted.matched, whole.matched[order])
    for rows in (order[:3], order[10:60]):
        part = draw(similarities(8, len(rows)), index[rows], swap_probability=0.4)
        assert torch.equal(part.matched, whole.matched[rows])
    others = torch.cat([index[:5], torch.arange(9000, 9050)])
    mixed = draw(similarities(9, 55), others, swap_probability=0.4)
    assert torch.equal(mixed.matched[:5], whole.matched[:5])
    for change in ({"seed": 1}, {"epoch": 1}, {"stream": 1}):
        changed = draw(similarities(0, 100), index, swap_probability=0.4, **change)
        assert not torch.equal(changed.matched, whole.matched)


def ranks(similarity: Tensor, pairing: Pairing) -> list[int]:
    """The drawn partner's place among the other samples, 0 = most similar."""
    answers = []
    for row, column in enumerate(pairing.column.tolist()):
        others = [c for c in range(similarity.shape[1]) if c != row]
        others.sort(key=lambda c: -float(similarity[row, c]))
        answers.append(others.index(column))
    return answers


def test_the_drawn_rank_depends_on_seed_epoch_index_and_stream_alone() -> None:
    index = torch.arange(70, 90)
    similarity = similarities(0, 20)
    whole = ranks(similarity, draw(similarity, index, num_hard_negatives=4))
    assert set(whole) == {0, 1, 2, 3}
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    for rows in (order, order[:9]):
        other = similarities(5, len(rows))
        got = ranks(other, draw(other, index[rows], num_hard_negatives=4))
        assert got == [whole[int(row)] for row in rows]


def test_the_same_partner_is_drawn_in_a_permuted_batch() -> None:
    index, similarity = torch.arange(12), similarities(3)
    whole = draw(similarity, index, swap_probability=0.6)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    permuted = draw(similarity[order][:, order], index[order], swap_probability=0.6)
    assert torch.equal(order[permuted.column], whole.column[order])


def test_the_rank_is_drawn_independently_of_the_swap() -> None:
    """Among swapped samples alone the ranks are uniform: the two draws are not one number."""
    similarity = torch.rand(MANY, 4, generator=torch.Generator().manual_seed(0))
    similarity = torch.cat([torch.full((MANY, 1), 2.0), similarity], dim=1)
    pairing = sample_hard_negatives(
        similarity,
        torch.arange(MANY),
        positive=torch.zeros(MANY, dtype=torch.int64),
        candidates=torch.ones(5, dtype=torch.bool),
        swap_probability=0.3,
        num_hard_negatives=4,
        seed=4,
        epoch=0,
        stream=0,
    )
    place = similarity[:, 1:].argsort(1, descending=True).argsort(1)
    swapped = ~pairing.matched
    rank = place[swapped].gather(1, pairing.column[swapped].unsqueeze(1) - 1).squeeze(1)
    assert stats.chisquare(rank.bincount(minlength=4).numpy()).pvalue > P_VALUE


# ---------------------------------------------------------------------------------------------
# How often


@pytest.mark.parametrize("p", [0.1, 0.4, 0.7, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_four_outcomes_of_table_2_have_their_probabilities(p: float, seed: int) -> None:
    """Labels are (vision, audio): (1, 1), (0, 1), (1, 0), (0, 0)."""
    similarity = torch.rand(MANY, 3, generator=torch.Generator().manual_seed(seed))

    def kept(stream: int) -> Tensor:
        return sample_hard_negatives(
            similarity,
            torch.arange(MANY),
            positive=torch.zeros(MANY, dtype=torch.int64),
            candidates=torch.ones(3, dtype=torch.bool),
            swap_probability=p,
            num_hard_negatives=2,
            seed=seed,
            epoch=3,
            stream=stream,
        ).matched

    audio, vision = kept(0), kept(1)
    counts = [
        int((vision & audio).sum()),
        int((~vision & audio).sum()),
        int((vision & ~audio).sum()),
        int((~vision & ~audio).sum()),
    ]
    expected = [MANY * share for share in ((1 - p) ** 2, p * (1 - p), p * (1 - p), p**2)]
    assert stats.chisquare(counts, expected).pvalue > P_VALUE


@pytest.mark.parametrize("num", [1, 3, 5, 10, None])
def test_the_gate_draws_uniformly_from_the_num_hardest(num: int | None) -> None:
    size = 12
    order = torch.rand(MANY, size, generator=torch.Generator().manual_seed(1))
    order[:, 0] = 2.0  # column 0 is everyone's own
    pairing = sample_hard_negatives(
        order,
        torch.arange(MANY),
        positive=torch.zeros(MANY, dtype=torch.int64),
        candidates=torch.ones(size, dtype=torch.bool),
        swap_probability=1.0,
        num_hard_negatives=num,
        seed=0,
        epoch=0,
        stream=1,
    )
    place = order.argsort(1, descending=True).argsort(1)  # own is place 0
    rank = place.gather(1, pairing.column.unsqueeze(1)).squeeze(1) - 1
    limit = size - 1 if num is None else num
    counts = rank.bincount(minlength=limit)
    assert counts.shape == (limit,)
    assert int(counts.sum()) == MANY
    if limit > 1:
        assert stats.chisquare(counts.numpy()).pvalue > P_VALUE


def test_fewer_candidates_than_num_are_drawn_uniformly_too() -> None:
    candidates = torch.tensor([True, True, False, True, False, False])
    pairing = sample_hard_negatives(
        torch.rand(MANY, 6, generator=torch.Generator().manual_seed(0)),
        torch.arange(MANY),
        positive=torch.zeros(MANY, dtype=torch.int64),
        candidates=candidates,
        swap_probability=1.0,
        num_hard_negatives=5,
        seed=0,
        epoch=0,
        stream=0,
    )
    counts = pairing.column.bincount(minlength=6)
    assert counts[[0, 2, 4, 5]].sum() == 0
    assert stats.chisquare(counts[[1, 3]].numpy()).pvalue > P_VALUE


@pytest.mark.parametrize(("p", "matched"), [(0.0, True), (1.0, False)])
def test_probabilities_zero_and_one_are_certain(p: float, matched: bool) -> None:
    for epoch in range(20):
        pairing = draw(similarities(0), swap_probability=p, epoch=epoch)
        assert bool((pairing.matched == matched).all())


def test_streams_of_gate_and_rank_do_not_overlap_between_modalities() -> None:
    index = torch.arange(1000)
    draws = [sample_uniform(index, seed=0, epoch=0, stream=s) for s in range(4)]
    for one in range(4):
        for other in range(one):
            assert not torch.equal(draws[one], draws[other])


# ---------------------------------------------------------------------------------------------
# In the scheme: what flows where


def small_scheme(**options: Any) -> TeCaFNScheme:
    torch.manual_seed(0)
    config = TeCaFNConfig(
        dim=10, num_layers=1, num_unimodal_layers=1, unimodal_hidden_dim=6, **options
    )
    info = DataInfo(
        widths={TEXT: 6, AUDIO: 5, VISION: 4}, text_encoder=TextEncoderSpec(source="features")
    )
    return TeCaFNScheme(config, info).eval()


def small_batch(rows: int, *, first_index: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(first_index)
    sequences = {}
    for modality, width in ((TEXT, 6), (AUDIO, 5), (VISION, 4)):
        values = torch.randn(rows, 4, width, generator=generator)
        sequences[modality] = Padded(values, torch.ones(rows, 4, dtype=torch.bool))
    return Batch(
        sequences=sequences,
        present={m: torch.ones(rows, dtype=torch.bool) for m in sequences},
        labels=torch.zeros(rows),
        index=torch.arange(first_index, first_index + rows),
        ids=tuple(str(row) for row in range(rows)),
    )


def in_float64(batch: Batch) -> Batch:
    sequences = {m: Padded(some.values.double(), some.mask) for m, some in batch.sequences.items()}
    return dataclasses.replace(batch, sequences=sequences, labels=batch.labels.double())


def test_no_gradient_flows_through_the_choice() -> None:
    """What a partner gives reaches its own frames; that it was chosen moves no mapper.

    Moving the mappers a little, so that every choice stays, leaves what is fused as it is.
    """
    scheme = small_scheme(swap_probability=1.0, num_hard_negatives=1).double()
    batch = in_float64(small_batch(6))
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    ranking = [*scheme.core_mappers.parameters(), *scheme.other_mappers.parameters()]
    for name in ("task", "tap", "tvp", "bicon"):
        gradients = torch.autograd.grad(
            losses.terms[name], ranking, retain_graph=True, allow_unused=True
        )
        assert gradients == (None,) * len(ranking), name
    for name in ("ta", "tv"):  # the contrasts themselves do train them
        gradients = torch.autograd.grad(
            losses.terms[name], ranking, retain_graph=True, allow_unused=True
        )
        assert any(g is not None and bool((g != 0).any()) for g in gradients)
    with torch.no_grad():
        for parameter in ranking:
            parameter.add_(1e-7)
    again = scheme.loss(batch, Progress(seed=0, epoch=0))
    assert torch.equal(again.output.prediction, losses.output.prediction)
    assert again.terms["ta"].item() != losses.terms["ta"].item()


def test_without_contrast_the_task_does_not_train_the_mappers_that_rank() -> None:
    scheme = small_scheme(swap_probability=1.0, contrast_weight=0.0)
    scheme.loss(small_batch(6), Progress(seed=0, epoch=0)).total.backward()
    for mappers in (scheme.core_mappers, scheme.other_mappers):
        for parameter in mappers.parameters():
            assert parameter.grad is None or bool((parameter.grad == 0).all())
    trained = scheme.network.encoders[AUDIO].parameters()
    assert all(parameter.grad is not None for parameter in trained)


@pytest.mark.parametrize("term", ["task", "avp", "atp"])
def test_gradient_flows_into_the_partners_frames_and_into_no_others(term: str) -> None:
    """With every sample replaced by its one hardest: frames that nobody drew get no gradient."""
    scheme = small_scheme(core=AUDIO, swap_probability=1.0, num_hard_negatives=1)
    batch = small_batch(6)
    leaves = {m: batch.sequences[m].values.clone().requires_grad_() for m in (TEXT, VISION)}
    sequences = {m: Padded(leaf, batch.sequences[m].mask) for m, leaf in leaves.items()}
    watched = dataclasses.replace(batch, sequences={**batch.sequences, **sequences})
    scheme.loss(watched, Progress(seed=0, epoch=0)).terms[term].backward()
    encoded = scheme.network.encode(batch)
    for modality, leaf in leaves.items():
        query = scheme.core_mappers[modality](encoded[AUDIO])
        key = scheme.other_mappers[modality](encoded[modality])
        similarity = torch.nn.functional.cosine_similarity(query[:, None], key[None], dim=2)
        similarity.fill_diagonal_(-2.0)
        drawn = set(similarity.argmax(1).tolist())
        assert 0 < len(drawn) < 6  # else nobody would be left out
        is_meant = term in ("task", {TEXT: "atp", VISION: "avp"}[modality])
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        moved = set((gradient != 0).flatten(1).any(1).nonzero().flatten().tolist())
        assert moved == (drawn if is_meant else set())


def test_the_loss_of_one_sample_moves_another_samples_frames_only_when_swapped() -> None:
    for p, expected in ((0.0, False), (1.0, True)):
        scheme = small_scheme(swap_probability=p)
        batch = small_batch(5)
        leaf = batch.sequences[AUDIO].values.clone().requires_grad_()
        sequences = {**batch.sequences, AUDIO: Padded(leaf, batch.sequences[AUDIO].mask)}
        watched = dataclasses.replace(batch, sequences=sequences)
        output = scheme.loss(watched, Progress(seed=0, epoch=0)).output
        output.prediction[2].backward()
        assert leaf.grad is not None
        moved = (leaf.grad != 0).flatten(1).any(1)
        assert bool(moved[2]) is not expected
        assert int(moved.sum()) == 1


def test_the_score_keeps_the_core_samples_label() -> None:
    """Fig. 1: the label is that of the sample whose text it is, also where frames are replaced."""
    scheme = small_scheme(swap_probability=1.0)
    batch = dataclasses.replace(small_batch(6), labels=torch.linspace(-3, 3, 6))
    losses = scheme.loss(batch, Progress(seed=0, epoch=0))
    assert batch.labels is not None
    expected = (losses.output.prediction - batch.labels).abs().mean()
    torch.testing.assert_close(losses.terms["task"], expected)


def test_inference_fuses_every_sample_with_itself_whatever_the_gate() -> None:
    batch = small_batch(8)
    never, always = small_scheme(swap_probability=0.0), small_scheme(swap_probability=1.0)
    assert torch.equal(never.predict(batch), always.predict(batch))
    renumbered = dataclasses.replace(batch, index=batch.index + 1000)
    assert torch.equal(always.predict(batch), always.predict(renumbered))
    kept = never.loss(batch, Progress(seed=0, epoch=0)).output.prediction
    assert torch.equal(kept, never.predict(batch))
    replaced = always.loss(batch, Progress(seed=0, epoch=0)).output.prediction
    assert not torch.equal(replaced, always.predict(batch))


def test_the_loss_repeats_for_a_seed_and_epoch_and_changes_with_either() -> None:
    scheme, batch = small_scheme(swap_probability=0.5), small_batch(12)

    def total(seed: int, epoch: int, step: int) -> float:
        return scheme.loss(batch, Progress(seed=seed, epoch=epoch, step=step)).total.item()

    assert total(0, 0, 0) == total(0, 0, 99)
    assert len({total(0, 0, 0), total(1, 0, 0), total(0, 1, 0)}) == 3


# ---------------------------------------------------------------------------------------------
# As the authors' public code counts


@pytest.mark.parametrize("num", [2, 3, 5, None])
def test_own_among_hardest_leaves_one_fewer_where_a_sample_is_its_own_most_similar(
    num: int | None,
) -> None:
    similarity = similarities(1)
    similarity[:6] += 5 * torch.eye(12)[:6]  # the first six are most similar to themselves,
    similarity[6:] -= 5 * torch.eye(12)[6:]  # the others least
    seen: list[set[int]] = [set() for _ in range(12)]
    for epoch in range(80):
        pairing = draw(similarity, num_hard_negatives=num, epoch=epoch, own_among_hardest=True)
        assert not pairing.matched.any()
        for row, column in enumerate(pairing.column.tolist()):
            seen[row].add(column)
    for row in range(12):
        ranked = sorted(range(12), key=lambda c: -float(similarity[row, c]))
        assert seen[row] == set(ranked[:num]) - {row}
        assert len(seen[row]) == {None: 11, 5: 5, 3: 3, 2: 2}[num] - (row < 6 and num is not None)


def test_own_among_hardest_with_one_hard_negative_leaves_a_sample_with_itself() -> None:
    similarity = similarities(1) + 5 * torch.eye(12)
    pairing = draw(similarity, num_hard_negatives=1, own_among_hardest=True)
    assert pairing.matched.all()
    assert pairing.column.tolist() == list(range(12))


def test_own_among_hardest_never_draws_who_is_no_candidate() -> None:
    candidates = torch.tensor([True, False] * 6)
    for epoch in range(30):
        pairing = draw(
            similarities(2),
            candidates=candidates,
            num_hard_negatives=None,
            epoch=epoch,
            own_among_hardest=True,
        )
        assert bool(candidates[pairing.column].all())
        assert bool((pairing.column != torch.arange(12)).all())
    nobody = draw(
        similarities(0), candidates=torch.zeros(12, dtype=torch.bool), own_among_hardest=True
    )
    assert nobody.matched.all()


def test_a_hubs_chance_is_a_share_and_no_more() -> None:
    """Of few rows, what chance spreads to may lie beyond all of them."""
    crowded = torch.tensor([[True, True, False], [False, True, True]])  # 2 / 3 + .49
    few = hub_reading(Pairing(torch.arange(2), torch.ones(2, dtype=torch.bool), crowded))
    assert few.chance.item() == 1.0
    many = torch.tensor([[True, False], [False, True]]).repeat(200, 1)
    more = hub_reading(Pairing(torch.arange(400), torch.ones(400, dtype=torch.bool), many))
    spread = (2 * math.log(2) * 0.25 / 400) ** 0.5
    assert more.chance.item() == pytest.approx(0.5 + spread, abs=1e-6)
    assert more.value.item() == 0.5


def test_what_stands_for_an_absent_core_begins_as_long_as_a_normalised_frame_is_wide() -> None:
    """Each column is drawn with a deviation of dim ** -0.5, so that its length is about 1."""
    torch.manual_seed(0)
    config = TeCaFNConfig(dim=400, num_layers=1, num_unimodal_layers=1, unimodal_hidden_dim=4)
    info = DataInfo(
        widths={TEXT: 6, AUDIO: 5, VISION: 4}, text_encoder=TextEncoderSpec(source="features")
    )
    network = TeCaFNScheme(config, info).network
    assert 0.85 < float(network.absent_core.detach().norm()) < 1.15
