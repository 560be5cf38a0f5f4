"""Layers as equations on named weights: what the published computations are written with.

Each test here writes a method as its public code computes it, anew and from the equations, takes
the weights by name from this package's network, and finds the same numbers in float64. Where the
network departs on purpose, the reference has the departure as an argument, and a test shows that
the argument alone makes the difference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality
from tecafn.core.scheme import Scheme
from tecafn.layers.sequence import sinusoidal_positions
from tecafn.testing import method_case

TEXT, AUDIO, VISION = Modality
SIZE = 6
# Frames of each modality; no frame is masked.
LENGTHS = {TEXT: 7, AUDIO: 5, VISION: 4}
Weights = Mapping[str, Tensor]


def prepared(
    name: str, config: Any = None, *, seed: int = 0, size: int = SIZE
) -> tuple[Scheme, Batch]:
    """A scheme in float64 without dropout, stirred, and a batch in which nothing is missing.

    In a batch of word-aligned data every frame has one token.
    """
    with method_case(name, config=config) as case:
        scheme = case.build(seed=seed, dropout=False).double().eval()
        widths = case.info.widths
    stir(scheme, seed)
    generator = torch.Generator().manual_seed(seed + 50)
    is_aligned = "aligned" in case.method.needs
    lengths = dict(LENGTHS) | ({AUDIO: 5, VISION: 5} if is_aligned else {})
    values: dict[Modality, Tensor] = {}
    tokens = torch.randint(5, 50, (size, lengths[TEXT]), generator=generator)
    tokens[:, 0], tokens[:, -1] = 2, 3  # [CLS] and [SEP]
    values[TEXT] = tokens
    for modality in (AUDIO, VISION):
        shape = (size, lengths[modality], widths[modality])
        values[modality] = 2 + 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    sequences = {m: Padded(v, torch.ones(v.shape[:2], dtype=torch.bool)) for m, v in values.items()}
    labels = 6 * torch.rand(size, generator=generator, dtype=torch.float64) - 3
    labels[0], labels[1] = 2.0, -2.0
    places = torch.arange(lengths[TEXT]) - 1
    places[-1] = -1
    return scheme, Batch(
        sequences=sequences,
        present={m: torch.ones(size, dtype=torch.bool) for m in Modality},
        labels=labels,
        index=torch.arange(size),
        ids=tuple(f"video_{row}" for row in range(size)),
        frame_of_token=places.expand(size, -1) if is_aligned else None,
    )


def stir(module: nn.Module, seed: int, *, scale: float = 0.1) -> None:
    """What starts at zero, or at one, would hide what it does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(scale * noise)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; the parameters keep their gradients."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def frames_of(network: Any, batch: Batch) -> dict[Modality, Tensor]:
    """What enters: (B, L, D) of each modality, the text encoded, the rest standardised."""
    return {m: padded.values for m, padded in network.frames(batch).items()}


def renamed(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """The weights below a prefix, without it."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    """The sum x W^T + b, without b where there is none."""
    product = x @ w[f"{name}.weight"].T
    return product + w[f"{name}.bias"] if f"{name}.bias" in w else product


def layer_norm(x: Tensor, w: Weights, name: str, *, eps: float = 1e-5) -> Tensor:
    """Zero mean and unit variance of a row, then scale and shift."""
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return normed * w[f"{name}.weight"] + w[f"{name}.bias"]


def lstm(x: Tensor, w: Weights, name: str, *, suffix: str = "_l0") -> Tensor:
    """All states (B, L, H) of one direction; with ``_l0_reverse`` of the other one."""
    order = range(x.shape[1])
    is_reverse = suffix.endswith("reverse")
    hidden = x.new_zeros(len(x), w[f"{name}.weight_hh{suffix}"].shape[1])
    cell, states = hidden, {}
    for t in reversed(order) if is_reverse else order:
        gates = x[:, t] @ w[f"{name}.weight_ih{suffix}"].T + w[f"{name}.bias_ih{suffix}"]
        gates = gates + hidden @ w[f"{name}.weight_hh{suffix}"].T + w[f"{name}.bias_hh{suffix}"]
        enter, forget, new, leave = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        states[t] = hidden
    return torch.stack([states[t] for t in order], dim=1)


def both_ways(x: Tensor, w: Weights, name: str) -> tuple[Tensor, Tensor]:
    """States (B, L, 2 H) of both directions, and the last state of each at its own end."""
    forth, back = (lstm(x, w, name, suffix=suffix) for suffix in ("_l0", "_l0_reverse"))
    return torch.cat([forth, back], dim=2), torch.cat([forth[:, -1], back[:, 0]], dim=1)


def attention(
    query: Tensor, key: Tensor, value: Tensor, *, num_heads: int, temperature: float | None = None
) -> Tensor:
    """softmax(q k^T / temperature) v of each head; the square root of a head's width by default."""
    parts = [x.chunk(num_heads, dim=-1) for x in (query, key, value)]
    heads = []
    for q, k, v in zip(*parts, strict=True):
        divisor = temperature or math.sqrt(q.shape[-1])
        heads.append((q @ k.transpose(-1, -2) / divisor).softmax(-1) @ v)
    return torch.cat(heads, dim=-1)


def positions(length: int, dim: int, *, first: int) -> Tensor:
    """Sines, then cosines, of t / 10000^(i / (dim / 2 - 1)), t from ``first`` on.

    Both codes take them in float32, so what comes back is the package's, rounded as there.
    """
    half = dim // 2
    rates = [10000 ** (-i / (half - 1)) for i in range(half)]
    rows = [
        [math.sin(t * r) for r in rates] + [math.cos(t * r) for r in rates]
        for t in range(first, first + length)
    ]
    codes = sinusoidal_positions(first + length, dim)[first:].double()
    assert_same(codes, torch.tensor(rows, dtype=torch.float64), within=1e-5)
    return codes


def cross_modal(
    x: Tensor,
    source: Tensor | None,
    w: Weights,
    *,
    num_heads: int,
    is_causal: bool = False,
    one_norm: bool = False,
) -> Tensor:
    """MulT's transformer: pre-norm layers, to a source or to itself, and a closing LayerNorm.

    Args:
        x: (B, L, D), placed.
        source: (B, Ls, D), placed; None for self-attention.
        w: of one ``Transformer``.
        num_heads: attention heads.
        is_causal: published: a query sees no later frame, a longer source's excess counted in.
        one_norm: published: the source passes the query's LayerNorm.
    """
    depth = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("layers."))
    for number in range(depth):
        own = renamed(w, f"layers.{number}")
        normed = layer_norm(x, own, "attention_norm")
        norm = "attention_norm" if one_norm or source is None else "source_norm"
        read = normed if source is None else layer_norm(source, own, norm)
        query = linear(normed, own, "attention.query")
        key, value = linear(read, own, "attention.key_value").chunk(2, dim=-1)
        if is_causal:
            heads = []
            late = torch.ones(query.shape[1], key.shape[1]).triu(
                1 + abs(key.shape[1] - query.shape[1])
            )
            for q, k, v in zip(*(y.chunk(num_heads, -1) for y in (query, key, value)), strict=True):
                scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
                heads.append(scores.masked_fill(late.bool(), -math.inf).softmax(-1) @ v)
            mixed = torch.cat(heads, -1)
        else:
            mixed = attention(query, key, value, num_heads=num_heads)
        x = x + linear(mixed, own, "attention.output")
        hidden = layer_norm(x, own, "feed_forward_norm")
        x = x + linear(linear(hidden, own, "feed_forward.0").relu(), own, "feed_forward.3")
    return layer_norm(x, w, "closing_norm")


