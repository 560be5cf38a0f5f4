"""A folder of clips: each to its page, and a page that ranks them. It continues after a kill."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tecafn.analyze.clip import (
    PAGE_FILE,
    finished,
    made_from_of,
    timeline_of,
    write_result,
)
from tecafn.analyze.files import write_whole
from tecafn.analyze.html import render_folder
from tecafn.analyze.reading import ClipJob, read_to
from tecafn.analyze.scoring import SentimentModel
from tecafn.analyze.timeline import Timeline
from tecafn.core.errors import UserError
from tecafn.extract.clip import ClipSettings
from tecafn.extract.clip_features import ClipFeatures
from tecafn.extract.clip_files import SUFFIXES
from tecafn.extract.guard import Limits, Outcome, run_guarded

INDEX_FILE: Final = "index.html"
TABLE_FILE: Final = "clips.csv"
_MOMENTS: Final = 3
_SPARK_POINTS: Final = 120
_COLUMNS: Final = (
    "rank", "file", "duration", "mean", "positive", "negative", "utterances", "error",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A moment of a clip at which the trend turns.

    Args:
        time: seconds.
        value: of the trend.
        kind: a peak or a low.
        change: how far the trend moves on either side.
        quote: the words around.
    """

    time: float
    value: float
    kind: str
    change: float
    quote: str


@dataclass(frozen=True, kw_only=True)
class ClipRank:
    """What the folder's page tells of a clip.

    Args:
        file: within the folder.
        page: within the result's folder; empty where there is none.
        duration: seconds.
        mean: score; None where nothing is scored.
        positive, negative: shares of the scored seconds.
        num_utterances: scored ones.
        spark: (share of the clip, score) of the trend; None where it says nothing.
        moments: those that moved most, the largest first.
        error: why it has no page.
    """

    file: str
    page: str = ""
    duration: float = 0.0
    mean: float | None = None
    positive: float | None = None
    negative: float | None = None
    num_utterances: int = 0
    spark: tuple[tuple[float, float | None], ...] = ()
    moments: tuple[Moment, ...] = ()
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class RankedFolder:
    """What an analysis of a folder wrote.

    Args:
        ranks: the highest mean first, then what has no score, then what failed.
        page: the file that ranks them.
    """

    ranks: tuple[ClipRank, ...]
    page: Path

    @property
    def failed(self) -> tuple[ClipRank, ...]:
        """Clips without a page."""
        return tuple(rank for rank in self.ranks if rank.error)


@dataclass
class _Progress:
    done: Callable[[int, int], None] | None
    total: int
    ranks: list[ClipRank] = field(default_factory=list)

    def add(self, rank: ClipRank) -> None:
        self.ranks.append(rank)
        self.tell()

    def tell(self) -> None:
        if self.done is not None:
            self.done(len(self.ranks), self.total)


def analyze_folder(
    folder: Path,
    model: SentimentModel,
    *,
    out: Path,
    settings: ClipSettings,
    processes: int = 1,
    limits: Limits | None = None,
    done: Callable[[int, int], None] | None = None,
) -> RankedFolder:
    """Analyse every clip in a folder, and in the folders in it, and rank them.

    A clip that is done is not done again, so the same command continues after a kill.

    Args:
        folder: with the clips.
        model: what scores them.
        out: where pages and tables go: a folder per clip.
        settings: as the model wants clips to be read.
        processes: clips that are read at a time.
        limits: of each process.
        done: told after every clip how many of how many are done.

    Raises:
        UserError: there is no clip, none could be read, or ``out`` cannot be written.
    """
    clips = sorted(clips_in(folder, out))
    if not clips:
        raise UserError(f"{folder} has no clip; one would end with {', '.join(SUFFIXES[:4])} ...")
    progress = _Progress(done, len(clips))
    progress.tell()
    todo: dict[Path, tuple[ClipJob, dict[str, str], str]] = {}
    for clip in clips:
        name = clip.relative_to(folder).as_posix()
        job = ClipJob(path=clip, out=out / name, settings=settings)
        made_from = made_from_of(job, model)
        known = finished(job.out, made_from)
        if known is not None:
            progress.add(rank_of(known, name))
        else:
            todo[clip] = (job, made_from, name)
    for outcome in _read(todo, processes, limits):
        job, made_from, name = todo[outcome.job[0].path]
        if outcome.error is not None:
            reason = outcome.error.removeprefix(f"{job.path}: ")
            progress.add(ClipRank(file=name, error=reason))
            continue
        features = ClipFeatures.load(outcome.job[1])
        timeline = timeline_of(features, model, clip=job.path.name, made_from=made_from)
        write_result(timeline, job.path, job.out)
        progress.add(rank_of(timeline, name))
    ranks = tuple(sorted(progress.ranks, key=_order))
    if all(rank.error for rank in ranks):
        raise UserError(f"no clip could be read; the first: {ranks[0].file}: {ranks[0].error}")
    write_whole(out / TABLE_FILE, _table(ranks))
    write_whole(out / INDEX_FILE, render_folder(folder.name, ranks, model.scorer).encode())
    return RankedFolder(ranks=ranks, page=out / INDEX_FILE)


def clips_in(folder: Path, out: Path) -> Iterator[Path]:
    """Video and sound files in a folder and in those in it, but not in the result's."""
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        is_ours = out.resolve() in path.resolve().parents
        if path.suffix.lower() in SUFFIXES and path.is_file() and not is_ours:
            yield path


def _read(
    todo: dict[Path, tuple[ClipJob, dict[str, str], str]], processes: int, limits: Limits | None
) -> Iterator[Outcome[Any]]:
    """Outcomes of reading; of a clip whose features are kept at once."""
    waiting = []
    for job, _, _ in todo.values():
        kept = job.features_file
        if kept.exists():
            yield Outcome((job, kept))
        else:
            waiting.append((job, kept))
    yield from run_guarded(read_to, waiting, processes=processes, limits=limits)


def rank_of(timeline: Timeline, file: str) -> ClipRank:
    """What the folder's page tells of a clip's timeline.

    Args:
        timeline: of the clip.
        file: within the folder.
    """
    told = timeline.summary
    moved = sorted(timeline.turning_points, key=lambda point: -point.change)[:_MOMENTS]
    times, values = timeline.trend.times, timeline.trend.values
    step = max(1, len(times) // _SPARK_POINTS)
    return ClipRank(
        file=file,
        page=f"{file}/{PAGE_FILE}",
        duration=timeline.duration,
        mean=told.mean,
        positive=told.positive,
        negative=told.negative,
        num_utterances=told.num_utterances,
        spark=tuple(
            (round(times[k] / timeline.duration, 4), values[k]) for k in range(0, len(times), step)
        ),
        moments=tuple(
            Moment(time=p.time, value=p.value, kind=p.kind, change=p.change, quote=p.quote)
            for p in moved
        ),
    )


def _order(rank: ClipRank) -> tuple[bool, bool, float, str]:
    return bool(rank.error), rank.mean is None, -(rank.mean or 0.0), rank.file


def _table(ranks: Sequence[ClipRank]) -> bytes:
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(_COLUMNS)
    for number, rank in enumerate(ranks, 1):
        writer.writerow(
            [
                "" if rank.mean is None else number,
                rank.file,
                rank.duration,
                rank.mean,
                rank.positive,
                rank.negative,
                rank.num_utterances,
                rank.error,
            ]
        )
    return written.getvalue().encode()
