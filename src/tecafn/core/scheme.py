"""How a method is trained: the scheme owns the network and says what is optimised when."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.output import Losses, Output, Progress


@dataclass(frozen=True)
class Phase:
    """One objective with its own parameters and therefore its own optimizer.

    Args:
        name: names the phase's optimizer in checkpoints and its terms in the log.
        loss: maps (batch, progress) to the losses of one step.
        parameters: parameter groups by name; the training config gives each name its learning
            rate (``main`` and ``text_encoder`` are the usual ones).
        fraction: leading share of every epoch's batches this phase runs over, in (0, 1].
    """

    name: str
    loss: Callable[[Batch, Progress], Losses]
    parameters: Mapping[str, Sequence[nn.Parameter]]
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(f"fraction must be in (0, 1], got {self.fraction}")


class Network(nn.Module):
    """The inference path: one answer for a sample, whatever its neighbours and padding."""

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Predict every row of ``batch`` from its own sequences alone."""


class Scheme(nn.Module):
    """The training of a method.

    Everything that training needs and inference does not lives here: loss heads, teachers, and
    per-sample banks (as buffers).

    A subclass sets ``network`` and implements ``loss``; ``phases`` and ``after_step`` have the
    usual defaults (one phase over all trainable parameters; nothing).
    """

    network: Network

    @abstractmethod
    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """The named terms of one training step."""

    def phases(self) -> Sequence[Phase]:
        """What is optimised, in order, every epoch."""
        return (Phase("main", self.loss, parameter_groups(self)),)

    def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
        """Update banks and teachers; runs on every rank after each optimizer step."""

    def forward(self, batch: Batch) -> Output:
        """The network's answer."""
        output: Output = self.network(batch)
        return output

    def predict(self, batch: Batch) -> Tensor:
        """(B,) scores or (B, C) logits."""
        return self.forward(batch).prediction


def parameter_groups(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters, the pretrained text encoder's apart from the rest.

    Returns:
        ``{"main": [...], "text_encoder": [...]}`` without empty groups. A parameter belongs to
        ``text_encoder`` when some module on its path carries that attribute name, unless it is of
        the encoder's ``added_layers``, which are not pretrained.
    """
    groups: dict[str, list[nn.Parameter]] = {"main": [], "text_encoder": []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            path = name.split(".")
            is_pretrained = "text_encoder" in path and "added_layers" not in path
            group = "text_encoder" if is_pretrained else "main"
            groups[group].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}
