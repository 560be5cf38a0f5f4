"""The tables of a comparison: every format says the same, marks the same, and is harmless."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tecafn.cli import _print_comparison
from tecafn.core.errors import UserError
from tecafn.records.comparison import read_comparison
from tecafn.report import figures
from tecafn.report.comparison import (
    ABSTRACT_NOTE,
    about,
    basis_lines,
    finding,
    notes,
    plain_table,
    reason_without_result,
    render_csv,
    render_latex,
    render_markdown,
    render_page,
    write_tables,
)
from tecafn.report.extras import page_extras
from tecafn.report.marks import ABSTRACT_MARK

HOSTILE = '<script>alert("x")</script> | 50 % of $x_1 & {{ 7*7 }}'


def row(name: str, **changes: Any) -> dict[str, Any]:
    """A method with results over three seeds."""
    made: dict[str, Any] = {
        "name": name,
        "summary": "",
        "paper": f"{name}'s paper",
        "basis": "paper",
        "certified": "",
        "after_abstract": False,
        "config": f"mosi/{name}.toml",
        "refused": "",
        "seeds": [0, 1, 2],
        "open": [],
        "failures": {},
        "metrics": {
            "mae": {"mean": 0.8, "std": 0.01, "values": [0.79, 0.8, 0.81]},
            "corr": {"mean": None, "std": None, "values": [0.5, None, 0.5]},
            "acc7": {"mean": 0.4, "std": 0.02, "values": [0.38, 0.4, 0.42]},
            "acc5": {"mean": 0.5, "std": 0.02, "values": [0.48, 0.5, 0.52]},
        },
        "difference": {},
        "hard_pairs": {"num_pairs": 9, "num_videos": 3, "ordered": 0.6, "interval": [0.5, 0.7]},
        "designed_pairs": None,
        "seconds": {"mean": 90.0, "std": 1.0, "values": [90.0] * 3},
        "epochs": {"mean": 7.5, "std": 1.0, "values": [7.0, 8.0]},
        "num_parameters": 22_713_216,
        "num_trained_parameters": 314_159,
        "peak_memory_bytes": 512 * 2**20,
    }
    return made | changes


def without_result(name: str, **changes: Any) -> Any:
    nothing: dict[str, Any] = {
        "seeds": [],
        "metrics": {},
        "hard_pairs": None,
        "seconds": None,
        "epochs": None,
        "num_parameters": None,
        "num_trained_parameters": None,
        "peak_memory_bytes": None,
    }
    return row(name, **(nothing | changes))


def make_summary(**changes: Any) -> Any:
    """Five methods: the best one, a worse one, a partial one, a refused one, an open one."""
    worse = {
        "mae": {"mean": 0.9, "std": 0.03, "values": [0.87, 0.9, 0.93]},
        "corr": {"mean": 0.6, "std": 0.02, "values": [0.6] * 3},
        "acc7": {"mean": 0.5, "std": 0.02, "values": [0.5] * 3},
        "acc5": {"mean": 0.4, "std": 0.02, "values": [0.4] * 3},
    }
    difference = {"value": 0.1, "interval": [-0.02, 0.22], "p_value": 0.0002, "p_holm": 0.0004}
    summary: dict[str, Any] = {
        "comparison_format": 1,
        "tecafn_version": "0.1.0",
        "created": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef+changes",
        "versions": {"torch": "2"},
        "data": {"dataset": "mosi", "hash": "cafe", "task": "regression", "splits": {"valid": 9}},
        "split": "valid",
        "num_samples": 9,
        "num_videos": 3,
        "seeds": [0, 1, 2],
        "jobs": 2,
        "threads": 1,
        "overrides": ["training.max_epochs=12"],
        "common_settings": {"training.max_epochs": 12, "text_encoder": "minilm"},
        "differing_settings": {"training.learning_rate": {"winner": 0.001, "other_one": 0.002}},
        "metrics": ["mae", "corr", "acc7", "acc5"],
        "primary": "mae",
        "best": "winner",
        "methods": [
            row("winner"),
            row("other_one", metrics=worse, difference={"mae": difference}, after_abstract=True),
            row("partial", seeds=[0], open=[2], failures={"1": "ended by SIGKILL"}),
            without_result("refused", refused="it does regression, not this"),
            without_result("waiting", open=[0, 1, 2]),
        ],
        "ceiling": {
            "metrics": {"mae": 0.05, "corr": 0.99, "acc7": 0.9},
            "hard_pairs": {"ordered": 0.9, "interval": [0.8, 1.0]},
            "designed_pairs": None,
        },
    }
    return summary | changes


@pytest.mark.parametrize(
    ("ran", "words"),
    [
        ([None, None], "Time is of training, 2 at once with 1 thread each. "),  # as 0.1.0 wrote it
        ([[[3, 1]], [[3, 1]]], "Time is of training, 3 at once with 1 thread each. "),
        (
            [[[1, 2]], [[1, 2], [3, 1]]],
            "1 at once with 2 threads each or 3 at once with 1 thread each; only times under the "
            "same conditions compare. ",
        ),
        (
            [[[3, 1]], []],
            "3 at once with 1 thread each; what ran beside some of the runs was not recorded. ",
        ),
        ([[], []], "Time is of training; what ran beside some of the runs was not recorded. "),
    ],
)
def test_times_say_what_ran_beside(ran: list[Any], words: str) -> None:
    rows = [row(str(n), **({} if pairs is None else {"ran": pairs})) for n, pairs in enumerate(ran)]
    assert words in about(make_summary(methods=[*rows, without_result("refused")]))[-1]


def markdown_rows(text: str) -> dict[str, list[str]]:
    """Method to cells of the first table."""
    table = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert table is not None
    lines = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table.group().splitlines()
    ]
    assert len({len(line) for line in lines}) == 1, "every line must have as many cells"
    return {line[0]: line[1:] for line in lines}


class Page(HTMLParser):
    """A page's tags and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_markdown_shows_means_deviations_pairs_differences_and_costs() -> None:
    rows = markdown_rows(render_markdown(make_summary()))
    header = rows["method"]
    winner = dict(zip(header, rows["winner"], strict=True))
    assert winner["MAE"] == "**0.800 \u00b1 0.010**"
    assert winner["Corr"] == "undefined"
    assert winner["ACC-7"] == "40.00 \u00b1 2.00"
    assert winner["hard pairs"] == "60.0 [50.0, 70.0]"
    assert winner["MAE minus best's"] == "best"
    assert winner["minutes"] == "1.5"
    assert winner["parameters, M (trained)"] == "22.7 (0.314)"
    assert winner["memory, MB"] == "512"
    other = dict(zip(header, rows[f"other_one {ABSTRACT_MARK}"], strict=True))
    assert other["ACC-7"] == "**50.00 \u00b1 2.00**"
    assert other["MAE minus best's"] == "+0.100 [\N{MINUS SIGN}0.020, +0.220]"
    assert other["p"] == "&lt; 0.001"
    assert "partial (1 of 3 seeds)" in rows
    assert rows["refused"][0] == "not trained: it does regression, not this"
    assert rows["waiting"][0] == "open"
    assert rows["ceiling"][:3] == ["0.050", "0.990", "90.00"]
    assert "ACC-5" not in header  # in the CSV file alone


