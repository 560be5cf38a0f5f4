"""The public contracts: what every registered method and reader must keep.

Each contract is a set of parts, plain functions that raise ``AssertionError`` with one sentence.
``check_method`` runs them all; tests parametrise over the parts so that a failure has a name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tecafn.core.batch import Batch, Padded
from tecafn.core.info import STORED_FEATURES, DataInfo, FeatureStatistics, Task, TextEncoderSpec
from tecafn.core.modality import Modality
from tecafn.core.output import Losses, Progress
from tecafn.core.registry import METHODS, Method
from tecafn.core.scheme import Scheme

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}

_VOCABULARY = 50
_WIDTHS = {Modality.AUDIO: 5, Modality.VISION: 7}
_TRAIN_SEED = 11


@dataclass(frozen=True, kw_only=True)
class MethodCase:
    """A method, its settings and a tiny dataset to hold it against.

    Args:
        name: as registered.
        method: the registered method.
        config: its settings.
        info: tiny widths and a tiny, randomly initialised BERT in a temporary folder.
    """

    name: str
    method: Method
    config: Any
    info: DataInfo

    def build(self, *, seed: int = 0, load_weights: bool = True, dropout: bool = True) -> Scheme:
        """A fresh scheme in training mode; ``dropout=False`` sets every dropout to zero."""
        torch.manual_seed(seed)
        spec = dataclasses.replace(self.info.text_encoder, load_weights=load_weights)
        scheme = self.method.build(self.config, dataclasses.replace(self.info, text_encoder=spec))
        if not dropout:
            for module, probability in _dropouts(scheme).values():
                setattr(module, probability, 0.0)
        return scheme.train()

    def batch(self, size: int, *, seed: int = 0, lacking: Mapping[int, str] | None = None) -> Batch:
        """Random samples; ``lacking`` maps a row to the letters (t, a, v) of what it lacks.

        Lengths differ, audio and vision masks have holes, and whatever is masked holds garbage
        that nobody may look at. For a method that needs word-aligned frames, audio and vision of a
        sample have one length and its tokens, some of them, name frames.
        """
        generator = torch.Generator().manual_seed(seed)

        def integers(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator)

        present = {m: torch.ones(size, dtype=torch.bool) for m in Modality}
        for row, letters in (lacking or {}).items():
            for modality in Modality:
                present[modality][row] = modality[0] not in letters
        is_aligned = "aligned" in self.method.needs
        sequences: dict[Modality, Padded] = {}
        lengths = integers(0, 1, size)
        for modality in Modality:
            longest = 7
            if not (is_aligned and modality == Modality.VISION):  # vision is as long as audio
                lengths = integers(3, longest + 1, size)
            mask = torch.arange(longest) < lengths.unsqueeze(1)
            if modality != Modality.TEXT:
                # A hole is a frame that held NaN; the first frame stays so that none is empty.
                holes = torch.rand(size, longest, generator=generator) < 0.2
                holes[:, 0] = False
                mask &= ~holes
            mask &= present[modality].unsqueeze(1)
            if modality == Modality.TEXT:
                values = integers(5, _VOCABULARY, size, longest)
                values[:, 0] = 2  # [CLS]
                values[torch.arange(size), lengths - 1] = 3  # [SEP]
            else:
                shape = (size, longest, self.info.widths[modality])
                values = 2.0 + 3.0 * torch.randn(shape, generator=generator)
                garbage = 1e3 * torch.randn(shape, generator=generator)
                values = torch.where(mask.unsqueeze(-1), values, garbage)
            sequences[modality] = Padded(values, mask)
        if self.info.task == "classification":
            labels = torch.arange(size) % self.info.num_classes
        else:
            low, high = self.info.label_range
            labels = low + (high - low) * torch.rand(size, generator=generator)
        return Batch(
            sequences=sequences,
            present=present,
            labels=labels,
            index=torch.arange(size) + 100 * seed,
            ids=tuple(f"video_{100 * seed + row}" for row in range(size)),
            frame_of_token=_frame_of_token(sequences, lengths, generator) if is_aligned else None,
        )

    def mixed_batch(self, *, seed: int = 0) -> Batch:
        """Six complete rows and one for every way to lack one or two modalities."""
        return self.batch(12, seed=seed, lacking=dict(enumerate(("t", "a", "v", "ta", "tv", "av"))))


# What modules call the probability that their forward reads: ours, torch's, attention's.
_PROBABILITIES = ("probability", "p", "dropout", "dropout_prob")


def _dropouts(module: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """By path: each module that has a dropout's probability, whatever its settings call it.

    Returns:
        The module, and which of its attributes is the probability.
    """
    return {
        path: (part, name)
        for path, part in module.named_modules()
        for name in _PROBABILITIES
        if isinstance(getattr(part, name, None), int | float)
    }


def _frame_of_token(
    sequences: Mapping[Modality, Padded], num_frames: Tensor, generator: torch.Generator
) -> Tensor:
    """(B, Lt): frames in order for the tokens between [CLS] and [SEP], a few tokens without one."""
    text = sequences[Modality.TEXT].mask
    share = torch.rand(text.shape, generator=generator).sort(dim=1).values
    frame = (share * num_frames.unsqueeze(1)).long()
    places = torch.arange(text.shape[1])
    spoken = (places > 0) & (places < text.sum(1, keepdim=True) - 1)
    spoken &= torch.rand(text.shape, generator=generator) < 0.8
    return torch.where(spoken, frame, -1)


@contextlib.contextmanager
def method_case(
    name: str, *, config: Any | None = None, task: Task = "regression"
) -> Iterator[MethodCase]:
    """A ``MethodCase`` whose tiny BERT lives as long as the ``with`` block.

    Args:
        name: a registered method.
        config: settings; the method's defaults if None. ``num_layers`` and
            ``num_unimodal_layers``, where there are such, become 2, and ``feed_forward_dim`` at
            most 64.
        task: what it is trained for.

    Raises:
        UserError: no such method.
        ValueError: the method does not do this task.
    """
    import tecafn.methods  # noqa: F401  registers every method

    method = METHODS[name]
    if task not in method.tasks:
        raise ValueError(f"{name} does {', '.join(method.tasks)}, not {task}")
    config = method.config() if config is None else config
    known = {f.name for f in dataclasses.fields(config)}
    small = dict.fromkeys({"num_layers", "num_unimodal_layers"} & known, 2)
    if "feed_forward_dim" in known:
        small["feed_forward_dim"] = min(config.feed_forward_dim, 64)
    generator = torch.Generator().manual_seed(5)
    statistics = {
        m: FeatureStatistics(
            (2.0 + torch.randn(width, generator=generator)).tolist(),
            (2.0 + torch.rand(width, generator=generator)).tolist(),
        )
        for m, width in _WIDTHS.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        _save_tiny_bert(Path(folder))
        yield MethodCase(
            name=name,
            method=method,
            config=dataclasses.replace(config, **small),
            info=DataInfo(
                widths=_WIDTHS,
                statistics=statistics,
                task=task,
                num_classes=2 if task == "classification" else 1,
                text_encoder=TextEncoderSpec(source=folder),
                num_train=1000,
            ),
        )


def _save_tiny_bert(folder: Path) -> None:
    """Two random layers of width 32 in the files a Hugging Face model has."""
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        config = BertConfig(
            vocab_size=_VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
        )
        BertModel(config).save_pretrained(str(folder))


def _predict(scheme: Scheme, batch: Batch) -> Tensor:
    """The inference path in evaluation mode."""
    scheme.eval()
    with torch.no_grad():
        prediction = scheme.predict(batch)
    scheme.train()
    return prediction


def _double(batch: Batch) -> Batch:
    """Frames and scores in float64."""
    sequences = {
        m: Padded(p.values.double(), p.mask) if p.values.is_floating_point() else p
        for m, p in batch.sequences.items()
    }
    labels = batch.labels
    if labels is not None and labels.is_floating_point():
        labels = labels.double()
    return dataclasses.replace(batch, sequences=sequences, labels=labels)


def _drop(batch: Batch, modalities: str) -> Batch:
    """The batch without these modalities' tensors (letters t, a, v)."""
    return batch.keeping([m for m in batch.sequences if m[0] not in modalities])


