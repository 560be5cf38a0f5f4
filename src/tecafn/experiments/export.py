"""A run as a graph that needs no torch, and what 8-bit weights cost it on a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tecafn.core.batch import Batch
from tecafn.core.errors import UserError
from tecafn.core.places import refuse_overwriting
from tecafn.data.store import Store
from tecafn.evaluation.evaluator import Predictions, predict_source, validation_metrics
from tecafn.experiments.evaluate import OpenRun, look_again, open_run
from tecafn.experiments.setup import open_device
from tecafn.serving.export import (
    Exported,
    Format,
    Run,
    arrays_of,
    definition_of,
    export,
    onnx_runner,
    quantise,
    torch_runner,
)
from tecafn.serving.exported import MODELS
from tecafn.serving.intervals import carry_calibration
from tecafn.serving.predictor import load


@dataclass(frozen=True, kw_only=True)
class OnData:
    """A graph's answers on a split beside the network's.

    Args:
        file: the graph's.
        num_samples: of the split.
        largest, mean: absolute difference of a prediction.
        changed: share of samples whose class is another, of a classification.
        metrics: by name: the network's value and the graph's; none where labels are missing.
        num_bytes: of the file.
    """

    file: str
    num_samples: int
    largest: float
    mean: float
    changed: float | None
    metrics: Mapping[str, tuple[float, float]]
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What ``tecafn export`` did.

    Args:
        exported: the files and how they were checked.
        on_data: a row for each graph, where data was given.
    """

    exported: Exported
    on_data: tuple[OnData, ...] = ()


def export_run(
    run: str | Path,
    *,
    out: str | Path,
    format: Format = "onnx",
    int8: bool = False,
    data: str | Path | None = None,
    split: str | None = None,
) -> ExportReport:
    """Write a trained network as a graph, with its tokenizer; ``tecafn.export``.

    Args:
        run: whatever ``tecafn.load`` loads.
        out: the folder to write, new or empty or one that an export wrote.
        format: ``onnx``, which ``tecafn.onnx`` runs without torch, or ``torch``, which
            ``torch.jit.load`` loads without this package.
        int8: write ``model.int8.onnx`` as well; needs ``data``.
        data: a store on which the graph's predictions are held against the network's.
        split: of the store; None = ``valid``. The test split only after ``tecafn evaluate``;
            the look is logged.

    Raises:
        UserError: the network cannot be a graph, or the graph does not answer as it does.
    """
    if int8 and format != "onnx":
        raise UserError(f"--int8 goes with --format onnx, got {format}")
    if int8 and data is None:
        raise UserError(
            "--int8 changes predictions: name a store with --data, on which the change is measured"
        )
    if split is not None and data is None:
        raise UserError(f"--split {split} goes with --data, on which predictions are compared")
    split = split or "valid"
    out = Path(out)
    refuse_overwriting(out)
    if data is not None:
        look_again(Path(run), Store.open(Path(data)), split, what="export")
    exported = export(load(run), out, format=format)
    calibration = carry_calibration(run, out) if format == "onnx" else None
    if calibration is not None:
        exported = replace(exported, files=(*exported.files, calibration.name))
    if int8:
        quantise(out)
        exported = replace(exported, files=(*exported.files, MODELS["int8"]))
    if data is None:
        return ExportReport(exported=exported)
    opened = open_run(Path(run), Path(data), split, open_device("cpu"))
    runner = onnx_runner if format == "onnx" else torch_runner
    names = [MODELS[format], *([MODELS["int8"]] if int8 else [])]
    expected = opened.predict()
    rows = tuple(_measure(opened, expected, out / name, runner(out / name)) for name in names)
    return ExportReport(exported=exported, on_data=rows)


def _measure(opened: OpenRun, expected: Predictions, file: Path, run: Run) -> OnData:
    definition = definition_of(opened.predictor)

    def predict(batch: Batch) -> Tensor:
        return torch.from_numpy(run(arrays_of(definition, batch)))

    task = opened.view.task
    got = predict_source(predict, opened.source, device="cpu", task=task)
    difference = np.abs(got.predictions - expected.predictions)
    changed = None
    if got.classes is not None and expected.classes is not None:
        changed = float((got.classes != expected.classes).mean())
    metrics = {}
    if expected.labels is not None:
        convention = opened.store.description.convention
        before, after = (validation_metrics(p, convention=convention) for p in (expected, got))
        metrics = {name: (value, after[name]) for name, value in before.items()}
    return OnData(
        file=file.name,
        num_samples=expected.num_samples,
        largest=float(difference.max()),
        mean=float(difference.mean()),
        changed=changed,
        metrics=metrics,
        num_bytes=file.stat().st_size,
    )
