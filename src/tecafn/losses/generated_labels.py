"""Labels of single modalities, made from the sample's label and where its features lie.

A dataset such as MOSI has one label per sample. Self-MM gives each modality a task of its own and
makes that task's labels while it trains; TETFN and MTMD take them over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import gather_rows, mean_over_rows
from tecafn.core.scheme import Network, Scheme
from tecafn.losses.task import task_loss

_FUSED = "fused"
_EPS = 1e-8


class GeneratedLabels(nn.Module):
    """A label for every training sample and modality, and the features it follows from.

    A task (fused, text, audio, vision) has a centre of the features of its positive samples and one
    of its negative samples. ``delta = (d_n - d_p) / (d_p + eps)``, with the distances to the two,
    says how positive a feature is. A modality's label departs from the sample's as its delta
    departs from the fused one's.

    All of it is buffers, so that it travels in the checkpoint, and every process holds the same.

    Args:
        dims: width of each modality's features.
        fused_dim: width of the fused features.
        info: the number of training samples, and the label range: labels are clamped to it, and its
            middle parts positive from negative.

    Example:
        >>> bank = GeneratedLabels(
        ...     {Modality.TEXT: 2}, fused_dim=2, info=DataInfo(widths={}, num_train=4))
        >>> label, is_generated = bank.labels_of(
        ...     Modality.TEXT, torch.tensor([1.5]), torch.tensor([3]))
        >>> label.item(), is_generated.item()  # before anything was generated
        (1.5, False)

    Source: Self-MM, Yu et al. 2021, the unimodal label generation module and its algorithm. Ours: a
    modality that a sample lacks has neither features nor a label; a label is left as it is while a
    centre has no sample yet; a fused delta of zero is taken as eps.
    """

    def __init__(self, dims: Mapping[Modality, int], *, fused_dim: int, info: DataInfo) -> None:
        super().__init__()
        self.modalities = tuple(dims)
        self.lowest, self.highest = info.label_range
        size = info.num_train
        for task, dim in ((_FUSED, fused_dim), *dims.items()):
            self.register_buffer(f"features_{task}", torch.zeros(size, dim))
            # Bytes, because not every backend broadcasts bool when training starts.
            self.register_buffer(f"seen_{task}", torch.zeros(size, dtype=torch.uint8))
            self.register_buffer(f"labels_{task}", torch.zeros(size))
        for modality in dims:
            self.register_buffer(f"generated_{modality}", torch.zeros(size, dtype=torch.uint8))

    def labels_of(self, modality: Modality, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The modality's labels (B,), and (B,) bool: was it generated, or is it the sample's?

        Args:
            modality: whose.
            labels: (B,) the samples' own.
            index: (B,) rows in the training split.
        """
        made = self.get_buffer(f"generated_{modality}")[index].bool()
        stored = self.get_buffer(f"labels_{modality}")[index].to(labels.dtype)
        return torch.where(made, stored, labels), made

    def centres(self, task: str) -> tuple[Tensor, Tensor] | None:
        """Mean features (D,) of the positive and of the negative samples; None if a side is empty.

        Args:
            task: ``fused`` or a modality.
        """
        labels, features = self.get_buffer(f"labels_{task}"), self.get_buffer(f"features_{task}")
        seen = self.get_buffer(f"seen_{task}").bool()
        middle = (self.lowest + self.highest) / 2
        positive, negative = seen & (labels > middle), seen & (labels < middle)
        if not bool(positive.any() & negative.any()):
            return None
        return features[positive].mean(0), features[negative].mean(0)

    def _delta(self, task: str, features: Tensor) -> Tensor | None:
        """(B,) how much nearer to the positive centre than to the negative one."""
        centres = self.centres(task)
        if centres is None:
            return None
        to_positive, to_negative = ((features - centre).norm(dim=1) for centre in centres)
        delta: Tensor = (to_negative - to_positive) / (to_positive + _EPS)
        return delta

    @torch.no_grad()
    def update(
        self,
        features: Mapping[str, Tensor],
        labels: Tensor,
        index: Tensor,
        *,
        present: Mapping[Modality, Tensor],
        epoch: int,
    ) -> None:
        """From epoch 1 on make the labels of these rows; then keep their features for the centres.

        Args:
            features: (B, D) of this process for ``fused`` and each modality.
            labels: (B,) the samples' own.
            index: (B,) rows in the training split.
            present: (B,) bool for each modality; the other rows are left as they are.
            epoch: from 0. In epoch n - 1 a new label counts 2 / (n + 1), the earlier one the rest.
        """
        rows, own = gather_rows(index), gather_rows(labels)
        gathered_features = {
            task: gather_rows(features[task].to(self.get_buffer(f"features_{task}").dtype))
            for task in (_FUSED, *self.modalities)
        }
        gathered_present = {m: gather_rows(present[m]) for m in self.modalities}
        middle, number = (self.lowest + self.highest) / 2, epoch + 1
        fused = self._delta(_FUSED, gathered_features[_FUSED])
        for modality in self.modalities:
            before, made = self.labels_of(modality, own, rows)
            delta = self._delta(modality, gathered_features[modality])
            if number > 1 and fused is not None and delta is not None:
                whole = torch.where(fused.abs() < _EPS, _EPS, fused)
                scaled = middle + delta / whole * (own - middle)
                new = (0.5 * scaled + 0.5 * (own + delta - fused)).clamp(self.lowest, self.highest)
                before = (number - 1) / (number + 1) * before + 2 / (number + 1) * new
                made = torch.ones_like(made)
            self._store(f"labels_{modality}", rows, before, gathered_present[modality])
            self._store(f"generated_{modality}", rows, made, gathered_present[modality])
        everywhere = torch.ones_like(rows, dtype=torch.bool)
        self._store(f"labels_{_FUSED}", rows, own, everywhere)
        for task, vectors in gathered_features.items():
            known = gathered_present[Modality(task)] if task in gathered_present else everywhere
            self._store(f"features_{task}", rows, vectors, known)
            self._store(f"seen_{task}", rows, known, known)

    def _store(self, name: str, rows: Tensor, values: Tensor, kept: Tensor) -> None:
        buffer = self.get_buffer(name)
        buffer[rows[kept]] = values[kept].to(buffer.dtype)


