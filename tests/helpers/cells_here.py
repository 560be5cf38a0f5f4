"""A comparison's cells in this process: importing in another takes longer than a tiny run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tecafn.core.errors import UserError
from tecafn.experiments.cells import Cell, Outcome
from tecafn.experiments.config import load_config
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.run import train_run


def in_this_process(runner: Any, cells: Sequence[Cell]) -> list[Outcome]:
    """A comparison's cells as its own processes would run them."""
    outcomes = []
    for cell in cells:
        reason = ""
        try:
            settings = load_config(cell.config, [*cell.overrides, f"seed={cell.seed}"])
            train_run(settings, data=cell.data, out=cell.run, device="cpu", progress=False)
            evaluate_run(cell.run, data=cell.data, split=cell.split, device="cpu")
        except UserError as error:
            reason = str(error)
        outcomes.append(Outcome(cell, reason, 0.0))
        runner.ended(outcomes[-1])
    return outcomes
