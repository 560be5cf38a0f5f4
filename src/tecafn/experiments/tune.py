"""A search for settings: every trial is a run of its own, scored on the validation split alone.

Optuna proposes, remembers and shares; a study lies in a database, ``OUT/study.db`` or any that
SQLAlchemy reaches, so that it survives its process and several processes and machines work on it.

A study has as many slots as it shall have trials, each a waiting trial in the database; whoever
takes one from the queue runs it, and the database gives each to one process alone. A trial whose
process died is queued again with the same settings, and its run continues from its checkpoint.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import json
import os
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.parallel import world_size
from tecafn.core.places import refuse_taken
from tecafn.data.integrity import refuse_errors
from tecafn.data.store import Store
from tecafn.experiments.claims import machine, runs_here
from tecafn.experiments.config import RunConfig, load_config
from tecafn.experiments.run import train_run
from tecafn.experiments.search_space import Range, SearchSpace
from tecafn.experiments.setup import check_device, check_fits, check_groups, check_labels
from tecafn.layers.encoder_source import check_source
from tecafn.records.record import write_text_atomically
from tecafn.serving.predictor import EXPORT_FOLDER
from tecafn.training.config import MONITORS

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

STUDY_FILE = "study.db"
BEST_FILE = "best.toml"
TABLE_FILE = "trials.csv"
_NAME = "tecafn"
_DEFAULT_TRIALS = 50
# A process of another machine that has said nothing for so long is dead.
_HEARTBEAT_SECONDS = 15
_GRACE_SECONDS = 90
_POLL_SECONDS = 2.0
# A trial whose process dies so often takes its processes with it, as one that fills the memory.
_MOST_DEATHS = 3


@dataclass(frozen=True)
class TuneResult:
    """How a search stands.

    Args:
        folder: with ``best.toml`` and ``trials.csv``.
        monitor: the validation metric by which trials are compared.
        best: settings of the best trial, as ``--set`` takes them; None without a finished one.
        value: its mean over seeds of the best epoch's metric.
        counts: trials by how they ended: complete, pruned, failed, waiting, running.
    """

    folder: Path
    monitor: str
    best: Mapping[str, Any] | None
    value: float | None
    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched.

    Args:
        config: a TOML file.
        overrides: ``key=value`` of every trial.
        space: what may be chosen.
        data: a store; its test split is never looked at.
        out: where trials, tables and, without ``storage``, the study are kept.
        trials: how many slots the study has; None = the whole grid, or 50.
        seeds: how many seeds each trial trains, from the config's.
        seed: of the sampler and of the grid's order.
        storage: a database's URL; None = ``OUT/study.db``.
        device: auto, cpu or cuda.
        allow_data_errors: train also on data that ``data check`` calls wrong.
    """

    config: Path
    overrides: Sequence[str]
    space: SearchSpace
    data: Path
    out: Path
    trials: int | None = None
    seeds: int = 1
    seed: int = 0
    storage: str | None = None
    device: str = "auto"
    allow_data_errors: bool = False

    def __post_init__(self) -> None:
        for name in ("trials", "seeds"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise UserError(f"{name} must be >= 1, got {number}")

    @property
    def num_slots(self) -> int:
        """How many trials the study shall have."""
        if self.space.sampler != "grid":
            return self.trials or _DEFAULT_TRIALS
        size = self.space.size
        assert size is not None, "a grid has no ranges"
        return size if self.trials is None else min(self.trials, size)

    def settings(self, chosen: Mapping[str, Any], *, seed: int | None = None) -> RunConfig:
        """The config of a trial."""
        values = [f"{key}={_as_toml(value)}" for key, value in chosen.items()]
        seeded = [] if seed is None else [f"seed={seed}"]
        return load_config(self.config, [*self.overrides, *values, *seeded])


def tune(search: Search, *, told: Callable[[str], None] = lambda _: None) -> TuneResult:
    """Run trials until the study has as many as it shall have.

    Another process with the same ``out`` or ``storage`` takes part; one that was killed goes on.

    Args:
        search: what is searched.
        told: is told each trial's end in a line.

    Raises:
        UserError: a setting of the space is none of the config; every trial would fail, for its
            device, encoder or data; the study in this place is of another search; every trial
            failed.
    """
    optuna = _optuna()
    refuse_taken(search.out, may_be="search")
    if world_size() > 1:
        raise UserError(
            f"a search runs in one process, got {world_size()}; start the command several times "
            "with one --out, and each takes trials"
        )
    first = _check_space(search)
    _check_data(search, first)
    monitor = first.training.monitor
    with warnings.catch_warnings():
        # Heartbeats and stale trials, which we need, Optuna calls experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = _open_study(optuna, search, monitor)
        try:
            return _run_all(optuna, study, search, monitor, told)
        except optuna.exceptions.StorageInternalError as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise UserError(f"the study in {_url(search)} cannot be used: {reason}") from None


def _run_all(
    optuna: Any, study: Study, search: Search, monitor: str, told: Callable[[str], None]
) -> TuneResult:
    _queue(optuna, study, search)
    worker = _Worker(optuna, study, search, told)
    while worker.run_next():
        with suppress(UserError):  # no trial is finished yet
            _write(optuna, study, search, monitor)
    return _write(optuna, study, search, monitor)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError('a search needs Optuna: pip install "tecafn[tune]"') from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _check_space(search: Search) -> RunConfig:
    """Try every value once beside the first ones, so that no trial finds out an hour later."""
    firsts = {
        key: choice.low if isinstance(choice, Range) else choice[0]
        for key, choice in search.space.choices.items()
    }
    for key, choice in search.space.choices.items():
        if key == "seed":
            raise UserError("the seed cannot be searched; --seeds N trains several")
        if key in ("training.monitor", "method"):
            raise UserError(f"{key} cannot be searched: trials would be scored by different rules")
        values = (choice.low, choice.high) if isinstance(choice, Range) else choice
        for value in values:
            try:
                search.settings({**firsts, key: value})
            except UserError as error:
                # It may go with other values of the other settings; a wrong key or type never does.
                alone = _fits_alone(search, key, value)
                if alone is not None:
                    raise UserError(f"space: {alone}") from error
    return search.settings({})


def _fits_alone(search: Search, key: str, value: Any) -> UserError | None:
    try:
        search.settings({key: value})
    except UserError as error:
        return error
    return None


def _check_data(search: Search, first: RunConfig) -> None:
    """Refuse before the first trial what would fail every one of them."""
    store = _check_surroundings(search)
    for split in ("train", "valid"):
        check_labels(store, split, how="every trial needs its labels")
    check_groups(first, store)
    if not {"text_encoder", "modalities"} & set(search.space.choices):
        _check_encoder(first)
        check_fits(first, store)


def _check_surroundings(search: Search) -> Store:
    """Refuse a device or data that no settings of a trial can mend."""
    check_device(search.device)
    store = Store.open(search.data)
    refuse_errors(store, allowed=search.allow_data_errors)
    return store


def _check_encoder(config: RunConfig) -> None:
    if Modality.TEXT in config.modalities:
        check_source(config.text_encoder)


def _url(search: Search) -> str:
    return search.storage or f"sqlite:///{(search.out / STUDY_FILE).resolve()}"


def _open_study(optuna: Any, search: Search, monitor: str) -> Study:
    """The study, which several processes may try to make at once."""
    try:
        search.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {search.out}: {error.strerror or error}") from None
    engine = {"connect_args": {"timeout": 60}} if _url(search).startswith("sqlite") else {}
    try:
        with _first_of_its_folder(search):
            storage = optuna.storages.RDBStorage(
                _url(search),
                engine_kwargs=engine,
                heartbeat_interval=_HEARTBEAT_SECONDS,
                grace_period=_GRACE_SECONDS,
                **{_callback_name(optuna): _queue_again},
            )
            study: Study = optuna.create_study(
                storage=storage,
                sampler=_sampler(optuna, search),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
                if search.space.pruner == "median"
                else optuna.pruners.NopPruner(),
                study_name=_NAME,
                direction="minimize" if MONITORS[monitor] == "min" else "maximize",
                load_if_exists=True,
            )
            _check_same(study, search, monitor)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever a database, its driver or a damaged file raises
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"cannot open the study in {_url(search)}: {reason}") from None
    return study