def test_what_is_missing_is_said() -> None:
    said = notes(make_summary())
    assert said == [
        "This comparison is not finished. Open: partial (seed 2); waiting (seed 0, 1, 2). The same "
        "command continues it.",
        "Failed: partial, seed 1: ended by SIGKILL.",
    ]
    for text in (render_markdown(make_summary()), Page(render_page(make_summary())).text):
        assert all(note in text for note in said)
    assert all(f"% {note}" in render_latex(make_summary()) for note in said)


def test_the_validation_split_is_said_to_be_optimistic_and_the_test_split_is_not() -> None:
    assert any("optimistic" in line for line in about(make_summary()))
    assert not any("optimistic" in line for line in about(make_summary(split="test")))


@pytest.mark.parametrize(
    ("num_videos", "videos", "remark"),
    [
        (1, "of 1 video.", "There are no intervals"),
        (3, "of 3 videos.", "The intervals come from resampling 3 videos: they are too narrow"),
        (10, "of 10 videos.", None),
    ],
)
def test_few_videos_are_said(num_videos: int, videos: str, remark: str | None) -> None:
    lines = about(make_summary(num_videos=num_videos))
    assert videos in lines[0]
    assert any("intervals" in line and "narrow" in line for line in lines) == (num_videos == 3)
    assert remark is None or any(line.startswith(remark) for line in lines)


