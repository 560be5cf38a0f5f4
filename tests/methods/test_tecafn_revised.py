"""TeCaFN's parts of our own against slow loops in float64; without a part its test fails."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from slow_tecafn import (
    AUDIO,
    STATISTICS,
    TEXT,
    VISION,
    Slow,
    Vector,
    affine,
    batch_of,
    close,
    contrast,
    cosine,
    cross_entropy,
    dot,
    info,
    layer_norm,
    mapped,
    numbers,
    plus,
    pool,
    randomise,
    scheme_of,
    transformer,
)
from torch import Tensor

from tecafn.core.batch import Batch, Padded
from tecafn.core.output import Progress
from tecafn.layers.sequence import sinusoidal_positions
from tecafn.losses.contrastive import info_nce
from tecafn.losses.differences import difference_loss
from tecafn.methods.tecafn import PARTS, REVISED, TeCaFNConfig, TeCaFNScheme

PROGRESS = Progress(seed=41, epoch=1)
COMPLETE = ("",) * 8


def in_training(scheme: TeCaFNScheme) -> TeCaFNScheme:
    """Training mode without dropout: batch statistics are the batch's."""
    for module in scheme.modules():
        for name in ("probability", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return scheme.train()


def complete_rows(slow: Slow, batch: Batch, modality: Any) -> list[int]:
    return [
        r for r in range(batch.size)
        if slow.has(batch, r, slow.config.core) and slow.has(batch, r, modality)
    ]  # fmt: skip


def pooled_text(slow: Slow, batch: Batch, row: int) -> Vector:
    return pool(*slow.encode(batch, row, TEXT))


# ---------------------------------------------------------------------------------------------
# The variant


def test_the_default_is_the_paper_and_has_no_part() -> None:
    config = TeCaFNConfig()
    assert config.variant == "paper"
    assert not any(config.adds(part) for part in PARTS)


def test_revised_has_its_parts_and_can_do_without_each() -> None:
    revised = TeCaFNConfig(variant="revised")
    assert {part for part in PARTS if revised.adds(part)} == set(REVISED)
    for part in REVISED:
        assert not TeCaFNConfig(variant="revised", without=(part,)).adds(part)
        assert TeCaFNConfig(parts=(part,)).adds(part)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ("text_layer",)}, "parts: unknown .*known: text_layers"),
        ({"without": ("unimodal_heads",), "variant": "revised"}, "does not have .'unimodal"),
        ({"without": ("text_layers",)}, "variant 'paper' does not have"),
        ({"parts": ("products",), "variant": "authors"}, "has no parts"),
        ({"parts": ("unexplained_contrast",), "variant": "revised"}, "no_fused_contrast"),
        ({"num_similar": 0}, "num_similar must be >= 1"),
        ({"label_margin": -1.0}, "label_margin must be >= 0"),
        ({"swap_warmup_epochs": -1}, "swap_warmup_epochs must be >= 0"),
        ({"num_token_layers": 0}, "num_token_layers must be >= 1"),
    ],
)
def test_parts_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TeCaFNConfig(**options)


# ---------------------------------------------------------------------------------------------
# text_layers


def test_text_layers_are_pre_norm_self_attention_over_placed_tokens() -> None:
    scheme = scheme_of(0, parts=("text_layers",))
    batch = batch_of(0, COMPLETE)
    slow = Slow(scheme)
    encoder: Any = scheme.network.encoders[TEXT]
    got = scheme.network.encode(batch)[TEXT]
    for row in range(3):
        values, mask = slow.encode(batch, row, TEXT)  # eq. 5
        codes = numbers(sinusoidal_positions(len(values), scheme.config.dim))
        values = [plus(frame, code) for frame, code in zip(values, codes, strict=True)]
        values = transformer(values, None, mask, encoder.transformer, "pre_norm")
        values = [layer_norm(frame, encoder.transformer.closing_norm) for frame in values]
        real = got.mask[row]
        wanted = torch.tensor(values, dtype=torch.float64)[real]
        torch.testing.assert_close(got.values[row][real].detach(), wanted, rtol=0, atol=1e-9)


