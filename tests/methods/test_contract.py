"""Every registered method keeps the contract, in its default settings and in its variations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

import tecafn.methods  # noqa: F401  registers every method
from tecafn.core.batch import Modality
from tecafn.core.errors import UserError
from tecafn.core.info import Task
from tecafn.core.registry import METHODS
from tecafn.testing import METHOD_PARTS, MethodCase, check_method, method_case


def variations() -> Iterator[tuple[str, str, Task, dict[str, Any]]]:
    """(what it is called, method, task, settings other than the defaults)."""
    for name in METHODS:
        for task in ("regression", "classification"):
            if task in METHODS[name].tasks:
                yield f"{name}-{task}", name, task, {}
    grid = itertools.product(Modality, ("sum", "concat"), ("printed", "pre_norm"))
    for core, fusion, residual in grid:
        options = {"core": core, "fusion": fusion, "residual": residual}
        if options == {"core": "text", "fusion": "sum", "residual": "printed"}:
            continue  # the default, which is above
        yield f"tecafn-{core}-{fusion}-{residual}", "tecafn", "regression", options
    yield "tecafn-audio-classification", "tecafn", "classification", {"core": Modality.AUDIO}
    yield "tecafn-linear", "tecafn", "regression", {"output": "linear"}
    yield "tecafn-random-partners", "tecafn", "regression", {"num_hard_negatives": "all"}


VARIATIONS = list(variations())


@pytest.fixture(scope="module", params=VARIATIONS, ids=[v[0] for v in VARIATIONS])
def case(request: pytest.FixtureRequest) -> Iterator[MethodCase]:
    _, name, task, options = request.param
    config = METHODS[name].config(**options)
    with method_case(name, config=config, task=task) as made:
        yield made


@pytest.mark.parametrize("part", METHOD_PARTS)
def test_contract_is_kept(case: MethodCase, part: str) -> None:
    METHOD_PARTS[part](case)


def test_some_method_is_registered() -> None:
    assert "tecafn" in METHODS


def test_an_unknown_method_is_one_line_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"^unknown method 'tecafm': did you mean 'tecafn'\?"):
        check_method("tecafm")


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="tecafn does regression, classification, not ranking"):
        check_method("tecafn", task="ranking")  # type: ignore[arg-type]