@pytest.mark.parametrize("render", [render_markdown, render_latex, render_page, render_csv])
def test_methods_implemented_from_the_abstract_are_marked_in_every_table(render: Any) -> None:
    marked, none_marked = make_summary(), make_summary(methods=[row("winner")])
    text, other = render(marked), render(none_marked)
    if render is render_csv:
        column = {r["method"]: r["after_abstract"] for r in csv.DictReader(io.StringIO(text))}
        assert column["other_one"] == "1"
        assert column["winner"] == "0"
        return
    mark = r"$^{\dagger}$" if render is render_latex else ABSTRACT_MARK
    assert text.count(mark) >= 2  # at the method and before the sentence that explains it
    assert ABSTRACT_NOTE in text
    assert mark not in other
    assert ABSTRACT_NOTE not in other


@pytest.mark.parametrize("render", [render_markdown, render_latex, render_page, render_csv])
def test_every_table_says_what_a_method_rests_on(render: Any) -> None:
    coded = row("winner", basis="code", certified="their code, but one & another")
    text = render(make_summary(methods=[coded, row("second")]))
    if render is render_csv:
        rows = {r["name"]: r for r in csv.DictReader(io.StringIO(text))}
        assert rows["winner"]["basis"] == "code"
        assert rows["winner"]["certified"] == "their code, but one & another"
        return
    escaped = "&amp;" if render is render_page else "&"
    assert f"to 1e-10: winner (their code, but one {escaped} another)." in text
    assert "Rests on the paper: second." in text


def test_a_comparison_written_before_methods_had_a_basis_is_still_shown() -> None:
    old = row("winner")
    del old["basis"], old["certified"]
    assert not basis_lines(make_summary(methods=[old]))
    for render in (render_markdown, render_latex, render_page, render_csv):
        assert "winner" in render(make_summary(methods=[old]))


def test_csv_holds_every_metric_as_a_plain_number() -> None:
    rows = {r["name"]: r for r in csv.DictReader(io.StringIO(render_csv(make_summary())))}
    assert list(rows) == ["winner", "other_one", "partial", "refused", "waiting"]
    assert float(rows["winner"]["acc5_mean"]) == 0.5
    assert rows["winner"]["corr_mean"] == ""
    assert float(rows["other_one"]["mae_difference_low"]) == -0.02
    assert float(rows["other_one"]["mae_difference_p_holm"]) == 0.0004
    assert rows["partial"]["reason"] == "seed 1: ended by SIGKILL"
    assert rows["refused"]["reason"] == "it does regression, not this"
    assert int(rows["winner"]["peak_bytes"]) == 512 * 2**20
    assert rows["waiting"]["num_open"] == "3"


def test_latex_lines_have_as_many_cells_as_columns_and_special_characters_are_escaped() -> None:
    text = render_latex(make_summary())
    columns = re.search(r"\\begin\{tabular\}\{l(r+)\}", text)
    assert columns is not None
    count = 1 + len(columns.group(1))
    body = [line for line in text.splitlines() if line.endswith("\\\\")]
    for line in body:
        cells = re.split(r"(?<!\\)&", line)
        span = re.search(r"\\multicolumn\{(\d+)\}", line)
        assert len(cells) + (int(span.group(1)) - 1 if span else 0) == count, line
    assert r"other\_one" in text
    assert r"\textbf{0.800 $\pm$ 0.010}" in text
    assert "\u00b1" not in text
    hostile = render_latex(make_summary(methods=[without_result("a", refused=HOSTILE)]))
    assert r"50 \% of \$x\_1 \& \{\{ 7*7 \}\}" in hostile


