"""A finished run's scheme, whose export has the network alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tecafn.core.errors import UserError
from tecafn.core.registry import METHODS
from tecafn.core.scheme import Scheme
from tecafn.core.weights import load_module
from tecafn.serving.predictor import EXPORT_FOLDER, TEXT_ENCODER_FOLDER, Predictor
from tecafn.training.checkpoint import Checkpoints


def trained_scheme(run: Path, exported: Predictor, *, weights: Path, precision: str) -> Scheme:
    """What was trained, as it was at the end of an epoch.

    Args:
        run: a run's directory.
        exported: its network, which says what it was built from.
        weights: a scheme that the run kept.
        precision: of the training.
    """
    definition = exported.definition
    spec = definition.info.text_encoder
    if exported.tokenizer is not None:
        spec = spec.saved_in(str(run / EXPORT_FOLDER / TEXT_ENCODER_FOLDER))
    info = dataclasses.replace(definition.info, text_encoder=spec)
    scheme = METHODS[definition.method].build(definition.config, info)
    if precision == "64-true":  # as it was trained, and so saved
        scheme = scheme.double()
    load_module(scheme, weights)
    return scheme


def best_weights(run: Path) -> Path:
    """The scheme of the epoch that validation chose.

    Raises:
        UserError: the run did not keep it.
    """
    checkpoints = Checkpoints(run / "checkpoints")
    steps = checkpoints.best_steps()
    if not steps:
        raise UserError(f"{run} has no scheme in checkpoints/best: it was removed")
    return checkpoints.weights_of(steps[-1])
