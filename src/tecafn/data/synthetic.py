"""The synthetic corpus: generated, deterministic, licence-free, any size.

A score is made of what is said (text valence ``t``), how it sounds (prosody ``p``), how it looks
(expression ``e``) and whether voice and face agree (``p * e``)::

    score = 0.96 t + 0.49 p + 0.49 e + 0.34 p e      t, p, e: mean 0, deviation 1, independent
    oracle = clip(score, -3, 3)
    label = clip(score + annotation noise, -3, 3)     noise: deviation 0.115

A fifth of the samples are designed pairs: the same remark twice in one video, the labels 0.1 to 0.4
apart, told apart by the voice alone or by the face alone. ``docs/synthetic-corpus.md`` has the
formulas in full and what linear and non-linear probes measure. The generator knows no method.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tecafn.core.dataset_names import synthetic_name
from tecafn.core.modality import Modality
from tecafn.core.places import refuse_taken
from tecafn.data.correspondence import Traces, draw_traces
from tecafn.data.lexicon import TOPICS
from tecafn.data.remarks import Draws, Remark, compose, reword, words_of
from tecafn.data.samples import SPLITS, DatasetDescription, Sample, public_id
from tecafn.data.store import Store, StoreWriter

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Shape = Literal["mosi", "mosei"]

LABEL_RANGE = (-3.0, 3.0)
WIDTHS: dict[Shape, dict[Modality, int]] = {
    "mosi": {Modality.AUDIO: 5, Modality.VISION: 20},
    "mosei": {Modality.AUDIO: 74, Modality.VISION: 35},
}

# The score. Shares of the label's variance: 0.60 text, 0.14 audio, 0.15 vision, 0.07 jointly.
TEXT_WEIGHT, AUDIO_WEIGHT, VISION_WEIGHT, JOINT_WEIGHT = 0.96, 0.49, 0.49, 0.34
ANNOTATION_NOISE = 0.115
# Deviation of the valence of the remarks that the grammar composes for these aims.
_VALENCE_STD = 1.247
_AIM_STD, _AIM_LIMIT = 1.35, 2.6
_LATENT_LIMIT = 2.5

# Designed pairs: label difference, and how strongly the telling latent must act on the score.
PAIR_GAP = (0.1, 0.4)
_LEAST_SLOPE = 0.25

# Lengths: lognormal (median, deviation of the log); pairwise correlation of the logs.
_TEXT_LENGTH, _VISION_LENGTH, _AUDIO_LENGTH = (11.0, 0.6), (60.0, 0.5), (48.0, 0.5)
_LENGTH_CORRELATION = 0.8
_LONGEST = {"text": 60, "vision": 400, "audio": 320}
_SECONDS_PER_WORD = 0.36


@dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """Which corpus to generate; equal specs give equal corpora.

    Args:
        shape: ``mosi`` (audio 5 wide, vision 20) or ``mosei`` (74, 35).
        num_train: samples in ``train``.
        num_valid: samples in ``valid``.
        num_test: samples in ``test``.
        seed: any non-negative integer.
        correspondence: 0 to 1, how much voice and face show of what is said and of who says it;
            0 = nothing but their lengths. Texts, labels, latents, pairs and timing are those of 0
            whatever it is. See ``data.correspondence``.

    Raises:
        ValueError: an unknown shape, a size below 1, a negative seed or a correspondence outside
            0 to 1.

    Example:
        >>> CorpusSpec(num_train=0)
        Traceback (most recent call last):
        ...
        ValueError: num_train must be >= 1, got 0
    """

    shape: Shape = "mosi"
    num_train: int = 2000
    num_valid: int = 400
    num_test: int = 3000
    seed: int = 0
    correspondence: float = 0.0

    def __post_init__(self) -> None:
        if self.shape not in WIDTHS:
            raise ValueError(f"shape must be one of {sorted(WIDTHS)}, got {self.shape!r}")
        for name in ("num_train", "num_valid", "num_test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if not 0.0 <= self.correspondence <= 1.0:
            raise ValueError(f"correspondence must be in [0, 1], got {self.correspondence}")

    @property
    def sizes(self) -> dict[str, int]:
        """Samples of each split."""
        return {"train": self.num_train, "valid": self.num_valid, "test": self.num_test}


@dataclass(frozen=True)
class Latents:
    """What a sample was made from; for probes and tests, never stored.

    Args:
        text: ``t``, standardised valence of the remark.
        prosody: ``p``, standardised.
        expression: ``e``, standardised.
        told_by: the one modality that tells a designed pair's samples apart, else None.
        congruent: False where, with a correspondence, the voice plays the words down.
    """

    text: float
    prosody: float
    expression: float
    told_by: Modality | None
    congruent: bool = True


def score(t: Any, p: Any, e: Any) -> Any:
    """The noise-free score before clipping; scalars or arrays.

    Example:
        >>> float(score(1.0, 0.0, 0.0))
        0.96
    """
    return TEXT_WEIGHT * t + AUDIO_WEIGHT * p + VISION_WEIGHT * e + JOINT_WEIGHT * p * e


def describe(spec: CorpusSpec) -> DatasetDescription:
    """Name, widths and label scale of the corpus."""
    traces = f", correspondence {spec.correspondence:g}" if spec.correspondence else ""
    return DatasetDescription(
        dataset=synthetic_name(spec.shape),
        widths=dict(WIDTHS[spec.shape]),
        label_range=LABEL_RANGE,
        source_format="generated",
        notes=(
            f"generated: shape {spec.shape}, seed {spec.seed}, "
            f"{spec.num_train}/{spec.num_valid}/{spec.num_test} samples{traces}",
        ),
    )


def generate(spec: CorpusSpec) -> Iterator[Sample]:
    """The samples of train, valid and test, a video at a time; memory does not grow.

    Video k of a split depends on (seed, shape, split, k) alone. The last video of a split is cut
    to the asked size; a pair that loses a sample there is none.

    Example:
        >>> samples = list(generate(CorpusSpec(num_train=30, num_valid=5, num_test=5)))
        >>> len(samples), samples[0].id, samples[0].sequences[Modality.AUDIO].shape[1]
        (40, 'train00000_1', 5)
    """
    for sample, _ in generate_with_latents(spec):
        yield sample


def generate_with_latents(spec: CorpusSpec) -> Iterator[tuple[Sample, Latents]]:
    """:func:`generate` with what each sample was made from."""
    for split, size in spec.sizes.items():
        remaining = size
        number = 0
        while remaining:
            video = _Video.draw(spec, split, number)
            count = min(remaining, video.num_utterances)
            yield from video.samples(count)
            remaining -= count
            number += 1


def make_corpus(out: Path, spec: CorpusSpec) -> Store:
    """Generate the corpus into a new store at ``out``."""
    refuse_taken(out, may_be="neither")
    with StoreWriter(out, describe(spec)) as writer:
        for sample in generate(spec):
            writer.add(sample)
    return Store.open(out)


@dataclass(frozen=True)
class _Pairs:
    """Designed pairs of a video.

    Args:
        first: (P,) utterance whose latents were drawn.
        second: (P,) utterance made from it.
        told_by: P modalities.
        signs: P signs of the second's label minus the first's.
        reworded: P flags, does the second use other words?
    """

    first: Integers
    second: Integers
    told_by: tuple[Modality, ...]
    signs: tuple[int, ...]
    reworded: tuple[bool, ...]


@dataclass(frozen=True)
class _Utterances:
    """U utterances' latents and scores: t, p, e, oracle and label, each (U,)."""

    t: Floats
    p: Floats
    e: Floats
    oracle: Floats
    label: Floats


