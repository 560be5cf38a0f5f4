"""How many threads train a scheme on the CPU, and that they add up alike in every run.

More threads than one pay where operations are large. In the small networks of this field most
take some microseconds, less than it takes to wake a second thread. Which it is is counted and not
timed: the number of threads decides in which order numbers are added, so that a run which chose
anew by the clock could not be repeated bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tecafn.core.batch import Batch
from tecafn.core.scheme import Scheme
from tecafn.core.threads import user_chose_number

# What one core does in a second, and what any operation costs beside, to an order of magnitude.
_FLOPS = 2e10
_OPERATION_SECONDS = 5e-6
# A core needs some milliseconds for it: sharing it saves more than waking a thread costs.
_LARGE_FLOPS = 1e8


class _CountedWork(TorchDispatchMode):
    """Estimated seconds of one core: of all operations, and of the large ones among them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = 0.0
        self.large_seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        flops = float(count(*args, **(kwargs or {}), out_val=out)) if count else 0.0
        if not count and isinstance(out, Tensor):
            flops = float(out.numel())
        seconds = _OPERATION_SECONDS + flops / _FLOPS
        self.seconds += seconds
        if flops >= _LARGE_FLOPS:
            self.large_seconds += seconds
        return out


def num_threads_for(scheme: Scheme, batch: Batch) -> int:
    """1, or as many as torch would take: the same for the same scheme and batch.

    Args:
        scheme: on the CPU; one batch is predicted with it, in evaluation mode, which leaves no
            trace in it and draws no random number.
        batch: of the training split.

    Returns:
        What ``torch.get_num_threads()`` says where the environment names a number, or where most of
        the time would go into operations of 100 million floating-point operations or more; else 1.
    """
    possible = torch.get_num_threads()
    if possible == 1 or user_chose_number() or not batch.size:
        return possible
    was_training = scheme.training
    scheme.eval()
    try:
        with torch.no_grad(), _CountedWork() as work:
            scheme.predict(batch)
    finally:
        scheme.train(was_training)
    return possible if work.large_seconds > work.seconds / 2 else 1


@contextmanager
def repeatable_arithmetic(device: torch.device) -> Iterator[None]:
    """Meanwhile several threads of a CPU add up in one order, and their number is put back after.

    Without it the gradient of an indexed tensor is added up by all threads at once, in the order in
    which they come, and two runs of one seed differ in the last digits. An operation that has no
    such form says so in a warning. On other devices nothing is changed.
    """
    if device.type != "cpu":
        yield
        return
    number = torch.get_num_threads()
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.set_num_threads(number)
