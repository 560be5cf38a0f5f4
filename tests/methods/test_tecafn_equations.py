"""Equations 2-19 of TeCaFN (Huang et al. 2024) against slow loops in float64.

The loops are plain Python over samples, frames, heads and columns, written from the equations and
from what was settled where the print leaves something open or cannot be meant (eq. 6, 15 and 17:
those tests also compute the printed version and show that it gives another number).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo, FeatureStatistics, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.layers.attention import MultiHeadAttention, Transformer, TransformerLayer
from tecafn.layers.sequence import MaskedConv1d, SequenceLSTM, masked_mean, sinusoidal_positions
from tecafn.losses.contrastive import info_nce
from tecafn.losses.task import task_loss
from tecafn.methods.tecafn import Mapper, TeCaFN, TeCaFNConfig, TeCaFNScheme
from tecafn.testing import method_case

TEXT, AUDIO, VISION = Modality
SEEDS = (0, 1, 2)
Vector = list[float]
Frames = list[Vector]
Mask = list[bool]


# ---------------------------------------------------------------------------------------------
# The slow loops


def numbers(tensor: Tensor) -> Any:
    """Nested lists of Python floats (which are float64)."""
    return tensor.detach().tolist()


def affine(x: Vector, layer: nn.Linear) -> Vector:
    weight, bias = numbers(layer.weight), numbers(layer.bias)
    return [
        b + sum(w * value for w, value in zip(row, x, strict=True))
        for row, b in zip(weight, bias, strict=True)
    ]


def plus(a: Vector, b: Vector) -> Vector:
    return [x + y for x, y in zip(a, b, strict=True)]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def layer_norm(x: Vector, norm: nn.LayerNorm) -> Vector:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    scale = 1 / math.sqrt(variance + norm.eps)
    weight, bias = numbers(norm.weight), numbers(norm.bias)
    return [(value - mean) * scale * w + b for value, w, b in zip(x, weight, bias, strict=True)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softmax(scores: Vector) -> Vector:
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    return [power / sum(powers) for power in powers]


def attend(queries: Frames, source: Frames, mask: Mask, module: MultiHeadAttention) -> Frames:
    """Eq. 8-10: each head compares its own columns; only real source frames are seen."""
    heads = module.num_heads
    dim = len(queries[0])
    width = dim // heads
    seen = [frame for frame, real in zip(source, mask, strict=True) if real]
    both = [affine(frame, module.key_value) for frame in seen]
    keys, values = [b[:dim] for b in both], [b[dim:] for b in both]
    answers = []
    for frame in queries:
        query = affine(frame, module.query)
        joined: Vector = []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            weights = softmax([dot(query[own], key[own]) / math.sqrt(width) for key in keys])
            for column in range(own.start, own.stop):
                joined.append(sum(w * v[column] for w, v in zip(weights, values, strict=True)))
        answers.append(affine(joined, module.output))
    return answers


def feed_forward(x: Vector, module: nn.Sequential) -> Vector:
    hidden = [max(value, 0.0) for value in affine(x, module[0])]
    return affine(hidden, module[3])


def transformer_layer(
    stream: Frames, source: Frames | None, mask: Mask, layer: TransformerLayer, residual: str
) -> Frames:
    """Eq. 2-3 (source None) and 11-12."""
    normed = [layer_norm(frame, layer.attention_norm) for frame in stream]
    if source is None:
        others = normed
    else:
        assert layer.source_norm is not None
        others = [layer_norm(frame, layer.source_norm) for frame in source]
    attended = attend(normed, others, mask, layer.attention)
    added = normed if residual == "printed" else stream
    stream = [plus(a, b) for a, b in zip(attended, added, strict=True)]
    normed = [layer_norm(frame, layer.feed_forward_norm) for frame in stream]
    added = normed if residual == "printed" else stream
    return [
        plus(feed_forward(frame, layer.feed_forward), a)
        for frame, a in zip(normed, added, strict=True)
    ]


def transformer(
    stream: Frames, source: Frames | None, mask: Mask, module: Transformer, residual: str
) -> Frames:
    for layer in module.layers:
        assert isinstance(layer, TransformerLayer)
        stream = transformer_layer(stream, source, mask, layer, residual)
    return stream


def lstm(frames: Frames, mask: Mask, module: SequenceLSTM) -> Frames:
    """Eq. 4: gates i, f, g, o; a masked frame leaves the state as it is and gives zero."""
    cell = module.lstm
    hidden_dim = cell.hidden_size
    w_ih, w_hh = numbers(cell.weight_ih_l0), numbers(cell.weight_hh_l0)
    b_ih, b_hh = numbers(cell.bias_ih_l0), numbers(cell.bias_hh_l0)
    hidden, memory = [0.0] * hidden_dim, [0.0] * hidden_dim
    answers = []
    for frame, real in zip(frames, mask, strict=True):
        if not real:
            answers.append([0.0] * hidden_dim)
            continue
        gates = [
            dot(w_ih[k], frame) + b_ih[k] + dot(w_hh[k], hidden) + b_hh[k]
            for k in range(4 * hidden_dim)
        ]
        for k in range(hidden_dim):
            write, keep = sigmoid(gates[k]), sigmoid(gates[hidden_dim + k])
            new, show = math.tanh(gates[2 * hidden_dim + k]), sigmoid(gates[3 * hidden_dim + k])
            memory[k] = keep * memory[k] + write * new
            hidden[k] = show * math.tanh(memory[k])
        answers.append(list(hidden))
    return answers


def convolve(frames: Frames, mask: Mask, module: MaskedConv1d) -> Frames:
    """Eq. 5: "same" length; frames that are masked or outside count as zero."""
    conv = module.conv
    weight, bias = numbers(conv.weight), numbers(conv.bias)
    kernel, (half,) = conv.kernel_size[0], conv.padding
    answers = []
    for t in range(len(frames)):
        row = []
        for out in range(conv.out_channels):
            columns = [out] if conv.groups > 1 else range(conv.in_channels)
            value = bias[out]
            for slot, column in enumerate(columns):
                for k in range(kernel):
                    at = t + k - half
                    if 0 <= at < len(frames) and mask[at]:
                        value += weight[out][slot][k] * frames[at][column]
            row.append(value)
        answers.append(row)
    return answers


def pool(frames: Frames, mask: Mask) -> Vector:
    """The mean over real frames."""
    real = [frame for frame, r in zip(frames, mask, strict=True) if r]
    return [sum(column) / len(real) for column in zip(*real, strict=True)]


def mapped(frames: Frames, mask: Mask, mapper: Mapper) -> Vector:
    """The maps f and g of eq. 6 and 15."""
    return pool(convolve(frames, mask, mapper.convolution), mask)


def cosine(a: Vector, b: Vector) -> float:
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def contrast(queries: Sequence[Vector], keys: Sequence[Vector], tau: float) -> float:
    """Eq. 6 as settled: the negatives of row i are q_i k_j."""
    rows = []
    for i, query in enumerate(queries):
        scores = [cosine(query, key) / tau for key in keys]
        total = sum(math.exp(score) for score in scores)
        rows.append(-math.log(math.exp(scores[i]) / total))
    return sum(rows) / len(rows) if rows else 0.0


def contrast_as_printed(queries: Sequence[Vector], keys: Sequence[Vector], tau: float) -> float:
    """Eq. 6 to the letter: q_j k_j in the denominator's sum."""
    own = [math.exp(cosine(q, k) / tau) for q, k in zip(queries, keys, strict=True)]
    return sum(-math.log(power / sum(own)) for power in own) / len(own)


