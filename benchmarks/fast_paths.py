"""What each fast path saves: a training step, or a clip's prediction, with it and without it.

    python benchmarks/fast_paths.py [--batches 4] [--repeats 8] [--fresh] [--smoke]

Run with ``make bench-fast-paths``; a killed run goes on where it was, ``--fresh`` measures anew.
Prints the table and writes it into ``docs/performance.md``, between two markers. ``--smoke``
measures tiny networks and prints the table alone.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import ROOT, markdown_table, stamp
from measuring import Prepared, prepare, run_part
from train_step import Setup, clips_of, corpus, settings

from tecafn.core.batch import Batch
from tecafn.core.fast import FAST_PATHS, FastPath, without
from tecafn.core.output import Progress
from tecafn.experiments.config import RunConfig, load_config
from tecafn.experiments.shipped import find_config
from tecafn.training.optimizers import build_optimizer

PAGE = ROOT / "docs" / "performance.md"
BEGIN = "<!-- written by make bench-fast-paths -->"
END = "<!-- end of what make bench-fast-paths wrote -->"
SMOKE = ("model.dim=10", "model.num_layers=1", "model.num_unimodal_layers=1")


@dataclass(frozen=True)
class Row:
    """What the table says of a fast path beside its price.

    Args:
        file: where it is.
        does: in a few words.
        not_taken: when the plainer path is.
        test: that holds both to one answer.
    """

    file: str
    does: str
    not_taken: str
    test: str


ROWS: dict[FastPath, Row] = {
    "cpu_attention": Row(
        "src/tecafn/layers/cpu_attention.py",
        "attention with dropout, a few rows at a time and without their padding",
        "on a GPU, without dropout, when predicting",
        "tests/layers/test_attention_dropout.py",
    ),
    "dropout_masks": Row(
        "src/tecafn/layers/dropout.py",
        "dropout masks are drawn by numpy, 16 bits per element",
        "on a GPU",
        "tests/layers/test_dropout.py",
    ),
    "unpacked_lstm": Row(
        "src/tecafn/layers/sequence.py",
        "an LSTM in one direction runs over the padding after a row's frames",
        "in two directions",
        "tests/layers/test_sequence.py",
    ),
    "no_mask": Row(
        "src/tecafn/layers/sequence.py",
        "a mask that hides no frame is left out",
        "on a GPU, in training, where a frame is hidden",
        "tests/layers/test_fast.py",
    ),
    "packed_weights": Row(
        "src/tecafn/serving/packed.py",
        "large linear layers and BERT's layers predict from rearranged weights",
        "in training, for over 256 rows, without oneDNN",
        "tests/serving/test_packed.py",
    ),
}
STEPS: tuple[FastPath, ...] = ("cpu_attention", "dropout_masks", "unpacked_lstm")
CLIPS: tuple[FastPath, ...] = ("no_mask", "packed_weights")
SHAPES = {
    "synthetic": "2 layers, frozen MiniLM states from the cache",
    "mosi": "6 layers, MiniLM trained",
}


def config_of(shape: str, setup: Setup) -> RunConfig:
    """TeCaFN's settings of ``configs/synthetic`` or ``configs/mosi``."""
    if shape == "mosi":
        return settings("minilm", "32-true", setup)
    return load_config(
        find_config(Path("synthetic/tecafn_published.toml")), SMOKE if setup.smoke else ()
    )


# Measuring


def savings(
    runs: Sequence[Callable[[], Any]], names: Sequence[FastPath], repeats: int
) -> dict[str, Any]:
    """What share of each run's time every fast path saves.

    Whatever else the machine does only adds to a time, so the shortest of several counts.

    Args:
        runs: what is timed, in processor seconds of this process; on one input each.
        names: paths that are switched off, each by itself.
        repeats: of each run with all paths, and without each.

    Returns:
        ``seconds``, the median over runs with all paths on, and ``saved``: for each path the share
        of the time without it, one per run.
    """
    order: list[tuple[FastPath, ...]] = [(), *((name,) for name in names)] * repeats
    shuffle = random.Random(0).shuffle
    seconds: list[float] = []
    saved: dict[str, list[float]] = {name: [] for name in names}
    for run in runs:
        shuffle(order)
        shortest: dict[tuple[FastPath, ...], float] = {}
        for off in order:
            with without(*off):
                begun = time.process_time()
                run()
                taken = time.process_time() - begun
            shortest[off] = min(taken, shortest.get(off, taken))
        seconds.append(shortest[()])
        for name in names:
            saved[name].append(1 - shortest[()] / shortest[name,])
    return {"seconds": statistics.median(seconds), "saved": saved}


def step_of(prepared: Prepared) -> Callable[[Batch], None]:
    """A training step: losses, backward, clipping, the optimizer."""
    scheme, training = prepared.scheme.train(), prepared.config.training
    (phase,) = scheme.phases()
    optimizer = build_optimizer(phase, training)

    def step(batch: Batch) -> None:
        scheme.zero_grad(set_to_none=True)
        with prepared.fabric.autocast():
            total = scheme.loss(batch, Progress(seed=0, epoch=0, step=0)).total
        prepared.fabric.backward(total)
        torch.nn.utils.clip_grad_norm_(scheme.parameters(), training.gradient_clip)
        optimizer.step()

    return step


