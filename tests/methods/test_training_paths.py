"""What a training step drops out, and which parameters each loss reaches, typed in by hand.

Both tables hold for the settings' defaults with two layers in each transformer that the contract
makes shallow, on audio frames of 5 and vision frames of 7 columns and a text encoder of width 32.
A method that has no entry fails.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tecafn.methods  # noqa: F401  registers every method
from tecafn.core.output import Progress
from tecafn.core.registry import METHODS
from tecafn.testing import MethodCase, _dropouts, _optimizers, _step, method_case

# Of each setting, how often a step applies it to tensors of which width. Attention counts by the
# width of its queries; a layer drops its attention, its ReLU, and both changes of its stream.
DROPPED: dict[str, dict[str, dict[int, int]]] = {
    "tecafn": {
        "embedding_dropout": {30: 2},  # audio, vision
        "attention_dropout": {30: 8},  # two encoders and two fusions of two layers
        "relu_dropout": {120: 8},
        "residual_dropout": {30: 16},
        "mapper_dropout": {30: 6},  # f1, f2 and g of two pairs
        "head_dropout": {128: 2, 256: 1},
    },
    "concat": {
        "embedding_dropout": {30: 2},
        "attention_dropout": {30: 4},
        "relu_dropout": {120: 4},
        "residual_dropout": {30: 8},
        "head_dropout": {128: 2, 256: 1},
    },
    "tfn": {
        "text_dropout": {128: 1},  # the LSTM's last state
        "audio_dropout": {5: 1},  # the normalised mean of frames
        "vision_dropout": {7: 1},
        "fusion_dropout": {33 * 33 * 129: 1},
    },
    "lmf": {"text_dropout": {128: 1}, "audio_dropout": {5: 1}, "vision_dropout": {7: 1}},
    "mfn": {
        "attention_dropout": {32: 1},  # all seven frames at once
        "candidate_dropout": {64: 1},
        "retain_dropout": {256: 7},  # frame by frame
        "update_dropout": {32: 7},
        "output_dropout": {128: 1},
    },
    "mfm": {
        "attention_dropout": {32: 1},
        "candidate_dropout": {64: 1},
        "retain_dropout": {32: 7},
        "update_dropout": {64: 7},
        "joint_factor_dropout": {64: 1},
        "text_factor_dropout": {32: 1},
        "audio_factor_dropout": {16: 1},
        "vision_factor_dropout": {64: 1},
        "output_dropout": {64: 1},
    },
    "mult": {
        "input_dropout": {32: 1},  # text alone
        "embedding_dropout": {30: 12, 60: 3},  # queries and keys of six crossings; memories
        "text_attention_dropout": {30: 4, 60: 15},  # two crossings of two, three memories of five
        "audio_attention_dropout": {30: 4},
        "vision_attention_dropout": {30: 4},
        "relu_dropout": {120: 12, 240: 15},
        "residual_dropout": {30: 24, 60: 30},
        "output_dropout": {180: 1},
    },
    "misa": {"fusion_dropout": {128: 3, 64: 1}, "head_dropout": {384: 1}},
    "mag_bert": {"gate_dropout": {32: 1}, "head_dropout": {32: 1}},
    "mmim": {"frame_dropout": {16: 4}, "fusion_dropout": {64: 2}},  # in both phases
    "self_mm": {"fusion_dropout": {80: 1}, "task_dropout": {32: 2, 16: 1}},
    "mtmd": {"fusion_dropout": {80: 1}, "task_dropout": {32: 2, 16: 1}},  # none in the copies
    "tetfn": {
        "embedding_dropout": {30: 3},
        "attention_dropout": {30: 16, 60: 2},
        "relu_dropout": {120: 16, 240: 2},
        "residual_dropout": {30: 32, 60: 4},
        "output_dropout": {120: 1},
        "task_dropout": {30: 3},
    },
    "tmbl": {
        # What enters three private and three shared stacks; of twelve layers the attention's and
        # the feed-forward's answers, and weights over two places.
        "transformer_dropout": {256: 6 + 24, 2: 12},
        # Two MLPs of either communicator, for each of three modalities, behind both layers.
        "communicator_dropout": {64: 12, 2: 6, 256: 6},
        "fusion_dropout": {2 * (3 * 2 + 1): 1},
    },
    "iccn": {"frame_dropout": {32: 2}, "head_dropout": {64: 1}},
    "bimha": {"unimodal_dropout": {16: 3}, "attention_dropout": {64: 1}, "head_dropout": {192: 1}},
    "hcil": {"fusion_dropout": {768: 1}},
    "crnet": {"fusion_dropout": {512: 2}},  # as it is, and moved
    "tefna": {
        "embedding_dropout": {30: 4},  # text and the other, of two crossings
        "attention_dropout": {30: 4},
        "relu_dropout": {120: 4},
        "residual_dropout": {30: 8},
        "head_dropout": {128: 2, 256: 1},
    },
}

# Of each term, the modules all of whose parameters it reaches; it reaches no other. Of samples that
# lack nothing, so a learned vector in an absent modality's place is left out.
EVERYTHING = ("",)
STAND_INS = re.compile(r"\b(slots|absent|absent_core|absent_sources|absent_slots)\b")
REACHED: dict[str, dict[str, tuple[str, ...]]] = {
    "tecafn": {
        "task": ("network",),
        # Eq. 6: into both encoders, through both mappers.
        "ta": (
            *("network.encoders.text", "network.encoders.audio"),
            *("core_mappers.audio", "other_mappers.audio"),
        ),
        "tv": (
            *("network.encoders.text", "network.encoders.vision"),
            *("core_mappers.vision", "other_mappers.vision"),
        ),
        # Eq. 13-14: into the fusion and both encoders.
        "tap": (
            *("network.encoders.text", "network.encoders.audio"),
            *("network.attention.audio", "pair_heads.audio"),
        ),
        "tvp": (
            *("network.encoders.text", "network.encoders.vision"),
            *("network.attention.vision", "pair_heads.vision"),
        ),
        # Eq. 15-16: into both fusions and everything before them.
        "bicon": ("network.encoders", "network.attention", "fused_mappers"),
    },
    "mfm": {
        "task": ("network",),
        # From [f_y, f_m]: the joint factor and the modality's own.
        **{
            f"reconstruction_{m}": (
                *("network.frames", "network.fusion", "network.code", "network.factor"),
                f"generators.{m}",
            )
            for m in ("text", "audio", "vision")
        },
        # Of the codes, so no factor and no decoder.
        "discrepancy": (
            *("network.frames", "network.fusion", "network.code"),
            *(
                f"generators.{m}.{p}"
                for m in ("text", "audio", "vision")
                for p in ("encoder", "code")
            ),
        ),
    },
    "misa": {
        "task": ("network",),
        "difference": (
            *("network.frames", "network.encoders"),
            *("network.private", "network.shared"),
        ),
        "similarity": ("network.frames", "network.encoders", "network.shared"),
        "reconstruction": (
            *("network.frames", "network.encoders"),
            *("network.private", "network.shared", "decoders"),
        ),
    },
    "tmbl": {
        "task": EVERYTHING,
        "difference": (
            *("network.frames", "network.encoders", "network.private", "network.align"),
            *("network.private_communicator", "network.shared", "network.shared_communicator"),
        ),
        "similarity": (
            *("network.frames", "network.encoders"),
            *("network.shared", "network.shared_communicator"),
        ),
    },
    "mmim": {
        # The first phase fits the Gaussians to vectors that stand still, the second the vectors.
        "likelihood: log_density": ("gaussians",),
        "task": ("network",),
        "cpc": (
            *("network.frames", "network.recurrent", "network.project", "network.fusion"),
            "predictors",
        ),
        "log_density": ("network.frames", "network.recurrent", "network.project"),
        "entropy": ("network.recurrent", "network.project"),
    },
    "self_mm": {
        "task": ("network",),
        "text": ("network.frames", "tasks.heads.text"),
        "audio": ("network.joined.encoders.encoders.audio", "tasks.heads.audio"),
        "vision": ("network.joined.encoders.encoders.vision", "tasks.heads.vision"),
    },
    "tetfn": {
        "task": ("network",),
        "text": ("network.frames", "network.convolutions.text", "tasks.heads.text"),
        "audio": (
            *("network.recurrent.audio", "network.convolutions.audio"),
            "tasks.heads.audio",
        ),
        "vision": (
            *("network.recurrent.vision", "network.convolutions.vision"),
            "tasks.heads.vision",
        ),
    },
    "mtmd": {
        "task": ("network",),
        "text": ("network.frames", "tasks.heads.text"),
        "audio": ("network.joined.encoders.encoders.audio", "tasks.heads.audio"),
        "vision": ("network.joined.encoders.encoders.vision", "tasks.heads.vision"),
        "class": (
            *("network.frames", "network.joined.encoders", "network.joined.fuse", "classify"),
            *(f"tasks.heads.{m}.features" for m in ("text", "audio", "vision")),
        ),
        # Teachers, and copies, get nothing.
        **dict.fromkeys(
            ("distillation", "momentum"),
            (
                *("network.joined.encoders.encoders.audio", "tasks.heads.audio", "classify.audio"),
                *("network.joined.encoders.encoders.vision", "tasks.heads.vision"),
                "classify.vision",
            ),
        ),
    },
    "iccn": {
        "task": EVERYTHING,
        "correlation": ("network.frames", "network.vectors", "network.pairs"),
    },
    "hcil": {
        "task": ("network",),
        "intra": ("network.frames", "network.encoders"),
        "inter": ("network.frames", "network.encoders"),
        "interactive": ("network.frames", "network.encoders", "network.interactions"),
        "prediction": ("network.frames", "network.encoders", "predictors"),
    },
    "crnet": {
        "task": ("network",),
        "enhanced": ("network",),
        "coordination": (
            *("network.frames", "network.encoders"),
            *("network.audio", "network.vision"),
        ),
        "text": ("network.frames", "network.encoders.encoders.text", "heads.text"),
        # Through the step, so into text and the subspace, too.
        **{
            m: (
                *("network.frames", "network.encoders.encoders.text", f"network.{m}"),
                *(f"network.encoders.encoders.{m}", f"heads.{m}"),
            )
            for m in ("audio", "vision")
        },
    },
    "tefna": {
        "task": EVERYTHING,
        **{
            f"information_{m}": (
                *("network.frames", "network.convolutions.text"),
                f"network.convolutions.{m}",
            )
            for m in ("audio", "vision")
        },
    },
}
TASK_ALONE = {"concat", "tfn", "lmf", "mfn", "mult", "mag_bert", "bimha"}


@pytest.fixture(scope="module", params=METHODS)
def case(request: pytest.FixtureRequest) -> Iterator[MethodCase]:
    with method_case(request.param) as made:
        yield made


def test_a_step_drops_out_what_the_paper_does_and_as_often(case: MethodCase) -> None:
    names = [f.name for f in dataclasses.fields(case.config) if f.name.endswith("dropout")]
    assert set(names) == set(DROPPED.get(case.name, {})), f"{case.name}: type its dropouts in"
    distinct = {name: 0.2 + number / 100 for number, name in enumerate(names)}
    setting_of = {value: name for name, value in distinct.items()}
    config = dataclasses.replace(case.config, **distinct)
    scheme = dataclasses.replace(case, config=config).build()
    counts: dict[str, Counter[int]] = defaultdict(Counter)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        if module.training:
            counts[setting_of[getattr(module, attribute[module])]][inputs[0].shape[-1]] += 1

    attribute = {}
    for path, (module, name) in _dropouts(scheme).items():
        is_encoders = "text_encoder" in path  # which has its own, as it was pretrained
        if not is_encoders and getattr(module, name) > 0:
            attribute[module] = name
            module.register_forward_pre_hook(count, with_kwargs=True)
    for phase in scheme.phases():
        phase.loss(case.batch(8), Progress(seed=0, epoch=0))
    assert {name: dict(widths) for name, widths in counts.items()} == DROPPED[case.name]


def test_each_loss_reaches_what_it_must_and_nothing_else(case: MethodCase) -> None:
    assert case.name in REACHED or case.name in TASK_ALONE, f"{case.name}: type in what is reached"
    expected = REACHED.get(case.name) or {"task": EVERYTHING}
    scheme = case.build(dropout=False)
    parameters = {
        name: parameter
        for name, parameter in scheme.named_parameters()
        # The bias of a pretrained encoder's keys moves all scores alike: rounding alone.
        if parameter.requires_grad
        and not name.endswith("self.key.bias")
        and not STAND_INS.search(name)
    }
    must = {
        term: {
            n for n in parameters if any(f"{n}.".startswith(f"{m}.".lstrip(".")) for m in modules)
        }
        for term, modules in expected.items()
    }
    reached: dict[str, set[str]] = defaultdict(set)
    optimizers = _optimizers(scheme)
    for step in range(6):  # some terms begin with what earlier steps left
        batch, progress = case.batch(12, seed=step % 2), Progress(seed=0, epoch=step, step=step)
        for number, phase in enumerate(scheme.phases()):
            is_last = number == len(scheme.phases()) - 1
            for name, term in phase.loss(batch, progress).terms.items():
                found = reached[name if is_last else f"{phase.name}: {name}"]
                if term.requires_grad:
                    gradients = torch.autograd.grad(
                        term, list(parameters.values()), retain_graph=True, allow_unused=True
                    )
                    named = zip(parameters, gradients, strict=True)
                    found |= {n for n, g in named if g is not None and bool((g != 0).any())}
        if reached == must:
            return
        _step(case, scheme, optimizers, batch, progress)
    assert set(reached) == set(must)
    for title, names in must.items():
        assert names, f"{case.name}: {title} names no module of the method"
        assert sorted(reached[title] ^ names) == [], f"{case.name}: gradients of {title}"


def test_no_loss_trains_a_momentum_copy() -> None:
    with method_case("mtmd") as case:
        copies = case.build().get_submodule("copies")
        assert list(copies.parameters())
        assert not any(parameter.requires_grad for parameter in copies.parameters())