def cross_entropy(logits: Vector, target: int) -> float:
    return -math.log(softmax(logits)[target])


def head(fused: Vector, network: TeCaFN) -> Vector:
    """The MLP 128-256-128 with tanh, without eq. 17's last tanh."""
    hidden = fused
    linear = [layer for layer in network.head.layers if isinstance(layer, nn.Linear)]
    for layer in linear[:-1]:
        hidden = [math.tanh(value) for value in affine(hidden, layer)]
    return affine(hidden, linear[-1])


_WORD = 1 << 64


def split_mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % _WORD
    return value ^ (value >> 31)


def draw(index: int, *, seed: int, epoch: int, stream: int) -> float:
    """The documented hash, in unsigned Python integers."""
    state = 0
    for word in (seed, epoch, stream, index):
        state = split_mix((state + 0x9E3779B97F4A7C15 + word) % _WORD)
    return (state >> 11) / 2.0**53


# ---------------------------------------------------------------------------------------------
# Material


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Every weight random, biases and norms included, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            scale = 0.4 if parameter.ndim > 1 else 0.6
            parameter.copy_(scale * noise)
    return module


def frames(seed: int, rows: int, length: int, dim: int) -> tuple[Tensor, Tensor]:
    """(B, L, D) float64 and a mask with holes, front holes included, at least one real frame."""
    generator = torch.Generator().manual_seed(1000 + seed)
    values = torch.randn(rows, length, dim, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, length, generator=generator) < 0.6
    mask[torch.arange(rows), torch.randint(0, length, (rows,), generator=generator)] = True
    mask[0] = True
    return values, mask


