"""Which small faults do the tests notice? Faults are made one by one, and the tests are run.

    python benchmarks/mutants.py [--sample N] [--seed S] [--only PATH[:LINE]] [--limit SECONDS]
                                 [--again FILE] [--out FILE] [--users N]

Run with ``make mutants``. A mutant is a copy of the package with one change in ``methods/``,
``losses/`` or ``layers/``: another operator, constant, default or argument, a term, call, layer or
statement left out. Each is tested by what belongs to its file: its own tests and doctests, those of
the modules that import it, and these methods' share of the contract and of the tables that every
method is in. A mutant is killed if one of them fails, which must pass without the change, or if
they take more than ``--limit`` seconds of processor time. Everything happens in a temporary copy,
so the checkout may change meanwhile; what ``--out`` holds already is not tried again.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import json
import math
import multiprocessing
import os
import py_compile
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "src/tecafn"
FOLDERS = ("methods", "losses", "layers")
# What every method is in; of these files only the tests that name the method are run.
OF_EVERY_METHOD = (
    "tests/methods/test_task_losses_and_defaults.py",
    "tests/methods/test_training_paths.py",
    "tests/methods/test_contract.py",
)
# Where rows of several processes are gathered, one process notices nothing.
OF_PROCESSES = "tests/methods/test_processes.py"
GATHERS = "gather_rows"
# What is imported once, before the tests of each mutant branch off.
HEAVY = (
    "torch",
    "scipy.stats",
    "safetensors.torch",
    "hypothesis",
    "transformers",
    "pyarrow",
    "torch.distributed.nn.functional",
    "transformers.models.bert",
    "lightning_fabric",
)

# Arguments that refuse what never happens: without them no number is another.
GUARDS = ("frozen", "kw_only", "slots", "strict")

FAILED = "failed-test"  # a file in the copy
WAITS = 10  # times the limit that a test may wait, asleep or behind others

OTHER_OPERATOR: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
# Calls whose first argument, or whose object, can stand in their place.
PASSES_ON = {"relu", "tanh", "sigmoid", "softmax", "log_softmax", "normalize", "zero_padding"}
PASSES_ON |= {"dropout", "detach", "abs", "square", "sqrt", "rsqrt", "exp", "log", "clamp", "any"}
PASSES_ON |= {"masked_fill", "gather_rows", "place", "gathered", "sign", "flip", "round"}
# Calls whose first two arguments may change places: the same comes out.
SYMMETRIC = {"transpose", "swapaxes", "maximum", "minimum", "max", "min", "equal", "logaddexp"}
SYMMETRIC |= {"l1_loss", "mse_loss", "task_loss", "cosine_similarity"}
LAYERS = {"ReLU", "Tanh", "Sigmoid", "GELU", "LayerNorm", "Dropout"}


@dataclass(frozen=True)
class Mutant:
    """One change.

    Args:
        path: of the file, from the repository.
        line: where.
        before, after: the source that is changed.
        start, end: its place in the file, in characters.
    """

    path: str
    line: int
    before: str
    after: str
    start: int
    end: int

    @property
    def folder(self) -> str:
        """``methods``, ``losses`` or ``layers``."""
        return Path(self.path).parent.name

    def __str__(self) -> str:
        shown = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.path}:{self.line}  " + "  ->  ".join(shown)


def mutants_of(path: str, source: str, optional: set[str]) -> list[Mutant]:
    """Every mutant of a file, in order.

    Args:
        path: of the file, from the repository.
        source: its text.
        optional: names of parameters that have a default somewhere; only these arguments can be
            left out.
    """
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    found = {}
    for node, after in _changes(ast.parse(source), optional):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        same = ast.unparse(ast.parse(after)) == ast.unparse(node)
        if not same:
            found[(start, end, after)] = Mutant(
                path, node.lineno, source[start:end], after, start, end
            )
    return list(found.values())


def _apply(mutant: Mutant, source: str) -> str:
    return source[: mutant.start] + mutant.after + source[mutant.end :]


def _changes(tree: ast.AST, optional: set[str]) -> Iterator[tuple[Any, str]]:
    """(node, what is written in its place) for the nodes that compute something."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr | ast.arguments):
            continue  # what is said of an error, and our own invariants
        if isinstance(child, ast.keyword) and child.arg in GUARDS:
            continue
        if isinstance(tree, ast.AnnAssign | ast.FunctionDef) and child in _annotations(tree):
            yield from _literals(tree, child)
            continue
        if isinstance(child, ast.Subscript) and ast.unparse(child.value) in ("Literal", "Callable"):
            continue
        yield from ((child, f"({text})") for text in _expressions(child, optional))
        if isinstance(child, ast.stmt):
            yield from _statements(child)
        yield from _changes(child, optional)
    if isinstance(tree, ast.FunctionDef):  # parameters: their defaults, not their types
        for default in [*tree.args.defaults, *(d for d in tree.args.kw_defaults if d)]:
            yield from ((default, text) for text in _expressions(default, optional))