@dataclass(frozen=True)
class _Timing:
    """When things happen, in seconds of the video.

    Args:
        starts: (U,) start of each utterance.
        words: U arrays (W, 2) of word intervals.
        ends: (U,) end of each utterance.
        num_audio: (U,) audio frames.
        num_vision: (U,) vision frames.
    """

    starts: Floats
    words: list[Floats]
    ends: Floats
    num_audio: Integers
    num_vision: Integers


@dataclass(frozen=True)
class _Video:
    """One speaker, one topic, 20 to 25 utterances."""

    name: str
    split: str
    texts: list[str]
    utterances: _Utterances
    pairs: _Pairs
    timing: _Timing
    audio: list[npt.NDArray[np.float32]]
    vision: list[npt.NDArray[np.float32]]
    congruent: npt.NDArray[np.bool_]

    @property
    def num_utterances(self) -> int:
        return len(self.texts)

    @classmethod
    def draw(cls, spec: CorpusSpec, split: str, number: int) -> _Video:
        """Video ``number`` of ``split``."""
        root = np.random.SeedSequence(
            [spec.seed, sorted(WIDTHS).index(spec.shape), SPLITS.index(split), number]
        )
        # What came later draws from streams of its own, so that the others' draws stay.
        plan, wording, lengths, audio, vision, tracing = (
            np.random.Generator(np.random.PCG64(child)) for child in root.spawn(6)
        )
        num_utterances = int(plan.integers(20, 26))
        pairs = _draw_pairs(plan, num_utterances, number)
        remarks = _draw_remarks(wording, num_utterances, pairs, avoid_rare=split == "train")
        texts = [remark.text for remark in remarks]
        valence = np.array([remark.valence for remark in remarks])
        utterances = _draw_utterances(plan, valence / _VALENCE_STD, pairs)
        timing = _draw_timing(lengths, texts)
        traces = None
        if spec.correspondence:
            traces = draw_traces(
                tracing,
                texts,
                correspondence=spec.correspondence,
                agreement=utterances.p * utterances.e,
                words=timing.words,
                num_audio=timing.num_audio,
                num_vision=timing.num_vision,
                num_stresses=_NUM_STRESSES,
            )
        widths = WIDTHS[spec.shape]
        congruent = np.ones(num_utterances, np.bool_) if traces is None else traces.congruent
        return cls(
            name=f"{split}{number:05d}",
            split=split,
            texts=texts,
            utterances=utterances,
            pairs=pairs,
            timing=timing,
            audio=_audio_frames(audio, utterances.p, timing, widths[Modality.AUDIO], traces),
            vision=_vision_frames(vision, utterances.e, timing, widths[Modality.VISION], traces),
            congruent=congruent,
        )

    def samples(self, count: int) -> Iterator[tuple[Sample, Latents]]:
        """The first ``count`` utterances."""
        pair_of: dict[int, tuple[str, Modality]] = {}
        for number, (first, second) in enumerate(
            zip(self.pairs.first.tolist(), self.pairs.second.tolist(), strict=True)
        ):
            if first < count and second < count:
                pair = (f"{self.name}_pair{number}", self.pairs.told_by[number])
                pair_of[first] = pair_of[second] = pair
        for row in range(count):
            pair_id, told_by = pair_of.get(row, (None, None))
            identity = public_id(self.name, str(row + 1))
            yield (
                Sample(
                    id=identity,
                    source_id=identity,
                    video=self.name,
                    clip=str(row + 1),
                    split=self.split,
                    text=self.texts[row],
                    label=float(self.utterances.label[row]),
                    sequences={Modality.AUDIO: self.audio[row], Modality.VISION: self.vision[row]},
                    pair_id=pair_id,
                    oracle=float(self.utterances.oracle[row]),
                    start=float(self.timing.starts[row]),
                    end=float(self.timing.ends[row]),
                    words=words_of(self.texts[row]),
                    word_intervals=self.timing.words[row].astype(np.float32),
                ),
                Latents(
                    float(self.utterances.t[row]),
                    float(self.utterances.p[row]),
                    float(self.utterances.e[row]),
                    told_by,
                    bool(self.congruent[row]),
                ),
            )


