"""A trained network that anybody can use: load it, give it text, audio and vision, get scores."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from numpy.typing import ArrayLike, NDArray

import tecafn.methods  # noqa: F401 - registers them
from tecafn.core.batch import Batch, Padded, pad_rows
from tecafn.core.dataset_names import current_name
from tecafn.core.errors import UserError
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.core.scheme import Network
from tecafn.core.weights import load_module, save_module
from tecafn.layers.encoder_source import hub_options
from tecafn.layers.text_encoder import TextEncoder, Tokenizer
from tecafn.serving.builtin import is_builtin, model_folder
from tecafn.serving.packed import pack_weights

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TEXT_ENCODER_FOLDER = "text_encoder"
EXPORT_FOLDER = "model"
_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class ModelDefinition:
    """All that a network is built from; ``config.json`` of an exported model holds it.

    Args:
        method: registered name.
        config: the method's settings, an instance of its config class.
        info: widths, label scale, text encoder.
        max_text_tokens: longer texts are cut.
        dataset: what it was trained on.
        max_frames: of audio and vision this many first frames are taken; None = all.
        context_utterances: how many previous utterances it was trained to read before a text; the
            context is then not pooled with the text.
    """

    method: str
    config: Any
    info: DataInfo
    max_text_tokens: int
    dataset: str
    max_frames: int | None = None
    context_utterances: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the statistics live in the weights."""
        info = dataclasses.replace(self.info, statistics={})
        adapter = pydantic.TypeAdapter(METHODS[self.method].config)
        return {
            "format_version": FORMAT_VERSION,
            "library_name": "tecafn",
            "method": self.method,
            "settings": adapter.dump_python(self.config, mode="json"),
            "data": pydantic.TypeAdapter(DataInfo).dump_python(info, mode="json"),
            "max_text_tokens": self.max_text_tokens,
            "dataset": self.dataset,
            "max_frames": self.max_frames,
            "context_utterances": self.context_utterances,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelDefinition:
        """What ``as_dict`` gave.

        Raises:
            UserError: another format version, an unknown method, or unknown settings.
        """
        version = values.get("format_version") if isinstance(values, Mapping) else None
        if version != FORMAT_VERSION:
            raise UserError(
                f"{CONFIG_FILE}: format_version must be {FORMAT_VERSION}, got {version!r}"
            )
        try:
            limit = values.get("max_frames")  # absent from models of before
            name = str(values["method"])
            method = METHODS[name]
            return cls(
                method=name,
                config=pydantic.TypeAdapter(method.config).validate_python(values["settings"]),
                info=pydantic.TypeAdapter(DataInfo).validate_python(values["data"]),
                max_text_tokens=int(values["max_text_tokens"]),
                dataset=current_name(str(values["dataset"])),
                max_frames=None if limit is None else int(limit),
                context_utterances=int(values.get("context_utterances", 0)),
            )
        except (pydantic.ValidationError, KeyError, TypeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{CONFIG_FILE} is damaged: {' '.join(reason.split())}") from None

    def build_network(self) -> Network:
        """The untrained network.

        Raises:
            UserError: the settings do not fit one another.
        """
        try:
            return METHODS[self.method].build(self.config, self.info).network
        except ValueError as error:
            raise UserError(f"method {self.method!r}: {error}") from None


class Predictor(
    ModelHubMixin,
    library_name="tecafn",
    tags=["multimodal-sentiment-analysis"],
):
    """A network with its tokenizer: save it, load it, push it to a hub, predict with it.

    Args:
        definition: what it was built from.
        network: with its weights; it stays as it is, mode and layers included.
        tokenizer: None where text comes as stored vectors.

    Example:
        >>> import tecafn
        >>> predictor = tecafn.load("runs/demo")                           # doctest: +SKIP
        >>> predictor.predict(text="The plot was thin, but I loved it.")   # doctest: +SKIP
        array([1.2])
    """

    def __init__(
        self, definition: ModelDefinition, network: Network, tokenizer: Tokenizer | None
    ) -> None:
        self.definition = definition
        self.network = network
        self.tokenizer = tokenizer

    @property
    def takes(self) -> tuple[Modality, ...]:
        """The modalities it was trained on; it does not look at others."""
        return self.definition.info.usable

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str) -> Predictor:
        """Move the network."""
        self.network.to(device)
        return self

    def predict(
        self,
        text: str | Sequence[str | None] | Sequence[ArrayLike | None] | None = None,
        *,
        audio: ArrayLike | Sequence[ArrayLike | None] | None = None,
        vision: ArrayLike | Sequence[ArrayLike | None] | None = None,
        context: str | Sequence[str | None] | None = None,
        ignore_unused: bool = False,
    ) -> NDArray[np.float64]:
        """Predict samples from whatever is known of them.

        Args:
            text: one text or B of them; (L, D) vectors where the network was trained on those. An
                empty text, or one of white space alone, is absent.
            audio: one (L, D) array of frames or B of them, as in the training data: NumPy,
                torch or nested lists, of any real type. None, for all or for one sample, says that
                the modality is absent, and so does a sequence without frames. Frames with NaN or
                infinity are masked.
            vision: likewise.
            context: what was said before each text (UR-FUNNY), or the previous utterances, the last
                one last, where the network was trained with ``context_utterances``.
            ignore_unused: do not refuse a modality that is none of ``takes``; it is not looked at.

        Returns:
            (B,) scores on the label's scale; for two classes the probability of class 1; for more
            classes the most likely one.

        Raises:
            UserError: nothing was given for a sample, the numbers of samples differ, a width is not
                that of the training data, or a modality was given that the network does not read.
                The line names the sample, counted from 0.
        """
        batches = self.batches(
            text, audio=audio, vision=vision, context=context, ignore_unused=ignore_unused
        )
        answers = [self.predict_batch(batch) for batch in batches]
        values = np.concatenate(answers) if answers else np.empty(0)
        refuse_not_finite(values)
        return values

    def batches(
        self,
        text: str | Sequence[str | None] | Sequence[ArrayLike | None] | None = None,
        *,
        audio: ArrayLike | Sequence[ArrayLike | None] | None = None,
        vision: ArrayLike | Sequence[ArrayLike | None] | None = None,
        context: str | Sequence[str | None] | None = None,
        ignore_unused: bool = False,
    ) -> Iterator[Batch]:
        """What ``predict`` hands to the network: at most 64 samples at a time, in their order.

        Args and errors are those of ``predict``.
        """
        self._check_unused({"text": text, "audio": audio, "vision": vision}, ignore_unused)
        columns = {
            Modality.TEXT: self._text_rows(text, context),
            Modality.AUDIO: self._frame_rows(Modality.AUDIO, audio),
            Modality.VISION: self._frame_rows(Modality.VISION, vision),
        }
        given = {m: self._cut(m, rows) for m, rows in columns.items() if rows is not None}
        if context is not None and Modality.TEXT not in given:
            raise UserError("context goes with a text, got none")
        if not given:
            raise UserError(f"nothing to predict from; this model takes {', '.join(self.takes)}")
        sizes = {len(rows) for rows in given.values()}
        if len(sizes) != 1:
            counts = {str(m): len(rows) for m, rows in given.items()}
            raise UserError(f"predict needs one number of samples in all modalities, got {counts}")
        size = sizes.pop()
        for row in range(size):
            if all(rows[row] is None for rows in given.values()):
                raise UserError(
                    f"sample {row} has nothing to predict from: no {' and no '.join(given)} (an "
                    "empty text, or a sequence without a finite frame, is absent)"
                )
        before = self._context_masks(text, context) if Modality.TEXT in given else None
        for start in range(0, size, _BATCH_SIZE):
            part = slice(start, start + _BATCH_SIZE)
            batch = _make_batch({m: rows[part] for m, rows in given.items()})
            if before is not None:
                batch = _with_context(batch, before[part])
            yield self._aligned(batch)

    def _check_unused(self, given: Mapping[str, Any], ignore_unused: bool) -> None:
        """Refuse what the network would not look at."""
        unused = [name for name, value in given.items() if name not in self.takes]
        wrong = [name for name in unused if _says_something(given[name])]
        if wrong and not ignore_unused:
            raise UserError(
                f"this model was not trained with {' and '.join(wrong)}, it takes "
                f"{', '.join(self.takes)}; leave it out, or pass ignore_unused=True"
            )

    def _aligned(self, batch: Batch) -> Batch:
        """With the frame of each token, where the method needs it.

        Raises:
            UserError: text and frames were given without a word alignment.
        """
        if "aligned" not in METHODS[self.definition.method].needs:
            return batch
        text = batch.sequences.get(Modality.TEXT)
        if text is None or len(batch.sequences) == 1:
            return batch
        if self.tokenizer is not None:
            raise UserError(
                f"method {self.definition.method!r} needs to know in which frame each word was "
                "spoken: predict a word-aligned dataset (tecafn predict RUN --data DIR), or give "
                "text without frames"
            )
        places = torch.arange(text.mask.shape[1]).expand(text.mask.shape)
        limit = self.definition.max_frames
        known = text.mask if limit is None else text.mask & (places < limit)
        return dataclasses.replace(batch, frame_of_token=torch.where(known, places, -1))

    def _cut(
        self, modality: Modality, rows: list[torch.Tensor | None]
    ) -> list[torch.Tensor | None]:
        """Audio and vision up to ``max_frames``, as in training."""
        limit = self.definition.max_frames
        long = [row for row in rows if row is not None and limit is not None and len(row) > limit]
        if modality == Modality.TEXT or not long:
            return rows
        warnings.warn(
            f"{modality} of {len(long)} of {len(rows)} samples is cut at max_frames {limit}, which "
            f"this model was trained with; the longest has {max(map(len, long))} frames",
            stacklevel=3,
        )
        return [None if row is None else row[:limit] for row in rows]

    def network_prediction(self, batch: Batch) -> torch.Tensor:
        """(B,) scores or (B, C) logits of a batch on the network's device, in evaluation mode."""
        with _evaluating(self.network):
            prediction: torch.Tensor = self.network(batch).prediction
        return prediction

    def predict_batch(self, batch: Batch) -> NDArray[np.float64]:
        """``predict`` for a batch that is made already."""
        scores = self.score_batch(batch)
        return scores if scores.ndim == 1 else scores.argmax(1).astype(np.float64)

    @torch.inference_mode()
    def score_batch(self, batch: Batch) -> NDArray[np.float64]:
        """``predict_batch`` without the choice of a class.

        Returns:
            (B,) scores, or of two classes the probability of class 1; (B, C) probabilities of more.
        """
        answer = self.network_prediction(batch.to(self.device)).double().cpu()
        if answer.ndim == 2:
            answer = answer.softmax(1)
            answer = answer[:, 1] if answer.shape[1] == 2 else answer
        values: NDArray[np.float64] = answer.numpy()
        return values

    def _text_rows(
        self, text: Any, context: str | Sequence[str | None] | None
    ) -> list[torch.Tensor | None] | None:
        if text is None or Modality.TEXT not in self.takes:
            return None
        if self.tokenizer is None:
            return self._frame_rows(Modality.TEXT, text)
        texts: list[Any] = [text] if isinstance(text, str | bytes) else _items(Modality.TEXT, text)
        for row, item in enumerate(texts):
            if item is not None and not isinstance(item, str):
                raise UserError(
                    f"text of sample {row} must be a string, or None where it is absent, got "
                    f"{_kind(item)}"
                )
        contexts = [context] if isinstance(context, str) else context
        if contexts is not None and len(contexts) != len(texts):
            raise UserError(
                f"context must be one for each text, got {len(contexts)} for {len(texts)}"
            )
        ids = self.tokenizer([t or "" for t in texts], contexts) if texts else []
        # A blank text says nothing: it is absent, as in training.
        return [
            torch.from_numpy(i) if t and t.strip() else None
            for t, i in zip(texts, ids, strict=True)
        ]

    def _context_masks(
        self, text: Any, context: str | Sequence[str | None] | None
    ) -> list[NDArray[np.bool_]] | None:
        """Which tokens of each text are its context, where that is not pooled with the text."""
        if context is None or not self.definition.context_utterances or self.tokenizer is None:
            return None
        texts = [text] if isinstance(text, str) else list(text)
        contexts = [context] if isinstance(context, str) else context
        return self.tokenizer.context_masks([t or "" for t in texts], contexts)

    def _frame_rows(self, modality: Modality, value: Any) -> list[torch.Tensor | None] | None:
        width = self.definition.info.widths.get(modality)
        if value is None or width is None:
            return None
        if isinstance(value, str | bytes):
            raise UserError(
                f"{modality} must be (L, {width}) numbers, as in the training data, got "
                f"{_kind(value)}"
            )
        items = [value] if _is_one_sample(value) else _items(modality, value)
        return [_frames(modality, row, item, width) for row, item in enumerate(items)]

    def __repr__(self) -> str:
        """What it is, what it takes, and what it was trained on.

        Example:
            ``Predictor(tecafn, scores from -3 to 3, takes text (minilm), audio (5 wide), vision (20
            wide), trained on cmu-mosi)``
        """
        info = self.definition.info
        takes = [
            f"text ({info.text_encoder.source})"
            if m == Modality.TEXT and info.reads_sentences
            else f"{m} ({info.widths[m]} wide)"
            for m in self.takes
        ]
        low, high = info.label_range
        gives = (
            f"scores from {low:g} to {high:g}"
            if info.task == "regression"
            else f"{info.num_classes} classes"
        )
        return (
            f"Predictor({self.definition.method}, {gives}, takes {', '.join(takes)}, trained on "
            f"{self.definition.dataset})"
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        text = json.dumps(self.definition.as_dict(), indent=2)
        (save_directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        save_module(self.network, save_directory / WEIGHTS_FILE)
        folder = save_directory / TEXT_ENCODER_FOLDER
        for module in self.network.modules():
            if isinstance(module, TextEncoder):
                folder.mkdir(exist_ok=True)
                module.save_architecture(folder)
        if self.tokenizer is not None:
            folder.mkdir(exist_ok=True)
            self.tokenizer.save(folder)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # a network has no keyword of its own to pass
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Predictor:
        """Load what ``save_pretrained`` wrote, or a model on the hub.

        In place of the mixin's own, which reads ``config.json`` before anybody can say what is
        wrong with it.

        Args:
            pretrained_model_name_or_path: a folder, or ``user/name``.
            revision: a branch, tag or commit on the hub.
            cache_dir: where files from the hub are kept; None = where ``huggingface_hub`` has it.
            force_download: fetch files that are kept already.
            local_files_only: fetch nothing.
            token: as ``huggingface_hub`` takes it.

        Raises:
            UserError: a file is missing or damaged.
            OSError, HfHubHTTPError: it could not be fetched.
        """
        folder = Path(pretrained_model_name_or_path)
        if folder.is_dir():
            return load_export(folder)
        fetched = snapshot_download(
            str(pretrained_model_name_or_path),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, f"{TEXT_ENCODER_FOLDER}/*"],
        )
        return load_export(Path(fetched))


def read_definition(folder: Path) -> ModelDefinition:
    """What the network in an exported folder is built from.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{folder}: expected an exported model with {CONFIG_FILE}, got: {error}"
        ) from None
    return ModelDefinition.from_dict(values)


def load_export(folder: Path) -> Predictor:
    """Read what ``save_pretrained`` wrote.

    Raises:
        UserError: a file is missing or damaged, or the weights do not fit the definition.
    """
    definition = read_definition(folder)
    spec = definition.info.text_encoder
    tokenizer = None
    if definition.info.reads_sentences:
        source = str(folder / TEXT_ENCODER_FOLDER)
        # A model in the package has no tokenizer of its own: adapters need the encoder, which has.
        is_lent = spec.adapter_rank is not None and not Path(source).is_dir()
        tokenizer = Tokenizer(
            spec.source if is_lent else source, max_tokens=definition.max_text_tokens
        )
        spec = spec.saved_in(source)
    info = dataclasses.replace(definition.info, text_encoder=spec)
    network = dataclasses.replace(definition, info=info).build_network()
    load_module(network, folder / WEIGHTS_FILE)
    pack_weights(network.eval())
    return Predictor(definition, network, tokenizer)


def load(run_or_hub_id: str | Path, *, revision: str | None = None) -> Predictor:
    """Load a trained network: the package's own, a run's, an exported or one of the hub.

    Args:
        run_or_hub_id: ``builtin``, ``builtin-base``, ``runs/demo``, a folder that
            ``save_pretrained`` wrote, or ``user/name``.
        revision: branch, tag or commit on the hub.

    Returns:
        A predictor on the CPU.

    Raises:
        UserError: it is none of these, or damaged.
    """
    if is_builtin(run_or_hub_id) or Path(run_or_hub_id).is_dir():
        return load_export(model_folder(run_or_hub_id))
    is_local = bool(hub_options(str(run_or_hub_id)))
    try:
        return Predictor.from_pretrained(
            str(run_or_hub_id), revision=revision, local_files_only=is_local
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{run_or_hub_id}: no such directory, and no such model could be fetched from the "
            f"Hugging Face hub ({reason})"
        ) from None


def refuse_not_finite(values: NDArray[np.float64]) -> None:
    """Refuse predictions (N,) or (N, C) of which one is not finite.

    Raises:
        UserError: names the first sample.
    """
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, *_ = place = tuple(wrong[0].tolist())
        raise UserError(
            f"the prediction of sample {row} is {values[place]}; are its frames extreme?"
        )


@contextmanager
def _evaluating(network: Network) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module's mode is the caller's again."""
    training = [module for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _says_something(value: Any) -> bool:
    """Is it more than None, or a list of nothing but None?"""
    if isinstance(value, list | tuple):
        return any(item is not None for item in value)
    return value is not None


def _kind(value: Any) -> str:
    """What something is, for an error: ``a str``, ``an int``."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _is_one_sample(value: Any) -> bool:
    """Is it an array of one sample, or a list (of lists) of numbers, rather than B samples?

    Of arrays the ones with three dimensions, or of objects, are B samples.
    """
    if not isinstance(value, list | tuple):
        is_array = isinstance(value, torch.Tensor | np.ndarray | np.generic)
        return is_array and value.ndim < 3 and value.dtype != object
    rows = [row if isinstance(row, list | tuple) else [row] for row in value]
    cells = [cell for row in rows for cell in row]
    return bool(cells) and all(isinstance(cell, int | float | str | np.generic) for cell in cells)


def _items(modality: Modality, value: Any) -> list[Any]:
    """B samples of one modality."""
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise UserError(f"{modality} must be one sample or a list of them, got {_kind(value)}")
    try:
        return list(value)
    except TypeError:  # an array without dimensions
        raise UserError(
            f"{modality} must be one sample or a list of them, got {_kind(value)} of one number"
        ) from None


def _frames(modality: Modality, row: int, item: Any, width: int) -> torch.Tensor | None:
    """(L, width) float32 of one sample; None where no frame is finite."""
    if item is None:
        return None
    wanted = f"{modality} of sample {row} must be (L, {width}) numbers, as in the training data"
    if isinstance(item, torch.Tensor):  # also one that needs a gradient, or is of bfloat16
        item = item.detach().cpu()
        if item.is_complex():
            raise UserError(f"{wanted}, got complex ones")
        item = item.double().numpy()
    try:
        values = np.asarray(item)
        if values.dtype.kind not in "biuf" and values.dtype != object:
            raise TypeError
        values = values.astype(np.float64)
    except (ValueError, TypeError):
        raise UserError(f"{wanted}, got {_kind(item)} of something else") from None
    if values.size == 0 and (values.ndim == 1 or values.shape[-1] == width):
        return None
    if values.ndim != 2 or values.shape[1] != width:
        shape = f"shape {tuple(values.shape)}"
        turned = values.ndim == 2 and values.shape[0] == width
        raise UserError(f"{wanted}, got {shape}{', which is turned round' if turned else ''}")
    if (np.abs(values[np.isfinite(values)]) > np.finfo(np.float32).max).any():
        raise UserError(f"{wanted}, got some beyond what single precision holds")
    if not np.isfinite(values).all(axis=1).any():
        return None
    return torch.from_numpy(values.astype(np.float32))


def _with_context(batch: Batch, masks: Sequence[NDArray[np.bool_]]) -> Batch:
    """The batch with the contexts of its texts marked; an absent text has none."""
    text = batch.sequences.get(Modality.TEXT)
    if text is None:
        return batch
    context = torch.zeros_like(text.mask)
    for row, mask in enumerate(masks):
        if text.mask[row].any():
            context[row, : len(mask)] = torch.from_numpy(mask)
    marked = {**batch.sequences, Modality.TEXT: Padded(text.values, text.mask, context)}
    return dataclasses.replace(batch, sequences=marked)


def _make_batch(columns: Mapping[Modality, list[torch.Tensor | None]]) -> Batch:
    """Rows of tensors, None = absent, to a batch."""
    size = len(next(iter(columns.values())))
    sequences: dict[Modality, Padded] = {}
    present: dict[Modality, torch.Tensor] = {}
    for modality, rows in columns.items():
        if all(row is None for row in rows):
            continue
        sequences[modality] = padded = pad_rows(rows)
        present[modality] = padded.mask.any(1)
    return Batch(
        sequences=sequences,
        present=present,
        labels=None,
        index=torch.arange(size),
        ids=[str(row) for row in range(size)],
    )
