"""A run that begins with the weights of another, to go on with other data or settings."""

from __future__ import annotations

from pathlib import Path

from tecafn.core.errors import UserError
from tecafn.core.scheme import Network
from tecafn.core.weights import load_module
from tecafn.experiments.evaluate import weights_hash
from tecafn.experiments.setup import Prepared
from tecafn.records.record import StartRecord, read_record
from tecafn.serving.predictor import EXPORT_FOLDER, WEIGHTS_FILE, read_definition


def start_of(run: Path) -> StartRecord:
    """What the record of a run says of the run that it began with.

    Args:
        run: a finished run.

    Returns:
        Its folder's name, the hash of its weights and of its data, and what it began with itself.

    Raises:
        UserError: it is not finished, or has no network.
    """
    record = read_record(run)
    training = record.get("training")
    start: StartRecord = {
        "run": run.resolve().name,
        "weights_hash": weights_hash(run),
        "data": {"dataset": record["data"]["dataset"], "hash": record["data"]["hash"]},
        "chosen_on": None if training is None else training["chosen_on"],
    }
    if "init_from" in record:
        start["init_from"] = record["init_from"]
    return start


def begin_with(run: Path, prepared: Prepared) -> None:
    """Fill a network with another run's weights.

    What the network knows of its own data (means and deviations of frames) stays. Whatever is not
    the network, a memory bank or an optimizer, begins anew.

    Args:
        run: the other run; of the same method, with the same settings of the network.
        prepared: not trained yet.

    Raises:
        UserError: the networks differ; the line names the first difference.
    """
    network: Network = prepared.scheme.network
    definition = read_definition(run / EXPORT_FOLDER)
    config, encoder = prepared.config, prepared.batches.encoder
    if definition.method != config.method:
        raise UserError(
            f"--init-from {run} is a run of {definition.method!r}, this one is of {config.method!r}"
        )
    trained_beside = definition.info.text_encoder.weights_hash
    beside = encoder.weights_hash if encoder is not None and encoder.is_adapted else None
    if trained_beside != beside:
        raise UserError(
            f"--init-from {run} was trained with text_encoder "
            f"{definition.info.text_encoder.source!r}, adapters of rank "
            f"{definition.info.text_encoder.adapter_rank}; this run has {config.text_encoder!r}, "
            f"rank {config.text_adapter_rank}, or other weights of that encoder"
        )
    of_the_data = [name for name, _ in network.named_buffers() if name in network.state_dict()]
    load_module(network, run / EXPORT_FOLDER / WEIGHTS_FILE, kept=of_the_data)


def refuse_start(init_from: object) -> None:
    """A cross-validation begins with nobody's weights: they may have seen its held-out folds.

    Raises:
        UserError: some were named.
    """
    if init_from is not None:
        raise UserError(
            "--init-from cannot go with --cross-validate: the weights may have been trained on "
            "videos that a fold leaves out"
        )
