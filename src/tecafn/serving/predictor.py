"""A trained network that anybody can use: load it, give it text, audio and vision, get scores."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
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
from tecafn.core.errors import UserError
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.core.scheme import Network
from tecafn.core.weights import load_module, save_module
from tecafn.layers.text_encoder import TextEncoder, Tokenizer
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
    """

    method: str
    config: Any
    info: DataInfo
    max_text_tokens: int
    dataset: str

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
            name = str(values["method"])
            method = METHODS[name]
            return cls(
                method=name,
                config=pydantic.TypeAdapter(method.config).validate_python(values["settings"]),
                info=pydantic.TypeAdapter(DataInfo).validate_python(values["data"]),
                max_text_tokens=int(values["max_text_tokens"]),
                dataset=str(values["dataset"]),
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
    ) -> NDArray[np.float64]:
        """Predict samples from whatever is known of them.

        Args:
            text: one text or B of them; (L, D) vectors where the network was trained on those.
            audio, vision: one (L, D) array of frames or B of them, as in the training data. None,
                for all or for one sample, says that the modality is absent. Frames with NaN or
                infinity are masked. A modality that is none of ``takes`` is not looked at.
            context: what was said before each text (UR-FUNNY).

        Returns:
            (B,) scores on the label's scale; for two classes the probability of class 1; for more
            classes the most likely one.

        Raises:
            UserError: nothing was given, the numbers of samples differ, or a width is not that of
                the training data.
        """
        columns = {
            Modality.TEXT: self._text_rows(text, context),
            Modality.AUDIO: self._frame_rows(Modality.AUDIO, audio),
            Modality.VISION: self._frame_rows(Modality.VISION, vision),
        }
        given = {m: rows for m, rows in columns.items() if rows is not None}
        if not given:
            raise UserError(f"nothing to predict from; this model takes {', '.join(self.takes)}")
        sizes = {len(rows) for rows in given.values()}
        if len(sizes) != 1:
            counts = {str(m): len(rows) for m, rows in given.items()}
            raise UserError(f"predict needs one number of samples in all modalities, got {counts}")
        size = sizes.pop()
        answers = []
        for start in range(0, size, _BATCH_SIZE):
            chunk = {m: rows[start : start + _BATCH_SIZE] for m, rows in given.items()}
            answers.append(self.predict_batch(self._aligned(_make_batch(chunk))))
        return np.concatenate(answers) if answers else np.empty(0)

    def _aligned(self, batch: Batch) -> Batch:
        """With the frame of each token, where the method needs it.

        Raises:
            UserError: a text comes with frames; which word is in which nobody said.
        """
        if "aligned" not in METHODS[self.definition.method].needs:
            return batch
        text = batch.sequences.get(Modality.TEXT)
        if text is None or len(batch.sequences) == 1:
            return batch
        if self.tokenizer is not None:
            raise UserError(
                f"method {self.definition.method!r} needs to know in which frame each word was "
                "spoken: predict a word-aligned data set (tecafn predict RUN --data DIR), or give "
                "text without frames"
            )
        places = torch.arange(text.mask.shape[1]).expand(text.mask.shape)
        return dataclasses.replace(batch, frame_of_token=torch.where(text.mask, places, -1))

    def network_prediction(self, batch: Batch) -> torch.Tensor:
        """(B,) scores or (B, C) logits of a batch on the network's device, in evaluation mode."""
        with _evaluating(self.network):
            prediction: torch.Tensor = self.network(batch).prediction
        return prediction

    @torch.inference_mode()
    def predict_batch(self, batch: Batch) -> NDArray[np.float64]:
        """``predict`` for a batch that is made already."""
        answer = self.network_prediction(batch.to(self.device)).double().cpu()
        if answer.ndim == 2:
            two = answer.shape[1] == 2
            answer = answer.softmax(1)[:, 1] if two else answer.argmax(1).double()
        values: NDArray[np.float64] = answer.numpy()
        return values

    def _text_rows(
        self, text: Any, context: str | Sequence[str | None] | None
    ) -> list[torch.Tensor | None] | None:
        if text is None or Modality.TEXT not in self.takes:
            return None
        if self.tokenizer is None:
            return self._frame_rows(Modality.TEXT, text)
        texts = [text] if isinstance(text, str) else _items(Modality.TEXT, text)
        wrong = next((t for t in texts if t is not None and not isinstance(t, str)), None)
        if wrong is not None:
            raise UserError(f"text must be strings, got {type(wrong).__name__}")
        contexts = [context] if isinstance(context, str) else context
        if contexts is not None and len(contexts) != len(texts):
            raise UserError(f"context must be one a text, got {len(contexts)} for {len(texts)}")
        ids = self.tokenizer([t or "" for t in texts], contexts) if texts else []
        # A blank text says nothing: it is absent, as in training.
        return [
            torch.from_numpy(i) if t and t.strip() else None
            for t, i in zip(texts, ids, strict=True)
        ]

    def _frame_rows(self, modality: Modality, value: Any) -> list[torch.Tensor | None] | None:
        width = self.definition.info.widths.get(modality)
        if value is None or width is None:
            return None
        single = getattr(value, "ndim", 0) == 2
        rows: list[torch.Tensor | None] = []
        for item in [value] if single else _items(modality, value):
            try:
                frames = None if item is None else np.asarray(item).astype(np.float32)
            except (ValueError, TypeError):
                kind = type(item).__name__
                raise UserError(
                    f"{modality} must be (L, {width}) numbers, got a {kind} of something else"
                ) from None
            if frames is not None and (frames.ndim != 2 or frames.shape[1] != width):
                raise UserError(
                    f"{modality} must be (L, {width}) as in the training data, got {frames.shape}"
                )
            rows.append(None if frames is None else torch.from_numpy(frames))
        return rows

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
            revision, cache_dir, force_download, local_files_only, token: as ``huggingface_hub``
                takes them.

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


