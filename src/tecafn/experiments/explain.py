"""Why a run answers as it does: what each modality adds, where it looks, whom its gate confuses.

Contributions are of any method. Attention and the gate's partners are TeCaFN's own.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tecafn.core.batch import Batch
from tecafn.core.errors import UserError
from tecafn.core.modality import Modality
from tecafn.core.parallel import world_size
from tecafn.core.places import refuse_taken
from tecafn.evaluation.evaluator import evaluating
from tecafn.experiments.evaluate import OpenRun, look_again, open_run
from tecafn.experiments.run import rows_of_part
from tecafn.experiments.setup import open_device
from tecafn.experiments.trained_scheme import best_weights, trained_scheme
from tecafn.methods.tecafn import TeCaFN, TeCaFNScheme
from tecafn.records.record import read_record, write_text_atomically
from tecafn.serving.attention import cross_attention
from tecafn.serving.builtin import is_builtin
from tecafn.serving.shapley import Contributions, contributions_of_batches

TABLE_FILE = "explanation.csv"
# Of a gate that draws from all samples so many are shown.
_MOST_PARTNERS = 10


@dataclass(frozen=True)
class Attention:
    """What the core's words, or frames, look at in another modality.

    Args:
        core: what each row is: a word, or the number of a frame.
        frames: (F,) the number of each of the sample's real frames; ``seconds`` if the features say
            how many there are in one.
        seconds: (F,), or None.
        weights: (rows, F) means over heads, layers and a word's tokens; a row sums to 1.
    """

    core: tuple[str, ...]
    frames: NDArray[np.int64]
    seconds: NDArray[np.float64] | None
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Partner:
    """A sample whose frames the gate may put in the place of another's.

    Args:
        id: of the sample.
        similarity: cosine of the core's vector and the partner's, in [-1, 1].
        text: what is said there.
        label: of the partner, None where it has none.
    """

    id: str
    similarity: float
    text: str
    label: float | None


@dataclass(frozen=True)
class Gate:
    """Whom the gate draws from in a modality.

    Args:
        probability: p, how often it replaces the sample's own frames.
        own: similarity of the sample's own frames.
        partners: the hardest first, as many as the gate draws from.
    """

    probability: float
    own: float
    partners: tuple[Partner, ...]


@dataclass(frozen=True)
class SampleExplanation:
    """One sample.

    Args:
        id: of the sample.
        row: its place in the split.
        text: what is said.
        attention: by modality; None of another method.
        gate: by modality; None of another method, or of a sample that was not trained on.
    """

    id: str
    row: int
    text: str
    attention: dict[Modality, Attention] | None
    gate: dict[Modality, Gate] | None


@dataclass(frozen=True)
class Explanation:
    """What was found.

    Args:
        folder: where it was written.
        ids: N samples of the split.
        contributions: arrays of N.
        sample: the one that was asked for.
    """

    folder: Path
    ids: tuple[str, ...]
    contributions: Contributions
    sample: SampleExplanation | None


def explain_run(
    run: Path,
    *,
    data: Path,
    split: str = "valid",
    sample: str | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> Explanation:
    """Contributions of a split's samples, and what else there is of one; write them.

    Args:
        run: a run's directory.
        data: a store.
        split: train, valid or test; the test split only after it was evaluated.
        sample: an id; None = contributions alone.
        out: where to write; None = ``RUN/explanation-<split>``; of a model of the
            package ``explain-<name>/explanation-<split>``.
        device: auto, cpu or cuda.

    Raises:
        UserError: the run or the data cannot be read, do not fit, or have no such sample.
    """
    # A folder of a model's name would be taken for the model, or stand beside it in a note.
    place = Path(f"explain-{run}") if is_builtin(run) else run
    folder = out or place / f"explanation-{split}"
    if out is not None or place != run:
        refuse_taken(folder, may_be="neither")
    here = open_device(device)
    if world_size() > 1:
        raise UserError(f"explain runs in one process, got {world_size()}")
    opened = open_run(run, data, split, here)
    row = None if sample is None else _row_of(opened, sample)
    look_again(run, opened.store, split, what="explain")
    batches = list(opened.source.batches(0))
    found = _in_order(batches, contributions_of_batches(opened.predictor, batches))
    one = None if row is None else _explain_sample(run, opened, batches, row)
    explanation = Explanation(folder, tuple(opened.view.ids), found, one)
    _write(explanation)
    return explanation


def _row_of(opened: OpenRun, sample: str) -> int:
    try:
        return opened.view.ids.index(sample)
    except ValueError:
        near = difflib.get_close_matches(sample, opened.view.ids, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"split {opened.view.name!r} of {opened.store.path} has no sample {sample!r}{hint}"
        ) from None


def _in_order(batches: Sequence[Batch], found: Contributions) -> Contributions:
    """By row of the split; the loader may give batches in another order."""
    order = np.argsort(np.concatenate([batch.index.cpu().numpy() for batch in batches]))
    return Contributions(
        full=found.full[order],
        base=found.base[order],
        values={m: values[order] for m, values in found.values.items()},
        interactions={pair: values[order] for pair, values in found.interactions.items()},
        of_subset={kept: values[order] for kept, values in found.of_subset.items()},
    )


def _explain_sample(
    run: Path, opened: OpenRun, batches: Sequence[Batch], row: int
) -> SampleExplanation:
    is_tecafn = isinstance(opened.predictor.network, TeCaFN)
    batch = next(
        batch.select((batch.index == row).nonzero().squeeze(1))
        for batch in batches
        if bool((batch.index == row).any())
    )
    is_trained = opened.view.name == "train"
    return SampleExplanation(
        id=opened.view.ids[row],
        row=row,
        text=opened.view.texts[row],
        attention=attention_of(opened, batch, row) if is_tecafn else None,
        gate=gate_of(run, opened, batches, row) if is_tecafn and is_trained else None,
    )


def attention_of(opened: OpenRun, batch: Batch, row: int) -> dict[Modality, Attention]:
    """Attention over time of the one sample in ``batch``."""
    network = opened.predictor.network
    assert isinstance(network, TeCaFN), "of tecafn alone"
    core = batch.sequences.get(network.core)
    if core is None or not bool(core.mask.any()):
        return {}  # a learned frame stands in for the core: it has no words
    names, groups = _parts_of_core(opened, network.core, core.own_mask[0].cpu().numpy(), row)
    found = {}
    for modality, weights in cross_attention(opened.predictor, batch).items():
        if not bool(batch.present[modality][0]):
            continue
        frames = np.flatnonzero(batch.sequences[modality].mask[0].cpu().numpy())
        mean = weights[0].mean((0, 1)).double().numpy()[:, frames]  # (Lc, F)
        spec = opened.predictor.definition.info.features.get(modality)
        seconds = None if spec is None else frames / spec.frames_per_second
        rows = np.stack([mean[group].mean(0) for group in groups])
        found[modality] = Attention(tuple(names), frames, seconds, rows)
    return found


def _parts_of_core(
    opened: OpenRun, core: Modality, mask: NDArray[np.bool_], row: int
) -> tuple[list[str], list[list[int]]]:
    """What the core's frames are called, and which of them belong to each: a word has several."""
    places = np.flatnonzero(mask).tolist()
    tokenizer = opened.predictor.tokenizer
    if core != Modality.TEXT or tokenizer is None:
        return [str(place) for place in places], [[place] for place in places]
    text, context = opened.view.texts[row], opened.view.column("context")[row]
    (spans,) = tokenizer.spans([text], [context])
    names, groups = [], []
    for word in re.finditer(r"\S+", text):
        own = [
            place
            for place in places
            if place < len(spans) and word.start() <= spans[place, 0] < word.end()
        ]
        if own:
            names.append(word[0])
            groups.append(own)
    return names, groups


