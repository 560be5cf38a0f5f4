"""The command line. What goes wrong by a user's mistake is one line and exit code 2."""

# Annotations are no strings here: typer would compile some three hundred of them at each start.

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tecafn.console import counting_bar, legible_output, print_json, print_list, print_table
from tecafn.core.errors import UserError
from tecafn.exits import (
    INTERRUPTED,
    TERMINATED,
    Terminated,
    complain,
    is_out_of_memory,
    lost_others,
    out_of_memory,
    raise_at_sigterm,
    report_loss,
)

if TYPE_CHECKING:
    from tecafn.records.comparison import ComparisonSummary
    from tecafn.serving.intervals import Calibration

# Commands import what they need when they run: `tecafn --help` should not wait for torch.

app = typer.Typer(
    help="Train and compare models of multimodal sentiment: text, audio, vision in, a score out.",
    epilog="--debug, anywhere, shows a traceback in place of the one line that says what is wrong.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Import, check and make datasets.", no_args_is_help=True)
list_app = typer.Typer(
    help="List methods, dataset formats, tables and configs.", no_args_is_help=True
)
app.add_typer(data_app, name="data")
app.add_typer(list_app, name="list")


class Shape(StrEnum):
    """Whose widths the synthetic corpus takes."""

    MOSI = "mosi"
    MOSEI = "mosei"