def _stretch(batch: Batch) -> Batch:
    """Every sequence followed by a different number of masked frames of garbage."""
    sequences, frame_of_token = {}, batch.frame_of_token
    for extra, (modality, padded) in enumerate(batch.sequences.items(), start=2):
        more = padded.values.flip(1)[:, :extra]
        more = 31 - more if modality == Modality.TEXT else 50.0 + 7.0 * more
        more = more.abs() % _VOCABULARY if modality == Modality.TEXT else more
        mask = torch.zeros(batch.size, extra, dtype=torch.bool)
        sequences[modality] = Padded(
            torch.cat([padded.values, more], 1), torch.cat([padded.mask, mask], 1)
        )
        if modality == Modality.TEXT and frame_of_token is not None:
            nowhere = torch.full((batch.size, extra), -1)
            frame_of_token = torch.cat([frame_of_token, nowhere], 1)
    return dataclasses.replace(batch, sequences=sequences, frame_of_token=frame_of_token)


def _assert_close(got: Tensor, expected: Tensor, limit: float, claim: str) -> None:
    assert got.shape == expected.shape, (
        f"{claim}: predictions have shapes {tuple(got.shape)} and {tuple(expected.shape)}"
    )
    assert bool(got.isfinite().all()), f"{claim}: a prediction is not finite"
    worst = float((got - expected).abs().max())
    assert worst <= limit, f"{claim}: predictions differ by {worst:.3g}, allowed {limit:.0e}"


