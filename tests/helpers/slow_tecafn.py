"""TeCaFN sample by sample: slow loops in float64, written from the paper's equations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo, FeatureStatistics, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.layers.attention import MultiHeadAttention, Transformer, TransformerLayer
from tecafn.layers.sequence import MaskedConv1d, SequenceLSTM, sinusoidal_positions
from tecafn.methods.tecafn import Mapper, TeCaFN, TeCaFNConfig, TeCaFNScheme

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


def feed_forward(x: Vector, module: Any) -> Vector:
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
    cell: Any = module.lstm
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
    conv: Any = module.conv
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
            values = transformer(values, None, mask, encoder.transformer, self.config.residual_form)
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
        return transformer(core[0], other[0], other[1], module, self.config.residual_form)

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
        return 3 * math.tanh(answer) if self.config.output_form == "tanh" else answer

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
            count = config.num_hard_negatives_for(modality)
            hardest = others if count is None else others[:count]
            index = int(batch.index[row])
            keyed = {"seed": progress.seed, "epoch": progress.epoch}
            swap = draw(index, stream=2 * stream, **keyed) < config.swap_probability_for(modality)
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
