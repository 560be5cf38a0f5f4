"""Widths for tests that are about no width, of the methods whose own are what a test waits for."""

from __future__ import annotations

# TFN as published has 9 million weights after its tensor.
NARROW: dict[str, dict[str, int]] = {
    "tfn": {
        "text_hidden_dim": 16,
        "text_dim": 8,
        "audio_dim": 8,
        "vision_dim": 8,
        "post_fusion_dim": 16,
    },
    "mfn": {
        "text_hidden_dim": 32,
        "vision_hidden_dim": 32,
        "memory_dim": 32,
        "candidate_dim": 32,
        "retain_dim": 32,
        "output_dim": 32,
    },
    "tmbl": {"dim": 32, "key_dim": 8, "value_dim": 8, "communicator_dim": 16},
    "misa": {"dim": 32},
}
