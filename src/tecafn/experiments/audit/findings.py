"""One question of an audit, its verdict, and how an answer ends in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from tecafn.core.errors import UserError
from tecafn.records.evaluation_log import BrokenLogError

PASSED, FAILED, UNKNOWN = "passed", "FAILED", "not shown"


@dataclass(frozen=True)
class Finding:
    """One question that an audit asked.

    Args:
        run: of which run; empty of a table as a whole.
        question: what was asked, such as ``the validation split chose the epoch``.
        verdict: ``passed``, ``FAILED``, or ``not shown`` where the records do not tell.
        words: what was found.
    """

    run: str
    question: str
    verdict: str
    words: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {
            "run": self.run,
            "question": self.question,
            "verdict": self.verdict,
            "words": self.words,
        }


class FailedError(Exception):
    """A question that is answered with no."""


class NotShownError(Exception):
    """A question that the records do not answer."""


def ask(
    name: str, questions: Mapping[str, Callable[..., str]], *about: object
) -> Iterator[Finding]:
    """What each question finds; ``about`` is what all of them are asked about."""
    for question, answer in questions.items():
        yield finding(name, question, partial(answer, *about))


def finding(name: str, question: str, answer: Callable[[], str]) -> Finding:
    """What one question finds: passed, unless its answer raises."""
    try:
        return Finding(name, question, PASSED, answer())
    except NotShownError as reason:
        return Finding(name, question, UNKNOWN, str(reason))
    except (FailedError, BrokenLogError) as reason:
        return Finding(name, question, FAILED, str(reason))
    except UserError as reason:
        return Finding(name, question, FAILED, f"cannot be read: {reason}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Finding(name, question, FAILED, f"the record is damaged: {error!r}")
