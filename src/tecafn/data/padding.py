"""Where the frames of padded arrays lie: found in the arrays, and held against the lengths given.

The field's tools pad in front (MulT, an option of MMSA's feature tool) or at the end, and some
write beside the arrays how many frames each sample has. Neither is taken on trust. A single
sample says little, since a real frame may be all zero at an edge (silence, a face not found);
so it is decided over all samples of a split, and the decision is noted.

Padding is zero rows, unless rows of NaN stand at one end of many samples, or nearly all samples end
in one row that they share (zero rows that were standardised) or in their last frame, repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.data.mapped import release_pages
from tecafn.data.shares import FEW, MOST_SHARE, more_than_a_few

Side = Literal["front", "end", "none"]
Counts = NDArray[np.int64]

_SPOKEN: Final[Mapping[Side, str]] = {
    "front": "in front",
    "end": "at the end",
    "none": "nowhere",
}
_CHUNK_BYTES: Final = 8 * 2**20
_RELEASE_BYTES: Final = 256 * 2**20
# One side must have this many times the other's zero rows, or samples, to be the padded one.
_CLEARLY: Final = 2
# Real frames repeat at an edge here and there: so many rows, in so many of the samples, do not.
_LEAST_RUN: Final = 3
_NEARLY_ALL: Final = 0.9
_MOST: Final = 0.5
# Arrays padded to one length, longer ones kept: so many of them share it.
_LEAST_SHARING: Final = 5
_LEAST_SHARE: Final = 0.2


@dataclass(frozen=True)
class Edge:
    """The outermost row at one end of each sample, where it is not all zero.

    Args:
        run: (N,) how many rows in succession are like it, itself included; 0 where it is zero.
        is_nan: (N,) is it nothing but NaN?
        row: (N,) a number that equal rows have in common.
    """

    run: Counts
    is_nan: NDArray[np.bool_]
    row: Counts


@dataclass(frozen=True)
class Extent:
    """Where each sample's rows that are not all zero lie.

    Args:
        first: (N,) the first such row; the sample's size where there is none.
        stop: (N,) one past the last; 0 where there is none.
        size: (N,) rows of each sample, padding included.
        edges: the outermost rows in front and at the end.
    """

    first: Counts
    stop: Counts
    size: Counts
    edges: Mapping[Side, Edge] = field(default_factory=dict)

    @property
    def used(self) -> NDArray[np.bool_]:
        """(N,) has the sample a row that is not all zero?"""
        return self.stop > 0

    @property
    def short(self) -> NDArray[np.bool_]:
        """(N,) has the sample zero rows at an edge, and others?"""
        return self.used & ((self.first > 0) | (self.stop < self.size))

    @staticmethod
    def of_all(extents: Sequence[Extent]) -> Extent:
        """The samples of all, one after another."""
        if not extents:
            nothing = np.zeros(0, np.int64)
            return Extent(nothing, nothing, nothing)
        return Extent(
            np.concatenate([one.first for one in extents]),
            np.concatenate([one.stop for one in extents]),
            np.concatenate([one.size for one in extents]),
            {side: _every([one.edges[side] for one in extents]) for side in extents[0].edges},
        )

    def together(self, other: Extent) -> Extent:
        """Rows that are not all zero in either of two arrays whose rows correspond."""
        return Extent(
            np.minimum(self.first, other.first), np.maximum(self.stop, other.stop), self.size
        )


def extent_of(padded: NDArray[Any]) -> Extent:
    """The extent of each sample of (N, T, D), in one pass that holds little.

    Example:
        >>> found = extent_of(np.array([[[0.0], [3.0], [0.0]], [[0.0], [0.0], [0.0]]]))
        >>> found.first.tolist(), found.stop.tolist()
        ([1, 3], [2, 0])
    """
    count, size = padded.shape[:2]
    first = np.full(count, size, np.int64)
    stop = np.zeros(count, np.int64)
    front, end = _no_edge(count), _no_edge(count)
    num_bytes = max(1, int(np.prod(padded.shape[1:])) * padded.itemsize)
    step = max(1, _CHUNK_BYTES // num_bytes)
    seen = 0
    for begin in range(0, count if size else 0, step):
        with np.errstate(invalid="ignore"):  # damaged files may hold NaN that signals
            block = padded[begin : begin + step]
            filled = (block != 0).any(axis=2)  # (n, T)
            chunk = slice(begin, begin + len(filled))
            _look_at_edge(block, front, chunk)
            _look_at_edge(block[:, ::-1], end, chunk)
        some = filled.any(axis=1)
        first[chunk] = np.where(some, filled.argmax(axis=1), size)
        stop[chunk] = np.where(some, size - filled[:, ::-1].argmax(axis=1), 0)
        seen += len(filled) * num_bytes
        if seen > _RELEASE_BYTES:
            release_pages()
            seen = 0
    return Extent(first, stop, np.full(count, size, np.int64), {"front": front, "end": end})


def _no_edge(count: int) -> Edge:
    return Edge(np.zeros(count, np.int64), np.zeros(count, bool), np.zeros(count, np.int64))


def _alike(rows: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Are rows equal, NaN to NaN?"""
    return np.asarray(((rows == others) | (np.isnan(rows) & np.isnan(others))).all(axis=-1))