def _in_both_precisions(case: MethodCase, compare: Callable[[Scheme, Batch, float], None]) -> None:
    """Run ``compare(scheme, mixed batch, tolerance)`` in float32 and in float64."""
    scheme, batch = case.build(), case.mixed_batch()
    with torch.no_grad():  # what starts at zero would hide what it does
        for parameter in scheme.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    compare(scheme, batch, TOLERANCE[torch.float32])
    compare(scheme.double(), _double(batch), TOLERANCE[torch.float64])


def check_padding_invisible(case: MethodCase) -> None:
    """More masked frames after a sequence, with garbage in them, change no prediction."""

    def compare(scheme: Scheme, batch: Batch, limit: float) -> None:
        before, after = _predict(scheme, batch), _predict(scheme, _stretch(batch))
        _assert_close(after, before, limit, f"{case.name}: padding must be invisible")

    _in_both_precisions(case, compare)


def check_neighbours_invisible(case: MethodCase) -> None:
    """A sample's prediction is the same in any order and in any company."""

    def compare(scheme: Scheme, batch: Batch, limit: float) -> None:
        whole = _predict(scheme, batch)
        shuffled = torch.arange(batch.size).flip(0)
        halves = (shuffled[::2], shuffled[1::2], shuffled)
        for rows in halves:
            part = _predict(scheme, batch.select(rows))
            claim = f"{case.name}: neighbours in the batch must be invisible"
            _assert_close(part, whole[rows], limit, claim)

    _in_both_precisions(case, compare)


def check_batch_of_one(case: MethodCase) -> None:
    """A sample alone has the prediction it has in a batch."""

    def compare(scheme: Scheme, batch: Batch, limit: float) -> None:
        whole = _predict(scheme, batch)
        for row in range(7):  # every way to lack something, then a complete one
            alone = _predict(scheme, batch.select(torch.tensor([row])))
            claim = f"{case.name}: a batch of one must predict as any other batch does"
            _assert_close(alone, whole[row : row + 1], limit, claim)

    _in_both_precisions(case, compare)


def check_trains_on_one(case: MethodCase) -> None:
    """Steps on single samples, whatever they lack, leave finite parameters."""
    batch, scheme = case.mixed_batch(), case.build()
    optimizers = _optimizers(scheme)
    for row in range(7):  # every way to lack something, then a complete one
        one = batch.select(torch.tensor([row]))
        _step(case, scheme, optimizers, one, Progress(seed=0, epoch=0, step=row))
    for name, parameter in scheme.named_parameters():
        assert bool(parameter.isfinite().all()), (
            f"{case.name}: {name} is not finite after training on batches of one"
        )


