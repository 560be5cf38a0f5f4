"""States inside Whisper's encoder: what a speech recogniser hears in a voice, 50 times per second.

CTranslate2 gives the last state alone; its file is read here and the first blocks are computed in
NumPy. After block 3 of 4 of tiny.en the states tell emotions apart better than at the end, and cost
less. The network is A. Radford et al., "Robust speech recognition via large-scale weak
supervision" (2022), Sect. 2.2; sound is not padded to 30 s, which changes nothing but the cost.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.extract.speech_model import SpeechModel, find_speech_model
from tecafn.extract.voice.signal import HOP, RATE_HZ, Samples
from tecafn.extract.voice.weights import read_arrays

STATES_PER_SECOND = 50
DEFAULT_BLOCK = 3

_FFT = 400
_PIECE_SECONDS = 30
_STEP = 2 * HOP
FEWEST_STATES = 15
"""Of an utterance whose states are pooled: 0.3 s."""
_EPSILON = 1e-5

Array = NDArray[np.float32]


def whisper_states(
    samples: Samples,
    *,
    model: SpeechModel | None = None,
    block: int = DEFAULT_BLOCK,
    start: float = 0.0,
) -> tuple[NDArray[np.float64], Array]:
    """Times and states of an utterance after one block of the encoder.

    Sound of more than 30 s, the longest that Whisper has positions for, is read in pieces of 30 s,
    each for itself. Loudness is relative to the loudest of a piece, so a state depends on
    the utterance that it is computed in: hand over utterances, not a whole film.

    Args:
        samples: (N,) float32 at 16 kHz.
        model: whose encoder; None = the one that ``find_speech_model`` finds.
        block: 1 to the encoder's number of blocks.
        start: seconds of the first sample, which times count from.

    Returns:
        Seconds of the states' middles (n,), and states (n, width) float32, n = ceil(N / 320).

    Raises:
        UserError: there is no model, or its file is damaged, or has fewer blocks.
    """
    encoder = load_encoder(model or find_speech_model(), block=block)
    size = _PIECE_SECONDS * RATE_HZ
    states = [encoder(samples[at : at + size]) for at in range(0, len(samples), size)]
    joined = np.concatenate(states) if states else np.zeros((0, encoder.width), np.float32)
    times = start + (np.arange(len(joined)) + 0.5) / STATES_PER_SECOND
    return times, joined


def states_after(
    samples: Samples, *, blocks: Sequence[int], model: SpeechModel | None = None
) -> Array:
    """States of an utterance after several blocks of the encoder, side by side.

    Args:
        samples: (N,) float32 at 16 kHz, read in pieces of 30 s as in ``whisper_states``.
        blocks: numbers of blocks, rising.
        model: as there.

    Returns:
        (n, width x blocks) float32, n = ceil(N / 320); the columns of the first block come first.

    Raises:
        UserError: as there.
        ValueError: ``blocks`` do not rise from 1 or more.
    """
    if not blocks or list(blocks) != sorted({*blocks}) or blocks[0] < 1:
        raise ValueError(f"blocks must rise from 1 or more, got {tuple(blocks)}")
    encoder = load_encoder(model or find_speech_model(), block=blocks[-1])
    size = _PIECE_SECONDS * RATE_HZ
    pieces = [
        np.concatenate([states for _, states in encoder.run(samples[at : at + size], blocks)], 1)
        for at in range(0, len(samples), size)
    ]
    none = np.zeros((0, encoder.width * len(blocks)), np.float32)
    return np.concatenate([none, *pieces])


def pooled(states: Array) -> NDArray[np.float64]:
    """Mean and deviation over time, (n, D) to (2 D,); NaN of less than 0.3 s.

    Example:
        >>> pooled(np.tile(np.array([[1.0, 5.0], [3.0, 5.0]], np.float32), (10, 1)))
        array([2., 5., 1., 0.])
    """
    if len(states) < FEWEST_STATES:
        return np.full(2 * states.shape[1], np.nan)
    values = np.asarray(states, np.float64)
    return np.concatenate([values.mean(axis=0), values.std(axis=0)])


@functools.lru_cache(maxsize=2)
def load_encoder(model: SpeechModel, *, block: int = DEFAULT_BLOCK) -> Encoder:
    """The first blocks of a model's encoder; kept, so that the next clip finds it loaded.

    Raises:
        UserError: its file is damaged, or has fewer blocks.
    """
    return Encoder.read(model.weights, num_blocks=block)


@dataclass(frozen=True)
class _Linear:
    """y = x weight^T + bias."""

    weight: Array
    bias: Array

    def __call__(self, inputs: Array) -> Array:
        result: Array = inputs @ self.weight.T
        result += self.bias
        return result


@dataclass(frozen=True)
class _Norm:
    """Layer normalisation."""

    gamma: Array
    beta: Array

    def __call__(self, inputs: Array) -> Array:
        centred: Array = inputs - inputs.mean(axis=-1, keepdims=True)
        variance = np.einsum("nd,nd->n", centred, centred)[:, None] / centred.shape[-1]
        centred *= self.gamma / np.sqrt(variance + np.float32(_EPSILON))
        centred += self.beta
        return centred


@dataclass(frozen=True)
class _Block:
    """One block of the encoder: self-attention and two linear layers, normalised before each."""

    attention_norm: _Norm
    query_key_value: _Linear
    attended: _Linear
    forward_norm: _Norm
    inner: _Linear
    outer: _Linear
    num_heads: int

    def __call__(self, states: Array) -> Array:
        states = states + self.attended(self._attend(self.attention_norm(states)))
        states += self.outer(_gelu(self.inner(self.forward_norm(states))))
        return states

    def _attend(self, states: Array) -> Array:
        length, width = states.shape
        size = width // self.num_heads
        joint = self.query_key_value(states).reshape(length, 3, self.num_heads, size)
        query, key, value = joint.transpose(1, 2, 0, 3)  # each (H, L, D/H)
        weights = (query * np.float32(size**-0.5)) @ key.transpose(0, 2, 1)
        weights -= weights.max(axis=-1, keepdims=True)
        np.exp(weights, out=weights)
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = (weights @ value).transpose(1, 0, 2)
        return np.asarray(mixed.reshape(length, width), np.float32)


class Encoder:
    """Whisper's convolutions and its first blocks.

    Args:
        convolutions: two (weight (out, in, 3), bias (out,)).
        positions: (1500, D) added to the states.
        blocks: the blocks, in order.
    """

    def __init__(
        self,
        convolutions: tuple[tuple[Array, Array], tuple[Array, Array]],
        positions: Array,
        blocks: tuple[_Block, ...],
    ) -> None:
        self._convolutions = convolutions
        self._positions = positions
        self._blocks = blocks

    @property
    def width(self) -> int:
        """D, 384 for tiny.en."""
        return int(self._positions.shape[1])

    @classmethod
    def read(cls, weights: Path, *, num_blocks: int) -> Encoder:
        """From a ``model.bin`` of CTranslate2.

        Raises:
            UserError: it is damaged, or has fewer blocks.
        """
        found = read_arrays(weights, lambda name: _is_needed(name, num_blocks))
        try:
            return cls(
                (_convolution(found, "conv1"), _convolution(found, "conv2")),
                found["encoder/position_encodings/encodings"],
                tuple(_block(found, k) for k in range(num_blocks)),
            )
        except KeyError as error:
            raise UserError(
                f"{weights} must hold a Whisper encoder of at least {num_blocks} blocks, "
                f"it lacks {error.args[0]}"
            ) from None

    def __call__(self, samples: Samples) -> Array:
        """(n, D) states of at most 30 s of sound at 16 kHz, n = ceil(N / 320)."""
        [(_, states)] = self.run(samples, (len(self._blocks),))
        return states

    def run(self, samples: Samples, blocks: Sequence[int]) -> Iterator[tuple[int, Array]]:
        """The states after each of some blocks, which rise, with the block's number."""
        count = -(-len(samples) // _STEP)
        if not count:
            yield from ((block, np.zeros((0, self.width), np.float32)) for block in blocks)
            return
        num_mels = self._convolutions[0][0].shape[1]
        states = log_mel(samples, num_frames=2 * count, num_mels=num_mels)
        for stride, (weight, bias) in zip((1, 2), self._convolutions, strict=True):
            states = _gelu(_convolve(states, weight, bias, stride=stride))
        states += self._positions[:count]
        for number, block in enumerate(self._blocks[: blocks[-1]], start=1):
            states = block(states)
            if number in blocks:
                yield number, states


def _is_needed(name: str, num_blocks: int) -> bool:
    """Is this array part of the convolutions or of the first blocks?"""
    parts = name.split("/")
    if parts[0] != "encoder":
        return False
    if not parts[1].startswith("layer_") or parts[1] == "layer_norm":
        return True
    return int(parts[1].removeprefix("layer_")) < num_blocks


def _convolution(found: dict[str, Array], name: str) -> tuple[Array, Array]:
    return found[f"encoder/{name}/weight"], found[f"encoder/{name}/bias"]


def _block(found: dict[str, Array], number: int) -> _Block:
    def linear(part: str) -> _Linear:
        at = f"encoder/layer_{number}/{part}"
        return _Linear(found[f"{at}/weight"], found[f"{at}/bias"])

    def norm(part: str) -> _Norm:
        at = f"encoder/layer_{number}/{part}/layer_norm"
        return _Norm(found[f"{at}/gamma"], found[f"{at}/beta"])

    return _Block(
        attention_norm=norm("self_attention"),
        query_key_value=linear("self_attention/linear_0"),
        attended=linear("self_attention/linear_1"),
        forward_norm=norm("ffn"),
        inner=linear("ffn/linear_0"),
        outer=linear("ffn/linear_1"),
        num_heads=int(found["encoder/num_heads"].item()),
    )


def _convolve(inputs: Array, weight: Array, bias: Array, *, stride: int) -> Array:
    """(L, in) -> (ceil(L / stride), out): width 3, one frame of zeros at either end."""
    padded = np.pad(inputs, ((1, 1), (0, 0)))
    windows = sliding_window_view(padded, 3, axis=0)[::stride]  # (L', in, 3)
    result = windows.reshape(len(windows), -1) @ weight.reshape(len(weight), -1).T
    result += bias
    return np.asarray(result, np.float32)


def _gelu(values: Array) -> Array:
    """The product x Phi(x), in place; SciPy's error function takes three times as long.

    Source: M. Abramowitz and I. Stegun, "Handbook of mathematical functions", 7.1.26: the error
    function to 1.5e-7.
    """
    size = np.abs(values)
    size *= np.float32(2**-0.5)
    place = size * np.float32(0.3275911)
    place += 1
    np.reciprocal(place, out=place)
    below = place * np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        below += np.float32(coefficient)
        below *= place
    size *= size
    np.exp(np.negative(size, out=size), out=size)
    below *= size  # 2 Phi(-|x|)
    below *= np.float32(0.5)
    below *= np.abs(values, out=size)
    np.maximum(values, 0, out=values)
    values -= below
    return values


def log_mel(samples: Samples, *, num_frames: int, num_mels: int = 80) -> Array:
    """(num_frames, num_mels) log-mel spectrum as Whisper was trained on.

    Args:
        samples: (N,) float32 at 16 kHz.
        num_frames: of 10 ms; silence stands after the sound's end.
        num_mels: 80, or 128 for large-v3.
    """
    length = max(num_frames * HOP, _FFT)
    padded = np.pad(samples, (0, max(length - len(samples), 0)))[:length]
    mirrored = np.pad(padded, _FFT // 2, mode="reflect")
    windows = sliding_window_view(mirrored, _FFT)[::HOP][:num_frames]
    spectrum = np.fft.rfft(windows * np.hanning(_FFT + 1)[:-1].astype(np.float32), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    level = np.log10(np.maximum(power @ _mel_filters(num_mels), 1e-10))
    level = np.maximum(level, level.max() - 8.0)
    return np.asarray((level + 4.0) / 4.0, np.float32)


@functools.cache
def _mel_filters(num_mels: int) -> Array:
    """(201, num_mels) triangles on Slaney's mel scale, each of unit area, 0 to 8,000 Hz.

    Source: M. Slaney, "Auditory toolbox" (1998): linear to 1,000 Hz (15 mel), 27 mel per factor of
    6.4 above.
    """
    step_hz, corner_mel, per_mel = 200 / 3, 15.0, np.log(6.4) / 27
    top = corner_mel + np.log(RATE_HZ / 2 / 1_000) / per_mel
    mel = np.linspace(0, top, num_mels + 2)
    edges = np.where(mel < corner_mel, mel * step_hz, 1_000 * np.exp(per_mel * (mel - corner_mel)))
    frequency = np.arange(_FFT // 2 + 1)[:, None] * (RATE_HZ / _FFT)
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    area = 2 / (edges[2:] - edges[:-2])
    return np.asarray(np.maximum(np.minimum(rising, falling), 0) * area, np.float32)
