"""English remarks with a known valence, composed from a small sentiment grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tecafn.data.lexicon import (
    DEGREES,
    DOING,
    HEDGES,
    LIKING,
    OPENERS,
    PERSON,
    SYNONYMS,
    TRAILERS,
    VERB_DEGREES,
    VERDICT,
    Graded,
    Topic,
)

T = TypeVar("T")

# "Not good" is milder than "bad", and "not bad" only faintly good.
_NEGATED_PRAISE = -0.55
_NEGATED_BLAME = -0.3
# After "but" comes what the speaker means.
_BEFORE_BUT, _AFTER_BUT = 0.35, 0.65
_TOLERANCE = 0.35
# A training video takes a rare phrase only after this many refusals in a row.
_RARE_TRIES = 3


@dataclass(frozen=True)
class Remark:
    """A text and what it says, -3 (strongly negative) to 3."""

    text: str
    valence: float


class Draws:
    """Uniform draws in blocks: one call into NumPy for hundreds of choices.

    Example:
        >>> draws = Draws(np.random.default_rng(0))
        >>> 0.0 <= draws.uniform() < 1.0
        True
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._block: list[float] = []

    def uniform(self) -> float:
        """One number in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(1024).tolist()
        return self._block.pop()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def between(self, low: float, high: float) -> float:
        """One number in [low, high)."""
        return low + (high - low) * self.uniform()

    def pick(self, items: Sequence[T]) -> T:
        """One of ``items``, all alike."""
        return items[int(self.uniform() * len(items))]


@dataclass(frozen=True)
class _Clause:
    """Words without a capital or full stop, their number, and what they say."""

    text: str
    valence: float
    num_words: int
    # A verdict ("five stars from me") opens no subordinate clause and takes no adjunct.
    is_verdict: bool = False


def _clause(text: str, valence: float, *, is_verdict: bool = False) -> _Clause:
    return _Clause(text, valence, text.count(" ") + 1, is_verdict)


def _choose(draws: Draws, graded: Graded, valence: float, *, avoid_rare: bool) -> tuple[str, float]:
    """A phrase near ``valence`` and its own valence."""
    low, high = graded.span(valence, tolerance=_TOLERANCE)
    row = low
    for _ in range(_RARE_TRIES if avoid_rare else 1):
        row = low + int(draws.uniform() * (high - low))
        if not graded.rare[row]:
            break
    return graded.phrases[row], graded.valences[row]


def _article(phrase: str) -> str:
    """``a`` or ``an`` before ``phrase``; only words of the lexicon need be right."""
    sounds_like_you = phrase.startswith(("use", "usa", "uni"))
    vowel = (phrase[0] in "aeiou" and not sounds_like_you) or phrase.startswith("honest")
    return f"{'an' if vowel else 'a'} {phrase}"


def _predicate(
    draws: Draws, adjectives: Graded, valence: float, *, avoid_rare: bool, max_words: int
) -> tuple[str, float]:
    """``very good``, ``not bad``, ``awful``: an adjective with degree or negation."""
    if max_words >= 2 and abs(valence) < 1.2 and draws.chance(0.22):
        factor = _NEGATED_PRAISE if valence < 0 else _NEGATED_BLAME
        adjective, own = _choose(draws, adjectives, valence / factor, avoid_rare=avoid_rare)
        if own * valence < 0 and 0.5 <= abs(own) <= 2.2:
            word = draws.pick(("not", "not exactly", "not really")) if max_words >= 3 else "not"
            return f"{word} {adjective}", factor * own
    if max_words >= 2 and draws.chance(0.6):
        degree = draws.pick(DEGREES)
        if degree.phrase.count(" ") + 2 <= max_words:
            aim = valence / degree.factor
            adjective, own = _choose(draws, adjectives, aim, avoid_rare=avoid_rare)
            if degree.weakest <= abs(own) <= degree.strongest:
                return f"{degree.phrase} {adjective}", degree.factor * own
    return _choose(draws, adjectives, valence, avoid_rare=avoid_rare)


def _subject_clause(
    draws: Draws, topic: Topic, valence: float, *, avoid_rare: bool, max_words: int
) -> _Clause:
    """``the acting was not very good``."""
    person = draws.chance(0.3)
    subject = draws.pick(topic.people if person else topic.things)
    if not person and (max_words <= 4 or draws.chance(0.1)):
        subject = "it"
    room = max_words - subject.count(" ") - 2
    predicate, own = _predicate(
        draws,
        PERSON if person else topic.adjectives,
        valence,
        avoid_rare=avoid_rare,
        max_words=max(room, 1),
    )
    return _clause(f"{subject} was {predicate}", own)


def _kind_clause(
    draws: Draws, topic: Topic, valence: float, *, avoid_rare: bool, max_words: int
) -> _Clause:
    """``it was an extremely good film``."""
    adjective, own = _choose(draws, topic.adjectives, valence, avoid_rare=avoid_rare)
    kind = draws.pick(topic.kinds)
    start = draws.pick(("it was", "this was", "that was"))
    return _clause(f"{start} {_article(adjective)} {kind}", own)


def _liking_clause(
    draws: Draws, topic: Topic, valence: float, *, avoid_rare: bool, max_words: int
) -> _Clause:
    """``I really enjoyed the soup``."""
    degree = draws.pick(VERB_DEGREES)
    verb, own = _choose(draws, LIKING, valence / degree.factor, avoid_rare=avoid_rare)
    gradable = not verb.startswith(("did", "could", "got", "grew", "had"))
    if draws.chance(0.4) and gradable and degree.weakest <= abs(own) <= degree.strongest:
        own *= degree.factor
        is_passive = verb.startswith("was ")
        verb = f"was {degree.phrase} {verb[4:]}" if is_passive else f"{degree.phrase} {verb}"
    else:
        verb, own = _choose(draws, LIKING, valence, avoid_rare=avoid_rare)
    thing = "it" if max_words <= 4 else draws.pick(topic.things)
    return _clause(f"{'I' if draws.chance(0.8) else 'my wife'} {verb} {thing}", own)


def _doing_clause(
    draws: Draws, topic: Topic, valence: float, *, avoid_rare: bool, max_words: int
) -> _Clause:
    """``the second half fell flat``."""
    phrase, own = _choose(draws, DOING, valence, avoid_rare=avoid_rare)
    subject = "it" if max_words <= 4 else draws.pick(topic.things)
    return _clause(f"{subject} {phrase}", own)


def _verdict_clause(
    draws: Draws, topic: Topic, valence: float, *, avoid_rare: bool, max_words: int
) -> _Clause:
    """``I would recommend it to anyone``."""
    phrase, own = _choose(draws, VERDICT, valence, avoid_rare=avoid_rare)
    return _clause(phrase, own, is_verdict=True)


_FORMS = (
    _subject_clause,
    _subject_clause,
    _subject_clause,
    _subject_clause,
    _liking_clause,
    _liking_clause,
    _kind_clause,
    _doing_clause,
    _doing_clause,
    _verdict_clause,
)


def _judgement(
    draws: Draws, topic: Topic, valence: float, *, avoid_rare: bool, max_words: int
) -> _Clause:
    """A clause near ``valence`` of at most ``max_words`` words, or the shortest that was drawn."""
    best: _Clause | None = None
    for _ in range(6):
        form = draws.pick(_FORMS)
        clause = form(draws, topic, valence, avoid_rare=avoid_rare, max_words=max_words)
        if clause.num_words <= max_words:
            return clause
        if best is None or clause.num_words < best.num_words:
            best = clause
    assert best is not None
    return best


def _exclamation(
    draws: Draws, topic: Topic, valence: float, *, avoid_rare: bool, num_words: int
) -> _Clause:
    """``Really good acting``: remarks too short for a verb, one to four words."""
    if num_words >= 4 and draws.chance(0.5):
        adjective, own = _choose(draws, topic.adjectives, valence, avoid_rare=avoid_rare)
        return _clause(f"what {_article(adjective)} {draws.pick(topic.kinds)}", own)
    if num_words >= 3 and draws.chance(0.5):
        clause = _subject_clause(
            draws, topic, valence, avoid_rare=avoid_rare, max_words=min(num_words, 4)
        )
        if clause.num_words <= num_words:
            return clause
    predicate, own = _predicate(
        draws, topic.adjectives, valence, avoid_rare=avoid_rare, max_words=num_words
    )
    room = num_words - predicate.count(" ") - 1
    if room >= 1 and not predicate.startswith("not"):
        return _clause(f"{predicate} {draws.pick(topic.kinds)}", own)
    return _clause(predicate, own)


def _of_length(draws: Draws, items: Sequence[str], max_words: int) -> str | None:
    """One of the longest of ``items`` that fit, or None."""
    fitting = [item for item in items if item.count(" ") < max_words]
    if not fitting:
        return None
    longest = max(item.count(" ") for item in fitting)
    return draws.pick([item for item in fitting if item.count(" ") >= longest - 1])


def _opened(draws: Draws, clause: _Clause, max_words: int) -> _Clause:
    """The clause with a hedge or an opener in front, if one fits."""
    if not clause.is_verdict and draws.chance(0.5):
        hedge, factor = draws.pick(HEDGES)
        if hedge.count(" ") < max_words:
            return _clause(f"{hedge} {clause.text}", factor * clause.valence)
    opener = _of_length(draws, OPENERS, max_words)
    if opener is None:
        return clause
    return _clause(f"{opener} {clause.text}", clause.valence, is_verdict=clause.is_verdict)


def _joined(pattern: str, first: _Clause, second: _Clause, valence: float) -> _Clause:
    """Two clauses as one; what may follow depends on the second."""
    text = pattern.format(first.text, second.text)
    return _clause(text, valence, is_verdict=second.is_verdict)


def _sentence(
    draws: Draws, topic: Topic, valence: float, *, avoid_rare: bool, num_words: int
) -> _Clause:
    """One sentence that judges: a clause, or two joined by ``and``, ``but`` or ``although``."""
    kwargs = {"avoid_rare": avoid_rare}
    if num_words >= 11 and draws.chance(0.55):
        half = (num_words - 1) // 2
        if draws.chance(0.4):
            before = valence - np.sign(valence or 1.0) * draws.between(1.2, 2.6)
            before = max(-2.3, min(2.3, before))
            first = _judgement(draws, topic, before, max_words=half, **kwargs)
            meant = (valence - _BEFORE_BUT * first.valence) / _AFTER_BUT
            second = _judgement(draws, topic, meant, max_words=half, **kwargs)
            both = _BEFORE_BUT * first.valence + _AFTER_BUT * second.valence
            opposed = first.valence * second.valence < 0
            if opposed and not _shares_words(first.text, second.text):
                if draws.chance(0.3) and not first.is_verdict:
                    return _joined("although {}, {}", first, second, both)
                return _joined("{}, but {}", first, second, both)
        first = _judgement(
            draws, topic, valence + draws.between(-0.4, 0.4), max_words=half, **kwargs
        )
        second = _judgement(draws, topic, 2 * valence - first.valence, max_words=half, **kwargs)
        if _shares_words(first.text, second.text) or first.valence * second.valence < 0:
            return first
        both = (first.valence + second.valence) / 2
        return _joined("{} and {}", first, second, both)
    return _judgement(draws, topic, valence, max_words=num_words, **kwargs)


def _shares_words(one: str, other: str) -> bool:
    """Do two clauses repeat a word of substance, so that no one would join them?"""
    return any(len(word) > 3 for word in set(one.split()) & set(other.split()))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def compose(
    draws: Draws, topic: Topic, *, valence: float, num_words: int, avoid_rare: bool
) -> Remark:
    """A remark about ``topic`` that says about ``valence``; what it really says comes with it.

    Args:
        draws: where the choices come from.
        topic: one of ``lexicon.TOPICS``.
        valence: aim, -3 to 3; the words available decide how near the remark comes.
        num_words: aim, at least 1; reached to within a word or two.
        avoid_rare: seldom take rare phrases (training videos).

    Example:
        >>> from tecafn.data.lexicon import TOPICS
        >>> remark = compose(Draws(np.random.default_rng(3)), TOPICS[0], valence=2.0, num_words=8,
        ...                  avoid_rare=False)
        >>> remark.valence > 1.0
        True
    """
    if num_words <= 4:
        short = _exclamation(draws, topic, valence, avoid_rare=avoid_rare, num_words=num_words)
        return Remark(f"{_capital(short.text)}.", short.valence)
    sentences: list[str] = []
    judged: list[float] = []
    remaining = num_words
    while remaining >= 5 or not judged:
        # Beyond some twenty words people begin a new sentence; some of them judge nothing.
        size = min(remaining, 8 + int(draws.uniform() * 12))
        if remaining - size < 5:
            size = min(remaining, 22)
        if (judged and remaining <= 9) or (len(judged) >= 1 and draws.chance(0.35)):
            fitting = [
                sentence
                for sentence, words in zip(topic.neutral, topic.neutral_sizes, strict=True)
                if words <= remaining and f"{_capital(sentence)}." not in sentences
            ]
            if fitting:
                neutral = draws.pick(fitting)
                sentences.append(f"{_capital(neutral)}.")
                remaining -= neutral.count(" ") + 1
                continue
        clause = _sentence(draws, topic, valence, avoid_rare=avoid_rare, num_words=size)
        room = size - clause.num_words
        if room >= 1 and draws.chance(0.6):
            clause = _opened(draws, clause, room)
        room = size - clause.num_words
        if room >= 1 and not clause.is_verdict:
            trailer = _of_length(draws, TRAILERS, room)
            if trailer is not None:
                clause = _clause(f"{clause.text} {trailer}", clause.valence)
        sentence = f"{_capital(clause.text)}."
        if sentence in sentences:
            break
        sentences.append(sentence)
        judged.append(clause.valence)
        remaining -= clause.num_words
    # Where the judgement stands among neutral sentences says nothing about it.
    if len(judged) == 1 and len(sentences) == 2 and draws.chance(0.5):
        sentences.reverse()
    valence_said = sum(judged) / len(judged)
    return Remark(" ".join(sentences), max(-3.0, min(3.0, valence_said)))


_EXCHANGE = {
    **dict(SYNONYMS),
    **{other: one for one, other in SYNONYMS},
}
_EXCHANGEABLE = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, _EXCHANGE), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)


def reword(draws: Draws, text: str) -> str:
    """The same remark in other words that say the same.

    Example:
        >>> reword(Draws(np.random.default_rng(0)), "The film was awful.")
        'The movie was awful.'
    """
    matches = list(_EXCHANGEABLE.finditer(text))
    if matches:
        match = draws.pick(matches)
        found = match.group(0)
        key = found if found in _EXCHANGE else found[0].lower() + found[1:]
        if key in _EXCHANGE:
            other = _EXCHANGE[key]
            other = _capital(other) if found[0].isupper() else other
            return text[: match.start()] + other + text[match.end() :]
    for spoken in ("Well, ", "So, ", "You know, "):
        if text.startswith(spoken):
            return _capital(text.removeprefix(spoken))
    opener = draws.pick(("Well", "So", "Okay"))
    is_pronoun = text.split(maxsplit=1)[0] == "I"
    return f"{opener}, {text if is_pronoun else text[0].lower() + text[1:]}"


def words_of(text: str) -> tuple[str, ...]:
    """Words without punctuation, as a forced aligner gives them.

    Example:
        >>> words_of("Well, it was so-so.")
        ('Well', 'it', 'was', 'so-so')
    """
    return tuple(word.strip(".,") for word in text.split())