def _optimizers(scheme: Scheme, *, learning_rate: float = 1e-3) -> dict[str, torch.optim.Adam]:
    """One Adam a phase, as the trainer makes them, in one pass over the parameters."""
    return {
        phase.name: torch.optim.Adam(
            [p for group in phase.parameters.values() for p in group], lr=learning_rate, fused=True
        )
        for phase in scheme.phases()
    }


def _step(
    case: MethodCase,
    scheme: Scheme,
    optimizers: Mapping[str, torch.optim.Adam],
    batch: Batch,
    progress: Progress,
) -> Losses:
    """One step of every phase in turn; the last phase's losses."""
    losses: Losses | None = None
    for phase in scheme.phases():
        scheme.zero_grad(set_to_none=True)
        losses = phase.loss(batch, progress)
        for name, term in losses.terms.items():
            assert term.ndim == 0, f"{case.name}: term {name!r} must be a scalar"
            assert bool(term.isfinite()), f"{case.name}: term {name!r} is {term.item()}"
        # torch.autograd.backward is typed, Tensor.backward is not.
        torch.autograd.backward(losses.total)
        optimizers[phase.name].step()
        scheme.after_step(batch, losses, progress)
    assert losses is not None, f"{case.name}: phases() is empty, nothing would be trained"
    return losses


def check_every_parameter_trained(case: MethodCase) -> None:
    """Every trainable parameter is in a phase and gets a finite, non-zero gradient from it.

    Over a few mixed batches: a stand-in for an absent modality is trained by the rows that need it.
    The bias of a pretrained encoder's keys moves every score of a query alike, so its gradient is
    rounding alone; it passes as long as something reaches it.
    """
    scheme = case.build()
    batches = [case.mixed_batch(seed=seed) for seed in range(3)]
    untrained = {name: p for name, p in scheme.named_parameters() if p.requires_grad}
    names = {id(p): name for name, p in untrained.items()}
    assert untrained, f"{case.name}: no parameter is trainable"
    owned: set[int] = set()
    for phase in scheme.phases():
        parameters = [p for group in phase.parameters.values() for p in group]
        own = {id(p) for p in parameters}
        assert len(own) == len(parameters), (
            f"{case.name}: phase {phase.name!r} lists a parameter twice"
        )
        frozen = own - set(names)
        assert not frozen, (
            f"{case.name}: phase {phase.name!r} lists {len(frozen)} frozen parameters"
        )
        owned |= own
        for step, batch in enumerate(batches):
            scheme.zero_grad(set_to_none=True)
            losses = phase.loss(batch, Progress(seed=0, epoch=0, step=step))
            torch.autograd.backward(losses.total)
            for parameter in parameters:
                gradient = parameter.grad
                if gradient is None:
                    continue
                name = names[id(parameter)]
                assert bool(gradient.isfinite().all()), (
                    f"{case.name}: gradient of {name} is not finite in phase {phase.name!r}"
                )
                if bool((gradient != 0).any()):
                    untrained.pop(name, None)
    homeless = sorted(name for key, name in names.items() if key not in owned)
    assert not homeless, f"{case.name}: parameters in no phase: {', '.join(homeless)}"
    assert not untrained, f"{case.name}: parameters without a gradient: {', '.join(untrained)}"


def check_dropouts_act(case: MethodCase) -> None:
    """Every setting of a dropout reaches one, and every dropout changes what a training step gives.

    Settings are the numbers whose names end in ``dropout``, those that are zero included. Of layers
    that are alike the first is looked at.
    """
    batch, scheme = case.mixed_batch(), case.build(dropout=False)
    in_use = {path for path, found in _dropouts(case.build()).items() if getattr(*found) > 0}
    for setting, paths in _dropouts_by_setting(case).items():
        assert paths, f"{case.name}: the setting {setting} reaches no dropout"
        in_use |= paths
    without = _training_step(scheme, batch)
    seen: set[str] = set()
    for path, (module, probability) in _dropouts(scheme).items():
        alike = re.sub(r"\.\d+\.", ".N.", path)
        if path not in in_use or not module.training or alike in seen:
            continue
        seen.add(alike)
        setattr(module, probability, 0.5)
        assert not torch.equal(_training_step(scheme, batch), without), (
            f"{case.name}: the dropout {path} changes nothing in training"
        )
        setattr(module, probability, 0.0)


