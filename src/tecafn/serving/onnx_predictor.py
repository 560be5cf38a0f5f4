"""An exported network that predicts: onnxruntime, tokenizers and numpy, without torch."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.serving.exported import (
    DEFINITION_FILE,
    MODELS,
    TOKENIZER_FILE,
    ExportDefinition,
    arrays_for,
    scores_of,
)
from tecafn.serving.inputs import PaddedArrays, read_samples, refuse_not_finite
from tecafn.serving.plain_tokenizer import PlainTokenizer

if TYPE_CHECKING:
    import onnxruntime

_BATCH_SIZE = 64


@dataclass(frozen=True)
class ArrayBatch:
    """Samples as arrays; what ``core.batch.Batch`` is to torch.

    Args:
        sequences: by modality, those that some sample has.
        frame_of_token: (B, Lt) where the network asks for it.
    """

    sequences: Mapping[Modality, PaddedArrays]
    frame_of_token: NDArray[np.int64] | None = None

    def keeping(self, modalities: Collection[Modality]) -> ArrayBatch:
        """The samples as if they had these modalities alone; see ``Batch.keeping``."""
        kept = {m: some for m, some in self.sequences.items() if m in modalities}
        if not kept:
            kept = {
                m: PaddedArrays(some.values, np.zeros_like(some.mask), some.context)
                for m, some in self.sequences.items()
            }
        return ArrayBatch(kept, self.frame_of_token if Modality.TEXT in kept else None)


class OnnxPredictor:
    """An exported network with its tokenizer; predicts as ``tecafn.Predictor`` does.

    Args:
        definition: what it reads and what it answers.
        session: of onnxruntime.
        tokenizer: None where text comes as stored vectors.
    """

    def __init__(
        self,
        definition: ExportDefinition,
        session: onnxruntime.InferenceSession,
        tokenizer: PlainTokenizer | None,
    ) -> None:
        self.definition = definition
        self.session = session
        self.tokenizer = tokenizer

    @property
    def takes(self) -> tuple[Modality, ...]:
        """The modalities it was trained on; it does not look at others."""
        return self.definition.model_input.takes

    def predict(
        self,
        text: str | Sequence[str | None] | Sequence[ArrayLike | None] | None = None,
        *,
        audio: ArrayLike | Sequence[ArrayLike | None] | None = None,
        vision: ArrayLike | Sequence[ArrayLike | None] | None = None,
        context: str | Sequence[str | None] | None = None,
        ignore_unused: bool = False,
    ) -> NDArray[np.float64]:
        """Predict samples from whatever is known of them: arguments, answers and errors are those
        of ``tecafn.Predictor.predict``.
        """  # noqa: D205
        batches = self.batches(
            text, audio=audio, vision=vision, context=context, ignore_unused=ignore_unused
        )
        answers = [self.score_batch(batch) for batch in batches]
        values = np.concatenate(answers) if answers else np.empty(0)
        refuse_not_finite(values)
        return values if values.ndim == 1 else values.argmax(1).astype(np.float64)

    def batches(
        self,
        text: str | Sequence[str | None] | Sequence[ArrayLike | None] | None = None,
        *,
        audio: ArrayLike | Sequence[ArrayLike | None] | None = None,
        vision: ArrayLike | Sequence[ArrayLike | None] | None = None,
        context: str | Sequence[str | None] | None = None,
        ignore_unused: bool = False,
    ) -> Iterator[ArrayBatch]:
        """What ``predict`` hands to the graph: at most 64 samples at a time, in their order."""
        samples = read_samples(
            self.definition.model_input,
            self.tokenizer,
            text=text,
            audio=audio,
            vision=vision,
            context=context,
            ignore_unused=ignore_unused,
        )
        for batch in samples.batches(_BATCH_SIZE):
            yield ArrayBatch(batch, samples.frame_of_token(batch))

    def score_batch(self, batch: ArrayBatch) -> NDArray[np.float64]:
        """(B,) scores, or of two classes the probability of class 1; (B, C) probabilities of more.

        Any modality of the batch may be absent.
        """
        arrays = arrays_for(self.definition, batch.sequences, batch.frame_of_token)
        return scores_of(self.run(arrays))

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The network's answer, (B,) scores or (B, C) logits.

        Args:
            arrays: by the graph's input names, see ``docs/export.md``.
        """
        answer: NDArray[np.float32] = self.session.run(None, dict(arrays))[0]
        return answer

    def __repr__(self) -> str:
        definition = self.definition
        return (
            f"OnnxPredictor({definition.method}, takes {', '.join(self.takes)}, trained on "
            f"{definition.dataset})"
        )


def load(folder: str | Path, *, int8: bool = False, threads: int | None = None) -> OnnxPredictor:
    """Load a folder that ``tecafn export --format onnx`` wrote.

    Args:
        folder: the folder.
        int8: its quantised weights, which ``--int8`` wrote.
        threads: of arithmetic; None = as many as there are cores.

    Raises:
        UserError: a file is missing or damaged, or a package is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            "an exported model needs onnxruntime and tokenizers: pip install onnxruntime tokenizers"
        ) from None
    folder = Path(folder)
    definition = read_definition(folder)
    file = graph_of(folder, int8=int8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # Threads that wait asleep leave their core to others, see core/threads.py.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} is damaged: {reason}") from None
    tokenizer = None
    if definition.reads_sentences:
        tokenizer = PlainTokenizer(folder / TOKENIZER_FILE, max_tokens=definition.max_text_tokens)
    return OnnxPredictor(definition, session, tokenizer)


def graph_of(folder: Path, *, int8: bool = False) -> Path:
    """The file of an exported folder that onnxruntime reads.

    Raises:
        UserError: it was exported in another form.
    """
    file = folder / MODELS["int8" if int8 else "onnx"]
    if not file.is_file():
        hint = "tecafn export --int8" if int8 else "tecafn export --format onnx"
        raise UserError(f"{folder} has no {file.name}, which `{hint}` writes")
    return file


def read_definition(folder: Path) -> ExportDefinition:
    """What ``export.json`` of a folder says.

    Raises:
        UserError: it is missing or damaged.
    """
    path = folder / DEFINITION_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{folder}: expected a model that `tecafn export` wrote, got: {error}"
        ) from None
    return ExportDefinition.from_dict(values)
