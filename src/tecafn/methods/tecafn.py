"""TeCaFN: text-centered cross-sample fusion.

Huang et al., "Text-centered cross-sample fusion network for multimodal sentiment analysis",
Multimedia Systems 2024. With another core modality the same network is AeCaFN (audio) or VeCaFN
(vision) of Fig. 3.

The file reads like Sect. 3: settings (4.4), encoders (3.2.1), fusion and prediction (3.2.3, 3.3),
then the training scheme: similarity ranking (3.2.2), replacement gate and pairwise prediction
(3.2.3), fused contrast (3.2.4), objective (3.3). What the authors' public code does otherwise is
named in ``DIFFERENCES`` and lives in ``layers/authors.py`` and at the end of this file. Where we
depart on purpose is named in ``PARTS``; the variant ``revised`` has those of ``REVISED``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Batch, Padded
from tecafn.core.health import Reading, contrast_reading, head_reading
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import gather_rows, mean_over_rows, world_size
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.core.settings import select
from tecafn.layers.attention import Residual, Transformer, TransformerSettings
from tecafn.layers.authors import (
    AsTheAuthors,
    AuthorsFrameEncoder,
    AuthorsTextSequenceEncoder,
    FrozenGaussian,
    count_padding,
    misplaced_masks,
    token_means,
)
from tecafn.layers.dropout import Dropout
from tecafn.layers.encoders import FrameEncoder, TextSequenceEncoder, VectorEncoder
from tecafn.layers.heads import OutputKind, OutputLayer, PredictionHead
from tecafn.layers.sequence import MaskedConv1d, add_positions, concatenate_rows, masked_mean
from tecafn.layers.unimodal import GlobalBatchNorm, fill_absent_frames
from tecafn.layers.utterance import LastHidden
from tecafn.losses.contrastive import ContrastiveOutput, info_nce
from tecafn.losses.differences import difference_loss
from tecafn.losses.information import negative_log_density
from tecafn.losses.memory_bank import NegativeBank
from tecafn.losses.negatives import Pairing, hub_reading, sample_hard_negatives
from tecafn.losses.task import task_loss, task_rows

LETTER = {Modality.TEXT: "t", Modality.AUDIO: "a", Modality.VISION: "v"}

Difference = Literal[
    "mutual_information",
    "token_contrast",
    "no_lstm",
    "unmasked_self_attention",
    "pooled_padding",
    "padded_text",
    "unmasked_audio",
    "misplaced_masks",
    "own_among_hardest",
    "early_convolution",
    "scaled_inputs",
    "closing_norm",
]
DIFFERENCES: tuple[Difference, ...] = get_args(Difference)
"""What the authors' public code does otherwise than the paper, one name each; what has a setting of
its own (``residual``, ``output``) is not among them. docs/paper-and-code.md explains them."""

Part = Literal[
    "text_layers",
    "own_frames",
    "standardised_keys",
    "symmetric_contrast",
    "no_fused_contrast",
    "unexplained_contrast",
    "difference_loss",
    "joined_vector",
    "products",
    "unimodal_heads",
]
PARTS: tuple[Part, ...] = get_args(Part)
"""Where we depart from the paper on purpose, one name each; docs/paper-and-code.md has more."""

REVISED: tuple[Part, ...] = (
    "text_layers",
    "own_frames",
    "standardised_keys",
    "no_fused_contrast",
    "difference_loss",
    "joined_vector",
    "products",
)
"""The parts that the variant ``revised`` has."""

_SEEN_PADDING = "padding counts as frames, as in the authors' public code"
_SEEN_NEIGHBOURS = "masks reach the wrong samples, as in the authors' public code"
# Which parts of the contract (tecafn.testing) each difference breaks. The parts on absent
# modalities and on batches of one compare batches of different company, hence of other masks; a
# head that is given the empty mask of an absent modality sees padding.
_BREAKS: dict[Difference, dict[str, str]] = {
    "unmasked_self_attention": {"padding invisible": _SEEN_PADDING},
    "pooled_padding": {"padding invisible": _SEEN_PADDING, "absent modalities": _SEEN_PADDING},
    "unmasked_audio": {"padding invisible": _SEEN_PADDING},
    "misplaced_masks": {
        "padding invisible": _SEEN_NEIGHBOURS,
        "neighbours invisible": _SEEN_NEIGHBOURS,
        "batch of one": _SEEN_NEIGHBOURS,
        "absent modalities": _SEEN_NEIGHBOURS,
    },
}
_TEXT_PADDED_TO = 50  # tokens, in the authors' public code


@dataclass(frozen=True, kw_only=True)
class TeCaFNConfig:
    """Settings.

    Where a value may differ between the other modalities (Table 5 needs it), a mapping such as
    ``{audio = 0.0, vision = 0.7}`` stands for the single value.

    Args:
        variant: ``paper``, or ``authors`` for what the authors' public code computes: every one of
            ``DIFFERENCES``, the residual ``pre_norm`` and the output ``linear``; or ``revised`` for
            what we make of it: the parts of ``REVISED``.
        differences: some of ``DIFFERENCES`` alone, in the paper's variant, to measure each.
        parts: some of ``PARTS`` alone, in the paper's variant, or further ones in ``revised``.
        without: parts that ``revised`` is to do without.
        core: the modality that queries the others; text, or audio (AeCaFN), or vision (VeCaFN).
        dim: common width d of the sequences that are fused.
        num_heads: attention heads; divides ``dim``.
        num_layers: layers L of each cross-sample attention (eq. 11-12).
        num_unimodal_layers: layers of each unimodal transformer (eq. 2-3).
        unimodal_hidden_dim: width of the LSTM (eq. 4).
        text_kernel_size, frame_kernel_size: k_m of eq. 5 for text, and for audio and vision.
        swap_probability: p of the replacement gate.
        num_hard_negatives: how many of the most similar samples the gate draws from; "all" draws
            random partners (Table 5, "w/o Hardneg").
        bank_size: this many samples of earlier batches are kept as further hard negatives, never in
            a contrast; 0 = none. The paper has no such memory (its future work asks for one).
        bank_frames: frames kept of each of those; longer sequences are truncated at the end.
        swap_warmup_epochs: p rises to its value over so many epochs, from 0 in the first of them,
            so that the contrasts learn before the gate opens; 0 = at once.
        label_margin: a hard negative's label differs by at least this much; 0 = any. Scores only.
        num_token_layers: self-attention layers over the tokens, with ``text_layers``.
        num_similar: partners of each sample in the difference loss.
        product_dim: width of the products, with ``products``.
        temperature: tau of both contrasts.
        contrast_weight, pairwise_weight: lambda1 and lambda2 of eq. 19.
        weights: a term's own weight in place of those two; 0 drops it. Names: ``task``, the two
            unimodal contrasts (``ta``, ``tv``), ``bicon``, the pairwise terms (``tap``, ``tvp``);
            with another core its letter stands first (``at``, ``av``, ``atp``, ...). With
            ``mutual_information`` also ``cpc`` and ``ba``, 0.1 each; with ``difference_loss``
            ``difference``, 0.5; with ``unimodal_heads`` ``unimodal``, 0.3; with
            ``unexplained_contrast`` ``explained``, 1, which trains only what explains.
        residual: ``printed`` is ``f(LN(x)) + LN(x)`` as in eq. 2-3 and 11-12; ``pre_norm`` the
            usual ``x + f(LN(x))``. None = ``pre_norm`` for ``authors``, else ``printed``.
        fusion: z_s is the ``sum`` of the pooled fused sequences, or their ``concat``enation.
        output: ``tanh`` scaled to the label range (eq. 17 taken literally caps the score at 1), or
            ``linear``. None = ``linear`` for ``authors``, else ``tanh``.
        embedding_dropout, ..., mapper_dropout: probabilities.
    """

    variant: Literal["paper", "authors", "revised"] = "paper"
    differences: tuple[Difference, ...] = ()
    parts: tuple[Part, ...] = ()
    without: tuple[Part, ...] = ()
    core: Modality = Modality.TEXT
    dim: int = 30
    num_heads: int = 5
    num_layers: int = 6
    num_unimodal_layers: int = 6
    unimodal_hidden_dim: int = 32
    text_kernel_size: int = 1
    frame_kernel_size: int = 3
    swap_probability: float | dict[Modality, float] = 0.7
    num_hard_negatives: int | Literal["all"] | dict[Modality, int | Literal["all"]] = 3
    bank_size: int = 0
    bank_frames: int = 128
    swap_warmup_epochs: int = 0
    label_margin: float = 0.0
    num_token_layers: int = 2
    num_similar: int = 3
    product_dim: int = 16
    temperature: float = 0.1
    contrast_weight: float = 0.1
    pairwise_weight: float = 0.1
    weights: dict[str, float] = field(default_factory=dict)
    residual: Residual | None = None
    fusion: Literal["sum", "concat"] = "sum"
    output: OutputKind | None = None
    embedding_dropout: float = 0.25
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    head_dropout: float = 0.1
    mapper_dropout: float = 0.1

    def __post_init__(self) -> None:
        known = self._shared_weights()
        unknown = sorted(set(self.weights) - set(known))
        if unknown:
            raise ValueError(f"weights: unknown terms {unknown}; known: {', '.join(known)}")
        for modality in self.others:
            probability = self.swap_probability_for(modality)
            count = self.num_hard_negatives_for(modality)
            if not 0.0 <= probability <= 1.0:
                raise ValueError(f"swap_probability must be in [0, 1], got {probability}")
            if count is not None and count < 1:
                raise ValueError(f'num_hard_negatives must be >= 1 or "all", got {count}')
            if count == 1 and self.has("own_among_hardest"):
                raise ValueError(
                    "num_hard_negatives must be >= 2 with own_among_hardest, got 1: a sample that "
                    "is its own most similar one leaves no candidate (the authors' code fails)"
                )
        unknown = sorted(set(self.differences) - set(DIFFERENCES))
        if unknown:
            raise ValueError(f"differences: unknown {unknown}; known: {', '.join(DIFFERENCES)}")
        if self.variant == "authors" and self.differences:
            raise ValueError(
                "variant 'authors' has every difference already; give one or the other"
            )
        self._check_parts()
        if self.bank_size < 0 or self.bank_frames < 1:
            raise ValueError(
                "bank_size must be >= 0 and bank_frames >= 1, "
                f"got {self.bank_size} and {self.bank_frames}"
            )

    def _check_parts(self) -> None:
        for name in ("parts", "without"):
            given: tuple[str, ...] = getattr(self, name)
            unknown = sorted(set(given) - set(PARTS))
            if unknown:
                raise ValueError(f"{name}: unknown {unknown}; known: {', '.join(PARTS)}")
        if self.parts and self.variant == "authors":
            raise ValueError("variant 'authors' has no parts; they are ours, not the authors'")
        lacking = sorted(set(self.without) - set(REVISED if self.variant == "revised" else ()))
        if lacking:
            raise ValueError(f"without: variant {self.variant!r} does not have {lacking}")
        if self.adds("no_fused_contrast") and self.adds("unexplained_contrast"):
            raise ValueError(
                "unexplained_contrast is a fused contrast, which no_fused_contrast leaves out: "
                "give one, or without=['no_fused_contrast']"
            )
        if self.adds("unexplained_contrast") and self.has("token_contrast"):
            raise ValueError("token_contrast compares positions, unexplained_contrast samples")
        at_least = {
            "swap_warmup_epochs": 0,
            "label_margin": 0,
            "num_token_layers": 1,
            "num_similar": 1,
            "product_dim": 1,
        }
        for name, least in at_least.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")

    def adds(self, part: Part) -> bool:
        """Is this part of ours on?"""
        revised = self.variant == "revised" and part in REVISED and part not in self.without
        return revised or part in self.parts

    def has(self, difference: Difference) -> bool:
        """Is this difference of the authors' code on?"""
        return self.variant == "authors" or difference in self.differences

    def known_violations(self) -> dict[str, str]:
        """Parts of the contract that these settings break, and why."""
        broken: dict[str, str] = {}
        for difference, parts in _BREAKS.items():
            is_moot = difference == "unmasked_audio" and self.core == Modality.AUDIO
            if self.has(difference) and not is_moot:
                broken |= parts
        return broken

    @property
    def residual_form(self) -> Residual:
        """``residual``, or what the variant has."""
        return self.residual or ("pre_norm" if self.variant == "authors" else "printed")

    @property
    def output_form(self) -> OutputKind:
        """``output``, or what the variant has."""
        return self.output or ("linear" if self.variant == "authors" else "tanh")

    @property
    def transformer(self) -> TransformerSettings:
        """Of every transformer."""
        return select(
            self,
            TransformerSettings,
            residual=self.residual_form,
            closing_norm=self.has("closing_norm"),
        )

    @property
    def frame_encoder(self) -> Callable[..., nn.Module]:
        """What makes the encoder of audio or vision (eq. 1-5)."""
        differences = AsTheAuthors(
            no_lstm=self.has("no_lstm"),
            early_convolution=self.has("early_convolution"),
            scaled_inputs=self.has("scaled_inputs"),
            unmasked=self.has("unmasked_self_attention"),
        )
        if differences == AsTheAuthors():
            return FrameEncoder
        return partial(AuthorsFrameEncoder, differences=differences)

    @property
    def sequence_encoder(self) -> Callable[..., nn.Module]:
        """What makes the encoder of text."""
        if not self.has("padded_text"):
            return TextSequenceEncoder
        return partial(AuthorsTextSequenceEncoder, padded_to=_TEXT_PADDED_TO)

    @property
    def frames_to_pool(self) -> Callable[[Padded], Padded]:
        """Which frames count in a mean: the real ones, as they come."""
        return count_padding if self.has("pooled_padding") else _as_it_is

    @property
    def others(self) -> tuple[Modality, ...]:
        """The two modalities that the core queries."""
        return tuple(m for m in Modality if m != self.core)

    def swap_probability_for(self, other: Modality) -> float:
        """The probability p for a modality; one that a mapping leaves out is never replaced."""
        p = self.swap_probability
        return p.get(other, 0.0) if isinstance(p, dict) else p

    def swap_in(self, epoch: int, other: Modality) -> float:
        """The probability p for a modality in an epoch, counted from 0."""
        warmup = self.swap_warmup_epochs
        return self.swap_probability_for(other) * (min(1.0, epoch / warmup) if warmup else 1.0)

    def num_hard_negatives_for(self, other: Modality) -> int | None:
        """How many samples the gate draws from; None = every other sample of the batch."""
        num = self.num_hard_negatives
        count = num.get(other, 3) if isinstance(num, dict) else num
        return None if count == "all" else count

    def pair(self, other: Modality) -> str:
        """``ta`` for text and audio: how the paper names a term of that pair."""
        return LETTER[self.core] + LETTER[other]

    def term_weights(self) -> dict[str, float]:
        """The weight of every term of eq. 19."""
        return self._shared_weights() | self.weights

    def _shared_weights(self) -> dict[str, float]:
        weights = {"task": 1.0, "bicon": self.contrast_weight}
        weights |= {self.pair(m): self.contrast_weight for m in self.others}
        weights |= {self.pair(m) + "p": self.pairwise_weight for m in self.others}
        if self.adds("no_fused_contrast"):
            del weights["bicon"]
        if self.adds("unexplained_contrast"):
            weights["explained"] = 1.0
        if self.adds("difference_loss"):
            weights["difference"] = 0.5
        if self.adds("unimodal_heads"):
            weights["unimodal"] = 0.3
        if self.has("mutual_information"):
            weights |= {"cpc": 0.1, "ba": 0.1}
        return weights


