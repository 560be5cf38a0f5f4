"""What becomes of a run's answers when a modality is missing, foreign, noise or full of gaps.

Nothing is trained: a saved network predicts the same split again and again, each time with
something of the data changed. At rate 0 it is what ``tecafn evaluate`` finds, to the last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.info import FeatureStatistics
from tecafn.core.modality import Modality
from tecafn.core.parallel import world_size
from tecafn.core.places import refuse_taken
from tecafn.core.text import is_blank
from tecafn.data.corruption import (
    LostFrames,
    Noise,
    OfOthers,
    ReplacedVectors,
    order_of_others,
    pool_of,
    random_of,
)
from tecafn.data.loader import BatchLoader
from tecafn.data.recognition import ChangedText, MistakenWords
from tecafn.data.statistics import column_statistics
from tecafn.data.store import SplitView, Store
from tecafn.data.text import FrameSource, frames_of_changed_texts
from tecafn.experiments.evaluate import (
    OpenRun,
    check_measurable,
    look_again,
    new_evaluation,
    open_run,
    source_of,
    weights_hash,
)
from tecafn.experiments.run_folder import add_allowed
from tecafn.experiments.setup import open_device, token_frames
from tecafn.records.record import Evaluation, code_hash, now, read_record
from tecafn.records.robustness import (
    ROBUSTNESS_FORMAT,
    Kind,
    Point,
    Robustness,
    RobustRun,
    read_robustness,
    write_robustness,
)
from tecafn.report.robustness import write_robustness_pages

FRAME_RATES = tuple(round(0.1 * step, 1) for step in range(10))
WORD_RATES = tuple(round(0.1 * step, 1) for step in range(6))
_POOL = 4096
# Which of the draws of a seed; lost frames of a modality are the same ones at every rate.
_STREAMS = {m: 10 * (1 + place) for place, m in enumerate(Modality)}
_SHUFFLED, _NOISE, _LOST, _WORDS, _CONTEXT = range(5)


@dataclass(frozen=True)
class Probe:
    """One change of the data.

    Args:
        kind: what is done.
        modalities: to which.
        rate: to which share of the frames or words, in [0, 1].
    """

    kind: Kind
    modalities: tuple[Modality, ...] = ()
    rate: float = 1.0


def probes_of(modalities: Sequence[Modality]) -> tuple[list[Probe], list[str]]:
    """What is done to a run that reads these modalities, and what cannot be done.

    Example:
        >>> probes, skipped = probes_of([Modality.TEXT])
        >>> [probe.kind for probe in probes[:3]], len(probes), skipped
        (['clean', 'shuffled', 'noise'], 9, ['text is all that it reads: it cannot be dropped'])
    """
    probes, skipped = [Probe("clean")], []
    for modality in modalities:
        if len(modalities) > 1:
            probes.append(Probe("dropped", (modality,)))
        else:
            skipped.append(f"{modality} is all that it reads: it cannot be dropped")
        probes += [Probe("shuffled", (modality,)), Probe("noise", (modality,))]
    frames = [m for m in modalities if m != Modality.TEXT]
    groups = [(m,) for m in frames] + [tuple(frames)] * (len(frames) > 1)
    probes += [Probe("lost frames", group, rate) for group in groups for rate in FRAME_RATES]
    if Modality.TEXT in modalities:
        probes += [Probe("mistaken words", (Modality.TEXT,), rate) for rate in WORD_RATES]
    return probes, skipped


def measure_robustness(
    runs: Sequence[Path],
    *,
    data: Path,
    out: Path | None = None,
    split: str = "valid",
    seed: int = 0,
    device: str = "auto",
    allow_data_errors: bool = False,
    done: Callable[[int, int], None] | None = None,
) -> tuple[Path, Robustness]:
    """Measure runs under every change of the data; write ``robustness.json`` and its pages.

    A run that the folder's file has already, of the same weights, data and code, is not measured
    again.

    Args:
        runs: directories of finished runs.
        data: a store; what is drawn comes from its training split.
        out: where to write; None = ``robustness-<split>`` in the first run.
        split: whose labels are known. The test split only after it was evaluated.
        seed: of everything that is drawn.
        device: auto, cpu or cuda.
        allow_data_errors: measure also on data that ``data check`` calls wrong; the file says so.
        done: is told how many predictions of how many are done.

    Returns:
        The folder, and what was found.

    Raises:
        UserError: a run cannot be measured on these data; or ``out`` is somebody else's folder.
    """
    if not runs:
        raise UserError("robustness needs at least one run")
    if seed < 0:
        raise UserError(f"seed must be >= 0, got {seed}")
    # Beside the run's own files, under a name that no run has.
    folder = out or runs[0] / f"robustness-{split}"
    if out is not None:
        refuse_taken(out, may_be="neither")
    store = Store.open(data)
    view = store.split(split)
    here = open_device(device)
    if world_size() > 1:
        raise UserError(f"robustness is measured in one process, got {world_size()}")
    allowed = [
        check_measurable(run, store, view, allow_data_errors=allow_data_errors) for run in runs
    ]
    found: Robustness = {
        "robustness_format": ROBUSTNESS_FORMAT,
        "created": now(),
        "dataset": store.description.dataset,
        "data_hash": store.content_hash,
        "split": split,
        "convention": store.description.convention,
        "seed": seed,
        "runs": [],
    }
    add_allowed(found, allowed[0])
    known = read_robustness(folder)
    for number, (run, name) in enumerate(zip(runs, names_of(runs), strict=True)):
        measured = _measured_before(known, found, run)
        if measured is None:
            look_again(run, store, split, what="robustness")
            opened = open_run(run, data, split, here)
            tell = functools.partial(_tell, done, number, len(runs))
            measured = _measure(run, opened, seed=seed, tell=tell)
        found["runs"].append({**measured, "name": name})
        write_robustness(folder, found)
    write_robustness_pages(folder, found)
    return folder, found


def names_of(runs: Sequence[Path]) -> list[str]:
    """Each run's folder, with as many of those around it as it takes to tell them apart.

    Example:
        >>> names_of([Path("runs/a/seed-0"), Path("runs/b/seed-0")])
        ['a/seed-0', 'b/seed-0']
    """
    parts = [run.resolve().parts for run in runs]
    longest = max(map(len, parts))
    for length in range(1, longest + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("one run was given twice")


def _tell(
    done: Callable[[int, int], None] | None, number: int, count: int, at: int, of: int
) -> None:
    if done is not None:
        done(number * of + at, count * of)


def _measured_before(known: Robustness | None, found: Robustness, run: Path) -> RobustRun | None:
    if known is None or _measured_on(known) != _measured_on(found):
        return None
    hashes = (weights_hash(run), code_hash())
    same = (r for r in known["runs"] if (r["weights_hash"], r["code_hash"]) == hashes)
    return next(same, None)


def _measured_on(found: Robustness) -> tuple[str, str, str, int]:
    return found["data_hash"], found["split"], found["convention"], found["seed"]


def _measure(
    run: Path, opened: OpenRun, *, seed: int, tell: Callable[[int, int], None]
) -> RobustRun:
    record = read_record(run)
    changes = Changes(opened, seed=seed)
    probes, skipped = probes_of(opened.modalities)
    points: list[Point] = []
    hashed = weights_hash(run)
    clean: Evaluation | None = None
    for place, probe in enumerate(probes):
        if clean is not None and probe.rate == 0.0:
            evaluation = clean  # nothing is changed; a test holds that it would be the same
        else:
            predictions = opened.predict(source=changes.source(probe))
            evaluation = new_evaluation(
                opened.store,
                opened.view,
                predictions,
                chosen_on=record["training"]["chosen_on"],
                weights_hash=hashed,
                absent=opened.absent,
            )
        clean = clean or evaluation
        points.append(
            {
                "kind": probe.kind,
                "modalities": [str(m) for m in probe.modalities],
                "rate": probe.rate,
                "evaluation": evaluation,
            }
        )
        tell(place + 1, len(probes))
    return {
        "name": run.name,
        "method": record["method"],
        "seed": record["seed"],
        "weights_hash": hashed,
        "code_hash": code_hash(),
        "points": points,
        "skipped": skipped,
    }


class Changes:
    """The batches of an opened split with something of them changed.

    Args:
        opened: the run and the split.
        seed: of everything that is drawn.
    """

    def __init__(self, opened: OpenRun, *, seed: int) -> None:
        self._opened = opened
        self._seed = seed
        self._reads_sentences = opened.predictor.tokenizer is not None

    def source(self, probe: Probe) -> BatchLoader:
        """The batches that a probe asks for."""
        text = Modality.TEXT in probe.modalities and self._reads_sentences
        if probe.kind == "dropped":
            kept = [m for m in self._opened.modalities if m not in probe.modalities]
            return self._loader(kept)
        if probe.kind == "shuffled":
            return self._texts_of_others() if text else self._frames_of_others(*probe.modalities)
        if probe.kind == "noise" and text:
            return self._changed_texts(1.0, alike=False)
        if probe.kind == "mistaken words" and text:
            return self._changed_texts(probe.rate, alike=True)
        return self._loader(self._opened.modalities, alter=functools.partial(self._alter, probe))

    def _alter(self, probe: Probe, modality: Modality, source: FrameSource) -> FrameSource:
        """Frames that stay as many as they were, and so stay aligned."""
        if modality not in probe.modalities:
            return source
        if probe.kind == "noise":
            return Noise(
                source,
                self._statistics(modality),
                seed=self._seed,
                stream=_stream(modality, _NOISE),
            )
        if probe.kind == "lost frames":
            stream = _stream(modality, _LOST)
            return LostFrames(source, rate=probe.rate, seed=self._seed, stream=stream)
        if probe.kind == "mistaken words":
            stream = _stream(modality, _WORDS)
            pool = self._pool
            return ReplacedVectors(source, pool, rate=probe.rate, seed=self._seed, stream=stream)
        assert probe.kind == "clean", probe
        return source

    def _loader(
        self,
        modalities: Sequence[Modality],
        *,
        alter: Callable[[Modality, FrameSource], FrameSource] | None = None,
    ) -> BatchLoader:
        opened = self._opened
        view, tokenizer = opened.view, opened.predictor.tokenizer
        frames = token_frames(opened.store, view, modalities, tokenizer)
        return source_of(opened.predictor, view, modalities, frame_of_token=frames, alter=alter)

    def _frames_of_others(self, modality: Modality) -> BatchLoader:
        """Audio, vision or text vectors of other samples."""
        opened = self._opened
        lengths = opened.view.lengths(modality)
        stream = _stream(modality, _SHUFFLED)
        order = order_of_others(lengths, seed=self._seed, stream=stream)
        frames = self._own_token_frames()
        if frames is not None and modality == Modality.TEXT:
            frames = [frames[row] for row in order]

        def alter(loaded: Modality, source: FrameSource) -> FrameSource:
            return OfOthers(source, order) if loaded == modality else source

        orders: dict[Modality, NDArray[np.int64]] = {}
        if modality != Modality.TEXT:
            orders[modality] = order
        return source_of(
            opened.predictor,
            opened.view,
            opened.modalities,
            frame_of_token=self._within_frames(frames, orders),
            alter=alter,
        )

    def _texts_of_others(self) -> BatchLoader:
        """Sentences of other samples, each with its context."""
        opened, view = self._opened, self._opened.view
        stream = _stream(Modality.TEXT, _SHUFFLED)
        said = np.array([not is_blank(text) for text in view.texts], np.int64)
        order = order_of_others(said, seed=self._seed, stream=stream)
        contexts = view.column("context")
        frames = self._own_token_frames()
        return source_of(
            opened.predictor,
            view.with_texts([view.texts[r] for r in order], [contexts[r] for r in order]),
            opened.modalities,
            frame_of_token=self._within_frames(
                None if frames is None else [frames[r] for r in order], {}
            ),
        )

    def _own_token_frames(self) -> list[NDArray[np.int64]] | None:
        opened = self._opened
        tokenizer = opened.predictor.tokenizer
        return token_frames(opened.store, opened.view, opened.modalities, tokenizer)

    def _within_frames(
        self,
        frames: Sequence[NDArray[np.int64]] | None,
        orders: dict[Modality, NDArray[np.int64]],
    ) -> list[NDArray[np.int64]] | None:
        """-1 for a token whose frame the sample, with what it has of another, does not have."""
        if frames is None:
            return None
        view = self._opened.view
        lengths = [
            view.lengths(m)[orders[m]] if m in orders else view.lengths(m)
            for m in self._opened.modalities
            if m != Modality.TEXT
        ]
        shortest = np.min(lengths, axis=0)
        return [np.where(own < limit, own, -1) for own, limit in zip(frames, shortest, strict=True)]

    def _changed_texts(self, rate: float, *, alike: bool) -> BatchLoader:
        opened, view = self._opened, self._opened.view
        texts = self._change(view.texts, rate, alike=alike, draw=_WORDS)
        contexts = [
            None if before is None else changed.text
            for before, changed in zip(
                view.column("context"),
                self._change(
                    [c or "" for c in view.column("context")], rate, alike=alike, draw=_CONTEXT
                ),
                strict=True,
            )
        ]
        changed = view.with_texts([one.text for one in texts], contexts)
        frames = None
        if self._own_token_frames() is not None:
            assert opened.predictor.tokenizer is not None
            before = view.with_texts(view.texts, contexts)
            frames = frames_of_changed_texts(before, opened.predictor.tokenizer.spans, texts)
        return source_of(opened.predictor, changed, opened.modalities, frame_of_token=frames)

    def _change(
        self, texts: Sequence[str], rate: float, *, alike: bool, draw: int
    ) -> list[ChangedText]:
        stream = _stream(Modality.TEXT, draw)
        return [
            self._words.replace(
                text,
                rate=rate,
                random=random_of(row, seed=self._seed, stream=stream),
                alike=alike,
            )
            for row, text in enumerate(texts)
        ]

    @functools.cached_property
    def _train(self) -> SplitView:
        return self._opened.store.split("train")

    @functools.cached_property
    def _words(self) -> MistakenWords:
        return MistakenWords(self._train.texts)

    @functools.cached_property
    def _pool(self) -> NDArray[np.float32]:
        frames = [self._train.sequence(row, Modality.TEXT) for row in range(len(self._train))]
        return pool_of(frames, size=_POOL, seed=self._seed)

    @functools.lru_cache  # noqa: B019 - lives as long as one run's measuring
    def _statistics(self, modality: Modality) -> FeatureStatistics:
        return column_statistics(self._train, modality)


def _stream(modality: Modality, draw: int) -> int:
    return _STREAMS[modality] + draw
