"""Predict with an exported model: onnxruntime, tokenizers and numpy, without torch.

Example:
    >>> import tecafn.onnx
    >>> model = tecafn.onnx.load("exported")                       # doctest: +SKIP
    >>> model.predict(text="The plot was thin, but I loved it.")   # doctest: +SKIP
    array([1.2])
"""

from tecafn.serving.onnx_predictor import OnnxPredictor, load, read_definition

__all__ = ["OnnxPredictor", "load", "read_definition"]