def load_export(folder: Path) -> Predictor:
    """Read what ``save_pretrained`` wrote.

    Raises:
        UserError: a file is missing or damaged, or the weights do not fit the definition.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{folder}: expected an exported model with {CONFIG_FILE}, got: {error}"
        ) from None
    definition = ModelDefinition.from_dict(values)
    spec = definition.info.text_encoder
    tokenizer = None
    if definition.info.reads_sentences:
        source = str(folder / TEXT_ENCODER_FOLDER)
        tokenizer = Tokenizer(source, max_tokens=definition.max_text_tokens)
        spec = dataclasses.replace(spec, source=source, load_weights=False)
    info = dataclasses.replace(definition.info, text_encoder=spec)
    network = dataclasses.replace(definition, info=info).build_network()
    load_module(network, folder / WEIGHTS_FILE)
    pack_weights(network.eval())
    return Predictor(definition, network, tokenizer)


def load(run_or_hub_id: str | Path, *, revision: str | None = None) -> Predictor:
    """Load a trained network from a run's directory, an exported folder or the Hugging Face hub.

    Args:
        run_or_hub_id: ``runs/demo``, a folder that ``save_pretrained`` wrote, or ``user/name``.
        revision: branch, tag or commit on the hub.

    Returns:
        A predictor on the CPU.

    Raises:
        UserError: it is none of these, or damaged.
    """
    path = Path(run_or_hub_id)
    if path.is_dir():
        return load_export(path / EXPORT_FOLDER if (path / EXPORT_FOLDER).is_dir() else path)
    try:
        return Predictor.from_pretrained(str(run_or_hub_id), revision=revision)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{run_or_hub_id}: no such directory, and no such model could be fetched from the "
            f"Hugging Face hub ({reason})"
        ) from None


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


def _items(modality: Modality, value: Any) -> list[Any]:
    """B samples of one modality."""
    try:
        return list(value)
    except TypeError:
        kind = type(value).__name__
        raise UserError(f"{modality} must be one sample or a list of them, got {kind}") from None


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
