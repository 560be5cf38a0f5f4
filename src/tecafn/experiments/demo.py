"""The first thing a new user runs: corpus, training, one evaluation on test, report."""

from __future__ import annotations

import sys
from pathlib import Path

from tecafn.core.errors import UserError
from tecafn.core.places import refuse_taken
from tecafn.data.store import Store
from tecafn.data.synthetic import CorpusSpec, make_corpus
from tecafn.experiments.config import load_config
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.paired import compare_runs
from tecafn.experiments.run import train_run
from tecafn.experiments.shipped import configs_folder
from tecafn.records.record import Evaluation, read_record

TEXT_ALONE = 'modalities=["text"]'


def synthetic_corpus(path: Path, spec: CorpusSpec) -> Store:
    """The corpus at ``path``, generated if it is not there yet."""
    if not path.exists():
        return make_corpus(path, spec)
    return Store.open(path)


def run_demo(out: Path, *, seed: int, progress: bool) -> tuple[Evaluation, Path]:
    """Train TeCaFN on the synthetic corpus and, to compare, the same network on text alone.

    Args:
        out: the run's directory; the corpus and the text-only run lie below it.
        seed: of both runs.
        progress: show progress bars.

    Returns:
        The evaluation on test and the report's path.
    """
    is_finished = (out / "record.json").exists() and bool(read_record(out)["comparisons"])
    if is_finished:
        raise UserError(f"{out} holds a demo already; remove it or name another with --out")
    refuse_taken(out, may_be="run")
    corpus = out / "corpus"
    synthetic_corpus(corpus, CorpusSpec())
    text_alone = out / "text-alone"
    config = configs_folder() / "synthetic" / "tecafn.toml"
    if progress:
        print(f"data: {corpus}, the synthetic corpus", file=sys.stderr)
    networks: tuple[tuple[Path, list[str], str], ...] = (
        (text_alone, [TEXT_ALONE], "1 of 2: the network on text alone"),
        (out, [], "2 of 2: TeCaFN on text, audio and vision"),
    )
    for run, overrides, said in networks:
        settings = load_config(config, [f"seed={seed}", *overrides])
        if not (run / "record.json").exists():  # what lies inside the run was trained before it
            if progress:
                print(said, file=sys.stderr)
            train_run(settings, data=corpus, out=run, resume=True, device="cpu", progress=progress)
        evaluation = evaluate_run(run, data=corpus, split="test", device="cpu")
    compare_runs(out, text_alone, split="test", name="text alone")
    return evaluation, out / "report.html"
