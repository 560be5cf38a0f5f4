"""Equations 2-19 of TeCaFN (Huang et al. 2024) against slow loops in float64.

The loops are plain Python over samples, frames, heads and columns, written from the equations and
from what was settled where the print leaves something open or cannot be meant (eq. 6, 15 and 17:
those tests also compute the printed version and show that it gives another number).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from slow_tecafn import (
    AUDIO,
    SEEDS,
    SMALL,
    TEXT,
    VISION,
    Slow,
    Vector,
    attend,
    batch_of,
    close,
    close_where_real,
    contrast,
    contrast_as_printed,
    convolve,
    cosine,
    cross_entropy,
    frames,
    head,
    info,
    lstm,
    mapped,
    numbers,
    pool,
    randomise,
    scheme_of,
    transformer,
    transformer_layer,
)

from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.layers.attention import (
    MultiHeadAttention,
    Transformer,
    TransformerLayer,
    TransformerSettings,
)
from tecafn.layers.sequence import MaskedConv1d, SequenceLSTM, masked_mean
from tecafn.losses.contrastive import info_nce
from tecafn.losses.task import task_loss
from tecafn.methods.tecafn import Mapper, TeCaFN, TeCaFNConfig, TeCaFNScheme
from tecafn.testing import method_case

# ---------------------------------------------------------------------------------------------
# Equation by equation


def settings_of(residual: Any, *, dropout: float = 0.0) -> TransformerSettings:
    return TransformerSettings(
        num_heads=5,
        attention_dropout=dropout,
        relu_dropout=dropout,
        residual_dropout=dropout,
        residual=residual,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("residual", ["printed", "pre_norm"])
def test_equations_2_and_3_self_attention_layer(seed: int, residual: str) -> None:
    layer = TransformerLayer(10, settings_of(residual, dropout=0.1), cross=False)
    randomise(layer, seed)
    values, mask = frames(seed, 3, 5, 10)
    expected = [
        transformer_layer(v, None, m, layer, residual)
        for v, m in zip(numbers(values), numbers(mask), strict=True)
    ]
    close(layer(values, None, mask), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_equations_2_and_3_the_two_residuals_give_different_numbers(seed: int) -> None:
    values, mask = frames(seed, 2, 4, 10)
    answers = []
    for residual in ("printed", "pre_norm"):
        module = Transformer(10, settings_of(residual), num_layers=2)
        answers.append(randomise(module, seed)(values, None, mask))
    assert float((answers[0] - answers[1]).detach().abs().max()) > 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_4_lstm_steps_over_real_frames_only(seed: int) -> None:
    module = SequenceLSTM(4, 6)
    randomise(module, seed)
    values, mask = frames(seed, 4, 6, 4)
    expected = [lstm(v, m, module) for v, m in zip(numbers(values), numbers(mask), strict=True)]
    states, _ = module(Padded(values, mask))
    close(states.values, expected)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_equation_5_temporal_convolution(seed: int, kernel_size: int) -> None:
    module = MaskedConv1d(4, 7, kernel_size=kernel_size)
    randomise(module, seed)
    values, mask = frames(seed, 3, 5, 4)
    expected = [convolve(v, m, module) for v, m in zip(numbers(values), numbers(mask), strict=True)]
    close(module(torch.where(mask.unsqueeze(-1), values, float("nan")), mask), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_equations_1_to_5_of_audio_and_vision_end_to_end(seed: int) -> None:
    scheme, batch = scheme_of(seed), batch_of(seed, ("", "", "", ""))
    slow = Slow(scheme)
    encoded = scheme.network.encode(batch)
    for modality in (AUDIO, VISION, TEXT):
        expected = [slow.encode(batch, row, modality)[0] for row in range(batch.size)]
        mask = batch.sequences[modality].mask
        close_where_real(encoded[modality].values, expected, mask)
        assert torch.equal(encoded[modality].mask, mask)


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_4_text_is_the_last_hidden_states_of_bert(seed: int) -> None:
    from transformers import AutoModel

    config = TeCaFNConfig()
    with method_case("tecafn", config=config) as case:
        network = case.build(seed=seed).network.double().eval()
        assert isinstance(network, TeCaFN)
        batch = case.batch(4, seed=seed)
        text = batch.sequences[TEXT]
        bert = AutoModel.from_pretrained(case.info.text_encoder.source).double().eval()
        states = bert(input_ids=text.values, attention_mask=text.mask.long()).last_hidden_state
        encoder: Any = network.encoders[TEXT]
        expected = [
            convolve(v, m, encoder.convolution)
            for v, m in zip(numbers(states), numbers(text.mask), strict=True)
        ]
        close_where_real(encoder(text).values, expected, text.mask)


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_6_mapper_is_depth_wise_convolution_and_mean_pooling(seed: int) -> None:
    mapper = Mapper(5, dropout=0.1)
    randomise(mapper, seed)
    values, mask = frames(seed, 4, 5, 5)
    expected = [mapped(v, m, mapper) for v, m in zip(numbers(values), numbers(mask), strict=True)]
    close(mapper(Padded(values, mask)), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_6_negatives_are_q_i_k_j_and_not_the_printed_q_j_k_j(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    got = info_nce(query, key, present=torch.ones(6, dtype=torch.bool), temperature=0.1).loss
    close(got, contrast(numbers(query), numbers(key), 0.1))
    printed = contrast_as_printed(numbers(query), numbers(key), 0.1)
    assert abs(float(got) - printed) > 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_6_rows_without_both_modalities_are_neither_rows_nor_negatives(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    present = torch.tensor([True, False, True, True, False, True])
    got = info_nce(query, key, present=present, temperature=0.1).loss
    close(got, contrast(numbers(query[present]), numbers(key[present]), 0.1))


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_7_similarity_is_the_cosine_of_every_query_to_every_key(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    out = info_nce(query, key, present=torch.ones(5, dtype=torch.bool), temperature=0.1)
    expected = [[cosine(q, k) for k in numbers(key)] for q in numbers(query)]
    close(out.similarity, expected)
    assert out.positive.tolist() == list(range(5))


@pytest.mark.parametrize("seed", SEEDS)
def test_equations_8_to_10_multi_head_attention(seed: int) -> None:
    module = MultiHeadAttention(10, num_heads=5, dropout=0.1)
    randomise(module, seed)
    query, _ = frames(seed, 3, 4, 10)
    source, mask = frames(seed + 50, 3, 6, 10)
    rows = zip(numbers(query), numbers(source), numbers(mask), strict=True)
    close(module(query, source, mask), [attend(q, s, m, module) for q, s, m in rows])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("residual", ["printed", "pre_norm"])
def test_equations_11_and_12_query_is_the_stream_and_key_value_the_same_source_in_every_layer(
    seed: int, residual: Any
) -> None:
    module = Transformer(10, settings_of(residual), num_layers=3, cross=True)
    randomise(module, seed)
    core, _ = frames(seed, 3, 4, 10)
    source, mask = frames(seed + 50, 3, 6, 10)
    expected = [
        transformer(c, s, m, module, residual)
        for c, s, m in zip(numbers(core), numbers(source), numbers(mask), strict=True)
    ]
    close(module(core, source, mask), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_13_pool_is_the_mean_over_real_frames(seed: int) -> None:
    values, mask = frames(seed, 4, 6, 3)
    expected = [pool(v, m) for v, m in zip(numbers(values), numbers(mask), strict=True)]
    close(masked_mean(values, mask), expected)


@pytest.fixture(
    scope="module",
    params=[
        (seed, core, fusion, residual)
        for seed, core, fusion, residual in [
            (0, TEXT, "sum", "printed"),
            (1, TEXT, "concat", "pre_norm"),
            (2, AUDIO, "sum", "printed"),
            (3, VISION, "concat", "printed"),
        ]
    ],
    ids=str,
)
def objective(
    request: pytest.FixtureRequest,
) -> tuple[TeCaFNScheme, Batch, Progress, dict[str, float], Vector]:
    """A batch with absent modalities and holes, and every term by the slow loops."""
    seed, core, fusion, residual = request.param
    scheme = scheme_of(seed, core=core, fusion=fusion, residual=residual)
    progress = Progress(seed=40 + seed, epoch=seed)
    batch = batch_of(seed)
    return scheme, batch, progress, *Slow(scheme).terms(batch, progress)


def test_some_samples_are_replaced_in_the_objective_and_some_are_not(objective: Any) -> None:
    scheme, batch, progress, _, _ = objective
    for m in scheme.config.others:
        kept = [row == c for row, c in Slow(scheme).partners(batch, m, progress).items()]
        assert any(kept)
        assert not all(kept)


@pytest.mark.parametrize("other", [0, 1])
def test_equation_6_of_a_mixed_batch(objective: Any, other: int) -> None:
    scheme, batch, progress, expected, _ = objective
    pair = scheme.config.pair(scheme.config.others[other])
    close(scheme.loss(batch, progress).terms[pair], expected[pair])


@pytest.mark.parametrize("other", [0, 1])
def test_equations_13_and_14_pairwise_prediction_of_a_mixed_batch(
    objective: Any, other: int
) -> None:
    """Logits from the pooled h_cm, cross-entropy with 1 = own and 0 = replaced."""
    scheme, batch, progress, expected, _ = objective
    term = scheme.config.pair(scheme.config.others[other]) + "p"
    close(scheme.loss(batch, progress).terms[term], expected[term])


def test_equations_15_and_16_both_directions_over_samples(objective: Any) -> None:
    """As in eq. 6 the negatives of row i are z_i u_j, where the print has z_j u_j."""
    scheme, batch, progress, expected, _ = objective
    close(scheme.loss(batch, progress).terms["bicon"], expected["bicon"])


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_15_as_printed_gives_another_number(seed: int) -> None:
    """Printed, both directions are the same number; as settled they differ."""
    generator = torch.Generator().manual_seed(seed)
    z, u = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    everyone = torch.ones(6, dtype=torch.bool)
    there = info_nce(z, u, present=everyone, temperature=0.1).loss
    back = info_nce(u, z, present=everyone, temperature=0.1).loss
    close(there, contrast(numbers(z), numbers(u), 0.1))
    close(back, contrast(numbers(u), numbers(z), 0.1))
    printed = contrast_as_printed(numbers(z), numbers(u), 0.1)
    assert printed == pytest.approx(contrast_as_printed(numbers(u), numbers(z), 0.1))
    assert abs(float(there + back) - 2 * printed) > 0.05


def test_equation_17_in_training_uses_the_replaced_frames(objective: Any) -> None:
    scheme, batch, progress, _, scores = objective
    losses = scheme.loss(batch, progress)
    close(losses.output.prediction, scores)
    assert float((losses.output.prediction - scheme.predict(batch)).detach().abs().max()) > 1e-3


def test_equation_18_is_the_mean_absolute_error(objective: Any) -> None:
    scheme, batch, progress, expected, _ = objective
    close(scheme.loss(batch, progress).terms["task"], expected["task"])


def test_equation_19_weighs_every_term(objective: Any) -> None:
    scheme, batch, progress, expected, _ = objective
    losses = scheme.loss(batch, progress)
    pairs = [scheme.config.pair(m) for m in scheme.config.others]
    con = sum(expected[pair] for pair in pairs) + expected["bicon"]
    ap = sum(expected[pair + "p"] for pair in pairs)
    close(losses.log["con"], con)
    close(losses.log["ap"], ap)
    close(losses.total, expected["task"] + 0.1 * con + 0.1 * ap)
    assert set(losses.terms) == set(expected)


# ---------------------------------------------------------------------------------------------
# The inference path


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("core", list(Modality))
@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_prediction_of_every_combination_of_modalities(
    seed: int, core: Modality, fusion: str
) -> None:
    scheme = scheme_of(seed, core=core, fusion=fusion)
    batch = batch_of(seed, ("", "t", "a", "v", "ta", "tv", "av", "tav"))
    close(scheme.predict(batch), Slow(scheme).predict(batch))


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_17_is_three_tanh_and_as_printed_caps_the_score_at_one(seed: int) -> None:
    scheme, batch = scheme_of(seed), batch_of(seed)
    with torch.no_grad():
        for parameter in scheme.network.head.parameters():
            parameter.mul_(4)
    fused = scheme.network(batch).features["fused"]
    raw = [head(z, scheme.network)[0] for z in numbers(fused)]
    got = scheme.predict(batch)
    close(got, [3 * math.tanh(value) for value in raw])
    printed = torch.tensor([math.tanh(value) for value in raw], dtype=torch.float64)
    assert float(got.detach().abs().max()) > 1.0
    assert float((got - printed).detach().abs().max()) > 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_17_tanh_fills_any_label_range(seed: int) -> None:
    config = dataclasses.replace(SMALL, output="tanh")
    network = randomise(TeCaFN(config, info(label_range=(0.0, 5.0))), seed)
    assert isinstance(network, TeCaFN)
    output = network(batch_of(seed))
    raw = [head(z, network)[0] for z in numbers(output.features["fused"])]
    close(output.prediction, [2.5 + 2.5 * math.tanh(value) for value in raw])


@pytest.mark.parametrize("seed", SEEDS)
def test_linear_output_is_the_mlp_alone(seed: int) -> None:
    scheme, batch = scheme_of(seed, output="linear"), batch_of(seed)
    fused = scheme.network(batch).features["fused"]
    close(scheme.predict(batch), [head(z, scheme.network)[0] for z in numbers(fused)])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("output", ["tanh", "linear"])
def test_classification_gives_two_logits_and_cross_entropy(seed: int, output: Any) -> None:
    config = dataclasses.replace(SMALL, output=output)
    scheme = TeCaFNScheme(config, info(task="classification", num_classes=2))
    randomise(scheme, seed)
    scored = batch_of(seed)
    batch = dataclasses.replace(scored, labels=torch.arange(scored.size) % 2)
    losses = scheme.loss(batch, Progress(seed=seed, epoch=0))
    logits = [head(z, scheme.network) for z in numbers(losses.output.features["fused"])]
    close(losses.output.prediction, logits)
    entropies = [cross_entropy(row, k % 2) for k, row in enumerate(logits)]
    close(losses.terms["task"], sum(entropies) / len(entropies))


@pytest.mark.parametrize("seed", SEEDS)
def test_equation_18_is_a_mean_over_the_batch(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels, scores = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    errors = [abs(y - s) for y, s in zip(numbers(labels), numbers(scores), strict=True)]
    close(task_loss(scores, labels), sum(errors) / 7)


# ---------------------------------------------------------------------------------------------
# Absent modalities


@pytest.mark.parametrize("seed", SEEDS)
def test_one_absent_modality_leaves_twice_the_other(seed: int) -> None:
    """z_s = mean of the pooled sequences that are present, times their usual number."""
    network, batch = scheme_of(seed).network, batch_of(seed, ("a", "v", ""))
    features = network(batch).features
    audio, vision = features["pooled_audio"], features["pooled_vision"]
    close(features["fused"][0], numbers(2 * vision[0]))
    close(features["fused"][1], numbers(2 * audio[1]))
    close(features["fused"][2], numbers(audio[2] + vision[2]))


@pytest.mark.parametrize("seed", SEEDS)
def test_without_any_other_modality_z_is_the_pooled_core(seed: int) -> None:
    network, batch = scheme_of(seed).network, batch_of(seed, ("av", ""))
    core = network.encode(batch)[TEXT]
    close(network(batch).features["fused"][0], numbers(masked_mean(core.values, core.mask)[0]))


@pytest.mark.parametrize("seed", SEEDS)
def test_concatenation_holds_a_learned_vector_in_an_absent_slot(seed: int) -> None:
    network, batch = scheme_of(seed, fusion="concat").network, batch_of(seed, ("a", "v", ""))
    features = network(batch).features
    audio, vision = features["pooled_audio"], features["pooled_vision"]
    slots: Any = network.absent_slots
    close(features["fused"][0], numbers(torch.cat([slots[AUDIO], vision[0]])))
    close(features["fused"][1], numbers(torch.cat([audio[1], slots[VISION]])))
    close(features["fused"][2], numbers(torch.cat([audio[2], vision[2]])))


@pytest.mark.parametrize("fusion", ["sum", "concat"])
@pytest.mark.parametrize("absent", ["t", "a", "v", "ta", "tv", "av"])
def test_a_batch_without_a_modalitys_tensors_is_a_batch_where_all_lack_it(
    absent: str, fusion: str
) -> None:
    scheme, batch = scheme_of(0, fusion=fusion), batch_of(0, ("",) * 3)
    kept = [m for m in Modality if m[0] not in absent]
    without = dataclasses.replace(
        batch,
        sequences={m: batch.sequences[m] for m in kept},
        present={m: batch.present[m] for m in kept},
    )
    expected = Slow(scheme).predict(without)
    close(scheme.predict(without), expected)
    close(scheme.predict(batch_of(0, (absent,) * 3)), expected)


@pytest.mark.parametrize("core", list(Modality))
def test_an_absent_core_is_one_learned_frame(core: Modality) -> None:
    network, batch = scheme_of(0, core=core).network, batch_of(0, (core[0], ""))
    encoded = network.encode(batch)[core]
    assert encoded.mask[0].tolist() == [True] + [False] * (encoded.mask.shape[1] - 1)
    close(encoded.values[0, 0], numbers(network.absent_core))
    assert torch.equal(encoded.mask[1], batch.sequences[core].mask[1])


def test_a_core_the_network_cannot_read_takes_no_part_in_contrast_or_gate() -> None:
    """The dataset's text is not in use: its rows are as if they had none."""
    everything = info(modalities=(AUDIO, VISION))
    scheme = randomise(TeCaFNScheme(SMALL, everything), 0)
    assert isinstance(scheme, TeCaFNScheme)
    batch = batch_of(0)
    without = dataclasses.replace(
        batch,
        sequences={m: batch.sequences[m] for m in (AUDIO, VISION)},
        present={m: batch.present[m] for m in (AUDIO, VISION)},
    )
    progress = Progress(seed=0, epoch=0)
    terms = scheme.loss(batch, progress).terms
    for name, value in scheme.loss(without, progress).terms.items():
        assert torch.equal(terms[name], value), name
    assert terms["ta"].item() == terms["tv"].item() == terms["bicon"].item() == 0.0


