"""Every row under one protocol: the same data, budget, seeds and split, paired tests, one table.

A row is a method, or a config with overrides; a cell is a row with a seed, see ``cells.py``. Cells
that are finished are not run again, killed ones continue, failed ones are tried again; a row that
cannot be trained says why. ``summary.py`` says what the finished cells say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import tecafn
from tecafn.core.conventions import METRIC_INFO, convention_named
from tecafn.core.errors import UserError, nearest_known
from tecafn.core.modality import Modality
from tecafn.core.places import refuse_taken
from tecafn.core.registry import METHODS
from tecafn.core.threads import memory_bytes, num_cores, user_chose_number
from tecafn.data.integrity import IntegrityRow, refuse_errors
from tecafn.data.store import SplitView, Store
from tecafn.evaluation.hard_pairs import max_gap_of
from tecafn.evaluation.metrics import names_in_order
from tecafn.experiments.audit.rederived import is_as_logged
from tecafn.experiments.cells import Cell, CellRunner, Outcome
from tecafn.experiments.config import RunConfig, load_config
from tecafn.experiments.extras import add_extras
from tecafn.experiments.launched import launched
from tecafn.experiments.rows import AS_WRITTEN, Row, Table, are_seeds, check_rows, rows_of_methods
from tecafn.experiments.run_folder import check_begun, describe_store
from tecafn.experiments.setup import (
    check_device,
    check_fits,
    check_groups,
    check_labels,
    check_needs,
)
from tecafn.experiments.shipped import ChosenConfigs, choose_configs, find_config
from tecafn.experiments.summary import Entry, measure, shared_settings
from tecafn.layers.encoder_source import MINILM, check_source
from tecafn.records.begun import Begun
from tecafn.records.comparison import COMPARISON_FORMAT, ComparisonSummary, write_comparison
from tecafn.records.record import library_versions, now, source_commit
from tecafn.training.run_lock import run_lock

_NO_CONFIG = "there is no config"
# Another process that shares the folder writes the tables for some seconds.
_PATIENCE_SECONDS = 600.0
# Small networks train on one thread, so a CPU is idle but for one core unless cells run side by
# side. A cell of a frozen MiniLM takes about 1 GB, one that trains an encoder up to 4.
_MOST_AT_ONCE = 4
_MEMORY_OF_A_CELL = 4 * 2**30


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is the same for every row of a comparison.

    Args:
        data: a store.
        out: the folder of the comparison; a cell's run is ``out/<row>/seed-<n>``.
        methods: registered names, a short way to say ``rows``; None = all.
        rows: configs with overrides, in place of ``methods``.
        seeds: at least one, all different.
        configs: folder with a ``<method>.toml`` for each method, or the name of a shipped one;
            None = the one of the store's dataset, or the nearest.
        overrides: ``key=value`` for every row: the common budget; ``row:key=value`` for one.
        split: what is evaluated; the validation split also chooses the epochs.
        against: the row that differences are taken from; None = the best.
        sort: the metric that rows are sorted by, the best first; ``rows`` keeps their order; None =
            the measure that makes a row the best.
        title, notes: of the pages.
        more: what else the table's file says, of charts and published numbers; see ``extras.py``.
        device: auto, cpu or cuda.
        jobs: cells at once, >= 1; None = as ``num_jobs`` says.
        threads: of each cell's arithmetic; None = the cores shared among the jobs.
        allow_data_errors: compare also on data that ``data check`` calls wrong; the tables say so.
    """

    data: Path
    out: Path
    methods: tuple[str, ...] | None = None
    rows: tuple[Row, ...] | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    configs: str | None = None
    overrides: tuple[str, ...] = ()
    split: str = "valid"
    against: str | None = None
    sort: str | None = None
    title: str = ""
    notes: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    jobs: int | None = None
    threads: int | None = None
    allow_data_errors: bool = False

    def __post_init__(self) -> None:
        if not self.seeds:
            raise UserError("a comparison needs at least one seed, got none")
        if not are_seeds(self.seeds):
            raise UserError(f"seeds must be different whole numbers >= 0, got {[*self.seeds]}")
        for name in ("jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be >= 1, got {value}")
        if self.methods is not None and self.rows is not None:
            raise UserError("a comparison takes methods or rows, got both")
        compared = [row.name for row in self.compared()]
        for override in self.overrides:
            name, _ = self._addressed(override)
            if name and name not in compared:
                raise UserError(
                    f"--set {override!r}: {name!r} is not compared: {nearest_known(name, compared)}"
                )
        settings = [self._addressed(override)[1] for override in self.overrides]
        for setting in (*settings, *(own for row in self.compared() for own in row.overrides)):
            _refuse_own(setting)
        if self.against is not None and self.against not in compared:
            raise UserError(
                f"against {self.against!r} is not compared: {nearest_known(self.against, compared)}"
            )
        sortable = (*METRIC_INFO, AS_WRITTEN)
        if self.sort is not None and self.sort not in sortable:
            raise UserError(f"cannot sort by {self.sort!r}: {nearest_known(self.sort, sortable)}")

    def of_table(self, table: Table) -> Protocol:
        """This protocol with what a table says in its place."""
        said: dict[str, Any] = {
            "rows": table.rows,
            "methods": None,
            "seeds": table.seeds or self.seeds,
            "configs": table.configs or self.configs,
            "overrides": (*table.overrides, *self.overrides),
            "split": table.split or self.split,
            "against": table.against or self.against,
            "sort": table.sort or self.sort,
            "title": table.title or self.title,
            "notes": (*table.notes, *self.notes),
            "more": table.more,
        }
        return dataclasses.replace(self, **said)

    def compared(self) -> tuple[Row, ...]:
        """The rows; those of ``methods`` are in the configs of the dataset."""
        if self.rows is not None:
            return self.rows
        return rows_of_methods(METHODS if self.methods is None else self.methods)

    def overrides_for(self, name: str) -> tuple[str, ...]:
        """Overrides for this row: the common ones, then its own, then those addressed to it.

        Example:
            >>> protocol = Protocol(data=Path("store"), out=Path("out"), overrides=(
            ...     "mult:training.max_epochs=5", "training.max_epochs=10"))
            >>> protocol.overrides_for("mult"), protocol.overrides_for("tfn")
            (('training.max_epochs=10', 'training.max_epochs=5'), ('training.max_epochs=10',))
        """
        addressed = [self._addressed(override) for override in self.overrides]
        own = (o for row in self.compared() if row.name == name for o in row.overrides)
        return (
            *(setting for whom, setting in addressed if not whom),
            *own,
            *(setting for whom, setting in addressed if whom == name),
        )

    def _addressed(self, override: str) -> tuple[str, str]:
        """The row that an override is for, empty for all, and its ``key=value``."""
        for row in self.compared():  # whose names may hold an equals sign
            if override.startswith(f"{row.name}:"):
                return row.name, override[len(row.name) + 1 :]
        key, _, _ = override.partition("=")
        name, colon, _ = key.partition(":")
        return (name.strip(), override[len(name) + 1 :]) if colon else ("", override)

    def num_jobs(self) -> int:
        """Cells at once: on a CPU as many as it has cores and memory for, on a GPU one."""
        if self.jobs is not None:
            return self.jobs
        if self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available()):
            return 1
        room = (memory_bytes() or 0) // _MEMORY_OF_A_CELL
        return max(1, min(_MOST_AT_ONCE, num_cores(), room))

    def num_threads(self) -> int:
        """Threads of a cell."""
        return self.threads or max(1, num_cores() // self.num_jobs())


def _refuse_own(setting: str) -> None:
    """What a comparison sets itself cannot be set."""
    if setting.partition("=")[0].strip() in ("seed", "method"):
        raise UserError(
            f"--set {setting!r}: a comparison sets method and seed itself; use --methods and "
            "--seeds"
        )


def compare_methods(
    protocol: Protocol,
    *,
    started: Callable[[Cell], None] = lambda _: None,
    ended: Callable[[Outcome], None] = lambda _: None,
    planned: Callable[[Sequence[Cell]], None] = lambda _: None,
    waiting: Callable[[Sequence[Cell]], None] = lambda _: None,
    train: bool = True,
) -> ComparisonSummary:
    """Train and evaluate what is not finished, and write the tables.

    Several processes, also of several machines, may share one ``out``: each cell is run by one.
    They are written also when the comparison is interrupted, and then say which cells are open.

    Args:
        protocol: what is compared, and how.
        started: called with each cell that is begun, from other threads, one at a time.
        ended: called with the outcome of each, likewise.
        planned: called once with the cells that will be run.
        waiting: called with the cells that other processes run, when only those are left.
        train: False runs nothing and writes the tables of what is finished.

    Returns:
        The summary, as ``OUT/comparison.json`` has it; see ``summarise``.

    Raises:
        UserError: unlabelled data, errors in the data that are not allowed, an unknown method, no
            method that can be trained, or an ``out`` with cells that were begun with other settings
            or data, or whose predictions were changed.
    """
    from tecafn.report.comparison import write_tables

    if launched().num_processes > 1:
        raise UserError("a comparison starts its own processes: run it in one, without torchrun")
    refuse_taken(protocol.out, may_be="comparison")
    store = Store.open(protocol.data)
    check_device(protocol.device)
    view = store.split(protocol.split)
    # All that every run needs, before the first one.
    for name in dict.fromkeys((protocol.split, "train", "valid")):
        how = "compare another" if name == protocol.split else "every run needs its labels"
        check_labels(store, name, how=how)
    # Once, before the first cell; the cells find the outcome beside the store.
    allowed = refuse_errors(store, allowed=protocol.allow_data_errors)
    entries = plan(protocol, store)
    if train:
        entries = [_trainable(entry, store) for entry in entries]
    if all(entry.refused for entry in entries):
        # A missing config says less than what is wrong with one that is there.
        first = min(entries, key=lambda entry: entry.refused.startswith(_NO_CONFIG))
        others = {entry.refused for entry in entries} == {first.refused} and len(entries) > 1
        whose = "all" if others else first.name
        raise UserError(f"no method can be trained; {whose}: {first.refused}")
    for entry in entries:
        for cell in entry.cells:
            if entry.settings is not None:
                settings = {**entry.settings.as_dict(), "seed": cell.seed}
                begun_with: Begun = {"config": settings, "data_hash": store.content_hash}
                check_begun(cell.run, begun_with)
            _refuse_changed(cell)
    try:
        if train:
            # By seeds: a table of all methods is there as soon as the first seed is done.
            cells = [c for row in _by_seed(entries) for c in row if not c.is_finished()]
            planned(cells)
            CellRunner(protocol.num_jobs(), started, ended, waiting).run(cells)
    finally:
        with run_lock(protocol.out, wait_seconds=_PATIENCE_SECONDS):
            summary = summarise(protocol, store, view, entries, allowed=allowed)
            write_comparison(protocol.out, summary)
            write_tables(protocol.out)
    return summary


def _refuse_changed(cell: Cell) -> None:
    """A finished cell's predictions are measured: they are the ones that its evaluation wrote."""
    if cell.is_finished() and is_as_logged(cell.run, cell.split) is False:
        raise UserError(
            f"{cell.run}: predictions/{cell.split}.csv was changed since the evaluation wrote it; "
            "remove the run, and it is trained again"
        )


def configs_of(protocol: Protocol, store: Store) -> ChosenConfigs:
    """The configs that the methods are compared with; see ``choose_configs``.

    No folder is chosen where every row names its config.

    Raises:
        UserError: there is no such folder.
    """
    if not any(row.method for row in protocol.compared()):
        return ChosenConfigs(Path())
    return choose_configs(
        protocol.configs,
        store.description.dataset,
        task=store.description.task,
        num_train=store.manifest["splits"].get("train", {}).get("num_samples", 0),
    )


def plan(protocol: Protocol, store: Store) -> list[Entry]:
    """Every row with its settings and cells, or the reason why it has none.

    Raises:
        UserError: an unknown method, no folder of configs, or a row's config that cannot be read.
    """
    rows = protocol.compared()
    check_rows(rows)
    for row in rows:
        if row.method is not None:
            METHODS[row.method]  # fails with the known names
    folder = configs_of(protocol, store).folder
    return [_entry(protocol, store, row, folder) for row in rows]


def _trainable(entry: Entry, store: Store) -> Entry:
    """The entry, refused where nothing of it is finished and every run of it would fail."""
    settings = entry.settings
    if settings is None or any(cell.is_finished() for cell in entry.cells):
        return entry
    try:
        if Modality.TEXT in settings.modalities:
            check_source(settings.text_encoder)
        check_groups(settings, store)
    except UserError as error:
        return dataclasses.replace(entry, settings=None, refused=str(error), cells=())
    return entry


def _entry(protocol: Protocol, store: Store, row: Row, folder: Path) -> Entry:
    overrides = protocol.overrides_for(row.name)
    if row.config is not None:
        path = find_config(Path(row.config))
        try:
            settings: RunConfig | None = load_config(path, overrides)
        except UserError as error:
            raise UserError(f"row {row.name!r}: {error}") from None
    else:
        path, settings = folder / f"{row.method}.toml", None
    shown, refused = f"{path.parent.name}/{path.name}", ""
    try:
        settings = settings or _settings_of_method(str(row.method), path, overrides, store, shown)
        check_fits(settings, store)
    except UserError as error:
        settings, refused = None, " ".join(str(error).split())
    cells = tuple(
        Cell(
            row=row.name,
            seed=seed,
            run=protocol.out / row.folder / f"seed-{seed}",
            config=path,
            overrides=overrides,
            data=protocol.data,
            split=protocol.split,
            device=protocol.device,
            threads=protocol.num_threads(),
            may_use_fewer=protocol.threads is None and not user_chose_number(),
            convention=store.description.convention,
            allow_data_errors=protocol.allow_data_errors,
        )
        for seed in protocol.seeds
    )
    return Entry(
        row=row,
        method=row.method or (settings.method if settings else ""),
        config=shown,
        settings=settings,
        refused=refused,
        cells=() if refused else cells,
    )


def _settings_of_method(
    name: str, path: Path, overrides: Sequence[str], store: Store, shown: str
) -> RunConfig:
    if not path.is_file():
        # There may be none because the dataset is not for this method: the better reason.
        check_needs(name, store, store.split("train"), text_encoder=MINILM)
        raise UserError(f"{_NO_CONFIG} {shown}")
    settings = load_config(path, overrides)
    if settings.method != name:
        raise UserError(f"config {shown} is of method {settings.method!r}")
    return settings


def _by_seed(entries: Sequence[Entry]) -> Iterable[tuple[Cell, ...]]:
    return zip(*(entry.cells for entry in entries if entry.cells), strict=True)


def summarise(
    protocol: Protocol,
    store: Store,
    view: SplitView,
    entries: Sequence[Entry],
    *,
    allowed: Iterable[IntegrityRow],
) -> ComparisonSummary:
    """What the finished cells say; JSON-able, and all that the tables are made from.

    Metrics are means over a row's seeds, with the deviation (S - 1) where there are two or more and
    an interval from resampling videos. A difference is of each sample's error averaged over seeds,
    the row's minus the reference's: seeds are not paired, samples are. Intervals resample videos,
    permutations flip whole videos; Welch's test over the seeds stands beside them; p-values are
    also given corrected for the number of rows (Holm). Which metrics there are, which one ranks and
    by which rows are paired says the data's convention.
    """
    description = store.description
    rules = convention_named(description.convention)
    measured = measure(
        entries,
        split=protocol.split,
        rules=rules,
        max_gap=max_gap_of(description.label_range),
        against=protocol.against,
        sort=protocol.sort,
    )
    common, differing = shared_settings(entries)
    ceilings = (
        runs.records[0]["evaluations"][protocol.split].get("ceiling")
        for runs in measured.finished.values()
    )
    summary: ComparisonSummary = {
        "comparison_format": COMPARISON_FORMAT,
        "tecafn_version": tecafn.__version__,
        "created": now(),
        "commit": source_commit(),
        "versions": library_versions(),
        "data": describe_store(store, allowed),
        "split": protocol.split,
        "num_samples": len(view),
        "num_videos": len(set(view.videos)),
        "seeds": list(protocol.seeds),
        "jobs": protocol.num_jobs(),
        "threads": protocol.num_threads(),
        "overrides": list(protocol.overrides),
        "configs_chosen": configs_of(protocol, store).reason,
        "common_settings": common,
        "differing_settings": differing,
        "metrics": names_in_order(measured.metrics),
        "primary": rules.primary,
        "best": measured.best,
        "against": measured.against,
        "sort": protocol.sort or rules.primary,
        "detectable": measured.detectable,
        "title": protocol.title,
        "notes": list(protocol.notes),
        "methods": measured.rows,
        "ceiling": next(ceilings, None),
    }
    add_extras(summary, protocol.more, entries, measured.finished)
    return summary