def test_with_text_layers_a_token_knows_its_neighbours_and_without_it_does_not() -> None:
    batch = batch_of(1, COMPLETE)
    text = batch.sequences[TEXT]
    changed = text.values.clone()
    assert bool(text.mask[0].all())
    changed[0, 1] = changed[0, 1] + 1.0
    other = dataclasses.replace(
        batch, sequences={**batch.sequences, TEXT: Padded(changed, text.mask)}
    )
    for parts, knows in (((), False), (("text_layers",), True)):
        network = scheme_of(1, parts=parts).network
        one, two = (network.encode(b)[TEXT].values[0, 0] for b in (batch, other))
        assert torch.equal(one, two) is not knows


# ---------------------------------------------------------------------------------------------
# own_frames: the gate as a probe


def test_with_own_frames_the_score_never_sees_a_hard_negative() -> None:
    batch = batch_of(2)
    probing = scheme_of(2, parts=("own_frames",), swap_probability=1.0)
    paper = scheme_of(2, swap_probability=1.0)
    close(probing.loss(batch, PROGRESS).output.prediction, numbers(probing.predict(batch)))
    gap = paper.loss(batch, PROGRESS).output.prediction - paper.predict(batch)
    assert float(gap.detach().abs().max()) > 1e-3


def test_with_own_frames_the_head_judges_every_own_and_every_drawn_sequence() -> None:
    scheme = scheme_of(3, parts=("own_frames",), swap_probability=0.6)
    batch, slow = batch_of(3), Slow(scheme)
    got = scheme.loss(batch, PROGRESS).terms
    for m in (AUDIO, VISION):
        pair_head: Any = scheme.pair_heads[m]
        chosen = slow.partners(batch, m, PROGRESS)
        rows = complete_rows(slow, batch, m)
        assert any(chosen[r] != r for r in rows)
        entropies = []
        for row in rows:
            core = slow.encode(batch, row, TEXT)
            for partner, target in {row: 1, chosen[row]: int(chosen[row] == row)}.items():
                frames = slow.fuse(core, slow.encode(batch, partner, m), m)
                entropies.append(cross_entropy(affine(pool(frames, core[1]), pair_head), target))
        close(got[scheme.config.pair(m) + "p"], sum(entropies) / len(entropies))


# ---------------------------------------------------------------------------------------------
# standardised_keys and symmetric_contrast


def standardised(rows: list[Vector]) -> list[Vector]:
    count = len(rows)
    columns = list(zip(*rows, strict=True))
    means = [sum(column) / count for column in columns]
    variances = [
        sum((x - mean) ** 2 for x in column) / count
        for column, mean in zip(columns, means, strict=True)
    ]
    return [
        [
            (x - mean) / math.sqrt(variance + 1e-5)
            for x, mean, variance in zip(row, means, variances, strict=True)
        ]
        for row in rows
    ]


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_contrast_of_standardised_keys(symmetric: bool) -> None:
    parts = ("standardised_keys", *(("symmetric_contrast",) if symmetric else ()))
    scheme = in_training(scheme_of(4, parts=parts))
    batch, slow = batch_of(4), Slow(scheme)
    got = scheme.loss(batch, PROGRESS).terms
    for m in (AUDIO, VISION):
        queries, keys = slow.mapped_pair(batch, m, complete_rows(slow, batch, m))
        q, k, tau = standardised(queries), standardised(keys), scheme.config.temperature
        expected = contrast(q, k, tau)
        if symmetric:
            assert abs(contrast(k, q, tau) - expected) > 1e-3
            expected = (expected + contrast(k, q, tau)) / 2
        close(got[scheme.config.pair(m)], expected, 1e-8)
        assert abs(contrast(queries, keys, tau) - contrast(q, k, tau)) > 1e-3