def measure_steps(shape: str, setup: Setup, repeats: int) -> dict[str, Any]:
    """Steps on ``setup.alternations`` batches."""
    prepared = prepare(config_of(shape, setup), corpus(setup))
    step = step_of(prepared)
    source = iter(prepared.train.batches(0))
    first = next(source)
    for _ in range(2):  # not measured: memory is taken, optimizer states are made
        step(first)
    batches = [next(source) for _ in range(setup.alternations)]
    return savings([partial(step, batch) for batch in batches], STEPS, repeats)


def measure_clips(shape: str, setup: Setup, repeats: int) -> dict[str, Any]:
    """Raw text and frames of one clip to a score."""
    predict = clips_of(config_of(shape, setup), corpus(setup))
    for row in range(3):
        predict(row)
    runs = [partial(predict, row) for row in range(setup.clips)]
    return savings(runs, CLIPS, repeats)


PARTS: dict[str, tuple[str, str]] = {
    f"{kind} {shape}": (kind, shape) for kind in ("step", "clip") for shape in SHAPES
}


def measure(setup: Setup, repeats: int) -> dict[str, Any]:
    """All parts, each in a process of its own; what ``measured.json`` has is not measured again."""
    setup.folder.mkdir(parents=True, exist_ok=True)
    path = setup.folder / "measured.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    corpus(setup)
    for part in PARTS:
        if part in done:
            continue
        print(f"measuring: {part}", file=sys.stderr, flush=True)
        arguments = ["--part", part, "--batches", str(setup.alternations)]
        arguments += ["--clips", str(setup.clips), "--repeats", str(repeats)]
        arguments += ["--folder", str(setup.folder)] + (["--smoke"] if setup.smoke else [])
        done[part] = run_part(Path(__file__), arguments, threads=1)
        path.write_text(json.dumps(done))
    return done


# The table


def price(shares: Sequence[float]) -> str:
    """Median and quartiles in percent."""
    low, middle, high = (100 * x for x in statistics.quantiles(shares, n=4, method="inclusive"))
    return f"{middle:.0f} % ({low:.0f} to {high:.0f})"


def blocks(done: Mapping[str, Any], setup: Setup, repeats: int) -> list[str]:
    """What stands between the markers."""
    rows = []
    for name in FAST_PATHS:
        kind = "step" if name in STEPS else "clip"
        row = ROWS[name]
        prices = (f"{shape} {price(done[f'{kind} {shape}']['saved'][name])}" for shape in SHAPES)
        rows.append(
            [
                f"`{name}`",
                f"`{row.file}`: {row.does}",
                f"of a {kind}: " + ", ".join(prices),
                row.not_taken,
                f"`{row.test}`",
            ]
        )
    whole = [
        [shape, about, *(f"{1000 * done[f'{k} {shape}']['seconds']:.0f}" for k in ("step", "clip"))]
        for shape, about in SHAPES.items()
    ]
    return [
        stamp("make bench-fast-paths"),
        markdown_table(["fast path", "where and what", "saves", "not taken", "held by"], rows),
        "What a path saves is a share of the time without it: the median over "
        f"{setup.alternations} batches of 32, or {setup.clips} clips, and the quartiles. Each "
        f"batch was run {repeats} times with all paths and {repeats} times without each one, in "
        "random order in one process, and the shortest of each counts. Times are processor time "
        "of one thread, so that what else the machine does matters little.",
        markdown_table(["", "TeCaFN with", "step, ms", "clip, ms"], whole),
    ]


def write_between_markers(page: Path, written: Sequence[str]) -> None:
    """Replace what an earlier run wrote, and nothing else.

    Raises:
        ValueError: the page has no markers.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} needs the lines {BEGIN!r} and {END!r}")
    page.write_text(
        before + "\n\n".join([BEGIN, *written, END]) + after, encoding="utf-8", newline="\n"
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=4, help="batches that are timed")
    parser.add_argument("--clips", type=int, default=20, help="clips that are timed")
    parser.add_argument("--repeats", type=int, default=8, help="runs of each, the shortest counts")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured")
    parser.add_argument("--smoke", action="store_true", help="tiny networks, no page")
    parser.add_argument("--part", choices=tuple(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.folder or ROOT / "runs" / "bench-fast-paths" / ("smoke" if args.smoke else "full")
    setup = Setup(
        alternations=1 if args.smoke else args.batches,
        clips=1 if args.smoke else args.clips,
        train=96 if args.smoke else 32 * (args.batches + 2),
        smoke=args.smoke,
        folder=folder,
    )
    repeats = 1 if args.smoke else args.repeats
    if args.part:
        kind, shape = PARTS[args.part]
        measuring = measure_steps if kind == "step" else measure_clips
        print(json.dumps(measuring(shape, setup, repeats)))
        return
    if args.fresh:
        (folder / "measured.json").unlink(missing_ok=True)
    written = blocks(measure(setup, repeats), setup, repeats)
    print("\n\n".join(written))
    if not args.smoke:
        write_between_markers(PAGE, written)


if __name__ == "__main__":
    main()
