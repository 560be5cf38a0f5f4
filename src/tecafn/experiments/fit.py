"""Train on one part of the data, choose on another: what a run and each fold do alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tecafn.core.batch import BatchSource
from tecafn.core.scheme import Scheme
from tecafn.evaluation.evaluator import Predictions, predict_source, validation_metrics
from tecafn.experiments.setup import Prepared
from tecafn.training.events import EventLog
from tecafn.training.trainer import AfterEpoch, FitResult, Trainer


@dataclass(frozen=True)
class Fitted:
    """A trained scheme.

    Args:
        prepared: what was trained; its scheme now has the weights of the chosen epoch.
        result: epochs, the chosen one, and what chose it.
    """

    prepared: Prepared
    result: FitResult

    @property
    def scheme(self) -> Scheme:
        """With the weights of the chosen epoch."""
        return self.prepared.scheme

    def predict(self, source: BatchSource) -> Predictions:
        """Predict in the precision of training."""
        return _predict(self.prepared, source)


def fit(
    prepared: Prepared,
    train: BatchSource,
    valid: BatchSource,
    folder: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    tensorboard: bool = True,
    after_epoch: AfterEpoch | None = None,
) -> Fitted:
    """Train ``prepared``'s scheme and give it the weights of the epoch that ``valid`` chose.

    Args:
        prepared: an untrained scheme with its batches.
        train: batches that it learns from.
        valid: batches that choose the epoch.
        folder: for checkpoints and events.
        resume: continue from what ``folder`` holds.
        progress: show a progress bar.
        tensorboard: also write scalars for TensorBoard.
        after_epoch: as ``Trainer.fit`` takes it.

    Raises:
        UserError: the trainer's settings do not fit the method, or ``folder`` cannot be written.
    """
    config = prepared.config

    def validate(scheme: Scheme, source: BatchSource) -> Mapping[str, float]:
        assert scheme is prepared.scheme
        return validation_metrics(_predict(prepared, source), convention=prepared.convention)

    with EventLog(folder, tensorboard=tensorboard) as events:
        trainer = Trainer(
            config.training,
            fabric=prepared.fabric,
            run_dir=folder,
            seed=config.seed,
            events=events,
            progress=progress,
        )
        result = trainer.fit(
            prepared.scheme,
            train,
            valid,
            validate=validate,
            resume=resume,
            after_epoch=after_epoch,
        )
    return Fitted(prepared, result)


def _predict(prepared: Prepared, source: BatchSource) -> Predictions:
    return predict_source(
        prepared.scheme.predict, source, device=prepared.fabric.device, task=prepared.info.task
    )