def test_batches_without_negatives_have_contrasts_of_zero() -> None:
    scheme, progress = scheme_of(0), Progress(seed=0, epoch=0)
    alone = batch_of(0, ("",))
    for batch in (alone, batch_of(0, ("", "a", "v", "t")), batch_of(0, ("t", "av"))):
        terms = scheme.loss(batch, progress).terms
        assert terms["bicon"].item() == 0.0
    terms = scheme.loss(alone, progress).terms
    assert terms["ta"].item() == terms["tv"].item() == 0.0
    close(scheme.loss(alone, progress).output.prediction, numbers(scheme.predict(alone)))


# ---------------------------------------------------------------------------------------------
# Table 5 as settings


def test_a_gate_per_modality_replaces_the_other_alone() -> None:
    """Sect. 4.6, "w/o L_tap": audio is never replaced and its pairwise loss has no weight."""
    scheme = scheme_of(
        0, swap_probability={AUDIO: 0.0, VISION: 1.0}, weights={"tap": 0.0}, num_hard_negatives=1
    )
    batch, progress = batch_of(0, ("",) * 6), Progress(seed=0, epoch=0)
    slow = Slow(scheme)
    assert all(row == c for row, c in slow.partners(batch, AUDIO, progress).items())
    assert all(row != c for row, c in slow.partners(batch, VISION, progress).items())
    losses = scheme.loss(batch, progress)
    expected, scores = slow.terms(batch, progress)
    close(losses.output.prediction, scores)
    weighed = {"task": 1.0, "ta": 0.1, "tv": 0.1, "bicon": 0.1, "tap": 0.0, "tvp": 0.1}
    close(losses.total, sum(weighed[name] * value for name, value in expected.items()))