def _annotations(node: ast.AnnAssign | ast.FunctionDef) -> list[ast.AST]:
    if isinstance(node, ast.AnnAssign):
        return [node.annotation]
    return [node.returns] if node.returns else []


def _literals(node: ast.AST, annotation: ast.AST) -> Iterator[tuple[Any, str]]:
    """Another of the values that ``name: Literal[...] = value`` may have."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
        choices = [n.value for n in ast.walk(annotation) if isinstance(n, ast.Constant)]
        others = [c for c in choices if isinstance(c, str) and c != node.value.value]
        if isinstance(node.value.value, str) and others:
            yield node.value, repr(others[0])


def _statements(node: ast.stmt) -> Iterator[tuple[Any, str]]:
    """A statement left out; a decorator that switches gradients off, too."""
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    is_repeated = isinstance(node, ast.Assign) and any(
        isinstance(part, ast.Name) and part.id in {ast.unparse(t) for t in node.targets}
        for part in ast.walk(node.value)
    )
    is_item = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)
    text = ast.unparse(node)
    if text.startswith(("METHODS.register", "super().__init__")):
        return
    if is_call or is_repeated or is_item or isinstance(node, ast.AugAssign):
        yield node, "pass"
    if isinstance(node, ast.If | ast.While):
        yield node.test, f"not ({ast.unparse(node.test)})"
    for decorator in getattr(node, "decorator_list", []):
        if ast.unparse(decorator) == "torch.no_grad()":
            yield decorator, "torch.enable_grad()"


def _expressions(node: ast.AST, optional: set[str]) -> Iterator[str]:
    """What may stand in an expression's place."""
    text = ast.unparse
    if isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.BinOp):
        yield from _operations(node)
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield text(node.operand)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield text(ast.Compare(node.left, [OTHER_OPERATOR[type(node.ops[0])]()], node.comparators))
    elif isinstance(node, ast.BoolOp):
        yield text(ast.BoolOp(OTHER_OPERATOR[type(node.op)](), node.values))
    elif isinstance(node, ast.IfExp):
        yield text(node.body)
        yield text(node.orelse)
    elif isinstance(node, ast.Tuple | ast.List) and isinstance(node.ctx, ast.Load):
        if len(node.elts) > 1 and not any(isinstance(e, ast.Slice) for e in node.elts):
            swapped = [node.elts[1], node.elts[0], *node.elts[2:]]
            yield text(type(node)(elts=swapped, ctx=node.ctx))
    elif isinstance(node, ast.Call):
        yield from _calls(node, optional)


def _constants(value: object) -> Iterator[str]:
    """Another truth value, or another number."""
    if isinstance(value, bool):
        yield repr(not value)
    elif isinstance(value, int):
        yield repr(value + 1)
    elif isinstance(value, float):
        yield repr(2 * value or 0.5)