def _dropouts_by_setting(case: MethodCase) -> dict[str, set[str]]:
    """The paths of the dropouts that each ``*dropout`` setting reaches."""
    names = [
        f.name
        for f in dataclasses.fields(case.config)
        if f.name.endswith("dropout") and isinstance(getattr(case.config, f.name), int | float)
    ]
    distinct = {name: 0.25 + number / 100 for number, name in enumerate(names)}
    config = dataclasses.replace(case.config, **distinct)
    before = _dropouts(dataclasses.replace(case, config=config).build())
    reached = {
        name: {path for path, found in before.items() if getattr(*found) == value}
        for name, value in distinct.items()
    }
    for name in (name for name, paths in reached.items() if not paths):  # not as it stands
        other = dataclasses.replace(case, config=dataclasses.replace(config, **{name: 0.75}))
        after = _dropouts(other.build())
        reached[name] = {p for p in before if getattr(*before[p]) != getattr(*after[p])}
    return reached


def _training_step(scheme: Scheme, batch: Batch) -> Tensor:
    """Every phase's terms and predictions, of a step that is not taken."""
    torch.manual_seed(3)
    values: list[Tensor] = []
    for phase in scheme.phases():
        losses = phase.loss(batch, Progress(seed=_TRAIN_SEED, epoch=0))
        values += [losses.output.prediction, *losses.terms.values()]
    return torch.cat([value.detach().flatten().double() for value in values])