def test_standardised_keys_choose_the_hard_negatives_and_fill_the_bank() -> None:
    batch = batch_of(5, COMPLETE)
    scheme = in_training(
        scheme_of(5, parts=("standardised_keys",), swap_probability=1.0, num_hard_negatives=1,
                  bank_size=8, bank_frames=6)
    )  # fmt: skip
    slow = Slow(scheme)
    losses = scheme.loss(batch, PROGRESS)
    scheme.after_step(batch, losses, PROGRESS)
    rows = complete_rows(slow, batch, AUDIO)
    _, keys = slow.mapped_pair(batch, AUDIO, rows)
    bank = scheme.bank_for(AUDIO)
    assert bank is not None
    for row, key in zip(range(batch.size), standardised(keys), strict=True):
        wanted = torch.tensor(key) / math.sqrt(dot(key, key))
        torch.testing.assert_close(bank.keys[row], wanted.to(bank.keys.dtype), rtol=0, atol=1e-6)


def test_keys_of_one_cone_are_told_apart_once_standardised() -> None:
    """Ten directions that nearly coincide: cosines of almost 1 before, of about 0 after."""
    scheme = in_training(scheme_of(6, parts=("standardised_keys",)))
    norm: Any = scheme.standardise["key_audio"]
    generator = torch.Generator().manual_seed(0)
    cone = 10 + torch.randn(12, scheme.config.dim, generator=generator, dtype=torch.float64)
    rows = numbers(norm(cone, torch.ones(12, dtype=torch.bool)))
    pairs = [(i, j) for i in range(12) for j in range(i)]
    before = [cosine(numbers(cone)[i], numbers(cone)[j]) for i, j in pairs]
    after = [cosine(rows[i], rows[j]) for i, j in pairs]
    assert min(before) > 0.97
    assert abs(sum(after) / len(after)) < 0.15


# ---------------------------------------------------------------------------------------------
# difference_loss


