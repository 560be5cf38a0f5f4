"""An exported model's folder: what its files are called, what its graph takes and answers.

Without torch: ``tecafn.onnx`` reads what ``serving.export`` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.modality import Modality
from tecafn.serving.inputs import ModelInput, PaddedArrays

FORMAT_VERSION = 1
DEFINITION_FILE = "export.json"
TOKENIZER_FILE = "tokenizer.json"
MODELS = {"onnx": "model.onnx", "int8": "model.int8.onnx", "torch": "model.pt"}
OUTPUT = "prediction"
FRAME_OF_TOKEN = "frame_of_token"


@dataclass(frozen=True, kw_only=True)
class ExportDefinition:
    """All that a program must know of an exported network; ``export.json`` holds it.

    Args:
        method: registered name.
        dataset: what it was trained on.
        model_input: what it reads.
        reads_sentences: text comes as token ids, from ``tokenizer.json``.
        max_text_tokens: longer texts are cut.
        task: regression or classification.
        label_range: lowest and highest label of a regression.
        class_names: of a classification whose classes have names.
        num_classes: of a classification, else 1.
        weights_hash: of the network that was exported.
        versions: of the libraries that exported it.
        features: how the frames that it reads were made, of the modalities whose data said so.
    """

    method: str
    dataset: str
    model_input: ModelInput
    reads_sentences: bool
    max_text_tokens: int
    task: str
    label_range: tuple[float, float]
    class_names: tuple[str, ...]
    num_classes: int
    weights_hash: str
    versions: Mapping[str, str]
    features: Mapping[Modality, FeatureSpec] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        reads = self.model_input
        return {
            "format_version": FORMAT_VERSION,
            "method": self.method,
            "dataset": self.dataset,
            "inputs": list(input_names(self)),
            "takes": [str(m) for m in reads.takes],
            "widths": {str(m): width for m, width in reads.widths.items()},
            "is_aligned": reads.is_aligned,
            "max_frames": reads.max_frames,
            "context_utterances": reads.context_utterances,
            "reads_sentences": self.reads_sentences,
            "max_text_tokens": self.max_text_tokens,
            "task": self.task,
            "label_range": list(self.label_range),
            "class_names": list(self.class_names),
            "num_classes": self.num_classes,
            "weights_hash": self.weights_hash,
            "versions": dict(self.versions),
            "features": {str(m): spec.as_dict() for m, spec in self.features.items()},
        }

    @classmethod
    def from_dict(cls, values: Any) -> ExportDefinition:
        """What ``as_dict`` gave.

        Raises:
            UserError: another format version, or something is missing.
        """
        version = values.get("format_version") if isinstance(values, Mapping) else None
        if version != FORMAT_VERSION:
            raise UserError(
                f"{DEFINITION_FILE}: format_version must be {FORMAT_VERSION}, got {version!r}"
            )
        try:
            low, high = map(float, values["label_range"])
            limit = values["max_frames"]
            return cls(
                method=str(values["method"]),
                dataset=str(values["dataset"]),
                model_input=ModelInput(
                    takes=tuple(map(Modality, values["takes"])),
                    widths={Modality(m): int(width) for m, width in values["widths"].items()},
                    method=str(values["method"]),
                    is_aligned=bool(values["is_aligned"]),
                    max_frames=None if limit is None else int(limit),
                    context_utterances=int(values["context_utterances"]),
                ),
                reads_sentences=bool(values["reads_sentences"]),
                max_text_tokens=int(values["max_text_tokens"]),
                task=str(values["task"]),
                label_range=(low, high),
                class_names=tuple(map(str, values["class_names"])),
                num_classes=int(values["num_classes"]),
                weights_hash=str(values["weights_hash"]),
                versions=dict(values["versions"]),
                # Absent from models of before.
                features={
                    Modality(m): FeatureSpec.from_dict(spec)
                    for m, spec in values.get("features", {}).items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{DEFINITION_FILE} is damaged: {reason}") from None


def input_names(definition: ExportDefinition) -> tuple[str, ...]:
    """The graph's inputs, in order: ``text``, ``text_mask``, ``audio``, ...

    ``text`` is (B, Lt) int64 token ids or (B, Lt, D) vectors, ``audio`` and ``vision`` are (B, L,
    D) float32, masks are bool. ``text_context`` marks what was said before, for models that do not
    pool it; ``frame_of_token`` is (B, Lt) int64, for models of word-aligned data.
    """
    reads = definition.model_input
    names = []
    for modality in reads.takes:
        names += [str(modality), f"{modality}_mask"]
        if modality == Modality.TEXT and reads.context_utterances:
            names.append("text_context")
    if needs_frame_of_token(definition):
        names.append(FRAME_OF_TOKEN)
    return tuple(names)


def needs_frame_of_token(definition: ExportDefinition) -> bool:
    """Does the graph ask in which frame each token was spoken?"""
    reads = definition.model_input
    return reads.is_aligned and Modality.TEXT in reads.takes and len(reads.takes) > 1


def arrays_for(
    definition: ExportDefinition,
    batch: Mapping[Modality, PaddedArrays],
    frame_of_token: NDArray[np.int64] | None,
) -> dict[str, NDArray[Any]]:
    """What the graph takes of a batch: an array for each of its inputs.

    A modality that no sample has is one masked frame. Where tokens have frames, audio and vision
    are as long as the last spoken one needs.

    Args:
        definition: of the exported model.
        batch: by modality, those that some sample has.
        frame_of_token: (B, Lt), or None.
    """
    rows = next(iter(batch.values())).mask.shape[0]
    whole = {m: batch.get(m) or _absent(definition, m, rows) for m in definition.model_input.takes}
    arrays: dict[str, NDArray[Any]] = {}
    if needs_frame_of_token(definition):
        text = whole[Modality.TEXT]
        if frame_of_token is None:  # text alone has its tokens for frames, frames alone no tokens
            places = np.broadcast_to(np.arange(text.mask.shape[1]), text.mask.shape)
            frame_of_token = np.where(text.mask, places, -1)
        arrays[FRAME_OF_TOKEN] = frame_of_token.astype(np.int64)
        spoken = int(np.where(text.mask, frame_of_token, -1).max(initial=-1)) + 1
        others = [m for m in whole if m != Modality.TEXT]
        length = max(1, spoken, *(whole[m].mask.shape[1] for m in others))
        whole |= {m: _padded_to(whole[m], length) for m in others}
    for modality, some in whole.items():
        kind = np.int64 if some.values.dtype.kind == "i" else np.float32
        arrays[str(modality)] = some.values.astype(kind, copy=False)
        arrays[f"{modality}_mask"] = some.mask
        if modality == Modality.TEXT:
            none = np.zeros_like(some.mask)
            arrays["text_context"] = none if some.context is None else some.context
    return {name: arrays[name] for name in input_names(definition)}


def scores_of(answer: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(B,) scores, or of two classes the probability of class 1; (B, C) probabilities of more.

    Example:
        >>> scores_of(np.zeros((1, 2), np.float32))
        array([0.5])
    """
    values = answer.astype(np.float64)
    if values.ndim == 1:
        return values
    powers = np.exp(values - values.max(1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    if shares.shape[1] == 2:
        shares = shares[:, 1]
    return shares


def _absent(definition: ExportDefinition, modality: Modality, rows: int) -> PaddedArrays:
    mask = np.zeros((rows, 1), np.bool_)
    if modality == Modality.TEXT and definition.reads_sentences:
        return PaddedArrays(np.zeros((rows, 1), np.int64), mask)
    width = definition.model_input.widths[modality]
    return PaddedArrays(np.zeros((rows, 1, width), np.float32), mask)


def _padded_to(some: PaddedArrays, length: int) -> PaddedArrays:
    missing = length - some.mask.shape[1]
    if not missing:
        return some
    return PaddedArrays(
        np.pad(some.values, ((0, 0), (0, missing), (0, 0))),
        np.pad(some.mask, ((0, 0), (0, missing))),
    )
