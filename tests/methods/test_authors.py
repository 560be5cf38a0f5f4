"""``variant="authors"``: what the authors' public code computes, against slow loops in float64.

The loops are written from docs/paper-and-code.md, one sample, head and frame at a time.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Batch, Padded
from tecafn.core.errors import UserError
from tecafn.core.info import DataInfo, FeatureStatistics, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.scheme import parameter_groups
from tecafn.experiments.config import parse_config
from tecafn.layers import authors as authors_module
from tecafn.layers.attention import MultiHeadAttention, Transformer, TransformerSettings
from tecafn.layers.authors import (
    AsTheAuthors,
    AuthorsFrameEncoder,
    count_padding,
    misplaced_masks,
)
from tecafn.layers.encoders import FrameEncoder
from tecafn.layers.sequence import sinusoidal_positions
from tecafn.layers.utterance import LastHidden
from tecafn.losses.information import negative_log_density
from tecafn.methods.tecafn import DIFFERENCES, TeCaFNConfig, TeCaFNScheme
from tecafn.testing import method_case

TEXT, AUDIO, VISION = Modality
WIDTHS = {TEXT: 6, AUDIO: 4, VISION: 3}
STATISTICS = {
    AUDIO: FeatureStatistics([0.5, -1.0, 2.0, 0.0], [2.0, 1.5, 3.0, 1.0]),
    VISION: FeatureStatistics([1.0, 0.0, -3.0], [0.5, 1.5, 1.0]),
}
SMALL = TeCaFNConfig(
    dim=10, num_layers=2, num_unimodal_layers=2, unimodal_hidden_dim=6, swap_probability=0.0
)
INFO = DataInfo(
    widths=WIDTHS, statistics=STATISTICS, text_encoder=TextEncoderSpec(source="features")
)
PROGRESS = Progress(seed=3, epoch=1)
ROWS = 5


def scheme_of(seed: int = 0, **options: Any) -> TeCaFNScheme:
    """In evaluation mode, every weight random."""
    torch.manual_seed(seed)
    scheme = TeCaFNScheme(dataclasses.replace(SMALL, **options), INFO).double().eval()
    with torch.no_grad():
        for parameter in scheme.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return scheme


def batch_of(seed: int = 0, rows: int = ROWS) -> Batch:
    """Complete samples of different lengths; behind them zeros, as a loader pads."""
    generator = torch.Generator().manual_seed(seed)
    sequences = {}
    for modality, longest in ((TEXT, 4), (AUDIO, 6), (VISION, 5)):
        lengths = torch.randint(1, longest, (rows,), generator=generator)
        lengths[-1] = longest
        mask = torch.arange(longest) < lengths.unsqueeze(1)
        values = torch.randn(
            rows, longest, WIDTHS[modality], generator=generator, dtype=torch.float64
        )
        sequences[modality] = Padded(values * mask.unsqueeze(-1), mask)
    return Batch(
        sequences=sequences,
        present={m: torch.ones(rows, dtype=torch.bool) for m in sequences},
        labels=6 * torch.rand(rows, generator=generator, dtype=torch.float64) - 3,
        index=torch.arange(rows),
        ids=tuple(f"video_{row}" for row in range(rows)),
    )


def attend(
    query: Tensor, source: Tensor, masks: list[Tensor], module: MultiHeadAttention
) -> Tensor:
    """(Lq, D) and (Ls, D) of one sample; one mask (Ls,) a head."""
    width = query.shape[1] // module.num_heads
    key, value = module.key_value(source).chunk(2, dim=-1)
    asked = module.query(query)
    heads = []
    for head, mask in enumerate(masks):
        own = slice(head * width, (head + 1) * width)
        scores = asked[:, own] @ key[:, own].T / math.sqrt(width)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        heads.append(weights @ value[:, own])
    answer: Tensor = module.output(torch.cat(heads, 1))
    return answer


def transformer(
    stream: Tensor, source: Tensor | None, masks: list[Tensor], module: Transformer
) -> Tensor:
    """The usual pre-norm residuals and a closing LayerNorm."""
    layer: Any
    for layer in module.layers:
        normed = layer.attention_norm(stream)
        others = normed if source is None else layer.source_norm(source)
        stream = stream + attend(normed, others, masks, layer.attention)
        stream = stream + layer.feed_forward(layer.feed_forward_norm(stream))
    assert module.closing_norm is not None
    closed: Tensor = module.closing_norm(stream)
    return closed


def placed(values: Tensor) -> Tensor:
    """(L, D) times sqrt(D), plus positions."""
    codes = sinusoidal_positions(*values.shape).to(values.dtype)
    return values * math.sqrt(values.shape[1]) + codes


class Slow:
    """One sample at a time, its neighbours' masks in hand."""

    def __init__(self, scheme: TeCaFNScheme, batch: Batch) -> None:
        self.scheme, self.batch = scheme, batch
        self.heads = scheme.config.num_heads

    def encode(self, row: int, modality: Modality) -> Tensor:
        """(L, D), padding among it."""
        encoder: Any = self.scheme.network.encoders[modality]
        frames = self.batch.sequences[modality].values[row]
        if modality == TEXT:
            frames = torch.cat([frames, frames.new_zeros(50 - len(frames), frames.shape[1])])
            weight, bias = encoder.convolution.conv.weight, encoder.convolution.conv.bias
            text: Tensor = frames @ weight[:, :, 0].T + bias
            return text
        known = STATISTICS[modality]
        frames = (frames - torch.tensor(known.mean)) / torch.tensor(known.std)
        values = placed(encoder.project(frames.clamp(-10, 10)))
        everything = torch.ones(len(values), dtype=torch.bool)
        return transformer(values, None, [everything] * self.heads, encoder.transformer)

    def fuse(self, row: int, modality: Modality, *, evaluating: bool) -> Tensor:
        """h_cm: heads are given the masks of other samples; audio's is lost in evaluation."""
        masks = self.batch.sequences[modality].mask
        if evaluating and modality == AUDIO:
            masks = torch.ones_like(masks)
        given = [masks[(row * self.heads + h) % self.batch.size] for h in range(self.heads)]
        core, other = self.encode(row, TEXT), self.encode(row, modality)
        module: Any = self.scheme.network.attention[modality]
        return transformer(placed(core), placed(other), given, module)

    def predict(self, *, evaluating: bool) -> Tensor:
        answers = []
        for row in range(self.batch.size):
            fused = sum(self.fuse(row, m, evaluating=evaluating).mean(0) for m in (AUDIO, VISION))
            answers.append(self.scheme.network.head.layers(fused).squeeze())
        return torch.stack(answers)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_authors_network_in_evaluation(seed: int) -> None:
    scheme, batch = scheme_of(seed, variant="authors"), batch_of(seed)
    expected = Slow(scheme, batch).predict(evaluating=True)
    torch.testing.assert_close(scheme.predict(batch), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_authors_network_in_training_masks_audio(seed: int) -> None:
    scheme, batch = scheme_of(seed, variant="authors"), batch_of(seed)
    got = scheme.loss(batch, PROGRESS).output.prediction
    expected = Slow(scheme, batch).predict(evaluating=False)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    assert float((got - scheme.predict(batch)).detach().abs().max()) > 1e-4


def test_the_authors_second_contrast_is_over_token_positions() -> None:
    scheme, batch = scheme_of(variant="authors"), batch_of()
    slow = Slow(scheme, batch)
    means = [
        torch.stack([slow.fuse(r, m, evaluating=False) for r in range(ROWS)]).mean(0)
        for m in (AUDIO, VISION)
    ]
    assert means[0].shape == (50, 10)
    first, second = (functional.normalize(mean, dim=1) for mean in means)
    logits, positions = first @ second.T / 0.1, torch.arange(50)
    expected = functional.cross_entropy(logits, positions)
    expected = expected + functional.cross_entropy(logits.T, positions)
    torch.testing.assert_close(scheme.loss(batch, PROGRESS).terms["bicon"], expected)
    assert len(scheme.fused_mappers) == 0


def test_token_contrast_alone_averages_over_the_samples_that_have_a_token() -> None:
    scheme, batch = scheme_of(differences=("token_contrast",)), batch_of()
    encoded = scheme.network.encode(batch)
    means = []
    for modality in (AUDIO, VISION):
        fused = scheme.network.attend(modality, encoded[TEXT], encoded[modality])
        rows = [fused.values[fused.mask[:, at], at].mean(0) for at in range(fused.mask.shape[1])]
        means.append(functional.normalize(torch.stack(rows), dim=1))
    logits, positions = means[0] @ means[1].T / 0.1, torch.arange(4)
    expected = functional.cross_entropy(logits, positions)
    expected = expected + functional.cross_entropy(logits.T, positions)
    torch.testing.assert_close(scheme.loss(batch, PROGRESS).terms["bicon"], expected)


def last_state(sequence: Tensor, length: int, module: LastHidden) -> Tensor:
    _, (hidden, _) = module.recurrent.lstm(sequence[None, :length])
    vector: Tensor = module.project(hidden[0, 0])
    return vector


def test_the_two_terms_of_mutual_information() -> None:
    scheme, batch = scheme_of(differences=("mutual_information",)), batch_of()
    losses = scheme.loss(batch, PROGRESS)
    information = scheme.information
    assert information is not None
    encoded = scheme.network.encode(batch)
    vectors = {TEXT: encoded[TEXT].values[:, 0]}
    for modality in (AUDIO, VISION):
        summary: Any = information.summaries[modality]
        lengths = batch.sequences[modality].mask.sum(1).tolist()
        vectors[modality] = torch.stack(
            [last_state(x, n, summary) for x, n in zip(encoded[modality].values, lengths)]  # noqa: B905
        )
    hidden = scheme.network.head.layers[:-1](losses.output.features["fused"])
    cpc = 0.0
    for modality, vector in vectors.items():
        guess = information.predictors[modality](hidden)
        for i in range(ROWS):
            own = functional.cosine_similarity(vector[i], guess[i], dim=0).item()
            everyone = functional.cosine_similarity(vector[i][None], guess).tolist()
            cpc += (math.log(sum(math.exp(x) for x in everyone)) - own) / ROWS
    assert losses.terms["cpc"].item() == pytest.approx(cpc, abs=1e-10)
    ba = 0.0
    for modality in (AUDIO, VISION):
        bound: Any = information.bounds[modality]
        for i in range(ROWS):
            mean, spread = bound.mean(vectors[TEXT][i]), bound.log_variance(vectors[TEXT][i])
            error = (mean - vectors[modality][i]) ** 2 / (2 * spread.exp())
            ba += error.sum().item() / ROWS
    assert losses.terms["ba"].item() == pytest.approx(ba, rel=1e-10)
    without = {name: term for name, term in losses.terms.items() if name not in ("cpc", "ba")}
    weights = scheme.config.term_weights()
    rest = sum(weights[name] * term.item() for name, term in without.items())
    assert losses.total.item() == pytest.approx(rest + 0.1 * cpc + 0.1 * ba)


def test_the_bounds_networks_are_never_optimised_but_move_what_they_see() -> None:
    scheme, batch = scheme_of(variant="authors"), batch_of()
    assert scheme.information is not None
    frozen = list(scheme.information.bounds.parameters())
    trained = {id(p) for group in parameter_groups(scheme).values() for p in group}
    assert frozen
    assert not any(id(p) in trained or p.requires_grad for p in frozen)
    scheme.loss(batch, PROGRESS).terms["ba"].backward()
    moved = [
        scheme.information.summaries[AUDIO].project.weight,
        scheme.network.encoders[TEXT].convolution.conv.weight,
    ]
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in moved)