def test_the_page_loads_nothing_runs_nothing_and_escapes_what_it_shows() -> None:
    methods = [row("winner", paper=HOSTILE), without_result("a", refused=HOSTILE)]
    html = render_page(make_summary(methods=methods))
    page = Page(html)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [a for a in page.attributes if a[0] in ("src", "href") or a[0].startswith("on")]
    assert "default-src 'none'" in html
    assert HOSTILE in page.text
    assert "http" not in re.sub(r"http-equiv", "", html)


def test_the_page_shows_what_the_tables_show() -> None:
    text = re.sub(r"\s+", " ", Page(render_page(make_summary())).text)
    for shown in ("0.800", "\u00b1 0.010", "undefined", "50.0 to 70.0", "+0.100", "p < 0.001",
                  "not trained: it does regression, not this", "512", "0.314", "1 of 3 seeds",
                  "7 of 12", "training.max_epochs=12"):  # fmt: skip
        assert shown in text, shown


def test_charts_stay_inside_their_boxes() -> None:
    html = render_page(make_summary())
    places = [
        (float(x), float(width or 0))
        for x, width in re.findall(r'<rect class="\w+" x="(-?[\d.]+)"(?: width="([\d.]+)")?', html)
    ]
    assert len(places) > 10
    assert all(x >= -2 and x + width <= 102 for x, width in places)


def test_a_single_method_and_a_comparison_without_results_can_be_shown() -> None:
    for methods in ([row("winner")], [without_result("a", open=[0])]):
        summary = make_summary(methods=methods, best=None, ceiling=None, differing_settings={})
        assert render_markdown(summary)
        assert render_latex(summary)
        assert render_csv(summary)
        assert render_page(summary)
        assert plain_table(summary)[1][0][0] == methods[0]["name"]


def test_the_terminals_table_is_narrow_and_complete() -> None:
    columns, rows = plain_table(make_summary())
    assert columns == ["method", "MAE", "Corr", "ACC-7", "min", "note"]
    by_name = {line[0]: line[1:] for line in rows}
    assert by_name["winner"] == ["0.800 \u00b1 0.010", "undefined", "40.00", "1.5", ""]
    assert by_name["refused"][-1] == "not trained"
    assert by_name["waiting"][-1] == "open"
    assert by_name["partial"][-1] == "1 of 3 seeds"


def test_several_reasons_become_one_line() -> None:
    failures = {"0": "ended by SIGKILL", "1": "ended by SIGKILL", "2": "exit code 1: oh"}
    failed = without_result("a", failures=failures)
    assert reason_without_result(failed) == "ended by SIGKILL (and 1 more)"


def test_files_are_written_whole_and_a_missing_summary_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"comparison\.json: tables need"):
        write_tables(tmp_path)
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(make_summary(comparison_format=9)))
    with pytest.raises(UserError, match="comparison_format must be 1, got 9"):
        read_comparison(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="expected JSON"):
        read_comparison(tmp_path)
    path.write_text(json.dumps(make_summary()))
    written = write_tables(tmp_path)
    assert {p.name for p in written} == {f"comparison.{e}" for e in ("md", "csv", "tex", "html")}
    assert {p.name for p in tmp_path.iterdir()} == {"comparison.json", *(p.name for p in written)}


# Charts and plain tables


def row_chart(published_of: str) -> str:
    return figures.row_chart(
        names=["a", "b"],
        places=[0.1, 0.2],
        means=np.array([0.5, 0.6]),
        intervals=[(0.4, 0.6), None],
        seeds=[[0.5], [0.6]],
        published=[0.7, None],
        published_of=published_of,
        axis="p",
        unit="MAE",
        name="chart",
    )


def test_published_numbers_of_another_dataset_name_it() -> None:
    assert "published, cmu-mosi" in row_chart("cmu-mosi")
    assert "published" in row_chart("")
    assert "published," not in row_chart("")


