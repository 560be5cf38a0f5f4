"""Every method under one protocol: the same data, budget, seeds and split, paired tests, one table.

A cell is a method with a seed; see ``cells.py``. Cells that are finished are not run again, killed
ones continue, failed ones are tried again; a method that cannot be trained is a row that says why.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tecafn
from tecafn.core.conventions import METRIC_INFO, Convention, convention_named
from tecafn.core.errors import UserError, nearest_known
from tecafn.core.modality import Modality
from tecafn.core.places import refuse_taken
from tecafn.core.registry import METHODS
from tecafn.core.threads import user_chose_number
from tecafn.data.integrity import IntegrityRow, refuse_errors
from tecafn.data.store import SplitView, Store
from tecafn.evaluation.errors import row_errors
from tecafn.evaluation.hard_pairs import (
    find_designed_pairs,
    find_hard_pairs,
    max_gap_of,
    score_pairs,
)
from tecafn.evaluation.metrics import names_in_order
from tecafn.evaluation.significance import holm_adjusted, paired_difference
from tecafn.experiments.cells import Cell, CellRunner, Outcome, read_usage
from tecafn.experiments.config import RunConfig, load_config
from tecafn.experiments.launched import launched
from tecafn.experiments.presence import check_text
from tecafn.experiments.run_folder import allowance, check_begun, describe_store
from tecafn.experiments.setup import check_device, check_monitor, check_needs
from tecafn.experiments.shipped import ChosenConfigs, choose_configs
from tecafn.layers.encoder_source import MINILM, check_source
from tecafn.records.predictions import read_predictions
from tecafn.records.record import (
    library_versions,
    now,
    read_record,
    source_commit,
    write_text_atomically,
)
from tecafn.training.run_lock import run_lock

Floats = NDArray[np.float64]

COMPARISON_FILE = "comparison.json"
COMPARISON_FORMAT = 1
_NO_CONFIG = "there is no config"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is the same for every method of a comparison.

    Args:
        data: a store.
        out: the folder of the comparison; a cell's run is ``out/<method>/seed-<n>``.
        methods: registered names; None = all.
        seeds: at least one.
        configs: folder with a ``<method>.toml`` for each method, or the name of a shipped one;
            None = the one of the store's dataset, or the nearest.
        overrides: ``key=value`` for every method: the common budget; ``method:key=value`` for one.
        split: what is evaluated; the validation split also chooses the epochs.
        device: auto, cpu or cuda.
        jobs: cells at once, >= 1.
        threads: of each cell's arithmetic; None = the cores shared among the jobs.
        allow_data_errors: compare also on data that ``data check`` calls wrong; the tables say so.
    """

    data: Path
    out: Path
    methods: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    configs: str | None = None
    overrides: tuple[str, ...] = ()
    split: str = "valid"
    device: str = "auto"
    jobs: int = 1
    threads: int | None = None
    allow_data_errors: bool = False

    def __post_init__(self) -> None:
        if not self.seeds:
            raise UserError("a comparison needs at least one seed, got none")
        for name in ("jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be >= 1, got {value}")
        compared = tuple(METHODS) if self.methods is None else self.methods
        for override in self.overrides:
            name, setting = _addressed(override)
            if name and name not in compared:
                raise UserError(
                    f"--set {override!r}: {name!r} is not compared: {nearest_known(name, compared)}"
                )
            if setting.partition("=")[0].strip() in ("seed", "method"):
                raise UserError(
                    f"--set {override!r}: a comparison sets method and seed itself; "
                    "use --methods and --seeds"
                )

    def overrides_for(self, method: str) -> tuple[str, ...]:
        """Overrides for this method: the common ones, then its own.

        Example:
            >>> protocol = Protocol(data=Path("store"), out=Path("out"), overrides=(
            ...     "mult:training.max_epochs=5", "training.max_epochs=10"))
            >>> protocol.overrides_for("mult"), protocol.overrides_for("tfn")
            (('training.max_epochs=10', 'training.max_epochs=5'), ('training.max_epochs=10',))
        """
        addressed = [_addressed(override) for override in self.overrides]
        return tuple(
            setting for whom in ("", method) for name, setting in addressed if name == whom
        )

    def num_threads(self) -> int:
        """Threads of a cell."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.jobs)


def _addressed(override: str) -> tuple[str, str]:
    """The method that an override is for, empty for all, and its ``key=value``."""
    key, _, _ = override.partition("=")
    name, colon, _ = key.partition(":")
    return (name.strip(), override[len(name) + 1 :]) if colon else ("", override)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method in a comparison, before anything is trained.

    Args:
        name: as registered.
        config: its file, as shown.
        settings: what the file and the overrides make; None if it is refused.
        refused: why it cannot be trained, in one line; empty if it can.
        cells: one per seed; none if it is refused.
    """

    name: str
    config: str
    settings: RunConfig | None
    refused: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class SeedPredictions:
    """The finished cells of one method on one split.

    Args:
        seeds: S of them.
        records: one per seed.
        predictions: (S, N) scores, or probabilities of class 1.
        labels: (N,).
        videos, pair_ids: (N,) names.
        ids: N public ids.
    """

    seeds: tuple[int, ...]
    records: tuple[Mapping[str, Any], ...]
    predictions: Floats
    labels: Floats
    videos: NDArray[np.str_]
    pair_ids: tuple[str, ...]
    ids: tuple[str, ...]