def check_every_term_trains(case: MethodCase) -> None:
    """Every term with a weight gives its phase's parameters a gradient, within a few steps.

    A few, because some begin with what earlier steps left: a full memory, a generated label.
    """
    scheme = case.build(dropout=False)
    optimizers = _optimizers(scheme)
    waiting: set[str] = set()
    heard: set[str] = set()
    for step in range(8):
        batch, progress = case.mixed_batch(seed=step), Progress(seed=0, epoch=step // 2, step=step)
        for phase in scheme.phases():
            losses = phase.loss(batch, progress)
            parameters = [p for group in phase.parameters.values() for p in group]
            for name, term in losses.terms.items():
                if losses.weights.get(name):
                    waiting.add(f"{phase.name}: {name}")
                    if _moves(term, parameters):
                        heard.add(f"{phase.name}: {name}")
        if waiting == heard:
            return
        _step(case, scheme, optimizers, batch, progress)
    missing = ", ".join(sorted(waiting - heard))
    raise AssertionError(f"{case.name}: terms that give no parameter a gradient: {missing}")


def _moves(term: Tensor, parameters: Sequence[nn.Parameter]) -> bool:
    """Has any parameter a gradient other than zero from this term?"""
    if not term.requires_grad:
        return False
    gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    return any(g is not None and bool((g != 0).any()) for g in gradients)


def _task_error(prediction: Tensor, labels: Tensor) -> float:
    """Mean absolute error, or cross-entropy."""
    if labels.is_floating_point():
        return float((prediction - labels).abs().mean())
    return float(nn.functional.cross_entropy(prediction, labels))


def check_one_batch_overfits(case: MethodCase) -> None:
    """Adam on one batch, without dropout, brings the task's error below a fifth of its start."""
    scheme, batch = case.build(dropout=False), case.batch(6, seed=1)
    assert batch.labels is not None
    optimizers = _optimizers(scheme, learning_rate=2e-3)
    first = _task_error(_predict(scheme, batch), batch.labels)
    best = first
    for step in range(200):
        _step(case, scheme, optimizers, batch, Progress(seed=0, epoch=step, step=step))
        if step % 10 == 9:
            best = min(best, _task_error(_predict(scheme, batch), batch.labels))
            if best < first / 5:
                return
    raise AssertionError(
        f"{case.name}: one batch must overfit: its error went from {first:.3f} to {best:.3f} only"
    )


def check_resume_bitwise(case: MethodCase) -> None:
    """State, optimizers and random state saved after 2 steps continue as if nothing happened."""
    batches = [case.mixed_batch(seed=seed) for seed in range(4)]

    def advance(scheme: Scheme, optimizers: dict[str, torch.optim.Adam], steps: range) -> None:
        for step in steps:
            progress = Progress(seed=_TRAIN_SEED, epoch=step // 2, step=step)
            _step(case, scheme, optimizers, batches[step], progress)

    scheme = case.build()
    optimizers = _optimizers(scheme)
    advance(scheme, optimizers, range(2))
    saved = io.BytesIO()
    states = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    torch.save((scheme.state_dict(), states, torch.get_rng_state()), saved)
    advance(scheme, optimizers, range(2, 4))

    # Another seed: whatever the state does not carry starts from other numbers.
    resumed = case.build(seed=1)
    resumed_optimizers = _optimizers(resumed)
    saved.seek(0)
    state, states, random_state = torch.load(saved, weights_only=True)
    resumed.load_state_dict(state)
    for name, optimizer in resumed_optimizers.items():
        optimizer.load_state_dict(states[name])
    torch.set_rng_state(random_state)
    advance(resumed, resumed_optimizers, range(2, 4))

    after = resumed.state_dict()
    for name, value in scheme.state_dict().items():
        assert torch.equal(value, after[name]), (
            f"{case.name}: resume must be bitwise equal, {name} differs after resuming"
        )
    expected, got = _predict(scheme, batches[0]), _predict(resumed, batches[0])
    assert torch.equal(expected, got), f"{case.name}: predictions differ after resuming"


def check_absent_modalities(case: MethodCase) -> None:
    """Whatever one or two modalities a sample lacks, it is as if their tensors did not exist."""

    def compare(scheme: Scheme, batch: Batch, limit: float) -> None:
        mixed = _predict(scheme, batch)
        assert bool(mixed.isfinite().all()), f"{case.name}: a mixed batch's prediction not finite"
        for row, letters in enumerate(("t", "a", "v", "ta", "tv", "av")):
            claim = (
                f"{case.name}: an absent modality ({letters}) must be as one that does not exist"
            )
            without = _drop(batch.select(torch.tensor([row, 7])), letters)
            _assert_close(_predict(scheme, without)[:1], mixed[row : row + 1], limit, claim)

    _in_both_precisions(case, compare)


def check_trains_without_modalities(case: MethodCase) -> None:
    """Steps on batches that lack modalities, or their tensors, leave finite predictions."""
    scheme = case.build()
    optimizers = _optimizers(scheme)
    for step, letters in enumerate(("t", "a", "v", "ta", "tv", "av")):
        batches = (
            _drop(case.batch(4, seed=2), letters),
            case.batch(4, lacking=dict.fromkeys(range(4), letters)),
        )
        for batch in batches:
            _step(case, scheme, optimizers, batch, Progress(seed=0, epoch=0, step=step))
    assert bool(_predict(scheme, case.mixed_batch()).isfinite().all()), (
        f"{case.name}: training with absent modalities must leave finite predictions"
    )


def check_usable_modalities(case: MethodCase) -> None:
    """It reads the modalities of ``DataInfo.usable``, each of them, and looks at no other.

    A method that cannot do without text says so with a ``ValueError`` when it is built.
    """
    stored = dataclasses.replace(case.info.text_encoder, source=STORED_FEATURES)
    audio_alone = {Modality.AUDIO: _WIDTHS[Modality.AUDIO]}
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"widths": audio_alone},
        {"widths": {}},
        {"modalities": (Modality.VISION, Modality.TEXT)},
        {"modalities": (Modality.AUDIO, Modality.VISION)},
        {"text_encoder": stored},
    )
    for change in changes:
        info = dataclasses.replace(case.info, **change)
        usable = info.usable
        claim = f"{case.name}: usable are {', '.join(usable)}"
        try:
            scheme = dataclasses.replace(case, info=info).build()
        except ValueError:
            assert Modality.TEXT not in usable, f"{claim}, and it is refused"
            continue
        with torch.no_grad():  # what starts at zero would hide what it does
            for parameter in scheme.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        scheme, batch = scheme.double(), _double(case.batch(4, seed=1))
        others = "".join(m[0] for m in Modality if m not in usable)
        whole = _predict(scheme, _drop(batch, others))
        _assert_close(_predict(scheme, batch), whole, 0.0, f"{claim}, and others must be unread")
        for modality in usable if len(usable) > 1 else ():
            without = _predict(scheme, _drop(batch, others + modality[0]))
            assert not torch.equal(without, whole), (
                f"{claim}, and {modality} is not read: read it, or say in known_violations why not"
            )


