"""Every registered method keeps the contract, in its default settings and in its variations."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from narrow import NARROW

import tecafn.methods  # noqa: F401  registers every method
from tecafn.core.errors import UserError
from tecafn.core.info import Task
from tecafn.core.modality import Modality
from tecafn.core.output import Progress
from tecafn.core.registry import METHODS, Method
from tecafn.methods.tecafn import DIFFERENCES, PARTS, REVISED, Difference, TeCaFNConfig
from tecafn.testing import METHOD_PARTS, MethodCase, check_method, check_part, method_case

TETFN_AS_PUBLISHED = {
    "num_lower_layers": 1,
    "scaled_inputs": True,
    "positions": "each",
    "streams": "all",
    "reading": "last",
    "fusion_dim": 64,
}
REVISED_AUDIO = {"variant": "revised", "core": Modality.AUDIO}
OTHER_PARTS = tuple(part for part in PARTS if part not in REVISED)


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
    yield "tecafn-bank", "tecafn", "regression", {"bank_size": 16, "bank_frames": 5}
    yield "tecafn-authors", "tecafn", "regression", {"variant": "authors"}
    yield "tecafn-authors-classification", "tecafn", "classification", {"variant": "authors"}
    yield "tecafn-revised", "tecafn", "regression", {"variant": "revised"}
    yield "tecafn-revised-classification", "tecafn", "classification", {"variant": "revised"}
    yield "tecafn-revised-audio", "tecafn", "regression", REVISED_AUDIO
    yield "tecafn-other-parts", "tecafn", "regression", {"parts": OTHER_PARTS}
    yield "tetfn-published", "tetfn", "regression", TETFN_AS_PUBLISHED
    yield "tmbl-kl", "tmbl", "regression", {"similarity": "kl"}


VARIATIONS = list(variations())
# The task, the core, the fusion and the residual move no dropout: what is there already.
SETTINGS_OF_NO_DROPOUT = {"core", "output", "num_hard_negatives", "similarity"}
DROP_OUT_ALIKE = {
    name
    for name, _, task, options in VARIATIONS
    if task == "classification" or set(options) & SETTINGS_OF_NO_DROPOUT
}

# Half of the grid has every two of its settings together; the rest runs in the slow suite.
OTHER_HALF = {
    "tecafn-text-sum-pre_norm",
    "tecafn-text-concat-printed",
    "tecafn-audio-sum-printed",
    "tecafn-audio-concat-pre_norm",
    "tecafn-vision-sum-pre_norm",
    "tecafn-vision-concat-printed",
}
# What the last layer and the loss do not decide: a classification's is a regression's.
BEFORE_THE_HEAD = {"padding invisible", "neighbours invisible", "batch of one", "phases"}

# The parts that take many steps, and the variations whose own loss or update they are about.
TRAINS = {"one batch overfits", "resume bitwise", "trains without modalities", "usable modalities"}
TRAINED_ANYWAY = {"tecafn-bank", "tecafn-classification"}


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_rests_on_public_code_where_a_test_finds_its_computation(name: str) -> None:
    folder = Path(__file__).parents[1] / "equivalence"
    certifying = set(folder.glob("test_*.py")) - {folder / "test_without_public_code.py"}
    tests = "".join(path.read_text(encoding="utf-8") for path in certifying)
    is_certified = f'prepared("{name}"' in tests or f'("{name}", ' in tests
    assert (METHODS[name].basis == "code") == is_certified


@pytest.mark.parametrize(("basis", "certified"), [("code", ""), ("paper", "x"), ("books", "")])
def test_a_basis_that_says_nothing_is_refused(basis: Any, certified: str) -> None:
    with pytest.raises(ValueError, match=r"basis .*, got|got basis"):
        Method(config=object, build=lambda c, i: None, paper="", basis=basis, certified=certified)  # type: ignore[arg-type, return-value]


@pytest.fixture(scope="module")
def cases() -> Iterator[Callable[[str], MethodCase]]:
    """A variation's case by its name, made once: the parts of the contract do not change it."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def made(title: str) -> MethodCase:
            _, name, task, options = next(found for found in VARIATIONS if found[0] == title)
            config = METHODS[name].config(**NARROW.get(name, {}), **options)
            return stack.enter_context(method_case(name, config=config, task=task))

        yield made