def gate_of(run: Path, opened: OpenRun, batches: Sequence[Batch], row: int) -> dict[Modality, Gate]:
    """Whom the gate would draw from if the whole training split were one batch.

    While it trains, the candidates are the samples of a batch; these are the ones it draws whenever
    they are among them. Vectors are those of the epoch that validation chose.
    """
    record = read_record(run)
    precision = record["config"]["training"]["precision"]
    scheme = trained_scheme(
        run, opened.predictor, weights=best_weights(run), precision=precision
    ).float()
    assert isinstance(scheme, TeCaFNScheme), "of tecafn alone"
    scheme.to(opened.predictor.device)
    view, config = opened.view, scheme.config
    trained = np.zeros(len(view), np.bool_)
    trained[rows_of_part(len(view), record["config"].get("max_train_samples"))] = True
    queries, keys, present, rows = _keys_of_all(scheme, batches, opened.predictor.device)
    found = {}
    for modality, vectors in keys.items():
        order = np.argsort(rows)
        has_both = present[modality].numpy()[order] & trained
        similarity = (vectors @ queries[modality][rows == row][0]).double().numpy()[order]
        if not has_both[row]:
            continue
        may_be = has_both.copy()
        may_be[row] = False
        if config.label_margin and opened.view.task == "regression":
            labels = view.labels
            may_be &= np.abs(labels - labels[row]) >= config.label_margin
        count = config.num_hard_negatives_for(modality) or _MOST_PARTNERS
        ranked = np.flatnonzero(may_be)[np.argsort(-similarity[may_be], kind="stable")][:count]
        found[modality] = Gate(
            probability=config.swap_probability_for(modality),
            own=float(similarity[row]),
            partners=tuple(
                Partner(
                    id=view.ids[other],
                    similarity=float(similarity[other]),
                    text=view.texts[other],
                    label=float(view.labels[other]) if view.labelled[other] else None,
                )
                for other in ranked
            ),
        )
    return found


