"""The report is complete, harmless, and there for every kind of run."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fake_run as fake
import numpy as np
import pytest

from tecafn.core.errors import UserError
from tecafn.evaluation.assessment import assess
from tecafn.records.run_files import read_run
from tecafn.report import figures
from tecafn.report.html import write_report

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> {{ 7*7 }} $\\frac{a}{b}$ &amp;'
VOID = {"meta", "br", "img", "input", "link", "hr", "line", "rect", "path", "use", "image"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; checks that tags are closed as they were opened."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        """All text with its white space made single."""
        return " ".join(" ".join(self.text).split())

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def written(run_dir: Path) -> tuple[str, Page]:
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def write_record(run_dir: Path, record: dict[str, Any]) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "record.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fake.make_run(folder)
    return folder


@pytest.fixture(scope="module")
def page(run_dir: Path) -> tuple[str, Page]:
    return written(run_dir)


def test_page_makes_no_request_and_runs_no_script(page: tuple[str, Page]) -> None:
    html, parsed = page
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    for tag, attributes in parsed.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:60])


def test_page_forbids_requests_by_policy(page: tuple[str, Page]) -> None:
    policies = [
        attributes["content"]
        for tag, attributes in page[1].tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_ids_are_unique_and_every_reference_has_its_target(page: tuple[str, Page]) -> None:
    html, parsed = page
    ids = parsed.ids()
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', html))
    targets = {first or second for first, second in references}
    assert targets
    assert targets <= set(ids)


def test_page_names_method_data_seed_commit_and_what_chose_the_checkpoint(
    page: tuple[str, Page], run_dir: Path
) -> None:
    words = page[1].words
    training = json.loads((run_dir / "record.json").read_text())["training"]
    for part in ("tecafn on synthetic", "1111", "3f1c0b7d9e", "2024-05-17 10:21 UTC"):
        assert part in words
    assert f"Epoch {training['best_epoch'] + 1} of 6 was chosen on the valid split" in (words)
    assert "training.batch_size 32" in words
    assert "torch 2.13.0" in words
    assert "sha256:9a8b7c6d5e4f3a2b1c0d9a8b7c6d5e4f" in words


def test_metrics_stand_with_their_intervals(page: tuple[str, Page], run_dir: Path) -> None:
    evaluation = json.loads((run_dir / "record.json").read_text())["evaluations"]["test"]
    words = page[1].words
    mae, acc7 = evaluation["metrics"]["mae"], evaluation["metrics"]["acc7"]
    low, high = evaluation["intervals"]["acc7"]
    assert f"{mae:.3f}" in words
    assert f"{100 * acc7:.2f} {100 * low:.2f} to {100 * high:.2f}" in words
    assert "Metrics follow the mosi convention (labels from -3 to 3" in words


def test_synthetic_corpus_stands_beside_text_alone_and_ceiling_not_beside_papers(
    page: tuple[str, Page],
) -> None:
    words = page[1].words
    for part in ("text alone", "plain concatenation", "ceiling: what the data allow"):
        assert part in words
    assert re.search(r"\N{MINUS SIGN}0\.\d{3} to \N{MINUS SIGN}0\.\d{3} p = 0\.\d{3}", words)
    assert "Beside published numbers" not in words
    assert "Self-MM" not in words


def test_every_loss_term_and_the_chosen_epoch_are_drawn(
    page: tuple[str, Page], run_dir: Path
) -> None:
    html, parsed = page
    for term in ("total", "task", "ta", "tv", "bicon", "tap", "tvp", "con", "ap"):
        assert f"<figcaption><strong>{term}</strong>" in html
    chosen = json.loads((run_dir / "record.json").read_text())["training"]["best_epoch"] + 1
    assert f"chosen: epoch {chosen}" in parsed.words
    assert "MAE on validation" in parsed.words
    assert "windows of 15 training steps; 378 steps in all" in parsed.words
    labels = [a["aria-label"] for tag, a in parsed.tags if tag == "svg" and "aria-label" in a]
    assert len(labels) == 9 + 2 + 2


def test_confusion_counts_every_sample(page: tuple[str, Page]) -> None:
    html, _ = page
    table = html[html.index('<table class="confusion">') :]
    table = table[: table.index("</table>")]
    counts = [int(n) for n in re.findall(r'title="\d+ %">(\d+)</td>', table)]
    totals = [int(n) for n in re.findall(r'<td class="total">(\d+)</td>', table)]
    assert len(counts) == 49
    assert sum(counts) == sum(totals) == 200


def test_worst_errors_come_first_with_their_text(page: tuple[str, Page], run_dir: Path) -> None:
    rows = read_run(run_dir).predictions["test"]
    errors = np.abs(rows.predictions - rows.labels)
    order = np.argsort(-errors)[:15]
    html, _ = page
    section = html[html.index('<section id="worst">') :]
    section = section[: section.index("</section>")]
    assert re.findall(r'<span class="id">([^<]+)</span>', section) == [rows.ids[k] for k in order]
    assert rows.texts[order[0]] in section


def test_pairs_are_shown_with_labels_predictions_and_verdict(
    page: tuple[str, Page], run_dir: Path
) -> None:
    evaluation = json.loads((run_dir / "record.json").read_text())["evaluations"]["test"]
    words = page[1].words
    for kind in ("designed_pairs", "hard_pairs"):
        share = f"{100 * evaluation[kind]['ordered']:.1f} %"
        assert f"{share} of {evaluation[kind]['num_pairs']} pairs" in words
        assert f"{kind.replace('_', ' ').capitalize()} ranked correctly" in words
    html, _ = page
    assert 'class="verdict wrong"' in html
    assert 'class="verdict right"' in html
    assert 'class="verdict tied"' not in html


def test_hostile_texts_names_and_settings_are_escaped(tmp_path: Path) -> None:
    record = fake.make_run(tmp_path, num_test=40, num_epochs=0)
    record.update(method=HOSTILE, commit=HOSTILE, paper=HOSTILE)
    record["config"] = {HOSTILE: HOSTILE}
    record["versions"] = {HOSTILE: HOSTILE}
    record["data"]["dataset"] = HOSTILE
    record["training"]["monitor"] = HOSTILE
    record["comparisons"][0]["name"] = HOSTILE
    record["evaluations"]["test"]["metrics"][HOSTILE] = 0.5
    write_record(tmp_path, record)
    step = {"event": "step", "step": 0, "phase": HOSTILE, "total": 1, "losses": {HOSTILE: 2}}
    epoch = {"event": "epoch", "epoch": 0, "valid": {HOSTILE: 0.5}}
    lines = [json.dumps(step), json.dumps(epoch)]
    (tmp_path / "events.jsonl").write_text("\n".join(lines), encoding="utf-8")
    samples = fake.make_samples(40, seed=1)
    samples["texts"] = [HOSTILE] * 40
    samples["videos"] = [HOSTILE] * 40
    fake.write_predictions(tmp_path, "test", samples, samples["labels"][::-1], labelled=True)
    html, parsed = written(tmp_path)
    assert "<script" not in html
    assert "<img" not in html
    assert HOSTILE in "".join(parsed.text)
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)


def test_texts_with_broken_or_odd_characters_do_not_stop_the_report(tmp_path: Path) -> None:
    record = fake.make_run(tmp_path, num_test=40, num_epochs=0)
    record["paper"] = "half a pair \ud83d, \x00 and \u202e reversed"
    (tmp_path / "record.json").write_text(json.dumps(record), encoding="utf-8")
    html, _ = written(tmp_path)
    assert "half a pair" in html


def test_run_without_events_says_so_and_has_no_training_section(tmp_path: Path) -> None:
    fake.make_run(tmp_path, num_test=40, num_epochs=0)
    html, parsed = written(tmp_path)
    assert "events.jsonl is missing: no loss or validation curves" in parsed.words
    assert 'id="training"' not in html
    assert 'id="worst"' in html


def test_run_without_predictions_says_so_and_keeps_its_metrics(tmp_path: Path) -> None:
    fake.make_run(tmp_path, num_test=40, num_epochs=0)
    for path in (tmp_path / "predictions").iterdir():
        path.unlink()
    html, parsed = written(tmp_path)
    assert "predictions/test.csv is missing" in parsed.words
    assert 'id="predictions"' not in html
    assert "MAE" in parsed.words


def test_record_alone_makes_a_report(tmp_path: Path) -> None:
    write_record(tmp_path, {"format_version": 1})
    html, parsed = written(tmp_path)
    assert "No labelled split was evaluated, so there are no metrics." in parsed.words
    assert "unnamed method" in parsed.words
    assert html.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("num_videos", "said"),
    [
        (1, "test: there are no intervals: they come from resampling videos, and here is one"),
        (2, "test: the intervals come from resampling 2 videos: they are too narrow"),
        (10, None),
    ],
)
def test_few_videos_are_said_beside_their_intervals(
    num_videos: int, said: str | None, tmp_path: Path
) -> None:
    samples = fake.make_samples(30, seed=2)
    evaluation = fake.make_evaluation(samples, samples["labels"] / 2, "test", num_resamples=10)
    record = fake.make_record(evaluations={"test": evaluation | {"num_videos": num_videos}})
    write_record(tmp_path, record)
    _, parsed = written(tmp_path)
    if said is None:
        assert "too narrow" not in parsed.words
        assert "no intervals" not in parsed.words
    else:
        assert said in parsed.words


def test_unlabelled_split_shows_its_predictions_and_scores_nothing(tmp_path: Path) -> None:
    samples = fake.make_samples(30, seed=2)
    write_record(tmp_path, fake.make_record())
    fake.write_predictions(tmp_path, "test", samples, samples["labels"] / 2, labelled=False)
    html, parsed = written(tmp_path)
    assert "None of the 30 samples has a label here, so nothing can be scored." in parsed.words
    assert "Distribution of predictions." in parsed.words
    assert 'class="confusion"' not in html
    assert 'id="worst"' not in html


def test_partly_labelled_split_counts_what_it_shows(tmp_path: Path) -> None:
    samples = fake.make_samples(30, seed=2)
    samples["labels"] = [*samples["labels"][:20], *[""] * 10]
    write_record(tmp_path, fake.make_record())
    fake.write_predictions(tmp_path, "test", samples, np.zeros(30), labelled=True)
    _, parsed = written(tmp_path)
    assert "20 of 30 samples have a label; only they are shown." in parsed.words


def test_classification_has_accuracy_confusion_and_no_scatter(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    samples = fake.make_samples(60, seed=3)
    samples["labels"] = generator.integers(2, size=60)
    scores = np.clip(0.5 * samples["labels"] + generator.uniform(0, 0.6, 60), 0, 1)
    record = fake.make_record()
    record["data"].update(task="classification", dataset="ur-funny", label_range=None)
    record["training"].update(monitor="accuracy", monitor_value=0.71)
    record["evaluations"]["test"] = {
        "split": "test",
        "chosen_on": "valid",
        "num_samples": 60,
        **assess(
            (scores > 0.5).astype(int),
            samples["labels"],
            samples["videos"],
            convention="classification",
            label_range=(0.0, 1.0),
        ),
    }
    write_record(tmp_path, record)
    fake.write_predictions(tmp_path, "test", samples, scores, labelled=True)
    html, parsed = written(tmp_path)
    assert "Accuracy" in parsed.words
    assert "where its Accuracy was best: 71.00 %" in parsed.words
    assert "Confusion of the classes." in parsed.words
    assert "Predicted against true." not in parsed.words
    assert 'id="pairs"' not in html
    assert "convention" not in parsed.words


def test_printed_numbers_stand_beside_mosi_test_only(tmp_path: Path) -> None:
    record = fake.make_run(tmp_path, num_test=40, num_epochs=0)
    record["data"].update(
        dataset="cmu-mosi",
        splits={
            split: {"num_samples": size}
            for split, size in (("train", 1284), ("valid", 229), ("test", 686))
        },
    )
    write_record(tmp_path, record)
    html, parsed = written(tmp_path)
    assert "Beside published numbers" in parsed.words
    assert "Self-MM" in parsed.words
    assert 'title="unverified">36.44<sup>m</sup>' in html
    record["data"]["splits"]["test"] = {"num_samples": 685}
    write_record(tmp_path, record)
    assert "Self-MM" not in written(tmp_path)[1].words
    record["data"]["splits"]["test"] = {"num_samples": 686}
    record["evaluations"]["test"]["convention"] = "mag"
    write_record(tmp_path, record)
    assert "Self-MM" not in written(tmp_path)[1].words


def test_undefined_metric_is_shown_with_its_reason(tmp_path: Path) -> None:
    samples = fake.make_samples(20, seed=4)
    record = fake.make_record()
    evaluation = fake.make_evaluation(samples, np.zeros(20), "test", num_resamples=20)
    assert evaluation["metrics"]["corr"] is None
    record["evaluations"]["test"] = evaluation
    write_record(tmp_path, record)
    fake.write_predictions(tmp_path, "test", samples, np.zeros(20), labelled=True)
    html, parsed = written(tmp_path)
    assert "corr on test is undefined: all predictions are equal." in parsed.words
    assert "undefined" in parsed.words
    assert 'class="verdict tied"' in html
    assert "nan" not in parsed.words.lower().split()


def test_half_a_line_of_a_killed_run_is_left_out_and_said(tmp_path: Path) -> None:
    write_record(tmp_path, fake.make_record())
    with (tmp_path / "events.jsonl").open("w", encoding="utf-8") as file:
        file.write('{"event": "step", "step": 0, "total": 1.0}\n{"event": "step", "st')
    _, parsed = written(tmp_path)
    assert "events.jsonl: 1 unreadable line(s) left out" in parsed.words


def test_resumed_run_counts_a_repeated_step_once(tmp_path: Path) -> None:
    write_record(tmp_path, fake.make_record())
    events = [
        {"event": "step", "step": step, "phase": "main", "total": value}
        for step, value in ((0, 1.0), (1, 9.0), (1, 2.0), (2, 3.0))
    ]
    lines = "\n".join(json.dumps(event) for event in events)
    (tmp_path / "events.jsonl").write_text(lines, encoding="utf-8")
    run = read_run(tmp_path)
    assert [step["total"] for step in run.steps] == [1.0, 2.0, 3.0]


def test_phases_have_their_own_panels_and_bad_values_are_skipped(tmp_path: Path) -> None:
    write_record(tmp_path, fake.make_record())
    events = [
        {"event": "step", "step": step, "phase": phase, "total": 1.0, "losses": {"task": value}}
        for step, value in enumerate((1.0, None, float("nan"), 2.0))
        for phase in ("memory", "main")
    ]
    lines = "\n".join(json.dumps(event) for event in events)
    (tmp_path / "events.jsonl").write_text(lines, encoding="utf-8")
    html, _ = written(tmp_path)
    assert "<strong>memory: task</strong>" in html
    assert "<strong>main: total</strong>" in html


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a run's directory, found no record"),
        ("{", "expected JSON, got"),
        ("[1]", "format_version must be 1, got None"),
        ('{"format_version": 2}', "format_version must be 1, got 2"),
    ],
)
def test_record_that_cannot_be_read_is_one_line(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "record.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("value", ["nan", "inf", "", "high"])
def test_prediction_that_is_no_number_names_its_row(tmp_path: Path, value: str) -> None:
    write_record(tmp_path, fake.make_record())
    (tmp_path / "predictions").mkdir()
    with (tmp_path / "predictions" / "test.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "video", "clip", "label", "prediction", "pair_id", "text"])
        writer.writerow(["a_1", "a", "1", "0.5", "0.1", "", "fine"])
        writer.writerow(["a_2", "a", "2", "0.5", value, "", "not fine"])
    with pytest.raises(UserError, match=r"row 2 \(a_2\) expected a finite prediction, got"):
        write_report(tmp_path)


def test_predictions_without_a_column_are_one_line(tmp_path: Path) -> None:
    write_record(tmp_path, fake.make_record())
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "test.csv").write_text("id,prediction\na_1,0.5\n", encoding="utf-8")
    with pytest.raises(UserError, match="missing video, clip, label, pair_id, text"):
        write_report(tmp_path)


def test_report_is_the_same_every_time(page: tuple[str, Page], run_dir: Path) -> None:
    assert written(run_dir)[0] == page[0]


def test_report_imports_without_torch(run_dir: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from tecafn.report.html import write_report\n"
        "write_report(Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(run_dir)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert result.returncode == 0, result.stderr


def test_many_points_become_one_image() -> None:
    values = np.random.default_rng(0).normal(size=7000)
    svg = figures.predicted_against_true(values, values, label_range=(-3, 3), name="many")
    assert svg.count("<use") < 100
    assert 'href="data:image/png;base64,' in svg
    assert len(svg) < 400_000


def test_windowed_means_equal_a_slow_loop() -> None:
    steps = list(range(3, 40))
    values = np.random.default_rng(1).normal(size=37).tolist()
    mean_steps, means = figures.windowed_means(steps, values, window=15)
    for window, start in enumerate(range(0, 37, 15)):
        assert mean_steps[window] == pytest.approx(np.mean(steps[start : start + 15]))
        assert means[window] == pytest.approx(np.mean(values[start : start + 15]))
    assert len(means) == 3


def test_figures_leave_matplotlibs_settings_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.error_histogram(np.array([0.1, -0.2, 0.3]), name="errors")
    assert dict(matplotlib.rcParams) == before
