"""Each method's task loss and its defaults, typed in from the papers and their public code.

Nothing here is read from the package: a default or a loss that changes by accident has to change
here, too. A method that has no entry fails.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

import tecafn.methods  # noqa: F401  registers every method
from tecafn.core.output import Progress
from tecafn.core.registry import METHODS
from tecafn.testing import method_case

# The errors of scores: absolute, or squared as MISA's and MAG-BERT's (and TMBL's) code has them.
SQUARED = {"misa", "mag_bert", "tmbl"}
ABSOLUTE = {
    *("bimha", "concat", "crnet", "hcil", "iccn", "lmf", "mfm", "mfn", "mmim", "mtmd", "mult"),
    *("self_mm", "tecafn", "tefna", "tetfn", "tfn"),
}
ONLY_SCORES = {"self_mm", "tetfn", "mtmd"}  # unimodal labels are generated from scores

# TeCaFN's Sect. 4.4 and its authors' code (d, layers, heads, dropouts).
TRANSFORMER_DROPOUTS = {
    "embedding_dropout": 0.25,
    "attention_dropout": 0.1,
    "relu_dropout": 0.1,
    "residual_dropout": 0.1,
}
# Self-MM's code, MOSI; MTMD has its network.
SELF_MM_WIDTHS = {
    "audio_lstm_dim": 16,
    "vision_lstm_dim": 32,
    "audio_dim": 16,
    "vision_dim": 32,
    "fused_dim": 128,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "tecafn": {
        "variant": "paper",
        "differences": (),
        # Ours: parts and settings of the revised variant.
        "parts": (),
        "without": (),
        "swap_warmup_epochs": 0,
        "label_margin": 0.0,
        "num_token_layers": 2,
        "num_similar": 3,
        "product_dim": 16,
        "core": "text",
        "dim": 30,
        "num_heads": 5,
        "num_layers": 6,
        "num_unimodal_layers": 6,
        "unimodal_hidden_dim": 32,
        "text_kernel_size": 1,
        "frame_kernel_size": 3,
        "swap_probability": 0.7,
        "num_hard_negatives": 3,
        "bank_size": 0,
        "bank_frames": 128,
        "temperature": 0.1,
        "contrast_weight": 0.1,
        "pairwise_weight": 0.1,
        "weights": {},
        "residual": None,
        "fusion": "sum",
        "output": None,
        **TRANSFORMER_DROPOUTS,
        "head_dropout": 0.1,
        "mapper_dropout": 0.1,
    },
    # TeCaFN's encoders and head.
    "concat": {
        "dim": 30,
        "num_heads": 5,
        "num_unimodal_layers": 6,
        "unimodal_hidden_dim": 32,
        "text_kernel_size": 1,
        "frame_kernel_size": 3,
        "residual": "printed",
        **TRANSFORMER_DROPOUTS,
        "head_dropout": 0.1,
    },
    # MMSA's published settings for MOSI.
    "tfn": {
        "text_hidden_dim": 128,
        "text_dim": 32,
        "audio_dim": 32,
        "vision_dim": 128,
        "post_fusion_dim": 64,
        "text_dropout": 0.3,
        "audio_dropout": 0.3,
        "vision_dropout": 0.3,
        "fusion_dropout": 0.5,
        "output": "sigmoid",
    },
    "lmf": {
        "rank": 3,
        "text_hidden_dim": 128,
        "text_dim": 64,
        "audio_dim": 16,
        "vision_dim": 128,
        "text_dropout": 0.3,
        "audio_dropout": 0.3,
        "vision_dropout": 0.3,
    },
    "mfn": {
        "text_hidden_dim": 256,
        "audio_hidden_dim": 32,
        "vision_hidden_dim": 256,
        "memory_dim": 400,
        "attention_dim": 32,
        "candidate_dim": 64,
        "retain_dim": 256,
        "update_dim": 32,
        "output_dim": 128,
        "attention_dropout": 0.2,
        "candidate_dropout": 0.0,
        "retain_dropout": 0.7,
        "update_dropout": 0.5,
        "output_dropout": 0.0,
    },
    "mfm": {
        "text_hidden_dim": 128,
        "audio_hidden_dim": 32,
        "vision_hidden_dim": 128,
        "memory_dim": 64,
        "attention_dim": 32,
        "candidate_dim": 64,
        "retain_dim": 32,
        "update_dim": 64,
        "joint_code_dim": 80,
        "text_code_dim": 64,
        "audio_code_dim": 80,
        "vision_code_dim": 80,
        "joint_factor_dim": 64,
        "text_factor_dim": 32,
        "audio_factor_dim": 16,
        "vision_factor_dim": 64,
        "text_weight": 0.5,
        "audio_weight": 0.01,
        "vision_weight": 0.5,
        "discrepancy_weight": 100.0,
        "kernel_variance": None,
        "attention_dropout": 0.7,
        "candidate_dropout": 0.0,
        "retain_dropout": 0.0,
        "update_dropout": 0.5,
        "joint_factor_dropout": 0.5,
        "text_factor_dropout": 0.5,
        "audio_factor_dropout": 0.7,
        "vision_factor_dropout": 0.5,
        "output_dropout": 0.0,
    },
    # The authors' public code, unaligned MOSEI.
    "mult": {
        "dim": 30,
        "num_heads": 5,
        "num_layers": 5,
        "num_memory_layers": 5,
        "text_kernel_size": 1,
        "audio_kernel_size": 1,
        "vision_kernel_size": 1,
        "input_dropout": 0.25,
        "embedding_dropout": 0.25,
        "text_attention_dropout": 0.1,
        "audio_attention_dropout": 0.0,
        "vision_attention_dropout": 0.0,
        "relu_dropout": 0.1,
        "residual_dropout": 0.1,
        "output_dropout": 0.0,
    },
    # The authors' public code.
    "misa": {
        "dim": 128,
        "num_heads": 2,
        "feed_forward_dim": 2048,
        "difference_weight": 0.3,
        "similarity_weight": 1.0,
        "reconstruction_weight": 1.0,
        "num_moments": 5,
        "head_dropout": 0.5,
        "fusion_dropout": 0.1,
    },
    "tmbl": {
        "dim": 256,
        "num_heads": 8,
        "key_dim": 32,
        "value_dim": 64,
        "feed_forward_dim": 512,
        "num_layers": 5,
        "communicator_dim": 64,
        "difference_weight": 0.5,
        "similarity_weight": 0.5,
        "similarity": "cosine",
        "transformer_dropout": 0.5,
        "communicator_dropout": 0.5,
        "fusion_dropout": 0.5,
    },
    "mag_bert": {"shift": 1.0, "pooling": None, "gate_dropout": 0.5, "head_dropout": 0.1},
    "mmim": {
        "recurrent_dim": 16,
        "fusion_dim": 128,
        "cpc_weight": 0.1,
        "bound_weight": 0.1,
        "memory_size": 32,
        "jitter": 1e-4,
        "frame_dropout": 0.1,
        "fusion_dropout": 0.1,
    },
    "self_mm": {
        **SELF_MM_WIDTHS,
        "text_task_dim": 64,
        "audio_task_dim": 16,
        "vision_task_dim": 32,
        "first_weight": 1.0,
        "fusion_dropout": 0.1,
        "task_dropout": 0.1,
    },
    # Nothing is published of these, or nothing that could be read: ours.
    "tetfn": {
        "dim": 30,
        "num_heads": 5,
        "num_layers": 2,
        "num_lower_layers": None,
        "num_memory_layers": 2,
        "scaled_inputs": False,
        "positions": "once",
        "streams": "enhanced",
        "reading": "maximum",
        "fusion_dim": None,
        "audio_lstm_dim": 16,
        "vision_lstm_dim": 32,
        "kernel_size": 3,
        "task_dim": 32,
        "first_weight": 1.0,
        "embedding_dropout": 0.1,
        "attention_dropout": 0.1,
        "relu_dropout": 0.1,
        "residual_dropout": 0.1,
        "output_dropout": 0.1,
        "task_dropout": 0.1,
    },
    "iccn": {
        "frame_dim": 32,
        "frame_kernel_size": 3,
        "num_channels": 8,
        "pair_dim": 16,
        "correlation_weight": 0.05,
        "regularisation": 1e-4,
        "frame_dropout": 0.1,
        "head_dropout": 0.1,
    },
    "bimha": {
        "unimodal_dim": 16,
        "recurrent_dim": 32,
        "pair_dim": 64,
        "num_heads": 4,
        "hidden_dim": 64,
        "unimodal_dropout": 0.1,
        "attention_dropout": 0.1,
        "head_dropout": 0.1,
    },
    "mtmd": {
        **SELF_MM_WIDTHS,
        "task_dim": 32,
        "first_weight": 1.0,
        "class_weight": 0.1,
        "distillation_weight": 0.1,
        "momentum_weight": 0.1,
        "temperature": 2.0,
        "momentum": 0.99,
        "fusion_dropout": 0.1,
        "task_dropout": 0.1,
    },
    "hcil": {
        "dim": 128,
        "lstm_dim": 64,
        "temperature": 0.1,
        "intra_weight": 0.1,
        "inter_weight": 0.1,
        "interactive_weight": 0.1,
        "prediction_weight": 0.1,
        "fusion_dropout": 0.1,
    },
    "crnet": {
        "dim": 128,
        "lstm_dim": 64,
        "step_size": 0.1,
        "enhanced_weight": 1.0,
        "unimodal_weight": 0.1,
        "coordination_weight": 0.01,
        "fusion_dropout": 0.1,
    },
    "tefna": {
        "dim": 30,
        "num_heads": 5,
        "num_layers": 4,
        "text_kernel_size": 1,
        "frame_kernel_size": 3,
        "temperature": 0.5,
        "information_weight": 0.1,
        **TRANSFORMER_DROPOUTS,
        "head_dropout": 0.1,
    },
}

# What a training step's terms weigh with the defaults.
WEIGHTS: dict[str, dict[str, float]] = {
    "tecafn": {"task": 1, "ta": 0.1, "tv": 0.1, "bicon": 0.1, "tap": 0.1, "tvp": 0.1},
    "misa": {"task": 1, "difference": 0.3, "similarity": 1, "reconstruction": 1},
    "tmbl": {"task": 1, "difference": 0.5, "similarity": 0.5},
    "mfm": {
        "task": 1,
        "discrepancy": 100,
        "reconstruction_text": 0.5,
        "reconstruction_audio": 0.01,
        "reconstruction_vision": 0.5,
    },
    "mmim": {"task": 1, "cpc": 0.1, "log_density": 0.1, "entropy": 0.1},
    "self_mm": {"task": 1, "text": 1, "audio": 1, "vision": 1},
    "tetfn": {"task": 1, "text": 1, "audio": 1, "vision": 1},
    "mtmd": {
        **{"task": 1, "text": 1, "audio": 1, "vision": 1},
        **{"class": 0.1, "distillation": 0.1, "momentum": 0.1},
    },
    "iccn": {"task": 1, "correlation": 0.05},
    "hcil": {"task": 1, "intra": 0.1, "inter": 0.1, "interactive": 0.1, "prediction": 0.1},
    "crnet": {
        **{"task": 1, "enhanced": 1, "coordination": 0.01},
        **{"text": 0.1, "audio": 0.1, "vision": 0.1},
    },
    "tefna": {"task": 1, "information_audio": 0.1, "information_vision": 0.1},
}
TASK_ALONE = {"concat", "tfn", "lmf", "mfn", "mult", "mag_bert", "bimha"}


def error(name: str, prediction: Tensor, labels: Tensor) -> float:
    """The task's loss in a loop."""
    rows = []
    for answer, label in zip(prediction.tolist(), labels.tolist(), strict=True):
        if isinstance(answer, list):
            shares = torch.tensor(answer).double().softmax(0)
            rows.append(-shares[label].log().item())
        else:
            rows.append((answer - label) ** 2 if name in SQUARED else abs(answer - label))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_those_that_are_published_or_ours_as_typed_here(name: str) -> None:
    assert name in DEFAULTS, f"{name}: type its defaults in, from its paper or its public code"
    assert dataclasses.asdict(METHODS[name].config()) == DEFAULTS[name]