def test_random_partners_come_from_the_whole_batch() -> None:
    scheme = scheme_of(1, swap_probability=1.0, num_hard_negatives="all")
    batch, progress = batch_of(1, ("",) * 8), Progress(seed=3, epoch=1)
    expected, scores = Slow(scheme).terms(batch, progress)
    losses = scheme.loss(batch, progress)
    close(losses.output.prediction, scores)
    close(losses.terms["tvp"], expected["tvp"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"tax": 1.0}}, r"weights: unknown terms \['tax'\]; known: task, bicon, ta"),
        ({"weights": {"at": 1.0}}, r"unknown terms \['at'\]"),
        ({"swap_probability": 1.5}, r"swap_probability must be in \[0, 1\], got 1.5"),
        ({"num_hard_negatives": 0}, r'num_hard_negatives must be >= 1 or "all", got 0'),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TeCaFNConfig(**options)


def test_terms_are_named_by_their_core() -> None:
    named = {core: set(TeCaFNConfig(core=core).term_weights()) for core in Modality}
    assert named[TEXT] == {"task", "ta", "tv", "bicon", "tap", "tvp"}
    assert named[AUDIO] == {"task", "at", "av", "bicon", "atp", "avp"}
    assert named[VISION] == {"task", "vt", "va", "bicon", "vtp", "vap"}


def test_a_training_batch_without_labels_is_refused() -> None:
    batch = dataclasses.replace(batch_of(0), labels=None)
    with pytest.raises(ValueError, match="a training batch needs a label in every row"):
        scheme_of(0).loss(batch, Progress(seed=0, epoch=0))


def test_a_modality_that_a_mapping_leaves_out_has_the_defaults() -> None:
    """Its hard negatives are as many as by default; it is never replaced."""
    config = TeCaFNConfig(
        num_hard_negatives={Modality.AUDIO: 5}, swap_probability={Modality.AUDIO: 0.4}
    )
    default = TeCaFNConfig()
    assert config.num_hard_negatives_for(Modality.AUDIO) == 5
    assert config.num_hard_negatives_for(Modality.VISION) == default.num_hard_negatives == 3
    assert config.swap_probability_for(Modality.AUDIO) == 0.4
    assert config.swap_probability_for(Modality.VISION) == 0.0