def _look_at_edge(block: NDArray[Any], edge: Edge, chunk: slice) -> None:
    """Write what (n, T, D) has at its first row; only samples that repeat it are read further."""
    outer = block[:, 0]
    filled = (outer != 0).any(axis=1)
    run = filled.astype(np.int64)
    if block.shape[1] > 1:
        again = np.flatnonzero(filled & _alike(block[:, 1], outer))
        if len(again):
            same = _alike(block[again], outer[again, None])  # (k, T)
            run[again] = np.where(same.all(axis=1), block.shape[1], same.argmin(axis=1))
    edge.run[chunk] = run
    edge.is_nan[chunk] = filled & np.isnan(outer).all(axis=1)
    edge.row[chunk] = [hash(row.tobytes()) for row in outer]


def extent_of_each(arrays: Iterable[NDArray[Any]]) -> Extent:
    """The extent of N samples whose (T, D) arrays have sizes of their own.

    Example:
        >>> extent_of_each([np.ones((2, 1)), np.zeros((3, 1))]).size.tolist()
        [2, 3]
    """
    return Extent.of_all([extent_of(array[None]) for array in arrays])


def _every(edges: Sequence[Edge]) -> Edge:
    return Edge(
        np.concatenate([edge.run for edge in edges]),
        np.concatenate([edge.is_nan for edge in edges]),
        np.concatenate([edge.row for edge in edges]),
    )


def padded_to_one_length(extent: Extent) -> bool:
    """Do many arrays (a fifth of them, at least five) share a size that most of them do not fill?

    Tools that pad to a least length keep longer arrays as they are.

    Example:
        >>> arrays = [np.eye(8, 9, -length)[::-1] for length in range(1, 7)]
        >>> padded_to_one_length(extent_of_each([*arrays, np.ones((11, 9))]))
        True
    """
    used = extent.size > 0
    sizes, counts = np.unique(extent.size[used], return_counts=True)
    unfilled = extent.short.copy()
    for edge in extent.edges.values():
        unfilled |= (edge.run < extent.size) & (edge.is_nan | (edge.run >= _LEAST_RUN))
    for size, count in zip(sizes, counts, strict=True):
        num_unfilled = int(unfilled[extent.size == size].sum())
        many = count >= max(_LEAST_SHARING, _LEAST_SHARE * int(used.sum()))
        if many and num_unfilled > _MOST * count:
            return True
    return False


@dataclass(frozen=True)
class Fill:
    """What padding consists of, where it is not zero rows, and the side that has it.

    Args:
        kind: rows of NaN, one row that most samples share, or the outermost frame repeated.
    """

    kind: Literal["nan", "row", "frame"]
    side: Side

    @property
    def spoken(self) -> str:
        """For the decision."""
        if self.kind == "nan":
            return " with rows of NaN"
        if self.kind == "row":
            return " with one row, the same in nearly all samples"
        return f" by repeating the {'first' if self.side == 'front' else 'last'} frame"