def slow_differences(
    predictions: Vector, labels: Vector, vectors: list[Vector], there: list[bool], count: int
) -> float:
    known = [row for row, has in enumerate(there) if has]
    width = len(vectors[0])
    mean = [sum(vectors[r][d] for r in known) / len(known) for d in range(width)]
    centred = {r: [x - m for x, m in zip(vectors[r], mean, strict=True)] for r in known}
    rows = []
    for i in known:
        others = sorted(
            (r for r in known if r != i), key=lambda r: -cosine(centred[i], centred[r])
        )[:count]
        if others:
            errors = [
                abs((predictions[i] - predictions[j]) - (labels[i] - labels[j])) for j in others
            ]
            rows.append(sum(errors) / len(errors))
    return sum(rows) / len(rows) if rows else 0.0


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 3, 50])
def test_the_difference_loss_against_loops(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    predictions, labels, vectors = draw(7), draw(7), draw(7, 4)
    there = torch.tensor([True, True, False, True, True, True, True])
    got = difference_loss(predictions, labels, vectors, present=there, num_similar=count)
    expected = slow_differences(
        numbers(predictions), numbers(labels), numbers(vectors), numbers(there), count
    )
    close(got, expected)


def test_an_error_that_all_share_costs_no_difference_and_no_gradient_chooses() -> None:
    labels = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    vectors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    predictions = (labels + 0.7).requires_grad_()
    everyone = torch.ones(3, dtype=torch.bool)
    loss = difference_loss(predictions, labels, vectors, present=everyone, num_similar=2)
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    (2 * predictions.sum() + loss).backward()
    assert vectors.grad is None
    nobody = torch.zeros(3, dtype=torch.bool)
    assert difference_loss(labels, labels, vectors, present=nobody, num_similar=2).item() == 0.0


def test_the_difference_term_of_a_mixed_batch_is_by_pooled_text() -> None:
    scheme = scheme_of(7, parts=("difference_loss", "own_frames"))
    batch, slow = batch_of(7), Slow(scheme)
    losses = scheme.loss(batch, PROGRESS)
    there = numbers(batch.present[TEXT])
    vectors = [
        pooled_text(slow, batch, r) if has else [0.0] * scheme.config.dim
        for r, has in enumerate(there)
    ]
    assert batch.labels is not None
    expected = slow_differences(
        numbers(losses.output.prediction), numbers(batch.labels), vectors, there, 3
    )
    close(losses.terms["difference"], expected)
    assert losses.weights["difference"] == 0.5
    assert "difference" not in scheme_of(7).loss(batch, PROGRESS).terms


def test_a_classification_has_no_difference_loss() -> None:
    config = TeCaFNConfig(
        dim=10, num_layers=1, num_unimodal_layers=1, unimodal_hidden_dim=6, variant="revised"
    )
    scheme = TeCaFNScheme(config, info(task="classification", num_classes=2)).double()
    batch = dataclasses.replace(batch_of(8), labels=torch.tensor([0, 1] * 4))
    terms = scheme.loss(batch, PROGRESS).terms
    assert "difference" not in terms
    assert "task" in terms


# ---------------------------------------------------------------------------------------------
# the fused contrast: off, or on what the text does not explain


def test_without_the_fused_contrast_there_is_no_term_and_no_mapper() -> None:
    scheme = scheme_of(9, parts=("no_fused_contrast",))
    assert "bicon" not in scheme.loss(batch_of(9), PROGRESS).terms
    assert len(scheme.fused_mappers) == 0
    assert "bicon" in scheme_of(9).loss(batch_of(9), PROGRESS).terms


def test_the_unexplained_contrast_takes_the_texts_share_out_first() -> None:
    scheme = scheme_of(10, parts=("unexplained_contrast", "own_frames"))
    batch, slow = batch_of(10, COMPLETE), Slow(scheme)
    losses = scheme.loss(batch, PROGRESS)
    left: dict[Any, list[Vector]] = {AUDIO: [], VISION: []}
    explained = 0.0
    for m in (AUDIO, VISION):
        explaining: Any = scheme.explaining[m]
        for row in range(batch.size):
            core = slow.encode(batch, row, TEXT)
            fused = slow.fuse(core, slow.encode(batch, row, m), m)
            vector = mapped(fused, core[1], slow.mapper(m))
            guess = affine(pool(*core), explaining)
            left[m].append([v - g for v, g in zip(vector, guess, strict=True)])
            error = [(v - g) ** 2 for v, g in zip(vector, guess, strict=True)]
            explained += sum(error) / len(error) / batch.size
    tau = scheme.config.temperature
    first, second = left.values()
    close(losses.terms["bicon"], contrast(first, second, tau) + contrast(second, first, tau), 1e-8)
    close(losses.terms["explained"], explained, 1e-8)


def test_what_explains_learns_from_its_own_term_alone() -> None:
    scheme = scheme_of(11, parts=("unexplained_contrast",))
    batch = batch_of(11)
    explaining = {id(p) for p in scheme.explaining.parameters()}
    for term in ("bicon", "explained"):
        scheme.zero_grad(set_to_none=True)
        scheme.loss(batch, PROGRESS).terms[term].backward()
        moved = {id(p) for p in scheme.parameters() if p.grad is not None and bool(p.grad.any())}
        assert moved
        assert moved <= explaining if term == "explained" else not moved & explaining


# ---------------------------------------------------------------------------------------------
# joined_vector


def single_frames() -> Any:
    return info(single_frame=(AUDIO,))


def one_frame_of_audio(seed: int) -> Batch:
    batch = batch_of(seed, COMPLETE)
    values = torch.randn(8, 1, 4, generator=torch.Generator().manual_seed(seed)).double()
    audio = Padded(values, torch.ones(8, 1, dtype=torch.bool))
    return dataclasses.replace(batch, sequences={**batch.sequences, AUDIO: audio})


def test_a_modality_of_one_frame_joins_by_its_vector() -> None:
    config = dataclasses.replace(scheme_of(0).config, parts=("joined_vector",))
    scheme = randomise(TeCaFNScheme(config, single_frames()), 12)
    assert isinstance(scheme, TeCaFNScheme)
    network, batch = scheme.network, one_frame_of_audio(12)
    assert network.joined == (AUDIO,)
    assert AUDIO not in network.attention
    assert VISION in network.attention
    encoded = network.encode(batch)
    fused = network.attend(AUDIO, encoded[TEXT], encoded[AUDIO])
    encoder: Any
    join: Any
    encoder, join = (modules[AUDIO] for modules in (network.encoders, network.joins))
    for row in range(batch.size):
        frame = Slow.standardise(numbers(batch.sequences[AUDIO].values[row])[0], STATISTICS[AUDIO])
        vector = affine(affine(frame, encoder.project), join)
        core, mask = Slow(scheme).encode(batch, row, TEXT)
        for place, real in enumerate(mask):
            if real:
                close(fused.values[row, place], plus(core[place], vector))


def test_attention_over_one_frame_selects_nothing_whatever_asks() -> None:
    """Why a modality of one frame joins by its vector: softmax over one key is 1."""
    network = scheme_of(13).network
    batch = one_frame_of_audio(13)
    encoded = network.encode(batch)
    layer: Any = network.attention[AUDIO].layers[0]
    key = layer.source_norm(encoded[AUDIO].values)
    asked = torch.randn(2, 8, 3, network.config.dim, dtype=torch.float64)
    one, two = (layer.attention(query, key, encoded[AUDIO].mask) for query in asked)
    torch.testing.assert_close(one, two)


def test_sequences_and_the_core_are_never_joined() -> None:
    config = dataclasses.replace(scheme_of(0).config, parts=("joined_vector",))
    assert TeCaFNScheme(config, info()).network.joined == ()
    core_of_one = dataclasses.replace(config, core=AUDIO)
    assert TeCaFNScheme(core_of_one, single_frames()).network.joined == ()
    paper = dataclasses.replace(config, parts=())
    assert TeCaFNScheme(paper, single_frames()).network.joined == ()


# ---------------------------------------------------------------------------------------------
# products, unimodal heads, the gate's warm-up, label-aware negatives


def test_products_are_added_to_what_the_head_reads() -> None:
    scheme = scheme_of(14, parts=("products",), product_dim=3)
    batch, slow = batch_of(14), Slow(scheme)
    got = scheme(batch).features["fused"]
    product: Any = scheme.network.product
    for row in range(batch.size):
        core = slow.encode(batch, row, TEXT)
        fused = {
            m: slow.fuse(core, slow.encode(batch, row, m), m)
            for m in (AUDIO, VISION)
            if slow.has(batch, row, m)
        }
        z = slow.combine(core, fused)
        if len(fused) == 2:
            first, second = (pool(x, core[1]) for x in fused.values())
            together = [
                a * b
                for a, b in zip(
                    affine(first, product.first), affine(second, product.second), strict=True
                )
            ]
            z = plus(z, affine(together, product.output))
        close(got[row], z, 1e-8)


def test_unimodal_heads_predict_from_each_modality_alone() -> None:
    scheme = scheme_of(15, parts=("unimodal_heads",))
    batch, slow = batch_of(15), Slow(scheme)
    assert batch.labels is not None
    labels: Vector = numbers(batch.labels)
    expected = 0.0
    for m in (TEXT, AUDIO, VISION):
        head: Any = scheme.unimodal_heads[m]
        rows = [r for r in range(batch.size) if slow.has(batch, r, m)]
        errors = [
            abs(affine(pool(*slow.encode(batch, r, m)), head.linear)[0] - labels[r]) for r in rows
        ]
        expected += sum(errors) / len(errors)
    losses = scheme.loss(batch, PROGRESS)
    close(losses.terms["unimodal"], expected, 1e-8)
    assert losses.weights["unimodal"] == 0.3


def test_the_gate_opens_over_its_warm_up() -> None:
    config = TeCaFNConfig(swap_probability=0.6, swap_warmup_epochs=3)
    assert [config.swap_in(e, AUDIO) for e in range(5)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.6])
    assert TeCaFNConfig(swap_probability=0.6).swap_in(0, AUDIO) == 0.6
    scheme = scheme_of(16, swap_probability=1.0, swap_warmup_epochs=2)
    batch = batch_of(16, COMPLETE)
    closed, opened = (scheme.loss(batch, Progress(seed=0, epoch=e)) for e in (0, 2))
    close(closed.output.prediction, numbers(scheme.predict(batch)))
    gap = opened.output.prediction - scheme.predict(batch)
    assert float(gap.detach().abs().max()) > 1e-3


