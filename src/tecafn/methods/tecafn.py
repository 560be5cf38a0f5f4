"""TeCaFN: text-centered cross-sample fusion.

Huang et al., "Text-centered cross-sample fusion network for multimodal sentiment analysis",
Multimedia Systems 2024. With another core modality the same network is AeCaFN (audio) or VeCaFN
(vision) of Fig. 3.

The file reads like Sect. 3: settings (4.4), encoders (3.2.1), fusion and prediction (3.2.3, 3.3),
then the training scheme: similarity ranking (3.2.2), replacement gate and pairwise prediction
(3.2.3), fused contrast (3.2.4), objective (3.3). What the authors' public code does otherwise is
named in ``DIFFERENCES`` and lives in ``layers/authors.py`` and at the end of this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import DataInfo
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Output, Progress
from tecafn.core.parallel import gather_rows, mean_over_rows, world_size
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Network, Scheme
from tecafn.layers.attention import Residual, Transformer
from tecafn.layers.authors import (
    FrozenGaussian,
    count_padding,
    misplaced_masks,
    scale_and_place,
)
from tecafn.layers.dropout import Dropout
from tecafn.layers.encoders import AsTheAuthors, Dropouts, FrameEncoder, TextSequenceEncoder
from tecafn.layers.heads import OutputKind, PredictionHead
from tecafn.layers.sequence import MaskedConv1d, concatenate_rows, masked_mean
from tecafn.layers.utterance import LastState
from tecafn.losses.contrastive import ContrastiveOutput, info_nce
from tecafn.losses.information import negative_log_density
from tecafn.losses.memory_bank import NegativeBank
from tecafn.losses.negatives import Pairing, sample_hard_negatives
from tecafn.losses.task import task_loss

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
    """Settings. Where a value may differ between the other modalities (Table 5 needs it), a
    mapping such as ``{audio = 0.0, vision = 0.7}`` stands for the single value.

    Args:
        variant: ``paper``, or ``authors`` for what the authors' public code computes: every one of
            ``DIFFERENCES``, the residual ``pre_norm`` and the output ``linear``.
        differences: some of ``DIFFERENCES`` alone, in the paper's variant, to measure each.
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
        temperature: tau of both contrasts.
        contrast_weight, pairwise_weight: lambda1 and lambda2 of eq. 19.
        weights: a term's own weight in place of those two; 0 drops it. Names: ``task``, the two
            unimodal contrasts (``ta``, ``tv``), ``bicon``, the pairwise terms (``tap``, ``tvp``);
            with another core its letter stands first (``at``, ``av``, ``atp``, ...). With
            ``mutual_information`` also ``cpc`` and ``ba``, 0.1 each.
        residual: ``printed`` is ``f(LN(x)) + LN(x)`` as in eq. 2-3 and 11-12; ``pre_norm`` the
            usual ``x + f(LN(x))``. None = the variant's: the first for ``paper``.
        fusion: z_s is the ``sum`` of the pooled fused sequences, or their ``concat``enation.
        output: ``tanh`` scaled to the label range (eq. 17 taken literally caps the score at 1), or
            ``linear``. None = the variant's: the first for ``paper``.
        embedding_dropout, ..., mapper_dropout: probabilities.
    """

    variant: Literal["paper", "authors"] = "paper"
    differences: tuple[Difference, ...] = ()
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
            probability, count = self.swap_of(modality), self.negatives_of(modality)
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
        if self.bank_size < 0 or self.bank_frames < 1:
            raise ValueError(
                "bank_size must be >= 0 and bank_frames >= 1, "
                f"got {self.bank_size} and {self.bank_frames}"
            )

    def has(self, difference: Difference) -> bool:
        """Is this difference of the authors' code on?"""
        return self.variant == "authors" or difference in self.differences

    def breaks(self) -> dict[str, str]:
        """Parts of the contract that these settings break, and why."""
        broken: dict[str, str] = {}
        for difference, parts in _BREAKS.items():
            is_moot = difference == "unmasked_audio" and self.core == Modality.AUDIO
            if self.has(difference) and not is_moot:
                broken |= parts
        return broken

    @property
    def settled_residual(self) -> Residual:
        """``residual``, or what the variant has."""
        return self.residual or ("pre_norm" if self.variant == "authors" else "printed")

    @property
    def settled_output(self) -> OutputKind:
        """``output``, or what the variant has."""
        return self.output or ("linear" if self.variant == "authors" else "tanh")

    @property
    def dropouts(self) -> Dropouts:
        """Inside the transformers."""
        return Dropouts(
            embedding=self.embedding_dropout,
            attention=self.attention_dropout,
            relu=self.relu_dropout,
            residual=self.residual_dropout,
        )

    @property
    def others(self) -> tuple[Modality, ...]:
        """The two modalities that the core queries."""
        return tuple(m for m in Modality if m != self.core)

    def swap_of(self, other: Modality) -> float:
        """p for this modality; one that a mapping leaves out is never replaced."""
        p = self.swap_probability
        return p.get(other, 0.0) if isinstance(p, dict) else p

    def negatives_of(self, other: Modality) -> int | None:
        """num for this modality; None = every other sample of the batch."""
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
        if self.has("mutual_information"):
            weights |= {"cpc": 0.1, "ba": 0.1}
        return weights