@dataclass(frozen=True)
class Padded:
    """One modality of one split, as it is searched for frames.

    Args:
        split: its name.
        modality: whose frames they are.
        what: names the split in errors.
        extent: of its arrays.
        lengths: (N,) numbers of frames that the file gives; None = none.
        lengths_name: what the file calls them.
        limit: (N,) rows of the text beside which the frames lie (word-aligned files without
            lengths): rows after it are padding.
    """

    split: str
    modality: Modality
    what: str
    extent: Extent
    lengths: NDArray[Any] | None = None
    lengths_name: str = "lengths"
    limit: Counts | None = None


@dataclass
class FoundFrames:
    """Where the frames are, and what has to be said about it.

    Attributes:
        places: by split and modality (N,) first rows and (N,) ends.
        decisions, notes, warnings: for the description.
    """

    places: dict[tuple[str, Modality], tuple[Counts, Counts]] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def warn(self, sentence: str, where: str) -> None:
        """Add a warning; one that recurs in another split names that beside the others."""
        for position, known in enumerate(self.warnings):
            if known.startswith(f"{sentence} "):
                self.warnings[position] = f"{known}, {where}"
                return
        self.warnings.append(f"{sentence} {where}")

    def begin_together(self) -> bool:
        """Do all modalities of a sample that has them begin at one row?"""
        for split in {split for split, _ in self.places}:
            first: Counts | None = None
            for starts, stops in (p for (s, _), p in self.places.items() if s == split):
                begins = np.where(stops > starts, starts, -1)
                if first is None:
                    first = begins
                elif ((begins != first) & (begins >= 0) & (first >= 0)).any():
                    return False
                else:
                    first = np.maximum(first, begins)
        return True

    def slice(self, split: str, modality: Modality, row: int) -> slice:
        """The rows of one sample's array that are its frames."""
        starts, stops = self.places[split, modality]
        return slice(int(starts[row]), int(stops[row]))


def find_frames(
    parts: Sequence[Padded],
    *,
    convention: Side,
    padding: Mapping[Modality, Side] | None = None,
    ignore_lengths: bool = False,
    together: bool = False,
) -> FoundFrames:
    """Decide for each modality and split where its padding is, and cut it off.

    With lengths, padding is on the side on which they leave no frame out. Without, it is on the
    side that has clearly more zero rows over all samples of the split; a split that cannot say
    follows the other splits. Samples that have as long padding on the other side alone are cut
    there, if they are more than a few.

    Args:
        parts: what is searched, any number of splits and modalities.
        convention: where the layout usually has its padding; decides only where a handful of
            samples cannot say.
        padding: what the caller knows; is not searched then.
        ignore_lengths: find the frames by their zero rows, whatever lengths say.
        together: rows correspond across modalities: they must go on doing so, so all modalities of
            a sample begin at one row.

    Raises:
        UserError: lengths are no counts or contradict the frames of more than a few samples, or
            zero rows lie on both sides alike. Split, modality and count are named.

    Example:
        >>> frames = np.zeros((4, 5, 1))
        >>> frames[:, 2:] = 1
        >>> part = Padded("train", Modality.AUDIO, "x.pkl split 'train'", extent_of(frames))
        >>> found = find_frames([part], convention="end")
        >>> found.slice("train", Modality.AUDIO, 0)
        slice(2, 5, None)
        >>> found.decisions
        ['audio: padded in front; 12 of 20 rows are frames']
    """
    found = FoundFrames()
    sides: dict[tuple[str, Modality], Side] = {}
    by_lengths: set[Modality] = set()
    fills = _fills(parts, padding or {}, found, ignore_lengths=ignore_lengths)
    parts = [_without_fill(part, fills.get((part.split, part.modality))) for part in parts]
    for modality in dict.fromkeys(part.modality for part in parts):
        group = [part for part in parts if part.modality is modality]
        searched: list[tuple[Padded, Extent]] = []
        shared = [_shared(part, parts) if together else part.extent for part in group]
        for part, extent in zip(group, shared, strict=True):
            lengths = None if ignore_lengths else _counts(part, found)
            told = (padding or {}).get(modality)
            if lengths is not None and told is None and _says_nothing(part, lengths):
                found.warn(
                    f"{modality}: {part.lengths_name} counts every row, padding included, and is "
                    "not followed, in",
                    f"all {len(lengths)} samples of {part.split}",
                )
                lengths = None
            if lengths is None:
                side = told or _by_zeros(part, extent, shared, convention)
                places = _places(part, extent, side, found=found)
                searched.append((part, extent))
            else:
                side = told or _by_lengths(part, lengths, shared, convention)
                _check_lengths(part, lengths, side, told=told is not None, found=found)
                places = _places_of_lengths(part, lengths, side)
                by_lengths.add(modality)
            sides[part.split, modality] = side
            found.places[part.split, modality] = places
        num_other = _other_side(searched, sides, found, told=modality in (padding or {}))
        known = [fills[one.split, modality] for one in group if (one.split, modality) in fills]
        found.decisions.append(
            _decision(
                group,
                sides,
                found,
                by_lengths=modality in by_lengths,
                fill=known[0] if known else None,
                num_other=num_other,
            )
        )
    return found