def _operations(node: ast.BinOp) -> Iterator[str]:
    """Another operator, or one of the operands alone."""
    if type(node.op) in OTHER_OPERATOR:
        yield ast.unparse(ast.BinOp(node.left, OTHER_OPERATOR[type(node.op)](), node.right))
    if isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div):
        yield ast.unparse(node.left)
    if isinstance(node.op, ast.Add | ast.Mult):
        yield ast.unparse(node.right)


def _calls(node: ast.Call, optional: set[str]) -> Iterator[str]:
    """A call left out, with its first two arguments swapped, or without an optional argument."""
    text = ast.unparse
    function, arguments = node.func, [text(a) for a in node.args]
    name = function.attr if isinstance(function, ast.Attribute) else text(function)
    if name in LAYERS:
        yield "nn.Identity()"
    owner = text(function.value) if isinstance(function, ast.Attribute) else ""
    is_module = name.endswith(("dropout", "norm")) and owner == "self"
    if name in PASSES_ON or is_module:
        is_function = owner in ("", "torch", "functional", "nn.functional", "self", "torch.linalg")
        yield arguments[0] if is_function and arguments else owner
    if text(function) == "torch.where" and len(arguments) == 3:
        yield from arguments[1:]
    call = text(function)
    keywords = [
        f"**{text(k.value)}" if k.arg is None else f"{k.arg}={text(k.value)}" for k in node.keywords
    ]
    can_swap = len(arguments) >= 2 and arguments[0] != arguments[1] and name not in SYMMETRIC
    if can_swap and "Starred" not in ast.dump(node):
        swapped = [arguments[1], arguments[0], *arguments[2:], *keywords]
        yield f"{call}({', '.join(swapped)})"
    for place, keyword in enumerate(node.keywords):
        if keyword.arg in optional and keyword.arg not in GUARDS:
            kept = keywords[:place] + keywords[place + 1 :]
            yield f"{call}({', '.join([*arguments, *kept])})"


def _optional_parameters(root: Path) -> set[str]:
    """Names of keyword-only parameters with a default, anywhere in the package."""
    names = {"dim", "stable", "keepdim"}
    for path in (root / PACKAGE).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                names |= {parameter.arg for parameter, default in pairs if default is not None}
    return names


@cache
def _imports(path: Path) -> frozenset[str]:
    """``methods.tfn`` for each module of the three folders that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tecafn."):
            found.add(node.module.removeprefix("tecafn."))
    return frozenset(name for name in found if name.split(".")[0] in FOLDERS)


def tests_of(path: str, root: Path, *, most_users: int) -> tuple[list[str], list[str]]:
    """The test files a mutant of ``path`` is given to, and the methods it concerns.

    Of the modules that import a file of ``losses`` or ``layers``, and of the methods among them,
    the first ``most_users`` lend their tests.
    """
    folder, stem = Path(path).parent.name, Path(path).stem
    modules = {
        f"{p.parent.name}.{p.stem}": p for f in FOLDERS for p in (root / PACKAGE / f).glob("*.py")
    }
    users = {f"{folder}.{stem}"}
    for _ in modules:  # who imports it, directly or through losses and layers
        users |= {
            name
            for name, file in modules.items()
            if _imports(file) & {u for u in users if not u.startswith("methods.")}
        }
    methods = sorted(name.split(".")[1] for name in users if name.startswith("methods."))
    methods = [stem] if folder == "methods" else [m for m in methods if m != "__init__"]
    chosen = [path, *_test_files(root, folder, stem)]
    if folder != "methods":
        for name in sorted(users - {f"{folder}.{stem}"})[:most_users]:
            chosen += _test_files(root, *name.split("."))
    return [*dict.fromkeys(chosen)], methods[:most_users]


def _test_files(root: Path, folder: str, stem: str) -> list[str]:
    """Files named after a module, or (of the same folder) that import it."""
    files = sorted((root / "tests" / folder).glob("test_*.py"))
    files += sorted((root / "tests" / "equivalence").glob("test_*.py"))
    named = [f for f in files if f.stem in (f"test_{stem}", f"test_{stem}_equations")]
    importing = [f for f in files if f"{folder}.{stem}" in _imports(f)]
    relative = (f.relative_to(root).as_posix() for f in [*named, *importing])
    return [f for f in relative if f not in OF_EVERY_METHOD and "test_processes" not in f]


class OfMethods:
    """A pytest plugin: of what every method is in, only the tests that name one of these.

    The name of a test that fails is written into ``failed``.
    """

    def __init__(self, methods: Sequence[str], failed: Path) -> None:
        self.methods = methods
        self.failed = failed

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note which test failed."""
        if report.failed:
            self.failed.write_text(report.nodeid, encoding="utf-8")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Drop the others' tests."""
        items[:] = [item for item in items if self._concerns(item)]

    def _concerns(self, item: Any) -> bool:
        of_methods = (*OF_EVERY_METHOD, OF_PROCESSES)
        if not item.nodeid.startswith(of_methods) or "[" not in item.name:
            return True
        inside = item.name.split("[", 1)[1].rstrip("]")
        return any(inside == m or inside.startswith(f"{m}-") for m in self.methods)


