"""Does the cost of training grow with the dataset? Memory and time of a step against its size.

    python benchmarks/scale.py [--sizes 5000,20000,50000,200000] [--keep] [--smoke]

Generates MOSEI-shaped corpora (audio 74 wide, vision 35) of these sizes, trains TeCaFN on each and
writes ``docs/results/scale.md`` and ``docs/images/scale.png``. Run with ``make bench-scale``: it
takes about a quarter of an hour and 8 GB of disk, looked for first and given back at the end. A
killed run continues where it was. ``--smoke`` runs on tiny corpora and prints the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, markdown_table, write_results
from measuring import MEBIBYTE, FirstSteps, Step, prepare, run_part, run_steps

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.samples import Sample
from tecafn.data.store import Store, StoreWriter
from tecafn.data.synthetic import CorpusSpec, describe, generate
from tecafn.experiments.config import RunConfig, load_config
from tecafn.experiments.shipped import find_config

SIZES = (5_000, 20_000, 50_000, 200_000)
WORD_WIDTH = 32
LIMIT_BYTES = 3 * 2**30
TOLERANCE = 0.10
# Measured: frames, words and the table of samples, with a reserve.
BYTES_A_SAMPLE = 32_000
NUM_WORKERS = 2
IMAGE = ROOT / "docs" / "images" / "scale.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured.

    Args:
        sizes: training samples of each corpus, ascending; the first is what others are compared to.
        rounds: turns in which the sizes follow one another.
        steps: measured steps of a turn, and of a memory run.
        folder: corpora and what was measured already.
    """

    sizes: tuple[int, ...]
    rounds: int
    steps: int
    folder: Path

    def corpus(self, size: int) -> Path:
        """The store of that many training samples."""
        return self.folder / f"corpus-{size}"


# The corpora


def word_vector(word: str) -> np.ndarray:
    """(32,) float32, the same for a word everywhere: stands in for an embedding of words."""
    seed = zlib.crc32(word.encode())
    return np.random.default_rng(seed).standard_normal(WORD_WIDTH, dtype=np.float32)


def with_word_vectors(samples: Iterator[Sample]) -> Iterator[Sample]:
    """The samples with one stored vector for each word."""
    known: dict[str, np.ndarray] = {}
    for sample in samples:
        assert sample.words is not None
        rows = [known.setdefault(w, word_vector(w)) for w in sample.words]
        yield dataclasses.replace(
            sample, sequences={**sample.sequences, Modality.TEXT: np.stack(rows)}
        )


def make_corpus(path: Path, num_train: int) -> dict[str, Any]:
    """Generate a corpus into a store; how long it took and how large it is."""
    begun = time.perf_counter()
    spec = CorpusSpec(shape="mosei", num_train=num_train, num_valid=32, num_test=1)
    described = describe(spec)
    described = dataclasses.replace(
        described, widths={**described.widths, Modality.TEXT: WORD_WIDTH}
    )
    with StoreWriter(path, described) as writer:
        for sample in with_word_vectors(generate(spec)):
            writer.add(sample)
    num_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {"seconds": time.perf_counter() - begun, "bytes": num_bytes}


def check_space(folder: Path, missing: list[int]) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        UserError: the corpora that are ``missing`` need more than is free.
    """
    needed = BYTES_A_SAMPLE * sum(missing)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"the corpora need {needed / 1e9:.1f} GB below {folder}, {free / 1e9:.1f} GB are free"
        )


# What is measured, each in a process of its own


def settings(num_workers: int) -> RunConfig:
    """The synthetic corpus's config on stored word vectors."""
    return load_config(
        find_config(Path("synthetic/tecafn_published.toml")),
        [
            'text_encoder="features"',
            'num_trained_text_layers="all"',
            "training.max_epochs=1",
            f"training.num_workers={num_workers}",
        ],
    )


def measure_memory(plan: Plan, size: int) -> dict[str, Any]:
    """Train with workers; whoever started this process looks at its memory."""
    begun = time.perf_counter()
    prepared = prepare(settings(NUM_WORKERS), Store.open(plan.corpus(size)))
    ready = time.perf_counter() - begun
    run_steps(prepared, FirstSteps(prepared.train, plan.steps))
    return {"ready": ready}


