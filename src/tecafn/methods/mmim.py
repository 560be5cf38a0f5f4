"""MMIM: hierarchical maximisation of mutual information.

Han et al., "Improving multimodal fusion with hierarchical mutual information maximization for
multimodal sentiment analysis", EMNLP 2021.

Three vectors are joined and fused by an MLP. Training keeps what the modalities share: a lower
bound on the information between text and audio, and text and vision (a Gaussian's log-density plus
an entropy), and between the fusion and each modality (contrastive predictive coding). Every epoch
first fits the Gaussians, phase ``likelihood``, then trains the network, phase ``main``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Phase, Scheme, parameter_groups
from tecafn.layers.dropout import Dropout
from tecafn.layers.heads import OutputLayer
from tecafn.layers.sequence import SequenceLSTM
from tecafn.layers.unimodal import AbsentVectors, ModalityFrames, pool
from tecafn.losses.contrastive import info_nce
from tecafn.losses.information import HalvesMemory, negative_log_density
from tecafn.losses.task import task_loss

OTHERS = (Modality.AUDIO, Modality.VISION)


@dataclass(frozen=True, kw_only=True)
class MMIMConfig:
    """Settings; widths and weights are the defaults of the authors' public code.

    Args:
        recurrent_dim: width of the audio and vision LSTMs and of their vectors.
        fusion_dim: width of the fusion MLP.
        cpc_weight: alpha, of the contrasts between fusion and modalities.
        bound_weight: beta, of log-density and entropy.
        memory_size: earlier samples that the entropy's covariances are made of, too; the public
            code keeps one batch.
        jitter: added to the covariances' diagonals; ours.
        frame_dropout: after the LSTMs; the public code has none after one layer.
        fusion_dropout: before the fusion MLP.
    """

    recurrent_dim: int = 16
    fusion_dim: int = 128
    cpc_weight: float = 0.1
    bound_weight: float = 0.1
    memory_size: int = 32
    jitter: float = 1e-4
    frame_dropout: float = 0.1
    fusion_dropout: float = 0.1


class MMIM(Network):
    """Text [CLS], audio and vision last LSTM states, fusion MLP, prediction.

    Ours: an absent modality is a learned vector.
    """

    def __init__(self, config: MMIMConfig, info: DataInfo) -> None:
        super().__init__()
        self.frames = ModalityFrames(info)
        self.recurrent, self.project = nn.ModuleDict(), nn.ModuleDict()
        self.frame_dropout = Dropout(config.frame_dropout)
        for modality in OTHERS:
            if modality in self.frames.dims:
                width = config.recurrent_dim
                self.recurrent[modality] = SequenceLSTM(self.frames.dims[modality], width)
                self.project[modality] = nn.Linear(width, width)
        text_dim = self.frames.dims.get(Modality.TEXT, config.recurrent_dim)
        self.dims = {Modality.TEXT: text_dim, **dict.fromkeys(OTHERS, config.recurrent_dim)}
        self.slots = AbsentVectors(self.dims)
        self.fusion = nn.Sequential(
            Dropout(config.fusion_dropout),
            nn.Linear(sum(self.dims.values()), config.fusion_dim),
            nn.Tanh(),
            nn.Linear(config.fusion_dim, config.fusion_dim),
            nn.Tanh(),
        )
        self.answer = OutputLayer(config.fusion_dim, info, output="linear")

    def forward(self, batch: Batch) -> Output:
        """Scores or logits; features ``text``, ``audio``, ``vision`` and ``fused``."""
        vectors = {}
        for modality, frames in self.frames(batch).items():
            if modality == Modality.TEXT:
                vectors[modality] = pool(frames, "first")
            else:
                _, last = self.recurrent[modality](frames)
                vectors[modality] = self.project[modality](self.frame_dropout(last))
        filled = self.slots(vectors, batch)
        fused = self.fusion(torch.cat([filled[m] for m in Modality], dim=1))
        features = {str(m): filled[m] for m in Modality} | {"fused": fused}
        return Output(self.answer(fused), features)


class Gaussian(nn.Module):
    """q(y | x): a Gaussian whose mean and log-variance are two-layer networks of x."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(in_dim, out_dim), nn.ReLU(), nn.Linear(out_dim, out_dim))
            for _ in range(2)
        )

    def forward(self, x: Tensor, y: Tensor, present: Tensor) -> Tensor:
        """Mean of -log q(y | x) over the rows that have both."""
        return negative_log_density(
            self.mean(x), self.log_variance(x), y, present=present, normalised=True
        )


