"""`tecafn list` and `tecafn data`: no torch, at once, readable at 80 columns."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import tecafn.methods
from tecafn.core.registry import METHODS, Method
from tecafn.data.readers import READERS
from tecafn.experiments import shipped

HEAVY = {"torch", "transformers", "scipy", "matplotlib", "lightning_fabric"}
SOURCE = Path(tecafn.__file__).resolve().parents[1]


def run(*arguments: object, wants: set[str] = HEAVY, **variables: str) -> tuple[int, str, str]:
    """Exit code, output, and which of ``wants`` a command has loaded, in a process of its own."""
    code = (
        "import sys\nfrom tecafn.cli import main\ncode = main(sys.argv[1:])\n"
        f"print(*sorted({wants!r} & sys.modules.keys()), file=sys.stderr)\nsys.exit(code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return done.returncode, done.stdout, done.stderr.strip()


@pytest.mark.parametrize("what", ["methods", "datasets", "configs"])
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_lists_load_neither_torch_nor_numpy(what: str, options: tuple[str, ...]) -> None:
    wants = HEAVY | {"numpy", "pyarrow"}
    assert run("list", what, *options, wants=wants)[::2] == (0, "")


def test_data_is_made_checked_and_imported_without_torch(tmp_path: Path) -> None:
    sizes = ("--train", 6, "--valid", 3, "--test", 3)
    wants = {"torch", "transformers"}
    assert run("data", "make", "--out", tmp_path / "made", *sizes, wants=wants)[::2] == (0, "")
    made = run("data", "check", tmp_path / "made", wants={*wants, "pandas", "pyarrow.dataset"})
    assert made[::2] == (0, "")
    rows = ["v0,0,good,1,train", "v1,0,bad,-1,valid", "v2,0,fine,2,test"]
    text = "\n".join(["video_id,clip_id,text,label,mode", *rows])
    (tmp_path / "label.csv").write_text(text + "\n", encoding="ascii")
    source = tmp_path / "label.csv"
    assert run("data", "check", source, wants=wants)[2].splitlines()[-1:] in ([], [""])
    code, _, loaded = run("data", "import", source, "--out", tmp_path / "store", wants=wants)
    assert code == 0
    assert "torch" not in loaded.split()


def test_names_of_the_package_are_listed_without_torch() -> None:
    code = "import sys, tecafn; tecafn.list_methods(); tecafn.Modality; tecafn.UserError\n"
    code += "import tecafn.data; tecafn.data.Store; tecafn.data.READERS\n"
    code += "sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600, env=environment)


@pytest.mark.parametrize(
    "what",
    [
        "methods",
        pytest.param("datasets", marks=pytest.mark.slow),
        pytest.param("configs", marks=pytest.mark.slow),
    ],
)
def test_a_list_takes_no_longer_than_the_command_line_and_a_bit(what: str) -> None:
    # Beside the help, which loads nothing, and in seconds of the processor: those of the clock say
    # more about the machine and its neighbours.
    def seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    pairs = [(seconds("list", what), seconds("list", "--help")) for _ in range(3)]
    assert min(listing - helping for listing, helping in pairs) < 0.25


def test_what_is_read_about_methods_is_what_they_register(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = shipped.list_methods()
    assert [each["name"] for each in registered] == list(METHODS)
    monkeypatch.delitem(sys.modules, "tecafn.methods")
    monkeypatch.setattr(shipped, "METHODS", {})
    assert shipped.list_methods() == registered


def test_what_is_read_about_formats_is_what_they_register(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = shipped.list_formats()
    assert [each["format"] for each in registered] == list(READERS)
    monkeypatch.delitem(sys.modules, "tecafn.data.readers")
    assert shipped.list_formats() == registered


@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_users_own_method_is_listed(monkeypatch: pytest.MonkeyPatch, is_loaded: bool) -> None:
    if not is_loaded:
        monkeypatch.delitem(sys.modules, "tecafn.methods")
    theirs = Method(config=object, build=lambda config, info: None, paper="", summary="theirs")  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(shipped, "METHODS", {**METHODS, "theirs": theirs})
    listed = {each["name"]: each for each in shipped.list_methods()}
    assert listed["theirs"]["summary"] == "theirs"
    assert set(listed) == {"theirs", *METHODS}


@pytest.mark.parametrize(
    "source",
    [
        'METHODS.register("a", Method(summary=f"{1}"))',
        'METHODS.register("a", Method(**told))',
        'for name in "ab":\n    METHODS.register(name, Method(summary="x"))',
        'METHODS.register("a", Method(summary="x"))\nprint("more")',
        'add(METHODS.register, "a")\nMETHODS.register("a", method)',
    ],
)
def test_a_registration_that_cannot_be_read_is_never_left_out(tmp_path: Path, source: str) -> None:
    (tmp_path / "method.py").write_text(f"import os\n\n{source}\n")
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, the methods are then loaded
        dict(shipped.read_registrations(tmp_path, ("summary",)))


@pytest.mark.parametrize("what", ["methods", "datasets", "configs"])
@pytest.mark.parametrize(
    "columns",
    [
        "80",
        pytest.param("60", marks=pytest.mark.slow),
        pytest.param("200", marks=pytest.mark.slow),
    ],
)
def test_lists_fit_the_terminal_and_break_no_sentence_into_bits(what: str, columns: str) -> None:
    code, out, _ = run("list", what, COLUMNS=columns)
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= min(80, int(columns))
    if what == "methods":
        listed = json.loads(run("list", "methods", "--json")[1])
        starts = [line for line in lines if line[:1].strip()]
        assert [line.split()[0] for line in starts] == [each["name"] for each in listed]
        # A name, its summary and its paper: at 80 columns three lines, seldom four.
        if columns != "60":
            assert len(lines) <= 3 * len(listed)


def test_the_shell_completes_commands_without_torch() -> None:
    _, output, loaded = run(
        COMP_WORDS="tecafn ex", COMP_CWORD="1", _TECAFN_COMPLETE="complete_bash"
    )
    assert set(output.split()) >= {"export", "extract"}
    assert loaded == ""