def memory_fusion(x: Mapping[Modality, Tensor], w: Weights) -> Tensor:
    """MFN's recurrence: the last hidden states, then the memory.

    Args:
        x: (B, T, D) of each modality, frame by frame.
        w: of one ``MemoryFusion``.
    """

    def small(values: Tensor, name: str) -> Tensor:
        return linear(linear(values, w, f"{name}.0").relu(), w, f"{name}.3")

    size, length = x[TEXT].shape[:2]
    hidden = {m: x[TEXT].new_zeros(size, w[f"cells.{m}.weight_hh"].shape[1]) for m in x}
    cells = dict(hidden)
    memory = x[TEXT].new_zeros(size, w["retain.3.bias"].shape[0])
    for t in range(length):
        before = torch.cat([cells[m] for m in x], dim=1)
        for m in x:
            gates = x[m][:, t] @ w[f"cells.{m}.weight_ih"].T + w[f"cells.{m}.bias_ih"]
            gates = gates + hidden[m] @ w[f"cells.{m}.weight_hh"].T + w[f"cells.{m}.bias_hh"]
            enter, forget, new, leave = gates.chunk(4, dim=1)
            cells[m] = forget.sigmoid() * cells[m] + enter.sigmoid() * new.tanh()
            hidden[m] = leave.sigmoid() * cells[m].tanh()
        states = torch.cat([before, *(cells[m] for m in x)], dim=1)
        attended = small(states, "attention").softmax(1) * states
        candidate = small(attended, "candidate").tanh()
        seen = torch.cat([attended, memory], dim=1)
        retained, updated = (small(seen, name).sigmoid() for name in ("retain", "update"))
        memory = retained * memory + updated * candidate
    return torch.cat([*(hidden[m] for m in x), memory], dim=1)


def word_frames(network: Any, batch: Batch) -> dict[Modality, Tensor]:
    """(B, T, D) of a word-aligned batch with one token per frame: [CLS] and [SEP] have none."""
    frames = frames_of(network, batch)
    return {**frames, TEXT: frames[TEXT][:, 1:-1]}


def difference(one: Tensor, two: Tensor, *, is_detached: bool = True) -> Tensor:
    """MISA's difference of (N, D) and (N, E): rows' lengths are constants, as published."""
    sides = []
    for rows in (one, two):
        centred = rows - rows.mean(0)
        length = centred.square().sum(1, keepdim=True).sqrt()
        sides.append(centred / ((length.detach() if is_detached else length) + 1e-6))
    return (sides[0].T @ sides[1]).square().mean()


def gradients(value: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """Of each parameter; zero where it has none."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for name, parameter, gradient in zip(names, parameters, found, strict=True)
    }


def assert_same(got: Any, expected: Any, *, within: float = 1e-10) -> None:
    """Two tensors, or two mappings of them."""
    if isinstance(expected, Mapping):
        assert got.keys() == expected.keys()
        for name in expected:
            assert_same(got[name], expected[name], within=within)
        return
    assert got.shape == expected.shape
    distance = apart(got, expected)
    assert distance <= within, f"apart by {distance:.3g}"


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference between two tensors."""
    return float((one - other).detach().abs().max())


def without_frame(batch: Batch, modality: Modality, frame: int) -> Batch:
    """The batch with one frame of a modality masked, in the first row."""
    padded = batch.sequences[modality]
    mask = padded.mask.clone()
    mask[0, frame] = False
    sequences = {**batch.sequences, modality: Padded(padded.values, mask)}
    return dataclasses.replace(batch, sequences=sequences)
