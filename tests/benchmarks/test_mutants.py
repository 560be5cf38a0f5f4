"""What the script of mutants changes, and to whom it gives them."""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

LoadBenchmark = Callable[[str], ModuleType]

SOURCE = '''
class Config:
    """A docstring with 1 + 1."""

    rate: float = 0.25
    kind: Literal["l1", "mse"] = "l1"


def forward(self, x, mask, *, scale: int = 2):
    """Another, of 3 * 3."""
    if x.ndim < 2:
        raise ValueError(f"needs {2 + 2} dimensions")
    x = torch.relu(zero_padding(x, mask))
    total = x.detach() + self.norm(x) * scale
    return torch.where(mask, total, pool(x, mask, keepdim=True))
'''


def changed(load_benchmark: LoadBenchmark) -> set[tuple[str, str]]:
    found = load_benchmark("mutants").mutants_of("a/methods/b.py", SOURCE, {"keepdim"})
    return {(mutant.before, mutant.after) for mutant in found}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0.25", "(0.5)"),
        ('"l1"', "'mse'"),
        ("x.ndim < 2", "(x.ndim <= 2)"),
        ("x.ndim < 2", "not (x.ndim < 2)"),
        ("torch.relu(zero_padding(x, mask))", "(zero_padding(x, mask))"),
        ("zero_padding(x, mask)", "(x)"),
        ("zero_padding(x, mask)", "(zero_padding(mask, x))"),
        ("x.detach()", "(x)"),
        ("self.norm(x)", "(x)"),
        ("x.detach() + self.norm(x) * scale", "(x.detach())"),
        ("x.detach() + self.norm(x) * scale", "(x.detach() - self.norm(x) * scale)"),
        ("pool(x, mask, keepdim=True)", "(pool(x, mask))"),
        ("torch.where(mask, total, pool(x, mask, keepdim=True))", "(total)"),
        ("x = torch.relu(zero_padding(x, mask))", "pass"),
        ("2", "3"),  # the default of scale
    ],
)
def test_a_mutant_is_made_of_each_kind(
    load_benchmark: LoadBenchmark, before: str, after: str
) -> None:
    assert (before, after) in changed(load_benchmark)


def test_what_is_said_is_left_alone(load_benchmark: LoadBenchmark) -> None:
    texts = {before for before, _ in changed(load_benchmark)}
    assert not any("docstring" in text or text in ("1", "3 * 3", "2 + 2") for text in texts)


GUARDED = """
@dataclass(frozen=True)
class Pairs:
    number: int = 3
    both = list(zip(first, second, strict=True))
"""


def test_guards_are_left_alone(load_benchmark: LoadBenchmark) -> None:
    found = load_benchmark("mutants").mutants_of("a/methods/b.py", GUARDED, {"strict"})
    assert {"3"} <= {mutant.before for mutant in found}
    assert "True" not in {mutant.before for mutant in found}
    assert "(zip(first, second))" not in {mutant.after for mutant in found}


def test_every_mutant_of_a_real_file_parses_and_differs(load_benchmark: LoadBenchmark) -> None:
    mutants = load_benchmark("mutants")
    path = "src/tecafn/methods/hcil.py"
    source = (mutants.REPOSITORY / path).read_text(encoding="utf-8")
    found = mutants.mutants_of(path, source, {"scores"})
    assert len(found) > 100
    for mutant in found:
        text = source[: mutant.start] + mutant.after + source[mutant.end :]
        assert ast.unparse(ast.parse(text)) != ast.unparse(ast.parse(source)), mutant


def test_a_file_is_given_to_its_own_tests_and_to_those_who_import_it(
    load_benchmark: LoadBenchmark,
) -> None:
    mutants = load_benchmark("mutants")
    root: Path = mutants.REPOSITORY
    files, methods = mutants.tests_of("src/tecafn/methods/hcil.py", root, most_users=9)
    assert methods == ["hcil"]
    assert "tests/methods/test_hcil.py" in files
    files, methods = mutants.tests_of("src/tecafn/layers/memory_fusion.py", root, most_users=9)
    assert methods == ["mfm", "mfn"]
    assert {"tests/layers/test_memory_fusion.py", "tests/methods/test_mfm.py"} <= set(files)
    files, methods = mutants.tests_of("src/tecafn/layers/memory_fusion.py", root, most_users=1)
    assert methods == ["mfm"]
    assert "tests/methods/test_mfn.py" not in files


def test_what_was_tried_is_not_tried_again(load_benchmark: LoadBenchmark, tmp_path: Path) -> None:
    mutants = load_benchmark("mutants")
    mutant = mutants.Mutant("src/tecafn/losses/ring.py", 3, "1", "2", 30, 31)
    out = tmp_path / "mutants.jsonl"
    assert mutants._done(out) == {}
    record = {**mutants.asdict(mutant), "was": "killed", "by": "a test", "seconds": 3}
    out.write_text(json.dumps(record) + "\n", encoding="utf-8")
    arguments = argparse.Namespace(out=out, limit=1.0, users=1)
    assert list(mutants._try_all(tmp_path, [mutant], arguments)) == [(mutant, "killed")]


def test_a_share_has_wilsons_interval(load_benchmark: LoadBenchmark) -> None:
    # Newcombe 1998, Table I: 81 of 263.
    low, high = load_benchmark("mutants").interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
