"""Requests made from the server's own description, right and wrong, are answered as it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from serving_stub import Place

EXAMPLES = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
def test_every_answer_is_one_that_the_description_promises(
    make_place: Callable[..., Place],
) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="INTERFACE NOT TESTED")
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    place = make_place(max_queue=1000, allowed_hosts=("testserver",))
    described = schemathesis.openapi.from_asgi("/openapi.json", place.client.app)
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
    assert len(tried) == 11, tried
