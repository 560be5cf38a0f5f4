"""Padded sequences and batches: what they refuse and what selecting keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tecafn.core.batch import Batch, Padded
from tecafn.core.modality import Modality

TEXT, AUDIO, VISION = Modality


def batch(**changes: Any) -> Batch:
    settled: dict[str, Any] = {
        "sequences": {
            TEXT: Padded(torch.arange(12).view(3, 4), torch.ones(3, 4, dtype=torch.bool)),
            AUDIO: Padded(torch.randn(3, 2, 5), torch.ones(3, 2, dtype=torch.bool)),
        },
        "present": {TEXT: torch.tensor([True] * 3), AUDIO: torch.tensor([True, False, True])},
        "labels": torch.tensor([0.5, -1.0, 3.0]),
        "index": torch.tensor([7, 8, 9]),
        "ids": ("a_1", "a_2", "b_1"),
        "unimodal_labels": {AUDIO: torch.tensor([1.0, 2.0, 3.0])},
    }
    return Batch(**(settled | changes))


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (torch.ones(8, 40, dtype=torch.bool), r"bool \(8, 40\)"),
        (torch.ones(8, 50), r"float32 \(8, 50\)"),
        (torch.ones(8, 50, dtype=torch.int64), r"int64 \(8, 50\)"),
        (torch.ones(8, dtype=torch.bool), r"bool \(8,\)"),
    ],
)
def test_a_mask_that_does_not_fit_names_both_shapes(mask: torch.Tensor, got: str) -> None:
    with pytest.raises(ValueError, match=rf"^mask must be bool \(8, 50\), got {got}$"):
        Padded(torch.zeros(8, 50, 5), mask)


def test_present_must_name_the_modalities_of_the_sequences() -> None:
    with pytest.raises(ValueError, match="present must name the modalities of sequences"):
        batch(present={TEXT: torch.tensor([True] * 3)})
    with pytest.raises(ValueError, match="present must name the modalities of sequences"):
        batch(sequences={})


@pytest.mark.parametrize(
    ("frames", "got"),
    [
        (torch.zeros(3, 5, dtype=torch.int64), r"int64 \(3, 5\)"),
        (torch.zeros(3, 4), r"float32 \(3, 4\)"),
    ],
)
def test_frames_of_tokens_that_do_not_fit_the_text_name_both_shapes(
    frames: torch.Tensor, got: str
) -> None:
    with pytest.raises(
        ValueError, match=rf"^frame_of_token must be int64 \(3, 4\), one a text token, got {got}$"
    ):
        batch(frame_of_token=frames)


def test_select_takes_rows_in_order_with_repeats() -> None:
    whole = batch()
    part = whole.select(torch.tensor([2, 0, 2]))
    assert part.size == 3
    assert part.ids == ("b_1", "a_1", "b_1")
    assert part.index.tolist() == [9, 7, 9]
    assert part.labels is not None
    assert part.labels.tolist() == [3.0, 0.5, 3.0]
    assert part.unimodal_labels[AUDIO].tolist() == [3.0, 1.0, 3.0]
    assert part.sequences[TEXT].values.tolist() == [[8, 9, 10, 11], [0, 1, 2, 3], [8, 9, 10, 11]]
    assert part.present[AUDIO].tolist() == [True, True, True]


def test_select_of_no_rows_is_an_empty_batch() -> None:
    part = batch(labels=None).select(torch.zeros(0, dtype=torch.int64))
    assert part.size == 0
    assert part.labels is None
    assert part.sequences[AUDIO].values.shape == (0, 2, 5)


def test_to_moves_everything_and_keeps_the_rest() -> None:
    moved = batch().to("meta")
    assert moved.device.type == "meta"
    tensors: list[Tensor | None] = [p.values for p in moved.sequences.values()]
    tensors += [p.mask for p in moved.sequences.values()]
    tensors += [*moved.present.values(), *moved.unimodal_labels.values(), moved.labels]
    assert {tensor.device.type for tensor in tensors if tensor is not None} == {"meta"}
    assert moved.ids == batch().ids


def test_has_is_false_where_the_batch_has_no_tensor() -> None:
    assert batch().has(AUDIO).tolist() == [True, False, True]
    assert batch().has(VISION).tolist() == [False] * 3


def test_modalities_are_their_names() -> None:
    assert [str(m) for m in Modality] == ["text", "audio", "vision"]
    assert Modality("audio") is AUDIO
    with pytest.raises(ValueError, match="acoustic"):
        Modality("acoustic")


def test_modality_is_still_imported_from_core_batch() -> None:
    from tecafn.core import batch, modality

    assert vars(batch)["Modality"] is modality.Modality
