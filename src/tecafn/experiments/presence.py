"""Which modality of which sample there is: what is absent is said, unreadable text refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tecafn.core.errors import UserError
from tecafn.core.info import STORED_FEATURES, DataInfo
from tecafn.core.modality import Modality
from tecafn.core.parallel import rank
from tecafn.core.text import is_blank
from tecafn.data.store import SplitView, Store

Presence = Mapping[Modality, NDArray[np.bool_]]


def presence_of(view: SplitView, info: DataInfo, modalities: Sequence[Modality]) -> Presence:
    """For each of ``modalities``, (N,) bool: has the sample something of it that can be read?

    Text is there when its sentence is not blank (``core.text``) or, with stored vectors, when it
    has a vector; audio and vision when one of their frames is finite.

    Args:
        view: the samples.
        info: how text is read.
        modalities: which are looked at.
    """
    found: dict[Modality, NDArray[np.bool_]] = {}
    for modality in modalities:
        if modality == Modality.TEXT and info.reads_sentences:
            found[modality] = np.array([not is_blank(text) for text in view.texts], np.bool_)
        elif modality in view.widths:
            found[modality] = _has_a_good_frame(view, modality)
        else:
            found[modality] = np.zeros(len(view), np.bool_)
    return found


def _has_a_good_frame(view: SplitView, modality: Modality) -> NDArray[np.bool_]:
    found = view.lengths(modality) > 0
    for row in np.flatnonzero(found):
        frames = view.sequence(int(row), modality)
        # Nearly always the first is good; the others are not fetched then.
        found[row] = bool(np.isfinite(frames[0]).all() or np.isfinite(frames).all(axis=1).any())
    return np.asarray(found, np.bool_)


def absent_counts(presence: Presence) -> dict[str, int]:
    """How many samples lack each modality, those that all have left out."""
    counts = {str(m): int((~rows).sum()) for m, rows in presence.items()}
    return {name: count for name, count in counts.items() if count}


def warn_about_absent_modalities(view: SplitView, presence: Presence) -> None:
    """One line for each modality that samples of a split lack, on rank 0."""
    if rank() != 0:
        return
    for name, count in absent_counts(presence).items():
        why = "" if count < len(view) else f": the dataset has no {name} that could be read"
        print(
            f"note: {name} is absent for {count} of {len(view)} samples of split "
            f"{view.name!r}{why}",
            file=sys.stderr,
        )


def refuse_empty(view: SplitView, presence: Presence) -> None:
    """Refuse a split of which a model reads nothing; say how many samples have nothing.

    Raises:
        UserError: no sample has any of the modalities.
    """
    whole = np.zeros(len(view), np.bool_)
    for rows in presence.values():
        whole |= rows
    names = ", ".join(presence)
    if len(view) and not whole.any():
        raise UserError(
            f"the model takes {names}; no sample of split {view.name!r} has any of them"
        )
    nothing = np.flatnonzero(~whole)
    if len(nothing) and rank() == 0:
        print(
            f"warning: {len(nothing)} of {len(view)} samples of split {view.name!r} have none of "
            f"{names}, for example {view.ids[nothing[0]]}; their predictions mean nothing",
            file=sys.stderr,
        )


def check_text(store: Store, view: SplitView, modalities: Sequence[Modality], encoder: str) -> None:
    """Refuse to train on text that is in use and not there in the form that would be read.

    Otherwise a model would be trained on audio and vision alone and be called by its name.

    Args:
        store: the dataset.
        view: its training split.
        modalities: those in use.
        encoder: the text encoder's name, or ``features``.

    Raises:
        UserError: the line names what the data have, and the setting that reads it.
    """
    if Modality.TEXT not in modalities:
        return
    num_sentences = sum(not is_blank(text) for text in view.texts)
    width = store.description.widths.get(Modality.TEXT)
    num_vectors = 0 if width is None else int((view.lengths(Modality.TEXT) > 0).sum())
    # Where vectors were kept beside a few sentences, the sentences are not the text.
    is_few = bool(num_vectors) and 2 * num_sentences < len(view)
    if num_vectors if encoder == STORED_FEATURES else num_sentences and not is_few:
        return
    reads = "text vectors" if encoder == STORED_FEATURES else "sentences"
    if num_vectors:
        has = f"it has text vectors {width} wide: use --set text_encoder=features"
    elif num_sentences:
        has = f"it has {num_sentences} sentences: name an encoder, as --set text_encoder=minilm"
    else:
        others = ",".join(f'"{m}"' for m in modalities if m != Modality.TEXT) or '"audio","vision"'
        has = f"it has no text at all: leave text out, --set 'modalities=[{others}]'"
    count = f"{num_sentences} for {len(view)} samples" if num_vectors and num_sentences else "none"
    raise UserError(
        f"text_encoder {encoder!r} reads {reads}, but split {view.name!r} of {store.path} has "
        f"{count}; {has}"
    )