def _callback_name(optuna: Any) -> str:
    """Who is told of a trial whose process fell silent; Optuna 4.9 has renamed it."""
    new = "heartbeat_stale_trial_callback"
    known = inspect.signature(optuna.storages.RDBStorage.__init__).parameters
    return new if new in known else "failed_trial_callback"


def _sampler(optuna: Any, search: Search) -> Any:
    """Draws by the search's seed and the trial's slot, whichever process of whichever machine asks.

    Two that ask at once have different slots, and are not told the same.
    """

    class OfEachTrial(optuna.samplers.BaseSampler):  # type: ignore[misc]  # it is loaded late
        def __init__(self) -> None:
            self._samplers: dict[int, Any] = {}

        def _of(self, trial: FrozenTrial) -> Any:
            """Made when it is first asked for: one that died elsewhere is ended and never begun."""
            if trial.number not in self._samplers:
                text = f"{search.seed} {trial.user_attrs.get('slot', trial.number)}"
                seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
                self._samplers[trial.number] = (
                    optuna.samplers.TPESampler(seed=seed, constant_liar=True)
                    if search.space.sampler == "tpe"
                    else optuna.samplers.RandomSampler(seed=seed)
                )
            return self._samplers[trial.number]

        def before_trial(self, study: Study, trial: FrozenTrial) -> None:
            self._of(trial).before_trial(study, trial)

        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Any:
            return self._of(trial).infer_relative_search_space(study, trial)

        def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> Any:
            return self._of(trial).sample_relative(study, trial, search_space)

        def sample_independent(self, study: Study, trial: FrozenTrial, *asked: Any) -> Any:
            return self._of(trial).sample_independent(study, trial, *asked)

        def after_trial(self, study: Study, trial: FrozenTrial, *ended: Any) -> None:
            self._of(trial).after_trial(study, trial, *ended)
            del self._samplers[trial.number]

    return OfEachTrial()


