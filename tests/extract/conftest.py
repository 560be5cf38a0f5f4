"""Fixtures of the tests of extraction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tecafn.core.errors import UserError
from tecafn.extract.guard import Outcome


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips are read in this process: starting one takes longer than a small clip."""

    def run(
        function: Callable[..., Any], jobs: Iterable[Any], **_: object
    ) -> Iterator[Outcome[Any]]:
        for job in jobs:
            try:
                yield Outcome(job, function(job, lambda _: None))
            except UserError as error:
                yield Outcome(job, error=str(error))

    def call(function: Callable[..., Any], job: Any, **_: object) -> Any:
        return function(job, lambda _: None)

    monkeypatch.setattr("tecafn.extract.folder.run_guarded", run)
    monkeypatch.setattr("tecafn.extract.folder.call_guarded", call)