def compare_methods(
    protocol: Protocol,
    *,
    started: Callable[[Cell], None] = lambda cell: None,
    ended: Callable[[Outcome], None] = lambda outcome: None,
    planned: Callable[[Sequence[Cell]], None] = lambda cells: None,
    train: bool = True,
) -> dict[str, Any]:
    """Train and evaluate what is not finished, and write the tables.

    They are written also when the comparison is interrupted, and then say which cells are open.

    Args:
        protocol: what is compared, and how.
        started, ended: called with each cell that is run, from other threads, one at a time.
        planned: called once with the cells that will be run.
        train: False runs nothing and writes the tables of what is finished.

    Returns:
        The summary, as ``OUT/comparison.json`` has it; see ``summarise``.

    Raises:
        UserError: unlabelled data, errors in the data that are not allowed, an unknown method, no
            method that can be trained, or an ``out`` with cells that were begun with other settings
            or data.
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
        unlabelled, total = int((~store.split(name).labelled).sum()), len(store.split(name))
        if unlabelled:
            how = "compare another" if name == protocol.split else "every run needs its labels"
            raise UserError(
                f"split {name!r} of {protocol.data} has {unlabelled} of {total} samples without a "
                f"label; {how}"
            )
    # Once, before the first cell; the cells find the outcome beside the store.
    allowed = refuse_errors(store, allowed=protocol.allow_data_errors)
    entries = plan(protocol, store)
    if train:
        entries = [_trainable(entry) for entry in entries]
    if all(entry.refused for entry in entries):
        # A missing config says less than what is wrong with one that is there.
        first = min(entries, key=lambda entry: entry.refused.startswith(_NO_CONFIG))
        others = {entry.refused for entry in entries} == {first.refused} and len(entries) > 1
        whose = "all" if others else first.name
        raise UserError(f"no method can be trained; {whose}: {first.refused}")
    for entry in entries:
        for cell in entry.cells:
            if entry.settings is not None and (cell.run / "begun.json").exists():
                settings = {**entry.settings.as_dict(), "seed": cell.seed}
                begun_with = {"config": settings, "data_hash": store.content_hash}
                check_begun(cell.run, begun_with)
    with run_lock(protocol.out):
        try:
            if train:
                # By seeds: a table of all methods is there as soon as the first seed is done.
                cells = [c for row in _by_seed(entries) for c in row if not c.is_finished()]
                planned(cells)
                CellRunner(protocol.jobs, started, ended).run(cells)
        finally:
            summary = summarise(protocol, store, view, entries, allowed=allowed)
            text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=True)
            write_text_atomically(protocol.out / COMPARISON_FILE, text + "\n")
            write_tables(protocol.out)
    return summary


def configs_of(protocol: Protocol, store: Store) -> ChosenConfigs:
    """The configs that the methods are compared with; see ``choose_configs``.

    Raises:
        UserError: there is no such folder.
    """
    return choose_configs(
        protocol.configs,
        store.description.dataset,
        task=store.description.task,
        num_train=store.manifest["splits"].get("train", {}).get("num_samples", 0),
    )


def plan(protocol: Protocol, store: Store) -> list[Entry]:
    """Every method with its settings and cells, or the reason why it has none.

    Raises:
        UserError: an unknown method, or no folder of configs.
    """
    names = tuple(METHODS) if protocol.methods is None else protocol.methods
    if len(set(names)) < len(names) or not names:
        raise UserError(f"methods must differ and be at least one, got {', '.join(names) or ''!r}")
    for name in names:
        METHODS[name]  # fails with the known names
    folder = configs_of(protocol, store).folder
    return [_entry(protocol, store, name, folder) for name in names]


def _trainable(entry: Entry) -> Entry:
    """The entry, refused where nothing of it is finished and every run of it would fail."""
    settings = entry.settings
    if settings is None or any(cell.is_finished() for cell in entry.cells):
        return entry
    try:
        if Modality.TEXT in settings.modalities:
            check_source(settings.text_encoder)
    except UserError as error:
        return dataclasses.replace(entry, settings=None, refused=str(error), cells=())
    return entry


def _entry(protocol: Protocol, store: Store, name: str, folder: Path) -> Entry:
    path = folder / f"{name}.toml"
    shown = f"{folder.name}/{path.name}"
    settings, refused = None, ""
    try:
        if not path.is_file():
            # There may be none because the dataset is not for this method: the better reason.
            check_needs(name, store, store.split("train"), text_encoder=MINILM)
            raise UserError(f"{_NO_CONFIG} {shown}")
        settings = load_config(path, protocol.overrides_for(name))
        tasks, task = METHODS[name].tasks, store.description.task
        if settings.method != name:
            raise UserError(f"config {shown} is of method {settings.method!r}")
        if task not in tasks:
            raise UserError(f"it does {' and '.join(tasks)}, the dataset is a {task}")
        check_monitor(settings, store.description)
        train = store.split("train")
        encoder, modalities = settings.text_encoder, settings.modalities
        check_text(store, train, modalities, encoder)
        check_needs(name, store, train, text_encoder=encoder, modalities=modalities)
    except UserError as error:
        settings, refused = None, " ".join(str(error).split())
    cells = tuple(
        Cell(
            method=name,
            seed=seed,
            run=protocol.out / name / f"seed-{seed}",
            config=path,
            overrides=protocol.overrides_for(name),
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
        name=name,
        config=shown,
        settings=settings,
        refused=refused,
        cells=() if refused else cells,
    )


def _by_seed(entries: Sequence[Entry]) -> Iterable[tuple[Cell, ...]]:
    return zip(*(entry.cells for entry in entries if entry.cells), strict=True)


def summarise(
    protocol: Protocol,
    store: Store,
    view: SplitView,
    entries: Sequence[Entry],
    *,
    allowed: Iterable[IntegrityRow],
) -> dict[str, Any]:
    """What the finished cells say; JSON-able, and all that the tables are made from.

    Metrics are means over a method's seeds, with the deviation (S - 1) where there are two or more.
    A paired difference is of each sample's error averaged over the seeds that both methods have,
    the method's minus the best one's; intervals resample videos, permutations flip whole videos,
    and p-values are also given corrected for the number of methods (Holm). Which metrics there are,
    which one ranks and by which methods are paired says the data's convention.
    """
    rules = convention_named(store.description.convention)
    primary = rules.primary
    finished: dict[str, SeedPredictions] = {}
    for entry in entries:
        runs = _read_cells(entry.cells)
        if runs is not None:
            finished[entry.name] = runs
    ids = {runs.ids for runs in finished.values()}
    if len(ids) > 1:
        raise UserError(f"the cells of {protocol.out} were evaluated on different samples")
    best = _best(finished, protocol.split, primary)
    differences = _differences(finished, best, rules)
    max_gap = max_gap_of(store.description.label_range)
    rows = [
        _row(entry, finished.get(entry.name), protocol.split, differences, max_gap)
        for entry in entries
    ]
    names = {name for row in rows for name in row["metrics"]}
    common, differing = _settings(entries)
    ceiling = next(
        (
            runs.records[0]["evaluations"][protocol.split].get("ceiling")
            for runs in finished.values()
        ),
        None,
    )
    return {
        "comparison_format": COMPARISON_FORMAT,
        "tecafn_version": tecafn.__version__,
        "created": now(),
        "commit": source_commit(),
        "versions": library_versions(),
        "data": describe_store(store) | allowance(allowed),
        "split": protocol.split,
        "num_samples": len(view),
        "num_videos": len(set(view.videos)),
        "seeds": list(protocol.seeds),
        "jobs": protocol.jobs,
        "threads": protocol.num_threads(),
        "overrides": list(protocol.overrides),
        "configs_chosen": configs_of(protocol, store).reason,
        "common_settings": common,
        "differing_settings": differing,
        "metrics": names_in_order(list(names)),
        "primary": primary,
        "best": best,
        "methods": sorted(rows, key=lambda row: _rank(row, primary)),
        "ceiling": ceiling,
    }


def _read_cells(cells: Sequence[Cell]) -> SeedPredictions | None:
    """The finished cells of a method; None if there are none."""
    done = [cell for cell in cells if cell.is_finished()]
    if not done:
        return None
    tables = [read_predictions(cell.run / "predictions" / f"{cell.split}.csv") for cell in done]
    first = tables[0]
    for cell, table in zip(done, tables, strict=True):
        if table.ids != first.ids:
            raise UserError(f"{cell.run} and {done[0].run} were evaluated on different samples")
    return SeedPredictions(
        seeds=tuple(cell.seed for cell in done),
        records=tuple(read_record(cell.run) for cell in done),
        predictions=np.array([table.predictions for table in tables]),
        labels=first.labels,
        videos=np.array(first.videos),
        pair_ids=first.pair_ids,
        ids=first.ids,
    )


def _best(finished: Mapping[str, SeedPredictions], split: str, primary: str) -> str | None:
    """The method with the best mean of the primary metric."""

    def mean(name: str) -> float:
        records = finished[name].records
        value = np.mean([r["evaluations"][split]["metrics"][primary] for r in records])
        return float(value) if METRIC_INFO[primary].lower_is_better else -float(value)

    return min(finished, key=mean, default=None)


def _differences(
    finished: Mapping[str, SeedPredictions], best: str | None, rules: Convention
) -> dict[str, dict[str, Any]]:
    """Method to metric to its paired difference from the best one, p corrected by Holm."""
    if best is None:
        return {}
    found: dict[str, dict[str, Any]] = {name: {} for name in finished if name != best}
    for metric in rules.paired:
        for name, differences in found.items():
            mine, theirs = finished[name], finished[best]
            shared = sorted(set(mine.seeds) & set(theirs.seeds))
            if not shared:
                continue
            one, other = (
                row_errors(
                    metric,
                    runs.predictions[[runs.seeds.index(s) for s in shared]],
                    runs.labels,
                    convention=rules.name,
                )
                for runs in (mine, theirs)
            )
            if not one[1].any():
                continue
            difference = paired_difference(
                one[0].mean(axis=0), other[0].mean(axis=0), clusters=mine.videos[one[1]]
            )
            differences[metric] = difference.as_dict() | {"num_seeds": len(shared)}
        known = {name: d[metric] for name, d in found.items() if metric in d}
        adjusted = holm_adjusted([float(d["p_value"]) for d in known.values()])
        for difference_row, p_value in zip(known.values(), adjusted, strict=True):
            difference_row["p_holm"] = p_value
    return found


def _row(
    entry: Entry,
    runs: SeedPredictions | None,
    split: str,
    differences: Mapping[str, Mapping[str, Any]],
    max_gap: float,
) -> dict[str, Any]:
    """One method's line of the tables."""
    method = METHODS[entry.name]
    seeds = () if runs is None else runs.seeds
    usage = {cell.seed: read_usage(cell.run) for cell in entry.cells}
    missing = [cell.seed for cell in entry.cells if cell.seed not in seeds]
    failures = {str(seed): usage[seed]["reason"] for seed in missing if usage[seed].get("reason")}
    row: dict[str, Any] = {
        "name": entry.name,
        "summary": method.summary,
        "paper": method.paper,
        "basis": method.basis,
        "certified": method.certified,
        "after_abstract": method.basis == "abstract",
        "config": entry.config,
        "refused": entry.refused,
        "seeds": list(seeds),
        "open": [seed for seed in missing if str(seed) not in failures],
        "failures": failures,
        "metrics": {},
        "difference": dict(differences.get(entry.name, {})),
        "hard_pairs": None,
        "designed_pairs": None,
        "seconds": None,
        "epochs": None,
        "num_parameters": None,
        "num_trained_parameters": None,
        "peak_memory_bytes": None,
    }
    if runs is None:
        return row
    trainings = [record["training"] for record in runs.records]
    evaluations = [record["evaluations"][split] for record in runs.records]
    peaks = [usage[seed].get("peak_memory_bytes") for seed in seeds]
    return row | {
        "metrics": {
            name: _mean_and_deviation([e["metrics"].get(name) for e in evaluations])
            for name in evaluations[0]["metrics"]
        },
        "hard_pairs": _hard_pairs(runs, max_gap) if evaluations[0]["hard_pairs"] else None,
        "designed_pairs": _designed_pairs(runs) if evaluations[0]["designed_pairs"] else None,
        "seconds": _mean_and_deviation([float(t["seconds"]) for t in trainings]),
        "epochs": _mean_and_deviation([float(t["epochs"]) for t in trainings]),
        "num_parameters": trainings[0]["num_parameters"],
        "num_trained_parameters": trainings[0]["num_trained_parameters"],
        "peak_memory_bytes": max((peak for peak in peaks if peak), default=None),
    }


