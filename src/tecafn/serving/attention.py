"""Where TeCaFN looks: how much each frame of the core attends to each frame of another modality."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.layers.attention import MultiHeadAttention
from tecafn.methods.tecafn import TeCaFN
from tecafn.serving.predictor import Predictor


@torch.inference_mode()
def cross_attention(predictor: Predictor, batch: Batch) -> dict[Modality, Tensor]:
    """The weights of the cross-sample attention (eq. 8-12) while a batch is predicted.

    Args:
        predictor: of TeCaFN.
        batch: samples, as ``Predictor.batches`` or a store's loader makes them.

    Returns:
        (B, layers, H, Lc, Lm) on the CPU, by each modality but the core; a row of an unmasked frame
        sums to 1, and masked frames have 0. A modality that the batch lacks, or one whose single
        vector is joined without attention, is absent.

    Raises:
        UserError: another method.

    Example:
        >>> weights = cross_attention(tecafn.load("runs/mosi"), batch)     # doctest: +SKIP
        >>> weights[Modality.AUDIO].mean((1, 2)).shape                     # doctest: +SKIP
        torch.Size([1, 12, 375])
    """
    network = predictor.network
    if not isinstance(network, TeCaFN):
        raise UserError(
            f"attention over time is for tecafn only; this is {predictor.definition.method!r}"
        )
    seen: dict[Modality, list[Tensor]] = {}
    handles = []
    for name, transformer in network.attention.items():
        noted = seen.setdefault(Modality(name), [])
        handles += [
            module.register_forward_pre_hook(_note(noted), with_kwargs=True)
            for module in transformer.modules()
            if isinstance(module, MultiHeadAttention)
        ]
    try:
        predictor.network_prediction(batch.to(predictor.device))
    finally:
        for handle in handles:
            handle.remove()
    return {m: torch.stack(layers, dim=1) for m, layers in seen.items() if layers}


def _note(noted: list[Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def note(module: nn.Module, given: tuple[Any, ...], _: dict[str, Any]) -> None:
        assert isinstance(module, MultiHeadAttention)
        noted.append(module.weights(*given[:3]).float().cpu())

    return note