def close(got: Tensor, expected: Any, tolerance: float = 1e-10) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(got.detach(), wanted, rtol=0, atol=tolerance)


def close_where_real(got: Tensor, expected: list[Frames], mask: Tensor) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(got.detach()[mask], wanted[mask], rtol=0, atol=1e-10)


SMALL = TeCaFNConfig(
    dim=10, num_layers=2, num_unimodal_layers=2, unimodal_hidden_dim=6, num_hard_negatives=2
)
WIDTHS = {TEXT: 6, AUDIO: 4, VISION: 3}
STATISTICS = {
    AUDIO: FeatureStatistics([0.5, -1.0, 2.0, 0.0], [2.0, 0.015625, 3.0, 0.0]),
    VISION: FeatureStatistics([1.0, 0.0, -3.0], [0.5, 1.5, 1.0]),
}


def info(**changes: Any) -> DataInfo:
    """Three modalities of stored vectors, labels in [-3, 3]."""
    settled = DataInfo(
        widths=WIDTHS, statistics=STATISTICS, text_encoder=TextEncoderSpec(source="features")
    )
    return dataclasses.replace(settled, **changes)


def scheme_of(seed: int, **options: Any) -> TeCaFNScheme:
    made = randomise(TeCaFNScheme(dataclasses.replace(SMALL, **options), info()), seed)
    assert isinstance(made, TeCaFNScheme)
    # Weights as large as above saturate the MLP; smaller ones let every difference through.
    with torch.no_grad():
        for parameter in made.network.head.parameters():
            parameter.mul_(0.3)
    return made


def batch_of(seed: int, lacking: Sequence[str] = ("", "", "", "a", "v", "t", "av", "")) -> Batch:
    """One row for each entry of ``lacking`` (letters of absent modalities), masks with holes."""
    rows = len(lacking)
    sequences, present = {}, {}
    for number, modality in enumerate(Modality):
        values, mask = frames(10 * seed + number, rows, (4, 5, 3)[number], WIDTHS[modality])
        has = torch.tensor([modality[0] not in letters for letters in lacking])
        mask &= has.unsqueeze(1)
        # NaN wherever nobody may look.
        values = torch.where(mask.unsqueeze(-1), values, float("nan"))
        sequences[modality], present[modality] = Padded(values, mask), has
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        sequences=sequences,
        present=present,
        labels=6 * torch.rand(rows, generator=generator, dtype=torch.float64) - 3,
        index=torch.randperm(1000, generator=generator)[:rows],
        ids=tuple(f"video_{row}" for row in range(rows)),
    )


# ---------------------------------------------------------------------------------------------
# The whole network and the whole objective, sample by sample


