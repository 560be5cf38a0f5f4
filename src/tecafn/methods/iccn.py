"""ICCN: interaction canonical correlation network.

Sun et al., "Learning relationships between text, audio, and video via deep canonical correlation
for multimodal language analysis", AAAI 2020.

The outer products of the text vector with audio's and vision's are read by a CNN each. What the
two say, "text-based audio" and "text-based video", is drawn together by canonical correlation, and
the answer is regressed on both and the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.sequence import MaskedConv1d, SequenceLSTM
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames, pool
from tecafn.losses.canonical_correlation import canonical_correlation
from tecafn.losses.task import task_loss

OTHERS = (Modality.AUDIO, Modality.VISION)


@dataclass(frozen=True, kw_only=True)
class ICCNConfig:
    """Settings. The widths and the weight are ours.

    Args:
        frame_dim: width of the audio and vision vectors, at least 2.
        frame_kernel_size: of their temporal convolution, odd.
        num_channels: of the first convolution over an outer product; the second has twice as many.
        pair_dim: width of k_ta and k_tv. Canonical correlations need more rows than that in a
            batch: with fewer, anything correlates with anything.
        correlation_weight: of the negative sum of correlations, beside the task's loss.
        regularisation: r on the covariances' diagonals.
        frame_dropout: on the audio and vision vectors.
        head_dropout: on what the answer is regressed on.
    """

    frame_dim: int = 32
    frame_kernel_size: int = 3
    num_channels: int = 8
    pair_dim: int = 16
    correlation_weight: float = 0.05
    regularisation: float = 1e-4
    frame_dropout: float = 0.1
    head_dropout: float = 0.1


class FrameVector(nn.Module):
    """Audio or vision to one vector: temporal convolution, LSTM, last state."""

    def __init__(self, width: int, dim: int, *, kernel_size: int) -> None:
        super().__init__()
        self.convolution = MaskedConv1d(width, dim, kernel_size=kernel_size)
        self.lstm = SequenceLSTM(dim, dim)

    def forward(self, frames: Padded) -> Tensor:
        """(B, L, width) to (B, dim)."""
        values = torch.relu(self.convolution(frames.values, frames.mask))
        _, last = self.lstm(Padded(values, frames.mask))
        vector: Tensor = last
        return vector


class OuterConv2d(nn.Conv2d):
    """3 x 3 convolution of an outer product, padded with zeros, without forming the product.

    An outer product has rank 1, so what a 3 x 3 kernel makes of it has rank 3: one product of the
    first vector under a column of the kernel and the second vector shifted, for each column. That
    is what ``nn.Conv2d`` gives, in a fraction of its time.

    Args:
        num_channels: that come out.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__(1, num_channels, 3, padding=1)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:  # type: ignore[override]
        """(B, D) and (B, E) to (B, num_channels, D, E)."""
        (rows, dim), channels = first.shape, self.out_channels
        columns = self.weight.squeeze(1).transpose(1, 2).flatten(0, 1)  # (C, 3, 3) -> (C 3, 3)
        under = functional.conv1d(first.unsqueeze(1), columns.unsqueeze(1), padding=1)
        under = under.view(rows, channels, 3, dim).transpose(2, 3).flatten(1, 2)  # (B, C D, 3)
        width, padded = second.shape[1], functional.pad(second, (1, 1))
        shifted = torch.stack([padded[:, at : at + width] for at in range(3)], dim=1)  # (B, 3, E)
        convolved = (under @ shifted).view(rows, channels, dim, width)
        assert self.bias is not None
        return convolved + self.bias.view(-1, 1, 1)


class PairCNN(nn.Module):
    """The outer product of two vectors, read as an image of one channel.

    Args:
        first_dim, second_dim: widths of the vectors.
        num_channels: of the first convolution.
        out_dim: width of the answer.
    """

    def __init__(self, first_dim: int, second_dim: int, *, num_channels: int, out_dim: int) -> None:
        super().__init__()
        self.first = OuterConv2d(num_channels)
        self.second = nn.Conv2d(num_channels, 2 * num_channels, 3, padding=1)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        height, width = (((dim + 1) // 2 + 1) // 2 for dim in (first_dim, second_dim))
        self.project = nn.Linear(2 * num_channels * height * width, out_dim)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, D) and (B, E) to (B, out_dim)."""
        # The maximum of ReLUs is the ReLU of the maximum, of a quarter of the elements.
        image = torch.relu(self.pool(self.first(first, second)))
        image = torch.relu(self.pool(self.second(image)))
        answer: Tensor = self.project(image.flatten(1))
        return answer


class ICCN(Network):
    """Text [CLS]; audio and vision by CNN and LSTM; outer products; regression.

    Ours: an absent modality is a learned vector, in the outer products too.
    """

    def __init__(self, config: ICCNConfig, info: DataInfo) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        self.vectors = nn.ModuleDict(
            {
                m: FrameVector(
                    self.frames.dims[m], config.frame_dim, kernel_size=config.frame_kernel_size
                )
                for m in OTHERS
                if m in self.frames.dims
            }
        )
        text_dim = self.frames.dims.get(Modality.TEXT, config.frame_dim)
        self.slots = AbsentVectors(
            {Modality.TEXT: text_dim, **dict.fromkeys(OTHERS, config.frame_dim)}
        )
        self.frame_dropout = Dropout(config.frame_dropout)
        self.pairs = nn.ModuleDict(
            {
                m: PairCNN(
                    text_dim,
                    config.frame_dim,
                    num_channels=config.num_channels,
                    out_dim=config.pair_dim,
                )
                for m in OTHERS
            }
        )
        self.head_dropout = Dropout(config.head_dropout)
        self.answer = OutputLayer(text_dim + 2 * config.pair_dim, info, output="linear")

    def forward(self, batch: Batch) -> Output:
        """Scores or logits; features ``text``, ``text_audio`` and ``text_vision``."""
        vectors = {}
        for modality, frames in self.frames(batch).items():
            if modality == Modality.TEXT:
                vectors[modality] = pool(frames, "first")
            else:
                vectors[modality] = self.frame_dropout(self.vectors[modality](frames))
        filled = self.slots(vectors, batch)
        text = filled[Modality.TEXT]
        features = {"text": text}
        for modality in OTHERS:
            features[f"text_{modality}"] = self.pairs[modality](text, filled[modality])
        joined = torch.cat([features[name] for name in ("text_audio", "text", "text_vision")], 1)
        return Output(self.answer(self.head_dropout(joined)), features)


class ICCNScheme(Scheme):
    """Task, and the negative canonical correlation of k_ta and k_tv.

    Ours: the task's loss is the absolute error, and both are minimised together.
    """

    def __init__(self, config: ICCNConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network: ICCN = ICCN(config, info)

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """Terms ``task`` and ``correlation``, the latter over the rows that have everything."""
        output: Output = self.network(batch)
        present = torch.stack(list(self.network.frames.presence(batch).values())).all(0)
        correlation = canonical_correlation(
            output.features["text_audio"],
            output.features["text_vision"],
            present=present,
            regularisation=self.config.regularisation,
        )
        terms = {"task": task_loss(output.prediction, batch.labels), "correlation": -correlation}
        weights = {"task": 1.0, "correlation": self.config.correlation_weight}
        return Losses(terms, weights, output)


METHODS.register(
    "iccn",
    Method(
        config=ICCNConfig,
        build=ICCNScheme,
        paper="Sun et al., Learning Relationships between Text, Audio, and Video via Deep "
        "Canonical Correlation for Multimodal Language Analysis, AAAI 2020",
        summary="text's outer products with audio and vision, drawn together by correlation",
    ),
)
