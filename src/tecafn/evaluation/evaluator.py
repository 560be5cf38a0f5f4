"""From a batch source to one prediction per sample, the same on any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from tecafn.core.batch import Batch, BatchSource
from tecafn.core.conventions import convention_named
from tecafn.core.errors import UserError
from tecafn.core.info import Task
from tecafn.core.parallel import world_size
from tecafn.evaluation.metrics import (
    Floats,
    Integers,
    classification_metrics,
    sentiment_metrics,
)


@dataclass(frozen=True)
class Predictions:
    """One answer per sample, in the split's order.

    Args:
        ids: N public ids.
        index: (N,) int64 rows in the split, ascending.
        predictions: (N,) float64. Regression: the score. Two classes: the probability of class 1.
            More classes: the predicted class.
        labels: (N,) float64 labels, None when a sample is unlabelled.
        classes: (N,) int64, the first of the highest logits; None for a regression.
    """

    ids: tuple[str, ...]
    index: Integers
    predictions: Floats
    labels: Floats | None
    classes: Integers | None = None

    @property
    def num_samples(self) -> int:
        """Number of samples N."""
        return len(self.ids)


@contextmanager
def evaluating(module: nn.Module | None) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every submodule's mode is as it was.

    Submodules are restored one by one because parts of a training module, such as a frozen
    encoder, may stand in evaluation mode.

    Example:
        >>> layer = nn.Dropout(0.5)
        >>> with evaluating(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    modules = [] if module is None else list(module.modules())
    modes = [part.training for part in modules]
    if module is not None:
        module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for part, mode in zip(modules, modes, strict=True):
            part.training = mode


def _owner(predict: Callable[[Batch], Tensor]) -> nn.Module | None:
    """The module that ``predict`` is, or is a method of."""
    owner = predict if isinstance(predict, nn.Module) else getattr(predict, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def predict_source(
    predict: Callable[[Batch], Tensor],
    source: BatchSource,
    *,
    device: torch.device | str,
    task: Task,
) -> Predictions:
    """Predict every sample of ``source`` once.

    Args:
        predict: a module's method (``scheme.predict``) or a module, put into evaluation mode
            meanwhile; or a plain function, whose modules' modes are the caller's business. Gives
            (B,) scores or (B, C) logits.
        source: this rank's share of the batches; ranks may have different numbers of rows, also 0.
        device: where the batches go.
        task: ``regression`` or ``classification``.

    Returns:
        All samples of all ranks in ascending ``index``, the same on every rank.

    Raises:
        ValueError: ``predict`` gives another shape than the task asks for.

    Example:
        >>> class Source:
        ...     num_samples = 2
        ...     def num_batches(self, epoch): return 1
        ...     def batches(self, epoch):
        ...         yield Batch({}, {}, torch.tensor([1.0, 2.0]), torch.tensor([1, 0]), ("b", "a"))
        >>> result = predict_source(lambda batch: batch.index / 2, Source(),
        ...                         device="cpu", task="regression")
        >>> result.ids, result.predictions.tolist(), result.labels.tolist()
        (('a', 'b'), [0.0, 0.5], [2.0, 1.0])
    """
    ids: list[str] = []
    index: list[Tensor] = []
    answers: list[Tensor] = []
    labels: list[Tensor | None] = []
    with evaluating(_owner(predict)):
        for batch in source.batches(0):
            if not batch.size:
                continue
            answer = predict(batch.to(device))
            _check_shape(answer, batch.size, task)
            ids.extend(batch.ids)
            index.append(batch.index.cpu())
            answers.append(answer.detach().double().cpu())
            labels.append(None if batch.labels is None else batch.labels.double().cpu())
    # Converted once, here: a transfer for every batch would make the device wait.
    known = [label for label in labels if label is not None]
    share: dict[str, Any] = {
        "ids": ids,
        "index": torch.cat(index).numpy() if index else np.empty(0, dtype=np.int64),
        "answers": torch.cat(answers).numpy() if answers else None,
        "labels": torch.cat(known).numpy() if known else np.empty(0),
        "unlabelled": len(known) < len(labels),
    }
    return _assemble(_gather(share), num_samples=source.num_samples, task=task)


def _check_shape(answer: Tensor, size: int, task: Task) -> None:
    if task == "regression":
        expected, fits = f"({size},)", tuple(answer.shape) == (size,)
    else:
        fits = answer.ndim == 2 and answer.shape[0] == size and answer.shape[1] >= 2
        expected = f"({size}, C) with C >= 2"
    if not fits:
        raise ValueError(f"a {task} must predict {expected}, got {tuple(answer.shape)}")


def _gather(share: dict[str, Any]) -> list[dict[str, Any]]:
    """Every rank's share, in rank order."""
    if world_size() == 1:
        return [share]
    shares: list[dict[str, Any]] = [{}] * world_size()
    dist.all_gather_object(shares, share)
    return shares


def _assemble(shares: list[dict[str, Any]], *, num_samples: int, task: Task) -> Predictions:
    index = np.concatenate([share["index"] for share in shares]).astype(np.int64)
    assert len(np.unique(index)) == len(index) == num_samples, (
        f"the source gave {len(index)} rows, {len(np.unique(index))} different, "
        f"of {num_samples} samples"
    )
    order = np.argsort(index)
    ids = [name for share in shares for name in share["ids"]]
    answers = [share["answers"] for share in shares if share["answers"] is not None]
    values: NDArray[np.float64] = np.concatenate(answers)[order] if answers else np.empty(0)
    labels = None
    if not any(share["unlabelled"] for share in shares):
        labels = np.concatenate([share["labels"] for share in shares])[order]
    classes = None
    if task == "classification":
        values = values.reshape(len(index), -1)
        classes = values.argmax(axis=1).astype(np.int64) if len(index) else np.empty(0, np.int64)
        if values.shape[1] == 2:
            # exp of a non-positive number cannot overflow.
            gap = values[:, 1] - values[:, 0]
            small = np.exp(-np.abs(gap))
            values = np.where(gap >= 0, 1.0, small) / (1.0 + small)
        else:
            values = classes.astype(np.float64)
    return Predictions(tuple(ids[row] for row in order), index[order], values, labels, classes)


def validation_metrics(predictions: Predictions, *, convention: str) -> dict[str, float]:
    """What training watches: every defined metric of a labelled split, by name.

    Args:
        predictions: of the validation split.
        convention: of the data: which metrics there are.

    Raises:
        UserError: the split is empty, not wholly labelled, or a prediction is not finite.

    Example:
        >>> predictions = Predictions(("a", "b"), np.arange(2), np.array([1.0, -1.0]),
        ...                           np.array([2.0, -1.0]))
        >>> validation_metrics(predictions, convention="mosi")["mae"]
        0.5
    """
    if not predictions.num_samples:
        raise UserError("validation needs at least one sample, the split has none")
    if predictions.labels is None:
        raise UserError("validation needs a label for every sample, the split has unlabelled ones")
    if not np.isfinite(predictions.predictions).all():
        bad = int(np.flatnonzero(~np.isfinite(predictions.predictions))[0])
        raise UserError(
            f"the prediction of sample {predictions.ids[bad]} must be finite, "
            f"got {predictions.predictions[bad]}"
        )
    if convention_named(convention).is_of_classes:
        assert predictions.classes is not None, "a classification has classes"
        return classification_metrics(predictions.classes, predictions.labels, convention).defined()
    return sentiment_metrics(predictions.predictions, predictions.labels, convention).defined()