@pytest.mark.parametrize("name", METHODS)
def test_the_task_loss_is_the_papers_and_counts_one(name: str) -> None:
    assert (name in SQUARED) != (name in ABSOLUTE), f"{name}: say which error its paper takes"
    with method_case(name) as case:
        # Unlike labels and answers on both sides of 1, where squares and sizes cross.
        losses = case.build().loss(case.mixed_batch(), Progress(seed=0, epoch=0))
        labels = case.mixed_batch().labels
    assert labels is not None
    expected = error(name, losses.output.prediction, labels)
    assert losses.terms["task"].item() == pytest.approx(expected, rel=1e-5)
    known = WEIGHTS.get(name) or {"task": 1.0}
    assert name in WEIGHTS or name in TASK_ALONE, f"{name}: type in what its terms weigh"
    assert {term: losses.weights[term] for term in losses.terms} == known
    total = sum(known[term] * value.item() for term, value in losses.terms.items())
    assert losses.total.item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_classes_have_the_cross_entropy(name: str) -> None:
    is_able = "classification" in METHODS[name].tasks
    assert is_able == (name not in ONLY_SCORES)
    if not is_able:
        return
    with method_case(name, task="classification") as case:
        losses = case.build().loss(case.mixed_batch(), Progress(seed=0, epoch=0))
        labels = case.mixed_batch().labels
    assert labels is not None
    expected = error(name, losses.output.prediction, labels)
    assert losses.terms["task"].item() == pytest.approx(expected, rel=1e-5)
