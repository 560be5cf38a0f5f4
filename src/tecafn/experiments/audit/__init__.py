"""Do a run's, or a table's, own records bear out what it claims? Re-derived from the files.

Which split chose the checkpoint is found again from the validation metrics of every epoch; that the
test split was evaluated once, from the log of evaluations, whose lines seal each other; what was
measured, with intervals and tests, from the predictions; that data, config and code are the same
ones, from their hashes. An audit finds what was changed in one place; whoever forges every file
alike leaves no trace in them. A table's rows are measured again as they were, which loads torch.
"""

from __future__ import annotations

from pathlib import Path

from tecafn.data.store import Store
from tecafn.experiments.audit.findings import FAILED, PASSED, UNKNOWN, Finding
from tecafn.experiments.audit.of_run import audit_run
from tecafn.experiments.audit.of_table import audit_table
from tecafn.records.comparison import COMPARISON_FILE

__all__ = ["FAILED", "PASSED", "UNKNOWN", "Finding", "audit"]


def audit(place: Path, *, data: Path | None = None, other_code: bool = False) -> list[Finding]:
    """Everything that was asked of a run or of a comparison, and what was found.

    Args:
        place: a run's directory, or a comparison's.
        data: the store; its files are hashed. None = the records' hashes are compared alone.
        other_code: the results may be of another version of the package than this one.

    Raises:
        UserError: there is neither, or its record cannot be read.
    """
    hashed = None if data is None else _verified_hash(data)
    if (place / COMPARISON_FILE).is_file():
        return list(audit_table(place, hashed, other_code=other_code))
    return list(audit_run(place, place.name, hashed, other_code=other_code))


def _verified_hash(data: Path) -> str:
    store = Store.open(data)
    store.verify()
    return store.content_hash
