"""A trained network as a graph that runs without this package: ONNX, or torch's own format.

Both are made from a trace by torch's older, TorchScript-based exporter: the newer one finishes for
networks with LSTMs and then fails on other lengths than the example's. A trace writes down what an
example did, so what came out is compared with the network on batches of other sizes and lengths,
and refused where it differs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Batch, Padded
from tecafn.core.errors import UserError
from tecafn.core.fast import without
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.layers.adapter import merge
from tecafn.layers.own_forward import OwnForward
from tecafn.layers.text_encoder import TextEncoder
from tecafn.serving.exported import (
    DEFINITION_FILE,
    FRAME_OF_TOKEN,
    MODELS,
    OUTPUT,
    TOKENIZER_FILE,
    ExportDefinition,
    arrays_for,
    input_names,
)
from tecafn.serving.inputs import PaddedArrays
from tecafn.serving.packed import unpacked
from tecafn.serving.plain_tokenizer import PlainTokenizer
from tecafn.serving.predictor import Predictor

Format = Literal["onnx", "torch"]
Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]

OPSET = 17
_WEIGHT_BYTES = 1024
TOLERANCE = 1e-4
"""Largest difference of an answer that passes, per unit of the largest answer, at least 1."""

_LIBRARIES = ("tecafn", "torch", "transformers", "onnx", "onnxruntime", "tokenizers", "numpy")
# (samples, longest text, longest audio, longest vision); the first one is the traced example.
_SHAPES = ((3, 6, 5, 4), (1, 2, 1, 1), (1, 9, 12, 7), (2, 3, 2, 17), (5, 24, 31, 9), (4, 48, 3, 60))
_TEXTS = (
    "The plot was thin, but I loved it.",
    "no",
    "Well... it's 100% NOT what I'd call \u201cgreat\u201d \u2013 na\u00efve? \U0001f600",
    "a b c " * 200,
    "  white   space\tand\nlines  ",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export made and what it was held against.

    Args:
        folder: where it lies.
        files: their names, in order.
        num_batches: batches of other sizes and lengths on which it was compared.
        difference: the largest one of an answer.
    """

    folder: Path
    files: tuple[str, ...]
    num_batches: int
    difference: float


def export(predictor: Predictor, folder: Path, *, format: Format = "onnx") -> Exported:
    """Write a network as a graph, with its tokenizer and a description of both.

    Args:
        predictor: whose network; on the CPU.
        folder: to write, new or empty or one that an export wrote.
        format: ``onnx``, which ``tecafn.onnx`` runs, or ``torch``, which ``torch.jit.load`` loads.

    Raises:
        UserError: the network cannot be written as one graph, or what was written does not answer
            as the network does; the line says why, and nothing is left behind.
    """
    if format not in ("onnx", "torch"):
        raise UserError(f"format must be onnx or torch, got {format!r}")
    _refuse_neighbours(predictor)
    _refuse_by_length(predictor)
    definition = definition_of(predictor)
    file = MODELS[format]
    with _made_or_removed(folder):
        graph = _Graph(predictor, definition)
        example = _arrays(definition, predictor, _SHAPES[0], seed=0)
        (_write_onnx if format == "onnx" else _write_torch)(graph, example, folder / file)
        run = onnx_runner(folder / file) if format == "onnx" else torch_runner(folder / file)
        count, difference = _compare(run, predictor, definition)
        files = [file, DEFINITION_FILE]
        if predictor.tokenizer is not None:
            _write_tokenizer(predictor, folder)
            files.append(TOKENIZER_FILE)
        text = json.dumps(definition.as_dict(), indent=2)
        (folder / DEFINITION_FILE).write_text(text + "\n", encoding="utf-8")
    return Exported(folder=folder, files=tuple(files), num_batches=count, difference=difference)


