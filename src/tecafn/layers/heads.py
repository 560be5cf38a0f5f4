"""From a fused vector to an answer on the label's scale."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.layers.dropout import Dropout

OutputKind = Literal["tanh", "linear"]


class Answer(nn.Module):
    """The last linear layer of a method: a score on the label's scale, or logits.

    Args:
        in_dim: width of what is fused.
        info: task, label range and number of classes.
        output: ``linear``; ``tanh`` or ``sigmoid`` bound a score to the label range (TFN's
            ``sigmoid * 6 - 3`` for labels in [-3, 3]). Logits are always linear.
    """

    def __init__(
        self, in_dim: int, info: DataInfo, *, output: Literal["linear", "tanh", "sigmoid"]
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, info.output_dim)
        self.is_regression = info.task == "regression"
        self.output = output if self.is_regression else "linear"
        self.lowest, self.half_width = info.label_range[0], info.half_width

    def forward(self, fused: Tensor) -> Tensor:
        """(B, in_dim) to (B,) scores or (B, C) logits."""
        # Autocasting would round the answer: bfloat16 steps by 1/64 near 3, which ties samples.
        with torch.autocast(fused.device.type, enabled=False):
            answer: Tensor = self.linear(fused.to(self.linear.weight.dtype))
        if self.output == "tanh":
            answer = self.lowest + self.half_width * (1 + torch.tanh(answer))
        elif self.output == "sigmoid":
            answer = self.lowest + 2 * self.half_width * torch.sigmoid(answer)
        return answer.squeeze(-1) if self.is_regression else answer


class PredictionHead(nn.Module):
    """MLP with tanh 128-256-128 and dropout, then a score or logits (TeCaFN, eq. 17).

    Eq. 17 taken literally caps the score at 1 while labels reach 3: here ``tanh`` is scaled to the
    label range, ``3 * tanh(.)`` for labels in [-3, 3]; ``linear`` leaves it out. Logits of a
    classification are always linear.

    Args:
        in_dim: width of the fused vector.
        info: task, label range and number of classes.
        dropout: after each hidden layer.
        output: ``tanh`` or ``linear``.
    """

    def __init__(self, in_dim: int, info: DataInfo, *, dropout: float, output: OutputKind) -> None:
        super().__init__()
        widths = (in_dim, 128, 256, 128)
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Linear(narrow, wide), nn.Tanh(), Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], info.output_dim))
        self.is_regression = info.task == "regression"
        self.scaled = output == "tanh" and self.is_regression
        self.centre = sum(info.label_range) / 2
        self.half_width = info.half_width

    def forward(self, fused: Tensor) -> Tensor:
        """(B, in_dim) to (B,) scores or (B, C) logits."""
        return self.answer(self.hidden(fused))

    def hidden(self, fused: Tensor) -> Tensor:
        """(B, in_dim) to (B, 128), what the last layer takes."""
        # Autocasting would round the answer: bfloat16 steps by 1/64 near 3, which ties samples.
        with torch.autocast(fused.device.type, enabled=False):
            wide = fused if fused.dtype == torch.float64 else fused.float()
            for layer in [*self.layers][:-1]:
                wide = layer(wide)
        return wide

    def answer(self, hidden: Tensor) -> Tensor:
        """(B, 128) to (B,) scores or (B, C) logits."""
        with torch.autocast(hidden.device.type, enabled=False):
            answer: Tensor = self.layers[-1](hidden)
        if self.scaled:
            answer = self.centre + self.half_width * torch.tanh(answer)
        return answer.squeeze(-1) if self.is_regression else answer


class TaskHead(nn.Module):
    """One modality's task: its features and its score.

    Args:
        in_dim: width of the modality's vector.
        hidden_dim: width of the features.
        info: task and label range.
        dropout: of the vector.
    """

    def __init__(self, in_dim: int, hidden_dim: int, info: DataInfo, *, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(Dropout(dropout), nn.Linear(in_dim, hidden_dim), nn.ReLU())
        self.hidden = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.ReLU())
        self.answer = Answer(hidden_dim, info, output="linear")

    def forward(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_dim) to features (B, hidden_dim) and scores (B,)."""
        features: Tensor = self.features(vector)
        return features, self.answer(self.hidden(features))


def task_heads(
    in_dims: Mapping[Modality, int],
    hidden_dims: Mapping[Modality, int],
    info: DataInfo,
    *,
    dropout: float,
) -> nn.ModuleDict:
    """A ``TaskHead`` for each modality of ``in_dims``."""
    return nn.ModuleDict(
        {m: TaskHead(dim, hidden_dims[m], info, dropout=dropout) for m, dim in in_dims.items()}
    )
