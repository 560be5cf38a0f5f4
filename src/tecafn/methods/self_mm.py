"""Self-MM: a task for every modality, on labels made while training.

Yu et al., "Learning modality-specific representations with self-supervised multi-task learning for
multimodal sentiment analysis", AAAI 2021.

The text's [CLS] and the last LSTM states of audio and vision are joined for the multimodal answer.
Training adds a task for each modality; its labels are generated from the sample's label and from
where the modality's features lie, see ``losses.generated_labels``. The three heads belong to
training alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from tecafn.core.info import DataInfo
from tecafn.core.registry import METHODS, Method
from tecafn.core.settings import per_modality, select
from tecafn.layers.heads import task_heads
from tecafn.layers.utterance import UtteranceNetwork, UtteranceSettings
from tecafn.losses.generated_labels import UnimodalTasks, UnimodalTaskScheme


@dataclass(frozen=True, kw_only=True)
class SelfMMConfig:
    """Settings; the widths are those of the authors' public code for MOSI. The dropouts are ours.

    Args:
        audio_lstm_dim, vision_lstm_dim: widths of the LSTMs; those that MMSA (Mao et al. 2022) has.
        audio_dim, vision_dim: widths of the vectors made of their last states.
        fused_dim: width of the fused features.
        text_task_dim, audio_task_dim, vision_task_dim: widths of each task's features.
        first_weight: see ``losses.generated_labels.UnimodalTasks``; 0 is the paper's.
        fusion_dropout: of the joined vectors.
        task_dropout: of each task's vector.
    """

    audio_lstm_dim: int = 16
    vision_lstm_dim: int = 32
    audio_dim: int = 16
    vision_dim: int = 32
    fused_dim: int = 128
    text_task_dim: int = 64
    audio_task_dim: int = 16
    vision_task_dim: int = 32
    first_weight: float = 1.0
    fusion_dropout: float = 0.1
    task_dropout: float = 0.1


class SelfMMScheme(UnimodalTaskScheme):
    """The multimodal task's absolute error and each modality's weighted one.

    Ours, where the authors' code has something else: a label that was not generated yet counts
    ``first_weight``, 1 by default, where it counts nothing there for the whole first epoch; one
    optimizer step per batch, where the gradients of four are summed there; one rate for all but the
    text encoder. Labels in the middle of their range are in neither centre, as in MMSA's code.
    """

    def __init__(self, config: SelfMMConfig, info: DataInfo) -> None:
        network = UtteranceNetwork(select(config, UtteranceSettings), info)
        task_dims = per_modality(config, "task_dim")
        in_dims = network.joined.encoders.dims
        tasks = UnimodalTasks(
            task_heads(in_dims, task_dims, info, dropout=config.task_dropout),
            dims={m: task_dims[m] for m in in_dims},
            fused_dim=config.fused_dim,
            info=info,
            first_weight=config.first_weight,
        )
        super().__init__(network, tasks)


METHODS.register(
    "self_mm",
    Method(
        config=SelfMMConfig,
        build=SelfMMScheme,
        paper="Yu et al., Learning Modality-Specific Representations with Self-Supervised "
        "Multi-Task Learning for Multimodal Sentiment Analysis, AAAI 2021",
        basis="code",
        certified="the authors' code if first_weight = 0; by default early labels count fully",
        tasks=("regression",),
        summary="a task for each modality, on labels generated while training",
    ),
)
