"""What a whole training step costs beside its text encoder, where the time goes, and memory.

    python benchmarks/train_step.py [--alternations 20] [--fresh] [--smoke]

TeCaFN as in ``configs/mosi/tecafn.toml`` on MOSI-shaped batches of 32. Run with
``make bench-step``; a killed run continues where it was, ``--fresh`` measures anew. Writes
``docs/results/train-step.md``.
``--smoke`` trains tiny networks and prints the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from common import ROOT, markdown_table, write_results
from measuring import MEBIBYTE, FirstSteps, Prepared, Step, prepare, run_part, run_steps
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tecafn.core.batch import Batch, Padded
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.data.samples import Sample
from tecafn.data.store import Store, StoreWriter
from tecafn.data.synthetic import CorpusSpec, describe, generate
from tecafn.experiments.config import RunConfig, load_config
from tecafn.experiments.shipped import find_config
from tecafn.layers.text_encoder import StoredTextVectors, Tokenizer
from tecafn.methods.tecafn import TeCaFN
from tecafn.serving.packed import pack_weights
from tecafn.serving.predictor import ModelDefinition, Predictor
from tecafn.training.optimizers import build_optimizer

ENCODERS = ("minilm", "bert-base")
PRECISIONS = ("32-true", "bf16-mixed")
# Goals: a step in times of the text encoder's own; a clip in milliseconds.
MOST_RATIO = {"minilm": 2.0, "bert-base": 1.25}
MOST_CLIP_MS = 15.0
# The authors' public code, on another machine: seconds a step on two threads, GB.
THEIR_SECONDS = {"minilm": 3.05, "bert-base": 10.25}
THEIR_GIGABYTES = 3.7
BANK_SIZE = 256
GPU_BATCHES = (32, 256)
# Dense bfloat16 TFLOP/s that the makers print, by what a card's name holds.
PEAKS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
}
NUM_TRAIN = 1284  # MOSI's
SMOKE = ("model.dim=10", "model.num_layers=1", "model.num_unimodal_layers=1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """How much is measured.

    Args:
        alternations: steps that are timed.
        clips: predictions that are timed.
        train: samples of the corpora.
        smoke: tiny networks.
        folder: corpora, encoder and what was measured already.
    """

    alternations: int
    clips: int
    train: int
    smoke: bool
    folder: Path


# Material


def spec_of(setup: Setup) -> CorpusSpec:
    """The corpus that has as many training samples."""
    return CorpusSpec(num_train=setup.train, num_valid=32, num_test=1)


def shuffled_frames(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Audio and vision of other samples, so that lengths have nothing to do with one another."""
    rows = list(samples)
    generator = torch.Generator().manual_seed(0)
    audio, vision = (torch.randperm(len(rows), generator=generator).tolist() for _ in range(2))
    for sample, a, v in zip(rows, audio, vision, strict=True):
        yield dataclasses.replace(
            sample,
            sequences={
                Modality.AUDIO: rows[a].sequences[Modality.AUDIO],
                Modality.VISION: rows[v].sequences[Modality.VISION],
            },
        )


def corpus(setup: Setup, *, correlated: bool = True) -> Store:
    """The store of MOSI-shaped samples, written if it is not there yet."""
    path = setup.folder / ("correlated" if correlated else "uncorrelated")
    if not path.exists():
        spec = spec_of(setup)
        samples = generate(spec) if correlated else shuffled_frames(generate(spec))
        with StoreWriter(path, describe(spec)) as writer:
            for sample in samples:
                writer.add(sample)
    return Store.open(path)


def encoder_source(name: str, setup: Setup) -> str:
    """``minilm``, or the folder of a network of BERT base's size with random weights."""
    if name == "minilm":
        return name
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = setup.folder / name
    if not (path / "done").exists():
        config = (
            BertConfig(num_hidden_layers=1, hidden_size=48, intermediate_size=96)
            if setup.smoke
            else BertConfig()
        )
        BertModel(config).save_pretrained(str(path))
        Tokenizer("minilm").save(path)
        (path / "done").touch()
    return str(path)


def settings(name: str, precision: str, setup: Setup, *overrides: str) -> RunConfig:
    """The config of MOSI on this encoder."""
    return load_config(
        find_config(Path("mosi/tecafn.toml")),
        [
            f"text_encoder={json.dumps(encoder_source(name, setup))}",
            f'training.precision="{precision}"',
            "training.max_epochs=1",
            *(SMOKE if setup.smoke else ()),
            *overrides,
        ],
    )