def _draw_pairs(plan: np.random.Generator, num_utterances: int, number: int) -> _Pairs:
    """Two or three pairs at random places.

    What tells them apart, which label is higher and whether the wording differs run through all
    eight combinations in eight videos: a text model that likes one wording better gains nothing.
    """
    num_pairs = 2 if num_utterances < 23 else 3
    places = plan.permutation(num_utterances)[: 2 * num_pairs].astype(np.int64)
    first_bit, second_bit, third_bit = (
        [(number // period + pair) % 2 == 1 for pair in range(num_pairs)] for period in (1, 2, 4)
    )
    return _Pairs(
        first=places[:num_pairs],
        second=places[num_pairs:],
        told_by=tuple(Modality.VISION if bit else Modality.AUDIO for bit in first_bit),
        signs=tuple(1 if bit else -1 for bit in second_bit),
        reworded=tuple(third_bit),
    )


def _draw_remarks(
    wording: np.random.Generator, num_utterances: int, pairs: _Pairs, *, avoid_rare: bool
) -> list[Remark]:
    """A remark for every utterance; a pair's second repeats the first, half the time reworded."""
    draws = Draws(wording)
    topic = draws.pick(TOPICS)
    aims = np.clip(_AIM_STD * wording.standard_normal(num_utterances), -_AIM_LIMIT, _AIM_LIMIT)
    median, sigma = _TEXT_LENGTH
    sizes = np.exp(np.log(median) + sigma * wording.standard_normal(num_utterances))
    sizes = np.clip(np.rint(sizes), 1, _LONGEST["text"])
    remarks = [
        compose(draws, topic, valence=aim, num_words=int(size), avoid_rare=avoid_rare)
        for aim, size in zip(aims.tolist(), sizes.tolist(), strict=True)
    ]
    for first, second, reworded in zip(
        pairs.first.tolist(), pairs.second.tolist(), pairs.reworded, strict=True
    ):
        said = remarks[first]
        text = reword(draws, said.text) if reworded else said.text
        remarks[second] = Remark(text, said.valence)
    return remarks


def _latent(plan: np.random.Generator, size: int) -> Floats:
    return np.clip(plan.standard_normal(size), -_LATENT_LIMIT, _LATENT_LIMIT)


def _draw_utterances(plan: np.random.Generator, t: Floats, pairs: _Pairs) -> _Utterances:
    """Latents, oracle and label of each utterance.

    A pair's label difference and both annotation noises are drawn first; the telling latent of the
    second sample is then what gives that difference. So the difference is uniform, the noise is
    that of every other sample, and only the pair's latents are drawn anew until they fit.
    """
    num_utterances = len(t)
    low, high = LABEL_RANGE
    p, e = _latent(plan, num_utterances), _latent(plan, num_utterances)
    noise = ANNOTATION_NOISE * plan.standard_normal(num_utterances)
    clean: Floats = score(t, p, e)
    label = np.clip(clean + noise, low, high).round(4)
    for first, second, told_by, sign in zip(
        pairs.first.tolist(), pairs.second.tolist(), pairs.told_by, pairs.signs, strict=True
    ):
        gap = sign * np.round(plan.uniform(*PAIR_GAP), 4)
        if told_by == Modality.AUDIO:
            (telling, weight), (kept, kept_weight) = (p, AUDIO_WEIGHT), (e, VISION_WEIGHT)
        else:
            (telling, weight), (kept, kept_weight) = (e, VISION_WEIGHT), (p, AUDIO_WEIGHT)
        while True:
            one, common = _latent(plan, 2).tolist()
            slope = weight + JOINT_WEIGHT * common
            if abs(slope) < _LEAST_SLOPE:
                continue
            ground = TEXT_WEIGHT * t[first] + kept_weight * common
            clean_first = ground + slope * one
            label_first = np.round(clean_first + noise[first], 4)
            label_second = np.round(label_first + gap, 4)
            clean_second = label_second - noise[second]
            another = (clean_second - ground) / slope
            scores = (clean_first, label_first, label_second, clean_second)
            if abs(another) <= _LATENT_LIMIT and low < min(scores) and max(scores) < high:
                break
        telling[first], telling[second] = one, another
        kept[first] = kept[second] = common
        clean[first], clean[second] = clean_first, clean_second
        label[first], label[second] = label_first, label_second
    return _Utterances(t, p, e, np.clip(clean, low, high), label)


def _draw_timing(lengths: np.random.Generator, texts: list[str]) -> _Timing:
    """Durations, frame counts, word intervals and pauses.

    Words drive the duration, the duration the frame counts: each log has correlation sqrt(0.8) with
    the duration's, so 0.8 with another.
    """
    words = [words_of(text) for text in texts]
    median, sigma = _TEXT_LENGTH
    spoken = (np.log([len(said) for said in words]) - np.log(median)) / sigma
    loading = np.sqrt(_LENGTH_CORRELATION)
    rest = np.sqrt(1 - _LENGTH_CORRELATION)
    count = len(texts)
    duration = loading * spoken + rest * lengths.standard_normal(count)

    def frames(law: tuple[float, float], longest: int) -> Integers:
        drawn = loading * duration + rest * lengths.standard_normal(count)
        counts: Floats = np.rint(np.exp(np.log(law[0]) + law[1] * drawn))
        return counts.clip(4, longest).astype(np.int64)

    num_vision = frames(_VISION_LENGTH, _LONGEST["vision"])
    num_audio = frames(_AUDIO_LENGTH, _LONGEST["audio"])
    seconds = median * _SECONDS_PER_WORD * np.exp(sigma * duration)
    pauses = lengths.exponential(0.6, count) + 0.1
    starts = np.round(np.cumsum(pauses + np.concatenate([[0.0], seconds[:-1]])), 3)
    intervals: list[Floats] = []
    for start, length, said in zip(starts.tolist(), seconds.tolist(), words, strict=True):
        # Longer words take longer; two letters' worth for the gap between words.
        letters = np.array([len(word) + 2.0 for word in said])
        edges = start + length * np.concatenate([[0.0], np.cumsum(letters)]) / letters.sum()
        intervals.append(np.round(np.stack([edges[:-1], edges[1:]], axis=1), 3))
    ends = np.array([interval[-1, 1] for interval in intervals])
    return _Timing(starts, intervals, ends, num_audio, num_vision)


@dataclass(frozen=True)
class _Columns:
    """How factors become feature columns, the same for every corpus of a width.

    Args:
        signal: (K,) direction of the latent among the factors.
        speaker: (S, K) directions of the speaker's offset. The last lies along the signal.
        mixing: (K, D) of each factor in each column.
        own_noise: deviation of each column's own noise.
        scale: (D,) unit of each column; units differ by four orders of magnitude.
        level: (D,) level of each column, in its unit.
        traces: (2, K) directions of a correspondence's contour and level, which neither signal nor
            speaker has a part in.
    """

    signal: Floats
    speaker: Floats
    mixing: Floats
    own_noise: float
    scale: Floats
    level: Floats
    traces: Floats


# Deviations of a speaker's offset in each direction, and of the voice or face at rest, where the
# latent's own deviation is 1.
_SPEAKER, _AT_REST = 1.4, 0.2


def _columns(width: int, *, num_factors: int, num_speaker: int, stream: int) -> _Columns:
    """Fixed loadings; the seed is a constant, so all corpora share one physics."""
    generator = np.random.Generator(np.random.PCG64([20240, stream, width]))
    # The signal weighs on all factors alike: no factor, hence no column, carries it by itself.
    signal = generator.choice((-1.0, 1.0), num_factors) / np.sqrt(num_factors)
    others = generator.standard_normal((num_factors, num_factors - 1))
    basis = np.linalg.qr(np.column_stack([signal, others]))[0].T
    # Half of a speaker's offset lies along the signal: one column's level is ambiguous, the
    # combination that is free of the speaker is not. A little of it (how the voice sounds at
    # rest) no combination is free of; two utterances of one video share it.
    speaker = _SPEAKER * (0.5 * signal + np.sqrt(0.75) * basis[1 : 1 + num_speaker])
    speaker = np.vstack([speaker, _AT_REST * signal])
    if width == num_factors:
        mixing, _ = np.linalg.qr(generator.standard_normal((width, width)))
        own_noise = 0.2
    else:
        # Every column shows one factor, with a trace of another; every fourth shows none.
        mixing = np.zeros((num_factors, width))
        for column in range(width):
            if column % 4 != 3:
                main, trace = generator.permutation(num_factors)[:2]
                mixing[main, column] = generator.choice((-1.0, 1.0)) * generator.uniform(0.7, 1.1)
                mixing[trace, column] = generator.uniform(-0.4, 0.4)
        own_noise = 0.5
    scale = 10.0 ** generator.uniform(-2.0, 2.0, width)
    level = generator.uniform(-1, 1, width)
    traces = basis[1 + num_speaker : 3 + num_speaker]
    return _Columns(signal, speaker, mixing, own_noise, scale, level, traces)


_AUDIO_COLUMNS = {
    width: _columns(width, num_factors=5, num_speaker=2, stream=0)
    for width in (widths[Modality.AUDIO] for widths in WIDTHS.values())
}
_VISION_COLUMNS = {
    width: _columns(width, num_factors=6, num_speaker=2, stream=1)
    for width in (widths[Modality.VISION] for widths in WIDTHS.values())
}


def read_traces(modality: Modality, frames: npt.ArrayLike) -> Floats:
    """What the generator's own loadings read of a correspondence's traces: for probes and tests.

    Args:
        modality: audio or vision.
        frames: (L, D) of one sample.

    Returns:
        (L, 2) of contour and level, with the frames' noise.
    """
    values = np.asarray(frames, np.float64)
    columns = (_AUDIO_COLUMNS if modality == Modality.AUDIO else _VISION_COLUMNS)[values.shape[1]]
    factors = (values / columns.scale - columns.level) @ np.linalg.pinv(columns.mixing)
    return np.asarray(factors @ columns.traces.T)


def _frame_clock(num_frames: Integers) -> tuple[Integers, Floats]:
    """Of all frames in a row: the utterance (T,), and the place within it (T,) in (0, 1)."""
    utterance = np.repeat(np.arange(len(num_frames)), num_frames)
    first = np.repeat(np.cumsum(num_frames) - num_frames, num_frames)
    return utterance, (np.arange(len(utterance)) - first + 0.5) / num_frames[utterance]


def _frames(
    generator: np.random.Generator,
    course: Floats,
    num_frames: Integers,
    columns: _Columns,
    *,
    noise: float,
    memory: float,
    traces: Floats | None,
) -> list[npt.NDArray[np.float32]]:
    """Each utterance's (L, D) frames from the latent's course (T,) over all frames in a row.

    With a correspondence its traces (T, 2) lie beside it.
    """
    # scipy.signal takes half a second to import; reading a corpus does not need it.
    from scipy.signal import lfilter

    num_factors, width = columns.mixing.shape
    shocks = generator.standard_normal((len(course), num_factors))
    shocks[1:] *= np.sqrt(1 - memory**2)
    drift = noise * lfilter([1.0], [1.0, -memory], shocks, axis=0)
    offset = generator.standard_normal(len(columns.speaker)) @ columns.speaker
    factors = course[:, None] * columns.signal + drift + offset
    if traces is not None:
        factors = factors + traces @ columns.traces
    own = generator.standard_normal((len(course), width), dtype=np.float32)
    values = factors.astype(np.float32) @ columns.mixing.astype(np.float32)
    values += np.float32(columns.own_noise) * own
    values += columns.level.astype(np.float32)
    values *= columns.scale.astype(np.float32)
    # A copy per utterance: a sample that is kept does not keep its video's frames alive.
    return [part.copy() for part in np.split(values, np.cumsum(num_frames)[:-1])]


_NUM_STRESSES, _NUM_EVENTS = 3, 2
_AUDIO_NOISE, _AUDIO_MEMORY = 0.28, 0.8
_VISION_NOISE, _VISION_MEMORY = 0.25, 0.88


def _audio_frames(
    generator: np.random.Generator, p: Floats, timing: _Timing, width: int, traces: Traces | None
) -> list[npt.NDArray[np.float32]]:
    """Prosody: a level that holds through the utterance, and rises on three stressed words.

    With a correspondence stresses move to the word that carries the sentiment.
    """
    utterance, clock = _frame_clock(timing.num_audio)
    count = len(p)
    chosen = generator.random((count, _NUM_STRESSES))
    centre, reach = np.empty_like(chosen), np.empty_like(chosen)
    for row, words in enumerate(timing.words):
        place = (chosen[row] * len(words)).astype(np.int64)
        if traces is not None:
            place = np.where(traces.moved[row], traces.stress[row], place)
        stressed = words[place]
        span = words[-1, 1] - words[0, 0]
        centre[row] = (stressed.mean(axis=1) - words[0, 0]) / span
        reach[row] = np.maximum((stressed[:, 1] - stressed[:, 0]) / span, 0.08)
    distance = (clock[:, None] - centre[utterance]) / reach[utterance]
    stress = np.exp(-(distance**2)).max(axis=1)
    course = p[utterance] * (0.7 + 0.6 * stress)
    return _frames(
        generator,
        course,
        timing.num_audio,
        _AUDIO_COLUMNS[width],
        noise=_AUDIO_NOISE,
        memory=_AUDIO_MEMORY,
        traces=None if traces is None else traces.voice,
    )


def _vision_frames(
    generator: np.random.Generator, e: Floats, timing: _Timing, width: int, traces: Traces | None
) -> list[npt.NDArray[np.float32]]:
    """Expression: a lasting part, and two events with onset, apex and offset (smiles or frowns)."""
    utterance, place = _frame_clock(timing.num_vision)
    count = len(e)
    onset = generator.uniform(-0.05, 0.75, (count, _NUM_EVENTS))
    rise = generator.uniform(0.05, 0.15, (count, _NUM_EVENTS))
    apex = generator.uniform(0.1, 0.3, (count, _NUM_EVENTS))
    fall = generator.uniform(0.1, 0.25, (count, _NUM_EVENTS))
    since = place[:, None] - onset[utterance]
    up = since / rise[utterance]
    down = ((rise + apex + fall)[utterance] - since) / fall[utterance]
    event = np.clip(np.minimum(up, down), 0.0, 1.0).max(axis=1)
    course = e[utterance] * (0.7 + 0.6 * event)
    return _frames(
        generator,
        course,
        timing.num_vision,
        _VISION_COLUMNS[width],
        noise=_VISION_NOISE,
        memory=_VISION_MEMORY,
        traces=None if traces is None else traces.face,
    )