def _as_it_is(sequence: Padded) -> Padded:
    return sequence


class TeCaFN(Network):
    """The inference path: every sample is fused with itself.

    ``encode``, ``attend`` and ``combine`` are what the scheme composes with replaced rows.
    """

    def __init__(self, config: TeCaFNConfig, info: DataInfo) -> None:
        super().__init__()
        if world_size() > 1 and (config.known_violations() or config.has("token_contrast")):
            raise ValueError(
                "what the authors' code computes depends on the batch as one process sees it; "
                f"train and evaluate this variant in one process, got {world_size()}"
            )
        self.core = config.core
        self.config = config
        self.encoders = nn.ModuleDict()
        # A modality of one frame a sample: softmax over one key can select nothing.
        self.joined = tuple(
            m
            for m in info.usable
            if config.adds("joined_vector") and m in info.single_frame and m != config.core
        )
        for modality in info.usable:
            if modality == Modality.TEXT:
                self.encoders[modality] = config.sequence_encoder(
                    info,
                    dim=config.dim,
                    kernel_size=1 if config.has("early_convolution") else config.text_kernel_size,
                    transformer=self._text_layers(config),
                )
            elif modality in self.joined:
                self.encoders[modality] = VectorEncoder(
                    info.widths[modality], info.statistics.get(modality), dim=config.dim
                )
            else:
                self.encoders[modality] = config.frame_encoder(
                    info.widths[modality],
                    info.statistics.get(modality),
                    dim=config.dim,
                    transformer=config.transformer,
                    num_layers=config.num_unimodal_layers,
                    hidden_dim=config.unimodal_hidden_dim,
                    kernel_size=config.frame_kernel_size,
                    embedding_dropout=config.embedding_dropout,
                )
        self.others = tuple(m for m in config.others if m in self.encoders)
        self.joins = nn.ModuleDict(
            {m: nn.Linear(config.dim, config.dim) for m in self.others if m in self.joined}
        )
        self.attention = nn.ModuleDict(
            {
                m: Transformer(
                    config.dim, config.transformer, num_layers=config.num_layers, cross=True
                )
                for m in self.others
                if m not in self.joined
            }
        )
        self.frames_to_pool = config.frames_to_pool
        if config.has("scaled_inputs"):  # positions enter here, too
            self.entry_dropout = Dropout(config.embedding_dropout)
        self.usual_others = config.others
        self.absent_core = nn.Parameter(torch.randn(config.dim) * config.dim**-0.5)
        slots = len(config.others) if config.fusion == "concat" else 1
        self.absent_slots = (
            nn.ParameterDict({m: torch.zeros(config.dim) for m in config.others})
            if config.fusion == "concat"
            else None
        )
        self.product = (
            Product(config.dim, slots * config.dim, product_dim=config.product_dim)
            if config.adds("products") and len(self.others) == 2
            else None
        )
        self.head = PredictionHead(
            slots * config.dim, info, dropout=config.head_dropout, output=config.output_form
        )

    @staticmethod
    def _text_layers(config: TeCaFNConfig) -> Transformer | None:
        """Operations between the tokens of a text, which eq. 1-5 leave to the text encoder."""
        if not config.adds("text_layers"):
            return None
        settings = replace(config.transformer, residual="pre_norm", closing_norm=True)
        return Transformer(config.dim, settings, num_layers=config.num_token_layers)

    def encode(self, batch: Batch) -> dict[Modality, Padded]:
        """X_m of eq. 5 for each modality the batch has, and always one for the core.

        An absent core is a learned one-frame sequence: (B, L, d) with only its first frame real.
        """
        encoded = {
            m: self.encoders[m](batch.sequences[m]) for m in Modality if self.takes(m, batch)
        }
        core = encoded.get(self.core)
        encoded[self.core] = fill_absent_frames(core, self.absent_core, batch.has(self.core))
        return encoded

    def takes(self, modality: Modality, batch: Batch) -> bool:
        """Is this modality in use, and does the batch have its tensors?"""
        return modality in self.encoders and modality in batch.sequences

    def attend(self, modality: Modality, core: Padded, other: Padded) -> Padded:
        """h_cm of eq. 11-12: the core's frames query those of ``modality``, (B, Lc, d).

        A joined modality's vector is added to every frame of the core.
        """
        if modality in self.joined:
            vector = self.joins[modality](masked_mean(other.values, other.mask))
            return Padded(core.values + vector.unsqueeze(1), core.mask)
        query, source, mask = core.values, other.values, other.mask
        if self.config.has("scaled_inputs"):
            scale = self.config.dim**0.5
            query, source = (
                self.entry_dropout(add_positions(x, scale=scale)) for x in (query, source)
            )
        if self.config.has("misplaced_masks"):
            mask = misplaced_masks(mask, num_heads=self.config.num_heads)
        read = self.frames_to_pool(core).mask
        return Padded(self.attention[modality](query, source, mask, stream_mask=read), core.mask)

    def pool(self, sequence: Padded) -> Tensor:
        """``Pool`` of eq. 13, (B, L, d) to (B, d)."""
        counted = self.frames_to_pool(sequence)
        return masked_mean(counted.values, counted.mask)

    def combine(
        self,
        core: Padded,
        attended: Mapping[Modality, Padded],
        present: Mapping[Modality, Tensor],
    ) -> Output:
        """Pool the fused sequences that are present and predict (eq. 17).

        Args:
            core: X_c, which stands in where no other modality is present.
            attended: h_cm by modality.
            present: (B,) bool by modality.
        """
        alone = self.pool(core)
        pooled = {m: self.pool(h) for m, h in attended.items()}
        has = {m: present[m].unsqueeze(1) for m in pooled}
        count = sum((h.to(alone.dtype) for h in has.values()), alone.new_zeros(alone.shape[0], 1))
        if self.absent_slots is None:
            total = sum(
                (torch.where(has[m], pooled[m], 0.0) for m in pooled), torch.zeros_like(alone)
            )
            usual = len(self.usual_others)
            fused = torch.where(count > 0, total * (usual / count.clamp(min=1)), alone)
        else:
            slots = [
                torch.where(has[m], pooled[m], self.absent_slots[m])
                if m in pooled
                else self.absent_slots[m].expand_as(alone)
                for m in self.usual_others
            ]
            twice = torch.cat([alone] * len(slots), dim=1)
            fused = torch.where(count > 0, torch.cat(slots, dim=1), twice)
        if self.product is not None and len(pooled) == 2:
            both = torch.stack(list(has.values())).all(0)
            fused = fused + torch.where(both, self.product(*pooled.values()), 0.0)
        hidden = self.head.hidden(fused)
        features = {"fused": fused, "hidden": hidden}
        features |= {f"pooled_{m}": vector for m, vector in pooled.items()}
        return Output(self.head.answer(hidden), features)  # eq. 17

    def forward(self, batch: Batch) -> Output:
        """Predict each sample from its own modalities."""
        encoded = self.encode(batch)
        if self.config.has("unmasked_audio") and Modality.AUDIO in self.others:
            # That code hands the mask over under the wrong name, in evaluation alone.
            encoded |= {m: count_padding(x) for m, x in encoded.items() if m == Modality.AUDIO}
        core = encoded[self.core]
        attended = {m: self.attend(m, core, encoded[m]) for m in self.others if m in encoded}
        return self.combine(core, attended, batch.present)