def _fills(
    parts: Sequence[Padded],
    padding: Mapping[Modality, Side],
    found: FoundFrames,
    *,
    ignore_lengths: bool,
) -> dict[tuple[str, Modality], Fill]:
    """What other than zero rows the padding of each part is; the other splits help a small one."""
    fills: dict[tuple[str, Modality], Fill] = {}
    for part in parts:
        told = padding.get(part.modality)
        group = [one.extent for one in parts if one.modality is part.modality]
        for extents in ([part.extent], group):
            fill = _fill(extents, least_share=_NEARLY_ALL if told is None else _MOST)
            if fill is not None and (told is None or fill.side == told):
                fills[part.split, part.modality] = fill
                break
        by_lengths = part.lengths is not None and not ignore_lengths
        if by_lengths and (np.asarray(part.lengths) != part.extent.size).any():
            continue  # they say where the padding is
        if told is None and (part.split, part.modality) not in fills:
            doubted = _fill([part.extent], least_share=_MOST)
            if doubted is not None:
                edge = part.extent.edges[doubted.side]
                num_long = int((edge.run >= _LEAST_RUN).sum())
                found.warn(
                    f"{part.modality}: one row is repeated {_SPOKEN[doubted.side]} and read as "
                    f"frames (--padding {part.modality}={doubted.side} cuts it off) in",
                    f"{num_long} of {len(edge.run)} samples of {part.split}",
                )
    return fills


def _fill(extents: Sequence[Extent], *, least_share: float) -> Fill | None:
    """What other than zero rows stands at one end of ``least_share`` of the samples, if anything.

    Rows of NaN say nothing and count as padding in more than a few samples. Repeated rows may be
    frames: they count only in arrays of one size, three or more of them at one end of a sample
    alone, and where zero rows are no padding. Arrays of a single row repeated tell nothing.
    """
    every = Extent.of_all(extents)
    if not every.edges:
        return None
    size, front, end = every.size, every.edges["front"], every.edges["end"]
    both: tuple[tuple[Side, Edge, Edge], ...] = (("end", end, front), ("front", front, end))
    for side, edge, other in both:
        num_nan, num_there = (int((e.is_nan & (e.run < size)).sum()) for e in (edge, other))
        if more_than_a_few(num_nan, len(size)) and num_nan > _CLEARLY * num_there:
            return Fill("nan", side)
    telling = (size == _common(size)) & (end.run < size) & (end.run + front.run > 0)
    if telling.sum() <= FEW or more_than_a_few(int(every.short.sum()), len(size)):
        return None
    in_front, at_end = (telling & (e.run >= _LEAST_RUN) & ~e.is_nan for e in (front, end))
    num_long = int((in_front ^ at_end).sum())
    if num_long < least_share * telling.sum() or _is_many(in_front & at_end):
        return None
    side = "front" if in_front.sum() > at_end.sum() else "end"
    if sum(_shared_row(extent)[1] for extent in extents) > _MOST * num_long:
        return Fill("row", side)
    return None if _is_many(at_end if side == "front" else in_front) else Fill("frame", side)


def _is_many(samples: NDArray[np.bool_]) -> bool:
    return more_than_a_few(int(samples.sum()), len(samples))


def _common(size: Counts) -> int:
    """The size that most samples have."""
    sizes, counts = np.unique(size, return_counts=True)
    return int(sizes[counts.argmax()]) if len(sizes) else 0