def measure_time(plan: Plan) -> dict[str, Any]:
    """Steps of every size in turns, loading in the training process itself."""
    config = settings(0)
    prepared = {size: prepare(config, Store.open(plan.corpus(size))) for size in plan.sizes}
    steps: dict[str, list[dict[str, Any]]] = {str(size): [] for size in plan.sizes}
    for turn in range(plan.rounds):
        for size, run in prepared.items():
            source = FirstSteps(run.train, plan.steps, epoch=turn)
            steps[str(size)] += [asdict(step) for step in run_steps(run, source)]
    return {"steps": steps}


def measure(plan: Plan) -> dict[str, Any]:
    """All parts; what ``measured.json`` has is not measured again."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    path = plan.folder / "measured.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    parts = [
        *(f"generate {size}" for size in plan.sizes),
        *(f"memory {size}" for size in plan.sizes),
        "time",
    ]
    missing = [part for part in parts if part not in done]
    check_space(plan.folder, [size for size in plan.sizes if f"generate {size}" in missing])
    for part in missing:
        print(f"measuring: {part}", file=sys.stderr, flush=True)
        kind, _, size = part.partition(" ")
        if kind == "generate":
            shutil.rmtree(plan.corpus(int(size)), ignore_errors=True)
        amounts = (f"{plan.rounds}", f"{plan.steps}", ",".join(map(str, plan.sizes)))
        arguments = ["--part", part, "--amounts", *amounts, "--folder", str(plan.folder)]
        done[part] = run_part(Path(__file__), arguments, threads=1)
        path.write_text(json.dumps(done))
    return done


# The page


def times(plan: Plan, done: Mapping[str, Any]) -> dict[int, tuple[float, float]]:
    """By size: seconds a sample as they were, and at the first size's lengths.

    The second is the median over steps of the time of a padded frame, times the first size's frames
    a sample: the batches of two corpora are never equally long.
    """
    steps = {size: [Step(**s) for s in done["time"]["steps"][str(size)]] for size in plan.sizes}

    def a_sample(taken: list[Step], name: str) -> float:
        return float(sum(getattr(s, name) for s in taken) / sum(s.samples for s in taken))

    usual = a_sample(steps[plan.sizes[0]], "frames")
    return {
        size: (
            a_sample(taken, "seconds"),
            usual * statistics.median(s.seconds / s.frames for s in taken),
        )
        for size, taken in steps.items()
    }


def page(plan: Plan, done: Mapping[str, Any]) -> list[str]:
    """What was measured, as Markdown."""
    cost = times(plan, done)
    first = cost[plan.sizes[0]][1]
    peaks = {size: done[f"memory {size}"]["peak_bytes"] for size in plan.sizes}
    rows = [
        [
            f"{size:,}",
            f"{done[f'generate {size}']['bytes'] / 1e9:.2f}",
            f"{done[f'generate {size}']['seconds']:.0f}",
            f"{done[f'generate {size}']['peak_bytes'] / MEBIBYTE:,.0f}",
            f"{done[f'memory {size}']['ready']:.1f}",
            f"{peaks[size] / MEBIBYTE:,.0f}",
            f"{1000 * cost[size][0]:.2f}",
            f"{1000 * cost[size][1]:.2f}",
            f"{100 * (cost[size][1] / first - 1):+.1f} %",
        ]
        for size in plan.sizes
    ]
    largest = plan.sizes[-1]
    change = cost[largest][1] / first - 1
    fits = "below" if peaks[largest] < LIMIT_BYTES else "NOT below"
    within = "within" if abs(change) <= TOLERANCE else "NOT within"
    return [
        f"Training on {largest:,} samples holds {peaks[largest] / MEBIBYTE:,.0f} MiB of anonymous "
        f"memory at most, {fits} 3 GB, and a sample costs {100 * change:+.1f} % of what it costs "
        f"at {plan.sizes[0]:,}, {within} 10 %.",
        markdown_table(
            [
                "training samples",
                "GB on disk",
                "s to generate",
                "MiB while generating",
                "s until the first step",
                "MiB while training",
                "ms per sample",
                "ms at equal lengths",
                "change",
            ],
            rows,
        ),
        "![Memory and time against the number of samples](../images/scale.png)",
        f"The corpora are the synthetic one in MOSEI's shape: audio 74 wide, vision 35, median "
        f"lengths 48 and 60, and a stored vector {WORD_WIDTH} wide for each word, so that no text "
        "encoder hides what the rest costs. The network is TeCaFN as in "
        "`configs/synthetic/tecafn_published.toml`, batches of 32 in buckets of length, float32, "
        "one thread.",
        f"Memory: the sum of RssAnon over the training process and its {NUM_WORKERS} workers, from "
        f"before the store is opened until {plan.steps} steps and a checkpoint are done, looked at "
        "50 times a second; pages of the mapped frames are not in it, pages that processes share "
        "count once for each. Until the first step: opening the store, the columns' statistics "
        "over every frame, the network.",
        f"Time: {plan.rounds} turns of {plan.steps} steps of the trainer at each size, the sizes "
        "one after the other in one process, loading included and without workers. The files had "
        "been read before. At equal lengths: the median over steps of the time of a padded frame, "
        f"times the frames a sample has at {plan.sizes[0]:,}.",
    ]


def draw(plan: Plan, done: Mapping[str, Any], path: Path) -> None:
    """Memory and time against size."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    sizes = plan.sizes
    cost = times(plan, done)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    gibibyte = 2**30
    left.plot(
        sizes,
        [done[f"memory {s}"]["peak_bytes"] / gibibyte for s in sizes],
        "o-",
        label=f"training, {NUM_WORKERS} workers",
    )
    left.plot(
        sizes,
        [done[f"generate {s}"]["peak_bytes"] / gibibyte for s in sizes],
        "s-",
        color="0.5",
        label="generating",
    )
    left.plot(
        sizes,
        [done[f"generate {s}"]["bytes"] / gibibyte for s in sizes],
        "^:",
        color="tab:green",
        label="on disk",
    )
    left.axhline(LIMIT_BYTES / gibibyte, color="tab:red", linestyle="--", label="limit of memory")
    left.set(ylabel="GiB", title="Anonymous memory", ylim=(0, None))
    first = cost[sizes[0]][1]
    right.fill_between(
        sizes, 100 * (1 - TOLERANCE), 100 * (1 + TOLERANCE), alpha=0.15, color="tab:red"
    )
    right.plot(sizes, [100 * cost[s][1] / first for s in sizes], "o-")
    right.set(
        ylabel=f"percent of {sizes[0]:,}", title="Time a sample, at equal lengths", ylim=(0, 130)
    )
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("training samples")
        axes.grid(alpha=0.3)
    left.legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def run_one(part: str, plan: Plan) -> dict[str, Any]:
    """The part that a process of its own was started for."""
    kind, _, size = part.partition(" ")
    if kind == "generate":
        return make_corpus(plan.corpus(int(size)), int(size))
    return measure_memory(plan, int(size)) if kind == "memory" else measure_time(plan)


