"""What the commands do, as functions: ``tecafn.train``, ``tecafn.evaluate``, ``tecafn.compare``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tecafn.core.errors import UserError
from tecafn.experiments.cells_display import CellsDisplay
from tecafn.experiments.compare import Protocol, compare_methods
from tecafn.experiments.config import RunConfig, parse_config
from tecafn.experiments.cross_validation import cross_validate_run, number_of_folds
from tecafn.experiments.evaluate import evaluate_run
from tecafn.experiments.paired import compare_runs
from tecafn.experiments.run import train_run
from tecafn.experiments.settings_file import read_settings, with_overrides
from tecafn.experiments.shipped import find_config
from tecafn.experiments.starting import refuse_start
from tecafn.records.comparison import ComparisonSummary
from tecafn.records.record import RunRecord


def train(
    config: str | Path | RunConfig,
    *,
    data: str | Path,
    out: str | Path,
    init_from: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    cross_validate: str | None = None,
    folds: int | None = None,
    allow_data_errors: bool = False,
    **overrides: Any,
) -> RunRecord:
    """Train a method, choose the epoch on the validation split and write the run's folder.

    Does what ``tecafn train`` does. The test split is never touched.

    Args:
        config: a TOML file, the name of a shipped one (``"mosi/tecafn.toml"``), or a ``RunConfig``.
        data: a store, as ``tecafn data import`` writes it.
        out: the run's folder; new or empty unless ``resume``.
        init_from: a finished run of the same method, whose weights the network begins with.
        resume: continue a killed run, bit for bit; a finished one is returned as it is.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        progress: show a progress bar.
        cross_validate: ``"video"`` trains one network per fold and keeps the videos together.
        folds: how many, with ``cross_validate``; None = 10.
        allow_data_errors: train on data that ``tecafn data check`` calls wrong, too; the record
            says so.
        **overrides: keys of the config with their values. Tables are dicts, of which only the given
            keys change: ``seed=1, training={"max_epochs": 2}``; an empty one empties the config's:
            ``method="concat", model={}``.

    Returns:
        The run's record, as ``OUT/record.json`` has it; ``["evaluations"]["valid"]["metrics"]``
        are the validation metrics of the chosen epoch (``"out-of-fold"`` after a
        cross-validation).

    Raises:
        UserError: something the caller can mend: the config, the data or the folder.

    Example:
        >>> import tecafn
        >>> tecafn.train("mosi/tecafn.toml", data="data/mosi", out="runs/a", seeds=3)
        Traceback (most recent call last):
        ...
        tecafn.core.errors.UserError: ...unknown key 'seeds': did you mean 'seed'? ...
    """
    settings = _settings(config, overrides)
    num_folds = number_of_folds(folds, cross_validate=cross_validate)
    if cross_validate is None:
        return train_run(
            settings,
            data=Path(data),
            out=Path(out),
            init_from=None if init_from is None else Path(init_from),
            resume=resume,
            device=device,
            progress=progress,
            allow_data_errors=allow_data_errors,
        )
    refuse_start(init_from)
    return cross_validate_run(
        settings,
        data=Path(data),
        out=Path(out),
        by=cross_validate,
        num_folds=num_folds,
        resume=resume,
        device=device,
        progress=progress,
        allow_data_errors=allow_data_errors,
    )


def _settings(config: str | Path | RunConfig, overrides: dict[str, Any]) -> RunConfig:
    """The config with what was given in its place."""
    if isinstance(config, RunConfig):
        raw, where = config.as_dict(), "config"
    else:
        raw, where = read_settings(find_config(Path(config))), str(config)
    return parse_config(with_overrides(raw, overrides), where=where)


def evaluate(
    run: str | Path,
    *,
    data: str | Path,
    split: str = "test",
    against: str | Path | None = None,
    device: str = "auto",
    allow_data_errors: bool = False,
) -> dict[str, Any]:
    """Measure a run on a labelled split, with intervals.

    Does what ``tecafn evaluate`` does: the first evaluation on test is written into the run's
    record, and a later one returns it.

    Args:
        run: the folder of a finished run.
        data: a store.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        against: another run, evaluated on the same samples; adds ``"comparison"``, the paired
            differences (this run minus that one) with intervals and p-values.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        allow_data_errors: measure on data that ``tecafn data check`` calls wrong, too; the record
            says so.

    Returns:
        ``"metrics"`` and their ``"intervals"`` by name, ``"hard_pairs"``, the number of samples,
        and how it was measured.

    Raises:
        UserError: no finished run, an empty or unlabelled split, or data that do not fit the run.

    Example:
        >>> import tecafn
        >>> tecafn.evaluate("runs/none", data="data/mosi")
        Traceback (most recent call last):
        ...
        tecafn.core.errors.UserError: ...no such store...
    """
    evaluation = evaluate_run(
        Path(run),
        data=Path(data),
        split=split,
        device=device,
        allow_data_errors=allow_data_errors,
    )
    if against is None:
        return {**evaluation}
    comparison = compare_runs(Path(run), Path(against), split=split, data=Path(data))
    return {**evaluation, "comparison": comparison}


def compare(
    *,
    data: str | Path,
    out: str | Path,
    methods: str | Sequence[str] | None = "all",
    seeds: int | Sequence[int] = 5,
    configs: str | Path | None = None,
    overrides: Sequence[str] = (),
    split: str = "valid",
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "auto",
    progress: bool = True,
    allow_data_errors: bool = False,
) -> ComparisonSummary:
    """Train and evaluate many methods under one budget, with paired tests against the best.

    Does what ``tecafn compare`` does; finished runs are not trained again.

    Args:
        data: a store.
        out: the comparison's folder, with one run per method and seed, and the tables.
        methods: ``"all"`` (or None), or names as ``tecafn.list_methods()`` gives them.
        seeds: how many (0, 1, ...), or which.
        configs: a folder with one TOML file per method, or a shipped one; None = the dataset's.
        overrides: ``"key=value"`` for every method, ``"method:key=value"`` for one.
        split: ``"valid"`` to choose between methods, ``"test"`` to judge them.
        jobs: runs at once; None = on a CPU as many as it has cores and memory for, at most 4; on a
            GPU one.
        threads: of each run; None = the cores divided by ``jobs``.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        progress: show a progress bar.
        allow_data_errors: compare on data that ``tecafn data check`` calls wrong, too.

    Returns:
        The summary, as ``OUT/comparison.json`` has it: ``"methods"`` has one row per method, the
        best first, with its metrics, intervals and tests; a method that failed says why.

    Raises:
        UserError: an unknown method, no method that can be trained, or data that cannot be
            compared on.

    Example:
        >>> import tecafn
        >>> tecafn.compare(data="data/mosi", out="runs/all", seeds=0)
        Traceback (most recent call last):
        ...
        tecafn.core.errors.UserError: seeds must be >= 1, got 0
    """
    if isinstance(seeds, int):
        if seeds < 1:
            raise UserError(f"seeds must be >= 1, got {seeds}")
        seeds = range(seeds)
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise UserError(f"seeds must be how many, or a list of them, got {seeds!r}")
    if isinstance(overrides, str):
        raise UserError(f"overrides must be a list of key=value, got {overrides!r}")
    if isinstance(methods, str):
        methods = None if methods == "all" else (methods,)
    protocol = Protocol(
        data=Path(data),
        out=Path(out),
        methods=None if methods is None else tuple(methods),
        seeds=tuple(seeds),
        configs=None if configs is None else str(configs),
        overrides=tuple(overrides),
        split=split,
        device=device,
        jobs=jobs,
        threads=threads,
        allow_data_errors=allow_data_errors,
    )
    with CellsDisplay(progress=progress) as display:
        return compare_methods(
            protocol,
            planned=display.planned,
            started=display.started,
            ended=display.ended,
            waiting=display.waiting,
        )