def check_phases(case: MethodCase) -> None:
    """Phases have unique names; losses have weights; answers have the task's shape."""
    scheme, batch = case.build(), case.mixed_batch()
    names = [phase.name for phase in scheme.phases()]
    assert len(set(names)) == len(names), f"{case.name}: phases share a name: {names}"
    losses = _step(case, scheme, _optimizers(scheme), batch, Progress(seed=0, epoch=0))
    classes = (case.info.num_classes,) if case.info.task == "classification" else ()
    expected = (batch.size, *classes)
    for what, prediction in (
        ("losses.output", losses.output.prediction),
        ("predict", _predict(scheme, batch)),
    ):
        assert tuple(prediction.shape) == expected, (
            f"{case.name}: {what} must give {expected}, got {tuple(prediction.shape)}"
        )
    assert _predict(scheme, batch).is_floating_point()


def check_exports(case: MethodCase) -> None:
    """The network's weights travel through safetensors into a fresh architecture, strictly."""
    from safetensors.torch import load, save

    scheme, batch = case.build(), case.mixed_batch()
    _step(case, scheme, _optimizers(scheme, learning_rate=1e-2), batch, Progress(seed=0, epoch=0))
    exported = save({name: v.contiguous() for name, v in scheme.network.state_dict().items()})
    fresh = case.build(seed=1, load_weights=False).network.eval()
    fresh.load_state_dict(load(exported), strict=True)
    with torch.no_grad():
        got = fresh(batch).prediction
    assert torch.equal(got, _predict(scheme, batch)), (
        f"{case.name}: an exported network must predict what its scheme predicts"
    )


METHOD_PARTS: Mapping[str, Callable[[MethodCase], None]] = {
    "padding invisible": check_padding_invisible,
    "neighbours invisible": check_neighbours_invisible,
    "batch of one": check_batch_of_one,
    "absent modalities": check_absent_modalities,
    "trains on a batch of one": check_trains_on_one,
    "trains without modalities": check_trains_without_modalities,
    "every parameter trained": check_every_parameter_trained,
    "every term trains": check_every_term_trains,
    "dropouts act": check_dropouts_act,
    "one batch overfits": check_one_batch_overfits,
    "resume bitwise": check_resume_bitwise,
    "usable modalities": check_usable_modalities,
    "phases": check_phases,
    "exports": check_exports,
}


def check_part(case: MethodCase, part: str) -> None:
    """Hold a method against one part of the contract.

    A part that the settings declare broken (``Method.known_violations``) must fail: a flaw that is
    copied on purpose stays known, and a declaration that is no longer true is found.

    Args:
        case: the method and its settings.
        part: one of ``METHOD_PARTS``.

    Raises:
        AssertionError: the part is broken, or is kept although it is declared broken.
    """
    declared = case.method.known_violations(case.config)
    unknown = sorted(set(declared) - set(METHOD_PARTS))
    assert not unknown, f"{case.name}: declares parts that do not exist: {', '.join(unknown)}"
    if part not in declared:
        METHOD_PARTS[part](case)
        return
    try:
        METHOD_PARTS[part](case)
    except AssertionError:
        return
    raise AssertionError(
        f"{case.name}: declares {part!r} broken ({declared[part]}), but these settings keep it"
    )


def check_method(name: str, *, config: Any | None = None, task: Task = "regression") -> None:
    """Hold a registered method against the contract every method keeps.

    In evaluation mode padding, neighbours and absent modalities' tensors are invisible (at most
    1e-5 in float32, 1e-10 in float64), a batch of one included; every parameter of the settings is
    trained by some phase; every term with a weight trains something; every dropout, and every
    setting of one, changes what a training step gives; one batch overfits; resuming is bitwise
    equal; a training step is finite whatever is absent; the network exports. Takes seconds on tiny
    generated data. What the settings declare broken is held to be broken, see ``check_part``.

    Args:
        name: a registered method.
        config: its settings; the defaults if None, with 2 layers each.
        task: regression or classification.

    Raises:
        AssertionError: the contract is broken; one sentence says where.
        UserError: no such method.
        ValueError: the method does not do this task.

    Example:
        >>> check_method("tecafn")  # the whole contract, silent when it is kept
        >>> with method_case("tecafn", task="classification") as case:  # one part of it
        ...     METHOD_PARTS["exports"](case)
    """
    with method_case(name, config=config, task=task) as case:
        for part in METHOD_PARTS:
            check_part(case, part)