DataOption = Annotated[Path, typer.Option("--data", help="A store made by `tecafn data`.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
SplitOption = Annotated[str, typer.Option(help="train, valid or test.")]
AllowErrorsOption = Annotated[
    bool,
    typer.Option(
        "--allow-data-errors",
        help="Use data that `tecafn data check` calls wrong; the record says so.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DatasetOption = Annotated[
    str | None, typer.Option(help="mosi, mosei, sims ...; recognised by default.")
]
LabelRangeOption = Annotated[
    tuple[float, float] | None,
    typer.Option(help="Lowest and highest label; by default the dataset's.", metavar="LOW HIGH"),
]
IdsOption = Annotated[
    str | None,
    typer.Option(
        help="How ids are read: video-clip, video-number (as in video[3]), video (a bare one), "
        "sample; recognised by default."
    ),
]
PaddingOption = Annotated[
    str | None,
    typer.Option(help="Where arrays are padded: front, end or none, or audio=front,vision=end."),
]
IgnoreLengthsOption = Annotated[
    bool,
    typer.Option("--ignore-lengths", help="Find frames by their zero rows, not by the lengths."),
]
MissingOption = Annotated[
    str | None,
    typer.Option(help="Modalities that samples may lack: audio,vision, or all."),
]
JoinShareOption = Annotated[
    float | None,
    typer.Option(help="Smallest share of the table's rows that must find frames.", min=0, max=1),
]
MatchIdsOption = Annotated[
    str | None,
    typer.Option(
        help="How ids of features match the table's: as-written, plus-one, minus-one, "
        "ignore-case; separated by commas."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")]


def _speaks() -> bool:
    """Of several processes that do one command together, the first prints what came of it."""
    from tecafn.experiments.launched import launched

    return launched().rank == 0


def _print_evaluation(evaluation: Mapping[str, Any]) -> None:
    """Metrics with their intervals, then the pairs."""
    from tecafn.core.conventions import convention_named
    from tecafn.evaluation.metrics import format_metric
    from tecafn.records.measured import allowed_errors, remark_on_intervals

    rules = convention_named(evaluation["convention"])

    def percent(share: float) -> str:
        return f"{100 * share:.2f}"

    def interval(values: Sequence[float] | None, name: str) -> str:
        if values is None:
            return ""
        return f"{format_metric(name, values[0])} to {format_metric(name, values[1])}"

    rows = [
        [rules.label_of(name), format_metric(name, value),
         interval(evaluation["intervals"].get(name), name)]
        for name, value in evaluation["metrics"].items()
    ]  # fmt: skip
    for kind in ("hard_pairs", "designed_pairs"):
        pairs = evaluation.get(kind)
        if pairs:
            gap = f" (labels < {pairs['max_gap']:g} apart)" if pairs.get("max_gap") else ""
            label = f"{kind.replace('_', ' ')}{gap} ranked correctly ({pairs['num_pairs']})"
            ends = pairs["interval"]
            between = "" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}"
            rows.append([label, percent(pairs["ordered"]), between])
    title = (
        f"{evaluation['split']}: {evaluation['num_samples']} samples, "
        f"checkpoint chosen on {evaluation['chosen_on']}, measures of {rules.name}"
    )
    print_table(title, ["metric", "value", "95 % interval"], rows)
    remark = remark_on_intervals(evaluation.get("num_videos"))
    for line in [*([remark] if remark else []), *allowed_errors(evaluation)]:
        print(line)


def _modalities(text: str | None, option: str) -> frozenset[Any]:
    """``audio,vision`` or ``all`` as modalities."""
    from tecafn.core.modality import Modality

    names = [name.strip().lower() for name in (text or "").split(",") if name.strip()]
    known = [modality.value for modality in Modality]
    if unknown := [name for name in names if name not in (*known, "all")]:
        raise UserError(f"{option} must be {', '.join(known)} or all, got {unknown[0]!r}")
    return frozenset(Modality) if "all" in names else frozenset(map(Modality, names))


def _padding(text: str | None) -> dict[Any, Any]:
    """``front``, or ``audio=front,vision=end``, as the side of each modality."""
    from tecafn.core.modality import Modality

    sides = {}
    for part in (text or "").split(",") if text else ():
        name, found, side = part.strip().lower().rpartition("=")
        if side not in ("front", "end", "none"):
            raise UserError(f"--padding must be front, end or none, got {side!r}")
        for modality in _modalities(name if found else "all", "--padding"):
            sides[Modality(modality)] = side
    return sides


def _summary(manifest: Mapping[str, Any]) -> str:
    """A store in one line."""
    from tecafn.core.conventions import convention_named

    splits = ", ".join(
        f"{name} {counts['num_samples']} ({counts['num_labelled']} labelled)"
        for name, counts in manifest["splits"].items()
    )
    widths = ", ".join(f"{m} {width}" for m, width in manifest["widths"].items()) or "text alone"
    measures = convention_named(manifest["convention"]).listed()
    return f"{manifest['dataset']}: {splits}; widths: {widths}; measures: {measures}"


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the run is written.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Generate the synthetic corpus, train on it, evaluate once on test, and write the report."""
    from tecafn.experiments.demo import run_demo

    evaluation, report = run_demo(out, seed=seed, progress=not quiet)
    _print_evaluation(evaluation)
    print(f"report: {report}")


@data_app.command("import")
def data_import(
    source: Annotated[Path, typer.Argument(help="A file or folder in one of the field's formats.")],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    format: Annotated[
        str | None, typer.Option(help="mmsa, misa, label-csv ...; see `tecafn list datasets`.")
    ] = None,
    audio: Annotated[Path | None, typer.Option(help="npz of audio for a label.csv.")] = None,
    vision: Annotated[Path | None, typer.Option(help="npz of vision for a label.csv.")] = None,
    dataset: DatasetOption = None,
    label_range: LabelRangeOption = None,
    ids: IdsOption = None,
    drop_duplicates: Annotated[
        bool,
        typer.Option("--drop-duplicates", help="Keep the first of the samples that share an id."),
    ] = False,
    split: Annotated[str | None, typer.Option(help="The split of a file that holds one.")] = None,
    padding: PaddingOption = None,
    ignore_lengths: IgnoreLengthsOption = False,
    allow_missing_frames: MissingOption = None,
    min_join_share: JoinShareOption = None,
    match_ids: MatchIdsOption = None,
) -> None:
    """Convert a dataset to the store. Pickles are read, never executed."""
    from tecafn.data.importing import import_dataset
    from tecafn.data.readers.base import ReadOptions
    from tecafn.data.summary import render_summary

    options = ReadOptions(
        dataset=dataset,
        label_range=label_range,
        ids=ids,
        drop_duplicates=drop_duplicates,
        split=split,
        audio=audio,
        vision=vision,
        padding=_padding(padding),
        ignore_lengths=ignore_lengths,
        allow_missing_frames=_modalities(allow_missing_frames, "--allow-missing-frames"),
        min_join_share=min_join_share,
        match_ids=match_ids,
    )
    store = import_dataset(source, format=format, out=out, options=options)
    print(f"{out}: {_summary(store.manifest)}\n")
    print(render_summary(store.manifest))


@data_app.command("check")
def data_check(
    source: Annotated[Path, typer.Argument(help="A store, or a source before its import.")],
    format: Annotated[str | None, typer.Option(help="The source's format.")] = None,
    audio: Annotated[Path | None, typer.Option(help="npz of audio for a label.csv.")] = None,
    vision: Annotated[Path | None, typer.Option(help="npz of vision for a label.csv.")] = None,
    dataset: DatasetOption = None,
    label_range: LabelRangeOption = None,
    ids: IdsOption = None,
    split: Annotated[str | None, typer.Option(help="The split of a file that holds one.")] = None,
    padding: PaddingOption = None,
    ignore_lengths: IgnoreLengthsOption = False,
    allow_missing_frames: MissingOption = None,
    min_join_share: JoinShareOption = None,
    match_ids: MatchIdsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report on a dataset's integrity; exit code 1 if it must not be trained on as it is."""
    from tecafn.data.integrity import check
    from tecafn.data.readers.base import ReadOptions

    options = ReadOptions(
        dataset=dataset,
        label_range=label_range,
        ids=ids,
        split=split,
        audio=audio,
        vision=vision,
        padding=_padding(padding),
        ignore_lengths=ignore_lengths,
        allow_missing_frames=_modalities(allow_missing_frames, "--allow-missing-frames"),
        min_join_share=min_join_share,
        match_ids=match_ids,
    )
    report = check(source, format=format, options=options)
    if as_json:
        print_json(report.as_dict())
    else:
        print(report.render())
    if report.exit_code:
        raise typer.Exit(1)


@data_app.command("make")
def data_make(
    out: Annotated[Path, typer.Option(help="The store to write.")],
    shape: Annotated[Shape, typer.Option(help="Whose widths the frames have.")] = Shape.MOSI,
    train: Annotated[int, typer.Option(help="Training samples.")] = 2000,
    valid: Annotated[int, typer.Option(help="Validation samples.")] = 400,
    test: Annotated[int, typer.Option(help="Test samples.")] = 3000,
    seed: Annotated[int, typer.Option(help="Seed of the generator.")] = 0,
    correspondence: Annotated[
        float,
        typer.Option(help="0 to 1: how much voice and face show of what is said and who says it."),
    ] = 0.0,
) -> None:
    """Generate the synthetic corpus: licence-free, deterministic, any size."""
    from tecafn.data.synthetic import CorpusSpec, make_corpus

    try:
        spec = CorpusSpec(
            shape=shape.value,
            num_train=train,
            num_valid=valid,
            num_test=test,
            seed=seed,
            correspondence=correspondence,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    print(f"{out}: {_summary(make_corpus(out, spec).manifest)}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; see `tecafn list configs`.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The run's directory.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, e.g. training.max_epochs=2.")
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(help="A finished run of the method, whose weights the network begins with."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, bf16, or auto: bf16 where the device has it; by default the config's."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a killed run.")] = False,
    device: DeviceOption = "auto",
    cross_validate: Annotated[
        str | None, typer.Option(help="'video': folds that keep each video together.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Number of folds of a cross-validation; 10 by default.")
    ] = None,
    allow_data_errors: AllowErrorsOption = False,
    report: Annotated[
        bool,
        typer.Option("--report/--no-report", help="Draw report.html, as evaluating does."),
    ] = True,
    quiet: QuietOption = False,
) -> None:
    """Train a method. The test split is never touched."""
    from tecafn.experiments.settings_file import read_settings
    from tecafn.experiments.shipped import find_config
    from tecafn.layers.encoder_source import check_settings

    found = find_config(config)
    check_settings(read_settings(found, overrides or ()))  # in a second, before torch is loaded

    from tecafn.experiments.config import load_config
    from tecafn.experiments.cross_validation import cross_validate_run, number_of_folds

    num_folds = number_of_folds(folds, cross_validate=cross_validate)
    if precision is not None:
        overrides = [*(overrides or ()), _precision_setting(precision, device)]
    settings = load_config(found, overrides or ())
    if cross_validate is None:
        from tecafn.experiments.run import train_run

        record = train_run(
            settings,
            data=data,
            out=out,
            init_from=init_from,
            resume=resume,
            device=device,
            progress=not quiet,
            allow_data_errors=allow_data_errors,
            report=report,
        )
        evaluation = record["evaluations"]["valid"]
    else:
        from tecafn.experiments.starting import refuse_start

        refuse_start(init_from)

        record = cross_validate_run(
            settings,
            data=data,
            out=out,
            by=cross_validate,
            num_folds=num_folds,
            resume=resume,
            device=device,
            progress=not quiet,
            allow_data_errors=allow_data_errors,
            report=report,
        )
        evaluation = record["evaluations"]["out-of-fold"]
    if _speaks():
        _print_evaluation(evaluation)
        if report:
            print(f"report: {out / 'report.html'}")


def _precision_setting(name: str, device: str) -> str:
    """``--precision`` as an override of the config."""
    from tecafn.experiments.setup import check_device, kind_of_device
    from tecafn.training.precision import precision_named

    check_device(device)
    return f"training.precision={precision_named(name, kind_of_device(device))}"


@app.command()
def evaluate(
    run: Annotated[
        Path, typer.Argument(help="A run's directory; or builtin, whose result is not kept.")
    ],
    data: DataOption,
    split: SplitOption = "test",
    against: Annotated[
        Path | None, typer.Option(help="Another run, evaluated on the same split: paired tests.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="authors-test-peeking: the epoch is CHOSEN ON TEST, to explain a published figure."
        ),
    ] = None,
    device: DeviceOption = "auto",
    allow_data_errors: AllowErrorsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a run; the first evaluation on test is kept and returned from then on."""
    from tecafn.experiments.evaluate import evaluate_run
    from tecafn.experiments.paired import compare_runs

    if protocol is not None:
        _evaluate_with_protocol(
            protocol,
            run,
            data,
            split=split,
            against=against,
            device=device,
            allow_data_errors=allow_data_errors,
            as_json=as_json,
        )
        return
    evaluation = evaluate_run(
        run, data=data, split=split, device=device, allow_data_errors=allow_data_errors
    )
    comparison = compare_runs(run, against, split=split, data=data) if against else None
    if not _speaks():
        return
    if as_json:
        print_json({**evaluation, **({"comparison": comparison} if comparison else {})})
        return
    _print_evaluation(evaluation)
    if comparison:
        rows = [
            [name, f"{d['value']:+.4f}", _interval_in_words(d["interval"]), f"{d['p_value']:.4f}"]
            for name, d in comparison["difference"].items()
        ]
        title = f"{run} minus {against}, paired"
        print_table(title, ["metric", "difference", "95 % interval", "p"], rows)


def _interval_in_words(interval: Sequence[float] | None) -> str:
    """Empty where a single video leaves none."""
    return "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def _evaluate_with_protocol(
    protocol: str,
    run: Path,
    data: Path,
    *,
    split: str,
    against: Path | None,
    device: str,
    allow_data_errors: bool,
    as_json: bool,
) -> None:
    from tecafn.experiments.peeking import PROTOCOL, WARNING, peek_at_test

    if protocol != PROTOCOL:
        raise UserError(f"unknown protocol {protocol!r}: known: {PROTOCOL}")
    if split != "test" or against is not None:
        raise UserError(f"protocol {PROTOCOL} is about the test split, and compares nothing")
    outcome = peek_at_test(run, data=data, device=device, allow_data_errors=allow_data_errors)
    if as_json:
        print_json(outcome)
        return
    print(f"WARNING: {WARNING}", file=sys.stderr)
    _print_evaluation(outcome)


@app.command()
def compare(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the comparison; repeat to continue.")],
    methods: Annotated[
        str | None, typer.Option(help="all (the default), or names: tecafn,concat")
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(help="A table's rows as a TOML file; see `tecafn list tables`."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds per row (0, 1, ...); 5 by default.")
    ] = None,
    configs: Annotated[
        str | None,
        typer.Option(
            "--configs",
            "--config-folder",
            help="Folder with one TOML per method, or a shipped one; by default the dataset's.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value for every row: one budget. row:key=value for one."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="valid (the default) to choose, test to judge.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The row that differences are taken from; else the best.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="The metric that rows are sorted by; `rows`: as written.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs at once; by default as many as CPU and memory allow, at most 4."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="How many threads each run has.")] = None,
    device: DeviceOption = "auto",
    allow_data_errors: AllowErrorsOption = False,
    tables_only: Annotated[
        bool, typer.Option("--tables-only", help="Train nothing; write tables of what is finished.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Train many methods, or the rows of a table; write one table with tests, time and memory."""
    from tecafn.experiments.rows import read_table

    if seeds is not None and seeds < 1:
        raise UserError(f"seeds must be >= 1, got {seeds}")
    if methods is not None and rows is not None:
        raise UserError("--methods is shorthand for rows: give --methods or --rows, not both")
    table = None if rows is None else read_table(rows)  # in a moment, before torch is loaded

    from tecafn.data.store import Store
    from tecafn.experiments.cells_display import CellsDisplay
    from tecafn.experiments.compare import Protocol, compare_methods, configs_of

    names = tuple(name.strip() for name in (methods or "all").split(",") if name.strip())
    protocol = Protocol(
        data=data,
        out=out,
        methods=None if names == ("all",) else names,
        device=device,
        jobs=jobs,
        threads=threads,
        allow_data_errors=allow_data_errors,
    )
    if table is not None:
        protocol = protocol.of_table(table)
    asked: dict[str, Any] = {
        "seeds": None if seeds is None else tuple(range(seeds)),
        "configs": configs,
        "overrides": (*protocol.overrides, *(overrides or ())),
        "split": split,
        "against": against,
        "sort": sort,
    }
    protocol = replace(protocol, **{key: value for key, value in asked.items() if value})
    if reason := configs_of(protocol, Store.open(data)).reason:
        print(reason)
    with CellsDisplay(progress=not quiet) as display:
        summary = compare_methods(
            protocol,
            planned=display.planned,
            started=display.started,
            ended=display.ended,
            waiting=display.waiting,
            train=not tables_only,
        )
    _print_comparison(summary)
    print(f"tables: {out / 'comparison.html'}, .md, .csv, .tex")
    if not any(row["seeds"] for row in summary["methods"]):
        raise typer.Exit(1)


def _print_comparison(summary: "ComparisonSummary") -> None:
    from tecafn.report.comparison import (
        detectable_lines,
        finding,
        notes,
        plain_table,
        reason_without_result,
    )

    columns, rows = plain_table(summary)
    print_table(f"{summary['data']['dataset']}, {summary['split']} split", columns, rows)
    if shown := finding(summary) or "".join(detectable_lines(summary)[:1]):
        print(shown.replace("**", ""))
    refused: dict[str, list[str]] = {}
    for row in summary["methods"]:
        if reason_without_result(row):
            refused.setdefault(reason_without_result(row), []).append(row["name"])
    for reason, names in refused.items():
        print(f"{', '.join(names)} {'were' if len(names) > 1 else 'was'} not trained: {reason}")
    for note in notes(summary):
        print(note)


@app.command()
def reproduce(
    table: Annotated[Path, typer.Argument(help="A table; see `tecafn list tables`, or a path.")],
    data: Annotated[list[Path], typer.Option(help="A store; repeat it for several datasets.")],
    out: Annotated[
        Path, typer.Option(help="Folder of all tables: OUT/<table>/<dataset>; repeat to continue.")
    ],
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds per row; by default the budget's.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Runs at once; by default as many as CPU and memory allow, at most 4. Others may "
            "share OUT.",
            min=1,
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="paper, or quick to see in minutes that every row runs.")
    ] = "paper",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for every row; row:key=value.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each run.", min=1)] = None,
    device: DeviceOption = "auto",
    allow_data_errors: AllowErrorsOption = False,
    tables_only: Annotated[
        bool, typer.Option("--tables-only", help="Train nothing; write tables of what is finished.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Reproduce a table or figure of a paper: train its rows, test them, write its pages."""
    from tecafn.experiments.rows import read_table, read_table_file

    if seeds is not None and seeds < 1:
        raise UserError(f"seeds must be >= 1, got {seeds}")
    if read_table_file(table).get("kind") == "splits":
        given = {
            "--seeds": seeds is not None,
            "--processes": processes is not None,
            "--budget": budget != "paper",
            "--set": bool(overrides),
            "--threads": threads is not None,
            "--device": device != "auto",
            "--allow-data-errors": allow_data_errors,
            "--tables-only": tables_only,
        }
        if unused := [option for option, is_given in given.items() if is_given]:
            raise UserError(
                f"{', '.join(unused)}: {table} counts samples and trains nothing; leave it out"
            )
        _check_splits(table, data, out)
        return
    read_table(table)  # a mistake in it is said before torch is loaded

    from tecafn.experiments.cells_display import CellsDisplay
    from tecafn.experiments.compare import Protocol
    from tecafn.experiments.reproduce import Display, refuse_one_dataset_twice, reproduce

    refuse_one_dataset_twice(data)
    has_result = False
    for store in data:
        protocol = Protocol(
            data=store,
            out=out,
            methods=(),
            overrides=(),
            split="test",
            device=device,
            jobs=processes,
            threads=threads,
            allow_data_errors=allow_data_errors,
        )
        with CellsDisplay(progress=not quiet) as display:
            folder, summary = reproduce(
                table,
                protocol,
                budget=budget,
                seeds=seeds,
                overrides=overrides or (),
                display=Display(
                    planned=display.planned,
                    started=display.started,
                    ended=display.ended,
                    waiting=display.waiting,
                ),
                train=not tables_only,
            )
        _print_comparison(summary)
        print(f"tables: {folder / 'comparison.html'}, .md, .csv, .tex")
        has_result = has_result or any(row["seeds"] for row in summary["methods"])
    if not has_result:
        raise typer.Exit(1)


def _check_splits(table: Path, data: Sequence[Path], out: Path) -> None:
    from tecafn.experiments.reproduce import check_splits, refuse_one_dataset_twice
    from tecafn.report.splits import verdict_of

    refuse_one_dataset_twice(data)
    differs = False
    for store in data:
        folder, sizes = check_splits(table, data=store, out=out)
        print(verdict_of(sizes, folder.name))
        print(f"tables: {folder / 'splits.html'}, .md, .csv, .tex")
        differs = differs or any(size.verdict == "differs" for size in sizes)
    if differs:
        raise typer.Exit(1)


@app.command()
def audit(
    place: Annotated[Path, typer.Argument(help="A run's directory, or a comparison's.")],
    data: Annotated[
        Path | None, typer.Option(help="The store: its files are hashed as well.")
    ] = None,
    other_code: Annotated[
        bool, typer.Option("--other-code", help="Accept results of another version of tecafn.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that records bear out the results; exit code 1 if something fails or is not shown."""
    from tecafn.experiments.audit import FAILED, PASSED, UNKNOWN, audit

    findings = audit(place, data=data, other_code=other_code)
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            if finding.verdict != PASSED or not finding.run or place.name == finding.run:
                name = f"{finding.run}: " if finding.run not in ("", place.name) else ""
                print(f"{finding.verdict}: {name}{finding.question}: {finding.words}")
        counts = {v: sum(f.verdict == v for f in findings) for v in (PASSED, FAILED, UNKNOWN)}
        print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    if any(finding.verdict != PASSED for finding in findings):
        raise typer.Exit(1)


@app.command()
def robustness(
    runs: Annotated[list[Path], typer.Argument(help="Directories of finished runs.")],
    data: DataOption,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the pages; by default robustness-SPLIT in the first run."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="valid, or test once `tecafn evaluate` has measured it.")
    ] = "valid",
    seed: Annotated[int, typer.Option(help="Seed of every draw.", min=0)] = 0,
    device: DeviceOption = "auto",
    allow_data_errors: AllowErrorsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show how answers change when a modality is missing, swapped, noise or full of gaps."""
    from tecafn.experiments.robustness import measure_robustness
    from tecafn.report.robustness import plain_table

    with counting_bar("predictions", show=not quiet) as done:
        folder, found = measure_robustness(
            runs,
            data=data,
            out=out,
            split=split,
            seed=seed,
            device=device,
            allow_data_errors=allow_data_errors,
            done=done,
        )
    print_table(*plain_table(found))
    print(f"pages: {folder / 'robustness.html'}, .md, .csv")


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="A run's directory, or builtin.")],
    data: DataOption,
    split: Annotated[
        str, typer.Option(help="train, valid, or test once `tecafn evaluate` has measured it.")
    ] = "valid",
    sample: Annotated[
        str | None,
        typer.Option(help="A sample's id: its attention over time and, on train, its partners."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write; by default explanation-SPLIT in the run; of builtin in "
            "explain-builtin."
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Show what each modality adds to a prediction; for TeCaFN also attention and partners."""
    from tecafn.experiments.explain import TABLE_FILE, explain_run, lines_of, table_of

    found = explain_run(run, data=data, split=split, sample=sample, out=out, device=device)
    if found.sample is None:
        print_table(*table_of(found))
    else:
        print("\n".join(lines_of(found)))
    print(f"written: {found.folder / TABLE_FILE}")


@app.command()
def tune(
    config: Annotated[Path, typer.Argument(help="A TOML file; see `tecafn list configs`.")],
    space: Annotated[
        Path, typer.Option(help="What may be chosen: a TOML file, or tecafn/search, the paper's.")
    ],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the search; repeat to continue or join.")],
    trials: Annotated[
        int | None,
        typer.Option(help="How many in all; by default the whole grid, else 50.", min=1),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds of each trial, averaged.", min=1)] = 1,
    sampler: Annotated[
        str | None, typer.Option(help="grid, tpe or random, in place of the file's.")
    ] = None,
    pruner: Annotated[
        str | None, typer.Option(help="median or none, in place of the file's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampler and the grid order.", min=0)] = 0,
    storage: Annotated[
        str | None,
        typer.Option(help="A database that several machines share, as a URL; else OUT/study.db."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of every trial; repeat it.")
    ] = None,
    device: DeviceOption = "auto",
    allow_data_errors: AllowErrorsOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search for settings on the validation split; OUT/best.toml is a config of the best."""
    from tecafn.experiments.search_space import read_space
    from tecafn.experiments.shipped import find_config
    from tecafn.experiments.tune import Search, tune

    found = tune(
        Search(
            config=find_config(config),
            overrides=overrides or (),
            space=read_space(space, sampler=sampler, pruner=pruner),
            data=data,
            out=out,
            trials=trials,
            seeds=seeds,
            seed=seed,
            storage=storage,
            device=device,
            allow_data_errors=allow_data_errors,
        ),
        told=(lambda _: None) if quiet else print,
    )
    print(", ".join(f"{count} {name}" for name, count in found.counts.items() if count))
    chosen = ", ".join(f"{key}={value}" for key, value in (found.best or {}).items())
    print(f"best on valid: {found.monitor} {found.value:.4f} with {chosen}")
    print(f"config: {found.folder / 'best.toml'}; trials: {found.folder / 'trials.csv'}")


@app.command()
def predict(
    run: Annotated[
        Path,
        typer.Argument(
            help="builtin, builtin-base, a run's directory, or a model on the hub; see "
            "docs/models.md."
        ),
    ],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="CSV with the columns id,prediction.")],
    split: SplitOption = "test",
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Add the columns low,high of a calibrated run.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Predict a split, labelled or not."""
    from tecafn.experiments.evaluate import predict_run

    count = predict_run(run, data=data, split=split, out=out, device=device, intervals=intervals)
    if _speaks():
        print(f"{out}: {count} predictions")


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(help="A run's directory, or an exported model's.")],
    data: Annotated[
        list[Path],
        typer.Option("--data", help="A store, whose valid split is taken; repeat it for several."),
    ],
    level: Annotated[
        float, typer.Option(help="Share of utterances whose label the interval should contain.")
    ] = 0.9,
    device: DeviceOption = "auto",
    allow_data_errors: AllowErrorsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Calibrate intervals around a run's scores; measure their coverage on videos left out."""
    if not 0 < level < 1:
        raise UserError(f"--level must be between 0 and 1, got {level:g}")
    from tecafn.experiments.calibrate import calibrate_run

    calibration = calibrate_run(
        run, data=data, level=level, device=device, allow_data_errors=allow_data_errors
    )
    if not _speaks():
        return
    if as_json:
        from dataclasses import asdict

        print_json(asdict(calibration))
        return
    _print_calibration(calibration)


@app.command("model-card")
def model_card(
    name: Annotated[str, typer.Argument(help="builtin, builtin-base or voice.")],
) -> None:
    """Print the card of a model of the package: data, terms, measures, limits, forbidden uses."""
    from tecafn.serving.builtin import card_of

    print(card_of(name), end="")


def _print_calibration(calibration: "Calibration") -> None:
    """What intervals cover of videos that were left out, and how wide they are."""
    measured = {"all": calibration.measured, **calibration.by_dataset}
    rows = [
        [
            name,
            f"{one.num_utterances} ({one.num_videos})",
            f"{100 * one.covered:.1f}",
            f"{100 * one.covered_shortest:.1f} ({one.num_shortest})",
            f"{one.mean_width:.2f}",
        ]
        for name, one in measured.items()
    ]
    print_table(
        f"{100 * calibration.intervals.level:g} % intervals, on videos left out in turn",
        ["data", "utterances (videos)", "covered, %", "of the shortest tenth", "mean width"],
        rows,
    )


@app.command()
def push(
    run: Annotated[Path, typer.Argument(help="A run's directory.")],
    repository: Annotated[str, typer.Argument(help="user/name on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new one private.")] = False,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights: apache-2.0, cc-by-nc-4.0 ...")
    ] = None,
    dry_run: Annotated[
        Path | None, typer.Option(help="Write what would be shared into this folder; push nothing.")
    ] = None,
) -> None:
    """Share a run's network on the hub, with a card made from its record."""
    from tecafn.core.places import refuse_overwriting
    from tecafn.experiments.sharing import collect, push_to_hub

    if dry_run is not None:
        refuse_overwriting(dry_run, option="--dry-run")
        if dry_run.exists() and any(dry_run.iterdir()):
            raise UserError(f"{dry_run} is not empty")
        dry_run.mkdir(parents=True, exist_ok=True)
        print(f"{dry_run}: {', '.join(collect(run, dry_run, licence=licence))}")
        return
    commit = push_to_hub(run, repository, private=private, licence=licence)
    print(f"{repository}@{commit}")


@app.command()
def submit(
    runs: Annotated[list[Path], typer.Argument(help="Runs of one config with different seeds.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="The file to write: results/NAME.toml.")],
    trained_on: Annotated[
        Path | None, typer.Option(help="The store they were trained on, if another one.")
    ] = None,
    split: SplitOption = "test",
    name: Annotated[str | None, typer.Option(help="The row's name; else the method's.")] = None,
    without_labels: Annotated[
        bool, typer.Option("--without-labels", help="For data whose labels may not be shared.")
    ] = False,
) -> None:
    """Write evaluated runs into the registry of results: predictions, and what was trained on."""
    from tecafn.experiments.registry import submit as write

    result = write(
        runs,
        data=data,
        trained_on=trained_on,
        split=split,
        out=out,
        name=name,
        with_labels=not without_labels,
    )
    measured = f"{result.dataset} {result.split}"
    print(f"{result.path}: {result.name} on {measured}, {len(result.seeds)} seeds")
    for flag in result.flags():
        print(f"flagged: {flag}")


@app.command()
def leaderboard(
    results: Annotated[Path, typer.Argument(help="The registry's folder.")] = Path("results"),
    data: Annotated[
        list[Path] | None, typer.Option(help="Stores with the labels that the registry lacks.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the tables into this file as well.")
    ] = None,
) -> None:
    """Print tables of the registered results, computed from their predictions."""
    from tecafn.core.places import refuse_overwriting
    from tecafn.experiments.registry import labels_of
    from tecafn.records.record import write_text_atomically
    from tecafn.report.leaderboard import read_leaderboards, render_markdown, table_of, title_of

    if markdown is not None:
        refuse_overwriting(markdown, option="--markdown")
    boards = read_leaderboards(results, labels=labels_of(data or ()))
    for board in boards:
        print_table(title_of(board), *table_of(board))
        if board.missing:
            print(f"without labels (name the store with --data): {', '.join(board.missing)}")
    if markdown is not None:
        write_text_atomically(markdown, render_markdown(boards))
        print(f"tables: {markdown}")


class ExportFormat(StrEnum):
    """What an export writes."""

    ONNX = "onnx"
    TORCH = "torch"


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A run's directory, or a model on the hub.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    format: Annotated[
        ExportFormat,
        typer.Option(help="onnx runs without torch (tecafn.onnx); torch without this package."),
    ] = ExportFormat.ONNX,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write 8-bit weights; needs --data.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="A store to compare the graph's predictions with the network's on."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of --data: train, valid (the default) or test.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained network as a graph that needs no torch, checked against the network."""
    from dataclasses import asdict

    from tecafn.evaluation.metrics import format_metric
    from tecafn.experiments.export import export_run

    report = export_run(run, out=out, format=format.value, int8=int8, data=data, split=split)
    if as_json:
        print_json({**asdict(report), "exported": {**asdict(report.exported), "folder": str(out)}})
        return
    exported, split = report.exported, split or "valid"
    print(f"{out}: {', '.join(exported.files)}")
    print(
        f"held against the network on {exported.num_batches} batches of other sizes and lengths: "
        f"answers differ by {exported.difference:.1e} at most"
    )
    for row in report.on_data:
        changed = "" if row.changed is None else f"; {100 * row.changed:.2f} % change their class"
        print(
            f"{row.file} ({row.num_bytes / 1e6:.1f} MB) on {row.num_samples} samples of {split}: "
            f"predictions change by {row.mean:.2g} on average, {row.largest:.2g} at most{changed}"
        )
        if row.metrics:
            print_table(
                f"{row.file} on {split}",
                ["metric", "network", "graph"],
                [
                    [name, format_metric(name, before), format_metric(name, after)]
                    for name, (before, after) in row.metrics.items()
                ],
            )


@app.command()
def extract(
    source: Annotated[Path, typer.Argument(help="A clip, or a folder of clips.")],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    table: Annotated[
        Path | None,
        typer.Argument(
            help="label.csv, which names the clips of a folder; RAVDESS's file names need none."
        ),
    ] = None,
    audio: Annotated[
        str, typer.Option(help="What sound becomes: measures, whisper or both.")
    ] = "whisper",
    rate: Annotated[int, typer.Option(help="Frames per second in the store.")] = 10,
    face: Annotated[
        str | None,
        typer.Option(
            help="Whose face: left, right or a track's number; by default the one whose mouth "
            "moves with the voice."
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="What is said in a clip.")] = None,
    transcript: Annotated[
        Path | None,
        typer.Option(
            help="A file with what is said in a clip (.srt, .vtt, .ass, .json, .txt); by default "
            "one of the clip's name beside it."
        ),
    ] = None,
    words: Annotated[
        str,
        typer.Option(
            help="Where words and times come from. missing: transcript or recognition, for clips "
            "without a text; all: the words of given texts are timed too; none: no words."
        ),
    ] = "missing",
    per_word: Annotated[
        bool,
        typer.Option(
            "--per-word", help="One frame per word, for methods that need aligned frames."
        ),
    ] = False,
    cut: Annotated[
        bool, typer.Option("--utterances", help="A sample per utterance of a clip.")
    ] = False,
    dataset: DatasetOption = None,
    label_range: LabelRangeOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Where each clip's features are kept; by default OUT.clips."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Clips that are read at once.", min=1)] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Read the clips on a Ray cluster: its address, or local for one on this machine."
        ),
    ] = None,
    max_hours: Annotated[float, typer.Option(help="A longer clip is refused.", min=0.0)] = 3.0,
    speech_model: Annotated[
        str | None, typer.Option(help="A Whisper model for words and states: folder or hub name.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn clips into a store: a folder with its label.csv to train on, a clip to predict from."""
    from tecafn.extract.clip import ClipSettings

    settings = ClipSettings(
        audio=audio,
        frames_per_second=rate,
        face=face,
        words=words,
        per_word=per_word,
        cut=cut,
        speech_model=speech_model,
        max_hours=max_hours,
    )
    if table is None and not source.is_dir():
        if ray is not None:
            raise UserError("--ray is for a folder of clips; one clip is read here")
        given = {"text": text or "", "transcript": transcript}
        _extract_clip(source, out, settings, given, as_json=as_json, quiet=quiet)
        return
    if text is not None or transcript is not None:
        raise UserError(
            "--text and --transcript are for one clip; the clips of a folder have their texts in "
            "the table, or transcripts with the same names beside them"
        )
    from tecafn.data.readers.base import ReadOptions
    from tecafn.extract.folder import extract_folder

    with counting_bar("clips", show=not quiet and not as_json) as done:
        extracted = extract_folder(
            source,
            table,
            out=out,
            settings=settings,
            options=ReadOptions(dataset=dataset, label_range=label_range),
            cache=cache,
            processes=jobs,
            ray=ray,
            done=done,
        )
    failed = extracted.failed
    if as_json:
        print_json(
            {
                "store": str(out),
                "report": str(extracted.report),
                "clips": len(extracted.rows),
                "failed": [{"id": r.id, "file": r.file, "error": r.error} for r in failed],
            }
        )
    else:
        print(f"{out}: {_summary(extracted.store.manifest)}")
        files = sum(bool(row.file) for row in extracted.rows)
        read = sum(bool(row.file) and not row.error for row in extracted.rows)
        print(f"{read} of {files} clips were read; ", end="")
        print(f"a row for each: {extracted.report}")
        for row in failed:
            print(f"{row.id} is left out: {row.file or 'no file'}: {row.error}")
    if failed:
        raise typer.Exit(1)


def _extract_clip(
    source: Path,
    out: Path,
    settings: Any,
    given: Mapping[str, Any],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    from tecafn.extract.folder import extract_one

    with counting_bar("seconds", show=not quiet and not as_json) as done:
        _, features = extract_one(
            source,
            out=out,
            settings=settings,
            **given,
            tell=None if done is None else (lambda seconds: done(round(seconds), 0)),
        )
    if as_json:
        print_json({"store": str(out), **features.as_dict()})
        return
    print(f"{out}: {features.duration:.1f} s, {features.num_pictures} pictures; ", end="")
    if len(features.segments) > 1:
        print(f"{len(features.segments)} utterances")
    else:
        shapes = {m: frames.shape for m, frames in features.sequences.items()}
        print(", ".join(f"{m} {shape[0]} x {shape[1]}" for m, shape in shapes.items()) or "text")
    if features.words_from:
        print(f"words from {features.words_from}: {features.text}")
    if features.no_speech:
        print(f"nobody speaks: {', '.join(f'{a:.1f}-{b:.1f} s' for a, b in features.no_speech)}")
    if features.faces:
        chosen = "unknown" if features.face is None else f"track {features.face}"
        print(f"{len(features.faces)} faces; the speaker's: {chosen}, {features.face_reason}")
    for remark in features.remarks:
        print(f"note: {remark}")


@app.command()
def analyze(
    source: Annotated[Path, typer.Argument(help="A clip, or a folder of clips.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="What scores the words: builtin, builtin-base, the directory of a run or of an "
            "exported model; by default the best model that is installed."
        ),
    ] = None,
    transcript: Annotated[
        Path | None,
        typer.Option(
            help="A file with what is said in a clip (.srt, .vtt, .ass, .json, .txt); by default "
            "one of the clip's name beside it; without one, words are recognised."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where pages and tables go; by default NAME.analysis beside the source."),
    ] = None,
    face: Annotated[
        str | None,
        typer.Option(
            help="Whose face: left, right or a track's number; by default the one whose mouth "
            "moves with the voice."
        ),
    ] = None,
    voice: Annotated[
        bool,
        typer.Option(
            "--voice",
            help="Also show acted emotions in the voice, by a head that is not for commercial "
            "use; the EU's AI Act forbids it at work and in education.",
        ),
    ] = False,
    jobs: Annotated[int, typer.Option(help="Clips that are read at once.", min=1)] = 1,
    max_hours: Annotated[float, typer.Option(help="A longer clip is refused.", min=0.0)] = 3.0,
    speech_model: Annotated[
        str | None, typer.Option(help="A Whisper model for words and states: folder or hub name.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show how the sentiment of a clip runs over time, and why; of a folder's clips, rank them."""
    from tecafn.analyze.clip import default_out
    from tecafn.analyze.exports import missing_exports
    from tecafn.analyze.scoring import open_model
    from tecafn.core.places import refuse_taken
    from tecafn.extract.clip import ClipSettings
    from tecafn.serving.builtin import default_model

    if not source.exists():
        raise UserError(f"there is no {source}")
    if source.is_dir() and transcript is not None:
        raise UserError(
            "--transcript is for one clip; the transcripts of a folder's clips lie beside them, "
            "with the same names"
        )
    place = out or default_out(source)
    refuse_taken(place, may_be="neither")
    scores = open_model(
        model or default_model(), voice=_voice_head(speech_model) if voice else None
    )
    wanted = ClipSettings(face=face, max_hours=max_hours, speech_model=speech_model)
    settings = scores.settings(wanted)
    if (missing := missing_exports()) and not as_json:
        print(f"not written: {', '.join(missing)}: pip install 'tecafn[exports]' brings them")
    if source.is_dir():
        _analyze_folder(source, scores, place, settings, jobs, as_json=as_json, quiet=quiet)
        return
    from tecafn.analyze.clip import PAGE_FILE, analyze_clip
    from tecafn.analyze.reading import ClipJob

    job = ClipJob(path=source, out=place, settings=settings, transcript=transcript)
    with counting_bar("seconds", show=not quiet and not as_json) as done:
        timeline = analyze_clip(
            job, scores, tell=None if done is None else (lambda seconds: done(round(seconds), 0))
        )
    if as_json:
        print_json({"page": str(place / PAGE_FILE), **timeline.as_dict()})
        return
    for line in timeline.in_words():
        print(line)
    print(f"page: {place / PAGE_FILE}")


def _voice_head(speech_model: str | None) -> Any:
    """The head on voices, which reads the states of one speech model alone."""
    from tecafn.extract.speech_model import find_speech_model
    from tecafn.serving.voice import VoiceHead

    return VoiceHead.load(speech_model=find_speech_model(speech_model).sha256)


def _analyze_folder(
    source: Path, scores: Any, out: Path, settings: Any, jobs: int, *, as_json: bool, quiet: bool
) -> None:
    from tecafn.analyze.folder import analyze_folder

    with counting_bar("clips", show=not quiet and not as_json) as done:
        ranked = analyze_folder(
            source, scores, out=out, settings=settings, processes=jobs, done=done
        )
    if as_json:
        from dataclasses import asdict

        print_json({"page": str(ranked.page), "clips": [asdict(rank) for rank in ranked.ranks]})
    else:
        for rank in ranked.ranks:
            mean = "no score" if rank.mean is None else f"{rank.mean:+.2f}"
            print(f"{rank.file}: {rank.error or mean}")
        print(f"page: {ranked.page}")
    if ranked.failed:
        raise typer.Exit(1)


@app.command()
def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help="What scores: builtin, builtin-base, the directory of a run or of an exported "
            "model, or a name on the hub; by default the best model that is installed."
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Where clips, results and the database of jobs are kept.")
    ] = Path("tecafn-server"),
    worker: Annotated[
        bool,
        typer.Option("--worker", help="Be a further worker of the server that has this folder."),
    ] = False,
    database: Annotated[
        str | None,
        typer.Option(
            help="Database of jobs: postgresql://... (or TECAFN_DATABASE); else a file in FOLDER."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 = any free one.", min=0, max=65535)] = 8321,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with the token that requests must carry (or TECAFN_TOKEN)."),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let others reach the server without a token.")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another host name that requests may use.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Clips that are worked on at once.", min=0)] = 1,
    max_mb: Annotated[float, typer.Option(help="Largest clip, in megabytes.")] = 500.0,
    max_minutes: Annotated[float, typer.Option(help="Longest clip, in minutes.")] = 60.0,
    max_queue: Annotated[int, typer.Option(help="Jobs that may wait.", min=1)] = 100,
    max_uploads: Annotated[int, typer.Option(help="Clips that may be sent at once.", min=1)] = 8,
    keep_clip_hours: Annotated[
        float, typer.Option(help="How long a clip stays when its job has ended.", min=0.0)
    ] = 0.0,
    keep_result_hours: Annotated[
        float, typer.Option(help="How long a result stays.", min=0.0)
    ] = 24.0,
) -> None:
    """Serve a page to drop clips on, jobs and predictions over HTTP; on this machine alone."""
    try:
        from tecafn.server.running import serve as run_server
        from tecafn.server.worker import run_worker
    except ImportError as error:
        raise UserError(
            f"the server needs a package that is missing ({error.name}): "
            "pip install 'tecafn[serve,video]'"
        ) from None
    from tecafn.server.settings import ServerSettings, read_token
    from tecafn.serving.builtin import default_model

    settings = ServerSettings(
        folder=folder,
        model=model or default_model(),
        database=database or os.environ.get("TECAFN_DATABASE"),
        host=host,
        port=port,
        token=None if worker else read_token(token_file),
        allow_no_token=no_token or worker,
        allowed_hosts=tuple(allow_host or ()),
        workers=workers,
        max_mb=max_mb,
        max_minutes=max_minutes,
        max_queue=max_queue,
        max_uploads=max_uploads,
        keep_clip_hours=keep_clip_hours,
        keep_result_hours=keep_result_hours,
    )
    if worker:
        run_worker(settings)
    else:
        run_server(settings)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed for your own video, and which command installs what is missing."""
    from tecafn.extract.doctor import examine

    report = examine()
    if as_json:
        print_json(report.as_dict())
    else:
        print(report.render())
    if not report.is_healthy:
        raise typer.Exit(1)


@app.command()
def licences(as_json: JsonOption = False) -> None:
    """Every package, model and data term that this installation touches."""
    from tecafn.extract.licences import survey, warnings_of

    rows = survey()
    if as_json:
        print_json([vars(row) for row in rows])
        return
    print_table(
        "licences of what is installed",
        ["what", "version", "licence", "note"],
        [[row.name, row.version, row.licence, row.note] for row in rows],
    )
    for line in warnings_of(rows):
        print(line)


@list_app.command("methods")
def list_methods(as_json: JsonOption = False) -> None:
    """The methods that can be trained."""
    import tecafn

    methods = tecafn.list_methods()
    if as_json:
        print_json(methods)
        return
    print_list({method["name"]: _method_in_words(method) for method in methods})


def _method_in_words(method: Mapping[str, Any]) -> list[str]:
    """What it does; then whose it is, what the implementation rests on, and what it takes."""
    bases = {
        "abstract": "from the abstract",
        "code": f"as in {method['certified']}",
        "ours": "",
        "paper": "from the paper",
    }
    limits = [_short_citation(method["paper"])]
    if len(method["tasks"]) == 1:
        limits.append(f"{method['tasks'][0]} only")
    if method["needs"]:
        limits.append(f"needs: {', '.join(method['needs'])}")
    limits.append(bases[method["basis"]])
    return [method["summary"], "; ".join(filter(None, limits))]


def _short_citation(paper: str) -> str:
    """Who and when.

    Example:
        >>> _short_citation("Yu et al., Learning Representations, AAAI 2021")
        'Yu et al. 2021'
        >>> _short_citation("none: the baseline")
        ''
    """
    authors, comma, _ = paper.partition(",")
    return f"{authors} {paper.split()[-1]}" if comma else ""


@list_app.command("datasets")
def list_datasets(as_json: JsonOption = False) -> None:
    """The formats that can be imported."""
    from tecafn.experiments.shipped import list_formats

    formats = list_formats()
    if as_json:
        print_json(formats)
        return
    print_list({each["format"]: [each["summary"]] for each in formats})


@list_app.command("tables")
def list_tables(as_json: JsonOption = False) -> None:
    """The papers' tables that are shipped; `tecafn reproduce` takes them by these names."""
    from tecafn.experiments import shipped

    names = shipped.list_tables()
    if as_json:
        print_json(names)
    else:
        print("\n".join(names))


@list_app.command("configs")
def list_configs(as_json: JsonOption = False) -> None:
    """The configs that are shipped; `tecafn train` takes them by these names."""
    from tecafn.experiments import shipped

    names = shipped.list_configs()
    if as_json:
        print_json(names)
    else:
        print("\n".join(names))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    The exit code is 0, 1 (a check failed, or another process of the run died), 2 (a mistake that
    can be mended), 130 (Ctrl-C) or 143 (SIGTERM). ``--debug``, anywhere, shows a traceback in
    place of the one line.
    """
    with legible_output():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    command = given[0] if given else ""
    if arguments is None:  # else the process is somebody else's
        raise_at_sigterm()
    try:
        code = app(args=given, prog_name="tecafn", standalone_mode=False)
        sys.stdout.flush()  # here, where it may fail, and not when the interpreter ends
    except UserError as error:
        if debug:
            raise
        complain(f"error: {' '.join(str(error).split())}")
        return 2
    except BrokenPipeError:
        # Whoever read our output has seen enough; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED  # newer versions of typer give it as the exit code
    except Terminated:
        report_loss(command, seconds=0.2, otherwise="ended by SIGTERM")
        return TERMINATED
    except Exception as error:
        if debug and not _is_wrong_usage(error):
            raise
        return _explain(error, command)
    if code == INTERRUPTED and _speaks():
        how = "the same command continues" if command == "compare" else "--resume continues a run"
        print(f"interrupted; {how}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _is_wrong_usage(error: Exception) -> bool:
    """Is it a wrong option or command?

    Typer carries its own copy of click, or uses the installed one; their errors have this method.
    """
    return hasattr(error, "format_message")


def _explain(error: Exception, command: str) -> int:
    """Say in one line what ended ``command``; the exit code."""
    if _is_wrong_usage(error):
        message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
        if message:  # a group without a command has printed its help
            complain(f"error: {message}")
        return 2
    if is_out_of_memory(error):
        complain(out_of_memory(command, error))
        return 2
    if isinstance(error, OSError):
        # What nothing nearer explained: a full disk, a folder without permission.
        what = f"{error.filename}: " if error.filename else ""
        complain(f"error: {what}{' '.join(str(error.strerror or error).split())}")
        return 2
    if lost_others(error):
        report_loss(command, seconds=1.0, otherwise="another process has died or is silent")
        return 1
    complain(f"unexpected {type(error).__name__}: {error} (--debug shows where)")
    return 1


if __name__ == "__main__":
    sys.exit(main())
