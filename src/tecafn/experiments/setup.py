"""From a config and a store to a scheme and its batches: what every kind of run begins with."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from tecafn.core.conventions import convention_named
from tecafn.core.errors import UserError, nearest_known
from tecafn.core.info import STORED_FEATURES, DataInfo, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.parallel import rank
from tecafn.core.registry import METHODS
from tecafn.core.scheme import Scheme
from tecafn.data.loader import BatchLoader
from tecafn.data.samples import DatasetDescription
from tecafn.data.statistics import column_statistics
from tecafn.data.store import SplitView, Store
from tecafn.data.text import HiddenStates, Tokenize, frames_of_texts
from tecafn.experiments.config import RunConfig
from tecafn.experiments.launched import launched
from tecafn.experiments.presence import check_text
from tecafn.experiments.text_cache import cached_states
from tecafn.layers.text_encoder import TextEncoder, Tokenizer
from tecafn.training.optimizers import refuse_unknown_groups
from tecafn.training.ranks import remember_peers

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Of text vectors, where any will do.
_SOME_WIDTH = 32
DEVICES = ("auto", "cpu", "cuda")


def open_fabric(device: str, precision: str) -> Fabric:
    """Lightning Fabric on ``device``, joined to the processes that torchrun or SLURM started.

    Raises:
        UserError: an unknown device, or one this machine does not have, or fewer than processes.
    """
    # Not at the top: it takes seconds to import, and one process that predicts needs none of it.
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    check_device(device)
    accelerator = kind_of_device(device)
    started = launched()
    if accelerator == "cuda" and started.num_here > torch.cuda.device_count():
        raise UserError(
            f"{started.num_here} processes were started on a machine with "
            f"{torch.cuda.device_count()} CUDA devices; start one for each, or use --device cpu"
        )
    alone = started.num_processes == 1
    fabric = Fabric(
        accelerator=accelerator,
        devices=started.num_here,
        num_nodes=started.num_machines,
        strategy="auto" if alone else "ddp",
        precision=precision,  # type: ignore[arg-type]
        # Otherwise Fabric would take any process inside a SLURM allocation for one of many.
        plugins=[LightningEnvironment()] if alone else [],
    )
    fabric.launch()
    remember_peers()
    return fabric


def open_device(device: str) -> torch.device:
    """Where a saved network predicts; processes that were started together are joined.

    Raises:
        UserError: as of ``open_fabric``.
    """
    if launched().num_processes > 1:
        joined: torch.device = open_fabric(device, "32-true").device
        return joined
    check_device(device)
    kind = kind_of_device(device)
    return torch.device(kind, 0) if kind == "cuda" else torch.device(kind)


def kind_of_device(device: str) -> str:
    """``auto`` as cpu or cuda."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str) -> None:
    """Refuse an unknown device, or one that this machine does not have.

    Raises:
        UserError: it is one of the two.
    """
    if device not in DEVICES:
        raise UserError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' was asked for, but torch finds no CUDA device here")


def describe_data(store: Store, train: SplitView, config: RunConfig) -> DataInfo:
    """What a network must know: widths, scale, and the statistics of ``train``'s real frames.

    Raises:
        UserError: none of the modalities in use is in the store, or the store lacks what the method
            needs.
    """
    check_text(store, train, config.modalities, config.text_encoder)
    check_needs(
        config.method,
        store,
        train,
        text_encoder=config.text_encoder,
        modalities=config.modalities,
    )
    stored = store.description.widths
    reads_features = config.text_encoder == STORED_FEATURES
    widths = {
        m: stored[m]
        for m in config.modalities
        if m in stored and (m != Modality.TEXT or reads_features)
    }
    if Modality.TEXT not in config.modalities and not widths:
        raise UserError(
            f"the dataset has {', '.join(sorted(stored)) or 'text alone'}; modalities in use are "
            f"{', '.join(config.modalities)}"
        )
    return DataInfo(
        widths=widths,
        modalities=config.modalities,
        statistics={
            m: column_statistics(train, m) for m in (Modality.AUDIO, Modality.VISION) if m in widths
        },
        task=store.description.task,
        label_range=store.description.label_range,
        num_classes=store.description.num_classes,
        features={m: s for m, s in store.description.features.items() if m in widths},
        class_names=store.description.class_names,
        text_encoder=config.text_encoder_spec(),
        num_train=len(train),
        single_frame=tuple(
            m
            for m in (Modality.AUDIO, Modality.VISION)
            if m in widths and train.lengths(m).max(initial=0) == 1
        ),
    )