def check_reader(name: str, source: Path, **options: Any) -> None:
    r"""Hold a registered reader against the contract every reader keeps.

    Two readings are equal; every sample has an id made of video and clip, a declared split, and
    float32 (L, D) frames of the described widths; source files are named with their hashes; the
    store gives back what the reader gave; a missing file is a ``UserError`` of one line.

    Args:
        name: a registered format.
        source: a small, well-formed source of it.
        options: fields of ``tecafn.data.ReadOptions``.

    Raises:
        AssertionError: the contract is broken; one sentence says where.
        UserError: no such format, or the reader refuses ``source``.

    Example:
        >>> folder = tempfile.TemporaryDirectory()
        >>> table = Path(folder.name) / "label.csv"
        >>> _ = table.write_text("video_id,clip_id,text,label,mode\na_b,1,fine,1.0,train\n")
        >>> check_reader("label-csv", table)
        >>> folder.cleanup()
    """
    from tecafn.core.errors import UserError
    from tecafn.data import ReadOptions, import_dataset, open_source
    from tecafn.data.samples import public_id

    chosen = ReadOptions(**options)
    described, stream = open_source(source, format=name, options=chosen)
    samples = list(stream)
    assert samples, f"{name}: the source must hold a sample"
    assert described.source_format == name, f"{name}: source_format is {described.source_format!r}"
    assert described.source_files, f"{name}: the files that were read must be named"
    again, second = open_source(source, format=name, options=chosen)
    assert again == described, f"{name}: two readings describe the source differently"
    for sample, repeated in zip(samples, second, strict=True):
        claim = f"{name}: sample {sample.id!r}"
        assert _same_sample(sample, repeated), f"{claim} differs between two readings"
        expected = public_id(sample.video, sample.clip)
        assert sample.id == expected, f"{claim} must have the id {expected!r}"
        assert sample.split in described.splits, f"{claim} has the split {sample.split!r}"
        for modality, frames in sample.sequences.items():
            width = described.widths.get(modality)
            assert str(frames.dtype) == "float32", f"{claim} has {modality} of {frames.dtype}"
            assert frames.shape[1:] == (width,), f"{claim} has {modality} of shape {frames.shape}"
    with tempfile.TemporaryDirectory() as folder:
        store = import_dataset(source, format=name, out=Path(folder) / "store", options=chosen)
        by_split = sorted(samples, key=lambda sample: described.splits.index(sample.split))
        for sample, kept in zip(by_split, store.samples(), strict=True):
            assert _same_sample(sample, kept), f"{name}: the store changes sample {sample.id!r}"
        message = ""
        try:
            open_source(Path(folder) / "missing", format=name, options=chosen)
        except UserError as error:
            message = str(error)
        assert message, f"{name}: a missing file must be a UserError"
        assert "\n" not in message, f"{name}: a missing file must be one line"


def _same_sample(one: Any, other: Any) -> bool:
    """Equal in every field; frames and times bit by bit, labels as float32."""
    for item in dataclasses.fields(one):
        if not item.compare:
            continue
        a, b = getattr(one, item.name), getattr(other, item.name)
        if item.name == "sequences":
            # A sequence without frames is an absent one, however it is said.
            a = {key: frames.tobytes() for key, frames in a.items() if len(frames)}
            b = {key: frames.tobytes() for key, frames in b.items() if len(frames)}
        elif item.name == "word_intervals":
            a, b = (None if value is None else value.tobytes() for value in (a, b))
        elif item.name in ("label", "oracle", "unimodal_labels"):
            a, b = _as_float32(a), _as_float32(b)
        if a != b:
            return False
    return True


def _as_float32(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_float32(item) for key, item in value.items()}
    return None if value is None else torch.tensor(value, dtype=torch.float32).item()