class Product(nn.Module):
    """What two fused vectors say together: the product of ``product_dim`` projections of each.

    A sum of vectors through an MLP has to make up every product of what two modalities say; here it
    is offered one.

    Args:
        dim: width of either.
        out_dim: width of the answer.
        product_dim: number of products.
    """

    def __init__(self, dim: int, out_dim: int, *, product_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, product_dim)
        self.second = nn.Linear(dim, product_dim)
        self.output = nn.Linear(product_dim, out_dim)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two of (B, dim) to (B, out_dim)."""
        answer: Tensor = self.output(self.first(first) * self.second(second))
        return answer


class Mapper(nn.Module):
    """f and g of eq. 6 and 15: a depth-wise convolution, then mean pooling.

    Args:
        dim: width d.
        dropout: of the convolution's input.
        frames_to_pool: says which frames are read.
    """

    def __init__(
        self,
        dim: int,
        *,
        dropout: float,
        frames_to_pool: Callable[[Padded], Padded] = _as_it_is,
    ) -> None:
        super().__init__()
        self.frames_to_pool = frames_to_pool
        self.dropout = Dropout(dropout)
        self.convolution = MaskedConv1d(dim, dim, kernel_size=3, depthwise=True)

    def forward(self, sequence: Padded) -> Tensor:
        """(B, L, d) to (B, d)."""
        sequence = self.frames_to_pool(sequence)
        values = self.convolution(self.dropout(sequence.values), sequence.mask)
        return masked_mean(values, sequence.mask)


@dataclass(frozen=True)
class _Judged:
    """What a pairwise head looks at.

    Args:
        pooled: (R, d) of fused sequences.
        is_own: (R,) int64, 1 = fused with its own frames: the pseudo-target.
        counts: (R,) bool, rows that have both modalities.
    """

    pooled: Tensor
    is_own: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Remembered:
    """What a bank keeps of a batch.

    Args:
        keys: (B, d), what queries are compared with.
        frames: (B, L, d), X_m.
        present: (B,) bool, rows with the core and this modality.
    """

    keys: Tensor
    frames: Padded
    present: Tensor


class TeCaFNScheme(Scheme):
    """The training: similarity ranking, replacement gate, pairwise prediction, fused contrast."""

    network: TeCaFN

    def __init__(self, config: TeCaFNConfig, info: DataInfo) -> None:
        super().__init__()
        self.config = config
        self.network = TeCaFN(config, info)

        def mappers() -> nn.ModuleDict:
            return nn.ModuleDict(
                {
                    m: Mapper(
                        config.dim,
                        dropout=config.mapper_dropout,
                        frames_to_pool=config.frames_to_pool,
                    )
                    for m in self.network.others
                }
            )

        # f1 belongs to a pair (core, m), as f2 does: "corresponding Conv1D mappers" (Sect. 3.2.2).
        self.core_mappers = mappers()
        self.other_mappers = mappers()
        maps_fused = (
            len(self.network.others) == 2
            and not config.has("token_contrast")
            and not config.adds("no_fused_contrast")
        )
        self.fused_mappers = mappers() if maps_fused else nn.ModuleDict()
        self.pair_heads = nn.ModuleDict({m: nn.Linear(config.dim, 2) for m in self.network.others})
        self.standardise = nn.ModuleDict()
        if config.adds("standardised_keys"):
            self.standardise = nn.ModuleDict(
                {
                    f"{side}_{m}": GlobalBatchNorm(config.dim, affine=False)
                    for m in self.network.others
                    for side in ("query", "key")
                }
            )
        self.explaining = nn.ModuleDict()
        if maps_fused and config.adds("unexplained_contrast"):
            self.explaining = nn.ModuleDict(
                {m: nn.Linear(config.dim, config.dim) for m in self.network.others}
            )
        self.unimodal_heads = nn.ModuleDict()
        if config.adds("unimodal_heads"):
            self.unimodal_heads = nn.ModuleDict(
                {m: OutputLayer(config.dim, info, output="linear") for m in self.network.encoders}
            )
        self.banks = nn.ModuleDict(
            {
                m: NegativeBank(config.bank_size, num_frames=config.bank_frames, dim=config.dim)
                for m in self.network.others
                if config.bank_size
            }
        )
        self.information = (
            MutualInformation(config, self.network)
            if config.has("mutual_information") and config.core in self.network.encoders
            else None
        )

    def loss(self, batch: Batch, progress: Progress) -> Losses:
        """All terms of eq. 19 for one batch, and those of our parts that are on."""
        config, network = self.config, self.network
        encoded = network.encode(batch)
        core = encoded[config.core]
        core_present = self._core_present(batch)
        terms: dict[str, Tensor] = {}
        health: dict[str, Reading] = {}
        attended: dict[Modality, Padded] = {}
        pair_hits: list[Tensor] = []
        both: dict[Modality, Tensor] = {}
        remembered: dict[Modality, Remembered] = {}

        for modality in network.others:
            if modality not in encoded:
                continue
            other, pair = encoded[modality], config.pair(modality)
            both[modality] = core_present & batch.present[modality]
            query, key = self._mapped(modality, core, other, both[modality])
            contrast = info_nce(
                query, key, present=both[modality], temperature=config.temperature
            )  # eq. 6-7
            terms[pair] = contrast.loss
            if config.adds("symmetric_contrast"):
                back = info_nce(key, query, present=both[modality], temperature=config.temperature)
                terms[pair] = (contrast.loss + back.loss) / 2
            pairing = self._replace(modality, query, contrast, both[modality], batch, progress)
            fused, judged = self._attend(modality, core, other, pairing, both[modality])
            attended[modality] = fused
            logits = self.pair_heads[modality](judged.pooled)  # eq. 13
            rows = functional.cross_entropy(logits, judged.is_own, reduction="none")
            terms[pair + "p"] = mean_over_rows(rows, judged.counts)  # eq. 14
            hits = (logits.detach().argmax(1) == judged.is_own).to(rows.dtype)
            pair_hits.append(mean_over_rows(hits, judged.counts))
            health |= self._health(modality, terms, contrast, pairing, progress)
            if self.bank_for(modality) is not None:
                remembered[modality] = Remembered(key, other, both[modality])

        if len(attended) == 2 and not config.adds("no_fused_contrast"):
            complete = torch.stack(list(both.values())).all(0)
            fused_terms, reading = self._fused_contrast(core, attended, complete)
            terms |= fused_terms
            health["bicon"] = reading

        output = network.combine(core, attended, batch.present)
        terms["task"] = task_loss(output.prediction, batch.labels)  # eq. 18
        if self.information is not None and network.takes(config.core, batch):
            terms |= self.information(encoded, output, batch.present)
        terms |= self._further_terms(encoded, output, batch)
        log = self._log(terms, pair_hits)
        return Losses(terms, config.term_weights(), output, log, health, carry=remembered)

    def _core_present(self, batch: Batch) -> Tensor:
        """(B,) bool: rows that have a core which the network can read."""
        if self.network.takes(self.config.core, batch):
            return batch.present[self.config.core]
        return torch.zeros(batch.size, dtype=torch.bool, device=batch.device)

    def keys(self, batch: Batch) -> dict[Modality, tuple[Tensor, Tensor, Tensor]]:
        """What the gate ranks by: of each modality q and k, (B, d) each, and who has both, (B,)."""
        encoded = self.network.encode(batch)
        core, found = encoded[self.config.core], {}
        core_present = self._core_present(batch)
        for modality in self.network.others:
            if modality in encoded:
                both = core_present & batch.present[modality]
                found[modality] = (*self._mapped(modality, core, encoded[modality], both), both)
        return found

    def _mapped(
        self, modality: Modality, core: Padded, other: Padded, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The vectors q and k of eq. 6, (B, d) each; standardised, they share no direction."""
        query, key = self.core_mappers[modality](core), self.other_mappers[modality](other)
        if self.standardise:
            query = self.standardise[f"query_{modality}"](query, present)
            key = self.standardise[f"key_{modality}"](key, present)
        return query, key

    def _attend(
        self, modality: Modality, core: Padded, other: Padded, pairing: Pairing, present: Tensor
    ) -> tuple[Padded, _Judged]:
        """What is fused for the score, and what the pairwise head judges.

        With ``own_frames`` the score is of a sample's own frames; the rows that the gate draws are
        fused once more, with the hard negative's frames, for the head alone.
        """
        network = self.network
        if not self.config.adds("own_frames"):
            fused = network.attend(modality, core, self._partners(modality, other, pairing))
            target = pairing.matched.long()
            return fused, _Judged(network.pool(fused), target, present)
        fused = network.attend(modality, core, other)  # eq. 8-12
        drawn = (~pairing.matched & present).nonzero().squeeze(1)
        # Every process takes part in gathering, forward and backward, if none of its rows drew.
        partners = self._partners(modality, other, pairing).select(drawn)
        replaced = network.attend(modality, core.select(drawn), partners)
        pooled = torch.cat([network.pool(fused), network.pool(replaced)])
        is_own = torch.ones(len(present) + len(drawn), dtype=torch.int64, device=present.device)
        is_own[len(present) :] = 0
        counts = torch.cat([present, present.new_ones(len(drawn))])
        return fused, _Judged(pooled, is_own, counts)

    def _fused_contrast(
        self, core: Padded, attended: Mapping[Modality, Padded], rows: Tensor
    ) -> tuple[dict[str, Tensor], Reading]:
        """``bicon`` of eq. 15-16, and ``explained`` where the text's share is taken out first."""
        config, terms = self.config, {}
        if config.has("token_contrast"):
            pooled = map(self.network.frames_to_pool, attended.values())
            (first, second), rows = token_means(pooled, rows)
        else:
            mapped = {m: self.fused_mappers[m](h) for m, h in attended.items()}
            if self.explaining:
                said = self.network.pool(core).detach()
                guesses = {m: self.explaining[m](said) for m in mapped}
                errors = [
                    mean_over_rows((guesses[m] - h.detach()).square().mean(1), rows)
                    for m, h in mapped.items()
                ]
                terms["explained"] = torch.stack(errors).sum()
                mapped = {m: h - guesses[m].detach() for m, h in mapped.items()}
            first, second = mapped.values()
        contrasts = [
            info_nce(a, b, present=rows, temperature=config.temperature)
            for a, b in ((first, second), (second, first))
        ]
        terms["bicon"] = contrasts[0].loss + contrasts[1].loss
        reading = contrast_reading(terms["bicon"] / 2, contrasts[0].candidates)
        return terms, reading

    def _further_terms(
        self, encoded: Mapping[Modality, Padded], output: Output, batch: Batch
    ) -> dict[str, Tensor]:
        """``difference`` and ``unimodal``."""
        terms: dict[str, Tensor] = {}
        labels = batch.labels
        assert labels is not None, "the task's loss has refused such a batch"
        text = encoded.get(Modality.TEXT)
        if self.config.adds("difference_loss") and labels.is_floating_point():
            if text is None or Modality.TEXT not in batch.present:
                terms["difference"] = output.prediction.new_zeros(())
            else:
                terms["difference"] = difference_loss(
                    output.prediction,
                    labels,
                    masked_mean(text.values, text.mask),
                    present=batch.present[Modality.TEXT],
                    num_similar=self.config.num_similar,
                )
        if self.unimodal_heads:
            errors = [
                mean_over_rows(
                    task_rows(head(self.network.pool(encoded[Modality(m)])), labels),
                    batch.present[Modality(m)],
                )
                for m, head in self.unimodal_heads.items()
                if m in batch.sequences
            ]
            zero = output.prediction.new_zeros(())
            terms["unimodal"] = sum(errors, zero)
        return terms

    def _health(
        self,
        modality: Modality,
        terms: Mapping[str, Tensor],
        contrast: ContrastiveOutput,
        pairing: Pairing,
        progress: Progress,
    ) -> dict[str, Reading]:
        """Has the contrast learned anything, has the head, and are hard negatives hubs?"""
        config, pair = self.config, self.config.pair(modality)
        health = {pair: contrast_reading(terms[pair], contrast.candidates)}
        p = config.swap_in(progress.epoch, modality)
        if 0.0 < p < 1.0 or (p and config.adds("own_frames")):
            share = 1 / (1 + p) if config.adds("own_frames") else 1 - p
            health[pair + "p"] = head_reading(terms[pair + "p"], share)
        if p and config.num_hard_negatives_for(modality) is not None:
            health[f"{pair} hubs"] = hub_reading(pairing)
        return health

    def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
        """Remember the batch as candidates for later ones."""
        remembered: Mapping[Modality, Remembered] = losses.carry
        for modality, rows in remembered.items():
            bank = self.bank_for(modality)
            if bank is not None:
                bank.push(rows.keys, rows.frames, batch.index, rows.present)

    def bank_for(self, modality: Modality) -> NegativeBank | None:
        """The memory of this modality's earlier samples; None without ``bank_size``."""
        if modality not in self.banks:
            return None
        bank = self.banks[modality]
        assert isinstance(bank, NegativeBank)
        return bank

    def _replace(
        self,
        modality: Modality,
        query: Tensor,
        contrast: ContrastiveOutput,
        taking_part: Tensor,
        batch: Batch,
        progress: Progress,
    ) -> Pairing:
        """Similarity ranking and the replacement gate (Algorithm 1, Table 2).

        Columns are the global batch, then the bank, whose keys no contrast ever sees.
        """
        config = self.config
        # A row that takes no part keeps its own frames: it sees no candidates.
        similarity = contrast.similarity
        candidates = contrast.candidates & taking_part.unsqueeze(1)
        if config.label_margin and batch.labels is not None and batch.labels.is_floating_point():
            apart = (batch.labels.unsqueeze(1) - gather_rows(batch.labels)).abs()
            candidates = candidates & (apart >= config.label_margin)
        bank = self.bank_for(modality)
        if bank is not None:
            further = bank.candidates(batch.index) & taking_part.unsqueeze(1)
            similarity = torch.cat([similarity.detach(), bank.similarity(query)], dim=1)
            candidates = torch.cat([candidates, further], dim=1)
        return sample_hard_negatives(
            similarity,
            batch.index,
            positive=contrast.positive,
            candidates=candidates,
            swap_probability=config.swap_in(progress.epoch, modality),
            num_hard_negatives=config.num_hard_negatives_for(modality),
            seed=progress.seed,
            epoch=progress.epoch,
            stream=list(Modality).index(modality),
            own_among_hardest=config.has("own_among_hardest"),
        )

    def _partners(self, modality: Modality, other: Padded, pairing: Pairing) -> Padded:
        """The frames each core sample is fused with: of the global batch, or of the bank."""
        gathered = Padded(gather_rows(other.values), gather_rows(other.mask))
        column = pairing.column
        bank = self.bank_for(modality)
        if bank is not None:
            size = len(gathered.mask)
            from_bank = column >= size
            if bool(from_bank.any()):
                stored = bank.take(column[from_bank] - size)
                stored = Padded(stored.values.to(gathered.values.dtype), stored.mask)
                column = column.clone()
                column[from_bank] = size + torch.arange(len(stored.mask), device=column.device)
                gathered = concatenate_rows(gathered, stored)
        return gathered.select(column)

    def _log(self, terms: Mapping[str, Tensor], pair_hits: list[Tensor]) -> dict[str, Tensor]:
        """The sums that Figure 4 draws, and how often the pairwise heads are right."""
        zero = terms["task"].new_zeros(())
        pairs = [self.config.pair(m) for m in self.config.others]
        con = [terms[name].detach() for name in (*pairs, "bicon") if name in terms]
        pairwise = [terms[name + "p"].detach() for name in pairs if name + "p" in terms]
        log = {"con": sum(con, zero), "ap": sum(pairwise, zero)}
        if pair_hits:
            log["pair_accuracy"] = torch.stack(pair_hits).mean()
        return log