def _first_of_its_folder(search: Search) -> Any:
    """Of several processes that begin together in a folder one makes the tables."""
    from filelock import FileLock

    return FileLock(search.out / ".study.lock", timeout=120)


def _check_same(study: Study, search: Search, monitor: str) -> None:
    """Refuse to mix two searches in a study."""
    now = {
        "data": Store.open(search.data).content_hash,
        "config": search.settings({}).as_dict(),
        "space": search.space.as_dict(),
        "sampler": search.space.sampler,
        "pruner": search.space.pruner,
        "monitor": monitor,
        "seeds": search.seeds,
        "seed": search.seed,
    }
    now = json.loads(json.dumps(now))
    then = study.user_attrs.get("search")
    if then is None:
        study.set_user_attr("search", now)
        return
    for name, value in now.items():
        if then.get(name) != value:
            raise UserError(
                f"{_url(search)} holds a search with another {name}; go on with it as it was "
                "begun, or name another --out"
            )


def _queue(optuna: Any, study: Study, search: Search) -> None:
    """Queue what the study lacks of its slots.

    Two processes that begin together may queue a slot twice; the later trial is then left out
    (``_is_double``).
    """
    failed = optuna.trial.TrialState.FAIL
    known, dead = set(), {}
    for trial in study.get_trials(deepcopy=False):
        slot = trial.user_attrs.get("slot")
        if trial.state != failed or _failed_of_settings(trial):
            known.add(slot)
        elif "left_out" not in trial.user_attrs:
            dead[slot] = trial
    for slot, trial in dead.items():
        if slot not in known:  # ended by a signal that was heard, or by what may be mended now
            known.add(slot)
            _queue_again(study, trial)
    grid = search.space.grid(seed=search.seed) if search.space.sampler == "grid" else None
    for slot in range(search.num_slots):
        chosen = {} if grid is None else next(grid)
        if slot not in known:
            params = {key: _as_choice(value) for key, value in chosen.items()}
            study.enqueue_trial(params, user_attrs={"slot": slot})


