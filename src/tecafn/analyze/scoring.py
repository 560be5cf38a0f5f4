"""A model that scores utterances: what it reads, its scale, its intervals, what each word does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tecafn.analyze.timeline import ScoredUtterance, Scorer, TimedWord
from tecafn.analyze.trend import SCORE_DIGITS
from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec, check_features
from tecafn.core.modality import Modality
from tecafn.extract.clip import ClipSettings
from tecafn.extract.clip_features import Frames, Segment
from tecafn.serving.builtin import is_builtin, model_folder
from tecafn.serving.intervals import CALIBRATION_FILE, Intervals, count_words, hash_of_weights
from tecafn.serving.language import foreign, languages_of
from tecafn.serving.opening import open_predictor, read_definition
from tecafn.serving.shapley import contributions
from tecafn.serving.voice import VoiceHead

if TYPE_CHECKING:
    from tecafn.serving.opening import AnyPredictor

Floats = NDArray[np.float64]

TIME_DIGITS = 3
_FEWEST_WORDS = 3
_LEAST_CONFIDENCE = 0.6
_AUDIO_OF = {
    "voice-measures": "measures",
    "whisper-states": "whisper",
    "voice-measures-and-whisper-states": "both",
}


@dataclass(frozen=True, kw_only=True)
class SentimentModel:
    """A trained network that gives utterances a score.

    Args:
        scorer: what is told of it.
        features: how the frames that it reads were made, of the modalities whose data said so.
        opener: loads the network, which is not in memory while a clip is read.
        intervals: around its scores; None where it was not calibrated.
        voice: what tells acted emotions of the voice beside it; None = nothing does.
    """

    scorer: Scorer
    features: Mapping[Modality, FeatureSpec]
    opener: Callable[[], AnyPredictor]
    intervals: Intervals | None = None
    voice: VoiceHead | None = None

    @cached_property
    def predictor(self) -> AnyPredictor:
        """The network, loaded when first asked for."""
        return self.opener()

    @property
    def is_fused(self) -> bool:
        """Does it read the voice or the face, too?"""
        return self.scorer.reads != (Modality.TEXT.value,)

    def settings(self, wanted: ClipSettings) -> ClipSettings:
        """How clips must be read for it: the measures that are shown, and what it was trained on.

        Args:
            wanted: what the user decides: the face, the speech model, the greatest length.

        Raises:
            UserError: it was trained on frames that cannot be made from a clip.
        """
        if self.voice is not None:
            wanted = replace(wanted, voice_blocks=self.voice.blocks)
        if not self.is_fused:
            return replace(wanted, audio="measures", words="missing", cut=False, measures=False)
        specs = self.features
        frames = [m for m in map(Modality, self.scorer.reads) if m != Modality.TEXT]
        for modality in frames:
            if modality not in specs:
                raise UserError(
                    f"{self.scorer.name} reads {modality} frames that `tecafn extract` does not "
                    "make: train one on a store that it wrote, or name a model that reads text"
                )
        made = [specs[m] for m in frames]
        settings = replace(
            wanted,
            audio=_AUDIO_OF.get(specs[Modality.AUDIO].extractor, "whisper")
            if Modality.AUDIO in frames
            else "measures",
            frames_per_second=round(made[0].frames_per_second) or wanted.frames_per_second,
            per_word=made[0].settings.get("frame") == "word",
            words="missing",
            cut=True,
            measures=True,
        )
        check_features(
            {m: specs[m] for m in frames},
            settings.specifications(),
            model_name=self.scorer.name,
            data_name="the clip",
        )
        return settings

    def scored(
        self, segments: Sequence[Segment], *, voices: Frames | None = None
    ) -> tuple[ScoredUtterance, ...]:
        """Utterances with their scores, intervals, effects of words and doubts.

        One in a language that the model was not trained on has no score.

        Args:
            segments: utterances with words, in the order of their times.
            voices: (U, 2 D) their pooled states of the speech model, where the voice is told of.
        """
        heard = self._heard(voices, len(segments))
        languages = foreign([one.text for one in segments], self.scorer.languages)
        inside = [one for one, code in zip(segments, languages, strict=True) if not code]
        scores = self._predicted([one.text for one in inside], inside)
        lows, highs = self._ends(scores, inside)
        effects = self._effects(scores, inside)
        shares = self._contributions(inside)
        places = iter(range(len(inside)))
        result = []
        for segment, code, voice in zip(segments, languages, heard, strict=True):
            if code:
                nothing = [None] * len(segment.words)
                result.append(replace(_utterance(segment, nothing, out_of_range=code), voice=voice))
                continue
            place = next(places)
            result.append(
                replace(
                    _utterance(segment, effects[place]),
                    score=_rounded(scores[place]),
                    low=lows[place],
                    high=highs[place],
                    doubts=_doubts(segment),
                    contributions=shares[place],
                    voice=voice,
                )
            )
        return tuple(result)

    def _heard(self, voices: Frames | None, number: int) -> list[dict[str, float]]:
        """Probabilities of the voice's emotions per utterance; empty where it is not judged."""
        if self.voice is None or voices is None or not len(voices):
            return [{} for _ in range(number)]
        found = self.voice.of(np.asarray(voices, np.float64))
        return [
            {name: round(float(p), 3) for name, p in zip(self.voice.emotions, row, strict=True)}
            if np.isfinite(row).all()
            else {}
            for row in found
        ]

    def _effects(self, scores: Floats, segments: Sequence[Segment]) -> list[list[float | None]]:
        """Per utterance and word, the score minus the score without the word.

        The only word of an utterance has none: nothing is left without it.
        """
        texts, owners = [], []
        for number, segment in enumerate(segments):
            words = [word.text for word in segment.words]
            if len(words) > 1:
                texts += [" ".join((*words[:k], *words[k + 1 :])) for k in range(len(words))]
                owners += [number] * len(words)
        without = self._predicted(texts, [segments[number] for number in owners])
        effects: list[list[float | None]] = [[] for _ in segments]
        for number, value in zip(owners, without, strict=True):
            effects[number].append(_rounded(scores[number] - value))
        return [
            found or [None] * len(one.words) for found, one in zip(effects, segments, strict=True)
        ]

    def _predicted(self, texts: Sequence[str], segments: Sequence[Segment]) -> Floats:
        """(N,) scores inside the scale, of each text with the frames of its segment."""
        if not texts:
            return np.empty(0)
        values = self.predictor.predict(text=list(texts), **self._frames(segments))
        return np.clip(values, self.scorer.low, self.scorer.high)

    def _frames(self, segments: Sequence[Segment]) -> dict[str, Any]:
        """What the network reads beside the words, of each segment; None where it is absent."""
        return {
            modality.value: [segment.sequences.get(modality) for segment in segments]
            for modality in self.predictor.takes
            if modality != Modality.TEXT
        }

    def _contributions(self, segments: Sequence[Segment]) -> list[dict[str, float]]:
        """Shapley values of the modalities per utterance; empty where words alone are read."""
        if not self.is_fused or not segments:
            return [{} for _ in segments]
        texts = [one.text for one in segments]
        found = contributions(self.predictor, text=texts, **self._frames(segments))
        told = {modality.value: values for modality, values in found.values.items()}
        told["base"] = found.base
        return [
            {name: _rounded(values[row]) for name, values in told.items()}
            for row in range(len(segments))
        ]

    def _ends(
        self, scores: Floats, segments: Sequence[Segment]
    ) -> tuple[list[float | None], list[float | None]]:
        """Lower and upper ends of the scores' intervals; None without intervals."""
        if self.intervals is None:
            return [None] * len(scores), [None] * len(scores)
        low, high = self.intervals.of(scores, [count_words(one.text) for one in segments])
        return [_rounded(value) for value in low], [_rounded(value) for value in high]


