"""The methods compared under one protocol: on the synthetic corpus, or on real MOSI text and audio.

    python benchmarks/comparison.py {synthetic,mosi} [--seeds 0,1,2] [--methods all|NAME,NAME]
                                    [--jobs N] [--threads N] [--tables-only] [--smoke]

Run with ``make bench-compare-<name>``; a killed comparison continues, cell by cell, and
what ``benchmarks/cells`` keeps is not trained again. It is ``tecafn compare`` with its settings
written down; the tables and the page lie in ``runs/compare-<name>``. Writes
``docs/results/comparison-<name>.md``, also of an unfinished comparison (``--tables-only``), and
then says which cells are open. ``--smoke`` trains an epoch on a few samples and prints the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common import ROOT, mosi_store, write_results
from kept import keep_all, restore_all

from tecafn.core.errors import UserError
from tecafn.data.synthetic import CorpusSpec
from tecafn.experiments.cells_display import CellsDisplay
from tecafn.experiments.compare import Protocol, compare_methods
from tecafn.experiments.demo import synthetic_corpus
from tecafn.experiments.shipped import configs_folder
from tecafn.records.comparison import ComparisonSummary
from tecafn.report.comparison import markdown_blocks

SEEDS = "0,1,2"
MOSI_METHODS = ("tfn", "lmf", "mult", "misa", "self_mm", "mmim", "tetfn", "tecafn", "concat")
SMOKE = ("training.max_epochs=1", "num_trained_text_layers=0")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One comparison.

    Args:
        title: of its page.
        intro: what was compared, for the page.
        data: a store.
        split: what figures are of.
        configs: the folder of the methods' configs.
        methods: None = all.
        overrides: the common budget.
        published: methods whose defaults are wired otherwise than published, and what is set
            besides; each is also trained with the model of ``<method>_published.toml``, all else
            as in the table.
    """

    title: str
    intro: str
    data: Path
    split: str
    configs: str
    methods: tuple[str, ...] | None
    overrides: tuple[str, ...]
    published: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def as_published(self) -> tuple[str, ...]:
        """The overrides that wire each compared method of ``published`` as published."""
        overrides = []
        for method, more in self.published.items():
            if self.methods is None or method in self.methods:
                path = configs_folder() / self.configs / f"{method}_published.toml"
                model = tomllib.loads(path.read_text(encoding="utf-8"))["model"]
                overrides += [f"{method}:model.{k}={json.dumps(v)}" for k, v in model.items()]
                overrides += [f"{method}:{override}" for override in more]
        return tuple(overrides)


def synthetic(runs: Path, *, smoke: bool) -> Bench:
    """All methods on the synthetic corpus, test split."""
    spec = CorpusSpec(num_train=96, num_valid=32, num_test=64) if smoke else CorpusSpec()
    return Bench(
        title="Methods on the synthetic corpus",
        intro=f"Train {spec.num_train}, valid {spec.num_valid}, test {spec.num_test} samples "
        f"(corpus seed {spec.seed}). The validation split chose each run's epoch; each run was "
        "evaluated once on the test split. The text encoder is frozen MiniLM, its states cached, "
        "for every method. The ceiling is the noise-free score of the generating latents. Minutes "
        "are of the day on which a cell was trained: faster code does not train it again.",
        data=synthetic_corpus(runs / "bench-demo" / "corpus", spec).path,
        split="test",
        configs="synthetic",
        methods=None,
        overrides=(),
        published={"tecafn": (), "tetfn": ("training.max_epochs=5",)},
    )


def mosi(runs: Path, *, smoke: bool) -> Bench:
    """Methods on real MOSI text and audio, validation split."""
    del smoke  # the data are small as they are
    return Bench(
        title="Methods on CMU-MOSI, text and audio",
        intro="One 73-wide acoustic vector per utterance, no vision. MiniLM reads the text, its "
        "last two layers trained, at most 12 epochs, for every method. The test labels are "
        "withheld where this was measured: **the figures are of the 229 validation utterances, "
        "which also chose the epochs**.",
        data=mosi_store(runs / "bench-mosi"),
        split="valid",
        configs="mosi",
        methods=MOSI_METHODS,
        overrides=("text_encoder=minilm", "num_trained_text_layers=2", "training.max_epochs=12"),
    )


BENCHES = {"synthetic": synthetic, "mosi": mosi}


def _compared(protocol: Protocol, *, train: bool) -> ComparisonSummary:
    with CellsDisplay(progress=True) as display:
        return compare_methods(
            protocol,
            planned=display.planned,
            started=display.started,
            ended=display.ended,
            train=train,
        )


def main() -> None:
    """Compare, or write the tables of what is finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--seeds", default=SEEDS, help="comma-separated")
    parser.add_argument("--methods", help="all, or comma-separated names")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--tables-only", action="store_true", help="train nothing")
    parser.add_argument("--smoke", action="store_true", help="an epoch, few samples, no page")
    options = parser.parse_args()
    runs = ROOT / "runs" / ("smoke-comparison" if options.smoke else "")
    bench = BENCHES[options.name](runs, smoke=options.smoke)
    if options.methods:
        names = tuple(options.methods.split(","))
        bench = dataclasses.replace(bench, methods=None if names == ("all",) else names)
    overrides = (*bench.overrides, *SMOKE) if options.smoke else bench.overrides
    protocol = Protocol(
        data=bench.data,
        out=runs / f"compare-{options.name}",
        methods=bench.methods,
        seeds=tuple(int(seed) for seed in options.seeds.split(",")),
        configs=bench.configs,
        overrides=overrides,
        split=bench.split,
        device="cpu",
        jobs=options.jobs,
        threads=options.threads,
    )
    protocols = [protocol]
    wired = bench.as_published()
    if wired and not options.smoke:
        names = tuple(name for name in bench.published if any(o.startswith(name) for o in wired))
        own = tuple(o for o in protocol.overrides if ":" not in o or o.partition(":")[0] in names)
        out = protocol.out.with_name(f"{protocol.out.name}-published")
        published = dataclasses.replace(protocol, out=out, methods=names, overrides=(*own, *wired))
        protocols.append(published)
    if not options.smoke:
        restore_all([one.out.name for one in protocols])
    summary, *others = [_compared(one, train=not options.tables_only) for one in protocols]
    blocks = [bench.intro, *markdown_blocks(summary)]
    tables = [next(b for b in markdown_blocks(one) if b[0] == "|") for one in others]
    if tables:
        files = ", ".join(f"`{bench.configs}/{name}_published.toml`" for name in bench.published)
        besides = [f"{name} {', '.join(more)}" for name, more in bench.published.items() if more]
        set_too = f" but {'; '.join(besides)}" if besides else ""
        blocks += [f"Wired as published ({files}), all else{set_too} as above:", tables.pop(0)]
    if options.smoke:
        print("\n\n".join(blocks))
        return
    keep_all([one.out.name for one in protocols])
    command = f"make bench-compare-{options.name}"
    write_results(f"comparison-{options.name}", bench.title, command, blocks)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
