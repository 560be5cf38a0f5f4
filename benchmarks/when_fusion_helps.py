"""Draws docs/images/when-fusion-helps.png from the kept cells: what the gate costs or brings.

    python benchmarks/when_fusion_helps.py

Left, the paper's variant: validation MAE against p, of the search's kept cells (seed 0). Right, the
revised variant: the test error with gate and contrasts minus that without, by the corpus's
correspondence, with the 95 % interval from resampling videos.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from tecafn.core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
CELLS = ROOT / "benchmarks" / "cells"
PAGE = ROOT / "docs" / "results" / "revised-compared.md"
FIGURE = ROOT / "docs" / "images" / "when-fusion-helps.png"
WITHOUT = "revised, no gate, no contrast"


def by_probability() -> dict[float, float]:
    """Validation MAE of the paper's variant by p, all else as the config says."""
    found: dict[float, float] = {}
    for path in sorted((CELLS / "bench-search" / "tecafn").glob("*/seed-0.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        config = cell["record"]["config"]
        model, training = config["model"], config["training"]
        plain = model["num_hard_negatives"] == 3 and model["unimodal_hidden_dim"] == 32
        if plain and training["learning_rate"] == 2e-3 and training["gradient_clip"] == 1.0:
            found[float(model["swap_probability"])] = cell["record"]["training"]["monitor_value"]
    return dict(sorted(found.items()))


def with_gate_minus_without() -> dict[str, tuple[float, float, float]]:
    """By correspondence, the difference of MAE and its interval, of the page of results.

    Raises:
        UserError: the page lacks a row.
    """
    found: dict[str, tuple[float, float, float]] = {}
    for section in PAGE.read_text(encoding="utf-8").split("## Correspondence ")[1:]:
        row = re.search(rf"^\| {WITHOUT} \|.*\| ([+−][^|]*\]) \|", section, re.MULTILINE)  # noqa: RUF001
        if row is None:
            raise UserError(f"{PAGE} lacks the row {WITHOUT!r}")
        text = row.group(1).replace("−", "-")  # noqa: RUF001
        value, low, high = (float(number) for number in re.findall(r"[+-]\d\.\d+", text))
        found[section.split("\n")[0].strip()] = (-value, -high, -low)
    return dict(sorted(found.items()))


def main() -> None:
    """Write the figure."""
    paper, revised = by_probability(), with_gate_minus_without()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot(list(paper), list(paper.values()), marker="o", color="#1f5fa8")
    left.set_xlabel("p, how often the gate replaces")
    left.set_ylabel("MAE, validation")
    left.set_title("The paper's variant, correspondence 0")
    for place, (value, low, high) in enumerate(revised.values()):
        right.errorbar(
            [place], [value], yerr=[[value - low], [high - value]], fmt="o", color="#1f5fa8",
            capsize=4,
        )  # fmt: skip
    right.axhline(0, color="0.5", linewidth=1)
    right.set_xticks(range(len(revised)), [f"correspondence {c}" for c in revised])
    right.set_xlim(-0.6, len(revised) - 0.4)
    right.set_ylabel("MAE with minus without")
    right.set_title("Revised, p 0.1: gate and contrasts")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110)
    print(f"paper: {paper}; revised: {revised}; {FIGURE.name}")


if __name__ == "__main__":
    main()