def _shared_row(extent: Extent) -> tuple[int, int]:
    """The row that most samples repeat at one end, and how often."""
    repeated = [edge.row[edge.run >= _LEAST_RUN] for edge in extent.edges.values()]
    rows, counts = np.unique(np.concatenate(repeated), return_counts=True)
    return (int(rows[counts.argmax()]), int(counts.max())) if len(rows) else (0, 0)


def _without_fill(part: Padded, fill: Fill | None) -> Padded:
    """The part with what fills its edges taken for zero rows."""
    if fill is None:
        return part
    extent = part.extent
    cut = {side: np.zeros_like(edge.run) for side, edge in extent.edges.items()}
    for side, edge in extent.edges.items():
        if fill.kind == "nan":
            cut[side] = np.where(edge.is_nan, edge.run, 0)
        elif fill.kind == "row":
            cut[side] = np.where(edge.row == _shared_row(extent)[0], edge.run, 0)
        elif side == fill.side:
            cut[side] = np.maximum(edge.run - 1, 0)
        if fill.kind != "nan":
            cut[side][extent.size != _common(extent.size)] = 0
    first = np.maximum(extent.first, cut["front"])
    stop = np.minimum(extent.stop, extent.size - cut["end"])
    nothing = first >= stop
    first, stop = np.where(nothing, extent.size, first), np.where(nothing, 0, stop)
    return replace(part, extent=replace(extent, first=first, stop=stop))


def _other_side(
    searched: Sequence[tuple[Padded, Extent]],
    sides: Mapping[tuple[str, Modality], Side],
    found: FoundFrames,
    *,
    told: bool,
) -> int:
    """Cut the samples whose zero rows are on the other side alone there, and count them.

    They are padded there if they are more than a few, and their zero rows as many as padding has;
    otherwise, and where the caller has told the side, their zero rows are kept as frames, and a
    warning counts them.
    """
    leaning: list[tuple[Padded, Extent, Side, NDArray[np.bool_]]] = []
    rows_other, rows_there = [], []
    for part, extent in searched:
        side = sides[part.split, part.modality]
        if side == "none":
            continue
        front, end = extent.first, extent.size - extent.stop
        there, other = (front, end) if side == "front" else (end, front)
        leans = extent.used & (there == 0) & (other > 0)
        leaning.append((part, extent, side, leans))
        rows_other.append(other[leans])
        rows_there.append(there[extent.used & (there > 0)])
    num_other = sum(map(len, rows_other))
    if not more_than_a_few(num_other, sum(len(leans) for *_, leans in leaning)):
        return 0
    padded = np.concatenate(rows_there)
    typical = float(np.median(padded)) if len(padded) else 0.0
    is_padding = not told and _CLEARLY * float(np.median(np.concatenate(rows_other))) >= typical
    for part, extent, side, leans in leaning:
        if is_padding:
            starts, stops = found.places[part.split, part.modality]
            moved = leans & part.extent.used
            if side == "end":
                starts = np.where(moved, extent.first, starts)
                stops = np.where(moved, part.extent.stop, stops)
            else:
                stops = np.where(moved, extent.stop, stops)
            found.places[part.split, part.modality] = starts, stops
        elif leans.any():
            other_side: Side = "front" if side == "end" else "end"
            found.warn(
                f"{part.modality}: zero rows {_SPOKEN[other_side]} are kept as frames, as padding "
                f"is {_SPOKEN[side]}, in",
                f"{int(leans.sum())} of {len(leans)} samples of {part.split}",
            )
    return num_other if is_padding else 0


def _shared(part: Padded, parts: Sequence[Padded]) -> Extent:
    """The extent of all modalities of a part's split, whose rows correspond."""
    extent = part.extent
    for other in parts:
        if other.split == part.split:
            extent = extent.together(other.extent)
    return extent


