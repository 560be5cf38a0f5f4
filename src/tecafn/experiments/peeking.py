"""CHOOSES ON THE TEST SPLIT. The protocol of the authors' public code, kept to explain its figures.

There, after every epoch that improves the validation error the test error is looked at too, and the
epoch reported is the one with the lowest **test** error among those. Such a figure is optimistic:
it is the best of several looks. It is never an evaluation here; ``tecafn train`` does not see the
test split, and this is done afterwards, on request, with weights that training kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tecafn.core.errors import UserError
from tecafn.core.parallel import world_size
from tecafn.data.integrity import refuse_errors
from tecafn.data.store import Store
from tecafn.experiments.evaluate import assess_view, log_look, open_run
from tecafn.experiments.run_folder import add_allowed
from tecafn.experiments.setup import open_device
from tecafn.experiments.trained_scheme import trained_scheme
from tecafn.records.events import read_events
from tecafn.records.record import Evaluation, now, read_record, write_record
from tecafn.serving.predictor import Predictor
from tecafn.training.checkpoint import Checkpoints
from tecafn.training.run_lock import run_lock

PROTOCOL = "authors-test-peeking"
WARNING = (
    "chosen on the test split itself, among the epochs that improved validation: too good by the "
    "luck of several looks, and comparable with nothing but figures found the same way"
)


def peek_at_test(
    run: Path, *, data: Path, device: str = "auto", allow_data_errors: bool = False
) -> dict[str, Any]:
    """Evaluate every kept epoch of a finished run on test and take the lowest test MAE.

    Args:
        run: trained with ``training.keep_improving_epochs = true``.
        data: the store; its test split has labels.
        device: auto, cpu or cuda.
        allow_data_errors: measure also on data that ``data check`` calls wrong.

    Returns:
        What ``record["protocols"]["authors_test_peeking"]`` now holds: the chosen epoch's metrics,
        every epoch's test MAE, and ``warning``. ``record["evaluations"]`` is left as it was.

    Raises:
        UserError: the run kept one epoch alone, has other data, or the split has no labels.
    """
    record = read_record(run)
    if not record["config"]["training"].get("keep_improving_epochs"):
        raise UserError(
            f"{run} kept the best epoch alone; protocol {PROTOCOL} needs a run trained with "
            "--set training.keep_improving_epochs=true"
        )
    if record["data"]["task"] != "regression":
        raise UserError(f"protocol {PROTOCOL} is by MAE; {run} is a {record['data']['task']}")
    store = Store.open(data)
    allowed = refuse_errors(store, allowed=allow_data_errors)
    view = store.split("test")
    if not view.labelled.all():
        raise UserError(f"protocol {PROTOCOL} needs labels in the test split of {data}")
    here = open_device(device)
    if world_size() > 1:
        raise UserError(f"protocol {PROTOCOL} runs in one process, got {world_size()}")
    opened = open_run(run, data, "test", here)
    checkpoints, epochs = Checkpoints(run / "checkpoints"), _epochs_by_step(run)
    precision = record["config"]["training"]["precision"]
    assessed: list[dict[str, Any]] = []
    for step in checkpoints.best_steps():
        weights = checkpoints.weights_of(step)
        predictor = _with_weights_of(weights, opened.predictor, run, precision=precision)
        predictions = opened.predict(predictor.to(here))
        assessed.append({"epoch": epochs[step], **assess_view(view, predictions)})
    chosen = min(assessed, key=lambda assessment: float(assessment["metrics"]["mae"]))
    outcome = {
        "warning": WARNING,
        "split": "test",
        "chosen_on": "test",
        "data_hash": opened.store.content_hash,
        "created": now(),
        "looks": [{"epoch": a["epoch"], "test_mae": a["metrics"]["mae"]} for a in assessed],
        **chosen,
    }
    add_allowed(cast(Evaluation, outcome), allowed)
    with run_lock(run):
        record = read_record(run)
        key = PROTOCOL.replace("-", "_")
        record["protocols"] = {**record.get("protocols", {}), key: outcome}
        log_look(run, record, f"protocol:{PROTOCOL}", cast(Evaluation, outcome))
        write_record(run, record)
    return outcome


def _with_weights_of(path: Path, exported: Predictor, run: Path, *, precision: str) -> Predictor:
    """The run's network as it was at the end of another epoch."""
    scheme = trained_scheme(run, exported, weights=path, precision=precision)
    return Predictor(exported.definition, scheme.network.float(), exported.tokenizer)


def _epochs_by_step(run: Path) -> dict[int, int]:
    """Which epoch ended with which optimizer step."""
    events = read_events(run)
    return {} if events is None else {event["step"]: event["epoch"] for event in events.epochs}
