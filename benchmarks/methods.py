"""How fast each registered method trains, and how large it is: fusion alone, on one thread.

    python benchmarks/methods.py [--rounds N] [--steps N] [--only NAME,NAME] [--smoke]

Run with ``make bench-methods``. Writes ``docs/results/methods.md``. Batches have MOSI's shape and
are formed by length as in training; the text comes as the states of a frozen encoder, so that what
is timed is what a method adds. All methods take turns in every round, so that whatever else the
machine does hits all alike, and medians are over rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import markdown_table, write_results

import tecafn.methods  # noqa: F401 - registers them
from tecafn.core.batch import Batch, Padded
from tecafn.core.errors import UserError
from tecafn.core.info import DataInfo, FeatureStatistics, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.registry import METHODS
from tecafn.core.scheme import Scheme
from tecafn.data.loader import plan_batches

REFERENCE = "tecafn"
BATCH_SIZE = 32
NUM_SAMPLES = 20 * BATCH_SIZE
TEXT_WIDTH = 384
WIDTHS = {Modality.AUDIO: 5, Modality.VISION: 20}
# Median and deviation of the logarithm: words of a text, frames of the others.
LENGTHS = {Modality.TEXT: (11, 0.6), Modality.AUDIO: (48, 0.5), Modality.VISION: (60, 0.5)}
CORRELATION = 0.8
LONGEST_TEXT = 100
MARK = "\N{DAGGER}"


def draw_lengths(random: np.random.Generator) -> dict[Modality, np.ndarray]:
    """(N,) lengths of each modality: long remarks have long recordings."""
    common = random.normal(size=NUM_SAMPLES)
    lengths = {}
    for modality, (median, sigma) in LENGTHS.items():
        own = random.normal(size=NUM_SAMPLES)
        standard = np.sqrt(CORRELATION) * common + np.sqrt(1 - CORRELATION) * own
        lengths[modality] = np.clip(np.rint(median * np.exp(sigma * standard)), 1, None).astype(int)
    lengths[Modality.TEXT] = np.minimum(lengths[Modality.TEXT], LONGEST_TEXT)
    return lengths


def make_batches(*, aligned: bool) -> list[Batch]:
    """An epoch of batches; where ``aligned``, a frame of audio and vision for each word."""
    random = np.random.default_rng(0)
    lengths = draw_lengths(random)
    if aligned:
        lengths = dict.fromkeys(Modality, lengths[Modality.TEXT])
    lengths = lengths | {Modality.TEXT: lengths[Modality.TEXT] + 2}  # [CLS] and [SEP]
    labels = random.uniform(-3, 3, NUM_SAMPLES).astype(np.float32)
    total = np.sum(list(lengths.values()), axis=0)
    plan = plan_batches(total, batch_size=BATCH_SIZE, seed=0, epoch=0, shuffle=True)
    batches = []
    for rows in plan:
        sequences, present = {}, {}
        for modality in Modality:
            width = TEXT_WIDTH if modality is Modality.TEXT else WIDTHS[modality]
            longest = int(lengths[modality][rows].max())
            mask = np.arange(longest) < lengths[modality][rows][:, None]
            values = random.normal(size=(len(rows), longest, width)).astype(np.float32)
            sequences[modality] = Padded(
                torch.from_numpy(values * mask[..., None]), torch.from_numpy(mask)
            )
            present[modality] = torch.ones(len(rows), dtype=torch.bool)
        given: dict[str, Any] = {}
        if aligned:
            # Token 0 is [CLS], the last one [SEP]; each word between them is one frame.
            words = np.arange(sequences[Modality.TEXT].mask.shape[1]) - 1
            is_word = (words >= 0) & (words < lengths[Modality.AUDIO][rows][:, None])
            given["frame_of_token"] = torch.from_numpy(np.where(is_word, words, -1))
        batches.append(
            Batch(
                sequences=sequences,
                present=present,
                labels=torch.from_numpy(labels[rows]),
                index=torch.from_numpy(rows.astype(np.int64)),
                ids=tuple(f"video_{row}" for row in rows),
                **given,
            )
        )
    return batches


@dataclass
class TimedMethod:
    """A method in training.

    Args:
        name: as registered.
        scheme: what is trained.
        batches: an epoch of them.
        steps: batches of a turn.
    """

    name: str
    scheme: Scheme
    batches: list[Batch]
    steps: int

    def __post_init__(self) -> None:
        self.optimizers = {
            phase.name: torch.optim.Adam(
                [p for group in phase.parameters.values() for p in group], lr=1e-4
            )
            for phase in self.scheme.phases()
        }
        self.at = 0
        self.rates: list[float] = []

    def turn(self) -> float:
        """Samples a second over the next batches, every phase as the trainer runs it."""
        # All methods see the same batches in the same round.
        batches = [self.batches[(self.at + k) % len(self.batches)] for k in range(self.steps)]
        began = time.perf_counter()
        for phase in self.scheme.phases():
            parameters = [p for group in phase.parameters.values() for p in group]
            for number, batch in enumerate(batches):
                if number >= phase.fraction * len(batches):
                    break
                self.scheme.zero_grad(set_to_none=True)
                progress = Progress(seed=0, epoch=self.at // len(self.batches), step=self.at)
                losses = phase.loss(batch, progress)
                torch.autograd.backward(losses.total)
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                self.optimizers[phase.name].step()
                self.scheme.after_step(batch, losses, progress)
        seconds = time.perf_counter() - began
        self.at += len(batches)
        return sum(batch.size for batch in batches) / seconds

    def num_trained(self) -> int:
        """Parameters that training changes; the frozen text encoder has others."""
        return sum(p.numel() for p in self.scheme.parameters() if p.requires_grad)


def build(name: str, batches: list[Batch], steps: int) -> TimedMethod:
    """A method in its published settings, after one turn to warm up."""
    method = METHODS[name]
    torch.manual_seed(0)
    info = DataInfo(
        widths=WIDTHS,
        statistics={m: FeatureStatistics([0.0] * w, [1.0] * w) for m, w in WIDTHS.items()},
        text_encoder=TextEncoderSpec(source="minilm", num_trained_layers=0),
        num_train=NUM_SAMPLES,
    )
    timed = TimedMethod(name, method.build(method.config(), info).train(), batches, steps)
    timed.turn()
    timed.at = 0
    return timed


def measure(
    names: Sequence[str], *, rounds: int, steps: int
) -> tuple[list[TimedMethod], dict[str, str]]:
    """All methods, interleaved; and why some could not take part."""
    batches = {aligned: make_batches(aligned=aligned) for aligned in (False, True)}
    timed_methods, reasons = [], {}
    for name in names:
        try:
            timed_methods.append(build(name, batches["aligned" in METHODS[name].needs], steps))
        except (UserError, ValueError, RuntimeError) as error:
            reasons[name] = " ".join(str(error).split())
    for number in range(rounds):
        for timed in timed_methods:
            timed.rates.append(timed.turn())
        print(f"round {number + 1} of {rounds}", flush=True)
    return timed_methods, reasons


def table(timed_methods: Sequence[TimedMethod], reasons: dict[str, str]) -> str:
    """One line per method, the fastest first."""
    medians = {c.name: float(np.median(c.rates)) for c in timed_methods}
    reference = medians.get(REFERENCE)
    lines = []
    for timed in sorted(timed_methods, key=lambda c: -medians[c.name]):
        name, median = timed.name, medians[timed.name]
        method = METHODS[name]
        shown = f"{name} {MARK}" if method.basis == "abstract" else name
        lines.append(
            [
                shown,
                f"{median:.0f}",
                f"{min(timed.rates):.0f} to {max(timed.rates):.0f}",
                f"{median / reference:.2f}" if reference else "-",
                f"{timed.num_trained() / 1e6:.3f}",
                "words" if "aligned" in method.needs else "",
            ]
        )
    lines += [[name, f"not timed: {reason}", "", "", "", ""] for name, reason in reasons.items()]
    headers = ["", "samples per second", "over rounds", f"times {REFERENCE}", "parameters, M"]
    return markdown_table([*headers, "aligned"], lines)


def main() -> None:
    """Measure every method and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="batches of a method's turn")
    parser.add_argument("--only", help="comma-separated names of methods")
    parser.add_argument("--smoke", action="store_true", help="one step each, no page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.only.split(",") if options.only else list(METHODS)
    names = [name for name in names if "regression" in METHODS[name].tasks]
    rounds, steps = (1, 1) if options.smoke else (options.rounds, options.steps)
    timed_methods, reasons = measure(names, rounds=rounds, steps=steps)
    blocks = [
        f"Training samples per second of each method in its published settings, on one thread: "
        f"forward, backward, clipping, Adam, every phase. {rounds} rounds of {steps} batches of "
        f"{BATCH_SIZE} for each method in turn; median, and the range over rounds. Lengths are "
        "log-normal as MOSI's: text with a median of "
        f"{LENGTHS[Modality.TEXT][0]} words, audio {LENGTHS[Modality.AUDIO][0]} and vision "
        f"{LENGTHS[Modality.VISION][0]} frames, correlated {CORRELATION}; batches are formed by "
        f"length. Widths: audio {WIDTHS[Modality.AUDIO]}, vision {WIDTHS[Modality.VISION]}, text "
        f"{TEXT_WIDTH}: the cached states of a frozen encoder, which is not run. Methods that need "
        "word-aligned frames get a frame per word, so fewer frames; one that works inside the "
        "encoder works after its frozen layers here. Parameters: those that are trained.",
        table(timed_methods, reasons),
    ]
    if any(METHODS[name].basis == "abstract" for name in names):
        blocks.append(f"{MARK} implemented from the abstract; the paper was not available to us.")
    if options.smoke:
        print("\n\n".join(blocks))
        return
    write_results("methods", "Speed and size of the methods", "make bench-methods", blocks)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
