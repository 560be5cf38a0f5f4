"""What a busy neighbour costs: commands alone, and beside one busy process per core but one.

    python benchmarks/busy.py [--repeats 3] [--smoke]

Each command runs in a process of its own with default settings: ``train`` (two epochs on 400
samples of the synthetic corpus), ``predict`` (one clip) and ``compare`` (two methods, one seed). In
turn it runs alone, beside the busy processes, and alone as before threads slept while they waited:
they spin as the libraries have them do, on all cores. Ratios are of the medians of one run. Writes
``docs/results/busy.md``; ``--smoke`` trains on a few samples and prints the page.
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
from pathlib import Path

from common import markdown_table, write_results

from tecafn.core.threads import AT_MOST, NUMBER, WAITING

# How GNU's OpenMP waits where nobody says how, and as many threads as cores.
BEFORE = {"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
MOST_BESIDE = 2.5
MOST_ALONE = 1.03
CONFIG = "synthetic/tecafn_published.toml"
SITUATIONS = ("alone", "beside", "before")


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


def measure(folder: Path, *, repeats: int, smoke: bool) -> dict[str, dict[str, list[float]]]:
    """Seconds of each command in each situation, taken in turn."""
    sizes = (24, 12) if smoke else (400, 100)
    store, one = folder / "store", folder / "one"
    split = ("--train", sizes[0], "--valid", sizes[1])
    tecafn("data", "make", "--out", store, *split, "--test", 12)
    tecafn("data", "make", "--out", one, "--train", 1, "--valid", 1, "--test", 1)
    data = ("--data", store, "--device", "cpu", "--quiet")
    epochs = ("--set", f"training.max_epochs={1 if smoke else 2}")
    saved = folder / "saved"
    # Also the states of the frozen text encoder, which all later runs find.
    tecafn("train", CONFIG, *data, "--out", saved, "--set", "training.max_epochs=1")
    out = folder / "out"
    methods = ("--methods", "tecafn,tfn", "--seeds", 1)
    commands: dict[str, Sequence[object]] = {
        "train": ("train", CONFIG, *data, "--out", out, *epochs),
        "predict one clip": ("predict", saved, "--data", one, "--device", "cpu", "--out", out),
        "compare": ("compare", *data, "--configs", "synthetic", "--out", out, *methods, *epochs),
    }
    seconds: dict[str, dict[str, list[float]]] = {}
    for name, command in commands.items():
        seconds[name] = {situation: [] for situation in SITUATIONS}
        for _ in range(repeats):
            for situation in SITUATIONS:
                number = (os.cpu_count() or 1) - 1 if situation == "beside" else 0
                with busy_processes(number):
                    taken = tecafn(*command, variables=BEFORE if situation == "before" else None)
                seconds[name][situation].append(taken)
                print(f"{name}, {situation}: {taken:.1f} s", file=sys.stderr, flush=True)
                shutil.rmtree(out) if out.is_dir() else out.unlink()
    return seconds


def page(seconds: Mapping[str, Mapping[str, Sequence[float]]], *, load: float) -> list[str]:
    """The page's blocks."""
    rows = []
    for name, situations in seconds.items():
        median = {situation: statistics.median(taken) for situation, taken in situations.items()}
        beside = median["beside"] / median["alone"]
        alone = median["alone"] / median["before"]
        met = beside <= MOST_BESIDE and alone <= MOST_ALONE
        rows.append(
            [
                name,
                *(f"{median[situation]:.1f} s" for situation in SITUATIONS),
                f"{beside:.2f}",
                f"{alone:.2f}",
                "yes" if met else "no",
            ]
        )
    repeats = len(next(iter(next(iter(seconds.values())).values())))
    cores = os.cpu_count() or 1
    head = [
        "command",
        "alone",
        "beside",
        "before, alone",
        "beside / alone",
        "alone / before",
        "met",
    ]
    return [
        f"Seconds of whole commands, default settings, {cores} cores; beside: {cores - 1} other "
        "process(es) that never sleep. Before: threads spin while they wait, on all cores. Medians "
        f"of {repeats} runs each, taken in turn. Goals: beside at most {MOST_BESIDE} times as long "
        f"as alone, alone at most {MOST_ALONE} times as long as before. When the run began, "
        f"{load:.1f} other processes were busy on the machine.",
        markdown_table(head, rows),
    ]


def main() -> int:
    """Measure, and write or print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="few samples, once, no page")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        repeats = 1 if arguments.smoke else arguments.repeats
        seconds = measure(Path(folder), repeats=repeats, smoke=arguments.smoke)
    blocks = page(seconds, load=load)
    if arguments.smoke:
        print("\n\n".join(blocks))
    else:
        write_results("busy", "What a busy neighbour costs", "make bench-busy", blocks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