def _keys_of_all(
    scheme: TeCaFNScheme, batches: Sequence[Batch], device: torch.device
) -> tuple[dict[Modality, torch.Tensor], dict[Modality, torch.Tensor], Any, NDArray[np.int64]]:
    """q, k and who has both, of every sample, and the row of each."""
    parts: dict[Modality, list[tuple[torch.Tensor, ...]]] = {}
    rows = []
    with evaluating(scheme):
        for batch in batches:
            rows.append(batch.index.cpu().numpy())
            of_batch = scheme.keys(batch.to(device))
            for modality in scheme.network.others:
                query, key, both = of_batch.get(modality) or _none_of(batch, scheme)
                unit = (functional.normalize(v.float(), dim=-1).cpu() for v in (query, key))
                parts.setdefault(modality, []).append((*unit, both.cpu()))
    columns = {m: [torch.cat(column) for column in zip(*p, strict=True)] for m, p in parts.items()}
    queries, keys, present = ({m: c[k] for m, c in columns.items()} for k in range(3))
    return queries, keys, present, np.concatenate(rows)


def _none_of(batch: Batch, scheme: TeCaFNScheme) -> tuple[torch.Tensor, ...]:
    """Of a batch in which no sample has a modality."""
    zeros = torch.zeros(batch.size, scheme.config.dim)
    return zeros, zeros, torch.zeros(batch.size, dtype=torch.bool)


def _write(found: Explanation) -> None:
    """``explanation.csv``, a row per sample, and ``<id>.json`` of the one that was asked for."""
    found.folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of = found.contributions
    pairs = ["+".join(pair) for pair in of.interactions]
    names = [str(m) for m in of.values]
    labels = _classes(of)
    writer.writerow(["id", *(["class"] if labels else []), "prediction", "base", *names, *pairs])
    for row, sample in enumerate(found.ids):
        for place in labels or (None,):
            at = row if place is None else (row, place)
            arrays = [of.full, of.base, *of.values.values(), *of.interactions.values()]
            numbers = [f"{float(array[at]):.6f}" for array in arrays]
            writer.writerow([sample, *([] if place is None else [place]), *numbers])
    write_text_atomically(found.folder / TABLE_FILE, text.getvalue())
    if found.sample is not None:
        name = re.sub(r"[^\w.-]", "_", found.sample.id)
        body = json.dumps(as_dict(found.sample, of), indent=1) + "\n"
        write_text_atomically(found.folder / f"{name}.json", body)


