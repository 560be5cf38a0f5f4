"""Whatever predicts, opened by its name: with torch, or an exported graph without it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tecafn.core.errors import UserError
from tecafn.serving import onnx_predictor
from tecafn.serving.builtin import is_builtin
from tecafn.serving.exported import DEFINITION_FILE, ExportDefinition
from tecafn.serving.onnx_predictor import OnnxPredictor

if TYPE_CHECKING:
    from tecafn.serving.predictor import ModelDefinition, Predictor

    AnyPredictor: TypeAlias = Predictor | OnnxPredictor
    Definition: TypeAlias = ModelDefinition | ExportDefinition


def is_exported(model: str | Path) -> bool:
    """Is this a folder that ``tecafn export`` wrote?"""
    return not is_builtin(model) and (Path(model) / DEFINITION_FILE).is_file()


def read_definition(model: str | Path, folder: Path) -> Definition:
    """What a network in a folder is, without its weights.

    Args:
        model: its name, as it was given.
        folder: where its files are.

    Raises:
        UserError: the definition is missing or damaged, it is a graph in another form than ONNX, or
            torch is missing and needed.
    """
    if is_exported(model):
        onnx_predictor.graph_of(folder)
        return onnx_predictor.read_definition(folder)
    _refuse_without_torch(model)
    from tecafn.serving import predictor

    return predictor.read_definition(folder)


def open_predictor(model: str | Path) -> AnyPredictor:
    """Load a model: what ``tecafn export --format onnx`` wrote, or whatever ``tecafn.load`` takes.

    Raises:
        UserError: there is none, it is damaged, or torch is missing and needed.
    """
    if is_exported(model):
        return onnx_predictor.load(model)
    _refuse_without_torch(model)
    from tecafn.serving import predictor

    return predictor.load(model)


def _refuse_without_torch(model: str | Path) -> None:
    if find_spec("torch") is None:
        raise UserError(
            f"{model} needs torch, which is not installed: install it, or name a folder that "
            "`tecafn export --format onnx` wrote"
        )