def _counts(part: Padded, found: FoundFrames) -> Counts | None:
    """The part's lengths as integers within the arrays.

    Raises:
        UserError: some are NaN, fractions, negative, or larger than an array that they do not fill.
    """
    if part.lengths is None:
        return None
    lengths = np.asarray(part.lengths).astype(np.float64)
    total = len(lengths)
    name = f"{part.what}: {part.lengths_name}"
    for is_bad, kind in (
        (~np.isfinite(lengths), "NaN or infinite"),
        (np.isfinite(lengths) & (lengths != np.round(lengths)), "no whole numbers"),
        (lengths < 0, "negative"),
    ):
        num_bad = int(is_bad.sum())
        if num_bad:
            raise UserError(
                f"{name} must be numbers of frames, {num_bad} of {total} are {kind}; "
                f"{_without_lengths(part)}"
            )
    extent = part.extent
    beyond = lengths > extent.size
    fills = (extent.first == 0) & (extent.stop == extent.size)
    if (beyond & ~fills).any():
        most = int(extent.size.max(initial=0))
        raise UserError(
            f"{name} must lie in 0 to {most}, got {lengths.min():g} to {lengths.max():g} "
            f"({int((beyond & ~fills).sum())} of {total} samples lie beyond); "
            f"{_without_lengths(part)}"
        )
    if beyond.any():
        found.notes.append(
            f"{part.modality}: {int(beyond.sum())} of {total} samples of {part.split} were cut "
            f"before they came here: {part.lengths_name} counts more than the array has"
        )
    return np.minimum(lengths, extent.size).astype(np.int64)


def _without_lengths(part: Padded) -> str:
    """What reading without the lengths would do, for the hint of an error."""
    if _has_zero_rows(part):
        return f"--ignore-lengths finds the {part.modality} frames by their zero rows"
    return f"--ignore-lengths keeps every row, as no {part.modality} row at an edge is zero"


def _has_zero_rows(part: Padded) -> bool:
    """Would a search find padding in more than a stray sample?"""
    return int(part.extent.short.sum()) > MOST_SHARE * len(part.extent.size)


def _says_nothing(part: Padded, lengths: Counts) -> bool:
    """Do the lengths count every row, although many samples have zero rows on one side?"""
    extent = part.extent
    if not len(lengths) or (lengths != extent.size).any():
        return False
    num_short = int(extent.short.sum())
    return more_than_a_few(num_short, len(lengths)) and 2 * num_short > len(lengths)


def _zero_rows(extents: Sequence[Extent]) -> tuple[int, int, int, int]:
    """Zero rows in front and at the end, and how many samples have more of them there."""
    rows_front = rows_end = votes_front = votes_end = 0
    for extent in extents:
        front = extent.first[extent.used]
        end = (extent.size - extent.stop)[extent.used]
        rows_front += int(front.sum())
        rows_end += int(end.sum())
        votes_front += int((front > end).sum())
        votes_end += int((end > front).sum())
    return rows_front, rows_end, votes_front, votes_end


def _decide(extents: Sequence[Extent]) -> Side | None:
    """The side that has clearly more zero rows, else clearly more samples; None = neither."""
    rows_front, rows_end, votes_front, votes_end = _zero_rows(extents)
    if not rows_front and not rows_end:
        return "none"
    for front, end in ((rows_front, rows_end), (votes_front, votes_end)):
        if front > _CLEARLY * end:
            return "front"
        if end > _CLEARLY * front:
            return "end"
    return None


def _by_zeros(part: Padded, extent: Extent, shared: Sequence[Extent], convention: Side) -> Side:
    """Where the zero rows say that the padding is; the other splits help one that cannot say.

    Raises:
        UserError: they lie on both sides alike.
    """
    side = _decide([extent]) or _decide(shared)
    if side is not None:
        return side
    num_used = sum(int(one.used.sum()) for one in shared)
    rows_front, rows_end, _, _ = _zero_rows([extent])
    num_short = int(extent.short.sum())
    if num_used <= FEW or not more_than_a_few(num_short, len(extent.first)):
        return convention
    raise UserError(
        f"{part.what}: {part.modality} has zero rows on both sides in {num_short} of "
        f"{len(extent.first)} samples ({rows_front} in front, {rows_end} at the end): say where "
        f"the padding is with --padding {part.modality}=front, =end or =none"
    )


def _left_out(part: Padded, lengths: Counts, side: Side) -> NDArray[np.bool_]:
    """(N,) do frames lie outside of what the lengths keep, if padding is on ``side``?"""
    extent = part.extent
    if side == "front":
        return extent.used & (extent.first < extent.size - lengths)
    return extent.used & (extent.stop > lengths)


