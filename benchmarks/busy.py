"""What a busy neighbour costs: commands alone, and beside one busy process per core but one.

    python benchmarks/busy.py [--repeats 5] [--before CHECKOUT] [--smoke]

Each command runs in a process of its own with default settings: ``train`` (two epochs on 400
samples of the synthetic corpus), ``predict`` (one clip) and ``compare`` (two methods, one seed). In
turn it runs alone, beside the busy processes, and alone as before threads slept while they waited:
they spin as the libraries have them do, on all cores; or, with ``--before``, as the code of an
earlier checkout does it, whose configs all three take then. Each turn begins with another of the
three, and a ratio is of two runs of one turn: a machine that is slow for a minute slows both.
Writes ``docs/results/busy.md``; ``--smoke`` trains on a few samples and prints the page.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import markdown_table, write_results

from tecafn.core.threads import AT_MOST, NUMBER, WAITING

# How GNU's OpenMP waits where nobody says how, and as many threads as cores.
BEFORE = {"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
MOST_BESIDE = 2.5
MOST_ALONE = 1.03
CONFIGS = "synthetic"
CONFIG = "synthetic/tecafn_published.toml"
# In a checkout of 0.1.0, whose shipped config was the paper's variant.
EARLIER_CONFIGS = "configs/synthetic"
EARLIER_CONFIG = "configs/synthetic/tecafn.toml"
SITUATIONS = ("alone", "beside", "before")
COMMANDS = ("train", "predict one clip", "compare")


def tecafn(*arguments: object, variables: Mapping[str, str] | None = None) -> float:
    """Seconds that a command takes.

    Raises:
        RuntimeError: it failed; its complaint goes along.
    """
    ours = (*WAITING, *NUMBER, AT_MOST)
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-m", "tecafn", *map(str, arguments)]
    began = time.perf_counter()
    done = subprocess.run(
        command,
        env=environment | dict(variables or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return seconds


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Processes that compute and never sleep."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure(
    folder: Path, *, before: Path | None, repeats: int, smoke: bool
) -> dict[str, dict[str, list[float]]]:
    """Seconds of each command in each situation, taken in turn."""
    config: str | Path = CONFIG if before is None else before / EARLIER_CONFIG
    configs: str | Path = CONFIGS if before is None else before / EARLIER_CONFIGS
    earlier = {"PYTHONPATH": str(before / "src")} if before else BEFORE
    sizes = (24, 12) if smoke else (400, 100)
    store, one = folder / "store", folder / "one"
    split = ("--train", sizes[0], "--valid", sizes[1])
    # What the earlier code writes is read by today's.
    tecafn("data", "make", "--out", store, *split, "--test", 12, variables=earlier)
    few = ("--train", 1, "--valid", 1, "--test", 1)
    tecafn("data", "make", "--out", one, *few, variables=earlier)
    data = ("--data", store, "--device", "cpu", "--quiet")
    epochs = ("--set", f"training.max_epochs={1 if smoke else 2}")
    saved, out = folder / "saved", folder / "out"
    for situation in ("alone", "before"):
        # Also the states of the frozen text encoder, which all later runs find.
        variables = earlier if situation == "before" else None
        train = ("train", config, *data, "--set", "training.max_epochs=1")
        tecafn(*train, "--out", saved / situation, variables=variables)
    methods = ("--methods", "tecafn,tfn", "--seeds", 1)

    def command_of(name: str, situation: str) -> Sequence[object]:
        if name == "train":
            return ("train", config, *data, "--out", out, *epochs)
        if name == "compare":
            return ("compare", *data, "--configs", configs, "--out", out, *methods, *epochs)
        run = saved / ("before" if situation == "before" else "alone")
        return ("predict", run, "--data", one, "--device", "cpu", "--out", out)

    seconds: dict[str, dict[str, list[float]]] = {}
    for name in COMMANDS:
        seconds[name] = {situation: [] for situation in SITUATIONS}
        for turn in range(repeats):
            first = turn % len(SITUATIONS)
            for situation in (*SITUATIONS[first:], *SITUATIONS[:first]):
                number = (os.cpu_count() or 1) - 1 if situation == "beside" else 0
                with busy_processes(number):
                    taken = tecafn(
                        *command_of(name, situation),
                        variables=earlier if situation == "before" else None,
                    )
                seconds[name][situation].append(taken)
                print(f"{name}, {situation}: {taken:.1f} s", file=sys.stderr, flush=True)
                shutil.rmtree(out) if out.is_dir() else out.unlink()
    return seconds


@dataclass(frozen=True)
class Ratio:
    """How much longer one situation takes than another.

    Args:
        by_turn: of each turn, sorted.
        goal: the largest that is wanted.
    """

    by_turn: tuple[float, ...]
    goal: float

    @classmethod
    def of(cls, slow: Sequence[float], fast: Sequence[float], goal: float) -> Ratio:
        """Of the seconds of two situations, in the order of the turns."""
        return cls(tuple(sorted(a / b for a, b in zip(slow, fast, strict=True))), goal)

    @property
    def verdict(self) -> str:
        """Is the goal met in every turn, in none, or do they disagree?"""
        low, high = self.by_turn[0], self.by_turn[-1]
        return "yes" if high <= self.goal else "no" if low > self.goal else "undecided"

    def __str__(self) -> str:
        """``1.05 [0.93, 1.12]``, the median and the turns' extremes."""
        low, high = self.by_turn[0], self.by_turn[-1]
        return f"{statistics.median(self.by_turn):.2f} [{low:.2f}, {high:.2f}]"