def test_log_density_is_over_rows_that_have_both() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, spread, y = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    present = torch.tensor([True, False, True, True])
    rows = [((mean[i] - y[i]) ** 2 / 2 / spread[i].exp()).sum() for i in (0, 2, 3)]
    got = negative_log_density(mean, spread, y, present=present)
    torch.testing.assert_close(got, torch.stack(rows).mean())
    nobody = torch.zeros(4, dtype=torch.bool)
    assert negative_log_density(mean, spread, y, present=nobody).item() == 0.0


@pytest.mark.parametrize(("rows", "heads"), [(5, 5), (12, 5), (3, 2), (1, 4), (0, 3)])
def test_masks_are_laid_out_head_major_over_batch_major_heads(rows: int, heads: int) -> None:
    mask = torch.rand(rows, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    given = misplaced_masks(mask, num_heads=heads)
    assert given.shape == (rows, heads, 7)
    # What happens there: masks repeated for each head, then read by the rows of the scores.
    flat = torch.cat([mask] * heads)
    for b in range(rows):
        for h in range(heads):
            assert torch.equal(given[b, h], flat[b * heads + h])


def test_a_mask_a_head_equals_as_many_attentions() -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(6, num_heads=3, dropout=0.0).double()
    query, source = torch.randn(2, 4, 6).double(), torch.randn(2, 5, 6).double()
    masks = torch.rand(2, 3, 5) < 0.6
    masks[:, :, 0] = True
    for mode in (True, False):
        got = module.train(mode)(query, source, masks)
        expected = [attend(query[b], source[b], list(masks[b]), module) for b in range(2)]
        torch.testing.assert_close(got, torch.stack(expected))


def test_text_is_padded_to_fifty_tokens_whose_states_are_berts() -> None:
    from transformers import AutoModel

    config = TeCaFNConfig(differences=("padded_text",))
    with method_case("tecafn", config=config) as case:
        network: Any = case.build().network.eval()
        text = case.batch(3).sequences[TEXT]
        got = network.encoders[TEXT](text)
        bert = AutoModel.from_pretrained(case.info.text_encoder.source).eval()
        ids = torch.zeros(3, 50, dtype=torch.int64)
        ids[:, :7] = text.values * text.mask
        mask = functional.pad(text.mask, (0, 43))
        states = bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        conv: nn.Conv1d = network.encoders[TEXT].convolution.conv
        expected = states @ conv.weight[:, :, 0].T + conv.bias
    assert torch.equal(got.mask, mask)
    torch.testing.assert_close(got.values, expected, rtol=0, atol=1e-5)


def test_padded_text_of_a_frozen_encoder_is_the_same_from_ids_and_from_its_cache() -> None:
    """A cache has no states for padding, so they are zero in either case."""
    config = TeCaFNConfig(variant="authors")
    with method_case("tecafn", config=config) as case:
        spec = dataclasses.replace(case.info.text_encoder, num_trained_layers=1)
        frozen = dataclasses.replace(case, info=dataclasses.replace(case.info, text_encoder=spec))
        network: Any = frozen.build().network.eval()
        encoder = network.encoders[TEXT]
        text = case.batch(3).sequences[TEXT]
        states = encoder.text_encoder.run_frozen(text)
        cached = Padded(states.values * text.mask.unsqueeze(-1), text.mask)
        torch.testing.assert_close(encoder(cached).values, encoder(text).values)


def test_variant_decides_residual_and_output_unless_they_are_given() -> None:
    paper, authors = TeCaFNConfig(), TeCaFNConfig(variant="authors")
    assert (paper.residual_form, paper.output_form) == ("printed", "tanh")
    assert (authors.residual_form, authors.output_form) == ("pre_norm", "linear")
    mixed = TeCaFNConfig(variant="authors", residual="printed", output="tanh")
    assert (mixed.residual_form, mixed.output_form) == ("printed", "tanh")
    assert not any(paper.has(d) for d in DIFFERENCES)
    assert all(authors.has(d) for d in DIFFERENCES)


def test_pooling_counts_padding() -> None:
    scheme, batch = scheme_of(differences=("pooled_padding",)), batch_of()
    padded = scheme.network.encode(batch)[AUDIO]
    torch.testing.assert_close(scheme.network.pool(padded), padded.values.mean(1))
    mapped: Any = scheme.other_mappers[AUDIO]
    expected = mapped.convolution.conv(padded.values.transpose(1, 2)).mean(2)
    torch.testing.assert_close(mapped(padded), expected)
    assert torch.equal(count_padding(padded).values, padded.values)


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_every_difference_alone_changes_what_is_computed(difference: Any) -> None:
    plain, changed = (
        scheme_of(differences=names, swap_probability=0.9, num_hard_negatives=2)
        for names in ((), (difference,))
    )
    shared = {
        name: value
        for name, value in plain.state_dict().items()
        if name in changed.state_dict() and changed.state_dict()[name].shape == value.shape
    }
    changed.load_state_dict(shared, strict=False)
    batch = batch_of(4, rows=9)
    if difference == "padded_text":  # seen by what pools padding alone
        extra = ("padded_text", "pooled_padding")
        changed, plain = scheme_of(differences=extra), scheme_of(differences=extra[1:])
    answers = [
        {**scheme.loss(batch, PROGRESS).terms, "evaluated": scheme.predict(batch).sum()}
        for scheme in (plain, changed)
    ]
    same = answers[0].keys() == answers[1].keys() and all(
        torch.equal(answers[0][name], answers[1][name]) for name in answers[0]
    )
    assert not same


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"variant": "authors", "num_hard_negatives": 1},
            "num_hard_negatives must be >= 2 with own_among_hardest, got 1",
        ),
        (
            {"differences": ("own_among_hardest",), "num_hard_negatives": {AUDIO: 1}},
            "num_hard_negatives must be >= 2 with own_among_hardest, got 1",
        ),
        ({"differences": ("mutual",)}, r"differences: unknown \['mutual'\]; known: mutual_info"),
        (
            {"variant": "authors", "differences": ("no_lstm",)},
            "variant 'authors' has every difference already",
        ),
        ({"weights": {"cpc": 1.0}}, r"weights: unknown terms \['cpc'\]"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TeCaFNConfig(**options)


def test_from_a_file_a_wrong_setting_is_one_line() -> None:
    model = {"variant": "authors", "num_hard_negatives": 1}
    with pytest.raises(UserError, match="num_hard_negatives must be >= 2") as error:
        parse_config({"method": "tecafn", "model": model})
    assert "\n" not in str(error.value)
    read = parse_config({"model": {"differences": ["no_lstm", "token_contrast"]}}).model
    assert read == TeCaFNConfig(differences=("no_lstm", "token_contrast"))


def test_the_weights_of_the_information_terms_can_be_set() -> None:
    config = TeCaFNConfig(variant="authors", weights={"cpc": 0.0, "ba": 0.5})
    assert (config.term_weights()["cpc"], config.term_weights()["ba"]) == (0.0, 0.5)


@pytest.mark.parametrize("options", [{"variant": "authors"}, {"differences": ("token_contrast",)}])
def test_what_depends_on_one_processs_batch_is_refused_on_several(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tecafn.methods.tecafn.world_size", lambda: 2)
    with pytest.raises(ValueError, match="train and evaluate this variant in one process, got 2"):
        scheme_of(**options)
    scheme_of(differences=("no_lstm", "mutual_information"))


ENCODER: dict[str, Any] = {
    "dim": 6,
    "num_layers": 1,
    "hidden_dim": 4,
    "kernel_size": 3,
}


@pytest.mark.parametrize("masked_later", [False, True])
def test_padding_that_is_read_later_is_the_same_while_training(masked_later: bool) -> None:
    """Without the LSTM and the convolution after it, what padding holds reaches its reader."""
    torch.manual_seed(0)
    differences = AsTheAuthors(no_lstm=not masked_later, early_convolution=not masked_later)
    encoder = AuthorsFrameEncoder(
        5,
        None,
        differences=differences,
        transformer=TransformerSettings(num_heads=2),
        embedding_dropout=0.0,
        **ENCODER,
    ).double()
    mask = torch.tensor([[True, True, False], [True, True, True]])
    frames = Padded(torch.randn(2, 3, 5, dtype=torch.float64), mask)
    training, evaluating = encoder.train()(frames), encoder.eval()(frames)
    assert evaluating.values[0, 2].any()
    torch.testing.assert_close(training.values, evaluating.values)


def test_without_a_difference_the_authors_encoder_is_the_papers_bit_for_bit() -> None:
    settings = TransformerSettings(
        num_heads=2, attention_dropout=0.1, relu_dropout=0.1, residual_dropout=0.1
    )
    options = {"transformer": settings, "embedding_dropout": 0.2, **ENCODER}
    mask = torch.tensor([[True, False, True, False], [True] * 4, [False] * 4])
    frames = Padded(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1)), mask)
    answers = []
    for make in (
        lambda: FrameEncoder(5, None, **options),
        lambda: AuthorsFrameEncoder(5, None, differences=AsTheAuthors(), **options),
    ):
        torch.manual_seed(0)
        encoder: nn.Module = make()
        training, evaluated = encoder(frames).values, encoder.eval()(frames).values
        answers.append((encoder.state_dict(), training, evaluated))
    (state, *paper), (other_state, *authors) = answers
    assert list(state) == list(other_state)
    assert all(torch.equal(state[name], other_state[name]) for name in state)
    assert all(torch.equal(one, other) for one, other in zip(paper, authors, strict=True))


