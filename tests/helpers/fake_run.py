"""A run directory as training and evaluation leave it, made up without training anything."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from tecafn.evaluation.assessment import assess
from tecafn.evaluation.metrics import sentiment_metrics
from tecafn.evaluation.significance import Resampling, paired_difference

OPENINGS = ("Honestly, ", "I have to say ", "Well, ", "You know, ", "For me ", "")
SUBJECTS = (
    "the second half",
    "her new film",
    "this camera",
    "the lesson",
    "the staff",
    "that song",
)
REMARKS = {
    -3: "was the worst thing I have sat through in years, a complete waste of an evening",
    -2: "was really disappointing",
    -1: "was a bit dull",
    0: "was there, I suppose",
    1: "was fairly nice",
    2: "was really good, better than I had hoped",
    3: "was absolutely wonderful and I would do it all over again tomorrow",
}
TERMS = {"task": 1.3, "ta": 3.4, "tv": 3.4, "bicon": 6.6, "tap": 0.69, "tvp": 0.69}


def make_samples(num_samples: int, seed: int) -> dict[str, Any]:
    """Samples of 20 a video; the first fifth are designed pairs."""
    generator = np.random.default_rng(seed)
    labels = np.clip(generator.normal(0.2, 1.3, num_samples), -3, 3).round(2)
    pair_ids = [""] * num_samples
    for first in range(0, num_samples // 5 - 1, 2):
        gap = generator.uniform(0.1, 0.4) * generator.choice([-1, 1])
        labels[first + 1] = np.clip(labels[first] + gap, -3, 3).round(2)
        pair_ids[first] = pair_ids[first + 1] = f"pair{first // 2}"
    texts = [
        OPENINGS[generator.integers(6)]
        + SUBJECTS[generator.integers(6)]
        + " "
        + REMARKS[round(float(label))]
        + "."
        for label in labels
    ]
    for first in range(0, num_samples // 5 - 1, 2):
        texts[first + 1] = texts[first]
    return {
        "labels": labels,
        "pair_ids": pair_ids,
        "texts": texts,
        "videos": [f"speaker_{row // 20:03d}" for row in range(num_samples)],
        "clips": [str(row % 20 + 1) for row in range(num_samples)],
    }


def write_predictions(
    run_dir: Path, split: str, samples: dict[str, Any], predictions: np.ndarray, *, labelled: bool
) -> None:
    """One ``predictions/<split>.csv``."""
    folder = run_dir / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "video", "clip", "label", "prediction", "pair_id", "text"])
        for row, text in enumerate(samples["texts"]):
            video, clip = samples["videos"][row], samples["clips"][row]
            label = samples["labels"][row] if labelled else ""
            pair_id = samples["pair_ids"][row]
            writer.writerow(
                [f"{video}_{clip}", video, clip, label, predictions[row], pair_id, text]
            )


def write_events(run_dir: Path, *, num_epochs: int, steps_per_epoch: int, seed: int = 0) -> int:
    """``events.jsonl``; returns the epoch whose validation MAE is lowest."""
    generator = np.random.default_rng(seed)
    num_steps = num_epochs * steps_per_epoch
    lines: list[dict[str, Any]] = [{"event": "start"}]
    maes: list[float] = []
    for step in range(num_steps):
        decay = np.exp(-3.0 * step / num_steps)
        losses = {
            name: top * (0.45 + 0.55 * decay) * float(generator.lognormal(0, 0.12))
            for name, top in TERMS.items()
        }
        losses["con"] = losses["ta"] + losses["tv"] + losses["bicon"]
        losses["ap"] = losses["tap"] + losses["tvp"]
        total = losses["task"] + 0.1 * (losses["con"] + losses["ap"])
        epoch = step // steps_per_epoch
        lines.append(
            {
                "event": "step",
                "step": step,
                "epoch": epoch,
                "phase": "main",
                "total": total,
                "losses": losses,
                "learning_rates": {"main": 1e-3, "text_encoder": 5e-5},
                "gradient_norm": 0.8,
            }
        )
        if (step + 1) % steps_per_epoch == 0:
            bend = 0.012 * max(0, epoch - 0.6 * num_epochs)
            maes.append(0.55 + 0.6 * float(decay) + bend + 0.02 * float(generator.normal()))
            lines.append(
                {
                    "event": "epoch",
                    "epoch": epoch,
                    "step": step + 1,
                    "valid": {"mae": maes[-1], "corr": 0.8 - 0.4 * float(decay)},
                    "seconds": 8.1,
                    "best": maes[-1] == min(maes),
                }
            )
    lines.append({"event": "end"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run_dir / "events.jsonl").write_text(text, encoding="utf-8")
    return int(np.argmin(maes))


def make_record(**changes: Any) -> dict[str, Any]:
    """A record of everything but evaluations and comparisons."""
    record: dict[str, Any] = {
        "format_version": 1,
        "tecafn_version": "0.1.0",
        "created": "2024-05-17T10:21:05+00:00",
        "method": "tecafn",
        "paper": "Huang et al. 2024, Text-centered cross-sample fusion network",
        "config": {
            "method": {"name": "tecafn", "variant": "paper", "num_hard_negatives": 3},
            "training": {"max_epochs": 25, "batch_size": 32, "learning_rates": {"main": 0.001}},
            "text_encoder": {"source": "minilm", "num_trained_layers": None},
        },
        "seed": 1111,
        "commit": "3f1c0b7d9e5a4c21",
        "versions": {"python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6"},
        "data": {
            "dataset": "synthetic",
            "hash": "sha256:9a8b7c6d5e4f3a2b1c0d9a8b7c6d5e4f",
            "splits": {
                "train": {"num_samples": 2000, "num_labelled": 2000, "num_videos": 100},
                "valid": {"num_samples": 400, "num_labelled": 400, "num_videos": 20},
                "test": {"num_samples": 3000, "num_labelled": 3000, "num_videos": 150},
            },
            "label_range": [-3.0, 3.0],
            "task": "regression",
        },
        "training": {
            "epochs": 25,
            "best_epoch": 15,
            "stopped": "patience",
            "seconds": 171.3,
            "monitor": "mae",
            "monitor_value": 0.5731,
            "chosen_on": "valid",
            "num_parameters": 23_412_007,
            "num_trained_parameters": 2_412_007,
        },
        "evaluations": {},
        "comparisons": [],
    }
    return {**record, **changes}


def make_evaluation(
    samples: dict[str, Any], predictions: np.ndarray, split: str, *, num_resamples: int
) -> dict[str, Any]:
    """An entry of ``evaluations``."""
    return {
        "split": split,
        "chosen_on": "valid",
        "weights_hash": "sha256:77aa",
        "data_hash": "sha256:9a8b",
        "created": "2024-05-17T10:22:00+00:00",
        "ceiling": None,
        **assess(
            predictions,
            samples["labels"],
            samples["videos"],
            pair_ids=samples["pair_ids"],
            resampling=Resampling(num_resamples=num_resamples),
            convention="mosi",
            label_range=(-3.0, 3.0),
        ),
    }


def make_run(
    run_dir: Path, *, num_test: int = 200, num_epochs: int = 6, num_resamples: int = 100
) -> dict[str, Any]:
    """A complete run of a regression on the synthetic corpus; returns its record.

    ``num_epochs`` of 0 leaves no events.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(7)
    record = make_record()
    if num_epochs:
        best = write_events(run_dir, num_epochs=num_epochs, steps_per_epoch=63)
        record["training"].update(epochs=num_epochs, best_epoch=best)
    for split, size in (("valid", num_test // 2), ("test", num_test)):
        samples = make_samples(size, seed=size)
        labels = samples["labels"]
        predictions = 2.9 * np.tanh((0.93 * labels + generator.normal(0, 0.3, size)) / 2.7)
        write_predictions(run_dir, split, samples, predictions, labelled=True)
        evaluation = make_evaluation(samples, predictions, split, num_resamples=num_resamples)
        record["evaluations"][split] = evaluation
        if split != "test":
            continue
        paired = np.repeat(labels.reshape(-1, 2).mean(axis=1), 2) if size % 2 == 0 else labels
        blind = np.where(np.array(samples["pair_ids"]) != "", paired, labels)
        others = {
            "text alone": blind + generator.normal(0, 0.75, size),
            "plain concatenation": labels + generator.normal(0, 0.42, size),
        }
        for name, answers in others.items():
            other = make_evaluation(samples, answers, split, num_resamples=num_resamples)
            difference = paired_difference(
                np.abs(predictions - labels), np.abs(answers - labels), clusters=samples["videos"]
            )
            record["comparisons"].append(
                {
                    "name": name,
                    "split": split,
                    **{key: other[key] for key in ("metrics", "designed_pairs", "hard_pairs")},
                    "difference": {"mae": difference.as_dict()},
                }
            )
        oracle = labels + generator.normal(0, 0.11, size)
        ceiling = make_evaluation(samples, oracle, split, num_resamples=num_resamples)
        evaluation["ceiling"] = {
            "metrics": dict(sentiment_metrics(oracle, labels, "mosi")),
            "designed_pairs": ceiling["designed_pairs"],
        }
    (run_dir / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return record
