"""A trained network that anybody can use: load it, give it text, audio and vision, get scores."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
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
from tecafn.core.batch import Batch, Padded
from tecafn.core.dataset_names import current_name
from tecafn.core.errors import UserError
from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.core.scheme import Network
from tecafn.core.weights import load_module, save_module
from tecafn.layers.encoder_source import hub_options
from tecafn.layers.text_encoder import TextEncoder, Tokenizer
from tecafn.serving.builtin import is_builtin, model_folder
from tecafn.serving.exported import DEFINITION_FILE
from tecafn.serving.inputs import ModelInput, PaddedArrays, read_samples, refuse_not_finite
from tecafn.serving.packed import pack_weights

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TEXT_ENCODER_FOLDER = "text_encoder"
EXPORT_FOLDER = "model"
# JSON, safetensors and word lists: nothing of this is executed.
SHARED_FILES = (
    CONFIG_FILE,
    WEIGHTS_FILE,
    "calibration.json",
    *(f"{TEXT_ENCODER_FOLDER}/*.{kind}" for kind in ("json", "txt", "model")),
)
_EXECUTABLE = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc")
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

    @property
    def model_input(self) -> ModelInput:
        """What it reads."""
        return ModelInput(
            takes=self.info.usable,
            widths=self.info.widths,
            method=self.method,
            is_aligned="aligned" in METHODS[self.method].needs,
            max_frames=self.max_frames,
            context_utterances=self.context_utterances,
        )

    @property
    def task(self) -> str:
        """Regression or classification."""
        return self.info.task

    @property
    def label_range(self) -> tuple[float, float]:
        """Lowest and highest label of a regression."""
        return self.info.label_range

    @property
    def num_classes(self) -> int:
        """Of a classification, else 1."""
        return self.info.num_classes

    @property
    def reads_sentences(self) -> bool:
        """Does text come as sentences?"""
        return self.info.reads_sentences

    @property
    def features(self) -> Mapping[Modality, FeatureSpec]:
        """How the frames were made, of the modalities whose data said so."""
        return self.info.features

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
                empty text, or one of white space and characters that nobody sees, is absent.
            audio: one (L, D) array of frames or B of them, as in the training data: NumPy,
                torch or nested lists, of any real type; of a masked array what is masked counts as
                NaN. None, for all or for one sample, says that
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
        samples = read_samples(
            self.definition.model_input,
            self.tokenizer,
            text=text,
            audio=audio,
            vision=vision,
            context=context,
            ignore_unused=ignore_unused,
        )
        for arrays in samples.batches(_BATCH_SIZE):
            yield _make_batch(arrays, samples.frame_of_token(arrays))

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
            allow_patterns=list(SHARED_FILES),
        )
        if revision is None:
            print(
                f"note: {pretrained_model_name_or_path} is at {Path(fetched).name} today; "
                f"{pretrained_model_name_or_path}@{Path(fetched).name} pins it",
                file=sys.stderr,
            )
        return load_export(Path(fetched))


def read_definition(folder: Path) -> ModelDefinition:
    """What the network in an exported folder is built from.

    Raises:
        UserError: the file is missing or damaged.
    """
    if (folder / DEFINITION_FILE).is_file() and not (folder / CONFIG_FILE).exists():
        raise UserError(
            f"{folder} is a graph, which `tecafn export` wrote: tecafn.onnx.load, `tecafn analyze` "
            "and `tecafn serve` run it; name the run that it was made of"
        )
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{folder}: expected an exported model with {CONFIG_FILE}, got: {error}"
        ) from None
    return ModelDefinition.from_dict(values)


def refuse_executable(folder: Path) -> None:
    """Refuse a model beside which lies what a program might execute: pickles and Python.

    Nothing here would read such a file; but whoever put it there meant it to be read.

    Raises:
        UserError: names the first.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _EXECUTABLE:
            raise UserError(
                f"{folder} holds {path.relative_to(folder)}, which could execute code when read; "
                f"a model is {CONFIG_FILE}, {WEIGHTS_FILE} and {TEXT_ENCODER_FOLDER}/: remove it"
            )


def load_export(folder: Path) -> Predictor:
    """Read what ``save_pretrained`` wrote; no code of its files is executed.

    Raises:
        UserError: a file is missing or damaged, the weights do not fit the definition, or a pickle
            or a program lies among them.
    """
    refuse_executable(folder)
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
            ``save_pretrained`` wrote, ``user/name``, or ``user/name@revision``.
        revision: branch, tag or commit on the hub. Without one a note says which commit it was.

    Returns:
        A predictor on the CPU.

    Raises:
        UserError: it is none of these, or damaged; or a revision is named of what is here.
    """
    if not isinstance(run_or_hub_id, str | os.PathLike):
        raise UserError(
            f"load needs a run, a model's folder or a name, got {type(run_or_hub_id).__name__}"
        )
    if is_builtin(run_or_hub_id) or Path(run_or_hub_id).is_dir():
        if revision is not None:
            raise UserError(
                f"revision={revision!r} is of a model on the hub; {run_or_hub_id} is "
                f"{'in the package' if is_builtin(run_or_hub_id) else 'a folder here'}"
            )
        return load_export(model_folder(run_or_hub_id))
    name, _, pinned = str(run_or_hub_id).partition("@")
    if pinned and revision is not None:
        raise UserError(f"{run_or_hub_id} names a revision, and revision={revision!r} another way")
    revision = revision or pinned or None
    is_local = bool(hub_options(name))
    try:
        return Predictor.from_pretrained(name, revision=revision, local_files_only=is_local)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{run_or_hub_id}: no such directory, and no such model could be fetched from the "
            f"Hugging Face hub ({reason})"
        ) from None


def hash_in_memory(predictor: Predictor) -> str:
    """SHA-256 of a network's weights, of one that was fetched and has no folder."""
    found = hashlib.sha256()
    for name, tensor in sorted(predictor.network.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return found.hexdigest()


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


def _make_batch(
    arrays: Mapping[Modality, PaddedArrays], frame_of_token: NDArray[np.int64] | None
) -> Batch:
    """Padded arrays as a batch; only modalities that some sample has."""
    sequences = {
        modality: Padded(
            torch.from_numpy(some.values),
            torch.from_numpy(some.mask),
            None if some.context is None else torch.from_numpy(some.context),
        )
        for modality, some in arrays.items()
    }
    size = next(iter(sequences.values())).mask.shape[0]
    return Batch(
        sequences=sequences,
        present={m: padded.mask.any(1) for m, padded in sequences.items()},
        labels=None,
        index=torch.arange(size),
        ids=[str(row) for row in range(size)],
        frame_of_token=None if frame_of_token is None else torch.from_numpy(frame_of_token),
    )
