"""Requests made from the server's own description, right and wrong, are answered as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import serving_stub
from hypothesis import HealthCheck, given, settings

EXAMPLES = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
def test_every_answer_is_one_that_the_description_promises(tmp_path: Path) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="INTERFACE NOT TESTED")
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    # On a socket: what shares the server's batches must share its event loop.
    server = serving_stub.start(tmp_path / "server", max_queue=1000)
    try:
        described = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        tried = set()
        for found in described.get_all_operations():
            operation = found.ok()

            @EXAMPLES
            @given(case=operation.as_strategy())
            def check(case: Any) -> None:
                # No description says all of what a clip must be.
                case.call_and_validate(excluded_checks=[positive_data_acceptance])

            check()
            tried.add(operation.label)
    finally:
        server.stop()
    assert len(tried) == 12, tried