def page(
    seconds: Mapping[str, Mapping[str, Sequence[float]]], *, earlier: Path | None, load: float
) -> list[str]:
    """The page's blocks."""
    rows = []
    for name, situations in seconds.items():
        alone, before = situations["alone"], situations["before"]
        beside = Ratio.of(situations["beside"], alone, MOST_BESIDE)
        slower = Ratio.of(alone, before, MOST_ALONE)
        medians = [f"{statistics.median(situations[one]):.1f} s" for one in SITUATIONS]
        rows.append([name, *medians, str(beside), beside.verdict, str(slower), slower.verdict])
    repeats = len(next(iter(next(iter(seconds.values())).values())))
    cores = os.cpu_count() or 1
    meant = "threads spin while they wait, on all cores"
    if earlier is not None:
        meant = f"the code of commit {commit_of(earlier)}; its configs are taken in all three"
    head = [
        "command",
        "alone",
        "beside",
        "before, alone",
        "beside / alone",
        f"at most {MOST_BESIDE}",
        "alone / before",
        f"at most {MOST_ALONE}",
    ]
    return [
        f"Seconds of whole commands, default settings, {cores} cores; beside: {cores - 1} other "
        f"process(es) that never sleep. Before: {meant}. Medians of {repeats} turns; of a ratio "
        "also the lowest and the highest turn, and a goal is met where it is in every turn, "
        f"undecided where turns disagree. When the run began, {load:.1f} other processes were busy "
        "on the machine.",
        markdown_table(head, rows),
    ]


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, shortened."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Measure, and write or print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--before", type=Path, help="a checkout of earlier code to compare with, as of 0.1.0"
    )
    parser.add_argument("--smoke", action="store_true", help="few samples, once, no page")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        repeats = 1 if arguments.smoke else arguments.repeats
        seconds = measure(
            Path(folder), before=arguments.before, repeats=repeats, smoke=arguments.smoke
        )
    blocks = page(seconds, earlier=arguments.before, load=load)
    if arguments.smoke:
        print("\n\n".join(blocks))
    else:
        command = "make bench-busy" + (" BEFORE=CHECKOUT" if arguments.before else "")
        write_results("busy", "What a busy neighbour costs", command, blocks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