@pytest.mark.parametrize("kind", ["band", "loss"])
def test_one_value_alone_is_a_point(kind: str) -> None:
    def drawn(number: int) -> int:
        steps, values = np.arange(number, dtype=np.float64), np.ones(number)
        if kind == "band":
            svg = figures.band_curve(steps, values, None, unit="loss", name="f")
        else:
            svg = figures.loss_curve(steps, values, unit="loss", name="f")
        accent = [line for line in str(svg).splitlines() if "<use " in line and "--accent" in line]
        return len(accent)

    assert drawn(1) > 0
    assert drawn(5) == 0


def test_words_of_a_table_begin_at_the_left_and_numbers_do_not() -> None:
    clip = {"id": "v_1", "text": "So so.", "label": 0.5, "predictions": {"winner": 0.25}}
    case = {"low": -3.0, "high": -1.5, "clips": [clip, clip]}
    cases = {"num_pairs": 1, "max_gap": 0.4, "cases": [case]}
    summary = make_summary(cases=cases)
    (table,) = (t for t in page_extras(summary, {})["extra_tables"] if t["title"] == "Cases")
    assert table["texts"] == ("interval", "text")
    page = render_page(summary)
    assert '<td class="left sentence">So so.</td>' in page
    assert '<td class="left">+0.50</td>' not in page
    assert "<td>+0.50</td>" in page


EFFECT = {
    "planned": 0.03, "corrected": 0.04, "num_comparisons": 3, "seed_deviation": 0.01,
    "video_error": 0.01, "level": 0.05, "power": 0.8,
}  # fmt: skip


def minus_winner(value: float, *, seeds: float = 0.01, videos: float = 0.01) -> dict[str, Any]:
    """A difference in MAE with intervals of these half-widths."""
    ends = {"interval": [value - videos, value + videos], "p_value": 0.001, "p_holm": 0.001}
    test = {"value": value, "interval": [value - seeds, value + seeds], "p_value": 0.001}
    return {"mae": {"value": value, **ends, "num_seeds": 3, "over_seeds": test}}


def test_what_a_table_shows_is_no_smaller_than_it_can_find() -> None:
    rows = [
        row("winner"),
        row("worse", difference=minus_winner(0.1)),
        row("ahead", difference=minus_winner(-0.05)),
        row("of seeds", difference=minus_winner(0.1, seeds=0.2)),
        row("of videos", difference=minus_winner(0.1, videos=0.2)),
        row("too small", difference=minus_winner(0.035)),
    ]
    summary = make_summary(methods=rows, detectable={"mae": EFFECT}, against="winner")
    said = (
        "In MAE, worse (+0.100) is worse than winner; ahead (\N{MINUS SIGN}0.050) is better than "
        "winner; too small (+0.035) differs by both intervals, but by less than the table detects "
        "reliably (0.040); for the other 2 methods, no difference from winner is shown."
    )
    assert finding(summary) == said
    assert said in render_markdown(summary)
    assert said in render_page(summary)
    alike = make_summary(methods=[rows[0], rows[3]], detectable={"mae": EFFECT}, against="winner")
    assert finding(alike) == "In MAE, for the other method, no difference from winner is shown."
    many = [row(f"worse {k}", difference=minus_winner(0.1)) for k in range(7)]
    crowd = make_summary(methods=[rows[0], *many], detectable={"mae": EFFECT}, against="winner")
    assert finding(crowd) == "In MAE, 7 methods are worse than winner."
    assert not finding(make_summary())


def test_a_terminal_says_what_a_table_shows_or_why_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [row("winner"), row("worse", difference=minus_winner(0.1))]
    _print_comparison(make_summary(methods=rows, detectable={"mae": EFFECT}, against="winner"))
    assert "In MAE, worse (+0.100) is worse than winner." in capsys.readouterr().out
    _print_comparison(make_summary(methods=rows, detectable={"mae": None}, against="winner"))
    assert "The smallest detectable effect of MAE is unknown" in capsys.readouterr().out