def _queue_again(study: Study, trial: FrozenTrial) -> None:
    """A waiting trial with the settings of one that died, unless too many of its slot have."""
    from optuna.trial import TrialState, create_trial

    slot = trial.user_attrs.get("slot")
    deaths = [t for t in study.get_trials(deepcopy=False) if _has_died(t, slot)]
    if slot is None or len(deaths) >= _MOST_DEATHS:
        return
    study.add_trial(
        create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"slot": slot},
            # What it was queued with, if it died before it looked.
            system_attrs={k: v for k, v in trial.system_attrs.items() if k == "fixed_params"},
        )
    )


def _failed_of_settings(trial: FrozenTrial) -> bool:
    """Would it fail again wherever it is run?"""
    return "error" in trial.user_attrs and "not_of_settings" not in trial.user_attrs


def _has_died(trial: FrozenTrial, slot: int | None) -> bool:
    attrs = trial.user_attrs
    explained = {"error", "left_out", "interrupted"} & set(attrs)
    return attrs.get("slot") == slot and trial.state.name == "FAIL" and not explained


class _LeftOutError(Exception):
    """Another trial is of the same slot."""


class _BadSettingsError(Exception):
    """Settings that do not go together, or a run that failed."""


class _Worker:
    """Runs one trial after the other."""

    def __init__(
        self, optuna: Any, study: Study, search: Search, told: Callable[[str], None]
    ) -> None:
        self._optuna, self._study, self._search, self._told = optuna, study, search, told

    def run_next(self) -> bool:
        """Run a waiting trial, or wait for those of others; False when there is nothing left."""
        self._queue_those_of_the_dead()
        states = self._optuna.trial.TrialState
        trials = self._study.get_trials(deepcopy=False)
        if any(trial.state == states.WAITING for trial in trials):
            self._study.optimize(
                self._objective, n_trials=1, catch=(_LeftOutError, _BadSettingsError)
            )
            return True
        if any(trial.state == states.RUNNING for trial in trials):
            time.sleep(_POLL_SECONDS)
            self._optuna.storages.fail_stale_trials(self._study)
            return True
        return False

    def _queue_those_of_the_dead(self) -> None:
        """Trials of this machine whose process is gone; others' are found by their silence."""
        states = self._optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            worker = trial.user_attrs.get("worker", {})
            if worker.get("machine") != machine() or runs_here(int(worker["pid"])):
                continue
            # Of several that find it dead, one fails it, and that one queues it.
            with suppress(ValueError, self._optuna.exceptions.UpdateFinishedTrialError):
                self._study.tell(trial.number, state=states.FAIL)
                _queue_again(self._study, trial)

    def _objective(self, trial: Trial) -> float:
        if "slot" not in trial.user_attrs:
            # Somebody else took the last waiting trial before this one was asked for.
            trial.set_user_attr("left_out", "no slot was free")
            raise _LeftOutError
        trial.set_user_attr("worker", {"machine": machine(), "pid": os.getpid()})
        if self._is_double(trial):
            trial.set_user_attr("left_out", "another trial has this slot")
            raise _LeftOutError
        chosen = {k: _suggest(trial, k, c) for k, c in self._search.space.choices.items()}
        trial.set_user_attr("settings", json.dumps(chosen))
        began = time.monotonic()
        try:
            value = self._score(trial, chosen)
        except self._optuna.TrialPruned:
            self._say(trial, chosen, "pruned")
            raise
        except UserError as error:
            trial.set_user_attr("error", str(error))
            if self._fails_any(chosen):  # to be tried again when the search goes on
                trial.set_user_attr("not_of_settings", True)
            self._say(trial, chosen, f"failed: {error}")
            raise _BadSettingsError(str(error)) from None
        except Exception:
            raise
        except BaseException:  # Ctrl-C, or SIGTERM: it did not die of its settings
            trial.set_user_attr("interrupted", True)
            raise
        trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
        self._say(trial, chosen, f"{value:.4f}")
        return value

    def _fails_any(self, chosen: Mapping[str, Any]) -> bool:
        """Is something wrong by now that is not the settings: the device, the data, a download?"""
        try:
            _check_surroundings(self._search)
        except UserError:
            return True
        try:
            config = self._search.settings(chosen)
        except UserError:
            return False
        try:
            _check_encoder(config)
        except UserError:
            return True
        return False

    def _is_double(self, trial: Trial) -> bool:
        """Has an earlier trial that did not die the same slot?"""
        failed = self._optuna.trial.TrialState.FAIL
        slot = trial.user_attrs["slot"]
        return any(
            other.number < trial.number
            and other.user_attrs.get("slot") == slot
            and (other.state != failed or _failed_of_settings(other))
            for other in self._study.get_trials(deepcopy=False)
        )

    def _score(self, trial: Trial, chosen: Mapping[str, Any]) -> float:
        """The mean over seeds of the best epoch's validation metric."""
        folder = self._search.out / "trials" / folder_of(chosen)
        found = []
        first = self._search.settings(chosen).seed
        for seed in range(first, first + self._search.seeds):
            config = self._search.settings(chosen, seed=seed)
            pruning = _Pruning(self._optuna, trial, config) if seed == first else None
            run = folder / f"seed-{seed}"
            try:
                record = train_run(
                    config,
                    data=self._search.data,
                    out=run,
                    resume=True,
                    device=self._search.device,
                    progress=False,
                    allow_data_errors=self._search.allow_data_errors,
                    after_epoch=pruning,
                )
            except self._optuna.TrialPruned:
                shutil.rmtree(run / "checkpoints", ignore_errors=True)
                raise
            _keep_the_records(run)
            value = record["training"]["monitor_value"]
            assert value is not None, "an epoch was finished"
            found.append(value)
        trial.set_user_attr("values", found)
        return statistics.fmean(found)

    def _say(self, trial: Trial, chosen: Mapping[str, Any], how: str) -> None:
        settings = ", ".join(f"{key}={value}" for key, value in chosen.items())
        place = trial.user_attrs["slot"] + 1
        self._told(f"trial {place} of {self._search.num_slots}: {how} ({settings})")