def check_needs(
    name: str,
    store: Store,
    view: SplitView,
    *,
    text_encoder: str,
    modalities: Sequence[Modality] = tuple(Modality),
) -> None:
    """Refuse data without what the method needs beyond widths.

    Args:
        name: a registered method.
        store: what is known of the dataset.
        view: one of its splits.
        text_encoder: stored text vectors are aligned by their places, texts by their words.
        modalities: those in use; one alone needs no alignment.

    Raises:
        UserError: the method needs word-aligned frames and there are none.
    """
    needs = METHODS[name].needs
    assert set(needs) <= {"aligned"}, f"nobody checks what {name} needs: {needs}"
    reads_sentences = text_encoder != STORED_FEATURES
    present = [
        m
        for m in modalities
        if m in store.description.widths or (m == Modality.TEXT and reads_sentences)
    ]
    if not needs or len(present) < 2:
        return
    lacks = None
    if not store.description.aligned:
        lacks = "is not aligned"
    elif Modality.TEXT in present and reads_sentences and not any(view.column("words")):
        lacks = "does not say which words its frames are"
    if lacks:
        raise UserError(
            f"method {name!r} needs word-aligned frames (needs: aligned); {store.path} {lacks}: "
            "import an aligned source (csd with words, misa, mag; mmsa aligned_50 with "
            "text_encoder=features)"
        )


def token_frames(
    store: Store, view: SplitView, used: Sequence[Modality], tokenizer: Tokenizer | None
) -> list[NDArray[np.int64]] | None:
    """For each token of the view's texts its frame of audio and vision.

    Args:
        store: the dataset.
        view: one of its splits.
        used: the modalities that are loaded.
        tokenizer: None where text comes as stored vectors.

    Returns:
        N arrays; None where the dataset is not word-aligned, or text or frames are not in use.
    """
    if not store.description.aligned or Modality.TEXT not in used or len(used) == 1:
        return None
    return frames_of_texts(view, None if tokenizer is None else tokenizer.spans)


def token_contexts(
    view: SplitView, used: Sequence[Modality], tokenizer: Tokenizer | None
) -> list[NDArray[np.bool_]] | None:
    """For each token of the view's texts whether it was said before the utterance.

    Args:
        view: a split.
        used: the modalities that are loaded.
        tokenizer: None where text comes as stored vectors.

    Returns:
        N arrays; None where contexts, if any, are pooled with their texts.
    """
    if not view.context_utterances or tokenizer is None or Modality.TEXT not in used:
        return None
    return tokenizer.context_masks(view.texts, view.column("context"))


def check_monitor(config: RunConfig, description: DatasetDescription) -> None:
    """Refuse a validation metric that the dataset's convention does not have.

    Raises:
        UserError: the known ones are named.
    """
    rules = convention_named(description.convention)
    monitor = config.training.monitor
    if monitor not in rules.names:
        raise UserError(
            f"training.monitor {monitor!r} is not measured on {description.dataset}, a "
            f"{description.task} with the measures of {rules.name!r}: "
            f"{nearest_known(monitor, rules.names)}"
        )


def check_labels(store: Store, split: str, *, how: str) -> None:
    """Refuse a split with samples that have no label.

    Raises:
        UserError: it says how many, and ``how`` it may be mended.
    """
    labelled = store.split(split).labelled
    unlabelled = int((~labelled).sum())
    if unlabelled:
        raise UserError(
            f"split {split!r} of {store.path} has {unlabelled} of {len(labelled)} samples without "
            f"a label; {how}"
        )