def run_tests(root: Path, path: str, most_users: int, only: str | None) -> int:
    """Run the tests of ``path``, or one test, in this process and return pytest's exit code."""
    import pytest

    files, methods = tests_of(path, root, most_users=most_users)
    if "MUTANTS_SHOW" not in os.environ:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
    os.chdir(root)
    # The tests, too: processes that they start look for them there.
    sys.path[:0] = [str(root / "src"), str(root)]
    __import__("tecafn.methods")  # once by its name, before doctests look at its files
    limit = methods[:3] if len(methods) > 3 else methods  # of the slow contract
    rounds = [(files, methods), ([*OF_EVERY_METHOD[:2]], methods), ([OF_EVERY_METHOD[2]], limit)]
    if GATHERS in (root / path).read_text(encoding="utf-8"):
        rounds.append(([OF_PROCESSES], limit))
    if only:
        rounds = [([only], methods)]
    for chosen, concerned in rounds:
        present = [name for name in chosen if (root / name.partition("::")[0]).exists()]
        if not present:
            continue
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header"]
        options += ["-o", "timeout=0"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", *present]
        code = int(pytest.main(options, plugins=[OfMethods(concerned, root / FAILED)]))
        if code not in (0, 5):  # 5: no tests there
            return code
    return 0


def _forked(
    root: Path, path: str, limit: float, *, most_users: int, only: str | None = None
) -> str:
    """``survived``, ``killed`` or ``too slow``.

    The limit is processor time, so that a busy neighbour kills nothing.
    """

    def work() -> None:
        code = 3
        resource.setrlimit(resource.RLIMIT_CPU, (round(limit), round(limit)))
        try:
            code = run_tests(root, path, most_users, only)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(WAITS * limit)
    if process.is_alive():
        process.kill()
        process.join()
        return "too slow"
    if process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "too slow"
    return "survived" if process.exitcode == 0 else "killed"


def interval(killed: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not total:
        return 0.0, 1.0
    share, z = killed / total, 1.959964
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
    return centre - half, centre + half


def draw(root: Path, arguments: argparse.Namespace) -> list[Mutant]:
    """The sample: so many of each folder, or all that ``--only`` or ``--again`` name."""
    optional, chosen = _optional_parameters(root), []
    path, _, line = (arguments.only or "").partition(":")
    again: set[str] = set()
    if arguments.again:
        records = map(json.loads, Path(arguments.again).read_text(encoding="utf-8").splitlines())
        again = {
            f"{r['path']} {r['before']} {r['after']}" for r in records if r["was"] == "survived"
        }
    for folder in FOLDERS:
        everything: list[Mutant] = []
        for file in sorted((root / PACKAGE / folder).glob("*.py")):
            relative = file.relative_to(root).as_posix()
            if path in relative and file.stem not in arguments.skip.split(","):
                everything += mutants_of(relative, file.read_text(encoding="utf-8"), optional)
        if line:
            everything = [m for m in everything if m.line == int(line)]
        if arguments.again:
            everything = [m for m in everything if f"{m.path} {m.before} {m.after}" in again]
        elif len(everything) > arguments.sample:
            everything = random.Random(arguments.seed).sample(everything, arguments.sample)
        chosen += everything
    return chosen


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, test, count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=100, help="mutants of each folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="files whose path contains this, or one line: PATH:LINE")
    parser.add_argument("--skip", default="", help="modules to leave out: tmbl,tetfn")
    parser.add_argument(
        "--limit", type=float, default=300.0, help="processor seconds for one mutant's tests"
    )
    parser.add_argument(
        "--users", type=int, default=99, help="how many modules that import a file lend their tests"
    )
    parser.add_argument("--again", help="a file of --out; only what survived there")
    parser.add_argument("--out", type=Path, help="a file for one line of JSON per mutant")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in (*HEAVY, "pytest"):
        __import__(name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("src", "tests", "configs", "pyproject.toml", "benchmarks"):
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            copy(REPOSITORY / name, root / name)
        compileall.compile_dir(
            root / "src",
            quiet=2,
            invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH,
        )
        results = list(_try_all(root, draw(root, arguments), arguments))
    for name in FOLDERS:
        was = [what for mutant, what in results if mutant.folder == name]
        if was:
            killed = len(was) - was.count("survived")
            low, high = interval(killed, len(was))
            print(
                f"{name}: {killed} of {len(was)} killed, {killed / len(was):.1%} "
                f"(95 % interval {low:.1%} to {high:.1%}), {was.count('too slow')} of them by time"
            )


def _try_all(
    root: Path, chosen: Sequence[Mutant], arguments: argparse.Namespace
) -> Iterator[tuple[Mutant, str]]:
    done = _done(arguments.out)
    for number, mutant in enumerate(chosen, 1):
        record = asdict(mutant)
        key = json.dumps(record, sort_keys=True)
        if key in done:
            yield mutant, done[key]
            continue
        file, failed, begun = root / mutant.path, root / FAILED, time.monotonic()
        source = file.read_text(encoding="utf-8")
        failed.unlink(missing_ok=True)
        file.write_text(_apply(mutant, source), encoding="utf-8")
        was = _forked(root, mutant.path, arguments.limit, most_users=arguments.users)
        file.write_text(source, encoding="utf-8")
        by = failed.read_text(encoding="utf-8") if failed.exists() else ""
        took = time.monotonic() - begun
        if by and was == "killed":
            unchanged = _forked(
                root, mutant.path, arguments.limit, most_users=arguments.users, only=by
            )
            if unchanged != "survived":
                sys.exit(f"{by} fails without a change; MUTANTS_SHOW=1 shows it")
        print(f"{number}/{len(chosen)} {was} ({took:.0f} s)  {mutant}  {by}", flush=True)
        if arguments.out:
            with arguments.out.open("a", encoding="utf-8") as sink:
                sink.write(json.dumps({**record, "was": was, "by": by, "seconds": round(took)}))
                sink.write("\n")
        yield mutant, was


def _done(out: Path | None) -> dict[str, str]:
    """By mutant: what ``--out`` says became of it."""
    done = {}
    if out is not None and out.exists():
        for line in out.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            was, _, _ = record.pop("was"), record.pop("by", None), record.pop("seconds")
            done[json.dumps(record, sort_keys=True)] = was
    return done


if __name__ == "__main__":
    main()
