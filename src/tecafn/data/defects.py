"""What is known of the field's files: published sums and sizes, and the defects that recur in them.

The integrity report names each of these where it meets it, so that nobody has to find it again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tecafn.core.modality import Modality
from tecafn.data.samples import DatasetDescription, Sample, split_segment_id

Level = Literal["error", "warning", "info"]
Finding = tuple[Level, str]

# SHA-256 of MMSA's pickles as their authors publish them.
PUBLISHED_SUMS: Final = {
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": ("cmu-mosi", "unaligned"),
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": ("cmu-mosi", "aligned"),
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": ("cmu-mosei", "unaligned"),
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": ("cmu-mosei", "aligned"),
}

# Split sizes, and where they are printed: TeCaFN, Huang et al. 2024, Table 3, and CH-SIMS's paper.
PUBLISHED_SIZES: Final = {
    "cmu-mosi": ("Table 3", {"train": 1284, "valid": 229, "test": 686}),
    "cmu-mosei": ("Table 3", {"train": 16326, "valid": 1871, "test": 4659}),
    "ur-funny": ("Table 3", {"train": 7614, "valid": 980, "test": 994}),
    "ch-sims": ("its paper", {"train": 1368, "valid": 456, "test": 457}),
}


def is_split_by_clips(dataset: str) -> bool:
    """Were the published splits drawn by clips, so that videos lie in two of them?

    CH-SIMS's were: 1368, 456 and 457 of its 2281 clips are three fifths and twice a fifth to the
    clip, which whole videos, 60 of them, do not give.

    Example:
        >>> is_split_by_clips("ch-sims"), is_split_by_clips("cmu-mosi")
        (True, False)
    """
    return dataset.startswith("ch-sims")


MIRROR_SIZES: Final = {"cmu-mosei": (22860, 22856, 22852)}

COVAREP: Final = (
    "F0", "VUV", "NAQ", "QOQ", "H1H2", "PSP", "MDQ", "peakSlope", "Rd", "Rd_conf", "creak",
    *(f"MCEP_{number}" for number in range(25)),
    *(f"HMPDM_{number}" for number in range(25)),
    *(f"HMPDD_{number}" for number in range(13)),
)  # fmt: skip
# The columns that MulT's and MMSA's MOSI keep.
_KEPT_OF_COVAREP: Final = (1, 3, 6, 25, 60)


def covarep_columns(width: int) -> tuple[str, ...] | None:
    """Names of the columns of 74 or 5 COVAREP columns, None for another width.

    Example:
        >>> covarep_columns(5)
        ('VUV', 'QOQ', 'MDQ', 'MCEP_14', 'HMPDM_24')
    """
    if width == len(COVAREP):
        return COVAREP
    return tuple(COVAREP[column] for column in _KEPT_OF_COVAREP) if width == 5 else None


def published_files(description: DatasetDescription) -> Iterator[Finding]:
    """Which source files are published ones, by their sums; and MMSA files that are none."""
    for file in description.source_files:
        known = PUBLISHED_SUMS.get(file.sha256)
        if known is not None:
            dataset, alignment = known
            shown = f"{file.name} is MMSA's published {alignment} file of {dataset} (SHA-256)"
            if dataset == description.dataset:
                yield "info", shown
            else:
                yield "warning", f"{shown}, but is read as {description.dataset}"
        elif description.source_format == "mmsa" and any(
            dataset == description.dataset for dataset, _ in PUBLISHED_SUMS.values()
        ):
            yield (
                "warning",
                f"{file.name} has SHA-256 {file.sha256[:12]}..., none of the published sums of "
                f"{description.dataset}",
            )


class KnownDefects:
    """Looks for the known defects in a stream of samples.

    Args:
        description: of the dataset the samples belong to.
    """

    def __init__(self, description: DatasetDescription) -> None:
        self._description = description
        width = description.widths.get(Modality.AUDIO, 0)
        self._nan: NDArray[np.int64] = np.zeros(width, np.int64)
        self._infinite: NDArray[np.int64] = np.zeros(width, np.int64)
        self._num_bad_frames = 0
        self._sizes: Counter[str] = Counter()
        self._ids: Counter[str] = Counter()
        self._splits_of_text: defaultdict[str, set[str]] = defaultdict(set)
        self._num_zero_length = 0
        self._num_without_frames = 0
        self._num_labelled = 0
        self._num_zero_labels = 0
        self._num_texts = 0
        self._num_capitals = 0
        self._num_from_zero = 0

    def add(self, sample: Sample) -> None:
        """Look at one sample."""
        self._sizes[sample.split] += 1
        self._ids[sample.id] += 1
        self._add_audio(sample)
        if sample.start is not None and sample.end is not None:
            self._num_zero_length += sample.end <= sample.start
        if self._description.widths:
            self._num_without_frames += not any(map(len, sample.sequences.values()))
        if sample.label is not None:
            self._num_labelled += 1
            self._num_zero_labels += sample.label == 0
        if any(character.isalpha() for character in sample.text):
            self._num_texts += 1
            self._num_capitals += sample.text.isupper()
        if self._description.dataset == "ur-funny":
            self._splits_of_text[" ".join(sample.text.split()).casefold()].add(sample.split)
        self._num_from_zero += _counts_from_zero(sample)

    def _add_audio(self, sample: Sample) -> None:
        frames = sample.sequences.get(Modality.AUDIO)
        if frames is None or frames.shape[1:] != self._nan.shape or np.isfinite(frames).all():
            return
        self._num_bad_frames += int((~np.isfinite(frames)).any(axis=1).sum())
        self._nan += np.isnan(frames).sum(axis=0)
        self._infinite += np.isinf(frames).sum(axis=0)

    def findings(self) -> Iterator[Finding]:
        """Each known defect that was met: a name, a colon, and what was found."""
        if self._num_bad_frames:
            yield "warning", f"-inf and NaN in COVAREP: {self._bad_audio()}"
        if self._num_zero_length:
            yield (
                "warning",
                f"zero-length segments: {self._num_zero_length} end where they start or before",
            )
        if self._num_without_frames:
            yield (
                "warning",
                f"zero-length segments: {self._num_without_frames} samples have no frame of any "
                "modality",
            )
        duplicated = sum(count > 1 for count in self._ids.values())
        if duplicated:
            yield "warning", f"duplicated ids: {duplicated}"
        yield from self._count_findings()
        if self._num_capitals > 0.9 * self._num_texts > 0:
            yield (
                "info",
                f"text in capitals: {self._num_capitals} of {self._num_texts}; a cased text "
                "encoder needs it in lower case",
            )
        if self._num_zero_labels and self._description.task == "regression":
            yield (
                "info",
                f"labels exactly 0: {self._num_zero_labels} of {self._num_labelled}; NN/N counts "
                "them as non-negative, P/N drops them",
            )
        across = sum(len(splits) > 1 for text, splits in self._splits_of_text.items() if text)
        if across:
            yield "warning", f"UR-FUNNY punchlines in two splits: {across}"
        if self._num_from_zero:
            yield (
                "info",
                f"numbering from 0: {self._num_from_zero} ids video[k] are clip k + 1 of label.csv",
            )

    def _bad_audio(self) -> str:
        names = covarep_columns(len(self._nan))
        columns = np.flatnonzero(self._nan + self._infinite)
        shown = [names[column] if names else f"column {column}" for column in columns[:8]]
        more = ", ..." if len(columns) > 8 else ""
        return (
            f"{self._num_bad_frames} frames, in {', '.join(shown)}{more} "
            f"({self._infinite.sum()} infinite values, {self._nan.sum()} NaN)"
        )

    def _count_findings(self) -> Iterator[Finding]:
        where, published = PUBLISHED_SIZES.get(self._description.dataset, ("", {}))
        if set(self._sizes) != set(published):
            return  # a file of one split has no count to compare
        total, expected = sum(self._sizes.values()), sum(published.values())
        if total != expected:
            mirrors = ", ".join(f"{n:,}" for n in MIRROR_SIZES.get(self._description.dataset, ()))
            known = f"; mirrors have {mirrors}" if mirrors else ""
            yield (
                "warning",
                f"counts that differ between mirrors: {total:,} samples, {where} has "
                f"{expected:,}{known}",
            )


def _counts_from_zero(sample: Sample) -> bool:
    if not sample.source_id.endswith("]"):
        return False
    try:
        _, number = split_segment_id(sample.source_id)
    except ValueError:
        return False
    return sample.clip == str(number + 1)
