"""From a fused vector to an answer on the label's scale."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, nn

from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.layers.dropout import Dropout

OutputKind = Literal["tanh", "linear"]
Scale = Literal["linear", "centred", "tanh", "sigmoid"]


def unrounded(values: Tensor) -> AbstractContextManager[None]:
    """Where an answer is computed, on the device of ``values``: without autocasting.

    It would round the answer: bfloat16 steps by 1/64 near 3, which ties samples.
    """
    return torch.autocast(values.device.type, enabled=False)


class LabelScale:
    """What a last layer gives, as the answer: a score on the label's scale, or logits.

    Args:
        info: task and label range.
        scale: ``linear``, as it is; ``centred``, from the middle of the label range; ``tanh`` or
            ``sigmoid`` bound a score to the label range, ``3 * tanh(.)`` and TFN's
            ``sigmoid * 6 - 3`` for labels in [-3, 3]. Logits are always linear.

    Example:
        >>> scale = LabelScale(DataInfo(widths={}, label_range=(0.0, 1.0)), "tanh")
        >>> scale(torch.tensor([[-100.0], [0.0], [100.0]]))
        tensor([0.0000, 0.5000, 1.0000])
    """

    def __init__(self, info: DataInfo, scale: Scale) -> None:
        self.is_regression = info.task == "regression"
        self.scale: Scale = scale if self.is_regression else "linear"
        self.lowest, self.half_width = info.label_range[0], info.half_width
        self.centre = sum(info.label_range) / 2

    def __call__(self, raw: Tensor) -> Tensor:
        """(B, 1) to (B,) scores, or (B, C) logits as they are."""
        if self.scale == "centred":
            raw = self.centre + raw
        elif self.scale == "tanh":
            raw = self.centre + self.half_width * torch.tanh(raw)
        elif self.scale == "sigmoid":
            raw = self.lowest + 2 * self.half_width * torch.sigmoid(raw)
        return raw.squeeze(-1) if self.is_regression else raw


class OutputLayer(nn.Module):
    """The last linear layer of a method.

    Args:
        in_dim: width of what is fused.
        info: task, label range and number of classes.
        output: see ``LabelScale``.
    """

    def __init__(self, in_dim: int, info: DataInfo, *, output: Scale) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, info.output_dim)
        self.scale = LabelScale(info, output)

    def forward(self, fused: Tensor) -> Tensor:
        """(B, in_dim) to (B,) scores or (B, C) logits."""
        with unrounded(fused):
            return self.scale(self.linear(fused.to(self.linear.weight.dtype)))


class PredictionHead(nn.Module):
    """MLP with tanh 128-256-128 and dropout, then a score or logits (TeCaFN, eq. 17).

    Eq. 17 taken literally caps the score at 1 while labels reach 3: here ``tanh`` is scaled to the
    label range; ``linear`` leaves it out.

    Args:
        in_dim: width of the fused vector.
        info: task, label range and number of classes.
        dropout: after each hidden layer.
        output: ``tanh`` or ``linear``, see ``LabelScale``.
    """

    def __init__(self, in_dim: int, info: DataInfo, *, dropout: float, output: OutputKind) -> None:
        super().__init__()
        widths = (in_dim, 128, 256, 128)
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Linear(narrow, wide), nn.Tanh(), Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], info.output_dim))
        self.scale = LabelScale(info, output)

    def forward(self, fused: Tensor) -> Tensor:
        """(B, in_dim) to (B,) scores or (B, C) logits."""
        return self.answer(self.hidden(fused))

    def hidden(self, fused: Tensor) -> Tensor:
        """(B, in_dim) to (B, 128), what the last layer takes."""
        with unrounded(fused):
            wide = fused if fused.dtype == torch.float64 else fused.float()
            for layer in [*self.layers][:-1]:
                wide = layer(wide)
        return wide

    def answer(self, hidden: Tensor) -> Tensor:
        """(B, 128) to (B,) scores or (B, C) logits."""
        with unrounded(hidden):
            return self.scale(self.layers[-1](hidden))


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
        self.answer = OutputLayer(hidden_dim, info, output="linear")

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
