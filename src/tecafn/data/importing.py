"""From a source of the field to a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.places import refuse_taken
from tecafn.data.ids import Identities
from tecafn.data.mapped import releasing
from tecafn.data.readers import ReadOptions, open_source
from tecafn.data.recurrence import RecurrenceSurvey
from tecafn.data.samples import DatasetDescription, Sample, missing_frames_of
from tecafn.data.store import Store, StoreWriter
from tecafn.data.summary import check_frames


def import_dataset(
    source: Path, *, format: str | None, out: Path, options: ReadOptions | None = None
) -> Store:
    """Read ``source`` sample by sample into a new store at ``out``.

    Args:
        source: a file or folder of the format.
        format: a name in ``READERS``; None = recognise it.
        out: where the store shall be; must not exist, or be an empty folder.
        options: what the source does not say about itself, and what the caller allows.

    Raises:
        UserError: the source is wrong (a NaN label among others), more than a few samples have no
            frame of a modality that need not have been absent, or ``out`` is taken. Nothing is
            left at ``out`` then.
    """
    refuse_taken(out, may_be="neither")
    options = options or ReadOptions()
    description, samples = open_source(source, format=format, options=options)
    return write_store(out, description, samples, options=options, source=source)


def write_store(
    out: Path,
    description: DatasetDescription,
    samples: Iterator[Sample],
    *,
    options: ReadOptions | None = None,
    source: Path | None = None,
) -> Store:
    """Write samples, whatever made them, into a new store.

    Args:
        out: where the store shall be; must not exist, or be an empty folder.
        description: of the dataset.
        samples: one by one.
        options: what the caller allows.
        source: for messages.

    Raises:
        UserError: as ``import_dataset``.
    """
    options = options or ReadOptions()
    identities = Identities()
    seen: set[str] = set()
    num_dropped = 0
    recurring = RecurrenceSurvey(description)
    with StoreWriter(out, description) as writer:
        for sample in releasing(samples):
            if options.drop_duplicates and sample.id in seen:
                num_dropped += 1
                continue
            seen.add(sample.id)
            identities.add(sample.id, sample.video, sample.split)
            writer.add(sample)
            recurring.add(sample)
        if not writer.census.num_samples:
            raise UserError(f"{source or out} has no sample: nothing is imported")
        writer.census.spoken.check()
        scored = writer.census.scored
        writer.warn(
            *writer.census.spoken.doubts(),
            *(f"{fault}, which `tecafn data check` calls an error" for fault in scored.faults()),
            *scored.doubts(),
            *recurring.doubts(),
            *identities.warnings(),
        )
        if num_dropped:
            writer.allow(
                f"{num_dropped} samples are left out, as --drop-duplicates says: their ids are "
                "those of samples before them"
            )
        may_miss = {m for m in Modality if missing_frames_of(m) in description.allowed}
        warnings, allowed = check_frames(
            writer.census, allowed=options.allow_missing_frames | may_miss
        )
        writer.warn(*warnings)
        writer.allow(*allowed)
    return Store.open(out)