def test_label_aware_negatives_have_labels_that_differ() -> None:
    batch = batch_of(17, COMPLETE)
    labels = torch.tensor([0.0, 0.1, 0.2, 0.3, 2.0, 2.1, 2.2, 2.3], dtype=torch.float64)
    batch = dataclasses.replace(batch, labels=labels)
    for margin, all_apart in ((0.0, False), (1.0, True)):
        scheme = scheme_of(17, swap_probability=1.0, num_hard_negatives=1, label_margin=margin)
        encoded = scheme.network.encode(batch)
        everyone = torch.ones(8, dtype=torch.bool)
        query, key = scheme._mapped(AUDIO, encoded[TEXT], encoded[AUDIO], everyone)
        found = info_nce(query, key, present=everyone, temperature=0.1)
        pairing = scheme._replace(AUDIO, query, found, everyone, batch, PROGRESS)
        assert not bool(pairing.matched.any())
        apart = (labels - labels[pairing.column]).abs() >= 1.0
        assert bool(apart.all()) is all_apart


def test_labels_that_differ_by_just_the_margin_are_apart() -> None:
    labels = torch.tensor([0.0] * 4 + [1.0] * 4, dtype=torch.float64)
    batch = dataclasses.replace(batch_of(17, COMPLETE), labels=labels)
    scheme = scheme_of(17, swap_probability=1.0, label_margin=1.0)
    everyone = torch.ones(8, dtype=torch.bool)
    encoded = scheme.network.encode(batch)
    query, key = scheme._mapped(AUDIO, encoded[TEXT], encoded[AUDIO], everyone)
    found = info_nce(query, key, present=everyone, temperature=0.1)
    pairing = scheme._replace(AUDIO, query, found, everyone, batch, PROGRESS)
    assert not bool(pairing.matched.any())
    assert bool(((labels - labels[pairing.column]).abs() == 1.0).all())