@dataclasses.dataclass
class Slow:
    """TeCaFN for one sample at a time."""

    scheme: TeCaFNScheme

    @property
    def config(self) -> TeCaFNConfig:
        return self.scheme.config

    def encode(self, batch: Batch, row: int, modality: Modality) -> tuple[Frames, Mask]:
        """Eq. 1-5; an absent core is the learned frame."""
        network = self.scheme.network
        if modality not in batch.sequences or not bool(batch.present[modality][row]):
            assert modality == self.config.core
            return [numbers(network.absent_core)], [True]
        padded = batch.sequences[modality]
        mask: Mask = numbers(padded.mask[row])
        values: Frames = [
            frame if real else [0.0] * len(frame)
            for frame, real in zip(numbers(padded.values[row]), mask, strict=True)
        ]
        encoder: Any = network.encoders[modality]
        if modality != TEXT:
            known = STATISTICS[modality]
            values = [affine(self.standardise(frame, known), encoder.project) for frame in values]
            # Float32 in every precision; what they are is tested with the layers.
            codes = numbers(sinusoidal_positions(len(values), self.config.dim))
            values = [plus(frame, code) for frame, code in zip(values, codes, strict=True)]
            values = transformer(
                values, None, mask, encoder.transformer, self.config.settled_residual
            )
            values = lstm(values, mask, encoder.lstm)
        return convolve(values, mask, encoder.convolution), mask

    @staticmethod
    def standardise(frame: Vector, known: FeatureStatistics) -> Vector:
        columns = zip(frame, known.mean, known.std, strict=True)
        shifted = [(x - mean) / (std if std > 1e-6 else 1.0) for x, mean, std in columns]
        return [min(max(x, -10.0), 10.0) for x in shifted]

    def fuse(
        self, core: tuple[Frames, Mask], other: tuple[Frames, Mask], modality: Modality
    ) -> Frames:
        """Eq. 8-12."""
        module: Any = self.scheme.network.attention[modality]
        return transformer(core[0], other[0], other[1], module, self.config.settled_residual)

    def combine(self, core: tuple[Frames, Mask], fused: dict[Modality, Frames]) -> Vector:
        """z_s of the modalities in ``fused``."""
        pooled = {m: pool(frames_, core[1]) for m, frames_ in fused.items()}
        if not pooled:
            alone = pool(*core)
            return alone if self.config.fusion == "sum" else alone + alone
        if self.config.fusion == "sum":
            mean = [sum(column) / len(pooled) for column in zip(*pooled.values(), strict=True)]
            return [2 * value for value in mean]
        slots: Any = self.scheme.network.absent_slots
        joined: Vector = []
        for m in self.config.others:
            joined += pooled[m] if m in pooled else numbers(slots[m])
        return joined

    def score(self, z: Vector) -> float:
        """Eq. 17 as settled."""
        answer = head(z, self.scheme.network)[0]
        return 3 * math.tanh(answer) if self.config.settled_output == "tanh" else answer

    def has(self, batch: Batch, row: int, modality: Modality) -> bool:
        return modality in batch.sequences and bool(batch.present[modality][row])

    def predict(self, batch: Batch) -> Vector:
        answers = []
        for row in range(batch.size):
            core = self.encode(batch, row, self.config.core)
            fused = {
                m: self.fuse(core, self.encode(batch, row, m), m)
                for m in self.config.others
                if self.has(batch, row, m)
            }
            answers.append(self.score(self.combine(core, fused)))
        return answers

    def partners(self, batch: Batch, modality: Modality, progress: Progress) -> dict[int, int]:
        """Algorithm 1 and the gate: who is fused with whose frames of ``modality``."""
        config = self.config
        stream = list(Modality).index(modality)
        rows = [
            r
            for r in range(batch.size)
            if self.has(batch, r, config.core) and self.has(batch, r, modality)
        ]
        queries, keys = self.mapped_pair(batch, modality, rows)
        chosen = {}
        for row in range(batch.size):
            chosen[row] = row
            if row not in rows:
                continue
            query = queries[rows.index(row)]
            others = [r for r in rows if r != row]
            others.sort(key=lambda r: -cosine(query, keys[rows.index(r)]))
            count = config.negatives_of(modality)
            hardest = others if count is None else others[:count]
            index = int(batch.index[row])
            keyed = {"seed": progress.seed, "epoch": progress.epoch}
            swap = draw(index, stream=2 * stream, **keyed) < config.swap_of(modality)
            if swap and hardest:
                share = draw(index, stream=2 * stream + 1, **keyed)
                chosen[row] = hardest[math.floor(share * len(hardest))]
        return chosen

    def mapped_pair(
        self, batch: Batch, modality: Modality, rows: Sequence[int]
    ) -> tuple[list[Vector], list[Vector]]:
        """The vectors q and k of eq. 6."""
        first: Any = self.scheme.core_mappers[modality]
        second: Any = self.scheme.other_mappers[modality]
        queries = [mapped(*self.encode(batch, r, self.config.core), first) for r in rows]
        keys = [mapped(*self.encode(batch, r, modality), second) for r in rows]
        return queries, keys

    def terms(self, batch: Batch, progress: Progress) -> tuple[dict[str, float], Vector]:
        """Every term of eq. 19 and the predictions, in evaluation mode with the gate at work."""
        config, tau = self.config, self.config.temperature
        answers: dict[str, float] = {}
        fused: dict[int, dict[Modality, Frames]] = {row: {} for row in range(batch.size)}
        cores = [self.encode(batch, row, config.core) for row in range(batch.size)]
        complete = set(range(batch.size))
        for m in config.others:
            rows = [
                r
                for r in range(batch.size)
                if self.has(batch, r, config.core) and self.has(batch, r, m)
            ]
            complete &= set(rows)
            answers[config.pair(m)] = contrast(*self.mapped_pair(batch, m, rows), tau)
            chosen = self.partners(batch, m, progress)
            entropies = []
            for row in range(batch.size):
                if not self.has(batch, row, m):
                    continue
                frames_ = self.fuse(cores[row], self.encode(batch, chosen[row], m), m)
                fused[row][m] = frames_
                if row in rows:
                    pair_head: Any = self.scheme.pair_heads[m]
                    logits = affine(pool(frames_, cores[row][1]), pair_head)
                    entropies.append(cross_entropy(logits, int(chosen[row] == row)))
            answers[config.pair(m) + "p"] = sum(entropies) / len(entropies)
        ordered = sorted(complete)
        first, second = (
            [mapped(fused[r][m], cores[r][1], self.mapper(m)) for r in ordered]
            for m in config.others
        )
        answers["bicon"] = contrast(first, second, tau) + contrast(second, first, tau)
        scores = [self.score(self.combine(cores[r], fused[r])) for r in range(batch.size)]
        labels: Vector = numbers(batch.labels) if batch.labels is not None else []
        errors = [abs(y - s) for y, s in zip(labels, scores, strict=True)]
        answers["task"] = sum(errors) / len(errors)
        return answers, scores

    def mapper(self, modality: Modality) -> Mapper:
        found = self.scheme.fused_mappers[modality]
        assert isinstance(found, Mapper)
        return found


# ---------------------------------------------------------------------------------------------
# Equation by equation


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("residual", ["printed", "pre_norm"])
def test_equations_2_and_3_self_attention_layer(seed: int, residual: str) -> None:
    layer = TransformerLayer(
        10,
        num_heads=5,
        attention_dropout=0.1,
        relu_dropout=0.1,
        residual_dropout=0.1,
        residual=residual,  # type: ignore[arg-type]
        cross=False,
    )
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
        module = Transformer(10, num_layers=2, num_heads=5, residual=residual)  # type: ignore[arg-type]
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
    seed: int, residual: str
) -> None:
    module = Transformer(10, num_layers=3, num_heads=5, residual=residual, cross=True)  # type: ignore[arg-type]
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
def test_classification_gives_two_logits_and_cross_entropy(seed: int, output: str) -> None:
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
