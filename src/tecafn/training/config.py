"""How a scheme is trained: every setting that is not the method's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from tecafn.core.conventions import METRIC_INFO
from tecafn.core.errors import nearest_known

Optimizer = Literal["adam", "adamw"]
ScheduleName = Literal["plateau", "linear", "cosine", "constant"]
Precision = Literal["32-true", "bf16-mixed", "64-true"]

# Validation metrics that may choose the epoch, and which way is better. Which of them a dataset
# has says its convention; ``experiments/setup.py`` refuses the others.
MONITORS: Mapping[str, Literal["min", "max"]] = {
    "loss": "min",
    **{name: "min" if info.lower_is_better else "max" for name, info in METRIC_INFO.items()},
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of one training run.

    Args:
        max_epochs: epochs at most, >= 1.
        batch_size: samples in a global batch (over all processes), >= 1.
        learning_rate: of every parameter group that ``learning_rates`` does not name, > 0.
        learning_rates: rate by group name, > 0.
        optimizer: ``adam`` (weight decay as an L2 term of the gradient) or ``adamw`` (decoupled).
        weight_decay: >= 0.
        decay_norm_and_bias: False exempts parameters with fewer than two dimensions from decay.
        gradient_clip: largest global gradient norm of a phase; 0 = no clipping.
        accumulate: batches whose gradients are averaged into one optimizer step, >= 1.
        schedule: ``plateau`` (halve after ``plateau_patience`` stale epochs), ``linear`` or
            ``cosine`` (decay to 0 over all steps), or ``constant``.
        plateau_patience: epochs without improvement after which the rate halves, >= 1.
        warmup_fraction: leading share of all steps over which the rate rises linearly, in [0, 1);
            it multiplies whatever the schedule gives.
        patience: stop after this many epochs without improvement, >= 1.
        monitor: the validation metric that chooses the epoch; a key of ``MONITORS`` that the
            dataset's convention has.
        precision: ``32-true``, ``bf16-mixed`` (bfloat16 autocast over float32 weights) or
            ``64-true``.
        checkpoint_every_steps: also write a checkpoint inside the epoch each time this many
            steps are done; 0 = at the end of every epoch only.
        keep_improving_epochs: keep the weights of every epoch that improved the monitor, not of the
            best alone; what ``experiments/peeking.py`` needs.
        num_workers: processes that load batches; 0 = the training process itself.
        num_threads: threads of a CPU's arithmetic, >= 1; None = what ``OMP_NUM_THREADS`` says, or
            else one for a network of small operations and all cores for a larger one. A run's
            record has the number; results agree to the last digit only with the same number.

    Raises:
        ValueError: a value out of its range; the message starts with the field's name.

    Example:
        >>> TrainingConfig().rate_of("text_encoder"), TrainingConfig().rate_of("main")
        (5e-05, 0.001)
        >>> TrainingConfig(accumulate=0)
        Traceback (most recent call last):
        ...
        ValueError: accumulate must be an integer >= 1, got 0
    """

    max_epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 1e-3
    learning_rates: Mapping[str, float] = field(default_factory=lambda: {"text_encoder": 5e-5})
    optimizer: Optimizer = "adam"
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = True
    gradient_clip: float = 1.0
    accumulate: int = 1
    schedule: ScheduleName = "plateau"
    plateau_patience: int = 4
    warmup_fraction: float = 0.0
    patience: int = 10
    monitor: str = "mae"
    precision: Precision = "32-true"
    checkpoint_every_steps: int = 0
    keep_improving_epochs: bool = False
    num_workers: int = 0
    num_threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_epochs", "batch_size", "accumulate", "plateau_patience", "patience"):
            self._require_integer(name, 1)
        for name in ("checkpoint_every_steps", "num_workers"):
            self._require_integer(name, 0)
        if self.num_threads is not None:
            self._require_integer("num_threads", 1)
        # "not x > 0" rather than "x <= 0" so that NaN is refused too.
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        for group, rate in self.learning_rates.items():
            if not rate > 0:
                raise ValueError(f"learning_rates.{group} must be > 0, got {rate}")
        for name in ("weight_decay", "gradient_clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction must be in [0, 1), got {self.warmup_fraction}")
        for name, choices in (
            ("optimizer", get_args(Optimizer)),
            ("schedule", get_args(ScheduleName)),
            ("precision", get_args(Precision)),
            ("monitor", tuple(MONITORS)),
        ):
            value = getattr(self, name)
            if value not in choices:
                hint = nearest_known(str(value), list(choices))
                raise ValueError(f"{name} {value!r} is unknown: {hint}")

    def _require_integer(self, name: str, lowest: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise ValueError(f"{name} must be an integer >= {lowest}, got {value!r}")

    def rate_of(self, group: str) -> float:
        """Full learning rate of a parameter group, before schedule and warm-up."""
        return self.learning_rates.get(group, self.learning_rate)

    def improves(self, value: float, best: float | None) -> bool:
        """Is ``value`` of the monitor strictly better? On a tie the earlier epoch stays best."""
        if best is None:
            return True
        return value < best if MONITORS[self.monitor] == "min" else value > best