def cases_and_parts() -> Iterator[Any]:
    """Every variation with every part; where a default has trained, a variation trains slowly."""
    for name, _, task, options in VARIATIONS:
        for part in METHOD_PARTS:
            if part == "dropouts act" and name in DROP_OUT_ALIKE:
                continue
            trained = part in TRAINS and (bool(options) or task == "classification")
            repeated = part in BEFORE_THE_HEAD and task == "classification"
            is_slow = (trained and name not in TRAINED_ANYWAY) or repeated or name in OTHER_HALF
            marks = [pytest.mark.slow] if is_slow else []
            yield pytest.param(name, part, marks=marks, id=f"{name}-{part}")


@pytest.mark.parametrize(("title", "part"), list(cases_and_parts()))
def test_contract_is_kept_but_for_what_is_declared(
    cases: Callable[[str], MethodCase], title: str, part: str
) -> None:
    check_part(cases(title), part)


ABOUT_PREDICTIONS = (
    "padding invisible",
    "neighbours invisible",
    "batch of one",
    "absent modalities",
    "every parameter trained",
)


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_each_difference_alone_breaks_what_it_declares_and_nothing_else(
    difference: Difference,
) -> None:
    with method_case("tecafn", config=TeCaFNConfig(differences=(difference,))) as case:
        for part in ABOUT_PREDICTIONS:
            check_part(case, part)


BROKEN_BY_THE_AUTHORS = {
    "padding invisible": "padding must be invisible: predictions differ by",
    "neighbours invisible": "neighbours in the batch must be invisible: predictions differ by",
    "batch of one": "a batch of one must predict as any other batch does: predictions differ by",
    "absent modalities": "must be as one that does not exist: predictions differ by",
}


def test_the_authors_variant_breaks_these_parts_and_says_so() -> None:
    config = TeCaFNConfig(variant="authors")
    assert set(METHODS["tecafn"].known_violations(config)) == set(BROKEN_BY_THE_AUTHORS)
    with method_case("tecafn", config=config) as case:
        for part, message in BROKEN_BY_THE_AUTHORS.items():
            with pytest.raises(AssertionError, match=message):
                METHOD_PARTS[part](case)


def test_the_papers_variant_and_the_baseline_break_nothing() -> None:
    for name in METHODS:
        assert METHODS[name].known_violations(METHODS[name].config()) == {}


def test_some_method_is_registered() -> None:
    assert "tecafn" in METHODS


@pytest.mark.parametrize("name", list(METHODS))
def test_what_is_logged_holds_no_graph(name: str) -> None:
    with method_case(name) as case:
        scheme, batch = case.build(), case.mixed_batch(seed=0)
        for phase in scheme.phases():
            logged = phase.loss(batch, Progress(seed=0, epoch=0)).log
            assert not [key for key, value in logged.items() if value.requires_grad]


def test_half_of_the_grid_has_every_two_of_its_settings_together() -> None:
    grid = [dict(options) for name, *_, options in VARIATIONS if name not in OTHER_HALF]
    default = {"core": Modality.TEXT, "fusion": "sum", "residual": "printed"}
    kept = [options for options in (default, *grid) if set(options) == set(default)]
    assert len(kept) == 6
    for first, second in itertools.combinations(default, 2):
        pairs = {(options[first], options[second]) for options in kept}
        assert len(pairs) == len({a for a, _ in pairs}) * len({b for _, b in pairs})


def test_an_unknown_method_is_one_line_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"^unknown method 'tecafm': did you mean 'tecafn'\?"):
        check_method("tecafm")


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="tecafn does regression, classification, not ranking"):
        check_method("tecafn", task="ranking")  # type: ignore[arg-type]