def open_model(name: str, *, voice: VoiceHead | None = None) -> SentimentModel:
    """A model by its name, its run's folder or its name on the hub.

    Raises:
        UserError: there is none, it reads no sentences, or it gives classes and no score.
    """
    opener: Callable[[], AnyPredictor]
    if is_builtin(name) or Path(name).is_dir():
        folder = model_folder(name)
        definition, opener = read_definition(name, folder), partial(open_predictor, name)
        weights = hash_of_weights(folder)
    else:
        predictor: Any = open_predictor(name)  # fetched, or refused
        from tecafn.serving.predictor import hash_in_memory

        definition, opener = predictor.definition, lambda: predictor
        weights = hash_in_memory(predictor)
    if definition.task != "regression":
        raise UserError(
            f"{name} tells {definition.num_classes} classes apart; a timeline needs a model that "
            "gives a score"
        )
    if not definition.reads_sentences:
        raise UserError(f"{name} does not read sentences; a timeline needs a model that does")
    low, high = definition.label_range
    intervals = _intervals_of(name)
    described = json.dumps(definition.as_dict(), sort_keys=True)
    scorer = Scorer(
        name=str(name),
        identity=hashlib.sha256(f"{described} {weights}".encode()).hexdigest(),
        trained_on=definition.dataset,
        reads=tuple(m.value for m in definition.model_input.takes),
        low=float(low),
        high=float(high),
        coverage=None if intervals is None else intervals.level,
        languages=languages_of(definition.dataset),
    )
    return SentimentModel(
        scorer=scorer,
        features=definition.features,
        opener=opener,
        intervals=intervals,
        voice=voice,
    )


def _intervals_of(name: str) -> Intervals | None:
    """Of a calibrated model; None of another.

    Raises:
        UserError: the calibration is damaged, or of other weights.
    """
    is_calibrated = (model_folder(name) / CALIBRATION_FILE).is_file()
    return Intervals.load(name) if is_calibrated else None


def _utterance(
    segment: Segment, effects: Sequence[float | None], *, out_of_range: str = ""
) -> ScoredUtterance:
    return ScoredUtterance(
        start=_milli(segment.start),
        end=_milli(segment.end),
        words=tuple(
            TimedWord(
                text=word.text,
                start=_milli(word.start),
                end=_milli(word.end),
                interpolated=word.interpolated,
                confidence=None if word.confidence is None else round(word.confidence, 3),
                effect=effect,
            )
            for word, effect in zip(segment.words, effects, strict=True)
        ),
        out_of_range=out_of_range,
    )


def _milli(seconds: float) -> float:
    return round(float(seconds), TIME_DIGITS)


def _rounded(score: float) -> float:
    return round(float(score), SCORE_DIGITS)


def _doubts(segment: Segment) -> tuple[str, ...]:
    """Why a score of these words deserves little confidence."""
    doubts = []
    number = len(segment.words)
    if number < _FEWEST_WORDS:
        doubts.append("a single word" if number == 1 else f"only {number} words")
    sure = [word.confidence for word in segment.words if word.confidence is not None]
    if sure and sum(sure) / len(sure) < _LEAST_CONFIDENCE:
        doubts.append("the recogniser is unsure of the words")
    return tuple(doubts)