def quantise(folder: Path) -> Path:
    """Write an exported ONNX network once more, its matrices in 8 bits; the new file.

    Weights are rounded per output channel, activations when it runs (dynamic quantisation). Of the
    8 bits 7 are used: on processors without VNNI sums of 8 by 8 bits saturate. With one scale per
    matrix the package's text model moved by up to 2.2 on CMU-MOSI, so by .36.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, made = folder / MODELS["onnx"], folder / MODELS["int8"]
    with _quietly():
        quantize_dynamic(
            source,
            made,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            reduce_range=True,
        )
    return made


def definition_of(predictor: Predictor) -> ExportDefinition:
    """What a program must know of this network once it is a graph."""
    definition, info = predictor.definition, predictor.definition.info
    installed = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return ExportDefinition(
        method=definition.method,
        dataset=definition.dataset,
        model_input=definition.model_input,
        reads_sentences=info.reads_sentences,
        max_text_tokens=definition.max_text_tokens,
        task=info.task,
        label_range=info.label_range,
        class_names=info.class_names,
        num_classes=info.num_classes,
        weights_hash=_hash_of(predictor.network),
        versions=installed,
        features=info.features,
    )


def arrays_of(definition: ExportDefinition, batch: Batch) -> dict[str, NDArray[Any]]:
    """A batch on the CPU as the graph's inputs."""
    arrays = {
        m: PaddedArrays(
            some.values.numpy(),
            some.mask.numpy(),
            None if some.context is None else some.context.numpy(),
        )
        for m, some in batch.sequences.items()
    }
    frame = batch.frame_of_token
    return arrays_for(definition, arrays, None if frame is None else frame.numpy())