@pytest.mark.parametrize("names", [(), DIFFERENCES])
def test_layers_of_the_authors_are_taken_only_where_a_difference_asks_for_them(
    names: tuple[Any, ...],
) -> None:
    network = scheme_of(differences=names).network
    taken = {type(encoder).__module__ for encoder in network.encoders.values()}
    assert taken == {"tecafn.layers.authors" if names else "tecafn.layers.encoders"}


@pytest.mark.parametrize("name", ["paper", "authors", *DIFFERENCES])
def test_parameters_are_named_as_in_version_0_1(name: str) -> None:
    """Its code wrote the file; a run that it saved loads into these names and shapes."""
    path = Path(__file__).parents[1] / "fixtures" / "first-version-parameters.json"
    recorded = json.loads(path.read_text(encoding="utf-8"))
    expected = recorded["paper"]
    if name != "paper":
        changed = recorded[name]
        kept = {key: shape for key, shape in expected.items() if key not in changed["removed"]}
        expected = kept | changed["added"]
    options: dict[str, Any] = {
        "paper": {},
        "authors": {"variant": "authors"},
    }.get(name, {"differences": (name,)})
    scheme = scheme_of(**options, num_layers=1, num_unimodal_layers=1)
    assert {key: list(value.shape) for key, value in scheme.state_dict().items()} == expected


def test_the_authors_flaws_are_in_one_file_of_the_layers() -> None:
    folder = Path(authors_module.__file__).parent
    named = [path.name for path in folder.glob("*.py") if "authors" in path.read_text("utf-8")]
    assert named == ["authors.py"]
