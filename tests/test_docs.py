"""README and docs: numbers are measured, code runs, pages are up to date, links lead somewhere."""

from __future__ import annotations

import functools
import importlib.util
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import typer
from cells_here import in_this_process

import tecafn
from tecafn.cli import app, main
from tecafn.core.output import Progress
from tecafn.data import READERS
from tecafn.experiments import shipped
from tecafn.testing import method_case

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def make_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pages", ROOT / "docs" / "make_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(text: str, first: str) -> dict[str, dict[str, str]]:
    """The first Markdown table whose first column is called ``first``: row to column to cell."""
    rows: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for line in text.splitlines():
        cells = [cell.replace("**", "").strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            if rows:
                break
            columns = []
        elif not columns:
            columns = cells if cells[0] == first else []
        elif not set(line) <= set("|- "):
            rows[cells[0].removesuffix(" \u2020")] = dict(zip(columns, cells, strict=True))
    return rows


# Numbers


def test_the_readmes_table_has_the_numbers_of_the_page_it_links() -> None:
    text = README.read_text(encoding="utf-8")
    shown = table(text[text.index("<!-- results -->") :], "method")
    page = table((RESULTS / "comparison-synthetic.md").read_text(encoding="utf-8"), "row")
    assert len(shown) == 8
    for name, row in shown.items():
        assert row.pop("method").removesuffix(" \u2020") == name
        for column, cell in row.items():
            assert page[name][column].removesuffix(" \u2020") == cell, (name, column)
    means = [float(row["MAE"].split()[0]) for row in shown.values()]
    assert means == sorted(means)


def test_the_readme_says_which_place_tecafn_has() -> None:
    page = table((RESULTS / "comparison-synthetic.md").read_text(encoding="utf-8"), "row")
    methods = {m["name"]: page[m["name"]].get("MAE", "") for m in tecafn.list_methods()}
    measured = {name: mae.split()[0] for name, mae in methods.items() if "\u00b1" in mae}
    order = sorted(measured, key=lambda name: float(measured[name]))
    numbers = ("no", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    said = f"{numbers[1 + order.index('tecafn')]} of {['sixteen'][len(measured) - 16]}"
    assert said in " ".join(README.read_text(encoding="utf-8").split())


def test_every_decimal_number_of_the_readme_is_in_a_results_page() -> None:
    text = re.sub(r"```.*?```", "", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    measured = "".join(page.read_text(encoding="utf-8") for page in RESULTS.glob("*.md"))
    for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", text):
        if number not in ("2.0", "3.11"):  # a licence and a version
            assert number in measured, number


def test_every_picture_is_shown_on_a_page() -> None:
    pages = "".join(p.read_text(encoding="utf-8") for p in (README, *(ROOT / "docs").rglob("*.md")))
    for picture in (ROOT / "docs" / "images").iterdir():
        assert f"images/{picture.name})" in pages, picture.name


def test_every_results_page_is_listed_with_its_command() -> None:
    listed = (RESULTS / "README.md").read_text(encoding="utf-8")
    commands = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in RESULTS.glob("*.md"):
        if page.name != "README.md":
            assert f"[{page.name}]({page.name})" in listed
    for command in re.findall(r"`make ([\w-]+)`", listed):
        assert f"\n{command}:" in commands, command


# Pages that are made from the code


def test_the_page_of_settings_is_up_to_date_and_describes_each(make_pages: ModuleType) -> None:
    page = make_pages.configuration()
    assert make_pages.CONFIGURATION.read_text(encoding="utf-8") == page, "run `make docs`"
    assert not [line for line in page.splitlines() if line.endswith("|  |")]


def test_the_page_of_the_paper_has_the_lines_of_the_source(make_pages: ModuleType) -> None:
    page = make_pages.PAPER.read_text(encoding="utf-8")
    assert make_pages.paper(page) == page, "run `make docs`"
    assert page.count("<!-- lines ") == page.count("```py\n") == 10


def test_the_page_of_the_run_directory_is_up_to_date_and_describes_each(
    make_pages: ModuleType,
) -> None:
    page = make_pages.RUN_DIRECTORY.read_text(encoding="utf-8")
    assert make_pages.run_directory(page) == page, "run `make docs`"
    assert not re.findall(r"^\| `\w+` \| [^|]* \|  \|$", page, re.MULTILINE)
    links = set(re.findall(r"\]\(#(\w+)\)", page))
    headings = {h.lower().replace(".", "") for h in re.findall(r"^#+ (\S+)$", page, re.MULTILINE)}
    assert links <= headings


def test_the_readmes_table_of_methods_is_up_to_date(make_pages: ModuleType) -> None:
    text = README.read_text(encoding="utf-8")
    assert make_pages.readme(text) == text, "run `make docs`"
    for method in tecafn.list_methods():
        assert f"| `{method['name']}` |" in text


# Code and links


def _python(path: Path) -> str:
    return "\n".join(
        re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    )


def _console(path: Path) -> list[list[str]]:
    """The commands of a page, each as its arguments."""
    text = path.read_text("utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


# Pages whose Python and commands run here, in a folder with a store and a run.
RUN_HERE = (
    "README.md",
    "docs/add-a-dataset.md",
    "docs/export.md",
    "docs/models.md",
    "docs/own-features.md",
    "docs/performance.md",
    "docs/python.md",
    "docs/robustness-and-explanation.md",
    "docs/sharing.md",
    "docs/synthetic-corpus.md",
    "docs/text-encoders.md",
)
HAVE_A_RUN = ("docs/export.md", "docs/robustness-and-explanation.md", "docs/sharing.md")
# Those that need more than that, and the test that runs them.
RUN_ELSEWHERE = {
    "docs/add-a-method.md": "test_add_a_method.py",
    "docs/formats.md": "data/test_formats_page.py",
    "docs/serve.md": "server/test_pages_code.py",
    "docs/your-own-video.md": "extract/test_extract_command.py",
}
# What takes its time in words that a test need not wait for.
SMALLER = {
    '    text_encoder="minilm",\n': "",
    "num_train=2000, num_valid=400, num_test=3000": "num_train=20, num_valid=8, num_test=8",
    "num_train=200_000": "num_train=20",
    "    seeds=2,\n": "    seeds=1,\n",
}


def test_every_page_with_code_is_run_by_a_test() -> None:
    with_code = {
        page.relative_to(ROOT).as_posix() for page in PAGES if _python(page) or _console(page)
    }
    assert with_code == {*RUN_HERE, *RUN_ELSEWHERE}
    for test in RUN_ELSEWHERE.values():
        assert (ROOT / "tests" / test).is_file(), test


@pytest.fixture
def page_folder(
    tiny_toml: Path,
    tiny_store: Path,
    tmp_path: Path,
    no_fsync: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Where the names of the pages are, each a thing that takes a second."""
    configs = tmp_path / "configs" / "mosi"
    configs.mkdir(parents=True)
    text = tiny_toml.read_text(encoding="utf-8")
    (configs / "tecafn.toml").write_text(text, encoding="utf-8")
    encoder = next(line for line in text.splitlines() if line.startswith("text_encoder"))
    (configs / "concat.toml").write_text(
        f'method = "concat"\n{encoder}\n[training]\nmax_epochs = 1\n', encoding="utf-8"
    )
    monkeypatch.setattr(shipped, "configs_folder", lambda: tmp_path / "configs")
    monkeypatch.setattr(READERS, "_items", dict(READERS._items))
    monkeypatch.setattr("tecafn.experiments.compare.CellRunner.run", in_this_process)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_store, tmp_path / "data" / "mosi")
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # onnxruntime's quantisation
@pytest.mark.parametrize("page", RUN_HERE)
def test_the_pages_code_runs(page: str, page_folder: Path, tiny_run: Path) -> None:
    path = ROOT / page
    names: dict[str, object] = {"__name__": "page"}
    commands = _console(path)
    if page in HAVE_A_RUN:
        shutil.copytree(tiny_run, page_folder / "runs" / "mosi")
        tecafn.evaluate("runs/mosi", data="data/mosi", split="test")
    if page == "docs/export.md":
        tecafn.export("runs/mosi", out="exported")
    if page == "docs/performance.md":
        with method_case("concat") as case:
            names |= {"scheme": case.build(), "batch": case.batch(2)}
        names["progress"] = Progress(seed=0, epoch=0)
    for table in re.findall(r"^```\n(video_id.*?)^```$", path.read_text("utf-8"), re.M | re.S):
        (page_folder / "label.csv").write_text(table, encoding="utf-8")
    code = _python(path)
    for written, shorter in SMALLER.items():
        code = code.replace(written, shorter)
    exec(compile(code, page, "exec"), names)
    for command in commands:
        assert main(command) == 0, command


_tecafn = functools.cache(lambda: typer.main.get_command(app))


def _options_of(words: Sequence[str]) -> set[str] | None:
    """The options of the command that words begin with; None = there is none."""
    command = _tecafn()
    for word in words:
        below = getattr(command, "commands", None)
        if below is None:
            break
        if word not in below:
            return None
        command = below[word]
    return {"--help", *(name for parameter in command.params for name in parameter.opts)} | {
        name for parameter in command.params for name in parameter.secondary_opts
    }


def _written_commands(page: Path) -> Iterator[str]:
    """What follows ``tecafn`` in blocks and between backticks, whether or not a test can run it."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(?:sh|console)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    for line in lines:
        found = re.match(r"(?:.*-m |.* && |\S*/)?tecafn ([^|&;#]+)", line)
        if found:
            yield found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_page_exists_and_has_its_options(page: Path) -> None:
    """Also those that no test runs: they name data or machines that are not here."""
    for written in _written_commands(page):
        words = written.replace("[", " ").replace("]", " ").split()
        options = _options_of([word for word in words if not word.startswith("-")])
        assert options is not None, f"tecafn {written}"
        for word in words:
            name = word.partition("=")[0].strip("',.")
            if word.startswith("--"):
                assert name in options, f"tecafn {written}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_of_a_page_are_toml_and_its_imports_exist(page: Path) -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for language, block in blocks:
        if language == "toml":
            tomllib.loads(block)
        elif not language:
            for line in re.findall(r"^from tecafn.*$|^import tecafn.*$", block, re.MULTILINE):
                exec(line, {})
            for name in re.findall(r"\btecafn\.([a-z_]+)\(", block):
                assert hasattr(tecafn, name), name


def test_every_target_that_a_page_names_is_in_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]+)", page.read_text("utf-8"), re.M):
            assert target in targets, (page.name, target)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            path, _, anchor = target.partition("#")
            assert (page.parent / path).exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.*)$", (page.parent / path).read_text("utf-8"), re.M)
                assert anchor in [
                    re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings
                ]


def test_pictures_of_the_readme_are_small() -> None:
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (ROOT / name).stat().st_size < 300_000


# Words that read as translated


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_use_the_fields_words(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    if page.name == "contributing.md":
        return  # it says which words not to use
    for phrase in (
        "ordered rightly",
        "data set",
        "yardstick",
        "the print ",
        "everybody",
        "cut behind",
    ):
        assert phrase not in text.lower(), phrase


def test_package_citation_and_changelog_name_one_version() -> None:
    root = ROOT
    version = tecafn.__version__
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == version
    assert f"\nversion: {version}\n" in (root / "CITATION.cff").read_text("utf-8")
    newest = next(
        line for line in (root / "CHANGELOG.md").read_text("utf-8").split("\n") if line[:3] == "## "
    )
    is_development = ".dev" in version
    assert newest.split()[1] == version.partition(".dev")[0]
    assert newest.endswith("(not yet released)") == is_development