class _Pruning:
    """Reports the first seed's epochs, and ends a trial that does worse than the others."""

    def __init__(self, optuna: Any, trial: Trial, config: RunConfig) -> None:
        self._optuna, self._trial, self._training = optuna, trial, config.training
        self._best: float | None = None

    def __call__(self, epoch: int, value: float) -> None:
        """Called after each epoch."""
        if self._training.improves(value, self._best):
            self._best = value
        assert self._best is not None
        self._trial.report(self._best, epoch)
        if self._trial.should_prune():
            raise self._optuna.TrialPruned


def _keep_the_records(run: Path) -> None:
    """What was found stays; the weights of a trial are made again by training its settings."""
    for name in ("checkpoints", EXPORT_FOLDER):
        shutil.rmtree(run / name, ignore_errors=True)


def folder_of(chosen: Mapping[str, Any]) -> str:
    """The name of a trial's folder: the same for the same settings.

    Example:
        >>> folder_of({"a": 1, "b": 2}) == folder_of({"b": 2, "a": 1})
        True
    """
    text = json.dumps(chosen, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _as_choice(value: Any) -> Any:
    """What Optuna keeps of a value of a list: numbers and texts as they are, else their JSON."""
    is_plain = isinstance(value, int | float | str) and not isinstance(value, bool)
    return value if is_plain else json.dumps(value)


def _suggest(trial: Trial, key: str, choice: tuple[Any, ...] | Range) -> Any:
    if isinstance(choice, tuple):
        kept = {_as_choice(value): value for value in choice}
        return kept[trial.suggest_categorical(key, list(kept))]
    if choice.is_whole:
        low, high, step = int(choice.low), int(choice.high), int(choice.step or 1)
        return trial.suggest_int(key, low, high, step=step, log=choice.log)
    return trial.suggest_float(key, choice.low, choice.high, step=choice.step, log=choice.log)


def _as_toml(value: Any) -> str:
    """A value as ``--set`` reads it."""
    text = tomli_w.dumps({"value": value}).strip()
    if text.startswith("value"):
        return text.partition("=")[2].strip()
    inner = ", ".join(f"{json.dumps(k)} = {_as_toml(v)}" for k, v in value.items())
    return f"{{ {inner} }}"


def _write(optuna: Any, study: Study, search: Search, monitor: str) -> TuneResult:
    """``best.toml`` and ``trials.csv``."""
    states = optuna.trial.TrialState
    last: dict[int, FrozenTrial] = {}  # of each slot: the trials before it died
    for trial in study.get_trials(deepcopy=False):
        if "left_out" not in trial.user_attrs and "slot" in trial.user_attrs:
            last[trial.user_attrs["slot"]] = trial
    trials = [last[slot] for slot in sorted(last)]
    counts = {
        name: sum(t.state == state for t in trials)
        for name, state in (
            ("complete", states.COMPLETE),
            ("pruned", states.PRUNED),
            ("failed", states.FAIL),
        )
    }
    done = [t for t in trials if t.state == states.COMPLETE]
    _write_table(search, trials, monitor)
    if not done:
        reason = next((t.user_attrs["error"] for t in trials if "error" in t.user_attrs), "")
        raise UserError(f"no trial was finished{': ' if reason else ''}{reason}")
    sign = 1.0 if MONITORS[monitor] == "min" else -1.0
    best = min(done, key=lambda t: (sign * float(t.value or 0.0), t.user_attrs["slot"]))
    chosen = json.loads(best.user_attrs["settings"])
    value = float(best.value or 0.0)
    config = search.settings(chosen)
    said = (
        f"# The best of {len(done)} finished trials: validation {monitor} {value:.4f}, "
        f"mean of {search.seeds} seed{'s' * (search.seeds > 1)}.\n"
        "# It was chosen among several: expect less of it on data that it has not met.\n"
        + "".join(f"# {key} = {_as_toml(each)}\n" for key, each in chosen.items())
    )
    text = tomli_w.dumps(config.as_dict())
    write_text_atomically(search.out / BEST_FILE, said + "\n" + text)
    return TuneResult(search.out, monitor, chosen, value, counts)


def _write_table(search: Search, trials: Sequence[FrozenTrial], monitor: str) -> None:
    keys = list(search.space.choices)
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(
        ["trial", "state", f"valid_{monitor}", "epochs", "seconds", *keys, "folder", "reason"]
    )
    for trial in trials:
        attrs = trial.user_attrs
        chosen = json.loads(attrs.get("settings", "{}"))
        writer.writerow(
            [
                attrs["slot"] + 1,
                trial.state.name.lower(),
                "" if trial.value is None else trial.value,
                len(trial.intermediate_values),
                attrs.get("seconds", ""),
                *(chosen.get(key, "") for key in keys),
                f"trials/{folder_of(chosen)}" if chosen else "",
                attrs.get("error", "its process died" if trial.state.name == "FAIL" else ""),
            ]
        )
    write_text_atomically(search.out / TABLE_FILE, rows.getvalue())