def onnx_runner(file: Path, *, threads: int = 1) -> Run:
    """Runs an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda arrays: cast(NDArray[np.float32], session.run(None, dict(arrays))[0])


def torch_runner(file: Path) -> Run:
    """Runs a file of torch's format."""
    with _quietly():
        graph = torch.jit.load(str(file))

    def run(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            answer: Tensor = graph(
                *map(torch.from_numpy, map(np.ascontiguousarray, arrays.values()))
            )
        return cast(NDArray[np.float32], answer.numpy())

    return run


class _Graph(nn.Module):
    """The network as a function of arrays alone."""

    def __init__(self, predictor: Predictor, definition: ExportDefinition) -> None:
        super().__init__()
        network = unpacked(predictor.network)
        merge(network)
        self.network = network.eval().requires_grad_(False)
        self.names = input_names(definition)
        self.takes = definition.model_input.takes

    def forward(self, *arrays: Tensor) -> Tensor:
        """Tensors in the order of ``input_names`` to (B,) scores or (B, C) logits."""
        given = dict(zip(self.names, arrays, strict=True))
        sequences = {
            m: Padded(given[m], given[f"{m}_mask"], given.get(f"{m}_context")) for m in self.takes
        }
        index = torch.arange(given[f"{self.takes[0]}_mask"].shape[0])
        batch = Batch(
            sequences=sequences,
            present={m: some.mask.any(1) for m, some in sequences.items()},
            labels=None,
            index=index,
            ids=(),
            frame_of_token=given.get(FRAME_OF_TOKEN),
        )
        prediction: Tensor = self.network(batch).prediction
        return prediction


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    """Where a trace sees every operation, and hears nothing about that it is one."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    attention = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = partial(_attend_with_scaled_queries, attention)
    try:
        with _quietly(), torch.no_grad(), without("no_mask", "packed_weights"):
            yield
    finally:
        functional.scaled_dot_product_attention = attention
        torch.backends.mha.set_fastpath_enabled(fast)


def _attend_with_scaled_queries(
    attention: Callable[..., Tensor],
    query: Tensor,
    *others: Any,
    scale: float | None = None,
    **settings: Any,
) -> Tensor:
    """The same attention without a scale of its own, which torch 2.4 cannot write as ONNX."""
    factor = 1.0 if scale is None else scale * math.sqrt(int(query.shape[-1]))
    if not math.isclose(factor, 1.0):
        query = query * factor
    return attention(query, *others, **settings)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The exporter prints whole graphs where it fails, and warns that it is the older one."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _write_onnx(graph: _Graph, example: Mapping[str, NDArray[Any]], path: Path) -> None:
    axes: dict[str, dict[int, str]] = {OUTPUT: {0: "samples"}}
    for name in graph.names:
        what = "text" if name == FRAME_OF_TOKEN else name.partition("_")[0]
        axes[name] = {0: "samples", 1: f"{what}_length"}
    with _explained("ONNX"), _tracing():
        torch.onnx.export(
            graph,
            tuple(map(torch.from_numpy, example.values())),
            str(path),
            input_names=list(graph.names),
            output_names=[OUTPUT],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    _name_weights(path)


def _name_weights(path: Path) -> None:
    """Constants of the size of a weight become initializers, the only ones that are quantised.

    A trace writes tensors that are no parameters, such as a frozen encoder's, as nodes.
    """
    import onnx

    model = onnx.load(path)
    nodes = []
    for node in model.graph.node:
        values = [a.t for a in node.attribute if a.name == "value"]
        if node.op_type == "Constant" and values and len(values[0].raw_data) >= _WEIGHT_BYTES:
            values[0].name = node.output[0]
            model.graph.initializer.append(values[0])
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def _write_torch(graph: _Graph, example: Mapping[str, NDArray[Any]], path: Path) -> None:
    with _explained("torch's format"), _tracing():
        traced = torch.jit.trace(
            graph, tuple(map(torch.from_numpy, example.values())), check_trace=False
        )
        traced.save(str(path))


@contextlib.contextmanager
def _explained(format: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(f"export needs tecafn[export]: {error}") from None
    except Exception as error:  # whatever a network does that a graph cannot
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"this network cannot be written as {format}: {reason}") from None


def _compare(run: Run, predictor: Predictor, definition: ExportDefinition) -> tuple[int, float]:
    """Batches that were compared, and the largest difference.

    Raises:
        UserError: it is too large, or the graph does not run.
    """
    worst, count = 0.0, 0
    for batch, what in _batches(definition, predictor):
        with torch.inference_mode():
            expected = predictor.network_prediction(batch).numpy()
        try:
            got = run(arrays_of(definition, batch))
        except Exception as error:  # onnxruntime's and torch's errors have no common class
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"the export was refused: on {what} it fails: {reason}") from None
        difference = (
            float(np.abs(got - expected).max()) if got.shape == expected.shape else float("inf")
        )
        allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
        if not difference <= allowed:
            raise UserError(
                f"the export was refused: on {what} its answers differ from the network's by "
                f"{difference:.2g}, allowed {allowed:.2g}"
            )
        worst, count = max(worst, difference), count + 1
    return count, worst


def _batches(definition: ExportDefinition, predictor: Predictor) -> Iterator[tuple[Batch, str]]:
    """Batches of all sizes and lengths, and such as lack a modality."""
    takes = definition.model_input.takes
    for seed, shape in enumerate(_SHAPES):
        batch = _random_batch(definition, predictor, shape, seed=seed)
        lengths = " x ".join(str(batch.sequences[m].mask.shape[1]) for m in takes)
        what = f"{shape[0]} samples of {lengths} frames"
        yield batch, what
        for modality in takes if len(takes) > 1 and seed in (2, 4) else ():
            kept = [m for m in takes if m != modality]
            yield _keeping(batch, kept), f"{what} without {modality}"
            yield _keeping(batch, [modality]), f"{what} with {modality} alone"


def _keeping(batch: Batch, kept: list[Modality]) -> Batch:
    return dataclasses.replace(
        batch,
        sequences={m: batch.sequences[m] for m in kept},
        present={m: batch.present[m] for m in kept},
        frame_of_token=batch.frame_of_token if Modality.TEXT in kept and len(kept) > 1 else None,
    )


def _arrays(
    definition: ExportDefinition, predictor: Predictor, shape: tuple[int, ...], *, seed: int
) -> dict[str, NDArray[Any]]:
    return arrays_of(definition, _random_batch(definition, predictor, shape, seed=seed))


def _random_batch(
    definition: ExportDefinition, predictor: Predictor, shape: tuple[int, ...], *, seed: int
) -> Batch:
    """Random samples, the first one complete; of several, others lack frames and modalities."""
    random = np.random.default_rng(seed)
    size, *longest = shape
    reads = definition.model_input
    arrays: dict[Modality, PaddedArrays] = {}
    for modality, length in zip(Modality, longest, strict=True):
        if modality not in reads.takes:
            continue
        lengths = random.integers(1, length + 1, size)
        lengths[0] = length
        mask = np.arange(length) < lengths[:, None]
        if modality == Modality.TEXT and definition.reads_sentences:
            length = min(length, definition.max_text_tokens)
            mask = mask[:, :length]
            values: NDArray[Any] = random.integers(0, _vocabulary(predictor), mask.shape)
            context = None
            if reads.context_utterances:
                context = mask & (np.arange(length) < random.integers(0, length, (size, 1)))
            arrays[modality] = PaddedArrays(values, mask, context)
        else:
            values = random.normal(size=(size, length, reads.widths[modality]))
            mask &= (random.random(mask.shape) < 0.8) | (np.arange(length) == 0)
            arrays[modality] = PaddedArrays(values.astype(np.float32), mask)
        if size > 2 and len(reads.takes) > 1:
            arrays[modality].mask[1 + len(arrays) % (size - 1)] = False
    frame = None
    if Modality.TEXT in arrays and FRAME_OF_TOKEN in input_names(definition):
        text = arrays[Modality.TEXT].mask
        last = max(some.mask.shape[1] for m, some in arrays.items() if m != Modality.TEXT)
        frame = np.where(text, np.sort(random.integers(-1, last, text.shape), axis=1), -1)
    return Batch(
        sequences={
            m: Padded(
                torch.from_numpy(some.values),
                torch.from_numpy(some.mask),
                None if some.context is None else torch.from_numpy(some.context),
            )
            for m, some in arrays.items()
        },
        present={m: torch.from_numpy(some.mask.any(1)) for m, some in arrays.items()},
        labels=None,
        index=torch.arange(size),
        ids=(),
        frame_of_token=None if frame is None else torch.from_numpy(frame),
    )


def _encoders(predictor: Predictor) -> list[TextEncoder]:
    return [m for m in predictor.network.modules() if isinstance(m, TextEncoder)]


def _vocabulary(predictor: Predictor) -> int:
    return min(int(encoder.config.vocab_size) for encoder in _encoders(predictor))


def _refuse_neighbours(predictor: Predictor) -> None:
    """Refuse settings whose answers depend on more than the sample."""
    definition = predictor.definition
    broken = METHODS[definition.method].known_violations(definition.config)
    for part in ("padding invisible", "neighbours invisible"):
        if part in broken:
            raise UserError(
                f"these settings of {definition.method!r} cannot be exported: what they answer "
                f"depends on the batch ({broken[part]})"
            )


def _refuse_by_length(predictor: Predictor) -> None:
    """Refuse text encoders that see padding, whose texts are therefore run length by length."""
    for encoder in _encoders(predictor):
        if isinstance(encoder.body, OwnForward) and encoder.body._sees_padding:
            raise UserError(
                f"a network that reads text with a {encoder.config.model_type} encoder cannot be "
                "exported: that encoder sees padding, and a graph runs texts of all lengths at once"
            )


def _write_tokenizer(predictor: Predictor, folder: Path) -> None:
    """Write the tokenizer and hold it against the one that the network was trained with.

    Raises:
        UserError: it has no form that runs without transformers, or gives other ids.
    """
    tokenizer = predictor.tokenizer
    assert tokenizer is not None
    whole = folder / ".tokenizer"
    whole.mkdir()
    try:
        tokenizer.save(whole)
        if not (whole / TOKENIZER_FILE).is_file():
            raise UserError(
                "this network cannot be exported: its tokenizer has no fast implementation, which "
                "alone runs without transformers"
            )
        shutil.move(whole / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    finally:
        shutil.rmtree(whole)
    plain = PlainTokenizer(folder / TOKENIZER_FILE, max_tokens=predictor.definition.max_text_tokens)
    contexts = (None, "said before", "it. " * 150, None, "x")
    for texts, before in ((_TEXTS, None), (_TEXTS, contexts), (_TEXTS[::-1], contexts)):
        pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
            *zip(plain(texts, before), tokenizer(texts, before), strict=True)
        ]
        if before is not None:
            masks = plain.context_masks(texts, before), tokenizer.context_masks(texts, before)
            pairs += zip(*masks, strict=True)
        for text, (got, expected) in zip(texts * 2, pairs, strict=False):
            if got.tolist() != expected.tolist():
                raise UserError(
                    f"the export was refused: its tokenizer reads {text[:40]!r} as "
                    f"{got.tolist()[:12]}, the network's as {expected.tolist()[:12]}"
                )


def _hash_of(network: nn.Module) -> str:
    """SHA-256 over names and values of the weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _made_or_removed(folder: Path) -> Iterator[None]:
    """A folder for what an export writes; gone, or as it was, if that fails.

    Raises:
        UserError: something else lies there.
    """
    known = {*MODELS.values(), DEFINITION_FILE, TOKENIZER_FILE}
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - known):
        raise UserError(f"{folder} is there and is no export: name another folder")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    for name in known:  # of an earlier export, whose parts would not fit this one's
        (folder / name).unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        for name in known:
            (folder / name).unlink(missing_ok=True)
        if is_new:
            folder.rmdir()
        raise
