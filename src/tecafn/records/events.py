"""``events.jsonl``: what happened during training, one JSON object per line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

EVENTS_FILE = "events.jsonl"


class StartEvent(TypedDict):
    """Training begins.

    Args:
        event: ``start``.
        seed: of everything random.
        processes: how many train together.
        threads: of a process.
        phases: their names.
        num_parameters, num_trained_parameters: of the scheme.
    """

    event: str
    seed: int
    processes: int
    threads: int
    phases: list[str]
    num_parameters: int
    num_trained_parameters: int


class ResumeEvent(TypedDict):
    """Training continues.

    Args:
        event: ``resume``.
        step, epoch: from which.
    """

    event: str
    step: int
    epoch: int


class HealthReading(TypedDict):
    """Whether something beside the task's loss does anything; means over an epoch.

    Args:
        kind: ``contrast``, ``head``, ``hubs`` or ``influence``.
        value: what was measured.
        chance: what it would be if nothing had been learned.
        shares: of an influence, how far each modality moves what is fused.
        amiss: a sentence; empty if nothing is.
    """

    kind: str
    value: float | None
    chance: float | None
    shares: NotRequired[dict[str, float]]
    amiss: str


class StepEvent(TypedDict):
    """One optimizer step.

    Args:
        event: ``step``.
        step: the number of optimizer steps so far.
        epoch: from 0.
        phase: whose step it was.
        losses: each term by its name, unweighted; null where it was not finite.
        total: the weighted sum.
        learning_rates: by group of parameters.
        gradient_norm: before clipping.
    """

    event: str
    step: int
    epoch: int
    phase: NotRequired[str]
    losses: dict[str, float | None]
    total: float | None
    learning_rates: dict[str, float]
    gradient_norm: float | None


class EpochEvent(TypedDict):
    """The end of an epoch.

    Args:
        event: ``epoch``.
        epoch: from 0 in files; consoles and pages count from 1.
        step: the one at which it ended.
        valid: every validation metric.
        best: was it the best so far?
        seconds: it took.
        health: readings by name.
    """

    event: str
    epoch: int
    step: int
    valid: dict[str, float | None]
    best: NotRequired[bool]
    seconds: NotRequired[float]
    health: NotRequired[dict[str, HealthReading]]


class WarningEvent(TypedDict):
    """Something that a reader of the run should know.

    Args:
        event: ``warning``.
        message: a broken checkpoint that was passed over, or lines that were lost.
    """

    event: str
    message: str


class EndEvent(TypedDict):
    """Training is over.

    Args:
        event: ``end``.
        epochs: how many there were.
        best_epoch: the one whose weights were kept, from 0.
        stopped: ``patience`` or ``max_epochs``.
        monitor, monitor_value: the metric that chose, and its value.
        seconds: of training, over every process that continued it.
        threads: of a process.
        health: readings of the best epoch.
    """

    event: str
    epochs: int
    best_epoch: int
    stopped: str
    monitor: str
    monitor_value: float
    seconds: float
    threads: int
    health: NotRequired[dict[str, HealthReading]]


@dataclass(frozen=True)
class Events:
    """The lines of ``events.jsonl`` that count.

    Args:
        steps: in order; of a step that was repeated the later line.
        epochs: in order.
        num_unreadable: lines that are none; a killed run can leave half of one.
    """

    steps: tuple[StepEvent, ...] = ()
    epochs: tuple[EpochEvent, ...] = ()
    num_unreadable: int = 0


def event_line(event: Mapping[str, Any]) -> str:
    r"""An event as a line of the file; what is not finite becomes null, at any depth.

    Example:
        >>> event_line({"event": "step", "total": float("nan")})
        '{"event": "step", "total": null}\n'
    """
    return json.dumps(_finite_or_null(event), allow_nan=False) + "\n"


def _finite_or_null(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_null(item) for item in value]
    return value


def read_events(run_dir: Path) -> Events | None:
    """Read ``RUN/events.jsonl``; None where there is no such file.

    A resumed run may repeat a step; the later line is the one that counted.
    """
    path = run_dir / EVENTS_FILE
    if not path.is_file():
        return None
    steps: dict[tuple[str, int], StepEvent] = {}
    epochs: dict[int, EpochEvent] = {}
    num_unreadable = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                event = json.loads(line)
                if event["event"] == "step":
                    key = str(event.get("phase", "main")), int(event["step"])
                    steps[key] = cast(StepEvent, event)
                elif event["event"] == "epoch":
                    epochs[int(event["epoch"])] = cast(EpochEvent, event)
            except (ValueError, KeyError, TypeError):
                num_unreadable += 1
    return Events(
        steps=tuple(steps[key] for key in sorted(steps, key=lambda key: key[1])),
        epochs=tuple(epochs[key] for key in sorted(epochs)),
        num_unreadable=num_unreadable,
    )