class TeCaFN(Network):
    """The inference path: every sample is fused with itself.

    ``encode``, ``attend`` and ``combine`` are what the scheme composes with replaced rows.
    """

    def __init__(self, config: TeCaFNConfig, info: DataInfo) -> None:
        super().__init__()
        if world_size() > 1 and (config.breaks() or config.has("token_contrast")):
            raise ValueError(
                "what the authors' code computes depends on the batch as one process sees it; "
                f"train and evaluate this variant in one process, got {world_size()}"
            )
        self.core = config.core
        self.config = config
        self.encoders = nn.ModuleDict()
        for modality in info.usable:
            if modality == Modality.TEXT:
                self.encoders[modality] = TextSequenceEncoder(
                    info,
                    dim=config.dim,
                    kernel_size=1 if config.has("early_convolution") else config.text_kernel_size,
                    padded_to=_TEXT_PADDED_TO if config.has("padded_text") else None,
                )
            else:
                self.encoders[modality] = FrameEncoder(
                    info.widths[modality],
                    info.statistics.get(modality),
                    dim=config.dim,
                    num_layers=config.num_unimodal_layers,
                    num_heads=config.num_heads,
                    hidden_dim=config.unimodal_hidden_dim,
                    kernel_size=config.frame_kernel_size,
                    residual=config.settled_residual,
                    dropouts=config.dropouts,
                    authors=AsTheAuthors(
                        no_lstm=config.has("no_lstm"),
                        early_convolution=config.has("early_convolution"),
                        scaled_inputs=config.has("scaled_inputs"),
                        unmasked=config.has("unmasked_self_attention"),
                        closing_norm=config.has("closing_norm"),
                    ),
                )
        self.others = tuple(m for m in config.others if m in self.encoders)
        self.attention = nn.ModuleDict(
            {
                m: Transformer(
                    config.dim,
                    num_layers=config.num_layers,
                    num_heads=config.num_heads,
                    attention_dropout=config.attention_dropout,
                    relu_dropout=config.relu_dropout,
                    residual_dropout=config.residual_dropout,
                    residual=config.settled_residual,
                    cross=True,
                    closing_norm=config.has("closing_norm"),
                )
                for m in self.others
            }
        )
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
        self.head = PredictionHead(
            slots * config.dim, info, dropout=config.head_dropout, output=config.settled_output
        )

    def encode(self, batch: Batch) -> dict[Modality, Padded]:
        """X_m of eq. 5 for each modality the batch has, and always one for the core.

        An absent core is a learned one-frame sequence: (B, L, d) with only its first frame real.
        """
        encoded = {
            m: self.encoders[m](batch.sequences[m]) for m in Modality if self.takes(m, batch)
        }
        learned = self.absent_core.expand(batch.size, 1, -1)
        first_only = torch.ones(batch.size, 1, dtype=torch.bool, device=batch.device)
        if self.core not in encoded:
            encoded[self.core] = Padded(learned, first_only)
            return encoded
        core, present = encoded[self.core], batch.present[self.core]
        length = core.mask.shape[1]
        stand_in = functional.pad(learned, (0, 0, 0, length - 1))
        stand_in_mask = functional.pad(first_only, (0, length - 1))
        encoded[self.core] = Padded(
            torch.where(present[:, None, None], core.values, stand_in.to(core.values.dtype)),
            torch.where(present[:, None], core.mask, stand_in_mask),
        )
        return encoded

    def takes(self, modality: Modality, batch: Batch) -> bool:
        """Is this modality in use, and does the batch have its tensors?"""
        return modality in self.encoders and modality in batch.sequences

    def attend(self, modality: Modality, core: Padded, other: Padded) -> Padded:
        """h_cm of eq. 11-12: the core's frames query those of ``modality``, (B, Lc, d)."""
        query, source, mask = core.values, other.values, other.mask
        if self.config.has("scaled_inputs"):
            query, source = (self.entry_dropout(scale_and_place(x)) for x in (query, source))
        if self.config.has("misplaced_masks"):
            mask = misplaced_masks(mask, num_heads=self.config.num_heads)
        read = None if self.config.has("pooled_padding") else core.mask
        return Padded(self.attention[modality](query, source, mask, stream_mask=read), core.mask)

    def pool(self, sequence: Padded) -> Tensor:
        """``Pool`` of eq. 13, (B, L, d) to (B, d): over real frames."""
        if self.config.has("pooled_padding"):
            sequence = count_padding(sequence)
        return masked_mean(sequence.values, sequence.mask)

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
        count = sum((h.to(alone.dtype) for h in has.values()), alone.new_zeros(len(alone), 1))
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
        hidden = self.head.hidden(fused)
        features = {"fused": fused, "hidden": hidden}
        features |= {f"pooled_{m}": vector for m, vector in pooled.items()}
        return Output(self.head.answer(hidden), features)  # eq. 17

    def forward(self, batch: Batch) -> Output:
        """Predict each sample from its own modalities."""
        encoded = self.encode(batch)
        if self.config.has("unmasked_audio") and Modality.AUDIO in self.others:
            # That code hands the mask over under the wrong name, when evaluating alone.
            encoded |= {m: count_padding(x) for m, x in encoded.items() if m == Modality.AUDIO}
        core = encoded[self.core]
        attended = {m: self.attend(m, core, encoded[m]) for m in self.others if m in encoded}
        return self.combine(core, attended, batch.present)