def check_fits(config: RunConfig, store: Store) -> None:
    """Refuse a method that these data are not for.

    Raises:
        UserError: of another task or measure, without the text that it reads, or not aligned.
    """
    tasks, task = METHODS[config.method].tasks, store.description.task
    if task not in tasks:
        raise UserError(f"it does {' and '.join(tasks)}, the dataset is a {task}")
    check_monitor(config, store.description)
    train = store.split("train")
    encoder, modalities = config.text_encoder, config.modalities
    check_text(store, train, modalities, encoder)
    check_needs(config.method, store, train, text_encoder=encoder, modalities=modalities)


def check_groups(config: RunConfig, store: Store) -> None:
    """Refuse a learning rate of a group of parameters that the method does not have.

    The groups are those of a network that reads vectors in place of sentences: it is built in a
    moment, and without an encoder's memory. A method that reads sentences alone is not looked at.

    Raises:
        UserError: the known groups are named.
    """
    if set(config.training.learning_rates) <= {"text_encoder"}:  # which every method may have
        return
    widths = {Modality.TEXT: _SOME_WIDTH, **store.description.widths}
    info = DataInfo(
        widths={m: widths[m] for m in config.modalities if m in widths},
        modalities=config.modalities,
        task=store.description.task,
        label_range=store.description.label_range,
        num_classes=store.description.num_classes,
        text_encoder=TextEncoderSpec(source=STORED_FEATURES),
        num_train=1,
    )
    try:
        phases = METHODS[config.method].build(config.model, info).phases()
    except (UserError, ValueError):
        return
    refuse_unknown_groups(phases, config.training)


def build_scheme(config: RunConfig, info: DataInfo) -> Scheme:
    """The untrained scheme; the same for the same seed.

    Raises:
        UserError: the method cannot do the dataset's task, or its settings do not fit.
    """
    method = METHODS[config.method]
    if info.task not in method.tasks:
        raise UserError(
            f"method {config.method!r} does {' and '.join(method.tasks)}, "
            f"the dataset is a {info.task}"
        )
    torch.manual_seed(config.seed)
    try:
        return METHODS[config.method].build(config.model, info)
    except ValueError as error:
        raise UserError(f"method {config.method!r}: {error}") from None


@dataclass(frozen=True)
class Batches:
    """Makes loaders whose text is what the network's text encoder takes.

    Args:
        config: batch size, seed, modalities.
        info: which modalities the dataset has.
        tokenizer: None where text comes as stored vectors.
        encoder: the network's, or None.
        store: whose views are loaded; the states of frozen layers are cached beside it.
        device: where they are computed.
    """

    config: RunConfig
    info: DataInfo
    tokenizer: Tokenizer | None
    encoder: TextEncoder | None
    store: Store
    device: torch.device

    def loader(
        self, view: SplitView, *, whole: SplitView | None = None, shuffle: bool, labelled: bool
    ) -> BatchLoader:
        """Batches of ``view``.

        Args:
            view: the rows.
            whole: the view whose subset ``view`` is; its text is encoded as one.
            shuffle: for training.
            labelled: refuse unlabelled rows.
        """
        return BatchLoader(
            view,
            modalities=self.info.usable,
            batch_size=self.config.training.batch_size,
            seed=self.config.seed,
            shuffle=shuffle,
            text=self._text(whole or view),
            num_workers=self.config.training.num_workers,
            require_labels=labelled,
            frame_of_token=token_frames(self.store, view, self.info.usable, self.tokenizer),
            context_of_token=token_contexts(view, self.info.usable, self.tokenizer),
        )

    def _text(self, view: SplitView) -> Tokenize | HiddenStates | None:
        if self.tokenizer is None:
            return None
        if self.encoder is None or not self.encoder.is_partly_frozen:
            return self.tokenizer
        tokens = self.tokenizer(view.texts, view.column("context"))
        cache = self.store.path / "cache"
        return cached_states(self.encoder, tokens, cache_dir=cache, device=self.device)