class MMIMScheme(Scheme):
    """Two phases an epoch: fit the Gaussians, then train everything else.

    Scores above 0 are one half of the entropy, those below 0 the other, and 0 is in neither, as in
    the public code.

    Ours: of two classes each is a half. The entropy is of the modality's vector itself, which that
    code first projects to a quarter of its width; its covariance has N - 1 below, theirs N, and
    keeps its constants. The contrast asks, for each prediction, which of the batch's vectors is its
    own; that code asks, for each vector, which prediction is. The log-density is normalised: it has
    the log-variance and the constant that theirs leaves out. The memory lasts from one epoch to the
    next, where theirs is emptied. The first phase takes all of every dataset, theirs half of
    CMU-MOSEI.
    """

    def __init__(self, config: MMIMConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.num_classes = info.num_classes
        self.network: MMIM = MMIM(config, info)
        dims = self.network.dims
        self.gaussians = nn.ModuleDict({m: Gaussian(dims[Modality.TEXT], dims[m]) for m in OTHERS})
        self.memories = nn.ModuleDict(
            {m: HalvesMemory(config.memory_size, dim=dims[m]) for m in OTHERS}
        )
        self.predictors = nn.ModuleDict(
            {m: nn.Linear(config.fusion_dim, dims[m]) for m in Modality}
        )

    def phases(self) -> Sequence[Phase]:
        """``likelihood`` over the Gaussians' parameters, then ``main`` over the others."""
        gaussians = list(self.gaussians.parameters())
        theirs = {id(parameter) for parameter in gaussians}
        rest = {
            name: [parameter for parameter in group if id(parameter) not in theirs]
            for name, group in parameter_groups(self).items()
        }
        return (
            Phase("likelihood", self.likelihood, {"main": gaussians}),
            Phase("main", self.loss, rest),
        )

    def likelihood(self, batch: Batch, progress: Progress) -> Losses:
        """The negative log-density alone, of vectors that get no gradient."""
        with torch.no_grad():
            output: Output = self.network(batch)
        return Losses(
            {"log_density": self._negative_log_density(batch, output, train_gaussians=True)},
            {"log_density": 1.0},
            output,
        )

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """Terms ``task``, ``cpc``, ``log_density`` and ``entropy``, the last two negated."""
        output: Output = self.network(batch)
        features, present = output.features, self.network.frames.presence(batch)
        contrasts = {
            m: info_nce(
                self.predictors[m](features["fused"]),
                features[m],
                present=present[m],
                temperature=1.0,
            )
            for m in Modality
        }
        half = self._half(batch)
        entropies = [
            self._memory(m).entropy(features[m], half, present[m], jitter=self.config.jitter)
            for m in OTHERS
        ]
        terms = {
            "task": task_loss(output.prediction, batch.labels),
            "cpc": torch.stack([contrast.loss for contrast in contrasts.values()]).sum(),
            "log_density": self._negative_log_density(batch, output, train_gaussians=False),
            "entropy": -torch.stack(entropies).sum(),
        }
        weights = {
            "task": 1.0,
            "cpc": self.config.cpc_weight,
            "log_density": self.config.bound_weight,
            "entropy": self.config.bound_weight,
        }
        health = {f"cpc {m}": contrast.reading for m, contrast in contrasts.items()}
        return Losses(terms, weights, output, health=health)

    def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
        """Remember the vectors of a step of the main phase."""
        if "task" not in losses.terms:
            return
        half, present = self._half(batch), self.network.frames.presence(batch)
        for modality in OTHERS:
            self._memory(modality).push(losses.output.features[modality], half, present[modality])

    def _memory(self, modality: Modality) -> HalvesMemory:
        memory = self.memories[modality]
        assert isinstance(memory, HalvesMemory)
        return memory

    def _half(self, batch: Batch) -> Tensor:
        """(B,) int64: 1 for positive labels or the upper classes, 0 for the others, -1 for zero."""
        labels = batch.labels
        if labels is None:
            raise ValueError("a training batch needs a label in every row, got rows without one")
        if not labels.is_floating_point():
            return (2 * labels >= self.num_classes).long()
        return torch.where(labels == 0, -1, (labels > 0).long())

    def _negative_log_density(
        self, batch: Batch, output: Output, *, train_gaussians: bool
    ) -> Tensor:
        """The sum over text-audio and text-vision."""
        features, present = output.features, self.network.frames.presence(batch)
        terms = []
        for modality in OTHERS:
            gaussian = self.gaussians[modality]
            parameters = {
                name: parameter if train_gaussians else parameter.detach()
                for name, parameter in gaussian.named_parameters()
            }
            both = present[Modality.TEXT] & present[modality]
            arguments = (features[Modality.TEXT], features[modality], both)
            terms.append(functional_call(gaussian, parameters, arguments))
        return torch.stack(terms).sum()


METHODS.register(
    "mmim",
    Method(
        config=MMIMConfig,
        build=MMIMScheme,
        paper="Han et al., Improving Multimodal Fusion with Hierarchical Mutual Information "
        "Maximization for Multimodal Sentiment Analysis, EMNLP 2021",
        basis="code",
        certified="the authors' code, but three information terms depart, as the file says",
        summary="keeps mutual information between modalities and with their fusion",
    ),
)