def _classes(of: Contributions) -> tuple[int, ...]:
    return tuple(range(of.full.shape[1])) if of.full.ndim == 2 else ()


def as_dict(sample: SampleExplanation, of: Contributions) -> dict[str, Any]:
    """Plain values for JSON."""
    row = sample.row
    plain: dict[str, Any] = {
        "id": sample.id,
        "text": sample.text,
        "prediction": of.full[row].tolist(),
        "base": of.base[row].tolist(),
        "contributions": {str(m): v[row].tolist() for m, v in of.values.items()},
        "interactions": {"+".join(p): v[row].tolist() for p, v in of.interactions.items()},
        "of_subset": {"+".join(k) or "none": v[row].tolist() for k, v in of.of_subset.items()},
    }
    if sample.attention is not None:
        plain["attention"] = {
            str(m): {
                "core": list(a.core),
                "frames": a.frames.tolist(),
                "seconds": None if a.seconds is None else a.seconds.round(4).tolist(),
                "weights": a.weights.round(6).tolist(),
            }
            for m, a in sample.attention.items()
        }
    if sample.gate is not None:
        plain["gate"] = {
            str(m): {
                "probability": g.probability,
                "own_similarity": g.own,
                "partners": [vars(partner) for partner in g.partners],
            }
            for m, g in sample.gate.items()
        }
    return plain


def table_of(found: Explanation) -> tuple[str, list[str], list[list[str]]]:
    """Means over the split, for a terminal: title, columns, a row per modality and pair."""
    of = found.contributions
    rows = []
    parts = [(str(m), v) for m, v in of.values.items()]
    parts += [(" and ".join(p), v) for p, v in of.interactions.items()]
    for place, (name, values) in enumerate(parts):
        kind = "contribution" if place < len(of.values) else "interaction"
        rows.append(
            [f"{kind} of {name}", f"{np.abs(values).mean():.4f}", f"{float(values.mean()):+.4f}"]
        )
    title = f"{len(found.ids)} samples"
    return title, ["", "mean size", "mean"], rows


def lines_of(found: Explanation) -> list[str]:
    """One sample in words, for a terminal."""
    sample, of = found.sample, found.contributions
    assert sample is not None, "a sample was asked for"
    row = sample.row

    def shown(value: Any) -> str:
        return np.array2string(np.asarray(value), precision=3, sign="+", suppress_small=True)

    lines = [f"{sample.id}: {sample.text}", f"without any modality {shown(of.base[row])}"]
    lines += [f"{m} {shown(v[row])}" for m, v in of.values.items()]
    lines.append(f"prediction {shown(of.full[row])}")
    lines += [f"{a} with {b} {shown(v[row])}" for (a, b), v in of.interactions.items()]
    for modality, attention in (sample.attention or {}).items():
        lines.append(f"attention to {modality}: the frame that each looks at most")
        lines += [
            f"  {name}: {_peak(attention, place)}" for place, name in enumerate(attention.core)
        ]
    for modality, gate in (sample.gate or {}).items():
        lines.append(
            f"gate of {modality}: with probability {gate.probability:g} its frames (similarity "
            f"{gate.own:.3f}) are replaced by those of one of"
        )
        lines += [
            f"  {p.similarity:.3f} {p.id}"
            + ("" if p.label is None else f" (label {p.label:g})")
            + f": {p.text}"
            for p in gate.partners
        ]
    if sample.attention is None:
        lines.append("attention and the gate's partners are shown of tecafn alone")
    elif sample.gate is None:
        lines.append("the gate's partners are shown of a sample of the training split")
    return lines


def _peak(attention: Attention, place: int) -> str:
    at = int(attention.weights[place].argmax())
    weight = attention.weights[place, at]
    times = 0.0 if not len(attention.frames) else weight * len(attention.frames)
    where = (
        f"frame {attention.frames[at]}"
        if attention.seconds is None
        else f"{attention.seconds[at]:.2f} s"
    )
    return f"{where}, {100 * weight:.1f} % ({times:.1f} times an even share)"