class Mapper(nn.Module):
    """f and g of eq. 6 and 15: a depth-wise convolution, then mean pooling.

    Args:
        dim: width d.
        dropout: of the convolution's input.
        pool_padding: padding counts as frames (the authors' code).
    """

    def __init__(self, dim: int, *, dropout: float, pool_padding: bool = False) -> None:
        super().__init__()
        self.pool_padding = pool_padding
        self.dropout = Dropout(dropout)
        self.convolution = MaskedConv1d(dim, dim, kernel_size=3, depthwise=True)

    def forward(self, sequence: Padded) -> Tensor:
        """(B, L, d) to (B, d)."""
        if self.pool_padding:
            sequence = count_padding(sequence)
        values = self.convolution(self.dropout(sequence.values), sequence.mask)
        return masked_mean(values, sequence.mask)


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
                        pool_padding=config.has("pooled_padding"),
                    )
                    for m in self.network.others
                }
            )

        # f1 belongs to a pair (core, m), as f2 does: "corresponding Conv1D mappers" (Sect. 3.2.2).
        self.core_mappers = mappers()
        self.other_mappers = mappers()
        maps_fused = len(self.network.others) == 2 and not config.has("token_contrast")
        self.fused_mappers = mappers() if maps_fused else nn.ModuleDict()
        self.pair_heads = nn.ModuleDict({m: nn.Linear(config.dim, 2) for m in self.network.others})
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
        """All terms of eq. 19 for one batch."""
        config, network = self.config, self.network
        encoded = network.encode(batch)
        core = encoded[config.core]
        if network.takes(config.core, batch):
            core_present = batch.present[config.core]
        else:
            core_present = torch.zeros(batch.size, dtype=torch.bool, device=batch.device)
        terms: dict[str, Tensor] = {}
        attended: dict[Modality, Padded] = {}
        pair_hits: list[Tensor] = []
        both: dict[Modality, Tensor] = {}
        remembered: dict[str, Tensor] = {}

        for modality in network.others:
            if modality not in encoded:
                continue
            other = encoded[modality]
            both[modality] = core_present & batch.present[modality]
            query, key = self.core_mappers[modality](core), self.other_mappers[modality](other)
            contrast = info_nce(
                query, key, present=both[modality], temperature=config.temperature
            )  # eq. 6-7
            pairing = self._replace(modality, query, contrast, both[modality], batch, progress)
            partners = self._partners(modality, other, pairing)
            attended[modality] = network.attend(modality, core, partners)  # eq. 8-12
            logits = self.pair_heads[modality](network.pool(attended[modality]))  # eq. 13
            target = pairing.matched.long()
            rows = functional.cross_entropy(logits, target, reduction="none")
            pair = config.pair(modality)
            terms[pair] = contrast.loss
            terms[pair + "p"] = mean_over_rows(rows, both[modality])  # eq. 14
            hits = (logits.detach().argmax(1) == target).to(rows.dtype)
            pair_hits.append(mean_over_rows(hits, both[modality]))
            if self.bank_of(modality) is not None:
                remembered |= {
                    f"bank_key_{modality}": key,
                    f"bank_present_{modality}": both[modality],
                }
                remembered |= {
                    f"bank_{modality}": other.values,
                    f"bank_mask_{modality}": other.mask,
                }

        if len(attended) == 2:
            everything = torch.stack(list(both.values())).all(0)
            if config.has("token_contrast"):
                first, second, everything = self._token_means(attended, everything)
            else:
                first, second = (self.fused_mappers[m](h) for m, h in attended.items())
            terms["bicon"] = sum(
                (
                    info_nce(a, b, present=everything, temperature=config.temperature).loss
                    for a, b in ((first, second), (second, first))
                ),
                first.new_zeros(()),
            )  # eq. 15-16

        output = network.combine(core, attended, batch.present)
        terms["task"] = task_loss(output.prediction, batch.labels)  # eq. 18
        if self.information is not None and network.takes(config.core, batch):
            terms |= self.information(encoded, output, batch.present)
        output = Output(output.prediction, {**output.features, **remembered})
        return Losses(terms, config.term_weights(), output, self._log(terms, pair_hits))

    def after_step(self, batch: Batch, losses: Losses, progress: Progress) -> None:
        """Remember the batch as candidates for later ones."""
        remembered = losses.output.features
        for modality in self.network.others:
            bank = self.bank_of(modality)
            if bank is not None and f"bank_{modality}" in remembered:
                bank.push(
                    remembered[f"bank_key_{modality}"],
                    Padded(remembered[f"bank_{modality}"], remembered[f"bank_mask_{modality}"]),
                    batch.index,
                    remembered[f"bank_present_{modality}"],
                )

    def bank_of(self, modality: Modality) -> NegativeBank | None:
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
        bank = self.bank_of(modality)
        if bank is not None:
            further = bank.candidates(batch.index) & taking_part.unsqueeze(1)
            similarity = torch.cat([similarity.detach(), bank.similarity(query)], dim=1)
            candidates = torch.cat([candidates, further], dim=1)
        return sample_hard_negatives(
            similarity,
            batch.index,
            positive=contrast.positive,
            candidates=candidates,
            swap_probability=config.swap_of(modality),
            num_hard_negatives=config.negatives_of(modality),
            seed=progress.seed,
            epoch=progress.epoch,
            stream=list(Modality).index(modality),
            own_among_hardest=config.has("own_among_hardest"),
        )

    def _partners(self, modality: Modality, other: Padded, pairing: Pairing) -> Padded:
        """The frames each core sample is fused with: of the global batch, or of the bank."""
        gathered = Padded(gather_rows(other.values), gather_rows(other.mask))
        column = pairing.column
        bank = self.bank_of(modality)
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

    def _token_means(
        self, attended: Mapping[Modality, Padded], rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the authors' second contrast compares: token positions, averaged over samples.

        Its tensors are length-first where the contrast expects rows first, so that it is over
        positions: row l of (Lc, d) is the mean of every sample's h_cm at position l.

        Args:
            attended: h_cm, (B, Lc, d).
            rows: (B,) bool, samples that have all modalities.

        Returns:
            Both means, (Lc, d), and (Lc,) bool: positions that some sample has.
        """
        means, counted = [], rows
        for sequence in attended.values():
            if self.config.has("pooled_padding"):
                sequence = count_padding(sequence)
            real = (sequence.mask & rows.unsqueeze(1)).T  # (B, Lc) -> (Lc, B)
            means.append(masked_mean(sequence.values.transpose(0, 1), real))
            counted = real.any(1)
        return means[0], means[1], counted

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
            {m: LastState(config.dim, config.unimodal_hidden_dim, config.dim) for m in self.others}
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
        breaks=TeCaFNConfig.breaks,
    ),
)