class UnimodalTasks(nn.Module):
    """A task for every modality beside the multimodal one, on generated or annotated labels.

    The network's features must have ``vector_<modality>``, what a task reads, and ``fused``.

    Args:
        heads: for each modality what maps (B, D) ``vector_<modality>`` to features and scores, such
            as ``layers.heads.TaskHead``.
        dims: width of each task's features.
        fused_dim: width of the fused features.
        info: task, label range, number of training samples.
        first_weight: of a row for which no label has been generated yet and whose target is the
            sample's own label.

    Source: Self-MM, Yu et al. 2021, the weighted L1 objective: an error counts
    ``tanh |y_s - y_m|``. By that, rows without a generated label count nothing, since the two
    labels are equal: a whole first epoch leaves these heads as they were initialised, and the first
    labels follow from their untrained features. Ours: they count ``first_weight``, and 0 gives the
    paper's. A label that the dataset annotates counts 1.
    """

    def __init__(
        self,
        heads: nn.ModuleDict,
        *,
        dims: Mapping[Modality, int],
        fused_dim: int,
        info: DataInfo,
        first_weight: float,
    ) -> None:
        super().__init__()
        self.first_weight = first_weight
        self.heads = heads
        self.bank = GeneratedLabels(dims, fused_dim=fused_dim, info=info)

    def answer(self, output: Output) -> Output:
        """The output with ``task_<modality>``, each task's features, and ``score_<modality>``."""
        more: dict[str, Tensor] = {}
        for name, head in self.heads.items():
            features, score = head(output.features[f"vector_{name}"])
            more |= {f"task_{name}": features, f"score_{name}": score}
        return dataclasses.replace(output, features={**output.features, **more})

    def terms(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The weighted absolute error of each modality's task, by the modality's name.

        Args:
            output: what ``answer`` gave.
            batch: with labels.
        """
        terms: dict[str, Tensor] = {}
        for name in self.heads:
            modality = Modality(name)
            target, weight = self._targets(modality, batch)
            error = (output.features[f"score_{name}"] - target).abs()
            terms[name] = mean_over_rows(weight * error, batch.has(modality))
        return terms

    def _targets(self, modality: Modality, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) labels of the modality's task and the weight of each."""
        assert batch.labels is not None, "the task's loss has refused such a batch"
        if modality in batch.unimodal_labels:
            annotated = batch.unimodal_labels[modality].to(batch.labels.dtype)
            return annotated, torch.ones_like(annotated)
        target, made = self.bank.labels_of(modality, batch.labels, batch.index)
        apart = torch.tanh((target - batch.labels).abs())
        return target, torch.where(made, apart, self.first_weight)

    def update(self, output: Output, batch: Batch, *, epoch: int) -> None:
        """Generate labels from this step's features; on every process.

        Args:
            output: what ``answer`` gave.
            batch: with labels.
            epoch: from 0.
        """
        assert batch.labels is not None, "the task's loss has refused such a batch"
        features = {"fused": output.features["fused"].detach()}
        features |= {name: output.features[f"task_{name}"].detach() for name in self.heads}
        present = {Modality(name): batch.has(Modality(name)) for name in self.heads}
        self.bank.update(features, batch.labels, batch.index, present=present, epoch=epoch)


class UnimodalTaskScheme(Scheme):
    """The multimodal task's absolute error and each modality's weighted one (Self-MM).

    Args:
        network: its features have ``vector_<modality>`` and ``fused``.
        tasks: the modalities'.
    """

    def __init__(self, network: Network, tasks: UnimodalTasks) -> None:
        super().__init__()
        self.network = network
        self.tasks = tasks

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """Terms ``task`` and one named after each modality in use, all of weight 1."""
        output = self.tasks.answer(self.network(batch))
        terms = {"task": task_loss(output.prediction, batch.labels)}
        terms |= self.tasks.terms(output, batch)
        return Losses(terms, dict.fromkeys(terms, 1.0), output)

    def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
        """Generate labels from what this step's features were."""
        self.tasks.update(losses.output, batch, epoch=progress.epoch)