def say_what_is_cut(
    view: SplitView, info: DataInfo, tokenizer: Tokenizer | None, *, max_text_tokens: int
) -> None:
    """One line per modality of a split whose samples do not fit the config's limits, with counts.

    Args:
        view: the split.
        info: which modalities are in use.
        tokenizer: None where text is not read.
        max_text_tokens: its limit.
    """
    if rank() != 0:
        return
    limit = view.max_frames
    for modality in (Modality.AUDIO, Modality.VISION):
        lengths = view.stored_lengths(modality)
        if limit is not None and modality in info.usable and (lengths > limit).any():
            _say_cut(view.name, modality, lengths, limit, "frames", "max_frames")
    if tokenizer is not None:
        lengths = tokenizer.uncut_lengths(view.texts, view.column("context"))
        if (lengths > max_text_tokens).any():
            _say_cut(view.name, "text", lengths, max_text_tokens, "tokens", "max_text_tokens")


def _say_cut(
    split: str, what: str, lengths: NDArray[np.int64], limit: int, unit: str, setting: str
) -> None:
    print(
        f"note: {split}: {what} of {int((lengths > limit).sum())} of {len(lengths)} samples is cut "
        f"at {setting} {limit}; the longest has {int(lengths.max())} {unit}",
        file=sys.stderr,
    )


@contextmanager
def memory_explained(*views: SplitView) -> Iterator[None]:
    """Let whatever lacks memory meanwhile say which clip is the longest.

    Args:
        views: the splits in use.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        clip = _longest_clip(views)
        if clip:
            error.add_note(clip)
        raise


def _longest_clip(views: Sequence[SplitView]) -> str:
    """Id and frames of the sample that has most.

    Example:
        >>> _longest_clip([])
        ''
    """
    found: list[tuple[int, str]] = []
    for view in views:
        lengths = {m: view.lengths(m) for m in view.widths if m != Modality.TEXT}
        if lengths:
            total = np.sum(list(lengths.values()), axis=0)
            row = int(total.argmax())
            parts = " and ".join(f"{own[row]} {m}" for m, own in lengths.items() if own[row])
            if parts:
                name = f"the longest clip, {view.ids[row]} of {view.name}, has {parts} frames"
                found.append((int(total[row]), name))
    return max(found)[1] if found else ""


@dataclass(frozen=True)
class Prepared:
    """An untrained scheme with its batches.

    Args:
        config: what both were made after.
        fabric: with the device.
        info: what the scheme knows of the data.
        convention: by which the data are measured.
        scheme: not trained yet.
        batches: makes the loaders that go with it.
    """

    config: RunConfig
    fabric: Fabric
    info: DataInfo
    convention: str
    scheme: Scheme
    batches: Batches


def prepare(config: RunConfig, store: Store, train_view: SplitView, fabric: Fabric) -> Prepared:
    """From a config and a store to a scheme and its batches.

    Args:
        config: of the run.
        store: its data.
        train_view: whose frames are standardised with.
        fabric: with the device.

    Raises:
        UserError: config, method and data do not fit one another.
    """
    check_monitor(config, store.description)
    info = describe_data(store, train_view, config)
    scheme = build_scheme(config, info)
    batches = prepare_batches(config, info, scheme, store, fabric.device)
    return Prepared(config, fabric, info, store.description.convention, scheme, batches)


def prepare_batches(
    config: RunConfig, info: DataInfo, scheme: Scheme, store: Store, device: torch.device
) -> Batches:
    """The loaders that go with ``scheme``.

    Raises:
        UserError: texts may be longer than the text encoder has positions for.
    """
    encoder = next((m for m in scheme.modules() if isinstance(m, TextEncoder)), None)
    longest = None if encoder is None else encoder.num_positions
    if longest is not None and config.max_text_tokens > longest:
        raise UserError(
            f"max_text_tokens must be at most {longest}, the positions that "
            f"text_encoder {config.text_encoder!r} has, got {config.max_text_tokens}"
        )
    tokenizer = (
        Tokenizer(config.text_encoder, max_tokens=config.max_text_tokens) if encoder else None
    )
    return Batches(config, info, tokenizer, encoder, store, device)