def network_of(prepared: Prepared) -> TeCaFN:
    """The TeCaFN network that is trained."""
    network = prepared.scheme.network
    assert isinstance(network, TeCaFN)
    return network


def text_encoder_of(prepared: Prepared) -> nn.Module:
    """The pretrained network that reads the text."""
    encoder = network_of(prepared).encoders[Modality.TEXT].text_encoder
    assert isinstance(encoder, nn.Module)
    return encoder


# Parts, each in a process of its own


def measure_ratio(name: str, precision: str, setup: Setup) -> dict[str, Any]:
    """Steps of the trainer, each followed by the encoder alone on the same tokens."""
    prepared = prepare(settings(name, precision, setup), corpus(setup))
    encoder = text_encoder_of(prepared)

    def alone(batch: Batch) -> None:
        with prepared.fabric.autocast():
            states = encoder(batch.sequences[Modality.TEXT]).values
        prepared.fabric.backward(states.sum())
        encoder.zero_grad(set_to_none=True)

    source = FirstSteps(prepared.train, setup.alternations, beside=alone)
    steps = run_steps(prepared, source)
    return {
        "steps": [asdict(step) for step in steps],
        "parts": where_time_goes(prepared, max(1, setup.alternations // 2)),
    }


def where_time_goes(prepared: Prepared, num_steps: int) -> dict[str, float]:
    """Median milliseconds of the parts of a step, the graph being cut after the text encoder."""
    scheme, network = prepared.scheme, network_of(prepared)
    encoder = text_encoder_of(prepared)
    frames = network.encoders[Modality.TEXT]
    (phase,) = scheme.phases()
    optimizer = build_optimizer(phase, prepared.config.training)
    times: dict[str, list[float]] = {}
    inner: dict[str, float] = {}

    device = prepared.fabric.device

    def watch(module: nn.Module, part: str) -> None:
        module.register_forward_pre_hook(lambda *_: inner.update(begun=_now(device)))

        def after(*_: Any) -> None:
            inner[part] = inner.get(part, 0.0) + _now(device) - inner["begun"]

        module.register_forward_hook(after)

    for modality in network.others:
        watch(network.encoders[modality], "audio and vision encoders, forward")
        watch(network.attention[modality], "cross-sample attention, forward")

    scheme.train()
    batches = iter(prepared.train.batches(1))
    clock = _Clock(times, device)
    for number in range(num_steps + 1):
        inner.clear()
        clock.start(keep=number > 0)
        batch = next(batches).to(device)
        clock.stop("loading")
        scheme.zero_grad(set_to_none=True)
        clock.start(keep=number > 0)
        text = batch.sequences[Modality.TEXT]
        with prepared.fabric.autocast():
            states = encoder(text)
        clock.stop("text encoder, forward")
        leaf = states.values.detach().requires_grad_()
        sequences = {**batch.sequences, Modality.TEXT: Padded(leaf, states.mask)}
        cut = dataclasses.replace(batch, sequences=sequences)
        frames.text_encoder = StoredTextVectors(leaf.shape[-1])
        clock.start(keep=number > 0)
        with prepared.fabric.autocast():
            total: Tensor = scheme.loss(cut, Progress(seed=0, epoch=0, step=number)).total
        clock.stop("all forward after the text encoder", within=inner)
        prepared.fabric.backward(total)
        clock.stop("all backward before the text encoder")
        frames.text_encoder = encoder
        assert leaf.grad is not None
        clock.start(keep=number > 0)
        states.values.backward(leaf.grad)
        clock.stop("text encoder, backward")
        nn.utils.clip_grad_norm_(scheme.parameters(), prepared.config.training.gradient_clip)
        clock.stop("clipping")
        optimizer.step()
        clock.stop("optimizer")
    return {part: 1000 * statistics.median(values) for part, values in times.items()}


def _now(device: torch.device) -> float:
    """The time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class _Clock:
    """Appends what passed since the last call to the list of a part."""

    def __init__(self, times: dict[str, list[float]], device: torch.device) -> None:
        self._times = times
        self._device = device
        self._keep = False
        self._begun = 0.0

    def start(self, *, keep: bool) -> None:
        self._keep = keep
        self._begun = _now(self._device)

    def stop(self, part: str, *, within: Mapping[str, float] | None = None) -> None:
        now = _now(self._device)
        if self._keep:
            self._times.setdefault(part, []).append(now - self._begun)
            for name, seconds in (within or {}).items():
                if name != "begun":
                    self._times.setdefault(f"of these, {name}", []).append(seconds)
        self._begun = _now(self._device)


def measure_uncorrelated(name: str, setup: Setup) -> dict[str, Any]:
    """Steps alone, as the known figures of the authors' code are: two threads, float32."""
    prepared = prepare(settings(name, "32-true", setup), corpus(setup, correlated=False))
    steps = run_steps(prepared, FirstSteps(prepared.train, setup.alternations))
    return {"steps": [asdict(step) for step in steps]}


def measure_bank(setup: Setup) -> dict[str, Any]:
    """The same batches without and with the bank, in turns."""
    store = corpus(setup)
    seconds: dict[str, list[list[dict[str, Any]]]] = {"off": [], "on": []}
    num_bytes = 0
    for turn in range(2):
        for state, size in (("off", 0), ("on", BANK_SIZE)):
            prepared = prepare(
                settings("minilm", "32-true", setup, f"model.bank_size={size}"), store
            )
            source = FirstSteps(
                prepared.train, setup.alternations, epoch=turn, warm_up=1 + BANK_SIZE // 32
            )
            seconds[state].append([asdict(step) for step in run_steps(prepared, source)])
            banks = [m for name, m in prepared.scheme.named_modules() if name == "banks"]
            num_bytes = sum(b.numel() * b.element_size() for m in banks for b in m.buffers())
    return {"turns": seconds, "bank_bytes": num_bytes}


def measure_bank_memory(state: str, setup: Setup) -> dict[str, Any]:
    """Training with or without the bank; whoever started this process looks at its memory."""
    size = BANK_SIZE if state == "on" else 0
    config = settings("minilm", "32-true", setup, f"model.bank_size={size}")
    prepared = prepare(config, corpus(setup))
    run_steps(prepared, FirstSteps(prepared.train, setup.alternations))
    return {}


def clips_of(config: RunConfig, store: Store) -> Callable[[int], object]:
    """What predicts the clip of a row from raw text and frames, as a loaded model does."""
    prepared = prepare(config, store)
    train = store.split("train")
    definition = ModelDefinition(
        method=config.method,
        config=config.model,
        info=_info_of(config, store),
        max_text_tokens=config.max_text_tokens,
        dataset=store.description.dataset,
    )
    network = network_of(prepared).eval()
    pack_weights(network)
    predictor = Predictor(definition, network, Tokenizer(config.text_encoder))

    def predict(row: int) -> object:
        at = row % len(train)
        audio, vision = (train.sequence(at, m) for m in (Modality.AUDIO, Modality.VISION))
        return predictor.predict(train.texts[at], audio=audio, vision=vision)

    return predict


def measure_clips(name: str, setup: Setup) -> dict[str, Any]:
    """Raw text and the frames of one clip to a score."""
    predict = clips_of(settings(name, "32-true", setup), corpus(setup))
    seconds = []
    for row in range(setup.clips + 5):
        begun = time.perf_counter()
        predict(row)
        seconds.append(time.perf_counter() - begun)
    return {"milliseconds": 1000 * statistics.median(seconds[5:])}


def _info_of(config: RunConfig, store: Store) -> Any:
    from tecafn.experiments.setup import describe_data

    return describe_data(store, store.split("train"), config)


def measure_gpu(batch_size: int, setup: Setup, device: str = "cuda") -> dict[str, Any]:
    """Training with the encoder of BERT base's size in bfloat16 where a GPU is."""
    config = settings("bert-base", "bf16-mixed", setup, f"training.batch_size={batch_size}")
    prepared = prepare(config, corpus(setup), device)
    steps = run_steps(prepared, FirstSteps(prepared.train, setup.alternations))
    return {
        "steps": [asdict(step) for step in steps],
        "operations": operations_of(prepared),
        "parts": where_time_goes(prepared, max(1, setup.alternations // 2)),
        "card": torch.cuda.get_device_name() if device == "cuda" else device,
    }


def operations_of(prepared: Prepared) -> float:
    """Floating-point operations a sample of one step's matrix products, backward pass included."""
    prepared.scheme.train()
    batch = next(iter(prepared.train.batches(0))).to(prepared.fabric.device)
    with FlopCounterMode(display=False) as counter:
        with prepared.fabric.autocast():
            total = prepared.scheme.loss(batch, Progress(seed=0, epoch=0, step=0)).total
        prepared.fabric.backward(total)
    prepared.scheme.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / batch.size


PARTS: dict[str, tuple[int, Callable[[Setup], dict[str, Any]]]] = {}
"""By name: threads, and what to measure."""


def _add(name: str, threads: int, measure: Callable[[Setup], dict[str, Any]]) -> None:
    PARTS[name] = (threads, measure)


for _encoder in ENCODERS:
    for _precision in PRECISIONS:
        _add(
            f"ratio {_encoder} {_precision}",
            1,
            functools.partial(measure_ratio, _encoder, _precision),
        )
for _encoder in ENCODERS:
    _add(f"clip {_encoder}", 1, functools.partial(measure_clips, _encoder))
    _add(f"uncorrelated {_encoder}", 2, functools.partial(measure_uncorrelated, _encoder))
_add("bank", 1, measure_bank)
for _state in ("off", "on"):
    _add(f"bank memory {_state}", 1, functools.partial(measure_bank_memory, _state))
if torch.cuda.is_available():
    for _size in GPU_BATCHES:
        _add(f"gpu {_size}", 1, functools.partial(measure_gpu, _size))


def measure(setup: Setup) -> dict[str, Any]:
    """All parts; what ``measured.json`` has is not measured again."""
    setup.folder.mkdir(parents=True, exist_ok=True)
    path = setup.folder / "measured.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for correlated in (True, False):  # before anybody's memory is looked at
        corpus(setup, correlated=correlated)
    encoder_source("bert-base", setup)
    for part, (threads, _) in PARTS.items():
        if part in done:
            continue
        print(f"measuring: {part}", file=sys.stderr, flush=True)
        arguments = ["--part", part, "--alternations", str(setup.alternations)]
        arguments += ["--clips", str(setup.clips), "--folder", str(setup.folder)]
        arguments += ["--smoke"] if setup.smoke else []
        done[part] = run_part(Path(__file__), arguments, threads=threads)
        path.write_text(json.dumps(done))
    return done


# The page


def steps_of(rows: Sequence[Mapping[str, Any]]) -> list[Step]:
    """Measured steps from the rows of a file."""
    return [Step(**row) for row in rows]


def ratio_of(part: Mapping[str, Any]) -> float:
    """Median over alternations of the step's time in times of the encoder's."""
    return statistics.median(s.seconds / s.beside for s in steps_of(part["steps"]))


def page(done: Mapping[str, Any], alternations: int) -> list[str]:
    """What was measured, as Markdown."""
    pairs = list(itertools.product(ENCODERS, PRECISIONS))
    ratios, columns = [], []
    for encoder, precision in pairs:
        part = done[f"ratio {encoder} {precision}"]
        steps = steps_of(part["steps"])
        ratio, most = ratio_of(part), MOST_RATIO[encoder]
        ratios.append(
            [
                encoder,
                precision,
                f"{statistics.median(s.seconds for s in steps):.3f}",
                f"{statistics.median(s.beside for s in steps):.3f}",
                f"{ratio:.2f}",
                f"{most:.2f}",
                "met" if ratio <= most else f"missed by {100 * (ratio / most - 1):.0f} %",
            ]
        )
        columns.append(part["parts"])
    names = list(columns[0])
    parts = [[name, *(f"{column[name]:.1f}" for column in columns)] for name in names]
    old = []
    for encoder in ENCODERS:
        part = done[f"uncorrelated {encoder}"]
        seconds = statistics.median(s.seconds for s in steps_of(part["steps"]))
        theirs = THEIR_SECONDS[encoder]
        old.append(
            [
                encoder,
                f"{seconds:.2f}",
                f"{theirs:.2f}",
                f"{seconds / theirs:.2f}",
                f"{part['peak_bytes'] / 1e9:.2f}",
                f"{THEIR_GIGABYTES:.1f}" if encoder == "minilm" else "not known",
            ]
        )
    clips = [
        [encoder, f"{done[f'clip {encoder}']['milliseconds']:.1f}", f"{MOST_CLIP_MS:.0f}"]
        for encoder in ENCODERS
    ]
    bank = done["bank"]
    paired = [
        on.seconds / off.seconds
        for one, other in zip(bank["turns"]["on"], bank["turns"]["off"], strict=True)
        for on, off in zip(steps_of(one), steps_of(other), strict=True)
    ]
    memory = {s: done[f"bank memory {s}"]["peak_bytes"] / MEBIBYTE for s in ("off", "on")}
    return [
        "TeCaFN as in `configs/mosi/tecafn.toml` (6 layers, 30 wide, every dropout on), the text "
        "encoder trained, batches of 32 of the synthetic corpus in MOSI's shape: words lognormal "
        "(median 11, sigma 0.6), vision (60, 0.5), audio (48, 0.5), logs correlated 0.8, widths 20 "
        "and 5, bucketed by length as in training. bert-base is a BERT of that size with random "
        "weights.",
        "## A step beside its text encoder",
        "A step is the trainer's own: loading, forward, mining, losses, backward, clipping, "
        "AdamW, log. After each, in the same process, the text encoder alone runs forward and "
        f"backward on the same tokens in the same precision. One thread, {alternations} "
        "alternations, medians; the ratio is the median over alternations.",
        markdown_table(
            ["encoder", "precision", "step, s", "encoder, s", "ratio", "goal", ""], ratios
        ),
        "## Where the time goes",
        "Median milliseconds of a step whose graph is cut after the text encoder, so that its "
        "backward pass is apart.",
        markdown_table(["", *(f"{e} {p}" for e, p in pairs)], parts),
        "## Beside the authors' public code",
        "Two threads, float32, lengths of the modalities independent of one another. Theirs was "
        "measured on another machine, so this compares orders of magnitude: the aim is a fifth of "
        "the time and a third of the memory.",
        markdown_table(
            ["encoder", "step, s", "theirs, s", "share", "GB of anonymous memory", "theirs, GB"],
            old,
        ),
        "## One clip",
        "Raw text and prepared frames of one clip to a score, tokenizing included, one thread, "
        "median.",
        markdown_table(["encoder", "ms", "goal, ms"], clips),
        "## The memory bank",
        f"With MiniLM, float32, one thread, a bank of {BANK_SIZE} samples takes "
        f"{bank['bank_bytes'] / MEBIBYTE:.1f} MiB, and a step {statistics.median(paired):.2f} "
        f"times as long as without on the same batch (median of {len(paired)}, in turns, the bank "
        f"full). Anonymous memory at most: {memory['off']:,.0f} MiB without, "
        f"{memory['on']:,.0f} MiB with.",
        "## On a GPU",
        *gpu_blocks([done[f"gpu {size}"] for size in GPU_BATCHES if f"gpu {size}" in done]),
    ]


def gpu_blocks(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Samples a second, the share of the card's peak, where the time goes; a part a batch size."""
    if not parts:
        return ["Not measured: this machine has none."]
    card = str(parts[0]["card"])
    peak = next((value for name, value in PEAKS.items() if name in card), None)
    lines, columns = [], {}
    for part in parts:
        steps = steps_of(part["steps"])
        rate = sum(step.samples for step in steps) / sum(step.seconds for step in steps)
        reached = rate * part["operations"] / 1e12
        size = max(step.samples for step in steps)
        columns[str(size)] = part["parts"]
        lines.append(
            [
                str(size),
                f"{rate:,.0f}",
                f"{NUM_TRAIN / rate:.2f}",
                f"{reached:.1f}",
                "not known" if peak is None else f"{100 * reached / peak:.1f}",
            ]
        )
    names = list(parts[0]["parts"])
    return [
        f"{card}; an encoder of BERT base's size, bfloat16. Operations are those of matrix "
        "products, counted in one step; the peak is the maker's for dense bfloat16.",
        markdown_table(
            ["batch", "samples per second", f"{NUM_TRAIN} samples, s", "TFLOP/s", "% of peak"],
            lines,
        ),
        "Median milliseconds of a step's parts, the device being waited for after each.",
        markdown_table(
            ["batch of", *columns],
            [[name, *(f"{column[name]:.1f}" for column in columns.values())] for name in names],
        ),
    ]


def main() -> None:
    """Measure what is open and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alternations", type=int, default=20, help="steps that are timed")
    parser.add_argument("--clips", type=int, default=100, help="predictions that are timed")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured")
    parser.add_argument("--smoke", action="store_true", help="tiny networks, no page")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    runs = options.folder or ROOT / "runs" / ("smoke-step" if options.smoke else "bench-step")
    setup = Setup(
        alternations=2 if options.smoke else options.alternations,
        clips=2 if options.smoke else options.clips,
        train=384 if options.smoke else NUM_TRAIN,
        smoke=options.smoke,
        folder=runs,
    )
    if options.part:
        print(json.dumps(PARTS[options.part][1](setup)))
        return
    if options.fresh:
        (runs / "measured.json").unlink(missing_ok=True)
    blocks = page(measure(setup), setup.alternations)
    if options.smoke:
        print("\n\n".join(blocks))
        return
    write_results("train-step", "A training step", "make bench-step", blocks)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