def _mean_and_deviation(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean, deviation (S - 1) and the values; an undefined value leaves both undefined."""
    known = [float(value) for value in values if value is not None]
    is_defined = len(known) == len(values)
    return {
        "mean": float(np.mean(known)) if is_defined else None,
        "std": float(np.std(known, ddof=1)) if is_defined and len(known) > 1 else None,
        "values": list(values),
    }


def _hard_pairs(runs: SeedPredictions, max_gap: float) -> dict[str, Any]:
    """Share of pairs ranked correctly, averaged over seeds; the interval resamples videos."""
    videos = runs.videos.tolist()
    pairs = find_hard_pairs(runs.labels, videos, max_gap=max_gap)
    report = score_pairs(pairs, runs.predictions, runs.labels, videos)
    return dataclasses.replace(report, max_gap=max_gap).as_dict()


def _designed_pairs(runs: SeedPredictions) -> dict[str, Any]:
    """The same of the pairs that were designed."""
    pairs = find_designed_pairs(runs.labels, runs.pair_ids)
    return score_pairs(pairs, runs.predictions, runs.labels, runs.videos.tolist()).as_dict()


def _rank(row: Mapping[str, Any], primary: str) -> tuple[bool, float, str]:
    """Best first; what has no result last."""
    value = row["metrics"].get(primary, {}).get("mean")
    sign = 1.0 if METRIC_INFO[primary].lower_is_better else -1.0
    return (value is None, 0.0 if value is None else sign * value, row["name"])


def _settings(
    entries: Sequence[Entry],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings of the run and its training that all methods share, and the others by method."""
    flat = {}
    for entry in entries:
        if entry.settings is not None:
            settings = entry.settings.as_dict()
            shared = {k: v for k, v in settings.items() if k not in ("method", "seed", "model")}
            flat[entry.name] = _flat(shared)
    common: dict[str, Any] = {}
    differing: dict[str, dict[str, Any]] = {}
    for key in dict.fromkeys(key for settings in flat.values() for key in settings):
        values = {name: one.get(key) for name, one in flat.items()}
        first = next(iter(values.values()))
        if all(value == first for value in values.values()):
            common[key] = first
        else:
            differing[key] = values
    return common, differing


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
