"""CRNet: co-space representation interaction, enhanced by a gradient; from the abstract.

Shi et al., "Co-space representation interaction network for multimodal sentiment analysis",
Knowledge-Based Systems 2024.

Audio and vision are coordinated with language, each in a subspace of its own, and their
representations are enhanced by a gradient. Several combinations of representations have the task's
loss.

Only the abstract was available to us; it does not say what the gradient is of. Here, while
training, audio and vision are moved against the gradient of the shift that is left between the
modalities, and what was moved must answer too; single modalities have the task's loss as well.
Ours, therefore: that reading; the vectors (the text's [CLS], last LSTM states of audio and vision,
all projected to one width); a subspace is a linear layer and tanh for either side; the shift is
half the squared distance of a sample's two projections, and the coordination loss its mean; one
step of ``step_size`` times the gradient, of audio's and vision's vectors alone, through which
training differentiates; the answer from the four projections through a two-layer head, with and
without the step, each with the task's loss; linear heads for single modalities, on the moved
vectors; every width and weight; a learned vector for an absent modality. None of its printed
numbers is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import mean_over_rows
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames
from tecafn.layers.utterance import UtteranceEncoders
from tecafn.losses.task import task_loss, task_rows

OTHERS = (Modality.AUDIO, Modality.VISION)


@dataclass(frozen=True, kw_only=True)
class CRNetConfig:
    """Settings; all of them ours.

    Args:
        dim: width of the vectors and of the subspaces.
        lstm_dim: of audio's and vision's LSTM.
        step_size: of the move against the shift's gradient, >= 0.
        enhanced_weight: of the task's loss on the moved vectors.
        unimodal_weight: of each single modality's loss.
        coordination_weight: of the shift.
        fusion_dropout: of the joined projections.
    """

    dim: int = 128
    lstm_dim: int = 64
    step_size: float = 0.1
    enhanced_weight: float = 1.0
    unimodal_weight: float = 0.1
    coordination_weight: float = 0.01
    fusion_dropout: float = 0.1


class Subspace(nn.Module):
    """Where language and one other modality are compared.

    Args:
        dim: width of the vectors and of the subspace.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.text = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
        self.other = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())

    def shift(self, text: Tensor, other: Tensor) -> Tensor:
        """(B,) half the squared distance of the two projections of vectors (B, dim)."""
        apart: Tensor = self.other(other) - self.text(text)
        return 0.5 * apart.square().sum(1)

    def enhance(self, text: Tensor, other: Tensor, *, step_size: float) -> Tensor:
        """The other vector (B, dim) after a step against the gradient of the shift.

        The step stays in the graph: what is computed from it trains the projections through their
        own gradient.
        """
        shift = self.shift(text, other).sum()
        (gradient,) = torch.autograd.grad(shift, other, create_graph=True)
        return other - step_size * gradient


class CRNet(Network):
    """Vectors, two subspaces with language, the answer from the four projections."""

    def __init__(self, config: CRNetConfig, info: DataInfo) -> None:
        super().__init__()
        dim = config.dim
        self.frames = ModalityFrames(info)
        self.encoders = UtteranceEncoders(
            self.frames.dims,
            lstm_dims=dict.fromkeys(OTHERS, config.lstm_dim),
            dims=dict.fromkeys(Modality, dim),
        )
        self.slots = AbsentVectors(dict.fromkeys(Modality, dim))
        self.audio, self.vision = Subspace(dim), Subspace(dim)
        self.hidden = nn.Sequential(
            Dropout(config.fusion_dropout), nn.Linear(4 * dim, dim), nn.ReLU()
        )
        self.answer = OutputLayer(dim, info, output="linear")

    def subspace(self, other: Modality) -> Subspace:
        """That of audio or of vision."""
        return self.audio if other == Modality.AUDIO else self.vision

    def vectors(self, batch: Batch) -> dict[Modality, Tensor]:
        """(B, dim) of all three."""
        filled: dict[Modality, Tensor] = self.slots(self.encoders(self.frames(batch)), batch)
        return filled

    def answer_vectors(self, vectors: Mapping[Modality, Tensor]) -> Output:
        """Scores or logits; features ``vector_<modality>`` and ``fused``."""
        projected = []
        for other in OTHERS:
            subspace = self.subspace(other)
            projected += [subspace.text(vectors[Modality.TEXT]), subspace.other(vectors[other])]
        fused = self.hidden(torch.cat(projected, dim=1))
        features = {f"vector_{m}": vector for m, vector in vectors.items()}
        return Output(self.answer(fused), features | {"fused": fused})

    def forward(self, batch: Batch) -> Output:
        """Scores or logits, of vectors that are not moved."""
        return self.answer_vectors(self.vectors(batch))


class CRNetScheme(Scheme):
    """The task's loss as it is, on moved vectors and of single modalities, and the shift."""

    def __init__(self, config: CRNetConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network: CRNet = CRNet(config, info)
        self.heads = nn.ModuleDict(
            {m: OutputLayer(config.dim, info, output="linear") for m in self.network.frames.dims}
        )

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """Terms ``task``, ``enhanced``, ``coordination``, and one per modality, by its name."""
        network, config = self.network, self.config
        vectors = network.vectors(batch)
        output = network.answer_vectors(vectors)
        terms = {"task": task_loss(output.prediction, batch.labels)}
        assert batch.labels is not None, "the task's loss has refused such a batch"
        weights = {
            "task": 1.0,
            "enhanced": config.enhanced_weight,
            "coordination": config.coordination_weight,
        }
        has = network.frames.presence(batch)
        moved, shifts = dict(vectors), []
        for other in OTHERS:
            subspace, text = network.subspace(other), vectors[Modality.TEXT]
            both = has[Modality.TEXT] & has[other]
            shifts.append(mean_over_rows(subspace.shift(text, vectors[other]), both))
            enhanced = subspace.enhance(text, vectors[other], step_size=config.step_size)
            moved[other] = torch.where(both.unsqueeze(1), enhanced, vectors[other])
        terms["enhanced"] = task_loss(network.answer_vectors(moved).prediction, batch.labels)
        terms["coordination"] = torch.stack(shifts).mean()
        for name, head in self.heads.items():
            rows = task_rows(head(moved[Modality(name)]), batch.labels)
            terms[name] = mean_over_rows(rows, has[Modality(name)])
            weights[name] = config.unimodal_weight
        return Losses(terms, weights, output)


METHODS.register(
    "crnet",
    Method(
        config=CRNetConfig,
        build=CRNetScheme,
        paper="Shi et al., Co-space Representation Interaction Network for multimodal "
        "sentiment analysis, Knowledge-Based Systems 2024",
        basis="abstract",
        summary="subspaces with language, enhanced by the shift's gradient",
    ),
)