# ---------------------------------------------------------------------------------------------
# Health


def test_the_losses_say_what_each_contrast_and_head_would_be_by_chance() -> None:
    scheme = scheme_of(18, swap_probability=0.3)
    batch = batch_of(18)
    losses = scheme.loss(batch, PROGRESS)
    rows = complete_rows(Slow(scheme), batch, AUDIO)
    assert float(losses.health["ta"].chance) == pytest.approx(math.log(len(rows)))
    assert float(losses.health["ta"].value) == pytest.approx(float(losses.terms["ta"].detach()))
    entropy = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    assert float(losses.health["tap"].chance) == pytest.approx(entropy)
    half = float(losses.terms["bicon"].detach()) / 2
    assert float(losses.health["bicon"].value) == pytest.approx(half)
    assert set(losses.health) == {"ta", "tv", "tap", "tvp", "ta hubs", "tv hubs", "bicon"}
    assert not any(r.value.requires_grad for r in losses.health.values())


def test_a_probing_gate_shows_the_head_more_own_than_drawn_sequences() -> None:
    losses = scheme_of(19, parts=("own_frames",), swap_probability=1.0).loss(batch_of(19), PROGRESS)
    assert float(losses.health["tap"].chance) == pytest.approx(math.log(2))


def test_a_closed_gate_has_neither_head_nor_hubs_to_watch() -> None:
    losses = scheme_of(20, swap_probability=0.0).loss(batch_of(20), PROGRESS)
    assert set(losses.health) == {"ta", "tv", "bicon"}