class MutualInformation(nn.Module):
    """Two terms that the authors' loss has and eq. 19 lacks, left over from MMIM (Han et al. 2021).

    ``cpc``: from the prediction head's last hidden layer each modality's vector is predicted, and
    found among the batch (cosine, no temperature). ``ba``: the Barber-Agakov bound between the
    core's vector and each other modality's. A core's vector is its first frame, [CLS] of a text.

    Args:
        config: widths.
        network: the modalities in use.
    """

    def __init__(self, config: TeCaFNConfig, network: TeCaFN) -> None:
        super().__init__()
        self.core, self.others = config.core, network.others
        answer = network.head.layers[-1]
        assert isinstance(answer, nn.Linear)
        modalities = (self.core, *self.others)
        self.predictors = nn.ModuleDict(
            {m: nn.Linear(answer.in_features, config.dim) for m in modalities}
        )
        self.summaries = nn.ModuleDict(
            {m: LastHidden(config.dim, config.unimodal_hidden_dim, config.dim) for m in self.others}
        )
        self.bounds = nn.ModuleDict({m: FrozenGaussian(config.dim) for m in self.others})

    def forward(
        self,
        encoded: Mapping[Modality, Padded],
        output: Output,
        present: Mapping[Modality, Tensor],
    ) -> dict[str, Tensor]:
        """``cpc`` and ``ba``, sums over modalities.

        Args:
            encoded: X_m by modality.
            output: of the network; ``hidden`` is among its features.
            present: (B,) bool by modality.
        """
        vectors = {self.core: encoded[self.core].values[:, 0]}
        vectors |= {m: self.summaries[m](encoded[m]) for m in self.others if m in encoded}
        hidden = output.features["hidden"]
        cpc = [
            info_nce(vector, self.predictors[m](hidden), present=present[m], temperature=1.0).loss
            for m, vector in vectors.items()
        ]
        core = vectors.pop(self.core)
        ba = []
        for m, vector in vectors.items():
            mean, log_variance = self.bounds[m](core)
            both = present[self.core] & present[m]
            ba.append(negative_log_density(mean, log_variance, vector, present=both))
        zero = hidden.new_zeros(())
        return {"cpc": sum(cpc, zero), "ba": sum(ba, zero)}


METHODS.register(
    "tecafn",
    Method(
        config=TeCaFNConfig,
        build=TeCaFNScheme,
        paper="Huang et al., Text-centered cross-sample fusion network for multimodal "
        "sentiment analysis, Multimedia Systems 2024",
        summary="text-centered attention to hard negatives of other samples, two contrasts",
        known_violations=TeCaFNConfig.known_violations,
    ),
)
