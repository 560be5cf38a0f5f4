"""One network teaches another: scores, classes, and copies that follow by momentum."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.parallel import gather_rows, mean_over_rows

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def score_distillation(student: Tensor, teacher: Tensor, *, defined: Tensor) -> Tensor:
    """Mean absolute difference of the scores; the teacher gets no gradient.

    Args:
        student: (B,) scores.
        teacher: (B,) scores to come near to.
        defined: (B,) bool, rows that count.

    Example:
        >>> both = torch.ones(2, dtype=torch.bool)
        >>> score_distillation(
        ...     torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]), defined=both).item()
        1.5
    """
    return mean_over_rows((student - teacher.detach()).abs(), defined)


def class_distillation(
    student: Tensor, teacher: Tensor, *, defined: Tensor, temperature: float
) -> Tensor:
    """Mean divergence KL(teacher || student) of softened classes, times the temperature squared.

    Args:
        student: (B, C) logits.
        teacher: (B, C) logits, which get no gradient.
        defined: (B,) bool, rows that count.
        temperature: T > 0, divides the logits.

    Raises:
        ValueError: ``temperature`` <= 0.

    Example:
        >>> logits, all_rows = torch.tensor([[1.0, 2.0]]), torch.tensor([True])
        >>> class_distillation(logits, logits, defined=all_rows, temperature=2.0).item()
        0.0

    Source: Hinton et al. 2015, "Distilling the knowledge in a neural network".
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher.detach() / temperature, dim=1)
    rows = (log_teacher.exp() * (log_teacher - log_student)).sum(1)
    return temperature**2 * mean_over_rows(rows, defined)


class MomentumCopy(nn.Module, Generic[ModuleT]):
    """A module's copy that is not trained, but moved towards it after each step.

    The copy is always in evaluation mode: a teacher has no dropout.

    Args:
        source: what is copied.

    Example:
        >>> source = nn.Linear(1, 1)
        >>> follower = MomentumCopy(source)
        >>> with torch.no_grad():
        ...     before = source.weight.item()
        ...     _ = source.weight.add_(1.0)
        >>> follower.move(source, rate=0.25)
        >>> round(follower.module.weight.item() - before, 4)
        0.25
    """

    module: ModuleT

    def __init__(self, source: ModuleT) -> None:
        super().__init__()
        self.module = copy.deepcopy(source).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> MomentumCopy[ModuleT]:
        """Stays in evaluation mode."""
        del mode
        super().train(False)
        return self

    @torch.no_grad()
    def move(self, source: nn.Module, *, rate: float) -> None:
        """Each parameter by ``rate`` of its distance to the source's, in [0, 1]."""
        for own, followed in zip(self.module.parameters(), source.parameters(), strict=True):
            own.lerp_(followed, rate)


@torch.no_grad()
def adaptive_rate(
    student: Tensor, teacher: Tensor, labels: Tensor, *, defined: Tensor, momentum: float
) -> float:
    """How far a momentum copy moves: further, the better the student is than the copy.

    ``2 (1 - momentum) e_t / (e_t + e_s)`` with the mean absolute errors of copy and student over
    the global batch: between 0 and twice what a constant momentum gives, and that where both err
    alike or no row counts.

    Args:
        student: (B,) scores.
        teacher: (B,) scores.
        labels: (B,) targets.
        defined: (B,) bool, rows that count.
        momentum: in [0.5, 1).

    Example:
        >>> one = torch.tensor([True])
        >>> rate = adaptive_rate(
        ...     torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([0.0]),
        ...     defined=one, momentum=0.9)
        >>> round(rate, 4)
        0.15
    """
    rows = gather_rows(defined)
    of_student = gather_rows((student - labels).abs())[rows].sum()
    of_teacher = gather_rows((teacher - labels).abs())[rows].sum()
    both = of_student + of_teacher
    share = torch.where(both > 0, of_teacher / both.clamp(min=1e-12), 0.5)
    return float(2 * (1 - momentum) * share)