def parse_sizes(text: str) -> tuple[int, ...]:
    """Comma-separated, ascending."""
    return tuple(sorted({int(size) for size in text.split(",")}))


def main() -> None:
    """Measure what is open and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=parse_sizes, default=SIZES, help="comma-separated")
    parser.add_argument("--keep", action="store_true", help="do not delete the corpora at the end")
    parser.add_argument("--smoke", action="store_true", help="tiny corpora, no page")
    for inner in ("--part", "--folder"):
        parser.add_argument(inner, help=argparse.SUPPRESS)
    parser.add_argument("--amounts", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        rounds, steps, sizes = options.amounts
        plan = Plan(
            sizes=parse_sizes(sizes),
            rounds=int(rounds),
            steps=int(steps),
            folder=Path(options.folder),
        )
        print(json.dumps(run_one(options.part, plan)))
        return
    runs = Path(options.folder) if options.folder else ROOT / "runs"
    plan = (
        Plan(sizes=(64, 128), rounds=1, steps=2, folder=runs / "smoke-scale")
        if options.smoke
        else Plan(sizes=options.sizes, rounds=8, steps=25, folder=runs / "bench-scale")
    )
    done = measure(plan)
    if options.smoke:
        draw(plan, done, plan.folder / "scale.png")
        print("\n\n".join(page(plan, done)))
    else:
        draw(plan, done, IMAGE)
        blocks = page(plan, done)
        write_results("scale", "Cost against size", "make bench-scale", blocks)
    if not options.keep:
        for size in plan.sizes:
            shutil.rmtree(plan.corpus(size), ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