def _by_lengths(part: Padded, lengths: Counts, shared: Sequence[Extent], convention: Side) -> Side:
    """The side on which the lengths leave fewer samples' frames out."""
    at_end = int(_left_out(part, lengths, "end").sum())
    in_front = int(_left_out(part, lengths, "front").sum())
    if at_end != in_front:
        return "end" if at_end < in_front else "front"
    side = _decide([part.extent]) or _decide(shared)
    return convention if side is None or side == "none" else side


def _check_lengths(
    part: Padded, lengths: Counts, side: Side, *, told: bool, found: FoundFrames
) -> None:
    """Hold the lengths against the frames.

    Raises:
        UserError: frames of more than a few samples lie outside, and nobody said where padding is.
    """
    total = len(lengths)
    num_outside = int(_left_out(part, lengths, side).sum())
    if num_outside and not told and more_than_a_few(num_outside, total):
        # Without zero rows every row would be a frame: that is no way out.
        by_zeros = "--ignore-lengths finds them by their zero rows, "
        raise UserError(
            f"{part.what}: {part.lengths_name} contradicts the {part.modality} frames of "
            f"{num_outside} of {total} samples, which have more than it says; "
            f"{by_zeros if _has_zero_rows(part) else ''}"
            f"--padding {part.modality}={side} cuts them"
        )
    if num_outside:
        found.warn(
            f"{part.modality}: frames beyond what {part.lengths_name} says were cut off in",
            f"{num_outside} of {total} samples of {part.split}",
        )
    extent = part.extent
    empty = extent.used & (extent.size - extent.first < lengths if side == "front"
                           else extent.stop < lengths)  # fmt: skip
    if 2 * int(empty.sum()) > total and more_than_a_few(int(empty.sum()), total):
        found.warn(
            f"{part.modality}: rows of padding are kept as frames, since {part.lengths_name} says "
            "so, in",
            f"{int(empty.sum())} of {total} samples of {part.split}",
        )


def _places_of_lengths(part: Padded, lengths: Counts, side: Side) -> tuple[Counts, Counts]:
    size = part.extent.size
    if side == "front":
        return size - lengths, size
    return np.zeros_like(lengths), lengths


def _places(
    part: Padded, extent: Extent, side: Side, *, found: FoundFrames
) -> tuple[Counts, Counts]:
    """First rows and ends by the zero rows; ``extent`` may be that of all modalities together."""
    own = part.extent
    nothing = np.zeros_like(own.stop)
    if side == "front":
        return np.where(own.used, extent.first, 0), np.where(own.used, own.size, 0)
    stops = own.stop
    if side == "none" and part.limit is None:
        stops = np.where(own.used, own.size, 0)
    if part.limit is None:
        return nothing, stops
    beyond = int((stops > part.limit).sum()) if side == "end" else 0
    if more_than_a_few(beyond, len(stops)):
        found.warn(
            f"{part.modality}: frames after the end of the text's mask are kept in",
            f"{beyond} of {len(stops)} samples of {part.split}",
        )
        return nothing, stops
    return nothing, np.minimum(stops, part.limit)


def _decision(
    group: Sequence[Padded],
    sides: Mapping[tuple[str, Modality], Side],
    found: FoundFrames,
    *,
    by_lengths: bool,
    fill: Fill | None,
    num_other: int,
) -> str:
    """What was decided for one modality, on one line."""
    modality = group[0].modality
    where: dict[Side, list[str]] = {}
    num_frames = num_rows = 0
    for part in group:
        where.setdefault(sides[part.split, modality], []).append(part.split)
        starts, stops = found.places[part.split, modality]
        num_frames += int((stops - starts).sum())
        num_rows += int(part.extent.size.sum())
    if num_frames == num_rows:
        spoken, by_lengths, fill = _SPOKEN["none"], False, None
    elif len(where) == 1:
        spoken = _SPOKEN[next(iter(where))]
    else:
        spoken = ", ".join(f"{_SPOKEN[side]} in {' and '.join(s)}" for side, s in where.items())
    if num_other:
        total = sum(len(part.extent.size) for part in group)
        spoken = f"{spoken}, on the other side in {num_other} of {total} samples"
    if fill is not None:
        spoken = f"{spoken}{fill.spoken} (--padding {modality}=none keeps it)"
    cut = f", cut by {group[0].lengths_name}" if by_lengths else ""
    return f"{modality}: padded {spoken}{cut}; {num_frames} of {num_rows} rows are frames"
