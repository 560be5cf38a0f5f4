"""What a clip takes with torch and as an exported graph, in one process and one thread.

    python benchmarks/export.py         # or: make bench-export

Clips alternate between torch, the graph and its 8-bit form, so that whatever else the machine does
falls on all; on a busy machine the processor time, which others do not use up, is the one to read.
Torch is ``tecafn.load``: weights rearranged for the CPU, no gradients. Two networks: the text model
of the package, and TeCaFN as configured for MOSI, untrained, on generated frames (time does not
depend on weights).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tecafn
import tecafn.onnx
from tecafn.core.info import DataInfo, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.registry import METHODS
from tecafn.experiments.config import load_config
from tecafn.experiments.shipped import configs_folder
from tecafn.layers.text_encoder import Tokenizer
from tecafn.serving.export import export, quantise
from tecafn.serving.packed import pack_weights
from tecafn.serving.predictor import ModelDefinition, Predictor

TEXT = "I thought the plot was a little thin, but the acting made up for all of it."
FRAMES = 60


def untrained(config: str) -> Predictor:
    """A method as a config has it, on text, audio and vision of MOSI's widths."""
    settings = load_config(configs_folder() / config)
    info = DataInfo(
        widths={Modality.AUDIO: 5, Modality.VISION: 20},
        text_encoder=TextEncoderSpec(source="minilm"),
    )
    network = METHODS[settings.method].build(settings.model, info).network.eval()
    pack_weights(network)
    definition = ModelDefinition(
        method=settings.method,
        config=settings.model,
        info=info,
        max_text_tokens=settings.max_text_tokens,
        dataset="none",
    )
    return Predictor(definition, network, Tokenizer("minilm", max_tokens=settings.max_text_tokens))


def medians(models: dict[str, Callable[[], Any]], clips: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of each by the clock and of the processor, clip by clip in turn."""
    clocks = (time.perf_counter, time.process_time)
    taken: dict[str, list[list[float]]] = {name: [] for name in models}
    for clip in range(clips + 10):
        for name, predict in models.items():
            starts = [clock() for clock in clocks]
            predict()
            ends = [clock() for clock in clocks]
            if clip >= 10:
                taken[name].append([1e3 * (b - a) for a, b in zip(starts, ends, strict=True)])
    found = {}
    for name, times in taken.items():
        wall, processor = zip(*times, strict=True)
        found[name] = (statistics.median(wall), statistics.median(processor))
    return found


def measure(name: str, predictor: Predictor, given: dict[str, Any], clips: int) -> None:
    """Print a row for each form of a network."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        export(predictor, out)
        quantise(out)
        graph, small = (tecafn.onnx.load(out, threads=1, int8=int8) for int8 in (False, True))
        models: dict[str, Callable[[], Any]] = {
            "torch": lambda: predictor.predict(**given),
            "onnx": lambda: graph.predict(**given),
            "onnx int8": lambda: small.predict(**given),
        }
        found = medians(models, clips)
    for form, (wall, processor) in found.items():
        ratio = found["torch"][1] / processor
        print(f"| {name} | {form} | {wall:.2f} | {processor:.2f} | {ratio:.2f} |", flush=True)


def main() -> None:
    """Parse the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=300, help="that are timed, of each form")
    clips = parser.parse_args().clips
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    frames = {
        "audio": random.normal(size=(FRAMES, 5)),
        "vision": random.normal(size=(FRAMES, 20)),
    }
    print(
        "| network | form | ms per clip | processor ms | torch's processor ms : these |\n"
        "|---|---|---|---|---|",
        flush=True,
    )
    measure("builtin, text", tecafn.load("builtin"), {"text": TEXT}, clips)
    measure("TeCaFN, all", untrained("mosi/tecafn.toml"), {"text": TEXT, **frames}, clips)


if __name__ == "__main__":
    main()
