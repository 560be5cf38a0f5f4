"""How far each modality moves what a network fuses."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from tecafn.core.batch import Batch, BatchSource, Padded
from tecafn.core.modality import Modality
from tecafn.core.output import Output
from tecafn.core.scheme import Network

# Of so few samples a share says nothing.
_LEAST_ROWS = 8


def influence(network: Network, source: BatchSource) -> tuple[str, dict[str, float]]:
    """How far another sample's frames of one modality move the fused vector, all else being equal.

    Each row of the first batch is given the next row's frames of one modality. The mean squared
    change, over that to the next row altogether, is the modality's share: 0 where it is not read, 1
    where it decides alone. Shares of modalities whose effects add up sum to about 1; they sum to
    more where modalities act together.

    Args:
        network: in evaluation mode.
        source: its first batch is looked at; of several processes that is this one's share of it.

    Returns:
        What was looked at, ``fused`` if the network gives that feature, else ``prediction``; and
        the shares by modality, none where the batch has fewer than 8 complete rows.

    Source: total-effect indices, Homma and Saltelli 1996, estimated by Jansen 1999.
    """
    batch = next(iter(source.batches(0)), None)
    if batch is None or len(batch.sequences) < 2:
        return "prediction", {}
    complete = torch.stack([*batch.present.values()]).all(0).nonzero().squeeze(1)
    if len(complete) < _LEAST_ROWS:
        return "prediction", {}
    batch = batch.select(complete)
    what, vectors = _looked_at(network(batch))
    whole = (vectors - vectors.roll(-1, 0)).square().sum()
    if not whole > 0:
        return what, {}
    shares = {}
    for modality in batch.sequences:
        _, moved = _looked_at(network(_with_the_nexts(batch, modality)))
        shares[str(modality)] = float((moved - vectors).square().sum() / whole)
    return what, shares


def _looked_at(output: Output) -> tuple[str, Tensor]:
    """(B, D): the fused vector, or else the prediction."""
    name = "fused" if "fused" in output.features else "prediction"
    values = output.features.get("fused", output.prediction)
    return name, values.detach().float().flatten(1) if values.ndim > 1 else values.float()[:, None]


def _with_the_nexts(batch: Batch, modality: Modality) -> Batch:
    """Each row with the frames that the next row has of one modality."""
    frames = batch.sequences[modality]
    moved = Padded(frames.values.roll(-1, 0), frames.mask.roll(-1, 0))
    of_token = batch.frame_of_token
    if modality == Modality.TEXT and of_token is not None:
        of_token = of_token.roll(-1, 0)
    return dataclasses.replace(
        batch, sequences={**batch.sequences, modality: moved}, frame_of_token=of_token
    )
