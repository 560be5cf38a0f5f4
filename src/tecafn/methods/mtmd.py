"""MTMD: momentum distillation between modalities, implemented from the abstract.

Lin and Hu, "Multi-task momentum distillation for multimodal sentiment analysis", IEEE Transactions
on Affective Computing 2023.

The text's and the multimodal network, which do best, teach those of audio and vision their scores
and their classes; audio and vision also learn from momentum copies of themselves, with an adaptive
factor. The labels of single modalities are generated as for Self-MM, see
``losses.generated_labels``.

Only the abstract was available to us. Ours, therefore: the network, which is Self-MM's (the text's
[CLS], last LSTM states, two layers on what is joined); classes are the scores rounded to whole
numbers, each task has a linear layer for them, trained with the cross-entropy of the sample's own
label; teachers get no gradient and count alike; what is copied is the encoder and the task's head
of audio and of vision; what the adaptive factor does, which moves a copy further, the smaller the
student's error is beside the copy's, where the abstract says that it serves the fusion; every width
and weight; a learned vector for an absent modality. None of its published numbers is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import mean_over_rows
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Scheme
from tecafn.core.settings import select
from tecafn.layers.heads import task_heads
from tecafn.layers.utterance import UtteranceNetwork, UtteranceSettings
from tecafn.losses.distillation import (
    MomentumCopy,
    adaptive_rate,
    class_distillation,
    score_distillation,
)
from tecafn.losses.generated_labels import UnimodalTasks
from tecafn.losses.task import task_loss

Copied = dict[Modality, tuple[Tensor, Tensor]]
"""Scores (B,) and logits of classes (B, C) that the momentum copies give."""


@dataclass(frozen=True, kw_only=True)
class MTMDConfig:
    """Settings; all of them ours.

    Args:
        audio_lstm_dim, vision_lstm_dim: widths of the LSTMs.
        audio_dim, vision_dim: widths of the vectors made of their last states.
        fused_dim: width of the fused features.
        task_dim: width of each task's features.
        first_weight: see ``losses.generated_labels.UnimodalTasks``.
        class_weight: of the cross-entropies.
        distillation_weight: of what audio and vision learn from text and the multimodal network.
        momentum_weight: of what they learn from their own copies.
        temperature: of the classes.
        momentum: of the copies where student and copy err alike; in [0.5, 1).
        fusion_dropout: of the joined vectors.
        task_dropout: of each task's vector.
    """

    audio_lstm_dim: int = 16
    vision_lstm_dim: int = 32
    audio_dim: int = 16
    vision_dim: int = 32
    fused_dim: int = 128
    task_dim: int = 32
    first_weight: float = 1.0
    class_weight: float = 0.1
    distillation_weight: float = 0.1
    momentum_weight: float = 0.1
    temperature: float = 2.0
    momentum: float = 0.99
    fusion_dropout: float = 0.1
    task_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 0.5 <= self.momentum < 1.0:
            raise ValueError(f"momentum must be in [0.5, 1), got {self.momentum}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")


class MTMDScheme(Scheme):
    """Tasks, classes, what the better teach the weaker, and what each learns from its copy."""

    network: UtteranceNetwork

    def __init__(self, config: MTMDConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network = UtteranceNetwork(select(config, UtteranceSettings), info)
        dims = self.network.joined.encoders.dims
        task_dims = dict.fromkeys(dims, config.task_dim)
        self.tasks = UnimodalTasks(
            task_heads(dims, task_dims, info, dropout=config.task_dropout),
            dims=task_dims,
            fused_dim=config.fused_dim,
            info=info,
            first_weight=config.first_weight,
        )
        self.lowest = info.label_range[0]
        self.num_classes = round(2 * info.half_width) + 1
        self.classify = nn.ModuleDict(
            {m: nn.Linear(config.task_dim, self.num_classes) for m in dims}
        )
        self.classify["fused"] = nn.Linear(config.fused_dim, self.num_classes)
        self.students = tuple(m for m in dims if m != Modality.TEXT)
        self.copies = nn.ModuleDict({m: MomentumCopy(self._followed(m)) for m in self.students})

    def _followed(self, modality: Modality) -> nn.ModuleList:
        """What a momentum copy follows: encoder, task head and class layer."""
        return nn.ModuleList(
            [
                self.network.joined.encoders.encoders[modality],
                self.tasks.heads[modality],
                self.classify[modality],
            ]
        )

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """Terms ``task``, ``class`` and one per modality in use, by its name.

        Where audio or vision is in use also ``distillation`` and ``momentum``.
        """
        frames = self.network.frames(batch)
        output = self.tasks.answer(self.network.joined(frames, batch))
        terms = {"task": task_loss(output.prediction, batch.labels)}
        terms |= self.tasks.terms(output, batch)
        weights = dict.fromkeys(terms, 1.0) | {"class": self.config.class_weight}
        logits = {"fused": self.classify["fused"](output.features["fused"])}
        logits |= {m: self.classify[m](output.features[f"task_{m}"]) for m in self.tasks.heads}
        terms["class"] = self._classes(logits, batch)
        copied: Copied = {}
        if self.students:
            copied = self._copied(frames)
            terms["distillation"] = self._cross_modal_distillation(output, logits, batch)
            terms["momentum"] = self._from_copies(output, copied, logits, batch)
            weights["distillation"] = self.config.distillation_weight
            weights["momentum"] = self.config.momentum_weight
        return Losses(terms, weights, output, carry=copied)

    def _classes(self, logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Mean cross-entropy of the tasks with the sample's label, rounded."""
        assert batch.labels is not None, "the task's loss has refused such a batch"
        whole = (batch.labels - self.lowest).round().long().clamp(0, self.num_classes - 1)
        entropies = []
        for name, answer in logits.items():
            rows = functional.cross_entropy(answer, whole, reduction="none")
            known = torch.ones_like(whole, dtype=torch.bool)
            entropies.append(
                mean_over_rows(rows, known if name == "fused" else batch.has(Modality(name)))
            )
        return torch.stack(entropies).mean()

    @torch.no_grad()
    def _copied(self, frames: Mapping[Modality, Padded]) -> Copied:
        """What the copies of audio and vision say, where the batch has frames."""
        copied: Copied = {}
        for modality in self.students:
            if modality in frames:
                follower = self.copies[modality]
                assert isinstance(follower, MomentumCopy)
                encoder, head, classify = follower.module
                features, score = head(encoder(frames[modality]))
                copied[modality] = (score, classify(features))
        return copied

    def _cross_modal_distillation(
        self, output: Output, logits: Mapping[str, Tensor], batch: Batch
    ) -> Tensor:
        """Audio and vision from text and from the multimodal network, scores and classes."""
        taught = []
        for student in self.students:
            there = batch.has(student)
            teachers = [("fused", output.prediction, there)]
            if Modality.TEXT in self.network.frames.dims:
                score = output.features[f"score_{Modality.TEXT}"]
                teachers.append((Modality.TEXT, score, there & batch.has(Modality.TEXT)))
            for name, score, defined in teachers:
                own = output.features[f"score_{student}"]
                taught.append(score_distillation(own, score, defined=defined))
                taught.append(
                    class_distillation(
                        logits[student],
                        logits[name],
                        defined=defined,
                        temperature=self.config.temperature,
                    )
                )
        return torch.stack(taught).mean()

    def _from_copies(
        self, output: Output, copied: Copied, logits: Mapping[str, Tensor], batch: Batch
    ) -> Tensor:
        """Audio and vision from their momentum copies, scores and classes."""
        taught = [output.prediction.sum() * 0]  # of a batch without either
        for student in self.students:
            if student not in copied:
                continue
            has_it = batch.has(student)
            own = output.features[f"score_{student}"]
            score, classes = copied[student]
            taught.append(score_distillation(own, score, defined=has_it))
            taught.append(
                class_distillation(
                    logits[student],
                    classes,
                    defined=has_it,
                    temperature=self.config.temperature,
                )
            )
        return torch.stack(taught).sum() / (2 * len(self.students))

    def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
        """Generate labels, then move the copies of what the batch had."""
        output = losses.output
        assert batch.labels is not None, "the task's loss has refused such a batch"
        self.tasks.update(output, batch, epoch=progress.epoch)
        copied: Copied = losses.carry
        for modality, (score, _) in copied.items():
            rate = adaptive_rate(
                output.features[f"score_{modality}"],
                score,
                batch.labels,
                defined=batch.has(modality),
                momentum=self.config.momentum,
            )
            follower = self.copies[modality]
            assert isinstance(follower, MomentumCopy)
            follower.move(self._followed(modality), rate=rate)


METHODS.register(
    "mtmd",
    Method(
        config=MTMDConfig,
        build=MTMDScheme,
        paper="Lin and Hu, Multi-Task Momentum Distillation for Multimodal Sentiment "
        "Analysis, IEEE Transactions on Affective Computing 2023",
        basis="abstract",
        tasks=("regression",),
        summary="text and fusion teach audio and vision, with momentum copies",
    ),
)
